//! What was lost on the way through the relay, and what sensors say that they lost: by place and class.
//!
//! Sinks and feeds tell their own losses; this is the rest of the list in status and metrics.

use proto::query::{LossStatus, SensorStatus, SinkStatus};

use crate::ingest::{Accounts, Door};

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
    let lost = |sink: &SinkStatus| {
        let place = format!("sink {}", sink.name);
        [
            (place.clone(), "expired", sink.expired),
            (place, "corrupt", sink.corrupt),
        ]
    };
    let losses = sinks.iter().flat_map(lost).filter(|(.., count)| *count > 0);
    losses
        .map(|(place, class, count)| loss(&place, class, count))
        .collect()
}

/// Losses that sensors reported since each of them started, added up.
pub(crate) fn of_sensors(sensors: &[SensorStatus]) -> Vec<LossStatus> {
    let mut totals = std::collections::BTreeMap::<(String, String), u64>::new();
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
