//! All partitions in one numbered order, followed once for all feeds.
//!
//! ```text
//!   history: merged by time, read anew          blocks: cuts are known       in memory
//! ───────────────────────────────────────────┬────────────────────────────┬───────────────▶ arrives
//!                                            oldest cut                   window
//! ```
//! A thread reads what arrives and puts it down as blocks: the cut where a block begins, and its records by time, partition
//! and offset. Who is behind the window reads a block again, between its cuts, in the same order; who is behind the oldest
//! cut, or asks for a time, has all that lies before it merged in that order. So a number means the same record as long as
//! its block is known, and later the same but for records of the same moment.

mod reading;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use journal::{Entry, ReadError, Seq};
use tokio::sync::watch;

use self::reading::Reading;
use super::BadLog;
use super::cut::Cut;
use super::follow::{Stop, follow};
use super::past::Consumers;
use super::record::Read;
use super::topic::Topic;
use crate::log::{Marked, Marks, Reader, View};

/// Bytes of records in memory.
const WINDOW: usize = 16 << 20;
/// Blocks whose cuts are known, and bytes of those cuts: eight a partition and block.
const BLOCKS: usize = 16_384;
const CUTS: usize = 4 << 20;
/// How often it is asked where retention has come to.
const LOOK_AROUND: Duration = Duration::from_secs(5);
const STOP_WITHIN: Duration = Duration::from_millis(200);
/// Clocks of brokers, and the order of what came at one moment, are this exact.
const BLUR_MS: i64 = 1000;
/// Places that were looked up or read to last, and bytes of those cuts.
const FOUND: usize = 1024;
const FOUND_BYTES: usize = 256 << 10;

/// The order of all; a cheap handle.
#[derive(Clone)]
pub(super) struct Timeline {
    inner: Arc<Inner>,
}

struct Inner {
    topic: Arc<Topic>,
    past: Arc<Consumers>,
    state: Mutex<State>,
    committed: watch::Sender<Seq>,
    /// Number of the oldest record, and its time in milliseconds.
    first: AtomicU64,
    oldest: AtomicI64,
    stop: Stop,
}

struct State {
    blocks: VecDeque<Put>,
    /// How many may be known.
    most: usize,
    /// Where retention had come to, lately.
    low: Cut,
    /// Where the next block begins.
    end: Cut,
    /// Of the blocks in memory.
    bytes: usize,
    /// Blocks that are not in memory.
    light: usize,
    /// Numbers that were asked for by time, or read to, with their cuts.
    found: VecDeque<(u64, Cut)>,
    /// How many of them may be known.
    most_found: usize,
}

/// A block as it was put down.
struct Put {
    first: u64,
    from: Cut,
    /// None: no longer in memory.
    entries: Option<Arc<[Entry]>>,
    bytes: usize,
}

impl Timeline {
    /// Follows the topic from `from` on.
    pub(super) fn start(
        topic: Arc<Topic>,
        past: Arc<Consumers>,
        from: Cut,
    ) -> Result<Timeline, BadLog> {
        let number = from.number();
        let begin = from.clone();
        let state = State {
            blocks: VecDeque::new(),
            low: from.clone(),
            end: from,
            most: (CUTS / (8 * topic.partitions().max(1))).clamp(256, BLOCKS),
            most_found: (FOUND_BYTES / (8 * topic.partitions().max(1))).clamp(64, FOUND),
            bytes: 0,
            light: 0,
            found: VecDeque::new(),
        };
        let inner = Arc::new(Inner {
            topic,
            past,
            state: Mutex::new(state),
            committed: watch::Sender::new(Seq(number - 1)),
            first: AtomicU64::new(number),
            oldest: AtomicI64::new(0),
            stop: Stop::default(),
        });
        inner.look_back();
        let (follower, looker) = (Arc::clone(&inner), Arc::clone(&inner));
        let lacks = "feeds get nothing new";
        follow(
            &inner.topic,
            &begin,
            inner.stop.clone(),
            lacks,
            move |records| follower.put(records),
        )?;
        std::thread::Builder::new()
            .name("kafka-low".to_owned())
            .spawn(move || looker.look_back_again())
            .map_err(|e| BadLog::new(e.to_string()))?;
        Ok(Timeline { inner })
    }

    /// Ends the thread, soon.
    pub(super) fn stop(&self) {
        self.inner.stop.tell();
    }

    pub(super) fn topic(&self) -> &Arc<Topic> {
        &self.inner.topic
    }

    /// Where a partition begins, as it was seen lately, and ends.
    pub(super) fn reach(&self, partition: i32) -> (i64, i64) {
        let state = self.inner.state();
        let at = |cut: &Cut| {
            let place = usize::try_from(partition).ok();
            place
                .and_then(|place| cut.0.get(place).copied())
                .unwrap_or(0)
        };
        (at(&state.low), at(&state.end))
    }

    /// When the oldest record was kept, in milliseconds since 1970; 0 if there is none.
    pub(super) fn oldest_ms(&self) -> u64 {
        u64::try_from(self.inner.oldest.load(Ordering::Relaxed)).unwrap_or(0)
    }
}

impl Timeline {
    /// The cut where the block begins that a record is in, and the number where it ends; none where blocks are not known.
    pub(super) fn block_of(&self, seq: Seq) -> Option<(Cut, Seq)> {
        let state = self.inner.state();
        if seq.0 >= state.end.number() {
            return Some((state.end.clone(), seq.next()));
        }
        let behind = state.blocks.partition_point(|block| block.first <= seq.0);
        let block = state.blocks.get(behind.checked_sub(1)?)?;
        let next = state
            .blocks
            .get(behind)
            .map_or(&state.end, |next| &next.from);
        Some((block.from.clone(), Seq(next.number())))
    }

    /// The newest place before which there is nothing of that time (milliseconds) or later. Who asks for a time looks at the
    /// times of what it gets. Blocks.
    pub(super) fn since(&self, time: i64) -> Result<Seq, ReadError> {
        let cut = self.inner.at_time(time.saturating_sub(BLUR_MS))?;
        let known = self.inner.state().known_before(&cut);
        Ok(known.unwrap_or_else(|| Seq(cut.number())))
    }

    /// The newest place before which nothing lies that lies behind `cut`. Blocks.
    pub(super) fn after(&self, cut: Cut) -> Result<Marked, ReadError> {
        if let Some(next) = self.inner.state().known_before(&cut) {
            return Ok(Marked { next, missed: 0 });
        }
        let (low, _) = self.inner.topic.watermarks()?;
        let missed = cut.missing_before(&low);
        let next = match missed {
            0 => Seq(self.inner.cut_within(&cut)?.number()),
            _ => Seq(low.number()),
        };
        Ok(Marked { next, missed })
    }
}

impl View for Timeline {
    fn first(&self) -> Seq {
        Seq(self.inner.first.load(Ordering::Relaxed))
    }

    fn committed(&self) -> Seq {
        *self.inner.committed.borrow()
    }

    fn subscribe(&self) -> watch::Receiver<Seq> {
        self.inner.committed.subscribe()
    }

    fn reader(&self, from: Seq) -> Box<dyn Reader> {
        Box::new(Reading::new(&self.inner, from))
    }

    fn seek_time(&self, unix_ns: u64) -> Result<Seq, ReadError> {
        self.since(i64::try_from(unix_ns / 1_000_000).unwrap_or(i64::MAX))
    }

    fn marks(&self) -> Option<Arc<dyn Marks>> {
        Some(Arc::new(self.clone()))
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts records down as a block and wakes the readers.
    fn put(&self, mut records: Vec<Read>) {
        records.sort_unstable_by_key(Read::order);
        let bytes = records.iter().map(Read::weight).sum();
        let mut state = self.state();
        let (from, first) = (state.end.clone(), state.end.number());
        let mut next = first;
        let mut entries = Vec::with_capacity(records.len());
        for read in records {
            let Some(at) = usize::try_from(read.partition)
                .ok()
                .and_then(|partition| state.end.0.get_mut(partition))
            else {
                continue;
            };
            let (gap, after) = (read.offset - *at, read.offset + 1);
            // What was there already came again after a connection broke.
            let Ok(gap) = u64::try_from(gap) else {
                continue;
            };
            *at = after;
            entries.push(read.entry(next + gap));
            next += gap + 1;
        }
        state.blocks.push_back(Put {
            first,
            from,
            entries: Some(entries.into()),
            bytes,
        });
        state.bytes += bytes;
        state.trim();
        drop(state);
        self.committed.send_replace(Seq(next - 1));
    }

    /// The life of a thread: brokers that take long to answer hold up nobody who reads.
    fn look_back_again(&self) {
        let (mut looked, mut was_short) = (Instant::now(), false);
        while !self.stop.is_told() {
            std::thread::sleep(STOP_WITHIN);
            self.past.close_idle();
            if looked.elapsed() > LOOK_AROUND {
                let end = self.state().end.clone();
                let is_short = self.look_back().is_some_and(|high| !end.is_within(&high));
                // A new leader may know less for a moment.
                if is_short && was_short {
                    self.topic.was_made_anew();
                }
                (looked, was_short) = (Instant::now(), is_short);
            }
        }
    }

    /// Where retention has come to. Where the topic ends, if the brokers say.
    fn look_back(&self) -> Option<Cut> {
        let (low, high) = self.topic.watermarks().ok()?;
        self.state().low = low.clone();
        let before = self.first.swap(low.number(), Ordering::Relaxed);
        if before == low.number() && self.oldest.load(Ordering::Relaxed) > 0 {
            return Some(high);
        }
        let oldest = if low == high {
            Ok(0)
        } else {
            self.time_of(low.number() + 1)
        };
        if let Ok(oldest) = oldest {
            self.oldest.store(oldest, Ordering::Relaxed);
        }
        Some(high)
    }

    /// The cut of a time, as far as it was followed.
    fn at_time(&self, time: i64) -> Result<Cut, ReadError> {
        let end = self.state().end.clone();
        let cut = self.topic.at_time(time)?.min(&end);
        self.note(&cut);
        Ok(cut)
    }

    /// Remembers where a number lies.
    fn note(&self, cut: &Cut) {
        let mut state = self.state();
        state.found.push_back((cut.number(), cut.clone()));
        if state.found.len() > state.most_found {
            state.found.pop_front();
        }
    }

    /// The first millisecond at which `number` lies before the cut of the time.
    fn time_of(&self, number: u64) -> Result<i64, ReadError> {
        // Nothing that is kept is older than the oldest that was seen.
        let oldest = self.oldest.load(Ordering::Relaxed);
        let (mut low, mut high) = ((oldest - BLUR_MS).max(0), now_ms() + 1);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            self.topic.is_needed()?;
            if self.topic.at_time(middle)?.number() < number {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// The newest cut of a time that lies before this one.
    fn cut_within(&self, cut: &Cut) -> Result<Cut, ReadError> {
        let oldest = self.oldest.load(Ordering::Relaxed);
        let (mut low, mut high) = ((oldest - BLUR_MS).max(0), now_ms() + 1);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            self.topic.is_needed()?;
            if self.topic.at_time(middle)?.is_within(cut) {
                low = middle;
            } else {
                high = middle;
            }
        }
        self.at_time(low)
    }

    /// A cut at or before a number that lies before all blocks.
    fn cut_before(&self, number: u64) -> Result<Cut, ReadError> {
        let known = self
            .state()
            .found
            .iter()
            .rev()
            .find(|(found, _)| *found == number)
            .map(|(_, cut)| cut.clone());
        if let Some(cut) = known {
            return Ok(cut);
        }
        let (low, _) = self.topic.watermarks()?;
        if number <= low.number() {
            return Ok(low);
        }
        let time = self.time_of(number)?;
        let cut = self.at_time(time - 1)?.max(&low);
        Ok(if cut.number() <= number { cut } else { low })
    }

    /// What a reader at `next` has to do.
    fn look(&self, next: u64) -> Look {
        let state = self.state();
        if next >= state.end.number() {
            return Look::End;
        }
        let at = state.blocks.partition_point(|block| block.first <= next);
        let Some(at) = at.checked_sub(1) else {
            let to = state.blocks.front().map_or(&state.end, |block| &block.from);
            return Look::History { to: to.clone() };
        };
        let to = state
            .blocks
            .get(at + 1)
            .map_or(&state.end, |block| &block.from);
        let block = &state.blocks[at];
        match &block.entries {
            Some(entries) => Look::Here {
                entries: Arc::clone(entries),
                next: to.number(),
            },
            None => Look::Again {
                from: block.from.clone(),
                to: to.clone(),
            },
        }
    }
}

enum Look {
    /// Nothing is there yet.
    End,
    /// In memory.
    Here { entries: Arc<[Entry]>, next: u64 },
    /// A block to be read again.
    Again { from: Cut, to: Cut },
    /// Older than all blocks.
    History { to: Cut },
}

impl State {
    /// The last place between blocks that lies before a cut; none: it lies before all blocks.
    fn known_before(&self, cut: &Cut) -> Option<Seq> {
        if self.end.is_within(cut) {
            return Some(Seq(self.end.number()));
        }
        let behind = self
            .blocks
            .partition_point(|block| block.from.is_within(cut));
        let block = self.blocks.get(behind.checked_sub(1)?)?;
        Some(Seq(block.first))
    }

    fn trim(&mut self) {
        while self.bytes > WINDOW && self.light + 1 < self.blocks.len() {
            let block = &mut self.blocks[self.light];
            block.entries = None;
            self.bytes -= block.bytes;
            self.light += 1;
        }
        while self.blocks.len() > self.most
            && let Some(block) = self.blocks.pop_front()
        {
            if block.entries.is_some() {
                self.bytes -= block.bytes;
            } else {
                self.light -= 1;
            }
        }
    }
}

fn now_ms() -> i64 {
    i64::try_from(crate::log::unix_nanoseconds() / 1_000_000).unwrap_or(i64::MAX)
}
