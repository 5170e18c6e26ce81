//! `cresset-bench`: what `cargo xtask bench` builds and runs. It drives the real relay over its real protocols, or one
//! piece of code in a loop under callgrind.

mod cases;
mod clock;
mod disk;
mod events;
mod header;
mod measure;
mod micro;
mod readers;
mod relay;
mod scene;
mod sensors;
mod table;
mod wire;
mod words;

#[path = "../args.rs"]
mod args;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

use args::{MicroCase, RelayArgs};
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
    /// Go over so many events, to be counted by callgrind
    Micro {
        /// What to do with them
        case: MicroCase,
        /// A multiple of 1000
        events: usize,
        /// An empty folder
        folder: PathBuf,
    },
}

/// 0: measured, and all was right. 1: something was wrong or could not be measured.
fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Relay(args) => relay_cases(&args),
        Command::Micro {
            case,
            events,
            folder,
        } => micro::run(case, events, &folder).map(|()| true),
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
    if let Some(path) = &args.json {
        let rows: Vec<_> = all.iter().map(Row::to_json).collect();
        let json = serde_json::json!({"header": header.json, "rows": rows});
        std::fs::write(path, serde_json::to_vec_pretty(&json)?)
            .with_context(|| path.display().to_string())?;
    }
    Ok(all.iter().all(Row::is_right))
}
