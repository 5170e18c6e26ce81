//! What status and metrics tell of the sinks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use journal::{Cursor, CursorStats};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, IntGaugeVec, Opts};
use proto::query::SinkStatus;

use super::dead_letters::DeadLetters;
use super::pauses::Pause;
use crate::log::unix_nanoseconds;

/// What a sink does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Running,
    Retrying,
    Stopped,
}

/// The word for a sink that would run if nobody had paused it.
const PAUSED: &str = "paused";

impl State {
    fn word(self) -> &'static str {
        match self {
            State::Running => "running",
            State::Retrying => "retrying",
            State::Stopped => "stopped",
        }
    }
}

/// One sink, as its task tells it and others see it.
pub(super) struct Health {
    name: String,
    kind: &'static str,
    pub(super) cursor: Cursor,
    pub(super) dead_letters: Arc<DeadLetters>,
    retries: AtomicU64,
    told: Mutex<Told>,
    pause: Mutex<Option<Pause>>,
}

struct Told {
    state: State,
    error: String,
    at: u64,
}

impl Health {
    pub(super) fn new(
        name: String,
        kind: &'static str,
        cursor: Cursor,
        dead_letters: DeadLetters,
        pause: Option<Pause>,
    ) -> Self {
        let told = Told {
            state: State::Running,
            error: String::new(),
            at: 0,
        };
        Health {
            name,
            kind,
            cursor,
            dead_letters: Arc::new(dead_letters),
            retries: AtomicU64::new(0),
            told: Mutex::new(told),
            pause: Mutex::new(pause),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn pause(&self) -> MutexGuard<'_, Option<Pause>> {
        self.pause.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody wants nothing to be sent.
    pub(super) fn is_paused(&self) -> bool {
        self.pause().is_some()
    }

    /// Pauses the sink, or lets it go on; true if it was otherwise before.
    pub(super) fn set_pause(&self, pause: Option<Pause>) -> bool {
        let now = pause.is_some();
        let before = std::mem::replace(&mut *self.pause(), pause);
        before.is_some() != now
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs a change of state once, not every failure.
    pub(super) fn is(&self, state: State) {
        let before = std::mem::replace(&mut self.told().state, state);
        if before == State::Retrying && state == State::Running {
            tracing::info!("the destination takes events again");
        }
    }

    /// Something went wrong that does not stop the sink.
    pub(super) fn error(&self, error: &str) {
        let mut told = self.told();
        let known = told.error == error;
        error.clone_into(&mut told.error);
        told.at = unix_nanoseconds() / 1_000_000_000;
        drop(told);
        if !known {
            tracing::warn!(error, "trouble with the sink");
        }
    }

    /// The destination takes nothing; `events` wait for another attempt.
    pub(super) fn retrying(&self, error: &str, events: usize) {
        self.retries.fetch_add(events as u64, Ordering::Relaxed);
        self.error(error);
        self.is(State::Retrying);
    }

    fn status(&self) -> SinkStatus {
        self.status_of(&self.cursor.stats())
    }

    /// The status at the moment of these figures.
    fn status_of(&self, stats: &CursorStats) -> SinkStatus {
        let CursorStats {
            position,
            pending,
            account,
            ..
        } = *stats;
        let pause = self.pause().clone();
        let told = self.told();
        let state = match (told.state, &pause) {
            (State::Stopped, _) | (_, None) => told.state.word(),
            (_, Some(_)) => PAUSED,
        };
        SinkStatus {
            name: self.name.clone(),
            r#type: self.kind.to_owned(),
            state: state.to_owned(),
            position: position.0,
            pending,
            delivered: account.delivered,
            filtered: account.filtered,
            dead_lettered: account.dead_lettered,
            expired: account.expired,
            corrupt: account.corrupt,
            last_error: told.error.clone(),
            last_error_unix: told.at,
            dead_letters: self.dead_letters.count().kept,
            paused_unix: pause.as_ref().map_or(0, |pause| pause.since),
            paused_by: pause.map(|pause| pause.by).unwrap_or_default(),
        }
    }
}

/// Says that the sink has stopped, however its task ended.
pub(super) struct StoppedOnDrop<'a>(pub(super) &'a Health);

impl Drop for StoppedOnDrop<'_> {
    fn drop(&mut self) {
        self.0.is(State::Stopped);
    }
}

/// All sinks.
#[derive(Clone)]
pub(super) struct Board(Arc<Vec<Arc<Health>>>);

impl Board {
    pub(super) fn new(sinks: Vec<Arc<Health>>) -> Self {
        Board(Arc::new(sinks))
    }

    pub(super) async fn close(&self) {
        for health in &*self.0 {
            health.dead_letters.close().await;
        }
    }

    pub(super) fn status(&self) -> Vec<SinkStatus> {
        self.0.iter().map(|health| health.status()).collect()
    }

    pub(super) fn dead_letters_dropped(&self) -> Vec<(String, u64)> {
        let dropped = |health: &Arc<Health>| health.dead_letters.count().overrun;
        self.0
            .iter()
            .map(|health| (health.name.clone(), dropped(health)))
            .collect()
    }
}

/// The figures, made anew for every scrape.
struct Figures {
    journaled: IntCounterVec,
    delivered: IntCounterVec,
    filtered: IntCounterVec,
    dead_lettered: IntCounterVec,
    expired: IntCounterVec,
    corrupt: IntCounterVec,
    retries: IntCounterVec,
    dead_dropped: IntCounterVec,
    dead_resent: IntCounterVec,
    dead_discarded: IntCounterVec,
    dead_kept: IntGaugeVec,
    pending: IntGaugeVec,
    up: IntGaugeVec,
    paused: IntGaugeVec,
    last_error: IntGaugeVec,
}

impl Figures {
    fn new() -> prometheus::Result<Self> {
        let labels = &["sink", "type"];
        let counter = |what, help| {
            IntCounterVec::new(Opts::new(format!("cresset_sink_{what}"), help), labels)
        };
        let gauge =
            |what, help| IntGaugeVec::new(Opts::new(format!("cresset_sink_{what}"), help), labels);
        Ok(Figures {
            journaled: counter(
                "journaled_total",
                "Events journaled since the sink's cursor was made: delivered, filtered, dead-lettered, expired, corrupt and pending together.",
            )?,
            delivered: counter(
                "delivered_total",
                "Events that the destination has and keeps.",
            )?,
            filtered: counter(
                "filtered_total",
                "Events that the sink's filter, or an administrator's skip, leaves out.",
            )?,
            dead_lettered: counter(
                "dead_lettered_total",
                "Events refused for good and kept as dead letters.",
            )?,
            expired: counter(
                "expired_total",
                "Events that left the journal before the sink came to them.",
            )?,
            corrupt: counter(
                "corrupt_total",
                "Events that the journal could not read any more.",
            )?,
            retries: counter(
                "retries_total",
                "Events that had to be sent again, once for every time.",
            )?,
            dead_dropped: counter(
                "dead_letters_dropped_total",
                "Dead letters that went to keep their bound.",
            )?,
            dead_resent: counter(
                "dead_letters_resent_total",
                "Dead letters that a retry delivered.",
            )?,
            dead_discarded: counter(
                "dead_letters_discarded_total",
                "Dead letters that an administrator dropped.",
            )?,
            dead_kept: gauge("dead_letters", "Dead letters on disk.")?,
            pending: gauge(
                "pending",
                "Events between the sink's cursor and the journal's end.",
            )?,
            up: gauge("up", "1 while the destination takes events.")?,
            paused: gauge("paused", "1 while an administrator has paused the sink.")?,
            last_error: gauge(
                "last_error_timestamp_seconds",
                "When something last went wrong; 0: never.",
            )?,
        })
    }

    fn collectors(&self) -> [&dyn Collector; 15] {
        let Figures {
            journaled,
            delivered,
            filtered,
            dead_lettered,
            expired,
            corrupt,
            retries,
            dead_dropped,
            dead_resent,
            dead_discarded,
            dead_kept,
            pending,
            up,
            paused,
            last_error,
        } = self;
        [
            journaled,
            delivered,
            filtered,
            dead_lettered,
            expired,
            corrupt,
            retries,
            dead_dropped,
            dead_resent,
            dead_discarded,
            dead_kept,
            pending,
            up,
            paused,
            last_error,
        ]
    }

    fn fill(&self, health: &Health) {
        let labels = &[health.name.as_str(), health.kind];
        let stats = health.cursor.stats();
        let status = health.status_of(&stats);
        let dead = health.dead_letters.count();
        for (counter, value) in [
            (&self.journaled, stats.journaled),
            (&self.delivered, status.delivered),
            (&self.filtered, status.filtered),
            (&self.dead_lettered, status.dead_lettered),
            (&self.expired, status.expired),
            (&self.corrupt, status.corrupt),
            (&self.retries, health.retries.load(Ordering::Relaxed)),
            (&self.dead_dropped, dead.overrun),
            (&self.dead_resent, dead.retried),
            (&self.dead_discarded, dead.dropped),
        ] {
            counter.with_label_values(labels).inc_by(value);
        }
        for (gauge, value) in [
            (&self.dead_kept, dead.kept),
            (&self.pending, status.pending),
            (&self.up, u64::from(health.told().state == State::Running)),
            (&self.paused, u64::from(health.is_paused())),
            (&self.last_error, status.last_error_unix),
        ] {
            gauge
                .with_label_values(labels)
                .set(i64::try_from(value).unwrap_or(i64::MAX));
        }
    }
}

/// The sinks as the registry sees them.
pub(super) struct Shown {
    board: Board,
    /// Only described, never filled.
    figures: Figures,
}

impl Shown {
    pub(super) fn new(board: Board) -> prometheus::Result<Self> {
        Ok(Shown {
            board,
            figures: Figures::new()?,
        })
    }
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
        self.board.0.iter().for_each(|health| figures.fill(health));
        figures
            .collectors()
            .into_iter()
            .flat_map(Collector::collect)
            .collect()
    }
}
