//! `cresset journal` through the program, on journals that the library made and the test damaged.
#![allow(clippy::expect_used, clippy::panic)] // reason: a test that cannot go on has failed

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use journal::{
    Account, Compression, Config, CursorOptions, Disk, Journal, Opened, RealDisk, Record, Seq,
    Start,
};
use serde_json::Value;
use support::program;

const FIRST: &str = "00000000000000000001.seg";
const SECOND: &str = "00000000000000000011.seg";
const NEWEST: &str = "00000000000000000021.seg";

fn open(path: &Path) -> (Journal, Opened) {
    open_with(path, Compression::None)
}

fn open_with(path: &Path, compression: Compression) -> (Journal, Opened) {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(path).expect("a folder"));
    let config = Config {
        segment_bytes: 12 << 10,
        compression,
        block_bytes: 2 << 10,
        ..Config::default()
    };
    Journal::open(disk, config, Box::new(())).expect("a journal")
}

/// Records 1–10 and 11–20 in sealed segments, 21–25 in an open one; cursor `siem` at 6.
fn made(path: &Path) {
    fill(open(path).0).close();
}

/// The same with the sealed segments compressed.
fn made_compressed(path: &Path) {
    let journal = fill(open_with(path, Compression::Zstd { level: 1 }).0);
    support::eventually("both are compressed", Duration::from_secs(60), || {
        (journal.stats().packed_segments == 2).then_some(())
    });
    journal.close();
}

fn fill(journal: Journal) -> Journal {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let options = CursorOptions {
        start: Start::Beginning,
        ..CursorOptions::default()
    };
    let cursor = journal.cursor("siem", options).expect("a cursor");
    runtime.block_on(async {
        for batch in [10_u64, 10, 5] {
            let record = |n| Record {
                kind: 1,
                time: 1_700_000_000_000_000_000 + n,
                payload: vec![b'x'; 700].into(),
            };
            let records = (0..batch).map(record).collect();
            journal.append(records).await.expect("room");
        }
        let delivered = Account {
            delivered: 5,
            ..Account::default()
        };
        cursor
            .advance(Seq(6), delivered, None)
            .await
            .expect("a move");
    });
    drop(cursor);
    journal
}

fn run(arguments: &[&str], dir: &Path) -> Output {
    program("cresset")
        .arg("journal")
        .args(arguments)
        .arg(dir)
        .output()
        .expect("cresset runs")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it exits")
}

fn damage(file: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(file).expect("a file");
    change(&mut bytes);
    fs::write(file, bytes).expect("written");
}

/// All files with their bytes, those kept aside too.
fn snapshot(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(snapshot(&path));
        } else {
            let bytes = fs::read(&path).expect("a file");
            files.push((path, bytes));
        }
    }
    files.sort();
    files
}

#[test]
fn inspect_shows_segments_and_cursors_of_a_journal_or_of_a_relays_data_folder() {
    let dir = tempfile::tempdir().expect("a folder");
    let inner = dir.path().join("journal");
    made(&inner);
    let before = snapshot(dir.path());
    for path in [dir.path(), &inner] {
        let shown = run(&["inspect"], path);
        assert_eq!(code(&shown), 0);
        let shown = text(&shown);
        let head = format!(
            "{}: 25 records, 1 to 25, in 3 segments of ",
            inner.display()
        );
        assert!(shown.starts_with(&head), "{shown}");
        let row = |start: &str| {
            let line = shown
                .lines()
                .find(|line| line.trim_start().starts_with(start));
            let line = line.unwrap_or_else(|| panic!("no row {start} in\n{shown}"));
            line.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let first = row("1 ");
        assert_eq!(first[..3], ["1", "10", "10"]);
        assert!(first.contains(&"sealed".to_owned()), "{first:?}");
        assert!(
            first.contains(&"2023-11-14T22:13:20.000Z".to_owned()),
            "{first:?}"
        );
        assert!(row("21 ").contains(&"open".to_owned()));
        assert_eq!(row("siem")[..4], ["siem", "6", "20", "5"]);
    }
    let report = json(&run(&["inspect", "-o", "json"], dir.path()));
    assert_eq!(report["segments"][1]["first"], 11);
    assert_eq!(report["segments"][1]["records"], 10);
    assert_eq!(report["segments"][2]["state"], "open");
    assert_eq!(report["cursors"][0]["lag"], 20);
    assert_eq!(report["problems"], serde_json::json!([]));
    assert_eq!(snapshot(dir.path()), before, "looking changed something");
}

#[test]
fn verify_tells_each_problem_with_file_offset_and_record_and_exits_with_1() {
    let dir = tempfile::tempdir().expect("a folder");
    made(dir.path());
    let sound = run(&["verify"], dir.path());
    assert_eq!(code(&sound), 0, "{}", text(&sound));
    assert!(text(&sound).ends_with("no problem\n"), "{}", text(&sound));

    // A bit in the third record of the second segment: two headers (4160 bytes), then frames of 724 bytes.
    damage(&dir.path().join(SECOND), |bytes| {
        bytes[4160 + 2 * 724 + 100] ^= 1;
    });
    damage(&dir.path().join("siem.cursor"), |bytes| bytes[20] ^= 1);
    let before = snapshot(dir.path());
    let found = run(&["verify"], dir.path());
    assert_eq!(code(&found), 1);
    let lines = text(&found);
    let record = format!("{SECOND} at 5608: record 13: cannot be read (records lost)\n");
    assert!(lines.contains(&record), "{lines}");
    assert!(
        lines.contains("siem.cursor: one of the two slots is damaged"),
        "{lines}"
    );
    assert!(lines.ends_with("2 problems, 1 record lost\n"), "{lines}");
    let report = json(&run(&["verify", "-o", "json"], dir.path()));
    assert_eq!(report["lost"], 1);
    let problem = &report["problems"][0];
    assert_eq!(
        (
            &problem["file"],
            &problem["offset"],
            &problem["first"],
            &problem["fault"]
        ),
        (&SECOND.into(), &5608.into(), &13.into(), &"records".into())
    );
    assert_eq!(snapshot(dir.path()), before, "verifying changed something");
}

#[test]
fn repair_asks_first_then_mends_what_can_be_and_keeps_what_it_cut() {
    let dir = tempfile::tempdir().expect("a folder");
    made(dir.path());
    let newest = dir.path().join(NEWEST);
    let end = fs::metadata(&newest).expect("a file").len();
    damage(&newest, |bytes| bytes.extend_from_slice(b"torn"));
    damage(&dir.path().join(FIRST), |bytes| {
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
    });
    damage(&dir.path().join("siem.cursor"), |bytes| {
        bytes[20] ^= 1;
        bytes[4096 + 20] ^= 1;
    });
    let before = snapshot(dir.path());
    for flags in [&["repair"][..], &["repair", "--dry-run"]] {
        let told = run(flags, dir.path());
        assert_eq!(code(&told), 1, "{}", text(&told));
        let told = text(&told);
        let cut = format!("would: {NEWEST} at {end}: cut 4 bytes behind the last record\n");
        assert!(told.contains(&cut), "{told}");
        assert!(
            told.contains(&format!(
                "would: {FIRST}: write its index again from the records"
            )),
            "{told}"
        );
        assert!(
            told.contains("would: siem.cursor: put the cursor at the oldest record, 1"),
            "{told}"
        );
        assert_eq!(told.contains("--yes"), flags.len() == 1, "{told}");
        assert_eq!(
            snapshot(dir.path()),
            before,
            "only asking changed something"
        );
    }
    let both = run(&["repair", "--dry-run", "--yes"], dir.path());
    assert_eq!(code(&both), 2);

    let done = run(&["repair", "--yes"], dir.path());
    assert_eq!(code(&done), 0, "{}", text(&done));
    let done = text(&done);
    assert!(
        done.contains("did: ") && done.ends_with("no problem\n"),
        "{done}"
    );
    let aside: Vec<_> = fs::read_dir(dir.path())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_dir())
        .collect();
    assert_eq!(aside.len(), 1, "{aside:?}");
    let name = aside[0].file_name().expect("a name").to_string_lossy();
    assert!(name.starts_with("repair-20"), "{name}");
    let kept = fs::read(aside[0].join(format!("{NEWEST}@{end}"))).expect("kept");
    assert_eq!(kept, b"torn");
    assert!(aside[0].join("siem.cursor").exists());

    let again = run(&["repair", "--yes"], dir.path());
    assert_eq!(code(&again), 0);
    assert!(text(&again).starts_with("nothing to repair\n"));
    let (journal, opened) = open(dir.path());
    assert_eq!((opened.committed, opened.cut_bytes), (Seq(25), 0));
    assert_eq!(
        journal
            .reader(Seq(1))
            .next(1 << 20)
            .expect("records")
            .entries
            .len(),
        10
    );
    journal.close();
}

#[test]
fn compressed_segments_are_shown_verified_and_repaired_like_others() {
    let dir = tempfile::tempdir().expect("a folder");
    made_compressed(dir.path());
    let shown = text(&run(&["inspect"], dir.path()));
    let row = shown
        .lines()
        .find(|line| line.trim_start().starts_with("1 "));
    let row = row.unwrap_or_else(|| panic!("no first segment in\n{shown}"));
    assert!(row.contains("sealed") && row.contains("  zstd "), "{row}");
    assert!(row.contains(":1  2023-11-14T22:13:20.000Z"), "{row}");
    let report = json(&run(&["inspect", "-o", "json"], dir.path()));
    let (first, newest) = (&report["segments"][0], &report["segments"][2]);
    assert_eq!(
        (&first["stored"], &newest["stored"]),
        (&"zstd".into(), &"plain".into())
    );
    assert_eq!(first["plain_bytes"], 4160 + 10 * 724);
    let sound = run(&["verify"], dir.path());
    assert_eq!(code(&sound), 0, "{}", text(&sound));

    // A bit in the first block of the second segment costs its two records; the index of the first one costs nothing.
    damage(&dir.path().join(SECOND), |bytes| bytes[4160 + 45] ^= 1);
    damage(&dir.path().join(FIRST), |bytes| {
        let index = bytes.len() - 64 - 3;
        bytes[index] ^= 1;
    });
    let found = run(&["verify"], dir.path());
    assert_eq!(code(&found), 1);
    let lines = text(&found);
    let records = format!("{SECOND} at 4160: records 11 to 12: cannot be read (records lost)\n");
    assert!(lines.contains(&records), "{lines}");
    assert!(lines.ends_with("2 problems, 2 records lost\n"), "{lines}");

    let whole = fs::read(dir.path().join(FIRST)).expect("a file");
    let done = text(&run(&["repair", "--yes"], dir.path()));
    assert!(
        done.contains(&format!("did: {FIRST}: write its index again")),
        "{done}"
    );
    assert!(done.ends_with("1 problem, 2 records lost\n"), "{done}");
    assert_eq!(
        fs::read(dir.path().join(FIRST)).expect("a file").len(),
        whole.len()
    );
}

#[test]
fn what_is_lost_stays_told_after_a_repair() {
    let dir = tempfile::tempdir().expect("a folder");
    made(dir.path());
    damage(&dir.path().join(SECOND), |bytes| bytes[4160 + 100] ^= 1);
    let done = run(&["repair", "--yes", "-o", "json"], dir.path());
    assert_eq!(code(&done), 1);
    let done = json(&done);
    assert_eq!(done["steps"], serde_json::json!([]));
    assert_eq!(done["journal"]["lost"], 1);
    assert_eq!(done["journal"]["problems"][0]["first"], 11);
}

#[test]
fn a_repair_beside_a_relay_is_refused_with_its_process_and_looking_is_not() {
    let dir = tempfile::tempdir().expect("a folder");
    let inner = dir.path().join("journal");
    made(&inner);
    let (journal, _) = open(&inner);
    damage(&inner.join(NEWEST), |bytes| {
        bytes.extend_from_slice(b"being written");
    });
    let before = snapshot(dir.path());
    let holder = format!("in use by process {}", std::process::id());
    for flags in [&["repair", "--yes"][..], &["repair"]] {
        let refused = run(flags, dir.path());
        assert_eq!(code(&refused), 3);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(said.contains(&holder), "{said}");
    }
    let shown = run(&["verify"], dir.path());
    assert_eq!(code(&shown), 0, "{}", text(&shown));
    assert!(text(&shown).contains(&holder), "{}", text(&shown));
    assert_eq!(snapshot(dir.path()), before);
    journal.close();
}

#[test]
fn what_is_no_journal_or_one_of_a_newer_format_is_refused_with_3() {
    let dir = tempfile::tempdir().expect("a folder");
    let refused = run(&["inspect"], dir.path());
    assert_eq!(code(&refused), 3);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("holds no journal"), "{said}");
    let refused = run(&["verify"], &dir.path().join("missing"));
    assert_eq!(code(&refused), 3);
    assert_eq!(code(&run(&["mend"], dir.path())), 2);

    made(dir.path());
    // The CRC-32 of "cresset-journal 900".
    fs::write(dir.path().join("FORMAT"), "cresset-journal 900 bc258c8e\n").expect("written");
    let before = snapshot(dir.path());
    for flags in [&["inspect"][..], &["verify"], &["repair", "--yes"]] {
        let refused = run(flags, dir.path());
        assert_eq!(code(&refused), 3, "{flags:?}");
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        let versions = format!(
            "format version 900 and this program knows {}",
            journal::FORMAT
        );
        assert!(said.contains(&versions), "{said}");
    }
    assert_eq!(snapshot(dir.path()), before);
}
