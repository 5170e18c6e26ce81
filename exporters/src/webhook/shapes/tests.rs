//! What the bodies look like, and that nothing in an event can break out of them.

use jiff::Timestamp;
use proto::feeder;
use serde_json::json;

use super::*;
use crate::Batch;
use crate::fixtures::batch_of;
use crate::webhook::{GROUP_BY, group};

fn alert() -> feeder::Alert {
    feeder::Alert {
        updated_time: "2026-01-01T00:00:00.123456Z".into(),
        host_name: "node-a".into(),
        namespace_name: "shop".into(),
        pod_name: "cart-1".into(),
        labels: "app=cart".into(),
        process_name: "/usr/bin/apt".into(),
        parent_process_name: "/bin/bash".into(),
        policy_name: "no-apt".into(),
        severity: "8".into(),
        tags: "MITRE, NIST".into(),
        r#type: "MatchedPolicy".into(),
        source: "/bin/sh".into(),
        operation: "Process".into(),
        resource: "/usr/bin/apt <!channel> & \"x\"\u{1b}[31m".into(),
        data: "lsm=SECURITY_BPRM_CHECK".into(),
        action: "Block".into(),
        result: "Permission denied".into(),
        ..Default::default()
    }
}

fn notice(shape: Shape, template: Option<&str>, batch: &Batch, most: usize) -> Vec<Value> {
    let writer = Writer {
        sink: "chat".into(),
        shape,
        routing_key: None,
        template: template.map(|text| Template::new(text).unwrap()),
        content_type: None,
    };
    let groups = group::fold(group::of(batch, &GROUP_BY), most);
    let body = |group: &Group<'_>| serde_json::from_slice(&writer.notice(group).unwrap()).unwrap();
    groups.iter().map(body).collect()
}

fn other(pod: &str) -> feeder::Alert {
    feeder::Alert {
        pod_name: pod.into(),
        ..alert()
    }
}

#[test]
fn slack_gets_one_message_with_a_count_and_nobody_is_called() {
    let batch = batch_of([alert(), alert(), alert()]);
    let [message] = &notice(Shape::Slack, None, &batch, 9)[..] else {
        panic!("one message")
    };
    let text = message["text"].as_str().unwrap();
    assert!(
        text.starts_with("3 × no-apt: Block Process /usr/bin/apt &lt;!channel&gt; &amp; "),
        "{text}"
    );
    assert!(!message.to_string().contains("<!channel>"));
    assert!(!message.to_string().contains("\\u001b"), "{message}");
    assert_eq!(message["blocks"].as_array().unwrap().len(), 3);
}

#[test]
fn a_section_of_slack_keeps_to_its_bound_whatever_a_process_is_called() {
    // Slack takes 3,000 characters in a section, and refuses the message for one more.
    for hostile in ["&", "<!channel>", "\u{1b}", "ü", "a"] {
        let flood = |pod: &str| feeder::Alert {
            resource: hostile.repeat(3000),
            process_name: hostile.repeat(3000),
            policy_name: hostile.repeat(3000),
            ..other(pod)
        };
        let batch = batch_of([flood("p"), flood("p"), flood("p"), flood("p"), flood("p")]);
        let message = &notice(Shape::Slack, None, &batch, 9)[0];
        for block in message["blocks"].as_array().unwrap() {
            let text = &block["text"]["text"];
            let text = text.as_str().or(block["elements"][0]["text"].as_str());
            let long = text.unwrap().chars().count();
            assert!((1..=3000).contains(&long), "{hostile}: {long}");
        }
    }
}

#[test]
fn groups_beyond_the_rate_are_folded_into_one_message_that_counts_them() {
    let batch = batch_of(["a", "b", "c", "d"].map(other));
    let messages = notice(Shape::Slack, None, &batch, 2);
    assert_eq!(messages.len(), 2);
    let text = messages[1]["text"].as_str().unwrap();
    assert!(
        text.starts_with("3 events of 3 kinds, among them: "),
        "{text}"
    );
}

#[test]
fn alertmanager_gets_labels_that_name_the_group() {
    let batch = batch_of([alert(), alert()]);
    let alerts = &notice(Shape::Alertmanager, None, &batch, 9)[0][0];
    assert_eq!(
        alerts["labels"],
        json!({
            "action": "Block", "alertname": "no-apt", "kind": "Alert", "namespace": "shop", "operation": "Process",
            "pod": "cart-1", "policy": "no-apt", "severity": "critical", "source": "cresset/chat",
        })
    );
    assert_eq!(alerts["annotations"]["count"], "2");
    assert_eq!(alerts["startsAt"], "2026-01-01T00:00:00.123456Z");
}

#[test]
fn an_alert_that_comes_late_is_not_over_when_it_arrives() {
    let over = |updated_time: &str| {
        let alert = feeder::Alert {
            updated_time: updated_time.into(),
            ..alert()
        };
        let alerts = &notice(Shape::Alertmanager, None, &batch_of([alert]), 9)[0][0];
        let [starts, ends] = ["startsAt", "endsAt"]
            .map(|key| -> Timestamp { alerts[key].as_str().unwrap().parse().unwrap() });
        assert!(starts < ends, "{alerts}");
        ends
    };
    let now = Timestamp::now();
    assert!(over("2026-01-01T00:00:00.123456Z") >= now + jiff::SignedDuration::from_secs(300));
    // A sensor's clock may be ahead.
    let ahead: Timestamp = "2226-01-01T00:00:00Z".parse().unwrap();
    assert_eq!(
        over("2226-01-01T00:00:00Z"),
        ahead + jiff::SignedDuration::from_secs(300)
    );
}

#[test]
fn pagerduty_gets_what_its_schema_asks_for() {
    let batch = batch_of([alert()]);
    let event = &notice(Shape::Pagerduty, None, &batch, 9)[0];
    assert_eq!(event["event_action"], "trigger");
    assert_eq!(
        event["dedup_key"],
        "cresset/chat/kind=Alert,policy=no-apt,namespace=shop,pod=cart-1,operation=Process,action=Block"
    );
    let payload = &event["payload"];
    assert_eq!(payload["severity"], "critical");
    assert_eq!(payload["source"], "node-a");
    assert_eq!(payload["custom_details"]["event"]["PodName"], "cart-1");
    // A long name keeps to the bound, and another long name is another.
    let long = |end: &str| {
        let pod = format!("{}{end}", "p".repeat(400));
        let event = notice(Shape::Pagerduty, None, &batch_of([other(&pod)]), 9);
        event[0]["dedup_key"].as_str().unwrap().to_owned()
    };
    assert!(long("a").chars().count() <= 255);
    assert_ne!(long("a"), long("b"));
}

#[test]
fn falcosidekick_gets_the_fields_that_it_checks() {
    let event = &notice(Shape::Falcosidekick, None, &batch_of([alert()]), 9)[0];
    assert_eq!(event["rule"], "no-apt");
    assert_eq!(event["priority"], "Critical");
    assert_eq!(event["time"], "2026-01-01T00:00:00.123456Z");
    assert_eq!(event["tags"], json!(["MITRE", "NIST"]));
    assert_eq!(event["output_fields"]["k8s.ns.name"], "shop");
    assert_eq!(event["output_fields"]["kubearmor.PolicyName"], "no-apt");
}

#[test]
fn falcos_process_is_the_program_that_was_started_or_the_one_that_acted() {
    let seen = |operation: &str, resource: &str, source: &str| {
        let alert = feeder::Alert {
            operation: operation.into(),
            resource: resource.into(),
            source: source.into(),
            parent_process_name: "/bin/sh".into(),
            container_image: "reg:5000/a/b:1.2@sha256:00".into(),
            ..alert()
        };
        notice(Shape::Falcosidekick, None, &batch_of([alert]), 9)[0]["output_fields"].clone()
    };
    let started = seen("Process", "/usr/bin/apt update", "/bin/sh -c x");
    assert_eq!(started["proc.exepath"], "/usr/bin/apt");
    assert_eq!(started["proc.cmdline"], "/usr/bin/apt update");
    assert_eq!(started["proc.pexepath"], "/bin/sh");
    assert_eq!(started["proc.pcmdline"], "/bin/sh -c x");
    assert_eq!(started["container.image.repository"], "reg:5000/a/b");
    assert_eq!(started["container.image.tag"], "1.2");
    let acted = seen("File", "/etc/shadow", "/usr/bin/apt update");
    assert_eq!(acted["proc.cmdline"], "/usr/bin/apt update");
}

fn ocsf_of(log: feeder::Log) -> Value {
    let batch = batch_of([log]);
    serde_json::from_slice(&ocsf::event(&batch.events()[0]).unwrap()).unwrap()
}

#[test]
fn an_alert_is_a_detection_finding_of_ocsf() {
    let batch = batch_of([alert()]);
    let finding: Value = serde_json::from_slice(&ocsf::event(&batch.events()[0]).unwrap()).unwrap();
    let ids = [
        "class_uid",
        "category_uid",
        "activity_id",
        "type_uid",
        "severity_id",
    ];
    assert_eq!(
        ids.map(|id| finding[id].as_u64().unwrap()),
        [2004, 2, 1, 200_401, 4]
    );
    assert_eq!(finding["time"], 1_767_225_600_123_u64);
    assert_eq!(finding["disposition_id"], 2);
    assert_eq!(finding["finding_info"]["analytic"]["name"], "no-apt");
    let evidence = &finding["evidences"][0];
    assert_eq!(evidence["process"]["name"], "apt");
    let actor = &evidence["actor"]["process"];
    assert_eq!(
        (&actor["name"], &actor["cmd_line"]),
        (&json!("bash"), &json!("/bin/sh"))
    );
    assert_eq!(
        finding["metadata"]["profiles"],
        json!(["host", "container", "security_control"])
    );
    assert_eq!(finding["resources"][0]["namespace"], "shop");
    assert_eq!(finding["unmapped"]["PolicyName"], "no-apt");
}

#[test]
fn a_log_is_the_activity_that_it_is() {
    let log = |operation: &str, resource: &str, data: &str| {
        let event = ocsf_of(feeder::Log {
            operation: operation.into(),
            resource: resource.into(),
            data: data.into(),
            result: "Passed".into(),
            ..Default::default()
        });
        let ids = ["class_uid", "activity_id", "type_uid"].map(|id| event[id].as_u64().unwrap());
        (ids, event)
    };
    let (ids, event) = log(
        "Network",
        "remoteip=10.0.0.7 port=443 protocol=TCP",
        "kprobe=tcp_connect",
    );
    assert_eq!(ids, [4001, 1, 400_101]);
    assert_eq!(
        event["dst_endpoint"],
        json!({"ip": "10.0.0.7", "port": 443})
    );
    assert_eq!(event["status_id"], 1);
    assert_eq!(
        log("File", "/a/b", "syscall=SYS_UNLINK").0,
        [1001, 4, 100_104]
    );
    assert_eq!(
        log("File", "/a/b", "syscall=SYS_OPENAT").0,
        [1001, 14, 100_114]
    );
    assert_eq!(
        log("Process", "/a/b", "syscall=SYS_EXECVE").0,
        [1007, 1, 100_701]
    );
    assert_eq!(
        log("Syscall", "", "syscall=SYS_SETUID").0,
        [1003, 4, 100_304]
    );
    assert_eq!(log("Device", "USB", "").0, [0, 99, 99]);
}

#[test]
fn what_ocsf_asks_of_an_activity_is_there() {
    let log = |operation: &str, resource: &str, data: &str| {
        ocsf_of(feeder::Log {
            host_name: "node-a".into(),
            pod_name: "cart-1".into(),
            process_name: "/usr/bin/gdb".into(),
            operation: operation.into(),
            resource: resource.into(),
            data: data.into(),
            ..Default::default()
        })
    };
    let own = json!({"hostname": "node-a", "name": "cart-1"});
    let out = log(
        "Network",
        "remoteip=::1 port=443",
        "kprobe=tcp_connect domain=AF_INET6",
    );
    assert_eq!(out["src_endpoint"], own);
    assert_eq!(out["dst_endpoint"], json!({"ip": "::1", "port": 443}));
    // Who accepts answers: the other end began it.
    let accepted = log(
        "Network",
        "remoteip=10.0.0.7 port=5000",
        "kprobe=tcp_accept",
    );
    assert_eq!(
        (&accepted["activity_id"], &accepted["dst_endpoint"]),
        (&json!(1), &own)
    );
    assert_eq!(accepted["src_endpoint"]["ip"], "10.0.0.7");
    let listening = log(
        "Network",
        "sin_port=80 sin_addr=0.0.0.0",
        "syscall=SYS_BIND",
    );
    assert_eq!(
        (&listening["class_uid"], &listening["dst_endpoint"]),
        (
            &json!(4001),
            &json!({"hostname": "node-a", "name": "cart-1", "ip": "0.0.0.0", "port": 80})
        )
    );
    // Nobody answers a socket that is only made.
    let socket = log(
        "Network",
        "domain=AF_INET type=SOCK_DGRAM",
        "syscall=SYS_SOCKET",
    );
    assert_eq!(
        (&socket["class_uid"], &socket["kernel"]),
        (&json!(1003), &json!({"name": "SYS_SOCKET", "type_id": 2}))
    );
    let traced = log(
        "Process",
        "/bin/x",
        "syscall=SYS_PTRACE request=PTRACE_ATTACH pid=3 process=/bin/x",
    );
    assert_eq!(
        (&traced["activity_id"], &traced["type_uid"]),
        (&json!(3), &json!(100_703))
    );
    assert_eq!(
        (&traced["process"]["name"], &traced["process"]["pid"]),
        (&json!("x"), &json!(3))
    );
    assert_eq!(traced["actor"]["process"]["name"], "gdb");
    let called = log("Syscall", "/tmp/a", "syscall=SYS_UNLINKAT flags=");
    assert_eq!(
        called["kernel"],
        json!({"name": "SYS_UNLINKAT", "type_id": 2, "path": "/tmp/a"})
    );
    let capable = log("Capabilities", "CAP_NET_RAW", "lsm=CAPABLE CAP_NET_RAW");
    assert_eq!(
        capable["kernel"],
        json!({"name": "CAP_NET_RAW", "type_id": 99, "type": "Capabilities"})
    );
}

#[test]
fn a_template_sees_the_group_and_says_what_it_does_not_know() {
    let text = r#"{"n": {{ count }}, "pod": {{ event.PodName | tojson }}, "owner": "{{ event.Owner.Name }}",
        "all": [{% for e in events %}{{ e.Resource | tojson }}{% if not loop.last %},{% endif %}{% endfor %}],
        "policy": {{ group.policy | tojson }}, "at": "{{ first }}", "by": "{{ sink }}"}"#;
    let body = &notice(
        Shape::Template,
        Some(text),
        &batch_of([alert(), alert()]),
        9,
    )[0];
    assert_eq!(
        (&body["n"], &body["pod"], &body["owner"]),
        (&json!(2), &json!("cart-1"), &json!(""))
    );
    assert_eq!(body["all"][1], alert().resource);
    assert_eq!(body["policy"], "no-apt");
    assert_eq!(body["by"], "chat");
    for (text, why) in [
        ("{{ evnt }}", "there is no `evnt`"),
        ("{% if %}", "line 1"),
        ("{{ event | nope }}", "nope"),
    ] {
        let error = Template::new(text).err().unwrap_or_default();
        assert!(error.contains(why), "{text}: {error}");
    }
}
