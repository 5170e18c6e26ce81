//! What was lost on the way through the relay, and what sensors say that they lost: by place and class.
//!
//! Sinks and feeds tell their own losses; this is the rest of the list in status and metrics.

mod at_start;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use proto::query::{LossStatus, SensorStatus, SinkStatus};
use proto::{Kind, feeder, updated_time};

use crate::ingest::{Accounts, Door, Importer};
use crate::log::unix_nanoseconds;

pub(crate) use self::at_start::AtStart;

/// Events that left the journal before a sink came to them. Here and below the class is the sink's name.
const JOURNAL: &str = "journal";

/// Events that the journal could not read any more when a sink came to them.
const DAMAGE: &str = "journal damage";

/// Dead letters that went to keep their bound.
const DEAD_LETTERS: &str = "dead letters";

/// Dead letters that cannot be read any more.
const LETTER_DAMAGE: &str = "dead letter damage";

/// Between two looks at what is to be told.
const LOOK: Duration = Duration::from_secs(1);

/// Sensors report their totals as `lost_PLACE_CLASS`.
const SENSOR_PREFIX: &str = "lost_";

/// The place of what a relay refused to take.
const REJECTED: &str = "rejected";

/// What came in and was no event, by door.
pub(crate) fn of_doors(accounts: &Accounts) -> Vec<LossStatus> {
    // Sources count their own, each for itself; the relay's own messages are events.
    let doors = [Door::Link, Door::Import];
    let rejected = doors.map(|door| loss(door.word(), "rejected", accounts.rejected(door)));
    some(rejected)
}

/// What the disk does not give back of a sink's dead letters.
#[derive(Clone, Debug, Default)]
pub(crate) struct LetterDamage {
    pub(crate) sink: String,
    /// Letters that are lost, since there are any,
    pub(crate) lost: u64,
    /// and how many of them this start found.
    pub(crate) found: u64,
    /// Bytes of a write that a crash interrupted: of letters that nobody counted yet.
    pub(crate) cut_bytes: u64,
    /// Which are done with could not be read: they are kept again.
    pub(crate) forgotten: bool,
}

/// Events that a sink never got, and dead letters that nobody can send again; `dropped` tells by sink of those that went to keep
/// their bound.
pub(crate) fn of_sinks(
    sinks: &[SinkStatus],
    dropped: &[(String, u64)],
    damage: &[LetterDamage],
) -> Vec<LossStatus> {
    let lost = sinks.iter().flat_map(|sink| {
        [
            loss(JOURNAL, &sink.name, sink.expired),
            loss(DAMAGE, &sink.name, sink.corrupt),
        ]
    });
    let dropped = dropped
        .iter()
        .map(|(sink, count)| loss(DEAD_LETTERS, sink, *count));
    let damage = damage
        .iter()
        .map(|damage| loss(LETTER_DAMAGE, &damage.sink, damage.lost));
    some(lost.chain(dropped).chain(damage))
}

fn some(losses: impl IntoIterator<Item = LossStatus>) -> Vec<LossStatus> {
    losses.into_iter().filter(|loss| loss.count > 0).collect()
}

/// Losses that sensors reported since each of them started, added up. What was rejected at the link is counted there, for
/// every sensor, and not once more.
pub(crate) fn of_sensors(sensors: &[SensorStatus]) -> Vec<LossStatus> {
    let mut totals = BTreeMap::<(String, String), u64>::new();
    let counters = sensors.iter().flat_map(|sensor| &sensor.counters);
    for (name, count) in counters.filter(|(_, count)| **count > 0) {
        if let Some((place, class)) = name
            .strip_prefix(SENSOR_PREFIX)
            .and_then(|name| name.rsplit_once('_'))
            .filter(|(place, _)| *place != REJECTED)
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

/// Who the relay is in messages that it writes itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origin {
    /// The cluster's name.
    pub(crate) cluster: String,
    /// This machine's name.
    pub(crate) host: String,
}

impl Origin {
    /// The message that tells of a loss; `now` in unix nanoseconds.
    pub(crate) fn warning(&self, now: u64, message: String, lost: feeder::Lost) -> feeder::Message {
        feeder::Message {
            lost: Some(lost),
            ..self.message(now, "WARN", message)
        }
    }

    /// A message of this level; `now` in unix nanoseconds.
    pub(crate) fn message(&self, now: u64, level: &str, message: String) -> feeder::Message {
        feeder::Message {
            timestamp: i64::try_from(now / 1_000_000_000).unwrap_or(i64::MAX),
            updated_time: updated_time(now),
            cluster_name: self.cluster.clone(),
            host_name: self.host.clone(),
            r#type: "Message".to_owned(),
            level: level.to_owned(),
            message,
            ..feeder::Message::default()
        }
    }
}

/// Tells what sinks lose as events, so that whoever reads the others learns of it too. What a sensor, a reader or an
/// import loses is told by the sensor, to the reader, in the import's answer.
pub(crate) struct Teller<L> {
    /// The losses of all sinks.
    pub(crate) losses: L,
    /// What they were when the sinks were made: that was told in an earlier life.
    pub(crate) before: Vec<LossStatus>,
    /// The way into the journal.
    pub(crate) importer: Importer,
    /// Whose messages they are.
    pub(crate) origin: Origin,
}

impl<L: Fn() -> Vec<LossStatus>> Teller<L> {
    /// Looks every second.
    pub(crate) async fn run(self) {
        let by_place = |loss: LossStatus| ((loss.r#where, loss.class), loss.count);
        let before = self.before.iter().cloned();
        let mut told: BTreeMap<_, u64> = before.map(by_place).collect();
        let mut logged = told.clone();
        loop {
            tokio::time::sleep(LOOK).await;
            for (place, count) in (self.losses)().into_iter().map(by_place) {
                let before = told.get(&place).copied().unwrap_or_default();
                if count <= before {
                    continue;
                }
                let message = self.message(&place, count - before, unix_nanoseconds());
                if logged.insert(place.clone(), count) != Some(count) {
                    tracing::warn!(sink = place.1, why = message.message, "events lost");
                }
                // What cannot be told now is told when the journal takes events again.
                if self.tell(&message).await {
                    told.insert(place, count);
                }
            }
        }
    }

    async fn tell(&self, message: &feeder::Message) -> bool {
        let payload = Bytes::from(message.encode_to_vec());
        self.importer
            .import(vec![(Kind::Message, payload)])
            .await
            .is_ok()
    }

    fn message(&self, (place, sink): &(String, String), count: u64, now: u64) -> feeder::Message {
        let reason = match place.as_str() {
            JOURNAL => "they left the journal before the sink had taken them",
            DAMAGE => "the journal could not read them any more",
            LETTER_DAMAGE => "they were dead letters, which are damaged on disk",
            _ => "they were dead letters, and the oldest of those went to keep their bound",
        };
        let plural = if count == 1 { "" } else { "s" };
        let text = format!("sink {sink} lost {count} event{plural}: {reason}");
        let lost = feeder::Lost {
            r#where: place.clone(),
            class: sink.clone(),
            count,
            reason: reason.to_owned(),
            ..feeder::Lost::default()
        };
        self.origin.warning(now, text, lost)
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
                ("lost_rejected_verdict", 9),
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

    #[test]
    fn what_a_sink_missed_is_told_by_where_it_went() {
        let sink = |name: &str, expired, corrupt| SinkStatus {
            name: name.to_owned(),
            expired,
            corrupt,
            ..SinkStatus::default()
        };
        let sinks = [sink("a", 2, 3), sink("b", 0, 0)];
        let dropped = [("a".to_owned(), 0), ("b".to_owned(), 5)];
        let damage = LetterDamage {
            sink: "a".to_owned(),
            lost: 4,
            ..LetterDamage::default()
        };
        let losses = of_sinks(&sinks, &dropped, &[damage]);
        let told: Vec<_> = losses
            .iter()
            .map(|loss| (loss.r#where.as_str(), loss.class.as_str(), loss.count))
            .collect();
        assert_eq!(
            told,
            [
                ("journal", "a", 2),
                ("journal damage", "a", 3),
                ("dead letters", "b", 5),
                ("dead letter damage", "a", 4)
            ]
        );
    }
}
