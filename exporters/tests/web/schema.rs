//! What becomes of every kind of event as OCSF, held to the schema that is published.

use std::sync::{Arc, Mutex};

use exporters::Carried;
use prost::Message as _;
use proto::{Kind, feeder};
use serde_json::{Value, json};

use crate::events::{batch, letters, of_kind, sink};
use crate::fake_http::{Answer, FakeHttp};
use crate::ocsf;

/// Every way in which a log of KubeArmor says what was seen: operation, resource, data.
const SEEN: [(&str, &str, &str); 22] = [
    ("Process", "/usr/bin/apt update", "syscall=SYS_EXECVE"),
    (
        "Process",
        "/bin/x",
        "syscall=SYS_PTRACE request=PTRACE_ATTACH pid=3 process=/bin/x",
    ),
    ("Process", "/bin/x", "syscall=SYS_PTRACE"),
    (
        "File",
        "/etc/shadow",
        "syscall=SYS_OPENAT fd=-100 flags=O_RDONLY",
    ),
    ("File", "/", "lsm=FILE_PERMISSION"),
    ("File", "", "syscall=SYS_CLOSE fd=3"),
    (
        "File",
        "/a/b",
        "syscall=SYS_FCHOWNAT userid=0 group=0 mode=0",
    ),
    ("File", "/a/b", "lsm=FILE_RENAME"),
    ("File", "/a/b", "lsm=FILE_TRUNCATE"),
    (
        "Network",
        "remoteip=10.0.0.7 port=443 protocol=TCP",
        "kprobe=tcp_connect domain=AF_INET",
    ),
    (
        "Network",
        "remoteip=::1 port=5 protocol=TCP",
        "kprobe=tcp_accept domain=AF_INET6",
    ),
    (
        "Network",
        "sin_port=80 sin_addr=0.0.0.0 sa_family=AF_INET",
        "syscall=SYS_BIND fd=3",
    ),
    (
        "Network",
        "sa_family=AF_UNIX sun_path=/run/x.sock",
        "syscall=SYS_CONNECT fd=3",
    ),
    ("Network", "", "syscall=SYS_LISTEN fd=3"),
    (
        "Network",
        "domain=AF_INET type=SOCK_DGRAM protocol=UDP",
        "syscall=SYS_SOCKET",
    ),
    (
        "Network",
        "type=SOCK_RAW",
        "lsm=SOCKET_CREATE type=SOCK_RAW",
    ),
    (
        "Network",
        "sa_family=AF_INET sin_port=53",
        "kfunc=UDP_SENDSKB domain=example.com daddr=10.0.0.10 qtype=A",
    ),
    ("Syscall", "/tmp/a", "syscall=SYS_UNLINKAT flags="),
    ("Syscall", "", ""),
    ("Capabilities", "CAP_NET_RAW", "lsm=CAPABLE CAP_NET_RAW"),
    ("Device", "USB HID", "Class=3"),
    ("", "", ""),
];

/// Each of them as a log and as an alert, from a pod and with next to nothing in it; and the relay speaking of itself.
fn all_that_is_seen() -> Vec<Carried> {
    let mut events = Vec::new();
    for (operation, resource, data) in SEEN {
        let log = feeder::Log {
            operation: operation.into(),
            resource: resource.into(),
            data: data.into(),
            ..Default::default()
        };
        let whole = feeder::Log {
            timestamp: 1_767_225_600,
            host_name: "node-a".into(),
            namespace_name: "shop".into(),
            pod_name: "cart-1".into(),
            labels: "app=cart,tier=web".into(),
            process_name: "/usr/bin/apt".into(),
            parent_process_name: "/bin/bash".into(),
            source: "/bin/bash -c x".into(),
            host_pid: 700,
            pid: 7,
            host_ppid: 600,
            ppid: 6,
            result: "Passed".into(),
            ..log.clone()
        };
        for log in [log, whole] {
            let alert = feeder::Alert {
                operation: log.operation.clone(),
                resource: log.resource.clone(),
                data: log.data.clone(),
                host_name: log.host_name.clone(),
                pod_name: log.pod_name.clone(),
                host_pid: log.host_pid,
                result: match &*log.result {
                    "" => String::new(),
                    _ => "Permission denied".into(),
                },
                ..Default::default()
            };
            events.push((Kind::Log, log.encode_to_vec()));
            events.push((Kind::Alert, alert.encode_to_vec()));
        }
    }
    let message = feeder::Message {
        level: "WARN".into(),
        message: "sink siem lost 3 events".into(),
        ..Default::default()
    };
    events.push((Kind::Message, message.encode_to_vec()));
    let numbered = events.into_iter().zip(1..);
    let carried = numbered.map(|((kind, payload), sequence)| of_kind(kind, sequence, payload));
    carried.collect()
}

#[tokio::test]
async fn every_event_of_ocsf_keeps_to_the_published_schema() {
    let suite = "exporters::web::schema::every_event_of_ocsf_keeps_to_the_published_schema";
    let Some(schema) = ocsf::Schema::fetch(suite) else {
        return;
    };
    let came = Arc::new(Mutex::new(Vec::<Value>::new()));
    let taken = Arc::clone(&came);
    let server = FakeHttp::start(move |request| {
        let events = request.json();
        let events = events.as_array().expect("a list").clone();
        taken.lock().unwrap().extend(events);
        Answer::status(200)
    })
    .await;
    let sink = sink(&format!(
        "{{type: webhook, shape: ocsf, url: '{}'}}",
        server.url()
    ));
    let events = all_that_is_seen();
    let count = events.len();
    let outcomes = sink.send(batch(events)).await.unwrap();
    assert_eq!(letters(&outcomes), "d".repeat(count));
    let came = came.lock().unwrap();
    assert_eq!(came.len(), count);
    let wrong: Vec<String> = came
        .iter()
        .flat_map(|event| {
            let unmapped = &event["unmapped"];
            let what = format!("{} `{}`", unmapped["Operation"], unmapped["Data"]);
            let problems = schema.problems(event).into_iter();
            problems.map(move |why| format!("{what}: {why}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let mut classes: Vec<u64> = came
        .iter()
        .filter_map(|event| event["class_uid"].as_u64())
        .collect();
    classes.sort_unstable();
    classes.dedup();
    assert_eq!(classes, [0, 1001, 1003, 1007, 2004, 4001]);
    finds_faults(&schema, &came[0]);
}

/// The schema is not content with everything.
fn finds_faults(schema: &ocsf::Schema, event: &Value) {
    for (pointer, value, why) in [
        ("", json!({"class_uid": 1007}), ".metadata: is required"),
        ("/class_uid", json!(1), "is no class"),
        (
            "/severity_id",
            json!(77),
            ".severity_id: 77 is none of its values",
        ),
        (
            "/activity_id",
            json!(99),
            ".activity_id: is 99 without activity_name",
        ),
        (
            "/activity_id",
            json!(2),
            "type_uid: is not of this class and activity",
        ),
        ("/process", json!({"name": "x"}), ".process: has 0 of"),
        (
            "/process",
            json!({"pid": "x"}),
            ".process.pid: \"x\" is no integer_t",
        ),
        (
            "/device",
            json!({"hostname": "a b", "type_id": 0}),
            "`a b` is no hostname_t",
        ),
        (
            "/metadata/profiles",
            json!(["cloud"]),
            ".cloud: is required",
        ),
        ("/message", json!(["x"]), "is no string_t"),
    ] {
        let mut wrong = event.clone();
        *wrong.pointer_mut(pointer).expect("a place") = value;
        let told = schema.problems(&wrong);
        assert!(
            told.iter().any(|told| told.contains(why)),
            "{why}: {told:?}"
        );
    }
}
