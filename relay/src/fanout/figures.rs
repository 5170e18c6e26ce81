//! What `/metrics` tells of the sinks: every sink's figures, and what some of them count themselves.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, IntGaugeVec, Opts};

use super::health::{Board, Health};

/// The figures, made anew for every scrape.
struct Figures {
    journaled: IntCounterVec,
    delivered: IntCounterVec,
    filtered: IntCounterVec,
    dead_lettered: IntCounterVec,
    expired: IntCounterVec,
    corrupt: IntCounterVec,
    retries: IntCounterVec,
    held: IntCounterVec,
    dead_dropped: IntCounterVec,
    dead_resent: IntCounterVec,
    dead_discarded: IntCounterVec,
    dead_kept: IntGaugeVec,
    pending: IntGaugeVec,
    up: IntGaugeVec,
    paused: IntGaugeVec,
    last_error: IntGaugeVec,
    lag: IntGaugeVec,
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
                "Events that left the log before the sink came to them.",
            )?,
            corrupt: counter(
                "corrupt_total",
                "Events that the log could not read any more.",
            )?,
            retries: counter(
                "retries_total",
                "Events that had to be sent again, once for every time.",
            )?,
            held: counter(
                "retries_held_total",
                "Times that a batch waited because the retry budget was used up.",
            )?,
            dead_dropped: counter(
                "dead_letters_dropped_total",
                "Dead letters that went to keep their bound, or cannot be read any more.",
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
                "Events between the sink's cursor and the log's end.",
            )?,
            up: gauge("up", "1 while the destination takes events.")?,
            paused: gauge("paused", "1 while an administrator has paused the sink.")?,
            last_error: gauge(
                "last_error_timestamp_seconds",
                "When something last went wrong; 0: never.",
            )?,
            lag: gauge(
                "lag_seconds",
                "How long ago the oldest event that waits for the sink was journaled.",
            )?,
        })
    }

    fn collectors(&self) -> [&dyn Collector; 17] {
        let Figures {
            journaled,
            delivered,
            filtered,
            dead_lettered,
            expired,
            corrupt,
            retries,
            held,
            dead_dropped,
            dead_resent,
            dead_discarded,
            dead_kept,
            pending,
            up,
            paused,
            last_error,
            lag,
        } = self;
        [
            journaled,
            delivered,
            filtered,
            dead_lettered,
            expired,
            corrupt,
            retries,
            held,
            dead_dropped,
            dead_resent,
            dead_discarded,
            dead_kept,
            pending,
            up,
            paused,
            last_error,
            lag,
        ]
    }

    fn fill(&self, health: &Health) {
        let labels = &[health.name.as_str(), health.kind];
        let stats = health.lanes.stats();
        let status = health.status_of(&stats);
        let dead = health.dead_letters.count();
        for (counter, value) in [
            (&self.journaled, stats.journaled),
            (&self.delivered, status.delivered),
            (&self.filtered, status.filtered),
            (&self.dead_lettered, status.dead_lettered),
            (&self.expired, status.expired),
            (&self.corrupt, status.corrupt),
            (&self.retries, health.retries()),
            (&self.held, health.budget.held()),
            (&self.dead_dropped, dead.overrun + dead.damaged),
            (&self.dead_resent, dead.retried),
            (&self.dead_discarded, dead.dropped),
        ] {
            counter.with_label_values(labels).inc_by(value);
        }
        for (gauge, value) in [
            (&self.dead_kept, dead.kept),
            (&self.pending, status.pending),
            (&self.up, u64::from(health.is_up())),
            (&self.paused, u64::from(health.is_paused())),
            (&self.last_error, status.last_error_unix),
            (&self.lag, status.lag_seconds as u64),
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
        let sinks = self.board.all();
        sinks.iter().for_each(|health| figures.fill(health));
        let collectors = figures.collectors().into_iter();
        let own = sinks.iter().flat_map(|health| health.figures.gather());
        collectors.flat_map(Collector::collect).chain(own).collect()
    }
}
