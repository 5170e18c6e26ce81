//! Stretches of the journal behind the rings, read once for all who read them at about the same time.
//!
//! ```text
//!   … ┌─────────┐┌─────────┐┌─────────┐          ┌───────
//!     │ stretch ││ stretch ││ being   │          │ rings …
//!     └─────────┘└─────────┘│ read    │          └───────
//!               onward ──▶  └─────────┘
//! ```
//! Clients that came together fall behind together, and a client's streams of alerts and of logs read the same records: the
//! first one to need a stretch reads it, the others wait for that and share what was made of it. Who enters a stretch in
//! its middle is at its end afterwards, so readers that are close fall into step. Who only has to take what another one
//! read is faster than that one, so they stay close as long as what is kept is more than what sockets take at once.
//!
//! The journal is read off the threads that serve everybody, and to hand a read over and wait for it costs more than the
//! read. So some stretches are read in one go, a row, and the journal's reader that made them goes on behind the last one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use journal::{Block, ReadError, Seq};
use proto::Kind;
use tokio::sync::OnceCell;

use super::frames::Frames;
use super::reader::read_patiently;
use super::ring::Content;
use super::tail::READ;
use super::threads::Threads;
use crate::log::{Reader, View};

/// Most stretches that are kept; what they hold is bounded in bytes besides.
const KEPT: usize = 512;

/// Stretches of a row, at most.
const ROW: usize = 4;

/// What readers share of a stretch: made once, where the journal is read.
pub(crate) trait Made: Send + Sync + 'static {
    /// Of a block of the journal.
    fn made(block: Block) -> Self;
    /// Its memory, in bytes.
    fn size(&self) -> usize;
}

/// The records themselves, for readers with a filter.
impl Made for Block {
    fn made(block: Block) -> Self {
        block
    }

    fn size(&self) -> usize {
        self.entries.size()
    }
}

/// The frames of every kind.
impl Made for [Frames; 3] {
    fn made(block: Block) -> Self {
        Kind::ALL.map(|kind| Frames::encode(kind, &block.entries))
    }

    fn size(&self) -> usize {
        self.iter().map(Content::size).sum()
    }
}

/// A block of the journal that several readers look at.
pub(crate) struct Stretch<C> {
    /// The first number after it.
    pub(crate) next: Seq,
    /// No record in it is lost.
    whole: bool,
    pub(crate) content: C,
    pub(crate) onward: Arc<Onward>,
}

impl<C: Made> Stretch<C> {
    fn new(block: Block, onward: &Arc<Onward>) -> Arc<Stretch<C>> {
        Arc::new(Stretch {
            next: block.next,
            whole: block.skipped.is_empty(),
            content: C::made(block),
            onward: onward.clone(),
        })
    }
}

/// The journal's reader that made a row of stretches, until whoever reads on behind the row takes it.
#[derive(Default)]
pub(crate) struct Onward(Mutex<Option<Box<dyn Reader>>>);

impl Onward {
    /// The reader, if it stands at `position` and is there still.
    fn take(&self, position: Seq) -> Option<Box<dyn Reader>> {
        lock(&self.0).take_if(|reader| reader.position() == position)
    }
}

type Cell<C> = Arc<OnceCell<Arc<Stretch<C>>>>;

struct Slot<C> {
    start: Seq,
    cell: Cell<C>,
}

impl<C: Made> Slot<C> {
    /// Is what a reader at `position` needs in here, or on its way? One that enters in the middle must not be told of
    /// losses that lie before it.
    fn holds(&self, position: Seq) -> bool {
        self.start == position
            || self.cell.get().is_some_and(|stretch| {
                self.start < position && position < stretch.next && stretch.whole
            })
    }

    fn size(&self) -> usize {
        self.cell.get().map_or(0, |stretch| stretch.content.size())
    }
}

/// The stretches that were read last.
pub(crate) struct Past<C> {
    slots: Mutex<VecDeque<Slot<C>>>,
    max_size: usize,
    threads: Threads,
}

impl<C: Made> Past<C> {
    /// Keeps up to `max_size` bytes, and one row of stretches however large.
    pub(crate) fn new(max_size: usize, threads: &Threads) -> Past<C> {
        Past {
            slots: Mutex::default(),
            max_size,
            threads: threads.clone(),
        }
    }

    /// The stretch that holds `position`, for one of so many readers, who was in the row of `before`. What is at the journal's end is an
    /// empty block, which nobody shares.
    ///
    /// # Errors
    /// As the journal's; whoever comes next tries again.
    pub(crate) async fn read(
        &self,
        log: &dyn View,
        position: Seq,
        before: Option<&Onward>,
        readers: usize,
    ) -> Result<Arc<Stretch<C>>, ReadError> {
        let (cell, row) = (self.cell(position), self.row(readers));
        let read = cell.get_or_try_init(|| async {
            let onward = before.and_then(|onward| onward.take(position));
            let reader = onward.unwrap_or_else(|| log.reader(position));
            let (first, more) = read_row(&self.threads, reader, row).await?;
            self.add(first.next, more);
            Ok(first)
        });
        let read = read.await.cloned();
        match &read {
            Ok(stretch) if stretch.next > position => {}
            _ => self.forget(&cell),
        }
        read
    }

    /// How many stretches a row has: what is kept has to last until each of so many readers has taken its own.
    fn row(&self, readers: usize) -> usize {
        (self.max_size / READ / readers.max(1)).clamp(1, ROW)
    }

    fn cell(&self, position: Seq) -> Cell<C> {
        let mut slots = lock(&self.slots);
        if let Some(slot) = slots.iter().rev().find(|slot| slot.holds(position)) {
            return slot.cell.clone();
        }
        let cell = Cell::default();
        self.push(&mut slots, position, cell.clone());
        cell
    }

    /// Stretches in a row that begins at `start`. What somebody else read meanwhile, or is reading, is theirs.
    fn add(&self, mut start: Seq, stretches: Vec<Arc<Stretch<C>>>) {
        let mut slots = lock(&self.slots);
        for stretch in stretches {
            let next = stretch.next;
            if !slots.iter().any(|slot| slot.start == start) {
                let cell = OnceCell::new_with(Some(stretch));
                self.push(&mut slots, start, Arc::new(cell));
            }
            start = next;
        }
    }

    /// The oldest make room.
    fn push(&self, slots: &mut VecDeque<Slot<C>>, start: Seq, cell: Cell<C>) {
        let mut size: usize = slots.iter().map(Slot::size).sum();
        while slots.len() >= KEPT || size > self.max_size {
            // A stretch may have come into its slot since the sum.
            size = size.saturating_sub(slots.pop_front().map_or(size, |oldest| oldest.size()));
        }
        slots.push_back(Slot { start, cell });
    }

    fn forget(&self, cell: &Cell<C>) {
        lock(&self.slots).retain(|slot| !Arc::ptr_eq(&slot.cell, cell));
    }

    /// Nobody reads any more.
    pub(crate) fn clear(&self) {
        lock(&self.slots).clear();
    }
}

/// A stretch and those behind it.
type Row<C> = (Arc<Stretch<C>>, Vec<Arc<Stretch<C>>>);

async fn read_row<C: Made>(
    threads: &Threads,
    reader: Box<dyn Reader>,
    length: usize,
) -> Result<Row<C>, ReadError> {
    let (reader, read) = read_patiently(threads, reader, move |reader, first| {
        let onward = Arc::<Onward>::default();
        let first = Stretch::new(first, &onward);
        // An error behind the first block is for whoever comes there.
        let more = std::iter::from_fn(|| reader.next(READ).ok())
            .take(length - 1)
            .take_while(|block| !block.is_empty())
            .map(|block| Stretch::new(block, &onward))
            .collect();
        (onward, (first, more))
    })
    .await;
    let (onward, row) = read?;
    *lock(&onward.0) = Some(reader);
    Ok(row)
}

/// What the locks guard is whole between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test that cannot go on has failed")]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use journal::{Config, Journal, RealDisk, Record};

    use super::*;

    async fn journal(folder: &std::path::Path, records: u64) -> Journal {
        let disk = Arc::new(RealDisk::open(folder).expect("a folder"));
        let (journal, _) = Journal::open(disk, Config::default(), Box::new(())).expect("opened");
        let records = (0..records).map(|n| Record {
            kind: 1,
            time: n,
            payload: Bytes::from(vec![7; 1000]),
        });
        journal.append(records.collect()).await.expect("appended");
        journal
    }

    #[tokio::test]
    async fn who_reads_the_same_place_shares_and_who_enters_in_the_middle_falls_into_step() {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = journal(folder.path(), 1_000).await;
        let past = Past::<Block>::new(1 << 20, &Threads::default());
        let (one, two) = tokio::join!(
            past.read(&journal, Seq(1), None, 1),
            past.read(&journal, Seq(1), None, 1)
        );
        let (one, two) = (one.expect("read"), two.expect("read"));
        assert!(Arc::ptr_eq(&one, &two));
        let inside = past.read(&journal, Seq(5), None, 1).await.expect("read");
        assert!(Arc::ptr_eq(&one, &inside));
        let last = lock(&past.slots)
            .back()
            .and_then(|slot| slot.cell.get().cloned());
        let last = last.expect("a stretch");
        assert!(last.next > one.next, "a row was read");
        let next = past
            .read(&journal, last.next, Some(&inside.onward), 1)
            .await;
        assert_eq!(
            next.expect("read").content.entries[0].seq,
            last.next,
            "it goes on where the row ended"
        );
        assert!(lock(&last.onward.0).is_none(), "with the same reader");
    }

    #[tokio::test]
    async fn the_end_of_the_journal_is_looked_at_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = journal(folder.path(), 3).await;
        let past = Past::<Block>::new(1 << 20, &Threads::default());
        let empty = past.read(&journal, Seq(4), None, 1).await.expect("read");
        assert_eq!((empty.next, empty.content.entries.len()), (Seq(4), 0));
        let record = Record {
            kind: 1,
            time: 9,
            payload: Bytes::from_static(b"new"),
        };
        journal.append(vec![record]).await.expect("appended");
        let found = past.read(&journal, Seq(4), None, 1).await.expect("read");
        assert_eq!(found.content.entries.len(), 1);
    }

    #[tokio::test]
    async fn a_reader_that_leaves_while_it_reads_leaves_nobody_waiting() {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = journal(folder.path(), 300).await;
        let past = Past::<Block>::new(1 << 20, &Threads::default());
        {
            let leaving = past.read(&journal, Seq(1), None, 1);
            let _ = tokio::time::timeout(Duration::ZERO, leaving).await;
        }
        let read = tokio::time::timeout(
            Duration::from_secs(60),
            past.read(&journal, Seq(1), None, 1),
        );
        let stretch = read.await.expect("in time").expect("read");
        assert_eq!(stretch.content.entries[0].seq, Seq(1));
    }

    #[tokio::test]
    async fn when_the_last_reader_has_caught_up_nothing_is_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = journal(folder.path(), 300).await;
        let registry = crate::metrics::Registry::default();
        let tail = super::super::Tail::start(journal, super::super::Config::default(), &registry);
        let tail = tail.expect("started");
        let kept = || lock(&tail.past_frames().slots).len();
        let (one, two) = (tail.behind(), tail.behind());
        let read = tail
            .past_frames()
            .read(&**tail.log(), Seq(1), None, 1)
            .await;
        assert!(read.expect("read").content[0].count_from(Seq(1)).0 > 0);
        drop(one);
        assert!(kept() > 0);
        drop(two);
        assert_eq!(kept(), 0);
        tail.stop();
    }

    #[tokio::test]
    async fn the_oldest_stretches_make_room() {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = journal(folder.path(), 2_000).await;
        let past = Past::<Block>::new(200_000, &Threads::default());
        let (mut at, mut before) = (Seq(1), None::<Arc<Onward>>);
        while at < Seq(2_001) {
            let stretch = past.read(&journal, at, before.as_deref(), 1).await;
            let stretch = stretch.expect("read");
            at = stretch.next;
            before = Some(stretch.onward.clone());
        }
        let slots = lock(&past.slots);
        let size: usize = slots.iter().map(Slot::size).sum();
        assert!(slots.len() > 1 && size < 200_000 + 2 * READ, "{size}");
    }
}
