//! `cargo xtask bench`: how fast Cresset is.
//!
//! ```text
//! bench relay   real relay (release) ◀═ link, feed, /metrics ═▶ cresset-bench   a table of rates, latencies, CPU, memory
//! bench sinks   each sink alone ─▶ a fast fake in a process of its own           events a second, CPU an event, memory
//! bench micro   cresset-count under callgrind, N and 2N events  ─▶ instructions an event ─▶ bench/baseline.json
//! bench policy  policies in a loop, no relay and no kernel      ─▶ a table of times
//! ```
//! The first says what a machine can do, and is noise on a busy one. The second is the same on every machine, so a test
//! can hold code to it. What they drive are programs of their own, so that other commands of xtask need not be built with
//! gRPC and the journal, and what counts not with the destinations.

mod args;
mod micro;

use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;

use crate::workspace;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Drive the relay over its real protocols and print what it does
    Relay(args::RelayArgs),
    /// Edit one policy of 5,000 under 1,000 sensors; the same as `relay distribute`
    Distribute(args::RelayArgs),
    /// Drive each sink alone and print what an event costs
    Sinks(args::SinksArgs),
    /// Count the instructions of its parts with callgrind
    Micro(args::MicroArgs),
    /// Ten thousand policies from text to verdict
    Policy,
}

pub(crate) use micro::missing;

pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.command {
        Command::Relay(args) => relay(args),
        Command::Distribute(args) => relay(&args.clone().only(args::Case::Distribute)),
        Command::Sinks(args) => sinks(args),
        Command::Micro(args) => micro::run(args),
        Command::Policy => policy(),
    }
}

fn policy() -> Result<()> {
    let measured = [
        "run",
        "--profile",
        "measure",
        "--package",
        "policy",
        "--example",
        "bench",
    ];
    workspace::check(workspace::cargo().args(measured))
}

fn relay(args: &args::RelayArgs) -> Result<()> {
    let program = match &args.program {
        Some(program) => program.clone(),
        None => release_relay()?,
    };
    let folder = args.folder.clone();
    let folder = folder.unwrap_or_else(|| workspace::target().join("bench"));
    let mut bench = std::process::Command::new(measured("cresset-bench", "bench")?);
    bench.arg("relay");
    for case in args.cases() {
        bench.arg(case.to_string());
    }
    bench
        .arg("--program")
        .arg(program)
        .arg("--folder")
        .arg(folder);
    bench.args(["--rows", &args.rows]);
    bench.args(["--seconds", &args.seconds.to_string()]);
    bench.args(["--gib", &args.gib.to_string()]);
    bench.args(["--seed", &args.seed.to_string()]);
    bench.args(["--policies", &args.policies.to_string()]);
    bench.args(["--sensors", &args.sensors.to_string()]);
    if args.real {
        bench.arg("--real");
    }
    if let Some(path) = &args.json {
        bench.arg("--json").arg(path);
    }
    workspace::check(&mut bench)
}

fn sinks(args: &args::SinksArgs) -> Result<()> {
    let folder = args.folder.clone();
    let folder = folder.unwrap_or_else(|| workspace::target().join("bench"));
    let mut bench = std::process::Command::new(measured("cresset-bench", "bench")?);
    bench.arg("sinks");
    for case in args.cases() {
        bench.arg(case.to_string());
    }
    bench.arg("--folder").arg(folder);
    bench.args(["--seconds", &args.seconds.to_string()]);
    if args.real {
        bench.arg("--real");
    }
    if let Some(path) = &args.json {
        bench.arg("--json").arg(path);
    }
    workspace::check(&mut bench)
}

/// The relay as users build it.
fn release_relay() -> Result<PathBuf> {
    workspace::check(workspace::cargo().args(["build", "--release", "--bin", "cresset-relay"]))?;
    Ok(workspace::target().join("release/cresset-relay"))
}

/// A program that measures, and the feature that it needs.
fn measured(name: &str, feature: &str) -> Result<PathBuf> {
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--profile", "measure", "--package", "xtask"]);
    cargo.args(["--features", feature, "--bin", name]);
    workspace::check(&mut cargo)?;
    Ok(workspace::target().join("measure").join(name))
}
