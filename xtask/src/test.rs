//! `cargo xtask test`: every suite, in the order cheap to dear, with one closing line that counts.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::skips::{Ledger, Skip, VARIABLE};
use crate::{bench, deps, vm, workspace};

/// The program that `cargo xtask bench` runs is held to the same lints and tests.
const BENCH: &str = "xtask/bench";

/// Each test program runs under it, so that one that hangs is a failure with a name and not a run without an end.
const RUNNER: &str =
    r#"target."cfg(all())".runner = ["timeout", "--kill-after=10", "--signal=ABRT", "900"]"#;

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only what needs no root, no virtual machine and no server
    #[arg(long)]
    quick: bool,
    /// A skip of something that this machine can do is a failure
    #[arg(long, env = "CI", value_parser = clap::builder::FalseyValueParser::new())]
    strict: bool,
}

#[derive(Default)]
struct Tally {
    passed: u64,
    failed: u64,
    suites: Vec<String>,
    skips: Vec<Skip>,
}

impl Tally {
    fn step(&mut self, name: &str, run: impl FnOnce(&mut Self) -> Result<()>) {
        println!("\n=== {name}");
        let start = Instant::now();
        let verdict = match run(self) {
            Ok(()) => "ok".to_owned(),
            Err(error) => {
                self.failed += 1;
                eprintln!("{error:#}");
                "FAILED".to_owned()
            }
        };
        self.suites.push(format!(
            "{verdict:>7}  {:>6.1}s  {name}",
            start.elapsed().as_secs_f32()
        ));
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let ledger = Ledger::create()?;
    let mut tally = Tally::default();
    tally.step("format", |_| {
        workspace::check(workspace::cargo().args(["fmt", "--all", "--", "--check"]))
    });
    tally.step("dependency table", |_| deps::run());
    tally.step("lints", |_| {
        workspace::check(workspace::cargo().args([
            "clippy",
            "--workspace",
            "--all-targets",
            "--features",
            BENCH,
            "--quiet",
            "--",
            "-D",
            "warnings",
        ]))
    });
    tally.step("tests", |tally| {
        let mut cargo = workspace::cargo();
        cargo
            .args(["test", "--workspace", "--no-fail-fast", "--features", BENCH])
            .args(["--config", RUNNER])
            .env(VARIABLE, ledger.path());
        if args.quick {
            cargo.env("CRESSET_QUICK", "1");
        }
        counted(&mut cargo, tally)
    });
    if !args.quick {
        tally.step("instructions an event", instructions);
        for kernel in vm::KERNELS {
            tally.step(
                &format!("virtual machine, kernel {kernel}, BPF LSM on"),
                |tally| virtual_machine(kernel, tally),
            );
        }
    }
    tally.skips.extend(ledger.read()?);
    report(&tally, args)
}

fn instructions(tally: &mut Tally) -> Result<()> {
    match bench::missing() {
        Some(reason) => tally
            .skips
            .push(Skip::new("valgrind", "bench micro", &reason)),
        None => {
            bench::check_micro()?;
            tally.passed += 1;
        }
    }
    Ok(())
}

fn virtual_machine(kernel: &str, tally: &mut Tally) -> Result<()> {
    let suite = format!("vm {kernel}");
    match vm::missing() {
        Some(reason) => tally.skips.push(Skip::new("qemu", &suite, &reason)),
        None => {
            vm::run(&vm::Args::with_lsm(kernel))?;
            tally.passed += 1;
        }
    }
    Ok(())
}

/// Runs `cargo test`, passing its output on, and adds up its `test result:` lines.
fn counted(cargo: &mut Command, tally: &mut Tally) -> Result<()> {
    let mut child = cargo
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo test")?;
    let stdout = child
        .stdout
        .take()
        .context("cargo test has no standard output")?;
    let mut failed = 0;
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        println!("{line}");
        if let Some(counts) = line.strip_prefix("test result: ") {
            let count = |word: &str| {
                counts
                    .split([';', '.'])
                    .find_map(|part| part.trim().strip_suffix(word)?.trim().parse::<u64>().ok())
                    .unwrap_or(0)
            };
            tally.passed += count("passed");
            failed += count("failed");
        }
    }
    tally.failed += failed;
    if !child.wait()?.success() && failed == 0 {
        bail!("cargo test failed before its tests ran");
    }
    Ok(())
}

fn report(tally: &Tally, args: &Args) -> Result<()> {
    println!("\n=== summary");
    for suite in &tally.suites {
        println!("{suite}");
    }
    let mut failed = tally.failed;
    for skip in &tally.skips {
        let wrong = args.strict && !args.quick && skip.is_avoidable();
        failed += u64::from(wrong);
        println!(
            "{skip}{}",
            if wrong {
                " — FAILED: this machine can run it"
            } else {
                ""
            }
        );
    }
    println!(
        "{} passed, {failed} failed, {} skipped",
        tally.passed,
        tally.skips.len()
    );
    if failed > 0 {
        bail!("{failed} failed");
    }
    Ok(())
}
