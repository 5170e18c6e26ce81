//! Brokers that are away: who waits for them holds up nobody else, and the end of the relay not at all.

use std::time::{Duration, Instant};

use journal::Seq;
use proto::StreamId;
use relay::ingest::Owners;
use relay::log::Reader;

use crate::ground::{Ground, LONG, close, fill};
use crate::servers::Kafka;

/// A runtime with few threads for what blocks.
fn narrow() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(4)
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn claims_that_wait_for_brokers_take_no_thread_from_others_and_say_why_they_failed() {
    narrow().block_on(async {
        let Some(mut kafka) = Kafka::start("relay kafka_log claims") else {
            return;
        };
        let store = Ground::kafka(&kafka.brokers()).open().await;
        let owners = Owners::shared(store.log().agreement().unwrap());
        let claim = |n: u8| {
            let owners = owners.clone();
            async move {
                owners
                    .claim(&format!("sensor-{n}"), &[StreamId([n; 8])])
                    .await
            }
        };
        kafka.kill();
        let claims: Vec<_> = (0..200).map(|n| tokio::spawn(claim(n))).collect();
        for _ in 0..20 {
            tokio::task::yield_now().await;
            tokio::task::spawn_blocking(|| ()).await.unwrap();
        }
        assert!(
            !claims.iter().any(|claim| claim.is_finished()),
            "others had their threads before any claim gave one back"
        );
        for claim in claims {
            let why = claim.await.unwrap().unwrap_err().to_string();
            assert!(why.contains(".relays: "), "{why}");
        }
        kafka.restart();
        let deadline = Instant::now() + LONG;
        while let Err(why) = claim(7).await {
            assert!(Instant::now() < deadline, "{why}");
        }
        let other = owners.claim("another", &[StreamId([7; 8])]).await;
        assert_eq!(other.unwrap(), [StreamId([7; 8])]);
        close(store).await;
    });
}

/// Reads until it cannot, and says why.
fn read_to_the_end(mut reader: Box<dyn Reader>) -> String {
    loop {
        match reader.next(1) {
            Ok(block) => assert!(!block.is_empty(), "there is more"),
            Err(why) => return why.to_string(),
        }
    }
}

#[test]
fn readers_of_the_past_that_wait_for_brokers_end_with_the_relay_however_many_they_are() {
    let runtime = narrow();
    runtime.block_on(async {
        let Some(mut kafka) = Kafka::start("relay kafka_log stop") else {
            return;
        };
        let ground = Ground::kafka(&kafka.brokers());
        let store = ground.open().await;
        // More than a reader has in advance: it has to ask the broker for the rest.
        fill(&store, 1..=100).await;
        close(store).await;
        // All of that is the past of this one.
        let store = ground.open().await;
        let view = store.view();
        let begin = move || {
            let mut reader = view.reader(Seq(1));
            assert!(!reader.next(1).unwrap().is_empty());
            reader
        };
        let readers: Vec<_> = (0..12)
            .map(|_| tokio::task::spawn_blocking(begin.clone()))
            .collect();
        let mut begun = Vec::new();
        for reader in readers {
            begun.push(reader.await.unwrap());
        }
        kafka.kill();
        let ends = begun
            .into_iter()
            .map(|reader| tokio::task::spawn_blocking(|| read_to_the_end(reader)));
        let ends: Vec<_> = ends.collect();
        tokio::time::sleep(Duration::from_millis(500)).await;
        // Not in the pool, which is full.
        std::thread::spawn(move || store.close()).join().unwrap();
        for end in ends {
            let why = end.await.unwrap();
            assert!(why.contains("the relay is stopping"), "{why}");
        }
    });
}
