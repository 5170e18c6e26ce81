//! `cargo xtask fuzz`: the targets of the `fuzz` crate under libFuzzer.
//!
//! It needs no nightly compiler and no other program: coverage is counted by a pass of the compiler's own, and address
//! checks are left out because the targets are safe Rust. What a run finds goes to a folder of its own; what is worth
//! keeping is put into `fuzz/corpus` by hand (`--merge` shows the least that covers the same).

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace;

/// What the compiler adds so that libFuzzer sees where an input led, as cargo-fuzz has it.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-simplifycfg-branch-fold-threshold=0";
/// Has a target's program write its seeds into that folder (`fuzz::SEEDS`).
const SEEDS: &str = "CRESSET_FUZZ_SEEDS";
const TRIPLE: &str = "x86_64-unknown-linux-gnu";
const TARGETS: [&str; 7] = [
    "segment", "cursor", "batch", "config", "filter", "policy", "rules",
];

/// What to feed, and how long.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// These targets: segment, cursor, batch, config, filter, policy, rules [default: all, one after the other]
    targets: Vec<String>,
    /// How long each
    #[arg(long, default_value_t = 300)]
    seconds: u64,
    /// Afterwards, keep the least of what was found that covers as much
    #[arg(long)]
    merge: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(strange) = args.targets.iter().find(|t| !TARGETS.contains(&t.as_str())) {
        bail!("{strange} is no target; there are {}", TARGETS.join(", "));
    }
    let all: Vec<&str> = match args.targets.is_empty() {
        true => TARGETS.to_vec(),
        false => args.targets.iter().map(String::as_str).collect(),
    };
    build()?;
    all.into_iter().try_for_each(|target| one(target, args))
}

fn folder() -> PathBuf {
    workspace::target().join("fuzz")
}

fn build() -> Result<()> {
    let mut cargo = workspace::cargo();
    cargo
        .args(["build", "-p", "fuzz", "--features", "libfuzzer", "--bins"])
        .args(["--profile", "fuzz", "--target", TRIPLE, "--target-dir"])
        .arg(folder())
        .env("RUSTFLAGS", COVERAGE);
    workspace::check(&mut cargo)
}

fn program(name: &str) -> Command {
    Command::new(folder().join(TRIPLE).join("fuzz").join(name))
}

fn one(target: &str, args: &Args) -> Result<()> {
    let found = folder().join("found").join(target);
    let least = folder().join("least").join(target);
    let failures = folder().join("failures").join(target);
    for made in [&found, &least, &failures] {
        std::fs::create_dir_all(made).with_context(|| format!("cannot make {}", made.display()))?;
    }
    workspace::check(program(target).env(SEEDS, &found))?;
    println!("=== {target}, {} s", args.seconds);
    let kept = workspace::root().join("fuzz/corpus").join(target);
    let mut fuzz = program(target);
    fuzz.arg(format!("-max_total_time={}", args.seconds))
        .arg("-max_len=65536")
        .arg("-timeout=30")
        .arg("-rss_limit_mb=1024")
        .arg("-print_final_stats=1")
        .arg("-verbosity=1")
        .arg(format!("-artifact_prefix={}/", failures.display()))
        .arg(&found)
        .arg(&kept);
    workspace::check(&mut fuzz)
        .with_context(|| format!("the input is in {}", failures.display()))?;
    if args.merge {
        let mut merge = program(target);
        merge.arg("-merge=1").args([&least, &found, &kept]);
        workspace::check(&mut merge)?;
        println!("the least that covers as much: {}", least.display());
    }
    Ok(())
}
