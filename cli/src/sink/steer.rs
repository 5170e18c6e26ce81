//! `cresset sink pause|resume|rewind|skip`.

use std::process::ExitCode;

use clap::Args;
use proto::sinks::steer_request::Order;
use proto::sinks::{Pause, Resume, Rewind, Skip, SteerReply, SteerRequest};

use crate::connect::{Relay, Trouble, say};
use crate::logs::time;

/// Said of what was done to the partitions of one relay of several.
const SHARE: &str = ", in the partitions that this relay has; the other relays are told for theirs";

/// Which sink
#[derive(Args, Clone, Debug)]
pub(super) struct Name {
    /// The sink's name in the configuration file
    #[arg(value_name = "NAME")]
    pub(super) name: String,
}

/// How far back
#[derive(Args, Clone, Debug)]
pub(super) struct RewindArgs {
    #[command(flatten)]
    sink: Name,

    /// From this on: a duration back from now (10m, 2h, 7d) or a time (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: i64,
}

/// How far forward
#[derive(Args, Clone, Debug)]
pub(super) struct SkipArgs {
    #[command(flatten)]
    sink: Name,

    /// Leave out only what came before this: a duration back from now (10m, 2h, 7d) or a time (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<i64>,
}

pub(super) async fn pause(relay: &Relay, sink: &Name) -> Result<ExitCode, Trouble> {
    let name = &sink.name;
    let reply = order(relay, name, Order::Pause(Pause {})).await?;
    tell(
        &reply,
        &match reply.changed {
            true if reply.share => format!(
                "{name} is paused at this relay, also after a restart; the other relays go on with their partitions until they are told, too; `cresset sink resume {name}` lets it go on"
            ),
            true => format!(
                "{name} is paused, also after a restart; `cresset sink resume {name}` lets it go on"
            ),
            false => format!("{name} is paused already"),
        },
    )
}

pub(super) async fn resume(relay: &Relay, sink: &Name) -> Result<ExitCode, Trouble> {
    let name = &sink.name;
    let reply = order(relay, name, Order::Resume(Resume {})).await?;
    tell(
        &reply,
        &match reply.changed {
            true => format!("{name} goes on"),
            false => format!("{name} was not paused"),
        },
    )
}

pub(super) async fn rewind(relay: &Relay, args: &RewindArgs) -> Result<ExitCode, Trouble> {
    let name = &args.sink.name;
    let since_ns = args.since;
    let reply = order(relay, name, Order::Rewind(Rewind { since_ns })).await?;
    let SteerReply {
        from, to, events, ..
    } = reply;
    tell(
        &reply,
        &match events {
            0 if reply.share => format!("{name} stands there already{SHARE}"),
            0 => format!("{name} stands there already, at event {to}"),
            events if reply.share => {
                format!("{name} went back: {} sent again{SHARE}", are(events))
            }
            events => format!(
                "{name} went back from event {from} to {to}: {} sent again",
                are(events)
            ),
        },
    )
}

pub(super) async fn skip(relay: &Relay, args: &SkipArgs) -> Result<ExitCode, Trouble> {
    let name = &args.sink.name;
    let until_ns = args.until.unwrap_or(0);
    let reply = order(relay, name, Order::Skip(Skip { until_ns })).await?;
    let SteerReply {
        from, to, events, ..
    } = reply;
    tell(
        &reply,
        &match events {
            0 => format!("{name} has nothing to leave out"),
            events if reply.share => format!("{name} went on: {} left out{SHARE}", are(events)),
            events => format!(
                "{name} went on from event {from} to {to}: {} left out",
                are(events)
            ),
        },
    )
}

fn are(events: u64) -> String {
    match events {
        1 => "1 event is".to_owned(),
        events => format!("{events} events are"),
    }
}

async fn order(relay: &Relay, sink: &str, order: Order) -> Result<SteerReply, Trouble> {
    let request = SteerRequest {
        sink: sink.to_owned(),
        order: Some(order),
    };
    let reply = relay.sinks().steer(request).await;
    reply
        .map(tonic::Response::into_inner)
        .map_err(|status| relay.trouble(status))
}

fn tell(reply: &SteerReply, text: &str) -> Result<ExitCode, Trouble> {
    say(&format!("{text}\n"))?;
    if !reply.audited {
        eprintln!("cresset: the audit event waits until the journal takes events again");
    }
    Ok(ExitCode::SUCCESS)
}
