//! Files and sockets, as the native tier sees and judges them.

#![allow(clippy::panic, clippy::expect_used)] // reason: tests fail by panicking

#[path = "kernel/flat.rs"]
mod flat;
mod kernel;

use std::ffi::CString;
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::net::UnixListener;

use flat::Rules;
use kernel::{Scene, resolved};
use policy::{Action, Posture};
use sensor_bpf::kernel::{Contain, Visibility};
use sensor_bpf::observe::{Address, By, Call, Observation, Op, Outcome, text};

const SIGKILLED: i32 = 128 + libc::SIGKILL;

fn c(path: &str) -> CString {
    CString::new(path).expect("no NUL")
}

/// Errno of a call that failed, 0 of one that did not.
fn errno(result: i32) -> i32 {
    if result < 0 {
        std::io::Error::last_os_error().raw_os_error().unwrap_or(-1)
    } else {
        0
    }
}

fn open(path: &CString) -> i32 {
    // SAFETY: the path ends with NUL.
    unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) }
}

fn socket(kind: i32) -> i32 {
    // SAFETY: no pointers.
    unsafe { libc::socket(libc::AF_INET, kind, 0) }
}

fn connect(fd: i32, port: u16) -> i32 {
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from(Ipv4Addr::LOCALHOST).to_be(),
        },
        sin_zero: [0; 8],
    };
    // SAFETY: the address is valid for its length.
    unsafe { libc::connect(fd, (&raw const address).cast(), 16) }
}

/// A file of its own, with its resolved path.
fn file(folder: &tempfile::TempDir, name: &str) -> String {
    let path = folder.path().join(name);
    std::fs::write(&path, "text").expect("writes");
    resolved(&path.to_string_lossy())
}

#[test]
fn an_open_is_seen_with_its_resolved_path_flags_and_owner() {
    let Some(mut scene) = Scene::new(Contain::Default) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let path = file(&folder, "data");
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&path, &link).expect("links");
    std::os::unix::fs::chown(&path, Some(12), None).expect("root");
    let link = c(&link.to_string_lossy());
    assert_eq!(scene.group.fork(|| errno(open(&link))), 0);
    let seen = scene.opens(&path);
    let [
        Observation {
            op:
                Op::Open {
                    flags,
                    call,
                    dirfd,
                    owner_uid,
                    ..
                },
            result,
            ..
        },
    ] = seen.as_slice()
    else {
        panic!("{:?}", scene.seen)
    };
    assert_eq!(*flags as i32, libc::O_RDONLY | libc::O_CLOEXEC);
    assert_eq!(
        (*call, *dirfd, *owner_uid),
        (Call::Openat, libc::AT_FDCWD, Some(12))
    );
    assert!(*result > 2, "a descriptor: {result}");
    assert_eq!((seen[0].verdict, seen[0].display_only), (None, 0));
}

#[test]
fn an_open_that_fails_is_told_in_the_callers_words_and_marked() {
    let Some(mut scene) = Scene::new(Contain::Default) else {
        return;
    };
    let path = c("/no/such/../file");
    assert_eq!(scene.group.fork(|| errno(open(&path))), libc::ENOENT);
    let seen = scene.opens("/no/such/../file");
    let [seen] = seen.as_slice() else {
        panic!("{:?}", scene.seen)
    };
    assert_eq!(
        (seen.result, seen.display_only),
        (-libc::ENOENT, text::RESOURCE)
    );
}

#[test]
fn nothing_is_told_of_files_when_they_are_not_visible() {
    let Some(mut scene) = Scene::new(Contain::Default) else {
        return;
    };
    scene
        .kernel
        .visibility(kernel::WORKLOAD, Visibility::default());
    let folder = tempfile::tempdir().expect("a folder");
    let (quiet, audited) = (file(&folder, "quiet"), file(&folder, "audited"));
    scene.rules(&Rules::new().file(&audited, Action::Audit).done());
    let (a, b) = (c(&quiet), c(&audited));
    assert_eq!(scene.group.fork(|| errno(open(&a)) + errno(open(&b))), 0);
    assert_eq!(scene.opens(&quiet), []);
    let seen = scene.opens(&audited);
    let [seen] = seen.as_slice() else {
        panic!("{:?}", scene.seen)
    };
    assert!(matches!(
        seen.verdict.map(|made| made.by),
        Some(By::Rule { slot: 0, .. })
    ));
}

#[test]
fn a_forbidden_open_ends_the_process_only_with_contain_all() {
    for (contain, code, outcome) in [
        (Contain::Default, 0, Outcome::Passed),
        (Contain::All, SIGKILLED, Outcome::Killed),
    ] {
        let Some(mut scene) = Scene::new(contain) else {
            return;
        };
        if scene.kernel.tier() != 3 {
            return kernel::skip("native tier", "another tier is better here");
        }
        let folder = tempfile::tempdir().expect("a folder");
        let path = file(&folder, "data");
        let directory = resolved(&folder.path().to_string_lossy()) + "/";
        scene.rules(&Rules::new().file(&directory, Action::Block).done());
        let path_c = c(&path);
        assert_eq!(
            scene.group.fork(|| errno(open(&path_c))),
            code,
            "{contain:?}"
        );
        let seen = scene.opens(&path);
        let [seen] = seen.as_slice() else {
            panic!("{:?}", scene.seen)
        };
        assert_eq!(seen.verdict.map(|made| made.outcome), Some(outcome));
    }
}

#[test]
fn removed_and_changed_names_are_told_in_the_callers_words() {
    let Some(mut scene) = Scene::new(Contain::Default) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let from = file(&folder, "from");
    let to = folder.path().join("to").to_string_lossy().into_owned();
    let (from_c, to_c) = (c(&from), c(&to));
    let code = scene.group.fork(|| {
        // SAFETY: both paths end with NUL.
        unsafe { libc::rename(from_c.as_ptr(), to_c.as_ptr()) + libc::unlink(to_c.as_ptr()) }
    });
    assert_eq!(code, 0);
    let ops: Vec<_> = scene
        .look()
        .iter()
        .map(|seen| (seen.op.clone(), seen.display_only))
        .collect();
    let rename = Op::Rename {
        from,
        to: to.clone(),
        call: Call::Rename,
        dirfd: libc::AT_FDCWD,
    };
    assert!(ops.contains(&(rename, text::RESOURCE)), "{ops:?}");
    let unlink = Op::Unlink {
        path: to,
        call: Call::Unlink,
        flags: 0,
        dirfd: libc::AT_FDCWD,
    };
    assert!(ops.contains(&(unlink, text::RESOURCE)), "{ops:?}");
}

#[test]
fn tcp_sockets_are_refused_with_eacces_while_udp_passes() {
    let Some(mut scene) = Scene::new(Contain::Default) else {
        return;
    };
    let tcp = || Rules::new().socket(libc::SOCK_STREAM as u8, 6, Action::Block);
    let (set, generation) = scene.rules(&tcp().done());
    assert_eq!(
        scene.group.fork(|| errno(socket(libc::SOCK_STREAM))),
        libc::EACCES
    );
    assert_eq!(scene.group.fork(|| errno(socket(libc::SOCK_DGRAM))), 0);
    let told: Vec<_> = scene
        .look()
        .iter()
        .filter(|seen| seen.verdict.is_some())
        .collect();
    let [seen] = told.as_slice() else {
        panic!("{told:?}")
    };
    assert_eq!(
        seen.op,
        Op::Socket {
            family: 2,
            kind: 1,
            protocol: 6
        }
    );
    assert_eq!(seen.result, -libc::EACCES);
    let made = seen.verdict.expect("was filtered");
    assert_eq!(
        (made.by, made.outcome),
        (
            By::Rule {
                set,
                generation,
                slot: 0
            },
            Outcome::Denied
        )
    );
}

#[test]
fn a_socket_from_before_the_rules_leads_nowhere() {
    let Some(scene) = Scene::new(Contain::Default) else {
        return;
    };
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let port = listener.local_addr().expect("bound").port();
    let folder = tempfile::tempdir().expect("a folder");
    let (made, gate) = (folder.path().join("made"), folder.path().join("gate"));
    let (made_c, gate_c) = (c(&made.to_string_lossy()), c(&gate.to_string_lossy()));
    let code = std::thread::scope(|threads| {
        let child = threads.spawn(|| {
            scene.group.fork(|| {
                let before = socket(libc::SOCK_STREAM);
                // SAFETY: the paths end with NUL.
                unsafe { libc::mkdir(made_c.as_ptr(), 0o700) };
                // SAFETY: as above.
                while unsafe { libc::access(gate_c.as_ptr(), libc::F_OK) } != 0 {}
                errno(connect(before, port))
            })
        });
        while !made.exists() {}
        scene.rules(
            &Rules::new()
                .socket(libc::SOCK_STREAM as u8, 6, Action::Block)
                .done(),
        );
        std::fs::write(&gate, "").expect("writes");
        child.join().expect("ends")
    });
    assert_eq!(code, libc::EACCES);
}

#[test]
fn in_allow_list_mode_only_named_protocols_have_sockets() {
    let Some(scene) = Scene::new(Contain::Default) else {
        return;
    };
    let udp = Rules::new().socket(libc::SOCK_DGRAM as u8, 17, Action::Allow);
    scene.rules(&udp.network_posture(Posture::Block).done());
    assert_eq!(scene.group.fork(|| errno(socket(libc::SOCK_DGRAM))), 0);
    assert_eq!(
        scene.group.fork(|| errno(socket(libc::SOCK_STREAM))),
        libc::EACCES
    );
    // SAFETY: no pointers.
    let local = || unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0) };
    assert_eq!(
        scene.group.fork(|| errno(local())),
        0,
        "rules mean internet sockets"
    );
}

#[test]
fn a_connection_is_seen_from_the_kernels_own_socket() {
    let Some(mut scene) = Scene::new(Contain::Default) else {
        return;
    };
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let port = listener.local_addr().expect("bound").port();
    assert_eq!(
        scene
            .group
            .fork(|| errno(connect(socket(libc::SOCK_STREAM), port))),
        0
    );
    let udp = UdpSocket::bind("127.0.0.1:0").expect("binds");
    let closed = udp.local_addr().expect("bound").port();
    let refused = scene
        .group
        .fork(|| errno(connect(socket(libc::SOCK_STREAM), closed)));
    assert_eq!(refused, libc::ECONNREFUSED);
    let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let mut connects = scene.look().iter().filter_map(|seen| match &seen.op {
        Op::Connect { peer, protocol, .. } => {
            Some((peer.clone(), *protocol, seen.result, seen.display_only))
        }
        _ => None,
    });
    assert_eq!(connects.next(), Some((Address::Ip { ip, port }, 6, 0, 0)));
    let closed = Address::Ip { ip, port: closed };
    assert_eq!(
        connects.next(),
        Some((closed, 0, -libc::ECONNREFUSED, text::RESOURCE))
    );
}

#[test]
fn a_listener_is_seen_from_bind_to_accept() {
    let Some(mut scene) = Scene::new(Contain::Default) else {
        return;
    };
    let code = scene.group.fork(|| {
        let any = libc::sockaddr_in {
            sin_family: libc::AF_INET as u16,
            sin_port: 0,
            sin_addr: libc::in_addr {
                s_addr: u32::from(Ipv4Addr::LOCALHOST).to_be(),
            },
            sin_zero: [0; 8],
        };
        let mut bound = any;
        let mut length = 16;
        let listener = socket(libc::SOCK_STREAM);
        // SAFETY: the addresses are valid for their lengths.
        let ready = unsafe {
            libc::bind(listener, (&raw const any).cast(), 16)
                + libc::listen(listener, 1)
                + libc::getsockname(listener, (&raw mut bound).cast(), &raw mut length)
        };
        let connected = connect(socket(libc::SOCK_STREAM), u16::from_be(bound.sin_port));
        // SAFETY: accept may be told nothing of the peer.
        let accepted =
            unsafe { libc::accept4(listener, std::ptr::null_mut(), std::ptr::null_mut(), 0) };
        i32::from(ready != 0 || connected != 0 || accepted < 0)
    });
    assert_eq!(code, 0);
    let ends: Vec<_> = scene
        .look()
        .iter()
        .filter_map(|seen| match &seen.op {
            Op::Bind { local, .. } => Some(("bind", local.clone())),
            Op::Listen { local, .. } => Some(("listen", local.clone())),
            Op::Connect { peer, .. } => Some(("connect", peer.clone())),
            Op::Accept { peer, .. } => Some(("accept", peer.clone())),
            _ => None,
        })
        .collect();
    let names: Vec<_> = ends.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["bind", "listen", "connect", "accept"]);
    assert_eq!(ends[0].1, ends[1].1);
    assert_eq!(ends[1].1, ends[2].1);
    assert_ne!(ends[2].1, ends[3].1);
    assert!(
        matches!(ends[3].1, Address::Ip { port, .. } if port != 0),
        "{ends:?}"
    );
}

#[test]
fn a_local_socket_is_seen_by_its_path() {
    let Some(mut scene) = Scene::new(Contain::Default) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("socket");
    let _listener = UnixListener::bind(&path).expect("binds");
    let code = scene.group.fork(|| {
        // no allocation: the standard library's own connect only makes system calls
        i32::from(std::os::unix::net::UnixStream::connect(&path).is_err())
    });
    assert_eq!(code, 0);
    let name = path.to_string_lossy().into_owned();
    let peers = scene.look().iter().filter_map(|seen| match &seen.op {
        Op::Connect { peer, .. } => Some(peer.clone()),
        _ => None,
    });
    assert_eq!(peers.collect::<Vec<_>>(), [Address::Unix(name)]);
}

#[test]
fn a_capability_that_a_policy_names_is_told_or_denied() {
    const CAP_CHOWN: u8 = 0;
    let Some(mut scene) = Scene::new(Contain::Default) else {
        return;
    };
    let native = scene.kernel.tier() == 3;
    let tells = scene
        .kernel
        .probe()
        .abilities
        .iter()
        .find(|one| one.operation == "capabilities");
    if tells.is_none_or(|one| one.how == "none") {
        return kernel::skip("kernel 6.14", "this kernel does not tell of capabilities");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = c(&file(&folder, "data"));
    // SAFETY: the path ends with NUL.
    let chown = || errno(unsafe { libc::chown(path.as_ptr(), 1, 1) });
    for (action, code, outcome) in [
        (Action::Audit, 0, Outcome::Passed),
        (
            Action::Block,
            scene.by_tier(0, libc::EPERM),
            scene.by_tier(Outcome::Passed, Outcome::Denied),
        ),
    ] {
        scene.rules(&Rules::new().capability(CAP_CHOWN, action).done());
        scene.forget();
        assert_eq!(scene.group.fork(chown), code, "native: {native}");
        let told = scene
            .look()
            .iter()
            .find(|seen| seen.verdict.is_some())
            .expect("is told");
        assert_eq!(told.op, Op::Capability { number: CAP_CHOWN });
        assert_eq!(told.verdict.map(|made| made.outcome), Some(outcome));
    }
}

#[test]
fn a_system_call_that_a_policy_names_is_told() {
    let Some(mut scene) = Scene::new(Contain::Default) else {
        return;
    };
    let number = libc::SYS_mkdirat as u16;
    scene.rules(&Rules::new().syscall(number, Action::Audit).done());
    let folder = tempfile::tempdir().expect("a folder");
    let made = folder.path().join("made").to_string_lossy().into_owned();
    let made_c = c(&made);
    // SAFETY: the path ends with NUL.
    let code = scene
        .group
        .fork(|| unsafe { libc::mkdirat(libc::AT_FDCWD, made_c.as_ptr(), 0o711) });
    assert_eq!(code, 0);
    let told = judged(&mut scene);
    let [seen] = told.as_slice() else {
        panic!("{told:?}")
    };
    let Op::Syscall {
        number: named,
        arguments: [directory, _, mode, ..],
        path,
        dirfd,
        ..
    } = &seen.op
    else {
        panic!("{seen:?}")
    };
    assert_eq!((*named, path, *dirfd), (number, &made, libc::AT_FDCWD));
    assert_eq!((*directory as i32, *mode), (libc::AT_FDCWD, 0o711));
    assert_eq!(seen.display_only, text::RESOURCE);
}

#[test]
fn a_rename_that_a_policy_names_is_told_with_both_names() {
    let Some(mut scene) = Scene::new(Contain::Default) else {
        return;
    };
    let number = libc::SYS_rename as u16;
    scene.rules(&Rules::new().syscall(number, Action::Audit).done());
    let folder = tempfile::tempdir().expect("a folder");
    let from = file(&folder, "from");
    let to = folder.path().join("to").to_string_lossy().into_owned();
    let (from_c, to_c) = (c(&from), c(&to));
    // SAFETY: both paths end with NUL.
    let code = scene
        .group
        .fork(|| unsafe { libc::rename(from_c.as_ptr(), to_c.as_ptr()) });
    assert_eq!(code, 0);
    let told = judged(&mut scene);
    let [seen] = told.as_slice() else {
        panic!("{told:?}")
    };
    assert!(
        matches!(&seen.op, Op::Syscall { path, other, .. } if (path, other) == (&from, &to)),
        "{seen:?}"
    );
}

#[test]
fn calls_that_use_a_capability_are_seen_without_a_rule() {
    let Some(mut scene) = Scene::new(Contain::Default) else {
        return;
    };
    // SAFETY: no memory is touched. Set to what it is.
    let code = scene.group.fork(|| unsafe { libc::setuid(libc::getuid()) });
    assert_eq!(code, 0);
    let number = libc::SYS_setuid as u16;
    let seen = scene
        .look()
        .iter()
        .filter(|seen| matches!(seen.op, Op::Syscall { number: named, .. } if named == number));
    let verdicts: Vec<_> = seen.map(|seen| seen.verdict.is_some()).collect();
    assert_eq!(verdicts, [false]);
}

fn judged(scene: &mut Scene) -> Vec<Observation> {
    let judged = scene.look().iter().filter(|seen| seen.verdict.is_some());
    judged.cloned().collect()
}
