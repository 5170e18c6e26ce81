//! The past through the relay's door: many readers of it, and brokers that are away.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use proto::query::query_client::QueryClient;
use proto::query::watch_reply::Is;
use proto::query::{WatchReply, WatchRequest};
use tokio::time::timeout;
use tonic::{Code, Status, Streaming};

use crate::ground::{Ground, LONG, append, close, fill, soon};
use crate::program::Program;
use crate::servers::Kafka;
use crate::support::channel;

/// What a relay has consumers for.
const CONSUMERS: usize = 16;
/// How long a reader of the past waits for brokers, and then some.
const PATIENCE: Duration = Duration::from_secs(12);

async fn watch(relay: &Program, request: WatchRequest) -> Result<Streaming<WatchReply>, Status> {
    let mut door = QueryClient::new(channel(relay.feed()).await);
    Ok(door.watch(request).await?.into_inner())
}

/// Everything from a place on, which is how many events.
async fn past(relay: &Program, from_sequence: u64) -> Result<u64, Status> {
    let request = WatchRequest {
        from_sequence,
        ..Default::default()
    };
    let (mut replies, mut events) = (watch(relay, request).await?, 0);
    while let Some(reply) = replies.message().await? {
        match reply.is {
            Some(Is::Event(_)) => events += 1,
            other => panic!("{other:?}"),
        }
    }
    Ok(events)
}

/// What happens, from the moment on when this returns.
async fn live(relay: &Program) -> Streaming<WatchReply> {
    let request = WatchRequest {
        follow: true,
        complete: true,
        ..Default::default()
    };
    let mut replies = watch(relay, request).await.unwrap();
    let first = replies.message().await.unwrap().unwrap();
    assert_eq!(first.is, Some(Is::Live(true)));
    replies
}

/// Counts what comes, until it ends.
fn count(mut replies: Streaming<WatchReply>) -> Arc<AtomicU64> {
    let events = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&events);
    tokio::spawn(async move {
        while let Ok(Some(reply)) = replies.message().await {
            let is_event = matches!(reply.is, Some(Is::Event(_)));
            counted.fetch_add(u64::from(is_event), Ordering::Relaxed);
        }
    });
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_the_past_share_a_few_consumers_which_go_when_nobody_reads() {
    let Some(kafka) = Kafka::start("relay kafka_log consumers") else {
        return;
    };
    let store = Ground::topic(&kafka.brokers(), "cresset-log").open().await;
    fill(&store, 1..=100).await;
    for sensor in 2..=8 {
        append(&store, sensor, 1..=200).await;
    }
    close(store).await;
    let relay = Program::new(&kafka.brokers(), "sinks: {}\n");
    let before = relay.clients();
    let readers = (0..60).map(|n| past(&relay, 1 + 20 * n));
    let mut reading = Box::pin(futures::future::join_all(readers));
    let mut most = 0;
    let read = loop {
        match timeout(Duration::from_millis(20), &mut reading).await {
            Ok(read) => break read,
            Err(_) => most = most.max(relay.clients() - before),
        }
    };
    for (n, read) in (0..).zip(read) {
        assert_eq!(read.unwrap(), 1500 - 20 * n);
    }
    assert!((1..=CONSUMERS).contains(&most), "{most} consumers");
    soon("unused consumers are closed", || relay.clients() <= before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_brokers_the_past_is_refused_soon_and_who_is_live_waits_until_they_are_back() {
    let Some(mut kafka) = Kafka::start("relay kafka_log no brokers") else {
        return;
    };
    let other = Ground::topic(&kafka.brokers(), "cresset-log");
    let store = other.open().await;
    append(&store, 2, 1..=10).await;
    let relay = Program::new(&kafka.brokers(), "sinks: {}\n");
    let idle = count(live(&relay).await);
    // Behind all that is in memory by the time it reads on.
    let late = live(&relay).await;
    fill(&store, 1..=200).await;
    soon("the other one has all of it", || {
        idle.load(Ordering::Relaxed) == 200
    })
    .await;
    kafka.kill();

    let late = count(late);
    let began = Instant::now();
    let refused = timeout(LONG, past(&relay, 1)).await.unwrap().unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    let why = refused.message();
    assert!(
        why.contains(&kafka.brokers()) && why.contains("see that they run"),
        "{why}"
    );
    // However many ask: they do not wait one after the other.
    let asked = futures::future::join_all((0..200).map(|_| past(&relay, 1)));
    for refused in timeout(LONG, asked).await.unwrap() {
        assert_eq!(refused.unwrap_err().code(), Code::Unavailable);
    }
    // Whoever is live has waited in vain at least once by now.
    tokio::time::sleep(PATIENCE.saturating_sub(began.elapsed())).await;
    assert!(late.load(Ordering::Relaxed) < 200);

    kafka.restart();
    soon("it goes on by itself", || {
        late.load(Ordering::Relaxed) == 200
    })
    .await;
    append(&store, 3, 1..=10).await;
    soon("and both get what is new", || {
        let both = [&idle, &late].map(|events| events.load(Ordering::Relaxed));
        both == [210, 210]
    })
    .await;
    assert_eq!(past(&relay, 1).await.unwrap(), 220);
    close(store).await;
}
