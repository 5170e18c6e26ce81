//! A small journal cut at every byte and flipped at every bit: no panic, an exact account, every other record read.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use journal::{
    Account, CheckpointFrom, Config, CursorOptions, Journal, Opened, Seq, Start, sim::SimDisk,
};
use support::{
    Counting, RECORDS, append, open_counting as open, poll, read_all, records, sample, segments,
    text,
};

/// What a damaged copy of the sample gives.
struct Outcome {
    opened: Opened,
    /// Sequence numbers read.
    read: Vec<u64>,
    corrupt: u64,
    cursor: Seq,
}

fn outcome(disk: &SimDisk, what: &str) -> Outcome {
    let (journal, opened, mut stepper) = open(disk).unwrap_or_else(|e| panic!("{what}: {e}"));
    let (entries, expired, corrupt) = read_all(&mut journal.reader(Seq(1)));
    assert_eq!(expired, 0, "{what}");
    for entry in &entries {
        assert_eq!(text(entry), format!("record {}", entry.seq), "{what}");
    }
    let read: Vec<u64> = entries.iter().map(|e| e.seq.0).collect();
    assert_eq!(
        read.len() as u64 + corrupt,
        opened.committed.0,
        "{what}: {read:?}"
    );
    let options = CursorOptions {
        start: Start::Beginning,
        ..CursorOptions::default()
    };
    let cursor = journal.cursor("c", options).unwrap().position();
    journal.check().unwrap();

    // It goes on, in any state, and no number is used twice.
    let range = append(&journal, &mut stepper, records(&["after"])).unwrap();
    assert_eq!(range.start, opened.committed.next(), "{what}");
    let (entries, _, again) = read_all(&mut journal.reader(Seq(1)));
    assert_eq!(text(entries.last().unwrap()), "after", "{what}");
    assert_eq!((entries.len(), again), (read.len() + 1, corrupt), "{what}");
    stepper.keep(0);
    stepper.close(0);
    // And once more after a restart.
    let (journal, reopened, _stepper) = open(disk).unwrap_or_else(|e| panic!("{what}: {e}"));
    let (entries, _, later) = read_all(&mut journal.reader(Seq(1)));
    assert_eq!((entries.len(), later), (read.len() + 1, corrupt), "{what}");
    assert_eq!(reopened.cut_bytes, 0, "{what}");
    Outcome {
        opened,
        read,
        corrupt,
        cursor,
    }
}

#[test]
fn the_sample_is_sound() {
    let disk = sample();
    assert_eq!(segments(&disk).len(), 3);
    let Outcome {
        opened,
        read,
        corrupt,
        cursor,
    } = outcome(&disk, "undamaged");
    assert_eq!(read, (1..=RECORDS).collect::<Vec<_>>());
    assert_eq!(
        (opened.cut_bytes, opened.torn, opened.corrupt, corrupt),
        (0, 0, 0, 0)
    );
    assert_eq!(opened.checkpoint, CheckpointFrom::Before(Seq(9)));
    assert_eq!(cursor, Seq(3));
}

#[test]
fn any_flipped_bit_costs_at_most_the_record_it_is_in() {
    let sample = sample();
    for name in segments(&sample) {
        let bytes = sample.contents(&name).unwrap();
        let open_segment = name == *segments(&sample).last().unwrap();
        for bit in 0..bytes.len() * 8 {
            let at = bit / 8;
            // The hole between the two headers holds nothing.
            if (64..4096).contains(&at) {
                continue;
            }
            let disk = sample.copy(1);
            disk.flip(&name, at, 1 << (bit % 8));
            let what = format!("{name} bit {bit}");
            let Outcome {
                opened,
                read,
                corrupt,
                cursor,
            } = outcome(&disk, &what);
            // In the last record of the open segment it cannot be told from a write that was interrupted.
            let torn = u64::from(opened.cut_bytes > 0 && read.len() as u64 == RECORDS - 1);
            assert!(
                torn == 0 || open_segment,
                "{what}: a sealed segment was cut"
            );
            assert!(
                corrupt + torn <= 1,
                "{what}: {corrupt} corrupt, {torn} torn"
            );
            assert_eq!(read.len() as u64 + corrupt + torn, RECORDS, "{what}");
            let in_records = (4160 + 16..bytes.len()).contains(&at) && open_segment;
            assert!(!in_records || corrupt + torn == 1, "{what} went unnoticed");
            assert_eq!(cursor, Seq(3), "{what}");
        }
    }
}

#[test]
fn any_flipped_bit_in_a_cursor_costs_at_most_its_last_move() {
    let sample = sample();
    let len = sample.contents("c.cursor").unwrap().len();
    let mut behind = 0;
    for bit in (0..len * 8).filter(|bit| (bit / 8) % 4096 < 128) {
        let disk = sample.copy(1);
        disk.flip("c.cursor", bit / 8, 1 << (bit % 8));
        let Outcome {
            opened,
            cursor,
            read,
            ..
        } = outcome(&disk, &format!("cursor bit {bit}"));
        assert_eq!(read.len() as u64, RECORDS);
        assert!(cursor == Seq(3) || cursor == Seq(2), "bit {bit}: {cursor}");
        assert!(opened.cursors_lost.is_empty());
        assert_eq!(opened.cursors_behind, ["c"], "bit {bit}");
        behind += u64::from(cursor == Seq(2));
    }
    assert!(behind > 0);
}

#[test]
fn any_flipped_bit_in_the_format_file_is_survived() {
    let sample = sample();
    for bit in 0..sample.contents("FORMAT").unwrap().len() * 8 {
        let disk = sample.copy(1);
        disk.flip("FORMAT", bit / 8, 1 << (bit % 8));
        let Outcome { read, .. } = outcome(&disk, &format!("FORMAT bit {bit}"));
        assert_eq!(read.len() as u64, RECORDS);
    }
}

#[test]
fn cut_at_any_byte_a_segment_keeps_what_stands_before() {
    let sample = sample();
    for name in segments(&sample) {
        let base: u64 = name.trim_end_matches(".seg").parse().unwrap();
        let bytes = sample.contents(&name).unwrap();
        let open_segment = name == *segments(&sample).last().unwrap();
        for len in (0..=bytes.len()).filter(|len| !(65..4096).contains(len)) {
            let disk = sample.copy(1);
            disk.put(&name, bytes[..len].to_vec());
            let what = format!("{name} cut to {len}");
            if len < 64 && open_segment {
                // Without a header nothing is known but that there was something.
                let (journal, opened, _stepper) = open(&disk).unwrap();
                assert_eq!(read_all(&mut journal.reader(Seq(1))).0.len(), 8, "{what}");
                assert!(opened.committed >= Seq(8), "{what}");
                continue;
            }
            let Outcome {
                opened,
                read,
                corrupt,
                ..
            } = outcome(&disk, &what);
            let before = read.iter().filter(|seq| **seq < base).count() as u64;
            assert_eq!(before, base - 1, "{what}");
            if open_segment {
                assert_eq!((corrupt, opened.corrupt), (0, 0), "{what}");
                assert_eq!(read, (1..=opened.committed.0).collect::<Vec<_>>(), "{what}");
            } else {
                let after = read.iter().filter(|seq| **seq >= base + 4).count() as u64;
                assert_eq!(after, RECORDS - base - 3, "{what}");
                assert_eq!(read.len() as u64 + corrupt, RECORDS, "{what}");
            }
        }
    }
}

#[test]
fn numbers_that_a_cursor_has_passed_are_not_given_out_again() {
    let disk = sample();
    let (journal, _, mut stepper) = open(&disk).unwrap();
    let cursor = journal.cursor("c", CursorOptions::default()).unwrap();
    let delta = Account {
        delivered: 10,
        ..Account::default()
    };
    let mut advance = Box::pin(cursor.advance(Seq(13), delta, None));
    assert!(poll(&mut advance).is_pending());
    stepper.keep(0);
    assert!(poll(&mut advance).is_ready());
    drop(advance);
    drop(cursor);
    stepper.close(0);
    let last = segments(&disk).pop().unwrap();
    let end = disk.contents(&last).unwrap().len();
    disk.flip(&last, end - 1, 1);

    let Outcome {
        opened,
        read,
        corrupt,
        cursor,
    } = outcome(&disk, "last record");
    assert_eq!((opened.burned, opened.committed), (1, Seq(12)));
    assert_eq!((read.len(), corrupt, cursor), (11, 1, Seq(13)));
}

#[test]
fn a_missing_segment_is_counted_and_stops_nobody() {
    let sample = sample();
    let disk = SimDisk::new(1);
    for name in sample.names() {
        if !name.starts_with("00000000000000000005") {
            disk.put(&name, sample.contents(&name).unwrap());
        }
    }
    let Outcome { read, corrupt, .. } = outcome(&disk, "missing");
    assert_eq!(read, [1, 2, 3, 4, 9, 10, 11, 12]);
    assert_eq!(corrupt, 4);
}

#[test]
fn another_segments_file_under_a_name_is_as_good_as_missing() {
    let sample = sample();
    let disk = sample.copy(1);
    let names = segments(&disk);
    disk.put(&names[0], sample.contents(&names[1]).unwrap());
    let Outcome { read, corrupt, .. } = outcome(&disk, "exchanged");
    assert_eq!(read, [5, 6, 7, 8, 9, 10, 11, 12]);
    assert_eq!(corrupt, 4);
}

#[test]
fn without_the_newest_checkpoint_the_fold_begins_at_an_older_one() {
    let disk = sample();
    let last = segments(&disk).pop().unwrap();
    disk.flip(&last, 4160, 1);
    let (fold, seen) = Counting::new();
    let (_, opened, _stepper) =
        Journal::open_stepped(disk.disk(), Config::default(), Box::new(fold)).unwrap();
    assert_eq!(opened.checkpoint, CheckpointFrom::Before(Seq(5)));
    assert_eq!(*seen.lock().unwrap(), (RECORDS, RECORDS));
}
