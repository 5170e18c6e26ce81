//! Batches on the link: many events, numbered from the first.
//!
//! `Batch.events` holds each [`link::Event`] encoded. Taking one apart is two slices of the bytes that gRPC received; the
//! payload reaches the journal without having been copied or decoded.

use bytes::{BufMut, Bytes, BytesMut};

use crate::check::{MAX_BATCH, Malformed, check};
use crate::event::Kind;
use crate::ids::StreamId;
use crate::link;
use crate::walk::{Value, Walk};

/// A kind and the encoded event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawEvent {
    /// Which message the payload is.
    pub kind: Kind,
    /// The sender's bytes.
    pub payload: Bytes,
}

/// Events of one stream; number n has the sequence `first + n`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawBatch {
    /// Whose events.
    pub stream: StreamId,
    /// Sequence of the first.
    pub first: u64,
    /// In order, without gaps.
    pub events: Vec<RawEvent>,
}

impl RawBatch {
    /// The batch as it goes over the link.
    #[must_use]
    pub fn to_link(&self) -> link::Batch {
        link::Batch {
            stream: Bytes::copy_from_slice(&self.stream.0),
            first: self.first,
            events: self
                .events
                .iter()
                .map(|event| join(event.kind, &event.payload))
                .collect(),
        }
    }
}

/// A batch as it arrived: good framing, and a verdict on each event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Whose events.
    pub stream: StreamId,
    /// Sequence of the first.
    pub first: u64,
    /// In order; a malformed event keeps its place and its sequence, to be rejected by it.
    pub events: Vec<Result<RawEvent, Malformed>>,
}

/// Takes a batch apart and checks every event.
///
/// # Errors
/// The framing is bad: stream id, sequences or size. The events' own faults are in the answer.
pub fn receive(batch: link::Batch) -> Result<Received, Malformed> {
    let stream =
        StreamId::try_from(&batch.stream[..]).map_err(|_| Malformed::Stream(batch.stream.len()))?;
    let (first, count) = (batch.first, batch.events.len());
    if first == 0 || first.checked_add(count as u64).is_none() {
        return Err(Malformed::Sequence { first, count });
    }
    let size = batch.events.iter().map(Bytes::len).sum();
    if size > MAX_BATCH {
        return Err(Malformed::TooLarge {
            size,
            limit: MAX_BATCH,
        });
    }
    let events = batch.events.into_iter().map(|event| {
        let (kind, payload) = split(event)?;
        check(kind, &payload)?;
        Ok(RawEvent { kind, payload })
    });
    Ok(Received {
        stream,
        first,
        events: events.collect(),
    })
}

/// How many events an encoded [`link::FromSensor`] has, counted without making a place in memory for each. Bytes that are no
/// message count up to where they break; decoding says what is wrong.
#[must_use]
pub fn count(message: &[u8]) -> usize {
    // Field 2 of FromSensor is the batch, field 3 of that the events; a field that comes twice is joined.
    fields(message, 2)
        .map(|batch| fields(batch, 3).count())
        .sum()
}

fn fields(message: &[u8], wanted: u32) -> impl Iterator<Item = &[u8]> {
    let mut walk = Walk::new(message);
    std::iter::from_fn(move || {
        while let Ok(Some((number, value))) = walk.next() {
            if let (true, Value::Bytes(bytes)) = (number == wanted, value) {
                return Some(bytes);
            }
        }
        None
    })
}

/// Takes one encoded [`link::Event`] apart. The payload shares the memory of `event` and is not looked into.
///
/// # Errors
/// The bytes are no `link::Event`, or its kind is unknown.
pub fn split(event: Bytes) -> Result<(Kind, Bytes), Malformed> {
    let (mut kind, mut payload) = (0, 0..0);
    let mut walk = Walk::new(&event);
    while let Some(field) = walk.next()? {
        match field {
            (1, Value::Varint(number)) => kind = number,
            (2, Value::Bytes(bytes)) => payload = walk.at() - bytes.len()..walk.at(),
            (1, other) => return Err(wire_type("kind", "varint", other)),
            (2, other) => return Err(wire_type("payload", "bytes", other)),
            _ => {}
        }
    }
    let number = u8::try_from(kind).map_err(|_| Malformed::Kind(kind))?;
    Ok((Kind::try_from(number)?, event.slice(payload)))
}

/// Encodes a [`link::Event`]: the reverse of [`split`].
#[must_use]
pub fn join(kind: Kind, payload: &[u8]) -> Bytes {
    // Two keys of one byte, the kind, and a length of at most 10 bytes.
    let mut out = BytesMut::with_capacity(payload.len() + 13);
    out.put_slice(&[0x08, kind as u8, 0x12]);
    prost::encoding::encode_varint(payload.len() as u64, &mut out);
    out.put_slice(payload);
    out.freeze()
}

fn wire_type(name: &'static str, expected: &'static str, found: Value<'_>) -> Malformed {
    Malformed::WireType {
        name,
        expected,
        found: found.name(),
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::feeder;

    fn payload() -> Bytes {
        feeder::Log {
            pod_name: "cart".into(),
            ..Default::default()
        }
        .encode_to_vec()
        .into()
    }

    fn batch(first: u64, events: Vec<Bytes>) -> link::Batch {
        link::Batch {
            stream: Bytes::from_static(b"streamid"),
            first,
            events,
        }
    }

    #[test]
    fn an_event_splits_into_a_kind_and_a_slice_of_the_same_memory() {
        let event = link::Event {
            kind: link::EventKind::Log.into(),
            payload: payload(),
        };
        let bytes = Bytes::from(event.encode_to_vec());
        let (kind, payload) = split(bytes.clone()).unwrap();
        assert_eq!((kind, &payload), (Kind::Log, &self::payload()));
        assert!(bytes.as_ptr_range().contains(&payload.as_ptr()));
        assert_eq!(join(kind, &payload), bytes);
    }

    #[test]
    fn a_bad_event_keeps_its_place_and_spoils_no_other() {
        let good = join(Kind::Log, &payload());
        let bad = join(Kind::Log, b"\xff");
        let received = receive(batch(5, vec![good.clone(), bad, good])).unwrap();
        assert_eq!(received.first, 5);
        assert_eq!(
            received
                .events
                .iter()
                .map(Result::is_ok)
                .collect::<Vec<_>>(),
            [true, false, true]
        );
    }

    #[test]
    fn bad_framing_is_refused_whole() {
        let good = join(Kind::Log, &payload());
        let short = link::Batch {
            stream: Bytes::from_static(b"short"),
            ..batch(1, vec![])
        };
        assert_eq!(receive(short), Err(Malformed::Stream(5)));
        for first in [0, u64::MAX] {
            let error = Malformed::Sequence { first, count: 1 };
            assert_eq!(receive(batch(first, vec![good.clone()])), Err(error));
        }
        let large = join(Kind::Log, &vec![0; MAX_BATCH]);
        assert!(matches!(
            receive(batch(1, vec![large])),
            Err(Malformed::TooLarge { .. })
        ));
    }

    #[test]
    fn a_raw_batch_arrives_as_it_was_sent() {
        let event = RawEvent {
            kind: Kind::Log,
            payload: payload(),
        };
        let raw = RawBatch {
            stream: StreamId(*b"streamid"),
            first: 9,
            events: vec![event.clone()],
        };
        let received = receive(raw.to_link()).unwrap();
        assert_eq!((received.stream, received.first), (raw.stream, 9));
        assert_eq!(received.events, [Ok(event)]);
    }

    #[test]
    fn events_are_counted_as_decoding_finds_them() {
        let message = |events: usize| {
            let batch = batch(7, vec![Bytes::new(); events]);
            let is = Some(link::from_sensor::Is::Batch(batch));
            link::FromSensor { is }.encode_to_vec()
        };
        for events in [0, 1, 300] {
            assert_eq!(count(&message(events)), events);
        }
        // A part that comes twice is joined when it is decoded.
        assert_eq!(count(&[message(2), message(3)].concat()), 5);
        let whole = message(10);
        for cut in 0..whole.len() {
            assert!(count(&whole[..cut]) <= 10);
        }
        let hello = link::FromSensor {
            is: Some(link::from_sensor::Is::Hello(link::Hello::default())),
        };
        assert_eq!(count(&hello.encode_to_vec()), 0);
    }

    #[test]
    fn an_event_without_a_kind_is_refused() {
        assert_eq!(split(Bytes::new()), Err(Malformed::Kind(0)));
        assert_eq!(
            split(Bytes::from_static(&[0x08, 0x04])),
            Err(Malformed::Kind(4))
        );
        assert!(matches!(
            split(Bytes::from_static(&[0x0a, 0x00])),
            Err(Malformed::WireType { name: "kind", .. })
        ));
    }
}
