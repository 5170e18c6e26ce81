//! Every sensor that is connected, or was: what it said of itself and when it was last heard.
//!
//! A sensor id has one live session. A second one is refused rather than preferred: two machines with one id (a copied
//! disk) would otherwise throw each other out for ever, and nobody would know. The refusal is told where the first one is seen.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proto::{StreamId, link, query};

#[cfg(test)]
mod tests;

use super::hello::Hello;
use super::silence::Known;

/// Sensors remembered. Beyond that the one that was not heard for the longest time is forgotten.
const MAX_SENSORS: usize = 10_000;

/// Seconds between two notices of one id that two machines have.
const SECOND_TOLD: u64 = 60;

/// What sensors call their figures: events that wait, seconds that the oldest of them has waited, and losses by place.
const SPOOLED: &str = "spooled";
const SPOOL_LAG: &str = "spool_lag_seconds";
const LOST: &str = "lost_";

/// The registry; a cheap handle.
#[derive(Debug, Clone, Default)]
pub struct Sensors {
    sensors: Arc<Mutex<BTreeMap<String, Sensor>>>,
    notices: Arc<Mutex<Vec<Notice>>>,
}

/// What somebody who watches sensors should know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Notice {
    #[error("sensor {sensor} (node {node}) is silent: not heard since {}", time(*.since))]
    Silent {
        sensor: String,
        node: String,
        since: u64,
    },
    #[error("sensor {sensor} (node {node}) is heard again, after {silence}")]
    Back {
        sensor: String,
        node: String,
        silence: yaml::Span,
    },
    #[error("sensor {sensor} (node {node}) was away for {away} and is forgotten")]
    Forgotten {
        sensor: String,
        node: String,
        away: yaml::Span,
    },
    #[error(
        "a second machine, at {peer}, says that it is sensor {sensor} (node {node}, connected from {first}) and was refused; every sensor needs an id of its own: remove the copied id file on one of them"
    )]
    Second {
        sensor: String,
        node: String,
        peer: String,
        first: String,
    },
}

impl Notice {
    pub(super) fn level(&self) -> &'static str {
        match self {
            Self::Silent { .. } | Self::Second { .. } => "WARN",
            Self::Back { .. } | Self::Forgotten { .. } => "INFO",
        }
    }
}

/// Unix seconds for people.
fn time(unix: u64) -> jiff::Timestamp {
    let seconds = i64::try_from(unix).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX)
}

#[derive(Debug)]
struct Sensor {
    /// What status tells of it.
    status: query::SensorStatus,
    peer: String,
    /// What it said that it holds, by stream.
    spooled: Vec<(StreamId, Range<u64>)>,
    /// Silence counts from here, in unix seconds: the last message, or the start of this relay.
    since: u64,
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

/// Why a sensor is not forgotten.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotForgotten {
    #[error("this relay knows no sensor `{0}`; `cresset sensor list` shows those that it knows")]
    Unknown(String),
    #[error(
        "sensor `{sensor}` is connected from {peer}; stop it first, or it is known again at its next word"
    )]
    Connected { sensor: String, peer: String },
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
        let known = sensors.get_mut(&message.sensor);
        if let Some(sensor) = known.filter(|sensor| sensor.status.connected) {
            self.note(sensor.refuse(peer));
            return Err(InUse {
                sensor: message.sensor.clone(),
                peer: sensor.peer.clone(),
                node: sensor.status.node.clone(),
            });
        }
        let known = sensors.get(&message.sensor);
        self.note(known.and_then(Sensor::back));
        if known.is_none() && sensors.len() >= MAX_SENSORS {
            forget_one(&mut sensors);
        }
        let before = sensors.get(&message.sensor);
        let before = before
            .map(|sensor| sensor.status.clone())
            .unwrap_or_default();
        let status = query::SensorStatus {
            refused_sessions: before.refused_sessions,
            refused_peer: before.refused_peer,
            refused_unix: before.refused_unix,
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
                since: now(),
            },
        );
        Ok(Session {
            sensors: self.clone(),
            sensor: message.sensor.clone(),
        })
    }

    /// Takes a sensor that will not come back out of what is watched; gives what was known of it.
    pub(crate) fn forget(&self, sensor: &str) -> Result<query::SensorStatus, NotForgotten> {
        let mut sensors = self.lock();
        let known = sensors
            .get(sensor)
            .ok_or_else(|| NotForgotten::Unknown(sensor.to_owned()))?;
        if known.status.connected {
            let (sensor, peer) = (sensor.to_owned(), known.peer.clone());
            return Err(NotForgotten::Connected { sensor, peer });
        }
        let status = known.status.clone();
        sensors.remove(sensor);
        Ok(status)
    }

    /// Whom an earlier life of this relay knew.
    pub(super) fn restore(&self, known: Vec<Known>) {
        let mut sensors = self.lock();
        for known in known.into_iter().take(MAX_SENSORS) {
            let sensor = Sensor::remembered(known);
            sensors
                .entry(sensor.status.sensor.clone())
                .or_insert(sensor);
        }
    }

    pub(super) fn known(&self) -> Vec<Known> {
        let sensors = self.lock();
        let known = |sensor: &Sensor| Known {
            sensor: sensor.status.sensor.clone(),
            node: sensor.status.node.clone(),
            version: sensor.status.version.clone(),
            last_seen: sensor.status.last_seen_unix,
        };
        sensors.values().map(known).collect()
    }

    /// Looks who has become silent, and who has been away for so long that nobody asks any more.
    pub(super) fn look(&self, silent_after: Duration, forget_after: Duration) -> Vec<Notice> {
        let now = now();
        let mut sensors = self.lock();
        let mut notices = std::mem::take(&mut *self.notices());
        for sensor in sensors.values_mut() {
            notices.extend(sensor.silent(now, silent_after));
        }
        sensors.retain(|_, sensor| {
            let forgotten = sensor.forgotten(now, forget_after);
            let stays = forgotten.is_none();
            notices.extend(forgotten);
            stays
        });
        notices
    }

    fn note(&self, notice: Option<Notice>) {
        let mut notices = self.notices();
        // Looked at every second; a flood is bounded by the number of sensors.
        if notices.len() < MAX_SENSORS {
            notices.extend(notice);
        }
    }

    fn notices(&self) -> MutexGuard<'_, Vec<Notice>> {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner)
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

impl Sensor {
    fn remembered(known: Known) -> Self {
        let status = query::SensorStatus {
            sensor: known.sensor,
            node: known.node,
            version: known.version,
            last_seen_unix: known.last_seen,
            ..query::SensorStatus::default()
        };
        Self {
            status,
            peer: String::new(),
            spooled: Vec::new(),
            since: now(),
        }
    }

    fn whose(&self) -> (String, String) {
        (self.status.sensor.clone(), self.status.node.clone())
    }

    /// Somebody else says that it is this sensor. Told once a minute.
    fn refuse(&mut self, peer: &str) -> Option<Notice> {
        let now = now();
        let told = self.status.refused_unix;
        self.status.refused_sessions += 1;
        self.status.refused_peer = peer.to_owned();
        if now < told.saturating_add(SECOND_TOLD) {
            return None;
        }
        self.status.refused_unix = now;
        let (sensor, node) = self.whose();
        let (peer, first) = (peer.to_owned(), self.peer.clone());
        Some(Notice::Second {
            sensor,
            node,
            peer,
            first,
        })
    }

    fn silent(&mut self, now: u64, after: Duration) -> Option<Notice> {
        let since = self.since.max(self.status.last_seen_unix);
        let silent = now.saturating_sub(since) >= after.as_secs();
        if !silent || self.status.silent_unix != 0 {
            return None;
        }
        let since = self.status.last_seen_unix;
        self.status.silent_unix = since.max(1);
        let (sensor, node) = self.whose();
        Some(Notice::Silent {
            sensor,
            node,
            since,
        })
    }

    /// It was silent, and is heard.
    fn back(&self) -> Option<Notice> {
        let since = self.status.silent_unix;
        let silence = yaml::Span(Duration::from_secs(now().saturating_sub(since)));
        let (sensor, node) = self.whose();
        (since != 0).then_some(Notice::Back {
            sensor,
            node,
            silence,
        })
    }

    fn forgotten(&self, now: u64, after: Duration) -> Option<Notice> {
        let away = now.saturating_sub(self.status.last_seen_unix);
        let (sensor, node) = self.whose();
        let gone = !self.status.connected && away >= after.as_secs();
        gone.then(|| Notice::Forgotten {
            sensor,
            node,
            away: yaml::Span(Duration::from_secs(away)),
        })
    }
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
            status.off = health.off;
        });
    }

    fn change(&self, change: impl FnOnce(&mut query::SensorStatus)) {
        if let Some(sensor) = self.sensors.lock().get_mut(&self.sensor) {
            self.sensors.note(sensor.back());
            sensor.status.silent_unix = 0;
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
