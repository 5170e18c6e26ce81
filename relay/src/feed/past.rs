//! Stretches of the journal behind the rings, read once for all who read them at about the same time.
//!
//! ```text
//!   … ┌─────────┐┌─────────┐┌─────────┐          ┌───────
//!     │ stretch ││ stretch ││ being   │          │ rings …
//!     └─────────┘└─────────┘│ read    │          └───────
//!               onward ──▶  └─────────┘
//! ```
//! Clients that came together fall behind together, and a client's streams of alerts and of logs read the same records: the
//! first one to need a stretch reads it, the others wait for that and share its records and its frames. Who enters a
//! stretch in its middle is at its end afterwards, so readers that are close fall into step. The journal's reader that
//! made a stretch stands where the next one begins and goes on with it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use journal::{Block, ReadError, Seq};
use proto::Kind;
use tokio::sync::OnceCell;

use super::frames::Frames;
use super::reader::read_patiently;
use super::tail::kind_index;
use crate::log::{Reader, View};

/// Most stretches that are kept; what they hold is bounded in bytes besides.
const KEPT: usize = 64;

/// A block of the journal that several readers look at.
pub(crate) struct Stretch {
    pub(crate) block: Block,
    /// Of its events and of the frames made of them, in bytes.
    size: usize,
    frames: [OnceLock<Frames>; 3],
    /// Stands behind the block until whoever reads on takes it.
    onward: Mutex<Option<Box<dyn Reader>>>,
}

impl Stretch {
    fn new(block: Block, onward: Box<dyn Reader>) -> Stretch {
        let size: usize = block.entries.iter().map(|entry| entry.payload.len()).sum();
        Stretch {
            block,
            size: 2 * size,
            frames: Default::default(),
            onward: Mutex::new(Some(onward)),
        }
    }

    /// The frames of one kind, made when first asked for.
    pub(crate) fn frames(&self, kind: Kind) -> &Frames {
        self.frames[kind_index(kind)].get_or_init(|| Frames::encode(kind, &self.block.entries))
    }

    /// The reader that stands at `position`, if it is this one's.
    fn onward(&self, position: Seq) -> Option<Box<dyn Reader>> {
        let mut onward = lock(&self.onward);
        onward.take_if(|reader| reader.position() == position)
    }
}

struct Slot {
    start: Seq,
    cell: Arc<OnceCell<Arc<Stretch>>>,
}

impl Slot {
    /// Is what a reader at `position` needs in here, or on its way? One that enters in the middle must not be told of
    /// losses that lie before it.
    fn holds(&self, position: Seq) -> bool {
        self.start == position
            || self.cell.get().is_some_and(|stretch| {
                self.start < position
                    && position < stretch.block.next
                    && stretch.block.skipped.is_empty()
            })
    }

    fn size(&self) -> usize {
        self.cell.get().map_or(0, |stretch| stretch.size)
    }
}

/// The stretches that were read last.
pub(crate) struct Past {
    slots: Mutex<VecDeque<Slot>>,
    max_size: usize,
}

impl Past {
    /// Keeps up to `max_size` bytes, and one stretch however large.
    pub(crate) fn new(max_size: usize) -> Past {
        Past {
            slots: Mutex::default(),
            max_size,
        }
    }

    /// The stretch that holds `position`, for a reader that comes from the end of `before`. What is at the journal's end is
    /// an empty block, which nobody shares.
    ///
    /// # Errors
    /// As the journal's; whoever comes next tries again.
    pub(crate) async fn read(
        &self,
        log: &dyn View,
        position: Seq,
        before: Option<&Stretch>,
    ) -> Result<Arc<Stretch>, ReadError> {
        let cell = self.cell(position);
        let read = cell.get_or_try_init(|| async {
            let onward = before.and_then(|stretch| stretch.onward(position));
            let reader = onward.unwrap_or_else(|| log.reader(position));
            let (reader, block) = read_patiently(reader).await;
            Ok(Arc::new(Stretch::new(block?, reader)))
        });
        let read = read.await.cloned();
        match &read {
            Ok(stretch) if stretch.block.next > position => {}
            _ => self.forget(&cell),
        }
        read
    }

    fn cell(&self, position: Seq) -> Arc<OnceCell<Arc<Stretch>>> {
        let mut slots = lock(&self.slots);
        if let Some(slot) = slots.iter().rev().find(|slot| slot.holds(position)) {
            return slot.cell.clone();
        }
        let mut size: usize = slots.iter().map(Slot::size).sum();
        while slots.len() >= KEPT || size > self.max_size {
            size -= slots.pop_front().map_or(size, |oldest| oldest.size());
        }
        let cell = Arc::<OnceCell<_>>::default();
        slots.push_back(Slot {
            start: position,
            cell: cell.clone(),
        });
        cell
    }

    fn forget(&self, cell: &Arc<OnceCell<Arc<Stretch>>>) {
        lock(&self.slots).retain(|slot| !Arc::ptr_eq(&slot.cell, cell));
    }

    /// Nobody reads any more.
    pub(crate) fn clear(&self) {
        lock(&self.slots).clear();
    }
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
        let journal = journal(folder.path(), 300).await;
        let past = Past::new(1 << 20);
        let (one, two) = tokio::join!(
            past.read(&journal, Seq(1), None),
            past.read(&journal, Seq(1), None)
        );
        let (one, two) = (one.expect("read"), two.expect("read"));
        assert!(Arc::ptr_eq(&one, &two));
        let inside = past.read(&journal, Seq(5), None).await.expect("read");
        assert!(Arc::ptr_eq(&one, &inside));
        let next = past.read(&journal, one.block.next, Some(&one)).await;
        assert_eq!(
            next.expect("read").block.entries[0].seq,
            one.block.next,
            "it goes on where the first one ended"
        );
        assert!(lock(&one.onward).is_none(), "with the same reader");
    }

    #[tokio::test]
    async fn the_end_of_the_journal_is_looked_at_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = journal(folder.path(), 3).await;
        let past = Past::new(1 << 20);
        let empty = past.read(&journal, Seq(4), None).await.expect("read");
        assert_eq!((empty.block.next, empty.block.entries.len()), (Seq(4), 0));
        let record = Record {
            kind: 1,
            time: 9,
            payload: Bytes::from_static(b"new"),
        };
        journal.append(vec![record]).await.expect("appended");
        let found = past.read(&journal, Seq(4), None).await.expect("read");
        assert_eq!(found.block.entries.len(), 1);
    }

    #[tokio::test]
    async fn a_reader_that_leaves_while_it_reads_leaves_nobody_waiting() {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = journal(folder.path(), 300).await;
        let past = Past::new(1 << 20);
        {
            let leaving = past.read(&journal, Seq(1), None);
            let _ = tokio::time::timeout(Duration::ZERO, leaving).await;
        }
        let read = tokio::time::timeout(Duration::from_secs(60), past.read(&journal, Seq(1), None));
        let stretch = read.await.expect("in time").expect("read");
        assert_eq!(stretch.block.entries[0].seq, Seq(1));
    }

    #[tokio::test]
    async fn the_oldest_stretches_make_room() {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = journal(folder.path(), 2_000).await;
        let past = Past::new(200_000);
        let (mut at, mut before) = (Seq(1), None::<Arc<Stretch>>);
        while at < Seq(2_001) {
            let stretch = past.read(&journal, at, before.as_deref()).await;
            let stretch = stretch.expect("read");
            at = stretch.block.next;
            before = Some(stretch);
        }
        let slots = lock(&past.slots);
        let size: usize = slots.iter().map(Slot::size).sum();
        assert!(
            slots.len() > 1 && size < 200_000 + 3 * super::super::tail::READ,
            "{size}"
        );
    }
}
