//! What reaches a sink, whatever the others do.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use exporters::Outcome;

use crate::scene::{Fake, Scene, accounted, event, soon, status_of};

#[tokio::test]
async fn every_sink_gets_every_event_in_order_and_its_account_adds_up() {
    let scene = Scene::new();
    let life = scene.life();
    let (a, b) = (Fake::takes_all(), Fake::takes_all());
    let fanout = life.feed([("a", "", a.clone()), ("b", "", b.clone())]);
    for chunk in 0..10 {
        life.append(chunk * 100 + 1..=chunk * 100 + 100).await;
    }
    soon(|| {
        fanout
            .status()
            .iter()
            .all(|status| status.delivered == 1000)
    })
    .await;
    let all: Vec<u64> = (1..=1000).collect();
    assert_eq!((a.taken(), b.taken()), (all.clone(), all));
    let status = status_of(&fanout, "a");
    assert_eq!(
        (status.position, status.pending, status.state.as_str()),
        (1001, 0, "running")
    );
    assert_eq!((status.r#type.as_str(), accounted(&status)), ("fake", 1000));
    life.end(fanout).await;
}

#[tokio::test]
async fn sinks_share_the_json_of_an_event() {
    let scene = Scene::new();
    let life = scene.life();
    let (a, b) = (Fake::takes_all(), Fake::takes_all());
    let fanout = life.feed([("a", "", a.clone()), ("b", "", b.clone())]);
    life.append(1..=50).await;
    soon(|| fanout.status().iter().all(|status| status.delivered == 50)).await;
    assert_eq!(*a.inner.json.lock().unwrap(), *b.inner.json.lock().unwrap());
    life.end(fanout).await;
}

/// Events that come one by one: a wake of every sink for each of them would cost more than they do.
#[tokio::test]
async fn at_the_end_of_the_log_events_are_read_together() {
    let scene = Scene::new();
    let life = scene.life();
    let sink = Fake::takes_all();
    let fanout = life.feed([("a", "batch: {max_delay: 0s}", sink.clone())]);
    let begun = Instant::now();
    for number in 1..=200 {
        life.append([number]).await;
    }
    soon(|| status_of(&fanout, "a").delivered == 200).await;
    let (took, batches) = (begun.elapsed(), sink.batches().len());
    let most = took.as_millis() / 10 + 2;
    assert!(batches as u128 <= most, "{batches} batches in {took:?}");
    life.end(fanout).await;
}

#[tokio::test]
async fn what_the_filter_leaves_out_is_counted_and_not_sent() {
    let scene = Scene::new();
    let life = scene.life();
    let even = Fake::takes_all();
    let fanout = life.feed([("even", "filter: {namespaces: [even]}", even.clone())]);
    life.append(1..=11).await;
    soon(|| status_of(&fanout, "even").pending == 0).await;
    assert_eq!(even.taken(), [2, 4, 6, 8, 10]);
    let status = status_of(&fanout, "even");
    assert_eq!((status.delivered, status.filtered), (5, 6));
    life.end(fanout).await;
}

#[tokio::test]
async fn batches_keep_to_their_bounds() {
    let scene = Scene::new();
    let life = scene.life();
    life.append(1..=10).await;
    let by_count = Fake::takes_all();
    let largest = event(10).payload.len();
    let by_bytes = Fake::takes_all();
    let fanout = life.feed([
        ("count", "batch: {max_events: 4}", by_count.clone()),
        (
            "bytes",
            &format!("batch: {{max_bytes: {}}}", 2 * largest),
            by_bytes.clone(),
        ),
    ]);
    soon(|| fanout.status().iter().all(|status| status.pending == 0)).await;
    let sizes = |fake: &Fake| fake.batches().iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(sizes(&by_count), [4, 4, 2]);
    assert_eq!(sizes(&by_bytes), [2, 2, 2, 2, 2]);
    life.end(fanout).await;
}

#[tokio::test]
async fn a_batch_that_is_not_full_goes_after_its_delay() {
    // A machine that holds the second event up for longer than the delay is asked again.
    for _ in 0..10 {
        let scene = Scene::new();
        let life = scene.life();
        let fake = Fake::takes_all();
        let settings = "batch: {max_events: 100, max_delay: 300ms}";
        let fanout = life.feed([("slow", settings, fake.clone())]);
        let start = Instant::now();
        life.append([1]).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        life.append([2]).await;
        let both_in = start.elapsed();
        soon(|| status_of(&fanout, "slow").delivered == 2).await;
        let (took, batches) = (start.elapsed(), fake.batches());
        life.end(fanout).await;
        assert!(took >= Duration::from_millis(290), "{took:?}");
        if both_in < Duration::from_millis(200) {
            assert_eq!(batches, [[1, 2]]);
            return;
        }
    }
    panic!("no two events came within the delay");
}

#[tokio::test]
async fn a_sink_that_hangs_in_a_send_holds_up_nobody() {
    let scene = Scene::new();
    let life = scene.life();
    let (hung, free) = (Fake::takes_all().holding(1), Fake::takes_all());
    let fanout = life.feed([("hung", "", hung.clone()), ("free", "", free.clone())]);
    life.append(1..=100).await;
    soon(|| status_of(&fanout, "free").delivered == 100).await;
    let status = status_of(&fanout, "hung");
    assert_eq!(
        (status.delivered, status.pending, status.position),
        (0, 100, 1)
    );
    hung.lets_go();
    soon(|| status_of(&fanout, "hung").delivered == 100).await;
    life.end(fanout).await;
}

#[tokio::test]
async fn a_hundred_thousand_events_go_through_to_the_end_beside_sinks_that_hang_fail_and_dawdle() {
    const EVENTS: u64 = 100_000;
    let scene = Scene::new();
    let life = scene.life();
    let (hung, dead) = (Fake::takes_all().holding(1), Fake::takes_all().away());
    // It takes an event only when it comes for the third time.
    let slow = Fake::that(|_, attempt| match attempt {
        0 | 1 => Outcome::Retry {
            after: None,
            reason: "429".to_owned(),
        },
        _ => Outcome::Done,
    });
    let (a, b) = (Fake::takes_all(), Fake::takes_all());
    let fanout = life.feed([
        ("hung", "", hung.clone()),
        ("a", "", a.clone()),
        ("dead", "", dead.clone()),
        ("slow", "batch: {max_events: 10}", slow.clone()),
        ("b", "", b.clone()),
    ]);
    for chunk in 0..EVENTS / 1000 {
        life.append(chunk * 1000 + 1..=chunk * 1000 + 1000).await;
    }
    soon(|| {
        ["a", "b"]
            .iter()
            .all(|sink| status_of(&fanout, sink).delivered == EVENTS)
    })
    .await;
    let all: Vec<u64> = (1..=EVENTS).collect();
    assert!(a.taken() == all && b.taken() == all);
    for sink in ["hung", "dead"] {
        let status = status_of(&fanout, sink);
        assert_eq!(
            (status.delivered, status.pending, status.position),
            (0, EVENTS, 1),
            "{sink}"
        );
    }
    assert!(
        status_of(&fanout, "slow").pending > 0,
        "the slow one kept up"
    );

    hung.lets_go();
    dead.comes_back();
    soon(|| {
        ["hung", "dead"]
            .iter()
            .all(|sink| status_of(&fanout, sink).delivered == EVENTS)
    })
    .await;
    assert!(hung.taken() == all && dead.taken() == all);
    life.abandon(fanout).await;
}

#[tokio::test]
async fn a_sink_far_behind_the_others_misses_nothing_on_its_way_back() {
    let scene = Scene::new();
    let life = scene.life();
    let (slow, fast) = (Fake::takes_all().holding(1), Fake::takes_all());
    let fanout = life.feed([("slow", "", slow.clone()), ("fast", "", fast.clone())]);
    // 24 MiB: three times what is kept in memory for the sinks at the end.
    for chunk in 0..30 {
        life.append_large(chunk * 100 + 1..=chunk * 100 + 100).await;
    }
    soon(|| status_of(&fanout, "fast").delivered == 3000).await;
    slow.lets_go();
    soon(|| status_of(&fanout, "slow").delivered == 3000).await;
    life.append(3001..=3010).await;
    soon(|| {
        fanout
            .status()
            .iter()
            .all(|status| status.delivered == 3010)
    })
    .await;
    assert_eq!(slow.taken(), (1..=3010).collect::<Vec<_>>());
    assert_eq!(fast.taken(), slow.taken());
    life.end(fanout).await;
}

#[tokio::test]
async fn a_sink_that_is_away_gets_everything_once_it_is_back() {
    let scene = Scene::new();
    let life = scene.life();
    let fake = Fake::takes_all().away();
    let fanout = life.feed([("siem", "", fake.clone())]);
    life.append(1..=20).await;
    soon(|| status_of(&fanout, "siem").state == "retrying").await;
    let status = status_of(&fanout, "siem");
    assert_eq!(
        (status.last_error.as_str(), status.delivered),
        ("connection refused", 0)
    );
    assert!(status.last_error_unix > 0);
    life.append(21..=30).await;
    fake.comes_back();
    soon(|| status_of(&fanout, "siem").delivered == 30).await;
    assert_eq!(fake.taken(), (1..=30).collect::<Vec<_>>());
    soon(|| status_of(&fanout, "siem").state == "running").await;
    life.end(fanout).await;
}

#[tokio::test]
async fn a_sink_that_panics_is_tried_again_and_the_others_go_on() {
    let scene = Scene::new();
    let life = scene.life();
    let (bad, good) = (Fake::takes_all(), Fake::takes_all());
    bad.inner.panics.store(true, Ordering::SeqCst);
    let fanout = life.feed([("bad", "", bad.clone()), ("good", "", good.clone())]);
    life.append(1..=5).await;
    soon(|| fanout.status().iter().all(|status| status.delivered == 5)).await;
    assert!(status_of(&fanout, "bad").last_error.contains("panicked"));
    life.end(fanout).await;
}
