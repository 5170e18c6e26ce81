//! What must hold at the edges: floods, depth, deadlines, cgroups that change.

#![allow(clippy::panic, clippy::expect_used)] // reason: tests fail by panicking

#[path = "kernel/flat.rs"]
mod flat;
mod kernel;

use std::ffi::CString;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::{Duration, Instant};

use flat::Rules;
use kernel::{Group, Scene, WORKLOAD, copy_of, resolved, wait};
use policy::{Action, Posture};
use sensor_bpf::kernel::Contain;
use sensor_bpf::observe::{Op, Outcome};

const FLOOD: i32 = 60_000;
/// linux/sched.h; it does not fit the type that libc gives such flags.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

#[test]
fn a_flood_is_counted_to_the_last_record_and_takes_no_decision_with_it() {
    let Some(mut scene) = Scene::new(Contain::Default) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("data");
    std::fs::write(&path, "").expect("writes");
    let path = resolved(&path.to_string_lossy());
    let program = copy_of("/bin/true", folder.path(), "tool");
    scene.rules(&Rules::new().process(&program, Action::Block).done());
    let name = CString::new(path.clone()).expect("no NUL");
    let code = scene.group.fork(|| {
        for _ in 0..FLOOD {
            // SAFETY: the path ends with NUL, the descriptor is this process's own.
            unsafe { libc::close(libc::open(name.as_ptr(), libc::O_RDONLY)) };
        }
        0
    });
    assert_eq!(code, 0);
    assert!(!scene.ran(&mut Command::new(&program)));
    let seen = scene.opens(&path).len() as u64;
    let lost = scene.kernel.lost();
    assert!(lost.telemetry.file > 0, "the ring held {FLOOD} records");
    assert_eq!(seen + lost.telemetry.file, FLOOD as u64);
    assert_eq!(lost.verdicts.total(), 0);
    assert_eq!(scene.execs(&program).len(), 1);
}

#[test]
fn a_path_is_judged_at_any_depth() {
    let Some(mut scene) = Scene::new(Contain::Default) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let mut deep = folder.path().to_owned();
    for level in 0..90 {
        deep.push(format!("d{level}"));
    }
    std::fs::create_dir_all(&deep).expect("makes");
    let program = copy_of("/bin/true", &deep, "tool");
    let start = resolved(&folder.path().to_string_lossy()) + "/d0/d1/";
    scene.rules(&Rules::new().process(&start, Action::Block).done());
    assert!(!scene.ran(&mut Command::new(&program)));
    let seen = scene.look().iter().find_map(|seen| match &seen.op {
        Op::Exec { path, .. } if path.starts_with(&start) => Some(seen.clone()),
        _ => None,
    });
    let seen = seen.expect("is told");
    assert_eq!(seen.truncated, 1, "its path is cut, and says so");
    assert!(!seen.verdict.expect("is judged").fault);
}

#[test]
fn long_names_are_told_apart_to_their_last_byte() {
    let Some(mut scene) = Scene::new(Contain::Default) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let name = |last: char| "n".repeat(254) + &last.to_string();
    let forbidden = copy_of("/bin/true", folder.path(), &name('a'));
    let free = copy_of("/bin/true", folder.path(), &name('b'));
    scene.rules(&Rules::new().process(&forbidden, Action::Block).done());
    assert!(!scene.ran(&mut Command::new(&forbidden)));
    assert!(scene.ran(&mut Command::new(&free)));
    assert_eq!(scene.execs(&forbidden).len(), 1);
}

#[test]
fn a_memfd_is_named_by_no_rule_and_meets_the_posture() {
    let Some(mut scene) = Scene::new(Contain::Default) else {
        return;
    };
    // SAFETY: the name ends with NUL.
    let fd = unsafe { libc::memfd_create(c"usr/bin/true".as_ptr(), 0) };
    assert!(fd >= 0);
    let path = format!("/proc/{}/fd/{fd}", std::process::id());
    std::fs::copy(resolved("/bin/true"), &path).expect("copies");
    scene.rules(
        &Rules::new()
            .process("/", Action::Allow)
            .process_posture(Posture::Block)
            .done(),
    );
    assert!(!scene.ran(&mut Command::new(&path)));
    let told = scene
        .look()
        .iter()
        .find_map(|seen| seen.verdict)
        .expect("is told");
    assert!(told.fault);
    // SAFETY: the descriptor is this test's own.
    unsafe { libc::close(fd) };
}

#[test]
fn chroot_does_not_change_a_path() {
    let Some(mut scene) = Scene::new(Contain::Default) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let program = copy_of("/bin/busybox", folder.path(), "own");
    scene.rules(&Rules::new().process(&program, Action::Block).done());
    let root = CString::new(folder.path().to_string_lossy().into_owned()).expect("no NUL");
    let code = scene.group.fork(|| {
        let argv = [c"busybox".as_ptr(), c"true".as_ptr(), std::ptr::null()];
        // SAFETY: texts end with NUL, the list with null.
        unsafe {
            libc::chroot(root.as_ptr());
            libc::execv(c"/own/busybox".as_ptr(), argv.as_ptr());
        }
        1
    });
    assert_eq!(code, scene.by_tier(128 + libc::SIGKILL, 1));
    assert_eq!(scene.execs(&program).len(), 1, "{:?}", scene.seen);
}

#[test]
fn after_its_deadline_nothing_is_enforced_on_a_workload() {
    let Some(mut scene) = Scene::new(Contain::Default) else {
        return;
    };
    if scene.kernel.tier() != 3 {
        return kernel::skip("native tier", "another tier is better here");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let program = copy_of("/bin/true", folder.path(), "tool");
    scene.rules(&Rules::new().process(&program, Action::Block).done());
    let group = Group::new().expect("a cgroup");
    let soon = Instant::now() + Duration::from_millis(1);
    scene
        .kernel
        .add_workload(1, &group.0, 1, Some(soon))
        .expect("labels");
    std::thread::sleep(Duration::from_millis(5));
    let mut command = Command::new(&program);
    group.adopt(&mut command);
    assert!(command.status().expect("starts").success());
    let seen = scene.execs(&program);
    assert_eq!(
        seen[0].verdict.map(|made| made.outcome),
        Some(Outcome::Passed)
    );
}

#[test]
fn a_task_that_left_its_cgroup_is_still_known_and_natively_not_touched() {
    let Some(mut scene) = Scene::new(Contain::Default) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let program = copy_of("/bin/true", folder.path(), "tool");
    scene.rules(&Rules::new().process(&program, Action::Block).done());
    let elsewhere = Group::new().expect("a cgroup");
    let script = format!("echo 0 > {}/cgroup.procs; {program}", elsewhere.0.display());
    let status = scene.run(Command::new("sh").args(["-c", &script]));
    let seen = scene.execs(&program);
    let [seen] = seen.as_slice() else {
        panic!("{:?}", scene.seen)
    };
    assert_eq!(seen.task.workload, WORKLOAD);
    if scene.kernel.tier() == 3 {
        assert!(status.success(), "{status}");
    } else {
        assert!(
            !status.success(),
            "the label is enough where denial is by LSM"
        );
    }
}

#[test]
fn a_child_cloned_into_the_cgroup_is_labelled_before_it_runs() {
    let Some(mut scene) = Scene::new(Contain::Default) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let program = copy_of("/bin/true", folder.path(), "tool");
    scene.rules(&Rules::new().process(&program, Action::Block).done());
    let directory = std::fs::File::open(&scene.group.0).expect("opens");
    let path = CString::new(program.clone()).expect("no NUL");
    let argv = [path.as_ptr(), std::ptr::null()];
    // SAFETY: all zero is a valid clone_args.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = CLONE_INTO_CGROUP;
    arguments.exit_signal = libc::SIGCHLD as u64;
    arguments.cgroup = directory.as_raw_fd() as u64;
    let size = size_of::<libc::clone_args>();
    // SAFETY: as fork(2): the child only makes system calls.
    let code = match unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size) } {
        // SAFETY: texts end with NUL, the list with null.
        0 => unsafe {
            libc::execv(path.as_ptr(), argv.as_ptr());
            libc::_exit(1)
        },
        child => wait(child as i32),
    };
    assert_eq!(code, scene.by_tier(128 + libc::SIGKILL, 1));
    assert_eq!(scene.execs(&program).len(), 1);
}

#[test]
fn a_workload_that_was_removed_is_let_alone_and_its_index_is_free() {
    let Some(mut scene) = Scene::new(Contain::Default) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let program = copy_of("/bin/true", folder.path(), "tool");
    scene.rules(&Rules::new().process(&program, Action::Block).done());
    let gate = folder.path().join("gate");
    let script = format!(
        "while [ ! -e {} ]; do sleep 0.02; done; {program}",
        gate.display()
    );
    // It has entered the cgroup when it has called exec, and that is when this returns.
    let mut child = scene.start(Command::new("sh").args(["-c", &script]));
    scene.kernel.remove_workload(WORKLOAD);
    let group = Group::new().expect("a cgroup");
    scene
        .kernel
        .add_workload(WORKLOAD, &group.0, 1, None)
        .expect("the index is free");
    std::fs::write(&gate, "").expect("writes");
    assert!(
        child.wait().expect("ends").success(),
        "another workload's rules"
    );
    let seen = scene.execs(&program);
    assert_eq!(seen[0].verdict, None);
}

#[test]
fn rules_change_whole_while_processes_run() {
    let Some(mut scene) = Scene::new(Contain::Default) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let (a, b) = (
        copy_of("/bin/true", folder.path(), "a"),
        copy_of("/bin/true", folder.path(), "b"),
    );
    let only = |one: &str| Rules::new().process(one, Action::Block).done();
    let (set, first) = scene.rules(&only(&a));
    assert!(!scene.ran(&mut Command::new(&a)));
    assert!(scene.ran(&mut Command::new(&b)));
    let second = scene.kernel.write_set(set, &only(&b)).expect("is taken");
    assert_ne!(first, second);
    assert!(scene.ran(&mut Command::new(&a)));
    assert!(!scene.ran(&mut Command::new(&b)));
    scene.kernel.drop_set(set);
    assert!(scene.ran(&mut Command::new(&b)));
}
