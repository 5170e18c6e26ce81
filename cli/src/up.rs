//! `cresset up`: a relay and a sensor on this machine, in one process.
//!
//! It runs what `cresset-relay` and `cresset-sensor` run, joined by the same link over loopback; only the settings are made here.
//! Where the kernel refuses the sensor, the relay runs alone and says why.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use proto::query::StatusRequest;
use relay::telemetry::{self, Format};
use relay::{Address, App, Listen, PolicySource, PolicySourceKind};
use sensor_bpf::config::Contain;
use sensor_bpf::{Footprint, Sensor};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::{Both, load};
use crate::connect::{Relay, Trouble};
use crate::demo;

/// Run a relay and, where the kernel allows it, a sensor on this machine.
#[derive(Args)]
pub(crate) struct UpArgs {
    /// Data folder; its sockets are DIR/sensor.sock and DIR/admin.sock [default: /var/lib/cresset as root, else the XDG data folder]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Folder of policies, watched [default: /etc/cresset/policies as root, else in the XDG configuration folder]
    #[arg(long, value_name = "DIR")]
    policies: Option<PathBuf>,
    /// Configuration file; the flags here win over it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where readers connect [default: 127.0.0.1:32767]
    #[arg(long, value_name = "ADDR", value_parser = address)]
    listen_feed: Option<SocketAddr>,
    /// Where sensors connect [default: 127.0.0.1:9481]
    #[arg(long, value_name = "ADDR", value_parser = address)]
    listen_link: Option<SocketAddr>,
    /// Where metrics and health are served [default: 127.0.0.1:9480]
    #[arg(long, value_name = "ADDR", value_parser = address)]
    listen_http: Option<SocketAddr>,
    /// What a kernel without LSM hooks may do about a Block rule [default: default]
    #[arg(long, value_enum)]
    contain: Option<ContainArg>,
    /// Run a sample workload once everything is up
    #[arg(long)]
    demo: bool,
    /// Which log lines are written, as in `info` or `relay=debug,info` [default: $RUST_LOG, else warn]
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum ContainArg {
    /// Kill a forbidden program before its first instruction, deny forbidden IP sockets
    Default,
    /// Also kill after a forbidden file operation, which by then has happened
    All,
    /// Only tell
    None,
}

/// Runs `cresset up` until SIGINT, SIGTERM or SIGHUP.
///
/// # Errors
/// The relay cannot start, or something of this program was left behind.
pub(crate) async fn up(args: UpArgs) -> Result<ExitCode, Trouble> {
    let filter = args.log.clone().or_else(|| std::env::var("RUST_LOG").ok());
    telemetry::init(Format::default(), Some(filter.as_deref().unwrap_or("warn")))
        .map_err(|error| Trouble::Usage(error.to_string()))?;
    let mut both = match load(args.config.as_deref()) {
        Ok(both) => both,
        Err(problems) => {
            problems.iter().for_each(|problem| eprintln!("{problem}"));
            return Ok(ExitCode::FAILURE);
        }
    };
    both.warnings
        .iter()
        .for_each(|warning| eprintln!("{warning}"));
    settle(&args, &mut both)?;
    live(&args, both).await
}

async fn live(args: &UpArgs, both: Both) -> Result<ExitCode, Trouble> {
    let data = both.relay.relay.data_dir.clone();
    let stop = stop_signal()?;
    let app = App::build(both.relay)
        .await
        .map_err(|error| Trouble::Local(error.to_string()))?;
    let (addresses, conditions) = (app.addresses().clone(), app.conditions());
    let mut settings = both.sensor;
    if settings.sensor.tls.is_none() {
        settings.sensor.relay = vec![format!("http://{}", addresses.link)];
    }
    let sensor = Sensor::build(settings);
    let footprint = sensor.as_ref().map(Sensor::footprint).unwrap_or_default();
    let (tier, socket) = match &sensor {
        Ok(sensor) => (
            sensor.tier().to_string(),
            sensor.control_path().display().to_string(),
        ),
        Err(_) => ("none".to_owned(), "none".to_owned()),
    };
    let relay = tokio::spawn(app.run(stopped(stop.clone(), Stage::Relay)));
    let sensor =
        sensor.map(|sensor| tokio::spawn(sensor.run(stopped(stop.clone(), Stage::Sensor))));
    if sensor.is_ok() {
        rules_in_force(&addresses.feed.to_string()).await;
    }
    eprintln!(
        "ready feed={} link={} http={} sensor={socket} data={} tier={tier}",
        addresses.feed,
        addresses.link,
        addresses.http,
        data.display()
    );
    let sensor = match sensor {
        Ok(sensor) => Some(sensor),
        Err(why) => {
            eprintln!("no sensor on this machine: {why}");
            eprintln!(
                "the relay runs; feed it a recorded stream: {}",
                demo::import_hint(&data)
            );
            None
        }
    };
    let place = demo::Place {
        data: data.clone(),
        feed: addresses.feed,
        http: addresses.http,
    };
    let demo = (args.demo && sensor.is_some()).then(|| tokio::spawn(demo::run(place)));

    let (mut signalled, mut relay, mut sensor) = (stop.clone(), relay, sensor);
    let ended = loop {
        tokio::select! {
            _ = signalled.wait_for(|stage| *stage != Stage::Running) => break None,
            ended = &mut relay => break Some(ended),
            why = ended_by_itself(&mut sensor) => lost_sensor(&why, &conditions),
        }
    };
    if let Some(demo) = demo {
        demo.abort();
    }
    // The sensor first: its last events still reach the relay.
    if let Some(sensor) = sensor {
        stop.send(Stage::Sensor);
        let _ = sensor.await;
    }
    stop.send(Stage::Relay);
    let ended = match ended {
        Some(ended) => ended,
        None => relay.await,
    };
    match ended {
        Ok(Ok(())) => nothing_left(&footprint),
        Ok(Err(error)) => Err(Trouble::Local(error.to_string())),
        Err(error) => Err(Trouble::Local(error.to_string())),
    }
}

/// Waits for the end of a sensor that nobody stopped, and says why; without a sensor it waits for ever.
async fn ended_by_itself(sensor: &mut Option<JoinHandle<()>>) -> String {
    let Some(task) = sensor else {
        return std::future::pending().await;
    };
    let ended = task.await;
    *sensor = None;
    match ended {
        Ok(()) => "it ended and did not say why; its log does".to_owned(),
        Err(why) => format!("it failed: {why}"),
    }
}

/// The relay goes on: what was recorded can be read, and other sensors are heard.
fn lost_sensor(why: &str, conditions: &relay::Conditions) {
    let text = format!(
        "{why}; workloads on this machine are neither watched nor held to policies; start `cresset up` again"
    );
    tracing::error!(why = text, "the sensor ended by itself");
    // Standard error may be a terminal that was closed.
    let _ = writeln!(
        std::io::stderr(),
        "the sensor on this machine ended: {text}; the relay goes on"
    );
    conditions.set("sensor", &text);
}

/// How long the first rules may take from the relay to the kernel before the node is called ready without them.
const RULES_WITHIN: Duration = Duration::from_secs(10);

/// Waits until the sensor has the relay's policies in force: a workload that is started now is judged by them.
async fn rules_in_force(feed: &str) {
    let deadline = tokio::time::Instant::now() + RULES_WITHIN;
    loop {
        if let Ok(true) = has_rules(feed).await {
            return;
        }
        if tokio::time::Instant::now() > deadline {
            eprintln!("the policies are not in force yet; `cresset status` says why");
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn has_rules(feed: &str) -> Result<bool, Trouble> {
    let relay = Relay::connect(feed).await?;
    let status = relay.query().status(StatusRequest {}).await;
    let status = status.map_err(|why| relay.trouble(why))?.into_inner();
    let digest = status
        .policies
        .map(|policies| policies.digest)
        .unwrap_or_default();
    Ok(status
        .sensors
        .iter()
        .any(|sensor| sensor.rules_applied && sensor.rules == digest))
}

// === the end ===

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Running,
    /// The sensor drains.
    Sensor,
    /// The relay drains.
    Relay,
}

#[derive(Clone)]
struct Stop {
    sender: std::sync::Arc<watch::Sender<Stage>>,
    receiver: watch::Receiver<Stage>,
}

impl Stop {
    fn send(&self, stage: Stage) {
        self.sender.send_if_modified(|now| {
            let later = *now < stage;
            *now = stage.max(*now);
            later
        });
    }

    async fn wait_for(
        &mut self,
        reached: impl FnMut(&Stage) -> bool,
    ) -> Result<(), watch::error::RecvError> {
        self.receiver.wait_for(reached).await.map(|_| ())
    }
}

async fn stopped(mut stop: Stop, stage: Stage) {
    // The sender lives in the same value.
    let _ = stop.wait_for(|now| *now >= stage).await;
}

/// SIGINT, SIGTERM and SIGHUP begin the end: a terminal that is closed leaves nothing behind either.
fn stop_signal() -> Result<Stop, Trouble> {
    let failed = |error: std::io::Error| Trouble::Local(format!("no signal handlers: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    let (sender, receiver) = watch::channel(Stage::Running);
    let stop = Stop {
        sender: std::sync::Arc::new(sender),
        receiver,
    };
    let on_signal = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
        // Standard error may be the terminal that was closed.
        let _ = writeln!(std::io::stderr(), "draining");
        on_signal.send(Stage::Sensor);
    });
    Ok(stop)
}

/// Looks whether anything of the sensor is left attached or in place.
fn nothing_left(footprint: &Footprint) -> Result<ExitCode, Trouble> {
    let left = footprint.left();
    if left.is_empty() {
        let _ = writeln!(
            std::io::stderr(),
            "stopped; nothing is left attached or mounted"
        );
        return Ok(ExitCode::SUCCESS);
    }
    Err(Trouble::Local(format!("left behind: {}", left.join(", "))))
}

// === settings ===

/// The flags over the file, and what only `up` has as its default.
fn settle(args: &UpArgs, both: &mut Both) -> Result<(), Trouble> {
    let Both { relay, sensor, .. } = both;
    if let Some(data) = &args.data {
        let data = std::path::absolute(data)
            .map_err(|why| Trouble::Usage(format!("--data {}: {why}", data.display())))?;
        relay.relay.listen.admin.address = Address::Unix(data.join("admin.sock"));
        sensor.sensor.control = format!("unix:{}", data.join("sensor.sock").display());
        relay.relay.data_dir = data;
    }
    if sensor.sensor.data_dir.is_none() || args.data.is_some() {
        sensor.sensor.data_dir = Some(relay.relay.data_dir.join("sensor"));
    }
    let listen = &mut relay.relay.listen;
    for (flag, given, listener) in [
        ("--listen-feed", args.listen_feed, &mut listen.feed),
        ("--listen-link", args.listen_link, &mut listen.link),
        ("--listen-http", args.listen_http, &mut listen.http),
    ] {
        if let Some(address) = given {
            local(flag, address, listener)?;
            listener.address = Address::Tcp(address);
        }
    }
    if let Some(contain) = args.contain {
        sensor.sensor.contain = match contain {
            ContainArg::Default => Contain::Default,
            ContainArg::All => Contain::All,
            ContainArg::None => Contain::None,
        };
    }
    policies(args, relay);
    if relay.sinks.is_empty() {
        relay.sinks = default_sinks();
    }
    Ok(())
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "write ADDRESS:PORT, such as 127.0.0.1:32767; port 0 takes a free one".to_owned()
    })
}

/// A flag may not open a door that the file has to open in so many words.
fn local(flag: &str, address: SocketAddr, listener: &Listen) -> Result<(), Trouble> {
    if address.ip().is_loopback() || listener.insecure {
        return Ok(());
    }
    Err(Trouble::Usage(format!(
        "{flag} {address} is not a loopback address: everybody who reaches it could read; \
         write `{{address: {address}, insecure: true}}` in the configuration file if that is meant"
    )))
}

fn policies(args: &UpArgs, relay: &mut relay::Config) {
    let folder = match &args.policies {
        Some(folder) => folder.clone(),
        None if relay.policies.sources.is_empty() => default_policies(),
        None => return,
    };
    let path = std::path::absolute(&folder).unwrap_or(folder);
    relay.policies.sources = vec![PolicySource {
        kind: PolicySourceKind::Folder,
        path,
    }];
}

/// /etc/cresset/policies as root, else in the XDG configuration folder.
fn default_policies() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/etc/cresset/policies");
    }
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_CONFIG_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".config")))
        .unwrap_or_else(|| PathBuf::from("/etc"))
        .join("cresset/policies")
}

/// Alerts on standard output, and metrics: what a person who starts it by hand wants to see.
fn default_sinks() -> std::collections::BTreeMap<String, exporters::SinkConfig> {
    let text = "{console: {type: stdout, format: text, filter: {kinds: [alert]}}, metrics: {type: prometheus}}";
    let (documents, _) = yaml::parse("defaults", text);
    let sinks = documents
        .first()
        .and_then(|node| node.read(yaml::Severity::Error, &mut Vec::new()));
    sinks.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sensor_that_ends_by_itself_is_noticed_once_with_the_reason() {
        let task = tokio::spawn(async { panic!("a ring is torn") });
        let mut sensor = Some(task);
        let why = ended_by_itself(&mut sensor).await;
        assert!(why.contains("a ring is torn"), "{why}");
        assert!(sensor.is_none());
        let again = tokio::time::timeout(Duration::from_millis(50), ended_by_itself(&mut sensor));
        assert!(again.await.is_err(), "there is no sensor to end");
    }

    #[test]
    fn the_default_sinks_are_read() {
        assert_eq!(
            default_sinks().keys().collect::<Vec<_>>(),
            ["console", "metrics"]
        );
    }
}
