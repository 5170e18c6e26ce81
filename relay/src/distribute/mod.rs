//! The rules that each sensor is to run, to every sensor; and who runs which.
//!
//! ```text
//! policies ─▶ rollout ──watch──▶ Distributor ──┬─ messages("node-a", what it holds) ──▶ link
//!                                              └─ messages("node-b", …)            ──▶ link
//!                                Distributor ◀── report("node-a", RuleStatus)       ◀── link
//! ```
//! A sensor gets the newest set only: sets that came and went while it was busy are never sent. A sensor that said that
//! it runs the set before gets what changed: two names and one policy for an edit, however many policies there are. Any
//! other gets the manifest (32 bytes a policy) and the blobs that it does not hold, in parts of at most 256 KiB that are
//! made when the connection has room for them. The first part names the set, the last one says `commit`.
//!
//! All sensors get every set, those without a workload that it is about as well: a workload may start anywhere at any
//! moment, and must not start unjudged. For them an edit is a hundred bytes, and nothing changes in their kernels.
//!
//! What a sensor holds is never guessed: it is what its `Hello` named, and from then on the last set that it *said* it
//! applied. Until it has said so, blobs of a set in between may be sent twice, which costs bytes; the other way round a
//! sensor would refuse a set for a blob that nobody sends again.

mod difference;
mod messages;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::Stream;
use policy::RuleSet;
use proto::{Digest, link};
use tokio::sync::watch;

use self::difference::Differences;
use self::messages::Messages;

/// The blobs of one `Rules` message, in bytes. A thousand sensors that read slowly have a part each in memory.
pub const MAX_PART: usize = 256 << 10;

/// Labels of a sensor's node.
pub type Labels = HashMap<String, String>;

/// What sensors are to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Offered {
    /// By everybody who tries nothing.
    pub everybody: Arc<RuleSet>,
    /// By those who try a set first.
    pub trial: Option<OnTrial>,
}

/// A set for some.
#[derive(Clone, Debug, PartialEq)]
pub struct OnTrial {
    /// Who: sensors with all of these labels.
    pub canary: BTreeMap<String, String>,
    /// What they run.
    pub set: Arc<RuleSet>,
}

impl Offered {
    /// One set for everybody.
    pub fn to_all(set: Arc<RuleSet>) -> Offered {
        Offered {
            everybody: set,
            trial: None,
        }
    }

    /// What a sensor with these labels is to run.
    pub fn to(&self, labels: &Labels) -> &Arc<RuleSet> {
        match &self.trial {
            Some(trial) if is_canary(&trial.canary, labels) => &trial.set,
            _ => &self.everybody,
        }
    }
}

/// Whether a node has all labels of a canary.
fn is_canary(canary: &BTreeMap<String, String>, labels: &Labels) -> bool {
    let mut all = canary.iter();
    all.all(|(key, value)| labels.get(key) == Some(value))
}

/// A sensor as it introduced itself.
#[derive(Clone, Debug, Default)]
pub struct Receiver {
    /// Its id.
    pub sensor: String,
    /// Labels of its node.
    pub labels: Labels,
    /// The blobs that it holds.
    pub blobs: Vec<Digest>,
    /// The set that it has in force.
    pub in_force: Option<Digest>,
    /// It understands changes of a manifest.
    pub takes_changes: bool,
}

/// Hands the current rules to any number of sensors; a cheap handle.
#[derive(Clone)]
pub struct Distributor {
    offered: watch::Receiver<Arc<Offered>>,
    shared: Arc<Shared>,
}

/// What all connections share.
#[derive(Default)]
struct Shared {
    running: Mutex<Fleet>,
    differences: Differences,
}

/// Sensors that are connected, by id.
#[derive(Default)]
struct Fleet {
    sensors: BTreeMap<String, Running>,
    /// Connections so far; an old one must not take the place of its successor away.
    connections: u64,
}

/// What one connected sensor said about the rules that it runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Running {
    connection: u64,
    /// Labels of its node.
    pub labels: Labels,
    /// The set in force; none before the first was applied.
    pub in_force: Option<Digest>,
    /// The set that the sensor refused after that, if it did.
    pub refused: Option<Digest>,
    /// Why it refused.
    pub why: String,
}

/// How the canaries of a trial stand to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Canaries {
    /// Connected, running it or not.
    pub connected: usize,
    /// Running it.
    pub running: usize,
    /// One that refused it, and why.
    pub refused: Option<String>,
}

impl Distributor {
    /// A distributor of what comes out of `offered`.
    pub fn new(offered: watch::Receiver<Arc<Offered>>) -> Distributor {
        Distributor {
            offered,
            shared: Arc::default(),
        }
    }

    /// The parts to send to a sensor: nothing while it runs what it is to run, then every newer set. Ends when the
    /// policies' side is gone.
    pub fn messages(&self, to: Receiver) -> impl Stream<Item = link::Rules> + Send + Unpin + use<> {
        let connection = self.shared.connected(&to);
        Messages::new(self.offered.clone(), self.shared.clone(), to, connection)
    }

    /// A sensor's answer to a set.
    pub fn report(&self, sensor: &str, status: &link::RuleStatus) {
        let digest = <[u8; 32]>::try_from(&status.digest[..]).ok().map(Digest);
        let mut fleet = self.shared.lock();
        let Some(running) = fleet.sensors.get_mut(sensor) else {
            return;
        };
        if status.applied {
            running.in_force = digest;
            running.refused = None;
            return;
        }
        running.refused = digest;
        let why = status.problems.iter().find(|problem| problem.refused);
        running.why = why.map(|why| why.message.clone()).unwrap_or_default();
    }

    /// What every connected sensor runs, by sensor.
    pub fn running(&self) -> BTreeMap<String, Running> {
        self.shared.lock().sensors.clone()
    }

    /// How the sensors with these labels stand to a set.
    pub fn canaries(&self, canary: &BTreeMap<String, String>, set: Digest) -> Canaries {
        let fleet = self.shared.lock();
        let mut canaries = Canaries::default();
        let own = fleet.sensors.iter();
        for (sensor, running) in own.filter(|(_, running)| is_canary(canary, &running.labels)) {
            canaries.connected += 1;
            canaries.running += usize::from(running.in_force == Some(set));
            if running.refused == Some(set) {
                canaries.refused = Some(format!("{sensor}: {}", running.why));
            }
        }
        canaries
    }
}

impl Shared {
    /// Notes a new connection and gives its number.
    fn connected(&self, to: &Receiver) -> u64 {
        let mut fleet = self.lock();
        fleet.connections += 1;
        let connection = fleet.connections;
        let running = Running {
            connection,
            labels: to.labels.clone(),
            in_force: to.in_force,
            ..Running::default()
        };
        fleet.sensors.insert(to.sensor.clone(), running);
        connection
    }

    fn gone(&self, sensor: &str, connection: u64) {
        let mut fleet = self.lock();
        let own = fleet.sensors.get(sensor);
        if own.is_some_and(|running| running.connection == connection) {
            fleet.sensors.remove(sensor);
        }
    }

    /// What the sensor said of the last sets: in force, refused.
    fn said(&self, sensor: &str) -> (Option<Digest>, Option<Digest>) {
        let fleet = self.lock();
        let running = fleet.sensors.get(sensor);
        running.map_or((None, None), |running| (running.in_force, running.refused))
    }

    /// A panic elsewhere cannot leave this half written: every change is one insert or a few assignments.
    fn lock(&self) -> MutexGuard<'_, Fleet> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
