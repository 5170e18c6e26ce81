//! Attributes: `KeyValue` with an `AnyValue`.
//!
//! Source: `opentelemetry/proto/common/v1/common.proto` of OTLP 1.x.

use proto::{Malformed, Value};

use super::wire::{field, field_len, header, nested, varint};

/// Of `KeyValue`.
const KEY: u8 = 0x0a;
const VALUE: u8 = 0x12;
/// Of `AnyValue`.
const STRING: u8 = 0x0a;
const INT: u8 = 0x18;
const ARRAY: u8 = 0x2a;
const KVLIST: u8 = 0x32;
/// Of `ArrayValue` and `KeyValueList`.
const VALUES: u8 = 0x0a;

/// Writes a text under a name that comes in two parts, as field `at` of the message around it.
#[inline]
pub(super) fn text(at: u8, [start, end]: [&str; 2], text: &[u8], out: &mut Vec<u8>) {
    let any = field_len(text.len());
    let name = start.len() + end.len();
    header(at, field_len(name) + field_len(any), out);
    header(KEY, name, out);
    out.extend_from_slice(start.as_bytes());
    out.extend_from_slice(end.as_bytes());
    header(VALUE, any, out);
    field(STRING, text, out);
}

/// Writes a value under a name, as field `at` of the message around it. The fields of a message have full names of their
/// own, so each is an attribute.
///
/// # Errors
/// A text in it is not UTF-8.
pub(super) fn attribute(
    at: u8,
    name: &str,
    value: Value<'_, '_>,
    out: &mut Vec<u8>,
) -> Result<(), Malformed> {
    match value {
        Value::Text(value) => text(at, [name, ""], value, out),
        Value::Message(many) => {
            let mut all = Ok(());
            many.fields(|field, value| {
                if all.is_ok() {
                    all = attribute(at, field.otel, value, out);
                }
            })?;
            return all;
        }
        value => {
            return nested(at, out, |out| {
                field(KEY, name.as_bytes(), out);
                nested(VALUE, out, |out| any(value, out))
            });
        }
    }
    Ok(())
}

/// Writes the inside of an `AnyValue`.
fn any(value: Value<'_, '_>, out: &mut Vec<u8>) -> Result<(), Malformed> {
    match value {
        Value::Text(text) => field(STRING, text, out),
        Value::Signed(number) => int(number, out),
        // OTLP has no unsigned numbers; one too large is a text.
        Value::Unsigned(number) => match i64::try_from(number) {
            Ok(number) => int(number, out),
            Err(_) => field(STRING, number.to_string().as_bytes(), out),
        },
        Value::Name(name) => hex(&name.to_be_bytes(), out),
        Value::Bytes(bytes) => hex(bytes, out),
        Value::List(many) => {
            return nested(ARRAY, out, |out| {
                many.texts(|text| {
                    header(VALUES, field_len(text.len()), out);
                    field(STRING, text, out);
                })
            });
        }
        Value::Map(many) => {
            return nested(KVLIST, out, |out| {
                many.entries(|key, value| {
                    let any = field_len(value.len());
                    header(VALUES, field_len(key.len()) + field_len(any), out);
                    field(KEY, key, out);
                    header(VALUE, any, out);
                    field(STRING, value, out);
                })
            });
        }
        // Nothing nests deeper than one level (`Found`).
        Value::Message(_) => header(KVLIST, 0, out),
    }
    Ok(())
}

fn int(number: i64, out: &mut Vec<u8>) {
    out.push(INT);
    // A negative number travels as the same 64 bits.
    varint(number as u64, out);
}

fn hex(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    header(STRING, 2 * bytes.len(), out);
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}
