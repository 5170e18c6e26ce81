//! What the journal's threads, readers and cursors share: the list of segments, the queue, the cursors.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Semaphore, watch};

use crate::{
    Config, Disk, Ledger, Seq,
    account::Books,
    cursor::Cell,
    disk::Lock,
    held::Holds,
    segment::{Growth, IndexEntry, Segment},
    writer::Queue,
};

/// Shared by everything that belongs to one open journal.
pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) config: Config,
    pub(crate) bounds: Bounds,
    pub(crate) catalog: Mutex<Catalog>,
    /// What readers have open.
    pub(crate) holds: Holds,
    /// Held while a segment's file is removed or exchanged: keeper, packer and sometimes the writer do.
    pub(crate) removal: Mutex<()>,
    pub(crate) queue: Mutex<Queue>,
    pub(crate) work: Condvar,
    pub(crate) budget: Arc<Semaphore>,
    pub(crate) ledger: Mutex<Ledger>,
    pub(crate) chores: Mutex<Chores>,
    pub(crate) chore: Condvar,
    pub(crate) cursors: Mutex<BTreeMap<String, Arc<Cell>>>,
    /// The books when they were last checked.
    pub(crate) checked: Mutex<Option<Books>>,
    pub(crate) committed: watch::Sender<Seq>,
    pub(crate) counters: Counters,
    pub(crate) lock: Mutex<Option<Box<dyn Lock>>>,
}

/// What may be changed while the journal is open: how long and how much is kept.
pub(crate) struct Bounds {
    max_size: AtomicU64,
    max_age_ns: AtomicU64,
}

impl Bounds {
    pub(crate) fn new(config: &Config) -> Bounds {
        Bounds {
            max_size: AtomicU64::new(config.max_size),
            max_age_ns: AtomicU64::new(nanoseconds(config.max_age)),
        }
    }

    /// Bound of all segments together, in bytes.
    pub(crate) fn max_size(&self) -> u64 {
        self.max_size.load(Ordering::Relaxed)
    }

    /// Age after which records may go, in nanoseconds.
    pub(crate) fn max_age_ns(&self) -> u64 {
        self.max_age_ns.load(Ordering::Relaxed)
    }

    /// Takes new bounds in. The size only grows: what is on disk stays within it at every moment.
    pub(crate) fn set(&self, max_size: u64, max_age: Duration) {
        self.max_size.fetch_max(max_size, Ordering::Relaxed);
        self.max_age_ns
            .store(nanoseconds(max_age), Ordering::Relaxed);
    }
}

fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// What the keeper is asked to do.
#[derive(Default)]
pub(crate) struct Chores {
    pub(crate) cursors_moved: bool,
    /// There are segments to be removed.
    pub(crate) leaving: bool,
    /// A segment was closed by the next one and may be compressed.
    pub(crate) closed: bool,
    /// One was, and an older one need not be in memory any more.
    pub(crate) outgrown: bool,
    pub(crate) closing: bool,
}

/// Counted since the journal was opened.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) groups: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) sync_last_ns: AtomicU64,
    pub(crate) sync_max_ns: AtomicU64,
    pub(crate) suspects: AtomicU64,
    pub(crate) removed_segments: AtomicU64,
    pub(crate) cursor_failures: AtomicU64,
    pub(crate) packed_segments: AtomicU64,
    /// Bytes of those before and after.
    pub(crate) packed_from: AtomicU64,
    pub(crate) packed_to: AtomicU64,
    pub(crate) pack_failures: AtomicU64,
    /// The disk had no room for new records when it was last tried.
    pub(crate) disk_full: AtomicBool,
    /// Why new records are refused right now.
    pub(crate) refusing: Mutex<Option<String>>,
    /// The last identity that did not hold.
    pub(crate) violation: Mutex<Option<String>>,
}

/// The segments, oldest first, and where the journal ends.
#[derive(Default)]
pub(crate) struct Catalog {
    pub(crate) segments: VecDeque<Arc<Segment>>,
    /// Of the last segment, while records are added to it.
    pub(crate) open: Option<Growth>,
    /// The next sequence number: one past what is committed.
    pub(crate) next: u64,
    /// Bytes in segments.
    pub(crate) used: u64,
    /// Segments that are no longer read and not yet removed, oldest first.
    pub(crate) leaving: VecDeque<Arc<Segment>>,
    /// Bytes of the copy that is being compressed.
    pub(crate) packing: u64,
}

/// The segment that holds a sequence number.
pub(crate) struct Place {
    pub(crate) segment: Arc<Segment>,
    /// One past the last sequence number that counts as this segment's.
    pub(crate) upper: u64,
    /// For the open segment: where its synced records end, and a point at or before the number asked for.
    pub(crate) open: Option<(u64, Option<IndexEntry>)>,
}

impl Catalog {
    pub(crate) fn first(&self) -> u64 {
        self.segments.front().map_or(self.next, |s| s.base.0)
    }

    /// Bytes on disk: in segments, in those that are leaving, and in the copy that is being compressed.
    pub(crate) fn on_disk(&self) -> u64 {
        let leaving: u64 = self.leaving.iter().map(|s| s.bytes()).sum();
        self.used + leaving + self.packing
    }

    pub(crate) fn push(&mut self, segment: Arc<Segment>) {
        self.used += segment.bytes();
        self.segments.push_back(segment);
    }

    /// Takes out the newest segment if no number is its own: the next segment will have its name.
    pub(crate) fn drop_numberless(&mut self) {
        let next = self.next;
        let is_open = self.open.is_some();
        let none = |newest: &mut Arc<Segment>| !is_open && newest.base.0 >= next;
        if let Some(newest) = self.segments.pop_back_if(none) {
            self.used -= newest.bytes();
        }
    }

    /// The segment for `seq`, which is at least [`Catalog::first`] and below `next`.
    pub(crate) fn locate(&self, seq: u64) -> Option<Place> {
        let after = self.segments.partition_point(|s| s.base.0 <= seq);
        let segment = Arc::clone(self.segments.get(after.checked_sub(1)?)?);
        let following = self.segments.get(after);
        let upper = following.map_or(self.next, |s| s.base.0);
        let open = self.open.as_ref().filter(|_| following.is_none());
        let open = open.map(|growth| {
            let after = growth.index.partition_point(|e| e.seq <= seq);
            (
                growth.end,
                after
                    .checked_sub(1)
                    .and_then(|n| growth.index.get(n).copied()),
            )
        });
        Some(Place {
            segment,
            upper,
            open,
        })
    }
}

impl Shared {
    pub(crate) fn first(&self) -> u64 {
        lock(&self.catalog).first()
    }

    /// Asks the writer to finish: what waits is still written, nothing more is taken.
    pub(crate) fn begin_close(&self) {
        lock(&self.queue).closing = true;
        self.work.notify_all();
        self.budget.close();
    }
}

/// Locks; a panic elsewhere while it was held left nothing half done that matters (every critical section is a few
/// assignments, and the writer's guard closes the journal).
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
