//! The end of the journal, read once for everybody.
//!
//! ```text
//! journal ──▶ pump ──┬─▶ ring of alerts   (frames) ─┬─▶ reader: a position
//!                    ├─▶ ring of logs     (frames)  ├─▶ reader: a position
//!                    ├─▶ ring of messages (frames)  └─▶ …
//!                    └─▶ ring of records            ───▶ readers with a filter
//! ```
//! One task reads what was committed while there is at least one reader, encodes for the lanes that have readers and
//! wakes them. A reader is only a position: it takes the block it is in and goes on behind it. One that is too slow
//! for the rings reads the journal itself (`past`: what another one just read there is shared). There are no queues and
//! nothing to drop.

use crate::metrics::Registry;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use journal::{Block, Entry, Seq};
use prometheus::IntGauge;
use proto::Kind;
use tokio::sync::{mpsc, watch};
use tonic::Status;

use super::figures::Figures;
use super::frames::Frames;
use super::past::Past;
use super::ring::{Counts, Found, Ring};
use super::sieve::Sieve;
use super::threads::Threads;
use crate::filter::Budget;
use crate::log::{Later, Reader, View};

/// How much of the journal is read at a time, in bytes. A client that stops reading holds on to one block, so this
/// times the number of clients is what they can pin.
pub(crate) const READ: usize = 64 << 10;
/// Times a ring's memory for frames behind the rings: as much as the sockets of readers take at once, so that readers stay
/// close enough to share (16 of them catching up: 0.40 µs of CPU a delivery, and 1.02 with one ring's memory).
const FRAMES_BEHIND: usize = 4;
/// Memory that the filters of all readers may take, in bytes: a thousand or more with usual expressions, some dozens with the
/// largest.
const FILTERS: usize = 128 << 20;
/// Notices that wait for one `WatchMessages` stream; more than that at once say nothing new.
const NOTICES: usize = 16;

/// What the feeds need.
#[derive(Clone, Debug)]
pub struct Config {
    /// A live reader that is further behind jumps to fresh events and is told how many it missed.
    pub max_lag: Duration,
    /// Memory of each of the four rings, in bytes. While readers are behind them, five times that is kept for those.
    pub ring: usize,
    /// Readers at one time; more are refused.
    pub max_clients: usize,
    /// The cluster's name, for messages that the relay itself writes.
    pub cluster: String,
    /// This machine's name, likewise.
    pub host: String,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            max_lag: Duration::from_secs(60),
            ring: 4 << 20,
            max_clients: 4096,
            cluster: "default".to_string(),
            host: String::new(),
        }
    }
}

/// What a reader reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Ready frames of one kind.
    Frames(Kind),
    /// Records of every kind.
    Records,
}

impl Lane {
    const COUNT: usize = 4;

    fn index(self) -> usize {
        match self {
            Lane::Frames(kind) => kind_index(kind),
            Lane::Records => 3,
        }
    }
}

/// The place of a kind in [`Counts`].
pub(crate) fn kind_index(kind: Kind) -> usize {
    usize::from(u8::from(kind)) - 1
}

/// Adds one event of the entry's kind, if it is one.
pub(crate) fn count(counts: &mut Counts, entry: &Entry) {
    // What is shorter than an id is no event, and nobody is sent it.
    if let Ok(kind) = Kind::try_from(entry.kind)
        && entry.payload.len() >= proto::EventId::LEN
    {
        counts[kind_index(kind)] += 1;
    }
}

/// The journal's end for any number of readers; a cheap handle.
#[derive(Clone)]
pub struct Tail {
    inner: Arc<Inner>,
}

struct Inner {
    log: Arc<dyn View>,
    config: Config,
    /// Of the configuration in force, in nanoseconds.
    max_lag: AtomicU64,
    metrics: Figures,
    rings: Mutex<Rings>,
    /// What readers behind the rings have read.
    past_frames: Past<[Frames; 3]>,
    past_records: Past<Block>,
    threads: Threads,
    sieve: Sieve,
    /// Readers that are there.
    behind: AtomicUsize,
    filters: Budget,
    /// One a lane: where its newest block ends. Readers of that lane wait on it.
    ends: [watch::Sender<Seq>; Lane::COUNT],
    /// Tells the pump that the first reader came or the last one went.
    readers: watch::Sender<()>,
    stopped: watch::Sender<bool>,
    notices: Mutex<HashMap<SocketAddr, Vec<mpsc::Sender<Bytes>>>>,
}

/// What pump and readers share under one lock, held for a look-up or a push only.
struct Rings {
    /// Counts the pump's runs: one that was overtaken publishes nothing.
    run: u64,
    /// The next number that the pump will read.
    position: Seq,
    /// Events that this run has read, by kind.
    totals: Counts,
    readers: [usize; Lane::COUNT],
    frames: [Ring<Frames>; 3],
    records: Ring<Vec<Entry>>,
}

/// A reader's place among those that the relay serves.
pub(crate) struct Admission {
    clients: IntGauge,
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.clients.dec();
    }
}

/// A reader behind the rings. When the last one has caught up, nothing of the past is kept.
pub(crate) struct Behind {
    tail: Tail,
}

impl Behind {
    /// How many there are.
    pub(crate) fn readers(&self) -> usize {
        self.tail.inner.behind.load(Ordering::Relaxed)
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        let inner = &self.tail.inner;
        if inner.behind.fetch_sub(1, Ordering::Relaxed) == 1 {
            inner.past_frames.clear();
            inner.past_records.clear();
        }
    }
}

/// Where a new reader stands.
pub(crate) struct Start {
    /// The pump's position: what lies before it was not counted in `totals`.
    pub(crate) pump: Seq,
    /// Counts of the pump's run up to there.
    pub(crate) totals: Counts,
    /// The first number that was not committed when the reader came.
    pub(crate) live: Seq,
}

impl Tail {
    /// Starts the task that reads the journal's end; it ends with [`Tail::stop`].
    pub fn start(
        log: impl View + 'static,
        config: Config,
        registry: &Registry,
    ) -> Result<Tail, prometheus::Error> {
        let ring = config.ring;
        let rings = Rings {
            run: 0,
            position: Seq(1),
            totals: [0; 3],
            readers: [0; Lane::COUNT],
            frames: std::array::from_fn(|_| Ring::new(ring)),
            records: Ring::new(ring),
        };
        let threads = Threads::default();
        let inner = Arc::new(Inner {
            log: Arc::new(log),
            max_lag: AtomicU64::new(nanoseconds(config.max_lag)),
            config,
            metrics: Figures::new(registry)?,
            rings: Mutex::new(rings),
            past_frames: Past::new(FRAMES_BEHIND * ring, &threads),
            past_records: Past::new(ring, &threads),
            threads,
            sieve: Sieve::default(),
            behind: AtomicUsize::new(0),
            filters: Budget::new(FILTERS),
            ends: std::array::from_fn(|_| watch::Sender::new(Seq(0))),
            readers: watch::Sender::new(()),
            stopped: watch::Sender::new(false),
            notices: Mutex::default(),
        });
        tokio::spawn(inner.clone().pump());
        Ok(Tail { inner })
    }

    /// Ends every reader's stream and the task.
    pub fn stop(&self) {
        self.inner.stopped.send_replace(true);
    }

    /// How many readers there are: streams of `feeder.LogService` and `Watch` calls.
    pub fn clients(&self) -> u64 {
        u64::try_from(self.inner.metrics.clients.get()).unwrap_or(0)
    }

    /// Lets one more reader in.
    ///
    /// # Errors
    /// `ResourceExhausted` while there are as many as may be.
    pub(crate) fn admit(&self) -> Result<Admission, Status> {
        let most = self.inner.config.max_clients;
        let clients = &self.inner.metrics.clients;
        let _counting = self.inner.lock(); // one at a time, so that two cannot take the last place
        if self.clients() >= most as u64 {
            // usize is at most 64 bits
            return Err(Status::resource_exhausted(format!(
                "{most} readers are all that this relay serves"
            )));
        }
        clients.inc();
        Ok(Admission {
            clients: clients.clone(),
        })
    }

    /// What the filters of all readers share.
    pub(crate) fn filters(&self) -> &Budget {
        &self.inner.filters
    }

    /// Events that readers missed since the start because they were too slow, by kind.
    pub fn missed(&self) -> [(Kind, u64); 3] {
        Kind::ALL.map(|kind| (kind, self.inner.metrics.missed(kind).get()))
    }

    pub(crate) fn log(&self) -> &Arc<dyn View> {
        &self.inner.log
    }

    /// A live reader that is further behind jumps.
    pub(crate) fn max_lag(&self) -> Duration {
        Duration::from_nanos(self.inner.max_lag.load(Ordering::Relaxed))
    }

    /// Changes that while readers read.
    pub(crate) fn set_max_lag(&self, max_lag: Duration) {
        let lag = nanoseconds(max_lag);
        self.inner.max_lag.store(lag, Ordering::Relaxed);
    }

    pub(crate) fn config(&self) -> &Config {
        &self.inner.config
    }

    pub(crate) fn stopped(&self) -> watch::Receiver<bool> {
        self.inner.stopped.subscribe()
    }

    /// Becomes a reader of a lane, until [`Tail::leave`].
    pub(crate) fn join(&self, lane: Lane) -> Start {
        let mut rings = self.inner.lock();
        let live = Seq(self.inner.log.committed().0 + 1);
        if rings.readers.iter().all(|readers| *readers == 0) {
            rings.restart(live);
        }
        rings.readers[lane.index()] += 1;
        self.inner.readers.send_replace(());
        Start {
            pump: rings.position,
            totals: rings.totals,
            live,
        }
    }

    pub(crate) fn leave(&self, lane: Lane) {
        let mut rings = self.inner.lock();
        rings.readers[lane.index()] -= 1;
        self.inner.readers.send_replace(());
    }

    /// Changes when the lane has something new.
    pub(crate) fn end(&self, lane: Lane) -> watch::Receiver<Seq> {
        self.inner.ends[lane.index()].subscribe()
    }

    pub(crate) fn frames(&self, kind: Kind, position: Seq) -> Found<Frames> {
        self.inner.lock().frames[kind_index(kind)].find(position)
    }

    /// What readers of frames share behind the rings.
    pub(crate) fn past_frames(&self) -> &Past<[Frames; 3]> {
        &self.inner.past_frames
    }

    /// What readers of records share there.
    pub(crate) fn past_records(&self) -> &Past<Block> {
        &self.inner.past_records
    }

    /// Where readers of the past read, and wait for a disk or a broker.
    pub(crate) fn threads(&self) -> &Threads {
        &self.inner.threads
    }

    /// Where readers are whose filters take time.
    pub(crate) fn sieve(&self) -> &Sieve {
        &self.inner.sieve
    }

    /// Says that a reader is behind the rings.
    pub(crate) fn behind(&self) -> Behind {
        self.inner.behind.fetch_add(1, Ordering::Relaxed);
        Behind { tail: self.clone() }
    }

    pub(crate) fn records(&self, position: Seq) -> Found<Vec<Entry>> {
        self.inner.lock().records.find(position)
    }

    /// Where fresh events begin, and what was counted up to there.
    pub(crate) fn fresh(&self) -> (Seq, Counts) {
        let rings = self.inner.lock();
        (rings.position, rings.totals)
    }

    pub(crate) fn count_sent(&self, kind: Kind, events: u64) {
        self.inner.metrics.sent[kind_index(kind)].inc_by(events);
    }

    pub(crate) fn count_missed(&self, kind: Kind, events: u64) {
        self.inner.metrics.missed(kind).inc_by(events);
    }

    /// Notices for the `WatchMessages` streams of one connection.
    pub(crate) fn notices(&self, peer: SocketAddr) -> mpsc::Receiver<Bytes> {
        let (sender, receiver) = mpsc::channel(NOTICES);
        let mut notices = self
            .inner
            .notices
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        notices.retain(|_, senders| {
            senders.retain(|sender| !sender.is_closed());
            !senders.is_empty()
        });
        notices.entry(peer).or_default().push(sender);
        receiver
    }

    /// Puts a framed message into the `WatchMessages` streams of one connection.
    pub(crate) fn notify(&self, peer: SocketAddr, frame: &Bytes) {
        let notices = self
            .inner
            .notices
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for sender in notices.get(&peer).into_iter().flatten() {
            let _ = sender.try_send(frame.clone()); // full: a reader that reads nothing at all
        }
    }
}

fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

impl Rings {
    /// Begins a run of the pump: what was before is of no use, for nobody counted what came after it.
    fn restart(&mut self, at: Seq) {
        self.run += 1;
        self.position = at;
        self.totals = [0; 3];
        self.frames.iter_mut().for_each(|ring| ring.restart(at));
        self.records.restart(at);
    }
}

impl Inner {
    /// A panic elsewhere leaves at worst a block out of one ring, whose readers then read the journal.
    fn lock(&self) -> MutexGuard<'_, Rings> {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads while there are readers, and sleeps while there are none.
    async fn pump(self: Arc<Self>) {
        let mut stopped = self.stopped.subscribe();
        let mut readers = self.readers.subscribe();
        loop {
            readers.borrow_and_update();
            let run = {
                let rings = self.lock();
                let any = rings.readers.iter().any(|readers| *readers > 0);
                any.then_some((rings.run, rings.position))
            };
            let idle = async {
                match run {
                    Some((run, position)) => self.read_on(run, position).await,
                    None => drop(readers.changed().await),
                }
            };
            tokio::select! {
                () = idle => {}
                _ = stopped.wait_for(|stopped| *stopped) => return,
            }
        }
    }

    /// One run: ends when there are no readers or another run began.
    async fn read_on(&self, run: u64, mut position: Seq) {
        let mut reader = self.log.reader(position);
        let mut readers = self.readers.subscribe();
        loop {
            let block;
            (reader, block) = read_block(reader).await;
            match block {
                Ok(block) if block.next > position => {
                    position = block.next;
                    if !self.publish(run, position, block.entries) {
                        return;
                    }
                    tokio::task::yield_now().await;
                }
                Ok(_) => {
                    tokio::select! {
                        true = reader.wait() => {} // false: the log is closed, and there will be no more
                        _ = readers.changed() => if self.is_over(run) { return },
                    }
                }
                Err(error) => {
                    match Later::of(&error) {
                        Some(_) => tracing::debug!(%error, "feeds wait for the log"),
                        None => {
                            tracing::error!(%error, position = position.0, "feeds cannot read the log");
                        }
                    }
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    fn is_over(&self, run: u64) -> bool {
        let rings = self.lock();
        rings.run != run || rings.readers.iter().all(|readers| *readers == 0)
    }

    /// Encodes a block for the lanes that have readers and wakes them. False: the run is over.
    fn publish(&self, run: u64, next: Seq, entries: Vec<Entry>) -> bool {
        let readers = self.lock().readers;
        let encode = |kind: Kind| {
            let wanted = readers[Lane::Frames(kind).index()] > 0;
            wanted.then(|| Frames::encode(kind, &entries))
        };
        let frames = Kind::ALL.map(encode);
        let mut counts = [0; 3];
        entries.iter().for_each(|entry| count(&mut counts, entry));

        let mut rings = self.lock();
        if rings.run != run || rings.readers.iter().all(|readers| *readers == 0) {
            return false;
        }
        rings.position = next;
        for (total, new) in rings.totals.iter_mut().zip(counts) {
            *total += new;
        }
        for (ring, frames) in rings.frames.iter_mut().zip(frames) {
            match frames {
                Some(frames) => ring.push(next, frames),
                None => ring.restart(next),
            }
        }
        match readers[Lane::Records.index()] {
            0 => rings.records.restart(next),
            _ => rings.records.push(next, entries),
        }
        drop(rings);
        for (end, count) in self.ends.iter().zip(counts) {
            if count > 0 {
                end.send_replace(next);
            }
        }
        self.ends[Lane::Records.index()].send_replace(next);
        true
    }
}

/// The next block, on this thread where it is at hand. That is nearly always: the pump reads what was written a moment ago, and
/// to hand a read over and wait for it costs more than such a read. Where the pump is late (a busy machine, a broker that was
/// away) the read may wait for somebody, and it does so on a thread that serves nobody else.
async fn read_block(
    mut reader: Box<dyn Reader>,
) -> (Box<dyn Reader>, Result<Block, journal::ReadError>) {
    if let Some(block) = reader.at_hand(READ) {
        return (reader, block);
    }
    let reading = tokio::task::spawn_blocking(move || {
        let block = reader.next(READ);
        (reader, block)
    });
    match reading.await {
        Ok(read) => read,
        // The task only ends early when the runtime does, and this one with it.
        Err(_) => std::future::pending().await,
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]
mod tests;
