//! `cresset policy disable` and `enable`: break the glass.
//!
//! A policy that stops what it should not must be out of the way at once, from wherever somebody still gets in: through the
//! relay for all nodes, or at one node through its sensor, with no relay. It ends by itself, and it is told as an event.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use proto::policies::DisableRequest;
use proto::query::StatusRequest;
use proto::visible::text as visible;
use sensor_bpf::control::{Reply, Request};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use yaml::Span;

use super::remote::{self, AdminArgs};
use super::status::why_off;
use crate::connect::{Trouble, say};

/// Put all policies out of force for a while
#[derive(Args)]
pub(crate) struct DisableArgs {
    /// All policies of all workloads: there is no smaller hammer here, `delete` is for single policies
    #[arg(long, required = true)]
    all: bool,

    /// How long; they come back by themselves
    #[arg(long = "for", value_name = "DURATION", default_value = "10m")]
    length: Span,

    /// Why, for whoever reads the event
    #[arg(long, value_name = "TEXT", default_value = "no reason given")]
    reason: String,

    #[command(flatten)]
    place: PlaceArgs,
}

/// Put policies back in force before their time
#[derive(Args)]
pub(crate) struct EnableArgs {
    /// Why, for whoever reads the event
    #[arg(long, value_name = "TEXT", default_value = "no reason given")]
    reason: String,

    #[command(flatten)]
    place: PlaceArgs,
}

/// Where.
#[derive(Args)]
struct PlaceArgs {
    /// Only on this node, through its sensor's control socket; needs no relay
    #[arg(long, value_name = "SOCKET", conflicts_with = "data")]
    sensor: Option<PathBuf>,

    #[command(flatten)]
    admin: AdminArgs,
}

/// Runs `cresset policy disable`.
///
/// # Errors
/// A relay or sensor that cannot be reached or says no.
pub(super) async fn disable(args: &DisableArgs) -> Result<ExitCode, Trouble> {
    let length = args.length.0;
    if length < Duration::from_secs(1) {
        return Err(Trouble::Usage("--for: at least 1s".to_owned()));
    }
    args.place.pause(length, &args.reason).await?;
    say(&format!(
        "all policies are off {} for {}; `cresset policy enable{}` puts them back\n",
        args.place.words(),
        args.length,
        args.place.option()
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// Runs `cresset policy enable`; exits 1 when policies stay off on some node.
///
/// # Errors
/// As [`disable`].
pub(super) async fn enable(args: &EnableArgs) -> Result<ExitCode, Trouble> {
    args.place.pause(Duration::ZERO, &args.reason).await?;
    let off = args.place.still_off().await?;
    if off.is_empty() {
        say(&format!("policies are in force {}\n", args.place.words()))?;
        return Ok(ExitCode::SUCCESS);
    }
    say(&format!(
        "policies are in force {}, but for these:\n{off}",
        args.place.words()
    ))?;
    Ok(ExitCode::FAILURE)
}

impl PlaceArgs {
    fn words(&self) -> &'static str {
        match self.sensor {
            Some(_) => "on this node",
            None => "on every node that the relay reaches",
        }
    }

    /// What names the same place again.
    fn option(&self) -> String {
        let sensor = self.sensor.as_ref();
        sensor.map_or_else(String::new, |socket| {
            format!(" --sensor {}", socket.display())
        })
    }

    /// Nodes on which somebody switched policies off by themselves: a relay does not switch them on.
    async fn still_off(&self) -> Result<String, Trouble> {
        if self.sensor.is_some() {
            return Ok(String::new());
        }
        let relay = self.admin.connect().await?;
        let reply = relay.query().status(StatusRequest {}).await;
        let reply = reply.map_err(|status| relay.trouble(status))?.into_inner();
        let off = reply.sensors.iter().filter_map(why_off);
        Ok(off
            .map(|line| format!("  ! {}\n", visible(&line)))
            .collect())
    }

    /// For so long; zero ends it.
    async fn pause(&self, length: Duration, reason: &str) -> Result<(), Trouble> {
        let reason = format!("{reason} ({})", whoami());
        if let Some(socket) = &self.sensor {
            return at_sensor(socket, length, reason).await;
        }
        let relay = self.admin.connect().await?;
        let request = DisableRequest {
            seconds: length.as_secs(),
            reason,
        };
        let reply = remote::client(&relay).disable(request).await;
        reply.map(|_| ()).map_err(|status| relay.trouble(status))
    }
}

fn whoami() -> String {
    let uid = rustix::process::getuid().as_raw();
    match std::env::var("SUDO_USER").or_else(|_| std::env::var("USER")) {
        Ok(name) => format!("{name}, uid {uid}"),
        Err(_) => format!("uid {uid}"),
    }
}

async fn at_sensor(socket: &Path, length: Duration, reason: String) -> Result<(), Trouble> {
    let unreachable = |why: std::io::Error| Trouble::Sensor {
        socket: socket.display().to_string(),
        reason: why.to_string(),
    };
    let stream = UnixStream::connect(socket).await.map_err(unreachable)?;
    let mut stream = BufReader::new(stream);
    let request = Request::Pause {
        seconds: length.as_secs(),
        reason,
    };
    let mut line =
        serde_json::to_vec(&request).map_err(|error| Trouble::Local(error.to_string()))?;
    line.push(b'\n');
    stream
        .get_mut()
        .write_all(&line)
        .await
        .map_err(unreachable)?;
    let mut answer = String::new();
    stream.read_line(&mut answer).await.map_err(unreachable)?;
    match serde_json::from_str(&answer) {
        Ok(Reply::Error(why)) => Err(Trouble::Local(format!("the sensor refused: {why}"))),
        Ok(_) => Ok(()),
        Err(error) => Err(Trouble::Local(format!(
            "the sensor's answer makes no sense: {error}"
        ))),
    }
}
