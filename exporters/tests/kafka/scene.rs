//! A sink, a real broker, and a consumer that reads back what is in a topic.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use exporters::{Batch, Carried, Context, Encoded, Outcome, Sink, SinkConfig, Unavailable};
use prost::Message as _;
use proto::{Event, EventId, Kind, StreamId, feeder};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

/// For whatever a busy machine may take its time over.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// An alert of a pod with a text.
pub(crate) fn alert(pod: &str, message: &str, sequence: u64) -> Carried {
    let alert = feeder::Alert {
        namespace_name: "shop".into(),
        pod_name: pod.into(),
        message: message.into(),
        ..Default::default()
    };
    event(Kind::Alert, alert.encode_to_vec(), sequence)
}

pub(crate) fn event(kind: Kind, payload: Vec<u8>, sequence: u64) -> Carried {
    let id = EventId {
        stream: StreamId(*b"kafkatst"),
        sequence,
    };
    Carried::from(Encoded::new(Event {
        kind,
        id,
        payload: payload.into(),
    }))
}

pub(crate) fn sink(settings: &str) -> Box<dyn Sink> {
    try_sink(settings).unwrap_or_else(|error| panic!("{error}"))
}

pub(crate) fn try_sink(settings: &str) -> Result<Box<dyn Sink>, exporters::BuildError> {
    let (nodes, mut problems) = yaml::parse("c.yaml", &format!("{{type: kafka, {settings}}}"));
    let config = SinkConfig::read(&nodes[0], yaml::Severity::Error, &mut problems);
    problems.retain(|problem| problem.severity == yaml::Severity::Error);
    assert_eq!(problems, []);
    exporters::build("bus", &config.unwrap(), &Context::default())
}

pub(crate) async fn send(
    sink: &dyn Sink,
    events: Vec<Carried>,
) -> Result<Vec<Outcome>, Unavailable> {
    sink.send(Arc::new(Batch::new(events))).await
}

/// Sends again what is to come again, as the fan-out does, until all is settled. Events are never sent out of order.
pub(crate) async fn send_until_settled(sink: &dyn Sink, mut events: Vec<Carried>) -> Vec<String> {
    let deadline = Instant::now() + 3 * LONG;
    let mut troubles = Vec::new();
    while !events.is_empty() {
        assert!(Instant::now() < deadline, "{troubles:?}");
        match send(sink, events.clone()).await {
            Ok(outcomes) => {
                let mut outcomes = outcomes.into_iter();
                events.retain(|_| match outcomes.next() {
                    Some(Outcome::Done) => false,
                    Some(Outcome::Retry { reason, .. }) => {
                        troubles.push(reason);
                        true
                    }
                    other => panic!("{other:?}"),
                });
            }
            Err(away) => troubles.push(away.reason),
        }
    }
    troubles
}

/// One record as it lies in a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) partition: i32,
    pub(crate) key: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) value: Vec<u8>,
}

impl Stored {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.value).unwrap()
    }

    /// The number of the event, out of its id.
    pub(crate) fn sequence(&self) -> u64 {
        u64::from_str_radix(&self.headers["event-id"][16..], 16).unwrap()
    }
}

/// Everything in a topic, partition by partition, in order.
pub(crate) fn read_back(brokers: &str, topic: &str) -> Vec<Stored> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "readback")
        .set("enable.auto.commit", "false")
        .set("fetch.message.max.bytes", "16777216")
        .create()
        .unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), LONG).unwrap();
    let (mut all, mut left) = (TopicPartitionList::new(), 0);
    for partition in metadata.topics()[0].partitions() {
        let (low, high) = consumer
            .fetch_watermarks(topic, partition.id(), LONG)
            .unwrap();
        all.add_partition_offset(topic, partition.id(), Offset::Beginning)
            .unwrap();
        left += high - low;
    }
    consumer.assign(&all).unwrap();
    let (mut stored, deadline) = (Vec::new(), Instant::now() + LONG);
    while (stored.len() as i64) < left {
        // A poll may also come back with nothing before its time.
        match consumer.poll(Duration::from_secs(1)) {
            Some(message) => stored.push(taken(&message.unwrap())),
            None => assert!(Instant::now() < deadline, "the topic ends too early"),
        }
    }
    stored.sort_by_key(|record| record.partition);
    stored
}

fn taken(message: &rdkafka::message::BorrowedMessage<'_>) -> Stored {
    let text =
        |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap_or_default().to_vec()).unwrap();
    let headers = message.headers().into_iter().flat_map(|all| all.iter());
    Stored {
        partition: message.partition(),
        key: text(message.key()),
        headers: headers.map(|h| (h.key.to_owned(), text(h.value))).collect(),
        value: message.payload().unwrap_or_default().to_vec(),
    }
}

/// Makes a topic with settings of its own.
pub(crate) async fn make_topic(brokers: &str, name: &str, settings: &[(&str, &str)]) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .unwrap();
    let mut topic = NewTopic::new(name, 2, TopicReplication::Fixed(1));
    for (key, value) in settings {
        topic = topic.set(key, value);
    }
    let made = admin.create_topics(&[topic], &AdminOptions::new()).await;
    for result in made.unwrap() {
        result.unwrap();
    }
}

/// The same pods' events in one topic: each pod in one partition, and in the order of their numbers. Events may be there
/// more than once.
pub(crate) fn assert_in_order(stored: &[Stored]) {
    let mut last: BTreeMap<&str, (i32, u64)> = BTreeMap::new();
    for record in stored {
        let now = (record.partition, record.sequence());
        let before = last.entry(&record.key).or_insert(now);
        assert_eq!(before.0, now.0, "{} is in two partitions", record.key);
        // What is sent again begins earlier, and comes whole.
        *before = now;
    }
    for (key, (_, end)) in last {
        let newest = stored.iter().filter(|r| r.key == key).map(Stored::sequence);
        assert_eq!(
            newest.max(),
            Some(end),
            "{key} does not end with its newest"
        );
    }
}
