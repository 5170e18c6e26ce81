//! What was lost on the way through the relay, and what sensors say that they lost: by place and class.
//!
//! Sinks and feeds tell their own losses; this is the rest of the list in status and metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use proto::query::{LossStatus, SensorStatus, SinkStatus};
use proto::{Kind, feeder, updated_time};

use crate::ingest::{Accounts, Door, Importer};
use crate::log::unix_nanoseconds;

/// Where a sink loses events; the class is the sink's name.
const JOURNAL: &str = "journal";

/// Between two looks at what is to be told.
const LOOK: Duration = Duration::from_secs(1);

/// Sensors report their totals as `lost_PLACE_CLASS`.
const SENSOR_PREFIX: &str = "lost_";

/// Losses at the relay's doors.
pub(crate) fn of_doors(accounts: &Accounts) -> Vec<LossStatus> {
    // What a sensor sent and the relay rejected, that sensor counts; here stands what nobody else counts.
    let rejected = accounts.rejected(Door::Import);
    if rejected > 0 {
        vec![loss("import", "rejected", rejected)]
    } else {
        Vec::new()
    }
}

/// Events that a sink never got: they left the journal before it came to them, or could not be read any more.
pub(crate) fn of_sinks(sinks: &[SinkStatus]) -> Vec<LossStatus> {
    let lost = sinks
        .iter()
        .map(|sink| (&sink.name, sink.expired + sink.corrupt));
    lost.filter(|(_, count)| *count > 0)
        .map(|(name, count)| loss(JOURNAL, name, count))
        .collect()
}

/// Losses that sensors reported since each of them started, added up.
pub(crate) fn of_sensors(sensors: &[SensorStatus]) -> Vec<LossStatus> {
    let mut totals = BTreeMap::<(String, String), u64>::new();
    let counters = sensors.iter().flat_map(|sensor| &sensor.counters);
    for (name, count) in counters.filter(|(_, count)| **count > 0) {
        if let Some((place, class)) = name
            .strip_prefix(SENSOR_PREFIX)
            .and_then(|name| name.rsplit_once('_'))
        {
            *totals
                .entry((format!("sensor {place}"), class.to_owned()))
                .or_default() += count;
        }
    }
    totals
        .into_iter()
        .map(|((place, class), count)| loss(&place, &class, count))
        .collect()
}

fn loss(place: &str, class: &str, count: u64) -> LossStatus {
    LossStatus {
        r#where: place.to_owned(),
        class: class.to_owned(),
        count,
    }
}

/// Tells what sinks lose as events, so that whoever reads the others learns of it too. What a sensor, a reader or an
/// import loses is told by the sensor, to the reader, in the import's answer.
pub(crate) struct Teller<S> {
    /// The status of all sinks.
    pub(crate) sinks: S,
    /// The way into the journal.
    pub(crate) importer: Importer,
    /// The cluster's name.
    pub(crate) cluster: String,
    /// This machine's name.
    pub(crate) host: String,
}

impl<S: Fn() -> Vec<SinkStatus>> Teller<S> {
    /// Looks every second. What was lost in an earlier life was told in it.
    pub(crate) async fn run(self) {
        let mut told: BTreeMap<String, (u64, u64)> = (self.sinks)().iter().map(lost).collect();
        loop {
            tokio::time::sleep(LOOK).await;
            for (name, (expired, corrupt)) in (self.sinks)().iter().map(lost) {
                let before = told.get(&name).copied().unwrap_or_default();
                let more = (
                    expired.saturating_sub(before.0),
                    corrupt.saturating_sub(before.1),
                );
                // What cannot be told now is told when the journal takes events again.
                if more != (0, 0) && self.tell(&name, more).await {
                    told.insert(name, (expired, corrupt));
                }
            }
        }
    }

    async fn tell(&self, sink: &str, more: (u64, u64)) -> bool {
        let message = self.message(sink, more, unix_nanoseconds());
        tracing::warn!(sink, why = message.message, "events lost");
        let payload = Bytes::from(message.encode_to_vec());
        self.importer
            .import(vec![(Kind::Message, payload)])
            .await
            .is_ok()
    }

    fn message(&self, sink: &str, (expired, corrupt): (u64, u64), now: u64) -> feeder::Message {
        let reason = match (expired, corrupt) {
            (_, 0) => "they left the journal before the sink had taken them".to_owned(),
            (0, _) => "the journal could not read them any more".to_owned(),
            _ => format!(
                "{expired} left the journal before the sink had taken them, {corrupt} could not be read any more"
            ),
        };
        let count = expired + corrupt;
        feeder::Message {
            timestamp: i64::try_from(now / 1_000_000_000).unwrap_or(i64::MAX),
            updated_time: updated_time(now),
            cluster_name: self.cluster.clone(),
            host_name: self.host.clone(),
            r#type: "Message".to_owned(),
            level: "WARN".to_owned(),
            message: format!(
                "sink {sink} lost {count} event{}: {reason}",
                if count == 1 { "" } else { "s" }
            ),
            lost: Some(feeder::Lost {
                r#where: JOURNAL.to_owned(),
                class: sink.to_owned(),
                count,
                reason,
                ..feeder::Lost::default()
            }),
            ..feeder::Message::default()
        }
    }
}

fn lost(sink: &SinkStatus) -> (String, (u64, u64)) {
    (sink.name.clone(), (sink.expired, sink.corrupt))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sensors_lost_is_added_up_by_place_and_class() {
        let sensor = |ring, spool| SensorStatus {
            counters: [
                ("lost_ring_telemetry", ring),
                ("lost_spool_verdict", spool),
                ("workloads", 3),
            ]
            .map(|(name, count)| (name.to_owned(), count))
            .into(),
            ..SensorStatus::default()
        };
        let losses = of_sensors(&[sensor(2, 0), sensor(5, 1)]);
        let told: Vec<_> = losses
            .iter()
            .map(|loss| (loss.r#where.as_str(), loss.class.as_str(), loss.count))
            .collect();
        assert_eq!(
            told,
            [
                ("sensor ring", "telemetry", 7),
                ("sensor spool", "verdict", 1)
            ]
        );
    }
}
