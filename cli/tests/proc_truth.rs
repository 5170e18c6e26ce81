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
echo cgroup=$(awk -F: '/^0:/ {print $3}' /proc/$$/cgroup)
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
    assert_eq!(env["PPID"].to_string(), truth["ppid"]);
    assert_eq!(env["ParentProcessName"], truth["parent"]);
    assert_eq!(env["Source"], truth["parent"]);
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
    assert_eq!(env["ExecEvent"]["ExecID"], "0");
    assert_eq!(env["ContainerName"], "pod");
    let cgroup = truth["cgroup"].replace('/', "-");
    let id = env["ContainerID"].as_str().expect("an id");
    assert!(cgroup.ends_with(id), "{id} is not the end of {cgroup}");
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

/// A new pid namespace, in it a new user, and a terminal: what a task calls itself and what its host calls it.
#[test]
fn numbers_are_those_of_the_namespace_and_of_the_host_and_a_terminal_has_its_name() {
    if !can_watch("proc-truth-namespace") {
        return;
    }
    let node = Node::start(&[], SETTINGS, &[]);
    let script = "unshare --pid --fork setpriv --reuid 65534 --clear-groups sh -c \
        'echo own=$$; exec /usr/bin/env INSIDE=1 sleep 300' & \
        while ! child=$(pgrep -P $!); do sleep 0.05; done; echo host=$child; \
        until grep -qx 'Name:.sleep' /proc/$child/status; do sleep 0.05; done; kill -9 $child; wait";
    let out = node.run("truth", "pod", "app=truth", &["bash", "-c", script]);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let truth: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .collect();
    let env = node.told("system", &[("Resource", "/usr/bin/env INSIDE=1 sleep 300")]);
    assert_eq!(env["PID"].to_string(), truth["own"], "{env}");
    assert_eq!(env["HostPID"].to_string(), truth["host"], "{env}");
    assert_eq!(env["PPID"], 0, "its parent is not in its namespace: {env}");
    assert_eq!(env["UID"], 65534, "{env}");
    assert!(env.get("TTY").is_none(), "{env}");

    let script = "tty; exec /usr/bin/env AT=1 true";
    let command = ["script", "-qec", script, "/dev/null"];
    let out = node.run("truth", "pod", "app=truth", &command);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let terminal = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("/dev/"));
    let env = node.told("system", &[("Resource", "/usr/bin/env AT=1 true")]);
    let name = terminal.expect("a terminal").replace('/', "");
    assert_eq!(env["TTY"], name, "{env}");
}

/// A server that waits for one client and tells which it was; both are the workload.
const SERVER: &str = r#"
    socket(S, PF_INET, SOCK_STREAM, 6) && bind(S, sockaddr_in(0, INADDR_LOOPBACK)) && listen(S, 1) or die;
    my ($port) = sockaddr_in(getsockname S);
    if (!fork) {
        socket(C, PF_INET, SOCK_STREAM, 6) && connect(C, sockaddr_in($port, INADDR_LOOPBACK)) or die;
        exit;
    }
    my ($client) = sockaddr_in(accept(A, S));
    wait;
    print join("\n", "server=" . fileno(S), "port=$port", "client=$client"), "\n";
"#;

#[test]
fn both_ends_of_a_connection_are_told_with_their_addresses() {
    if !can_watch("proc-truth-network") {
        return;
    }
    let node = Node::start(&[], SETTINGS, &[]);
    let command = ["perl", "-MSocket", "-e", SERVER];
    let out = node.run("truth", "pod", "app=truth", &command);
    assert!(out.status.success(), "{out:?}");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let truth: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .collect();
    let end = |port| format!("sa_family=AF_INET sin_port={port} sin_addr=127.0.0.1");
    let wire = |port| format!("remoteip=127.0.0.1 port={port} protocol=TCP");
    let (server, client) = (end(truth["port"]), end(truth["client"]));
    let (to_server, to_client) = (wire(truth["port"]), wire(truth["client"]));
    let fd = truth["server"];
    let told = |resource: &str, data: &str| {
        let wanted = [
            ("Operation", "Network"),
            ("Resource", resource),
            ("Data", data),
        ];
        let event = node.told("system", &wanted);
        assert_eq!(event["ProcessName"], "/usr/bin/perl", "{event}");
        assert_eq!(event["Result"], "Passed", "{event}");
        event
    };
    told(&server, &format!("syscall=SYS_BIND fd={fd}"));
    let listen = format!("syscall=SYS_LISTEN fd={fd}");
    node.told("system", &[("Operation", "Network"), ("Data", &listen)]);
    let accept = told(&client, &format!("syscall=SYS_ACCEPT fd={fd}"));
    assert_eq!(accept["EventData"]["Sin_port"], truth["client"]);
    told(&to_client, "kprobe=tcp_accept domain=AF_INET");
    told(&to_server, "kprobe=tcp_connect domain=AF_INET");
    let connects = node.told("system", &[("Operation", "Network"), ("Resource", &server)]);
    assert_eq!(connects["EventData"]["Sin_port"], truth["port"]);
}

#[test]
fn a_udp_socket_that_is_connected_is_told_with_its_peer() {
    if !can_watch("proc-truth-udp") {
        return;
    }
    let node = Node::start(&[], SETTINGS, &[]);
    let script = "exec 3<>/dev/udp/127.0.0.1/9";
    let out = node.run("truth", "pod", "app=truth", &["bash", "-c", script]);
    assert!(out.status.success(), "{out:?}");
    let resource = "sa_family=AF_INET sin_port=9 sin_addr=127.0.0.1";
    let connect = node.told("system", &[("Resource", resource)]);
    let data = connect["Data"].as_str().unwrap_or_default();
    assert!(data.starts_with("syscall=SYS_CONNECT fd="), "{connect}");
    assert_eq!(connect["Source"], format!("/usr/bin/bash -c {script}"));
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
    let file = |name: &std::path::Path| {
        let name = name.display().to_string();
        node.told("system", &[("Operation", "File"), ("Resource", &name)])
    };
    let moved = file(&a);
    let data = moved["Data"].as_str().unwrap_or_default();
    assert!(data.starts_with("syscall=SYS_RENAME"), "{moved}");
    assert_eq!(moved["EventData"]["Newpath"], b.display().to_string());
    let gone = file(&b);
    let data = gone["Data"].as_str().unwrap_or_default();
    assert!(data.starts_with("syscall=SYS_UNLINK"), "{gone}");
    let rm = format!("/usr/bin/rm {}", b.display());
    assert_eq!(
        (&gone["Source"], &gone["Result"]),
        (&rm.into(), &"Passed".into())
    );
}
