//! What KubeArmor's consumers read: one golden event for each kind of operation and decision.
#![allow(clippy::unwrap_used, clippy::panic)] // reason: a test that fails says so

mod support;

use proto::feeder::{Alert, Log};
use sensor_bpf::observe::{
    Action, Address, By, Call, Decision, Hook, Observation, Op, Outcome, Task,
};
use sensor_bpf::process::Image;
use sensor_bpf::render::{self, Context, Node, Rendered};
use sensor_bpf::workload::{Identity, Workload};
use support::slot_rule;

// === vocabulary ===

fn workload() -> Workload {
    let identity = Identity {
        namespace: "multiubuntu".to_owned(),
        name: "ubuntu-1".to_owned(),
        labels: [("group", "group-1"), ("app", "demo")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into(),
        container: "ubuntu-1-container".to_owned(),
        image: "kubearmor/ubuntu-w-utils:latest@sha256:1".to_owned(),
        owner: Some(sensor_bpf::workload::Owner {
            kind: "Deployment".to_owned(),
            name: "ubuntu-1-deployment".to_owned(),
            namespace: "multiubuntu".to_owned(),
        }),
    };
    Workload {
        index: 7,
        labels: identity.labels_text(),
        identity,
        container_id: "sensor-1-7".to_owned(),
        root: "/".into(),
        cgroup: "/sys/fs/cgroup/cresset/sensor-1/7".into(),
    }
}

fn image(exe: &str, args: &[&str], parent: &str) -> Image {
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    Image::new(exe.to_owned(), exe, args, parent.to_owned())
}

fn seen(op: Op) -> Observation {
    Observation {
        time_ns: 1_700_000_000_123_456_789,
        task: Task {
            workload: 7,
            exec_id: 41,
            parent_exec_id: 40,
            host_pid: 2001,
            host_tid: 2001,
            host_ppid: 2000,
            pid: 12,
            ppid: 1,
            uid: 1000,
            comm: "cat".to_owned(),
            cwd: "/root".to_owned(),
            tty: Some("pts0".to_owned()),
        },
        op,
        result: 0,
        verdict: None,
        truncated: 0,
        display_only: 0,
    }
}

fn judged(op: Op, action: Action, by: By, outcome: Outcome, hook: Hook) -> Observation {
    let verdict = Some(Decision {
        action,
        by,
        outcome,
        hook,
        fault: false,
    });
    Observation {
        verdict,
        ..seen(op)
    }
}

const RULE: By = By::Rule {
    set: 1,
    generation: 1,
    slot: 0,
};

fn exec() -> Op {
    Op::Exec {
        path: "/usr/bin/apt".to_owned(),
        literal: "/usr/bin/apt".to_owned(),
        args: vec!["apt".to_owned(), "update".to_owned()],
        parent_exe: "/bin/bash".to_owned(),
        call: Call::Execve,
    }
}

fn open(call: Call) -> Op {
    Op::Open {
        path: "/etc/shadow".to_owned(),
        flags: 0,
        call,
        dirfd: -100,
        owner_uid: Some(0),
    }
}

fn raw_icmp() -> Op {
    Op::Socket {
        family: 2,
        kind: 3,
        protocol: 1,
    }
}

fn apt() -> Image {
    image("/usr/bin/apt", &["apt", "update"], "/bin/bash")
}

fn cat() -> Image {
    image("/bin/cat", &["cat", "/etc/shadow"], "/bin/bash")
}

fn ping() -> Image {
    image("/usr/bin/ping", &["ping", "10.0.0.1"], "/bin/bash")
}

fn rendered(tier: u8, image: &Image, observation: &Observation) -> Vec<Rendered> {
    let node = Node {
        cluster: "default".to_owned(),
        name: "node-1".to_owned(),
        id: "0123456789abcdef".to_owned(),
        tier,
    };
    let rule = slot_rule("ksp-group-1-proc-path-block", 5, &["MITRE", "T1"], "no");
    let by_rule = observation
        .verdict
        .is_some_and(|verdict| verdict.by == RULE);
    let workload = workload();
    let digest = [9; 32];
    let rule = by_rule.then_some(&rule);
    render::events(
        &Context {
            node: &node,
            workload: &workload,
            image,
            rule,
            digest: &digest,
        },
        observation,
    )
}

fn alert(tier: u8, image: &Image, observation: &Observation) -> Alert {
    match rendered(tier, image, observation).as_slice() {
        [Rendered::Alert(alert)] => (**alert).clone(),
        other => panic!("not one alert: {other:?}"),
    }
}

fn logs(image: &Image, observation: &Observation) -> Vec<Log> {
    let log = |event| match event {
        Rendered::Log(log) => *log,
        other => panic!("no log: {other:?}"),
    };
    rendered(3, image, observation)
        .into_iter()
        .map(log)
        .collect()
}

fn log(image: &Image, observation: &Observation) -> Log {
    let mut logs = logs(image, observation);
    assert_eq!(logs.len(), 1, "{logs:?}");
    logs.remove(0)
}

/// Operation, Source, Resource, Data, Enforcer / Action / Result.
fn row(alert: &Alert) -> [String; 5] {
    let Alert {
        operation,
        source,
        resource,
        data,
        enforcer,
        action,
        result,
        ..
    } = alert.clone();
    [
        operation,
        source,
        resource,
        data,
        format!("{enforcer} / {action} / {result}"),
    ]
}

fn log_row(log: &Log) -> [String; 5] {
    let Log {
        operation,
        source,
        resource,
        data,
        result,
        ..
    } = log.clone();
    [operation, source, resource, data, result]
}

// === alerts of the LSM tiers ===

#[test]
fn a_blocked_exec_is_told_as_kubearmor_does() {
    let observation = judged(
        exec(),
        Action::Block,
        RULE,
        Outcome::Denied,
        Hook::BprmCheck,
    );
    let alert = alert(1, &apt(), &observation);
    assert_eq!(
        row(&alert),
        [
            "Process",
            "/bin/bash",
            "/usr/bin/apt update",
            "lsm=SECURITY_BPRM_CHECK",
            "BPFLSM / Block / Permission denied"
        ]
    );
    assert_eq!(
        (
            alert.process_name.as_str(),
            alert.parent_process_name.as_str()
        ),
        ("/usr/bin/apt", "/bin/bash")
    );
}

#[test]
fn a_blocked_read_is_told_as_kubearmor_does() {
    let observation = judged(
        open(Call::Openat),
        Action::Block,
        RULE,
        Outcome::Denied,
        Hook::FileOpen,
    );
    assert_eq!(
        row(&alert(2, &cat(), &observation)),
        [
            "File",
            "/bin/cat /etc/shadow",
            "/etc/shadow",
            "lsm=FILE_OPEN",
            "BPFLSM / Block / Permission denied"
        ]
    );
}

#[test]
fn an_audited_read_is_told_by_its_system_call_on_every_tier() {
    for (tier, hook) in [(1, Hook::FileOpen), (3, Hook::SyscallExit)] {
        let observation = judged(
            open(Call::Openat),
            Action::Audit,
            RULE,
            Outcome::Passed,
            hook,
        );
        assert_eq!(
            row(&alert(tier, &cat(), &observation)),
            [
                "File",
                "/bin/cat /etc/shadow",
                "/etc/shadow",
                "syscall=SYS_OPENAT fd=-100 flags=O_RDONLY",
                "eBPF Monitor / Audit / Passed"
            ]
        );
    }
}

#[test]
fn a_posture_audit_is_told_by_its_hook_and_has_no_rules_texts() {
    let observation = judged(
        open(Call::Openat),
        Action::Audit,
        By::Posture,
        Outcome::Passed,
        Hook::FileOpen,
    );
    let alert = alert(1, &cat(), &observation);
    assert_eq!(
        row(&alert)[3..],
        ["lsm=FILE_OPEN", "BPFLSM / Audit / Passed"]
    );
    assert_eq!(alert.policy_name, "DefaultPosture");
    assert_eq!(
        (alert.severity, alert.tags, alert.message),
        Default::default()
    );
    assert_eq!((alert.a_tags.len(), alert.rule_id), (0, 0));
}

#[test]
fn a_blocked_socket_names_the_rules_key() {
    let observation = judged(
        raw_icmp(),
        Action::Block,
        RULE,
        Outcome::Denied,
        Hook::SocketCreate,
    );
    let alert = alert(1, &ping(), &observation);
    assert_eq!(
        row(&alert),
        [
            "Network",
            "/usr/bin/ping 10.0.0.1",
            "protocol=ICMP type=SOCK_RAW",
            "lsm=SOCKET_CREATE protocol=ICMP type=SOCK_RAW",
            "BPFLSM / Block / Permission denied"
        ]
    );
    let data: Vec<_> = alert
        .event_data
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    assert_eq!(
        data,
        ["Lsm=SOCKET_CREATE", "Protocol=ICMP", "Type=SOCK_RAW"]
    );
}

#[test]
fn a_blocked_capability_is_told_as_kubearmor_does() {
    let op = Op::Capability { number: 13 };
    let observation = judged(op, Action::Block, RULE, Outcome::Denied, Hook::Capable);
    let arping = image("/usr/bin/arping", &["arping", "10.0.0.1"], "/bin/bash");
    assert_eq!(
        row(&alert(1, &arping, &observation)),
        [
            "Capabilities",
            "/usr/bin/arping 10.0.0.1",
            "CAP_NET_RAW",
            "lsm=CAPABLE CAP_NET_RAW",
            "BPFLSM / Block / Permission denied"
        ]
    );
}

// === alerts of the native tier ===

#[test]
fn a_killed_exec_says_contained_and_killed() {
    let observation = judged(
        exec(),
        Action::Block,
        RULE,
        Outcome::Killed,
        Hook::ExecTracepoint,
    );
    assert_eq!(
        row(&alert(3, &apt(), &observation))[2..],
        [
            "/usr/bin/apt update",
            "syscall=SYS_EXECVE",
            "BPFContain / Block / Killed"
        ]
    );
}

#[test]
fn a_denied_socket_on_the_native_tier_is_a_real_denial() {
    let observation = judged(
        raw_icmp(),
        Action::Block,
        RULE,
        Outcome::Denied,
        Hook::Cgroup,
    );
    assert_eq!(
        row(&alert(3, &ping(), &observation))[2..],
        [
            "protocol=ICMP type=SOCK_RAW",
            "syscall=SYS_SOCKET",
            "BPFContain / Block / Permission denied"
        ]
    );
}

#[test]
fn a_block_that_cannot_be_enforced_is_an_audit_that_says_so() {
    let observation = judged(
        open(Call::Openat),
        Action::Block,
        RULE,
        Outcome::Passed,
        Hook::SyscallExit,
    );
    assert_eq!(
        row(&alert(3, &cat(), &observation))[4],
        "eBPF Monitor / Audit (Block) / Passed"
    );
}

#[test]
fn a_posture_audit_on_the_native_tier_comes_from_the_monitor() {
    let observation = judged(
        raw_icmp(),
        Action::Audit,
        By::Posture,
        Outcome::Passed,
        Hook::Cgroup,
    );
    let alert = alert(3, &ping(), &observation);
    assert_eq!(
        row(&alert)[3..],
        ["syscall=SYS_SOCKET", "eBPF Monitor / Audit / Passed"]
    );
    assert_eq!(alert.policy_name, "DefaultPosture");
}

#[test]
fn a_decision_without_rules_says_why() {
    let mut observation = judged(
        open(Call::Openat),
        Action::Block,
        By::Posture,
        Outcome::Denied,
        Hook::FileOpen,
    );
    observation.verdict.as_mut().unwrap().fault = true;
    assert!(
        alert(1, &cat(), &observation)
            .message
            .contains("could not be read whole")
    );
}

// === every field ===

#[test]
fn an_alert_has_every_field_that_is_known() {
    let mut observation = judged(
        exec(),
        Action::Block,
        RULE,
        Outcome::Denied,
        Hook::BprmCheck,
    );
    observation.truncated = 2;
    observation.display_only = 33;
    let expected = Alert {
        timestamp: 1_700_000_000,
        updated_time: "2023-11-14T22:13:20.123456Z".to_owned(),
        cluster_name: "default".to_owned(),
        host_name: "node-1".to_owned(),
        namespace_name: "multiubuntu".to_owned(),
        owner: Some(proto::feeder::Podowner {
            r#ref: "Deployment".to_owned(),
            name: "ubuntu-1-deployment".to_owned(),
            namespace: "multiubuntu".to_owned(),
        }),
        pod_name: "ubuntu-1".to_owned(),
        labels: "app=demo,group=group-1".to_owned(),
        container_id: "sensor-1-7".to_owned(),
        container_name: "ubuntu-1-container".to_owned(),
        container_image: "kubearmor/ubuntu-w-utils:latest@sha256:1".to_owned(),
        host_ppid: 2000,
        host_pid: 2001,
        ppid: 1,
        pid: 12,
        uid: 1000,
        parent_process_name: "/bin/bash".to_owned(),
        process_name: "/usr/bin/apt".to_owned(),
        policy_name: "ksp-group-1-proc-path-block".to_owned(),
        severity: "5".to_owned(),
        tags: "MITRE,T1".to_owned(),
        a_tags: vec!["MITRE".to_owned(), "T1".to_owned()],
        message: "no".to_owned(),
        r#type: "MatchedPolicy".to_owned(),
        source: "/bin/bash".to_owned(),
        operation: "Process".to_owned(),
        resource: "/usr/bin/apt update".to_owned(),
        data: "lsm=SECURITY_BPRM_CHECK".to_owned(),
        event_data: [("Lsm".to_owned(), "SECURITY_BPRM_CHECK".to_owned())].into(),
        enforcer: "BPFLSM".to_owned(),
        action: "Block".to_owned(),
        result: "Permission denied".to_owned(),
        cwd: "/root/".to_owned(),
        tty: "pts0".to_owned(),
        exec_event: Some(proto::feeder::ExecEvent {
            exec_id: "0".to_owned(),
            executable_name: "cat".to_owned(),
        }),
        node_id: "0123456789abcdef".to_owned(),
        args: vec!["apt".to_owned(), "update".to_owned()],
        access_mask: 1,
        source_image: "/bin/bash".to_owned(),
        truncated: 2,
        display_only: 33,
        exec_id: 41,
        parent_exec_id: 40,
        rule_id: 77,
        tier: 1,
        policy_digest: vec![9; 32],
        ..Alert::default()
    };
    assert_eq!(alert(1, &apt(), &observation), expected);
}

#[test]
fn severity_zero_and_an_empty_owner_are_left_out() {
    let node = Node::default();
    let mut workload = workload();
    workload.identity.owner = Some(sensor_bpf::workload::Owner::default());
    let rule = slot_rule("p", 0, &[], "");
    let image = cat();
    let context = Context {
        node: &node,
        workload: &workload,
        image: &image,
        rule: Some(&rule),
        digest: &[],
    };
    let observation = judged(
        open(Call::Openat),
        Action::Audit,
        RULE,
        Outcome::Passed,
        Hook::SyscallExit,
    );
    let events = render::events(&context, &observation);
    let [Rendered::Alert(alert)] = events.as_slice() else {
        panic!("not one alert: {events:?}")
    };
    assert_eq!(
        (alert.severity.as_str(), &alert.owner, alert.owner_uid),
        ("", &None, Some(0))
    );
}

// === telemetry ===

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
            },
            ["/a", "syscall=SYS_RENAMEAT2 newpath=/b"],
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
