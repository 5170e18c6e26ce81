//! The project's automation: `cargo xtask COMMAND`. One module a command.

mod bench;
mod deps;
mod fuzz;
mod generate;
mod skips;
mod soak;
mod test;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's automation.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure the relay, or count the instructions of its parts
    Bench(bench::Args),
    /// Hold the crates to the dependency table of ARCHITECTURE.md
    Deps,
    /// Feed the readers of bytes that others wrote with what they do not expect
    Fuzz(fuzz::Args),
    /// Write the files that come from tables in the code, or hold them to those
    Generate(generate::Args),
    /// Run the tests that get better the longer they run, with numbers of one's own
    Soak(soak::Args),
    /// Run every suite and count what passed, failed and was skipped
    Test(test::Args),
    /// Boot a Debian cloud kernel under qemu and run a suite in it as init
    Vm(vm::Args),
}

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Bench(args) => bench::run(&args),
        Command::Deps => deps::run(),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::Soak(args) => soak::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Vm(args) => vm::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
