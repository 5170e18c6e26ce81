//! How many messages may go: a bucket that holds `messages` and fills evenly within `per`.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::RateConfig;

pub(super) struct Budget {
    messages: f64,
    per: Duration,
    held: Mutex<Held>,
}

struct Held {
    tokens: f64,
    at: Instant,
}

impl Budget {
    /// Full at first.
    pub(super) fn new(rate: RateConfig) -> Self {
        let messages = f64::from(rate.messages.max(1));
        Budget {
            messages,
            per: rate.per.0.max(Duration::from_millis(1)),
            held: Mutex::new(Held {
                tokens: messages,
                at: Instant::now(),
            }),
        }
    }

    /// Takes up to `want` tokens, and at least one: waits for it if there is none.
    pub(super) async fn take(&self, want: usize) -> usize {
        loop {
            match self.try_take(want, Instant::now()) {
                Ok(taken) => return taken,
                Err(wait) => sleep(wait).await,
            }
        }
    }

    fn try_take(&self, want: usize, now: Instant) -> Result<usize, Duration> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let filled = now
            .saturating_duration_since(held.at)
            .div_duration_f64(self.per)
            * self.messages;
        held.tokens = (held.tokens + filled).min(self.messages);
        held.at = now;
        if held.tokens < 1.0 {
            let missing = (1.0 - held.tokens) / self.messages;
            // A little more, so that rounding does not make it two waits.
            return Err(self.per.mul_f64(missing) + Duration::from_millis(1));
        }
        let taken = want.min(held.tokens as usize).max(1);
        held.tokens -= taken as f64;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use yaml::Span;

    use super::*;

    fn budget(messages: u32) -> Budget {
        Budget::new(RateConfig {
            messages,
            per: Span(Duration::from_secs(60)),
        })
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_there_goes_at_once_and_then_one_by_one() {
        let (budget, now) = (budget(3), Instant::now());
        assert_eq!(budget.try_take(2, now), Ok(2));
        assert_eq!(budget.try_take(5, now), Ok(1));
        let wait = budget.try_take(5, now).unwrap_err();
        assert!((19 * SECOND..=21 * SECOND).contains(&wait), "{wait:?}");
        assert_eq!(budget.try_take(5, now + wait), Ok(1));
    }

    #[test]
    fn it_fills_up_to_its_measure_and_no_further() {
        let (budget, now) = (budget(3), Instant::now());
        assert_eq!(budget.try_take(3, now), Ok(3));
        assert_eq!(budget.try_take(100, now + 3600 * SECOND), Ok(3));
    }
}
