//! What holds of every log.

use std::collections::BTreeSet;
use std::time::Duration;

use journal::Seq;
use proto::EventId;

use crate::ground::{Ground, Kept, append, close, id, read, soon};
use crate::servers::Kafka;

/// The contract on a journal, and on a broker if one can be had.
async fn on_both<F: Future<Output = ()>>(suite: &str, holds: impl Fn(Ground) -> F) {
    holds(Ground::journal()).await;
    if let Some(kafka) = Kafka::shared(suite) {
        holds(Ground::kafka(&kafka.brokers())).await;
    }
}

fn sorted(ids: &[EventId]) -> BTreeSet<EventId> {
    ids.iter().copied().collect()
}

/// Every sensor's own events, in the order in which they stand.
fn of(ids: &[EventId], sensor: u8) -> Vec<u64> {
    let own = ids.iter().filter(|one| one.stream == id(sensor, 1).stream);
    own.map(|one| one.sequence).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_read_once_and_in_the_order_of_its_sensor() {
    on_both("relay kafka_log order", |ground| async move {
        let store = ground.open().await;
        let view = store.view();
        let begin = view.committed().next();
        for round in 0..5 {
            for sensor in 1..=6 {
                append(&store, sensor, (1..=20).map(|n| round * 20 + n)).await;
            }
        }
        for ids in [
            read(&view, begin, 600).await,
            read(&view, view.first(), 600).await,
        ] {
            assert_eq!((ids.len(), sorted(&ids).len()), (600, 600));
            for sensor in 1..=6 {
                assert_eq!(of(&ids, sensor), (1..=100).collect::<Vec<_>>());
            }
        }
        close(store).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_a_restart() {
    on_both("relay kafka_log restart", |ground| async move {
        for round in 0..3_u64 {
            let store = ground.open().await;
            append(&store, 1, (1..=50).map(|n| round * 50 + n)).await;
            append(&store, 2, (1..=50).map(|n| round * 50 + n)).await;
            let count = 100 * (usize::try_from(round).unwrap() + 1);
            let ids = read(&store.view(), store.view().first(), count).await;
            assert_eq!((ids.len(), sorted(&ids).len()), (count, count));
            let all: Vec<u64> = (1..=50 * (round + 1)).collect();
            assert_eq!((of(&ids, 1), of(&ids, 2)), (all.clone(), all));
            close(store).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_in_the_middle_is_found_again_from_there_on() {
    on_both("relay kafka_log places", |ground| async move {
        let store = ground.open().await;
        let view = store.view();
        let begin = view.committed().next();
        for sensor in 1..=4 {
            append(&store, sensor, 1..=30).await;
        }
        let all = read(&view, begin, 120).await;
        for passed in [1, 17, 60, 119] {
            let rest = read(&view, Seq(begin.0 + passed as u64), 120 - passed).await;
            assert_eq!(rest, all[passed..], "after {passed}");
        }
        close(store).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_finds_what_was_kept_since() {
    on_both("relay kafka_log times", |ground| async move {
        let store = ground.open().await;
        for sensor in 1..=3 {
            append(&store, sensor, 1..=10).await;
        }
        // Kafka keeps milliseconds, and a second more is read.
        tokio::time::sleep(Duration::from_millis(2500)).await;
        let since = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
        tokio::time::sleep(Duration::from_millis(20)).await;
        for sensor in 1..=3 {
            append(&store, sensor, 11..=15).await;
        }
        let view = store.view();
        let last = view.first().0 + 44;
        soon("the view has all", || view.committed().0 == last).await;
        let committed = view.committed();
        let seeking = store.view();
        let found = tokio::task::spawn_blocking(move || {
            let seek = |time| seeking.seek_time(time).unwrap();
            (seek(since), seek(0), seek(u64::MAX))
        });
        let (from, oldest, end) = found.await.unwrap();
        assert_eq!((oldest, end), (view.first(), committed.next()));
        let ids = read(&view, from, 15).await;
        assert_eq!((ids.len(), of(&ids, 2)), (15, (11..=15).collect()));
        close(store).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_gets_every_event_once_and_goes_on_where_it_was() {
    on_both("relay kafka_log sinks", |ground| async move {
        let mut begin = 1;
        for _ in 0..3 {
            let store = ground.open().await;
            let kept = Kept::default();
            let fanout = ground.feed(&store, Box::new(kept.clone()));
            for sensor in 1..=4 {
                append(&store, sensor, begin..begin + 25).await;
            }
            soon("a hundred events", || kept.ids().len() >= 100).await;
            fanout.drain(Duration::from_secs(30)).await;
            let status = &fanout.status()[0];
            assert_eq!((status.pending, status.delivered % 100), (0, 0));
            let ids = kept.ids();
            assert_eq!((ids.len(), sorted(&ids).len()), (100, 100));
            for sensor in 1..=4 {
                assert_eq!(of(&ids, sensor), (begin..begin + 25).collect::<Vec<_>>());
            }
            close(store).await;
            begin += 25;
        }
    })
    .await;
}
