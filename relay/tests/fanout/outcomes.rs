//! What becomes of events that a destination does not take at once.

use std::fs;
use std::path::Path;
use std::sync::Arc;

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
