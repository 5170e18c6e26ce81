//! Text byte for byte as `karmor logs` prints it.

mod support;

use prost::Message as _;
use proto::feeder::{Alert, ExecEvent, Log, Message, Podowner};
use proto::{Kind, json};
use support::text;

#[test]
fn a_block_alert_prints_as_karmor_prints_it() {
    let line = r#"{"Timestamp":1767225600,"UpdatedTime":"2026-01-01T00:00:00.123456Z","ClusterName":"default","HostName":"node-a","NamespaceName":"shop","Owner":{"Ref":"Deployment","Name":"cart","Namespace":"shop"},"PodName":"cart-7c9d-x2k4p","Labels":"app=cart,tier=web","ContainerID":"4f1c0a","ContainerName":"cart","ContainerImage":"example/cart:1.2@sha256:ab12","HostPPID":4100,"HostPID":4123,"PPID":11,"PID":23,"UID":0,"ParentProcessName":"/bin/bash","ProcessName":"/usr/bin/apt","PolicyName":"deny-package-tools","Severity":"5","Tags":"pkg,hardening","ATags":["pkg","hardening"],"Message":"package tool \u003capt\u003e refused","Type":"MatchedPolicy","Source":"/bin/bash","Operation":"Process","Resource":"/usr/bin/apt update","Data":"lsm=SECURITY_BPRM_CHECK","EventData":{"Lsm":"SECURITY_BPRM_CHECK"},"Enforcer":"BPFLSM","Action":"Block","Result":"Permission denied","Cwd":"/","TTY":"pts0","ExecEvent":{"ExecID":"0","ExecutableName":"bash"},"NodeID":"8a1f"}"#;
    let (kind, payload) = json::parse(line).unwrap();
    assert_eq!(
        text(kind, &payload),
        "\
== Alert / 2026-01-01 00:00:00.123456 ==
ClusterName: default
HostName: node-a
NamespaceName: shop
PodName: cart-7c9d-x2k4p
Labels: app=cart,tier=web
ContainerName: cart
ContainerID: 4f1c0a
ContainerImage: example/cart:1.2@sha256:ab12
Type: MatchedPolicy
PolicyName: deny-package-tools
Severity: 5
Message: package tool <apt> refused
Source: /bin/bash
Resource: /usr/bin/apt update
Operation: Process
Action: Block
Data: lsm=SECURITY_BPRM_CHECK
EventData: map[Lsm:SECURITY_BPRM_CHECK]
Enforcer: BPFLSM
Result: Permission denied
ATags: [pkg hardening]
Cwd: /
ExecEvent: map[ExecID:0 ExecutableName:bash]
HostPID: 4123
HostPPID: 4100
NodeID: 8a1f
Owner: map[Name:cart Namespace:shop Ref:Deployment]
PID: 23
PPID: 11
ParentProcessName: /bin/bash
ProcessName: /usr/bin/apt
TTY: pts0
Tags: pkg,hardening
UID: 0
"
    );
}

/// As KubeArmor 0.8 printed it in 2023, and the user id, which is always printed since.
const WORDPRESS: &str = "\
== Alert / 2023-01-04 04:58:37.689182 ==
ClusterName: default
HostName: sibashi-asus
NamespaceName: wordpress-mysql
PodName: wordpress-787f45786f-mm2bm
Labels: app=wordpress
ContainerName: wordpress
ContainerID: 9af5246810fd0a732e74d391b32b95f65e4c08e655d1ab10b49b04b148cc1c24
ContainerImage: docker.io/library/wordpress:4.8-apache@sha256:6216f64ab88fc51d311e38c7f69ca3f9aaba621492b4f1fa93ddf63093768845
Type: MatchedPolicy
PolicyName: ksp-wordpress-block-process
Severity: 3
Source: /bin/bash
Resource: /usr/bin/apt update
Operation: Process
Action: Block
Data: syscall=SYS_EXECVE
Enforcer: AppArmor
Result: Permission denied
HostPID: 17462
HostPPID: 17293
PID: 199
PPID: 193
ParentProcessName: /bin/bash
ProcessName: /usr/bin/apt
UID: 0
";

#[test]
fn an_alert_of_2023_prints_as_then_with_the_user_id_at_its_end() {
    let alert = Alert {
        timestamp: 1_672_808_317,
        updated_time: "2023-01-04T04:58:37.689182Z".into(),
        cluster_name: "default".into(),
        host_name: "sibashi-asus".into(),
        namespace_name: "wordpress-mysql".into(),
        pod_name: "wordpress-787f45786f-mm2bm".into(),
        labels: "app=wordpress".into(),
        container_name: "wordpress".into(),
        container_id: "9af5246810fd0a732e74d391b32b95f65e4c08e655d1ab10b49b04b148cc1c24".into(),
        container_image: "docker.io/library/wordpress:4.8-apache@sha256:6216f64ab88fc51d311e38c7f69ca3f9aaba621492b4f1fa93ddf63093768845".into(),
        r#type: "MatchedPolicy".into(),
        policy_name: "ksp-wordpress-block-process".into(),
        severity: "3".into(),
        source: "/bin/bash".into(),
        resource: "/usr/bin/apt update".into(),
        operation: "Process".into(),
        action: "Block".into(),
        data: "syscall=SYS_EXECVE".into(),
        enforcer: "AppArmor".into(),
        result: "Permission denied".into(),
        host_pid: 17462,
        host_ppid: 17293,
        pid: 199,
        ppid: 193,
        parent_process_name: "/bin/bash".into(),
        process_name: "/usr/bin/apt".into(),
        ..Default::default()
    };
    assert_eq!(text(Kind::Alert, &alert.encode_to_vec()), WORDPRESS);
}

#[test]
fn a_log_without_a_time_has_a_bare_header_and_the_two_kept_numbers() {
    let log = Log {
        r#type: "HostLog".into(),
        exec_event: Some(ExecEvent::default()),
        owner: Some(Podowner {
            name: "a b".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    assert_eq!(
        text(Kind::Log, &log.encode_to_vec()),
        "== Log ==\nType: HostLog\nExecEvent: map[]\nOwner: map[Name:a b]\nPPID: 0\nUID: 0\n"
    );
}

#[test]
fn our_own_fields_do_not_print() {
    let alert = Alert {
        args: vec!["x".into()],
        tier: 3,
        owner_uid: Some(0),
        event_id: vec![1; 16],
        ..Default::default()
    };
    assert_eq!(
        text(Kind::Alert, &alert.encode_to_vec()),
        "== Alert ==\nPPID: 0\nUID: 0\n"
    );
}

#[test]
fn a_message_is_one_line_whose_parts_are_always_there() {
    let message = Message {
        updated_time: "2026-01-01T00:00:00.000000Z".into(),
        cluster_name: "default".into(),
        host_name: "node-a".into(),
        level: "WARN".into(),
        message: "3 events lost".into(),
        ..Default::default()
    };
    assert_eq!(
        text(Kind::Message, &message.encode_to_vec()),
        "2026-01-01 00:00:00.000000  default  node-a  [WARN]  3 events lost\n"
    );
    assert_eq!(text(Kind::Message, &[]), "      []  \n");
}
