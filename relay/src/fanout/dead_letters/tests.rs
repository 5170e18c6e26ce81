use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use journal::{Journal, RealDisk};
use proto::{Event, EventId, Kind, StreamId};

use super::*;

fn letter(number: u64) -> DeadLetter {
    let id = EventId {
        stream: StreamId([9; 8]),
        sequence: number,
    };
    let event = Event {
        kind: Kind::Log,
        id,
        payload: Bytes::from(vec![0; 2000]),
    };
    DeadLetter {
        sequence: number,
        reason: format!("400 no {number}"),
        event,
    }
}

/// `refused` letters by the sink's own account.
fn opened(path: PathBuf, refused: u64) -> Arc<DeadLetters> {
    let refused = Box::new(move || refused);
    Arc::new(DeadLetters::new(path, 8 << 20, refused).unwrap())
}

async fn filled(path: PathBuf, letters: std::ops::RangeInclusive<u64>) -> Arc<DeadLetters> {
    let dead = opened(path, 0);
    let letters: Vec<DeadLetter> = letters.map(letter).collect();
    dead.write(&letters).await.unwrap();
    dead
}

fn kept(dead: &DeadLetters) -> Vec<u64> {
    let (mut all, mut from) = (Vec::new(), Some(0));
    while let Some(at) = from {
        let part = dead.read(at, dead.end()).unwrap();
        all.extend(part.letters.iter().map(|kept| kept.number));
        from = part.next;
    }
    all
}

#[tokio::test]
async fn letters_that_are_done_with_stay_so_in_the_next_life() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("siem");
    let dead = filled(path.clone(), 1..=6).await;
    dead.settle(&[2, 3], Fate::Retried, "me".to_owned())
        .await
        .unwrap();
    dead.settle(&[5], Fate::Dropped, "me".to_owned())
        .await
        .unwrap();
    assert_eq!(kept(&dead), [1, 4, 6]);
    dead.settle(&[1], Fate::Dropped, "me".to_owned())
        .await
        .unwrap();
    let count = Count {
        kept: 2,
        retried: 2,
        dropped: 2,
        ..Count::default()
    };
    assert_eq!(dead.count(), count);
    dead.close().await;
    assert_eq!(dead.count(), count);
    drop(dead);
    let dead = opened(path, 0);
    assert_eq!((kept(&dead), dead.count()), (vec![4, 6], count));
    dead.settle(&[4, 6, 6, 1], Fate::Retried, "me".to_owned())
        .await
        .unwrap();
    assert_eq!(
        (kept(&dead), dead.count().kept, dead.count().retried),
        (vec![], 0, 4)
    );
    dead.close().await;
}

#[tokio::test]
async fn at_the_bound_the_oldest_go_and_every_letter_is_counted_once() {
    let folder = tempfile::tempdir().unwrap();
    let dead = filled(folder.path().join("siem"), 1..=1000).await;
    dead.settle(&[3, 7], Fate::Retried, "me".to_owned())
        .await
        .unwrap();
    for round in 1..8 {
        let more: Vec<DeadLetter> = (1..=1000).map(|n| letter(round * 1000 + n)).collect();
        dead.write(&more).await.unwrap();
    }
    let Count {
        kept,
        overrun,
        damaged: _,
        retried,
        dropped,
    } = dead.count();
    assert!(overrun > 0 && kept > 0, "{:?}", dead.count());
    assert_eq!((kept + overrun + retried + dropped, retried), (8000, 2));
    let first = dead.read(0, dead.end()).unwrap().letters[0].number;
    dead.settle(&[first], Fate::Dropped, "me".to_owned())
        .await
        .unwrap();
    let after = dead.count();
    assert_eq!(
        after.kept + after.overrun + after.retried + after.dropped,
        8000
    );
    assert_eq!((after.retried, after.dropped), (2, 1));
    dead.close().await;
}

fn count(kept: u64, damaged: u64) -> Count {
    Count {
        kept,
        damaged,
        ..Count::default()
    }
}

fn segments(path: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(path).unwrap().map(|file| file.unwrap().path());
    let mut segments: Vec<PathBuf> = files
        .filter(|file| file.extension().is_some_and(|end| end == "seg"))
        .collect();
    segments.sort();
    segments
}

/// Changes a segment's bytes from where these words stand in it.
fn damage(segment: &Path, words: &str, change: impl FnOnce(&mut Vec<u8>, usize)) {
    let mut bytes = fs::read(segment).unwrap();
    let found = bytes
        .windows(words.len())
        .position(|at| at == words.as_bytes());
    change(&mut bytes, found.unwrap());
    fs::write(segment, bytes).unwrap();
}

#[tokio::test]
async fn a_letter_that_is_damaged_on_disk_is_lost_once_and_holds_nothing_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("siem");
    filled(path.clone(), 1..=6).await.close().await;
    damage(&segments(&path)[0], "400 no 3", |bytes, at| bytes[at] ^= 1);

    for found in [1, 0, 0] {
        let dead = opened(path.clone(), 6);
        assert_eq!(
            (dead.at_start().damaged, dead.count()),
            (found, count(5, 1))
        );
        assert_eq!(kept(&dead), [1, 2, 4, 5, 6]);
        dead.close().await;
    }
    let dead = opened(path.clone(), 6);
    dead.settle(&[1, 2, 4, 5], Fate::Retried, "me".to_owned())
        .await
        .unwrap();
    let retried = Count {
        retried: 4,
        ..count(1, 1)
    };
    assert_eq!((kept(&dead), dead.count()), (vec![6], retried));
    dead.close().await;
    let dead = opened(path, 6);
    assert_eq!((kept(&dead), dead.count()), (vec![6], retried));
    dead.settle(&[6], Fate::Dropped, "me".to_owned())
        .await
        .unwrap();
    let done = Count {
        kept: 0,
        dropped: 1,
        ..retried
    };
    assert_eq!(dead.count(), done);
    dead.close().await;
}

#[tokio::test]
async fn a_tail_that_is_cut_off_is_lost_and_its_numbers_go_to_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("siem");
    let dead = filled(path.clone(), 1..=6).await;
    dead.settle(&[6], Fate::Retried, "me".to_owned())
        .await
        .unwrap();
    dead.close().await;
    damage(&segments(&path)[0], "400 no 4", |bytes, at| {
        bytes.truncate(at)
    });

    // Letter 6 was delivered before.
    let one = Count {
        retried: 1,
        ..count(3, 2)
    };
    for found in [2, 0] {
        let dead = opened(path.clone(), 6);
        assert_eq!((dead.at_start().damaged, dead.count()), (found, one));
        assert_eq!(dead.at_start().cut_bytes, 0);
        assert_eq!((kept(&dead), dead.end()), (vec![1, 2, 3], 7));
        dead.close().await;
    }
    let dead = opened(path.clone(), 6);
    dead.write(&[letter(7)]).await.unwrap();
    assert_eq!(kept(&dead), [1, 2, 3, 7]);
    dead.close().await;
    let dead = opened(path, 7);
    assert_eq!((kept(&dead), dead.count().kept), (vec![1, 2, 3, 7], 4));
    dead.close().await;
}

#[tokio::test]
async fn places_that_were_taken_before_a_crash_are_lost_letters() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("siem");
    filled(path.clone(), 1..=3).await.close().await;
    let disk = RealDisk::open(&path).unwrap();
    let (journal, _) = Journal::open(Arc::new(disk), Default::default(), Box::new(())).unwrap();
    journal.append(vec![letter::lost(5); 2]).await.unwrap();
    journal.close();
    let dead = opened(path, 5);
    soon(|| dead.count() == count(3, 2)).await;
    assert_eq!((kept(&dead), dead.at_start().damaged), (vec![1, 2, 3], 0));
    dead.close().await;
}

#[tokio::test]
async fn a_damaged_block_of_an_old_segment_is_found_soon_and_the_segment_goes_with_its_last_letter()
{
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("siem");
    let dead = filled(path.clone(), 1..=1000).await;
    for more in [1001..=2000, 2001..=3000] {
        let more: Vec<DeadLetter> = more.map(letter).collect();
        dead.write(&more).await.unwrap();
    }
    let (small, all) = (segments(&path).len(), 3000);
    assert!(small > 1, "{small} segments");
    dead.close().await;
    damage(&segments(&path)[0], "400 no 1000", |bytes, at| {
        bytes[at..at + 64_000].fill(0);
    });
    let dead = opened(path.clone(), all);
    soon(|| dead.count().damaged > 20).await;
    let there = kept(&dead);
    let lost = all - there.len() as u64;
    assert_eq!(dead.count(), count(all - lost, lost));
    assert!((30..40).contains(&lost) && !there.contains(&1000), "{lost}");
    dead.close().await;

    let dead = opened(path.clone(), all);
    assert_eq!(dead.count(), count(all - lost, lost), "it is known already");
    dead.settle(&there, Fate::Retried, "me".to_owned())
        .await
        .unwrap();
    let done = Count {
        retried: all - lost,
        ..count(0, lost)
    };
    assert_eq!(dead.count(), done);
    // What is done with goes with the next letter, or the next start.
    dead.close().await;
    let dead = opened(path.clone(), all);
    soon(|| segments(&path).len() == 1).await;
    assert_eq!(dead.count(), done);
    dead.close().await;
}

#[tokio::test]
async fn a_folder_that_somebody_took_away_is_no_loss_of_what_was_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("siem");
    for refused in [6, 8] {
        let dead = opened(path.clone(), refused);
        if refused == 6 {
            dead.write(&[letter(7), letter(8)]).await.unwrap();
        }
        assert_eq!((kept(&dead), dead.count()), (vec![1, 2], count(2, 0)));
        dead.close().await;
    }
    damage(&segments(&path)[0], "400 no 8", |bytes, at| {
        bytes.truncate(at)
    });
    let dead = opened(path, 8);
    assert_eq!(dead.count(), count(1, 1));
    dead.close().await;
}

async fn soon(mut fits: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if fits() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within a minute");
}
