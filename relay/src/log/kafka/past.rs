//! Consumers for the past: few, each lent for one read.
//!
//! ```text
//! reader of the past ── lend(place) ─▶ one that stands there ─┐
//!   (knows its place)                  or a new one           ├─▶ a block ─▶ kept, for who goes on there
//!                                      or waits its turn      ┘              closed when nobody did for IDLE
//! ```
//! A consumer has threads, connections and what it fetched in advance; readers may be thousands, and most of them wait for
//! their clients. So a reader keeps only its place, and has a consumer while it reads.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use journal::ReadError;

use super::cut::Cut;
use super::merge::Merge;
use super::topic::Topic;

/// Consumers at one time.
const MOST: usize = 16;
/// One that nobody goes on with is closed after so long.
const IDLE: Duration = Duration::from_secs(30);
/// How long nothing happens before who waits looks whether the relay stops.
const LOOK: Duration = Duration::from_millis(200);

/// The consumers.
pub(super) struct Consumers {
    topic: Arc<Topic>,
    most: usize,
    state: Mutex<State>,
    /// One came back, or the next in the queue may look.
    back: Condvar,
}

#[derive(Default)]
struct State {
    /// Lent at present.
    lent: usize,
    /// Those that came back, the oldest first.
    idle: VecDeque<(Instant, Merge)>,
    /// Who waits, in the order in which they came.
    queue: VecDeque<u64>,
    /// The number of the next who comes.
    ticket: u64,
}

/// A consumer for one read. It is closed when dropped.
pub(super) struct Lent {
    // Closed before another takes its place.
    pub(super) merge: Merge,
    place: Place,
}

/// One of those that are lent, or may be opened.
struct Place {
    consumers: Arc<Consumers>,
    /// Comes back with it.
    kept: Option<Merge>,
}

impl Consumers {
    pub(super) fn new(topic: &Arc<Topic>) -> Arc<Consumers> {
        Consumers::bounded(topic, MOST)
    }

    fn bounded(topic: &Arc<Topic>, most: usize) -> Arc<Consumers> {
        Arc::new(Consumers {
            topic: Arc::clone(topic),
            most,
            state: Mutex::default(),
            back: Condvar::new(),
        })
    }

    /// One that stands at `from`. Blocks until then at most.
    ///
    /// # Errors
    /// The brokers are away, all are lent for that long, or the relay stops.
    pub(super) fn lend(self: &Arc<Self>, from: &Cut, until: Instant) -> Result<Lent, ReadError> {
        self.topic.is_reachable()?;
        let (place, Turn { stands, closed }) = self.turn(from, until)?;
        drop(closed);
        let merge = match stands {
            Some(merge) => merge,
            None => Merge::open(&self.topic, from.clone())?,
        };
        Ok(Lent { merge, place })
    }

    /// Waits for a place among those that are lent.
    fn turn(self: &Arc<Self>, from: &Cut, until: Instant) -> Result<(Place, Turn), ReadError> {
        let mut state = self.state();
        let own = state.ticket;
        state.ticket += 1;
        state.queue.push_back(own);
        let turn = loop {
            let first = state.queue.front() == Some(&own);
            if first && let Some(turn) = state.lend(from, self.most) {
                break Ok(turn);
            }
            if let Err(stopping) = self.topic.is_needed() {
                break Err(stopping);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break Err(self.topic.is_busy(self.most));
            }
            let waited = self.back.wait_timeout(state, left.min(LOOK));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        };
        state.queue.retain(|other| *other != own);
        drop(state);
        self.back.notify_all();
        let place = |turn| {
            let consumers = Arc::clone(self);
            let kept = None;
            (Place { consumers, kept }, turn)
        };
        turn.map(place)
    }

    /// Closes those that nobody goes on with. Blocks for a moment.
    pub(super) fn close_idle(&self) {
        self.close(IDLE);
    }

    /// Closes all that are not lent. Blocks for a moment.
    pub(super) fn close_all(&self) {
        self.close(Duration::ZERO);
    }

    fn close(&self, after: Duration) {
        let mut state = self.state();
        let fresh = state
            .idle
            .iter()
            .position(|(since, _)| since.elapsed() < after);
        let old = fresh.unwrap_or(state.idle.len());
        let closed: Vec<_> = state.idle.drain(..old).collect();
        drop(state);
        drop(closed);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What there is for whoever has a place.
struct Turn {
    /// It stands there already.
    stands: Option<Merge>,
    /// Has to be closed for it.
    closed: Option<Merge>,
}

impl State {
    fn lend(&mut self, from: &Cut, most: usize) -> Option<Turn> {
        let at = self.idle.iter().position(|(_, idle)| idle.at() == from);
        let stands = at.and_then(|at| self.idle.remove(at));
        if stands.is_none() && self.lent >= most {
            return None;
        }
        let full = stands.is_none() && self.lent + self.idle.len() >= most;
        let closed = if full { self.idle.pop_front() } else { None };
        self.lent += 1;
        let merge = |idle: Option<(Instant, Merge)>| idle.map(|(_, merge)| merge);
        Some(Turn {
            stands: merge(stands),
            closed: merge(closed),
        })
    }
}

impl Lent {
    /// It stays where it stands, for who goes on there.
    pub(super) fn keep(self) {
        let Lent { merge, mut place } = self;
        place.kept = Some(merge);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.consumers.state();
        state.lent -= 1;
        let kept = self.kept.take();
        state.idle.extend(kept.map(|merge| (Instant::now(), merge)));
        drop(state);
        self.consumers.back.notify_all();
    }
}
