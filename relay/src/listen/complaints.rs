//! Log lines about peers, few enough that a peer cannot fill the log: one a second for each reason, with the number of
//! those that were left out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two lines about one reason.
const PAUSE: Duration = Duration::from_secs(1);

/// What was said last; a cheap handle. Reasons are words of this program, so there are few.
#[derive(Clone, Debug, Default)]
pub(crate) struct Complaints {
    said: Arc<Mutex<HashMap<&'static str, Said>>>,
}

#[derive(Debug)]
struct Said {
    last: Instant,
    left_out: u64,
}

impl Complaints {
    /// Whether a line may be written now, and how many were left out since the last.
    pub(crate) fn may(&self, reason: &'static str) -> Option<u64> {
        self.may_at(reason, Instant::now())
    }

    fn may_at(&self, reason: &'static str, now: Instant) -> Option<u64> {
        let mut all = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(said) = all.get_mut(reason) else {
            let last = now;
            all.insert(reason, Said { last, left_out: 0 });
            return Some(0);
        };
        if now.saturating_duration_since(said.last) < PAUSE {
            said.left_out += 1;
            return None;
        }
        said.last = now;
        Some(std::mem::take(&mut said.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_a_second_and_a_count() {
        let complaints = Complaints::default();
        let start = Instant::now();
        assert_eq!(complaints.may_at("tls", start), Some(0));
        for _ in 0..9 {
            assert_eq!(complaints.may_at("tls", start), None);
        }
        assert_eq!(complaints.may_at("silent", start), Some(0));
        assert_eq!(complaints.may_at("tls", start + PAUSE), Some(9));
    }
}
