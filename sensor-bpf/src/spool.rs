//! Events that the relay has not acknowledged yet, on disk and bounded.
//!
//! ```text
//! <spool>/verdicts-<stream>/     a journal a stream: alerts, and messages about losses
//!         telemetry-<stream>/    logs
//! ```
//! A start of the sensor draws two new streams; the journal's numbers are the stream's sequences. Streams of earlier
//! starts are drained and then removed. When a bound is reached the oldest events go, counted and told.
//!
//! Half of the bound is for streams of earlier starts; of the rest, verdicts have a quarter, so that
//! telemetry never displaces them.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use journal::{
    Account, Cursor, CursorOptions, Entry, Journal, Reader, RealDisk, Record, Seq, Start, WhenFull,
};
use proto::batch::{RawBatch, RawEvent};
use proto::link::{Range as LinkRange, SpooledStream, StreamClass};
use proto::{Kind, StreamId};
use tokio::sync::mpsc;

use crate::lost::{Class, Loss, Losses, Place};
use crate::teller::Outgoing;

/// Events and bytes of one batch on the link.
const BATCH_EVENTS: usize = 1000;
/// Bytes of one append: well below half of the smallest bound.
const APPEND_BYTES: usize = 512 << 10;
/// Streams of earlier starts that are kept; a relay takes no greeting with many more.
const MOST_LEFT: usize = 128;
const BATCH_BYTES: usize = proto::MAX_BATCH - (64 << 10);

/// Why the spool cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The folder.
    #[error("spool folder {}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A journal in it.
    #[error("spool {}: {why}", path.display())]
    Journal {
        /// Which.
        path: PathBuf,
        /// Why not.
        why: String,
    },
}

/// An opened spool.
#[derive(Debug)]
pub struct Spool {
    /// Takes alerts and messages.
    pub verdicts: Writer,
    /// Takes logs.
    pub telemetry: Writer,
    /// All streams that have something to send: those of earlier starts first.
    pub streams: Vec<Outbound>,
}

impl Spool {
    /// Opens the folder, with two new streams and those of earlier starts that are not drained.
    pub fn open(dir: &Path, max_size: u64, losses: &Losses) -> Result<Self, SpoolError> {
        std::fs::create_dir_all(dir).map_err(|source| SpoolError::Io {
            path: dir.to_owned(),
            source,
        })?;
        let mut streams = leftovers(dir, max_size / 2, losses)?;
        let mut writer = |class: Class, bound: u64| {
            let id = StreamId::random();
            let path = dir.join(format!("{}-{id}", folder_word(class)));
            let stream = Outbound::open(path, id, class, bound, true, losses)?;
            let writer = Writer {
                journal: stream.journal.clone(),
                class,
                losses: losses.clone(),
            };
            streams.push(stream);
            Ok::<_, SpoolError>(writer)
        };
        let verdicts = writer(Class::Verdict, max_size / 8)?;
        let telemetry = writer(Class::Telemetry, max_size / 8 * 3)?;
        Ok(Self {
            verdicts,
            telemetry,
            streams,
        })
    }
}

fn folder_word(class: Class) -> &'static str {
    match class {
        Class::Verdict => "verdicts",
        Class::Telemetry => "telemetry",
    }
}

/// Class and stream of a folder's name.
fn parse_folder(name: &str) -> Option<(Class, StreamId)> {
    let (word, id) = name.split_once('-')?;
    let class = [Class::Verdict, Class::Telemetry]
        .into_iter()
        .find(|c| folder_word(*c) == word)?;
    Some((class, id.parse().ok()?))
}

/// Opens what earlier starts left, newest first, until `bound` bytes; what is older goes, counted.
fn leftovers(dir: &Path, bound: u64, losses: &Losses) -> Result<Vec<Outbound>, SpoolError> {
    let io_error = |source| SpoolError::Io {
        path: dir.to_owned(),
        source,
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io_error)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some((class, id)) = parse_folder(&name) {
            let time = entry
                .metadata()
                .and_then(|metadata| metadata.modified())
                .map_err(io_error)?;
            found.push((time, entry.path(), class, id));
        }
    }
    found.sort_by_key(|(time, ..)| std::cmp::Reverse(*time));
    let mut streams = Vec::new();
    let mut bytes = 0;
    for (_, path, class, id) in found {
        // One stream's damage must not keep the sensor from starting.
        let stream = match Outbound::open(path.clone(), id, class, bound.max(1), false, losses) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "a spooled stream of an earlier start cannot be read and is left alone");
                continue;
            }
        };
        bytes += size_of_folder(&path);
        if stream.is_drained() {
            stream.remove();
        } else if bytes > bound || streams.len() >= MOST_LEFT {
            let reason = "streams of earlier starts fill the spool";
            stream.give_up(reason);
        } else {
            streams.push(stream);
        }
    }
    streams.reverse();
    Ok(streams)
}

fn size_of_folder(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.metadata().ok())
        .map(|metadata| metadata.len())
        .sum()
}

/// Appends the events of one class.
pub struct Writer {
    journal: Journal,
    class: Class,
    losses: Losses,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("class", &self.class)
            .finish_non_exhaustive()
    }
}

impl Writer {
    /// Until every sender is gone and what they sent is on disk.
    pub async fn run(self, mut queue: mpsc::Receiver<Outgoing>) {
        let mut events = Vec::new();
        while queue.recv_many(&mut events, BATCH_EVENTS).await > 0 {
            let mut rest = events.drain(..).peekable();
            while rest.peek().is_some() {
                let mut room = APPEND_BYTES;
                let mut records = Vec::new();
                while let Some(event) =
                    rest.next_if(|event| records.is_empty() || event.payload.len() <= room)
                {
                    room = room.saturating_sub(event.payload.len());
                    records.push(Record {
                        kind: event.kind as u8,
                        time: event.time,
                        payload: event.payload,
                    });
                }
                self.append(records).await;
            }
        }
    }

    async fn append(&self, records: Vec<Record>) {
        let count = records.len() as u64;
        if let Err(error) = self.journal.append(records).await {
            tracing::warn!(%error, class = self.class.word(), count, "events could not be spooled");
            self.losses
                .count(Place::Spool, self.class, count, &error.to_string());
        }
    }
}

/// A stream on its way to the relay.
pub struct Outbound {
    id: StreamId,
    class: Class,
    live: bool,
    path: PathBuf,
    journal: Journal,
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
    fn open(
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
            max_age: std::time::Duration::ZERO,
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
    fn give_up(self, reason: &str) {
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
