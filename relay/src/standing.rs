//! Whether the log takes new events: told once when it stops, and once when it goes on.
//!
//! ```text
//!           refused, or no answer for PATIENCE: logged, counted   what refused has taken something, and nothing refused for CALM
//! takes ────────────────────────────────────────────────▶ refuses ────────────────────────────────────────────────▶ takes
//!                                                            │  ▲                                  logged, told as an event
//!                                                            └──┘ refused again; nobody tried for CALM: the relay tries itself
//! ```
//! At a size bound a small batch still fits where a large one was refused, and senders come back every few seconds; the
//! calm keeps that from being told as a hundred outages. What the relay tries with is the message that it is over, so
//! trying costs nothing but that, and readiness comes back although no sensor has anything to say.
//!
//! A write that is not answered is refused in all but name, whatever the log itself waits (a journal for ever, Kafka for its
//! delivery timeout); a log that nobody writes to may have died unseen. Both are found within ten seconds. A log of several
//! partitions may refuse with one and take with another; that one has to take again before it is over.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use journal::AppendError;
use prost::Message as _;
use proto::Kind;

use crate::ingest::Importer;
use crate::log::{Store, unix_nanoseconds};
use crate::losses::Origin;

/// Longer than a sensor that was asked to wait stays away.
const CALM: Duration = Duration::from_secs(5);

/// A write that has not come back for so long is taken not to.
const PATIENCE: Duration = Duration::from_secs(5);

/// After so long without a write the relay tries one itself.
const PROBE: Duration = Duration::from_secs(4);

/// The lane of what the relay tries itself.
const PROBED: usize = usize::MAX;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// What is known of it; a cheap handle.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    refusing: Option<Refusing>,
    /// Times that it stopped taking events.
    times: u64,
    /// Lanes with writes that have not come back.
    under_way: HashMap<usize, UnderWay>,
    /// When a write last began or came back.
    last: Option<Instant>,
}

/// Writes of one lane of the log that have not come back.
#[derive(Debug)]
struct UnderWay {
    count: usize,
    /// When one last came back, or the first of them began.
    progress: Instant,
}

impl State {
    /// A lane with a write under way of which none has come back for too long, and for how long.
    fn stuck(&self, now: Instant) -> Option<(usize, Duration)> {
        let waited = |(lane, writes): (&usize, &UnderWay)| {
            let waited = now.saturating_duration_since(writes.progress);
            (waited >= PATIENCE).then_some((*lane, waited))
        };
        let stuck = self.under_way.iter().filter_map(waited);
        stuck.max_by_key(|(_, waited)| *waited)
    }
}

/// A write that has not come back.
#[derive(Debug)]
pub(crate) struct Write {
    standing: Standing,
    lane: usize,
}

impl Drop for Write {
    fn drop(&mut self) {
        let (mut state, now) = (self.standing.lock(), Instant::now());
        state.last = Some(now);
        let Some(writes) = state.under_way.get_mut(&self.lane) else {
            return;
        };
        (writes.count, writes.progress) = (writes.count - 1, now);
        if writes.count == 0 {
            state.under_way.remove(&self.lane);
        }
    }
}

#[derive(Debug)]
struct Refusing {
    why: String,
    since: Instant,
    last: Instant,
    /// Those that refused and have taken nothing since.
    lanes: BTreeSet<usize>,
}

/// What there is to do.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    Nothing,
    /// Nobody has tried for a while.
    Try,
    /// It takes events again, after so long.
    Over(String, Duration),
}

impl Standing {
    /// Why new events are refused; none while they are taken.
    #[must_use]
    pub fn refusing(&self) -> Option<String> {
        let state = self.lock();
        state.refusing.as_ref().map(|refusing| refusing.why.clone())
    }

    /// A write to a lane of the log begins; it ends when the answer is dropped.
    pub(crate) fn begin(&self, lane: usize) -> Write {
        let (mut state, now) = (self.lock(), Instant::now());
        state.last = Some(now);
        let fresh = UnderWay {
            count: 0,
            progress: now,
        };
        state.under_way.entry(lane).or_insert(fresh).count += 1;
        drop(state);
        Write {
            standing: self.clone(),
            lane,
        }
    }

    /// How often it stopped taking events since the start.
    #[must_use]
    pub fn times(&self) -> u64 {
        self.lock().times
    }

    /// Notes what became of an append to a lane.
    pub(crate) fn note<T>(&self, lane: usize, outcome: &Result<T, AppendError>) {
        match outcome {
            Ok(_) => self.took(lane),
            Err(why @ (AppendError::Full { .. } | AppendError::Failed { .. })) => {
                self.refused(lane, why.to_string(), Instant::now());
            }
            // The relay stops, or these events alone do not fit.
            Err(AppendError::Closed | AppendError::TooLarge { .. }) => {}
        }
    }

    fn took(&self, lane: usize) {
        if let Some(refusing) = &mut self.lock().refusing {
            refusing.lanes.remove(&lane);
        }
    }

    fn refused(&self, lane: usize, why: String, now: Instant) {
        let mut state = self.lock();
        if let Some(refusing) = &mut state.refusing {
            (refusing.why, refusing.last) = (why, now);
            refusing.lanes.insert(lane);
            return;
        }
        tracing::error!(
            why,
            "the log takes no new events; senders keep them and try again"
        );
        state.times += 1;
        state.refusing = Some(Refusing {
            why,
            since: now,
            last: now,
            lanes: BTreeSet::from([lane]),
        });
    }

    /// The log as a whole takes events.
    fn took_all(&self) {
        if let Some(refusing) = &mut self.lock().refusing {
            refusing.lanes.clear();
        }
    }

    fn turn(&self, now: Instant) -> Turn {
        let mut state = self.lock();
        match &state.refusing {
            Some(refusing) if now.saturating_duration_since(refusing.last) < CALM => Turn::Nothing,
            Some(refusing) if !refusing.lanes.is_empty() => Turn::Try,
            _ => match state.refusing.take() {
                Some(refusing) => Turn::Over(refusing.why, now - refusing.since),
                None => Turn::Nothing,
            },
        }
    }

    /// Takes what does not come back for refused. `silence` says who does not answer, and why if that is known.
    fn look_for_stuck(&self, now: Instant, silence: impl FnOnce() -> String) {
        let stuck = self.lock().stuck(now);
        if let Some((lane, waited)) = stuck {
            let why = format!(
                "no answer to a write for {} s: {}",
                waited.as_secs(),
                silence()
            );
            self.refused(lane, why, now);
        }
    }

    /// Nobody has written for so long.
    fn is_idle(&self, now: Instant) -> bool {
        let state = self.lock();
        let quiet = |since: Instant| now.saturating_duration_since(since) >= PROBE;
        state.refusing.is_none() && state.under_way.is_empty() && state.last.is_none_or(quiet)
    }

    /// While nobody writes events, finds out whether the log would take some: readiness is not to depend on traffic.
    pub(crate) async fn probe(self, log: Store) {
        loop {
            tokio::time::sleep(PROBE).await;
            if !self.is_idle(Instant::now()) {
                continue;
            }
            let (write, log) = (self.begin(PROBED), log.clone());
            let tried = tokio::task::spawn_blocking(move || {
                let _write = write;
                log.attempt()
            });
            if let Ok(Err(why)) = tried.await {
                self.refused(PROBED, why, Instant::now());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is a few assignments that cannot panic in between.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks on until the relay stops.
    pub(crate) async fn watch(self, log: Store, importer: Importer, origin: Origin) {
        let mut over = false;
        loop {
            tokio::time::sleep(LOOK).await;
            self.look_for_stuck(Instant::now(), || log.silence());
            match self.turn(Instant::now()) {
                Turn::Nothing => {}
                Turn::Try => {
                    over = is_whole(&log).await && say(&importer, &origin).await;
                    if over {
                        self.took_all();
                    }
                }
                Turn::Over(why, lasted) => {
                    tracing::info!(why, ?lasted, "the log takes events again");
                    if !std::mem::take(&mut over) {
                        say(&importer, &origin).await;
                    }
                }
            }
        }
    }
}

/// Whether every part of the log would take events.
async fn is_whole(log: &Store) -> bool {
    let log = log.clone();
    let asked = tokio::task::spawn_blocking(move || log.log().attempt());
    matches!(asked.await, Ok(Ok(())))
}

/// Tells as an event that it is over; true if the log took it.
async fn say(importer: &Importer, origin: &Origin) -> bool {
    let text = "the relay's log takes events again; what it refused meanwhile is sent again by those who keep it";
    let message = origin.message(unix_nanoseconds(), "INFO", text.to_owned());
    let payload = Bytes::from(message.encode_to_vec());
    importer
        .import(vec![(Kind::Message, payload)])
        .await
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, milliseconds: u64) -> Instant {
        start + Duration::from_millis(milliseconds)
    }

    #[test]
    fn an_outage_is_counted_once_and_ends_when_nothing_was_refused_for_a_while() {
        let (standing, start) = (Standing::default(), Instant::now());
        assert_eq!(
            (standing.turn(start), standing.refusing()),
            (Turn::Nothing, None)
        );
        standing.refused(0, "full".to_owned(), start);
        standing.refused(0, "full still".to_owned(), after(start, 2000));
        assert_eq!(standing.turn(after(start, 6900)), Turn::Nothing);
        assert_eq!(standing.turn(after(start, 7000)), Turn::Try);
        assert_eq!(standing.refusing().as_deref(), Some("full still"));
        standing.took(0);
        let over = Turn::Over("full still".to_owned(), Duration::from_secs(7));
        assert_eq!(standing.turn(after(start, 7000)), over);
        assert_eq!((standing.refusing(), standing.times()), (None, 1));
    }

    #[test]
    fn a_write_that_does_not_come_back_is_one_outage_whatever_becomes_of_it() {
        let standing = Standing::default();
        let first = standing.begin(3);
        let start = standing.lock().under_way[&3].progress;
        let stuck = |milliseconds| standing.lock().stuck(after(start, milliseconds));
        assert_eq!(stuck(4999), None);
        assert_eq!(stuck(5000), Some((3, PATIENCE)));
        let look = |ms| standing.look_for_stuck(after(start, ms), || "why".to_owned());
        look(6000);
        look(7000);
        let told = Some("no answer to a write for 7 s: why");
        assert_eq!(
            (standing.refusing().as_deref(), standing.times()),
            (told, 1)
        );
        let second = standing.begin(3);
        assert!(
            stuck(5000).is_some(),
            "another one that waits is no progress"
        );
        drop(first);
        let now = standing.lock().under_way[&3].progress;
        assert_eq!(standing.lock().stuck(now), None);
        drop(second);
        assert_eq!(
            standing.lock().stuck(after(now, 60_000)),
            None,
            "nothing is under way"
        );
        // Given up at last by the log itself: it is the same outage.
        standing.refused(3, "timed out".to_owned(), after(start, 30_000));
        assert_eq!(standing.times(), 1);
    }

    #[test]
    fn what_one_lane_takes_says_nothing_of_another() {
        let (standing, start) = (Standing::default(), Instant::now());
        standing.refused(1, "no leader".to_owned(), start);
        standing.took(2);
        assert_eq!(standing.turn(after(start, 5000)), Turn::Try);
        standing.took(1);
        assert!(matches!(standing.turn(after(start, 5000)), Turn::Over(..)));
    }

    #[test]
    fn a_small_batch_that_is_taken_among_refused_ones_does_not_end_it() {
        let (standing, start) = (Standing::default(), Instant::now());
        for second in 0..20 {
            let now = after(start, 1000 * second);
            standing.took(0);
            assert_eq!(standing.turn(now), Turn::Nothing, "after {second} s");
            standing.refused(0, "full".to_owned(), now);
        }
        assert_eq!(standing.times(), 1);
    }
}
