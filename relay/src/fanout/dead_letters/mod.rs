//! Events that a destination refused for good: a journal of their own for each sink.
//!
//! ```text
//! DATA/dead-letters/SINK/   a journal, made with the first dead letter
//!   *.seg                   letter.rs; at the bound the oldest go, and are counted
//!   kept.cursor             at the oldest that is kept; its state says which later ones are done with: settled.rs
//! ```
//! Beside it stands who did what to them: acts.rs. A dead letter is on disk before the sink's own cursor moves past its event, and stays until somebody retries it with
//! success, drops it, or the bound is reached. A segment goes once all its letters are done with.

mod acts;
mod letter;
mod settled;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use journal::{Cursor, CursorError, CursorOptions, Journal, RealDisk, Seq, Start};

pub use self::letter::{BadDeadLetter, DeadLetter};

use self::acts::Acts;
use self::settled::Settled;
use crate::log::unix_nanoseconds;

pub(super) use self::acts::Act;
pub(super) use self::settled::Fate;

/// Small, so that little goes at a time when the oldest go.
const SEGMENT_BYTES: u64 = 4 << 20;
/// What is asked of the disk at one time.
const READ_BYTES: usize = 1 << 20;
/// The cursor.
const KEPT: &str = "kept";

/// One sink's dead letters.
pub(super) struct DeadLetters {
    path: PathBuf,
    acts: Acts,
    max_size: AtomicU64,
    held: Mutex<Held>,
    /// Held by whoever settles: one at a time.
    settling: tokio::sync::Mutex<()>,
}

enum Held {
    /// Nothing has been refused yet.
    Nothing,
    Open(Arc<Store>),
    /// Let go of, with what there was.
    Closed(Count),
}

/// The journal, open.
struct Store {
    journal: Journal,
    cursor: Cursor,
    settled: Mutex<Settled>,
}

/// How many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// On disk, to be seen to.
    pub(super) kept: u64,
    /// Gone, to keep the bound.
    pub(super) overrun: u64,
    /// Sent again with success.
    pub(super) retried: u64,
    /// Dropped by somebody.
    pub(super) dropped: u64,
}

/// A dead letter in its place.
pub(crate) struct Kept {
    /// Among the sink's dead letters.
    pub(crate) number: u64,
    /// When it was refused, in unix nanoseconds.
    pub(crate) time: u64,
    pub(crate) letter: Result<DeadLetter, BadDeadLetter>,
}

/// A letter, and what became of it.
pub(super) struct Found {
    /// Among the sink's dead letters.
    pub(super) number: u64,
    pub(super) became: Became,
    /// When it was refused, in unix nanoseconds.
    pub(super) time: u64,
    pub(super) letter: DeadLetter,
}

/// What became of a letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Became {
    /// It is still to be seen to.
    Kept,
    /// It is done with, and who did what is known.
    Settled(Act),
    /// It is done with, and what became of it is known if it is not long ago.
    Done(Option<Fate>),
}

/// Some of the letters that are kept, in order.
#[derive(Default)]
pub(crate) struct Part {
    pub(crate) letters: Vec<Kept>,
    /// Where the next part begins; none: this was the last.
    pub(crate) next: Option<u64>,
}

// === impl DeadLetters ===

impl DeadLetters {
    /// Opens what is there; without dead letters there is nothing on disk.
    pub(super) fn new(path: PathBuf, max_size: u64) -> Result<Self, String> {
        let there = path.exists();
        let dead_letters = DeadLetters {
            acts: Acts::beside(&path),
            path,
            max_size: AtomicU64::new(max_size),
            held: Mutex::new(Held::Nothing),
            settling: tokio::sync::Mutex::default(),
        };
        if there {
            dead_letters.open()?;
        }
        Ok(dead_letters)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is open already.
    fn store(&self) -> Option<Arc<Store>> {
        match &*self.held() {
            Held::Open(store) => Some(Arc::clone(store)),
            Held::Nothing | Held::Closed(_) => None,
        }
    }

    /// Blocks the thread when it opens.
    fn open(&self) -> Result<Arc<Store>, String> {
        let mut held = self.held();
        match &*held {
            Held::Nothing => {}
            Held::Open(store) => return Ok(Arc::clone(store)),
            Held::Closed(_) => return Err("the relay is stopping".to_owned()),
        }
        let store = Arc::new(Store::open(
            &self.path,
            self.max_size.load(Ordering::Relaxed),
        )?);
        *held = Held::Open(Arc::clone(&store));
        Ok(store)
    }

    /// Writes them; they are on disk when this returns.
    pub(super) async fn write(self: &Arc<Self>, letters: &[DeadLetter]) -> Result<(), String> {
        let here = Arc::clone(self);
        let opened = tokio::task::spawn_blocking(move || here.open()).await;
        let store = opened.map_err(|e| e.to_string())??;
        let time = unix_nanoseconds();
        let records = letters
            .iter()
            .map(|letter| letter.to_record(time))
            .collect();
        let written = store.journal.append(records).await;
        written.map(drop).map_err(|e| e.to_string())
    }

    /// Reads the letters that are kept, from `from` on and before `until`. Blocks the thread.
    pub(super) fn read(&self, from: u64, until: u64) -> Result<Part, String> {
        match self.store() {
            Some(store) => store.read(from, until),
            None => Ok(Part::default()),
        }
    }

    /// One past the newest letter.
    pub(super) fn end(&self) -> u64 {
        self.store()
            .map_or(1, |store| store.journal.committed().0 + 1)
    }

    /// Whether some that were there are not on disk any more.
    pub(super) fn some_are_gone(&self) -> bool {
        self.store()
            .is_some_and(|store| store.journal.first() > Seq(1))
    }

    /// Puts down what became of some letters and by whom; durable when this returns. Letters that are gone by now stay gone.
    pub(super) async fn settle(
        self: &Arc<Self>,
        letters: &[u64],
        fate: Fate,
        by: String,
    ) -> Result<(), String> {
        let _turn = self.settling.lock().await;
        let store = self.store().ok_or("the relay is stopping")?;
        store.settle(letters, fate).await?;
        let (here, letters, at) = (
            Arc::clone(self),
            letters.to_vec(),
            unix_nanoseconds() / 1_000_000,
        );
        let adding = move || here.acts.add(&letters, fate, at, &by);
        // A panic has been told, and ends only this note.
        if let Ok(Err(error)) = tokio::task::spawn_blocking(adding).await {
            tracing::warn!(%error, path = %self.path.display(), "who settled dead letters cannot be noted; the audit trail has it");
        }
        Ok(())
    }

    pub(super) fn count(&self) -> Count {
        match &*self.held() {
            Held::Nothing => Count::default(),
            Held::Open(store) => store.count(),
            Held::Closed(count) => *count,
        }
    }

    /// Lets go of the folder. Nothing is written after that.
    pub(super) async fn close(&self) {
        let closed = Held::Closed(self.count());
        let was = std::mem::replace(&mut *self.held(), closed);
        if let Held::Open(store) = was {
            let journal = store.journal.clone();
            // Joins the journal's thread. A panic there is told by the journal.
            let _ = tokio::task::spawn_blocking(move || journal.close()).await;
        }
    }

    /// Gives them another bound. Whoever writes meanwhile is refused, and tries again.
    pub(super) async fn resize(self: &Arc<Self>, max_size: u64) -> Result<(), String> {
        if self.max_size.swap(max_size, Ordering::Relaxed) == max_size {
            return Ok(());
        }
        let Some(store) = self.store() else {
            return Ok(());
        };
        let here = Arc::clone(self);
        let reopened = tokio::task::spawn_blocking(move || {
            let mut held = here.held();
            // Joins the journal's thread, which frees the folder.
            store.journal.clone().close();
            *held = Held::Nothing;
            drop(held);
            here.open().map(drop)
        });
        reopened.await.map_err(|e| e.to_string())?
    }

    /// Shows all that are on disk, oldest first, whether they are done with or not. Blocks the thread.
    pub(super) fn look(&self, each: impl FnMut(Found)) -> Result<(), String> {
        let acts = self.acts.read();
        self.store().map_or(Ok(()), |store| store.look(&acts, each))
    }

    pub(super) fn path(&self) -> &std::path::Path {
        &self.path
    }
}

// === impl Store ===

impl Store {
    fn open(path: &std::path::Path, max_size: u64) -> Result<Store, String> {
        // Letters of a version that had no cursor must not go before there is one.
        let has_cursor = path.join(format!("{KEPT}.cursor")).exists();
        let is_new = !path.exists();
        let disk = RealDisk::open(path).map_err(|e| e.to_string())?;
        let config = journal::Config {
            segment_bytes: SEGMENT_BYTES,
            max_size,
            // What is done with goes at once; what is not, the cursor holds.
            max_age: if has_cursor || is_new {
                Duration::ZERO
            } else {
                Duration::MAX
            },
            ..journal::Config::default()
        };
        let opened = Journal::open(Arc::new(disk), config, Box::new(()));
        let (journal, _found) = opened.map_err(|e| e.to_string())?;
        let options = CursorOptions {
            start: Start::Beginning,
            ..CursorOptions::default()
        };
        let cursor = journal.cursor(KEPT, options).map_err(|e| e.to_string())?;
        let settled = match cursor.state() {
            None => Settled::default(),
            Some(state) => Settled::load(state).unwrap_or_else(|why| {
                tracing::error!(path = %path.display(), why, "which dead letters are done with cannot be read; those after the oldest that is kept are kept again");
                Settled::default()
            }),
        };
        Ok(Store {
            journal,
            cursor,
            settled: Mutex::new(settled),
        })
    }

    fn settled(&self) -> MutexGuard<'_, Settled> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, from: u64, until: u64) -> Result<Part, String> {
        let from = from.max(self.cursor.position().0);
        let mut reader = self.journal.reader(Seq(from));
        let block = reader.next(READ_BYTES).map_err(|e| e.to_string())?;
        let settled = self.settled();
        let entries = block.entries.iter();
        let kept = entries.filter(|entry| entry.seq.0 < until && !settled.has(entry.seq.0));
        let letters = kept
            .map(|entry| Kept {
                number: entry.seq.0,
                time: entry.time,
                letter: DeadLetter::read(entry),
            })
            .collect();
        let more = !block.is_empty() && block.next.0 < until;
        Ok(Part {
            letters,
            next: more.then_some(block.next.0),
        })
    }

    fn look(&self, acts: &[Act], mut each: impl FnMut(Found)) -> Result<(), String> {
        let mut reader = self.journal.reader(self.journal.first());
        loop {
            let block = reader.next(READ_BYTES).map_err(|e| e.to_string())?;
            if block.is_empty() {
                return Ok(());
            }
            for entry in &block.entries {
                let Ok(letter) = DeadLetter::read(entry) else {
                    continue;
                };
                each(Found {
                    number: entry.seq.0,
                    became: self.became(entry.seq.0, acts),
                    time: entry.time,
                    letter,
                });
            }
        }
    }

    fn became(&self, letter: u64, acts: &[Act]) -> Became {
        let fate = self.settled().fate(letter);
        if fate.is_none() && letter >= self.cursor.position().0 {
            return Became::Kept;
        }
        let act = acts.iter().find(|act| act.is_of(letter)).cloned();
        act.map_or(Became::Done(fate), Became::Settled)
    }

    async fn settle(&self, letters: &[u64], fate: Fate) -> Result<(), String> {
        let low = self.cursor.position().0;
        let mut settled = self.settled().clone();
        for &letter in letters.iter().filter(|letter| **letter >= low) {
            settled.put(letter, fate);
        }
        let (to, account) = settled.take_front(low);
        let state = Some(settled.save());
        match self.cursor.advance(Seq(to), account, state).await {
            // After an error of the disk it holds in memory and is written again by the journal.
            Ok(()) | Err(CursorError::Disk { .. }) => {}
            Err(CursorError::State { .. }) => {
                return Err("too many single letters are done with among older ones that are kept; retry or drop the oldest first".to_owned());
            }
            Err(other) => return Err(other.to_string()),
        }
        *self.settled() = settled;
        Ok(())
    }

    fn count(&self) -> Count {
        let stats = self.cursor.stats();
        let settled = self.settled();
        let (retried, dropped) = settled.count_from(stats.position.0);
        let (all_retried, all_dropped) = settled.count_from(0);
        let below = (all_retried + all_dropped) - (retried + dropped);
        Count {
            kept: stats.pending.saturating_sub(retried + dropped),
            overrun: (stats.account.expired + stats.account.corrupt).saturating_sub(below),
            retried: stats.account.delivered + all_retried,
            dropped: stats.account.filtered + all_dropped,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proto::{Event, EventId, Kind, StreamId};

    use super::*;

    fn letter(number: u64) -> DeadLetter {
        let id = EventId {
            stream: StreamId([9; 8]),
            sequence: number,
        };
        let event = Event {
            kind: Kind::Log,
            id,
            payload: Bytes::from(vec![0; 2000]),
        };
        DeadLetter {
            sequence: number,
            reason: format!("400 no {number}"),
            event,
        }
    }

    async fn filled(path: PathBuf, letters: std::ops::RangeInclusive<u64>) -> Arc<DeadLetters> {
        let dead = Arc::new(DeadLetters::new(path, 8 << 20).unwrap());
        let letters: Vec<DeadLetter> = letters.map(letter).collect();
        dead.write(&letters).await.unwrap();
        dead
    }

    fn kept(dead: &DeadLetters) -> Vec<u64> {
        let (mut all, mut from) = (Vec::new(), Some(0));
        while let Some(at) = from {
            let part = dead.read(at, dead.end()).unwrap();
            all.extend(part.letters.iter().map(|kept| kept.number));
            from = part.next;
        }
        all
    }

    #[tokio::test]
    async fn letters_that_are_done_with_stay_so_in_the_next_life() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("siem");
        let dead = filled(path.clone(), 1..=6).await;
        dead.settle(&[2, 3], Fate::Retried, "me".to_owned())
            .await
            .unwrap();
        dead.settle(&[5], Fate::Dropped, "me".to_owned())
            .await
            .unwrap();
        assert_eq!(kept(&dead), [1, 4, 6]);
        dead.settle(&[1], Fate::Dropped, "me".to_owned())
            .await
            .unwrap();
        let count = Count {
            kept: 2,
            overrun: 0,
            retried: 2,
            dropped: 2,
        };
        assert_eq!(dead.count(), count);
        dead.close().await;
        assert_eq!(dead.count(), count);
        drop(dead);
        let dead = Arc::new(DeadLetters::new(path, 8 << 20).unwrap());
        assert_eq!((kept(&dead), dead.count()), (vec![4, 6], count));
        dead.settle(&[4, 6, 6, 1], Fate::Retried, "me".to_owned())
            .await
            .unwrap();
        assert_eq!(
            (kept(&dead), dead.count().kept, dead.count().retried),
            (vec![], 0, 4)
        );
        dead.close().await;
    }

    #[tokio::test]
    async fn at_the_bound_the_oldest_go_and_every_letter_is_counted_once() {
        let folder = tempfile::tempdir().unwrap();
        let dead = filled(folder.path().join("siem"), 1..=1000).await;
        dead.settle(&[3, 7], Fate::Retried, "me".to_owned())
            .await
            .unwrap();
        for round in 1..8 {
            let more: Vec<DeadLetter> = (1..=1000).map(|n| letter(round * 1000 + n)).collect();
            dead.write(&more).await.unwrap();
        }
        let Count {
            kept,
            overrun,
            retried,
            dropped,
        } = dead.count();
        assert!(overrun > 0 && kept > 0, "{:?}", dead.count());
        assert_eq!((kept + overrun + retried + dropped, retried), (8000, 2));
        let first = dead.read(0, dead.end()).unwrap().letters[0].number;
        dead.settle(&[first], Fate::Dropped, "me".to_owned())
            .await
            .unwrap();
        let after = dead.count();
        assert_eq!(
            after.kept + after.overrun + after.retried + after.dropped,
            8000
        );
        assert_eq!((after.retried, after.dropped), (2, 1));
        dead.close().await;
    }
}
