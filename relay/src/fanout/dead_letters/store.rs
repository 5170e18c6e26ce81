//! The journal of one sink's dead letters, open.
//!
//! A letter that cannot be read any more is lost: it is settled as damaged, durably, so the cursor passes it like one that was
//! retried. That is found out
//!
//! - at the opening for the newest segment, which the journal walks then, and soon after it for all others;
//! - whenever letters are read;
//! - at the end, where nothing is left to be read: the sink's own account says how many letters there were, and each that is
//!   missing gets a record in its place, so that its number, which may be done with already, goes to no other.

use std::future;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::executor;
use journal::{
    Block, Cursor, CursorError, CursorOptions, Journal, Opened, Reader, RealDisk, Seq, Start,
};

use super::letter::{self, DeadLetter};
use super::settled::{Fate, Settled};
use super::{Act, Became, Count, Found, Kept, Part};
use crate::log::unix_nanoseconds;

/// Small, so that little goes at a time when the oldest go.
const SEGMENT_BYTES: u64 = 4 << 20;
/// What is asked of the disk at one time.
const READ_BYTES: usize = 1 << 20;
/// As often is a reader asked that the disk fails: then it reads around what cannot be read.
const TRIES: usize = 4;
/// Records written together in the place of lost ones: far below the smallest bound.
const TOGETHER: usize = 16 << 10;
/// The cursor.
const KEPT: &str = "kept";

/// The journal, open.
pub(super) struct Store {
    pub(super) journal: Journal,
    cursor: Cursor,
    settled: Mutex<Settled>,
    pub(super) found: AtOpening,
}

/// What the opening found of letters, and of what was known of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::fanout) struct AtOpening {
    /// Letters that are lost now and were not before.
    pub(in crate::fanout) damaged: u64,
    /// Bytes of a write that a crash interrupted: of letters that nobody counted yet.
    pub(in crate::fanout) cut_bytes: u64,
    /// Which are done with could not be read: they are kept again.
    pub(in crate::fanout) forgotten: bool,
}

/// A move of the cursor on its way to the disk.
type Moving<'a> = Pin<Box<dyn Future<Output = Result<(), CursorError>> + Send + 'a>>;

impl Store {
    /// `refused` letters were written at the least, here or elsewhere. Blocks the thread.
    pub(super) fn open(path: &Path, max_size: u64, refused: u64) -> Result<Store, String> {
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
        let (journal, opened) = opened.map_err(|e| e.to_string())?;
        let options = CursorOptions {
            start: Start::Beginning,
            ..CursorOptions::default()
        };
        let cursor = journal.cursor(KEPT, options).map_err(|e| e.to_string())?;
        let mut forgotten = opened.cursors_lost.iter().any(|name| name == KEPT);
        let settled = cursor
            .state()
            .map_or_else(|| Ok(Settled::default()), Settled::load);
        let settled = settled.unwrap_or_else(|why| {
            tracing::error!(path = %path.display(), why, "which dead letters are done with cannot be read; those after the oldest that is kept are kept again");
            forgotten = true;
            Settled::default()
        });
        let mut store = Store {
            journal,
            cursor,
            settled: Mutex::new(settled),
            found: AtOpening {
                forgotten,
                ..AtOpening::default()
            },
        };
        if opened.created {
            store.begin(refused)?;
        } else {
            store.mend(&opened, refused)?;
        }
        if store.found.damaged > 0 {
            let damaged = store.found.damaged;
            tracing::error!(path = %path.display(), damaged, "dead letters are damaged on disk and lost");
        }
        Ok(store)
    }

    /// What the sink's account has of letters before the first one here says nothing of these.
    fn begin(&self, refused: u64) -> Result<(), String> {
        if refused == 0 {
            return Ok(());
        }
        self.settled().elsewhere = refused;
        let state = Some(self.settled().save());
        let moved = self
            .cursor
            .advance(self.cursor.position(), journal::Account::default(), state);
        block_on(moved).map_err(|e| e.to_string())
    }

    /// Settles what the opening shows to be lost.
    fn mend(&mut self, opened: &Opened, refused: u64) -> Result<(), String> {
        let before = self.count().damaged;
        let missing = self.fill(refused)?;
        let mut from = (opened.corrupt + opened.torn > 0).then_some(opened.newest.0);
        while let Some(at) = from {
            from = self.look_on(at)?;
        }
        self.found.damaged = self.count().damaged - before;
        // What was cut held letters that are known to be missing.
        self.found.cut_bytes = if missing { 0 } else { opened.cut_bytes };
        Ok(())
    }

    /// Puts records in the places of letters that are missing at the end; answers whether there are any.
    fn fill(&self, refused: u64) -> Result<bool, String> {
        let (here, last) = {
            let settled = self.settled();
            (refused.saturating_sub(settled.elsewhere), settled.last())
        };
        let written = self.journal.committed().0;
        let missing = here.max(last).saturating_sub(written);
        let time = unix_nanoseconds();
        let mut left = usize::try_from(missing).map_err(|e| e.to_string())?;
        while left > 0 {
            let records = vec![letter::lost(time); left.min(TOGETHER)];
            left -= records.len();
            let added = block_on(self.journal.append(records));
            added.map_err(|why| {
                format!("the places of {missing} lost letters cannot be taken: {why}")
            })?;
        }
        self.lose((written + 1..).take(missing as usize));
        Ok(missing > 0)
    }

    fn settled(&self) -> MutexGuard<'_, Settled> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the oldest letter that is kept may be, if there is any.
    pub(super) fn oldest(&self) -> Option<u64> {
        let position = self.cursor.position();
        (position <= self.journal.committed()).then_some(position.0)
    }

    /// Looks at some letters from there on for damage; answers where to look next.
    pub(super) fn look_on(&self, from: u64) -> Result<Option<u64>, String> {
        let block = self.block(from)?;
        Ok((!block.is_empty()).then_some(block.next.0))
    }

    pub(super) fn read(&self, from: u64, until: u64) -> Result<Part, String> {
        let block = self.block(from)?;
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

    /// Reads some from there on, at most from the oldest that is kept. What cannot be read is settled as damaged.
    fn block(&self, from: u64) -> Result<Block, String> {
        let from = from.max(self.cursor.position().0);
        let block = patiently(&mut self.journal.reader(Seq(from)))?;
        // What retention removed meanwhile is behind the cursor now, and no news.
        let skipped = block
            .skipped
            .iter()
            .flat_map(|lost| lost.start.0..lost.end.0);
        let places = block.entries.iter().filter(|entry| letter::is_lost(entry));
        let places = places.map(|entry| entry.seq.0);
        self.lose(skipped.chain(places));
        Ok(block)
    }

    pub(super) fn look(&self, acts: &[Act], mut each: impl FnMut(Found)) -> Result<(), String> {
        let mut reader = self.journal.reader(self.journal.first());
        loop {
            let block = patiently(&mut reader)?;
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

    pub(super) async fn settle(&self, letters: &[u64], fate: Fate) -> Result<(), String> {
        let moving = self.put(letters.iter().copied(), fate);
        let moved = match moving {
            Ok(moving) => moving.await,
            Err(why) => Err(why),
        };
        match moved {
            // After an error of the disk it holds in memory and is written again by the journal.
            Ok(()) | Err(CursorError::Disk { .. }) => Ok(()),
            Err(CursorError::State { .. }) => {
                Err("too many single letters are done with among older ones that are kept; retry or drop the oldest first".to_owned())
            }
            Err(other) => Err(other.to_string()),
        }
    }

    /// Settles as damaged what is not settled yet. It holds at once, and is durable a moment later: after a crash before that
    /// it is found again.
    fn lose(&self, letters: impl Iterator<Item = u64>) {
        if let Err(why) = self.put(letters, Fate::Damaged) {
            tracing::debug!(%why, "damaged dead letters are not settled now; they are found again");
        }
    }

    /// Gives a fate to those that have none yet. It holds when this returns, and is durable when the answer has come to its end.
    fn put(
        &self,
        letters: impl Iterator<Item = u64>,
        fate: Fate,
    ) -> Result<Moving<'_>, CursorError> {
        let mut settled = self.settled();
        let low = self.cursor.position().0;
        let mut letters = letters
            .filter(|&letter| letter >= low && !settled.has(letter))
            .peekable();
        if letters.peek().is_none() {
            return Ok(Box::pin(future::ready(Ok(()))));
        }
        let mut with_these = settled.clone();
        letters.for_each(|letter| {
            with_these.put(letter, fate);
        });
        let (to, account) = with_these.take_front(low);
        let state = Some(with_these.save());
        let mut moving: Moving<'_> = Box::pin(self.cursor.advance(Seq(to), account, state));
        // The move is made by the first poll.
        let moving = match moving.as_mut().now_or_never() {
            None => moving,
            Some(Ok(()) | Err(CursorError::Disk { .. })) => Box::pin(future::ready(Ok(()))),
            Some(Err(why)) => return Err(why),
        };
        *settled = with_these;
        Ok(moving)
    }

    pub(super) fn count(&self) -> Count {
        // Before the figures: the cursor moves under this lock.
        let settled = self.settled();
        let stats = self.cursor.stats();
        let (all, ahead) = (settled.count_from(0), settled.count_from(stats.position.0));
        // Retention counts these as gone, and they had a fate before.
        let overtaken = all.all() - ahead.all();
        Count {
            kept: stats.pending.saturating_sub(ahead.all()),
            overrun: stats.account.expired.saturating_sub(overtaken),
            damaged: stats.account.corrupt + all.damaged,
            retried: stats.account.delivered + all.retried,
            dropped: stats.account.filtered + all.dropped,
        }
    }
}

/// Blocks the thread, which may be one of those that run tasks, for the disk.
fn block_on<T>(moving: impl Future<Output = T>) -> T {
    // The turn of a task that this may run in is not used up by it.
    executor::block_on(tokio::task::unconstrained(moving))
}

/// The next block; what the disk cannot read at the last try either is skipped as damaged.
fn patiently(reader: &mut Reader) -> Result<Block, String> {
    let mut tries = 1;
    loop {
        match reader.next(READ_BYTES) {
            Ok(block) => return Ok(block),
            Err(_) if tries < TRIES => tries += 1,
            Err(error) => return Err(error.to_string()),
        }
    }
}
