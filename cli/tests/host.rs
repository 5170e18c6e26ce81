//! What is told of the host's own tasks, through the whole program. Also a suite for `cargo xtask vm`.
#![allow(clippy::expect_used, clippy::panic)] // reason: a test that cannot go on has failed

mod support;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::node::Node;
use support::{can_watch, eventually};

const SETTINGS: &str = "
version: 1
cluster: host
sensor:
  visibility: {workloads: [process, file], host: [process, file]}
";

const QUIET: &str = "
version: 1
cluster: host
sensor:
  visibility: {workloads: [process, file]}
";

/// A shell that becomes `cat FILE` when its input ends.
fn reader(file: &Path) -> Child {
    let script = format!("read _; exec /bin/cat {}", file.display());
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &script]);
    shell.stdin(Stdio::piped()).stdout(Stdio::null());
    shell.spawn().expect("a shell")
}

fn finish(mut reader: Child) {
    drop(reader.stdin.take());
    assert!(reader.wait().expect("ends").success());
}

fn exe_of(path: &str) -> String {
    let path = std::fs::canonicalize(path).expect("exists");
    path.to_string_lossy().into_owned()
}

fn by_pid(node: &Node, pid: u32) -> Vec<Value> {
    let mut events = node.history("system");
    events.retain(|event| event["HostPID"] == pid);
    events
}

#[test]
fn a_program_of_the_host_is_told_as_a_host_log() {
    if !can_watch("host") {
        return;
    }
    let node = Node::start(&[], SETTINGS, &[]);
    let dir = tempfile::tempdir().expect("a folder");
    let file = std::fs::canonicalize(dir.path())
        .expect("exists")
        .join("data");
    std::fs::write(&file, "text").expect("a file");
    let reader = reader(&file);
    let pid = reader.id();
    finish(reader);
    let shown = file.display().to_string();
    let is_open = |event: &Value| event["Operation"] == "File" && event["Resource"] == *shown;
    let told = eventually("both are told", Duration::from_secs(60), || {
        let told = by_pid(&node, pid);
        told.iter().any(is_open).then_some(told)
    });
    let command = format!("/bin/cat {shown}");
    let exec = told
        .iter()
        .find(|event| event["Operation"] == "Process" && event["ProcessName"] == exe_of("/bin/cat"))
        .unwrap_or_else(|| panic!("no exec of cat: {told:?}"));
    let open = told
        .iter()
        .find(|event| is_open(event))
        .expect("found above");
    assert_eq!(open["Source"], command);
    assert_eq!(open["ProcessName"], exec["ProcessName"]);
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let root = passwd
        .lines()
        .find(|line| line.split(':').nth(2) == Some("0"));
    let root = root.and_then(|line| line.split(':').next());
    for event in [exec, open] {
        assert_eq!(event["Type"], "HostLog", "{event}");
        assert_eq!(event["PID"], pid);
        assert_eq!(event["PPID"], std::process::id());
        assert_eq!(event["HostPPID"], std::process::id());
        assert_eq!(
            (&event["UID"], event["UserName"].as_str()),
            (&0.into(), root)
        );
        for empty in [
            "NamespaceName",
            "PodName",
            "Labels",
            "ContainerID",
            "ContainerName",
            "Owner",
        ] {
            assert!(event.get(empty).is_none(), "{empty}: {event}");
        }
    }
}

#[test]
fn a_workload_is_told_as_before_and_the_sensor_itself_not_at_all() {
    if !can_watch("host-and-workload") {
        return;
    }
    let node = Node::start(&[], SETTINGS, &[]);
    let out = node.run("shop", "cart", "app=cart", &["/bin/cat", "/etc/machine-id"]);
    assert!(out.status.success(), "{out:?}");
    let exec = node.told(
        "system",
        &[("Operation", "Process"), ("NamespaceName", "shop")],
    );
    node.told("system", &[("Resource", "/etc/machine-id")]);
    let pid = exec["HostPID"].as_u64().expect("a number");
    let all = by_pid(&node, u32::try_from(pid).expect("a pid"));
    assert!(all.len() >= 2, "{all:?}");
    for event in all {
        assert_eq!(event["Type"], "ContainerLog", "{event}");
        assert!(event.get("UserName").is_none(), "{event}");
    }
    assert_eq!(by_pid(&node, node.up.pid()), Vec::<Value>::new());
}

#[test]
fn by_default_nothing_is_told_of_the_host() {
    if !can_watch("host-off") {
        return;
    }
    let node = Node::start(&[], QUIET, &[]);
    let reader = reader(Path::new("/dev/null"));
    let pid = reader.id();
    finish(reader);
    // A workload afterwards: once it is told, whatever came before it would be too.
    let out = node.run("shop", "cart", "app=cart", &["/bin/true"]);
    assert!(out.status.success(), "{out:?}");
    node.told("system", &[("NamespaceName", "shop")]);
    assert_eq!(by_pid(&node, pid), Vec::<Value>::new());
    let hosts = node.history("system");
    assert!(
        hosts.iter().all(|event| event["Type"] != "HostLog"),
        "{hosts:?}"
    );
}
