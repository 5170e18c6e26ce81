//! `cresset-bench`: what `cargo xtask bench` builds and runs. It drives the real relay over its real protocols, or sinks
//! alone.

mod cases;
mod clock;
mod disk;
mod events;
mod header;
mod measure;
mod readers;
mod relay;
mod scene;
mod sensors;
mod sinks;
mod table;
mod wire;
mod words;

#[path = "../args.rs"]
mod args;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

use args::{RelayArgs, SinksArgs};
use scene::Bench;
use table::Row;

/// Measures Cresset.
#[derive(Parser)]
#[command(name = "cresset-bench")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure the relay
    Relay(RelayArgs),
    /// Measure sinks alone
    Sinks(SinksArgs),
    /// Be the destination that `sinks` measures against: prints its address, ends with its standard input
    Fake {
        /// Which
        kind: args::FakeKind,
    },
}

/// 0: measured, and all was right. 1: something was wrong or could not be measured.
fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Relay(args) => relay_cases(&args),
        Command::Sinks(args) => sink_cases(&args),
        Command::Fake { kind } => sinks::be_fake(kind).map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cresset-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all cases were right.
#[tokio::main]
async fn relay_cases(args: &RelayArgs) -> Result<bool> {
    let bench = Bench {
        program: args.program.clone().context("--program is missing")?,
        folder: args.folder.clone().context("--folder is missing")?,
        rows: args.rows.clone(),
        seconds: args.seconds,
        gib: args.gib,
        seed: args.seed,
        policies: args.policies as usize,
        sensors: args.sensors as usize,
        real: args.real,
    };
    let header = header::read(&bench)?;
    println!("{}", header.text);
    let mut all: Vec<Row> = Vec::new();
    for case in args.cases() {
        eprintln!("{case} …");
        let rows = cases::run(case, &bench).await.unwrap_or_else(|error| {
            let mut row = Row::new("case", case.to_string());
            row.failed(format!("{error:#}"));
            vec![row]
        });
        println!("{}", table::render(&rows));
        all.extend(rows);
    }
    write_json(args.json.as_deref(), &header.json, &all)?;
    Ok(all.iter().all(Row::is_right))
}

/// The same for sinks alone.
#[tokio::main]
async fn sink_cases(args: &SinksArgs) -> Result<bool> {
    let bench = Bench {
        program: PathBuf::new(),
        folder: args.folder.clone().context("--folder is missing")?,
        rows: String::new(),
        seconds: args.seconds,
        gib: 0.0,
        seed: 1,
        policies: 0,
        sensors: 0,
        real: args.real,
    };
    let header = header::read(&bench)?;
    println!("{}", header.text);
    let mut all: Vec<Row> = Vec::new();
    let options = sinks::Options {
        seconds: bench.seconds,
        folder: bench.folder.clone(),
        real: args.real,
    };
    for case in args.cases() {
        eprintln!("{case} …");
        let rows = sinks::run(case, &options).await?;
        println!("{}", table::render(&rows));
        all.extend(rows);
    }
    write_json(args.json.as_deref(), &header.json, &all)?;
    Ok(all.iter().all(Row::is_right))
}

fn write_json(path: Option<&Path>, header: &serde_json::Value, rows: &[Row]) -> Result<()> {
    let Some(path) = path else {
        return Ok(());
    };
    let rows: Vec<_> = rows.iter().map(Row::to_json).collect();
    let json = serde_json::json!({"header": header, "rows": rows});
    std::fs::write(path, serde_json::to_vec_pretty(&json)?)
        .with_context(|| path.display().to_string())
}
