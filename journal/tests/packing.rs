//! Sealed segments are compressed in the background: smaller, as searchable, and at every moment whole.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use journal::{
    Compression, Config, Disk, Journal, RealDisk, Record, Seq,
    disk::{Access, DiskFile, Lock, LockError},
    inspect::{Depth, Report, inspect},
    repair::{Fix, repair},
    sim::{Failure, Fault, Op, Random, SimDisk},
};
use support::{PACKED, append, packed_sample, packing, poll, read_all, sized, text};

const FIRST: &str = "00000000000000000001.seg";

fn open(path: &Path, config: Config) -> Journal {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(path).unwrap());
    Journal::open(disk, config, Box::new(())).unwrap().0
}

fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// An event-like record: much of it alike from one to the next.
fn event(n: u64) -> Record {
    let text = format!(
        "{{\"n\":{n},\"host\":\"node-{}\",\"path\":\"/usr/bin/thing-{}\",\"result\":\"Passed\",\"pid\":{}}}",
        n % 3,
        n % 17,
        n * 7919 % 32768
    );
    Record {
        kind: 1,
        time: n * 1_000,
        payload: Bytes::from(text.repeat(4)),
    }
}

fn segment_bytes(path: &Path) -> u64 {
    let files = std::fs::read_dir(path).unwrap().map(|e| e.unwrap());
    let segments = files.filter(|e| e.file_name().to_string_lossy().ends_with(".seg"));
    segments.map(|e| e.metadata().unwrap().len()).sum()
}

#[tokio::test]
async fn sealed_segments_become_small_and_read_the_same_now_and_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        segment_bytes: 256 << 10,
        compression: Compression::Zstd { level: 3 },
        block_bytes: 16 << 10,
        ..Config::default()
    };
    let journal = open(dir.path(), config.clone());
    // Holds the first segment, plain, over its exchange.
    journal.append(vec![event(1)]).await.unwrap();
    let mut early = journal.reader(Seq(1));
    assert_eq!(early.next(1).unwrap().entries.len(), 1);
    for batch in 0..40 {
        let first = 2 + batch * 100;
        journal
            .append((first..first + 100).map(event).collect())
            .await
            .unwrap();
    }
    let segments = journal.stats().segments as u64;
    assert!(segments >= 5, "{segments}");
    eventually("all closed segments are compressed", || {
        journal.stats().packed_segments == segments - 1
    });
    let stats = journal.stats();
    assert_eq!(stats.pack_failures, 0);
    assert!(
        stats.packed_to * 3 < stats.packed_from,
        "{} of {}",
        stats.packed_to,
        stats.packed_from
    );
    assert_eq!(stats.bytes, segment_bytes(dir.path()));
    journal.check().unwrap();

    let check = |journal: &Journal| {
        for from in [1, 2, 999, 2_500, 4_001] {
            let (entries, expired, corrupt) = read_all(&mut journal.reader(Seq(from)));
            assert_eq!(entries.len() as u64, 4_002 - from);
            assert_eq!((expired, corrupt), (0, 0));
            for (n, entry) in (from..).zip(&entries) {
                assert_eq!((entry.seq, &entry.payload), (Seq(n), &event(n).payload));
            }
            assert_eq!(journal.seek_time(from * 1_000).unwrap(), Seq(from));
        }
    };
    check(&journal);
    let (rest, _, corrupt) = read_all(&mut early);
    assert_eq!((rest.len(), corrupt), (4_000, 0));
    journal.close();

    // Without compression what is compressed is read as well.
    let journal = open(dir.path(), Config::default());
    check(&journal);
    journal.close();
    let disk = RealDisk::open_existing(dir.path()).unwrap();
    let report = inspect(&disk, Depth::Everything).unwrap();
    assert!(report.is_sound(), "{report:?}");
    let closed = &report.segments[..report.segments.len() - 1];
    assert!(
        closed
            .iter()
            .all(|s| s.compressed && s.plain_bytes > s.bytes)
    );
}

#[tokio::test]
async fn within_the_same_bound_there_is_room_for_more() {
    let mut kept = Vec::new();
    for compression in [Compression::None, Compression::Zstd { level: 1 }] {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            segment_bytes: 64 << 10,
            max_size: 512 << 10,
            compression,
            ..Config::default()
        };
        let journal = open(dir.path(), config);
        let zstd = compression != Compression::None;
        for batch in 0..60 {
            let first = 1 + batch * 50;
            journal
                .append((first..first + 50).map(event).collect())
                .await
                .unwrap();
            journal.check().unwrap();
            if zstd {
                eventually("compressed", || {
                    let stats = journal.stats();
                    stats.packed_segments >= stats.segments as u64 - 1
                });
            }
        }
        kept.push(journal.committed().0 + 1 - journal.first().0);
        assert!(segment_bytes(dir.path()) <= (512 + 64) << 10);
        journal.close();
    }
    assert!(kept[0] * 2 < kept[1], "{kept:?}");
}

#[test]
fn the_second_closing_of_a_segment_is_smaller_and_its_first_one_not_needed() {
    let disk = packed_sample();
    let report = inspect(&disk, Depth::Everything).unwrap();
    assert!(report.is_sound(), "{report:?}");
    let first = &report.segments[0];
    assert!(first.compressed && first.bytes < first.plain_bytes);
    assert!(!report.segments[1].compressed);
    assert!(disk.names().iter().all(|n| !n.ends_with(".tmp")));
}

/// What a reader gets of the packed sample, and how many numbers it is told as corrupt.
fn reads(disk: &SimDisk, what: &str) -> (Vec<u64>, u64) {
    let opened = Journal::open_stepped(disk.copy(2).disk(), packing(), Box::new(()));
    let (journal, opened, _stepper) = opened.unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(opened.committed, Seq(PACKED + 2), "{what}");
    let (entries, expired, corrupt) = read_all(&mut journal.reader(Seq(1)));
    assert_eq!(expired, 0, "{what}");
    for entry in &entries {
        assert_eq!(text(entry), text_of(entry.seq.0), "{what}");
        assert_eq!(entry.time, entry.seq.0 * 1_000, "{what}");
    }
    // A search in the middle finds what is there.
    for n in 1..=PACKED {
        let found = journal.seek_time(n * 1_000).unwrap();
        let expected = entries.iter().find(|e| e.seq.0 >= n).unwrap().seq;
        assert_eq!(found, expected, "{what}");
        let block = journal.reader(Seq(n)).next(1).unwrap();
        assert!(!block.is_empty(), "{what}");
    }
    (entries.iter().map(|e| e.seq.0).collect(), corrupt)
}

fn text_of(n: u64) -> String {
    String::from_utf8(sized(n, 300).payload.to_vec()).unwrap()
}

#[test]
fn any_flipped_bit_costs_at_most_the_block_it_is_in_and_a_repair_loses_nothing_more() {
    let sample = packed_sample();
    let bytes = sample.contents(FIRST).unwrap();
    let mut hit = BTreeSet::new();
    for at in (0..bytes.len()).filter(|at| !(64..4096).contains(at)) {
        for bit in [at % 8, (at + 3) % 8] {
            let disk = sample.copy(1);
            disk.flip(FIRST, at, 1 << bit);
            let what = format!("byte {at} bit {bit}");
            let (read, corrupt) = reads(&disk, &what);
            assert_eq!(read.len() as u64 + corrupt, PACKED + 2, "{what}");
            let lost: Vec<u64> = (1..=PACKED + 2).filter(|n| !read.contains(n)).collect();
            // Four blocks of three records.
            let first = lost.first().map_or(1, |n| (n - 1) / 3 * 3 + 1);
            assert!(
                lost.is_empty() || lost == [first, first + 1, first + 2],
                "{what}: {lost:?}"
            );
            hit.extend(lost);

            let report: Report = inspect(&disk, Depth::Everything).unwrap();
            assert!(!report.is_sound(), "{what} went unnoticed");
            assert_eq!(report.lost(), corrupt, "{what}");
            let done = repair(&disk.disk(), || Ok(SimDisk::new(1).disk())).unwrap();
            let mended = done.steps.iter().any(|s| s.fix == Fix::Index);
            assert_eq!(reads(&disk, &what), (read, corrupt), "{what}");
            assert!(
                !mended || disk.contents(FIRST).unwrap() == bytes,
                "{what}: the index came out otherwise"
            );
        }
    }
    assert_eq!(hit.len() as u64, PACKED, "some block is nowhere: {hit:?}");
}

#[test]
fn with_index_and_block_headers_damaged_the_other_blocks_are_found() {
    let sample = packed_sample();
    let bytes = sample.contents(FIRST).unwrap();
    let headers: Vec<usize> = (0..bytes.len() - 4)
        .filter(|at| &bytes[*at..*at + 4] == b"CRZB")
        .collect();
    assert_eq!(headers.len(), 4);
    for (n, at) in (0..).zip(headers) {
        let disk = sample.copy(1);
        disk.flip(FIRST, bytes.len() - 1, 1);
        disk.flip(FIRST, at, 1);
        let (read, corrupt) = reads(&disk, &format!("block {n}"));
        let lost: Vec<u64> = (1..=PACKED).filter(|n| !read.contains(n)).collect();
        assert_eq!((lost, corrupt), ((3 * n + 1..3 * n + 4).collect(), 3));
    }
}

#[test]
fn cut_at_any_byte_a_compressed_segment_keeps_the_blocks_before() {
    let sample = packed_sample();
    let bytes = sample.contents(FIRST).unwrap();
    let mut most = 0;
    for len in (4160..bytes.len()).rev() {
        let disk = sample.copy(1);
        disk.put(FIRST, bytes[..len].to_vec());
        let what = format!("cut to {len}");
        let (read, corrupt) = reads(&disk, &what);
        assert_eq!(read.len() as u64 + corrupt, PACKED + 2, "{what}");
        assert_eq!(read.len() % 3, 2, "{what}: {read:?}");
        assert!(most == 0 || read.len() <= most);
        most = read.len();
        let done = repair(&disk.disk(), || Ok(SimDisk::new(1).disk())).unwrap();
        assert_eq!(done.left.lost(), corrupt, "{what}");
        assert_eq!(reads(&disk, &what), (read, corrupt), "{what}, repaired");
        let again = repair(&disk.disk(), || Ok(SimDisk::new(1).disk())).unwrap();
        assert_eq!(again.steps, [], "{what}");
    }
    assert_eq!(most, 2);
}

#[test]
fn a_crash_at_any_step_leaves_one_whole_copy() {
    for seed in 0..8 {
        for step in 1.. {
            let disk = SimDisk::new(seed);
            let (journal, _, mut stepper) =
                Journal::open_stepped(disk.disk(), packing(), Box::new(())).unwrap();
            for n in 1..=PACKED {
                append(&journal, &mut stepper, vec![sized(n, 300)]).unwrap();
            }
            stepper.seal();
            append(&journal, &mut stepper, vec![sized(13, 300), sized(14, 300)]).unwrap();
            disk.crash_at(disk.steps() + step);
            while stepper.pack() {}
            let done = !disk.is_down();
            if seed % 2 == 0 {
                disk.power_loss();
            } else {
                disk.kill();
            }
            assert_eq!(
                reads(&disk, &format!("seed {seed} step {step}")),
                ((1..=PACKED + 2).collect(), 0)
            );
            if done {
                assert!(step > 8, "only {step} steps");
                break;
            }
        }
    }
}

#[test]
fn what_fails_leaves_the_plain_segment_and_is_tried_again() {
    let steps = [
        (Op::Create, Failure::NoSpace),
        (Op::Write, Failure::NoSpace),
        (Op::Write, Failure::Io),
        (Op::Sync, Failure::Io),
        (Op::Rename, Failure::Io),
        (Op::Read, Failure::Io),
    ];
    for (op, failure) in steps {
        let disk = SimDisk::new(3);
        let (journal, _, mut stepper) =
            Journal::open_stepped(disk.disk(), packing(), Box::new(())).unwrap();
        for n in 1..=PACKED {
            append(&journal, &mut stepper, vec![sized(n, 300)]).unwrap();
        }
        stepper.seal();
        append(&journal, &mut stepper, vec![sized(13, 300), sized(14, 300)]).unwrap();
        let plain = disk.contents(FIRST);
        let suffix = if op == Op::Rename { ".seg" } else { ".tmp" };
        disk.inject(Fault {
            op,
            failure,
            skip: 0,
            times: 1,
            suffix: suffix.to_owned(),
        });
        while stepper.pack() {}
        assert_eq!(journal.stats().pack_failures, 1, "{op:?}");
        assert_eq!(disk.contents(FIRST), plain, "{op:?}");
        assert!(disk.names().iter().all(|n| !n.ends_with(".tmp")), "{op:?}");
        while stepper.pack() {}
        assert_eq!(journal.stats().packed_segments, 1, "{op:?}");
        journal.check().unwrap();
    }
}

#[test]
fn a_segment_with_damage_stays_as_it_is() {
    let disk = SimDisk::new(3);
    let (journal, _, mut stepper) =
        Journal::open_stepped(disk.disk(), packing(), Box::new(())).unwrap();
    for n in 1..=PACKED {
        append(&journal, &mut stepper, vec![sized(n, 300)]).unwrap();
    }
    stepper.seal();
    append(&journal, &mut stepper, vec![sized(13, 300)]).unwrap();
    disk.flip(FIRST, 4160 + 1_000, 1);
    let damaged = disk.contents(FIRST);
    while stepper.pack() {}
    let stats = journal.stats();
    assert_eq!((stats.packed_segments, stats.pack_failures), (0, 0));
    assert_eq!(disk.contents(FIRST), damaged);
    assert!(disk.names().iter().all(|n| !n.ends_with(".tmp")));
}

#[test]
fn a_repair_keeps_the_end_that_a_whole_trailer_says() {
    for packed in [true, false] {
        let disk = SimDisk::new(3);
        let config = match packed {
            true => packing(),
            false => Config::default(),
        };
        let (journal, _, mut stepper) =
            Journal::open_stepped(disk.disk(), config, Box::new(())).unwrap();
        for n in 1..=PACKED {
            append(&journal, &mut stepper, vec![sized(n, 300)]).unwrap();
        }
        stepper.seal();
        append(&journal, &mut stepper, vec![sized(13, 300)]).unwrap();
        while stepper.pack() {}
        assert_eq!(journal.stats().packed_segments, u64::from(packed));
        stepper.close(0);
        // The sealed one is the newest, its last record is damaged, and so is its index.
        disk.disk().unlink("00000000000000000013.seg").unwrap();
        let bytes = disk.contents(FIRST).unwrap();
        let index = match packed {
            true => 4 * 32,
            false => 24,
        };
        disk.flip(FIRST, bytes.len() - 64 - index - 5, 1);
        disk.flip(FIRST, bytes.len() - 64 - 3, 1);
        let done = repair(&disk.disk(), || Ok(SimDisk::new(1).disk())).unwrap();
        assert!(done.steps.iter().any(|s| s.fix == Fix::Index));
        assert_eq!(done.left.committed(), Seq(PACKED));
        assert_eq!(done.left.lost(), if packed { 3 } else { 1 });
        // No number is given out twice.
        let (journal, opened, mut stepper) =
            Journal::open_stepped(disk.disk(), packing(), Box::new(())).unwrap();
        assert_eq!(opened.committed, Seq(PACKED));
        let range = append(&journal, &mut stepper, vec![sized(13, 300)]).unwrap();
        assert_eq!(range, Seq(13)..Seq(14));
    }
}

#[test]
fn a_segment_that_hardly_shrinks_stays_plain_and_its_copy_within_the_bound() {
    let disk = SimDisk::new(3);
    let (journal, _, mut stepper) =
        Journal::open_stepped(disk.disk(), packing(), Box::new(())).unwrap();
    let mut random = Random::new(5);
    let mut noise = |n: u64| {
        let payload: Vec<u8> = (0..900).map(|_| random.below(256) as u8).collect();
        Record {
            kind: 1,
            time: n,
            payload: payload.into(),
        }
    };
    for n in 1..=PACKED {
        append(&journal, &mut stepper, vec![noise(n)]).unwrap();
    }
    stepper.seal();
    append(&journal, &mut stepper, vec![noise(13)]).unwrap();
    let plain = disk.contents(FIRST);
    while stepper.pack() {
        let names = disk.names();
        let files = names.iter().filter(|n| n.contains(".seg"));
        let bytes: usize = files.map(|n| disk.contents(n).unwrap().len()).sum();
        assert_eq!(journal.stats().bytes, bytes as u64);
    }
    assert_eq!(disk.contents(FIRST), plain);
    let stats = journal.stats();
    assert_eq!((stats.packed_segments, stats.pack_failures), (0, 0));
    assert!(disk.names().iter().all(|n| !n.ends_with(".tmp")));
}

#[test]
fn a_segment_that_retention_removes_meanwhile_does_not_come_back() {
    let disk = SimDisk::new(3);
    let config = Config {
        max_size: 64 << 10,
        ..packing()
    };
    let (journal, _, mut stepper) =
        Journal::open_stepped(disk.disk(), config, Box::new(())).unwrap();
    let mut n = 0;
    let mut fill = |stepper: &mut journal::Stepper, until: &dyn Fn() -> bool| {
        while !until() {
            n += 1;
            append(&journal, stepper, vec![sized(n, 900)]).unwrap();
        }
    };
    fill(&mut stepper, &|| journal.stats().segments == 2);
    assert!(stepper.pack() && stepper.pack() && stepper.pack());
    assert!(disk.names().iter().any(|n| n.ends_with(".zst.tmp")));
    fill(&mut stepper, &|| journal.first() > Seq(1));
    while stepper.pack() {}
    stepper.keep(0);
    let first = journal.first();
    let oldest = disk.names().into_iter().find(|n| n.ends_with(".seg"));
    assert_eq!(oldest, Some(format!("{:020}.seg", first.0)));
    assert!(disk.names().iter().all(|n| !n.ends_with(".tmp")));
    journal.check().unwrap();
}

/// A real disk that notes which thread removes files.
struct Noting {
    disk: RealDisk,
    removers: Arc<Mutex<Vec<String>>>,
}

impl Disk for Noting {
    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(name, access)
    }
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.create(name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn unlink(&self, name: &str) -> io::Result<()> {
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or_default().to_owned();
        self.removers.lock().unwrap().push(thread);
        self.disk.unlink(name)
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
    fn length(&self, name: &str) -> io::Result<u64> {
        self.disk.length(name)
    }
    fn fsync_dir(&self) -> io::Result<()> {
        self.disk.fsync_dir()
    }
    fn space(&self) -> io::Result<u64> {
        self.disk.space()
    }
    fn lock(&self) -> Result<Box<dyn Lock>, LockError> {
        self.disk.lock()
    }
    fn path(&self) -> PathBuf {
        self.disk.path()
    }
}

#[tokio::test]
async fn the_writer_does_not_remove_files_where_the_keeper_has_time_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let removers = Arc::new(Mutex::new(Vec::new()));
    let disk = Noting {
        disk: RealDisk::open(dir.path()).unwrap(),
        removers: Arc::clone(&removers),
    };
    let config = Config {
        segment_bytes: 32 << 10,
        max_size: 128 << 10,
        ..Config::default()
    };
    let (journal, _) = Journal::open(Arc::new(disk), config, Box::new(())).unwrap();
    let mut removed = 0;
    for n in 1..=600 {
        let first = journal.first();
        journal.append(vec![sized(n, 700)]).await.unwrap();
        if journal.first() > first {
            removed += 1;
            eventually("removed", || removers.lock().unwrap().len() >= removed);
        }
    }
    journal.close();
    let removers = removers.lock().unwrap();
    assert!(removers.len() > 5, "{removers:?}");
    assert!(
        removers.iter().all(|t| t == "journal-keeper"),
        "{removers:?}"
    );
}

#[test]
fn a_journal_that_is_closed_while_it_compresses_leaves_nothing_half_done() {
    let disk = SimDisk::new(3);
    let (journal, _, mut stepper) =
        Journal::open_stepped(disk.disk(), packing(), Box::new(())).unwrap();
    for n in 1..=PACKED {
        append(&journal, &mut stepper, vec![sized(n, 300)]).unwrap();
    }
    stepper.seal();
    let mut last = Box::pin(journal.append(vec![sized(13, 300)]));
    assert!(poll(&mut last).is_pending());
    stepper.write(0);
    assert!(poll(&mut last).is_ready());
    assert!(stepper.pack() && stepper.pack());
    stepper.close(0);
    assert!(disk.names().iter().all(|n| !n.ends_with(".tmp")));
}

#[test]
fn a_segment_that_was_sealed_empty_is_not_taken_for_the_one_that_got_its_name() {
    let disk = SimDisk::new(3);
    let open = || Journal::open_stepped(disk.disk(), packing(), Box::new(())).unwrap();
    let (journal, _, mut stepper) = open();
    append(&journal, &mut stepper, vec![sized(1, 300)]).unwrap();
    stepper.close(0);
    // All that was in it is cut out, the index of nothing put behind.
    let whole = disk.contents(FIRST).unwrap();
    disk.put(FIRST, whole[..4160].to_vec());
    let (_, _, mut stepper) = open();
    stepper.seal();
    stepper.close(0);

    let (journal, opened, mut stepper) = open();
    assert_eq!(opened.committed, Seq(0));
    for n in 1..=PACKED {
        append(&journal, &mut stepper, vec![sized(n, 300)]).unwrap();
    }
    journal.check().unwrap();
    while stepper.pack() {}
    let (entries, expired, corrupt) = read_all(&mut journal.reader(Seq(1)));
    assert_eq!((entries.len() as u64, expired, corrupt), (PACKED, 0, 0));
    stepper.close(0);
    let (journal, _, _stepper) = open();
    let (entries, expired, corrupt) = read_all(&mut journal.reader(Seq(1)));
    assert_eq!((entries.len() as u64, expired, corrupt), (PACKED, 0, 0));
}
