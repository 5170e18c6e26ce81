//! What is known of one daemon: for status, for metrics, and for who tells of losses.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};
use proto::query::{LossStatus, SourceStatus, SourceStream};
use proto::{Kind, link};

use crate::feed::kind_index;
use crate::log::unix_nanoseconds;
use crate::metrics::Registry;

/// The metrics of all sources.
pub(super) struct Metrics {
    connected: IntGaugeVec,
    events: IntCounterVec,
    lost: IntCounterVec,
    connections: IntCounterVec,
    errors: IntCounterVec,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter =
            |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
                let counter = IntCounterVec::new(
                    Opts::new(format!("cresset_source_{name}_total"), help),
                    labels,
                )?;
                registry.register(Box::new(counter.clone()))?;
                Ok(counter)
            };
        let connected = IntGaugeVec::new(
            Opts::new(
                "cresset_source_connected",
                "1 while the daemon's events are read.",
            ),
            &["source", "address"],
        )?;
        registry.register(Box::new(connected.clone()))?;
        Ok(Self {
            connected,
            events: counter(
                "events",
                "Events of the daemon that are in the journal.",
                &["source", "address", "kind"],
            )?,
            lost: counter(
                "lost_events",
                "Events of the daemon that are not: rejected (no events), missed (the daemon says that it lost them on the way here), dropped (this relay stopped while its journal refused them).",
                &["source", "address", "kind", "reason"],
            )?,
            connections: counter(
                "connections",
                "Connections to the daemon that came to be.",
                &["source", "address"],
            )?,
            errors: counter(
                "errors",
                "What ended or never began: the connection, or the stream of one kind of event.",
                &["source", "address", "what"],
            )?,
        })
    }
}

/// One daemon's account; a cheap handle.
#[derive(Clone)]
pub(super) struct Account {
    inner: Arc<Inner>,
}

struct Inner {
    source: String,
    kind: &'static str,
    address: String,
    connected: IntGauge,
    connections: IntCounter,
    errors: IntCounter,
    streams: [Stream; 3],
    state: Mutex<State>,
}

struct Stream {
    events: IntCounter,
    rejected: IntCounter,
    missed: IntCounter,
    dropped: IntCounter,
    errors: IntCounter,
}

#[derive(Default)]
struct State {
    /// Unix seconds.
    since: u64,
    open: [bool; 3],
    last_error: String,
    last_error_unix: u64,
    /// Why the last rejected event of each kind was.
    why: [String; 3],
}

impl Account {
    pub(super) fn new(metrics: &Metrics, source: &str, kind: &'static str, address: &str) -> Self {
        let of = [source, address];
        let streams = Kind::ALL.map(|kind| {
            let kind = kind_word(kind);
            let lost = |reason| {
                metrics
                    .lost
                    .with_label_values(&[source, address, kind, reason])
            };
            Stream {
                events: metrics.events.with_label_values(&[source, address, kind]),
                rejected: lost("rejected"),
                missed: lost("missed"),
                dropped: lost("dropped"),
                errors: metrics.errors.with_label_values(&[source, address, kind]),
            }
        });
        let inner = Inner {
            source: source.to_owned(),
            kind,
            address: address.to_owned(),
            connected: metrics.connected.with_label_values(&of),
            connections: metrics.connections.with_label_values(&of),
            errors: metrics
                .errors
                .with_label_values(&[source, address, "connection"]),
            streams,
            state: Mutex::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    pub(super) fn source(&self) -> &str {
        &self.inner.source
    }

    pub(super) fn address(&self) -> &str {
        &self.inner.address
    }

    pub(super) fn connected(&self) {
        self.inner.connected.set(1);
        self.inner.connections.inc();
        self.state().since = unix_seconds();
    }

    /// The connection is no more, or never was.
    pub(super) fn disconnected(&self, why: Option<&str>) {
        self.inner.connected.set(0);
        self.state().open = [false; 3];
        if let Some(why) = why {
            self.inner.errors.inc();
            self.error(why);
        }
    }

    pub(super) fn opened(&self, kind: Kind) {
        self.state().open[kind_index(kind)] = true;
    }

    /// One stream ended while the connection lives.
    pub(super) fn closed(&self, kind: Kind, why: &str) {
        self.state().open[kind_index(kind)] = false;
        self.stream(kind).errors.inc();
        self.error(&format!("{}: {why}", kind_word(kind)));
    }

    fn error(&self, why: &str) {
        let mut state = self.state();
        state.last_error = why.to_owned();
        state.last_error_unix = unix_seconds();
    }

    pub(super) fn journaled(&self, kind: Kind, events: u64) {
        self.stream(kind).events.inc_by(events);
    }

    pub(super) fn rejected(&self, kind: Kind, events: u64, why: &str) {
        self.state().why[kind_index(kind)] = why.to_owned();
        self.stream(kind).rejected.inc_by(events);
    }

    pub(super) fn missed(&self, kind: Kind, events: u64) {
        self.stream(kind).missed.inc_by(events);
    }

    pub(super) fn dropped(&self, kind: Kind, events: u64) {
        self.stream(kind).dropped.inc_by(events);
    }

    /// Rejected events of a kind so far, and why the last one was.
    pub(super) fn rejections(&self, kind: Kind) -> (u64, String) {
        (
            self.stream(kind).rejected.get(),
            self.state().why[kind_index(kind)].clone(),
        )
    }

    /// How many events came, good or bad: a daemon that sends is alive.
    pub(super) fn heard(&self) -> u64 {
        Kind::ALL.into_iter().map(|kind| self.heard_of(kind)).sum()
    }

    /// The same of one kind.
    pub(super) fn heard_of(&self, kind: Kind) -> u64 {
        self.stream(kind).events.get() + self.stream(kind).rejected.get()
    }

    pub(super) fn status(&self) -> SourceStatus {
        let inner = &self.inner;
        let state = self.state();
        let streams = Kind::ALL.map(|kind| {
            let stream = self.stream(kind);
            SourceStream {
                kind: link::EventKind::from(kind).into(),
                open: state.open[kind_index(kind)],
                events: stream.events.get(),
                rejected: stream.rejected.get(),
                missed: stream.missed.get(),
                dropped: stream.dropped.get(),
            }
        });
        let stream_errors = inner.streams.iter().map(|stream| stream.errors.get());
        SourceStatus {
            name: inner.source.clone(),
            r#type: inner.kind.to_owned(),
            address: inner.address.clone(),
            connected: inner.connected.get() == 1,
            since_unix: state.since,
            streams: streams.into(),
            errors: inner.errors.get() + stream_errors.sum::<u64>(),
            last_error: state.last_error.clone(),
            last_error_unix: state.last_error_unix,
        }
    }

    fn stream(&self, kind: Kind) -> &Stream {
        &self.inner.streams[kind_index(kind)]
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is one assignment.
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What sources lost, for the list of all losses.
pub(super) fn losses(sources: &[SourceStatus]) -> Vec<LossStatus> {
    let mut losses = Vec::<LossStatus>::new();
    for source in sources {
        let place = format!("source {}", source.name);
        for (stream, kind) in source.streams.iter().zip(Kind::ALL) {
            let (class, count) = (
                kind_word(kind),
                stream.rejected + stream.missed + stream.dropped,
            );
            match losses
                .iter_mut()
                .find(|loss| loss.r#where == place && loss.class == class)
            {
                Some(loss) => loss.count += count,
                None => losses.push(LossStatus {
                    r#where: place.clone(),
                    class: class.to_owned(),
                    count,
                }),
            }
        }
    }
    losses.retain(|loss| loss.count > 0);
    losses
}

/// A kind as metrics and losses name it.
pub(super) fn kind_word(kind: Kind) -> &'static str {
    crate::feed::class(kind)
}

fn unix_seconds() -> u64 {
    unix_nanoseconds() / 1_000_000_000
}
