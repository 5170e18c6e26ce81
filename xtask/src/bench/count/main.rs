//! `cresset-count`: what `cargo xtask bench micro` builds and runs under callgrind, one piece of code in a loop.
//!
//! Apart from `cresset-bench`, because every `make test` builds it, optimised: with what it counts and nothing else it takes
//! half of the time. Hence also the filter by its file and not by its crate, which would bring every destination along.

mod micro;

#[path = "../args.rs"]
mod args;
#[path = "../program/events.rs"]
#[allow(dead_code, reason = "the load generator uses more of it")]
mod events;
#[path = "../../../../exporters/src/filter.rs"]
#[allow(dead_code, unreachable_pub, reason = "sinks use all of it")]
mod filter;
#[path = "../program/wire.rs"]
#[allow(dead_code, reason = "the load generator uses more of it")]
mod wire;
#[path = "../program/words.rs"]
mod words;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Goes over so many events, to be counted by callgrind.
#[derive(Parser)]
#[command(name = "cresset-count")]
struct Args {
    /// What to do with them
    case: args::MicroCase,
    /// A multiple of 1000
    events: usize,
    /// An empty folder
    folder: PathBuf,
}

fn main() -> ExitCode {
    let Args {
        case,
        events,
        folder,
    } = Args::parse();
    match micro::run(case, events, &folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cresset-count: {error:#}");
            ExitCode::FAILURE
        }
    }
}
