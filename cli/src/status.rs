//! `cresset status`: what the relay says of itself, as a page or as JSON.

mod page;

pub(crate) use page::{seconds, size};

use std::process::ExitCode;

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use proto::link::{Ability, RuleProblem, Workload};
use proto::query::{
    JournalStatus, PoliciesStatus, PolicyProblem, PolicyStatus, RelayStatus, SensorStatus,
    SinkStatus, SourceStatus, SourceStream, StatusReply, StatusRequest,
};
use serde_json::{Value, json};

use crate::connect::{Relay, RelayArgs, Trouble, say};

/// Relay, sensors and their tier, policies and where they are not enforced, sinks, losses
#[derive(Args, Clone, Debug)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    relay: RelayArgs,

    /// Ask the relay whose data folder this is, through DIR/admin.sock
    #[arg(long, value_name = "DIR", conflicts_with = "relay")]
    data: Option<PathBuf>,

    /// How the answer looks
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A page to read
    Text,
    /// One JSON object
    Json,
}

/// Runs `cresset status`.
///
/// # Errors
/// Wrong usage, an unreachable relay, an output that cannot be written.
pub(crate) async fn status(args: StatusArgs) -> Result<ExitCode, Trouble> {
    let relay = match &args.data {
        Some(data) => Relay::connect_admin(Some(data)).await?,
        None => args.relay.connect().await?,
    };
    let reply = relay
        .query()
        .status(StatusRequest {})
        .await
        .map_err(|status| relay.trouble(status))?
        .into_inner();
    let text = match args.output {
        Format::Text => page::page(&reply),
        Format::Json => format!("{:#}\n", json(&reply)),
    };
    say(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Digests and ids as lower-case hex.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The whole answer, with the names of `query.proto`.
pub(crate) fn json(reply: &StatusReply) -> Value {
    json!({
        "relay": reply.relay.as_ref().map(relay),
        "sensors": reply.sensors.iter().map(sensor).collect::<Vec<_>>(),
        "certificates": reply.certificates.iter().map(|certificate| json!({
            "file": certificate.file,
            "expires_unix": certificate.expires_unix,
        })).collect::<Vec<_>>(),
        "sources": reply.sources.iter().map(source).collect::<Vec<_>>(),
        "policies": reply.policies.as_ref().map(policies),
        "sinks": reply.sinks.iter().map(sink).collect::<Vec<_>>(),
        "losses": reply.losses.iter().map(|loss| json!({
            "where": loss.r#where, "class": loss.class, "count": loss.count,
        })).collect::<Vec<_>>(),
        "journal": reply.journal.as_ref().map(journal),
    })
}

fn relay(relay: &RelayStatus) -> Value {
    json!({
        "version": relay.version,
        "id": relay.id,
        "cluster": relay.cluster,
        "uptime_seconds": relay.uptime_seconds,
        "listeners": sorted(&relay.listeners),
        "ready": relay.ready,
        "not_ready": relay.not_ready,
        "feed_clients": relay.feed_clients,
    })
}

pub(crate) fn sensor(sensor: &SensorStatus) -> Value {
    let kernel = sensor.kernel.as_ref().map(|kernel| {
        json!({
            "release": kernel.release,
            "arch": kernel.arch,
            "tier": kernel.tier,
            "reason": kernel.reason,
            "abilities": kernel.abilities.iter().map(ability).collect::<Vec<_>>(),
        })
    });
    json!({
        "sensor": sensor.sensor,
        "version": sensor.version,
        "node": sensor.node,
        "connected": sensor.connected,
        "last_seen_unix": sensor.last_seen_unix,
        "silent_unix": sensor.silent_unix,
        "refused_sessions": sensor.refused_sessions,
        "refused_peer": sensor.refused_peer,
        "kernel": kernel,
        "rules": hex(&sensor.rules),
        "rules_applied": sensor.rules_applied,
        "off": sensor.off.as_ref().map(|off| json!({"until_unix": off.until_unix, "reason": off.reason})),
        "problems": sensor.problems.iter().map(rule_problem).collect::<Vec<_>>(),
        "streams": sensor.streams.iter().map(|stream| json!({
            "stream": hex(&stream.stream),
            "class": stream.class().as_str_name().trim_start_matches("STREAM_CLASS_").to_lowercase(),
            "sequence": stream.sequence,
        })).collect::<Vec<_>>(),
        "spooled": sensor.spooled,
        "lag_seconds": sensor.lag_seconds,
        "lost": sensor.lost,
        "workloads": sensor.workloads.iter().map(workload).collect::<Vec<_>>(),
        "counters": sorted(&sensor.counters),
    })
}

fn source(source: &SourceStatus) -> Value {
    json!({
        "name": source.name,
        "type": source.r#type,
        "address": source.address,
        "connected": source.connected,
        "since_unix": source.since_unix,
        "streams": source.streams.iter().map(source_stream).collect::<Vec<_>>(),
        "errors": source.errors,
        "last_error": source.last_error,
        "last_error_unix": source.last_error_unix,
    })
}

fn source_stream(stream: &SourceStream) -> Value {
    let kind = proto::Kind::try_from(stream.kind()).map_or("unknown", proto::Kind::name);
    json!({
        "kind": kind.to_lowercase(),
        "open": stream.open,
        "events": stream.events,
        "rejected": stream.rejected,
        "missed": stream.missed,
        "dropped": stream.dropped,
    })
}

fn ability(ability: &Ability) -> Value {
    json!({"operation": ability.operation, "how": ability.how, "reason": ability.reason})
}

fn rule_problem(problem: &RuleProblem) -> Value {
    json!({
        "policy": problem.policy, "path": problem.path, "message": problem.message, "refused": problem.refused,
    })
}

fn workload(workload: &Workload) -> Value {
    json!({
        "namespace": workload.namespace,
        "pod": workload.pod,
        "container": workload.container,
        "labels": sorted(&workload.labels),
        "policies": workload.policies,
    })
}

fn policies(policies: &PoliciesStatus) -> Value {
    json!({
        "source": policies.source,
        "digest": hex(&policies.digest),
        "current": policies.current,
        "policies": policies.policies.iter().map(policy).collect::<Vec<_>>(),
        "problems": policies.problems.iter().map(policy_problem).collect::<Vec<_>>(),
    })
}

fn policy(policy: &PolicyStatus) -> Value {
    json!({
        "namespace": policy.namespace,
        "name": policy.name,
        "kind": policy.kind,
        "file": policy.file,
        "rules": policy.rules,
        "not_enforced": policy.not_enforced,
        "expires_unix": policy.expires_unix,
    })
}

fn policy_problem(problem: &PolicyProblem) -> Value {
    json!({
        "file": problem.file,
        "line": problem.line,
        "column": problem.column,
        "path": problem.path,
        "message": problem.message,
        "warning": problem.warning,
    })
}

/// One sink, with the names of `query.proto`.
pub(crate) fn sink(sink: &SinkStatus) -> Value {
    json!({
        "name": sink.name,
        "type": sink.r#type,
        "state": sink.state,
        "position": sink.position,
        "pending": sink.pending,
        "lag_seconds": sink.lag_seconds,
        "rate": sink.rate,
        "delivered": sink.delivered,
        "filtered": sink.filtered,
        "dead_lettered": sink.dead_lettered,
        "expired": sink.expired,
        "corrupt": sink.corrupt,
        "last_error": sink.last_error,
        "last_error_unix": sink.last_error_unix,
        "dead_letters": sink.dead_letters,
        "paused_by": sink.paused_by,
        "paused_unix": sink.paused_unix,
    })
}

fn journal(journal: &JournalStatus) -> Value {
    json!({
        "state": journal.state,
        "first": journal.first,
        "next": journal.next,
        "bytes": journal.bytes,
        "max_bytes": journal.max_bytes,
        "segments": journal.segments,
        "oldest_unix": journal.oldest_unix,
        "found": journal.found,
    })
}

/// Protobuf maps have no order; what is printed should.
fn sorted<T: Clone + Into<Value>>(map: &std::collections::HashMap<String, T>) -> Value {
    let sorted: std::collections::BTreeMap<_, _> = map.iter().collect();
    sorted
        .into_iter()
        .map(|(key, value)| (key.clone(), value.clone().into()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}
