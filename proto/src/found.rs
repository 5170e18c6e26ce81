//! An event's fields, found in one walk and read where they lie, for whoever writes a form of its own at the full rate of
//! events (OTLP): nothing is built of them, and text is handed on as the bytes that it is.
//!
//! [`values`](crate::values()) gives the same as lists, for those with more time.

use crate::check::{Malformed, well_written};
use crate::event::Kind;
use crate::fields::{self, Field, FieldSet, FieldType, Table};
use crate::slots::{self, EventSlots, Slots, bits};
use crate::view::{Texts, View};
use crate::workload;

/// The fields of one event.
pub struct Found<'a> {
    kind: Kind,
    pub(crate) table: &'static Table,
    pub(crate) slots: EventSlots<'a>,
}

/// What was found in an event, apart from its bytes: kept beside them it saves everybody else the walk. Some 540 bytes.
#[derive(Debug, Clone)]
pub struct Marks {
    kind: Kind,
    length: usize,
    slots: slots::Marks<64>,
}

impl Marks {
    /// The fields of the event, which has to be the one that the marks are of.
    ///
    /// # Panics
    /// It is so much another that it has another length.
    #[must_use]
    pub fn found<'a>(&self, payload: &'a [u8]) -> Found<'a> {
        assert_eq!(payload.len(), self.length, "marks of another event");
        Found {
            kind: self.kind,
            table: fields::table(self.kind),
            slots: EventSlots::marked(payload, &self.slots),
        }
    }
}

/// What a field holds. Text is UTF-8.
#[derive(Clone, Copy)]
pub enum Value<'f, 'a> {
    /// A text.
    Text(&'a [u8]),
    /// A number that may be negative.
    Signed(i64),
    /// A number.
    Unsigned(u64),
    /// A 64-bit name; shown as 16 hex digits.
    Name(u64),
    /// Bytes; shown as hex digits.
    Bytes(&'a [u8]),
    /// Texts in order.
    List(Many<'f, 'a>),
    /// Texts by keys.
    Map(Many<'f, 'a>),
    /// The fields of a nested message.
    Message(Many<'f, 'a>),
}

/// A field with several values, which are looked at where they lie.
#[derive(Clone, Copy)]
pub struct Many<'f, 'a> {
    slots: &'f EventSlots<'a>,
    at: usize,
    field: &'static Field,
}

impl<'a> Found<'a> {
    /// Walks over an event.
    ///
    /// # Errors
    /// Its framing or a wire type is not what [`check`](crate::check()) accepts; text is looked at when it is read.
    pub fn read(kind: Kind, payload: &'a [u8]) -> Result<Self, Malformed> {
        let table = fields::table(kind);
        let slots = EventSlots::read(table, payload)?;
        Ok(Found { kind, table, slots })
    }

    /// To find them again without a walk.
    #[must_use]
    pub fn marks(&self) -> Marks {
        Marks {
            kind: self.kind,
            length: self.slots.event().len(),
            slots: self.slots.marks().clone(),
        }
    }

    /// The fields that JSON would show with this set, by their places in the [table](fields::of), in order.
    pub fn shown(&self, set: FieldSet) -> impl Iterator<Item = usize> + use<> {
        self.shown_among(self.table.mask(set))
    }

    /// Those of all fields that would be shown and are in these places, one bit each.
    pub fn shown_among(&self, places: u64) -> impl Iterator<Item = usize> + use<> {
        let shown = self.slots.present() | self.table.kept();
        bits(shown & self.table.mask(FieldSet::All) & places)
    }

    /// What the field in this place of the table holds; empty or 0 if it is absent.
    ///
    /// # Errors
    /// It is a text and not UTF-8.
    ///
    /// # Panics
    /// The table has no such place.
    #[inline]
    pub fn value(&self, at: usize) -> Result<Value<'_, 'a>, Malformed> {
        let field = &self.table.fields()[at];
        let many = || Many {
            slots: &self.slots,
            at,
            field,
        };
        Ok(match field.ty {
            FieldType::TextList => Value::List(many()),
            FieldType::TextMap => Value::Map(many()),
            FieldType::Message(_) => Value::Message(many()),
            _ => scalar(&self.slots, at, field)?,
        })
    }

    /// The fields that filters and metrics look at, without another walk.
    #[must_use]
    pub fn view(&self) -> View<'a> {
        self.view_of(Texts::ALL)
    }

    /// Some of them.
    #[must_use]
    pub fn view_of(&self, texts: Texts) -> View<'a> {
        View::of(self.kind, &self.slots, texts)
    }

    /// Whose event it is ([`workload`](crate::workload())), without another walk.
    #[must_use]
    pub fn workload(&self) -> &'a str {
        workload::of(self.kind, &self.slots)
    }
}

impl<'a> Many<'_, 'a> {
    /// Goes over the texts of a list.
    ///
    /// # Errors
    /// One is not UTF-8.
    pub fn texts(&self, mut each: impl FnMut(&'a [u8])) -> Result<(), Malformed> {
        self.slots.list(self.at, self.field, |text| {
            well_written(text, self.field.name)?;
            each(text);
            Ok(())
        })
    }

    /// Goes over the entries of a map: keys in byte order, each once.
    ///
    /// # Errors
    /// A text is not UTF-8.
    pub fn entries(&self, mut each: impl FnMut(&'a [u8], &'a [u8])) -> Result<(), Malformed> {
        self.slots.entries(self.at, self.field, |key, value| {
            well_written(key, self.field.name)?;
            well_written(value, self.field.name)?;
            each(key, value);
            Ok(())
        })
    }

    /// Goes over the fields of a message that are set, in the order of its table. None of them has several values.
    ///
    /// # Errors
    /// A wire type is wrong, or a text is not UTF-8.
    pub fn fields(
        &self,
        mut each: impl FnMut(&'static Field, Value<'_, 'a>),
    ) -> Result<(), Malformed> {
        let FieldType::Message(table) = self.field.ty else {
            return Ok(());
        };
        let slots = self.slots.nested(self.at, self.field, table)?;
        for at in bits(slots.present()) {
            let field = &table.fields()[at];
            each(field, scalar(&slots, at, field)?);
        }
        Ok(())
    }
}

#[inline]
fn scalar<'f, 'a, const N: usize>(
    slots: &Slots<'a, N>,
    at: usize,
    field: &Field,
) -> Result<Value<'f, 'a>, Malformed> {
    use FieldType as T;
    Ok(match field.ty {
        T::Text => {
            let text = slots.bytes(at);
            well_written(text, field.name)?;
            Value::Text(text)
        }
        // An i64 travels as the same 64 bits.
        T::Int32 | T::Int64 => Value::Signed(slots.number(at) as i64),
        T::Uint32 | T::OptionalUint32 | T::Uint64 => Value::Unsigned(slots.number(at)),
        T::Name64 => Value::Name(slots.number(at)),
        // The others have no one value, and no nested message has any of them.
        T::Bytes | T::TextList | T::TextMap | T::Message(_) => Value::Bytes(slots.bytes(at)),
    })
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::feeder;

    /// As text, what stands in a place.
    fn told(found: &Found<'_>, at: usize) -> String {
        let mut told = fields::of(found.kind)[at].name.to_owned();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        match found.value(at).unwrap() {
            Value::Text(bytes) => told += &format!("={}", text(bytes)),
            Value::Signed(number) => told += &format!("={number}"),
            Value::Unsigned(number) => told += &format!("={number}"),
            Value::Name(number) => told += &format!("={number:x}"),
            Value::Bytes(bytes) => told += &format!("={bytes:?}"),
            Value::List(many) => many
                .texts(|bytes| told += &format!(" {}", text(bytes)))
                .unwrap(),
            Value::Map(many) => many
                .entries(|key, value| told += &format!(" {}={}", text(key), text(value)))
                .unwrap(),
            Value::Message(many) => many
                .fields(|field, value| match value {
                    Value::Text(bytes) => told += &format!(" {}={}", field.name, text(bytes)),
                    _ => told += " ?",
                })
                .unwrap(),
        }
        told
    }

    #[test]
    fn fields_are_found_in_json_order_with_the_types_of_the_table() {
        let alert = feeder::Alert {
            timestamp: 7,
            pod_name: "cart".into(),
            uid: -1,
            a_tags: vec!["a".into(), "b".into()],
            owner: Some(feeder::Podowner {
                name: "cart".into(),
                ..Default::default()
            }),
            event_data: [("Z", "1"), ("A", "2")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
            owner_uid: Some(0),
            rule_id: 9,
            policy_digest: vec![1, 2],
            ..Default::default()
        };
        let bytes = alert.encode_to_vec();
        let found = Found::read(Kind::Alert, &bytes).unwrap();
        let all: Vec<String> = found
            .shown(FieldSet::All)
            .map(|at| told(&found, at))
            .collect();
        let wanted = [
            "Timestamp=7",
            "Owner Name=cart",
            "PodName=cart",
            "PPID=0",
            "UID=-1",
            "ATags a b",
            "EventData A=2 Z=1",
            "OwnerUID=0",
            "RuleID=9",
            "PolicyDigest=[1, 2]",
        ];
        assert_eq!(all, wanted);
        assert_eq!(found.shown(FieldSet::KubeArmor).count(), 7);
        assert_eq!(found.view(), View::read(Kind::Alert, &bytes));
        assert_eq!(found.workload(), "cart");
    }

    #[test]
    fn a_field_is_found_however_its_key_is_written_and_whatever_stands_before_it() {
        // PodName is field 6 of an alert, UID field 12.
        let pod = [6 << 3 | 2, 1, b'p'];
        let long_key = [0xb2, 0x80, 0x00, 1, b'p'];
        let long_length = [6 << 3 | 2, 0x81, 0x80, 0x00, b'p'];
        // Field 99, 2,000,000 and a group of number 1,000, which no table has.
        let unknown: [&[u8]; 3] = [
            &[0x98, 0x06, 0x05],
            &[0x82, 0xa4, 0xe8, 0x07, 1, b'x'],
            &[0xc3, 0x3e, 0x08, 1, 0xc4, 0x3e],
        ];
        for before in [&[][..], unknown[0], unknown[1], unknown[2]] {
            for pod in [&pod[..], &long_key, &long_length] {
                let bytes = [before, pod, before, &[12 << 3, 7]].concat();
                let found = Found::read(Kind::Alert, &bytes).unwrap();
                let all: Vec<String> = found
                    .shown(FieldSet::KubeArmor)
                    .map(|at| told(&found, at))
                    .collect();
                assert_eq!(all, ["PodName=p", "PPID=0", "UID=7"], "{bytes:?}");
                let again = found.marks().found(&bytes).view();
                assert_eq!(again, View::read(Kind::Alert, &bytes));
            }
        }
        // ATags is field 30; its first key is longer than it need be.
        let tags = [0xf2, 0x81, 0x00, 1, b'a', 0xf2, 0x01, 1, b'b'];
        let bytes = [unknown[0], &tags].concat();
        let found = Found::read(Kind::Alert, &bytes).unwrap();
        let tags = found.shown(FieldSet::KubeArmor).last();
        assert_eq!(told(&found, tags.unwrap()), "ATags a b");
        // A known field with another wire type is refused wherever it stands.
        for bytes in [&[6 << 3, 1][..], &[0x98, 0x06, 0x05, 12 << 3 | 2, 0]] {
            let read = Found::read(Kind::Alert, bytes);
            assert!(matches!(read, Err(Malformed::WireType { .. })), "{bytes:?}");
        }
    }

    #[test]
    fn broken_bytes_are_an_error() {
        assert!(Found::read(Kind::Alert, &[0x0a, 200]).is_err());
        // Field 6 of an alert is text, 30 a list of it, 31 a message of it.
        for bytes in [
            &[0x32, 1, 0xff][..],
            &[0xf2, 1, 1, 0xff],
            &[0xfa, 1, 3, 0x0a, 1, 0xff],
        ] {
            let found = Found::read(Kind::Alert, bytes).unwrap();
            let read = |at| match found.value(at)? {
                Value::List(many) => many.texts(drop),
                Value::Message(many) => many.fields(|_, _| {}),
                _ => Ok(()),
            };
            let read = found.shown(FieldSet::All).try_for_each(read);
            assert!(matches!(read, Err(Malformed::Utf8 { .. })), "{bytes:?}");
        }
    }
}
