//! A reader of the timeline: in memory, between the cuts of a block, or before all of them.

use std::sync::Arc;
use std::time::Instant;

use futures::future::{BoxFuture, FutureExt as _};
use journal::{Block, Entry, ReadError, Seq};
use tokio::sync::watch;

use super::{Inner, Look};
use crate::log::Reader;
use crate::log::kafka::away::PATIENCE;
use crate::log::kafka::cut::Cut;
use crate::log::kafka::follow::arrived;
use crate::log::kafka::merge::Step;

/// One reader.
pub(super) struct Reading {
    inner: Arc<Inner>,
    next: u64,
    /// Where it has come to with what is not in memory.
    stands: Option<Cut>,
    committed: watch::Receiver<Seq>,
}

impl Reading {
    pub(super) fn new(inner: &Arc<Inner>, from: Seq) -> Reading {
        Reading {
            inner: Arc::clone(inner),
            next: from.0.max(1),
            stands: None,
            committed: inner.committed.subscribe(),
        }
    }

    fn nothing(&self) -> Block {
        Block {
            next: Seq(self.next),
            ..Block::default()
        }
    }

    /// The rest of a block that is in memory and ends at `next`.
    fn here(&mut self, entries: &[Entry], next: u64) -> Block {
        let from = entries.partition_point(|entry| entry.seq.0 < self.next);
        let mut block = Block {
            entries: entries[from..].to_vec(),
            next: Seq(next),
            ..Block::default()
        };
        let mut at = self.next;
        for entry in &entries[from..] {
            lost(&mut block, at, entry.seq.0);
            at = entry.seq.0 + 1;
        }
        lost(&mut block, at, next);
        self.next = next;
        self.stands = None;
        block
    }

    /// Reads on between cuts, from the one that `from` finds unless the reader stands there already. A read that waits for the
    /// brokers ends with what it has.
    fn merged(
        &mut self,
        to: &Cut,
        max_bytes: usize,
        from: impl FnOnce(&Inner, u64) -> Result<Cut, ReadError>,
    ) -> Result<Block, ReadError> {
        let stands = self.stands.take();
        let from = match stands.filter(|cut| cut.number() == self.next) {
            Some(cut) => cut,
            None => from(&self.inner, self.next)?,
        };
        let until = Instant::now() + PATIENCE;
        let mut lent = self.inner.past.lend(&from, until)?;
        let mut merged = Merged::new(self.next, from.number());
        while merged.bytes < max_bytes.max(1) {
            match lent.merge.next(to, until) {
                Ok(step) => {
                    if !merged.take(step) {
                        break;
                    }
                }
                Err(_) if merged.has_come_on() => break,
                Err(error) => return Err(error),
            }
        }
        self.inner.note(lent.merge.at());
        self.stands = Some(lent.merge.at().clone());
        lent.keep();
        self.next = merged.block.next.0;
        Ok(merged.block)
    }
}

/// What a read has so far.
struct Merged {
    block: Block,
    bytes: usize,
    /// What the reader has not seen begins here.
    wanted: u64,
    /// The next number.
    number: u64,
}

impl Merged {
    fn new(wanted: u64, number: u64) -> Merged {
        let mut block = Block {
            next: Seq(wanted.max(number)),
            ..Block::default()
        };
        lost(&mut block, wanted, number);
        Merged {
            block,
            bytes: 0,
            wanted,
            number,
        }
    }

    /// Whether the reader has something of it.
    fn has_come_on(&self) -> bool {
        self.block.next.0 > self.wanted
    }

    /// False: there is no more.
    fn take(&mut self, step: Step) -> bool {
        let (missing, read) = match step {
            Step::End(missing) => (missing, None),
            Step::Record(missing, read) => (missing, Some(read)),
        };
        let number = self.number + missing;
        lost(&mut self.block, self.number.max(self.wanted), number);
        self.number = number + u64::from(read.is_some());
        self.block.next = Seq(self.number.max(self.wanted));
        let Some(read) = read else {
            return false;
        };
        if number >= self.wanted {
            self.bytes += read.weight();
            self.block.entries.push(read.entry(number));
        }
        true
    }
}

/// Records that retention took.
fn lost(block: &mut Block, from: u64, to: u64) {
    if to > from {
        block.expired += to - from;
        block.skipped.push(Seq(from)..Seq(to));
    }
}

impl Reader for Reading {
    fn position(&self) -> Seq {
        Seq(self.next)
    }

    fn next(&mut self, max_bytes: usize) -> Result<Block, ReadError> {
        match self.inner.look(self.next) {
            Look::End => Ok(self.nothing()),
            Look::Here { entries, next } => Ok(self.here(&entries, next)),
            Look::Again { from, to } => {
                // A block is read whole: it is small.
                self.merged(&to, usize::MAX, |_, _| Ok(from))
            }
            Look::History { to } => {
                self.merged(&to, max_bytes, |inner, next| inner.cut_before(next))
            }
        }
    }

    fn at_hand(&mut self, _max_bytes: usize) -> Option<Result<Block, ReadError>> {
        match self.inner.look(self.next) {
            Look::End => Some(Ok(self.nothing())),
            Look::Here { entries, next } => Some(Ok(self.here(&entries, next))),
            Look::Again { .. } | Look::History { .. } => None,
        }
    }

    fn wait(&mut self) -> BoxFuture<'_, bool> {
        arrived(&mut self.committed, self.next).boxed()
    }
}
