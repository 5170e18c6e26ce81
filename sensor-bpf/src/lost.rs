//! What was lost, where, how much: counted here, told as events.
//!
//! Whoever loses something counts it; once a second what was not told yet becomes one `Message` (Level WARN, with a
//! `Lost` part) a place. The totals go to the relay with the health report and never go back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proto::{StreamId, feeder};

use crate::render::{Node, updated_time};

/// Where an event can be lost on its way through the sensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The kernel found no room in a ring.
    Ring,
    /// A task could not be labelled, so nothing that it does is seen.
    Task,
    /// A record named a workload that is gone, or could not be read.
    Record,
    /// More alerts than the throttle lets pass.
    Throttle,
    /// The spool could not take it, or dropped it for its size bound.
    Spool,
    /// The relay refused it.
    Rejected,
}

impl Place {
    /// The word in events, metrics and status.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ring => "ring",
            Self::Task => "task",
            Self::Record => "record",
            Self::Throttle => "throttle",
            Self::Spool => "spool",
            Self::Rejected => "rejected",
        }
    }
}

/// Verdicts or telemetry: they have separate rings, queues and streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Alerts, and messages about losses.
    Verdict,
    /// Logs.
    Telemetry,
}

impl Class {
    /// The word in events, metrics and status.
    pub fn word(self) -> &'static str {
        match self {
            Self::Verdict => "verdict",
            Self::Telemetry => "telemetry",
        }
    }
}

/// A loss that is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// Where.
    pub place: Place,
    /// Of what.
    pub class: Class,
    /// How many events.
    pub count: u64,
    /// Stream and the first and last sequence, where they had been numbered.
    pub numbered: Option<(StreamId, u64, u64)>,
    /// Why.
    pub reason: String,
}

/// A handle on the counters; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Losses(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    totals: BTreeMap<(Place, Class), u64>,
    untold: Vec<Loss>,
}

impl Losses {
    /// Counts events that had no number yet.
    pub fn count(&self, place: Place, class: Class, count: u64, reason: &str) {
        self.add(Loss {
            place,
            class,
            count,
            numbered: None,
            reason: reason.to_owned(),
        });
    }

    /// Counts a loss. Losses of the same kind are told together.
    pub fn add(&self, loss: Loss) {
        if loss.count == 0 {
            return;
        }
        let mut inner = self.lock();
        *inner.totals.entry((loss.place, loss.class)).or_default() += loss.count;
        inner.keep(loss);
    }

    /// Counts events whose loss is not told by a message of its own.
    pub fn count_only(&self, place: Place, class: Class, count: u64) {
        *self.lock().totals.entry((place, class)).or_default() += count;
    }

    /// What was not told yet. Whoever cannot tell it gives it back with [`Losses::untold`].
    pub fn take(&self) -> Vec<Loss> {
        std::mem::take(&mut self.lock().untold)
    }

    /// Gives back what could not be told; the totals have it already.
    pub fn untold(&self, losses: Vec<Loss>) {
        let mut inner = self.lock();
        losses.into_iter().for_each(|loss| inner.keep(loss));
    }

    /// All that was lost since the start.
    pub fn totals(&self) -> BTreeMap<(Place, Class), u64> {
        self.lock().totals.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere leaves numbers, not a broken invariant.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn keep(&mut self, loss: Loss) {
        let same = |other: &&mut Loss| {
            (other.place, other.class) == (loss.place, loss.class)
                && other.reason == loss.reason
                && other.numbered.map(|(stream, ..)| stream)
                    == loss.numbered.map(|(stream, ..)| stream)
        };
        match self.untold.iter_mut().find(same) {
            Some(other) => {
                other.count += loss.count;
                if let (Some(a), Some(b)) = (&mut other.numbered, loss.numbered) {
                    *a = (a.0, a.1.min(b.1), a.2.max(b.2));
                }
            }
            None => self.untold.push(loss),
        }
    }
}

/// The event that tells of a loss.
pub fn message(node: &Node, time_ns: u64, loss: &Loss) -> feeder::Message {
    let (stream, first, last) = match loss.numbered {
        Some((stream, first, last)) => (stream.0.to_vec(), first, last),
        None => (Vec::new(), 0, 0),
    };
    let plural = if loss.count == 1 { "" } else { "s" };
    let text = format!(
        "lost {} {} event{plural} ({}): {}",
        loss.count,
        loss.class.word(),
        loss.place.word(),
        loss.reason
    );
    feeder::Message {
        timestamp: i64::try_from(time_ns / 1_000_000_000).unwrap_or(i64::MAX),
        updated_time: updated_time(time_ns),
        cluster_name: node.cluster.clone(),
        host_name: node.name.clone(),
        r#type: "Message".to_owned(),
        level: "WARN".to_owned(),
        message: text,
        lost: Some(feeder::Lost {
            r#where: loss.place.word().to_owned(),
            class: loss.class.word().to_owned(),
            count: loss.count,
            stream,
            first,
            last,
            reason: loss.reason.clone(),
        }),
        ..feeder::Message::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_of_one_kind_are_told_once_and_counted_always() {
        let losses = Losses::default();
        losses.count(Place::Ring, Class::Telemetry, 3, "full");
        losses.count(Place::Ring, Class::Telemetry, 4, "full");
        losses.count(Place::Ring, Class::Verdict, 1, "full");
        losses.count(Place::Ring, Class::Verdict, 0, "full");
        let told = losses.take();
        assert_eq!(
            told.iter().map(|loss| loss.count).collect::<Vec<_>>(),
            [7, 1]
        );
        assert_eq!(losses.take(), []);
        assert_eq!(losses.totals()[&(Place::Ring, Class::Telemetry)], 7);
    }

    #[test]
    fn what_could_not_be_told_is_told_later_and_not_counted_twice() {
        let losses = Losses::default();
        losses.count(Place::Spool, Class::Verdict, 2, "disk full");
        let first = losses.take();
        losses.count(Place::Spool, Class::Verdict, 1, "disk full");
        losses.untold(first);
        assert_eq!(losses.take()[0].count, 3);
        assert_eq!(losses.totals()[&(Place::Spool, Class::Verdict)], 3);
    }

    #[test]
    fn numbered_losses_keep_their_outer_bounds() {
        let losses = Losses::default();
        let stream = StreamId([1; 8]);
        for (first, last) in [(5, 9), (2, 3)] {
            let (place, class) = (Place::Spool, Class::Telemetry);
            let numbered = Some((stream, first, last));
            losses.add(Loss {
                place,
                class,
                count: last - first + 1,
                numbered,
                reason: String::new(),
            });
        }
        let told = losses.take();
        assert_eq!(
            (told.len(), told[0].count, told[0].numbered),
            (1, 7, Some((stream, 2, 9)))
        );
        let message = message(&Node::default(), 1_700_000_000_123_456_789, &told[0]);
        assert_eq!(message.message, "lost 7 telemetry events (spool): ");
        assert_eq!(message.updated_time, "2023-11-14T22:13:20.123456Z");
        let lost = message.lost.unwrap();
        assert_eq!(
            (lost.first, lost.last, lost.stream.as_ref()),
            (2, 9, &[1_u8; 8][..])
        );
    }
}
