//! An event on its way: what kind it is, what it is called, and the bytes that its sender wrote.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::check::Malformed;
use crate::ids::EventId;
use crate::link::EventKind;
use crate::view::View;

/// Which of KubeArmor's three messages an event is. The number is that of the link, the query service and the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// `feeder.Alert`: a policy had something to say.
    Alert = 1,
    /// `feeder.Log`: telemetry.
    Log = 2,
    /// `feeder.Message`: a sensor or relay speaking of itself.
    Message = 3,
}

impl Kind {
    /// All three, in the order of their numbers.
    pub const ALL: [Kind; 3] = [Kind::Alert, Kind::Log, Kind::Message];

    /// `Alert`, `Log` or `Message`: the protobuf message's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Alert => "Alert",
            Kind::Log => "Log",
            Kind::Message => "Message",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A number that is no kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("event kind {0} is not alert (1), log (2) or message (3)")]
pub struct UnknownKind(pub u64);

impl From<UnknownKind> for Malformed {
    fn from(UnknownKind(number): UnknownKind) -> Self {
        Malformed::Kind(number)
    }
}

impl From<Kind> for u8 {
    fn from(kind: Kind) -> u8 {
        kind as u8
    }
}

impl TryFrom<u8> for Kind {
    type Error = UnknownKind;

    fn try_from(number: u8) -> Result<Self, UnknownKind> {
        Kind::ALL
            .into_iter()
            .find(|&kind| kind as u8 == number)
            .ok_or(UnknownKind(u64::from(number)))
    }
}

impl From<Kind> for EventKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Alert => EventKind::Alert,
            Kind::Log => EventKind::Log,
            Kind::Message => EventKind::Message,
        }
    }
}

impl TryFrom<EventKind> for Kind {
    type Error = UnknownKind;

    fn try_from(kind: EventKind) -> Result<Self, UnknownKind> {
        match kind {
            EventKind::Alert => Ok(Kind::Alert),
            EventKind::Log => Ok(Kind::Log),
            EventKind::Message => Ok(Kind::Message),
            EventKind::Unspecified => Err(UnknownKind(0)),
        }
    }
}

/// One event, cheap to clone.
///
/// The payload is what [`check`](crate::check()) let in: an encoded `feeder.Alert`, `Log` or `Message` without field 100.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Which message the payload is.
    pub kind: Kind,
    /// Its name.
    pub id: EventId,
    /// The sender's bytes.
    pub payload: Bytes,
}

impl Event {
    /// Takes a journal record apart; copies nothing. The payload was checked before it was journaled and the journal has
    /// its own checksums, so it is not walked again.
    ///
    /// # Errors
    /// The kind is unknown, or the record is shorter than an id.
    pub fn from_journal(kind: u8, mut payload: Bytes) -> Result<Event, Malformed> {
        let kind = Kind::try_from(kind)?;
        let (id, _) = Event::parts(&payload)?;
        let id = EventId::from_bytes(*id);
        payload.advance(EventId::LEN);
        Ok(Event { kind, id, payload })
    }

    /// The id and the sender's bytes of a journal record, where they lie.
    ///
    /// # Errors
    /// The record is shorter than an id.
    pub fn parts(record: &[u8]) -> Result<(&[u8; EventId::LEN], &[u8]), Malformed> {
        let parts = record.split_first_chunk();
        parts.ok_or(Malformed::NoId(record.len()))
    }

    /// What the journal stores: the 16 bytes of the id, then the payload.
    #[must_use]
    pub fn to_journal(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(EventId::LEN + self.payload.len());
        out.put_slice(&self.id.to_bytes());
        out.put_slice(&self.payload);
        out.freeze()
    }

    /// The same of many. Neighbours share pieces of memory, which are soon free again.
    #[must_use]
    pub fn all_to_journal(events: &[Event]) -> Vec<Bytes> {
        let mut out = BytesMut::new();
        let record = |event: &Event| {
            let length = EventId::LEN + event.payload.len();
            if out.capacity() < length {
                out = BytesMut::with_capacity(length.max(PIECE));
            }
            out.put_slice(&event.id.to_bytes());
            out.put_slice(&event.payload);
            out.split().freeze()
        };
        events.iter().map(record).collect()
    }

    /// The fields that filters and metrics look at.
    #[must_use]
    pub fn view(&self) -> View<'_> {
        View::read(self.kind, &self.payload)
    }

    /// The event as it leaves as protobuf: the payload with the id appended as field 100, which old clients skip.
    #[must_use]
    pub fn with_id(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.len_with_id());
        self.put_with_id(&mut out);
        out.freeze()
    }

    /// Writes what [`Event::with_id`] gives behind what is in `out`.
    pub fn put_with_id(&self, out: &mut impl BufMut) {
        Event::put_parts(&self.id.to_bytes(), &self.payload, out);
    }

    /// The same of [`parts`](Event::parts).
    pub fn put_parts(id: &[u8; EventId::LEN], payload: &[u8], out: &mut impl BufMut) {
        out.put_slice(payload);
        out.put_slice(&ID_HEADER);
        out.put_slice(id);
    }

    /// The id that another relay put behind an event as [`Event::with_id`] does, and the event without it. These bytes may
    /// also be part of some other field that ends the same way, so whoever uses the rest has to [`check`](crate::check())
    /// it: then it would not be whole.
    #[must_use]
    pub fn split_id(payload: &Bytes) -> Option<(EventId, Bytes)> {
        let at = payload.len().checked_sub(ID_HEADER.len() + EventId::LEN)?;
        let id = payload[at..].strip_prefix(&ID_HEADER)?;
        Some((EventId::try_from(id).ok()?, payload.slice(..at)))
    }

    /// The length of what [`Event::with_id`] gives, in bytes.
    #[must_use]
    pub fn len_with_id(&self) -> usize {
        Event::len_of_parts(&self.payload)
    }

    /// The same of the sender's bytes.
    #[must_use]
    pub fn len_of_parts(payload: &[u8]) -> usize {
        payload.len() + ID_HEADER.len() + EventId::LEN
    }
}

/// Memory that records share on their way into the journal, in bytes.
const PIECE: usize = 32 << 10;

/// Key of field 100, length-delimited (100 << 3 | 2 = 802), then the length.
const ID_HEADER: [u8; 3] = [0xa2, 0x06, EventId::LEN as u8];

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::feeder;
    use crate::ids::StreamId;

    fn event() -> Event {
        let alert = feeder::Alert {
            pod_name: "cart".into(),
            ..Default::default()
        };
        Event {
            kind: Kind::Alert,
            id: EventId {
                stream: StreamId(*b"streamid"),
                sequence: 7,
            },
            payload: alert.encode_to_vec().into(),
        }
    }

    #[test]
    fn a_journal_record_gives_back_the_event() {
        let event = event();
        assert_eq!(Event::from_journal(1, event.to_journal()), Ok(event));
    }

    #[test]
    fn many_become_the_records_that_each_alone_becomes() {
        let large = |length| Event {
            payload: vec![7; length].into(),
            ..event()
        };
        let mut events = vec![event(), large(PIECE - 20), event(), large(3 * PIECE)];
        events.extend((0..1000).map(large));
        let each: Vec<Bytes> = events.iter().map(Event::to_journal).collect();
        assert_eq!(Event::all_to_journal(&events), each);
    }

    #[test]
    fn a_short_record_and_an_unknown_kind_are_refused() {
        assert_eq!(
            Event::from_journal(1, Bytes::from_static(&[0; 15])),
            Err(Malformed::NoId(15))
        );
        assert_eq!(
            Event::from_journal(4, event().to_journal()),
            Err(Malformed::Kind(4))
        );
    }

    #[test]
    fn the_id_leaves_in_field_100_and_changes_nothing_else() {
        let event = event();
        let alert = feeder::Alert::decode(event.with_id()).unwrap();
        assert_eq!(alert.event_id, event.id.to_bytes());
        assert_eq!(alert.pod_name, "cart");
        let without = feeder::Alert {
            event_id: Vec::new(),
            ..alert
        };
        assert_eq!(without.encode_to_vec(), event.payload);
    }

    #[test]
    fn the_id_comes_off_again_and_what_only_looks_like_one_leaves_no_event() {
        let event = event();
        assert_eq!(
            Event::split_id(&event.with_id()),
            Some((event.id, event.payload.clone()))
        );
        assert_eq!(Event::split_id(&event.payload), None);
        // 0xa2 0x06 can stand in text: the end of ¢ (0xc2 0xa2), and a control character.
        let alert = feeder::Alert {
            pod_name: format!("¢\u{6}\u{10}{}", "x".repeat(16)),
            ..Default::default()
        };
        let (_, rest) = Event::split_id(&alert.encode_to_vec().into()).unwrap();
        assert!(crate::check(Kind::Alert, &rest).is_err());
    }
}
