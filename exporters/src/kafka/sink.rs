//! The sink: batches over lanes, reports into outcomes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::config::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;
use yaml::Span;

use super::connection::Client;
use super::lane::{Fate, Lane, Trouble};
use super::lookup::look_up;
use super::record::{EVENT_ID, Records};
use super::verdict::{Meaning, is_refusal, meaning};
use super::{Config, TIMEOUT};
use crate::aside::aside;
use crate::lines::unreadable;
use crate::{
    Batch, BuildError, Carried, Context, Encoded, Failed, Found, Outcome, Sink, Trial, Unavailable,
};

/// Bytes of one request for a partition: under the limit that brokers have when nobody set one (1,048,588).
const REQUEST_BYTES: usize = 1_000_000;
/// Requests are not made smaller than this, however small a topic's limit is.
const LEAST_REQUEST_BYTES: usize = 16 << 10;
/// What a record may have here, so that it is the broker who says that one is too large.
const RECORD_BYTES: usize = 64 << 20;

/// The sink.
pub struct Kafka {
    pub(super) client: Client,
    pub(super) records: Arc<Records>,
    config: Config,
    timeout: Duration,
    /// What one request may have; halved where a broker does not take that much.
    request_bytes: AtomicUsize,
    together: Idle,
    alone: Idle,
}

/// A lane between two batches.
#[derive(Default)]
struct Idle(Mutex<Option<Lane>>);

impl Idle {
    fn take(&self) -> Option<Lane> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, lane: Lane) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(lane);
    }
}

/// How the records of a batch travel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    Together,
    /// Each in a request of its own, so that it is judged alone.
    Alone,
}

impl Kafka {
    /// Makes the sink and its producer, which begins to look for brokers.
    ///
    /// # Errors
    /// The password cannot be read, or the certificates are none.
    pub fn build(name: &str, config: &Config, _context: &Context) -> Result<Self, BuildError> {
        let wrong = |e: &dyn std::fmt::Display| BuildError::new(name, e);
        let client = config.connection().open().map_err(|e| wrong(&e))?;
        let sink = Kafka {
            client,
            records: Arc::new(Records::new(config).map_err(|e| wrong(&e))?),
            timeout: config.timeout.map_or(TIMEOUT, |Span(timeout)| timeout),
            config: config.clone(),
            request_bytes: AtomicUsize::new(REQUEST_BYTES),
            together: Idle::default(),
            alone: Idle::default(),
        };
        let lane = Lane::open(&sink.producer(Packing::Together)).map_err(|e| wrong(&e))?;
        sink.together.put(lane);
        Ok(sink)
    }

    pub(super) fn producer(&self, packing: Packing) -> ClientConfig {
        let mut config = self.client.config();
        config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("compression.codec", self.config.compression.word())
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "2")
            .set(
                "batch.size",
                self.request_bytes.load(Ordering::Relaxed).to_string(),
            )
            .set(
                "batch.num.messages",
                if packing == Packing::Alone {
                    "1"
                } else {
                    "10000"
                },
            )
            .set("message.max.bytes", RECORD_BYTES.to_string())
            // How long to wait is this sink's decision, and what waits is one batch.
            .set("message.timeout.ms", "0")
            .set("queue.buffering.max.messages", "0")
            .set("queue.buffering.max.kbytes", "2097151")
            .set("topic.metadata.propagation.max.ms", "5000");
        config
    }

    fn lane(&self, packing: Packing) -> Result<Lane, Unavailable> {
        let idle = self.idle(packing).take();
        idle.map_or_else(
            || Lane::open(&self.producer(packing)).map_err(|e| Unavailable::new(e.to_string())),
            Ok,
        )
    }

    fn idle(&self, packing: Packing) -> &Idle {
        match packing {
            Packing::Together => &self.together,
            Packing::Alone => &self.alone,
        }
    }

    /// Sends these events of a batch and waits for what becomes of each.
    async fn carry(
        &self,
        packing: Packing,
        batch: &Arc<Batch>,
    ) -> Result<(Vec<Fate>, Option<Trouble>), Unavailable> {
        let lane = self.lane(packing)?;
        let (records, batch) = (Arc::clone(&self.records), Arc::clone(batch));
        let lane = aside(move || {
            hand_over(&lane, &records, &batch);
            lane
        })
        .await;
        let (fates, trouble) = lane.finish(self.timeout).await;
        if fates.iter().all(|fate| is_final(*fate)) {
            self.idle(packing).put(lane);
        }
        Ok((fates, trouble))
    }

    /// Records that were refused as too large in company are sent once more, each alone.
    async fn carry_alone(&self, batch: &Batch, fates: &mut [Fate]) -> Result<(), Unavailable> {
        let events = batch.events();
        let limit = self.request_bytes.load(Ordering::Relaxed);
        let in_company: Vec<usize> = (0..events.len())
            .filter(|&n| is_too_large(fates[n]) && self.size(&events[n]) < limit)
            .collect();
        if in_company.is_empty() {
            return Ok(());
        }
        let again = in_company.iter().map(|&n| events[n].clone());
        let again = Arc::new(Batch::new(again.collect()));
        let (told, _) = self.carry(Packing::Alone, &again).await?;
        if told.contains(&Fate::Delivered) {
            let bytes = again.events().iter().map(|event| self.size(event)).sum();
            self.make_requests_smaller(limit.min(bytes));
        }
        for (n, fate) in in_company.into_iter().zip(told) {
            fates[n] = fate;
        }
        Ok(())
    }

    /// So many bytes together were too many.
    fn make_requests_smaller(&self, bytes: usize) {
        let less = (bytes / 2).max(LEAST_REQUEST_BYTES);
        if self.request_bytes.fetch_min(less, Ordering::Relaxed) > less {
            tracing::info!(bytes = less, "a topic takes only smaller requests");
            drop(self.together.take());
        }
    }

    fn size(&self, event: &Encoded) -> usize {
        self.records
            .make(event)
            .map_or(0, |record| record.value.len())
    }

    // === outcomes ===

    fn outcome(&self, event: &Encoded, fate: Fate, trouble: Option<&Trouble>) -> Outcome {
        let code = match fate {
            Fate::Delivered => return Outcome::Done,
            Fate::Failed(code) => code,
            Fate::Open => RDKafkaErrorCode::MessageTimedOut,
        };
        if let Err(malformed) = self.records.make(event) {
            let reason = unreadable(event.kind(), &malformed);
            return Outcome::Reject { reason };
        }
        let topic = self.records.topic(event);
        let again = |reason| Outcome::Retry {
            after: None,
            reason,
        };
        match meaning(code) {
            Meaning::TooLarge => Outcome::Refuse {
                reason: format!(
                    "topic {topic} takes no record as large as this one ({} bytes): {code}; its max.message.bytes says how large",
                    self.size(event)
                ),
            },
            Meaning::Never => Outcome::Refuse {
                reason: format!("topic {topic} does not take this record: {code}"),
            },
            Meaning::NoTopic => again(format!("there is no topic {topic}; create it")),
            Meaning::Forbidden => again(format!("this user may not write topic {topic}")),
            Meaning::Away => again(self.away(code, trouble)),
        }
    }

    fn away(&self, code: RDKafkaErrorCode, trouble: Option<&Trouble>) -> String {
        let brokers = self.client.brokers();
        match trouble {
            Some(trouble) => format!("no broker of {brokers} takes events: {}", trouble.reason),
            None if is_purged(code) => {
                format!("{brokers} took no event for {} s", self.timeout.as_secs())
            }
            None => format!("{brokers} took no event: {code}"),
        }
    }
}

/// Puts a batch on a lane.
fn hand_over(lane: &Lane, records: &Records, batch: &Batch) {
    lane.begin(batch.len());
    for (place, event) in batch.events().iter().enumerate() {
        match records.make(event) {
            Ok(record) => lane.put(place, &record, records.headers(event)),
            Err(_) => lane.leave_out(place),
        }
    }
}

/// Whether the record was given up here.
fn is_purged(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::PurgeQueue | Code::PurgeInflight | Code::MessageTimedOut
    )
}

/// Whether the record is done with, so that nothing can overtake it on the same lane.
fn is_final(fate: Fate) -> bool {
    match fate {
        Fate::Delivered => true,
        Fate::Open => false,
        Fate::Failed(RDKafkaErrorCode::ValueSerialization) => true,
        Fate::Failed(code) => matches!(meaning(code), Meaning::TooLarge | Meaning::Never),
    }
}

fn is_too_large(fate: Fate) -> bool {
    matches!(fate, Fate::Failed(code) if meaning(code) == Meaning::TooLarge)
}

#[async_trait]
impl Sink for Kafka {
    fn whereabouts(&self, event: &Encoded) -> Option<String> {
        Some(format!(
            "topic {}, header {EVENT_ID} {}",
            self.records.topic(event),
            event.id()
        ))
    }

    fn look_up(&self, event: &Encoded, since: u64) -> Option<Found> {
        let topic = self.records.topic(event);
        let place = look_up(&self.client, &topic, event.id(), since);
        match (place, self.whereabouts(event)) {
            (Ok(found), _) => Some(Found::seen(format!("topic {topic}, {found}"))),
            (Err(why), place) => place.map(|place| Found::unseen(format!("{place} ({why})"))),
        }
    }

    async fn send(&self, batch: Arc<Batch>) -> Result<Vec<Outcome>, Unavailable> {
        let (mut fates, trouble) = self.carry(Packing::Together, &batch).await?;
        self.carry_alone(&batch, &mut fates).await?;
        if trouble.as_ref().is_some_and(|t| is_refusal(t.code)) {
            self.client.refused();
        }
        let outcomes: Vec<Outcome> = batch
            .events()
            .iter()
            .zip(fates)
            .map(|(event, fate)| self.outcome(event, fate, trouble.as_ref()))
            .collect();
        nothing_taken(&outcomes).map_or(Ok(outcomes), Err)
    }

    async fn test(&self, event: Carried, trial: &Trial) -> Result<(), Failed> {
        super::trial::run(self, event, trial).await
    }
}

/// Where every event is to come again, the destination is away.
fn nothing_taken(outcomes: &[Outcome]) -> Option<Unavailable> {
    let all_again = outcomes
        .iter()
        .all(|outcome| matches!(outcome, Outcome::Retry { .. }));
    match outcomes.first() {
        Some(Outcome::Retry { reason, .. }) if all_again => Some(Unavailable::new(reason)),
        _ => None,
    }
}
