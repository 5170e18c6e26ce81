//! What requests are held against: the same requests built of the protocol's own messages, event by event.
//!
//! Slow, and written without any of the code that it judges, but for the line of a body and the severity.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use proto::fields::Field;
use proto::{FieldSet, FieldValue, View};

use super::plan::PLACES;
use super::record::{nanoseconds, severity};
use crate::{Encoded, told};

/// Attributes of a resource, by name.
type Attributes = BTreeMap<String, String>;

/// One event in OTLP's form.
#[derive(Debug)]
pub(super) struct Item {
    resource: Attributes,
    record: LogRecord,
}

/// Reads an event; none if its bytes are none of its kind.
pub(super) fn of(event: &Encoded) -> Option<Item> {
    let inner = event.event();
    let values = proto::values(inner.kind, &inner.payload, FieldSet::All).ok()?;
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
    if view.operation == "Process" && !view.data.contains("SYS_PTRACE") {
        for pair in &mut attributes {
            if pair.key == "process.command_line" {
                pair.key = "process.parent.command_line".to_owned();
            }
        }
        if !view.resource.is_empty() {
            attributes.push(pair("process.command_line", text(view.resource)));
        }
    }
    owner(&attributes, &mut resource);
    labels(&view, &mut resource);
    let (number, words) = severity(&view);
    Some(Item {
        resource,
        record: LogRecord {
            time_unix_nano: told::time(&view).map_or(0, nanoseconds),
            // Written by the clock.
            observed_time_unix_nano: 0,
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
