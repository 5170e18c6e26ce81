//! Events as they lie on the wire of a gRPC stream, encoded once for everybody.
//!
//! ```text
//! ┌─────────┬────────────┬────────────────────────────┬──────────────────────┐
//! │ 0 (u8)  │ length u32 │ the sender's bytes         │ field 100: the id    │  × events of the block
//! └─────────┴────────────┴────────────────────────────┴──────────────────────┘
//!  not compressed, big-endian  (gRPC over HTTP/2: Length-Prefixed-Message)
//! ```
//! Nothing is decoded: the journal's payload is the id followed by the sender's bytes, and the frame is the same
//! bytes in another order.

use bytes::{Bytes, BytesMut};
use journal::{Entry, Seq};
use proto::{Event, Kind};

use super::ring::Content;
use crate::framed::{HEADER, put_header};

/// One event in a block of frames.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Mark {
    seq: Seq,
    /// When it was journaled, in unix nanoseconds.
    time: u64,
    /// Where its frame begins.
    at: usize,
}

/// The frames of one kind of event in a block of the journal.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    bytes: Bytes,
    marks: Vec<Mark>,
}

impl Frames {
    /// Encodes the events of one kind.
    pub(crate) fn encode(kind: Kind, entries: &[Entry]) -> Frames {
        let of_kind = entries.iter().filter(|entry| entry.kind == u8::from(kind));
        let size = of_kind
            .clone()
            .map(|entry| entry.payload.len() + HEADER + ID_FIELD)
            .sum();
        let mut bytes = BytesMut::with_capacity(size);
        let mut marks = Vec::new();
        for entry in of_kind {
            let Ok((id, payload)) = Event::parts(&entry.payload) else {
                continue;
            };
            marks.push(Mark {
                seq: entry.seq,
                time: entry.time,
                at: bytes.len(),
            });
            put_header(&mut bytes, Event::len_of_parts(payload));
            Event::put_parts(id, payload, &mut bytes);
        }
        Frames {
            bytes: bytes.freeze(),
            marks,
        }
    }

    /// How many events from `seq` on, and when the first of them was journaled.
    pub(crate) fn count_from(&self, seq: Seq) -> (u64, Option<u64>) {
        let first = self.first(seq);
        let count = self.marks.len() - first;
        (count as u64, self.marks.get(first).map(|mark| mark.time)) // usize is at most 64 bits
    }

    /// The frames of the events from `seq` on; shares the block's memory.
    pub(crate) fn from(&self, seq: Seq) -> Bytes {
        match self.marks.get(self.first(seq)) {
            Some(mark) => self.bytes.slice(mark.at..),
            None => Bytes::new(),
        }
    }

    fn first(&self, seq: Seq) -> usize {
        self.marks.partition_point(|mark| mark.seq < seq)
    }
}

impl Content for Frames {
    fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    fn size(&self) -> usize {
        self.bytes.len() + self.marks.len() * size_of::<Mark>()
    }
}

/// Bytes by which a frame's event is longer than its record, which has the id, too, but no key and length before it.
const ID_FIELD: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seq: u64, kind: u8, payload: &[u8]) -> Entry {
        let payload = [&[9; 16], payload].concat();
        Entry {
            seq: Seq(seq),
            kind,
            time: seq * 10,
            payload: payload.into(),
        }
    }

    #[test]
    fn a_frame_is_the_senders_bytes_and_the_id_as_field_100() {
        let frames = Frames::encode(
            Kind::Alert,
            &[entry(1, 1, b"abc"), entry(2, 2, b"log"), entry(4, 1, b"d")],
        );
        let id = [9; 16];
        let first = [&[0, 0, 0, 0, 22][..], b"abc", &[0xa2, 0x06, 16], &id].concat();
        let second = [&[0, 0, 0, 0, 20][..], b"d", &[0xa2, 0x06, 16], &id].concat();
        assert_eq!(frames.from(Seq(1)), [first, second.clone()].concat());
        assert_eq!(frames.from(Seq(2)), second);
        assert_eq!(frames.from(Seq(5)), Bytes::new());
        assert_eq!(frames.count_from(Seq(2)), (1, Some(40)));
        assert_eq!(frames.count_from(Seq(5)), (0, None));
    }

    #[test]
    fn records_that_are_no_events_are_left_out() {
        let short = Entry {
            seq: Seq(1),
            kind: 1,
            time: 0,
            payload: Bytes::from_static(b"short"),
        };
        assert!(Frames::encode(Kind::Alert, &[short]).is_empty());
    }
}
