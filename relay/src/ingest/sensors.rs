//! Every sensor that is connected, or was: what it said of itself and when it was last heard.
//!
//! A sensor id has one live session. A second one is refused rather than preferred: two machines with one id (a copied
//! disk) would otherwise throw each other out for ever, and nobody would know.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use proto::{StreamId, link, query};

use super::hello::Hello;

/// Sensors remembered. Beyond that the one that was not heard for the longest time is forgotten.
const MAX_SENSORS: usize = 10_000;

/// What sensors call their figures: events that wait, seconds that the oldest of them has waited, and losses by place.
const SPOOLED: &str = "spooled";
const SPOOL_LAG: &str = "spool_lag_seconds";
const LOST: &str = "lost_";

/// The registry; a cheap handle.
#[derive(Debug, Clone, Default)]
pub struct Sensors {
    sensors: Arc<Mutex<BTreeMap<String, Sensor>>>,
}

#[derive(Debug)]
struct Sensor {
    /// What status tells of it.
    status: query::SensorStatus,
    peer: String,
    /// What it said that it holds, by stream.
    spooled: Vec<(StreamId, Range<u64>)>,
}

/// Who sends a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sender {
    pub(crate) sensor: String,
    pub(crate) connected: bool,
    /// What it held of the stream when it connected.
    pub(crate) spooled: Range<u64>,
}

/// A sensor id that is in use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "sensor `{sensor}` is connected already from {peer} (node {node}); every sensor needs an id of its own: remove the copied id file on one of the machines"
)]
pub(super) struct InUse {
    sensor: String,
    peer: String,
    node: String,
}

impl Sensors {
    /// All of them, by id.
    #[must_use]
    pub fn list(&self) -> Vec<query::SensorStatus> {
        self.lock()
            .values()
            .map(|sensor| sensor.status.clone())
            .collect()
    }

    /// The sensor that announced a stream.
    pub(crate) fn sender(&self, stream: StreamId) -> Option<Sender> {
        let sensors = self.lock();
        let of = |sensor: &Sensor| {
            let spooled = sensor.spooled.iter().find(|(id, _)| *id == stream)?;
            Some(Sender {
                sensor: sensor.status.sensor.clone(),
                connected: sensor.status.connected,
                spooled: spooled.1.clone(),
            })
        };
        sensors.values().find_map(of)
    }

    /// How many are connected.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.lock()
            .values()
            .filter(|sensor| sensor.status.connected)
            .count()
    }

    /// Starts the session of a sensor, unless it has one.
    pub(super) fn connect(&self, hello: &Hello, peer: &str) -> Result<Session, InUse> {
        let message = &hello.message;
        let mut sensors = self.lock();
        let known = sensors.get(&message.sensor);
        if let Some(sensor) = known.filter(|sensor| sensor.status.connected) {
            return Err(InUse {
                sensor: message.sensor.clone(),
                peer: sensor.peer.clone(),
                node: sensor.status.node.clone(),
            });
        }
        if known.is_none() && sensors.len() >= MAX_SENSORS {
            forget_one(&mut sensors);
        }
        let status = query::SensorStatus {
            sensor: message.sensor.clone(),
            version: message.sensor_version.clone(),
            node: message.node.clone(),
            connected: true,
            last_seen_unix: now(),
            kernel: message.kernel.clone(),
            rules: message.rules.clone(),
            rules_applied: !message.rules.is_empty(),
            streams: message.streams.iter().map(announced).collect(),
            ..query::SensorStatus::default()
        };
        sensors.insert(
            message.sensor.clone(),
            Sensor {
                status,
                peer: peer.to_owned(),
                spooled: spooled(hello),
            },
        );
        Ok(Session {
            sensors: self.clone(),
            sensor: message.sensor.clone(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Sensor>> {
        // Every change is one insert or a few assignments; a panic elsewhere leaves it whole.
        self.sensors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn announced(stream: &link::SpooledStream) -> query::SensorStream {
    query::SensorStream {
        stream: stream.stream.clone(),
        class: stream.class,
        sequence: 0,
    }
}

fn spooled(hello: &Hello) -> Vec<(StreamId, Range<u64>)> {
    let ranges = hello.message.streams.iter().map(|stream| {
        let range = stream.spooled.unwrap_or_default();
        range.first..range.end
    });
    hello.streams.iter().copied().zip(ranges).collect()
}

fn forget_one(sensors: &mut BTreeMap<String, Sensor>) {
    let gone = sensors
        .iter()
        .filter(|(_, sensor)| !sensor.status.connected);
    let oldest = gone
        .min_by_key(|(_, sensor)| sensor.status.last_seen_unix)
        .map(|(id, _)| id.clone());
    if let Some(id) = oldest {
        sensors.remove(&id);
    }
}

/// The live session of a sensor; it ends when dropped.
#[derive(Debug)]
pub(super) struct Session {
    sensors: Sensors,
    sensor: String,
}

impl Session {
    pub(super) fn id(&self) -> &str {
        &self.sensor
    }

    /// Something came.
    pub(super) fn heard(&self) {
        self.change(|_| {});
    }

    /// It answered to rules.
    pub(super) fn rules(&self, answer: link::RuleStatus) {
        self.change(|status| {
            if answer.applied {
                status.rules = answer.digest;
            }
            status.rules_applied = answer.applied;
            status.problems = answer.problems;
        });
    }

    /// It told how it is.
    pub(super) fn health(&self, health: link::Health) {
        self.change(|status| {
            let of = |name: &str| health.counters.get(name).copied().unwrap_or_default();
            status.spooled = of(SPOOLED);
            status.lag_seconds = of(SPOOL_LAG);
            let lost = health
                .counters
                .iter()
                .filter(|(name, _)| name.starts_with(LOST));
            status.lost = lost.map(|(_, count)| count).sum();
            status.counters = health.counters;
            status.workloads = health.workloads;
        });
    }

    fn change(&self, change: impl FnOnce(&mut query::SensorStatus)) {
        if let Some(sensor) = self.sensors.lock().get_mut(&self.sensor) {
            sensor.status.last_seen_unix = now();
            change(&mut sensor.status);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.change(|status| status.connected = false);
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(sensor: &str) -> Hello {
        let message = link::Hello {
            version: 1,
            sensor: sensor.to_owned(),
            node: "node-a".to_owned(),
            ..Default::default()
        };
        let first = link::FromSensor {
            is: Some(link::from_sensor::Is::Hello(message)),
        };
        Hello::check(first).unwrap()
    }

    #[test]
    fn a_second_session_is_refused_while_the_first_lives_and_the_last_sight_stays() {
        let sensors = Sensors::default();
        let first = sensors.connect(&hello("a"), "10.0.0.1:1").unwrap();
        let refused = sensors.connect(&hello("a"), "10.0.0.2:1").unwrap_err();
        assert!(refused.to_string().contains("10.0.0.1:1"), "{refused}");
        assert!(sensors.connect(&hello("b"), "10.0.0.2:1").is_ok());
        first.rules(link::RuleStatus {
            digest: vec![1; 32].into(),
            applied: true,
            problems: Vec::new(),
        });
        drop(first);
        let list = sensors.list();
        assert_eq!(
            (list[0].connected, list[0].rules.len(), sensors.connected()),
            (false, 32, 0)
        );
        assert!(list[0].last_seen_unix > 0);
        assert!(sensors.connect(&hello("a"), "10.0.0.2:1").is_ok());
    }

    #[test]
    fn the_registry_is_bounded_and_keeps_who_is_connected() {
        let sensors = Sensors::default();
        let live = sensors.connect(&hello("live"), "x").unwrap();
        for n in 0..=MAX_SENSORS {
            drop(sensors.connect(&hello(&format!("{n:05}")), "x").unwrap());
        }
        assert_eq!(sensors.list().len(), MAX_SENSORS);
        assert_eq!(sensors.connected(), 1);
        drop(live);
    }
}
