//! Requests, decoded again by the protocol's own messages, and held against those that are built of them.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, SeverityNumber};
use proptest::prelude::*;
use prost::Message as _;
use proto::{Event, EventId, Kind, StreamId, feeder};

use super::record::Item;
use super::resource::Extra;
use super::{oracle, request};
use crate::fixtures::batch_of;
use crate::{Batch, Carried, Encoded};

#[allow(
    dead_code,
    unreachable_pub,
    reason = "shared with the tests of the field table"
)]
#[path = "../../../proto/tests/support/events.rs"]
mod events;

/// What a collector reads of these events.
fn sent(batch: &Batch, extra: &BTreeMap<String, String>) -> ExportLogsServiceRequest {
    let extra = Extra::new(extra);
    let items = Item::all(batch, &extra).into_iter();
    let items: Vec<Item> = items.collect::<Result<_, _>>().unwrap();
    let body = request::request(&items.iter().collect::<Vec<_>>(), &extra);
    ExportLogsServiceRequest::decode(&body[..]).unwrap()
}

fn records(request: &ExportLogsServiceRequest) -> impl Iterator<Item = &LogRecord> {
    let scopes = request.resource_logs.iter().flat_map(|r| &r.scope_logs);
    scopes.flat_map(|scope| &scope.log_records)
}

fn find<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Value> {
    let pair = attributes.iter().find(|pair| pair.key == key)?;
    pair.value.as_ref()?.value.as_ref()
}

fn text(text: &str) -> Value {
    Value::StringValue(text.to_owned())
}

fn alert(pod: &str) -> feeder::Alert {
    feeder::Alert {
        updated_time: "2026-01-01T00:00:00.123456Z".into(),
        cluster_name: "prod".into(),
        host_name: "node-a".into(),
        namespace_name: "shop".into(),
        pod_name: pod.into(),
        labels: "app=cart".into(),
        owner: Some(feeder::Podowner {
            r#ref: "Deployment".into(),
            name: "cart".into(),
            namespace: "shop".into(),
        }),
        severity: "8".into(),
        uid: 0,
        args: vec!["a".into(), "b\0".into()],
        event_data: [("dotted.key".to_owned(), "v".to_owned())].into(),
        rule_id: 255,
        ..Default::default()
    }
}

#[test]
fn an_alert_is_a_record_under_the_resource_of_its_pod() {
    let batch = batch_of([alert("a"), alert("b"), alert("a")]);
    let more = BTreeMap::from([("deployment.environment.name".to_owned(), "test".to_owned())]);
    let request = sent(&batch, &more);
    assert_eq!(
        (records(&request).count(), request.resource_logs.len()),
        (3, 2)
    );
    let first = &request.resource_logs[0];
    let resource = &first.resource.as_ref().unwrap().attributes;
    for (key, value) in [
        ("k8s.cluster.name", "prod"),
        ("host.name", "node-a"),
        ("k8s.namespace.name", "shop"),
        ("k8s.pod.name", "a"),
        ("k8s.pod.label.app", "cart"),
        ("k8s.deployment.name", "cart"),
        ("service.name", "cart"),
        ("deployment.environment.name", "test"),
    ] {
        assert_eq!(find(resource, key), Some(&text(value)), "{key}");
    }
    let record = &first.scope_logs[0].log_records[0];
    assert_eq!(record.time_unix_nano, 1_767_225_600_123_456_000);
    assert_eq!(record.severity_number, SeverityNumber::Error3 as i32);
    assert_eq!(record.event_name, "kubearmor.alert");
    let id = batch.events()[0].id().to_string();
    let attributes = &record.attributes;
    let any = |text| AnyValue { value: Some(text) };
    let args = Value::ArrayValue(ArrayValue {
        values: [text("a"), text("b\0")].map(any).to_vec(),
    });
    for (key, value) in [
        ("log.record.uid", text(&id)),
        ("user.id", Value::IntValue(0)),
        ("security_rule.uuid", text("00000000000000ff")),
        ("process.command_args", args),
    ] {
        assert_eq!(find(attributes, key), Some(&value), "{key}");
    }
    assert!(find(attributes, "k8s.pod.name").is_none());
}

#[test]
fn a_program_that_is_started_has_its_own_command_line_and_its_parents() {
    let record = |operation: &str, data: &str| {
        let alert = feeder::Alert {
            operation: operation.into(),
            data: data.into(),
            source: "/bin/sh -c x".into(),
            resource: "/usr/bin/apt update".into(),
            ..alert("a")
        };
        let request = sent(&batch_of([alert]), &BTreeMap::new());
        let attributes = records(&request).next().unwrap().attributes.clone();
        ["process.command_line", "process.parent.command_line"]
            .map(|key| find(&attributes, key).cloned())
    };
    let (own, parents) = (text("/usr/bin/apt update"), text("/bin/sh -c x"));
    let started = record("Process", "lsm=SECURITY_BPRM_CHECK");
    assert_eq!(started, [Some(own), Some(parents.clone())]);
    for (operation, data) in [("File", "lsm=FILE_OPEN"), ("Process", "syscall=SYS_PTRACE")] {
        assert_eq!(
            record(operation, data),
            [Some(parents.clone()), None],
            "{data}"
        );
    }
}

#[test]
fn every_kind_has_a_severity() {
    let message = |level: &str| feeder::Message {
        level: level.into(),
        ..Default::default()
    };
    let batch = batch_of(["DEBUG", "INFO", "WARN", "ERROR"].map(message));
    let request = sent(&batch, &BTreeMap::new());
    let numbers: Vec<i32> = records(&request).map(|r| r.severity_number).collect();
    assert_eq!(numbers, [5, 9, 13, 17]);
}

#[test]
fn events_that_differ_only_in_what_happened_have_one_resource() {
    let many = (0..300).map(|n| feeder::Alert {
        labels: if n % 2 == 0 {
            "a=1,b=2"
        } else {
            "b=2, a=0,a=1"
        }
        .into(),
        pid: n,
        ..alert("a")
    });
    let request = sent(&batch_of(many), &BTreeMap::new());
    assert_eq!(request.resource_logs.len(), 1);
    let pids: Vec<_> = records(&request)
        .map(|record| find(&record.attributes, "process.pid").cloned())
        .collect();
    let wanted: Vec<_> = (0..300_i64)
        .map(|n| (n != 0).then_some(Value::IntValue(n)))
        .collect();
    assert_eq!(pids, wanted, "in order");
}

#[test]
fn a_request_of_nothing_names_a_resource() {
    let request = ExportLogsServiceRequest::decode(&request::EMPTY[..]).unwrap();
    assert_eq!(request.resource_logs, [ResourceLogs::default()]);
}

/// In an order of its own, and without the clock.
fn sorted(mut request: ExportLogsServiceRequest) -> ExportLogsServiceRequest {
    let all = &mut request.resource_logs;
    for logs in all.iter_mut() {
        let resource = logs.resource.as_mut().unwrap();
        resource.attributes.sort_by(|a, b| a.key.cmp(&b.key));
        for record in logs.scope_logs.iter_mut().flat_map(|s| &mut s.log_records) {
            record.observed_time_unix_nano = 0;
        }
    }
    all.sort_by_key(|logs| format!("{:?}", logs.resource));
    request
}

/// Labels as pods have them, and as they could not be worse.
fn labels() -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec![
        "app",
        "a",
        " a ",
        "app.kubernetes.io/name",
        "",
        "tier",
    ]);
    let pair = (key, "[a-c ]{0,3}").prop_map(|(key, value)| format!("{key}={value}"));
    let list = prop::collection::vec(pair, 0..6).prop_map(|pairs| pairs.join(","));
    prop_oneof![3 => list, 1 => events::text()]
}

/// An alert that has an owner and labels of a pod, or any event.
fn event() -> impl Strategy<Value = (Kind, Vec<u8>)> {
    let kinds = vec!["Deployment", "CronJob", "job", "Rollout", ""];
    let owner = (prop::sample::select(kinds), "[a-b]{0,1}");
    let pod = (events::alert(), labels(), prop::option::of(owner));
    let pod = pod.prop_map(|(mut alert, labels, owner)| {
        alert.labels = labels;
        alert.updated_time = "2026-01-01T00:00:00.123456Z".into();
        alert.owner = owner.map(|(kind, name)| feeder::Podowner {
            r#ref: kind.into(),
            name,
            namespace: String::new(),
        });
        (Kind::Alert, alert.encode_to_vec())
    });
    prop_oneof![pod, events::event()]
}

fn batch(events: Vec<(Kind, Vec<u8>)>) -> Batch {
    let events = events
        .into_iter()
        .zip(1..)
        .map(|((kind, payload), sequence)| {
            let id = EventId {
                stream: StreamId(*b"property"),
                sequence,
            };
            let payload = payload.into();
            Carried::from(Encoded::new(Event { kind, id, payload }))
        });
    Batch::new(events.collect())
}

#[test]
fn events_that_are_none_leave_their_neighbours_as_they_are() {
    let good = |pod| (Kind::Alert, alert(pod).encode_to_vec());
    // Field 18, `Source`: a text that is no UTF-8 behind what can be written, and one that is cut off.
    let torn = [alert("torn").encode_to_vec(), vec![0x92, 0x01, 1, 0xff]].concat();
    let batch = batch(vec![
        good("a"),
        (Kind::Alert, torn),
        good("b"),
        (Kind::Alert, vec![0x92, 0x01, 9]),
    ]);
    let items = Item::all(&batch, &Extra::default());
    let whole: Vec<bool> = items.iter().map(Result::is_ok).collect();
    assert_eq!(whole, [true, false, true, false]);
    for (item, event) in items.iter().zip(batch.events()) {
        let Ok(item) = item else { continue };
        let alone = Item::of(event, &Extra::default()).unwrap();
        assert_eq!(item.resource(), alone.resource());
        let attributes = |item: &Item| LogRecord::decode(item.record()).unwrap().attributes;
        assert_eq!(attributes(item), attributes(&alone));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_request_is_what_the_messages_of_the_protocol_make_of_the_same_events(
        events in prop::collection::vec(event(), 1..6),
        // Some of them twice, so that resources meet.
        again in 0_usize..6,
        more in prop::collection::btree_map(
            prop::sample::select(vec!["service.name", "host.name", "k8s.pod.label.app", "x"])
                .prop_map(str::to_owned),
            "[a-z]{0,4}",
            0..3,
        ),
    ) {
        let twice: Vec<_> = events.iter().take(again).cloned().collect();
        let batch = batch([events, twice].concat());
        let items: Vec<_> = batch.events().iter().map(|event| oracle::of(event).unwrap()).collect();
        let wanted = oracle::request(&items.iter().collect::<Vec<_>>(), &more);
        prop_assert_eq!(sorted(sent(&batch, &more)), sorted(wanted));
    }

    #[test]
    fn bytes_that_are_no_event_are_refused_or_written_as_one(
        kind in events::kind(),
        bytes in events::suspect(),
    ) {
        let batch = batch(vec![(kind, bytes)]);
        let event = &batch.events()[0];
        let item = Item::of(event, &Extra::default());
        prop_assert_eq!(item.is_ok(), oracle::of(event).is_some());
        if item.is_ok() {
            prop_assert_eq!(records(&sent(&batch, &BTreeMap::new())).count(), 1);
        }
    }
}
