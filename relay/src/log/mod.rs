//! Where events are kept: the [`Log`], and the data folder that it belongs to.
//!
//! ```text
//!                    ┌ journal  one partition, files in the data folder, a cursor a sink
//! Store ─▶ trait Log ┤
//!                    └ kafka    a topic's partitions; one consumer group a sink, its lanes shared by all relays
//!
//! append(from, events)   durable when it resolves
//! view                   everything in one numbered order: feeds, `--since`, history
//! supply(sink)           one lane for ever (journal), or lanes that come and go (a group's share)
//! ```
//! A place is a partition and an offset; what reads one partition, or a merge of all, knows only numbers ([`Seq`]): the
//! journal's, or offset + 1, or in the merge 1 + the sum of all partitions' offsets. Calls are one a batch or a block, never
//! one an event.

mod folder;
mod journaled;
#[cfg(feature = "kafka")]
pub mod kafka;
mod shared;

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::future::BoxFuture;
use journal::{
    Account, AppendError, Block, CursorError, CursorOptions, CursorStats, Disk, Expired, Journal,
    Opened, ReadError, RealDisk, Seq, Stats, WhenFull,
};
use proto::Event;
use tokio::sync::{mpsc, watch};

pub use self::folder::OpenError;
pub use self::shared::{Placed, Shared};

use self::folder::Folder;
use crate::received::Received;
use crate::standing::Standing;

/// Where events are kept, in order, until retention takes them.
pub trait Log: Send + Sync {
    /// Keeps events of one sender, in order; done when they are durable. What can never be kept is told, and the rest is kept
    /// all the same. `from` says which events have to stay in order among each other: the sensor's id.
    ///
    /// # Errors
    /// Then none of them may be acknowledged; some may be there.
    fn append(
        &self,
        from: Arc<str>,
        events: Vec<Event>,
    ) -> BoxFuture<'_, Result<Appended, AppendError>>;

    /// All of it in one order, for feeds and history.
    fn view(&self) -> Arc<dyn View>;

    /// What a sink is fed from. One that keeps a sum gets the events that this relay took; any other its share of all. Blocks
    /// for the disk of a new cursor.
    ///
    /// # Errors
    /// A bad name, a sink that is fed already, the disk.
    fn supply(&self, sink: &str, want: Want) -> Result<Supply, CursorError>;

    /// Sinks not named here hold nothing back from now on.
    fn only(&self, sinks: &[&str]);

    /// Keeps records for `max_age`, and up to `max_size` bytes, from now on. False: the size takes effect with the next start.
    fn retain(&self, max_size: u64, max_age: Duration) -> bool;

    /// The figures of this moment.
    fn figures(&self) -> Stats;

    /// When the oldest record was kept, in unix seconds; 0 if there is none. Never waits for a network.
    fn oldest_unix(&self) -> u64 {
        let view = self.view();
        let block = view.reader(view.first()).next(1);
        let first = block
            .ok()
            .and_then(|block| block.entries.into_iter().next());
        first.map_or(0, |entry| entry.time / 1_000_000_000)
    }

    /// Where it is, for people; empty: in the data folder.
    fn place(&self) -> String {
        String::new()
    }

    /// Which part of it keeps what `from` sends: others may take events while that one does not.
    fn lane(&self, _from: &str) -> usize {
        0
    }

    /// Whether every part of it would take events now. Blocks for a few seconds at most.
    ///
    /// # Errors
    /// Why not.
    fn attempt(&self) -> Result<(), String> {
        Ok(())
    }

    /// Who does not answer where a write hangs, and why if that is known.
    fn silence(&self) -> String {
        "the disk hangs".to_owned()
    }

    /// What only the relays that share it know; none: nobody shares it.
    fn secret(&self) -> Option<[u8; 32]> {
        None
    }

    /// What the relays that share it agree on; none: nobody shares it.
    fn agreement(&self) -> Option<Arc<dyn Agreement>> {
        None
    }

    /// All of it, whichever of the relays that share it took or delivered what; none: nobody shares it.
    fn shared(&self) -> Option<Arc<dyn Shared>> {
        None
    }

    /// What places in it belong to: tokens of another log, or of another numbering of this one, are told by it.
    fn numbering(&self) -> Numbering {
        Numbering::Own
    }

    /// Nobody waits for a network any more: reads that are under way end, with an error, however many there are.
    fn give_up(&self) {}

    /// Finishes what it was told and lets go of everything, whoever still has a handle. Blocks.
    fn close(&self);
}

/// What relays on one log agree on: keys whose first value stays.
pub trait Agreement: Send + Sync + std::fmt::Debug {
    /// The value that holds for each key: the one that it had, or that is given here, unless another relay was faster. Done
    /// when every relay will see it so; holds no thread meanwhile.
    ///
    /// # Errors
    /// The brokers do not answer; then nobody has them yet, or somebody has, and to ask again tells.
    fn first<'a>(&'a self, entries: &'a [(Bytes, Bytes)]) -> BoxFuture<'a, io::Result<Vec<Bytes>>>;
}

/// Whose the numbers of a view are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Numbering {
    /// The data folder's: exact, also after a restart.
    Own,
    /// All relays on one log number alike but for events of the same moment; exact within one life.
    Shared {
        /// The log.
        log: String,
        /// This life of this relay.
        life: String,
    },
}

/// What became of events that were to be kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// Where they are; none: not in one stretch.
    pub places: Option<Range<Seq>>,
    /// Those that can never be kept, in order.
    pub refused: Vec<Refused>,
}

/// An event that can never be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its place in what was given.
    pub index: usize,
    /// What it weighs, in bytes.
    pub size: usize,
    /// What it may.
    pub limit: usize,
}

/// How a sink wants to be fed.
#[derive(Clone, Copy, Debug)]
pub struct Want {
    /// Where it begins, and what a full log does to it.
    pub options: CursorOptions,
    /// It keeps a sum with its position.
    pub sums: bool,
}

/// What a sink is fed from; a cheap handle.
#[derive(Clone)]
pub enum Supply {
    /// One lane, from now on.
    Lane(Lane),
    /// A share of the partitions, which changes as relays come and go; to be joined.
    Share(Join),
}

/// Joins those who share the partitions. Blocks.
pub type Join = Arc<dyn Fn() -> Result<Share, CursorError> + Send + Sync>;

/// One partition, or one order of all: what there is, and how far the sink has come.
#[derive(Clone)]
pub struct Lane {
    /// What there is.
    pub view: Arc<dyn View>,
    /// How far the sink has come.
    pub cursor: Arc<dyn Cursor>,
    /// How often the cursor may move.
    pub rhythm: Duration,
    /// Other sinks read the same.
    pub shared: bool,
}

/// A sink's share of the partitions.
pub struct Share {
    /// What is given to this relay and taken from it.
    pub turns: mpsc::UnboundedReceiver<Turn>,
    /// Gives the share up when dropped, which blocks for a moment.
    pub membership: Box<dyn Send>,
}

/// A change of a sink's share.
pub enum Turn {
    /// A partition is this relay's.
    Given(i32, Lane),
    /// These go to another relay once `done` is dropped: by then their cursors have to be where they can be.
    Taken {
        /// The partitions.
        partitions: Vec<i32>,
        /// Held until nothing more is done for them.
        done: std::sync::mpsc::SyncSender<()>,
    },
    /// The share cannot be had at present.
    Trouble(String),
}

/// Records in a numbered order.
pub trait View: Send + Sync {
    /// The oldest that is kept; one past [`View::committed`] if there is none.
    fn first(&self) -> Seq;

    /// The newest that may be read; 0 if there is none.
    fn committed(&self) -> Seq;

    /// Changes with [`View::committed`].
    fn subscribe(&self) -> watch::Receiver<Seq>;

    /// Reads from `from` on, which may be past the end.
    fn reader(&self, from: Seq) -> Box<dyn Reader>;

    /// The first record that was kept at that time (unix nanoseconds) or later; one past the end if there is none. Blocks.
    ///
    /// # Errors
    /// The disk, or the broker.
    fn seek_time(&self, unix_ns: u64) -> Result<Seq, ReadError>;

    /// One past the newest record there is now. Blocks.
    ///
    /// # Errors
    /// The broker.
    fn end(&self) -> Result<Seq, ReadError> {
        Ok(self.committed().next())
    }

    /// The newest record of the time when the view was opened, once that is known.
    fn old_end(&self) -> Option<Seq> {
        Some(self.committed())
    }

    /// Places that other relays understand; none: nobody else has these records.
    fn marks(&self) -> Option<Arc<dyn Marks>> {
        None
    }
}

/// Places that mean the same to every relay of a log, whose numbers do not.
pub trait Marks: Send + Sync {
    /// Where to go on after the record `seq`, which was kept at `time`: nothing lies before it that lies behind that record.
    fn mark(&self, seq: Seq, time: u64) -> Mark;

    /// From where on there is all that lies behind a mark, and perhaps a little more. None: it is no mark. Blocks.
    ///
    /// # Errors
    /// The broker.
    fn find(&self, mark: &[u8]) -> Result<Option<Marked>, ReadError>;

    /// Whether the record that has this number is the one that had it when it was read.
    fn is_exact(&self, seq: Seq) -> bool;
}

/// A place for who goes on elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The place.
    pub bytes: Bytes,
    /// It is the same for all records before this one.
    pub until: Seq,
}

/// A mark that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marked {
    /// Go on with this record.
    pub next: Seq,
    /// Records behind the mark that are not kept any more.
    pub missed: u64,
}

/// Reads on, block by block.
pub trait Reader: Send + Sync {
    /// Where the next block begins.
    fn position(&self) -> Seq;

    /// About `max_bytes`, or an empty block at the end. Blocks.
    ///
    /// # Errors
    /// Nothing was skipped; call again.
    fn next(&mut self, max_bytes: usize) -> Result<Block, ReadError>;

    /// The same where that is at hand, so that nobody waits for a disk or a broker; none: ask [`Reader::next`], and not on a
    /// thread that serves others.
    fn at_hand(&mut self, max_bytes: usize) -> Option<Result<Block, ReadError>>;

    /// Waits until there is more. False: there will be no more.
    fn wait(&mut self) -> BoxFuture<'_, bool>;
}

/// A read that may be had another time; inside the [`ReadError`].
#[derive(Debug, thiserror::Error)]
pub(crate) enum Later {
    /// Who has the records does not answer.
    #[error("{0}")]
    Away(String),
    /// As many read as may.
    #[error("{0}")]
    Busy(String),
}

impl Later {
    /// Whether, and why, to come again with the same.
    pub(crate) fn of(error: &ReadError) -> Option<&Later> {
        error.source.get_ref()?.downcast_ref()
    }
}

/// How far a sink has come.
pub trait Cursor: Send + Sync {
    /// The next record to deliver.
    fn position(&self) -> Seq;

    /// What the sink remembered with it.
    fn state(&self) -> Option<Bytes>;

    /// Moves on to `to`: `account` says what became of the records passed. Done when it is durable.
    ///
    /// # Errors
    /// [`CursorError::Disk`]: it holds in memory, and is made durable with the next move. Others: it cannot move.
    fn advance(
        &self,
        to: Seq,
        account: Account,
        state: Option<Bytes>,
    ) -> BoxFuture<'_, Result<(), CursorError>>;

    /// Goes back; where it has come to is the answer.
    ///
    /// # Errors
    /// As for [`Cursor::advance`].
    fn rewind(&self, to: Seq) -> BoxFuture<'_, Result<Seq, CursorError>>;

    /// The figures of this moment.
    fn stats(&self) -> CursorStats;

    /// Which records left the log before the sink came to them, oldest first, where that is known.
    fn expired(&self) -> Vec<Expired> {
        Vec::new()
    }

    /// Holds nothing back from now on.
    fn retire(&self) {}

    /// Holds records back again, in this way when the log is full.
    fn take_up(&self, _when_full: WhenFull) {}
}

/// A log, with what is known of every sensor's streams and the data folder around it; a cheap handle.
#[derive(Clone)]
pub struct Store {
    log: Arc<dyn Log>,
    /// The log, if it is one.
    journal: Option<Journal>,
    /// What was found when it was opened.
    opened: Arc<Opened>,
    received: Received,
    standing: Standing,
    folder: Option<Arc<Folder>>,
}

impl Store {
    /// Opens the journal of a data folder, making the folder if there is none.
    ///
    /// # Errors
    /// A folder of another format, in use, or not writable; a journal that cannot be opened. Nothing is overwritten.
    pub fn open(data_dir: &Path, config: journal::Config) -> Result<(Self, Opened), OpenError> {
        let folder = Folder::take(data_dir)?;
        let path = data_dir.join("journal");
        let disk = RealDisk::open(&path).map_err(|source| OpenError::Write { path, source })?;
        let (mut store, opened) = Self::open_on(Arc::new(disk), config)?;
        store.folder = Some(Arc::new(folder));
        Ok((store, opened))
    }

    /// Opens the journal of a disk.
    ///
    /// # Errors
    /// A journal that cannot be opened.
    pub fn open_on(
        disk: Arc<dyn Disk>,
        config: journal::Config,
    ) -> Result<(Self, Opened), OpenError> {
        let received = Received::default();
        let (journal, opened) = Journal::open(disk, config, received.checkpoint())?;
        let mut store = Self::over(Arc::new(journal.clone()), received, None);
        store.journal = Some(journal);
        store.opened = Arc::new(opened.clone());
        Ok((store, opened))
    }

    /// Joins the relays whose log is a Kafka topic, making the topic if there is none. The data folder holds what is this
    /// relay's own: its id, dead letters, sums. Blocks until the brokers have answered.
    ///
    /// # Errors
    /// The folder, as for [`Store::open`]; brokers that do not answer or refuse.
    #[cfg(feature = "kafka")]
    pub fn open_kafka(data_dir: &Path, config: kafka::Config) -> Result<Self, OpenError> {
        let folder = Folder::take(data_dir)?;
        let received = Received::default();
        let log = kafka::KafkaLog::open(config, &folder.relay_id, data_dir, received.clone())?;
        Ok(Self::over(Arc::new(log), received, Some(Arc::new(folder))))
    }

    fn over(log: Arc<dyn Log>, received: Received, folder: Option<Arc<Folder>>) -> Self {
        Self {
            log,
            journal: None,
            opened: Arc::default(),
            received,
            standing: Standing::default(),
            folder,
        }
    }

    /// Finishes what the log was told, closes it, and frees the data folder, whoever still has a handle.
    pub fn close(self) {
        self.log.close();
        if let Some(folder) = self.folder {
            folder.free();
        }
    }

    /// Keeps events; done when they are durable.
    ///
    /// # Errors
    /// The log is full, away, has failed or is closed. Then none of them may be acknowledged.
    pub async fn append(
        &self,
        from: Arc<str>,
        events: Vec<Event>,
    ) -> Result<Appended, AppendError> {
        let lane = self.log.lane(&from);
        let write = self.standing.begin(lane);
        let outcome = self.log.append(from, events).await;
        drop(write);
        self.standing.note(lane, &outcome);
        outcome
    }

    /// Whether an event could be kept now; for when nobody writes any. Blocks.
    pub(crate) fn attempt(&self) -> Result<(), String> {
        match (&self.journal, &self.folder) {
            (Some(_), Some(folder)) => folder.attempt(),
            _ => self.log.attempt(),
        }
    }

    /// Who does not answer where a write hangs.
    pub(crate) fn silence(&self) -> String {
        self.log.silence()
    }

    /// The log itself.
    #[must_use]
    pub fn log(&self) -> &Arc<dyn Log> {
        &self.log
    }

    /// The log, if it is a journal: it knows more than others, such as what was received before each of its segments.
    #[must_use]
    pub fn journal(&self) -> Option<&Journal> {
        self.journal.as_ref()
    }

    /// What was found when it was opened; nothing of a log that is no journal.
    pub(crate) fn opened(&self) -> &Opened {
        &self.opened
    }

    /// All of the log in one order.
    #[must_use]
    pub fn view(&self) -> Arc<dyn View> {
        self.log.view()
    }

    /// Whether new events are taken.
    #[must_use]
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// What is in the log, by stream.
    #[must_use]
    pub fn received(&self) -> &Received {
        &self.received
    }

    /// Where the data lie; none: on a disk of somebody else's making.
    #[must_use]
    pub fn folder(&self) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.path.clone())
    }

    /// The relay's name for its sensors: drawn when the data folder was made.
    #[must_use]
    pub fn relay_id(&self) -> &str {
        self.folder.as_ref().map_or("", |folder| &folder.relay_id)
    }

    /// What only this data folder knows, or the relays that share the log; the same after a restart.
    #[must_use]
    pub fn secret(&self) -> [u8; 32] {
        let own = self.folder.as_ref().map_or([0; 32], |folder| folder.secret);
        self.log.secret().unwrap_or(own)
    }
}

impl<T: Log + ?Sized> Log for Arc<T> {
    fn append(
        &self,
        from: Arc<str>,
        events: Vec<Event>,
    ) -> BoxFuture<'_, Result<Appended, AppendError>> {
        T::append(self, from, events)
    }

    fn view(&self) -> Arc<dyn View> {
        T::view(self)
    }

    fn supply(&self, sink: &str, want: Want) -> Result<Supply, CursorError> {
        T::supply(self, sink, want)
    }

    fn only(&self, sinks: &[&str]) {
        T::only(self, sinks);
    }

    fn retain(&self, max_size: u64, max_age: Duration) -> bool {
        T::retain(self, max_size, max_age)
    }

    fn figures(&self) -> Stats {
        T::figures(self)
    }

    fn oldest_unix(&self) -> u64 {
        T::oldest_unix(self)
    }

    fn place(&self) -> String {
        T::place(self)
    }

    fn lane(&self, from: &str) -> usize {
        T::lane(self, from)
    }

    fn attempt(&self) -> Result<(), String> {
        T::attempt(self)
    }

    fn silence(&self) -> String {
        T::silence(self)
    }

    fn secret(&self) -> Option<[u8; 32]> {
        T::secret(self)
    }

    fn agreement(&self) -> Option<Arc<dyn Agreement>> {
        T::agreement(self)
    }

    fn shared(&self) -> Option<Arc<dyn Shared>> {
        T::shared(self)
    }

    fn numbering(&self) -> Numbering {
        T::numbering(self)
    }

    fn give_up(&self) {
        T::give_up(self);
    }

    fn close(&self) {
        T::close(self);
    }
}

impl<T: View + ?Sized> View for Arc<T> {
    fn first(&self) -> Seq {
        T::first(self)
    }

    fn committed(&self) -> Seq {
        T::committed(self)
    }

    fn subscribe(&self) -> watch::Receiver<Seq> {
        T::subscribe(self)
    }

    fn reader(&self, from: Seq) -> Box<dyn Reader> {
        T::reader(self, from)
    }

    fn seek_time(&self, unix_ns: u64) -> Result<Seq, ReadError> {
        T::seek_time(self, unix_ns)
    }

    fn end(&self) -> Result<Seq, ReadError> {
        T::end(self)
    }

    fn old_end(&self) -> Option<Seq> {
        T::old_end(self)
    }

    fn marks(&self) -> Option<Arc<dyn Marks>> {
        T::marks(self)
    }
}

/// Now, as records tell time.
pub(crate) fn unix_nanoseconds() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
