//! `cresset-relay`: settings, build, run, drain.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use relay::telemetry::{self, Format, Logging};
use relay::{App, OpenError, Settings, Source, StartError};
use tokio::signal::unix::{SignalKind, signal};
use yaml::Problem;

/// Takes events from sensors, keeps them, and hands them to sinks and readers.
#[derive(Parser)]
#[command(
    name = "cresset-relay",
    version,
    after_help = "SIGHUP takes up the changed configuration file, SIGUSR1 reopens the files of sinks, SIGTERM drains and ends."
)]
struct Args {
    /// The configuration file. Without it everything has its default.
    #[arg(long, value_name = "FILE", env = "CRESSET_CONFIG")]
    config: Option<PathBuf>,
    /// Which log lines are written, as in `info` or `relay=debug,info` [default: $RUST_LOG, else what the file says].
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// How log lines look [default: what the file says, else text].
    #[arg(long, value_enum)]
    log_format: Option<Format>,
}

/// 0: fine. 1: problems found. 2: wrong usage. 3: the brokers of its log cannot be reached.
fn main() -> ExitCode {
    relay::bound_arenas();
    let args = Args::parse();
    let settings = match load(args.config.as_deref()) {
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
    let log = &settings.config.relay.telemetry.log;
    let format = args.log_format.unwrap_or(log.format);
    let logging = match telemetry::init(format, args.log.as_deref(), &log.level) {
        Ok(logging) => logging,
        Err(error) => {
            eprintln!("cresset-relay: {error}");
            return ExitCode::from(2);
        }
    };
    match run(settings, args.config, logging) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cresset-relay: {error}");
            match error.downcast_ref() {
                Some(StartError::Data(OpenError::Unreached(_))) => ExitCode::from(3),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// For threads that wait for a disk or a broker when all is done. Nothing hangs on them: what has to be kept is kept by then.
const LAST_THREADS: Duration = Duration::from_secs(1);

fn run(
    settings: Settings,
    file: Option<PathBuf>,
    logging: Logging,
) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Runtime::new()?;
    let ended = runtime.block_on(live(settings, file, logging));
    runtime.shutdown_timeout(LAST_THREADS);
    ended
}

async fn live(
    settings: Settings,
    file: Option<PathBuf>,
    logging: Logging,
) -> Result<(), Box<dyn std::error::Error>> {
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let mut stop = pin!(async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    });
    // A start may wait for brokers or for a long recovery; what it has written by then a crash could have left.
    let app = tokio::select! {
        app = App::build(settings.config) => app?,
        () = &mut stop => {
            eprintln!("stopped before it was ready");
            return Ok(());
        }
    };
    let mut app = app.logging_to(logging);
    if let Some(file) = file {
        app = app.reloading_from(source(file));
    }
    eprintln!("ready {}", app.addresses());
    app.run(stop).await?;
    Ok(())
}

fn load(file: Option<&Path>) -> Result<Settings, Vec<Problem>> {
    Settings::load(file, std::env::vars())?.looked()
}

/// The file, and the environment over it, read again.
fn source(file: PathBuf) -> Source {
    Source {
        file: file.display().to_string(),
        hangup: true,
        read: Box::new(move || load(Some(&file))),
    }
}
