//! An event as a log record: attributes by the field table's names, what is of the node, pod and container in the resource.
//!
//! | OTLP | of the event |
//! |---|---|
//! | resource | `k8s.cluster.name`, `k8s.namespace.name`, `k8s.pod.name`, `k8s.pod.label.*`, `k8s.<owner>.name`, `k8s.container.name`, `container.id`, `container.image.name`, `host.name`, `host.id`, `host.ip`, `service.name` |
//! | time | UpdatedTime |
//! | severity | alerts: 1–2 INFO, 3–5 WARN, 6–8 ERROR, 9–10 FATAL; logs: INFO; messages: their level |
//! | event name | `kubearmor.alert`, `kubearmor.log`, `kubearmor.message` |
//! | body | what happened, in one line |
//! | attributes | every other field; `log.record.uid` is the event's id |
//!
//! Resource names are those of the semantic conventions for Kubernetes, hosts and containers (1.x).

use std::collections::BTreeMap;

use jiff::Timestamp;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::resource::v1::Resource;
use proto::fields::Field;
use proto::{FieldSet, FieldValue, Kind, View};

use crate::lines::unreadable;
use crate::{Encoded, told};

/// Attributes of a resource, by name.
type Attributes = BTreeMap<String, String>;

/// One event in OTLP's form.
#[derive(Debug)]
pub(crate) struct Item {
    resource: Attributes,
    record: LogRecord,
}

/// Names in the field table that say where an event comes from.
const PLACES: [&str; 9] = [
    "k8s.cluster.name",
    "host.name",
    "host.ip",
    "host.id",
    "k8s.namespace.name",
    "k8s.pod.name",
    "k8s.container.name",
    "container.id",
    "container.image.name",
];

/// Reads an event.
///
/// # Errors
/// Its bytes are none of its kind.
pub(super) fn of(event: &Encoded) -> Result<Item, String> {
    let inner = event.event();
    let values = proto::values(inner.kind, &inner.payload, FieldSet::All)
        .map_err(|malformed| unreadable(inner.kind, &malformed))?;
    let view = event.view();
    let mut resource = Attributes::new();
    let mut attributes = vec![pair("log.record.uid", text(&event.id().to_string()))];
    for (field, value) in values {
        match value {
            FieldValue::Text(value) if PLACES.contains(&field.otel) => {
                resource.insert(field.otel.to_owned(), value.to_owned());
            }
            FieldValue::Message(fields) => flatten(fields, &mut attributes),
            // Time and message have places of their own.
            _ if matches!(field.otel, "@timestamp" | "kubearmor.timestamp") => {}
            value => attributes.push(pair(field.otel, any(value))),
        }
    }
    owner(&attributes, &mut resource);
    labels(&view, &mut resource);
    let (number, words) = severity(&view);
    Ok(Item {
        resource,
        record: LogRecord {
            time_unix_nano: told::time(&view).map_or(0, nanoseconds),
            observed_time_unix_nano: nanoseconds(Timestamp::now()),
            severity_number: number as i32,
            severity_text: words.to_owned(),
            body: Some(text(&told::summary(&view))),
            attributes,
            event_name: format!("kubearmor.{}", view.kind.name().to_ascii_lowercase()),
            ..Default::default()
        },
    })
}

/// Nested fields have full names of their own.
fn flatten(fields: Vec<(&'static Field, FieldValue<'_>)>, attributes: &mut Vec<KeyValue>) {
    for (field, value) in fields {
        attributes.push(pair(field.otel, any(value)));
    }
}

/// `k8s.deployment.name` and its like, and the service's name: the owner's, as the conventions for Kubernetes say.
fn owner(attributes: &[KeyValue], resource: &mut Attributes) {
    let find = |name: &str| {
        let found = attributes.iter().find(|pair| pair.key == name)?;
        match &found.value.as_ref()?.value {
            Some(Value::StringValue(text)) => Some(text.clone()),
            _ => None,
        }
    };
    if let (Some(kind), Some(name)) = (find("kubearmor.owner.kind"), find("kubearmor.owner.name")) {
        let kind = kind.to_ascii_lowercase();
        if matches!(
            &kind[..],
            "deployment" | "statefulset" | "daemonset" | "replicaset" | "cronjob" | "job"
        ) {
            resource.insert(format!("k8s.{kind}.name"), name.clone());
        }
        resource.insert("service.name".to_owned(), name);
    }
}

fn labels(view: &View<'_>, resource: &mut Attributes) {
    for (key, value) in view.labels() {
        let (key, value) = (key.trim(), value.trim());
        if key == "app.kubernetes.io/name" {
            resource.insert("service.name".to_owned(), value.to_owned());
        }
        resource.insert(format!("k8s.pod.label.{key}"), value.to_owned());
    }
    if !resource.contains_key("service.name") {
        let name = [view.container_name, view.pod, "cresset"];
        let name = name.into_iter().find(|name| !name.is_empty());
        resource.insert(
            "service.name".to_owned(),
            name.unwrap_or_default().to_owned(),
        );
    }
}

fn severity<'a>(view: &View<'a>) -> (SeverityNumber, &'a str) {
    use SeverityNumber as S;
    match view.kind {
        Kind::Log => (S::Info, "INFO"),
        Kind::Alert => {
            let number = match told::gravity(view) {
                ..=1 => S::Info,
                2 => S::Info2,
                3 => S::Warn,
                4 => S::Warn2,
                5 => S::Warn3,
                6 => S::Error,
                7 => S::Error2,
                8 => S::Error3,
                9 => S::Fatal,
                _ => S::Fatal2,
            };
            (number, view.severity)
        }
        Kind::Message => {
            let number = match view.level {
                "DEBUG" => S::Debug,
                "WARN" => S::Warn,
                "ERROR" => S::Error,
                _ => S::Info,
            };
            (number, view.level)
        }
    }
}

fn nanoseconds(time: Timestamp) -> u64 {
    u64::try_from(time.as_nanosecond()).unwrap_or(0)
}

fn pair(key: &str, value: AnyValue) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(value),
        ..Default::default()
    }
}

fn text(text: &str) -> AnyValue {
    AnyValue {
        value: Some(Value::StringValue(text.to_owned())),
    }
}

fn any(value: FieldValue<'_>) -> AnyValue {
    let value = match value {
        FieldValue::Text(value) => return text(value),
        FieldValue::List(list) => Value::ArrayValue(ArrayValue {
            values: list.into_iter().map(text).collect(),
        }),
        FieldValue::Map(map) => Value::KvlistValue(KeyValueList {
            values: map
                .into_iter()
                .map(|(key, value)| pair(key, text(value)))
                .collect(),
        }),
        FieldValue::Signed(number) => Value::IntValue(number),
        // OTLP has no unsigned numbers; one too large is a text.
        FieldValue::Unsigned(number) => match i64::try_from(number) {
            Ok(number) => Value::IntValue(number),
            Err(_) => Value::StringValue(number.to_string()),
        },
        FieldValue::Name(name) => Value::StringValue(format!("{name:016x}")),
        FieldValue::Bytes(bytes) => Value::StringValue(hex(bytes)),
        FieldValue::Message(fields) => {
            let mut values = Vec::new();
            flatten(fields, &mut values);
            Value::KvlistValue(KeyValueList { values })
        }
    };
    AnyValue { value: Some(value) }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One request with all of them, in order within a resource.
pub(super) fn request(
    items: &[&Item],
    more: &BTreeMap<String, String>,
) -> ExportLogsServiceRequest {
    let mut resources: BTreeMap<&Attributes, Vec<LogRecord>> = BTreeMap::new();
    for item in items {
        resources
            .entry(&item.resource)
            .or_default()
            .push(item.record.clone());
    }
    let scope = || InstrumentationScope {
        name: "cresset".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..Default::default()
    };
    let resource_logs = resources.into_iter().map(|(resource, log_records)| {
        // What the settings say stands over what the event says.
        let mut attributes: BTreeMap<&String, &String> = resource.iter().collect();
        attributes.extend(more);
        let attributes = attributes
            .into_iter()
            .map(|(name, value)| pair(name, text(value)));
        ResourceLogs {
            resource: Some(Resource {
                attributes: attributes.collect(),
                ..Default::default()
            }),
            scope_logs: vec![ScopeLogs {
                scope: Some(scope()),
                log_records,
                ..Default::default()
            }],
            ..Default::default()
        }
    });
    ExportLogsServiceRequest {
        resource_logs: resource_logs.collect(),
    }
}

/// How many records a request has.
pub(super) fn count(request: &ExportLogsServiceRequest) -> usize {
    let scopes = request
        .resource_logs
        .iter()
        .flat_map(|resource| &resource.scope_logs);
    scopes.map(|scope| scope.log_records.len()).sum()
}

#[cfg(test)]
mod tests {
    use proto::feeder;

    use super::*;
    use crate::fixtures::batch_of;

    fn find<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Value> {
        let pair = attributes.iter().find(|pair| pair.key == key)?;
        pair.value.as_ref()?.value.as_ref()
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
        let items: Vec<Item> = batch
            .events()
            .iter()
            .map(|event| of(event).unwrap())
            .collect();
        let more = BTreeMap::from([("deployment.environment.name".to_owned(), "test".to_owned())]);
        let request = request(&items.iter().collect::<Vec<_>>(), &more);
        assert_eq!((count(&request), request.resource_logs.len()), (3, 2));
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
            assert_eq!(
                find(resource, key),
                Some(&Value::StringValue(value.into())),
                "{key}"
            );
        }
        let record = &first.scope_logs[0].log_records[0];
        assert_eq!(record.time_unix_nano, 1_767_225_600_123_456_000);
        assert_eq!(record.severity_number, SeverityNumber::Error3 as i32);
        assert_eq!(record.event_name, "kubearmor.alert");
        let id = batch.events()[0].id().to_string();
        let attributes = &record.attributes;
        assert_eq!(
            find(attributes, "log.record.uid"),
            Some(&Value::StringValue(id))
        );
        assert_eq!(find(attributes, "user.id"), Some(&Value::IntValue(0)));
        assert_eq!(
            find(attributes, "security_rule.uuid"),
            Some(&Value::StringValue("00000000000000ff".into()))
        );
        assert_eq!(
            find(attributes, "process.command_args"),
            Some(&any(FieldValue::List(vec!["a", "b\0"])).value.unwrap())
        );
        assert!(find(attributes, "k8s.pod.name").is_none());
    }

    #[test]
    fn every_kind_has_a_severity() {
        let message = |level: &str| feeder::Message {
            level: level.into(),
            ..Default::default()
        };
        let batch = batch_of(["DEBUG", "INFO", "WARN", "ERROR"].map(message));
        let numbers: Vec<i32> = batch
            .events()
            .iter()
            .map(|event| of(event).unwrap().record.severity_number)
            .collect();
        assert_eq!(numbers, [5, 9, 13, 17]);
    }
}
