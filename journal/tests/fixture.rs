//! A frozen journal of each format version opens and goes on.
//!
//! `CRESSET_WRITE_FIXTURE=DIR` writes one of the present version instead; a released one is never written again.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::{fs, path::Path, sync::Arc};

use journal::{
    Account, CheckpointFrom, Compression, Config, CursorOptions, Disk, Expired, FORMAT, Journal,
    RealDisk, Seq, Start,
    inspect::{Depth, State, inspect},
    sim::SimDisk,
};
use support::{Counting, append, poll, read_all, record, records, text};

/// Records 1–3 sealed and compressed; 4–6 open, where a crash left a hole at 5; 7 after it. A cursor at 3 with a state.
fn present() -> SimDisk {
    let disk = SimDisk::new(1);
    let config = Config {
        compression: Compression::Zstd { level: 3 },
        ..Config::default()
    };
    let open = |disk: &SimDisk| {
        let (fold, _) = Counting::new();
        Journal::open_stepped(disk.disk(), config.clone(), Box::new(fold)).unwrap()
    };
    let (journal, _, mut stepper) = open(&disk);
    append(&journal, &mut stepper, records(&["one", "two", ""])).unwrap();
    stepper.seal();
    append(&journal, &mut stepper, records(&["four", "five", "six"])).unwrap();
    while stepper.pack() {}
    assert_eq!(journal.stats().packed_segments, 1);
    let options = CursorOptions {
        start: Start::At(Seq(2)),
        ..CursorOptions::default()
    };
    let cursor = journal.cursor("sink-1", options).unwrap();
    let delta = Account {
        delivered: 1,
        ..Account::default()
    };
    let mut advance = Box::pin(cursor.advance(Seq(3), delta, Some("state".into())));
    assert!(poll(&mut advance).is_pending());
    stepper.keep(0);
    assert!(poll(&mut advance).is_ready());
    drop(advance);
    drop(cursor);
    stepper.close(0);
    // "five" is the second of the three frames behind header, copy and the 16 bytes of checkpoint.
    disk.flip("00000000000000000004.seg", 4160 + 16 + 28 + 24, 1);
    let (journal, opened, mut stepper) = open(&disk);
    assert_eq!(opened.torn, 1);
    append(&journal, &mut stepper, vec![record("seven")]).unwrap();
    stepper.close(0);
    disk
}

#[test]
fn version_1_opens_and_goes_on() {
    opens_and_goes_on(1);
}

#[test]
fn version_2_opens_and_goes_on() {
    if let Ok(to) = std::env::var("CRESSET_WRITE_FIXTURE") {
        let disk = present();
        for name in disk.names() {
            fs::write(Path::new(&to).join(&name), disk.contents(&name).unwrap()).unwrap();
        }
        return;
    }
    opens_and_goes_on(2);
    assert_eq!(
        FORMAT, 2,
        "a new version needs a fixture of its own beside these"
    );
}

/// Records 1–3 left the journal before the cursor came to them, 4 was delivered, 5 and 6 wait.
fn expired() -> SimDisk {
    let disk = SimDisk::new(1);
    let (fold, _) = Counting::new();
    let opened = Journal::open_stepped(disk.disk(), Config::default(), Box::new(fold));
    let (journal, _, mut stepper) = opened.unwrap();
    let options = CursorOptions {
        start: Start::Beginning,
        ..CursorOptions::default()
    };
    let cursor = journal.cursor("late", options).unwrap();
    cursor.retire();
    append(&journal, &mut stepper, records(&["one", "two", "three"])).unwrap();
    stepper.seal();
    append(&journal, &mut stepper, records(&["four", "five", "six"])).unwrap();
    stepper.keep(u64::MAX / 2);
    assert_eq!(
        (journal.first(), cursor.expired()),
        (Seq(4), one_to_three())
    );
    let delta = Account {
        delivered: 1,
        ..Account::default()
    };
    let mut advance = Box::pin(cursor.advance(Seq(5), delta, Some("state".into())));
    assert!(poll(&mut advance).is_pending());
    stepper.keep(0);
    drop(advance);
    drop(cursor);
    stepper.close(0);
    disk
}

fn one_to_three() -> Vec<Expired> {
    vec![Expired {
        first: Seq(1),
        end: Seq(4),
        count: 3,
    }]
}

#[test]
fn which_records_expired_is_read_from_a_frozen_cursor() {
    if let Ok(to) = std::env::var("CRESSET_WRITE_FIXTURE_EXPIRED") {
        let disk = expired();
        for name in disk.names() {
            fs::write(Path::new(&to).join(&name), disk.contents(&name).unwrap()).unwrap();
        }
        return;
    }
    let frozen = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v2-expired");
    let held = expired();
    let now = held.contents("late.cursor").unwrap();
    assert_eq!(fs::read(frozen.join("late.cursor")).unwrap(), now);
    let dir = copied(&frozen);
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open_existing(dir.path()).unwrap());
    let report = inspect(&*disk, Depth::Everything).unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(report.cursors[0].expired, one_to_three());
    let (fold, _) = Counting::new();
    let (journal, ..) = Journal::open_stepped(disk, Config::default(), Box::new(fold)).unwrap();
    let cursor = journal.cursor("late", CursorOptions::default()).unwrap();
    assert_eq!((cursor.position(), cursor.account().expired), (Seq(5), 3));
    assert_eq!(cursor.expired(), one_to_three());
}

/// The same files in a folder that may be written.
fn copied(frozen: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in fs::read_dir(frozen).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
    }
    dir
}

fn opens_and_goes_on(version: u16) {
    let frozen = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/v{version}"));
    let dir = copied(&frozen);
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open_existing(dir.path()).unwrap());
    let report = inspect(&*disk, Depth::Everything).unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(report.format, Some(version));
    assert_eq!((report.records(), report.segments[1].interrupted), (6, 1));
    let states: Vec<_> = report.segments.iter().map(|s| s.state).collect();
    assert_eq!(states, [State::Sealed, State::Open]);
    let compressed: Vec<_> = report.segments.iter().map(|s| s.compressed).collect();
    assert_eq!(compressed, [version > 1, false]);

    let (fold, seen) = Counting::new();
    let (journal, opened, mut stepper) =
        Journal::open_stepped(Arc::clone(&disk), Config::default(), Box::new(fold)).unwrap();
    assert_eq!(
        (
            opened.created,
            opened.committed,
            opened.corrupt,
            opened.torn
        ),
        (false, Seq(7), 0, 0)
    );
    assert_eq!(opened.checkpoint, CheckpointFrom::Before(Seq(4)));
    assert_eq!(*seen.lock().unwrap(), (6, 7));
    let (entries, expired, corrupt) = read_all(&mut journal.reader(Seq(1)));
    let texts: Vec<_> = entries.iter().map(text).collect();
    assert_eq!(texts, ["one", "two", "", "four", "six", "seven"]);
    assert_eq!((expired, corrupt), (0, 1));
    assert!(entries.iter().all(|e| (e.kind, e.time) == (1, 1_000)));

    let cursor = journal.cursor("sink-1", CursorOptions::default()).unwrap();
    assert_eq!(cursor.position(), Seq(3));
    assert_eq!(
        cursor.account(),
        Account {
            delivered: 1,
            ..Account::default()
        }
    );
    assert_eq!(cursor.state().unwrap(), "state");
    assert_eq!(
        append(&journal, &mut stepper, records(&["eight"])).unwrap(),
        Seq(8)..Seq(9)
    );
    stepper.close(0);
    // From now on only programs that know this version open it.
    let report = inspect(&*disk, Depth::Everything).unwrap();
    assert_eq!((report.format, report.is_sound()), (Some(FORMAT), true));
}
