//! A disk that fails: nothing acknowledged is lost, nothing refused comes back, and it heals by itself.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use journal::{
    Account, AppendError, Config, CursorError, CursorOptions, Journal, Seq, Start, Stepper,
    sim::{Failure, Fault, Op, SimDisk},
};
use support::{append, poll, read_all, record, records, sized, text, texts};

fn open(disk: &SimDisk) -> (Journal, Stepper) {
    let config = Config {
        segment_bytes: 16 << 10,
        max_size: 1 << 20,
        ..Config::default()
    };
    let (journal, _, stepper) = Journal::open_stepped(disk.disk(), config, Box::new(())).unwrap();
    (journal, stepper)
}

fn fault(op: Op, failure: Failure, times: u64, suffix: &str) -> Fault {
    Fault {
        op,
        failure,
        skip: 0,
        times,
        suffix: suffix.to_owned(),
    }
}

#[test]
fn a_full_disk_refuses_new_records_lets_cursors_move_and_heals() {
    let disk = SimDisk::new(1);
    let (journal, mut stepper) = open(&disk);
    let options = CursorOptions {
        start: Start::Beginning,
        ..CursorOptions::default()
    };
    let cursor = journal.cursor("c", options).unwrap();
    append(&journal, &mut stepper, records(&["a", "b"])).unwrap();
    disk.set_capacity(Some(30 << 10));
    let mut stored = 2;
    let refused = loop {
        match append(&journal, &mut stepper, vec![sized(stored, 900)]) {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 100);
    };
    assert!(
        matches!(&refused, AppendError::Full { reason } if reason.contains("no space left")),
        "{refused}"
    );
    let (entries, _, corrupt) = read_all(&mut journal.reader(Seq(1)));
    assert_eq!((entries.len() as u64, corrupt), (stored, 0));
    let mut advance = Box::pin(cursor.advance(
        Seq(3),
        Account {
            delivered: 2,
            ..Account::default()
        },
        None,
    ));
    assert!(poll(&mut advance).is_pending());
    stepper.keep(0);
    assert!(
        matches!(poll(&mut advance), std::task::Poll::Ready(Ok(()))),
        "a sink could not drain"
    );
    drop(advance);

    disk.set_capacity(None);
    append(&journal, &mut stepper, records(&["after"])).unwrap();
    journal.check().unwrap();
    disk.power_loss();
    drop(cursor);
    let (journal, _stepper) = open(&disk);
    let (entries, _, corrupt) = read_all(&mut journal.reader(Seq(1)));
    assert_eq!(
        (entries.len() as u64, corrupt),
        (stored + 1, 0),
        "the refused record came back"
    );
    assert_eq!(text(entries.last().unwrap()), "after");
}

#[test]
fn after_a_failed_sync_the_group_goes_to_a_new_segment() {
    let disk = SimDisk::new(1);
    let (journal, mut stepper) = open(&disk);
    append(&journal, &mut stepper, records(&["a", "b"])).unwrap();
    disk.inject(fault(Op::Sync, Failure::Io, 1, ".seg"));
    assert_eq!(
        append(&journal, &mut stepper, records(&["c", "d"])).unwrap(),
        Seq(3)..Seq(5)
    );
    append(&journal, &mut stepper, records(&["e"])).unwrap();
    assert_eq!(journal.stats().suspects, 1);
    assert_eq!(texts(&journal), ["a", "b", "c", "d", "e"]);
    disk.power_loss();
    let (journal, _stepper) = open(&disk);
    assert_eq!(texts(&journal), ["a", "b", "c", "d", "e"]);
    assert_eq!(journal.stats().segments, 2);
}

#[test]
fn a_disk_that_fails_again_and_again_fails_appends_and_works_when_it_works() {
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        let (journal, mut stepper) = open(&disk);
        append(&journal, &mut stepper, records(&["a"])).unwrap();
        disk.inject(fault(Op::Sync, Failure::Io, 5, ""));
        for n in 0..2 {
            let answer = append(&journal, &mut stepper, vec![record(format!("lost {n}"))]);
            assert!(
                matches!(answer, Err(AppendError::Failed { .. })),
                "{answer:?}"
            );
        }
        disk.heal();
        assert_eq!(
            append(&journal, &mut stepper, records(&["b"])).unwrap(),
            Seq(2)..Seq(3)
        );
        assert_eq!(texts(&journal), ["a", "b"]);
        journal.check().unwrap();
        disk.power_loss();
        let (journal, _stepper) = open(&disk);
        assert_eq!(texts(&journal), ["a", "b"], "seed {seed}");
    }
}

#[test]
fn short_writes_are_no_error() {
    let disk = SimDisk::new(3);
    let (journal, mut stepper) = open(&disk);
    for n in 0..20 {
        disk.inject(fault(Op::Write, Failure::Short, 3, ""));
        append(&journal, &mut stepper, vec![sized(n, 700)]).unwrap();
    }
    let (entries, _, corrupt) = read_all(&mut journal.reader(Seq(1)));
    assert_eq!((entries.len(), corrupt), (20, 0));
}

#[test]
fn a_cursor_that_cannot_be_written_says_so_and_is_written_later() {
    let disk = SimDisk::new(1);
    let (journal, mut stepper) = open(&disk);
    append(&journal, &mut stepper, records(&["a", "b"])).unwrap();
    let options = CursorOptions {
        start: Start::Beginning,
        ..CursorOptions::default()
    };
    let cursor = journal.cursor("c", options).unwrap();
    disk.inject(fault(Op::Sync, Failure::Io, 1, "c.cursor"));
    let delta = Account {
        delivered: 1,
        ..Account::default()
    };
    let mut advance = Box::pin(cursor.advance(Seq(2), delta, None));
    assert!(poll(&mut advance).is_pending());
    stepper.keep(0);
    let answer = poll(&mut advance);
    assert!(
        matches!(
            answer,
            std::task::Poll::Ready(Err(CursorError::Disk { .. }))
        ),
        "{answer:?}"
    );
    drop(advance);
    assert_eq!(journal.stats().cursor_failures, 1);
    stepper.keep(0);
    drop(cursor);
    disk.power_loss();
    let (journal, _stepper) = open(&disk);
    assert_eq!(journal.cursor("c", options).unwrap().position(), Seq(2));
}

#[test]
fn a_read_that_fails_skips_nothing_until_it_has_failed_often() {
    let disk = SimDisk::new(1);
    let (journal, mut stepper) = open(&disk);
    append(&journal, &mut stepper, records(&["a", "b"])).unwrap();
    let mut reader = journal.reader(Seq(1));
    // Both copies of the header, twice.
    disk.inject(fault(Op::Read, Failure::Io, 4, ".seg"));
    assert!(reader.next(1 << 20).is_err());
    assert!(reader.next(1 << 20).is_err());
    let block = reader.next(1 << 20).unwrap();
    assert_eq!((block.entries.len(), block.corrupt), (2, 0));

    append(&journal, &mut stepper, records(&["c"])).unwrap();
    disk.inject(fault(Op::Read, Failure::Io, u64::MAX, ".seg"));
    for _ in 0..3 {
        assert!(reader.next(1 << 20).is_err());
    }
    let block = reader.next(1 << 20).unwrap();
    assert_eq!((block.entries.len(), block.corrupt), (0, 1));
}

#[test]
fn what_cannot_be_read_at_opening_is_neither_cut_nor_overwritten() {
    let disk = SimDisk::new(1);
    let (journal, mut stepper) = open(&disk);
    for n in 1..=10 {
        append(&journal, &mut stepper, vec![sized(n, 700)]).unwrap();
    }
    stepper.close(0);
    drop(journal);
    // Both copies of the header and the checkpoint can be read, then nothing any more.
    disk.inject(Fault {
        skip: 5,
        ..fault(Op::Read, Failure::Io, u64::MAX, ".seg")
    });
    let config = Config::default();
    let opened = Journal::open_stepped(disk.disk(), config.clone(), Box::new(()));
    let len = disk.contents("00000000000000000001.seg").unwrap().len();
    disk.heal();
    if let Ok((journal, _, mut stepper)) = opened {
        let range = append(&journal, &mut stepper, records(&["after"])).unwrap();
        assert!(range.start > Seq(10), "{range:?}");
        stepper.close(0);
    }
    assert_eq!(
        disk.contents("00000000000000000001.seg").unwrap().len(),
        len
    );
    let (journal, _, _stepper) = Journal::open_stepped(disk.disk(), config, Box::new(())).unwrap();
    let (entries, _, _) = read_all(&mut journal.reader(Seq(1)));
    assert!(entries.len() >= 10, "{} of 10 are left", entries.len());
    assert_eq!(entries[9].seq, Seq(10));
}
