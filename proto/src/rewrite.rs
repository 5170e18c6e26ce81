//! An event with some of its texts changed: what a terminal would obey made visible, secrets taken out.
//!
//! The bytes are copied field by field, so everything that is no text, and every field that this version does not know,
//! stays as its sender wrote it.

use crate::Kind;
use crate::fields::{self, Field, FieldType, Table};

/// One text of an event.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// The field that holds it; of a map or list, the map or list.
    pub field: &'static Field,
    /// It is a key of a map.
    pub key: bool,
    /// The text.
    pub text: &'a str,
}

/// What becomes of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It stays.
    Keep,
    /// It is replaced.
    To(String),
    /// It goes; an element of a list with it.
    Drop,
}

/// The event with what `change` says of each of its texts, in the order of the bytes. None: the bytes are no event, or
/// nothing was changed.
#[must_use]
pub fn texts(
    kind: Kind,
    payload: &[u8],
    mut change: impl FnMut(Part<'_>) -> Change,
) -> Option<Vec<u8>> {
    let mut copier = Copier {
        change: &mut change,
        changed: false,
    };
    let out = copier.copy(payload, Inside::Message(fields::table(kind)))?;
    copier.changed.then_some(out)
}

/// What kind of message the copied fields belong to.
#[derive(Clone, Copy)]
enum Inside {
    Message(&'static Table),
    /// An entry of the map that is this field: its key is number 1, its value number 2.
    Entry(&'static Field),
}

struct Copier<'c> {
    change: &'c mut dyn FnMut(Part<'_>) -> Change,
    changed: bool,
}

impl Copier<'_> {
    fn copy(&mut self, mut from: &[u8], inside: Inside) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(from.len());
        while !from.is_empty() {
            let start = from;
            let key = varint(&mut from)?;
            let fixed = match key & 7 {
                0 => {
                    varint(&mut from)?;
                    0
                }
                1 => 8,
                5 => 4,
                2 => {
                    let length = usize::try_from(varint(&mut from)?).ok()?;
                    let value = from.split_off(..length)?;
                    self.value(key, value, inside, &mut out)?;
                    continue;
                }
                _ => return None,
            };
            from.split_off(..fixed)?;
            out.extend_from_slice(&start[..start.len() - from.len()]);
        }
        Some(out)
    }

    fn value(&mut self, key: u64, value: &[u8], inside: Inside, out: &mut Vec<u8>) -> Option<()> {
        let number = u32::try_from(key >> 3).ok()?;
        match inside {
            Inside::Entry(field) => self.text(key, value, field, number == 1, out),
            Inside::Message(table) => match table.by_number(number) {
                Some(field) => match field.ty {
                    FieldType::Text | FieldType::TextList => {
                        self.text(key, value, field, false, out)
                    }
                    FieldType::TextMap => {
                        put(key, &self.copy(value, Inside::Entry(field))?, out);
                        Some(())
                    }
                    FieldType::Message(nested) => {
                        put(key, &self.copy(value, Inside::Message(nested))?, out);
                        Some(())
                    }
                    _ => {
                        put(key, value, out);
                        Some(())
                    }
                },
                None => {
                    put(key, value, out);
                    Some(())
                }
            },
        }
    }

    fn text(
        &mut self,
        number: u64,
        value: &[u8],
        field: &'static Field,
        key: bool,
        out: &mut Vec<u8>,
    ) -> Option<()> {
        let text = std::str::from_utf8(value).ok()?;
        match (self.change)(Part { field, key, text }) {
            Change::Keep => put(number, value, out),
            Change::To(other) => {
                self.changed |= other != text;
                put(number, other.as_bytes(), out);
            }
            Change::Drop => self.changed = true,
        }
        Some(())
    }
}

fn varint(from: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *from.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn put(key: u64, bytes: &[u8], out: &mut Vec<u8>) {
    prost::encoding::encode_varint(key, out);
    prost::encoding::encode_varint(bytes.len() as u64, out); // usize is at most 64 bits
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::feeder;

    fn alert() -> feeder::Alert {
        feeder::Alert {
            resource: "curl token=abc".into(),
            args: ["curl", "token=abc", "-v"].map(String::from).to_vec(),
            event_data: [("k".to_owned(), "token=abc".to_owned())].into(),
            host_pid: 9,
            rule_id: 7,
            ..Default::default()
        }
    }

    #[test]
    fn texts_are_changed_or_dropped_and_all_else_stays() {
        let mut bytes = alert().encode_to_vec();
        // Field 99 is nobody's yet.
        let unknown = [0x9a, 0x06, 1, b'x'];
        bytes.extend(unknown);
        let out = texts(Kind::Alert, &bytes, |part| match part.text {
            "-v" => Change::Drop,
            text if text.contains("abc") => Change::To(text.replace("abc", "*")),
            _ => Change::Keep,
        });
        let out = out.unwrap();
        assert!(out.ends_with(&unknown));
        let expected = feeder::Alert {
            resource: "curl token=*".into(),
            args: vec!["curl".into(), "token=*".into()],
            event_data: [("k".to_owned(), "token=*".to_owned())].into(),
            ..alert()
        };
        assert_eq!(feeder::Alert::decode(&out[..]).unwrap(), expected);
    }

    #[test]
    fn an_event_that_keeps_its_texts_and_bytes_that_are_none_give_nothing() {
        let bytes = alert().encode_to_vec();
        assert_eq!(texts(Kind::Alert, &bytes, |_| Change::Keep), None);
        let same = |part: Part<'_>| Change::To(part.text.to_owned());
        assert_eq!(texts(Kind::Alert, &bytes, same), None);
        assert_eq!(texts(Kind::Alert, b"\x0a\xff", |_| Change::Drop), None);
    }

    #[test]
    fn keys_of_maps_are_told_apart_from_values() {
        let mut seen = Vec::new();
        let bytes = alert().encode_to_vec();
        let _ = texts(Kind::Alert, &bytes, |part| {
            if part.field.name == "EventData" {
                seen.push((part.key, part.text.to_owned()));
            }
            Change::Keep
        });
        assert_eq!(
            seen,
            [(true, "k".to_owned()), (false, "token=abc".to_owned())]
        );
    }
}
