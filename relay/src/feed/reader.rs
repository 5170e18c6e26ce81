//! One client of the feed: a position, and what it has been told.
//!
//! ```text
//!            position                     pump
//!   ─────────────┬───────────────┬──────────┬──────▶ journal
//!    delivered   │ read from the │  shared  │
//!                │ journal       │  blocks  │
//! ```
//! A reader that falls further behind than `max_lag` jumps to the pump's position. What it missed is known exactly:
//! the pump has counted every event, the reader those it has passed, and the difference is what lies between.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::Stream;
use journal::{Block, Entry, ReadError, Seq};
use proto::{Kind, feeder};
use tokio::sync::{mpsc, watch};
use tonic::Status;

use crate::access::Namespaces;
use crate::filter::Filter;
use crate::framed::frame;
use crate::log::{Later, Reader};

use super::figures::class;
use super::frames::Frames;
use super::past::{Made, Onward, Past, Stretch};
use super::ring::Counts;
use super::tail::{Admission, Behind, Lane, READ, Tail, count, kind_index};
use super::threads::Threads;

/// How often a failing read is repeated, and after which time.
const ATTEMPTS: usize = 4;
const PAUSE: Duration = Duration::from_millis(50);

/// How often a reader that is live looks whether the log can be read again.
const AGAIN: Duration = Duration::from_millis(500);

/// Why a reader jumps whose events retention took.
pub(crate) const EXPIRED: &str = "they expired from the journal before it read them";

/// A reader's place in the journal and the events it has passed since it came.
pub(crate) struct Place {
    tail: Tail,
    lane: Lane,
    /// The next number to look at.
    pub(crate) position: Seq,
    /// What lies before is not delivered.
    pub(crate) from: Seq,
    /// What lies before was not counted by the pump either.
    counted_from: Seq,
    seen: Counts,
    /// While it reads behind the rings: the row that it is in.
    behind: Option<(Behind, Arc<Onward>)>,
}

impl Place {
    /// A place at the live end, or at `from` where the reader has already read up to there.
    pub(crate) fn new(tail: &Tail, lane: Lane, from: Option<Seq>) -> Place {
        let start = tail.join(lane);
        let from = from.unwrap_or(start.live);
        Place {
            tail: tail.clone(),
            lane,
            position: from.min(start.pump),
            from,
            counted_from: start.pump,
            seen: start.totals,
            behind: None,
        }
    }

    /// Is something journaled at `time` (unix nanoseconds) older than a live reader may get it?
    pub(crate) fn is_late(&self, time: u64) -> bool {
        // Before `counted_from` nothing is known of what a jump would miss; it is a moment after the start.
        self.position >= self.counted_from && age(time) > self.tail.max_lag()
    }

    /// Why a reader that is late jumps.
    pub(crate) fn lateness(&self) -> String {
        format!("it was more than {:?} behind", self.tail.max_lag())
    }

    /// Has retention taken what this reader had still to read?
    pub(crate) fn is_expired(&self) -> bool {
        self.position >= self.counted_from && self.position < self.tail.log().first()
    }

    /// Goes to fresh events; how many of each kind lie between.
    pub(crate) fn jump(&mut self) -> Counts {
        let (position, totals) = self.tail.fresh();
        let missed = std::array::from_fn(|kind| totals[kind].saturating_sub(self.seen[kind]));
        self.seen = totals;
        self.position = position;
        self.caught_up();
        missed
    }

    /// Passes `events` of one kind on the way to `next`.
    fn pass(&mut self, kind: Kind, events: u64, next: Seq) {
        self.seen[kind_index(kind)] += events;
        self.position = next;
    }

    /// Passes these records on the way to `next`.
    pub(crate) fn pass_records(&mut self, entries: &[journal::Entry], next: Seq) {
        let counted =
            entries.partition_point(|entry| entry.seq < self.counted_from.max(self.position));
        entries[counted..]
            .iter()
            .for_each(|entry| count(&mut self.seen, entry));
        self.position = next;
    }

    /// Reads the log behind the rings, off the threads that serve everybody; shared with who reads there, too. Who is live has
    /// time: while the log cannot be read at present, this waits.
    ///
    /// # Errors
    /// The log cannot be read here, or the feeds end.
    pub(crate) async fn read_past<C: Made>(
        &mut self,
        past: fn(&Tail) -> &Past<C>,
    ) -> Result<Arc<Stretch<C>>, ReadError> {
        let mut stopped = self.tail.stopped();
        loop {
            let read = self.read_now(past).await;
            match read {
                Err(error) if Later::of(&error).is_some() => {
                    tracing::debug!(%error, "a live reader waits");
                    tokio::select! {
                        () = tokio::time::sleep(AGAIN) => {}
                        _ = stopped.wait_for(|stopped| *stopped) => return Err(error),
                    }
                }
                read => return read,
            }
        }
    }

    async fn read_now<C: Made>(
        &mut self,
        past: fn(&Tail) -> &Past<C>,
    ) -> Result<Arc<Stretch<C>>, ReadError> {
        let (behind, row) = match self.behind.take() {
            Some((behind, row)) => (behind, Some(row)),
            None => (self.tail.behind(), None),
        };
        let (log, position) = (&**self.tail.log(), self.position);
        let read = past(&self.tail).read(log, position, row.as_deref(), behind.readers());
        let stretch = read.await?;
        self.behind = Some((behind, stretch.onward.clone()));
        Ok(stretch)
    }

    /// The reader is back among the shared blocks.
    pub(crate) fn caught_up(&mut self) {
        self.behind = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.tail.leave(self.lane);
    }
}

/// Reads a block, and does with it and the reader whatever else takes time, off the threads that serve everybody. The disk
/// is asked again before its error counts: the journal reads around a place that keeps failing.
pub(crate) async fn read_patiently<T: Send + 'static>(
    threads: &Threads,
    mut reader: Box<dyn Reader>,
    then: impl FnOnce(&mut dyn Reader, Block) -> T + Send + 'static,
) -> (Box<dyn Reader>, Result<T, ReadError>) {
    let read = move || {
        let block = patiently(&mut *reader);
        let read = block.map(|block| then(&mut *reader, block));
        (reader, read)
    };
    threads.run(read).await
}

fn patiently(reader: &mut dyn Reader) -> Result<Block, ReadError> {
    let mut block = reader.next(READ);
    for _ in 0..ATTEMPTS {
        if block
            .as_ref()
            .err()
            .is_none_or(|error| Later::of(error).is_some())
        {
            break;
        }
        std::thread::sleep(PAUSE);
        block = reader.next(READ);
    }
    block
}

/// A stream of one kind for `feeder.LogService`: blocks of ready frames.
pub(crate) struct Feed {
    tail: Tail,
    kind: Kind,
    peer: Option<SocketAddr>,
    /// For a reader who may not see all: what it may. Such a reader gets frames of its own.
    filter: Option<Filter>,
    place: Place,
    end: watch::Receiver<Seq>,
    stopped: watch::Receiver<bool>,
    notices: Option<mpsc::Receiver<Bytes>>,
    _admission: Admission,
}

/// The feed of one kind from now on, for the client at `peer` who may see these namespaces.
///
/// # Errors
/// `ResourceExhausted` while there are as many readers as may be.
pub(crate) fn feed(
    tail: &Tail,
    kind: Kind,
    peer: Option<SocketAddr>,
    namespaces: &Namespaces,
) -> Result<impl Stream<Item = Result<Bytes, Status>> + Send + use<>, Status> {
    let filter = (!namespaces.is_all()).then(|| Filter::of(kind).within(namespaces.clone()));
    let lane = match filter {
        Some(_) => Lane::Records,
        None => Lane::Frames(kind),
    };
    let feed = Feed {
        _admission: tail.admit()?,
        tail: tail.clone(),
        kind,
        peer,
        filter,
        end: tail.end(lane),
        place: Place::new(tail, lane, None),
        stopped: tail.stopped(),
        notices: peer
            .filter(|_| kind == Kind::Message)
            .map(|peer| tail.notices(peer)),
    };
    Ok(futures::stream::unfold(Some(feed), |feed| async move {
        let mut feed = feed?;
        match feed.next().await {
            Ok(bytes) => Some((Ok(bytes), Some(feed))),
            Err(status) => Some((Err(status), None)),
        }
    }))
}

impl Feed {
    /// The next frames, as soon as there are some.
    async fn next(&mut self) -> Result<Bytes, Status> {
        loop {
            if *self.stopped.borrow() {
                return Err(Status::unavailable("the relay is stopping"));
            }
            self.end.borrow_and_update(); // before looking: what comes after the look wakes the wait
            let taken = match self.shared() {
                Ok(taken) => taken,
                Err(None) => self.take_past().await?,
                Err(Some(end)) => {
                    self.place.caught_up();
                    self.place.position = end;
                    self.wait().await
                }
            };
            if let Some(bytes) = taken {
                return Ok(bytes);
            }
            // What a filter leaves out takes time, too: others get theirs in between.
            tokio::task::yield_now().await;
        }
    }

    /// What the shared blocks have for this place.
    fn shared(&mut self) -> Result<Option<Bytes>, Option<Seq>> {
        let position = self.place.position;
        if self.filter.is_some() {
            return self.tail.records(position).taken(|block| {
                self.place.caught_up();
                self.take_records(&block.content, block.next)
            });
        }
        self.tail.frames(self.kind, position).taken(|block| {
            self.place.caught_up();
            self.take(&block.content, block.next)
        })
    }

    /// The frames of those records that the reader may see, or the jump.
    fn take_records(&mut self, entries: &[Entry], next: Seq) -> Option<Bytes> {
        let Some(filter) = &self.filter else {
            return self.take(&Frames::encode(self.kind, entries), next);
        };
        let position = self.place.position.max(self.place.from);
        let wanted = |entry: &&Entry| entry.seq >= position && filter.admits(entry);
        let seen: Vec<Entry> = entries.iter().filter(wanted).cloned().collect();
        if seen
            .first()
            .is_some_and(|entry| self.place.is_late(entry.time))
        {
            return self.jump(self.place.lateness());
        }
        self.place.pass_records(entries, next);
        self.tail.count_sent(self.kind, seen.len() as u64); // usize is at most 64 bits
        let frames = Frames::encode(self.kind, &seen);
        Some(frames.from(Seq(0))).filter(|bytes| !bytes.is_empty())
    }

    /// Waits for something new; a notice for this connection is something new, too.
    async fn wait(&mut self) -> Option<Bytes> {
        let notice = async {
            match &mut self.notices {
                Some(notices) => notices.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.end.changed() => None,
            _ = self.stopped.changed() => None,
            notice = notice => notice,
        }
    }

    /// What of a block is still to be sent, or the jump if it is too old.
    fn take(&mut self, frames: &Frames, next: Seq) -> Option<Bytes> {
        let position = self.place.position.max(self.place.from);
        let (count, time) = frames.count_from(position);
        if time.is_some_and(|time| self.place.is_late(time)) {
            return self.jump(self.place.lateness());
        }
        let passed = frames.count_from(self.place.position).0;
        self.place.pass(self.kind, passed, next);
        self.tail.count_sent(self.kind, count);
        Some(frames.from(position)).filter(|bytes| !bytes.is_empty())
    }

    async fn take_past(&mut self) -> Result<Option<Bytes>, Status> {
        if self.place.is_expired() {
            return Ok(self.jump(EXPIRED.to_owned()));
        }
        let position = self.place.position;
        let (taken, next) = if self.filter.is_some() {
            let read = self.place.read_past(Tail::past_records).await;
            let stretch = read.map_err(unreadable)?;
            (
                self.take_records(&stretch.content.entries, stretch.next),
                stretch.next,
            )
        } else {
            let read = self.place.read_past(Tail::past_frames).await;
            let stretch = read.map_err(unreadable)?;
            (
                self.take(&stretch.content[kind_index(self.kind)], stretch.next),
                stretch.next,
            )
        };
        if next <= position {
            // The pump is ahead of what is committed for this reader: it cannot be, but must not spin if it is.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(taken)
    }

    /// Goes to fresh events and tells the connection's `WatchMessages` streams.
    fn jump(&mut self, why: String) -> Option<Bytes> {
        let missed = self.place.jump()[kind_index(self.kind)];
        if missed == 0 {
            return None;
        }
        self.tail.count_missed(self.kind, missed);
        tracing::warn!(peer = ?self.peer, kind = class(self.kind), missed, why, "a reader of the feed was too slow");
        // How much there is that a limited reader may not see is not for it to know.
        let told = self.filter.is_none().then_some(missed);
        let frame = notice(&self.tail, self.kind, told, why);
        match self.peer {
            _ if self.kind == Kind::Message => return Some(frame),
            Some(peer) => self.tail.notify(peer, &frame),
            None => {}
        }
        None
    }
}

/// Why there is nothing to read, and whether to ask again.
pub(crate) fn unreadable(error: ReadError) -> Status {
    match Later::of(&error) {
        Some(Later::Away(why)) => return Status::unavailable(format!("{}: {why}", error.name)),
        Some(Later::Busy(why)) => return Status::resource_exhausted(why),
        None => {}
    }
    Status::data_loss(format!("cannot read the log: {error}"))
}

/// The framed `feeder.Message` that tells of a loss at the feed, and of how much if that may be known.
fn notice(tail: &Tail, kind: Kind, missed: Option<u64>, reason: String) -> Bytes {
    let config = tail.config();
    let class = class(kind);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let message = feeder::Message {
        timestamp: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
        updated_time: proto::updated_time(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)),
        cluster_name: config.cluster.clone(),
        host_name: config.host.clone(),
        r#type: "Message".to_string(),
        level: "WARN".to_string(),
        message: match missed {
            Some(missed) => {
                format!("feed: this client missed {missed} events of kind {class}: {reason}")
            }
            None => {
                format!("feed: this client may have missed events of kind {class}: {reason}")
            }
        },
        lost: Some(feeder::Lost {
            r#where: "feed".to_string(),
            class: class.to_string(),
            count: missed.unwrap_or_default(),
            reason,
            ..Default::default()
        }),
        ..Default::default()
    };
    frame(&message)
}

/// How long ago a unix time in nanoseconds was; nothing for one to come.
fn age(time: u64) -> Duration {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    now.saturating_sub(Duration::from_nanos(time))
}
