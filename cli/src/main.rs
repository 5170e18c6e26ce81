//! `cresset`: what people type. One module a command.

mod config;
mod connect;
mod demo;
mod dlq;
mod import;
mod journal;
mod logs;
mod policy;
mod print;
mod run;
mod sensor;
mod sink;
mod status;
mod support;
mod table;
mod tap;
mod tls;
mod token;
mod top;
mod trace;
mod up;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use connect::Trouble;

/// Sees what workloads do, stops what policy forbids, and tells everyone who watches.
///
/// Start here: `cresset up` (as root) runs a relay and a sensor on this machine; `cresset run -l app=web -- COMMAND` runs a command
/// under its policies; `cresset logs` shows what happens.
#[derive(Parser)]
#[command(
    name = "cresset",
    version,
    max_term_width = 110,
    after_help = "Exits with 0 when all is fine, 1 when there are problems, 2 on wrong usage, 3 when it could not reach what it \
    needs; `cresset run` with its command's status."
)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a relay and, where the kernel allows it, a sensor on this machine
    Up(up::UpArgs),
    /// Run a command as a labelled workload, under the policies that select it
    #[command(
        after_help = "Example:\n  cresset run -n shop -l app=cart -- /usr/bin/env bash\n\n\
        Exits with COMMAND's status (128 + n when a signal ended it), 3 when no sensor answers."
    )]
    Run(run::RunArgs),
    /// Watch alerts and logs, live or from history
    Logs(logs::LogsArgs),
    /// Show relay, sensors, policies, sinks and losses
    Status(status::StatusArgs),
    /// Watch sensors, sinks and journal, live
    Top(top::TopArgs),
    /// Say where events are: spool, journal, every sink
    #[command(
        after_help = "Examples:\n  cresset trace 0badc0de00000001000000000000002a\n  cresset trace --from-file ids.txt -o json | jq 'select(.received | not)'\n\nIds stand in `cresset logs --json --fields all` (EventID), in \
        Elasticsearch as _id, in Kafka as a header.\nExits with 0 when every event is somewhere, 1 when one is not."
    )]
    Trace(trace::TraceArgs),
    /// Gather what a report of a problem needs, without secrets, in one file
    SupportBundle(support::BundleArgs),
    /// Feed recorded events (JSON lines) to the relay
    #[command(
        after_help = "Examples:\n  cresset import examples/events.jsonl\n  cresset logs --since 1h --filter all --json | \
        cresset import --data /srv/other -"
    )]
    Import(import::ImportArgs),
    /// Look into, verify, repair, snapshot or restore a journal on disk
    #[command(
        after_help = "Exits with 0 when all is fine, 1 when there are problems, 3 when there is no journal to open."
    )]
    Journal(journal::JournalArgs),
    /// List sensors, or forget one that will not come back
    Sensor(sensor::SensorArgs),
    /// List, prepare, try or steer sinks
    Sink(sink::SinkArgs),
    /// Look into, retry or drop what a destination refused for good
    Dlq(dlq::DlqArgs),
    /// Look on while a sink sends
    Tap(tap::TapArgs),
    /// Check, explain, test and compare policies
    Policy(policy::PolicyArgs),
    /// Make, list or revoke tokens with which sensors join
    Token(token::TokenArgs),
    /// Show certificates and when they end
    Tls(tls::TlsArgs),
    /// Check, show or explain the configuration file
    Config(config::ConfigArgs),
}

/// 0: fine. 1: problems found. 2: wrong usage. 3: could not reach.
fn main() -> ExitCode {
    match Args::parse().command {
        // Before any thread is started: it makes its child by hand.
        Command::Run(args) => run::run(args),
        Command::Journal(args) => ended(journal::run(args)),
        Command::Tls(args) => ended(tls::run(&args)),
        Command::Up(args) => {
            relay::bound_arenas();
            within(up::up(args))
        }
        Command::Logs(args) => within(logs::logs(args)),
        Command::Status(args) => within(status::status(args)),
        Command::Import(args) => within(import::import(args)),
        Command::Config(args) => within(config::config(args)),
        Command::Top(args) => within(top::top(args)),
        Command::Trace(args) => within(trace::trace(args)),
        Command::SupportBundle(args) => within(support::bundle(args)),
        Command::Sensor(args) => within(sensor::sensor(args)),
        Command::Sink(args) => within(sink::sink(args)),
        Command::Dlq(args) => within(dlq::dlq(args)),
        Command::Tap(args) => within(tap::tap(args)),
        Command::Token(args) => within(token::token(args)),
        Command::Policy(args) => within(policy::policy(args)),
    }
}

/// For threads that wait for a terminal, a disk or a broker when all is done. Nothing hangs on them: what had to be kept is kept.
const LAST_THREADS: Duration = Duration::from_secs(1);

/// Runs a command that speaks to others, and says what went wrong.
fn within(command: impl Future<Output = Result<ExitCode, Trouble>>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cresset: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = ended(runtime.block_on(command));
    runtime.shutdown_timeout(LAST_THREADS);
    ended
}

fn ended(command: Result<ExitCode, Trouble>) -> ExitCode {
    command.unwrap_or_else(|trouble| {
        eprintln!("cresset: {trouble}");
        trouble.exit_code()
    })
}
