//! Names of things: streams, events, rules, digests. All print as lower-case hex of fixed width.
//!
//! An event id says who numbered the event and how, and nothing about where it has been:
//!
//! ```text
//! ┌──────────────────────┬──────────────────────┐
//! │ stream, 8 bytes      │ sequence, u64        │  16 bytes, big-endian, 32 hex digits
//! └──────────────────────┴──────────────────────┘
//!   random at each start   from 1, gapless
//!   of a sensor
//! ```
//!
//! The same event has the same id whichever relay carried it, however often. There is no machine id in it, so cloned
//! machines cannot collide.

use std::fmt;
use std::str::FromStr;

/// Text that is not the hex form of an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an id: expected {digits} hex digits")]
pub struct BadId {
    text: String,
    digits: usize,
}

/// One run of one sensor's verdicts or telemetry: 8 random bytes, drawn at each sensor start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub [u8; 8]);

impl StreamId {
    /// Draws a new stream from the operating system's generator.
    ///
    /// # Panics
    /// If the operating system has no random bytes, which getrandom(2) rules out once a machine has booted.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = [0; 8];
        #[expect(
            clippy::expect_used,
            reason = "without random bytes two sensors could share event ids; there is nothing to fall back to"
        )]
        getrandom::fill(&mut bytes).expect("the operating system gives no random bytes");
        StreamId(bytes)
    }
}

impl TryFrom<&[u8]> for StreamId {
    type Error = std::array::TryFromSliceError;

    fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
        bytes.try_into().map(StreamId)
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl FromStr for StreamId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        parse_hex(text).map(StreamId)
    }
}

/// The name of one event: its stream and its number in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    /// Who numbered it.
    pub stream: StreamId,
    /// Its number in that stream, from 1.
    pub sequence: u64,
}

impl EventId {
    /// How many bytes an id has in a journal payload and in protobuf field 100.
    pub const LEN: usize = 16;

    /// Stream, then sequence, big-endian: sorts as (stream, sequence).
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&self.stream.0);
        bytes[8..].copy_from_slice(&self.sequence.to_be_bytes());
        bytes
    }

    /// Appends the 32 hex digits that it is printed as; for those who print many.
    pub fn push_hex(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.digits());
    }

    /// The 32 hex digits that it is printed as; for those who print many.
    #[must_use]
    pub fn digits(self) -> [u8; 2 * Self::LEN] {
        let mut digits = [0; 2 * Self::LEN];
        let (pairs, _) = digits.as_chunks_mut::<2>();
        for (pair, byte) in pairs.iter_mut().zip(self.to_bytes()) {
            *pair = pair_of(byte);
        }
        digits
    }

    /// The reverse of [`EventId::to_bytes`].
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        let number = u128::from_be_bytes(bytes);
        let stream = ((number >> 64) as u64).to_be_bytes();
        EventId {
            stream: StreamId(stream),
            sequence: number as u64,
        }
    }
}

impl TryFrom<&[u8]> for EventId {
    type Error = std::array::TryFromSliceError;

    fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
        bytes.try_into().map(EventId::from_bytes)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.to_bytes(), f)
    }
}

impl FromStr for EventId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        parse_hex(text).map(EventId::from_bytes)
    }
}

/// One rule of one policy: a hash of kind, namespace, policy, section and the canonical rule. 0 is no rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RuleId(pub u64);

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0.to_be_bytes(), f)
    }
}

impl FromStr for RuleId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        parse_hex(text).map(|bytes| RuleId(u64::from_be_bytes(bytes)))
    }
}

/// A SHA-256: of a policy blob, or of a whole rule set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl TryFrom<&[u8]> for Digest {
    type Error = std::array::TryFromSliceError;

    fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
        bytes.try_into().map(Digest)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl FromStr for Digest {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        parse_hex(text).map(Digest)
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Appends the lower-case hex form of `bytes`.
pub(crate) fn push_hex(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        out.extend_from_slice(&pair_of(*byte));
    }
}

fn pair_of(byte: u8) -> [u8; 2] {
    [byte >> 4, byte & 15].map(|digit| HEX[usize::from(digit)])
}

/// Reads hex digits of either case; none if the count is odd or a digit is not one.
pub(crate) fn read_hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs
        .iter()
        .map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?))
        .collect()
}

fn digit(letter: u8) -> Option<u8> {
    // A digit of base 16 is at most 15.
    char::from(letter).to_digit(16).map(|digit| digit as u8)
}

pub(crate) fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

pub(crate) fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], BadId> {
    read_hex(text)
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| BadId {
            text: text.chars().take(80).collect(),
            digits: 2 * N,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_id_is_stream_then_sequence_big_endian() {
        let id = EventId {
            stream: StreamId([0xa0, 1, 2, 3, 4, 5, 6, 7]),
            sequence: 0x0102,
        };
        assert_eq!(id.to_string(), "a0010203040506070000000000000102");
        assert_eq!(id.to_string().parse(), Ok(id));
        let mut digits = Vec::new();
        id.push_hex(&mut digits);
        assert_eq!(digits, id.to_string().as_bytes());
        assert_eq!(digits, id.digits());
        assert_eq!(EventId::from_bytes(id.to_bytes()), id);
    }

    #[test]
    fn ids_sort_by_stream_and_then_by_sequence_as_their_bytes_do() {
        let low = EventId {
            stream: StreamId([0; 8]),
            sequence: u64::MAX,
        };
        let high = EventId {
            stream: StreamId([1; 8]),
            sequence: 1,
        };
        assert!(low < high && low.to_bytes() < high.to_bytes());
    }

    #[test]
    fn text_of_the_wrong_length_or_alphabet_is_no_id() {
        for text in [
            "",
            "a0",
            "a00102030405060700000000000001zz",
            "é0010203040506070000000000000102",
        ] {
            assert!(text.parse::<EventId>().is_err(), "{text}");
        }
        assert_eq!(
            "xy".parse::<RuleId>().map_err(|error| error.to_string()),
            Err("`xy` is not an id: expected 16 hex digits".to_owned())
        );
    }

    #[test]
    fn two_streams_are_not_the_same() {
        assert_ne!(StreamId::random(), StreamId::random());
    }
}
