//! Whether a destination is left alone, and until when: known to all lanes of a sink, so that it is tried as one and not once
//! for each, and all go on when one of them got something in.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// The destination of a sink.
#[derive(Default)]
pub(super) struct Away(watch::Sender<Since>);

/// What is known of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Since {
    /// Failures in a row.
    pub(super) attempts: u32,
    /// It is left alone until then.
    pub(super) until: Option<Instant>,
}

impl Since {
    fn is_over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }
}

impl Away {
    /// Tells of every change.
    pub(super) fn watch(&self) -> watch::Receiver<Since> {
        self.0.subscribe()
    }

    /// It took something, or somebody wants it to be tried now.
    pub(super) fn is_back(&self) {
        self.0.send_if_modified(|since| {
            let was = std::mem::take(since);
            was != Since::default()
        });
    }

    /// It took nothing; `wait` says how long it is left alone after so many failures. False: it failed before, and several
    /// batches that fail together are one failure.
    pub(super) fn failed(&self, now: Instant, wait: impl FnOnce(u32) -> Duration) -> bool {
        self.0.send_if_modified(|since| {
            let counts = since.is_over(now);
            if counts {
                since.attempts += 1;
                since.until = Some(now + wait(since.attempts));
            }
            counts
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_that_fail_together_are_one_failure_and_one_that_gets_through_ends_it() {
        let (away, now) = (Away::default(), Instant::now());
        let wait = |attempts: u32| Duration::from_secs(attempts.into());
        assert!(away.failed(now, wait));
        assert!(!away.failed(now, wait));
        let later = now + Duration::from_secs(1);
        assert!(away.failed(later, wait));
        let since = *away.watch().borrow();
        assert_eq!(since.attempts, 2);
        assert_eq!(since.until, Some(later + Duration::from_secs(2)));
        let mut told = away.watch();
        away.is_back();
        assert!(told.has_changed().unwrap());
        told.mark_unchanged();
        away.is_back();
        assert!(!told.has_changed().unwrap());
        assert_eq!(*told.borrow(), Since::default());
    }
}
