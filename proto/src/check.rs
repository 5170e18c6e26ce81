//! The door: is this an event that every reader will be able to decode?
//!
//! A sender's bytes are stored as they came, so whatever could make a decoder fail later has to be found here: broken
//! framing, wire types other than the field table's, text that is not UTF-8. Unknown fields pass; they belong to newer
//! senders. Field 100 does not pass: the event id is ours to write, and a sender's own could pose as another event.

use crate::event::Kind;
use crate::fields::{self, FieldType, Table};
use crate::plain::{is_utf8, plain};
use crate::walk::{Value, Walk};

/// The largest event, in bytes: 1 MiB. KubeArmor's clients refuse messages over 4 MiB (the gRPC default).
pub const MAX_EVENT: usize = 1 << 20;

/// The largest batch on the link, in bytes: 2 MiB.
pub const MAX_BATCH: usize = 2 << 20;

/// The event id's field number, which a sender leaves alone.
pub(crate) const ID_FIELD: u32 = 100;

/// Why bytes are not an event. Whoever sent them has to mend them; sending them again cannot help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Larger than [`MAX_EVENT`] (or [`MAX_BATCH`] for a batch).
    #[error("{size} bytes are more than the limit of {limit}")]
    TooLarge {
        /// In bytes.
        size: usize,
        /// In bytes.
        limit: usize,
    },
    /// A field goes on where the bytes, or the message around it, end.
    #[error("a field goes on after the end at byte {at}")]
    Truncated {
        /// Where the bytes end.
        at: usize,
    },
    /// A number of more than 64 bits.
    #[error("the number at byte {at} has more than 64 bits")]
    Varint {
        /// Where it starts.
        at: usize,
    },
    /// Field number 0, an unknown wire type or a key of more than 32 bits.
    #[error("byte {at} does not start a protobuf field")]
    Key {
        /// Where the key is.
        at: usize,
    },
    /// A group's end without its start, or another group's end.
    #[error("the group end at byte {at} closes no open group")]
    Group {
        /// Where the end is.
        at: usize,
    },
    /// Groups in groups, deeper than decoders follow.
    #[error("groups are nested deeper than 100 at byte {at}")]
    Depth {
        /// Where it becomes too deep.
        at: usize,
    },
    /// A known field with a wire type that is not its own.
    #[error("field {name} is encoded as {found}; expected {expected}")]
    WireType {
        /// JSON name of the field.
        name: &'static str,
        /// What its type asks for.
        expected: &'static str,
        /// What came.
        found: &'static str,
    },
    /// Text that is not UTF-8, which proto3 does not allow.
    #[error("field {name} is not UTF-8")]
    Utf8 {
        /// JSON name of the field.
        name: &'static str,
    },
    /// A sender set field 100.
    #[error("field 100 is the event id, which only a relay writes; leave it out")]
    Reserved,
    /// Not an alert, a log or a message.
    #[error("event kind {0} is not alert (1), log (2) or message (3)")]
    Kind(u64),
    /// A journal payload starts with the 16 bytes of the event id.
    #[error("a journal payload of {0} bytes has no room for an event id")]
    NoId(usize),
    /// A stream id is 8 bytes.
    #[error("a stream id of {0} bytes; expected 8")]
    Stream(usize),
    /// Sequences of a stream run from 1 to 2⁶⁴ − 1.
    #[error("a batch of {count} events cannot start at sequence {first}")]
    Sequence {
        /// Sequence of the first event.
        first: u64,
        /// Events in the batch.
        count: usize,
    },
}

/// Whether `payload` is a well-formed event of this kind that a sender may send.
///
/// # Errors
/// The first thing found wrong.
pub fn check(kind: Kind, payload: &[u8]) -> Result<(), Malformed> {
    if payload.len() > MAX_EVENT {
        return Err(Malformed::TooLarge {
            size: payload.len(),
            limit: MAX_EVENT,
        });
    }
    if plain(fields::table(kind), payload) {
        return Ok(());
    }
    let mut reserved = false;
    fields_of(kind, payload, |number| reserved |= number == ID_FIELD)?;
    if reserved {
        Err(Malformed::Reserved)
    } else {
        Ok(())
    }
}

/// As [`check`], but of any size and with field 100: an event that someone else has sent out.
pub(crate) fn well_formed(kind: Kind, payload: &[u8]) -> Result<(), Malformed> {
    fields_of(kind, payload, |_| {})
}

#[inline]
fn fields_of(kind: Kind, payload: &[u8], mut seen: impl FnMut(u32)) -> Result<(), Malformed> {
    let table = fields::table(kind);
    let mut walk = Walk::new(payload);
    while let Some((number, value)) = walk.next()? {
        seen(number);
        field(table, number, value, payload, walk.at(), 0)?;
    }
    Ok(())
}

/// One field that ends at `end` of the event, in a message nested `level` deep.
fn field(
    table: &Table,
    number: u32,
    value: Value<'_>,
    event: &[u8],
    end: usize,
    level: u32,
) -> Result<(), Malformed> {
    let Some(field) = table.by_number(number) else {
        return Ok(());
    };
    let bytes = field.expect(value)?;
    match field.ty {
        FieldType::Text | FieldType::TextList => well_written(bytes, field.name),
        FieldType::TextMap => entry(event, end - bytes.len(), end, field.name),
        FieldType::Message(nested) => {
            let mut walk = Walk::inside(event, end - bytes.len(), end, level + 1);
            while let Some((number, value)) = walk.next()? {
                self::field(nested, number, value, event, walk.at(), level + 1)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// One entry of a map: key 1, value 2, both text.
fn entry(event: &[u8], from: usize, to: usize, name: &'static str) -> Result<(), Malformed> {
    let mut walk = Walk::inside(event, from, to, 1);
    while let Some((number, value)) = walk.next()? {
        match (number, value) {
            (1 | 2, Value::Bytes(bytes)) => well_written(bytes, name)?,
            (1 | 2, other) => {
                return Err(Malformed::WireType {
                    name,
                    expected: "bytes",
                    found: other.name(),
                });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether a field's text is UTF-8.
#[inline]
pub(crate) fn well_written(bytes: &[u8], name: &'static str) -> Result<(), Malformed> {
    if is_utf8(bytes) {
        Ok(())
    } else {
        Err(Malformed::Utf8 { name })
    }
}

/// The text of a field.
#[inline]
pub(crate) fn utf8<'a>(bytes: &'a [u8], name: &'static str) -> Result<&'a str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed::Utf8 { name })
}
