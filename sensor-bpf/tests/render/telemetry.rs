//! Logs: what was seen without a decision.

use sensor_bpf::observe::{Action, Address, Call, Hook, Observation, Op, Outcome};

use crate::scene::*;

#[test]
fn telemetry_reads_as_kubearmors_monitor_writes_it() {
    let peer = |ip: &str, port| Address::Ip {
        ip: ip.parse().unwrap(),
        port,
    };
    let rows: Vec<(Op, [&str; 2])> = vec![
        (exec(), ["/usr/bin/apt update", "syscall=SYS_EXECVE"]),
        (
            open(Call::Open),
            ["/etc/shadow", "syscall=SYS_OPEN flags=O_RDONLY"],
        ),
        (
            open(Call::Openat2),
            ["/etc/shadow", "syscall=SYS_OPENAT fd=-100 flags=O_RDONLY"],
        ),
        (
            Op::Unlink {
                path: "/a".to_owned(),
                call: Call::Unlink,
                flags: 0,
                dirfd: -100,
            },
            ["/a", "syscall=SYS_UNLINK"],
        ),
        (
            Op::Unlink {
                path: "/a".to_owned(),
                call: Call::Unlinkat,
                flags: 0x200,
                dirfd: -100,
            },
            ["/a", "syscall=SYS_UNLINKAT flags=AT_REMOVEDIR"],
        ),
        (
            Op::Unlink {
                path: "/a".to_owned(),
                call: Call::Rmdir,
                flags: 0,
                dirfd: -100,
            },
            ["/a", "syscall=SYS_RMDIR"],
        ),
        (
            Op::Rename {
                from: "/a".to_owned(),
                to: "/b".to_owned(),
                call: Call::Renameat2,
                dirfd: -100,
            },
            ["/a", "syscall=SYS_RENAMEAT2 newpath=/b"],
        ),
        (
            syscall("setuid", [1000, 0, 0, 0, 0], ""),
            ["", "syscall=SYS_SETUID userid=1000"],
        ),
        (
            Op::Socket {
                family: 2,
                kind: 2,
                protocol: 17,
            },
            [
                "domain=AF_INET type=SOCK_DGRAM protocol=UDP",
                "syscall=SYS_SOCKET",
            ],
        ),
        (
            Op::Connect {
                fd: 3,
                peer: peer("10.0.0.9", 53),
                kind: 2,
                protocol: 17,
            },
            [
                "sa_family=AF_INET sin_port=53 sin_addr=10.0.0.9",
                "syscall=SYS_CONNECT fd=3",
            ],
        ),
        (
            Op::Connect {
                fd: 4,
                peer: Address::Unix("/run/x".to_owned()),
                kind: 1,
                protocol: 0,
            },
            [
                "sa_family=AF_UNIX sun_path=/run/x",
                "syscall=SYS_CONNECT fd=4",
            ],
        ),
        (
            Op::Listen {
                fd: 3,
                local: peer("0.0.0.0", 80),
            },
            ["", "syscall=SYS_LISTEN fd=3"],
        ),
        (
            Op::Bind {
                fd: 3,
                local: peer("0.0.0.0", 80),
            },
            [
                "sa_family=AF_INET sin_port=80 sin_addr=0.0.0.0",
                "syscall=SYS_BIND fd=3",
            ],
        ),
    ];
    for (op, [resource, data]) in rows {
        let process = matches!(op, Op::Exec { .. });
        let image = if process { apt() } else { cat() };
        let log = log(&image, &seen(op));
        let source = if process {
            "/bin/bash"
        } else {
            "/bin/cat /etc/shadow"
        };
        let [_, told_source, told_resource, told_data, result] = log_row(&log);
        assert_eq!(
            [told_source.as_str(), &told_resource, &told_data, &result],
            [source, resource, data, "Passed"]
        );
        assert_eq!((log.r#type.as_str(), log.tier), ("ContainerLog", 3));
    }
}

#[test]
fn a_tcp_connection_is_told_at_the_call_and_in_the_protocol() {
    let peer = Address::Ip {
        ip: "10.0.0.9".parse().unwrap(),
        port: 443,
    };
    let connect = |result| {
        let op = Op::Connect {
            fd: 3,
            peer: peer.clone(),
            kind: 1,
            protocol: 6,
        };
        let told = logs(&cat(), &Observation { result, ..seen(op) });
        told.iter()
            .map(|log| log_row(log)[2..].join(" | "))
            .collect::<Vec<_>>()
    };
    let call = "sa_family=AF_INET sin_port=443 sin_addr=10.0.0.9 | syscall=SYS_CONNECT fd=3";
    let protocol =
        "remoteip=10.0.0.9 port=443 protocol=TCP | kprobe=tcp_connect domain=AF_INET | Passed";
    assert_eq!(
        connect(0),
        [format!("{call} | Passed"), protocol.to_owned()]
    );
    assert_eq!(connect(-111), [format!("{call} | Connection refused")]);
    assert_eq!(connect(-115), [protocol]);

    let accept = Op::Accept {
        fd: 5,
        peer: Address::Ip {
            ip: "::1".parse().unwrap(),
            port: 5000,
        },
        kind: 1,
        protocol: 6,
    };
    let told = logs(&cat(), &seen(accept));
    assert_eq!(told[0].data, "syscall=SYS_ACCEPT fd=5");
    assert_eq!(told[1].data, "kprobe=tcp_accept domain=AF_INET6");
    assert_eq!(told[1].resource, "remoteip=::1 port=5000 protocol=TCP");
}

#[test]
fn errors_are_told_by_their_text_and_some_not_at_all() {
    let failed = |result| {
        logs(
            &cat(),
            &Observation {
                result,
                ..seen(open(Call::Openat))
            },
        )
    };
    assert_eq!(failed(-13)[0].result, "Permission denied");
    assert_eq!(failed(-2), []);
}

#[test]
fn an_audited_operation_that_failed_by_itself_is_no_alert() {
    let mut observation = judged(
        open(Call::Openat),
        Action::Audit,
        RULE,
        Outcome::Passed,
        Hook::SyscallExit,
    );
    observation.result = -20;
    assert_eq!(log(&cat(), &observation).result, "Not a directory");
}

#[test]
fn the_end_of_a_process_is_not_told() {
    assert_eq!(rendered(3, &cat(), &seen(Op::Exit { code: 0 })), []);
}

#[test]
fn what_was_asked_for_is_a_mask() {
    let mask = |flags| {
        let op = Op::Open {
            path: "/a".to_owned(),
            flags,
            call: Call::Openat,
            dirfd: -100,
            owner_uid: None,
        };
        log(&cat(), &seen(op)).access_mask
    };
    assert_eq!((mask(0), mask(1), mask(2)), (4, 2, 6));
    assert_eq!(mask(0o2101), 2 | 8 | 16);
    assert_eq!(mask(0o1000), 4 | 2);
}

#[test]
fn a_relative_name_is_told_from_the_working_directory() {
    let unlink = |path: &str, dirfd: i32| Op::Unlink {
        path: path.to_owned(),
        call: Call::Unlinkat,
        flags: 0,
        dirfd,
    };
    for (path, dirfd, told) in [
        ("a", -100, "/root/a"),
        ("./b/../c", -100, "/root/c"),
        ("../etc/x", -100, "/etc/x"),
        ("a", 7, "a"),
        ("/a", 7, "/a"),
    ] {
        assert_eq!(log(&cat(), &seen(unlink(path, dirfd))).resource, told);
    }
}
