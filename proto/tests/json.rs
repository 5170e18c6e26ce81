//! JSON byte for byte as Go prints KubeArmor's structs.

mod support;

use prost::Message as _;
use proto::feeder::{Alert, ExecEvent, Log, Message, Podowner};
use proto::{FieldSet, Kind, json};
use support::written;

/// A block alert with nearly everything that KubeArmor sets.
const BLOCKED_EXEC: &str = r#"{"Timestamp":1767225600,"UpdatedTime":"2026-01-01T00:00:00.123456Z","ClusterName":"default","HostName":"node-a","NamespaceName":"shop","Owner":{"Ref":"Deployment","Name":"cart","Namespace":"shop"},"PodName":"cart-7c9d-x2k4p","Labels":"app=cart,tier=web","ContainerID":"4f1c0a","ContainerName":"cart","ContainerImage":"example/cart:1.2@sha256:ab12","HostPPID":4100,"HostPID":4123,"PPID":11,"PID":23,"UID":0,"ParentProcessName":"/bin/bash","ProcessName":"/usr/bin/apt","PolicyName":"deny-package-tools","Severity":"5","Tags":"pkg,hardening","ATags":["pkg","hardening"],"Message":"package tool \u003capt\u003e refused","Type":"MatchedPolicy","Source":"/bin/bash","Operation":"Process","Resource":"/usr/bin/apt update","Data":"lsm=SECURITY_BPRM_CHECK","EventData":{"Lsm":"SECURITY_BPRM_CHECK"},"Enforcer":"BPFLSM","Action":"Block","Result":"Permission denied","Cwd":"/","TTY":"pts0","ExecEvent":{"ExecID":"0","ExecutableName":"bash"},"NodeID":"8a1f"}"#;

fn blocked_exec() -> Alert {
    Alert {
        timestamp: 1_767_225_600,
        updated_time: proto::updated_time(1_767_225_600_123_456_000),
        cluster_name: "default".into(),
        host_name: "node-a".into(),
        namespace_name: "shop".into(),
        owner: Some(Podowner {
            r#ref: "Deployment".into(),
            name: "cart".into(),
            namespace: "shop".into(),
        }),
        pod_name: "cart-7c9d-x2k4p".into(),
        labels: "app=cart,tier=web".into(),
        container_id: "4f1c0a".into(),
        container_name: "cart".into(),
        container_image: "example/cart:1.2@sha256:ab12".into(),
        host_ppid: 4100,
        host_pid: 4123,
        ppid: 11,
        pid: 23,
        parent_process_name: "/bin/bash".into(),
        process_name: "/usr/bin/apt".into(),
        policy_name: "deny-package-tools".into(),
        severity: "5".into(),
        tags: "pkg,hardening".into(),
        a_tags: vec!["pkg".into(), "hardening".into()],
        message: "package tool <apt> refused".into(),
        r#type: "MatchedPolicy".into(),
        source: "/bin/bash".into(),
        operation: "Process".into(),
        resource: "/usr/bin/apt update".into(),
        data: "lsm=SECURITY_BPRM_CHECK".into(),
        event_data: proto::event_data("Process", "lsm=SECURITY_BPRM_CHECK", "/usr/bin/apt update"),
        enforcer: "BPFLSM".into(),
        action: "Block".into(),
        result: "Permission denied".into(),
        cwd: "/".into(),
        tty: "pts0".into(),
        exec_event: Some(ExecEvent {
            exec_id: "0".into(),
            executable_name: "bash".into(),
        }),
        node_id: "8a1f".into(),
        ..Default::default()
    }
}

#[test]
fn an_empty_host_log_keeps_its_two_zeroes_and_its_empty_message() {
    let log = Log {
        updated_time: "2023-06-27T12:21:47.932526Z".into(),
        r#type: "HostLog".into(),
        operation: "File".into(),
        exec_event: Some(ExecEvent::default()),
        ..Default::default()
    };
    assert_eq!(
        written(Kind::Log, &log.encode_to_vec(), FieldSet::KubeArmor),
        r#"{"UpdatedTime":"2023-06-27T12:21:47.932526Z","PPID":0,"UID":0,"Type":"HostLog","Operation":"File","ExecEvent":{}}"#
    );
}

#[test]
fn a_block_alert_prints_as_go_prints_it() {
    let payload = blocked_exec().encode_to_vec();
    assert_eq!(
        written(Kind::Alert, &payload, FieldSet::KubeArmor),
        BLOCKED_EXEC
    );
}

#[test]
fn the_printed_alert_reads_back_as_the_bytes_it_came_from() {
    let payload = blocked_exec().encode_to_vec();
    assert_eq!(json::parse(BLOCKED_EXEC), Ok((Kind::Alert, payload.into())));
}

#[test]
fn an_event_without_fields_still_is_an_object() {
    assert_eq!(
        written(Kind::Alert, &[], FieldSet::All),
        r#"{"PPID":0,"UID":0}"#
    );
    assert_eq!(written(Kind::Message, &[], FieldSet::All), "{}");
}

#[test]
fn a_message_prints_in_number_order() {
    let message = Message {
        timestamp: 1_767_225_600,
        updated_time: "2026-01-01T00:00:00.000000Z".into(),
        cluster_name: "default".into(),
        host_name: "node-a".into(),
        host_ip: "10.0.0.1".into(),
        r#type: "Message".into(),
        level: "INFO".into(),
        message: "started".into(),
        ..Default::default()
    };
    assert_eq!(
        written(Kind::Message, &message.encode_to_vec(), FieldSet::KubeArmor),
        r#"{"Timestamp":1767225600,"UpdatedTime":"2026-01-01T00:00:00.000000Z","ClusterName":"default","HostName":"node-a","HostIP":"10.0.0.1","Type":"Message","Level":"INFO","Message":"started"}"#
    );
}

#[test]
fn negative_numbers_keep_their_sign() {
    let alert = Alert {
        timestamp: -5,
        pid: -1,
        uid: i32::MIN,
        ..Default::default()
    };
    assert_eq!(
        written(Kind::Alert, &alert.encode_to_vec(), FieldSet::KubeArmor),
        r#"{"Timestamp":-5,"PPID":0,"PID":-1,"UID":-2147483648}"#
    );
}

#[test]
fn a_map_of_many_keys_is_sorted_by_bytes_and_the_last_of_equal_keys_wins() {
    let entries = |range: std::ops::Range<u32>, value: &str| {
        range
            .rev()
            .map(|n| (format!("k{n:02}"), value.to_owned()))
            .collect()
    };
    let old = Log {
        event_data: entries(0..30, "old"),
        ..Default::default()
    };
    let new = Log {
        event_data: entries(10..20, "new"),
        ..Default::default()
    };
    let payload = [old.encode_to_vec(), new.encode_to_vec()].concat();
    let line = written(Kind::Log, &payload, FieldSet::KubeArmor);
    let expected: Vec<_> = (0..30)
        .map(|n| {
            format!(
                r#""k{n:02}":"{}""#,
                if (10..20).contains(&n) { "new" } else { "old" }
            )
        })
        .collect();
    assert_eq!(
        line,
        format!(
            r#"{{"PPID":0,"UID":0,"EventData":{{{}}}}}"#,
            expected.join(",")
        )
    );
}

#[test]
fn an_alert_recorded_before_user_ids_were_always_printed_gains_only_that() {
    // As KubeArmor 0.8 printed it in 2023, spread over lines.
    let recorded = r#"{
"Timestamp":1672808328,
"UpdatedTime":"2023-01-04T04:58:48.838991Z",
"ClusterName":"default","HostName":"sibashi-asus",
"NamespaceName":"wordpress-mysql","PodName":"wordpress-787f45786f-mm2bm",
"Labels":"app=wordpress",
"ContainerID":"9af5246810fd0a732e74d391b32b95f65e4c08e655d1ab10b49b04b148cc1c24",
"ContainerName":"wordpress",
"ContainerImage":"docker.io/library/wordpress:4.8-apache@sha256:6216f64ab88fc51d311e38c7f69ca3f9aaba621492b4f1fa93ddf63093768845",
"HostPPID":17293,
"HostPID":17526,
"PPID":193,
"PID":200,
"ParentProcessName":"/bin/bash",
"ProcessName":"/usr/bin/apt",
"PolicyName":"ksp-wordpress-block-process",
"Severity":"3",
"Type":"MatchedPolicy",
"Source":"/bin/bash",
"Operation":"Process",
"Resource":"/usr/bin/apt update",
"Data":"syscall=SYS_EXECVE",
"Enforcer":"AppArmor",
"Action":"Block",
"Result":"Permission denied"
}"#;
    let parsed = json::read(recorded).unwrap();
    assert_eq!((parsed.kind, parsed.unknown.len()), (Kind::Alert, 0));
    let today = recorded
        .replace('\n', "")
        .replace(r#""PID":200,"#, r#""PID":200,"UID":0,"#);
    assert_eq!(
        written(Kind::Alert, &parsed.payload, FieldSet::KubeArmor),
        today
    );
}

#[test]
fn pretty_json_is_indented_by_two_and_leaves_empty_objects_alone() {
    let compact = r#"{"A":"x: [{,}]\"\\","B":{},"C":[],"D":{"E":["f",1]}}"#;
    let expected = r#"{
  "A": "x: [{,}]\"\\",
  "B": {},
  "C": [],
  "D": {
    "E": [
      "f",
      1
    ]
  }
}"#;
    assert_eq!(
        String::from_utf8(json::pretty(compact.as_bytes())).unwrap(),
        expected
    );
}

#[test]
fn every_recorded_example_reads_and_prints_as_it_is_recorded() {
    let examples = include_str!("../../examples/events.jsonl");
    let mut kinds = Vec::new();
    for line in examples.lines() {
        let parsed = json::read(line).unwrap();
        assert_eq!(parsed.unknown, Vec::<String>::new());
        assert_eq!(
            written(parsed.kind, &parsed.payload, FieldSet::KubeArmor),
            line
        );
        let event = proto::View::read(parsed.kind, &parsed.payload);
        let seconds = json::parse(line).map(|_| event.timestamp).unwrap();
        assert!(
            event
                .updated_time
                .starts_with(&proto::updated_time(seconds as u64 * 1_000_000_000)[..19])
        );
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        if let Some(recorded) = value.get("EventData") {
            let data = proto::event_data(event.operation, event.data, event.resource);
            assert_eq!(serde_json::to_value(data).unwrap(), *recorded, "{line}");
        }
        kinds.push(parsed.kind);
    }
    assert!(examples.ends_with('\n') && kinds.len() >= 20);
    assert!(Kind::ALL.iter().all(|kind| kinds.contains(kind)));
}
