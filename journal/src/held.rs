//! The segment files that readers have open.
//!
//! ```text
//! reader ── takes ──▶ reads on ── keeps ──▶ its hold ◀── closes ── whoever removes or exchanges the file
//!                                                    ◀── closes ── keeper, where nobody reads on
//! ```
//! A reader goes on in the file that it had open, and may never be asked to: its client stopped reading, its sink hangs.
//! An open file that was removed keeps its room on disk, so what a reader has open is its own only while it reads. In
//! between it lies here, and goes at once with the file, or after two ticks without a read, with the block
//! that a compressed one was unpacked to.

use std::sync::{Arc, Mutex, Weak};

use crate::{catalog::lock, segment::Segment, walk::Walk};

/// A segment that is being read.
pub(crate) struct Held {
    pub(crate) segment: Arc<Segment>,
    /// Which of the segment's files is open: see [`Segment::edition`].
    pub(crate) edition: u32,
    pub(crate) walk: Walk,
}

impl Held {
    /// Is the open file still the one with the segment's name?
    fn is_current(&self) -> bool {
        self.segment.edition() == self.edition
    }
}

/// What one reader has open between its reads.
#[derive(Default)]
pub(crate) struct Hold(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    held: Option<Held>,
    /// Nobody has read on since the keeper last looked.
    idle: bool,
}

impl Hold {
    /// What is open of `segment`, if it is.
    pub(crate) fn take(&self, segment: &Arc<Segment>) -> Option<Held> {
        let held = lock(&self.0).held.take();
        held.filter(|held| Arc::ptr_eq(&held.segment, segment) && held.is_current())
    }

    /// Keeps it for the next read, unless the file has gone meanwhile.
    pub(crate) fn keep(&self, held: Held) {
        let mut kept = lock(&self.0);
        kept.idle = false;
        kept.held = Some(held).filter(Held::is_current);
    }

    pub(crate) fn close(&self) {
        lock(&self.0).held = None;
    }

    fn close_stale(&self) -> Option<Held> {
        lock(&self.0).held.take_if(|held| !held.is_current())
    }

    fn close_idle(&self) -> Option<Held> {
        let mut kept = lock(&self.0);
        let was_idle = std::mem::replace(&mut kept.idle, true);
        kept.held.take_if(|_| was_idle)
    }
}

/// The holds of all readers.
#[derive(Default)]
pub(crate) struct Holds(Mutex<Vec<Weak<Hold>>>);

impl Holds {
    /// A new reader's.
    pub(crate) fn add(&self) -> Arc<Hold> {
        let hold = Arc::<Hold>::default();
        let mut holds = lock(&self.0);
        // Readers come and go: what they leave is cleared away before there is room made for more.
        if holds.len() == holds.capacity() {
            holds.retain(|hold| hold.strong_count() > 0);
            let living = holds.len();
            holds.reserve(living.max(16));
        }
        holds.push(Arc::downgrade(&hold));
        hold
    }

    /// Closes the files that are not their segments' any more.
    pub(crate) fn close_stale(&self) {
        self.close(Hold::close_stale);
    }

    /// Closes what nobody read on in since this was last called.
    pub(crate) fn close_idle(&self) {
        self.close(Hold::close_idle);
    }

    /// The files are closed after the locks are given back: that of a large one takes its time.
    fn close(&self, take: fn(&Hold) -> Option<Held>) {
        let living: Vec<Arc<Hold>> = lock(&self.0).iter().filter_map(Weak::upgrade).collect();
        living.iter().for_each(|hold| drop(take(hold)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_left_are_cleared_away() {
        let holds = Holds::default();
        let staying: Vec<_> = (0..100).map(|_| holds.add()).collect();
        for _ in 0..10_000 {
            drop(holds.add());
        }
        assert!(lock(&holds.0).len() <= 300, "{}", lock(&holds.0).len());
        assert_eq!(staying.len(), 100);
    }
}
