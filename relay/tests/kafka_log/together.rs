//! Two stores on one topic, and what only a broker does.

use std::collections::BTreeSet;
use std::time::Duration;

use prost::Message as _;
use proto::{Event, EventId, Kind, feeder};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use relay::log::Store;

use crate::ground::{Ground, Kept, append, close, config, event, id, read, soon};
use crate::servers::Kafka;

#[tokio::test(flavor = "multi_thread")]
async fn two_relays_share_a_sinks_work_and_either_takes_over_the_whole() {
    let Some(kafka) = Kafka::shared("relay kafka_log share") else {
        return;
    };
    let here = Ground::kafka(&kafka.brokers());
    let there = here.beside();
    let (one, two) = (here.open().await, there.open().await);
    let (a, b) = (Kept::default(), Kept::default());
    let first = here.feed(&one, Box::new(a.clone()));
    let second = there.feed(&two, Box::new(b.clone()));
    let mut sent = BTreeSet::new();
    let mut sequence = 0;
    // Partitions are spread when both have joined.
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while a.ids().is_empty() || b.ids().is_empty() {
        assert!(
            std::time::Instant::now() < deadline,
            "the work is not shared"
        );
        sequence += 1;
        for sensor in 1..=12 {
            let store = if sensor % 2 == 0 { &one } else { &two };
            append(store, sensor, sequence..=sequence).await;
            sent.insert(id(sensor, sequence));
        }
    }
    second.drain(Duration::from_secs(30)).await;
    close(two).await;
    for sensor in 1..=12 {
        append(&one, sensor, sequence + 1..=sequence + 5).await;
        sent.extend((sequence + 1..=sequence + 5).map(|n| id(sensor, n)));
    }
    let all = || -> BTreeSet<EventId> { a.ids().into_iter().chain(b.ids()).collect() };
    soon("everything is delivered", || all().len() >= sent.len()).await;
    assert_eq!(all(), sent);
    // Partitions were handed over in order: nothing was sent twice.
    assert_eq!(a.ids().len() + b.ids().len(), sent.len());
    first.drain(Duration::from_secs(30)).await;
    close(one).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_relay_reads_what_the_others_took() {
    let Some(kafka) = Kafka::shared("relay kafka_log feeds") else {
        return;
    };
    let here = Ground::kafka(&kafka.brokers());
    let (one, two) = (here.open().await, here.beside().open().await);
    append(&one, 1, 1..=10).await;
    append(&two, 2, 1..=10).await;
    for store in [&one, &two] {
        let view = store.view();
        let ids = read(&view, view.first(), 20).await;
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 20);
    }
    // One that comes later reads the past by time.
    let late = here.beside().open().await;
    let ids = read(&late.view(), late.view().first(), 20).await;
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 20);
    assert_eq!(late.view().committed(), one.view().committed());
    for store in [one, two, late] {
        close(store).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_for_the_topic_is_refused_alone() {
    let Some(kafka) = Kafka::shared("relay kafka_log too large") else {
        return;
    };
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", kafka.brokers())
        .create()
        .unwrap();
    let topic =
        NewTopic::new("small", 2, TopicReplication::Fixed(1)).set("max.message.bytes", "4096");
    admin
        .create_topics([&topic], &AdminOptions::new())
        .await
        .unwrap();
    let ground = Ground::topic(&kafka.brokers(), "small");
    let store = ground.open().await;
    let large = |sequence| {
        let alert = feeder::Alert {
            message: "x".repeat(8000),
            ..Default::default()
        };
        Event {
            kind: Kind::Alert,
            id: id(1, sequence),
            payload: alert.encode_to_vec().into(),
        }
    };
    let events = vec![event(1, 1), large(2), event(1, 3), large(4), event(1, 5)];
    let written = store.append("sensor-1".into(), events).await.unwrap();
    let refused = written.refused;
    let told: Vec<_> = refused
        .iter()
        .map(|refused| (refused.index, refused.limit))
        .collect();
    assert_eq!(told, [(1, 4096), (3, 4096)]);
    assert!(refused.iter().all(|refused| refused.size > 8000));
    let ids = read(&store.view(), store.view().first(), 3).await;
    assert_eq!(ids, [id(1, 1), id(1, 3), id(1, 5)]);
    assert_eq!(
        store.received().ranges(id(1, 1).stream),
        Some(vec![1..2, 3..4, 5..6])
    );
    close(store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_would_leave_one_event_of_each_sensor_is_refused() {
    let Some(kafka) = Kafka::shared("relay kafka_log compacted") else {
        return;
    };
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", kafka.brokers())
        .create()
        .unwrap();
    let topic =
        NewTopic::new("shrinking", 2, TopicReplication::Fixed(1)).set("cleanup.policy", "compact");
    admin
        .create_topics([&topic], &AdminOptions::new())
        .await
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (data, config) = (
        folder.path().join("data"),
        config(&kafka.brokers(), "shrinking"),
    );
    let opening = tokio::task::spawn_blocking(move || Store::open_kafka(&data, config).map(drop));
    let why = opening.await.unwrap().unwrap_err().to_string();
    assert!(why.contains("set cleanup.policy=delete"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_goes_away_refuses_and_comes_back() {
    let Some(mut kafka) = Kafka::start("relay kafka_log away") else {
        return;
    };
    let ground = Ground::kafka(&kafka.brokers());
    let store = ground.open().await;
    append(&store, 1, 1..=5).await;
    kafka.kill();
    let refused = store
        .append("sensor-1".into(), vec![event(1, 6)])
        .await
        .unwrap_err()
        .to_string();
    assert!(refused.contains("does not take the events"), "{refused}");
    assert!(store.standing().refusing().is_some());
    kafka.restart();
    append(&store, 1, 6..=9).await;
    let ids = read(&store.view(), store.view().first(), 9).await;
    assert_eq!(ids.last(), Some(&id(1, 9)));
    close(store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_made_anew_under_a_relay_is_told_of() {
    let Some(kafka) = Kafka::shared("relay kafka_log anew") else {
        return;
    };
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", kafka.brokers())
        .create()
        .unwrap();
    for (topic, partitions, says) in [
        ("anew", 4, "restart"),
        ("anew-smaller", 2, "2 partitions, and had 4"),
    ] {
        let store = Ground::topic(&kafka.brokers(), topic).open().await;
        append(&store, 1, 1..=100).await;
        let view = store.view();
        soon("it was read", || view.committed().0 == 100).await;
        assert_eq!(store.log().attempt(), Ok(()));
        let options = AdminOptions::new();
        admin.delete_topics(&[topic], &options).await.unwrap();
        let again = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        // The brokers still delete, or somebody who asked for it made it.
        while !matches!(
            admin.create_topics([&again], &options).await.as_deref(),
            Ok([Ok(_)])
        ) {
            assert!(std::time::Instant::now() < deadline, "{topic} is not made");
            admin.delete_topics(&[topic], &options).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        soon(says, || {
            let attempt = store.log().attempt();
            attempt.is_err_and(|why| why.contains(says) && why.contains("made anew"))
        })
        .await;
        close(store).await;
    }
}
