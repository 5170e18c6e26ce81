//! An event as JSON: the form of Go's `encoding/json` over KubeArmor's generated structs, byte for byte.
//!
//! Written straight from the protobuf bytes by the field table; no message is built. The form, where it differs from
//! what one would expect (Go 1.22+ `encoding/json`, and not protojson):
//!
//! - declaration order; zero values left out, but for PPID and UID; messages present when set, so `"ExecEvent":{}`
//! - 64-bit numbers are numbers
//! - `<`, `>`, `&`, U+2028 and U+2029 are escaped as `\u003c` …; backspace and form feed as `\b`, `\f`; `/` and DEL are not
//! - map keys in byte order

mod escape;
mod parse;

use crate::check::Malformed;
use crate::decimal;
use crate::event::Kind;
use crate::fields::{Field, FieldSet, FieldType};
use crate::found::Found;
use crate::ids::{EventId, push_hex};
use crate::slots::{EventSlots, Slots, bits};

pub use parse::{ParseError, Parsed, parse, read};

/// Appends one event as one line of compact JSON, without the newline.
///
/// With [`FieldSet::All`], `EventID` is `id`; without one it is field 100 of the payload, if that is there.
///
/// # Errors
/// The payload is not what [`check`](crate::check()) accepts; `out` is then as it was.
pub fn write(
    kind: Kind,
    payload: &[u8],
    id: Option<EventId>,
    set: FieldSet,
    out: &mut Vec<u8>,
) -> Result<(), Malformed> {
    let found = Found::read(kind, payload)?;
    or_nothing(out, |out| {
        let start = out.len();
        theirs(&found, out)?;
        if set == FieldSet::All {
            ours(&found, id, out)?;
        }
        close_object(start, out);
        Ok(())
    })
}

/// Appends an event with KubeArmor's fields, as [`write`](write()) does.
///
/// # Errors
/// As there.
pub fn write_theirs(found: &Found<'_>, out: &mut Vec<u8>) -> Result<(), Malformed> {
    or_nothing(out, |out| {
        let start = out.len();
        theirs(found, out)?;
        close_object(start, out);
        Ok(())
    })
}

/// Appends an event with all fields, and says how many bytes of that are KubeArmor's: with a brace behind them ([`cut`])
/// they are what [`write_theirs`] gives.
///
/// # Errors
/// As for [`write`](write()).
pub fn write_all(found: &Found<'_>, id: EventId, out: &mut Vec<u8>) -> Result<usize, Malformed> {
    or_nothing(out, |out| {
        let start = out.len();
        theirs(found, out)?;
        let length = out.len() - start;
        ours(found, Some(id), out)?;
        close_object(start, out);
        Ok(length)
    })
}

/// Appends the event that `line` is KubeArmor's form of with all fields; of the event's bytes only ours are written again.
///
/// # Errors
/// As for [`write`](write()).
pub fn extend(
    found: &Found<'_>,
    id: EventId,
    line: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Malformed> {
    or_nothing(out, |out| {
        let start = out.len();
        out.extend_from_slice(inside(line));
        ours(found, Some(id), out)?;
        close_object(start, out);
        Ok(())
    })
}

/// Appends KubeArmor's form, given the first bytes of a line with all fields ([`write_all`]).
pub fn cut(start: &[u8], out: &mut Vec<u8>) {
    let at = out.len();
    out.extend_from_slice(start);
    close_object(at, out);
}

/// An object without its closing brace; of an empty one nothing is left.
fn inside(object: &[u8]) -> &[u8] {
    match object {
        b"{}" => &[],
        object => object.strip_suffix(b"}").unwrap_or(object),
    }
}

fn or_nothing<T>(
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<T, Malformed>,
) -> Result<T, Malformed> {
    let start = out.len();
    let written = write(out);
    if written.is_err() {
        out.truncate(start);
    }
    written
}

/// KubeArmor's members, each after a comma.
fn theirs(found: &Found<'_>, out: &mut Vec<u8>) -> Result<(), Malformed> {
    // Keys and quotes of an ordinary event take some 600 bytes more than the payload has.
    out.reserve(found.slots.event().len() + 768);
    let table = found.table;
    let shown = found.slots.present() | table.kept();
    members(found, shown & table.mask(FieldSet::KubeArmor), out)
}

/// Ours, each after a comma.
fn ours(found: &Found<'_>, id: Option<EventId>, out: &mut Vec<u8>) -> Result<(), Malformed> {
    let table = found.table;
    let only = table.mask(FieldSet::All) & !table.mask(FieldSet::KubeArmor);
    let mut shown = (found.slots.present() | table.kept()) & only;
    if let Some(id) = id
        && let Some(at) = table.position(crate::check::ID_FIELD)
    {
        // The first of ours.
        shown &= !(1 << at);
        out.extend_from_slice(table.fields()[at].key.as_bytes());
        hex(&id.to_bytes(), out);
    }
    members(found, shown, out)
}

fn members(found: &Found<'_>, shown: u64, out: &mut Vec<u8>) -> Result<(), Malformed> {
    let slots = &found.slots;
    for at in bits(shown) {
        let field = &found.table.fields()[at];
        out.extend_from_slice(field.key.as_bytes());
        match field.ty {
            FieldType::TextList => list(slots, at, field, out)?,
            FieldType::TextMap => map(slots, at, field, out)?,
            FieldType::Message(nested) => {
                let slots = slots.nested(at, field, nested)?;
                let start = out.len();
                for at in bits(slots.present()) {
                    let field = &nested.fields()[at];
                    out.extend_from_slice(field.key.as_bytes());
                    scalar(&slots, at, field, out)?;
                }
                close_object(start, out);
            }
            _ => scalar(slots, at, field, out)?,
        }
    }
    Ok(())
}

/// Each member came with a comma before it; the first of them becomes the opening brace.
fn close_object(start: usize, out: &mut Vec<u8>) {
    match out.get_mut(start) {
        Some(comma) => *comma = b'{',
        None => out.push(b'{'),
    }
    out.push(b'}');
}

#[inline]
fn scalar<const N: usize>(
    slots: &Slots<'_, N>,
    at: usize,
    field: &Field,
    out: &mut Vec<u8>,
) -> Result<(), Malformed> {
    use FieldType as T;
    match field.ty {
        T::Text => escape::quoted(slots.bytes(at), field.name, out)?,
        // An i64 travels as the same 64 bits.
        T::Int32 | T::Int64 => decimal::push_signed(slots.number(at) as i64, out),
        T::Uint32 | T::OptionalUint32 | T::Uint64 => decimal::push(slots.number(at), out),
        T::Name64 => hex(&slots.number(at).to_be_bytes(), out),
        T::Bytes => hex(slots.bytes(at), out),
        // Those have no one value; `event` prints them, and no nested message has any.
        T::TextList | T::TextMap | T::Message(_) => out.extend_from_slice(b"null"),
    }
    Ok(())
}

fn list(
    slots: &EventSlots<'_>,
    at: usize,
    field: &Field,
    out: &mut Vec<u8>,
) -> Result<(), Malformed> {
    let start = out.len();
    slots.list(at, field, |text| {
        out.push(b',');
        escape::quoted(text, field.name, out)
    })?;
    // A list is only there with an element, so this is the first comma.
    out[start] = b'[';
    out.push(b']');
    Ok(())
}

fn map(
    slots: &EventSlots<'_>,
    at: usize,
    field: &Field,
    out: &mut Vec<u8>,
) -> Result<(), Malformed> {
    let start = out.len();
    slots.entries(at, field, |key, value| {
        out.push(b',');
        escape::quoted(key, field.name, out)?;
        out.push(b':');
        escape::quoted(value, field.name, out)
    })?;
    close_object(start, out);
    Ok(())
}

fn hex(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    push_hex(bytes, out);
    out.push(b'"');
}

/// Re-indents compact JSON by two spaces, as Go's `json.Indent(…, "", "  ")` does: empty objects and arrays stay on
/// their line, no newline at the end.
#[must_use]
pub fn pretty(compact: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(compact.len() * 5 / 4);
    let (mut depth, mut in_text, mut escaped, mut opened) = (0, false, false, false);
    for &byte in compact {
        if in_text {
            out.push(byte);
            (in_text, escaped) = (escaped || byte != b'"', !escaped && byte == b'\\');
            continue;
        }
        let closes = matches!(byte, b'}' | b']');
        if opened && !closes {
            new_line(depth, &mut out);
        }
        match byte {
            b'{' | b'[' => {
                depth += 1;
                out.push(byte);
            }
            b'}' | b']' => {
                depth = usize::saturating_sub(depth, 1);
                if !opened {
                    new_line(depth, &mut out);
                }
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                new_line(depth, &mut out);
            }
            b':' => out.extend_from_slice(b": "),
            _ => {
                in_text = byte == b'"';
                out.push(byte);
            }
        }
        opened = matches!(byte, b'{' | b'[');
    }
    out
}

fn new_line(depth: usize, out: &mut Vec<u8>) {
    out.push(b'\n');
    out.resize(out.len() + 2 * depth, b' ');
}
