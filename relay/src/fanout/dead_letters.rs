//! Events that a destination refused for good: a journal of their own for each sink.
//!
//! ```text
//! DATA/dead-letters/SINK/    a journal; made with the first dead letter; at its bound the oldest go, and are counted
//! record  kind, time: the event's kind, when it was refused
//! payload version u8 = 1 │ sequence in the relay's journal u64 │ reason len u32, UTF-8 │ event: id, original bytes
//! ```
//! Numbers are big-endian. A dead letter is on disk before the cursor moves past its event.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use journal::{Entry, Journal, RealDisk, Record};
use proto::Event;

use crate::log::unix_nanoseconds;

const VERSION: u8 = 1;
/// A longer answer of a destination is cut.
const MAX_REASON: usize = 4 << 10;
/// Small, so that little goes at a time when the oldest go.
const SEGMENT_BYTES: u64 = 4 << 20;

/// A refused event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where the event stood in the relay's journal.
    pub sequence: u64,
    /// Why it was refused, in the destination's words.
    pub reason: String,
    /// The event, to be sent again as it is.
    pub event: Event,
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
    fn to_record(&self, time: u64) -> Record {
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

/// One sink's dead letters.
pub(super) struct DeadLetters {
    path: PathBuf,
    max_size: u64,
    held: Mutex<Held>,
}

enum Held {
    /// Nothing has been refused yet.
    Nothing,
    Open(Journal),
    /// Let go of, with what there was.
    Closed(Count),
}

/// How many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// On disk.
    pub(super) kept: u64,
    /// Gone, to keep the bound.
    pub(super) dropped: u64,
}

impl Count {
    fn of(journal: &Journal) -> Count {
        let (first, committed) = (journal.first().0.max(1), journal.committed().0);
        Count {
            kept: (committed + 1).saturating_sub(first),
            dropped: first - 1,
        }
    }
}

impl DeadLetters {
    /// Opens what is there; without dead letters there is nothing on disk.
    pub(super) fn new(path: PathBuf, max_size: u64) -> Result<Self, String> {
        let there = path.exists();
        let dead_letters = DeadLetters {
            path,
            max_size,
            held: Mutex::new(Held::Nothing),
        };
        if there {
            dead_letters.open()?;
        }
        Ok(dead_letters)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks the thread when it opens.
    fn open(&self) -> Result<Journal, String> {
        let mut held = self.held();
        match &*held {
            Held::Nothing => {}
            Held::Open(journal) => return Ok(journal.clone()),
            Held::Closed(_) => return Err("the relay is stopping".to_owned()),
        }
        let disk = RealDisk::open(&self.path).map_err(|e| e.to_string())?;
        let config = journal::Config {
            segment_bytes: SEGMENT_BYTES,
            max_size: self.max_size,
            max_age: Duration::MAX,
            ..journal::Config::default()
        };
        let opened = Journal::open(Arc::new(disk), config, Box::new(()));
        let (journal, _found) = opened.map_err(|e| e.to_string())?;
        *held = Held::Open(journal.clone());
        Ok(journal)
    }

    /// Writes them; they are on disk when this returns.
    pub(super) async fn write(self: &Arc<Self>, letters: &[DeadLetter]) -> Result<(), String> {
        let here = Arc::clone(self);
        let opened = tokio::task::spawn_blocking(move || here.open()).await;
        let journal = opened.map_err(|e| e.to_string())??;
        let time = unix_nanoseconds();
        let records = letters
            .iter()
            .map(|letter| letter.to_record(time))
            .collect();
        journal
            .append(records)
            .await
            .map(drop)
            .map_err(|e| e.to_string())
    }

    pub(super) fn count(&self) -> Count {
        match &*self.held() {
            Held::Nothing => Count::default(),
            Held::Open(journal) => Count::of(journal),
            Held::Closed(count) => *count,
        }
    }

    /// Lets go of the folder. Nothing is written after that.
    pub(super) async fn close(&self) {
        let closed = Held::Closed(self.count());
        let was = std::mem::replace(&mut *self.held(), closed);
        if let Held::Open(journal) = was {
            // Joins the journal's thread. A panic there is told by the journal.
            let _ = tokio::task::spawn_blocking(move || journal.close()).await;
        }
    }

    pub(super) fn path(&self) -> &std::path::Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
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
