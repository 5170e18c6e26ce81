//! What arrives, where, and in which order.

use std::collections::BTreeSet;
use std::process::Command;

use exporters::Outcome;
use prost::Message as _;
use proto::{Kind, feeder};

use crate::SUITE;
use crate::scene::{alert, assert_in_order, event, make_topic, read_back, send, sink};
use crate::servers::{Kafka, on_path, skip};

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_goes_to_its_topic_with_key_headers_and_json() {
    let Some(kafka) = Kafka::shared(SUITE) else {
        return;
    };
    let sink = sink(&format!(
        "brokers: ['{}'], topics: {{alert: k-a, log: k-l, message: k-m}}",
        kafka.brokers()
    ));
    let log = feeder::Log {
        host_name: "node-1".into(),
        operation: "File".into(),
        ..Default::default()
    };
    let message = feeder::Message {
        host_name: "node-1".into(),
        level: "WARN".into(),
        ..Default::default()
    };
    let events = vec![
        alert("cart", "no <sleep>", 1),
        event(Kind::Log, log.encode_to_vec(), 2),
        event(Kind::Message, message.encode_to_vec(), 3),
    ];
    let outcomes = send(sink.as_ref(), events.clone()).await;
    assert_eq!(outcomes, Ok(vec![Outcome::Done; 3]));
    for (n, (topic, key, kind, schema)) in [
        ("k-a", "shop/cart", "alert", "feeder.Alert+json"),
        ("k-l", "node-1", "log", "feeder.Log+json"),
        ("k-m", "node-1", "message", "feeder.Message+json"),
    ]
    .into_iter()
    .enumerate()
    {
        let stored = read_back(&kafka.brokers(), topic);
        let [record] = stored.as_slice() else {
            panic!("{topic}: {stored:?}");
        };
        let id = events[n].id().to_string();
        let headers = [
            ("event-id", id.as_str()),
            ("kind", kind),
            ("schema", schema),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(record.key, key);
        assert_eq!(record.headers, headers.into());
        let json = events[n].json(proto::FieldSet::KubeArmor).unwrap();
        assert_eq!(record.value, json[..]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kcat_reads_what_was_sent() {
    let Some(kafka) = Kafka::shared(SUITE) else {
        return;
    };
    if !on_path("kcat") {
        skip("kcat", SUITE, "there is no kcat; install kcat");
        return;
    }
    for compression in ["none", "lz4", "zstd", "gzip", "snappy"] {
        let topic = format!("kcat-{compression}");
        let sink = sink(&format!(
            "brokers: ['{}'], topics: {{alert: {topic}}}, compression: {compression}",
            kafka.brokers()
        ));
        let events = (1..=50).map(|n| alert("cart", "again and again", n));
        let outcomes = send(sink.as_ref(), events.collect()).await;
        assert_eq!(outcomes, Ok(vec![Outcome::Done; 50]));
        let out = Command::new("kcat")
            .args(["-C", "-e", "-q", "-b", &kafka.brokers(), "-t", &topic])
            .args(["-f", "%k %h %s\\n"])
            .output()
            .unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        assert_eq!(text.lines().count(), 50, "{topic}: {text}");
        let first = "shop/cart event-id=6b61666b617473740000000000000001,kind=alert,schema=feeder.Alert+json {\"NamespaceName\":\"shop\",\"PodName\":\"cart\",\"PPID\":0,\"UID\":0,\"Message\":\"again and again\"}";
        assert_eq!(text.lines().next(), Some(first));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn protobuf_is_read_by_whoever_has_the_message() {
    let Some(kafka) = Kafka::shared(SUITE) else {
        return;
    };
    let sink = sink(&format!(
        "brokers: ['{}'], topics: {{alert: pb}}, format: protobuf",
        kafka.brokers()
    ));
    let sent = alert("cart", "hello", 7);
    send(sink.as_ref(), vec![sent.clone()]).await.unwrap();
    let stored = read_back(&kafka.brokers(), "pb");
    assert_eq!(stored[0].headers["schema"], "feeder.Alert+protobuf");
    let read = feeder::Alert::decode(&stored[0].value[..]).unwrap();
    assert_eq!(
        (read.pod_name.as_str(), read.message.as_str()),
        ("cart", "hello")
    );
    assert_eq!(read.event_id, sent.id().to_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_events_of_many_workloads_arrive_once_and_in_order() {
    let Some(kafka) = Kafka::shared(SUITE) else {
        return;
    };
    let sink = sink(&format!(
        "brokers: ['{}'], topics: {{alert: many}}",
        kafka.brokers()
    ));
    let events: Vec<_> = (1..=10_000)
        .map(|n| alert(&format!("pod-{}", n % 37), "x", n))
        .collect();
    for batch in events.chunks(1500) {
        let outcomes = send(sink.as_ref(), batch.to_vec()).await;
        assert_eq!(outcomes, Ok(vec![Outcome::Done; batch.len()]));
    }
    let stored = read_back(&kafka.brokers(), "many");
    assert_eq!(stored.len(), 10_000);
    let ids: BTreeSet<u64> = stored.iter().map(|record| record.sequence()).collect();
    assert_eq!(ids, (1..=10_000).collect());
    assert_in_order(&stored);
    let mut partitions: Vec<i32> = stored.iter().map(|record| record.partition).collect();
    partitions.dedup();
    assert_eq!(partitions, [0, 1, 2], "the keys use all partitions");
    for pod in 0..37 {
        let key = format!("shop/pod-{pod}");
        let numbers = stored.iter().filter(|r| r.key == key).map(|r| r.sequence());
        assert!(numbers.is_sorted(), "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_can_follow_the_namespace() {
    let Some(kafka) = Kafka::shared(SUITE) else {
        return;
    };
    make_topic(&kafka.brokers(), "by-shop", &[]).await;
    let sink = sink(&format!(
        "brokers: ['{}'], topics: {{alert: 'by-{{namespace}}'}}, key: '{{pod}}'",
        kafka.brokers()
    ));
    let outcomes = send(sink.as_ref(), vec![alert("cart", "x", 1)]).await;
    assert_eq!(outcomes, Ok(vec![Outcome::Done]));
    assert_eq!(read_back(&kafka.brokers(), "by-shop")[0].key, "cart");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_batch_needs_no_broker() {
    let sink = sink("brokers: ['127.0.0.1:1']");
    assert_eq!(send(sink.as_ref(), Vec::new()).await, Ok(Vec::new()));
}
