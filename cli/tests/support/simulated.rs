//! What `cresset policy simulate -o json` foretells of single operations.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]
#![allow(clippy::expect_used)] // reason: a test that cannot go on has failed

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use super::program;

/// Simulates the policies of `file` on the last ten minutes of the relay at `feed`.
pub fn simulate(feed: &str, file: &Path, extra: &[&str]) -> Output {
    let mut command = program("cresset");
    command
        .args([
            "policy", "simulate", "--since", "10m", "--root", "/", "-o", "json",
        ])
        .args(["--relay", feed])
        .args(extra)
        .arg(file);
    command.output().expect("cresset policy simulate")
}

/// The outcome of the row that has an operation among its samples whose text is one of these.
fn foretold(result: &Value, is: impl Fn(&str) -> bool) -> Option<String> {
    let workloads = result["workloads"].as_array()?.iter();
    let mut verdicts = workloads
        .flat_map(|one| one["verdicts"].as_array())
        .flatten();
    let named = |sample: &Value| is(sample["operation"].as_str().unwrap_or_default());
    let row = verdicts.find(|row| row["samples"].as_array().into_iter().flatten().any(named))?;
    Some(row["verdict"]["outcome"].as_str()?.to_owned())
}

/// What the simulation says of running a program.
pub fn predicted(result: &Value, program: &str) -> Option<String> {
    // Who starts it has its name among the arguments.
    foretold(result, |text| text.split(' ').nth(1) == Some(program))
}

/// What the simulation says of the operation whose sample begins so and has this in it.
pub fn outcome(result: &Value, begins: &str, has: &str) -> Option<String> {
    foretold(result, |text| {
        text.starts_with(begins) && text.contains(has)
    })
}
