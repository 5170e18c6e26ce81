//! Where the sinks that share a window stand in it.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

#[derive(Default)]
pub(super) struct Company(Mutex<Vec<Weak<AtomicU64>>>);

/// One of them, until it is dropped.
pub(super) struct Member(Arc<AtomicU64>);

impl Company {
    pub(super) fn join(&self, next: u64) -> Member {
        let member = Arc::new(AtomicU64::new(next));
        // What the lock guards is whole between any two statements, here and below.
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&member));
        Member(member)
    }

    /// Whether one of them goes on with one of these events.
    pub(super) fn is_in(&self, events: &Range<u64>) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter()
            .filter_map(Weak::upgrade)
            .any(|next| events.contains(&next.load(Ordering::Relaxed)))
    }
}

impl Member {
    pub(super) fn goes_on_with(&self, next: u64) {
        self.0.store(next, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;

    #[test]
    fn who_has_gone_on_or_left_is_not_there() {
        let company = Company::default();
        let (one, two) = (company.join(5), company.join(9));
        assert!(company.is_in(&(5..6)) && company.is_in(&(6..10)) && !company.is_in(&(6..9)));
        one.goes_on_with(7);
        assert!(company.is_in(&(6..9)));
        drop(one);
        assert!(!company.is_in(&(6..9)));
        drop(two);
        let _three = company.join(1);
        assert_eq!(company.0.lock().expect("whole").len(), 1);
    }
}
