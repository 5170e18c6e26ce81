//! The newest blocks of one lane, kept so that readers near the end share what was made once.
//!
//! ```text
//!             from                                       end
//!              │  ┌─────────┐┌───┐┌──────────────┐        │
//!   … journal …│  │  block  ││   ││    block     │        │  next: what is appended from here on
//!              │  └─────────┘└───┘└──────────────┘        │
//! ```
//! Every number from `from` to `end` is covered: a block begins where the one before ended, records that are of no
//! concern to the lane included. A reader that waited at the end of an old block is therefore inside the next one,
//! however much of other lanes went by meanwhile, and a reader before `from` knows that it must read the journal.

use std::collections::VecDeque;
use std::sync::Arc;

use journal::{Entry, Seq};

/// Events counted by kind: alerts, logs, messages.
pub(crate) type Counts = [u64; 3];

/// What a lane keeps of a block.
pub(crate) trait Content {
    /// Is there anything in it for the lane's readers?
    fn is_empty(&self) -> bool;
    /// Its memory, in bytes.
    fn size(&self) -> usize;
}

/// The records themselves, for readers with a filter.
impl Content for Vec<Entry> {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }

    fn size(&self) -> usize {
        self.iter()
            .map(|entry| entry.payload.len() + size_of::<Entry>())
            .sum()
    }
}

/// A stretch of the journal as one lane sees it.
#[derive(Debug)]
pub(crate) struct Block<C> {
    /// The first number after it.
    pub(crate) next: Seq,
    pub(crate) content: C,
}

/// What a lane has for a position.
#[derive(Debug)]
pub(crate) enum Found<C> {
    /// The position is in this block.
    Block(Arc<Block<C>>),
    /// The lane has nothing yet; all up to here holds nothing for its readers.
    Nothing(Seq),
    /// Older than what is kept.
    TooOld,
}

impl<C> Found<C> {
    /// What `take` makes of the block.
    ///
    /// # Errors
    /// There is none: where the lane ends, or nothing when the position is older than what is kept.
    pub(crate) fn taken<T>(self, take: impl FnOnce(&Block<C>) -> T) -> Result<T, Option<Seq>> {
        match self {
            Found::Block(block) => Ok(take(&block)),
            Found::Nothing(end) => Err(Some(end)),
            Found::TooOld => Err(None),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Ring<C> {
    from: Seq,
    end: Seq,
    blocks: VecDeque<Arc<Block<C>>>,
    size: usize,
    max_size: usize,
}

impl<C: Content> Ring<C> {
    pub(crate) fn new(max_size: usize) -> Ring<C> {
        Ring {
            from: Seq(1),
            end: Seq(1),
            blocks: VecDeque::new(),
            size: 0,
            max_size,
        }
    }

    /// Forgets everything and starts again at `at`.
    pub(crate) fn restart(&mut self, at: Seq) {
        self.blocks.clear();
        self.size = 0;
        (self.from, self.end) = (at, at);
    }

    /// Adds what lies between the end and `next`; the oldest blocks make room.
    pub(crate) fn push(&mut self, next: Seq, content: C) {
        self.end = next;
        if content.is_empty() {
            return;
        }
        self.size += content.size();
        self.blocks.push_back(Arc::new(Block { next, content }));
        while self.size > self.max_size && self.blocks.len() > 1 {
            if let Some(oldest) = self.blocks.pop_front() {
                self.size -= oldest.content.size();
                self.from = oldest.next;
            }
        }
    }

    pub(crate) fn find(&self, position: Seq) -> Found<C> {
        if position < self.from {
            return Found::TooOld;
        }
        let at = self.blocks.partition_point(|block| block.next <= position);
        match self.blocks.get(at) {
            Some(block) => Found::Block(block.clone()),
            None => Found::Nothing(self.end.max(position)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Content for &'static str {
        fn is_empty(&self) -> bool {
            str::is_empty(self)
        }

        fn size(&self) -> usize {
            self.len()
        }
    }

    fn found(ring: &Ring<&'static str>, position: u64) -> &'static str {
        match ring.find(Seq(position)) {
            Found::Block(block) => block.content,
            Found::Nothing(_) => "nothing",
            Found::TooOld => "too old",
        }
    }

    #[test]
    fn a_reader_that_waited_is_inside_the_next_block_whatever_went_by() {
        let mut ring = Ring::new(100);
        ring.restart(Seq(5));
        assert_eq!((found(&ring, 4), found(&ring, 5)), ("too old", "nothing"));
        ring.push(Seq(1000), "");
        assert_eq!(found(&ring, 5), "nothing");
        ring.push(Seq(1010), "a");
        assert_eq!(
            (found(&ring, 5), found(&ring, 1009), found(&ring, 1010)),
            ("a", "a", "nothing")
        );
    }

    #[test]
    fn the_oldest_blocks_make_room_and_their_readers_are_told_to_read_the_journal() {
        let mut ring = Ring::new(6);
        ring.restart(Seq(1));
        for (next, content) in [(3, "one"), (5, "two"), (9, "three")] {
            ring.push(Seq(next), content);
        }
        assert_eq!((found(&ring, 4), found(&ring, 5)), ("too old", "three"));
        assert_eq!(ring.size, 5);
    }

    #[test]
    fn a_block_larger_than_the_ring_is_kept_until_the_next_one() {
        let mut ring = Ring::new(2);
        ring.push(Seq(2), "large");
        assert_eq!(found(&ring, 1), "large");
    }
}
