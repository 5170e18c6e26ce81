//! A stream on its way to the relay: what was sent, what is acknowledged, what is not there any more.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use journal::{
    Account, Cursor, CursorOptions, Entry, Journal, Reader, RealDisk, Seq, Start, WhenFull,
};
use proto::batch::{RawBatch, RawEvent};
use proto::link::{Range as LinkRange, SpooledStream, StreamClass};
use proto::{Kind, StreamId};

use super::{BATCH_EVENTS, SpoolError};
use crate::lost::{Class, Loss, Losses, Place};

/// Bytes of the events of one batch: below what a relay takes, with room for what surrounds them.
const BATCH_BYTES: usize = proto::MAX_BATCH - (64 << 10);

/// A stream on its way to the relay.
pub struct Outbound {
    id: StreamId,
    class: Class,
    live: bool,
    path: PathBuf,
    pub(super) journal: Journal,
    cursor: Cursor,
    reader: Reader,
    losses: Losses,
    /// Read and not sent.
    ready: VecDeque<Entry>,
    /// The next sequence that the relay has not acknowledged.
    acked: u64,
    /// Up to here the cursor is durable.
    saved: u64,
    /// Nothing below this is sent again on this connection.
    sent: u64,
    /// What the relay has out of order, and what is not there any more: no need, or no way, to send it.
    settled: Vec<Range<u64>>,
    /// Of `settled`, what was lost here.
    gone: Vec<Range<u64>>,
    /// Sequences of messages about losses that are on their way.
    messages: BTreeSet<u64>,
}

impl std::fmt::Debug for Outbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            id,
            class,
            live,
            acked,
            sent,
            ..
        } = self;
        write!(
            f,
            "Outbound({id} {class:?} live={live} acked={acked} sent={sent})"
        )
    }
}

impl Outbound {
    pub(super) fn open(
        path: PathBuf,
        id: StreamId,
        class: Class,
        bound: u64,
        live: bool,
        losses: &Losses,
    ) -> Result<Self, SpoolError> {
        let failed = |why: String| SpoolError::Journal {
            path: path.clone(),
            why,
        };
        let disk = RealDisk::open(&path).map_err(|why| failed(why.to_string()))?;
        let config = journal::Config {
            segment_bytes: (bound / 8).clamp(1 << 20, 64 << 20),
            max_size: bound,
            max_age: Duration::ZERO,
            ..journal::Config::default()
        };
        let (journal, _opened) = Journal::open(Arc::new(disk), config, Box::new(()))
            .map_err(|why| failed(why.to_string()))?;
        let options = CursorOptions {
            start: Start::Beginning,
            when_full: WhenFull::Expire,
        };
        let cursor = journal
            .cursor("link", options)
            .map_err(|why| failed(why.to_string()))?;
        let position = cursor.position();
        let reader = journal.reader(position);
        let (acked, saved, sent) = (position.0, position.0, position.0);
        let (ready, settled, gone, messages) = Default::default();
        let losses = losses.clone();
        Ok(Self {
            id,
            class,
            live,
            path,
            journal,
            cursor,
            reader,
            losses,
            ready,
            acked,
            saved,
            sent,
            settled,
            gone,
            messages,
        })
    }

    /// Its name.
    pub fn id(&self) -> StreamId {
        self.id
    }

    /// Verdicts or telemetry.
    pub fn class(&self) -> Class {
        self.class
    }

    /// Is it written to?
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Has the relay everything that is on disk?
    pub fn is_drained(&self) -> bool {
        self.acked > self.journal.committed().0
    }

    /// How many events the relay has not acknowledged.
    pub fn waiting(&self) -> u64 {
        (self.journal.committed().0 + 1).saturating_sub(self.acked)
    }

    /// For how long the oldest of them has waited; none: nothing waits. Reads the disk.
    pub fn lag(&self) -> Option<Duration> {
        if self.is_drained() {
            return None;
        }
        let block = self.journal.reader(Seq(self.acked)).next(1).ok()?;
        let spooled = UNIX_EPOCH + Duration::from_nanos(block.entries.first()?.time);
        Some(
            SystemTime::now()
                .duration_since(spooled)
                .unwrap_or_default(),
        )
    }

    /// For the greeting.
    pub fn describe(&self) -> SpooledStream {
        let class = match self.class {
            Class::Verdict => StreamClass::Verdicts,
            Class::Telemetry => StreamClass::Telemetry,
        };
        let end = (self.journal.committed().0 + 1).max(self.acked);
        SpooledStream {
            stream: self.id.0.to_vec().into(),
            class: class.into(),
            spooled: Some(LinkRange {
                first: self.acked,
                end,
            }),
        }
    }

    /// Wakes when more is on disk.
    pub fn subscribe(&self) -> tokio::sync::watch::Receiver<Seq> {
        self.journal.subscribe()
    }

    /// A new connection: what is not acknowledged is sent again, but for what the relay says that it has.
    pub fn resume(&mut self, received: &[Range<u64>]) {
        self.settled.clone_from(&self.gone);
        self.settled.extend(
            received
                .iter()
                .filter(|range| range.start < range.end)
                .cloned(),
        );
        self.settle();
        self.rewind();
    }

    /// Whatever was sent and not acknowledged is sent again.
    pub fn rewind(&mut self) {
        self.ready.clear();
        self.sent = self.acked;
        self.reader = self.journal.reader(Seq(self.acked));
    }

    /// Everything up to and including `up_to` is the relay's now. False: it was never sent.
    pub fn acknowledge(&mut self, up_to: u64) -> bool {
        if up_to > self.journal.committed().0 {
            return false;
        }
        self.acked = self.acked.max(up_to + 1);
        self.settle();
        true
    }

    /// The relay refused an event for good.
    pub fn rejected(&self, sequence: u64, reason: &str) {
        if self.messages.contains(&sequence) {
            // A message about the loss of a message about a loss would be refused as well, for ever.
            self.losses.count_only(Place::Rejected, self.class, 1);
            return;
        }
        let numbered = Some((self.id, sequence, sequence));
        let (place, class) = (Place::Rejected, self.class);
        self.losses.add(Loss {
            place,
            class,
            count: 1,
            numbered,
            reason: reason.to_owned(),
        });
    }

    /// The next events to send, if there are any.
    pub fn next_batch(&mut self) -> Option<RawBatch> {
        self.fill();
        let first = self.ready.front()?.seq.0;
        let (mut next, mut bytes) = (first, 0);
        let mut events = Vec::new();
        while let Some(entry) = self.ready.front() {
            bytes += entry.payload.len() + 16;
            let full = events.len() == BATCH_EVENTS || (bytes > BATCH_BYTES && !events.is_empty());
            if entry.seq.0 != next || full {
                break;
            }
            let Some(entry) = self.ready.pop_front() else {
                break;
            };
            next += 1;
            // The spool's own records have no other kinds.
            let kind = Kind::try_from(entry.kind).unwrap_or(Kind::Message);
            if kind == Kind::Message {
                self.messages.insert(entry.seq.0);
            }
            events.push(RawEvent {
                kind,
                payload: entry.payload,
            });
        }
        self.sent = next;
        Some(RawBatch {
            stream: self.id,
            first,
            events,
        })
    }

    /// Reads until something is ready or nothing is left.
    fn fill(&mut self) {
        while self.ready.is_empty() {
            let block = match self.reader.next(BATCH_BYTES) {
                Ok(block) => block,
                Err(error) => {
                    tracing::warn!(%error, stream = %self.id, "the spool cannot be read");
                    return;
                }
            };
            let nothing = block.entries.is_empty() && block.skipped.is_empty();
            for range in block.skipped {
                self.missing(range.start.0..range.end.0);
            }
            let (settled, acked) = (&self.settled, self.acked);
            let wanted = |entry: &Entry| {
                entry.seq.0 >= acked && !settled.iter().any(|range| range.contains(&entry.seq.0))
            };
            self.ready.extend(block.entries.into_iter().filter(wanted));
            if nothing {
                return;
            }
        }
    }

    /// Records that were dropped for the bound, or are damaged.
    fn missing(&mut self, range: Range<u64>) {
        let range = range.start.max(self.acked)..range.end;
        if range.start >= range.end || self.gone.contains(&range) {
            return;
        }
        self.losses.add(Loss {
            place: Place::Spool,
            class: self.class,
            count: range.end - range.start,
            numbered: Some((self.id, range.start, range.end - 1)),
            reason: "dropped for spool.max_size, or unreadable, before a relay took it".to_owned(),
        });
        self.gone.push(range.clone());
        self.settled.push(range);
        self.settle();
    }

    /// What is settled need not be waited for.
    fn settle(&mut self) {
        while let Some(range) = self
            .settled
            .iter()
            .find(|range| range.contains(&self.acked))
        {
            self.acked = range.end;
        }
        // A relay may remember more than this disk does.
        self.acked = self.acked.min(self.journal.committed().0 + 1);
        let acked = self.acked;
        self.settled.retain(|range| range.end > acked);
        self.sent = self.sent.max(acked);
        self.ready.retain(|entry| entry.seq.0 >= acked);
        self.messages = self.messages.split_off(&acked);
    }

    /// Makes the acknowledged position durable, so that its disk can be used again.
    pub async fn save(&mut self) {
        if self.saved >= self.acked {
            return;
        }
        let passed = self.saved..self.acked;
        let overlap = |range: &Range<u64>| {
            range
                .end
                .min(passed.end)
                .saturating_sub(range.start.max(passed.start))
        };
        let expired = self.gone.iter().map(overlap).sum();
        let delivered = passed.end - passed.start - expired;
        let delta = Account {
            delivered,
            expired,
            ..Account::default()
        };
        match self.cursor.advance(Seq(self.acked), delta, None).await {
            Ok(()) => {
                self.saved = self.acked;
                let saved = self.saved;
                self.gone.retain(|range| range.end > saved);
            }
            Err(error) => {
                tracing::warn!(%error, stream = %self.id, "the spool's position cannot be kept")
            }
        }
    }

    /// Ends a stream that is drained and not written to any more.
    pub fn remove(self) {
        let Self { path, journal, .. } = self;
        journal.close();
        if let Err(error) = std::fs::remove_dir_all(&path) {
            tracing::warn!(%error, path = %path.display(), "a drained stream's folder stays");
        }
    }

    /// Ends a stream with what is in it, counted.
    pub(super) fn give_up(self, reason: &str) {
        let end = self.journal.committed().0 + 1;
        if end > self.acked {
            self.losses.add(Loss {
                place: Place::Spool,
                class: self.class,
                count: end - self.acked,
                numbered: Some((self.id, self.acked, end - 1)),
                reason: reason.to_owned(),
            });
        }
        self.remove();
    }

    /// Flushes and closes; the folder stays for the next start.
    pub async fn close(mut self) {
        self.save().await;
        self.journal.close();
    }
}
