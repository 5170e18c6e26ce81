//! An observation becomes the event that KubeArmor's consumers know.
//!
//! ```text
//! Observation ─┐
//! Whose       ─┤
//! Image       ─┼─▶ events() ─▶ Alert   a rule or a posture had something to say
//! Rule        ─┤          └──▶ Log     otherwise; whether it is wanted is the caller's business
//! Node        ─┘
//! ```
//! Pure: what is not in its arguments is not in the event. Texts that consumers match on are in [`words`] and
//! [`texts`]; this file says which field gets which.

mod calls;
mod texts;
mod whose;
mod words;

use std::collections::BTreeMap;

use policy::SlotRule;
use proto::feeder;

use crate::observe::{Action, By, Decision, Observation, Op, Outcome, text};
use crate::process::Image;

use whose::Subject;
pub use whose::Whose;
use words::Texts;
pub use words::updated_time;

/// What is the same in every event of this sensor.
#[derive(Debug, Clone, Default)]
pub struct Node {
    /// `ClusterName`.
    pub cluster: String,
    /// `HostName`.
    pub name: String,
    /// `NodeID`: the machine id, else the node's name.
    pub id: String,
    /// 1 LSM, 2 fmod_ret, 3 contain.
    pub tier: u8,
}

/// What the observation itself does not hold.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The sensor.
    pub node: &'a Node,
    /// Whose task acted.
    pub whose: Whose<'a>,
    /// The image that acted; of an exec, the new one.
    pub image: &'a Image,
    /// The rule that decided; none for a posture, or when nothing did.
    pub rule: Option<&'a SlotRule>,
    /// Digest of the rule set in force; empty without one.
    pub digest: &'a [u8],
}

/// What is sent.
#[derive(Debug, Clone, PartialEq)]
pub enum Rendered {
    /// Policy had something to say.
    Alert(Box<feeder::Alert>),
    /// Telemetry.
    Log(Box<feeder::Log>),
}

/// The events of an observation. None where there is nothing to tell: exits, and results that KubeArmor never reports
/// (ENOENT). Two for a TCP connection, which KubeArmor sees at the system call and again in the protocol.
pub fn events(context: &Context<'_>, observation: &Observation) -> Vec<Rendered> {
    let Some(operation) = words::operation(&observation.op) else {
        return Vec::new();
    };
    match observation.verdict {
        Some(decision) if is_alert(decision, observation) => {
            let alert = alert(context, observation, decision, operation);
            vec![Rendered::Alert(Box::new(alert))]
        }
        _ => {
            let told = [
                words::call(context.image, observation),
                words::protocol(observation),
            ];
            let log = |texts| Rendered::Log(Box::new(log(context, observation, operation, texts)));
            told.into_iter().flatten().map(log).collect()
        }
    }
}

/// An audited operation that failed by itself is no alert: nothing that policy could mind has happened. But a system
/// call that was refused for want of a privilege is told, as KubeArmor tells it.
fn is_alert(decision: Decision, observation: &Observation) -> bool {
    decision.action == Action::Block
        || decision.outcome != Outcome::Passed
        || observation.result >= 0
        || refused(observation).is_some()
}

/// What a system call that was refused for want of a privilege returned.
fn refused(observation: &Observation) -> Option<&'static str> {
    let errno = observation.result.saturating_neg();
    let privilege = [libc::EPERM, libc::EACCES].contains(&errno);
    (privilege && matches!(observation.op, Op::Syscall { .. })).then(|| texts::errno(errno))
}

fn alert(
    context: &Context<'_>,
    observation: &Observation,
    decision: Decision,
    operation: &str,
) -> feeder::Alert {
    let parts = Parts::of(
        context,
        observation,
        words::decided(context.image, observation, decision),
    );
    let Node {
        cluster,
        name,
        id,
        tier,
    } = context.node;
    let task = &observation.task;
    let subject = Subject::of(context.whose, task);
    let told = told(decision, *tier, context.rule);
    let rule = context.rule.filter(|rule| !unnamed(rule));
    let tags = rule.map(|rule| rule.tags.join(",")).unwrap_or_default();
    feeder::Alert {
        timestamp: parts.timestamp,
        updated_time: parts.updated_time,
        cluster_name: cluster.clone(),
        host_name: name.clone(),
        namespace_name: subject.namespace,
        owner: subject.owner,
        pod_name: subject.pod,
        labels: subject.labels,
        container_id: subject.container_id,
        container_name: subject.container,
        container_image: subject.image,
        host_ppid: int(task.host_ppid),
        host_pid: int(task.host_pid),
        ppid: int(subject.ppid),
        pid: int(subject.pid),
        uid: int(task.uid),
        parent_process_name: parts.parent,
        process_name: parts.process,
        policy_name: policy_name(decision, context.rule),
        severity: rule.map(|rule| severity(rule.severity)).unwrap_or_default(),
        a_tags: rule.map(|rule| rule.tags.clone()).unwrap_or_default(),
        tags,
        message: message(decision, rule),
        r#type: context.whose.alert_type().to_owned(),
        source: parts.source,
        operation: operation.to_owned(),
        resource: parts.resource,
        data: parts.data,
        event_data: parts.event_data,
        enforcer: told.enforcer.to_owned(),
        action: told.action.to_owned(),
        result: refused(observation).unwrap_or(told.result).to_owned(),
        cwd: parts.cwd,
        tty: task.tty.clone().unwrap_or_default(),
        exec_event: Some(exec_event(&task.comm)),
        node_id: id.clone(),
        args: parts.args,
        access_mask: words::access_mask(&observation.op),
        owner_uid: owner_uid(&observation.op),
        source_image: parts.source_image,
        truncated: observation.truncated,
        display_only: display_only(context.image, observation),
        exec_id: task.exec_id,
        parent_exec_id: task.parent_exec_id,
        rule_id: context.rule.map(|rule| rule.id.0).unwrap_or_default(),
        tier: u32::from(*tier),
        policy_digest: context.digest.to_vec(),
        user_name: subject.user_name,
        // Given by others: the throttle, the relay, hashes that no tier computes.
        max_alerts_per_sec: 0,
        dropping_alerts_interval: 0,
        kube_armor_version: String::new(),
        process_hash: String::new(),
        parent_hash: String::new(),
        resource_hash: String::new(),
        hash_algo: String::new(),
        event_id: Default::default(),
    }
}

fn log(
    context: &Context<'_>,
    observation: &Observation,
    operation: &str,
    texts: Texts,
) -> feeder::Log {
    let result = texts.result;
    let parts = Parts::of(context, observation, texts);
    let Node {
        cluster,
        name,
        id,
        tier,
    } = context.node;
    let task = &observation.task;
    let subject = Subject::of(context.whose, task);
    feeder::Log {
        timestamp: parts.timestamp,
        updated_time: parts.updated_time,
        cluster_name: cluster.clone(),
        host_name: name.clone(),
        namespace_name: subject.namespace,
        owner: subject.owner,
        pod_name: subject.pod,
        labels: subject.labels,
        container_id: subject.container_id,
        container_name: subject.container,
        container_image: subject.image,
        parent_process_name: parts.parent,
        process_name: parts.process,
        host_ppid: int(task.host_ppid),
        host_pid: int(task.host_pid),
        ppid: int(subject.ppid),
        pid: int(subject.pid),
        uid: int(task.uid),
        r#type: context.whose.log_type().to_owned(),
        source: parts.source,
        operation: operation.to_owned(),
        resource: parts.resource,
        data: parts.data,
        event_data: parts.event_data,
        result: result.to_owned(),
        cwd: parts.cwd,
        tty: task.tty.clone().unwrap_or_default(),
        exec_event: Some(exec_event(&task.comm)),
        node_id: id.clone(),
        args: parts.args,
        access_mask: words::access_mask(&observation.op),
        owner_uid: owner_uid(&observation.op),
        source_image: parts.source_image,
        truncated: observation.truncated,
        display_only: display_only(context.image, observation),
        exec_id: task.exec_id,
        parent_exec_id: task.parent_exec_id,
        rule_id: 0,
        tier: u32::from(*tier),
        policy_digest: context.digest.to_vec(),
        user_name: subject.user_name,
        process_hash: String::new(),
        parent_hash: String::new(),
        resource_hash: String::new(),
        hash_algo: String::new(),
        event_id: Default::default(),
    }
}

/// The texts that Alert and Log share.
struct Parts {
    timestamp: i64,
    updated_time: String,
    parent: String,
    process: String,
    source: String,
    resource: String,
    data: String,
    event_data: BTreeMap<String, String>,
    cwd: String,
    args: Vec<String>,
    source_image: String,
}

impl Parts {
    fn of(context: &Context<'_>, observation: &Observation, texts: Texts) -> Self {
        let image = context.image;
        let exec = matches!(observation.op, Op::Exec { .. });
        let Texts { resource, data, .. } = texts;
        let operation = words::operation(&observation.op).unwrap_or_default();
        let event_data = proto::event_data(operation, &data, &resource);
        Self {
            timestamp: i64::try_from(observation.time_ns / 1_000_000_000).unwrap_or(i64::MAX),
            updated_time: words::updated_time(observation.time_ns),
            parent: image.parent_exe.clone(),
            process: image.exe.clone(),
            source: if exec {
                image.parent_exe.clone()
            } else {
                image.command.clone()
            },
            source_image: if exec {
                image.parent_exe.clone()
            } else {
                image.exe.clone()
            },
            args: if exec { image.args.clone() } else { Vec::new() },
            cwd: words::cwd(&observation.task.cwd),
            resource,
            data,
            event_data,
        }
    }
}

/// How a decision is told.
struct Told {
    enforcer: &'static str,
    action: &'static str,
    result: &'static str,
}

/// Whether a decision in this rule's slot is about what the rule does not name: no Allow is ever told, so it stands for the
/// posture of the allow-list that it makes, which is on trial (`policy::flatten`).
fn unnamed(rule: &SlotRule) -> bool {
    rule.action == policy::Action::Allow
}

fn told(decision: Decision, tier: u8, rule: Option<&SlotRule>) -> Told {
    let would_stop = rule.is_some_and(|rule| rule.action != policy::Action::Audit);
    let enforcer = if tier == 3 { "BPFContain" } else { "BPFLSM" };
    match (decision.action, decision.outcome) {
        (Action::Block, Outcome::Denied) => Told {
            enforcer,
            action: "Block",
            result: "Permission denied",
        },
        (Action::Block, Outcome::Killed) => Told {
            enforcer,
            action: "Block",
            result: "Killed",
        },
        (Action::Block, Outcome::Passed) => Told {
            enforcer: "eBPF Monitor",
            action: "Audit (Block)",
            result: "Passed",
        },
        // What may not be enforced: its policy is in mode audit, or an exception from a Block is not judged here.
        (Action::Audit, _) if would_stop && decision.by != By::Posture => Told {
            enforcer: "eBPF Monitor",
            action: "Audit (Block)",
            result: "Passed",
        },
        // KubeArmor's LSM programs tell of postures themselves; its Audit rules live in the monitor.
        (Action::Audit, _) if decision.by == By::Posture && decision.hook.lsm().is_some() => Told {
            enforcer,
            action: "Audit",
            result: "Passed",
        },
        (Action::Audit, _) => Told {
            enforcer: "eBPF Monitor",
            action: "Audit",
            result: "Passed",
        },
    }
}

fn policy_name(decision: Decision, rule: Option<&SlotRule>) -> String {
    match (decision.by, rule) {
        (By::Rule { .. }, Some(rule)) if !unnamed(rule) => rule.policy.clone(),
        // The slot table of a set outlives its last record, so a rule without a name is a fault, and said so.
        (By::Rule { .. }, None) => "unknown".to_owned(),
        (By::Posture, _) | (By::Rule { .. }, Some(_)) => "DefaultPosture".to_owned(),
    }
}

fn message(decision: Decision, rule: Option<&SlotRule>) -> String {
    if decision.fault {
        return "the path could not be read whole, so no rule was consulted".to_owned();
    }
    rule.map(|rule| rule.message.clone()).unwrap_or_default()
}

fn severity(severity: u32) -> String {
    if severity == 0 {
        String::new()
    } else {
        severity.to_string()
    }
}

/// KubeArmor always sets it; id 0 is "no `kubectl exec` session".
fn exec_event(comm: &str) -> feeder::ExecEvent {
    feeder::ExecEvent {
        exec_id: "0".to_owned(),
        executable_name: comm.to_owned(),
    }
}

/// What `/proc` said after the fact decided nothing either.
fn display_only(image: &Image, observation: &Observation) -> u32 {
    let late = text::PROCESS_NAME | text::PARENT_PROCESS_NAME | text::SOURCE;
    observation.display_only | if image.from_proc { late } else { 0 }
}

fn owner_uid(op: &Op) -> Option<u32> {
    match op {
        Op::Open { owner_uid, .. } => *owner_uid,
        _ => None,
    }
}

/// The contract has int32 where the kernel has u32; ids above are kept bit by bit, as the Go side reads them.
fn int(value: u32) -> i32 {
    value.cast_signed()
}
