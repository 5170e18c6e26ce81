//! What librdkafka says: its lines go to those who look closely, the last trouble to whoever asks why nothing happens.

use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// Listens to one client; a cheap handle.
#[derive(Clone, Default)]
pub(super) struct Quiet {
    trouble: Arc<Mutex<Option<String>>>,
}

impl Quiet {
    /// What was wrong last, in librdkafka's words; none since [`Quiet::fine`].
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Something went well.
    pub(super) fn fine(&self) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn note(&self, code: Option<RDKafkaErrorCode>, reason: &str) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        // That all brokers are down says less than what was said of one of them before.
        if code != Some(RDKafkaErrorCode::AllBrokersDown) || trouble.is_none() {
            *trouble = Some(reason.to_owned());
        }
    }
}

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.note(error.rdkafka_error_code(), reason);
    }
}

impl ConsumerContext for Quiet {}

/// One of librdkafka's own lines.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, line: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::warn!(facility, line, "librdkafka");
        }
        _ => tracing::debug!(facility, line, "librdkafka"),
    }
}
