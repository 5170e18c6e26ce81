//! Brokers that do not answer. Whoever waited for them in vain leaves word, so that those who come right after do not wait for
//! the same: a thousand readers have their answer as soon as the first one has.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// How long whoever reads waits for brokers that say nothing.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How long word of it holds; after that somebody waits for them again.
const HOLDS: Duration = Duration::from_secs(2);

/// Word of brokers that were waited for in vain.
#[derive(Default)]
pub(super) struct Away(Mutex<Option<(Instant, String)>>);

impl Away {
    /// They were waited for in vain.
    pub(super) fn note(&self, why: &str) {
        *self.word() = Some((Instant::now(), why.to_owned()));
    }

    /// They answer.
    pub(super) fn is_over(&self) {
        *self.word() = None;
    }

    /// Why they were waited for in vain a moment ago.
    pub(super) fn told(&self) -> Option<String> {
        let word = self.word();
        let (at, why) = word.as_ref()?;
        (at.elapsed() < HOLDS).then(|| why.clone())
    }

    fn word(&self) -> MutexGuard<'_, Option<(Instant, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the same question may be answered in a moment: nobody is there, or a partition has no leader at present.
pub(super) fn may_pass(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::BrokerNotAvailable
                | RDKafkaErrorCode::CoordinatorLoadInProgress
                | RDKafkaErrorCode::CoordinatorNotAvailable
                | RDKafkaErrorCode::LeaderNotAvailable
                | RDKafkaErrorCode::NetworkException
                | RDKafkaErrorCode::NotCoordinator
                | RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::RequestTimedOut
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::TimedOutQueue
                | RDKafkaErrorCode::WaitingForCoordinator
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn word_of_brokers_that_are_away_holds_until_they_answer() {
        let away = Away::default();
        assert_eq!(away.told(), None);
        away.note("connection refused");
        assert_eq!(away.told().as_deref(), Some("connection refused"));
        away.is_over();
        assert_eq!(away.told(), None);
    }

    #[test]
    fn what_no_time_mends_is_not_waited_for() {
        let of = |code| may_pass(&KafkaError::OffsetFetch(code));
        assert!(of(RDKafkaErrorCode::OperationTimedOut));
        assert!(!of(RDKafkaErrorCode::TopicAuthorizationFailed));
        assert!(!of(RDKafkaErrorCode::UnknownTopic));
    }
}
