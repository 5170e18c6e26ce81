//! One producer with one batch at a time on its way, and what became of each record.
//!
//! ```text
//! begin(n) ─▶ put(0) … put(n-1) ─▶ finish ─▶ a fate each
//!                 │                   ▲
//!             librdkafka ─ report ────┘  on the producer's own thread
//! ```
//! A lane that has given up, or whose batch nobody waits for any more, is dropped with its producer and all that the
//! producer still holds. So a report never meets another batch than its own, and no record overtakes one that failed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, OwnedHeaders};
use rdkafka::producer::{
    BaseRecord, Producer as _, ProducerContext, PurgeConfig, ThreadedProducer,
};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::record::Record;
use super::verdict::patience;

/// How often a batch that waits is looked after.
const LOOK_AFTER: Duration = Duration::from_millis(250);
/// Purged records are reported at once.
const PURGED_WITHIN: Duration = Duration::from_secs(2);

/// What became of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nothing is known.
    Open,
    /// All in-sync replicas have it.
    Delivered,
    /// It has failed.
    Failed(RDKafkaErrorCode),
}

/// What librdkafka says of the brokers.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    pub(super) code: RDKafkaErrorCode,
    /// In librdkafka's words, with the broker.
    pub(super) reason: String,
}

/// What a cluster says of a topic.
#[derive(Clone, Copy, Debug)]
pub(super) struct Topic {
    pub(super) brokers: usize,
    pub(super) partitions: usize,
    pub(super) error: Option<RDKafkaErrorCode>,
}

/// A producer and its reports.
pub(super) struct Lane {
    /// Taken only when the lane is dropped.
    producer: Option<ThreadedProducer<Shared>>,
    reports: Shared,
}

impl Lane {
    /// Makes a producer. Its brokers need not be there.
    ///
    /// # Errors
    /// The settings cannot work: a certificate that is none, say.
    pub(super) fn open(config: &ClientConfig) -> Result<Self, KafkaError> {
        let reports = Shared::default();
        let producer = config.create_with_context(reports.clone())?;
        Ok(Lane {
            producer: Some(producer),
            reports,
        })
    }

    /// A batch of `count` records begins.
    pub(super) fn begin(&self, count: usize) {
        let mut state = self.reports.lock();
        state.fates = vec![Fate::Open; count];
        state.open = count;
    }

    /// Hands over a record of the batch.
    pub(super) fn put(&self, place: usize, record: &Record<'_>, headers: OwnedHeaders) {
        let Some(producer) = &self.producer else {
            return;
        };
        let sent = producer.send(
            BaseRecord::with_opaque_to(&record.topic, place)
                .key(record.key.as_bytes())
                .payload(&record.value[..])
                .headers(headers),
        );
        if let Err((error, _)) = sent {
            self.reports.lock().settle(place, failed(&error));
        }
    }

    /// A record of the batch is not sent at all.
    pub(super) fn leave_out(&self, place: usize) {
        let fate = Fate::Failed(RDKafkaErrorCode::ValueSerialization);
        self.reports.lock().settle(place, fate);
    }

    /// Waits for the reports. Without any for `most`, or less where the brokers are known to be away, the rest is given up.
    pub(super) async fn finish(&self, most: Duration) -> (Vec<Fate>, Option<Trouble>) {
        let mut open = usize::MAX;
        let mut since = Instant::now();
        loop {
            let told = self.reports.0.told.notified();
            let (now_open, trouble) = self.reports.lock().look();
            if now_open == 0 {
                break;
            }
            if now_open < open {
                (open, since) = (now_open, Instant::now());
            }
            if since.elapsed() >= trouble.map_or(most, |code| patience(code).min(most)) {
                self.give_up().await;
                break;
            }
            let _ = timeout(LOOK_AFTER, told).await;
        }
        let mut state = self.reports.lock();
        (std::mem::take(&mut state.fates), state.trouble.take())
    }

    /// Asks the cluster for a topic: how many brokers and partitions there are. Blocks for at most so long.
    ///
    /// # Errors
    /// No broker answered; what librdkafka says of them, if it says anything.
    pub(super) fn about(&self, topic: &str, within: Duration) -> Result<Topic, Trouble> {
        let nobody = |reason: String| Trouble {
            code: RDKafkaErrorCode::BrokerTransportFailure,
            reason,
        };
        let Some(producer) = &self.producer else {
            return Err(nobody("the producer has ended".to_owned()));
        };
        let client = producer.client();
        let told = client.fetch_metadata(Some(topic), within).map_err(|e| {
            let trouble = self.reports.lock().trouble.take();
            trouble.unwrap_or_else(|| nobody(e.to_string()))
        })?;
        let about = told.topics().iter().find(|about| about.name() == topic);
        Ok(Topic {
            brokers: told.brokers().len(),
            partitions: about.map_or(0, |about| about.partitions().len()),
            error: about
                .and_then(|about| about.error())
                .map(RDKafkaErrorCode::from),
        })
    }

    async fn give_up(&self) {
        if let Some(producer) = &self.producer {
            producer.purge(PurgeConfig::default().queue().inflight());
        }
        let all_told = async {
            loop {
                let told = self.reports.0.told.notified();
                if self.reports.lock().open == 0 {
                    return;
                }
                told.await;
            }
        };
        let _ = timeout(PURGED_WITHIN, all_told).await;
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // Waits for librdkafka's threads, one of which may be connecting: nothing for the runtime.
        if let Some(producer) = self.producer.take() {
            let ending = std::thread::Builder::new().name("kafka end".to_owned());
            // Without a thread to spare it is dropped here.
            let _ = ending.spawn(move || drop(producer));
        }
    }
}

fn failed(error: &KafkaError) -> Fate {
    Fate::Failed(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail))
}

/// What the producer's thread tells and the batch waits for.
#[derive(Clone, Default)]
struct Shared(Arc<Reports>);

#[derive(Default)]
struct Reports {
    state: Mutex<State>,
    told: Notify,
}

#[derive(Default)]
struct State {
    fates: Vec<Fate>,
    open: usize,
    trouble: Option<Trouble>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is whole before anything can panic.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn settle(&mut self, place: usize, fate: Fate) {
        if let Some(slot @ Fate::Open) = self.fates.get_mut(place) {
            *slot = fate;
            self.open -= 1;
        }
    }

    fn look(&self) -> (usize, Option<RDKafkaErrorCode>) {
        (self.open, self.trouble.as_ref().map(|trouble| trouble.code))
    }

    /// That all brokers are down says less than what was said of one of them before.
    fn note(&mut self, code: RDKafkaErrorCode, reason: &str) {
        if code == RDKafkaErrorCode::AllBrokersDown && self.trouble.is_some() {
            return;
        }
        self.trouble = Some(Trouble {
            code,
            reason: reason.to_owned(),
        });
    }
}

impl ProducerContext for Shared {
    /// A record's place in its batch.
    type DeliveryOpaque = usize;

    fn delivery(&self, report: &DeliveryResult<'_>, place: usize) {
        let mut state = self.lock();
        match report {
            Ok(_) => {
                state.settle(place, Fate::Delivered);
                state.trouble = None;
            }
            Err((error, _)) => state.settle(place, failed(error)),
        }
        if state.open == 0 {
            self.0.told.notify_one();
        }
    }
}

impl ClientContext for Shared {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(code) = error.rdkafka_error_code() {
            self.lock().note(code, reason);
            self.0.told.notify_one();
        }
    }
}

/// librdkafka's own lines repeat what status says of the sink, so they are for those who look closely.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, line: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::warn!(facility, line, "librdkafka");
        }
        _ => tracing::debug!(facility, line, "librdkafka"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_settles_its_record_once() {
        let mut state = State {
            fates: vec![Fate::Open; 2],
            open: 2,
            trouble: None,
        };
        let failed = Fate::Failed(RDKafkaErrorCode::PurgeQueue);
        state.settle(1, Fate::Delivered);
        state.settle(1, failed);
        state.settle(7, failed);
        assert_eq!(state.open, 1);
        assert_eq!(state.fates, [Fate::Open, Fate::Delivered]);
    }

    #[test]
    fn the_telling_reason_stays() {
        let mut state = State::default();
        state.note(RDKafkaErrorCode::AllBrokersDown, "1/1 brokers are down");
        state.note(RDKafkaErrorCode::Authentication, "wrong password");
        state.note(RDKafkaErrorCode::AllBrokersDown, "1/1 brokers are down");
        assert_eq!(state.trouble.unwrap().reason, "wrong password");
    }
}
