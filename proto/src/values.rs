//! The values of an event's fields, for whoever writes a form of its own (OTLP attributes, CEF, OCSF): borrowed from the
//! event's bytes, in the field table's order, as JSON would show them.

use crate::check::Malformed;
use crate::event::Kind;
use crate::fields::{self, Field, FieldSet, FieldType, Table};
use crate::slots::{EventSlots, Slots, bits};

/// What one field holds.
#[derive(Debug, Clone)]
pub enum FieldValue<'a> {
    /// A text.
    Text(&'a str),
    /// Texts in order.
    List(Vec<&'a str>),
    /// Keys in byte order, each once.
    Map(Vec<(&'a str, &'a str)>),
    /// A number that may be negative.
    Signed(i64),
    /// A number.
    Unsigned(u64),
    /// A 64-bit name; shown as 16 hex digits.
    Name(u64),
    /// Bytes; shown as hex digits.
    Bytes(&'a [u8]),
    /// The fields of a nested message that are set.
    Message(Vec<(&'static Field, FieldValue<'a>)>),
}

/// The fields that JSON would show with this field set, and what they hold. Field 100 is shown if the payload has it.
///
/// # Errors
/// The payload is not what [`check`](crate::check()) accepts.
pub fn values(
    kind: Kind,
    payload: &[u8],
    set: FieldSet,
) -> Result<Vec<(&'static Field, FieldValue<'_>)>, Malformed> {
    let table = fields::table(kind);
    let slots = EventSlots::read(table, payload)?;
    let mask = (slots.present() | table.kept()) & table.mask(set);
    bits(mask)
        .map(|at| {
            let field = &table.fields()[at];
            Ok((field, value(&slots, at, field)?))
        })
        .collect()
}

fn value<'a>(
    slots: &EventSlots<'a>,
    at: usize,
    field: &'static Field,
) -> Result<FieldValue<'a>, Malformed> {
    Ok(match field.ty {
        FieldType::TextList => {
            let mut list = Vec::new();
            slots.list(at, field, |element| {
                list.push(text(element, field)?);
                Ok(())
            })?;
            FieldValue::List(list)
        }
        FieldType::TextMap => {
            let mut map = Vec::new();
            slots.entries(at, field, |key, value| {
                map.push((text(key, field)?, text(value, field)?));
                Ok(())
            })?;
            FieldValue::Map(map)
        }
        FieldType::Message(nested) => FieldValue::Message(message(slots, at, field, nested)?),
        _ => scalar(slots, at, field)?,
    })
}

fn message<'a>(
    slots: &EventSlots<'a>,
    at: usize,
    field: &Field,
    table: &'static Table,
) -> Result<Vec<(&'static Field, FieldValue<'a>)>, Malformed> {
    let slots = slots.nested(at, field, table)?;
    bits(slots.present())
        .map(|at| {
            let field = &table.fields()[at];
            Ok((field, scalar(&slots, at, field)?))
        })
        .collect()
}

fn scalar<'a, const N: usize>(
    slots: &Slots<'a, N>,
    at: usize,
    field: &Field,
) -> Result<FieldValue<'a>, Malformed> {
    use FieldType as T;
    Ok(match field.ty {
        T::Text => FieldValue::Text(text(slots.bytes(at), field)?),
        // An i64 travels as the same 64 bits.
        T::Int32 | T::Int64 => FieldValue::Signed(slots.number(at) as i64),
        T::Uint32 | T::OptionalUint32 | T::Uint64 => FieldValue::Unsigned(slots.number(at)),
        T::Name64 => FieldValue::Name(slots.number(at)),
        T::Bytes => FieldValue::Bytes(slots.bytes(at)),
        // Those have no one value, and no nested message has any.
        T::TextList | T::TextMap | T::Message(_) => FieldValue::Message(Vec::new()),
    })
}

fn text<'a>(bytes: &'a [u8], field: &Field) -> Result<&'a str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed::Utf8 { name: field.name })
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::feeder;

    #[test]
    fn values_come_in_json_order_with_the_types_of_the_table() {
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
            rule_id: 9,
            policy_digest: vec![1, 2],
            ..Default::default()
        };
        let bytes = alert.encode_to_vec();
        let all = values(Kind::Alert, &bytes, FieldSet::All).unwrap();
        let shown: Vec<String> = all
            .iter()
            .map(|(field, value)| match value {
                FieldValue::Message(inner) => format!("{}.{}", field.name, inner[0].0.name),
                value => format!("{} {value:?}", field.name),
            })
            .collect();
        assert_eq!(
            shown,
            [
                "Timestamp Signed(7)",
                "Owner.Name",
                "PodName Text(\"cart\")",
                "PPID Signed(0)",
                "UID Signed(-1)",
                "ATags List([\"a\", \"b\"])",
                "EventData Map([(\"A\", \"2\"), (\"Z\", \"1\")])",
                "RuleID Name(9)",
                "PolicyDigest Bytes([1, 2])",
            ]
        );
        let theirs = values(Kind::Alert, &bytes, FieldSet::KubeArmor).unwrap();
        assert_eq!(theirs.len(), 7);
    }

    #[test]
    fn broken_bytes_are_an_error() {
        assert!(values(Kind::Alert, &[0x0a, 200], FieldSet::All).is_err());
        // Field 6 of an alert is text.
        assert!(values(Kind::Alert, &[0x32, 1, 0xff], FieldSet::All).is_err());
    }
}
