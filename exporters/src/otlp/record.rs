//! An event as a log record, encoded straight from its bytes: attributes by the field table's names, what is of the node,
//! pod and container in the resource.
//!
//! | OTLP | of the event |
//! |---|---|
//! | resource | `k8s.cluster.name`, `k8s.namespace.name`, `k8s.pod.name`, `k8s.pod.label.*`, `k8s.<owner>.name`, `k8s.container.name`, `container.id`, `container.image.name`, `host.name`, `host.id`, `host.ip`, `service.name` |
//! | time | UpdatedTime |
//! | severity | alerts: 1–2 INFO, 3–5 WARN, 6–8 ERROR, 9–10 FATAL; logs: INFO; messages: their level |
//! | event name | `kubearmor.alert`, `kubearmor.log`, `kubearmor.message` |
//! | body | what happened, in one line |
//! | attributes | every other field; `log.record.uid` is the event's id; `process.command_line` of a program that is started is its own, and its parent's has that name |
//!
//! Resource names are those of the semantic conventions for Kubernetes, hosts and containers (1.x). The tests hold every
//! event against a request that is built of the protocol's own messages (`oracle.rs`).

use std::sync::LazyLock;

use bytes::Bytes;
use jiff::Timestamp;
use opentelemetry_proto::tonic::logs::v1::SeverityNumber;
use proto::{Event, EventId, Found, Kind, Malformed, Texts, Value, View};

use super::attribute::{self, Name};
use super::plan::{Plan, plan};
use super::resource::{self, Extra};
use super::wire::{field, field_len, fixed64, header};
use crate::lines::unreadable;
use crate::{Batch, Encoded, told};

/// Of `LogRecord`, in the order of their numbers.
const TIME: u8 = 0x09;
const SEVERITY_NUMBER: u8 = 0x10;
const SEVERITY_TEXT: u8 = 0x1a;
const BODY: u8 = 0x2a;
const ATTRIBUTES: u8 = 0x32;
const OBSERVED: u8 = 0x59;
const EVENT_NAME: u8 = 0x62;
/// Of `AnyValue`.
const STRING: u8 = 0x0a;

/// What the field table calls `Source`. Of a program that is started that is its parent's, and its own is `Resource`.
const COMMAND: &str = "process.command_line";

/// Attributes that are not simply a field of the table.
struct Names {
    uid: Name,
    command: Name,
    parents_command: Name,
}

static NAMES: LazyLock<Names> = LazyLock::new(|| Names {
    uid: Name::new("log.record.uid"),
    command: Name::new(COMMAND),
    parents_command: Name::new("process.parent.command_line"),
});

/// What is looked at besides handing it on: for time, severity, body and resource.
const LOOKS_AT: Texts = Texts::of(&[
    "UpdatedTime",
    "HostName",
    "NamespaceName",
    "PodName",
    "Labels",
    "ContainerName",
    "ProcessName",
    "PolicyName",
    "Severity",
    "Message",
    "Operation",
    "Resource",
    "Data",
    "Action",
    "Result",
    "Level",
]);

/// Bytes of an event in this form for each byte of it, seldom more: the names are written out.
const GROWS: usize = 3;

/// One event in OTLP's form.
#[derive(Debug)]
pub(crate) struct Item {
    /// The attributes of its resource, then the record. Those of a batch lie in one piece of memory.
    bytes: Bytes,
    record: usize,
}

impl Item {
    /// Writes an event. The resource is without `extra`, which the request adds.
    ///
    /// # Errors
    /// Its bytes are none of its kind.
    pub(super) fn of(event: &Encoded, extra: &Extra) -> Result<Self, String> {
        let mut out = Vec::new();
        let record = item(event, extra, &mut out)?;
        let bytes = Bytes::from(out);
        Ok(Item { bytes, record })
    }

    /// Writes the events of a batch; the errors are those of [`of`](Item::of).
    pub(super) fn all(batch: &Batch, extra: &Extra) -> Vec<Result<Self, String>> {
        let mut out = Vec::with_capacity(GROWS * batch.bytes());
        let written: Vec<Result<Place, String>> = batch
            .events()
            .iter()
            .map(|event| {
                let start = out.len();
                let record = item(event, extra, &mut out).inspect_err(|_| out.truncate(start))?;
                let end = out.len();
                Ok(Place { start, record, end })
            })
            .collect();
        let bytes = Bytes::from(out);
        let cut = |Place { start, record, end }| Item {
            bytes: bytes.slice(start..end),
            record: record - start,
        };
        written.into_iter().map(|place| place.map(cut)).collect()
    }

    /// The attributes of its resource: the inside of a `Resource`.
    pub(super) fn resource(&self) -> &[u8] {
        &self.bytes[..self.record]
    }

    /// The inside of a `LogRecord`.
    pub(super) fn record(&self) -> &[u8] {
        &self.bytes[self.record..]
    }
}

/// Where an item is among those of its batch.
struct Place {
    start: usize,
    record: usize,
    end: usize,
}

/// Writes an item behind what is there, and says where its record begins.
fn item(event: &Encoded, extra: &Extra, out: &mut Vec<u8>) -> Result<usize, String> {
    let Event { kind, id, .. } = *event.event();
    let unreadable = |malformed: &Malformed| unreadable(kind, malformed);
    let found = event.found().map_err(unreadable)?;
    let (view, plan) = (found.view_of(LOOKS_AT), plan(kind));
    let mut write_all = || {
        resource::write(&found, &view, plan, extra, out)?;
        let record = out.len();
        write(&found, &view, plan, id, out)?;
        Ok(record)
    };
    write_all().map_err(|malformed| unreadable(&malformed))
}

fn write(
    found: &Found<'_>,
    view: &View<'_>,
    plan: &Plan,
    id: EventId,
    out: &mut Vec<u8>,
) -> Result<(), Malformed> {
    for at in plan.elsewhere(found) {
        found.value(at)?;
    }
    fixed64(TIME, told::time(view).map_or(0, nanoseconds), out);
    let (number, words) = severity(view);
    out.extend_from_slice(&[SEVERITY_NUMBER, number as u8]);
    field(SEVERITY_TEXT, words.as_bytes(), out);
    let mut length = 0;
    told::say(view, |part| length += part.len());
    header(BODY, field_len(length), out);
    header(STRING, length, out);
    told::say(view, |part| out.extend_from_slice(part.as_bytes()));
    attribute::named(ATTRIBUTES, &NAMES.uid, &id.digits(), out);
    let starts = told::starts(view);
    for (at, name) in plan.attributes(found) {
        match found.value(at)? {
            Value::Text(text) if starts && name.text() == COMMAND => {
                attribute::named(ATTRIBUTES, &NAMES.parents_command, text, out);
            }
            value => attribute::attribute(ATTRIBUTES, name, value, out)?,
        }
    }
    if starts && !view.resource.is_empty() {
        attribute::named(ATTRIBUTES, &NAMES.command, view.resource.as_bytes(), out);
    }
    fixed64(OBSERVED, nanoseconds(Timestamp::now()), out);
    field(EVENT_NAME, event_name(view.kind).as_bytes(), out);
    Ok(())
}

fn event_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Alert => "kubearmor.alert",
        Kind::Log => "kubearmor.log",
        Kind::Message => "kubearmor.message",
    }
}

pub(super) fn severity<'a>(view: &View<'a>) -> (SeverityNumber, &'a str) {
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

pub(super) fn nanoseconds(time: Timestamp) -> u64 {
    u64::try_from(time.as_nanosecond()).unwrap_or(0)
}
