//! Host visibility on the machine at hand: what tasks do that are in no workload. The machine is busy with others, so each
//! test looks at the processes that it started itself.

#![allow(clippy::panic, clippy::expect_used)] // reason: tests fail by panicking

#[path = "kernel/flat.rs"]
mod flat;
mod kernel;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};

use flat::Rules;
use kernel::{Scene, WORKLOAD, resolved, wait};
use policy::{Action, Posture};
use sensor_bpf::kernel::{Contain, HOST, Visibility};
use sensor_bpf::observe::{Address, Observation, Op};

const ALL: Visibility = Visibility {
    process: true,
    file: true,
    network: true,
    capabilities: true,
};

fn scene(host: Visibility) -> Option<Scene> {
    let scene = Scene::new(Contain::Default)?;
    scene.kernel.host_visibility(host).expect("attaches");
    Some(scene)
}

/// What is told of a process.
fn of(scene: &mut Scene, pid: u32) -> Vec<Observation> {
    let its = |seen: &&Observation| seen.task.host_pid == pid;
    scene.look().iter().filter(its).cloned().collect()
}

/// A shell that runs its script when its standard input ends.
fn shell(script: &str) -> Child {
    let script = format!("read _; {script}");
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]);
    shell.stdin(Stdio::piped()).stdout(Stdio::null());
    shell.spawn().expect("starts")
}

fn go(mut shell: Child) {
    drop(shell.stdin.take());
    assert!(shell.wait().expect("ends").success());
}

fn execs(seen: &[Observation]) -> Vec<String> {
    let path = |seen: &Observation| match &seen.op {
        Op::Exec { path, .. } => Some(path.clone()),
        _ => None,
    };
    seen.iter().filter_map(path).collect()
}

/// The values of a line of `/proc/PID/status`.
fn status(pid: u32, key: &str) -> u32 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("alive");
    let line = text.lines().find(|line| line.starts_with(key));
    let value = line.and_then(|line| line.split_whitespace().nth(1));
    value
        .and_then(|value| value.parse().ok())
        .expect("a number")
}

#[test]
fn a_host_process_is_told_as_proc_tells_it() {
    let Some(mut scene) = scene(ALL) else {
        return;
    };
    let mut sleep = Command::new("sleep");
    let mut child = sleep
        .arg("300")
        .current_dir("/usr")
        .spawn()
        .expect("starts");
    let pid = child.id();
    let exe = resolved(&format!("/proc/{pid}/exe"));
    let seen = of(&mut scene, pid);
    let (uid, ppid) = (status(pid, "Uid:"), status(pid, "PPid:"));
    let cmdline = fs::read(format!("/proc/{pid}/cmdline")).expect("alive");
    child.kill().expect("alive");
    child.wait().expect("ends");
    let exec = seen
        .iter()
        .find(|seen| matches!(seen.op, Op::Exec { .. }))
        .expect("its exec is told");
    let Op::Exec {
        path,
        args,
        parent_exe,
        ..
    } = &exec.op
    else {
        panic!()
    };
    assert_eq!(path, &exe);
    assert_eq!(args.join("\0") + "\0", String::from_utf8_lossy(&cmdline));
    assert_eq!(parent_exe, &resolved("/proc/self/exe"));
    let task = &exec.task;
    assert_eq!(task.workload, HOST);
    assert_eq!((task.host_ppid, task.uid), (ppid, uid));
    assert_eq!(task.cwd, "/usr");
    assert!(task.exec_id > 1 << 32, "{}", task.exec_id);
    assert!(seen.iter().all(|seen| seen.verdict.is_none()));
    let exits = |seen: &Observation| {
        matches!(seen.op, Op::Exit { code: 9 }) && seen.task.exec_id == task.exec_id
    };
    assert!(of(&mut scene, pid).iter().any(exits), "its end is told");
}

#[test]
fn what_a_host_process_opens_and_connects_bears_its_images_number() {
    let Some(mut scene) = scene(ALL) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let file = resolved(&folder.path().to_string_lossy()) + "/data";
    fs::write(&file, "text").expect("writes");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = listener.local_addr().expect("bound").port();
    let script =
        format!("exec 3<>/dev/tcp/127.0.0.1/{port}; (: < {file}); exec cat {file}.not {file}");
    let mut bash = Command::new("bash");
    let child = bash
        .args(["-c", &script])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let pid = child.id();
    child.wait_with_output().expect("ends");
    let seen = of(&mut scene, pid);
    let ids: Vec<u64> = seen
        .iter()
        .filter(|seen| matches!(seen.op, Op::Exec { .. }))
        .map(|seen| seen.task.exec_id)
        .collect();
    let [bash, cat] = ids[..] else {
        panic!("two images: {seen:?}")
    };
    let connect = seen.iter().find_map(|seen| match &seen.op {
        Op::Connect { peer, .. } => Some((seen.task.exec_id, peer.clone())),
        _ => None,
    });
    let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
    assert_eq!(connect, Some((bash, Address::Ip { ip, port })));
    let is_open = |seen: &&Observation| matches!(&seen.op, Op::Open { path, .. } if *path == file);
    let opens: Vec<_> = seen.iter().filter(is_open).collect();
    assert!(
        matches!(opens[..], [one] if one.task.exec_id == cat && one.result >= 0),
        "{opens:?}"
    );
    // the subshell has no exec of its own: it runs bash's image
    let by_child = scene
        .opens(&file)
        .into_iter()
        .filter(|seen| seen.task.host_pid != pid);
    let by_child: Vec<_> = by_child
        .map(|seen| (seen.task.workload, seen.task.exec_id, seen.task.host_ppid))
        .collect();
    assert_eq!(by_child, [(HOST, bash, pid)]);
    assert!(
        !seen.iter().any(|seen| seen.result == -libc::ENOENT),
        "what is not there is not told"
    );
}

#[test]
fn without_host_visibility_nothing_is_told_of_the_host() {
    let Some(mut scene) = Scene::new(Contain::Default) else {
        return;
    };
    go(shell("cat /etc/hostname; /bin/true"));
    let hosts = |scene: &mut Scene| {
        let is = |seen: &&Observation| seen.task.workload != WORKLOAD;
        scene.look().iter().filter(is).count()
    };
    assert_eq!(hosts(&mut scene), 0, "{:?}", scene.seen);
    scene.kernel.host_visibility(ALL).expect("attaches");
    go(shell("cat /etc/hostname"));
    assert!(hosts(&mut scene) > 0);
    scene
        .kernel
        .host_visibility(Visibility::default())
        .expect("detaches");
    scene.forget();
    go(shell("cat /etc/hostname"));
    assert_eq!(hosts(&mut scene), 0, "{:?}", scene.seen);
}

#[test]
fn with_process_alone_files_and_connections_are_not_told() {
    let process = Visibility {
        process: true,
        ..Visibility::default()
    };
    let Some(mut scene) = scene(process) else {
        return;
    };
    let child = shell("exec cat /etc/hostname");
    let pid = child.id();
    go(child);
    let seen = of(&mut scene, pid);
    assert!(execs(&seen).contains(&resolved("/bin/cat")), "{seen:?}");
    let other = |seen: &&Observation| !matches!(seen.op, Op::Exec { .. } | Op::Exit { .. });
    assert_eq!(seen.iter().find(other), None);
}

#[test]
fn nothing_is_told_of_the_sensor_itself() {
    let Some(mut scene) = scene(ALL) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let file = resolved(&folder.path().to_string_lossy()) + "/data";
    fs::write(&file, "text").expect("writes");
    go(shell(&format!("exec cat {file}")));
    let openers: Vec<_> = scene
        .opens(&file)
        .iter()
        .map(|seen| seen.task.host_pid)
        .collect();
    assert_eq!(openers.len(), 1, "{openers:?}");
    assert_eq!(of(&mut scene, std::process::id()), []);
}

#[test]
fn a_workloads_tasks_are_told_as_the_workloads_and_only_once() {
    let Some(mut scene) = scene(ALL) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let file = resolved(&folder.path().to_string_lossy()) + "/data";
    fs::write(&file, "text").expect("writes");
    assert!(
        scene
            .run(Command::new("cat").arg(&file).stdout(Stdio::null()))
            .success()
    );
    let seen = scene.opens(&file);
    let by: Vec<_> = seen.iter().map(|seen| seen.task.workload).collect();
    assert_eq!(by, [WORKLOAD]);
    let pid = seen[0].task.host_pid;
    let seen = of(&mut scene, pid);
    let labelled = seen
        .iter()
        .filter(|seen| !matches!(seen.op, Op::Open { .. }));
    let execs: Vec<_> = labelled
        .filter(|seen| matches!(seen.op, Op::Exec { .. }))
        .map(|seen| seen.task.workload)
        .collect();
    assert_eq!(execs, [WORKLOAD]);
}

/// linux/sched.h; it does not fit the type that libc gives such flags.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

#[test]
fn a_child_of_the_host_that_begins_in_a_workload_is_the_workloads() {
    let Some(mut scene) = scene(ALL) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let file = resolved(&folder.path().to_string_lossy()) + "/data";
    fs::write(&file, "text").expect("writes");
    let name = std::ffi::CString::new(file.clone()).expect("no NUL");
    let directory = fs::File::open(&scene.group.0).expect("opens");
    // A process of the host with an image of its own: this test's fork is the sensor's no more.
    // SAFETY: the children only make system calls and leave by _exit.
    let parent = unsafe { libc::fork() };
    if parent == 0 {
        // SAFETY: an all-zero argument is valid; the rest is set below.
        let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
        args.flags = CLONE_INTO_CGROUP;
        args.exit_signal = libc::SIGCHLD as u64;
        args.cgroup = directory.as_raw_fd() as u64;
        let size = size_of_val(&args);
        // SAFETY: as above; the arguments are valid for their size, and so is the name.
        unsafe {
            let child = libc::syscall(libc::SYS_clone3, &raw mut args, size);
            let opened = libc::open(name.as_ptr(), libc::O_RDONLY) >= 0;
            if child == 0 {
                libc::_exit(i32::from(!opened));
            }
            let mut status = 1;
            libc::waitpid(child as i32, &raw mut status, 0);
            libc::_exit(if opened { status } else { 9 });
        }
    }
    assert_eq!(wait(parent), 0);
    let mut by: Vec<_> = scene
        .opens(&file)
        .iter()
        .map(|seen| (seen.task.workload, seen.task.host_pid == parent as u32))
        .collect();
    by.sort_unstable();
    assert_eq!(by, [(WORKLOAD, false), (HOST, true)]);
}

#[test]
fn rules_that_forbid_everything_to_a_workload_forbid_the_host_nothing() {
    let Some(mut scene) = scene(ALL) else {
        return;
    };
    let rules = Rules::new()
        .process("/nothing", Action::Allow)
        .process_posture(Posture::Block);
    scene.rules(&rules.done());
    assert!(!scene.ran(&mut Command::new("/bin/true")));
    let child = shell("exec cat /etc/hostname");
    let pid = child.id();
    go(child);
    let seen = of(&mut scene, pid);
    assert!(execs(&seen).contains(&resolved("/bin/cat")), "{seen:?}");
    assert!(seen.iter().all(|seen| seen.verdict.is_none()), "{seen:?}");
}

#[test]
fn a_flood_of_the_host_costs_no_decision() {
    const FLOOD: usize = 60_000;
    let Some(mut scene) = scene(ALL) else {
        return;
    };
    let rules = Rules::new()
        .process("/nothing", Action::Allow)
        .process_posture(Posture::Block);
    scene.rules(&rules.done());
    // SAFETY: the child only makes system calls and leaves by _exit.
    let child = unsafe { libc::fork() };
    if child == 0 {
        for _ in 0..FLOOD {
            // SAFETY: the path ends with NUL, the descriptor is this process's own.
            unsafe { libc::close(libc::open(c"/etc/hostname".as_ptr(), libc::O_RDONLY)) };
        }
        // SAFETY: ends this child.
        unsafe { libc::_exit(0) };
    }
    assert_eq!(wait(child), 0);
    assert!(!scene.ran(&mut Command::new("/bin/true")));
    let seen = of(&mut scene, child as u32).len();
    let lost = scene.kernel.lost();
    assert!(lost.telemetry.file > 0, "the ring held {FLOOD} records");
    assert!(
        seen as u64 + lost.telemetry.total() >= FLOOD as u64,
        "{seen} {lost:?}"
    );
    assert_eq!(lost.verdicts.total(), 0);
    let decided = scene.look().iter().filter(|seen| seen.verdict.is_some());
    assert_eq!(decided.count(), 1);
}
