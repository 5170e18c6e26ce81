//! `cargo xtask test`: every suite, in the order cheap to dear, with one closing line that counts.
//!
//! ```text
//! format ─▶ dependency table ─▶ lints ─▶ build ─▶ test programs, some at a time ─▶ virtual machines
//!                                                 instructions an event, beside them
//! ```
//! Half of a test's time is waiting (for a server to start, a lease to end, a disk), so the programs run beside one
//! another, and the one build that nothing waits for takes what they leave of the processor. The virtual machines come
//! last and one by one: an emulated kernel needs all there is.

mod pool;
mod programs;
mod tally;

use std::process::Command;

use anyhow::{Context, Result};

use crate::skips::{Ledger, Skip, VARIABLE};
use crate::{bench, deps, vm, workspace};
use pool::{Ended, Job};
use programs::Program;
use tally::Tally;

/// The program that `cargo xtask bench` runs is held to the same lints and tests.
const BENCH: &str = "xtask/bench";
/// Programs of tests at a time, if nothing else is said: of two, one mostly waits.
const AT_A_TIME: usize = 2;
const INSTRUCTIONS: &str = "instructions an event";

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only what needs no root, no virtual machine and no server
    #[arg(long)]
    quick: bool,
    /// A skip of something that this machine can do is a failure
    #[arg(long, env = "CI", value_parser = clap::builder::FalseyValueParser::new())]
    strict: bool,
    /// Programs of tests at a time
    #[arg(long, default_value_t = AT_A_TIME, value_parser = at_least_one)]
    jobs: usize,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least one program has to run".to_owned()),
        Ok(jobs) => Ok(jobs),
        Err(wrong) => Err(format!("a number of programs, such as 2: {wrong}")),
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let ledger = Ledger::create()?;
    let mut tally = Tally::default();
    tally.step("format", |_| {
        workspace::check(workspace::cargo().args(["fmt", "--all", "--", "--check"]))
    });
    tally.step("dependency table", |_| deps::run());
    tally.step("lints", |_| lints());
    let built = tally.step("tests: build", |_| programs::build());
    if let Some(programs) = built {
        let beside = tally.step("tests: run", |tally| tests(args, programs, &ledger, tally));
        if let Some(Some(instructions)) = beside {
            tally.beside(&instructions);
        }
    }
    if !args.quick {
        for kernel in vm::KERNELS {
            let name = format!("virtual machine, kernel {kernel}, BPF LSM on");
            tally.step(&name, |tally| virtual_machine(kernel, tally));
        }
    }
    tally.skips(ledger.read()?);
    tally.report(args.strict && !args.quick)
}

fn lints() -> Result<()> {
    let mut cargo = workspace::cargo();
    cargo.args(["clippy", "--workspace", "--all-targets", "--quiet"]);
    cargo.args(["--features", BENCH, "--", "-D", "warnings"]);
    workspace::check(&mut cargo)
}

/// Runs the programs, and what may run beside them; that comes back, if it ran.
fn tests(
    args: &Args,
    programs: Vec<Program>,
    ledger: &Ledger,
    tally: &mut Tally,
) -> Result<Option<Ended>> {
    let beside = match args.quick {
        true => None,
        false => instructions(tally)?,
    };
    let mut jobs: Vec<Job> = programs.into_iter().map(Program::job).collect();
    jobs.push(documentation());
    for job in &mut jobs {
        job.command.env(VARIABLE, ledger.path());
        if args.quick {
            job.command.env("CRESSET_QUICK", "1");
        }
    }
    let mut instructions = None;
    pool::run(jobs, args.jobs, beside, |ended| match ended {
        Ok(ended) if ended.name == INSTRUCTIONS => instructions = Some(ended),
        Ok(ended) => tally.program(&ended),
        Err(error) => tally.wrong(&error),
    })?;
    Ok(instructions)
}

/// What counts instructions is a build of its own, which gives way to the tests.
fn instructions(tally: &mut Tally) -> Result<Option<Job>> {
    if let Some(reason) = bench::missing() {
        tally.skips([Skip::new("valgrind", "bench micro", &reason)]);
        return Ok(None);
    }
    let this = std::env::current_exe().context("where this program is")?;
    let mut command = Command::new("nice");
    command.arg(this).args(["bench", "micro", "--check"]);
    Ok(Some(Job {
        name: INSTRUCTIONS.to_owned(),
        command,
    }))
}

fn documentation() -> Job {
    let mut command = workspace::cargo();
    command.args(["test", "--workspace", "--features", BENCH]);
    command.args(["--doc", "--no-fail-fast"]);
    Job {
        name: "examples in the documentation".to_owned(),
        command,
    }
}

fn virtual_machine(kernel: &str, tally: &mut Tally) -> Result<()> {
    let suite = format!("vm {kernel}");
    match vm::missing() {
        Some(reason) => tally.skips([Skip::new("qemu", &suite, &reason)]),
        None => {
            vm::run(&vm::Args::with_lsm(kernel))?;
            tally.pass();
        }
    }
    Ok(())
}
