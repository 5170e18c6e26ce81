//! The one thread that writes: group commit, rotation, and what to do when the disk says no.
//!
//! ```text
//! appends ─▶ queue ─▶ take what waits (≤ group_bytes) ─▶ one pwrite ─▶ one fdatasync ─▶ fold ─▶ publish ─▶ wake all
//! ```
//!
//! While one group is being synced, the next one gathers; and where little waits, groups begin at least [`REST`] after each
//! other. Each costs a sync and the wakes of all who wait, however few its records are. A record that comes alone is written
//! at once.
//!
//! After a failed write or `fdatasync` the kernel may have dropped the pages it marks clean, so the same file is never
//! synced again: it keeps what was committed, and the group, still in memory, goes to a new segment. If that fails
//! too, the appends fail, and the next group begins with a new segment again. A full disk cuts the file back to its
//! last committed byte and refuses until there is room.

use std::{
    collections::VecDeque,
    io,
    ops::Range,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::{
    Checkpoint, Entry, Record, Seq,
    catalog::{Shared, lock},
    disk::{DiskFile, is_full, write_all},
    record::{self, GROUP_START},
    retention,
    segment::{self, Growth, Head, Segment},
};

/// Room that must be there beyond the group itself before a full disk is tried again, in bytes.
const MARGIN: u64 = 64 << 10;
/// A full disk that does not say what room it has is tried again after this time, in nanoseconds.
const RETRY: u64 = 1_000_000_000;

/// From the beginning of one group to that of the next, where little waits. What that costs and saves is in `docs/performance.md`.
const REST: Duration = Duration::from_micros(1500);

/// A segment is not closed for its age before that, however short `max_age` is: each costs several syncs.
const YOUNGEST: Duration = Duration::from_secs(5);

/// Why records were not appended.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// There is no room: nothing was stored; try again later. Heals by itself.
    #[error("{reason}")]
    Full {
        /// What is full, and what holds it.
        reason: String,
    },
    /// The disk failed: it is not known whether the records are stored. Sending them again is right, once it works.
    #[error("cannot write the journal at {path}: {source}; check the disk, then send again")]
    Failed {
        /// The journal's directory.
        path: String,
        /// What the disk said.
        source: Arc<io::Error>,
    },
    /// The journal is closed; nothing was stored.
    #[error("the journal is closed")]
    Closed,
    /// Never fits; nothing was stored.
    #[error("{bytes} bytes are more than one append takes ({limit}); divide them")]
    TooLarge {
        /// Bytes of the record, or of all of them together.
        bytes: u64,
        /// What that may be.
        limit: u64,
    },
}

/// One append that waits.
pub(crate) struct Pending {
    pub(crate) records: Vec<Record>,
    /// Bytes that its records take in a segment.
    pub(crate) bytes: u64,
    pub(crate) reply: oneshot::Sender<Result<Range<Seq>, AppendError>>,
    /// Its share of the queue's bytes, given back with the answer.
    pub(crate) _permit: OwnedSemaphorePermit,
}

/// What waits for the writer.
#[derive(Default)]
pub(crate) struct Queue {
    waiting: VecDeque<Pending>,
    /// Bytes of all that wait.
    bytes: u64,
    pub(crate) closing: bool,
    /// The writer sleeps, until so many bytes wait.
    sleeps_until: Option<u64>,
    /// Nothing is taken any more.
    pub(crate) closed: bool,
}

impl Queue {
    /// Takes one more, and says whether the writer is to be woken for it.
    pub(crate) fn push(&mut self, pending: Pending) -> bool {
        self.bytes += pending.bytes;
        self.waiting.push_back(pending);
        let bytes = self.bytes;
        self.sleeps_until
            .take_if(|enough| bytes >= *enough)
            .is_some()
    }

    /// What goes in one group: at most so many bytes, but for a first one that is larger.
    fn take(&mut self, most: u64) -> Vec<Pending> {
        let (mut group, mut bytes) = (Vec::new(), 0);
        while let Some(pending) = self.waiting.front() {
            if !group.is_empty() && bytes + pending.bytes > most {
                break;
            }
            bytes += pending.bytes;
            group.extend(self.waiting.pop_front());
        }
        self.bytes -= bytes;
        group
    }

    fn take_all(&mut self) -> VecDeque<Pending> {
        self.bytes = 0;
        std::mem::take(&mut self.waiting)
    }
}

/// The segment that is written to.
pub(crate) struct Active {
    pub(crate) segment: Arc<Segment>,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) head: Head,
    pub(crate) end: u64,
}

pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) checkpoint: Box<dyn Checkpoint>,
    pub(crate) active: Option<Active>,
    /// The next sequence number; the catalog's is set to it after each commit.
    pub(crate) next: u64,
    pub(crate) buffer: Vec<u8>,
    /// The disk was full when it was last tried.
    pub(crate) full: Option<Full>,
}

/// How the disk was found full.
pub(crate) struct Full {
    /// When, in nanoseconds of the writer's clock.
    since: u64,
    /// Bytes of the group that did not fit.
    wanted: u64,
}

impl Writer {
    /// The thread: writes until the journal closes and nothing waits.
    pub(crate) fn run(mut self, now: impl Fn() -> u64) {
        let shared = Arc::clone(&self.shared);
        // Also when the owner's fold panics: whoever waits must be told.
        let _guard = CloseOnExit(&shared);
        let mut rested = Instant::now();
        let much = shared.config.group_bytes / 4;
        loop {
            self.sleep(much, Some(rested));
            if !self.sleep(1, None) {
                return;
            }
            rested = Instant::now() + REST;
            self.turn(now());
        }
    }

    /// Sleeps until so many bytes wait, the journal closes, or that moment has come; `false` if it closes and nothing waits.
    fn sleep(&self, enough: u64, until: Option<Instant>) -> bool {
        let mut queue = lock(&self.shared.queue);
        while queue.bytes < enough && !queue.closing {
            queue.sleeps_until = Some(enough);
            queue = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                None => {
                    let waited = self.shared.work.wait(queue);
                    waited.unwrap_or_else(PoisonError::into_inner)
                }
                Some(Duration::ZERO) => break,
                Some(left) => {
                    let waited = self.shared.work.wait_timeout(queue, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        queue.sleeps_until = None;
        queue.bytes > 0
    }

    /// Commits one group; `false` if nothing waited.
    pub(crate) fn turn(&mut self, now: u64) -> bool {
        let group = lock(&self.shared.queue).take(self.shared.config.group_bytes);
        if group.is_empty() {
            return false;
        }
        let bytes = group.iter().map(|p| p.bytes).sum();
        match self.commit(&group, bytes, now) {
            Ok(()) => self.publish(group),
            Err(error) => self.refuse(group, &error),
        }
        true
    }

    /// Brings the group to disk.
    fn commit(&mut self, group: &[Pending], bytes: u64, now: u64) -> Result<(), AppendError> {
        self.wait_for_space(bytes, now)?;
        if self
            .active
            .as_ref()
            .is_some_and(|a| self.outgrown(a, bytes, now))
        {
            self.seal();
        }
        let (mut last, given_up) = (None, self.given_up());
        // The second attempt is on a new file, and what the first one left takes room too.
        for _ in 0..2 {
            match (retention::make_room(&self.shared, bytes), &last) {
                (Ok(()), _) => {}
                (Err(reason), None) => return Err(AppendError::Full { reason }),
                (Err(_), Some(_)) => break,
            }
            match self.attempt(group, now) {
                Ok(()) => {
                    self.set_full(None);
                    *lock(&self.shared.counters.refusing) = None;
                    return Ok(());
                }
                Err(error) => {
                    let full = is_full(&error);
                    last = Some(error);
                    if full && !retention::finish_removals(&self.shared).unwrap_or(false) {
                        break;
                    }
                }
            }
        }
        let error = last.unwrap_or_else(|| io::ErrorKind::Other.into());
        self.set_full(is_full(&error).then_some(Full {
            since: now,
            wanted: bytes,
        }));
        // Where a segment was given up, part of the group may still come back from it.
        if is_full(&error) && self.given_up() == given_up {
            return Err(self.disk_full());
        }
        let path = self.shared.disk.path().display().to_string();
        Err(AppendError::Failed {
            path,
            source: Arc::new(error),
        })
    }

    fn set_full(&mut self, full: Option<Full>) {
        let told = &self.shared.counters.disk_full;
        told.store(full.is_some(), Ordering::Relaxed);
        self.full = full;
    }

    fn given_up(&self) -> u64 {
        self.shared.counters.suspects.load(Ordering::Relaxed)
    }

    /// Refuses at once while the disk is known to be full.
    fn wait_for_space(&self, bytes: u64, now: u64) -> Result<(), AppendError> {
        let Some(full) = &self.full else {
            return Ok(());
        };
        // What is leaving anyway makes room.
        let _ = retention::finish_removals(&self.shared);
        // A quota is not told: there it is the attempt that fails. But where it is known what is left, a small group must
        // not slip into it and have the journal called well between two large ones.
        let room = match self.shared.disk.space() {
            Ok(space) => space >= bytes.max(full.wanted) + MARGIN,
            Err(_) => now.saturating_sub(full.since) >= RETRY,
        };
        if room { Ok(()) } else { Err(self.disk_full()) }
    }

    fn disk_full(&self) -> AppendError {
        let path = self.shared.disk.path();
        let reason = format!(
            "no space left on the file system of {}; free some",
            path.display()
        );
        AppendError::Full { reason }
    }

    /// Whether the group belongs into a new segment: by size, or so that old records can leave by age.
    fn outgrown(&self, active: &Active, bytes: u64, now: u64) -> bool {
        let config = &self.shared.config;
        let youngest = u64::try_from(YOUNGEST.as_nanos()).unwrap_or(u64::MAX);
        let age = (self.shared.bounds.max_age_ns() / 4).max(youngest);
        let holds_records = active.end > active.head.data_start();
        holds_records
            && (active.end + bytes > config.segment_bytes
                || now.saturating_sub(active.head.created) > age)
    }

    fn attempt(&mut self, group: &[Pending], now: u64) -> io::Result<()> {
        if self.active.is_none() {
            self.active = Some(self.new_segment(now)?);
        }
        let Some(active) = &self.active else {
            return Err(io::ErrorKind::Other.into());
        };
        self.buffer.clear();
        // As much as is written, not up to twice as much.
        let bytes: u64 = group.iter().map(|p| p.bytes).sum();
        self.buffer.reserve_exact(bytes as usize);
        let (mut seq, mut flags) = (self.next, GROUP_START);
        for record in group.iter().flat_map(|p| &p.records) {
            record::encode(&mut self.buffer, active.head.salt, Seq(seq), flags, record);
            (seq, flags) = (seq + 1, 0);
        }
        if let Err(error) = write_all(&*active.file, &self.buffer, active.end) {
            // Part of the group may be there; cut it off, or it could come back as if it had been accepted.
            let cut = is_full(&error)
                && active
                    .file
                    .truncate(active.end)
                    .and_then(|()| active.file.fdatasync())
                    .is_ok();
            if !cut {
                self.abandon();
            }
            return Err(error);
        }
        let begun = Instant::now();
        if let Err(error) = active.file.fdatasync() {
            self.abandon();
            return Err(error);
        }
        self.timed(begun);
        Ok(())
    }

    fn timed(&self, begun: Instant) {
        let ns = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let counters = &self.shared.counters;
        counters.sync_last_ns.store(ns, Ordering::Relaxed);
        counters.sync_max_ns.fetch_max(ns, Ordering::Relaxed);
        counters.groups.fetch_add(1, Ordering::Relaxed);
        counters
            .bytes
            .fetch_add(self.buffer.len() as u64, Ordering::Relaxed);
    }

    /// Makes the segment that begins with the next record.
    fn new_segment(&self, now: u64) -> io::Result<Active> {
        let base = Seq(self.next);
        let (file, head) = segment::create(&*self.shared.disk, base, now, &self.checkpoint.save())?;
        let segment = Arc::new(Segment::new(base, head.data_start()));
        let _ = segment.created.set(now);
        let mut catalog = lock(&self.shared.catalog);
        catalog.open = Some(Growth::new(base, head.data_start()));
        catalog.push(Arc::clone(&segment));
        drop(catalog);
        // Only now is the one before it closed for good.
        {
            let mut chores = lock(&self.shared.chores);
            (chores.closed, chores.outgrown) = (true, true);
        }
        self.shared.chore.notify_all();
        Ok(Active {
            segment,
            file,
            end: head.data_start(),
            head,
        })
    }

    /// Closes the active segment with its index. If that fails, the index stays in memory and nothing is lost.
    pub(crate) fn seal(&mut self) {
        let Some(active) = self.active.take() else {
            return;
        };
        let growth = lock(&self.shared.catalog).open.clone();
        let Some(growth) = growth else { return };
        let sealed = segment::seal(&*active.file, &active.head, &growth);
        self.settle(&active, &growth, sealed.is_ok());
    }

    /// Gives the active segment up as it is: its committed records stay, its file is never synced again.
    fn abandon(&mut self) {
        let Some(active) = self.active.take() else {
            return;
        };
        self.shared
            .counters
            .suspects
            .fetch_add(1, Ordering::Relaxed);
        let growth = lock(&self.shared.catalog).open.clone();
        if let Some(growth) = growth {
            self.settle(&active, &growth, false);
        }
    }

    /// Enters what is known of a segment that grows no more. One without records leaves the catalog: the next segment
    /// will have its name.
    fn settle(&self, active: &Active, growth: &Growth, sealed: bool) {
        let Active { segment, file, .. } = active;
        // With what a failed write left there: it takes room until the segment goes.
        let len = file.length().unwrap_or(0).max(growth.end);
        let mut catalog = lock(&self.shared.catalog);
        catalog.open = None;
        if growth.records == 0 && segment.base.0 == catalog.next {
            catalog.drop_numberless();
            return;
        }
        let before = segment.len.swap(len, Ordering::Relaxed);
        catalog.used = catalog.used - before + len;
        let _ = segment.extent.set(growth.extent(!sealed));
    }

    /// Folds, publishes and answers a group that is on disk.
    fn publish(&mut self, group: Vec<Pending>) {
        let first = self.next;
        let Some(active) = &mut self.active else {
            return;
        };
        {
            let mut guard = lock(&self.shared.catalog);
            let catalog = &mut *guard;
            let Some(growth) = catalog.open.as_mut() else {
                return;
            };
            let (mut seq, mut at) = (first, active.end);
            for record in group.iter().flat_map(|p| &p.records) {
                let size = record::size(record);
                growth.add(seq, record.time, at, size);
                (seq, at) = (seq + 1, at + size);
            }
            catalog.used += at - active.end;
            active.segment.len.store(at, Ordering::Relaxed);
            active.end = at;
        }
        let mut answers = Vec::with_capacity(group.len());
        for Pending {
            records,
            reply,
            _permit,
            ..
        } in group
        {
            let start = self.next;
            for Record {
                kind,
                time,
                payload,
            } in records
            {
                self.checkpoint.apply(&Entry {
                    seq: Seq(self.next),
                    kind,
                    time,
                    payload,
                });
                self.next += 1;
            }
            answers.push((Seq(start)..Seq(self.next), reply));
        }
        lock(&self.shared.catalog).next = self.next;
        self.shared.committed.send_replace(Seq(self.next - 1));
        {
            let mut ledger = lock(&self.shared.ledger);
            ledger.in_flight -= self.next - first;
            ledger.acknowledged += self.next - first;
        }
        for (range, reply) in answers {
            // Whoever stopped waiting does not mind.
            let _ = reply.send(Ok(range));
        }
    }

    fn refuse(&self, group: Vec<Pending>, error: &AppendError) {
        *lock(&self.shared.counters.refusing) = Some(error.to_string());
        answer_no(&self.shared, group, error);
    }
}

/// Answers every append of `group` with `error` and settles the ledger.
fn answer_no(shared: &Shared, group: impl IntoIterator<Item = Pending>, error: &AppendError) {
    for Pending { records, reply, .. } in group {
        {
            let mut ledger = lock(&shared.ledger);
            ledger.in_flight -= records.len() as u64;
            ledger.refused += records.len() as u64;
        }
        let _ = reply.send(Err(error.clone()));
    }
}

/// Takes no more appends and answers those that wait.
pub(crate) fn close_queue(shared: &Shared) {
    shared.begin_close();
    let waiting = {
        let mut queue = lock(&shared.queue);
        queue.closed = true;
        queue.take_all()
    };
    answer_no(shared, waiting, &AppendError::Closed);
}

struct CloseOnExit<'a>(&'a Shared);

impl Drop for CloseOnExit<'_> {
    fn drop(&mut self) {
        close_queue(self.0);
    }
}
