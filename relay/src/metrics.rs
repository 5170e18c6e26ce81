//! Figures that other parts already keep for status, shown to Prometheus when it asks. Parts that count as they go
//! (ingest, feeds, sinks) register their own.

mod registry;

use std::sync::Arc;
use std::time::Duration;

use journal::CheckpointFrom;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Error, Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};
use proto::Place;
use proto::query::StatusReply;

use crate::log::Store;

pub use self::registry::{Described, Registry};

/// Reads the status of all parts.
pub(crate) type Status = Arc<dyn Fn() -> StatusReply + Send + Sync>;

/// Makes the registry that all parts share.
///
/// # Errors
/// Never in practice: the names below are distinct.
pub(crate) fn registry() -> Result<Registry, Error> {
    let registry = Registry::new();
    let build = IntGaugeVec::new(
        Opts::new("cresset_build_info", "1; the labels say what runs."),
        &["version"],
    )?;
    build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    registry.register(Box::new(build))?;
    Ok(registry)
}

/// Shows what `status` says from now on.
///
/// # Errors
/// The registry has these figures already.
pub(crate) fn register(registry: &Registry, status: Status, store: Store) -> Result<(), Error> {
    registry.register(Box::new(FromStatus {
        status,
        figures: Figures::new()?,
    }))?;
    registry.register(Box::new(FromJournal {
        store,
        figures: JournalFigures::new()?,
    }))
}

/// The figures, made anew for every scrape: labels of what is gone go with it.
struct Figures {
    sensors: IntGaugeVec,
    silent: IntGaugeVec,
    not_applied: IntGauge,
    oldest: IntGauge,
    lost: IntCounterVec,
    ready: IntGauge,
}

impl Figures {
    fn new() -> Result<Self, Error> {
        Ok(Self {
            sensors: IntGaugeVec::new(
                Opts::new(
                    "cresset_sensors",
                    "Sensors that the relay knows: connected, or away.",
                ),
                &["state"],
            )?,
            silent: IntGaugeVec::new(
                Opts::new(
                    "cresset_sensor_silent_since_timestamp_seconds",
                    "Sensors that are not heard (relay.sensors.silent_after), and since when; none of those that are.",
                ),
                &["sensor", "node"],
            )?,
            not_applied: IntGauge::new(
                "cresset_sensors_rules_not_applied",
                "Connected sensors that do not run the current rules.",
            )?,
            oldest: IntGauge::new(
                "cresset_journal_oldest_timestamp_seconds",
                "Arrival of the oldest event kept.",
            )?,
            lost: IntCounterVec::new(
                Opts::new(
                    "cresset_lost_events_total",
                    "Events lost, by place and class.",
                ),
                &["where", "class"],
            )?,
            ready: IntGauge::new(
                "cresset_ready",
                "1 while events get through, as /readyz says.",
            )?,
        })
    }

    fn collectors(&self) -> [&dyn Collector; 6] {
        let Self {
            sensors,
            silent,
            not_applied,
            oldest,
            lost,
            ready,
        } = self;
        [sensors, silent, not_applied, oldest, lost, ready]
    }

    fn fill(&self, status: &StatusReply) {
        let connected = status.sensors.iter().filter(|sensor| sensor.connected);
        let place = |rules: &[u8]| match &status.policies {
            Some(policies) => policies.place(rules),
            None => Place::Other,
        };
        let behind = connected
            .clone()
            .filter(|sensor| place(&sensor.rules) == Place::Other)
            .count();
        let connected = connected.count();
        self.sensors
            .with_label_values(&["connected"])
            .set(connected as i64);
        self.sensors
            .with_label_values(&["away"])
            .set((status.sensors.len() - connected) as i64);
        for sensor in status
            .sensors
            .iter()
            .filter(|sensor| sensor.silent_unix != 0)
        {
            self.silent
                .with_label_values(&[&sensor.sensor, &sensor.node])
                .set(signed(sensor.silent_unix));
        }
        self.not_applied.set(behind as i64);
        if let Some(journal) = &status.journal {
            self.oldest.set(signed(journal.oldest_unix));
        }
        for loss in &status.losses {
            self.lost
                .with_label_values(&[&loss.r#where, &loss.class])
                .inc_by(loss.count);
        }
        self.ready.set(i64::from(
            status.relay.as_ref().is_some_and(|relay| relay.ready),
        ));
    }
}

fn signed(figure: u64) -> i64 {
    i64::try_from(figure).unwrap_or(i64::MAX)
}

struct FromStatus {
    status: Status,
    /// Only described, never filled.
    figures: Figures,
}

impl Collector for FromStatus {
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
        figures.fill(&(self.status)());
        figures
            .collectors()
            .into_iter()
            .flat_map(Collector::collect)
            .collect()
    }
}

/// The journal's own figures.
struct JournalFigures {
    first: IntGauge,
    next: IntGauge,
    bytes: IntGauge,
    max_bytes: IntGauge,
    segments: IntGauge,
    writable: IntGauge,
    refusals: IntCounter,
    broken: IntGauge,
    sync_last: Gauge,
    sync_max: Gauge,
    received: IntCounter,
    acknowledged: IntCounter,
    refused: IntCounter,
    in_flight: IntGauge,
    groups: IntCounter,
    written: IntCounter,
    cut: IntGauge,
    unknown: IntGauge,
    positions_lost: IntGauge,
    suspects: IntCounter,
    removed: IntCounter,
    cursor_failures: IntCounter,
    compressed: IntCounter,
    compressed_from: IntCounter,
    compressed_to: IntCounter,
    compression_failures: IntCounter,
}

impl JournalFigures {
    fn new() -> Result<Self, Error> {
        let gauge = |name, help| IntGauge::new(format!("cresset_journal_{name}"), help);
        let counter = |name, help| IntCounter::new(format!("cresset_journal_{name}_total"), help);
        let seconds = |name, help| Gauge::new(format!("cresset_journal_{name}_seconds"), help);
        Ok(Self {
            first: gauge("first_sequence", "Oldest event kept.")?,
            next: gauge("next_sequence", "What the next event will have.")?,
            bytes: gauge("bytes", "Bytes on disk.")?,
            max_bytes: gauge("max_bytes", "Bound of the bytes on disk.")?,
            segments: gauge("segments", "Files.")?,
            writable: gauge("writable", "1 while new events are taken.")?,
            refusals: counter("refusals", "Times that it stopped taking events.")?,
            broken: gauge(
                "accounts_broken",
                "1 when the journal's books do not balance, which is a fault to report.",
            )?,
            sync_last: seconds(
                "sync_last",
                "How long the disk took for the last group of events.",
            )?,
            sync_max: seconds("sync_max", "How long it took at most since the start.")?,
            received: counter("received_events", "Events offered to the journal.")?,
            acknowledged: counter("acknowledged_events", "Those that are on disk.")?,
            refused: counter("refused_events", "Those that could not be written.")?,
            in_flight: gauge("in_flight_events", "Those on their way to the disk.")?,
            groups: counter("groups", "Groups of events made durable together.")?,
            written: counter("written_bytes", "Bytes made durable.")?,
            cut: gauge(
                "cut_bytes",
                "Bytes at its end that a crash left unfinished and that were cut at the start.",
            )?,
            unknown: gauge(
                "received_unknown",
                "1 while what was received is known only as far as its records go.",
            )?,
            positions_lost: gauge(
                "positions_lost",
                "Sinks whose position could not be read at the start: they began with the oldest event.",
            )?,
            suspects: counter("suspect_segments", "Files given up after the disk failed.")?,
            removed: counter("removed_segments", "Files removed by retention.")?,
            cursor_failures: counter(
                "cursor_failures",
                "Cursor positions that could not be written at once.",
            )?,
            compressed: counter("compressed_segments", "Files compressed in the background.")?,
            compressed_from: counter("compressed_from_bytes", "Their bytes before.")?,
            compressed_to: counter("compressed_to_bytes", "Their bytes after.")?,
            compression_failures: counter(
                "compression_failures",
                "Attempts to compress a file that failed; it stays as it was.",
            )?,
        })
    }

    fn collectors(&self) -> [&dyn Collector; 26] {
        let Self {
            first,
            next,
            bytes,
            max_bytes,
            segments,
            writable,
            refusals,
            broken,
            ..
        } = self;
        let Self {
            sync_last,
            sync_max,
            received,
            acknowledged,
            refused,
            in_flight,
            groups,
            written,
            cut,
            unknown,
            positions_lost,
            suspects,
            removed,
            cursor_failures,
            compressed,
            compressed_from,
            compressed_to,
            compression_failures,
            ..
        } = self;
        [
            first,
            next,
            bytes,
            max_bytes,
            segments,
            writable,
            refusals,
            broken,
            sync_last,
            sync_max,
            received,
            acknowledged,
            refused,
            in_flight,
            groups,
            written,
            cut,
            unknown,
            positions_lost,
            suspects,
            removed,
            cursor_failures,
            compressed,
            compressed_from,
            compressed_to,
            compression_failures,
        ]
    }

    fn fill(&self, store: &Store) {
        let stats = store.log().figures();
        self.first.set(signed(stats.first.0));
        self.next.set(signed(stats.committed.0 + 1));
        self.bytes.set(signed(stats.bytes));
        self.max_bytes.set(signed(stats.max_size));
        self.segments.set(signed(stats.segments as u64));
        let standing = store.standing();
        self.writable.set(i64::from(standing.refusing().is_none()));
        self.refusals.inc_by(standing.times());
        self.broken.set(i64::from(stats.violation.is_some()));
        self.sync_last
            .set(Duration::from_nanos(stats.sync_last_ns).as_secs_f64());
        self.sync_max
            .set(Duration::from_nanos(stats.sync_max_ns).as_secs_f64());
        self.received.inc_by(stats.ledger.received);
        self.acknowledged.inc_by(stats.ledger.acknowledged);
        self.refused.inc_by(stats.ledger.refused);
        self.in_flight.set(signed(stats.ledger.in_flight));
        self.groups.inc_by(stats.groups);
        self.written.inc_by(stats.written);
        let opened = store.opened();
        self.cut.set(signed(opened.cut_bytes));
        let unknown = opened.checkpoint == CheckpointFrom::Lost;
        self.unknown.set(i64::from(unknown));
        self.positions_lost
            .set(signed(opened.cursors_lost.len() as u64));
        self.suspects.inc_by(stats.suspects);
        self.removed.inc_by(stats.removed_segments);
        self.cursor_failures.inc_by(stats.cursor_failures);
        self.compressed.inc_by(stats.packed_segments);
        self.compressed_from.inc_by(stats.packed_from);
        self.compressed_to.inc_by(stats.packed_to);
        self.compression_failures.inc_by(stats.pack_failures);
    }
}

struct FromJournal {
    store: Store,
    /// Only described, never filled.
    figures: JournalFigures,
}

impl Collector for FromJournal {
    fn desc(&self) -> Vec<&Desc> {
        self.figures
            .collectors()
            .into_iter()
            .flat_map(Collector::desc)
            .collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Ok(figures) = JournalFigures::new() else {
            return Vec::new();
        };
        figures.fill(&self.store);
        figures
            .collectors()
            .into_iter()
            .flat_map(Collector::collect)
            .collect()
    }
}
