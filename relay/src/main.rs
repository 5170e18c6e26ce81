//! `cresset-relay`: settings, build, run, drain.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use relay::telemetry::{self, Format};
use relay::{App, Settings};
use tokio::signal::unix::{SignalKind, signal};

/// Takes events from sensors, keeps them, and hands them to sinks and readers.
#[derive(Parser)]
#[command(name = "cresset-relay", version)]
struct Args {
    /// The configuration file. Without it everything has its default.
    #[arg(long, value_name = "FILE", env = "CRESSET_CONFIG")]
    config: Option<PathBuf>,
    /// Which log lines are written, as in `info` or `relay=debug,info` [default: $RUST_LOG, else info].
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// How log lines look.
    #[arg(long, value_enum, default_value_t)]
    log_format: Format,
}

/// 0: fine. 1: problems found. 2: wrong usage.
fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(error) = telemetry::init(args.log_format, args.log.as_deref()) {
        eprintln!("cresset-relay: {error}");
        return ExitCode::from(2);
    }
    let settings = match Settings::load(args.config.as_deref(), std::env::vars()) {
        Ok(settings) => settings,
        Err(problems) => {
            problems.iter().for_each(|problem| eprintln!("{problem}"));
            return ExitCode::FAILURE;
        }
    };
    settings
        .warnings
        .iter()
        .for_each(|warning| eprintln!("{warning}"));
    match live(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cresset-relay: {error}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn live(settings: Settings) -> Result<(), Box<dyn std::error::Error>> {
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let app = App::build(settings.config).await?;
    eprintln!("ready {}", app.addresses());
    app.run(async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
    .await?;
    Ok(())
}
