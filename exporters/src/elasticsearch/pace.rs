//! How much is sent at a time, and how many requests at once: as much as the server takes, and less when it says so.
//!
//! ```text
//! 429, 503, 413 ─▶ bodies half as large as the one refused, half as many at once      (once for all that fly together)
//! taken         ─▶ bodies a quarter larger, one more at once after each round         up to what the settings allow
//! ```
//! A body that was too large (413) lowers what is allowed for good: that bound is a setting of the server.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The bounds of now; shared by all batches of one sink.
pub(super) struct Pace {
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug)]
struct State {
    /// Bytes of a body.
    bytes: usize,
    most_bytes: usize,
    /// Requests at once.
    slots: usize,
    most_slots: usize,
    flying: usize,
    /// Counts the times that less was asked for; a refusal of a request that began before the last one is the same news.
    backed_off: u64,
    /// Requests taken since the last change of `slots`.
    taken: usize,
}

/// A body is not made smaller than this by a server that is busy: an event of ordinary size fits.
const LEAST_BYTES: usize = 2 << 10;

/// Leave to send one request.
pub(super) struct Turn<'a> {
    pace: &'a Pace,
    /// How large its body may be.
    pub(super) bytes: usize,
    began: u64,
}

impl Pace {
    pub(super) fn new(most_bytes: usize, most_slots: usize) -> Self {
        Pace {
            state: Mutex::new(State {
                bytes: most_bytes,
                most_bytes,
                slots: most_slots,
                most_slots,
                flying: 0,
                backed_off: 0,
                taken: 0,
            }),
            freed: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is one assignment after another of plain numbers: there is no half.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until another request may fly.
    pub(super) async fn turn(&self) -> Turn<'_> {
        loop {
            let freed = self.freed.notified();
            if let Some(turn) = self.try_turn() {
                return turn;
            }
            freed.await;
        }
    }

    fn try_turn(&self) -> Option<Turn<'_>> {
        let mut state = self.state();
        if state.flying >= state.slots {
            return None;
        }
        state.flying += 1;
        Some(Turn {
            pace: self,
            bytes: state.bytes,
            began: state.backed_off,
        })
    }
}

impl Turn<'_> {
    /// The server took it; `full` if the body was as large as it may be.
    pub(super) fn taken(self, full: bool) {
        let mut state = self.pace.state();
        if full {
            state.bytes = (state.bytes + state.bytes / 4).min(state.most_bytes);
        }
        state.taken += 1;
        if state.taken >= state.slots && state.slots < state.most_slots {
            state.slots += 1;
            state.taken = 0;
        }
    }

    /// The server asked for less. `body` is the size of what it refused.
    pub(super) fn refused(self, body: usize) {
        let mut state = self.pace.state();
        if self.began == state.backed_off {
            state.backed_off += 1;
            state.bytes = (body / 2).clamp(LEAST_BYTES.min(state.most_bytes), state.bytes);
            state.slots = (state.slots / 2).max(1);
            state.taken = 0;
        }
    }

    /// The server never takes a body of this size.
    pub(super) fn too_large(self, body: usize) {
        let mut state = self.pace.state();
        state.most_bytes = state.most_bytes.min(body / 2).max(1);
        state.bytes = state.bytes.min(state.most_bytes);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.pace.state().flying -= 1;
        // Everybody looks again: a slot may have been added, too.
        self.pace.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(pace: &Pace) -> (usize, usize) {
        let state = pace.state();
        (state.bytes, state.slots)
    }

    #[test]
    fn refusals_halve_and_successes_bring_it_back_to_the_bounds() {
        let pace = Pace::new(1 << 20, 4);
        pace.try_turn().unwrap().refused(1 << 20);
        assert_eq!(bounds(&pace), (1 << 19, 2));
        pace.try_turn().unwrap().refused(100 << 10);
        assert_eq!(bounds(&pace), (50 << 10, 1));
        for _ in 0..60 {
            pace.try_turn().unwrap().taken(true);
        }
        assert_eq!(bounds(&pace), (1 << 20, 4));
        for _ in 0..10 {
            pace.try_turn().unwrap().refused(0);
        }
        assert_eq!(bounds(&pace), (LEAST_BYTES, 1));
    }

    #[test]
    fn a_body_that_was_not_full_says_nothing_about_larger_ones() {
        let pace = Pace::new(1 << 20, 1);
        pace.try_turn().unwrap().refused(1 << 20);
        pace.try_turn().unwrap().taken(false);
        assert_eq!(bounds(&pace), (1 << 19, 1));
    }

    #[test]
    fn requests_that_fly_together_and_are_refused_together_count_once() {
        let pace = Pace::new(1 << 20, 4);
        let turns = [(); 4].map(|()| pace.try_turn().unwrap());
        assert!(pace.try_turn().is_none());
        turns.into_iter().for_each(|turn| turn.refused(1 << 20));
        assert_eq!(bounds(&pace), (1 << 19, 2));
    }

    #[test]
    fn what_was_too_large_stays_too_large() {
        let pace = Pace::new(1 << 20, 1);
        pace.try_turn().unwrap().too_large(1 << 20);
        for _ in 0..20 {
            pace.try_turn().unwrap().taken(true);
        }
        assert_eq!(bounds(&pace), (1 << 19, 1));
        pace.try_turn().unwrap().too_large(1000);
        assert_eq!(bounds(&pace).0, 500);
    }

    #[tokio::test]
    async fn a_request_waits_for_its_turn_and_gets_it_when_another_ends() {
        let pace = Pace::new(1, 1);
        let first = pace.turn().await;
        let mut second = Box::pin(pace.turn());
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        drop(second.await);
    }
}
