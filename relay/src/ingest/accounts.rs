//! What became of every event that arrived. At every moment, for each door:
//!
//! ```text
//! received = acknowledged + refused + rejected + duplicate + in flight
//! ```
//! *Acknowledged* events are on disk; *refused* ones could not be written and will come again; *rejected* ones are no
//! events and will not; *duplicates* are in the journal already.

use std::sync::Arc;

use journal::Ledger;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// Where events come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// From sensors.
    Link,
    /// From `cresset import`.
    Import,
}

impl Door {
    /// The word in metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Import => "import",
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
    /// A batch that is no batch.
    BadBatch,
    /// A message larger than the limit, or one that is no message.
    BadMessage,
    /// Events could not be written.
    Refused,
    /// The connection broke.
    Broken,
    /// The relay stops.
    Draining,
}

impl EndReason {
    /// All of them, for metrics that are there from the start.
    pub const ALL: [Self; 7] = [
        Self::BadHello,
        Self::SecondSession,
        Self::BadBatch,
        Self::BadMessage,
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
            Self::BadBatch => "bad_batch",
            Self::BadMessage => "bad_message",
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
    link: Books,
    import: Books,
    ended: IntCounterVec,
    bytes: IntCounter,
    acks: IntCounter,
}

/// One door's counters.
#[derive(Debug)]
struct Books {
    received: IntCounter,
    acknowledged: IntCounter,
    refused: IntCounter,
    rejected: IntCounter,
    duplicate: IntCounter,
    in_flight: IntGauge,
}

impl Accounts {
    /// Counters in a registry.
    ///
    /// # Errors
    /// The registry has them already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let received = IntCounterVec::new(
            Opts::new(
                "cresset_ingest_received_events_total",
                "Events that arrived.",
            ),
            &["door"],
        )?;
        let outcomes = IntCounterVec::new(
            Opts::new(
                "cresset_ingest_events_total",
                "What became of them: acknowledged (on disk), refused (will come again), rejected (no events), duplicate (on disk before).",
            ),
            &["door", "outcome"],
        )?;
        let in_flight = IntGaugeVec::new(
            Opts::new(
                "cresset_ingest_in_flight_events",
                "Events on their way to the disk.",
            ),
            &["door"],
        )?;
        let ended = IntCounterVec::new(
            Opts::new(
                "cresset_link_sessions_ended_total",
                "Sessions of sensors that ended other than by their own wish.",
            ),
            &["reason"],
        )?;
        let bytes = IntCounter::new(
            "cresset_ingest_bytes_total",
            "Bytes of events that arrived.",
        )?;
        let acks = IntCounter::new("cresset_link_acks_total", "Answers to batches sent.")?;
        registry.register(Box::new(received.clone()))?;
        registry.register(Box::new(outcomes.clone()))?;
        registry.register(Box::new(in_flight.clone()))?;
        registry.register(Box::new(ended.clone()))?;
        registry.register(Box::new(bytes.clone()))?;
        registry.register(Box::new(acks.clone()))?;
        for reason in EndReason::ALL {
            ended.with_label_values(&[reason.word()]);
        }
        let books = |door: Door| {
            let outcome = |outcome| outcomes.with_label_values(&[door.word(), outcome]);
            Books {
                received: received.with_label_values(&[door.word()]),
                acknowledged: outcome("acknowledged"),
                refused: outcome("refused"),
                rejected: outcome("rejected"),
                duplicate: outcome("duplicate"),
                in_flight: in_flight.with_label_values(&[door.word()]),
            }
        };
        let inner = Inner {
            link: books(Door::Link),
            import: books(Door::Import),
            ended,
            bytes,
            acks,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Events arrived; what becomes of them is said through the answer.
    pub(super) fn received(&self, door: Door, events: usize, bytes: usize) -> Entry {
        let books = self.books(door);
        books.received.inc_by(events as u64);
        books.in_flight.add(signed(events));
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
        self.books(door).rejected.get()
    }

    /// One door's figures; rejected events count as refused.
    #[must_use]
    pub fn ledger(&self, door: Door) -> Ledger {
        let books = self.books(door);
        Ledger {
            received: books.received.get(),
            acknowledged: books.acknowledged.get(),
            refused: books.refused.get() + books.rejected.get(),
            duplicate: books.duplicate.get(),
            in_flight: u64::try_from(books.in_flight.get()).unwrap_or_default(),
        }
    }

    fn books(&self, door: Door) -> &Books {
        match door {
            Door::Link => &self.inner.link,
            Door::Import => &self.inner.import,
        }
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
        self.close(events, |books| &books.acknowledged);
    }

    pub(super) fn rejected(&mut self, events: usize) {
        self.close(events, |books| &books.rejected);
    }

    pub(super) fn duplicate(&mut self, events: usize) {
        self.close(events, |books| &books.duplicate);
    }

    fn close(&mut self, events: usize, counter: impl Fn(&Books) -> &IntCounter) {
        let events = events.min(self.open);
        let books = self.accounts.books(self.door);
        counter(books).inc_by(events as u64);
        books.in_flight.sub(signed(events));
        self.open -= events;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.close(self.open, |books| &books.refused);
    }
}

fn signed(events: usize) -> i64 {
    i64::try_from(events).unwrap_or(i64::MAX)
}
