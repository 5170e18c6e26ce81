//! Alerts: who decided, what it was, and every field.

use proto::feeder::Alert;
use sensor_bpf::observe::{Action, By, Call, Hook, Observation, Op, Outcome};
use sensor_bpf::render::{self, Context, Node, Rendered, Whose};

use crate::scene::*;
use crate::support::slot_rule;

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

#[test]
fn a_system_call_that_a_rule_names_is_told_with_its_file() {
    let judged = |result: i32| Observation {
        result,
        ..judged(
            syscall("unlinkat", [0; 5], "shadow"),
            Action::Audit,
            RULE,
            Outcome::Passed,
            Hook::SyscallExit,
        )
    };
    let told = |result: i32| alert(1, &cat(), &judged(result));
    assert_eq!(told(0).operation, "Syscall");
    assert_eq!(told(0).resource, "/root/shadow");
    assert_eq!(told(0).data, "syscall=SYS_UNLINKAT flags=");
    assert_eq!(told(0).action, "Audit");
    let results = [0, -libc::EPERM, -libc::EACCES].map(|result| told(result).result);
    assert_eq!(
        results,
        ["Passed", "Operation not permitted", "Permission denied"]
    );
    let missing = rendered(1, &cat(), &judged(-libc::ENOENT));
    assert!(missing.is_empty(), "a file that is not there is no alert");
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
        whose: Whose::Workload(&workload),
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
