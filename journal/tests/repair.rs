//! Inspection tells what is there and what is damaged; a repair mends what can be mended and removes no record.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::sync::Arc;

use journal::{
    CursorOptions, Disk, Seq, Start,
    inspect::{Depth, Fault, Harm, InspectError, Report, State, inspect},
    repair::{Fix, RepairError, Repaired, plan, repair},
    sim::SimDisk,
};
use support::{RECORDS, open_counting, read_all, sample};

const FIRST: &str = "00000000000000000001.seg";
const SECOND: &str = "00000000000000000005.seg";
const LAST: &str = "00000000000000000009.seg";

fn verify(disk: &SimDisk) -> Report {
    inspect(disk, Depth::Everything).unwrap()
}

fn mend(disk: &SimDisk) -> (Repaired, SimDisk) {
    let aside = SimDisk::new(7);
    let done = repair(&disk.disk(), || Ok(aside.disk())).unwrap();
    (done, aside)
}

/// The numbers that a reader gets, and the cursor's place.
fn reads(disk: &SimDisk) -> (Vec<u64>, Seq) {
    let (journal, _, _stepper) = open_counting(&disk.copy(3)).unwrap();
    let (entries, _, _) = read_all(&mut journal.reader(Seq(1)));
    let options = CursorOptions {
        start: Start::Beginning,
        ..CursorOptions::default()
    };
    let position = journal.cursor("c", options).unwrap().position();
    (entries.iter().map(|e| e.seq.0).collect(), position)
}

fn faults(report: &Report) -> Vec<&'static str> {
    report.problems.iter().map(|p| p.fault.word()).collect()
}

/// A byte of the first record of a segment: behind two headers and a checkpoint of 16 bytes.
const IN_RECORD: usize = 4160 + 16 + 26;

#[test]
fn a_sound_journal_is_described_alike_from_its_ends_and_from_its_records() {
    let disk = sample();
    let report = verify(&disk);
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(inspect(&disk, Depth::Ends).unwrap(), report);
    let got: Vec<_> = report
        .segments
        .iter()
        .map(|s| (s.base.0, s.last.0, s.records, s.state, s.checkpoint_bytes))
        .collect();
    assert_eq!(
        got,
        [
            (1, 4, 4, State::Sealed, 16),
            (5, 8, 4, State::Sealed, 16),
            (9, 12, 4, State::Open, 16)
        ]
    );
    assert_eq!(
        (report.records(), report.first(), report.committed()),
        (RECORDS, Seq(1), Seq(RECORDS))
    );
    let cursor = &report.cursors[0];
    assert_eq!(
        (cursor.name.as_str(), cursor.position, cursor.lag),
        ("c", Seq(3), 10)
    );
    assert_eq!(cursor.account.delivered, 2);
    assert_eq!(plan(&report), []);
}

#[test]
fn a_damaged_record_is_told_with_file_offset_and_number_and_stays_where_it_is() {
    let disk = sample();
    disk.flip(SECOND, IN_RECORD, 1);
    let report = verify(&disk);
    let problem = &report.problems[0];
    assert_eq!(
        (problem.file.as_str(), problem.offset, &problem.numbers),
        (SECOND, Some(4176), &Some(Seq(5)..Seq(6)))
    );
    assert_eq!(
        problem.to_string(),
        format!("{SECOND} at 4176: record 5: cannot be read (records lost)")
    );
    assert_eq!((report.problems.len(), report.lost()), (1, 1));
    assert!(inspect(&disk, Depth::Ends).unwrap().is_sound());
    let before = disk.contents(SECOND);
    let (done, aside) = mend(&disk);
    assert_eq!((done.steps, done.left.lost()), (Vec::new(), 1));
    assert_eq!(disk.contents(SECOND), before);
    assert!(aside.names().is_empty());
}

#[test]
fn a_torn_tail_is_cut_and_kept() {
    let disk = sample();
    let mut bytes = disk.contents(LAST).unwrap();
    let end = bytes.len() as u64;
    bytes.extend_from_slice(b"the beginning of a record");
    disk.put(LAST, bytes);
    let report = verify(&disk);
    let torn = &report.problems[0];
    assert_eq!(
        (torn.offset, &torn.fault),
        (Some(end), &Fault::Torn { bytes: 25 })
    );
    assert_eq!((torn.fault.harm(), report.lost()), (Harm::None, 0));
    let (done, aside) = mend(&disk);
    assert_eq!(done.steps[0].fix, Fix::Cut { bytes: 25 });
    assert!(done.left.is_sound(), "{:?}", done.left);
    assert_eq!(disk.contents(LAST).unwrap().len() as u64, end);
    assert_eq!(
        aside.contents(&format!("{LAST}@{end}")).unwrap(),
        b"the beginning of a record"
    );
}

#[test]
fn a_hole_in_the_last_group_was_never_acknowledged_and_is_marked() {
    let disk = sample();
    // Records 11 and 12 are the last group; "record 9" and "record 10" take 32 and 33 bytes.
    disk.flip(LAST, 4176 + 32 + 33 + 26, 1);
    let report = verify(&disk);
    assert_eq!(faults(&report), ["torn"]);
    assert_eq!(report.problems[0].numbers, Some(Seq(11)..Seq(12)));
    let (done, aside) = mend(&disk);
    assert_eq!(done.steps[0].fix, Fix::Mark { bytes: 33 });
    assert!(done.left.is_sound(), "{:?}", done.left);
    assert_eq!(done.left.segments[2].interrupted, 1);
    assert_eq!(aside.names().len(), 1);
}

#[test]
fn an_index_that_is_damaged_or_wrong_is_written_again() {
    let sample = sample();
    let whole = sample.contents(FIRST).unwrap();
    // The trailer, the index, and both gone.
    let spoil: [&dyn Fn(&SimDisk); 3] = [
        &|disk| disk.flip(FIRST, whole.len() - 1, 1),
        &|disk| disk.flip(FIRST, whole.len() - 70, 1),
        &|disk| disk.put(FIRST, whole[..whole.len() - 88].to_vec()),
    ];
    for (n, spoil) in spoil.iter().enumerate() {
        let disk = sample.copy(1);
        spoil(&disk);
        let report = verify(&disk);
        assert_eq!(faults(&report), ["index"], "case {n}");
        let (done, _) = mend(&disk);
        assert!(done.left.is_sound(), "case {n}: {:?}", done.left);
        assert_eq!(disk.contents(FIRST).unwrap(), whole, "case {n}");
    }
}

#[test]
fn a_cursor_without_a_whole_slot_begins_again_at_the_oldest_record() {
    let disk = sample();
    disk.flip("c.cursor", 20, 1);
    assert_eq!(faults(&verify(&disk)), ["slot"]);
    let (done, _) = mend(&disk);
    assert!(done.left.is_sound(), "{:?}", done.left);

    disk.flip("c.cursor", 20, 1);
    disk.flip("c.cursor", 4096 + 20, 1);
    let report = verify(&disk);
    assert_eq!(faults(&report), ["slots"]);
    assert!(!report.cursors[0].readable);
    let damaged = disk.contents("c.cursor").unwrap();
    let (done, aside) = mend(&disk);
    assert_eq!(done.steps[0].fix, Fix::Reset { to: Seq(1) });
    assert!(done.left.is_sound(), "{:?}", done.left);
    assert_eq!(done.left.cursors[0].position, Seq(1));
    assert_eq!(aside.contents("c.cursor"), Some(damaged));
}

#[test]
fn what_an_interrupted_creation_left_is_removed_and_other_files_are_not() {
    let disk = sample();
    disk.put("00000000000000000013.seg.tmp", b"half".to_vec());
    disk.put("notes.txt", b"mine".to_vec());
    let report = verify(&disk);
    assert_eq!(faults(&report), ["unfinished"]);
    assert_eq!(report.foreign, ["notes.txt"]);
    let (done, aside) = mend(&disk);
    assert!(done.left.is_sound());
    assert!(disk.contents("notes.txt").is_some());
    assert_eq!(
        aside.contents("00000000000000000013.seg.tmp").unwrap(),
        b"half"
    );
}

#[test]
fn beside_a_writer_its_end_is_no_problem_and_a_repair_is_refused_with_its_name() {
    let disk = sample();
    let (_journal, _, _stepper) = open_counting(&disk).unwrap();
    let mut bytes = disk.contents(LAST).unwrap();
    bytes.extend_from_slice(b"being written");
    disk.put(LAST, bytes);
    let report = verify(&disk);
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(report.holder.as_deref(), Some("another journal"));
    let before = disk.contents(LAST);
    let refused = repair(&disk.disk(), || panic!("nothing is to be kept")).unwrap_err();
    assert!(
        refused.to_string().contains("in use by another journal"),
        "{refused}"
    );
    assert_eq!(disk.contents(LAST), before);
}

#[test]
fn where_there_is_no_journal_that_is_said() {
    let disk = SimDisk::new(1);
    let error = inspect(&disk, Depth::Ends).unwrap_err();
    assert!(matches!(error, InspectError::Nothing { .. }), "{error}");
    assert!(disk.names().is_empty());
}

#[test]
fn without_a_place_for_the_copies_nothing_is_changed() {
    let disk = sample();
    disk.flip(FIRST, 1, 1);
    let before = disk.contents(FIRST);
    let full = || Err(std::io::ErrorKind::StorageFull.into());
    let error = repair(&disk.disk(), full).unwrap_err();
    assert!(matches!(error, RepairError::Aside { .. }), "{error}");
    assert_eq!(disk.contents(FIRST), before);
    // A copy that cannot be written is as bad.
    let aside = SimDisk::new(1);
    aside.set_capacity(Some(10));
    let error = repair(&disk.disk(), || Ok(aside.disk())).unwrap_err();
    assert!(matches!(error, RepairError::Aside { .. }), "{error}");
    assert_eq!(disk.contents(FIRST), before);
}

#[test]
fn whatever_bit_is_flipped_a_repair_removes_no_record_and_leaves_only_losses() {
    let sample = sample();
    for name in sample.names().into_iter().filter(|n| n != "LOCK") {
        let bytes = sample.contents(&name).unwrap();
        for at in (0..bytes.len()).filter(|at| !hole(&name, *at)) {
            let disk = sample.copy(1);
            disk.flip(&name, at, 1 << (at % 8));
            let what = format!("{name} byte {at}");
            let before = reads(&disk);
            let found = verify(&disk);
            let (done, _) = mend(&disk);
            assert_eq!(
                found.is_sound(),
                done.steps.is_empty() && done.left.is_sound(),
                "{what}"
            );
            assert_eq!(done.left.lost(), found.lost(), "{what}");
            let left = faults(&done.left);
            assert!(
                left.iter().all(|f| ["records", "checkpoint"].contains(f)),
                "{what}: {left:?}"
            );
            assert_eq!(reads(&disk), before, "{what}");
            assert_eq!(plan(&verify(&disk)), [], "{what}: once is not enough");
        }
    }
}

/// Bytes that nothing reads: between the headers, and behind a cursor's slot.
fn hole(name: &str, at: usize) -> bool {
    match name.ends_with(".cursor") {
        true => at % 4096 >= 128,
        false => (64..4096).contains(&at),
    }
}

#[test]
fn a_repair_that_is_cut_off_anywhere_loses_nothing_and_can_be_done_again() {
    let sample = sample();
    let whole = sample.contents(FIRST).unwrap();
    sample.put(FIRST, whole[..whole.len() - 10].to_vec());
    sample.flip(SECOND, 1, 1);
    sample.flip("c.cursor", 20, 1);
    sample.flip("c.cursor", 4096 + 20, 1);
    let mut tail = sample.contents(LAST).unwrap();
    tail.extend_from_slice(&[7; 100]);
    sample.put(LAST, tail);
    let steps = plan(&verify(&sample)).len();
    assert_eq!(steps, 4);
    for seed in 0..4 {
        for step in 1.. {
            let disk = sample.copy(seed);
            disk.crash_at(step);
            let aside = SimDisk::new(seed);
            let done = repair(&disk.disk(), || Ok(aside.disk()));
            if disk.is_down() {
                disk.power_loss();
            } else {
                assert!(done.unwrap().left.is_sound());
                assert!(step > 8, "{step} steps");
                break;
            }
            let (numbers, _) = reads(&disk);
            assert_eq!(numbers, (1..=RECORDS).collect::<Vec<_>>(), "step {step}");
            let (done, _) = mend(&disk);
            assert!(done.left.is_sound(), "step {step}: {:?}", done.left);
        }
    }
}

#[test]
fn the_copies_are_whole_before_anything_changes() {
    let sample = sample();
    let damaged = {
        sample.flip("c.cursor", 20, 1);
        sample.flip("c.cursor", 4096 + 20, 1);
        sample.contents("c.cursor").unwrap()
    };
    for step in 1..40 {
        let disk = sample.copy(1);
        disk.crash_at(step);
        let aside = SimDisk::new(step);
        let place: Arc<dyn Disk> = aside.disk();
        let _ = repair(&disk.disk(), || Ok(place));
        let changed = disk.contents("c.cursor") != Some(damaged.clone());
        aside.power_loss();
        if changed {
            assert_eq!(
                aside.contents("c.cursor").as_ref(),
                Some(&damaged),
                "step {step}"
            );
        }
    }
}
