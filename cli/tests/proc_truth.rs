//! What a field means, held against what `/proc` says of the same process.
#![allow(clippy::expect_used, clippy::panic)] // reason: a test that cannot go on has failed

mod support;

use std::collections::BTreeMap;

use support::can_watch;
use support::node::Node;

const SETTINGS: &str = "
version: 1
cluster: truth
sensor:
  visibility: {workloads: [process, file, network], host: []}
";

/// Prints what the kernel says of the shell and then becomes another program, so that its own exec is told.
const SCRIPT: &str = r#"
cd /usr/share
echo pid=$(awk '/^NSpid/ {print $NF}' /proc/$$/status)
echo hostpid=$(awk '/^Pid/ {print $2}' /proc/$$/status)
echo ppid=$(awk '/^PPid/ {print $2}' /proc/$$/status)
echo parent=$(readlink /proc/$PPID/exe)
echo uid=$(awk '/^Uid/ {print $2}' /proc/$$/status)
echo cwd=$(readlink /proc/$$/cwd)
exec /usr/bin/env FIRST=1 /bin/cat /etc/hostname
"#;

#[test]
fn fields_of_an_exec_agree_with_proc() {
    if !can_watch("proc-truth") {
        return;
    }
    let node = Node::start(&[], SETTINGS, &[]);
    let out = node.run("truth", "pod", "app=truth,tier=test", &["sh", "-c", SCRIPT]);
    assert!(out.status.success(), "{out:?}");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let truth: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .collect();

    let env = node.told("system", &[("ProcessName", "/usr/bin/env")]);
    assert_eq!(env["Type"], "ContainerLog");
    assert_eq!(env["Operation"], "Process");
    assert_eq!(
        env["Resource"],
        "/usr/bin/env FIRST=1 /bin/cat /etc/hostname"
    );
    assert_eq!(env["Data"], "syscall=SYS_EXECVE");
    assert_eq!(env["EventData"]["Syscall"], "SYS_EXECVE");
    assert_eq!(env["PID"].to_string(), truth["pid"]);
    assert_eq!(env["HostPID"].to_string(), truth["hostpid"]);
    assert_eq!(env["HostPPID"].to_string(), truth["ppid"]);
    assert_eq!(env["UID"].to_string(), truth["uid"]);
    assert_eq!(env["Cwd"], format!("{}/", truth["cwd"]));
    assert_eq!(env["Result"], "Passed");
    assert_eq!(
        (env["NamespaceName"].as_str(), env["PodName"].as_str()),
        (Some("truth"), Some("pod"))
    );
    assert_eq!(env["Labels"], "app=truth,tier=test");
    assert_eq!(env["ClusterName"], "truth");
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("a host name");
    assert_eq!(env["HostName"], host.trim());
    let machine = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    if !machine.trim().is_empty() {
        assert_eq!(env["NodeID"], machine.trim());
    }
    assert_eq!(env["ExecEvent"]["ExecutableName"], "env");
    assert!(
        env.get("TTY").is_none(),
        "a workload without a terminal has a TTY: {env}"
    );

    // env becomes cat: the same process, whose image was env.
    let cat = node.told(
        "system",
        &[("ProcessName", "/usr/bin/cat"), ("Operation", "Process")],
    );
    assert_eq!(cat["PID"], env["PID"]);
    let open = node.told(
        "system",
        &[("Operation", "File"), ("Resource", "/etc/hostname")],
    );
    assert_eq!(open["Source"], "/bin/cat /etc/hostname");
    assert_eq!(open["ProcessName"], "/usr/bin/cat");
    assert_eq!(open["Data"], "syscall=SYS_OPENAT fd=-100 flags=O_RDONLY");
    assert_eq!(open["PID"], env["PID"]);
    let exact: i64 = open["Timestamp"].as_i64().expect("a number");
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("a clock");
    assert!(
        (now.as_secs() as i64 - exact).abs() < 60,
        "Timestamp {exact} is not now"
    );
}

#[test]
fn a_connection_and_its_listener_are_told_with_their_addresses() {
    if !can_watch("proc-truth-network") {
        return;
    }
    let node = Node::start(&[], SETTINGS, &[]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = listener.local_addr().expect("bound").port();
    let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port}");
    let out = node.run("truth", "pod", "app=truth", &["bash", "-c", &script]);
    assert!(out.status.success(), "{out:?}");
    let resource = format!("sa_family=AF_INET sin_port={port} sin_addr=127.0.0.1");
    let connect = node.told(
        "system",
        &[("Operation", "Network"), ("Resource", &resource)],
    );
    assert!(
        connect["Data"]
            .as_str()
            .unwrap_or_default()
            .starts_with("syscall=SYS_CONNECT fd="),
        "{connect}"
    );
    assert_eq!(connect["EventData"]["Sin_port"], port.to_string());
}

#[test]
fn a_removed_and_a_renamed_file_are_told_with_their_names() {
    if !can_watch("proc-truth-files") {
        return;
    }
    let node = Node::start(&[], SETTINGS, &[]);
    let dir = tempfile::tempdir().expect("a folder");
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    std::fs::write(&a, "x").expect("a file");
    let script = format!("mv {} {}; rm {}", a.display(), b.display(), b.display());
    let out = node.run("truth", "pod", "app=truth", &["sh", "-c", &script]);
    assert!(out.status.success(), "{out:?}");
    let gone = node.told(
        "system",
        &[
            ("Operation", "File"),
            ("Resource", &b.display().to_string()),
        ],
    );
    assert!(
        gone["Data"]
            .as_str()
            .unwrap_or_default()
            .starts_with("syscall=SYS_UNLINK"),
        "{gone}"
    );
}
