//! How quickly sinks move, and how far behind they are in time: looked at once a second, for status and metrics.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use journal::Seq;
use tokio::task::spawn_blocking;

use super::health::{Glance, Health};
use crate::log::{View, unix_nanoseconds};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Looks that a rate is taken over.
const LOOKS: usize = 11;

/// What was seen of one sink.
#[derive(Default)]
pub(super) struct Pace(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    /// When, and how many events were delivered by then.
    delivered: VecDeque<(Instant, u64)>,
    /// The event that waits longest, and when it was journaled, in unix nanoseconds.
    oldest: (u64, u64),
}

impl Pace {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Events delivered a second, over the last ten.
    pub(super) fn rate(&self) -> f64 {
        let seen = self.seen();
        let (Some(first), Some(last)) = (seen.delivered.front(), seen.delivered.back()) else {
            return 0.0;
        };
        let seconds = last.0.duration_since(first.0).as_secs_f64();
        if seconds > 0.0 {
            last.1.saturating_sub(first.1) as f64 / seconds
        } else {
            0.0
        }
    }

    /// Seconds since the event that waits longest was journaled; only of use while one waits.
    pub(super) fn lag(&self) -> f64 {
        match self.seen().oldest {
            (_, 0) => 0.0,
            (_, time) => {
                Duration::from_nanos(unix_nanoseconds().saturating_sub(time)).as_secs_f64()
            }
        }
    }

    fn note(&self, delivered: u64, now: Instant) {
        let mut seen = self.seen();
        seen.delivered.push_back((now, delivered));
        while seen.delivered.len() > LOOKS {
            seen.delivered.pop_front();
        }
    }
}

/// Looks at all sinks until nobody shows them any more. `log` is what their positions are places of; none: they are sums over
/// lanes, and nothing is known of times.
pub(super) async fn keep(sinks: Glance, log: Option<Arc<dyn View>>) {
    while let Some(all) = sinks.all() {
        for health in all.iter() {
            look(health, log.as_ref()).await;
        }
        drop(all);
        tokio::time::sleep(LOOK).await;
    }
}

async fn look(health: &Arc<Health>, log: Option<&Arc<dyn View>>) {
    let stats = health.lanes.stats();
    health.pace.note(stats.account.delivered, Instant::now());
    let at = stats.position.0;
    if stats.pending == 0 || health.pace.seen().oldest.0 == at {
        return;
    }
    let Some(log) = log.cloned() else {
        return;
    };
    let time = spawn_blocking(move || time_of(&*log, Seq(at))).await;
    health.pace.seen().oldest = (at, time.unwrap_or(0));
}

/// When a record was journaled, in unix nanoseconds; 0 if it cannot be read.
fn time_of(log: &dyn View, seq: Seq) -> u64 {
    let block = log.reader(seq).next(1);
    let first = block
        .ok()
        .and_then(|block| block.entries.into_iter().next());
    first.map_or(0, |entry| entry.time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_what_was_delivered_over_the_time_that_was_looked_at() {
        let (pace, start) = (Pace::default(), Instant::now());
        assert_eq!(pace.rate(), 0.0);
        for second in 0..30 {
            pace.note(100 * second, start + Duration::from_secs(second));
        }
        assert_eq!(pace.rate(), 100.0);
        assert_eq!(pace.seen().delivered.len(), LOOKS);
    }
}
