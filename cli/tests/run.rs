//! `cresset run`: its exit status is the command's, signals reach it, and nothing of it outlives it.
#![allow(clippy::expect_used, clippy::panic)] // reason: a test that cannot go on has failed

mod support;

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use support::node::{Node, cgroups_left};
use support::{can_watch, eventually, program};

const QUIET: &str = "
version: 1
sensor:
  visibility: {workloads: [], host: []}
";

fn node() -> Node {
    Node::start(&[], QUIET, &[])
}

fn run(node: &Node, command: &[&str]) -> Command {
    node.run_command("test", "pod", "app=test", command)
}

fn code(node: &Node, command: &[&str]) -> Option<i32> {
    run(node, command).status().expect("cresset run").code()
}

fn signal(child: &Child, signal: libc::c_int) {
    let pid = libc::pid_t::try_from(child.id()).expect("a pid");
    // SAFETY: our own child, which has not been waited for.
    unsafe { libc::kill(pid, signal) };
}

/// Is this process gone, or dead and only not buried yet?
fn gone(pid: &str) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return true;
    };
    stat.rsplit(") ")
        .next()
        .is_some_and(|rest| rest.starts_with(['Z', 'X']))
}

/// The pid that a workload's script writes into this file.
fn written(file: &Path) -> String {
    eventually("the workload runs", Duration::from_secs(60), || {
        let text = std::fs::read_to_string(file).ok()?;
        text.ends_with('\n').then(|| text.trim().to_owned())
    })
}

#[test]
fn the_exit_status_is_the_commands() {
    if !can_watch("run-status") {
        return;
    }
    let node = node();
    assert_eq!(code(&node, &["true"]), Some(0));
    assert_eq!(code(&node, &["sh", "-c", "exit 7"]), Some(7));
    assert_eq!(code(&node, &["sh", "-c", "kill -9 $$"]), Some(137));
    assert_eq!(code(&node, &["/nonexistent/program"]), Some(127));
    assert_eq!(code(&node, &["/etc/passwd"]), Some(126));
}

#[test]
fn standard_input_and_output_are_the_callers() {
    if !can_watch("run-pipes") {
        return;
    }
    let node = node();
    let mut child = run(&node, &["cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("cresset run");
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(b"through")
        .expect("written");
    let out = child.wait_with_output().expect("an end");
    assert_eq!(String::from_utf8_lossy(&out.stdout), "through");
}

#[test]
fn the_command_is_born_in_a_cgroup_of_its_own() {
    if !can_watch("run-cgroup") {
        return;
    }
    let node = node();
    let out = node.run("test", "pod", "app=test", &["cat", "/proc/self/cgroup"]);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(
        text.lines()
            .any(|line| line.starts_with("0::/cresset/sensor-")),
        "{text}"
    );
}

#[test]
fn signals_are_passed_on() {
    if !can_watch("run-signals") {
        return;
    }
    let node = node();
    let file = node.path("pid");
    let script = format!(
        "trap 'exit 5' TERM; echo $$ > {}; while :; do sleep 0.05; done",
        file.display()
    );
    let mut child = run(&node, &["sh", "-c", &script])
        .spawn()
        .expect("cresset run");
    written(&file);
    signal(&child, libc::SIGTERM);
    assert_eq!(child.wait().expect("an end").code(), Some(5));
}

#[test]
fn nothing_outlives_the_command() {
    if !can_watch("run-leftovers") {
        return;
    }
    let node = node();
    let file = node.path("pid");
    let script = format!("setsid sleep 300 & echo $! > {}", file.display());
    assert_eq!(code(&node, &["sh", "-c", &script]), Some(0));
    let pid = written(&file);
    assert!(gone(&pid), "{pid} lives");
}

#[test]
fn cgroups_that_the_workload_made_go_with_it() {
    if !can_watch("run-nested") {
        return;
    }
    let node = node();
    let script = "own=$(awk '$3 == \"cgroup2\" {print $2; exit}' /proc/mounts)$(sed -n 's/^0:://p' /proc/self/cgroup); \
        mkdir -p $own/a/b && (echo 0 > $own/a/b/cgroup.procs; exec setsid sleep 300) & sleep 0.2; echo done";
    let out = node.run("test", "pod", "app=test", &["bash", "-c", script]);
    assert_eq!(String::from_utf8_lossy(&out.stdout), "done\n", "{out:?}");
    let left = cgroups_left(node.up.pid());
    let [sensor] = left.as_slice() else {
        panic!("one folder a sensor: {left:?}")
    };
    let workloads = std::fs::read_dir(sensor).expect("the sensor's folder");
    let workloads = workloads.flatten().filter(|entry| entry.path().is_dir());
    assert_eq!(workloads.count(), 0, "a workload's cgroup is left");
}

#[test]
fn a_caller_that_ignores_the_end_of_children_gets_the_status_all_the_same() {
    if !can_watch("run-sigchld") {
        return;
    }
    let node = node();
    let mut run = run(&node, &["sh", "-c", "exit 7"]);
    // SAFETY: signal(2) may be called between fork and exec.
    unsafe {
        run.pre_exec(|| {
            libc::signal(libc::SIGCHLD, libc::SIG_IGN);
            Ok(())
        });
    }
    assert_eq!(run.status().expect("cresset run").code(), Some(7));
}

#[test]
fn a_killed_run_takes_its_workload_with_it() {
    if !can_watch("run-killed") {
        return;
    }
    let node = node();
    let file = node.path("pid");
    let script = format!("echo $$ > {}; exec sleep 300", file.display());
    let mut child = run(&node, &["sh", "-c", &script])
        .spawn()
        .expect("cresset run");
    let pid = written(&file);
    signal(&child, libc::SIGKILL);
    child.wait().expect("an end");
    eventually("the workload ends", Duration::from_secs(60), || {
        gone(&pid).then_some(())
    });
}

#[test]
fn a_killed_sensor_takes_its_workloads_with_it() {
    if !can_watch("run-orphaned") {
        return;
    }
    let node = node();
    let file = node.path("pid");
    let script = format!("echo $$ > {}; exec sleep 300", file.display());
    let child = run(&node, &["sh", "-c", &script])
        .stderr(Stdio::piped())
        .spawn()
        .expect("cresset run");
    let pid = written(&file);
    node.up.signal(libc::SIGKILL);
    let out = child.wait_with_output().expect("an end");
    assert_eq!(out.status.code(), Some(3), "{out:?}");
    assert!(
        String::from_utf8_lossy(&out.stderr).contains("the sensor ended"),
        "{out:?}"
    );
    assert!(gone(&pid), "{pid} lives");
}

#[test]
fn without_a_sensor_it_says_where_it_looked() {
    let dir = tempfile::tempdir().expect("a folder");
    let socket = dir.path().join("none.sock");
    let out = program("cresset")
        .arg("run")
        .arg("--sensor")
        .arg(&socket)
        .args(["--", "true"])
        .output();
    let out = out.expect("cresset run");
    assert_eq!(out.status.code(), Some(3), "{out:?}");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(
        said.contains(&socket.display().to_string()) && said.contains("cresset up"),
        "{said}"
    );
}

#[test]
fn a_label_that_is_none_is_wrong_usage() {
    let out = program("cresset")
        .args(["run", "-l", "app", "--", "true"])
        .output()
        .expect("cresset run");
    assert_eq!(out.status.code(), Some(2), "{out:?}");
    assert!(
        String::from_utf8_lossy(&out.stderr).contains("KEY=VALUE"),
        "{out:?}"
    );
}
