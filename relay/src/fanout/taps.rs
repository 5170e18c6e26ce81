//! Looking on while a sink sends: each batch as it goes, and what came back.
//!
//! ```text
//! flight ─ Taps::sent ─▶ nobody looks on: nothing is done
//!                     └▶ every onlooker's queue, bounded in bytes ─▶ Onlooker::next
//! ```
//! The flight never waits. What an onlooker has no room for is counted, and told once it has seen what waited.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use exporters::{Carried, Outcome, Unavailable};
use tokio::sync::Notify;

/// Payload that waits for one onlooker; the events themselves are shared with the flight.
const ROOM: usize = 4 << 20;
/// What every entry is taken to weigh besides its payload.
const ENTRY: usize = 256;
/// Onlookers of one sink.
const MOST: usize = 16;

/// What an onlooker sees.
pub(crate) enum Seen {
    /// A batch goes.
    Sent { batch: u64, events: Vec<Carried> },
    /// What came back, an outcome an event, in the batch's order.
    Answered {
        batch: u64,
        took: Duration,
        answer: Result<Vec<Outcome>, Unavailable>,
        events: Vec<Carried>,
    },
    /// So many events there was no room for.
    Missed(u64),
}

/// The onlookers of one sink.
#[derive(Default)]
pub(super) struct Taps {
    /// Looked at on every flight, so that nobody's looking costs next to nothing.
    watching: AtomicUsize,
    queues: Mutex<Vec<Arc<Queue>>>,
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    filled: Notify,
}

#[derive(Default)]
struct Waiting {
    seen: VecDeque<(usize, Seen)>,
    bytes: usize,
    missed: u64,
    batches: u64,
}

/// A batch on its way that somebody looks at.
pub(super) struct Tapped {
    start: Instant,
    /// Whoever had room for it, and the batch's number there.
    queues: Vec<(Arc<Queue>, u64)>,
}

/// Looks on until it is dropped.
pub(crate) struct Onlooker {
    taps: Arc<Taps>,
    queue: Arc<Queue>,
}

// === impl Taps ===

impl Taps {
    /// Begins to look on.
    ///
    /// # Errors
    /// There are too many onlookers.
    pub(super) fn watch(self: &Arc<Self>) -> Result<Onlooker, String> {
        let mut queues = self.queues();
        if queues.len() >= MOST {
            return Err(format!("{MOST} taps look on already; end one"));
        }
        let queue = Arc::new(Queue::default());
        queues.push(Arc::clone(&queue));
        self.watching.store(queues.len(), Ordering::Relaxed);
        Ok(Onlooker {
            taps: Arc::clone(self),
            queue,
        })
    }

    /// A batch goes; none: nobody looks on.
    pub(super) fn sent(&self, events: &[Carried]) -> Option<Tapped> {
        if self.watching.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let queues = self.queues();
        let took = queues
            .iter()
            .filter_map(|queue| Some((Arc::clone(queue), queue.sent(events)?)));
        Some(Tapped {
            start: Instant::now(),
            queues: took.collect(),
        })
    }

    fn queues(&self) -> MutexGuard<'_, Vec<Arc<Queue>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tapped {
    /// What came back.
    pub(super) fn answered(self, events: &[Carried], answer: &Result<Vec<Outcome>, Unavailable>) {
        let took = self.start.elapsed();
        for (queue, batch) in self.queues {
            queue.put(
                0,
                Seen::Answered {
                    batch,
                    took,
                    answer: answer.clone(),
                    events: events.to_vec(),
                },
            );
        }
    }
}

// === impl Queue ===

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sent(&self, events: &[Carried]) -> Option<u64> {
        let bytes: usize = events.iter().map(|event| event.event().payload.len()).sum();
        let batch = {
            let mut waiting = self.waiting();
            if waiting.bytes > 0 && waiting.bytes + bytes + ENTRY > ROOM {
                waiting.missed += events.len() as u64;
                return None;
            }
            waiting.batches += 1;
            waiting.batches
        };
        let events = events.to_vec();
        self.put(bytes, Seen::Sent { batch, events });
        Some(batch)
    }

    fn put(&self, bytes: usize, seen: Seen) {
        let bytes = bytes + ENTRY;
        let mut waiting = self.waiting();
        waiting.bytes += bytes;
        waiting.seen.push_back((bytes, seen));
        drop(waiting);
        self.filled.notify_one();
    }

    fn take(&self) -> Option<Seen> {
        let mut waiting = self.waiting();
        if waiting.missed > 0 && waiting.seen.is_empty() {
            return Some(Seen::Missed(std::mem::take(&mut waiting.missed)));
        }
        let (bytes, seen) = waiting.seen.pop_front()?;
        waiting.bytes -= bytes;
        Some(seen)
    }
}

// === impl Onlooker ===

impl Onlooker {
    /// What is seen next; waits for it.
    pub(crate) async fn next(&self) -> Seen {
        loop {
            let filled = self.queue.filled.notified();
            if let Some(seen) = self.queue.take() {
                return seen;
            }
            filled.await;
        }
    }
}

impl Drop for Onlooker {
    fn drop(&mut self) {
        let mut queues = self.taps.queues();
        queues.retain(|queue| !Arc::ptr_eq(queue, &self.queue));
        self.taps.watching.store(queues.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use exporters::Encoded;
    use proto::{Event, EventId, Kind, StreamId};

    use super::*;

    fn events(count: u64, bytes: usize) -> Vec<Carried> {
        let event = |sequence| Event {
            kind: Kind::Alert,
            id: EventId {
                stream: StreamId([1; 8]),
                sequence,
            },
            payload: Bytes::from(vec![0; bytes]),
        };
        (1..=count)
            .map(|sequence| Carried::from(Encoded::new(event(sequence))))
            .collect()
    }

    #[tokio::test]
    async fn a_batch_and_its_answer_are_seen_by_whoever_looks_on() {
        let taps = Arc::new(Taps::default());
        let two = events(2, 10);
        assert!(taps.sent(&two).is_none());
        let onlooker = taps.watch().unwrap();
        let tapped = taps.sent(&two).unwrap();
        assert!(
            matches!(onlooker.next().await, Seen::Sent { batch: 1, events } if events.len() == 2)
        );
        tapped.answered(&two, &Ok(vec![Outcome::Done; 2]));
        assert!(
            matches!(onlooker.next().await, Seen::Answered { batch: 1, answer: Ok(outcomes), .. } if outcomes.len() == 2)
        );
        drop(onlooker);
        assert!(taps.sent(&two).is_none());
    }

    #[tokio::test]
    async fn a_slow_onlooker_misses_batches_and_is_told_how_many_events() {
        let taps = Arc::new(Taps::default());
        let onlooker = taps.watch().unwrap();
        let large = events(4, 1 << 20);
        for _ in 0..10 {
            if let Some(tapped) = taps.sent(&large) {
                tapped.answered(&large, &Err(Unavailable::new("away")));
            }
        }
        let (mut sent, mut answered, mut missed) = (0, 0, 0);
        while sent + missed < 40 {
            match onlooker.next().await {
                Seen::Sent { events, .. } => sent += events.len() as u64,
                Seen::Answered { .. } => answered += 1,
                Seen::Missed(events) => missed += events,
            }
        }
        assert_eq!((sent, answered, missed), (4, 1, 36));
    }

    #[test]
    fn there_is_a_bound_on_onlookers() {
        let taps = Arc::new(Taps::default());
        let all: Vec<_> = (0..MOST).map(|_| taps.watch().unwrap()).collect();
        assert!(taps.watch().is_err());
        drop(all);
        assert!(taps.watch().is_ok());
    }
}
