//! What relays on one log know together, and what each of them tells of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use exporters::{Batch, Outcome, Sink, Unavailable};
use proto::query::query_client::QueryClient;
use proto::query::watch_reply::Is;
use proto::query::{WatchRequest, WatchedEvent};
use proto::{EventId, StreamId};
use relay::LogKind;
use relay::ingest::Owners;
use relay::log::Store;

use crate::ground::{Ground, Kept, append, close, soon};
use crate::servers::Kafka;
use crate::support::{Relay, channel, settings};

/// Claims streams for a sensor; those that are another's.
async fn claim(store: &Store, sensor: &'static str, streams: &[StreamId]) -> BTreeSet<StreamId> {
    let owners = Owners::shared(store.log().agreement().unwrap());
    let claimed = owners.claim(sensor, streams).await;
    claimed.unwrap().into_iter().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_one_sensors_at_every_relay_however_close_the_claims_are() {
    let Some(kafka) = Kafka::shared("relay kafka_log owners") else {
        return;
    };
    let ground = Ground::kafka(&kafka.brokers());
    let (one, two) = (ground.open().await, ground.beside().open().await);
    assert_eq!(one.secret(), two.secret());
    let streams: Vec<StreamId> = (0..50).map(|n| StreamId([n; 8])).collect();
    let (lost_by_a, lost_by_b) =
        tokio::join!(claim(&one, "a", &streams), claim(&two, "b", &streams));
    assert_eq!(lost_by_a.len() + lost_by_b.len(), streams.len());
    assert!(
        lost_by_a.is_disjoint(&lost_by_b),
        "somebody has each of them"
    );
    // The same after a restart, at a relay that was not there, and for a third sensor.
    let late = ground.beside().open().await;
    assert_eq!(late.secret(), one.secret());
    assert_eq!(claim(&late, "a", &streams).await, lost_by_a);
    assert_eq!(claim(&late, "b", &streams).await, lost_by_b);
    assert_eq!(claim(&two, "c", &streams).await.len(), streams.len());
    for store in [one, two, late] {
        close(store).await;
    }
}

/// Counts how many batches it is sent at once.
#[derive(Clone, Default)]
struct Crowd {
    kept: Kept,
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

#[async_trait]
impl Sink for Crowd {
    async fn send(&self, batch: Arc<Batch>) -> Result<Vec<Outcome>, Unavailable> {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(5)).await;
        self.now.fetch_sub(1, Ordering::SeqCst);
        self.kept.send(batch).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_has_no_more_batches_under_way_than_it_says_however_many_partitions_feed_it() {
    let Some(kafka) = Kafka::shared("relay kafka_log concurrency") else {
        return;
    };
    let ground = Ground::kafka(&kafka.brokers());
    let store = ground.open().await;
    let crowd = Crowd::default();
    let fanout = ground.feed(&store, Box::new(crowd.clone()));
    for round in 0..10 {
        for sensor in 1..=12 {
            append(&store, sensor, (1..=10).map(|n| round * 10 + n)).await;
        }
    }
    soon("everything is delivered", || crowd.kept.ids().len() >= 1200).await;
    assert_eq!(crowd.most.load(Ordering::SeqCst), 1);
    fanout.drain(Duration::from_secs(30)).await;
    close(store).await;
}

/// Takes nothing, and counts how often it was tried.
#[derive(Clone, Default)]
struct Gone(Arc<AtomicUsize>);

#[async_trait]
impl Sink for Gone {
    async fn send(&self, _: Arc<Batch>) -> Result<Vec<Outcome>, Unavailable> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Err(Unavailable::new("gone"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_is_away_is_tried_once_and_not_once_for_every_partition() {
    let Some(kafka) = Kafka::shared("relay kafka_log away destination") else {
        return;
    };
    let ground = Ground::kafka(&kafka.brokers());
    let store = ground.open().await;
    for sensor in 1..=12 {
        append(&store, sensor, 1..=10).await;
    }
    let gone = Gone::default();
    let fanout = ground.feed_with(&store, Box::new(gone.clone()), "{initial: 9d, max: 9d}");
    soon("all partitions are read", || {
        fanout.status()[0].pending == 120
    })
    .await;
    soon("it is tried", || gone.0.load(Ordering::SeqCst) > 0).await;
    // What another partition would send goes at once.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(gone.0.load(Ordering::SeqCst), 1);
    fanout.drain(Duration::from_secs(5)).await;
    close(store).await;
}

/// A relay on a topic.
async fn on(folder: &std::path::Path, brokers: &str, topic: &str, more: &str) -> Relay {
    let mut config = settings(folder, more);
    config.relay.log.kind = LogKind::Kafka;
    config.relay.log.brokers = vec![brokers.to_owned()];
    config.relay.log.topic = Some(topic.to_owned());
    config.relay.log.partitions = Some(4);
    Relay::with(config).await
}

async fn watch(relay: &Relay, request: WatchRequest) -> Vec<WatchedEvent> {
    let mut client = QueryClient::new(channel(relay.at.feed).await);
    let mut replies = client.watch(request).await.unwrap().into_inner();
    let mut events = Vec::new();
    while let Some(reply) = replies.message().await.unwrap() {
        match reply.is {
            Some(Is::Event(event)) => events.push(event),
            Some(Is::Gap(gap)) => panic!("nothing is missing: {gap:?}"),
            _ => {}
        }
    }
    events
}

fn ids(events: &[WatchedEvent]) -> BTreeSet<EventId> {
    let ids = events.iter().map(|event| EventId::try_from(&event.id[..]));
    ids.collect::<Result<_, _>>().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_goes_on_at_another_relay_and_misses_nothing() {
    let Some(kafka) = Kafka::shared("relay kafka_log tokens") else {
        return;
    };
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let brokers = kafka.brokers();
    let here = on(folders[0].path(), &brokers, "tokens", "").await;
    let there = on(folders[1].path(), &brokers, "tokens", "").await;
    let all = |limit| WatchRequest {
        since_ns: 1,
        limit,
        ..Default::default()
    };
    // Sensors in partitions of their own; what comes in rounds is in blocks of its own.
    let mut sensors = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        sensors.push(here.welcomed(name).await.0);
    }
    for round in 0..8_usize {
        for (sensor, place) in sensors.iter_mut().zip(0_u64..) {
            let first = 1 + 10_000 * place + 20 * round as u64;
            sensor.batch(first, 20).await;
            assert_eq!(sensor.ack().await.up_to, first + 19);
        }
        let both = [&here, &there];
        for relay in both {
            let deadline = std::time::Instant::now() + crate::ground::LONG;
            while watch(relay, all(0)).await.len() < 100 * (round + 1) {
                assert!(std::time::Instant::now() < deadline, "round {round}");
            }
        }
    }
    let whole = ids(&watch(&here, all(0)).await);
    assert_eq!(whole.len(), 800);
    for read in [1, 130, 399, 650, 800] {
        let seen = watch(&here, all(read)).await;
        let resume = WatchRequest {
            resume: seen.last().unwrap().resume.clone(),
            ..Default::default()
        };
        let rest = watch(&here, resume.clone()).await;
        assert_eq!(
            rest.len(),
            800 - read as usize,
            "at the same relay it goes on exactly"
        );
        let rest = watch(&there, resume).await;
        let both: BTreeSet<EventId> = ids(&seen).union(&ids(&rest)).copied().collect();
        assert_eq!(both, whole, "after {read}");
        let again = seen.len() + rest.len() - 800;
        assert!(
            again <= 200,
            "{again} come again after {read}: more than two rounds"
        );
    }
    there.stop().await;
    here.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_die_while_nobody_writes_make_the_relay_unready_until_they_are_back() {
    let Some(mut kafka) = Kafka::start("relay kafka_log unready") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let relay = on(folder.path(), &kafka.brokers(), "unready", "").await;
    relay.metric_is("cresset_ready", 1.0).await;
    kafka.kill();
    relay.metric_is("cresset_ready", 0.0).await;
    let (head, body) = relay.get("/readyz").await;
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    assert!(body.contains("log: topic unready of 127.0.0.1"), "{body}");
    kafka.restart();
    relay.metric_is("cresset_ready", 1.0).await;
    assert_eq!(relay.metric("cresset_journal_refusals_total").await, 1.0);
    relay.stop().await;
}
