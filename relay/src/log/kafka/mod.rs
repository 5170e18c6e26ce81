//! A Kafka topic as the log, shared by any number of relays.
//!
//! ```text
//! append ─▶ producer: acks=all, idempotent, partition by sensor ─▶ topic ─┬▶ group, one a sink: lanes by partition ─▶ fan-out
//!                                                                         ├▶ timeline: all partitions, no group ─▶ feeds, history
//!                                                                         └▶ own: what this relay took ─▶ sinks that sum up
//! ```
//!
//! | part of a record | what it is |
//! |---|---|
//! | partition | by the sensor's id (an import: by its stream), so a sensor's events keep their order |
//! | key | that id |
//! | header `cresset` | the kind (one byte), then the id of the relay that took it |
//! | value | the event's id (16 bytes), then the sender's bytes: what the journal keeps |
//!
//! Decisions:
//! - **Acknowledged is a delivery report** of an idempotent producer with `acks=all`: every in-sync replica has the event.
//! - **A resend through another relay may be there twice**: received ranges are each relay's own. Elasticsearch removes the
//!   second by its id; other sinks are at least once.
//! - **Numbers.** In one partition a record's number is its offset + 1. In the order of all it is 1 + the sum of all offsets
//!   before it, so every relay numbers alike but for events of the same moment ([`cut`]).
//! - **Readers of the past have a consumer only while they read** ([`past`]), so a few serve all of them, and brokers that
//!   are away are waited for by the first of them only ([`away`]).
//! - **Retention is the topic's**: a relay that makes the topic gives it its own `max_age`; a sink that lags longer has lost.

mod agreed;
mod away;
mod cut;
mod follow;
mod group;
mod made;
mod marks;
mod merge;
mod own;
mod past;
mod position;
mod producer;
mod quiet;
mod record;
mod timeline;
mod topic;
mod whole;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use exporters::kafka::Connection;
use futures::future::{BoxFuture, FutureExt as _};
use journal::{AppendError, CursorError, Ledger, Seq, Stats};
use proto::{Event, StreamId};

use self::agreed::Agreed;
use self::group::Group;
use self::own::Own;
use self::past::Consumers;
use self::producer::Producer;
use self::timeline::Timeline;
use self::topic::Topic;
use self::whole::{Owns, Whole};
use super::{Agreement, Appended, Lane, Log, Numbering, OpenError, Shared, Supply, View, Want};
use crate::received::Received;

/// A cursor is a commit at the broker, so it moves at most so often.
const RHYTHM: Duration = Duration::from_millis(500);

/// Where the log is.
#[derive(Debug, Clone)]
pub struct Config {
    /// The brokers.
    pub connection: Connection,
    /// The topic. It is made where there is none.
    pub topic: String,
    /// Partitions of a topic that is made.
    pub partitions: u32,
    /// Copies of each; the brokers' default if none.
    pub replication: Option<u32>,
    /// How long a topic that is made keeps events.
    pub max_age: Duration,
}

/// A log that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct BadLog {
    text: String,
    /// Nobody answers: it may be another time.
    unreached: bool,
}

impl BadLog {
    fn new(text: String) -> Self {
        Self {
            text,
            unreached: false,
        }
    }

    fn unreached(text: String) -> Self {
        Self {
            text,
            unreached: true,
        }
    }
}

impl From<BadLog> for OpenError {
    fn from(bad: BadLog) -> Self {
        match bad.unreached {
            true => Self::Unreached(bad.text),
            false => Self::Kafka(bad.text),
        }
    }
}

/// The log.
pub struct KafkaLog {
    topic: Arc<Topic>,
    past: Arc<Consumers>,
    producer: Producer,
    timeline: Timeline,
    positions: PathBuf,
    relay: String,
    life: String,
    agreed: Agreed,
    secret: [u8; 32],
    /// Ended when the log is closed.
    own: Owns,
}

impl KafkaLog {
    /// Reaches the brokers, makes the topic if there is none and begins to follow it. Blocks. `relay` is this relay's id;
    /// sums are kept below `data_dir`.
    ///
    /// # Errors
    /// What the brokers say, or that they say nothing.
    pub fn open(
        config: Config,
        relay: &str,
        data_dir: &Path,
        received: Received,
    ) -> Result<Self, BadLog> {
        let topic = Arc::new(Topic::open(config)?);
        let (_, high) = topic
            .first_watermarks()
            .map_err(|error| BadLog::new(error.to_string()))?;
        let agreed = Agreed::open(&topic)?;
        let secret = secret(&agreed).map_err(|error| BadLog::new(error.to_string()))?;
        let past = Consumers::new(&topic);
        Ok(KafkaLog {
            agreed,
            secret,
            producer: Producer::open(Arc::clone(&topic), relay, received)?,
            timeline: Timeline::start(Arc::clone(&topic), Arc::clone(&past), high)?,
            past,
            positions: data_dir.join("positions"),
            relay: relay.to_owned(),
            life: StreamId::random().to_string(),
            own: Owns::default(),
            topic,
        })
    }
}

impl Log for KafkaLog {
    fn append(
        &self,
        from: Arc<str>,
        events: Vec<Event>,
    ) -> BoxFuture<'_, Result<Appended, AppendError>> {
        self.producer.append(from, events).boxed()
    }

    fn view(&self) -> Arc<dyn View> {
        Arc::new(self.timeline.clone())
    }

    fn supply(&self, sink: &str, want: Want) -> Result<Supply, CursorError> {
        if !want.sums {
            let (timeline, sink) = (self.timeline.clone(), sink.to_owned());
            return Ok(Supply::Share(Arc::new(move || {
                Group::join(&timeline, &sink, want.options.start)
                    .map_err(|error| unusable(&sink, error))
            })));
        }
        let own = Own::open(
            &self.topic,
            sink,
            &self.relay,
            &self.positions,
            want.options.start,
        )
        .map_err(|error| unusable(sink, error))?;
        let own = Arc::new(own);
        self.own
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Arc::clone(&own));
        Ok(Supply::Lane(Lane {
            view: Arc::<Own>::clone(&own),
            cursor: own,
            rhythm: RHYTHM,
            shared: false,
        }))
    }

    /// A group that nobody joins holds nothing back.
    fn only(&self, _sinks: &[&str]) {}

    fn retain(&self, _max_size: u64, _max_age: Duration) -> bool {
        tracing::warn!(
            topic = self.topic.name(),
            "the log keeps events as long as its topic says; relay.retention is for a topic that is made"
        );
        true
    }

    fn figures(&self) -> Stats {
        let (ledger, written) = self.producer.ledger();
        Stats {
            first: self.timeline.first(),
            committed: self.timeline.committed(),
            ledger,
            written,
            ..nothing()
        }
    }

    fn oldest_unix(&self) -> u64 {
        self.timeline.oldest_ms() / 1000
    }

    fn place(&self) -> String {
        let partitions = self.topic.partitions();
        format!("{}, {partitions} partitions", self.topic.whereabouts())
    }

    fn lane(&self, from: &str) -> usize {
        usize::try_from(self.topic.partition(from)).unwrap_or(0)
    }

    fn attempt(&self) -> Result<(), String> {
        self.topic.attempt()
    }

    fn silence(&self) -> String {
        let why = self.producer.trouble();
        let why = why.unwrap_or_else(|| "the brokers do not say why".to_owned());
        format!("{}: {why}", self.topic.whereabouts())
    }

    fn agreement(&self) -> Option<Arc<dyn Agreement>> {
        Some(Arc::new(self.agreed.clone()))
    }

    fn shared(&self) -> Option<Arc<dyn Shared>> {
        Some(Arc::new(Whole {
            topic: Arc::clone(&self.topic),
            past: Arc::clone(&self.past),
            own: Arc::clone(&self.own),
        }))
    }

    fn secret(&self) -> Option<[u8; 32]> {
        Some(self.secret)
    }

    fn numbering(&self) -> Numbering {
        Numbering::Shared {
            log: self.topic.id().to_owned(),
            life: self.life.clone(),
        }
    }

    fn give_up(&self) {
        self.topic.give_up();
    }

    fn close(&self) {
        self.give_up();
        self.producer.close();
        self.timeline.stop();
        self.past.close_all();
        self.agreed.stop();
        for own in self
            .own
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            own.stop();
        }
    }
}

/// What only the relays of this log know: the first of them drew it. Blocks.
fn secret(agreed: &Agreed) -> io::Result<[u8; 32]> {
    let mut drawn = [0; 32];
    getrandom::fill(&mut drawn).map_err(io::Error::other)?;
    let entry = (
        Bytes::from_static(b"secret"),
        Bytes::copy_from_slice(&drawn),
    );
    let asking = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let held = asking.block_on(agreed.first(&[entry]))?;
    let held = held.first().cloned().unwrap_or_default();
    <[u8; 32]>::try_from(&held[..])
        .map_err(|_| io::Error::other("what the relays share is none of their secrets"))
}

fn unusable(sink: &str, error: impl std::fmt::Display) -> CursorError {
    CursorError::Disk {
        name: sink.to_owned(),
        source: Arc::new(std::io::Error::other(error.to_string())),
    }
}

/// Figures of a log that keeps nothing on this machine.
fn nothing() -> Stats {
    Stats {
        first: Seq(1),
        committed: Seq(0),
        segments: 0,
        bytes: 0,
        max_size: 0,
        ledger: Ledger::default(),
        groups: 0,
        written: 0,
        sync_last_ns: 0,
        sync_max_ns: 0,
        suspects: 0,
        removed_segments: 0,
        cursor_failures: 0,
        packed_segments: 0,
        packed_from: 0,
        packed_to: 0,
        pack_failures: 0,
        refusing: None,
        violation: None,
        cursors: Vec::new(),
    }
}
