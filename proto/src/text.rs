//! An event as text: what `karmor logs` prints, byte for byte.
//!
//! KubeArmor's client turns the JSON object into a map and prints it: first some keys in an order of its own, then the
//! others in byte order; numbers without decimals; lists and maps as Go prints them (`[a b]`, `map[k:v]`, keys sorted).
//! Timestamp and UpdatedTime are not in the body. A message is one line.

use std::sync::LazyLock;

use crate::check::{Malformed, utf8, well_written};
use crate::decimal;
use crate::event::Kind;
use crate::fields::{self, Field, FieldSet, FieldType, Table};
use crate::slots::{EventSlots, NestedSlots, Slots};
use crate::view::View;

/// The keys that come first.
const FIRST: [&str; 20] = [
    "ClusterName",
    "HostName",
    "NamespaceName",
    "PodName",
    "Labels",
    "ContainerName",
    "ContainerID",
    "ContainerImage",
    "Type",
    "PolicyName",
    "Severity",
    "Message",
    "Source",
    "Resource",
    "Operation",
    "Action",
    "Data",
    "EventData",
    "Enforcer",
    "Result",
];

static ALERT_ORDER: LazyLock<Vec<usize>> = LazyLock::new(|| order(&fields::ALERT));
static LOG_ORDER: LazyLock<Vec<usize>> = LazyLock::new(|| order(&fields::LOG));

/// The positions of the body's fields in the order they print.
fn order(table: &Table) -> Vec<usize> {
    let place = |name: &str| {
        FIRST
            .iter()
            .position(|first| *first == name)
            .unwrap_or(FIRST.len())
    };
    let body = |field: &Field| !field.ours && !matches!(field.name, "Timestamp" | "UpdatedTime");
    let fields = table.fields();
    let mut order: Vec<usize> = (0..fields.len()).filter(|&at| body(&fields[at])).collect();
    order.sort_by_key(|&at| (place(fields[at].name), fields[at].name));
    order
}

/// Appends one event as `karmor logs` prints it, with the newline at its end. Our own fields are not printed.
///
/// Strings go out raw, control characters included.
///
/// # Errors
/// The payload is not what [`check`](crate::check()) accepts; `out` is then as it was.
pub fn write(kind: Kind, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let start = out.len();
    let written = match kind {
        Kind::Message => message(payload, out),
        Kind::Alert => event("Alert", &fields::ALERT, &ALERT_ORDER, payload, out),
        Kind::Log => event("Log", &fields::LOG, &LOG_ORDER, payload, out),
    };
    if written.is_err() {
        out.truncate(start);
    }
    written
}

/// `<time>  <cluster>  <host>  [<level>]  <text>`
fn message(payload: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    crate::check::well_formed(Kind::Message, payload)?;
    let view = View::read(Kind::Message, payload);
    time(view.updated_time.as_bytes(), out);
    for (before, text) in [
        ("  ", view.cluster),
        ("  ", view.host),
        ("  [", view.level),
        ("]  ", view.message),
    ] {
        out.extend_from_slice(before.as_bytes());
        out.extend_from_slice(text.as_bytes());
    }
    out.push(b'\n');
    Ok(())
}

fn event(
    title: &str,
    table: &'static Table,
    order: &[usize],
    payload: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Malformed> {
    let slots = EventSlots::read(table, payload)?;
    out.reserve(payload.len() + 768);
    let updated = fields::position_of(table, "UpdatedTime");
    out.extend_from_slice(b"== ");
    out.extend_from_slice(title.as_bytes());
    if slots.has(updated) {
        out.extend_from_slice(b" / ");
        time(utf8(slots.bytes(updated), "UpdatedTime")?.as_bytes(), out);
    }
    out.extend_from_slice(b" ==\n");
    let shown = (slots.present() | table.kept()) & table.mask(FieldSet::KubeArmor);
    for &at in order.iter().filter(|&&at| shown >> at & 1 == 1) {
        let field = &table.fields()[at];
        out.extend_from_slice(field.name.as_bytes());
        out.extend_from_slice(b": ");
        value(&slots, at, field, out)?;
        out.push(b'\n');
    }
    Ok(())
}

/// `T` becomes a space and `Z` nothing, wherever they stand.
fn time(text: &[u8], out: &mut Vec<u8>) {
    for &byte in text.iter().filter(|&&byte| byte != b'Z') {
        out.push(if byte == b'T' { b' ' } else { byte });
    }
}

fn value(
    slots: &EventSlots<'_>,
    at: usize,
    field: &Field,
    out: &mut Vec<u8>,
) -> Result<(), Malformed> {
    let start = out.len();
    match field.ty {
        FieldType::TextList => {
            slots.list(at, field, |text| {
                out.push(b' ');
                push_text(text, field, out)
            })?;
            close("[", start, out);
        }
        FieldType::TextMap => {
            slots.entries(at, field, |key, value| {
                out.push(b' ');
                push_text(key, field, out)?;
                out.push(b':');
                push_text(value, field, out)
            })?;
            close("map[", start, out);
        }
        FieldType::Message(table) => {
            nested(table, &slots.nested(at, field, table)?, out)?;
            close("map[", start, out);
        }
        _ => scalar(slots, at, field, out)?,
    }
    Ok(())
}

/// The members of a message in the order of their names.
fn nested(
    table: &'static Table,
    slots: &NestedSlots<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Malformed> {
    let mut members: Vec<_> = table.fields().iter().enumerate().collect();
    members.sort_by_key(|(_, field)| field.name);
    for (at, field) in members.into_iter().filter(|&(at, _)| slots.has(at)) {
        out.push(b' ');
        out.extend_from_slice(field.name.as_bytes());
        out.push(b':');
        scalar(slots, at, field, out)?;
    }
    Ok(())
}

/// Each element came with a space before it; the first of them gives way to `open`.
fn close(open: &str, start: usize, out: &mut Vec<u8>) {
    let first = usize::min(start + 1, out.len());
    out.splice(start..first, open.bytes());
    out.push(b']');
}

fn scalar<const N: usize>(
    slots: &Slots<'_, N>,
    at: usize,
    field: &Field,
    out: &mut Vec<u8>,
) -> Result<(), Malformed> {
    match field.ty {
        FieldType::Text => push_text(slots.bytes(at), field, out)?,
        // KubeArmor's own fields are text or signed numbers; an i64 travels as the same 64 bits.
        _ => decimal::push_signed(slots.number(at) as i64, out),
    }
    Ok(())
}

fn push_text(text: &[u8], field: &Field, out: &mut Vec<u8>) -> Result<(), Malformed> {
    well_written(text, field.name)?;
    out.extend_from_slice(text);
    Ok(())
}
