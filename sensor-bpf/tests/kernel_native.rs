//! The kernel half on the machine at hand: real programs, a real cgroup, real processes.

#![allow(clippy::panic, clippy::expect_used)] // reason: tests fail by panicking

#[path = "kernel/flat.rs"]
mod flat;
mod kernel;

use std::path::Path;
use std::process::{Command, Stdio};

use flat::Rules;
use kernel::{Group, Scene, WORKLOAD, copy_of, resolved};
use policy::{Action, Posture};
use sensor_bpf::kernel::{Contain, LabelError};
use sensor_bpf::observe::{self, By, Decision, Hook, Observation, Op, Outcome};

fn decision(seen: &Observation) -> Decision {
    seen.verdict
        .unwrap_or_else(|| panic!("no decision: {seen:?}"))
}

#[test]
fn an_exec_is_seen_as_proc_tells_it() {
    let Some(mut scene) = Scene::new(Contain::Default) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let cwd = resolved(&folder.path().to_string_lossy());
    let mut sleep = Command::new("sleep");
    let before = std::time::SystemTime::now();
    let mut child = scene.start(
        sleep
            .arg("300")
            .env("PATH", "/bin:/usr/bin")
            .current_dir(&cwd),
    );
    let pid = child.id();
    let proc = |file: &str| {
        let bytes = std::fs::read(format!("/proc/{pid}/{file}")).expect("alive");
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let status = |key: &str| {
        let line = proc("status")
            .lines()
            .find(|line| line.starts_with(key))
            .map(str::to_owned);
        line.and_then(|line| line.split_whitespace().nth(1).map(str::to_owned))
            .expect("a number")
    };
    let exe = std::fs::read_link(format!("/proc/{pid}/exe")).expect("alive");
    let exe = exe.to_string_lossy().into_owned();
    let seen = scene.execs(&exe);
    let [seen] = seen.as_slice() else {
        panic!("one exec of {exe}: {:?}", scene.seen)
    };
    let Op::Exec {
        path,
        literal,
        args,
        parent_exe,
        ..
    } = &seen.op
    else {
        panic!()
    };
    assert_eq!(path, &exe);
    assert!(
        literal == "/bin/sleep" || literal == "/usr/bin/sleep",
        "{literal}"
    );
    assert_eq!(args.join("\0") + "\0", proc("cmdline"));
    assert_eq!(parent_exe, &resolved("/proc/self/exe"));
    let task = &seen.task;
    assert_eq!((task.host_pid, task.host_tid), (pid, pid));
    assert_eq!(task.host_ppid, std::process::id());
    assert_eq!((task.pid, task.ppid), (pid, std::process::id()));
    assert_eq!(task.uid.to_string(), status("Uid:"));
    assert_eq!(task.comm, proc("comm").trim());
    assert_eq!(task.cwd, cwd);
    assert_eq!(task.workload, WORKLOAD);
    assert!(task.exec_id > 1 << 32, "{}", task.exec_id);
    let unix = |time: std::time::SystemTime| {
        let since = time.duration_since(std::time::UNIX_EPOCH);
        u64::try_from(since.expect("after 1970").as_nanos()).expect("before 2554")
    };
    // The two clocks are read one after the other when a record is read.
    let slack = 100_000_000;
    let span = unix(before) - slack..unix(std::time::SystemTime::now()) + slack;
    assert!(span.contains(&seen.time_ns), "{} in {span:?}", seen.time_ns);
    assert_eq!((seen.result, seen.truncated, seen.display_only), (0, 0, 0));
    assert_eq!(seen.verdict, None);
    child.kill().expect("is alive");
    child.wait().expect("ends");
    let exec_id = task.exec_id;
    let exits = scene
        .look()
        .iter()
        .filter(|seen| matches!(seen.op, Op::Exit { .. }));
    let exits: Vec<_> = exits.filter(|exit| exit.task.exec_id == exec_id).collect();
    assert!(
        matches!(
            exits.as_slice(),
            [Observation {
                op: Op::Exit { code: 9 },
                ..
            }]
        ),
        "{exits:?}"
    );
}

/// Started again by itself, this is a process whose threads are all ended at the same moment, on all processors.
#[test]
fn a_process_ends_once_however_many_threads_it_has() {
    if std::env::var_os("CRESSET_TEST_THREADS").is_some() {
        for _ in 0..32 {
            std::thread::spawn(|| {
                loop {
                    std::thread::park();
                }
            });
        }
        std::process::exit(7);
    }
    let Some(mut scene) = Scene::new(Contain::Default) else {
        return;
    };
    let own = resolved("/proc/self/exe");
    for _ in 0..25 {
        let mut command = Command::new(&own);
        let name = "a_process_ends_once_however_many_threads_it_has";
        command.args(["--exact", name]).stdout(Stdio::null());
        let status = scene.run(command.env("CRESSET_TEST_THREADS", "1"));
        assert_eq!(status.code(), Some(7));
    }
    let ids: Vec<u64> = scene
        .execs(&own)
        .iter()
        .map(|exec| exec.task.exec_id)
        .collect();
    assert_eq!(ids.len(), 25);
    for id in ids {
        let exits = scene.seen.iter().filter(|seen| seen.task.exec_id == id);
        let codes = exits.filter_map(|seen| match seen.op {
            Op::Exit { code } => Some(code),
            _ => None,
        });
        assert_eq!(codes.collect::<Vec<_>>(), [7 << 8], "of {id:#x}");
    }
}

#[test]
fn a_blocked_exec_is_killed_and_runs_outside_the_workload() {
    let Some(mut scene) = Scene::new(Contain::Default) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let program = copy_of("/bin/touch", folder.path(), "tool");
    let mark = folder.path().join("mark");
    let (set, generation) = scene.rules(&Rules::new().process(&program, Action::Block).done());
    assert!(!scene.ran(Command::new(&program).arg(&mark)));
    assert!(!mark.exists(), "its first instruction ran");
    let seen = scene.execs(&program);
    let [seen] = seen.as_slice() else {
        panic!("{:?}", scene.seen)
    };
    assert_eq!(
        decision(seen).by,
        By::Rule {
            set,
            generation,
            slot: 0
        }
    );
    assert_eq!(decision(seen).action, observe::Action::Block);
    assert_eq!(decision(seen).outcome, scene.refusal());
    assert_eq!(
        decision(seen).hook,
        scene.by_tier(Hook::ExecTracepoint, Hook::BprmCheck)
    );
    assert!(
        Command::new(&program)
            .arg(&mark)
            .status()
            .expect("runs")
            .success()
    );
    assert!(mark.exists());
}

#[test]
fn an_audited_exec_passes_and_is_told() {
    let Some(mut scene) = Scene::new(Contain::Default) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let program = copy_of("/bin/true", folder.path(), "tool");
    let directory = format!(
        "{}/",
        Path::new(&program).parent().expect("has one").display()
    );
    let (set, generation) = scene.rules(&Rules::new().process(&directory, Action::Audit).done());
    assert!(scene.ran(&mut Command::new(&program)));
    let seen = scene.execs(&program);
    let [seen] = seen.as_slice() else {
        panic!("{:?}", scene.seen)
    };
    assert_eq!(
        decision(seen).by,
        By::Rule {
            set,
            generation,
            slot: 0
        }
    );
    assert_eq!(decision(seen).outcome, Outcome::Passed);
}

#[test]
fn in_allow_list_mode_the_posture_holds_for_what_no_rule_names() {
    let Some(mut scene) = Scene::new(Contain::Default) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let program = copy_of("/bin/true", folder.path(), "tool");
    let allowed = resolved("/bin/true");
    let rules = || Rules::new().process(&allowed, Action::Allow);
    scene.rules(&rules().process_posture(Posture::Block).done());
    assert!(scene.run(&mut Command::new("/bin/true")).success());
    assert!(!scene.ran(&mut Command::new(&program)));
    scene.rules(&rules().process_posture(Posture::Audit).done());
    assert!(scene.ran(&mut Command::new(&program)));
    let seen = scene.execs(&program);
    let told: Vec<_> = seen
        .iter()
        .map(|seen| (decision(seen).by, decision(seen).outcome))
        .collect();
    assert_eq!(
        told,
        [
            (By::Posture, scene.refusal()),
            (By::Posture, Outcome::Passed)
        ]
    );
    assert!(
        scene
            .execs(&allowed)
            .iter()
            .all(|seen| seen.verdict.is_none())
    );
}

#[test]
fn with_contain_none_a_forbidden_exec_is_told_and_passes() {
    let Some(mut scene) = Scene::new(Contain::None) else {
        return;
    };
    if scene.kernel.tier() != 3 {
        return kernel::skip("native tier", "another tier is better here");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let program = copy_of("/bin/true", folder.path(), "tool");
    scene.rules(&Rules::new().process(&program, Action::Block).done());
    assert!(scene.ran(&mut Command::new(&program)));
    let seen = scene.execs(&program);
    assert_eq!(decision(&seen[0]).outcome, Outcome::Passed);
}

#[test]
fn a_label_survives_forks_and_new_namespaces() {
    let Some(mut scene) = Scene::new(Contain::Default) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let program = copy_of("/bin/true", folder.path(), "tool");
    scene.rules(&Rules::new().process(&program, Action::Block).done());
    let script = format!("( ( {program} ) & wait $! ) & wait $!; echo after");
    let out = scene.run(Command::new("sh").args(["-c", &script]));
    assert!(out.success());
    assert_eq!(
        scene.execs(&program).len(),
        1,
        "double fork: {:?}",
        scene.seen
    );
    let status = scene.run(Command::new("unshare").args(["--mount", "--pid", "--fork", &program]));
    let seen = scene.execs(&program);
    let [_, seen] = seen.as_slice() else {
        panic!("{status}: {:?}", scene.seen)
    };
    assert_eq!(decision(seen).outcome, scene.refusal());
    assert_eq!(
        (seen.task.pid, seen.task.ppid),
        (1, 0),
        "first of its pid namespace"
    );
    assert_ne!(seen.task.host_pid, 1);
}

#[test]
fn the_root_cgroup_and_the_sensors_own_are_refused() {
    let Some(scene) = Scene::new(Contain::Default) else {
        return;
    };
    let mount = kernel::mount().expect("is mounted");
    let refused = scene.kernel.add_workload(1, &mount, 0, None);
    assert!(matches!(refused, Err(LabelError::Root(_))), "{refused:?}");
    let refused = scene.kernel.add_workload(WORKLOAD, &scene.group.0, 0, None);
    assert!(matches!(refused, Err(LabelError::Index(_))), "{refused:?}");
    let group = Group::new().expect("a cgroup");
    let mut sleep = Command::new("sleep");
    group.adopt(sleep.arg("20"));
    let mut child = sleep.spawn().expect("starts");
    let refused = scene.kernel.add_workload(1, &group.0, 0, None);
    assert!(
        matches!(refused, Err(LabelError::Populated(_))),
        "{refused:?}"
    );
    child.kill().expect("alive");
    child.wait().expect("ends");
}
