//! How long a destination is left alone.
//!
//! Full jitter: the wait is drawn evenly between nothing and a bound that doubles from `initial` to `max`, so that many
//! relays which lost the same destination do not come back in step. What the destination asks for is a floor.

use std::time::Duration;

use exporters::Retry;

/// No wait is shorter, however the dice fall: a destination that fails at once must not cost a core.
const LEAST: Duration = Duration::from_millis(10);

/// The bound after `attempts` failures in a row, from 1.
fn bound(retry: Retry, attempts: u32) -> Duration {
    let doublings = attempts.saturating_sub(1).min(31);
    retry.initial.saturating_mul(1 << doublings).min(retry.max)
}

/// The wait after `attempts` failures in a row.
pub(crate) fn wait(retry: Retry, attempts: u32, asked: Option<Duration>) -> Duration {
    drawn(bound(retry, attempts), dice())
        .max(asked.unwrap_or_default())
        .max(LEAST)
}

fn drawn(bound: Duration, dice: u32) -> Duration {
    bound.mul_f64(f64::from(dice) / f64::from(u32::MAX))
}

fn dice() -> u32 {
    // Without randomness the middle will do: only the spread over many relays is lost.
    getrandom::u32().unwrap_or(u32::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Retry = Retry {
        initial: Duration::from_millis(500),
        max: Duration::from_secs(30),
    };

    #[test]
    fn the_bound_doubles_up_to_the_maximum() {
        let bounds = [1, 2, 3, 7, 8, 100].map(|attempts| bound(RETRY, attempts).as_millis());
        assert_eq!(bounds, [500, 1000, 2000, 30_000, 30_000, 30_000]);
    }

    #[test]
    fn the_wait_is_drawn_from_all_below_the_bound() {
        let waits: Vec<Duration> = (0..200).map(|_| wait(RETRY, 3, None)).collect();
        assert!(
            waits
                .iter()
                .all(|wait| (LEAST..=Duration::from_secs(2)).contains(wait))
        );
        assert!(waits.iter().any(|wait| *wait < Duration::from_millis(700)));
        assert!(waits.iter().any(|wait| *wait > Duration::from_millis(1300)));
    }

    #[test]
    fn what_the_destination_asks_for_is_a_floor() {
        assert!(wait(RETRY, 1, Some(Duration::from_secs(60))) >= Duration::from_secs(60));
    }
}
