//! Tiers 1 and 2: what is forbidden does not happen. Runs in a machine whose kernel admits such programs.

#![allow(clippy::panic, clippy::expect_used)] // reason: tests fail by panicking

#[path = "kernel/flat.rs"]
mod flat;
mod kernel;

use std::fs;
use std::io::ErrorKind::PermissionDenied;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use flat::Rules;
use kernel::{Scene, copy_of, resolved};
use policy::{Action, Posture};
use sensor_bpf::kernel::{Contain, probe};
use sensor_bpf::observe::{By, Hook, Observation, Op, Outcome, text};

/// A scene on a tier that denies, with a folder: `data/secret`, `data/vault/key`, `data/free`.
fn scene() -> Option<(Scene, tempfile::TempDir, PathBuf)> {
    let scene = Scene::new(Contain::Default)?;
    if scene.kernel.tier() == 3 {
        kernel::skip("BPF LSM or fmod_ret", &scene.kernel.probe().reason);
        return None;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let data = PathBuf::from(resolved(&folder.path().to_string_lossy())).join("data");
    fs::create_dir_all(data.join("vault")).expect("makes");
    for name in ["secret", "vault/key", "free"] {
        fs::write(data.join(name), "text").expect("writes");
    }
    Some((scene, folder, data))
}

fn at(data: &Path, name: &str) -> String {
    data.join(name).to_string_lossy().into_owned()
}

/// What a system call in the workload comes to: 0, or its errno.
fn inside<T>(scene: &Scene, call: impl Fn() -> std::io::Result<T>) -> i32 {
    scene.group.fork(|| match call() {
        Ok(_) => 0,
        Err(error) => error.raw_os_error().unwrap_or(255),
    })
}

fn denials(scene: &mut Scene, hook: Hook) -> Vec<Observation> {
    let is = |seen: &&Observation| seen.verdict.is_some_and(|made| made.hook == hook);
    scene.look().iter().filter(is).cloned().collect()
}

#[test]
fn the_probe_says_which_tier_this_is_and_why_no_better() {
    let Some((scene, _folder, _data)) = scene() else {
        return;
    };
    let probe = probe(&kernel::mount().expect("is mounted"));
    let limit = std::env::var("CRESSET_TEST_TIER")
        .ok()
        .and_then(|tier| tier.parse().ok());
    assert_eq!(
        probe.tier,
        limit.map_or(scene.kernel.tier(), |_: u8| probe.tier)
    );
    assert_eq!(probe.reason.is_empty(), probe.tier == 1, "{}", probe.reason);
    assert!(
        probe
            .abilities
            .iter()
            .any(|one| one.operation == "exec" && one.how == "deny")
    );
}

#[test]
fn a_denied_exec_is_told_with_the_callers_words() {
    let Some((mut scene, folder, _data)) = scene() else {
        return;
    };
    let program = copy_of("/bin/true", folder.path(), "tool");
    let (set, generation) = scene.rules(&Rules::new().process(&program, Action::Block).done());
    assert!(!scene.ran(Command::new(&program).args(["one", "two words"])));
    let seen = denials(&mut scene, Hook::BprmCheck);
    let [seen] = seen.as_slice() else {
        panic!("{:?}", scene.seen)
    };
    let made = seen.verdict.expect("was filtered");
    assert_eq!(
        made.by,
        By::Rule {
            set,
            generation,
            slot: 0
        }
    );
    assert_eq!(
        (made.outcome, seen.result),
        (Outcome::Denied, -libc::EACCES)
    );
    let Op::Exec {
        path,
        literal,
        args,
        ..
    } = &seen.op
    else {
        panic!("{seen:?}")
    };
    assert_eq!((path, literal), (&program, &program));
    assert_eq!(args, &[program.as_str(), "one", "two words"]);
    assert_eq!(seen.display_only, text::ARGS);
}

#[test]
fn a_script_is_judged_by_its_own_path_and_by_its_interpreters() {
    let Some((mut scene, folder, data)) = scene() else {
        return;
    };
    let shell = copy_of("/bin/busybox", folder.path(), "shells");
    symlink(&shell, folder.path().join("shells/sh")).expect("links");
    let script = at(&data, "script");
    let text = format!("#!{}/shells/sh\nexit 0\n", folder.path().display());
    let made = Command::new("sh")
        .args([
            "-c",
            &format!("printf '%s' \"$1\" > {script}; chmod 755 {script}"),
            "sh",
            &text,
        ])
        .status();
    assert!(made.expect("starts").success());
    assert!(scene.ran(&mut Command::new(&script)));
    scene.rules(&Rules::new().process(&script, Action::Block).done());
    assert!(!scene.ran(&mut Command::new(&script)));
    scene.rules(&Rules::new().process(&shell, Action::Block).done());
    assert!(!scene.ran(&mut Command::new(&script)));
    scene.rules(&Rules::new().process(&script, Action::Audit).done());
    scene.forget();
    assert!(scene.ran(&mut Command::new(&script)));
    let told = denials(&mut scene, Hook::BprmCheck);
    let [told] = told.as_slice() else {
        panic!("{told:?}")
    };
    let Op::Exec { path, literal, .. } = &told.op else {
        panic!("{told:?}")
    };
    assert_eq!(
        (path, literal),
        (&shell, &script),
        "told with the image that runs"
    );
}

#[test]
fn a_forbidden_file_can_be_reached_by_no_name_and_changed_in_no_way() {
    let Some((mut scene, folder, data)) = scene() else {
        return;
    };
    let (secret, free) = (at(&data, "secret"), at(&data, "free"));
    let alias = folder.path().join("alias");
    symlink(&secret, &alias).expect("links");
    let vault = at(&data, "vault") + "/";
    let rules = Rules::new()
        .file(&secret, Action::Block)
        .file(&vault, Action::Block);
    scene.rules(&rules.done());
    let denied = libc::EACCES;
    assert_eq!(inside(&scene, || fs::File::open(&free)), 0);
    assert_eq!(inside(&scene, || fs::File::open(&secret)), denied);
    assert_eq!(inside(&scene, || fs::File::open(&alias)), denied);
    assert_eq!(
        inside(&scene, || fs::File::open(at(&data, "vault/../secret"))),
        denied
    );
    assert_eq!(
        inside(&scene, || fs::File::open(at(&data, "vault/key"))),
        denied
    );
    assert_eq!(
        inside(&scene, || fs::OpenOptions::new().append(true).open(&secret)),
        denied
    );
    assert_eq!(inside(&scene, || fs::remove_file(&secret)), denied);
    assert_eq!(
        inside(&scene, || fs::hard_link(&secret, at(&data, "hard"))),
        denied
    );
    assert_eq!(
        inside(&scene, || fs::rename(&secret, at(&data, "other"))),
        denied
    );
    assert_eq!(
        inside(&scene, || fs::rename(&free, &secret)),
        denied,
        "put in its place"
    );
    assert_eq!(
        inside(&scene, || fs::rename(&data, folder.path().join("moved"))),
        denied
    );
    let path = std::ffi::CString::new(secret.clone()).expect("no NUL");
    // SAFETY: the path ends with NUL.
    let truncate = || match unsafe { libc::truncate(path.as_ptr(), 0) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    };
    assert_eq!(inside(&scene, truncate), denied);
    assert_eq!(fs::read_to_string(&secret).expect("is there"), "text");
    assert_eq!(inside(&scene, || fs::rename(&free, at(&data, "freer"))), 0);
    let told: Vec<_> = [
        Hook::FileOpen,
        Hook::PathUnlink,
        Hook::PathLink,
        Hook::PathRename,
    ]
    .map(|hook| denials(&mut scene, hook).len())
    .into();
    assert_eq!(told, [5, 1, 1, 3]);
    assert_eq!(denials(&mut scene, Hook::PathTruncate).len(), 1);
}

#[test]
fn a_file_is_allowed_or_told_as_the_rules_say() {
    let Some((mut scene, _folder, data)) = scene() else {
        return;
    };
    let (secret, free, key) = (
        at(&data, "secret"),
        at(&data, "free"),
        at(&data, "vault/key"),
    );
    let rules = Rules::new()
        .file(&secret, Action::Audit)
        .file(&free, Action::Allow);
    scene.rules(&rules.file_posture(Posture::Block).done());
    assert_eq!(inside(&scene, || fs::File::open(&free)), 0);
    assert_eq!(inside(&scene, || fs::File::open(&key)), libc::EACCES);
    assert_eq!(
        inside(&scene, || fs::File::open(&secret)),
        libc::EACCES,
        "Audit opens nothing"
    );
    let rules = Rules::new()
        .file(&secret, Action::Audit)
        .file(&free, Action::Allow);
    scene.rules(&rules.file_posture(Posture::Audit).done());
    scene.forget();
    for path in [&free, &key, &secret] {
        assert_eq!(inside(&scene, || fs::File::open(path)), 0);
    }
    let told = denials(&mut scene, Hook::FileOpen);
    let told: Vec<_> = told
        .iter()
        .filter_map(|seen| seen.verdict.map(|made| made.by))
        .collect();
    let [By::Posture, By::Rule { slot: 0, .. }] = told.as_slice() else {
        panic!("{told:?}")
    };
}

#[test]
fn a_pipe_has_no_path_and_is_no_file() {
    let Some((scene, _folder, data)) = scene() else {
        return;
    };
    let rules = Rules::new().file(&at(&data, "free"), Action::Allow);
    scene.rules(&rules.file_posture(Posture::Block).done());
    let mut ends = [0; 2];
    // SAFETY: there is room for two descriptors.
    assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
    let name = format!("/proc/{}/fd/{}", std::process::id(), ends[1]);
    assert_eq!(
        inside(&scene, || fs::OpenOptions::new().write(true).open(&name)),
        0
    );
}

#[test]
fn what_may_not_be_executed_may_not_be_mapped_to_be_nor_renamed_to_be() {
    let Some((mut scene, folder, _data)) = scene() else {
        return;
    };
    let program = copy_of("/bin/true", folder.path(), "tool");
    scene.rules(&Rules::new().process(&program, Action::Block).done());
    let name = folder.path().join("tool/renamed");
    assert_eq!(inside(&scene, || fs::rename(&program, &name)), libc::EACCES);
    let elsewhere = folder.path().join("elsewhere");
    let parent = folder.path().join("tool");
    assert_eq!(
        inside(&scene, || fs::rename(&parent, &elsewhere)),
        libc::EACCES
    );
    assert_eq!(
        inside(&scene, || fs::File::open(&program)),
        0,
        "reading is another matter"
    );
    let map = || {
        let file = fs::File::open(&program)?;
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
        let (protection, flags) = (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE);
        // SAFETY: a new mapping, which nothing uses.
        let place = unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, flags, fd, 0) };
        if place == libc::MAP_FAILED {
            Err(std::io::Error::last_os_error())
        } else {
            Ok(())
        }
    };
    assert_eq!(inside(&scene, map), libc::EACCES);
    assert_eq!(denials(&mut scene, Hook::MmapFile).len(), 1);
}

#[test]
fn sockets_are_refused_by_what_they_speak() {
    let Some((mut scene, _folder, _data)) = scene() else {
        return;
    };
    let tcp = Rules::new().socket(libc::SOCK_STREAM as u8, 6, Action::Block);
    scene.rules(&tcp.socket(10, 255, Action::Block).done());
    let socket = |family, kind, protocol| {
        // SAFETY: no pointers.
        match unsafe { libc::socket(family, kind, protocol) } {
            0.. => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    let (stream, datagram) = (libc::SOCK_STREAM, libc::SOCK_DGRAM);
    assert_eq!(
        inside(&scene, || socket(libc::AF_INET, stream, 0)),
        libc::EACCES
    );
    assert_eq!(
        inside(&scene, || socket(libc::AF_INET6, stream, libc::IPPROTO_TCP)),
        libc::EACCES
    );
    assert_eq!(
        inside(&scene, || socket(libc::AF_INET, stream, 262)),
        libc::EACCES,
        "MPTCP"
    );
    assert_eq!(
        inside(&scene, || socket(libc::AF_PACKET, libc::SOCK_RAW, 0)),
        libc::EACCES
    );
    assert_eq!(inside(&scene, || socket(libc::AF_INET, datagram, 0)), 0);
    assert_eq!(inside(&scene, || socket(libc::AF_UNIX, stream, 0)), 0);
    assert_eq!(denials(&mut scene, Hook::SocketCreate).len(), 4);
}

#[test]
fn outside_the_workload_nothing_is_refused() {
    let Some((scene, folder, data)) = scene() else {
        return;
    };
    let program = copy_of("/bin/true", folder.path(), "tool");
    let secret = at(&data, "secret");
    let rules = Rules::new()
        .process(&program, Action::Block)
        .file(&secret, Action::Block);
    scene.rules(
        &rules
            .process_posture(Posture::Block)
            .file_posture(Posture::Block)
            .done(),
    );
    assert!(Command::new(&program).status().expect("starts").success());
    assert!(!fs::File::open(&secret).is_err_and(|error| error.kind() == PermissionDenied));
}
