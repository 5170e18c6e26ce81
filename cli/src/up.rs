//! `cresset up`: a relay and a sensor on this machine, in one process.
//!
//! It runs what `cresset-relay` and `cresset-sensor` run, joined by the same link over loopback; only the settings are made here.
//! Where the kernel refuses the sensor, the relay runs alone and says why.

mod settings;
mod stop;

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use proto::query::StatusRequest;
use relay::telemetry::{self, Format, Logging};
use relay::{Addresses, App, RunError, Settings, Source};
use sensor_bpf::{Footprint, Sensor};
use tokio::task::{JoinError, JoinHandle};
use yaml::Problem;

use crate::config::{Both, load, load_with_files};
use crate::connect::{Relay, Trouble};
use crate::demo;
use settings::settle;
use stop::{Stage, Stop, stop_signal, stopped};

/// Run a relay and, where the kernel allows it, a sensor on this machine.
#[derive(Args, Clone)]
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
    /// Run a sample workload once everything is up [policies: those named, else its own]
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
    let logging = telemetry::init(Format::default(), args.log.as_deref(), "warn")
        .map_err(|error| Trouble::Usage(error.to_string()))?;
    let mut both = match load_with_files(args.config.as_deref()) {
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
    let _policies = examples(&args, &mut both)?;
    live(&args, both, logging).await
}

/// The settings once more, as they were made at the start.
fn source(args: &UpArgs) -> Option<Source> {
    let file = args.config.clone()?;
    let args = args.clone();
    Some(Source {
        file: file.display().to_string(),
        // The terminal was closed: that ends it.
        hangup: false,
        read: Box::new(move || {
            let mut settings = Settings::load(Some(&file), std::env::vars())?.looked()?;
            let mut both = load(Some(&file))?;
            settle(&args, &mut both).map_err(|trouble| {
                vec![Problem::whole_file(
                    &file.display().to_string(),
                    trouble.to_string(),
                )]
            })?;
            settings.config = both.relay;
            Ok(settings)
        }),
    })
}

/// The demo has policies of its own where none were named.
fn examples(args: &UpArgs, both: &mut Both) -> Result<Option<demo::Policies>, Trouble> {
    if !args.demo || args.policies.is_some() || args.config.is_some() {
        return Ok(None);
    }
    let policies = demo::Policies::write()
        .map_err(|error| Trouble::Local(format!("the policies of the demo: {error}")))?;
    both.relay.policies.sources = vec![settings::folder(policies.path().to_owned())];
    Ok(Some(policies))
}

async fn live(args: &UpArgs, both: Both, logging: Logging) -> Result<ExitCode, Trouble> {
    let data = both.relay.relay.data_dir.clone();
    let stop = stop_signal()?;
    let app = tokio::select! {
        app = App::build(both.relay) => app.map_err(local)?,
        () = stopped(stop.clone(), Stage::Sensor) => return Ok(ExitCode::SUCCESS),
    };
    let mut app = app.logging_to(logging);
    if let Some(source) = source(args) {
        app = app.reloading_from(source);
    }
    let (addresses, conditions) = (app.addresses().clone(), app.conditions());
    let sensor = Sensor::build(joined(both.sensor, &addresses));
    let footprint = sensor.as_ref().map(Sensor::footprint).unwrap_or_default();
    let ready = ready(&addresses, &data, sensor.as_ref().ok());
    let relay = tokio::spawn(app.run(stopped(stop.clone(), Stage::Relay)));
    let mut node = Node {
        relay,
        sensor: None,
        conditions,
    };
    match sensor {
        Ok(sensor) => {
            let running = sensor.run(stopped(stop.clone(), Stage::Sensor));
            node.sensor = Some(tokio::spawn(running));
            rules_in_force(&addresses.feed.to_string(), stop.clone()).await;
            tell(&ready);
        }
        Err(why) => {
            tell(&ready);
            tell(&format!("no sensor on this machine: {why}"));
            let import = demo::import_hint(&data);
            tell(&format!(
                "the relay runs; feed it a recorded stream: {import}"
            ));
        }
    }
    let place = demo::Place {
        data,
        feed: addresses.feed,
        http: addresses.http,
    };
    let demo = (args.demo && node.sensor.is_some()).then(|| tokio::spawn(demo::run(place)));
    let ended = node.until_the_end(stop.clone()).await;
    if let Some(demo) = demo {
        demo.abort();
    }
    node.drain(&stop, ended).await?;
    nothing_left(&footprint)
}

fn local(error: impl std::error::Error) -> Trouble {
    Trouble::Local(error.to_string())
}

/// A line on standard error, which may be a terminal that was closed.
pub(crate) fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The sensor of this process dials the relay of this process, unless certificates say that it dials another.
fn joined(mut sensor: sensor_bpf::Config, addresses: &Addresses) -> sensor_bpf::Config {
    if !sensor.sensor.has_certificates() {
        sensor.sensor.relay = vec![format!("http://{}", addresses.link)];
    }
    sensor
}

/// The line that scripts wait for.
fn ready(addresses: &Addresses, data: &Path, sensor: Option<&Sensor>) -> String {
    let none = || "none".to_owned();
    let socket = sensor.map_or_else(none, |sensor| sensor.control_path().display().to_string());
    let tier = sensor.map_or_else(none, |sensor| sensor.tier().to_string());
    format!(
        "ready feed={} link={} http={} sensor={socket} data={} tier={tier}",
        addresses.feed,
        addresses.link,
        addresses.http,
        data.display()
    )
}

/// How the relay's task ended.
type Ended = Result<Result<(), RunError>, JoinError>;

/// Both halves, as they run.
struct Node {
    relay: JoinHandle<Result<(), RunError>>,
    /// None: there is none, or it has ended.
    sensor: Option<JoinHandle<()>>,
    conditions: relay::Conditions,
}

impl Node {
    /// Until it is told to stop, or the relay ends by itself.
    async fn until_the_end(&mut self, mut stop: Stop) -> Option<Ended> {
        loop {
            tokio::select! {
                _ = stop.wait_for(|stage| *stage != Stage::Running) => return None,
                ended = &mut self.relay => return Some(ended),
                why = ended_by_itself(&mut self.sensor) => lost_sensor(&why, &self.conditions),
            }
        }
    }

    /// The sensor first: its last events still reach the relay.
    async fn drain(self, stop: &Stop, ended: Option<Ended>) -> Result<(), Trouble> {
        stop.send(Stage::Sensor);
        if let Some(sensor) = self.sensor {
            // It failed while it drained: what it left is looked at next.
            let _ = sensor.await;
        }
        stop.send(Stage::Relay);
        let ended = match ended {
            Some(ended) => ended,
            None => self.relay.await,
        };
        ended.map_err(local)?.map_err(local)
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
    tell(&format!(
        "the sensor on this machine ended: {text}; the relay goes on"
    ));
    conditions.set("sensor", &text);
}

/// How long the first rules may take from the relay to the kernel before the node is called ready without them.
const RULES_WITHIN: Duration = Duration::from_secs(10);

/// Waits until the sensor has the relay's policies in force: a workload that is started now is judged by them.
async fn rules_in_force(feed: &str, mut stop: Stop) {
    let asked = async {
        while !matches!(has_rules(feed).await, Ok(true)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = asked => {}
        () = tokio::time::sleep(RULES_WITHIN) => {
            tell("the policies are not in force yet; `cresset status` says why");
        }
        _ = stop.wait_for(|stage| *stage != Stage::Running) => {}
    }
}

async fn has_rules(feed: &str) -> Result<bool, Trouble> {
    let relay = Relay::connect(feed).await?;
    let status = relay.query().status(StatusRequest {}).await;
    let status = status.map_err(|why| relay.trouble(why))?.into_inner();
    let policies = status.policies.unwrap_or_default();
    let in_place = |rules: &[u8]| policies.place(rules) != proto::Place::Other;
    Ok(status
        .sensors
        .iter()
        .any(|sensor| sensor.rules_applied && in_place(&sensor.rules)))
}

/// Looks whether anything of the sensor is left attached or in place.
fn nothing_left(footprint: &Footprint) -> Result<ExitCode, Trouble> {
    let left = footprint.left();
    if left.is_empty() {
        tell("stopped; nothing is left attached or mounted");
        return Ok(ExitCode::SUCCESS);
    }
    Err(Trouble::Local(format!("left behind: {}", left.join(", "))))
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "write ADDRESS:PORT, such as 127.0.0.1:32767; port 0 takes a free one".to_owned()
    })
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
}
