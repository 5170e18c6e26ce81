//! OCSF 1.3: alerts as Detection Findings, logs as the activity that they are.
//!
//! | event | class |
//! |---|---|
//! | alert | Detection Finding, 2004 |
//! | log, Process | Process Activity, 1007 |
//! | log, File | File System Activity, 1001 |
//! | log, Network, that says who answers | Network Activity, 4001 |
//! | log, Network (a socket is made), Syscall, Capabilities | Kernel Activity, 1003 |
//! | anything else | Base Event, 0 |
//!
//! `unmapped` holds the whole event, so nothing is lost on the way. The actor of a program that is started is its parent. Of a
//! connection the workload is one end, and the other end stands where it began or answered. Source: schema.ocsf.io, version
//! 1.3.0; an endpoint is one by its address or its host's name, a process by its number, and activity 99 has its own name beside
//! it. What is produced is held to that schema in `tests/web.rs`.

use std::net::IpAddr;

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
    let whole = object(event)?;
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
            "profiles": class.profiles(),
            "product": {"name": "Cresset", "vendor_name": "Cresset", "version": env!("CARGO_PKG_VERSION")},
            "labels": labels(&view),
        },
    });
    if let Some(out) = out.as_object_mut() {
        if class.activity(&view) == OTHER {
            out.insert("activity_name".into(), json!(activity_name(&view)));
        }
        if class != Class::Base {
            out.insert("device".into(), device(&view));
        }
        outcome(&view, out);
        class.own(event, &Seen::of(view, &whole), out);
        out.insert("unmapped".into(), whole);
    }
    serde_json::to_vec(&out).map_err(|error| error.to_string())
}

/// An activity or a type that the schema has no number for.
const OTHER: u32 = 99;

/// Where it happened: a machine of unknown kind.
fn device(view: &View<'_>) -> Value {
    match view.host {
        "" => json!({"name": UNKNOWN, "type_id": 0}),
        host => json!({"hostname": host, "type_id": 0}),
    }
}

/// What the schema wants a word for, and the event has none.
const UNKNOWN: &str = "unknown";

/// An event, and who was at work in it.
struct Seen<'a> {
    view: View<'a>,
    own: Pid,
    parent: Pid,
}

/// A process by its numbers; 0: not told.
#[derive(Clone, Copy)]
struct Pid {
    /// Of the node.
    host: u64,
    /// Of its container.
    inner: u64,
}

impl<'a> Seen<'a> {
    fn of(view: View<'a>, whole: &Value) -> Self {
        let number = |key: &str| whole[key].as_u64().unwrap_or_default();
        let pid = |host: &str, inner: &str| Pid {
            host: number(host),
            inner: number(inner),
        };
        Seen {
            view,
            own: pid("HostPID", "PID"),
            parent: pid("HostPPID", "PPID"),
        }
    }

    /// Who acted: of a program that is started, its parent.
    fn actor(&self) -> Value {
        let (path, command) = told::actor(&self.view);
        let pid = match told::starts(&self.view) {
            true => self.parent,
            false => self.own,
        };
        json!({"process": process(path, command, pid)})
    }

    /// The process that was acted upon.
    fn target(&self) -> Value {
        if told::starts(&self.view) {
            return process(self.view.process, self.view.resource, self.own);
        }
        let words = self.view.data.split(' ');
        let mut words = words.filter_map(|word| word.split_once('='));
        let traced = words.find(|(key, _)| *key == "pid");
        let host = traced
            .and_then(|(_, pid)| pid.parse().ok())
            .unwrap_or_default();
        process(self.view.resource, "", Pid { host, inner: 0 })
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
            (Kind::Log, "Network") if Ends::of(view).answers.is_some() => Class::Network,
            (Kind::Log, "Syscall" | "Capabilities" | "Network") => Class::Kernel,
            _ => Class::Base,
        }
    }

    /// Whose attributes are used besides those of the class.
    fn profiles(self) -> &'static [&'static str] {
        match self {
            Class::Finding => &["host", "container", "security_control"],
            Class::Base => &[],
            _ => &["host", "container"],
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
    fn own(self, event: &Encoded, seen: &Seen<'_>, out: &mut Map<String, Value>) {
        let view = &seen.view;
        match self {
            Class::Base => return,
            Class::Finding => return finding(event, seen, out),
            Class::Process => drop(out.insert("process".into(), seen.target())),
            Class::File => drop(out.insert("file".into(), file(view.resource))),
            Class::Network => Ends::of(view).put(out),
            Class::Kernel => drop(out.insert("kernel".into(), kernel(view))),
        }
        out.insert("actor".into(), seen.actor());
    }
}

fn finding(event: &Encoded, seen: &Seen<'_>, out: &mut Map<String, Value>) {
    let view = &seen.view;
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
            "analytic": {"name": or_unknown(view.policy), "type_id": 1, "type": "Rule"},
        }),
    );
    let mut evidence = Map::new();
    evidence.insert("actor".into(), seen.actor());
    match view.operation {
        "File" => drop(evidence.insert("file".into(), file(view.resource))),
        "Network" => Ends::of(view).put(&mut evidence),
        "Process" => drop(evidence.insert("process".into(), seen.target())),
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
    // Status: 1 success, 2 failure. Action: 1 allowed, 2 denied. Disposition: 1 allowed, 2 blocked. 0 is unknown in all.
    let went = match view.result {
        "" => 0,
        "Passed" => 1,
        _ => 2,
    };
    let keys: &[&str] = match view.kind {
        Kind::Message => return,
        Kind::Log => &["status_id"],
        Kind::Alert => &["action_id", "disposition_id"],
    };
    for key in keys {
        out.insert((*key).to_owned(), json!(went));
    }
    if went > 0 {
        out.insert("status_detail".into(), json!(view.result));
    }
}

/// 2 is a system call.
fn kernel(view: &View<'_>) -> Value {
    match (view.operation, call(view)) {
        ("Syscall", Some(call)) => json!({"name": call, "type_id": 2, "path": view.resource}),
        ("Syscall", None) => json!({"name": view.operation, "type_id": 2, "path": view.resource}),
        ("Network", Some(call)) if call.starts_with("SYS_") => json!({"name": call, "type_id": 2}),
        ("Network", Some(call)) => json!({"name": call, "type_id": OTHER, "type": "Network"}),
        (operation, _) => {
            let name = match view.resource {
                "" => operation,
                resource => resource,
            };
            json!({"name": name, "type_id": OTHER, "type": operation})
        }
    }
}

/// One that nobody numbered is known by a word.
fn process(path: &str, command: &str, pid: Pid) -> Value {
    let mut out = json!({"name": or_unknown(leaf(path))});
    if !command.is_empty() {
        out["cmd_line"] = json!(command);
    }
    if !path.is_empty() {
        out["file"] = file(path);
    }
    match pid {
        Pid { host: 0, inner: 0 } => out["uid"] = json!(UNKNOWN),
        Pid { host: 0, inner } => out["pid"] = json!(inner),
        Pid { host, inner: 0 } => out["pid"] = json!(host),
        Pid { host, inner } => {
            out["pid"] = json!(host);
            out["namespace_pid"] = json!(inner);
        }
    }
    out
}

fn file(path: &str) -> Value {
    json!({"name": or_unknown(leaf(path)), "path": path, "type_id": 0})
}

/// The last name of a path; the path itself where it has none.
fn leaf(path: &str) -> &str {
    match path.rsplit('/').next() {
        None | Some("") => path,
        Some(name) => name,
    }
}

fn or_unknown(word: &str) -> &str {
    if word.is_empty() { UNKNOWN } else { word }
}

/// Who asks and who answers, as far as they are told.
#[derive(Default)]
struct Ends {
    asks: Option<Value>,
    answers: Option<Value>,
}

impl Ends {
    /// The workload is one of them: it answers where it listens or was called.
    fn of(view: &View<'_>) -> Ends {
        let mut own = json!({});
        if !view.host.is_empty() {
            own["hostname"] = json!(view.host);
        }
        if !view.pod.is_empty() {
            own["name"] = json!(view.pod);
        } else if view.host.is_empty() {
            own["name"] = json!(UNKNOWN);
        }
        let (address, port) = told::peer(view);
        let address = address.or_else(|| local_socket(view));
        if ["_BIND", "LISTEN"]
            .iter()
            .any(|word| view.data.contains(word))
        {
            place(&mut own, address, port);
            return Ends {
                asks: None,
                answers: Some(own),
            };
        }
        let other = address.map(|address| {
            let mut other = json!({});
            place(&mut other, Some(address), port);
            other
        });
        match told::is_inbound(view) {
            true => Ends {
                asks: other,
                answers: Some(own),
            },
            false => Ends {
                asks: Some(own),
                answers: other,
            },
        }
    }

    fn put(self, out: &mut Map<String, Value>) {
        let Ends { asks, answers } = self;
        let ends = [("src_endpoint", asks), ("dst_endpoint", answers)];
        for (key, end) in ends {
            out.extend(end.map(|end| (key.to_owned(), end)));
        }
    }
}

/// The name of a socket on this machine.
fn local_socket<'a>(view: &View<'a>) -> Option<&'a str> {
    let mut words = view
        .resource
        .split(' ')
        .filter_map(|word| word.split_once('='));
    let name = words.find(|(key, _)| *key == "sun_path");
    name.map(|(_, name)| name).filter(|name| !name.is_empty())
}

/// The address that an endpoint has; one that is no address of IP is a name.
fn place(end: &mut Value, address: Option<&str>, port: Option<u16>) {
    match address.map(|address| (address, address.parse::<IpAddr>())) {
        Some((_, Ok(ip))) => end["ip"] = json!(ip.to_string()),
        Some((name, Err(_))) if !name.is_empty() => end["name"] = json!(name),
        _ => {}
    }
    if let Some(port) = port {
        end["port"] = json!(port);
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
