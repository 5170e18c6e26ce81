//! Records as one `ExportLogsServiceRequest`: grouped by resource, in order within each.
//!
//! ```text
//! request ── 1: ResourceLogs ── 1: Resource   the bytes that its records have in common, and what the settings add
//!               (one a resource) 2: ScopeLogs ── 1: scope
//!                                                2: LogRecord, 2: LogRecord, …
//! ```
//! All lengths are known before anything is written, so a body is written once, from its start to its end.
//! Source: `opentelemetry/proto/collector/logs/v1/logs_service.proto` and `logs/v1/logs.proto` of OTLP 1.x.

use std::collections::BTreeMap;

use super::record::Item;
use super::resource::Extra;
use super::wire::{field, field_len, header};

/// `resource_logs` of the request.
const RESOURCE_LOGS: u8 = 0x0a;
/// Of `ResourceLogs`.
const RESOURCE: u8 = 0x0a;
const SCOPE_LOGS: u8 = 0x12;
/// Of `ScopeLogs`.
const SCOPE: u8 = 0x0a;
const LOG_RECORDS: u8 = 0x12;
/// Of `InstrumentationScope`.
const NAME: u8 = 0x0a;
const VERSION: u8 = 0x12;

/// A request of one empty `ResourceLogs`.
pub(super) const EMPTY: [u8; 2] = [RESOURCE_LOGS, 0];

/// Records of one resource.
struct Group<'a> {
    resource: &'a [u8],
    records: Vec<&'a [u8]>,
    /// Of the records with their headers, in bytes.
    length: usize,
}

/// One request with all of them.
pub(super) fn request(items: &[&Item], extra: &Extra) -> Vec<u8> {
    let groups = grouped(items);
    let scope = scope();
    let lengths: Vec<Lengths> = groups
        .iter()
        .map(|group| Lengths::of(group, scope.len(), extra.encoded().len()))
        .collect();
    let all = lengths.iter().map(|lengths| field_len(lengths.whole)).sum();
    let mut out = Vec::with_capacity(all);
    for (group, lengths) in groups.iter().zip(lengths) {
        header(RESOURCE_LOGS, lengths.whole, &mut out);
        header(RESOURCE, lengths.resource, &mut out);
        out.extend_from_slice(group.resource);
        out.extend_from_slice(extra.encoded());
        header(SCOPE_LOGS, lengths.scope_logs, &mut out);
        out.extend_from_slice(&scope);
        for record in &group.records {
            field(LOG_RECORDS, record, &mut out);
        }
    }
    out
}

/// In the order in which the resources come up.
fn grouped<'a>(items: &[&'a Item]) -> Vec<Group<'a>> {
    // Most differ in length already: to compare takes less than to hash one.
    let mut places: BTreeMap<(usize, &[u8]), usize> = BTreeMap::new();
    let mut groups: Vec<Group<'a>> = Vec::new();
    for item in items {
        let resource = item.resource();
        let at = *places
            .entry((resource.len(), resource))
            .or_insert(groups.len());
        if at == groups.len() {
            groups.push(Group {
                resource,
                records: Vec::new(),
                length: 0,
            });
        }
        groups[at].records.push(item.record());
        groups[at].length += field_len(item.record().len());
    }
    groups
}

/// Of the messages around a group's records, in bytes, without their own headers.
struct Lengths {
    resource: usize,
    scope_logs: usize,
    whole: usize,
}

impl Lengths {
    fn of(group: &Group<'_>, scope: usize, extra: usize) -> Self {
        let resource = group.resource.len() + extra;
        let scope_logs = scope + group.length;
        Lengths {
            resource,
            scope_logs,
            whole: field_len(resource) + field_len(scope_logs),
        }
    }
}

/// Who wrote the records: `scope` of `ScopeLogs`.
fn scope() -> Vec<u8> {
    let (mut inside, mut out) = (Vec::new(), Vec::new());
    field(NAME, b"cresset", &mut inside);
    field(VERSION, env!("CARGO_PKG_VERSION").as_bytes(), &mut inside);
    field(SCOPE, &inside, &mut out);
    out
}
