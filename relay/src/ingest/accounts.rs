//! What became of every event that arrived. At every moment, for each door:
//!
//! ```text
//! received = acknowledged + refused + rejected + duplicate + in flight
//! ```
//! *Acknowledged* events are on disk; *refused* ones could not be written and will come again; *rejected* ones are no
//! events and will not; *duplicates* are in the journal already.

use crate::metrics::Registry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use journal::Ledger;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntCounterVec, IntGaugeVec, Opts};

/// Where events come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// From sensors.
    Link,
    /// From `cresset import`.
    Import,
    /// From daemons that this relay pulls from.
    Source,
    /// From the relay itself, which tells of losses as events.
    Relay,
}

impl Door {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Link, Self::Import, Self::Source, Self::Relay];

    /// The word in metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Import => "import",
            Self::Relay => "relay",
            Self::Source => "source",
        }
    }
}

/// Why a session of a sensor ended other than by its own wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// It did not say who it is, or not in time.
    BadHello,
    /// Another session has its id.
    SecondSession,
    /// It gave the id of a sensor that it may not speak for.
    NotItself,
    /// A batch that is no batch.
    BadBatch,
    /// A message larger than the limit, or one that is no message.
    BadMessage,
    /// A message that did not arrive, or answers that were not read.
    Stalled,
    /// Events could not be written.
    Refused,
    /// The connection broke.
    Broken,
    /// The relay stops.
    Draining,
}

impl EndReason {
    /// All of them, for metrics that are there from the start.
    pub const ALL: [Self; 9] = [
        Self::BadHello,
        Self::SecondSession,
        Self::NotItself,
        Self::BadBatch,
        Self::BadMessage,
        Self::Stalled,
        Self::Refused,
        Self::Broken,
        Self::Draining,
    ];

    /// The word in metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::BadHello => "bad_hello",
            Self::SecondSession => "second_session",
            Self::NotItself => "not_itself",
            Self::BadBatch => "bad_batch",
            Self::BadMessage => "bad_message",
            Self::Stalled => "stalled",
            Self::Refused => "refused",
            Self::Broken => "broken",
            Self::Draining => "draining",
        }
    }
}

/// The counters; a cheap handle.
#[derive(Debug, Clone)]
pub struct Accounts {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    doors: [Mutex<Books>; Door::ALL.len()],
    ended: IntCounterVec,
    foreign: IntCounter,
    bytes: IntCounter,
    acks: IntCounter,
}

/// One door's figures. They change together under one lock, so whoever looks finds them balanced.
#[derive(Debug, Clone, Copy, Default)]
struct Books {
    received: u64,
    acknowledged: u64,
    refused: u64,
    rejected: u64,
    duplicate: u64,
    in_flight: u64,
}

impl Accounts {
    /// Counters in a registry.
    ///
    /// # Errors
    /// The registry has them already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let ended = IntCounterVec::new(
            Opts::new(
                "cresset_link_sessions_ended_total",
                "Sessions of sensors that ended other than by their own wish.",
            ),
            &["reason"],
        )?;
        let foreign = IntCounter::new(
            "cresset_link_foreign_streams_total",
            "Streams that sensors announced or sent and that are another's.",
        )?;
        let bytes = IntCounter::new(
            "cresset_ingest_bytes_total",
            "Bytes of events that arrived.",
        )?;
        let acks = IntCounter::new("cresset_link_acks_total", "Answers to batches sent.")?;
        registry.register(Box::new(ended.clone()))?;
        registry.register(Box::new(foreign.clone()))?;
        registry.register(Box::new(bytes.clone()))?;
        registry.register(Box::new(acks.clone()))?;
        for reason in EndReason::ALL {
            ended.with_label_values(&[reason.word()]);
        }
        let inner = Arc::new(Inner {
            doors: Default::default(),
            ended,
            foreign,
            bytes,
            acks,
        });
        registry.register(Box::new(Shown {
            inner: inner.clone(),
            figures: Figures::new()?,
        }))?;
        Ok(Self { inner })
    }

    /// Events arrived; what becomes of them is said through the answer.
    pub(super) fn received(&self, door: Door, events: usize, bytes: usize) -> Entry {
        let mut books = self.inner.books(door);
        books.received += events as u64;
        books.in_flight += events as u64;
        drop(books);
        self.inner.bytes.inc_by(bytes as u64);
        Entry {
            accounts: self.clone(),
            door,
            open: events,
        }
    }

    /// A session ended.
    pub(super) fn ended(&self, reason: EndReason) {
        self.inner.ended.with_label_values(&[reason.word()]).inc();
    }

    /// A sensor named streams of another.
    pub(super) fn foreign(&self, streams: usize) {
        self.inner.foreign.inc_by(streams as u64);
    }

    /// An answer went out.
    pub(super) fn acked(&self) {
        self.inner.acks.inc();
    }

    /// Sessions that ended for this reason.
    #[must_use]
    pub fn sessions_ended(&self, reason: EndReason) -> u64 {
        self.inner.ended.with_label_values(&[reason.word()]).get()
    }

    /// Events that are no events.
    #[must_use]
    pub fn rejected(&self, door: Door) -> u64 {
        self.inner.books(door).rejected
    }

    /// One door's figures; rejected events count as refused.
    #[must_use]
    pub fn ledger(&self, door: Door) -> Ledger {
        let books = *self.inner.books(door);
        Ledger {
            received: books.received,
            acknowledged: books.acknowledged,
            refused: books.refused + books.rejected,
            duplicate: books.duplicate,
            in_flight: books.in_flight,
        }
    }
}

impl Inner {
    fn books(&self, door: Door) -> MutexGuard<'_, Books> {
        // Every change is a few additions that cannot panic in between.
        self.doors[door as usize]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The figures, made anew for every scrape.
struct Figures {
    received: IntCounterVec,
    outcomes: IntCounterVec,
    in_flight: IntGaugeVec,
}

impl Figures {
    fn new() -> Result<Self, prometheus::Error> {
        Ok(Self {
            received: IntCounterVec::new(
                Opts::new(
                    "cresset_ingest_received_events_total",
                    "Events that arrived.",
                ),
                &["door"],
            )?,
            outcomes: IntCounterVec::new(
                Opts::new(
                    "cresset_ingest_events_total",
                    "What became of them: acknowledged (on disk), refused (will come again), rejected (no events), duplicate (on disk before).",
                ),
                &["door", "outcome"],
            )?,
            in_flight: IntGaugeVec::new(
                Opts::new(
                    "cresset_ingest_in_flight_events",
                    "Events on their way to the disk.",
                ),
                &["door"],
            )?,
        })
    }

    fn collectors(&self) -> [&dyn Collector; 3] {
        [&self.received, &self.outcomes, &self.in_flight]
    }

    fn fill(&self, door: Door, books: Books) {
        let door = door.word();
        self.received
            .with_label_values(&[door])
            .inc_by(books.received);
        for (outcome, count) in [
            ("acknowledged", books.acknowledged),
            ("refused", books.refused),
            ("rejected", books.rejected),
            ("duplicate", books.duplicate),
        ] {
            self.outcomes
                .with_label_values(&[door, outcome])
                .inc_by(count);
        }
        self.in_flight
            .with_label_values(&[door])
            .set(i64::try_from(books.in_flight).unwrap_or(i64::MAX));
    }
}

/// The accounts as the registry sees them.
struct Shown {
    inner: Arc<Inner>,
    /// Only described, never filled.
    figures: Figures,
}

impl Collector for Shown {
    fn desc(&self) -> Vec<&Desc> {
        self.figures
            .collectors()
            .into_iter()
            .flat_map(Collector::desc)
            .collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // The same names were made once already, so they can be made again.
        let Ok(figures) = Figures::new() else {
            return Vec::new();
        };
        for door in Door::ALL {
            figures.fill(door, *self.inner.books(door));
        }
        figures
            .collectors()
            .into_iter()
            .flat_map(Collector::collect)
            .collect()
    }
}

/// Events whose outcome is still open. What is left when it is dropped counts as refused: nobody said "yes" to it.
#[derive(Debug)]
pub(super) struct Entry {
    accounts: Accounts,
    door: Door,
    open: usize,
}

impl Entry {
    pub(super) fn acknowledged(&mut self, events: usize) {
        self.close(events, |books| &mut books.acknowledged);
    }

    pub(super) fn rejected(&mut self, events: usize) {
        self.close(events, |books| &mut books.rejected);
    }

    pub(super) fn duplicate(&mut self, events: usize) {
        self.close(events, |books| &mut books.duplicate);
    }

    fn close(&mut self, events: usize, figure: impl Fn(&mut Books) -> &mut u64) {
        let events = events.min(self.open);
        let mut books = self.accounts.inner.books(self.door);
        *figure(&mut books) += events as u64;
        books.in_flight -= events as u64;
        self.open -= events;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.close(self.open, |books| &mut books.refused);
    }
}
