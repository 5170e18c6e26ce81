//! How many batches may be sent again: a share of those that the destination took lately, and ten a second besides.
//!
//! Back-off makes one batch wait; with many batches under way a destination that is sick and not away would still get most of
//! its load as repeats. The tokens are `tower`'s retry budget: a batch of which something was taken puts some in, one that is
//! sent again takes some out, and what was put in holds for ten seconds. Nothing is given up for want of tokens: the batch
//! waits, and one goes every `retry.max` whatever the budget says, so that a destination that is back is found.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tower::retry::budget::{Budget as _, TpsBudget};

/// How long a batch that was taken counts.
const LATELY: Duration = Duration::from_secs(10);
/// So many may go again in a second where few are taken at all.
const FLOOR: u32 = 10;

/// What all lanes of a sink may send again.
pub(super) struct Budget {
    tokens: TpsBudget,
    /// When one went for want of another look.
    last: Mutex<Option<Instant>>,
    every: Duration,
    held: AtomicU64,
}

impl Budget {
    /// Of a sink that looks again at a destination `every` so often at least.
    pub(super) fn new(percent: u16, every: Duration) -> Self {
        let share = f32::from(percent) / 100.0;
        Budget {
            tokens: TpsBudget::new(LATELY, FLOOR, share),
            last: Mutex::default(),
            every,
            held: AtomicU64::new(0),
        }
    }

    /// The destination took something of a batch.
    pub(super) fn took(&self) {
        self.tokens.deposit();
    }

    /// Whether a batch may go again now; if not, when to ask anew.
    ///
    /// # Errors
    /// It waits.
    pub(super) fn spend(&self, now: Instant) -> Result<(), Instant> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let next = last.map(|last| last + self.every);
        if self.tokens.withdraw() || next.is_none_or(|next| next <= now) {
            *last = Some(now);
            return Ok(());
        }
        self.held.fetch_add(1, Ordering::Relaxed);
        let look = now + LATELY / 10;
        Err(next.map_or(look, |next| next.min(look)))
    }

    /// How often a batch had to wait.
    pub(super) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(30);

    /// How many go in a row.
    fn run(budget: &Budget, now: Instant) -> usize {
        (0..1000).take_while(|_| budget.spend(now).is_ok()).count()
    }

    #[test]
    fn a_fifth_of_what_was_taken_may_go_again_besides_the_floor() {
        let (budget, now) = (Budget::new(20, EVERY), Instant::now());
        assert_eq!(run(&budget, now), 100);
        (0..50).for_each(|_| budget.took());
        assert_eq!(run(&budget, now), 10);
        assert_eq!(budget.held(), 2);
    }

    #[test]
    fn one_goes_now_and_then_whatever_the_budget_says() {
        let (budget, now) = (Budget::new(0, EVERY), Instant::now());
        run(&budget, now);
        (0..50).for_each(|_| budget.took());
        let again = budget.spend(now).unwrap_err();
        assert!(again > now && again <= now + EVERY);
        assert_eq!(run(&budget, now + EVERY), 1);
    }
}
