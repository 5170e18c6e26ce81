//! The way back: recorded JSON lines to events, so that a file of alerts can be imported.
//!
//! Reads what [`write`](super::write) prints, with either field set, and what KubeArmor's own tools have recorded. Keys
//! may come in any order; `null` is absent. An unknown key is not an error, since a newer KubeArmor may have added it,
//! but it cannot be kept, so it is reported.

use bytes::{Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint};
use serde_json::{Map, Value};

use crate::check::{ID_FIELD, Malformed, check};
use crate::event::Kind;
use crate::fields::{self, Field, FieldType, Table};
use crate::ids::{EventId, read_hex};

/// An event read from JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// By the `Type` of the event.
    pub kind: Kind,
    /// Protobuf, fields in the order of their numbers.
    pub payload: Bytes,
    /// The id it had where it was recorded, if that was recorded too.
    pub id: Option<EventId>,
    /// Keys that no field has, nested ones with a dot; their values are lost.
    pub unknown: Vec<String>,
}

/// Why a line is not an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not JSON.
    #[error("line {line}, column {column}: {reason}")]
    Syntax {
        /// From 1, in the text that was given.
        line: usize,
        /// From 1, in bytes.
        column: usize,
        /// What the JSON reader says.
        reason: String,
    },
    /// JSON, but not an object.
    #[error("an event is a JSON object; found {found}")]
    NotAnObject {
        /// What came.
        found: String,
    },
    /// Without a `Type` that says whether it is an alert, a log or a message.
    #[error(
        "field Type: `{found}` is no kind of event; expected MatchedPolicy, MatchedHostPolicy, \
         MatchedNetworkPolicy, SystemEvent, ContainerLog, HostLog or Message"
    )]
    Type {
        /// What came; empty if there was none.
        found: String,
    },
    /// A value that its field cannot hold.
    #[error("field {name}: expected {expected}, found {found}")]
    Value {
        /// JSON name, nested ones with a dot.
        name: String,
        /// What the field holds.
        expected: &'static str,
        /// What came.
        found: String,
    },
    /// More than an event may be.
    #[error(transparent)]
    Event(#[from] Malformed),
}

/// Reads one event from JSON in Go's form; unknown keys and a recorded id are dropped. [`read`] reports them.
///
/// # Errors
/// The line is not JSON, not an event, or a field holds what it cannot.
pub fn parse(line: &str) -> Result<(Kind, Bytes), ParseError> {
    read(line).map(|parsed| (parsed.kind, parsed.payload))
}

/// Reads one event from JSON in Go's form.
///
/// # Errors
/// The line is not JSON, not an event, or a field holds what it cannot.
pub fn read(line: &str) -> Result<Parsed, ParseError> {
    let object = match serde_json::from_str(line).map_err(syntax)? {
        Value::Object(object) => object,
        other => {
            return Err(ParseError::NotAnObject {
                found: shown(&other),
            });
        }
    };
    let kind = kind_of(object.get("Type"))?;
    let mut reading = Reading {
        id: None,
        unknown: Vec::new(),
    };
    let mut out = BytesMut::new();
    reading.message(fields::table(kind), &object, "", &mut out)?;
    check(kind, &out)?;
    Ok(Parsed {
        kind,
        payload: out.freeze(),
        id: reading.id,
        unknown: reading.unknown,
    })
}

fn syntax(error: serde_json::Error) -> ParseError {
    let (line, column) = (error.line(), error.column());
    let text = error.to_string();
    // The message ends with the position, which is told once.
    let reason = text
        .strip_suffix(&format!(" at line {line} column {column}"))
        .unwrap_or(&text);
    ParseError::Syntax {
        line,
        column,
        reason: match reason {
            // What serde_json says of `\ud800` without its other half, and of `\udc00` without its first.
            "unexpected end of hex escape" | "lone leading surrogate in hex escape" => {
                "half of a surrogate pair is no character; write both halves, or \\ufffd".to_owned()
            }
            other => other.to_owned(),
        },
    }
}

fn kind_of(value: Option<&Value>) -> Result<Kind, ParseError> {
    let found = match value {
        None | Some(Value::Null) => "",
        Some(Value::String(text)) => text,
        Some(other) => return Err(mismatch("Type", "text", other)),
    };
    if found == "Message" {
        Ok(Kind::Message)
    } else if found.starts_with("Matched") || found == "SystemEvent" {
        Ok(Kind::Alert)
    } else if found.ends_with("Log") {
        Ok(Kind::Log)
    } else {
        Err(ParseError::Type {
            found: short(found),
        })
    }
}

struct Reading {
    id: Option<EventId>,
    unknown: Vec<String>,
}

impl Reading {
    /// Appends the encoded fields of `object`. `within` is the path to it: empty, or ending in a dot.
    fn message(
        &mut self,
        table: &Table,
        object: &Map<String, Value>,
        within: &str,
        out: &mut BytesMut,
    ) -> Result<(), ParseError> {
        let unknown = object.keys().filter(|key| table.by_name(key).is_none());
        self.unknown
            .extend(unknown.map(|key| format!("{within}{key}")));
        let mut present: Vec<_> = table.fields().iter().collect();
        present.sort_by_key(|field| field.number);
        for field in present {
            match object.get(field.name) {
                None | Some(Value::Null) => {}
                Some(value) => self.field(field, value, within, out)?,
            }
        }
        Ok(())
    }

    fn field(
        &mut self,
        field: &Field,
        value: &Value,
        within: &str,
        out: &mut BytesMut,
    ) -> Result<(), ParseError> {
        let wrong = |expected| mismatch(&format!("{within}{}", field.name), expected, value);
        match field.ty {
            FieldType::Text => {
                let text = value.as_str().ok_or_else(|| wrong("text"))?;
                non_empty(field, text.as_bytes(), out);
            }
            FieldType::TextList => {
                let list = value.as_array().ok_or_else(|| wrong("a list of texts"))?;
                for element in list {
                    let text = element.as_str().ok_or_else(|| wrong("a list of texts"))?;
                    bytes(field.number, text.as_bytes(), out);
                }
            }
            FieldType::TextMap => {
                let map = value
                    .as_object()
                    .ok_or_else(|| wrong("an object of texts"))?;
                entries(field, map, out).ok_or_else(|| wrong("an object of texts"))?;
            }
            FieldType::Message(table) => {
                let object = value.as_object().ok_or_else(|| wrong("an object"))?;
                let mut nested = BytesMut::new();
                self.message(
                    table,
                    object,
                    &format!("{within}{}.", field.name),
                    &mut nested,
                )?;
                bytes(field.number, &nested, out);
            }
            FieldType::Bytes if field.number == ID_FIELD => {
                let id = value.as_str().and_then(|text| text.parse().ok());
                self.id = Some(id.ok_or_else(|| wrong("32 hex digits"))?);
            }
            FieldType::Bytes => {
                let digits = value.as_str().and_then(read_hex);
                non_empty(field, &digits.ok_or_else(|| wrong("hex digits"))?, out);
            }
            _ => {
                let number = Number::of(field.ty, value).map_err(wrong)?;
                number.write(field, out);
            }
        }
        Ok(())
    }
}

/// A number as it goes on the wire.
struct Number(u64);

impl Number {
    /// The number in `value`, or what a field of type `ty` would have needed.
    fn of(ty: FieldType, value: &Value) -> Result<Number, &'static str> {
        let signed = value.as_i64();
        let unsigned = value.as_u64();
        // A negative number travels as the same 64 bits.
        let (number, expected) = match ty {
            FieldType::Int32 => (
                signed
                    .filter(|&n| i32::try_from(n).is_ok())
                    .map(|n| n as u64),
                "a whole number from -2147483648 to 2147483647",
            ),
            FieldType::Int64 => (signed.map(|n| n as u64), "a whole number of 64 bits"),
            FieldType::Uint32 | FieldType::OptionalUint32 => (
                unsigned.filter(|&n| u32::try_from(n).is_ok()),
                "a whole number from 0 to 4294967295",
            ),
            FieldType::Name64 => (
                value
                    .as_str()
                    .filter(|text| text.len() == 16)
                    .and_then(read_hex)
                    .map(|bytes| {
                        bytes
                            .iter()
                            .fold(0, |number, &byte| number << 8 | u64::from(byte))
                    }),
                "16 hex digits",
            ),
            _ => (unsigned, "a whole number from 0"),
        };
        number.map(Number).ok_or(expected)
    }

    fn write(self, field: &Field, out: &mut BytesMut) {
        let Number(number) = self;
        match field.ty {
            FieldType::OptionalUint32 => {}
            _ if number == 0 => return,
            FieldType::Name64 => {
                encode_key(field.number, WireType::SixtyFourBit, out);
                out.extend_from_slice(&number.to_le_bytes());
                return;
            }
            _ => {}
        }
        encode_key(field.number, WireType::Varint, out);
        encode_varint(number, out);
    }
}

/// A map in the byte order of its keys; none if a value is not text.
fn entries(field: &Field, map: &Map<String, Value>, out: &mut BytesMut) -> Option<()> {
    let mut sorted: Vec<_> = map.iter().collect();
    sorted.sort_by_key(|(key, _)| key.as_str());
    for (key, value) in sorted {
        let value = match value {
            Value::Null => "",
            other => other.as_str()?,
        };
        let mut entry = BytesMut::new();
        for (number, text) in [(1, key.as_str()), (2, value)] {
            if !text.is_empty() {
                bytes(number, text.as_bytes(), &mut entry);
            }
        }
        bytes(field.number, &entry, out);
    }
    Some(())
}

/// proto3 leaves empty text and bytes out.
fn non_empty(field: &Field, content: &[u8], out: &mut BytesMut) {
    if !content.is_empty() {
        bytes(field.number, content, out);
    }
}

fn bytes(number: u32, content: &[u8], out: &mut BytesMut) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(content.len() as u64, out);
    out.extend_from_slice(content);
}

fn mismatch(name: &str, expected: &'static str, found: &Value) -> ParseError {
    ParseError::Value {
        name: name.to_owned(),
        expected,
        found: shown(found),
    }
}

/// A value as an error shows it.
fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        other => short(&other.to_string()),
    }
}

/// The first 80 characters.
fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(line: &str) -> String {
        read(line).unwrap_err().to_string()
    }

    #[test]
    fn what_is_not_json_is_named_by_its_column() {
        assert_eq!(
            error(r#"{"Type":"HostLog" "UID":0}"#),
            "line 1, column 19: expected `,` or `}`"
        );
        assert_eq!(error("[1]"), "an event is a JSON object; found a list");
        for half in [r"\ud800", r"\ud800x", r"\udc00"] {
            let told = error(&format!(r#"{{"Type":"HostLog","PodName":"{half}"}}"#));
            assert!(told.contains("half of a surrogate pair"), "{half}: {told}");
        }
    }

    #[test]
    fn a_wrong_value_is_named_by_its_field() {
        assert_eq!(
            error(r#"{"Type":"HostLog","UID":"root"}"#),
            "field UID: expected a whole number from -2147483648 to 2147483647, found \"root\""
        );
        assert_eq!(
            error(r#"{"Type":"HostLog","Owner":{"Name":5}}"#),
            "field Owner.Name: expected text, found 5"
        );
        assert_eq!(
            error(r#"{"Type":"HostLog","EventData":{"Fd":-100}}"#),
            "field EventData: expected an object of texts, found an object"
        );
        for value in ["1.5", "1e3", "2147483648", "true", "[]"] {
            assert!(
                read(&format!(r#"{{"Type":"HostLog","PID":{value}}}"#)).is_err(),
                "{value}"
            );
        }
    }

    #[test]
    fn an_event_without_a_known_type_is_refused() {
        assert!(error("{}").starts_with("field Type: `` is no kind of event; expected Matched"));
        assert!(error(r#"{"Type":"Weather"}"#).starts_with("field Type: `Weather` is no kind"));
        assert!(error(r#"{"Type":7}"#).starts_with("field Type: expected text, found 7"));
    }

    #[test]
    fn unknown_keys_are_ignored_and_told() {
        let parsed = read(r#"{"Type":"HostLog","New":1,"Owner":{"Uid":"x"},"PID":3}"#).unwrap();
        assert_eq!(parsed.unknown, ["New", "Owner.Uid"]);
        assert_eq!(parsed.kind, Kind::Log);
        assert_eq!(
            parse(r#"{"Type":"HostLog","PID":3,"Owner":{}}"#),
            Ok((Kind::Log, parsed.payload))
        );
    }

    #[test]
    fn a_recorded_id_comes_apart_from_the_payload() {
        let line = r#"{"Type":"HostLog","EventID":"a0010203040506070000000000000102"}"#;
        let parsed = read(line).unwrap();
        assert_eq!(parsed.id.unwrap().sequence, 0x0102);
        assert_eq!(
            parse(r#"{"Type":"HostLog"}"#),
            Ok((Kind::Log, parsed.payload))
        );
        assert!(error(r#"{"Type":"HostLog","EventID":"a0"}"#).contains("32 hex digits"));
    }

    #[test]
    fn null_is_absent() {
        let line = r#"{"Type":"HostLog","ATags":null,"PID":null,"Owner":null,"EventData":null}"#;
        assert_eq!(parse(line), parse(r#"{"Type":"HostLog"}"#));
    }

    #[test]
    fn more_than_an_event_may_be_is_refused() {
        let line = format!(
            r#"{{"Type":"HostLog","Data":"{}"}}"#,
            "x".repeat(crate::MAX_EVENT)
        );
        assert!(matches!(
            read(&line),
            Err(ParseError::Event(Malformed::TooLarge { .. }))
        ));
    }
}
