//! Where a sink goes on after a restart, and how it ends before one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::scene::{Fake, Scene, accounted, soon, status_of};

#[tokio::test]
async fn the_cursor_stays_at_the_lowest_event_that_is_not_finished() {
    let scene = Scene::new();
    let life = scene.life();
    life.append(1..=8).await;
    let fake = Fake::takes_all().with_concurrency(4).holding(3);
    let fanout = life.feed([("siem", "batch: {max_events: 2}", fake.clone())]);
    soon(|| fake.taken().len() == 6 && status_of(&fanout, "siem").position == 3).await;
    let mut taken = fake.taken();
    taken.sort_unstable();
    assert_eq!(taken, [1, 2, 5, 6, 7, 8]);
    life.abandon(fanout).await;

    // The next life begins there: what was finished beyond comes again, nothing is left out.
    let life = scene.life();
    let fake = Fake::takes_all();
    let fanout = life.feed([("siem", "", fake.clone())]);
    soon(|| status_of(&fanout, "siem").pending == 0).await;
    assert_eq!(fake.taken(), [3, 4, 5, 6, 7, 8]);
    assert_eq!(status_of(&fanout, "siem").delivered, 8);
    life.end(fanout).await;
}

#[tokio::test]
async fn after_a_drain_nothing_is_sent_twice() {
    let scene = Scene::new();
    for (start, end) in [(1, 40), (41, 80)] {
        let life = scene.life();
        let fake = Fake::takes_all();
        let fanout = life.feed([(
            "siem",
            "batch: {max_events: 7, max_delay: 10s}",
            fake.clone(),
        )]);
        life.append(start..=end).await;
        life.end(fanout).await;
        assert_eq!(fake.taken(), (start..=end).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_new_sink_begins_with_the_next_event_unless_told_otherwise() {
    let scene = Scene::new();
    let life = scene.life();
    life.append(1..=5).await;
    let (end, beginning) = (Fake::takes_all(), Fake::takes_all());
    let fanout = life.feed([
        ("end", "start: end", end.clone()),
        ("beginning", "start: beginning", beginning.clone()),
    ]);
    life.append(6..=7).await;
    soon(|| fanout.status().iter().all(|status| status.pending == 0)).await;
    assert_eq!(end.taken(), [6, 7]);
    assert_eq!(beginning.taken(), [1, 2, 3, 4, 5, 6, 7]);
    life.end(fanout).await;
}

#[tokio::test]
async fn a_sink_taken_out_of_the_settings_holds_nothing_back() {
    let scene = Scene::new();
    let life = scene.life();
    let fanout = life.feed([
        ("stays", "", Fake::takes_all()),
        ("goes", "", Fake::takes_all()),
    ]);
    life.append([1]).await;
    life.end(fanout).await;
    let life = scene.life();
    let fanout = life.feed([("stays", "", Fake::takes_all())]);
    let retired: BTreeMap<String, bool> = life
        .journal
        .stats()
        .cursors
        .into_iter()
        .map(|cursor| (cursor.name, cursor.retired))
        .collect();
    assert_eq!(
        retired,
        BTreeMap::from([("goes".to_owned(), true), ("stays".to_owned(), false)])
    );
    life.end(fanout).await;
}

#[tokio::test]
async fn what_expired_before_a_sink_came_to_it_is_counted() {
    let scene = Scene::new();
    let small = journal::Config {
        segment_bytes: 8 << 10,
        max_size: 32 << 10,
        ..Default::default()
    };
    let life = scene.life_with(small);
    let fake = Fake::takes_all().away();
    let fanout = life.feed([("siem", "batch: {max_events: 10}", fake.clone())]);
    for chunk in 0..50 {
        life.append(chunk * 20 + 1..=chunk * 20 + 20).await;
    }
    assert!(
        life.journal.first().0 > 100,
        "the journal must have dropped something"
    );
    fake.comes_back();
    soon(|| status_of(&fanout, "siem").pending == 0).await;
    let status = status_of(&fanout, "siem");
    assert!(status.expired > 0 && status.delivered > 0, "{status:?}");
    assert_eq!(accounted(&status), 1000);
    assert_eq!(fake.taken().last(), Some(&1000));
    life.end(fanout).await;
}

#[tokio::test]
async fn a_drain_does_not_wait_for_a_sink_that_is_away() {
    let scene = Scene::new();
    let life = scene.life();
    let fake = Fake::takes_all().away();
    let fanout = life.feed([("siem", "retry: {initial: 1h, max: 1h}", fake)]);
    life.append([1]).await;
    soon(|| status_of(&fanout, "siem").state == "retrying").await;
    let start = Instant::now();
    fanout.drain(Duration::from_secs(120)).await;
    assert!(
        start.elapsed() < Duration::from_secs(60),
        "{:?}",
        start.elapsed()
    );
    let status = status_of(&fanout, "siem");
    assert_eq!((status.pending, status.state.as_str()), (1, "stopped"));
    life.close().await;
}

#[tokio::test]
async fn a_drain_ends_in_time_though_a_send_hangs() {
    let scene = Scene::new();
    let life = scene.life();
    let fanout = life.feed([("hung", "", Fake::takes_all().holding(1))]);
    life.append(1..=3).await;
    let start = Instant::now();
    fanout.drain(Duration::from_millis(200)).await;
    assert!(
        start.elapsed() < Duration::from_secs(60),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(status_of(&fanout, "hung").pending, 3);
    life.close().await;
}
