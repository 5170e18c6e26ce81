//! `cresset policy status`: which node runs which policies, and what it cannot do of them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};
use proto::Place;
use proto::query::{PoliciesStatus, PolicyStatus, SensorStatus, StatusRequest};
use proto::visible::text as visible;
use serde_json::{Value, json};

use super::check::counted;
use super::get::columns;
use super::{remote, rollout, words};
use crate::connect::{RelayArgs, Trouble, say};

/// Show which node runs which policies; exits 1 when one does not run the current ones
#[derive(Args)]
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

/// Runs `cresset policy status`.
///
/// # Errors
/// A relay that cannot be reached; an output that cannot be written.
pub(super) async fn run(args: &StatusArgs) -> Result<ExitCode, Trouble> {
    let relay = remote::reading(&args.relay, args.data.as_deref()).await?;
    let reply = relay.query().status(StatusRequest {}).await;
    let reply = reply.map_err(|status| relay.trouble(status))?.into_inner();
    let policies = reply.policies.unwrap_or_default();
    let nodes: Vec<Node> = reply
        .sensors
        .into_iter()
        .map(|sensor| Node::new(sensor, &policies))
        .collect();
    say(&match args.output {
        Format::Text => text(&policies, &nodes),
        Format::Json => format!("{:#}\n", json(&policies, &nodes)),
    })?;
    let stopped = policies
        .rollout
        .as_ref()
        .is_some_and(|rollout| rollout.state == "stopped");
    let fine = policies.current && !stopped && nodes.iter().all(|node| node.state.is_fine());
    Ok(if fine {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// How a node stands to the current set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Current,
    /// It tries them.
    Canary,
    /// It is to keep the ones before until the trial is over.
    Held,
    /// It runs older ones, and has not answered yet.
    Behind,
    /// It said no.
    Refused,
    /// Somebody switched them off on it.
    Off,
    Away,
}

impl State {
    fn is_fine(self) -> bool {
        !matches!(self, State::Behind | State::Refused | State::Off)
    }

    fn word(self) -> &'static str {
        match self {
            State::Current => "current",
            State::Canary => "canary",
            State::Held => "held",
            State::Behind => "behind",
            State::Refused => "refused",
            State::Off => "off",
            State::Away => "away",
        }
    }
}

struct Node {
    sensor: SensorStatus,
    state: State,
}

impl Node {
    fn new(sensor: SensorStatus, policies: &PoliciesStatus) -> Node {
        let state = match policies.place(&sensor.rules) {
            _ if !sensor.connected => State::Away,
            _ if sensor.off.is_some() => State::Off,
            _ if sensor.problems.iter().any(|problem| problem.refused) => State::Refused,
            Place::Current => State::Current,
            Place::Canary => State::Canary,
            Place::Held => State::Held,
            Place::Other => State::Behind,
        };
        Node { sensor, state }
    }
}

fn unix_seconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

/// How much of a digest tells it from others at a glance.
fn short(digest: &[u8]) -> String {
    let hex: String = digest
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    if hex.is_empty() {
        "none".to_owned()
    } else {
        hex
    }
}

fn text(policies: &PoliciesStatus, nodes: &[Node]) -> String {
    let mut text = format!(
        "{}, {} from {}{}\n",
        counted(policies.policies.len(), "policy", "policies"),
        short(&policies.digest),
        if policies.source.is_empty() {
            "nowhere"
        } else {
            &policies.source
        },
        if policies.current {
            ""
        } else {
            " (NOT CURRENT: the newest reading is broken)"
        },
    );
    for problem in &policies.problems {
        let line = if problem.line > 0 {
            format!(":{}", problem.line)
        } else {
            String::new()
        };
        text += &format!(
            "  ! {}{line}: {}\n",
            visible(&problem.file),
            visible(&problem.message)
        );
    }
    for ended in policies.policies.iter().filter_map(ended) {
        text += &format!("  ! {}\n", visible(&ended));
    }
    if let Some(trial) = &policies.rollout {
        text += &rollout::text(trial, unix_seconds());
    }
    let head = [
        "NODE",
        "SENSOR",
        "TIER",
        "POLICIES",
        "STATE",
        "WORKLOADS",
        "NOT ENFORCED",
    ];
    let mut rows: Vec<Vec<String>> = vec![head.map(str::to_owned).into()];
    rows.extend(nodes.iter().map(row));
    text += &match nodes.is_empty() {
        true => "no sensor has come yet\n".to_owned(),
        false => columns(&rows),
    };
    for off in nodes.iter().filter_map(|node| why_off(&node.sensor)) {
        text += &format!("  ! {}\n", visible(&off));
    }
    for ((refused, policy, path, message), nodes) in problems(nodes) {
        let mark = if refused { "refused" } else { "not enforced" };
        text += &format!(
            "  ! {}: {mark}: {} {}: {}\n",
            visible(&some(&nodes)),
            visible(policy),
            visible(path),
            visible(message)
        );
    }
    text
}

/// Nodes that are named where many say the same.
const NAMED: usize = 3;

/// A problem (refused, policy, path, message) and the nodes that have it.
type Problems<'n> = BTreeMap<(bool, &'n str, &'n str, &'n str), Vec<&'n str>>;

fn problems(nodes: &[Node]) -> Problems<'_> {
    let mut all = Problems::new();
    for node in nodes {
        for told in &node.sensor.problems {
            let problem = (told.refused, &*told.policy, &*told.path, &*told.message);
            all.entry(problem).or_default().push(&node.sensor.node);
        }
    }
    all
}

/// `a, b`, or `a, b, c and 997 more nodes`.
fn some(nodes: &[&str]) -> String {
    let (named, rest) = nodes.split_at(nodes.len().min(NAMED));
    match rest.len() {
        0 => named.join(", "),
        1 => format!("{} and 1 more node", named.join(", ")),
        more => format!("{} and {more} more nodes", named.join(", ")),
    }
}

fn until(unix: u64) -> String {
    words::time(i64::try_from(unix).unwrap_or(i64::MAX))
}

fn state(node: &Node) -> String {
    let off = node.sensor.off.as_ref();
    match off.filter(|_| node.state == State::Off) {
        Some(off) => format!("off until {}", until(off.until_unix)),
        None => node.state.word().to_owned(),
    }
}

/// Why policies are off on a node, and what ends it.
pub(super) fn why_off(sensor: &SensorStatus) -> Option<String> {
    let off = sensor.off.as_ref().filter(|_| sensor.connected)?;
    Some(format!(
        "{}: policies are off until {}: {}; `cresset policy enable --sensor SOCKET` on that node ends it",
        sensor.node,
        until(off.until_unix),
        off.reason
    ))
}

/// A policy whose time is over by now.
fn ended(policy: &PolicyStatus) -> Option<String> {
    let is_over = policy.expires_unix > 0 && policy.expires_unix <= unix_seconds();
    is_over.then(|| {
        let end = until(policy.expires_unix);
        format!(
            "{}/{} ended on {end} and is in force nowhere",
            policy.namespace, policy.name
        )
    })
}

fn row(node: &Node) -> Vec<String> {
    let sensor = &node.sensor;
    let tier = sensor.kernel.as_ref().map_or(0, |kernel| kernel.tier);
    let missing = sensor
        .problems
        .iter()
        .filter(|problem| !problem.refused)
        .count();
    [
        visible(&sensor.node),
        visible(&sensor.sensor),
        tier.to_string(),
        short(&sensor.rules),
        state(node),
        sensor.workloads.len().to_string(),
        missing.to_string(),
    ]
    .into()
}

fn json(policies: &PoliciesStatus, nodes: &[Node]) -> Value {
    let hex =
        |digest: &[u8]| -> String { digest.iter().map(|byte| format!("{byte:02x}")).collect() };
    let node = |node: &Node| {
        let sensor = &node.sensor;
        json!({
            "node": sensor.node,
            "sensor": sensor.sensor,
            "tier": sensor.kernel.as_ref().map_or(0, |kernel| kernel.tier),
            "digest": hex(&sensor.rules),
            "state": node.state.word(),
            "off": sensor.off.as_ref().map(|off| json!({"until_unix": off.until_unix, "reason": off.reason})),
            "problems": sensor.problems.iter().map(|problem| json!({
                "policy": problem.policy, "path": problem.path, "message": problem.message, "refused": problem.refused,
            })).collect::<Vec<_>>(),
        })
    };
    json!({
        "digest": hex(&policies.digest),
        "source": policies.source,
        "current": policies.current,
        "rollout": policies.rollout.as_ref().map(|rollout| json!({
            "state": rollout.state,
            "why": rollout.why,
            "stable": hex(&rollout.stable),
            "trial": hex(&rollout.trial),
            "canary": rollout.canary,
            "policies": rollout.policies,
            "canaries": rollout.canaries,
            "since_unix": rollout.since_unix,
            "hold_seconds": rollout.hold_seconds,
            "would_block": rollout.would_block,
            "by_policy": rollout.by_policy,
            "blocked_rate": rollout.blocked_rate,
        })),
        "policies": policies.policies.len(),
        "nodes": nodes.iter().map(node).collect::<Vec<_>>(),
    })
}
