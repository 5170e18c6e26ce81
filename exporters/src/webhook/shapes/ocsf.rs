//! OCSF 1.3: alerts as Detection Findings, logs as the activity that they are.
//!
//! | event | class |
//! |---|---|
//! | alert | Detection Finding, 2004 |
//! | log, Process | Process Activity, 1007 |
//! | log, File | File System Activity, 1001 |
//! | log, Network | Network Activity, 4001 |
//! | log, Syscall, Capabilities | Kernel Activity, 1003 |
//! | anything else | Base Event, 0 |
//!
//! `unmapped` holds the whole event, so nothing is lost on the way. The actor of a program that is started is its parent. Of a
//! connection the workload is one end, and the other end stands where it began or answered. Source: schema.ocsf.io, version
//! 1.3.0; an endpoint is one by its address or its host's name, and activity 99 has its own name beside it.

use proto::{Kind, View};
use serde_json::{Map, Value, json};

use super::object;
use crate::{Encoded, told};

/// One event as OCSF.
///
/// # Errors
/// The event cannot be read.
pub(crate) fn event(event: &Encoded) -> Result<Vec<u8>, String> {
    let view = event.view();
    let class = Class::of(&view);
    let severity = severity(told::gravity(&view));
    let mut out = json!({
        "category_uid": class.category(),
        "class_uid": class as u32,
        "activity_id": class.activity(&view),
        "type_uid": class as u32 * 100 + class.activity(&view),
        "severity_id": severity,
        "time": told::time(&view).unwrap_or_else(jiff::Timestamp::now).as_millisecond(),
        "message": told::summary(&view),
        "metadata": {
            "version": "1.3.0",
            "uid": event.id().to_string(),
            "profiles": profiles(view.kind),
            "product": {"name": "Cresset", "vendor_name": "Cresset", "version": env!("CARGO_PKG_VERSION")},
            "labels": labels(&view),
        },
        "device": {"hostname": view.host, "type_id": 0},
        "unmapped": object(event)?,
    });
    if let Some(out) = out.as_object_mut() {
        if class.activity(&view) == OTHER {
            out.insert("activity_name".into(), json!(activity_name(&view)));
        }
        outcome(&view, out);
        class.own(event, &view, out);
    }
    serde_json::to_vec(&out).map_err(|error| error.to_string())
}

/// An activity or a type that the schema has no number for.
const OTHER: u32 = 99;

/// Whose attributes are used besides those of the class.
fn profiles(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Alert => &["host", "security_control"],
        Kind::Log | Kind::Message => &["host"],
    }
}

/// What was done, in KubeArmor's word for it: `SYS_BIND`, `FILE_PERMISSION`, else the operation.
fn activity_name<'a>(view: &View<'a>) -> &'a str {
    match (call(view), view.operation) {
        (Some(call), _) => call,
        (None, "") => view.kind.name(),
        (None, operation) => operation,
    }
}

/// The system call or hook that saw it.
fn call<'a>(view: &View<'a>) -> Option<&'a str> {
    let mut pairs = view.data.split(' ').filter_map(|word| word.split_once('='));
    let seen = pairs.find(|(key, _)| matches!(*key, "syscall" | "lsm" | "kprobe" | "kfunc"));
    seen.map(|(_, call)| call)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Class {
    Base = 0,
    File = 1001,
    Kernel = 1003,
    Process = 1007,
    Finding = 2004,
    Network = 4001,
}

impl Class {
    fn of(view: &View<'_>) -> Self {
        match (view.kind, view.operation) {
            (Kind::Alert, _) => Class::Finding,
            (Kind::Log, "Process") => Class::Process,
            (Kind::Log, "File") => Class::File,
            (Kind::Log, "Network") => Class::Network,
            (Kind::Log, "Syscall" | "Capabilities") => Class::Kernel,
            _ => Class::Base,
        }
    }

    fn category(self) -> u32 {
        self as u32 / 1000
    }

    /// The activity by the system call or hook that saw it; 99 is "other".
    fn activity(self, view: &View<'_>) -> u32 {
        let seen = |words: &[&str]| words.iter().any(|word| view.data.contains(word));
        match self {
            Class::Base => OTHER,
            Class::Finding => 1,
            Class::Kernel => 4,
            Class::Process if told::starts(view) => 1,
            // A ptrace opens another process.
            Class::Process => 3,
            Class::Network if seen(&["CONNECT", "tcp_connect"]) => 1,
            Class::Network if told::is_inbound(view) => 1,
            Class::Network if seen(&["LISTEN"]) => 7,
            Class::Network if seen(&["SENDMSG", "SENDSKB"]) => 6,
            Class::Network => OTHER,
            Class::File if seen(&["UNLINK", "RMDIR"]) => 4,
            Class::File if seen(&["MKNOD", "MKDIR", "SYMLINK", "FILE_LINK"]) => 1,
            Class::File if seen(&["RENAME"]) => 5,
            Class::File if seen(&["CHOWN", "CHMOD"]) => 6,
            Class::File if seen(&["TRUNCATE"]) => 3,
            Class::File if seen(&["OPEN"]) => 14,
            Class::File => OTHER,
        }
    }

    /// What only this class has.
    fn own(self, event: &Encoded, view: &View<'_>, out: &mut Map<String, Value>) {
        match self {
            Class::Base => {}
            Class::Finding => finding(event, view, out),
            Class::Process => {
                out.insert("process".into(), target(view));
                actor(view, out);
            }
            Class::File => {
                out.insert("file".into(), file(view.resource));
                actor(view, out);
            }
            Class::Network => {
                endpoints(view, out);
                actor(view, out);
            }
            Class::Kernel => {
                out.insert("kernel".into(), kernel(view));
                actor(view, out);
            }
        }
    }
}

fn finding(event: &Encoded, view: &View<'_>, out: &mut Map<String, Value>) {
    let title = match view.message {
        "" => told::summary(view),
        message => message.to_owned(),
    };
    let tags: Vec<&str> = view
        .tags
        .split(',')
        .map(str::trim)
        .filter(|t| !t.is_empty())
        .collect();
    out.insert(
        "finding_info".into(),
        json!({
            "uid": event.id().to_string(),
            "title": title,
            "desc": told::summary(view),
            "types": tags,
            "analytic": {"name": view.policy, "type_id": 1, "type": "Rule"},
        }),
    );
    let mut evidence = Map::new();
    actor(view, &mut evidence);
    match view.operation {
        "File" => drop(evidence.insert("file".into(), file(view.resource))),
        "Network" => endpoints(view, &mut evidence),
        "Process" => drop(evidence.insert("process".into(), target(view))),
        _ => {}
    }
    out.insert("evidences".into(), json!([evidence]));
    out.insert("status_id".into(), json!(1));
    if !view.pod.is_empty() {
        let pod = json!({
            "type": "pod", "name": view.pod, "namespace": view.namespace, "labels": labels(view),
        });
        out.insert("resources".into(), json!([pod]));
    }
}

/// Blocked or allowed, and whether what was tried succeeded.
fn outcome(view: &View<'_>, out: &mut Map<String, Value>) {
    if view.kind == Kind::Message || view.result.is_empty() {
        return;
    }
    let passed = view.result == "Passed";
    if view.kind == Kind::Log {
        out.insert("status_id".into(), json!(if passed { 1 } else { 2 }));
    } else {
        // Action: 1 allowed, 2 denied. Disposition: 1 allowed, 2 blocked.
        let denied = if passed { 1 } else { 2 };
        out.insert("action_id".into(), json!(denied));
        out.insert("disposition_id".into(), json!(denied));
    }
    out.insert("status_detail".into(), json!(view.result));
}

fn actor(view: &View<'_>, out: &mut Map<String, Value>) {
    let (path, command) = told::actor(view);
    out.insert("actor".into(), json!({"process": process(path, command)}));
}

/// The process that was acted upon.
fn target(view: &View<'_>) -> Value {
    match told::starts(view) {
        true => process(view.process, view.resource),
        false => json!({"name": leaf(view.resource), "file": file(view.resource)}),
    }
}

/// 2 is a system call.
fn kernel(view: &View<'_>) -> Value {
    match (view.operation, call(view)) {
        ("Syscall", Some(call)) => json!({"name": call, "type_id": 2, "path": view.resource}),
        ("Syscall", None) => json!({"name": view.operation, "type_id": 2, "path": view.resource}),
        (operation, _) => {
            let name = match view.resource {
                "" => operation,
                resource => resource,
            };
            json!({"name": name, "type_id": OTHER, "type": operation})
        }
    }
}

fn process(path: &str, command: &str) -> Value {
    json!({"name": leaf(path), "cmd_line": command, "file": file(path)})
}

fn file(path: &str) -> Value {
    json!({"name": leaf(path), "path": path, "type_id": 0})
}

fn leaf(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The workload's end, and the other where its address is told.
fn endpoints(view: &View<'_>, out: &mut Map<String, Value>) {
    let mut own = json!({"hostname": view.host});
    if !view.pod.is_empty() {
        own["name"] = json!(view.pod);
    }
    let (here, there) = match told::is_inbound(view) {
        true => ("dst_endpoint", "src_endpoint"),
        false => ("src_endpoint", "dst_endpoint"),
    };
    out.insert(here.into(), own);
    let (address, port) = told::peer(view);
    if let Some(address) = address {
        let mut other = json!({"ip": address});
        if let Some(port) = port {
            other["port"] = json!(port);
        }
        out.insert(there.into(), other);
    }
}

fn labels<'a>(view: &View<'a>) -> Vec<&'a str> {
    view.labels
        .split(',')
        .filter(|pair| !pair.is_empty())
        .collect()
}

/// 1 informational, 2 low, 3 medium, 4 high, 5 critical.
fn severity(gravity: u32) -> u32 {
    match gravity {
        9.. => 5,
        7.. => 4,
        4.. => 3,
        2.. => 2,
        _ => 1,
    }
}
