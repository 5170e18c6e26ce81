//! Events with every field set, events at random, and a second way to print them: prost decodes, serde_json prints,
//! member by member in the order of KubeArmor's .proto file. Nothing here uses the crate's field table.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "shared by test programs, each of which uses its part"
)]
#![allow(clippy::unwrap_used, reason = "a failing helper fails the test")]

pub mod events;

use std::collections::BTreeMap;

use prost::Message as _;
use proto::feeder::{Alert, Audit, ExecEvent, Log, Lost, Message, Podowner};
use proto::{FieldSet, Kind};
use serde_json::{Map, Value};

/// Prints with the crate.
pub fn written(kind: Kind, payload: &[u8], set: FieldSet) -> String {
    let mut out = Vec::new();
    proto::json::write(kind, payload, None, set, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// Prints as text with the crate.
pub fn text(kind: Kind, payload: &[u8]) -> String {
    let mut out = Vec::new();
    proto::text::write(kind, payload, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// Whether prost decodes the bytes.
pub fn decodes(kind: Kind, bytes: &[u8]) -> bool {
    match kind {
        Kind::Alert => Alert::decode(bytes).is_ok(),
        Kind::Log => Log::decode(bytes).is_ok(),
        Kind::Message => Message::decode(bytes).is_ok(),
    }
}

/// Prints without the crate.
pub fn reference(kind: Kind, payload: &[u8], set: FieldSet) -> String {
    go_escapes(&Value::Object(object(kind, payload, set)).to_string())
}

/// What serde_json does not escape and Go does. None of it occurs outside of strings.
fn go_escapes(json: &str) -> String {
    json.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

/// Prints as text without the crate: KubeArmor's client, line by line.
pub fn reference_text(kind: Kind, payload: &[u8]) -> String {
    let object = object(kind, payload, FieldSet::KubeArmor);
    let field = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
    let time = field("UpdatedTime").replace('T', " ").replace('Z', "");
    if kind == Kind::Message {
        let [cluster, host, level, text] =
            ["ClusterName", "HostName", "Level", "Message"].map(field);
        return format!("{time}  {cluster}  {host}  [{level}]  {text}\n");
    }
    let mut out = match object.contains_key("UpdatedTime") {
        true => format!("== {} / {time} ==\n", kind.name()),
        false => format!("== {} ==\n", kind.name()),
    };
    let mut keys: Vec<&str> = "ClusterName HostName NamespaceName PodName Labels ContainerName \
        ContainerID ContainerImage Type PolicyName Severity Message Source Resource Operation \
        Action Data EventData Enforcer Result"
        .split_whitespace()
        .collect();
    let mut others: Vec<&str> = object.keys().map(String::as_str).collect();
    others.retain(|key| !keys.contains(key) && !matches!(*key, "Timestamp" | "UpdatedTime"));
    others.sort_unstable();
    keys.extend(others);
    for key in keys {
        if let Some(value) = object.get(key) {
            out += &format!("{key}: {}\n", go_value(value));
        }
    }
    out
}

/// Go's `%v`.
fn go_value(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => {
            format!(
                "[{}]",
                list.iter().map(go_value).collect::<Vec<_>>().join(" ")
            )
        }
        Value::Object(object) => {
            let sorted: BTreeMap<_, _> = object.iter().collect();
            let pairs = sorted
                .iter()
                .map(|(key, value)| format!("{key}:{}", go_value(value)));
            format!("map[{}]", pairs.collect::<Vec<_>>().join(" "))
        }
        number => number.to_string(),
    }
}

fn object(kind: Kind, payload: &[u8], set: FieldSet) -> Map<String, Value> {
    let mut members = match kind {
        Kind::Alert => alert(Alert::decode(payload).unwrap()),
        Kind::Log => log(Log::decode(payload).unwrap()),
        Kind::Message => message(Message::decode(payload).unwrap()),
    };
    if set == FieldSet::KubeArmor {
        members.retain(|(name, _)| !OURS.contains(name));
    }
    printed(members)
}

const OURS: [&str; 14] = [
    "EventID",
    "Args",
    "AccessMask",
    "OwnerUID",
    "SourceImage",
    "Truncated",
    "DisplayOnly",
    "ExecID",
    "ParentExecID",
    "RuleID",
    "Tier",
    "PolicyDigest",
    "Lost",
    "Audit",
];

/// A member and its value; none where it is left out.
type Member = (&'static str, Option<Value>);

fn printed(members: Vec<Member>) -> Map<String, Value> {
    let set = members
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    set.collect()
}

fn string(text: String) -> Option<Value> {
    (!text.is_empty()).then(|| text.into())
}

fn number<N: Into<Value> + Default + PartialEq>(number: N) -> Option<Value> {
    (number != N::default()).then(|| number.into())
}

fn list(list: Vec<String>) -> Option<Value> {
    (!list.is_empty()).then(|| list.into())
}

fn map(entries: BTreeMap<String, String>) -> Option<Value> {
    // A BTreeMap<String, _> is in the byte order of its keys.
    let entries: Map<_, _> = entries
        .into_iter()
        .map(|(key, value)| (key, value.into()))
        .collect();
    (!entries.is_empty()).then(|| entries.into())
}

fn hex(bytes: Vec<u8>) -> Option<Value> {
    string(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn name64(number: u64) -> Option<Value> {
    (number != 0).then(|| format!("{number:016x}").into())
}

fn owner(owner: Podowner) -> Value {
    printed(vec![
        ("Ref", string(owner.r#ref)),
        ("Name", string(owner.name)),
        ("Namespace", string(owner.namespace)),
    ])
    .into()
}

fn exec_event(event: ExecEvent) -> Value {
    printed(vec![
        ("ExecID", string(event.exec_id)),
        ("ExecutableName", string(event.executable_name)),
    ])
    .into()
}

fn lost(lost: Lost) -> Value {
    printed(vec![
        ("Where", string(lost.r#where)),
        ("Class", string(lost.class)),
        ("Count", number(lost.count)),
        ("Stream", hex(lost.stream)),
        ("First", number(lost.first)),
        ("Last", number(lost.last)),
        ("Reason", string(lost.reason)),
    ])
    .into()
}

fn audit(audit: Audit) -> Value {
    printed(vec![
        ("Actor", string(audit.actor)),
        ("Action", string(audit.action)),
        ("Target", string(audit.target)),
        ("Detail", string(audit.detail)),
    ])
    .into()
}

macro_rules! ours {
    ($event:ident) => {
        [
            ("EventID", hex($event.event_id)),
            ("Args", list($event.args)),
            ("AccessMask", number($event.access_mask)),
            ("OwnerUID", $event.owner_uid.map(Value::from)),
            ("SourceImage", string($event.source_image)),
            ("Truncated", number($event.truncated)),
            ("DisplayOnly", number($event.display_only)),
            ("ExecID", name64($event.exec_id)),
            ("ParentExecID", name64($event.parent_exec_id)),
            ("RuleID", name64($event.rule_id)),
            ("Tier", number($event.tier)),
            ("PolicyDigest", hex($event.policy_digest)),
        ]
    };
}

fn message(event: Message) -> Vec<Member> {
    vec![
        ("Timestamp", number(event.timestamp)),
        ("UpdatedTime", string(event.updated_time)),
        ("ClusterName", string(event.cluster_name)),
        ("HostName", string(event.host_name)),
        ("HostIP", string(event.host_ip)),
        ("Type", string(event.r#type)),
        ("Level", string(event.level)),
        ("Message", string(event.message)),
        ("EventID", hex(event.event_id)),
        ("Lost", event.lost.map(lost)),
        ("Audit", event.audit.map(audit)),
    ]
}

fn alert(event: Alert) -> Vec<Member> {
    let mut members = vec![
        ("Timestamp", number(event.timestamp)),
        ("UpdatedTime", string(event.updated_time)),
        ("ClusterName", string(event.cluster_name)),
        ("HostName", string(event.host_name)),
        ("NamespaceName", string(event.namespace_name)),
        ("Owner", event.owner.map(owner)),
        ("PodName", string(event.pod_name)),
        ("Labels", string(event.labels)),
        ("ContainerID", string(event.container_id)),
        ("ContainerName", string(event.container_name)),
        ("ContainerImage", string(event.container_image)),
        ("HostPPID", number(event.host_ppid)),
        ("HostPID", number(event.host_pid)),
        ("PPID", Some(event.ppid.into())),
        ("PID", number(event.pid)),
        ("UID", Some(event.uid.into())),
        ("ParentProcessName", string(event.parent_process_name)),
        ("ProcessName", string(event.process_name)),
        ("PolicyName", string(event.policy_name)),
        ("Severity", string(event.severity)),
        ("Tags", string(event.tags)),
        ("ATags", list(event.a_tags)),
        ("Message", string(event.message)),
        ("Type", string(event.r#type)),
        ("Source", string(event.source)),
        ("Operation", string(event.operation)),
        ("Resource", string(event.resource)),
        ("Data", string(event.data)),
        ("EventData", map(event.event_data)),
        ("Enforcer", string(event.enforcer)),
        ("Action", string(event.action)),
        ("Result", string(event.result)),
        ("Cwd", string(event.cwd)),
        ("TTY", string(event.tty)),
        ("MaxAlertsPerSec", number(event.max_alerts_per_sec)),
        (
            "DroppingAlertsInterval",
            number(event.dropping_alerts_interval),
        ),
        ("ExecEvent", event.exec_event.map(exec_event)),
        ("KubeArmorVersion", string(event.kube_armor_version)),
        ("NodeID", string(event.node_id)),
        ("ProcessHash", string(event.process_hash)),
        ("ParentHash", string(event.parent_hash)),
        ("ResourceHash", string(event.resource_hash)),
        ("HashAlgo", string(event.hash_algo)),
        ("UserName", string(event.user_name)),
    ];
    members.extend(ours!(event));
    members
}

fn log(event: Log) -> Vec<Member> {
    let mut members = vec![
        ("Timestamp", number(event.timestamp)),
        ("UpdatedTime", string(event.updated_time)),
        ("ClusterName", string(event.cluster_name)),
        ("HostName", string(event.host_name)),
        ("NamespaceName", string(event.namespace_name)),
        ("Owner", event.owner.map(owner)),
        ("PodName", string(event.pod_name)),
        ("Labels", string(event.labels)),
        ("ContainerID", string(event.container_id)),
        ("ContainerName", string(event.container_name)),
        ("ContainerImage", string(event.container_image)),
        ("ParentProcessName", string(event.parent_process_name)),
        ("ProcessName", string(event.process_name)),
        ("HostPPID", number(event.host_ppid)),
        ("HostPID", number(event.host_pid)),
        ("PPID", Some(event.ppid.into())),
        ("PID", number(event.pid)),
        ("UID", Some(event.uid.into())),
        ("Type", string(event.r#type)),
        ("Source", string(event.source)),
        ("Operation", string(event.operation)),
        ("Resource", string(event.resource)),
        ("Data", string(event.data)),
        ("EventData", map(event.event_data)),
        ("Result", string(event.result)),
        ("Cwd", string(event.cwd)),
        ("TTY", string(event.tty)),
        ("ExecEvent", event.exec_event.map(exec_event)),
        ("NodeID", string(event.node_id)),
        ("ProcessHash", string(event.process_hash)),
        ("ParentHash", string(event.parent_hash)),
        ("ResourceHash", string(event.resource_hash)),
        ("HashAlgo", string(event.hash_algo)),
        ("UserName", string(event.user_name)),
    ];
    members.extend(ours!(event));
    members
}
