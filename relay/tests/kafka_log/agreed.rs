//! What relays agree on, after the broker has compacted it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proto::StreamId;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use relay::ingest::Owners;
use relay::log::Store;
use sha2::{Digest as _, Sha256};

use crate::ground::{Ground, LONG, close};
use crate::servers::Kafka;

fn client(kafka: &Kafka) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.brokers());
    config
}

/// A topic that is compacted as soon as the broker gets to it.
async fn eager(kafka: &Kafka, name: &str) {
    let admin: AdminClient<DefaultClientContext> = client(kafka).create().unwrap();
    let topic = NewTopic::new(name, 1, TopicReplication::Fixed(1))
        .set("cleanup.policy", "compact")
        .set("segment.ms", "200")
        .set("min.cleanable.dirty.ratio", "0.001")
        .set("max.compaction.lag.ms", "1000")
        .set("delete.retention.ms", "0");
    let made = admin.create_topics([&topic], &AdminOptions::new()).await;
    assert!(made.unwrap()[0].is_ok());
}

/// Writes a record as a relay that died right after it.
async fn write(kafka: &Kafka, topic: &str, key: &[u8], value: &[u8]) {
    let producer: FutureProducer = client(kafka).create().unwrap();
    let record = FutureRecord::to(topic).partition(0).key(key).payload(value);
    producer.send(record, LONG).await.unwrap();
}

/// All that is in a topic: how often each key is there.
fn keys(kafka: &Kafka, topic: &str) -> BTreeMap<Vec<u8>, usize> {
    let consumer: BaseConsumer = client(kafka)
        .set("group.id", "looking")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Beginning)
        .unwrap();
    consumer.assign(&list).unwrap();
    let mut keys = BTreeMap::new();
    loop {
        match consumer.poll(LONG).expect("an answer") {
            Ok(message) => *keys.entry(message.key().unwrap().to_vec()).or_default() += 1,
            Err(KafkaError::PartitionEOF(_)) => return keys,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Waits until all of the topic is compacted that was there until now: a key is written again and again until it is there but
/// once or twice, and that in a segment behind it.
async fn compacted(kafka: &Kafka, topic: &str) {
    let deadline = Instant::now() + 2 * LONG;
    let mut written = 0;
    loop {
        assert!(Instant::now() < deadline, "the broker does not compact");
        for _ in 0..3 {
            write(kafka, topic, b"filler", b"x").await;
            written += 1;
            // So that the next one is in another segment.
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        let found = keys(kafka, topic);
        if written > 6 && found[&b"filler"[..]] <= 3 {
            return;
        }
    }
}

async fn foreign(store: &Store, sensor: &str, stream: StreamId) -> bool {
    let owners = Owners::shared(store.log().agreement().unwrap());
    !owners.claim(sensor, &[stream]).await.unwrap().is_empty()
}

fn owner(sensor: &str) -> [u8; 16] {
    *Sha256::digest(sensor).first_chunk().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_claim_of_a_stream_holds_after_compaction_though_who_made_the_second_died() {
    let soon = |_| "log.cleaner.backoff.ms=300\n".to_owned();
    let Some(kafka) = Kafka::with("relay kafka_log compaction", soon) else {
        return;
    };
    let kafka = &kafka;
    eager(kafka, "agreed.relays").await;
    let (now, before) = (StreamId([1; 8]), StreamId([2; 8]));
    // Two relays of an earlier version, of which the second died before it mended what it wrote.
    let old = [&b"stream/"[..], &before.0].concat();
    write(kafka, "agreed.relays", &old, &owner("a")).await;
    write(kafka, "agreed.relays", &old, &owner("b")).await;
    let ground = Ground::topic(&kafka.brokers(), "agreed");
    let one = ground.open().await;
    for stream in [now, before] {
        assert!(!foreign(&one, "a", stream).await);
        assert!(foreign(&one, "b", stream).await);
    }
    let secret = one.secret();
    // A relay that had not read the claim yet, and died right after its own.
    let late = [&[1][..], &[7; 16], b"stream/", &now.0].concat();
    write(kafka, "agreed.relays", &late, &owner("b")).await;
    compacted(kafka, "agreed.relays").await;
    assert_eq!(
        keys(kafka, "agreed.relays").get(&old),
        Some(&1),
        "it was compacted"
    );
    let two = ground.beside().open().await;
    for store in [&one, &two] {
        for stream in [now, before] {
            assert!(!foreign(store, "a", stream).await);
            assert!(foreign(store, "b", stream).await);
        }
    }
    assert_eq!(two.secret(), secret);
    // What the dead one left is taken back.
    compacted(kafka, "agreed.relays").await;
    assert_eq!(keys(kafka, "agreed.relays").get(&late), None);
    for store in [one, two] {
        close(store).await;
    }
}
