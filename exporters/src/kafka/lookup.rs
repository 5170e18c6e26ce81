//! Where a topic has an event: partition and offset, found by reading.
//!
//! What delivery reports say could be remembered, at some thirty bytes an event and for this life only. Events are traced now
//! and then, so the topic itself is asked instead: it is read from the moment on when the event was journaled (a record's
//! time is when it was sent), for a few seconds at most, and needs no group. It also answers after a restart, and for what
//! was sent weeks ago.

use std::fmt;
use std::time::{Duration, Instant};

use proto::EventId;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::{Offset, TopicPartitionList};

use super::connection::Client;
use super::record::EVENT_ID;

/// What a look may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Clocks of brokers and relays differ.
const SKEW_MS: i64 = 60_000;

/// Where a record is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    partition: i32,
    offset: i64,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partition, offset } = self;
        write!(f, "partition {partition}, offset {offset}")
    }
}

/// Why a record was not found.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotFound {
    #[error("partition and offset are not known: {0}")]
    Kafka(#[from] KafkaError),
    #[error("it is not in the topic any more")]
    Gone,
    #[error("not found within {} s of reading the topic from when it was journaled", PATIENCE.as_secs())]
    Late,
}

/// The first record of an event in a topic. Blocks.
///
/// # Errors
/// It is not there, or this user may not read the topic.
pub(super) fn look_up(
    client: &Client,
    topic: &str,
    id: EventId,
    since: u64,
) -> Result<Found, NotFound> {
    let until = Instant::now() + PATIENCE;
    let consumer = consumer(client)?;
    let mut open = ends(&consumer, topic, since, until)?;
    let wanted = id.to_string();
    while !open.is_empty() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(NotFound::Late);
        }
        let Some(record) = consumer.poll(left) else {
            continue;
        };
        let record = record?;
        if is_of(&record, &wanted) {
            return Ok(Found {
                partition: record.partition(),
                offset: record.offset(),
            });
        }
        open.retain(|(partition, end)| {
            *partition != record.partition() || record.offset() + 1 < *end
        });
    }
    Err(NotFound::Gone)
}

fn consumer(client: &Client) -> Result<BaseConsumer, KafkaError> {
    let mut config = client.config();
    config
        .set("group.id", "cresset-trace")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("queued.max.messages.kbytes", "16384");
    config.create()
}

/// Begins to read every partition where it stood at that time; those that have something from there on, with their ends.
fn ends(
    consumer: &BaseConsumer,
    topic: &str,
    since: u64,
    until: Instant,
) -> Result<Vec<(i32, i64)>, NotFound> {
    let left = || until.saturating_duration_since(Instant::now());
    let metadata = consumer.fetch_metadata(Some(topic), left())?;
    let partitions = metadata
        .topics()
        .iter()
        .flat_map(|topic| topic.partitions());
    let mut times = TopicPartitionList::new();
    let since = i64::try_from(since).unwrap_or(i64::MAX);
    for partition in partitions {
        let at = Offset::Offset(since.saturating_sub(SKEW_MS).max(0));
        times.add_partition_offset(topic, partition.id(), at)?;
    }
    let (mut from, mut open) = (TopicPartitionList::new(), Vec::new());
    for begin in consumer.offsets_for_times(times, left())?.elements() {
        let partition = begin.partition();
        let (_, end) = consumer.fetch_watermarks(topic, partition, left())?;
        match begin.offset() {
            Offset::Offset(first) if first < end => {
                from.add_partition_offset(topic, partition, Offset::Offset(first))?;
                open.push((partition, end));
            }
            // Nothing came since.
            _ => {}
        }
    }
    consumer.assign(&from)?;
    Ok(open)
}

fn is_of(record: &rdkafka::message::BorrowedMessage<'_>, wanted: &str) -> bool {
    let headers = record
        .headers()
        .into_iter()
        .flat_map(|headers| headers.iter());
    let mut ids = headers.filter(|header| header.key == EVENT_ID);
    ids.any(|id| id.value == Some(wanted.as_bytes()))
}
