//! Attributes: `KeyValue` with an `AnyValue`.
//!
//! Source: `opentelemetry/proto/common/v1/common.proto` of OTLP 1.x.

use proto::{Malformed, Value};

use super::wire::{field, field_len, header, nested, varint, varint_len};

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

/// The name of an attribute as it stands before the value: the field with the name, and the key of the value's.
pub(super) struct Name {
    text: &'static str,
    encoded: Vec<u8>,
}

impl Name {
    pub(super) fn new(text: &'static str) -> Self {
        let mut encoded = Vec::new();
        field(KEY, text.as_bytes(), &mut encoded);
        encoded.push(VALUE);
        Name { text, encoded }
    }

    pub(super) fn text(&self) -> &'static str {
        self.text
    }
}

/// Writes a text under a name, as field `at` of the message around it.
#[inline]
pub(super) fn named(at: u8, name: &Name, text: &[u8], out: &mut Vec<u8>) {
    let (name, any) = (&name.encoded[..], field_len(text.len()));
    let all = name.len() + varint_len(any) + any;
    // As almost all are: each length is one byte.
    if let (Ok(all @ ..0x80), Ok(any)) = (u8::try_from(all), u8::try_from(any)) {
        out.extend_from_slice(&[at, all]);
        out.extend_from_slice(name);
        out.extend_from_slice(&[any, STRING, text.len() as u8]);
        out.extend_from_slice(text);
    } else {
        header(at, all, out);
        out.extend_from_slice(name);
        varint(any as u64, out);
        field(STRING, text, out);
    }
}

/// The same under a name that comes in two parts.
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

/// Writes a number under a name, as field `at` of the message around it.
fn number(at: u8, name: &Name, number: i64, out: &mut Vec<u8>) {
    // A negative number travels as the same 64 bits.
    let number = number as u64;
    let any = 1 + varint_len(number as usize);
    header(at, name.encoded.len() + 1 + any, out);
    out.extend_from_slice(&name.encoded);
    varint(any as u64, out);
    out.push(INT);
    varint(number, out);
}

/// Writes a value under a name, as field `at` of the message around it. The fields of a message have full names of their
/// own, so each is an attribute.
///
/// # Errors
/// A text in it is not UTF-8.
pub(super) fn attribute(
    at: u8,
    name: &Name,
    value: Value<'_, '_>,
    out: &mut Vec<u8>,
) -> Result<(), Malformed> {
    match value {
        Value::Text(value) => named(at, name, value, out),
        Value::Signed(value) => number(at, name, value, out),
        // OTLP has no unsigned numbers; one too large is a text.
        Value::Unsigned(value) => match i64::try_from(value) {
            Ok(value) => number(at, name, value, out),
            Err(_) => named(at, name, value.to_string().as_bytes(), out),
        },
        Value::Name(value) => named(at, name, &digits(value), out),
        Value::Message(many) => {
            let mut all = Ok(());
            many.fields(|field, value| {
                if all.is_ok() {
                    all = other(at, field.otel, value, out);
                }
            })?;
            return all;
        }
        value => return other(at, name.text, value, out),
    }
    Ok(())
}

/// The same for values that are not in every event, and names that are not known before.
fn other(at: u8, name: &str, value: Value<'_, '_>, out: &mut Vec<u8>) -> Result<(), Malformed> {
    if let Value::Text(value) = value {
        text(at, [name, ""], value, out);
        return Ok(());
    }
    nested(at, out, |out| {
        field(KEY, name.as_bytes(), out);
        nested(VALUE, out, |out| any(value, out))
    })
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
        Value::Name(name) => field(STRING, &digits(name), out),
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

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// A name of 64 bits as hex digits.
fn digits(name: u64) -> [u8; 16] {
    std::array::from_fn(|n| DIGITS[(name >> (60 - 4 * n)) as usize & 15])
}

fn hex(bytes: &[u8], out: &mut Vec<u8>) {
    header(STRING, 2 * bytes.len(), out);
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}
