//! What becomes of events that a destination does not take at once.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use exporters::Outcome;
use journal::{Journal, RealDisk, Seq};
use relay::fanout::DeadLetter;

use crate::scene::{Fake, Scene, event, number, soon, status_of};

#[tokio::test]
async fn only_the_event_that_must_be_sent_again_is_sent_again() {
    let scene = Scene::new();
    let life = scene.life();
    let fake = Fake::that(|event, attempt| match (number(event), attempt) {
        (3, 0 | 1) => Outcome::Retry {
            after: None,
            reason: "429 too many requests".to_owned(),
        },
        _ => Outcome::Done,
    });
    life.append(1..=5).await;
    let fanout = life.feed([("siem", "", fake.clone())]);
    soon(|| status_of(&fanout, "siem").delivered == 5).await;
    assert_eq!(fake.batches(), [vec![1, 2, 3, 4, 5], vec![3], vec![3]]);
    soon(|| status_of(&fanout, "siem").state == "running").await;
    life.shows(r#"cresset_sink_retries_total{sink="siem",type="fake"} 2"#);
    life.end(fanout).await;
}

#[tokio::test]
async fn a_sick_destination_gets_repeats_within_a_budget_and_in_the_end_everything() {
    let scene = Scene::new();
    let life = scene.life();
    let sick = Arc::new(AtomicBool::new(true));
    let busy = Arc::clone(&sick);
    let fake = Fake::that(move |_, _| match busy.load(Ordering::Relaxed) {
        true => Outcome::Retry {
            after: None,
            reason: "429 too many requests".to_owned(),
        },
        false => Outcome::Done,
    });
    life.append(1..=40).await;
    let began = std::time::Instant::now();
    let settings = "batch: {max_events: 1, max_delay: 1ms}, retry: {initial: 10ms, max: 2s}";
    let fanout = life.feed([("siem", settings, fake.clone().with_concurrency(8))]);
    let none = r#"cresset_sink_retries_held_total{sink="siem",type="fake"} 0"#;
    soon(|| !life.scrape().lines().any(|line| line == none)).await;
    // A hundred in ten seconds, and one every two; the first attempts, and those on their way, besides.
    let tens = 1 + began.elapsed().as_secs() / 10;
    let (sent, most) = (fake.batches().len() as u64, 105 * tens + 16 + 16);
    assert!(sent <= most, "{sent} batches, {most} at most");
    sick.store(false, Ordering::Relaxed);
    soon(|| status_of(&fanout, "siem").delivered == 40).await;
    life.end(fanout).await;
}

#[tokio::test]
async fn a_refused_event_is_a_dead_letter_on_disk_and_the_others_are_delivered() {
    let scene = Scene::new();
    let life = scene.life();
    let fake = Fake::that(|event, _| match number(event) {
        2 | 4 => Outcome::Reject {
            reason: format!("400 mapper_parsing_exception {}", number(event)),
        },
        _ => Outcome::Done,
    });
    let fanout = life.feed([("siem", "", fake)]);
    assert!(!scene.path("dead-letters").exists());
    life.append(1..=5).await;
    soon(|| status_of(&fanout, "siem").pending == 0).await;
    let status = status_of(&fanout, "siem");
    assert_eq!((status.delivered, status.dead_lettered), (3, 2));
    life.shows(r#"cresset_sink_dead_letters{sink="siem",type="fake"} 2"#);
    life.end(fanout).await;
    assert_eq!(
        dead_letters(&scene.path("dead-letters/siem")),
        [2, 4].map(|n| DeadLetter {
            sequence: n,
            reason: format!("400 mapper_parsing_exception {n}"),
            event: event(n)
        })
    );
}

fn dead_letters(path: &Path) -> Vec<DeadLetter> {
    let disk = RealDisk::open(path).unwrap();
    let (journal, _) =
        Journal::open(Arc::new(disk), journal::Config::default(), Box::new(())).unwrap();
    let block = journal.reader(Seq(1)).next(1 << 20).unwrap();
    journal.close();
    block
        .entries
        .iter()
        .map(|entry| DeadLetter::read(entry).unwrap())
        .collect()
}

#[tokio::test]
async fn the_cursor_waits_for_dead_letters_that_cannot_be_written() {
    let scene = Scene::new();
    let life = scene.life();
    fs::write(scene.path("dead-letters"), "a file where a folder must be").unwrap();
    let fake = Fake::that(|event, _| match number(event) {
        2 => Outcome::Reject {
            reason: "no".to_owned(),
        },
        _ => Outcome::Done,
    });
    let fanout = life.feed([("siem", "", fake)]);
    life.append(1..=3).await;
    soon(|| {
        status_of(&fanout, "siem")
            .last_error
            .contains("dead letters cannot be written")
    })
    .await;
    soon(|| status_of(&fanout, "siem").position == 2).await;
    fs::remove_file(scene.path("dead-letters")).unwrap();
    soon(|| status_of(&fanout, "siem").pending == 0).await;
    let status = status_of(&fanout, "siem");
    assert_eq!((status.delivered, status.dead_lettered), (2, 1));
    life.end(fanout).await;
}

fn refuse() -> Outcome {
    Outcome::Refuse {
        reason: "HTTP 400 Bad Request: no such field".to_owned(),
    }
}

#[tokio::test]
async fn a_destination_that_refuses_everything_waits_and_nothing_is_a_dead_letter() {
    let scene = Scene::new();
    let life = scene.life();
    let mended = Arc::new(AtomicBool::new(false));
    let here = Arc::clone(&mended);
    let fake = Fake::that(move |_, _| match here.load(Ordering::Relaxed) {
        true => Outcome::Done,
        false => refuse(),
    });
    life.append(1..=30).await;
    let fanout = life.feed([("siem", "batch: {max_events: 5}", fake.clone())]);
    // The oldest batch is tried again and again, and others beside it.
    soon(|| fake.batches().iter().filter(|b| b[0] == 1).count() > 4).await;
    soon(|| fake.batches().iter().any(|b| b[0] == 6)).await;
    let status = status_of(&fanout, "siem");
    assert_eq!((status.dead_lettered, status.position), (0, 1));
    assert_eq!(status.state, "retrying");
    for words in ["refuses every event", "no such field", "cresset sink skip"] {
        assert!(status.last_error.contains(words), "{}", status.last_error);
    }
    // Whatever is held: a bounded number of batches.
    assert!(fake.batches().iter().all(|b| b[0] <= 21));
    mended.store(true, Ordering::Relaxed);
    soon(|| status_of(&fanout, "siem").delivered == 30).await;
    assert_eq!(status_of(&fanout, "siem").dead_lettered, 0);
    life.end(fanout).await;
}

#[tokio::test]
async fn a_batch_of_nothing_but_bad_events_does_not_hold_up_a_destination_that_takes_others() {
    for bad in [1..=5, 6..=10, 1..=15] {
        let scene = Scene::new();
        let life = scene.life();
        let evil = bad.clone();
        let fake = Fake::that(move |event, _| match evil.contains(&number(event)) {
            true => refuse(),
            false => Outcome::Done,
        });
        life.append(1..=30).await;
        let fanout = life.feed([("siem", "batch: {max_events: 5}", fake.clone())]);
        soon(|| status_of(&fanout, "siem").pending == 0).await;
        let status = status_of(&fanout, "siem");
        let dead = bad.count() as u64;
        assert_eq!((status.dead_lettered, status.delivered), (dead, 30 - dead));
        life.end(fanout).await;
    }
}

#[tokio::test]
async fn one_bad_event_is_asked_twice_more_and_is_a_dead_letter_also_in_a_drain() {
    let scene = Scene::new();
    let life = scene.life();
    let fake = Fake::that(|event, _| match number(event) {
        3 | 13 => refuse(),
        _ => Outcome::Done,
    });
    let fanout = life.feed([("siem", "batch: {max_events: 5}", fake.clone())]);
    life.append(1..=5).await;
    soon(|| status_of(&fanout, "siem").dead_lettered == 1).await;
    assert_eq!(fake.batches(), [vec![1, 2, 3, 4, 5], vec![3], vec![3]]);
    let fake = fake.holding(13);
    life.append(6..=20).await;
    let meanwhile = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        fake.lets_go();
    };
    tokio::join!(fanout.drain(Duration::from_secs(20)), meanwhile);
    let status = status_of(&fanout, "siem");
    assert_eq!((status.delivered, status.dead_lettered), (18, 2));
    life.close().await;
}

#[tokio::test]
async fn a_destination_that_refuses_what_it_takes_a_moment_later_costs_no_dead_letters() {
    for unlucky in [1, 2, 5] {
        let scene = Scene::new();
        let life = scene.life();
        // Every third event comes to a server that refuses everything, so often; event 8 is bad wherever it comes to.
        let fake = Fake::that(move |event, attempt| match number(event) {
            8 => refuse(),
            n if n.is_multiple_of(3) && attempt < if n == 3 { 1 } else { unlucky } => refuse(),
            _ => Outcome::Done,
        });
        life.append(1..=60).await;
        let fanout = life.feed([("siem", "batch: {max_events: 4}", fake.clone())]);
        soon(|| status_of(&fanout, "siem").pending == 0).await;
        let status = status_of(&fanout, "siem");
        assert_eq!(
            (status.delivered, status.dead_lettered),
            (59, 1),
            "{unlucky}"
        );
        let asked = fake.taken().iter().filter(|n| **n == 8).count();
        assert_eq!(asked, 8, "it contradicts itself, so it is asked often");
        // Who is asked so often hears why.
        let said = "more than one server behind its address";
        let told = status.last_error.contains(said);
        assert_eq!(told, unlucky == 5, "{}", status.last_error);
        life.end(fanout).await;
    }
}

#[tokio::test]
async fn a_setting_that_breaks_later_costs_a_bounded_number_of_events() {
    let scene = Scene::new();
    let life = scene.life();
    let fake = Fake::that(|event, _| match number(event) {
        1..=10 => Outcome::Done,
        _ => refuse(),
    });
    let fanout = life.feed([("siem", "batch: {max_events: 10}", fake.clone())]);
    life.append(1..=500).await;
    soon(|| {
        status_of(&fanout, "siem")
            .last_error
            .contains("refuses every event")
    })
    .await;
    // What is written down with the cursor comes a moment later.
    soon(|| status_of(&fanout, "siem").dead_lettered > 0).await;
    let refused = fake.batches().len();
    soon(|| fake.batches().len() > refused + 5).await;
    let status = status_of(&fanout, "siem");
    assert_eq!((status.delivered, status.dead_lettered), (10, 100));
    life.end(fanout).await;
}

#[tokio::test]
async fn what_the_sink_itself_cannot_send_is_a_dead_letter_at_once() {
    let scene = Scene::new();
    let life = scene.life();
    let fake = Fake::that(|_, _| Outcome::Reject {
        reason: "cannot be printed".to_owned(),
    });
    life.append(1..=300).await;
    let fanout = life.feed([("siem", "", fake)]);
    soon(|| status_of(&fanout, "siem").dead_lettered == 300).await;
    life.end(fanout).await;
}
