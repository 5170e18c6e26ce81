//! `cresset sensor`: which sensors the relay knows, and which of them it need not miss.

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use proto::operate::ForgetSensorRequest;
use proto::query::{SensorStatus, StatusRequest};
use serde_json::Value;

use crate::connect::{AdminArgs, Relay, Trouble, say};
use crate::status;
use crate::table::table;
use crate::tls::at;

/// List sensors, or forget one that will not come back
#[derive(Args, Clone, Debug)]
pub(crate) struct SensorArgs {
    #[command(flatten)]
    admin: AdminArgs,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    /// Show every sensor that the relay knows: whether it is there, and when it was last heard
    List(ListArgs),
    /// Take a sensor that was taken down out of what is watched: it is not missed any more
    #[command(
        after_help = "A sensor that is connected is not forgotten: stop it first. Its events stay. Its certificate stays good: \
        `cresset token revoke sensor/ID` takes that."
    )]
    Forget(ForgetArgs),
}

#[derive(Args, Clone, Debug)]
struct ListArgs {
    /// A table, or JSON
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table to read
    Text,
    /// One JSON array
    Json,
}

#[derive(Args, Clone, Debug)]
struct ForgetArgs {
    /// The sensor's id, as `cresset sensor list` shows it
    #[arg(value_name = "ID")]
    sensor: String,
}

/// Runs `cresset sensor …`.
///
/// # Errors
/// An unreachable relay, or one that refuses.
pub(crate) async fn sensor(args: SensorArgs) -> Result<ExitCode, Trouble> {
    let relay = args.admin.connect().await?;
    match args.command {
        Command::List(args) => list(&relay, &args).await,
        Command::Forget(args) => forget(&relay, args).await,
    }
}

async fn list(relay: &Relay, args: &ListArgs) -> Result<ExitCode, Trouble> {
    let reply = relay.query().status(StatusRequest {}).await;
    let reply = reply.map_err(|status| relay.trouble(status))?.into_inner();
    say(&match args.output {
        Format::Text => page(&reply.sensors),
        Format::Json => {
            let all: Vec<Value> = reply.sensors.iter().map(status::sensor).collect();
            format!("{:#}\n", Value::from(all))
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

const HEAD: [&str; 5] = ["SENSOR", "NODE", "VERSION", "STATE", "LAST HEARD"];

fn page(sensors: &[SensorStatus]) -> String {
    if sensors.is_empty() {
        return "no sensors; `cresset-sensor` on a node connects to relay.listen.link\n".to_owned();
    }
    let rows: Vec<Vec<String>> = sensors.iter().map(row).collect();
    table(&HEAD, &rows)
}

fn row(sensor: &SensorStatus) -> Vec<String> {
    let state = match (sensor.silent_unix, sensor.connected) {
        (1.., _) => "silent",
        (0, true) => "connected",
        (0, false) => "away",
    };
    vec![
        sensor.sensor.clone(),
        sensor.node.clone(),
        sensor.version.clone(),
        state.to_owned(),
        at(sensor.last_seen_unix),
    ]
}

async fn forget(relay: &Relay, args: ForgetArgs) -> Result<ExitCode, Trouble> {
    let ForgetArgs { sensor } = args;
    let request = ForgetSensorRequest {
        sensor: sensor.clone(),
    };
    let reply = relay.operate().forget_sensor(request).await;
    let reply = reply.map_err(|status| relay.trouble(status))?.into_inner();
    say(&format!(
        "sensor {sensor} (node {}, last heard at {}) is forgotten\n",
        reply.node,
        at(reply.last_seen_unix)
    ))?;
    if !reply.audited {
        eprintln!("cresset: the audit event waits until the journal takes events again");
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sensor_is_connected_away_or_silent() {
        let sensor = |name: &str, connected, silent_unix| SensorStatus {
            sensor: name.to_owned(),
            node: "n".to_owned(),
            version: "1.0".to_owned(),
            connected,
            silent_unix,
            last_seen_unix: 60,
            ..SensorStatus::default()
        };
        let sensors = [
            sensor("a", true, 0),
            sensor("b", false, 0),
            sensor("c", false, 9),
        ];
        assert_eq!(
            page(&sensors),
            "SENSOR  NODE  VERSION  STATE      LAST HEARD\n\
             a       n     1.0      connected  1970-01-01T00:01:00Z\n\
             b       n     1.0      away       1970-01-01T00:01:00Z\n\
             c       n     1.0      silent     1970-01-01T00:01:00Z\n"
        );
        assert!(page(&[]).starts_with("no sensors"));
    }
}
