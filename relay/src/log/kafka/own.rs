//! What this relay took itself, for sinks that keep a sum: each relay counts its own events, and all relays together count
//! every event once.
//!
//! ```text
//! all partitions ─▶ thread: drops what others took, numbers the rest ─▶ queue, bounded ─▶ reader
//!                            └ marks: before this number lies all of a partition up to there
//! cursor: moves over the numbers, keeps the cut that the marks make of them, with the sink's state, in one file
//! ```
//! Numbers begin anew with every start; what lasts is the cut.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};
use journal::{Account, Block, CursorError, CursorStats, Entry, ReadError, Seq, Start};
use tokio::sync::watch;

use super::BadLog;
use super::cut::Cut;
use super::follow::{Stop, arrived, follow};
use super::position::{Position, PositionFile};
use super::record::Read;
use super::topic::Topic;
use super::unusable;
use crate::log::{Cursor, Reader, View};

/// Bytes that wait for the sink.
const WAITING: usize = 16 << 20;
/// Between two looks of the thread.
const LOOK: Duration = Duration::from_millis(200);

/// What this relay took.
pub(super) struct Own {
    name: String,
    shared: Arc<Shared>,
    books: Arc<Mutex<Books>>,
}

struct Shared {
    relay: String,
    state: Mutex<State>,
    room: Condvar,
    committed: watch::Sender<Seq>,
    stop: Stop,
}

struct State {
    /// What the cursor has not passed, in order.
    entries: VecDeque<Entry>,
    bytes: usize,
    /// The number that comes next.
    next: u64,
    /// Before the number lies all of the partition up to the offset.
    marks: VecDeque<(u64, usize, i64)>,
    /// What was read.
    read: Cut,
    /// Where the log ended at start.
    old: Cut,
    /// The number of this relay's newest event of that time, once it was read.
    old_end: Option<Seq>,
}

struct Books {
    position: u64,
    account: Account,
    /// What lies before `position`.
    cut: Cut,
    state: Option<Bytes>,
    file: PositionFile,
}

impl Own {
    /// Takes up the position of an earlier life. Blocks.
    pub(super) fn open(
        topic: &Arc<Topic>,
        sink: &str,
        relay: &str,
        folder: &Path,
        start: Start,
    ) -> Result<Own, BadLog> {
        let bad = |error: &dyn std::fmt::Display| BadLog::new(error.to_string());
        let file = PositionFile::new(folder, sink, topic.id()).map_err(|e| bad(&e))?;
        let (low, high) = topic.watermarks().map_err(|e| bad(&e))?;
        let saved = file.load().map_err(|e| bad(&e))?;
        let (cut, state) = match saved {
            Some(Position { cut, state }) => {
                (cut.widened(topic.partitions()).kept(&low, &high), state)
            }
            None if start == Start::Beginning => (low, None),
            None => (high.clone(), None),
        };
        // Where a sink began is known from its first start on.
        file.save(&cut, state.as_ref()).map_err(|e| bad(&e))?;
        let begin = cut.clone();
        let state_of = State {
            entries: VecDeque::new(),
            bytes: 0,
            next: 1,
            marks: VecDeque::new(),
            old_end: (cut == high).then_some(Seq(0)),
            read: cut.clone(),
            old: high,
        };
        let shared = Arc::new(Shared {
            relay: relay.to_owned(),
            state: Mutex::new(state_of),
            room: Condvar::new(),
            committed: watch::Sender::new(Seq(0)),
            stop: Stop::default(),
        });
        let books = Books {
            position: 1,
            account: Account::default(),
            cut,
            state,
            file,
        };
        let (follower, stop) = (Arc::clone(&shared), shared.stop.clone());
        let lacks = "this relay counts nothing new";
        follow(topic, &begin, stop, lacks, move |records| {
            follower.take(records)
        })?;
        Ok(Own {
            name: sink.to_owned(),
            shared,
            books: Arc::new(Mutex::new(books)),
        })
    }

    /// Ends the thread, soon.
    pub(super) fn stop(&self) {
        self.shared.stop.tell();
        self.shared.room.notify_all();
    }

    /// The sink.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What it has counted, or left to others: all that lies before this.
    pub(super) fn counted(&self) -> Cut {
        self.books().cut.clone()
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for room, then takes what arrived.
    fn take(&self, records: Vec<Read>) {
        let mut state = self.state();
        while state.bytes > WAITING && !self.stop.is_told() {
            let waited = self.room.wait_timeout(state, LOOK);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let own = records
            .into_iter()
            .filter_map(|read| state.take(read, &self.relay));
        let committed = own.last();
        drop(state);
        if let Some(committed) = committed {
            self.committed.send_replace(committed);
        }
    }
}

impl State {
    /// Puts a record down, if it is new; the number that readers may read up to, if it is this relay's.
    fn take(&mut self, read: Read, relay: &str) -> Option<Seq> {
        let partition = usize::try_from(read.partition).ok()?;
        let (at, after) = (self.read.0.get_mut(partition)?, read.offset + 1);
        if read.offset < *at {
            return None;
        }
        *at = after;
        let own = read.is_of(relay);
        if own {
            self.bytes += read.weight();
            self.entries.push_back(read.entry(self.next));
            self.next += 1;
        }
        self.mark(partition, after);
        let behind = self
            .read
            .0
            .iter()
            .zip(&self.old.0)
            .any(|(read, old)| read < old);
        if self.old_end.is_none() && !behind {
            self.old_end = Some(Seq(self.next - 1));
        }
        own.then(|| Seq(self.next - 1))
    }

    fn mark(&mut self, partition: usize, after: i64) {
        match self.marks.back_mut() {
            Some((number, last, offset)) if (*number, *last) == (self.next, partition) => {
                *offset = after;
            }
            _ => self.marks.push_back((self.next, partition, after)),
        }
    }

    /// The cursor is at `to`: what lies before it is let go, and the cut moves to where the marks say.
    fn pass(&mut self, to: u64, cut: &mut Cut) {
        while let Some(entry) = self.entries.front()
            && entry.seq.0 < to
        {
            self.bytes -= entry.payload.len() + size_of::<Entry>();
            self.entries.pop_front();
        }
        while let Some((number, partition, after)) = self.marks.front().copied()
            && number <= to
        {
            cut.0[partition] = after;
            self.marks.pop_front();
        }
    }
}

impl View for Own {
    fn first(&self) -> Seq {
        Seq(1)
    }

    fn committed(&self) -> Seq {
        *self.shared.committed.borrow()
    }

    fn subscribe(&self) -> watch::Receiver<Seq> {
        self.shared.committed.subscribe()
    }

    fn reader(&self, from: Seq) -> Box<dyn Reader> {
        Box::new(Reading {
            shared: Arc::clone(&self.shared),
            next: from.0.max(1),
            committed: self.shared.committed.subscribe(),
        })
    }

    /// A sum does not go back, and skips only what it has not counted: only "all that is there" has a meaning.
    fn seek_time(&self, _unix_ns: u64) -> Result<Seq, ReadError> {
        Ok(self.committed().next())
    }

    fn old_end(&self) -> Option<Seq> {
        self.shared.state().old_end
    }
}

struct Reading {
    shared: Arc<Shared>,
    next: u64,
    committed: watch::Receiver<Seq>,
}

impl Reader for Reading {
    fn position(&self) -> Seq {
        Seq(self.next)
    }

    fn next(&mut self, max_bytes: usize) -> Result<Block, ReadError> {
        let state = self.shared.state();
        let from = state
            .entries
            .partition_point(|entry| entry.seq.0 < self.next);
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for entry in state.entries.range(from..) {
            if bytes >= max_bytes.max(1) {
                break;
            }
            bytes += entry.payload.len() + size_of::<Entry>();
            entries.push(entry.clone());
        }
        drop(state);
        self.next += entries.len() as u64;
        Ok(Block {
            entries,
            next: Seq(self.next),
            ..Block::default()
        })
    }

    /// All of it is in memory.
    fn at_hand(&mut self, max_bytes: usize) -> Option<Result<Block, ReadError>> {
        Some(self.next(max_bytes))
    }

    fn wait(&mut self) -> BoxFuture<'_, bool> {
        arrived(&mut self.committed, self.next).boxed()
    }
}

impl Cursor for Own {
    fn position(&self) -> Seq {
        Seq(self.books().position)
    }

    fn state(&self) -> Option<Bytes> {
        self.books().state.clone()
    }

    fn advance(
        &self,
        to: Seq,
        account: Account,
        state: Option<Bytes>,
    ) -> BoxFuture<'_, Result<(), CursorError>> {
        let (shared, books) = (Arc::clone(&self.shared), Arc::clone(&self.books));
        async move {
            let saved = tokio::task::spawn_blocking(move || {
                let mut books = books.lock().unwrap_or_else(PoisonError::into_inner);
                let books = &mut *books;
                books.position = to.0;
                books.account += account;
                shared.state().pass(to.0, &mut books.cut);
                shared.room.notify_all();
                books.state = state.or_else(|| books.state.take());
                books.file.save(&books.cut, books.state.as_ref())
            });
            let saved = saved.await.map_err(|_| CursorError::Closed)?;
            saved.map_err(|error| unusable(&self.name, error))
        }
        .boxed()
    }

    fn rewind(&self, _to: Seq) -> BoxFuture<'_, Result<Seq, CursorError>> {
        let error = unusable(&self.name, "a sum does not go back");
        async move { Err(error) }.boxed()
    }

    fn stats(&self) -> CursorStats {
        let books = self.books();
        let next = self.committed().next().0.max(books.position);
        let pending = next - books.position;
        CursorStats {
            name: self.name.clone(),
            position: Seq(books.position),
            pending,
            account: books.account,
            journaled: books.account.total() + pending,
            birth: Seq(0),
            retired: false,
        }
    }
}
