//! `cresset-sensor`: sees what workloads do, stops what policy forbids, tells a relay.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use sensor_bpf::{Config, Sensor};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Sees what labelled workloads do on this machine, stops what policy forbids, and tells a relay.
///
/// Needs root and a kernel with BTF. Settings: `cresset config schema`.
#[derive(Debug, Parser)]
#[command(name = "cresset-sensor", version)]
struct Args {
    /// Configuration file
    #[arg(long, value_name = "FILE", env = "CRESSET_CONFIG")]
    config: PathBuf,
    /// Which log lines are written, as in `info` or `sensor_bpf=debug,info` [default: $RUST_LOG, else info]
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// Only check the configuration and say what is wrong with it
    #[arg(long)]
    check: bool,
}

/// Exit statuses: 0 fine, 1 problems found, 2 wrong usage (clap's own).
const PROBLEMS: u8 = 1;
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let args = Args::parse();
    let config = match Config::load(&args.config, std::env::vars()) {
        Ok(config) => config,
        Err(problems) => {
            problems.iter().for_each(|problem| eprintln!("{problem}"));
            return ExitCode::from(PROBLEMS);
        }
    };
    if args.check {
        return ExitCode::SUCCESS;
    }
    let filter = match &args.log {
        Some(words) => EnvFilter::try_new(words),
        None => Ok(EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"))),
    };
    match filter {
        Ok(filter) => tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .init(),
        Err(why) => {
            eprintln!(
                "cresset-sensor: --log: {why}; write as in `info` or `sensor_bpf=debug,info`"
            );
            return ExitCode::from(USAGE);
        }
    }
    match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime.block_on(run(config)),
        Err(why) => {
            eprintln!("cresset-sensor: no runtime: {why}");
            ExitCode::from(PROBLEMS)
        }
    }
}

async fn run(config: Config) -> ExitCode {
    let signals =
        signal(SignalKind::terminate()).and_then(|t| Ok((t, signal(SignalKind::interrupt())?)));
    let (mut terminate, mut interrupt) = match signals {
        Ok(signals) => signals,
        Err(why) => {
            eprintln!("cresset-sensor: no signal handlers: {why}");
            return ExitCode::from(PROBLEMS);
        }
    };
    let sensor = match Sensor::build(config) {
        Ok(sensor) => sensor,
        Err(why) => {
            eprintln!("cresset-sensor: {why}");
            return ExitCode::from(PROBLEMS);
        }
    };
    let socket = sensor.control_path().display().to_string();
    eprintln!("ready sensor={socket} tier={}", sensor.tier());
    // Where no service manager asks for it nothing is told.
    if let Err(why) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::warn!(%why, "the service manager cannot be told that the sensor is ready");
    }
    if !sensor.reason().is_empty() {
        tracing::info!(reason = sensor.reason(), "no better tier");
    }
    sensor
        .run(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
        .await;
    ExitCode::SUCCESS
}
