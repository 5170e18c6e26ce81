//! The current rules to every sensor, and who runs which.
//!
//! ```text
//! policies ──watch──▶ Distributor ──┬─ messages("node-a", blobs it holds, digest in force) ──▶ link
//!                                   └─ messages("node-b", …)                               ──▶ link
//!                     Distributor ◀── report("node-a", RuleStatus)                          ◀── link
//! ```
//! A sensor gets the newest set only: sets that came and went while it was busy are never sent. Of a set it
//! gets the manifest (32 bytes a policy) and the blobs that it does not hold, in parts of at most 2 MiB; every
//! part carries the manifest, so that it says which set it belongs to, and the last one says `commit`.
//!
//! What a sensor holds is never guessed: it is what its `Hello` named, and from then on the blobs of the last set
//! that it *said* it applied. Until it has said so, blobs of a set in between may be sent twice, which costs
//! bytes; the other way round a sensor would refuse a set for a blob that nobody sends again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use policy::RuleSet;
use proto::{Digest, link};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;

use crate::policies::CurrentSet;

/// The blobs of one `Rules` message, in bytes: half of gRPC's default limit of 4 MiB.
pub const MAX_PART: usize = 2 << 20;

/// Hands the current rules to any number of sensors; a cheap handle.
#[derive(Clone)]
pub struct Distributor {
    current: watch::Receiver<Arc<CurrentSet>>,
    sensors: Arc<Mutex<BTreeMap<String, Running>>>,
}

/// What one sensor said about the rules that it runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Running {
    /// The set in force; none before the first was applied.
    pub in_force: Option<Digest>,
    /// The set that the sensor refused after that, if it did.
    pub refused: Option<Digest>,
    /// What it could not enforce, or why it refused.
    pub problems: Vec<link::RuleProblem>,
}

impl Distributor {
    /// A distributor of the sets that come out of `current`.
    pub fn new(current: watch::Receiver<Arc<CurrentSet>>) -> Distributor {
        Distributor {
            current,
            sensors: Arc::default(),
        }
    }

    /// The parts to send to `sensor`, which holds `known_blobs` and has `in_force` in force: nothing while that is
    /// the current set, then every newer set. Ends when the policies' side is gone.
    pub fn messages(
        &self,
        sensor: &str,
        known_blobs: Vec<Digest>,
        in_force: Option<Digest>,
    ) -> impl Stream<Item = link::Rules> + Send + Unpin + use<> {
        let running = Running {
            in_force,
            refused: None,
            problems: Vec::new(),
        };
        self.lock().insert(sensor.to_string(), running);
        Messages {
            sensor: sensor.to_string(),
            sensors: self.sensors.clone(),
            sets: WatchStream::new(self.current.clone()),
            known: known_blobs.into_iter().collect(),
            last: in_force,
            sent: None,
            parts: VecDeque::new(),
        }
    }

    /// A sensor's answer to a set.
    pub fn report(&self, sensor: &str, status: &link::RuleStatus) {
        let digest = <[u8; 32]>::try_from(&status.digest[..]).ok().map(Digest);
        let mut sensors = self.lock();
        let running = sensors.entry(sensor.to_string()).or_insert(Running {
            in_force: None,
            refused: None,
            problems: Vec::new(),
        });
        if status.applied {
            running.in_force = digest;
            running.refused = None;
        } else {
            running.refused = digest;
        }
        running.problems = status.problems.clone();
    }

    /// What every sensor that was seen since the start runs, by sensor.
    pub fn running(&self) -> BTreeMap<String, Running> {
        self.lock().clone()
    }

    /// The digest of the set that sensors should run.
    pub fn current(&self) -> Digest {
        digest_of(&self.current.borrow().ruleset)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Running>> {
        lock(&self.sensors)
    }
}

/// A panic elsewhere cannot leave this map half written: every change is one insert or a few assignments.
fn lock(sensors: &Mutex<BTreeMap<String, Running>>) -> MutexGuard<'_, BTreeMap<String, Running>> {
    sensors.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Messages {
    sensor: String,
    sensors: Arc<Mutex<BTreeMap<String, Running>>>,
    sets: WatchStream<Arc<CurrentSet>>,
    known: BTreeSet<Digest>,
    last: Option<Digest>,
    sent: Option<Arc<CurrentSet>>,
    parts: VecDeque<link::Rules>,
}

impl Messages {
    /// Puts the parts of a set that is not the last one in line.
    fn take(&mut self, set: Arc<CurrentSet>) {
        let digest = digest_of(&set.ruleset);
        if self.last == Some(digest) {
            return;
        }
        self.settle();
        self.parts = parts(&set.ruleset, &self.known).into();
        self.last = Some(digest);
        self.sent = Some(set);
    }

    /// Learns what the sensor holds from the last set sent to it: all of it when it was applied, else only what it
    /// held before and would keep in either case.
    fn settle(&mut self) {
        let Some(sent) = self.sent.take() else { return };
        let digest = digest_of(&sent.ruleset);
        let blobs = &sent.ruleset.blobs;
        let running = lock(&self.sensors).get(&self.sensor).cloned();
        match running {
            Some(running) if running.in_force == Some(digest) => {
                self.known = blobs.keys().copied().collect();
            }
            Some(running) if running.refused == Some(digest) => {}
            _ => self.known.retain(|digest| blobs.contains_key(digest)),
        }
    }
}

impl Stream for Messages {
    type Item = link::Rules;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<link::Rules>> {
        loop {
            // A newer set replaces parts of an older one that were not sent yet: a set counts from its commit on.
            match Pin::new(&mut self.sets).poll_next(context) {
                Poll::Ready(Some(set)) => self.take(set),
                Poll::Ready(None) => return Poll::Ready(self.parts.pop_front()),
                Poll::Pending => {
                    return match self.parts.pop_front() {
                        Some(part) => Poll::Ready(Some(part)),
                        None => Poll::Pending,
                    };
                }
            }
        }
    }
}

/// Splits what of a set is missing into messages: at least one, the last with `commit`.
fn parts(set: &RuleSet, known: &BTreeSet<Digest>) -> Vec<link::Rules> {
    let mut parts: Vec<Vec<Bytes>> = vec![Vec::new()];
    let mut size = 0;
    for (_, blob) in set
        .blobs
        .iter()
        .filter(|(digest, _)| !known.contains(digest))
    {
        if size + blob.len() > MAX_PART && size > 0 {
            parts.push(Vec::new());
            size = 0;
        }
        size += blob.len();
        if let Some(part) = parts.last_mut() {
            part.push(blob.clone());
        }
    }
    let last = parts.len() - 1;
    parts
        .into_iter()
        .enumerate()
        .map(|(at, blobs)| link::Rules {
            manifest: Some(set.manifest.clone()),
            blobs,
            commit: at == last,
        })
        .collect()
}

fn digest_of(set: &RuleSet) -> Digest {
    // A compiled manifest always carries its 32 bytes; one that does not is named by zeroes and never equals a real one.
    Digest(<[u8; 32]>::try_from(&set.manifest.digest[..]).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};
    use proto::rules;

    use super::*;

    fn set(name: u8, blobs: &[(u8, usize)]) -> Arc<CurrentSet> {
        let blobs: BTreeMap<Digest, Bytes> = blobs
            .iter()
            .map(|(blob, size)| (Digest([*blob; 32]), Bytes::from(vec![*blob; *size])))
            .collect();
        let manifest = rules::Manifest {
            digest: vec![name; 32],
            ..Default::default()
        };
        Arc::new(CurrentSet {
            ruleset: RuleSet { manifest, blobs },
            ..Default::default()
        })
    }

    fn applied(name: u8, applied: bool) -> link::RuleStatus {
        link::RuleStatus {
            digest: vec![name; 32].into(),
            applied,
            problems: Vec::new(),
        }
    }

    fn blobs(part: &link::Rules) -> Vec<u8> {
        part.blobs.iter().map(|blob| blob[0]).collect()
    }

    #[tokio::test]
    async fn a_sensor_gets_only_the_blobs_it_lacks_and_nothing_while_it_is_current() {
        let (sets, current) = watch::channel(set(1, &[(10, 5), (11, 5)]));
        let distributor = Distributor::new(current);
        let mut fresh = distributor.messages("a", Vec::new(), None);
        let part = fresh.next().await.unwrap();
        assert!(part.commit);
        assert_eq!(blobs(&part), [10, 11]);
        assert_eq!(part.manifest.unwrap().digest[0], 1);

        let held = vec![Digest([10; 32]), Digest([11; 32])];
        let mut current = distributor.messages("b", held, Some(Digest([1; 32])));
        assert!(current.next().now_or_never().is_none());
        sets.send_replace(set(2, &[(10, 5), (12, 5)]));
        assert_eq!(blobs(&current.next().await.unwrap()), [12]);
    }

    #[tokio::test]
    async fn a_set_is_split_into_parts_of_at_most_two_mebibytes_and_only_the_last_commits() {
        let (_sets, current) =
            watch::channel(set(1, &[(1, 1 << 20), (2, 1 << 20), (3, 3 << 20), (4, 1)]));
        let parts: Vec<link::Rules> = Distributor::new(current)
            .messages("a", Vec::new(), None)
            .take(3)
            .collect()
            .await;
        assert_eq!(
            parts.iter().map(blobs).collect::<Vec<_>>(),
            [vec![1, 2], vec![3], vec![4]]
        );
        assert_eq!(
            parts.iter().map(|part| part.commit).collect::<Vec<_>>(),
            [false, false, true]
        );
    }

    #[tokio::test]
    async fn blobs_count_as_held_only_once_the_sensor_said_it_applied_their_set() {
        let (sets, current) = watch::channel(set(1, &[(10, 5)]));
        let distributor = Distributor::new(current);
        let mut messages = distributor.messages("a", Vec::new(), None);
        messages.next().await.unwrap();
        sets.send_replace(set(2, &[(10, 5), (11, 5)]));
        assert_eq!(
            blobs(&messages.next().await.unwrap()),
            [10, 11],
            "nothing was confirmed yet"
        );
        distributor.report("a", &applied(2, true));
        sets.send_replace(set(3, &[(10, 5), (11, 5), (12, 5)]));
        assert_eq!(blobs(&messages.next().await.unwrap()), [12]);
        distributor.report("a", &applied(3, false));
        sets.send_replace(set(4, &[(11, 5), (12, 5)]));
        assert_eq!(
            blobs(&messages.next().await.unwrap()),
            [12],
            "a refused set was not kept"
        );
        let running = &distributor.running()["a"];
        assert_eq!(
            (running.in_force, running.refused),
            (Some(Digest([2; 32])), Some(Digest([3; 32])))
        );
    }

    #[tokio::test]
    async fn a_newer_set_replaces_the_parts_of_an_older_one() {
        let (sets, current) = watch::channel(set(1, &[(1, 2 << 20), (2, 2 << 20)]));
        let distributor = Distributor::new(current);
        let mut messages = distributor.messages("a", Vec::new(), None);
        let first = messages.next().await.unwrap();
        assert_eq!((blobs(&first), first.commit), (vec![1], false));
        sets.send_replace(set(2, &[(3, 5)]));
        let next = messages.next().await.unwrap();
        assert_eq!((blobs(&next), next.commit), (vec![3], true));
        drop(sets);
        assert!(messages.next().await.is_none());
    }
}
