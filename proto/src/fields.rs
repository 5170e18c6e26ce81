//! Every field of every event: the one list.
//!
//! JSON and text order, the parser for imports, wire-type checks, the Elasticsearch template and the page on events all
//! come from these tables; nothing else names a field number. A column is written once and placed in each message under
//! that message's number:
//!
//! ```text
//! column  name, type, index type, OTel/ECS name, meaning        once
//!   └─ at(number) ─▶ Field ─▶ ALERT, LOG, MESSAGE               declaration order = JSON order, ours (≥ 100) last
//! ```
//!
//! Names below 100 are KubeArmor's and never change. A test holds the tables to the `.proto` descriptors, both ways.

use crate::check::Malformed;
use crate::event::Kind;
use crate::walk::Value;

/// Which fields to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FieldSet {
    /// KubeArmor's own, exactly what its client prints.
    KubeArmor,
    /// Ours too, after KubeArmor's.
    All,
}

/// What a field holds, and how JSON shows it.
#[derive(Debug, Clone, Copy)]
pub enum FieldType {
    /// UTF-8 text; a JSON string.
    Text,
    /// `repeated string`; a JSON array of strings.
    TextList,
    /// `map<string, string>`; a JSON object, keys in byte order.
    TextMap,
    /// A JSON number.
    Int32,
    /// A JSON number, also where protojson would write a string.
    Int64,
    /// A JSON number.
    Uint32,
    /// `optional uint32`: absent and 0 differ. A JSON number.
    OptionalUint32,
    /// A JSON number.
    Uint64,
    /// A 64-bit name; a JSON string of 16 hex digits, because numbers lose precision above 2⁵³ in most readers.
    Name64,
    /// Bytes; a JSON string of hex digits.
    Bytes,
    /// A message; a JSON object, present when set, even if empty.
    Message(&'static Table),
}

/// How an index should store a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IndexType {
    /// A point in time as RFC 3339 text.
    Date,
    /// A point in time as unix seconds.
    DateSeconds,
    /// Text to be compared whole.
    Keyword,
    /// Text to be compared whole, and searched by the words in it: paths, command lines, lists.
    KeywordText,
    /// A number in decimal text, to be compared as both.
    KeywordNumber,
    /// Text to be searched by words.
    Text,
    /// 32-bit signed.
    Integer,
    /// 64-bit signed; also for unsigned 32-bit.
    Long,
    /// 64-bit unsigned.
    UnsignedLong,
    /// An object with arbitrary keys, which must not become columns.
    Flattened,
    /// An object with the columns of its own table.
    Object,
}

/// One field of one message.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Protobuf field number in this message.
    pub number: u32,
    /// Protobuf and JSON name.
    pub name: &'static str,
    /// Name in OpenTelemetry's or ECS's vocabulary; `kubearmor.` or `cresset.` where they have none.
    pub otel: &'static str,
    /// How an index should store it.
    pub index: IndexType,
    /// What it holds.
    pub ty: FieldType,
    /// In JSON even when it is zero.
    pub keep_zero: bool,
    /// Not KubeArmor's: number 100 or above, printed with [`FieldSet::All`] only.
    pub ours: bool,
    /// What it means, in one sentence.
    pub meaning: &'static str,
    /// `,"Name":`
    pub(crate) key: &'static str,
}

impl Field {
    const fn at(mut self, number: u32) -> Field {
        self.number = number;
        self.ours = number >= 100;
        self
    }

    const fn kept_when_zero(mut self) -> Field {
        self.keep_zero = true;
        self
    }

    /// The bytes of a value with this field's wire type; empty for numbers.
    pub(crate) fn expect<'a>(&self, value: Value<'a>) -> Result<&'a [u8], Malformed> {
        use FieldType as T;
        let expected = match (self.ty, value) {
            (
                T::Text | T::TextList | T::TextMap | T::Bytes | T::Message(_),
                Value::Bytes(bytes),
            ) => {
                return Ok(bytes);
            }
            (T::Int32 | T::Int64 | T::Uint32 | T::OptionalUint32 | T::Uint64, Value::Varint(_))
            | (T::Name64, Value::Fixed64(_)) => return Ok(&[]),
            (T::Text | T::TextList | T::TextMap | T::Bytes | T::Message(_), _) => "bytes",
            (T::Int32 | T::Int64 | T::Uint32 | T::OptionalUint32 | T::Uint64, _) => "varint",
            (T::Name64, _) => "64-bit",
        };
        Err(Malformed::WireType {
            name: self.name,
            expected,
            found: value.name(),
        })
    }
}

/// What the key of a field on the wire, number and wire type together, says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// Position in the table; of no meaning where nothing is read.
    pub(crate) at: u8,
    pub(crate) how: How,
}

/// How the value behind a key is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// The table has no such field, or the field has another wire type.
    Not,
    Text,
    Bytes,
    TextList,
    TextMap,
    Message,
    Int32,
    Uint32,
    OptionalUint32,
    /// Signed or not.
    Whole64,
    Fixed64,
}

/// Protobuf's wire types, by number (<https://protobuf.dev/programming-guides/encoding/>).
const VARINT: u32 = 0;
const WIRE_FIXED64: u32 = 1;
const LENGTH_DELIMITED: u32 = 2;

impl How {
    /// With the wire type that such a field has.
    const fn of(ty: FieldType) -> (How, u32) {
        match ty {
            FieldType::Text => (How::Text, LENGTH_DELIMITED),
            FieldType::Bytes => (How::Bytes, LENGTH_DELIMITED),
            FieldType::TextList => (How::TextList, LENGTH_DELIMITED),
            FieldType::TextMap => (How::TextMap, LENGTH_DELIMITED),
            FieldType::Message(_) => (How::Message, LENGTH_DELIMITED),
            FieldType::Int32 => (How::Int32, VARINT),
            FieldType::Uint32 => (How::Uint32, VARINT),
            FieldType::OptionalUint32 => (How::OptionalUint32, VARINT),
            FieldType::Int64 | FieldType::Uint64 => (How::Whole64, VARINT),
            FieldType::Name64 => (How::Fixed64, WIRE_FIXED64),
        }
    }
}

/// The fields of one message, with an index by key on the wire.
#[derive(Debug)]
pub struct Table {
    fields: &'static [Field],
    /// Position in `fields` by field number; [`NONE`] where there is no such field.
    positions: [u8; NUMBERS],
    /// By key; a field number takes three bits more there.
    places: [Place; NUMBERS << 3],
    /// The bits of KubeArmor's fields, and of all.
    theirs: u64,
    all: u64,
    /// The bits of the fields that print when zero.
    kept: u64,
}

/// Field numbers are below that.
const NUMBERS: usize = 128;
const NONE: u8 = u8::MAX;

impl Table {
    /// In declaration order, which is the JSON order; ours last.
    #[must_use]
    pub const fn fields(&self) -> &'static [Field] {
        self.fields
    }

    /// Position of field `number`.
    #[inline]
    pub(crate) fn position(&self, number: u32) -> Option<usize> {
        match self.positions.get(number as usize) {
            Some(&position) if position != NONE => Some(usize::from(position)),
            _ => None,
        }
    }

    /// What a key on the wire says.
    #[inline]
    pub(crate) fn place(&self, key: usize) -> Place {
        const NOT: Place = Place {
            at: 0,
            how: How::Not,
        };
        self.places.get(key).copied().unwrap_or(NOT)
    }

    /// The field of that number.
    #[must_use]
    pub fn by_number(&self, number: u32) -> Option<&'static Field> {
        self.fields.get(self.position(number)?)
    }

    /// The field of that JSON name, letter for letter.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// The bits of [`Slots`](crate::slots::Slots) that belong to a field set.
    pub(crate) fn mask(&self, set: FieldSet) -> u64 {
        match set {
            FieldSet::KubeArmor => self.theirs,
            FieldSet::All => self.all,
        }
    }

    /// The bits of the fields that print when zero.
    pub(crate) fn kept(&self) -> u64 {
        self.kept
    }
}

const fn build(fields: &'static [Field]) -> Table {
    assert!(fields.len() <= 64, "presence is one bit a field in a u64");
    let mut table = Table {
        fields,
        positions: [NONE; NUMBERS],
        places: [Place {
            at: 0,
            how: How::Not,
        }; NUMBERS << 3],
        theirs: 0,
        all: 0,
        kept: 0,
    };
    let mut n = 0;
    while n < fields.len() {
        let (number, bit) = (fields[n].number as usize, 1 << n);
        assert!(
            number < NUMBERS && table.positions[number] == NONE,
            "each number once"
        );
        table.positions[number] = n as u8;
        let (how, wire) = How::of(fields[n].ty);
        table.places[number << 3 | wire as usize] = Place { at: n as u8, how };
        if !fields[n].ours {
            assert!(table.theirs == table.all, "our own fields come last");
            table.theirs |= bit;
        }
        table.all |= bit;
        if fields[n].keep_zero {
            table.kept |= bit;
        }
        n += 1;
    }
    table
}

/// Position of the field with that JSON name, at compile time; `NONE as usize` if there is none.
pub(crate) const fn position_of(table: &Table, name: &str) -> usize {
    let mut n = 0;
    while n < table.fields.len() {
        if same(table.fields[n].name.as_bytes(), name.as_bytes()) {
            return n;
        }
        n += 1;
    }
    NONE as usize
}

pub(crate) const fn same(a: &[u8], b: &[u8]) -> bool {
    let mut n = 0;
    while n < a.len() && n < b.len() && a[n] == b[n] {
        n += 1;
    }
    n == a.len() && n == b.len()
}

/// The fields of an event, in declaration order.
#[must_use]
pub fn of(kind: Kind) -> &'static [Field] {
    table(kind).fields
}

/// The fields of an event, with an index by number.
#[must_use]
pub fn table(kind: Kind) -> &'static Table {
    match kind {
        Kind::Alert => &ALERT,
        Kind::Log => &LOG,
        Kind::Message => &MESSAGE,
    }
}

mod columns;
use columns::*;

static OWNER_TABLE: Table = build(&[OWNER_REF.at(1), OWNER_NAME.at(2), OWNER_NAMESPACE.at(3)]);

static EXEC_EVENT_TABLE: Table = build(&[EXEC_EVENT_ID.at(1), EXEC_EVENT_NAME.at(2)]);

static LOST_TABLE: Table = build(&[
    LOST_WHERE.at(1),
    LOST_CLASS.at(2),
    LOST_COUNT.at(3),
    LOST_STREAM.at(4),
    LOST_FIRST.at(5),
    LOST_LAST.at(6),
    LOST_REASON.at(7),
]);

static AUDIT_TABLE: Table = build(&[
    AUDIT_ACTOR.at(1),
    AUDIT_ACTION.at(2),
    AUDIT_TARGET.at(3),
    AUDIT_DETAIL.at(4),
]);

pub(crate) static MESSAGE: Table = build(&[
    TIMESTAMP.at(1),
    UPDATED_TIME.at(2),
    CLUSTER_NAME.at(3),
    HOST_NAME.at(4),
    HOST_IP.at(5),
    TYPE.at(6),
    LEVEL.at(7),
    MESSAGE_TEXT.at(8),
    EVENT_ID.at(100),
    LOST.at(101),
    AUDIT.at(102),
]);

pub(crate) static ALERT: Table = build(&[
    TIMESTAMP.at(1),
    UPDATED_TIME.at(2),
    CLUSTER_NAME.at(3),
    HOST_NAME.at(4),
    NAMESPACE_NAME.at(5),
    OWNER.at(31),
    POD_NAME.at(6),
    LABELS.at(29),
    CONTAINER_ID.at(7),
    CONTAINER_NAME.at(8),
    CONTAINER_IMAGE.at(24),
    HOST_PPID.at(27),
    HOST_PID.at(9),
    PPID.at(10).kept_when_zero(),
    PID.at(11),
    UID.at(12).kept_when_zero(),
    PARENT_PROCESS_NAME.at(25),
    PROCESS_NAME.at(26),
    POLICY_NAME.at(13),
    SEVERITY.at(14),
    TAGS.at(15),
    ATAGS.at(30),
    MESSAGE_TEXT.at(16),
    TYPE.at(17),
    SOURCE.at(18),
    OPERATION.at(19),
    RESOURCE.at(20),
    DATA.at(21),
    EVENT_DATA.at(43),
    ENFORCER.at(28),
    ACTION.at(22),
    RESULT.at(23),
    CWD.at(32),
    TTY.at(33),
    MAX_ALERTS_PER_SEC.at(34),
    DROPPING_ALERTS_INTERVAL.at(35),
    EXEC_EVENT.at(36),
    KUBEARMOR_VERSION.at(37),
    NODE_ID.at(38),
    PROCESS_HASH.at(39),
    PARENT_HASH.at(40),
    RESOURCE_HASH.at(41),
    HASH_ALGO.at(42),
    USER_NAME.at(44),
    EVENT_ID.at(100),
    ARGS.at(110),
    ACCESS_MASK.at(111),
    OWNER_UID.at(112),
    SOURCE_IMAGE.at(113),
    TRUNCATED.at(114),
    DISPLAY_ONLY.at(115),
    EXEC_ID.at(116),
    PARENT_EXEC_ID.at(117),
    RULE_ID.at(118),
    TIER.at(119),
    POLICY_DIGEST.at(120),
]);

pub(crate) static LOG: Table = build(&[
    TIMESTAMP.at(1),
    UPDATED_TIME.at(2),
    CLUSTER_NAME.at(3),
    HOST_NAME.at(4),
    NAMESPACE_NAME.at(5),
    OWNER.at(24),
    POD_NAME.at(6),
    LABELS.at(23),
    CONTAINER_ID.at(7),
    CONTAINER_NAME.at(8),
    CONTAINER_IMAGE.at(19),
    PARENT_PROCESS_NAME.at(20),
    PROCESS_NAME.at(21),
    HOST_PPID.at(22),
    HOST_PID.at(9),
    PPID.at(10).kept_when_zero(),
    PID.at(11),
    UID.at(12).kept_when_zero(),
    TYPE.at(13),
    SOURCE.at(14),
    OPERATION.at(15),
    RESOURCE.at(16),
    DATA.at(17),
    EVENT_DATA.at(33),
    RESULT.at(18),
    CWD.at(25),
    TTY.at(26),
    EXEC_EVENT.at(27),
    NODE_ID.at(28),
    PROCESS_HASH.at(29),
    PARENT_HASH.at(30),
    RESOURCE_HASH.at(31),
    HASH_ALGO.at(32),
    USER_NAME.at(34),
    EVENT_ID.at(100),
    ARGS.at(110),
    ACCESS_MASK.at(111),
    OWNER_UID.at(112),
    SOURCE_IMAGE.at(113),
    TRUNCATED.at(114),
    DISPLAY_ONLY.at(115),
    EXEC_ID.at(116),
    PARENT_EXEC_ID.at(117),
    RULE_ID.at(118),
    TIER.at(119),
    POLICY_DIGEST.at(120),
]);
