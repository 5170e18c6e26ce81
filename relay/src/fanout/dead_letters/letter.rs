//! One refused event, and how it is stored.
//!
//! ```text
//! record  kind, time: the event's kind, when it was refused
//! payload version u8 = 1 │ sequence in the relay's journal u64 │ reason len u32, UTF-8 │ event: id, original bytes
//! lost    kind 0, payload version u8 = 0: the place of a letter of which nothing is left
//! ```
//! Numbers are big-endian. The first line of the stored reason says why; lines after it are the destination's answer.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use journal::{Entry, Record};
use proto::Event;

const VERSION: u8 = 1;
const LOST: u8 = 0;
/// A longer answer of a destination is cut.
const MAX_REASON: usize = 4 << 10;

/// A refused event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where the event stood in the relay's journal.
    pub sequence: u64,
    /// Why it was refused: one line, then the destination's answer if there is more to it.
    pub reason: String,
    /// The event, to be sent again as it is.
    pub event: Event,
}

/// What takes the place of a letter of which nothing is left, so that no other gets its number.
pub(super) fn lost(time: u64) -> Record {
    Record {
        kind: 0,
        time,
        payload: Bytes::from_static(&[LOST]),
    }
}

/// Whether that stands there.
pub(super) fn is_lost(entry: &Entry) -> bool {
    entry.kind == 0 && *entry.payload == [LOST]
}

/// A record that is no dead letter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("dead letter {number} cannot be read: {reason}")]
pub struct BadDeadLetter {
    /// Its place among the dead letters.
    pub number: u64,
    /// What is wrong.
    pub reason: String,
}

impl DeadLetter {
    /// Why, in one line, and the destination's answer, which may be empty.
    #[must_use]
    pub fn reason_and_answer(&self) -> (&str, &str) {
        self.reason.split_once('\n').unwrap_or((&self.reason, ""))
    }

    pub(super) fn to_record(&self, time: u64) -> Record {
        let event = self.event.to_journal();
        let mut out = BytesMut::with_capacity(13 + self.reason.len() + event.len());
        let reason = &self.reason[..self.reason.floor_char_boundary(MAX_REASON)];
        out.put_u8(VERSION);
        out.put_u64(self.sequence);
        out.put_u32(reason.len() as u32);
        out.put_slice(reason.as_bytes());
        out.put_slice(&event);
        Record {
            kind: self.event.kind as u8,
            time,
            payload: out.freeze(),
        }
    }

    /// Reads one back; `time` of the entry is when it was refused.
    ///
    /// # Errors
    /// It was written by another version, or is no dead letter.
    pub fn read(entry: &Entry) -> Result<DeadLetter, BadDeadLetter> {
        parse(entry).map_err(|reason| BadDeadLetter {
            number: entry.seq.0,
            reason,
        })
    }
}

fn parse(entry: &Entry) -> Result<DeadLetter, String> {
    let mut from = entry.payload.clone();
    let short = |_| "it is cut short".to_owned();
    match from.try_get_u8().map_err(short)? {
        VERSION => {}
        other => {
            return Err(format!(
                "it has version {other}, this program reads {VERSION}"
            ));
        }
    }
    let sequence = from.try_get_u64().map_err(short)?;
    let reason = from.try_get_u32().map_err(short)? as usize;
    if reason > from.len() {
        return Err("it is cut short".to_owned());
    }
    let reason = String::from_utf8_lossy(&from.split_to(reason)).into_owned();
    let event = Event::from_journal(entry.kind, from).map_err(|e| e.to_string())?;
    Ok(DeadLetter {
        sequence,
        reason,
        event,
    })
}

#[cfg(test)]
mod tests {
    use journal::Seq;
    use proto::{EventId, Kind, StreamId};

    use super::*;

    fn letter(reason: &str) -> DeadLetter {
        let id = EventId {
            stream: StreamId([9; 8]),
            sequence: 4,
        };
        let event = Event {
            kind: Kind::Log,
            id,
            payload: Bytes::from_static(b"\x0a\x00"),
        };
        DeadLetter {
            sequence: 77,
            reason: reason.to_owned(),
            event,
        }
    }

    fn entry(letter: &DeadLetter) -> Entry {
        let Record {
            kind,
            time,
            payload,
        } = letter.to_record(5);
        Entry {
            seq: Seq(1),
            kind,
            time,
            payload,
        }
    }

    #[test]
    fn a_dead_letter_is_read_as_it_was_written() {
        let letter = letter("400 mapper_parsing_exception: ü");
        assert_eq!(DeadLetter::read(&entry(&letter)), Ok(letter));
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let read = DeadLetter::read(&entry(&letter(&"€".repeat(2000)))).unwrap();
        assert_eq!(read.reason, "€".repeat(MAX_REASON / 3));
    }

    #[test]
    fn a_record_cut_before_its_event_is_an_error_and_not_a_panic() {
        let whole = entry(&letter("no"));
        for cut in 0..13 + 2 + EventId::LEN {
            let entry = Entry {
                payload: whole.payload.slice(..cut),
                ..whole.clone()
            };
            assert!(DeadLetter::read(&entry).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn another_version_is_named() {
        let mut entry = entry(&letter("no"));
        entry.payload = Bytes::from_static(&[3]);
        let error = DeadLetter::read(&entry).unwrap_err().to_string();
        assert!(error.contains("version 3"), "{error}");
    }
}
