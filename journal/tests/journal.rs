//! The journal on a real directory, through its public door.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use journal::{
    Account, AppendError, CheckpointFrom, Config, CursorError, CursorOptions, Disk, FORMAT,
    Journal, OpenError, Opened, RealDisk, Seq, Start, WhenFull,
};
use support::{Counting, append, read_all, record, records, sized, text, texts};

fn small() -> Config {
    Config {
        segment_bytes: 8 << 10,
        max_size: 1 << 20,
        ..Config::default()
    }
}

fn open(path: &Path, config: Config) -> (Journal, Opened) {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(path).unwrap());
    Journal::open(disk, config, Box::new(())).unwrap()
}

fn files(path: &Path, suffix: &str) -> Vec<String> {
    let names = fs::read_dir(path)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|n| n.ends_with(suffix)).collect();
    names.sort();
    names
}

#[tokio::test]
async fn what_was_appended_is_read_back_now_and_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, opened) = open(dir.path(), Config::default());
    assert!(opened.created);
    assert_eq!(
        journal.append(records(&["a", "b"])).await.unwrap(),
        Seq(1)..Seq(3)
    );
    assert_eq!(
        journal.append(records(&["c"])).await.unwrap(),
        Seq(3)..Seq(4)
    );
    assert_eq!(texts(&journal), ["a", "b", "c"]);
    journal.close();

    let (journal, opened) = open(dir.path(), Config::default());
    assert_eq!(
        (opened.created, opened.committed, opened.cut_bytes),
        (false, Seq(3), 0)
    );
    assert_eq!(
        journal.append(records(&["d"])).await.unwrap(),
        Seq(4)..Seq(5)
    );
    assert_eq!(texts(&journal), ["a", "b", "c", "d"]);
    journal.check().unwrap();
}

#[tokio::test]
async fn many_appenders_share_group_commits_and_get_gapless_ranges() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path(), Config::default());
    let tasks = (0..50_u64).map(|n| {
        let journal = journal.clone();
        tokio::spawn(async move {
            let mut ranges = Vec::new();
            for m in 0..20 {
                let batch = vec![record(format!("{n}/{m}")), record(format!("{n}/{m}+"))];
                ranges.push(journal.append(batch).await.unwrap());
            }
            ranges
        })
    });
    let mut ranges = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        ranges.extend(task.await.unwrap());
    }
    ranges.sort_by_key(|r| r.start);
    let mut next = Seq(1);
    for range in ranges {
        assert_eq!(range.start, next);
        next = range.end;
    }
    assert_eq!(next, Seq(2001));
    let (entries, _, corrupt) = read_all(&mut journal.reader(Seq(1)));
    assert_eq!((entries.len(), corrupt), (2000, 0));
    assert!(
        journal.stats().groups < 1000,
        "{} groups for 1000 appends",
        journal.stats().groups
    );
    journal.check().unwrap();
}

/// A disk on tmpfs syncs in no time: without a rest between them each record would be a group of its own.
#[tokio::test]
async fn records_that_trickle_in_share_group_commits() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path(), Config::default());
    let begun = Instant::now();
    let senders = (0..8).map(|_| {
        let journal = journal.clone();
        tokio::spawn(async move {
            for _ in 0..50 {
                journal.append(records(&["x"])).await.unwrap();
            }
        })
    });
    for sender in senders.collect::<Vec<_>>() {
        sender.await.unwrap();
    }
    let (took, groups) = (begun.elapsed(), journal.stats().groups);
    // From one to the next 1.5 ms.
    assert!(
        u128::from(groups) <= took.as_micros() / 1500 + 2,
        "{groups} groups in {took:?}"
    );
    journal.close();
}

#[tokio::test]
async fn segments_rotate_and_the_fold_is_taken_up_from_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(dir.path()).unwrap());
    let (fold, _) = Counting::new();
    let (journal, _) = Journal::open(Arc::clone(&disk), small(), Box::new(fold)).unwrap();
    for n in 1..=100 {
        journal.append(vec![sized(n, 500)]).await.unwrap();
    }
    journal.close();
    let segments = files(dir.path(), ".seg");
    assert!(segments.len() > 5, "{segments:?}");

    let (fold, seen) = Counting::new();
    let (journal, opened) = Journal::open(disk, small(), Box::new(fold)).unwrap();
    assert_eq!(*seen.lock().unwrap(), (100, 100));
    let CheckpointFrom::Before(base) = opened.checkpoint else {
        panic!("{opened:?}")
    };
    assert!(base > Seq(80), "taken up from {base}, not the newest");
    let (entries, _, _) = read_all(&mut journal.reader(Seq(1)));
    assert_eq!(entries.len(), 100);
    assert!(text(&entries[99]).starts_with("record 100 "));
    let (from_the_middle, _, _) = read_all(&mut journal.reader(Seq(57)));
    assert_eq!(from_the_middle.first().unwrap().seq, Seq(57));
    assert_eq!(from_the_middle.len(), 44);
}

#[tokio::test]
async fn a_reader_waits_for_what_is_appended_next_and_ends_with_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path(), Config::default());
    let mut reader = journal.reader(Seq(1));
    let waiting = tokio::spawn(async move {
        assert!(reader.wait().await);
        let block = reader.next(1 << 20).unwrap();
        assert_eq!(block.entries.iter().map(text).collect::<Vec<_>>(), ["x"]);
        assert_eq!(block.next, Seq(2));
        reader.wait().await
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    journal.append(records(&["x"])).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!waiting.is_finished());
    tokio::task::spawn_blocking(|| journal.close())
        .await
        .unwrap();
    assert!(!waiting.await.unwrap());
}

#[tokio::test]
async fn time_is_found_across_segments() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path(), small());
    for n in 1..=100 {
        journal.append(vec![sized(n, 500)]).await.unwrap();
    }
    for n in [1, 2, 17, 50, 99, 100] {
        assert_eq!(journal.seek_time(n * 1_000).unwrap(), Seq(n));
        assert_eq!(journal.seek_time(n * 1_000 - 1).unwrap(), Seq(n));
    }
    assert_eq!(journal.seek_time(0).unwrap(), Seq(1));
    assert_eq!(journal.seek_time(100_001).unwrap(), Seq(101));
    journal.close();
    let (journal, _) = open(dir.path(), small());
    assert_eq!(journal.seek_time(17_000).unwrap(), Seq(17));
}

fn delivered(n: u64) -> Account {
    Account {
        delivered: n,
        ..Account::default()
    }
}

#[tokio::test]
async fn a_cursor_keeps_position_account_and_state_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path(), Config::default());
    journal
        .append(records(&["a", "b", "c", "d"]))
        .await
        .unwrap();
    let options = CursorOptions {
        start: Start::Beginning,
        ..CursorOptions::default()
    };
    let cursor = journal.cursor("es", options).unwrap();
    assert_eq!(cursor.position(), Seq(1));
    let account = Account {
        delivered: 1,
        filtered: 1,
        dead_lettered: 1,
        ..Account::default()
    };
    let state = vec![7_u8; 300_000];
    cursor
        .advance(Seq(4), account, Some(state.clone().into()))
        .await
        .unwrap();
    assert!(matches!(
        journal.cursor("es", options),
        Err(CursorError::Busy { .. })
    ));
    journal.check().unwrap();
    journal.close();

    let (journal, opened) = open(dir.path(), Config::default());
    assert_eq!((opened.cursors, opened.cursors_behind.len()), (1, 0));
    let cursor = journal.cursor("es", options).unwrap();
    assert_eq!((cursor.position(), cursor.account()), (Seq(4), account));
    assert_eq!(cursor.state().unwrap(), state);
    assert_eq!(cursor.stats().pending, 1);
    let late = journal.cursor("late", CursorOptions::default()).unwrap();
    assert_eq!(late.position(), Seq(5));
    journal.check().unwrap();
}

#[tokio::test]
async fn a_cursor_goes_back_only_by_rewind_and_never_past_what_is_committed() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path(), Config::default());
    journal.append(records(&["a", "b", "c"])).await.unwrap();
    let options = CursorOptions {
        start: Start::Beginning,
        ..CursorOptions::default()
    };
    let cursor = journal.cursor("c", options).unwrap();
    cursor.advance(Seq(3), delivered(2), None).await.unwrap();
    let back = cursor.advance(Seq(2), delivered(0), None).await;
    assert!(
        matches!(back, Err(CursorError::Position { .. })),
        "{back:?}"
    );
    let past = cursor.advance(Seq(5), delivered(2), None).await;
    assert!(
        matches!(past, Err(CursorError::Position { .. })),
        "{past:?}"
    );
    let unbalanced = cursor.advance(Seq(4), delivered(2), None).await;
    assert!(
        matches!(unbalanced, Err(CursorError::Unbalanced { .. })),
        "{unbalanced:?}"
    );
    assert_eq!(cursor.position(), Seq(3));
    assert_eq!(cursor.rewind(Seq(1), None).await.unwrap(), Seq(1));
    let stats = cursor.stats();
    // The two passed before the rewind stand in the account, and wait again.
    assert_eq!((stats.journaled, stats.pending), (5, 3));
    assert_eq!(stats.journaled, stats.account.total() + stats.pending);
    cursor.advance(Seq(4), delivered(3), None).await.unwrap();
    assert_eq!(cursor.account(), delivered(5));
    journal.check().unwrap();
    drop(cursor);
    assert!(journal.cursor("c", options).is_ok());
    assert!(matches!(
        journal.cursor("../c", options),
        Err(CursorError::Name { .. })
    ));
}

#[tokio::test]
async fn cursor_moves_share_writes_but_each_waits_for_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path(), Config::default());
    journal
        .append((0..200).map(|n| record(n.to_string())).collect())
        .await
        .unwrap();
    let options = CursorOptions {
        start: Start::Beginning,
        ..CursorOptions::default()
    };
    let cursor = Arc::new(journal.cursor("c", options).unwrap());
    let begun = std::time::Instant::now();
    let mut waits = Vec::new();
    for n in 1..=200 {
        let cursor = Arc::clone(&cursor);
        waits.push(tokio::spawn(async move {
            cursor.advance(Seq(n + 1), delivered(1), None).await
        }));
    }
    for wait in waits {
        wait.await.unwrap().unwrap();
    }
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "moves were not gathered"
    );
    assert_eq!(cursor.position(), Seq(201));
}

#[tokio::test]
async fn at_the_size_bound_the_oldest_goes_and_a_lagging_cursor_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        max_size: 64 << 10,
        ..small()
    };
    let (journal, _) = open(dir.path(), config);
    let options = CursorOptions {
        start: Start::Beginning,
        ..CursorOptions::default()
    };
    let cursor = journal.cursor("slow", options).unwrap();
    for n in 1..=300 {
        journal.append(vec![sized(n, 500)]).await.unwrap();
        journal.check().unwrap();
    }
    let first = journal.first();
    assert!(first > Seq(100), "{first}");
    let on_disk: u64 = files(dir.path(), ".seg")
        .iter()
        .map(|n| fs::metadata(dir.path().join(n)).unwrap().len())
        .sum();
    assert!(on_disk <= (64 << 10) + (8 << 10), "{on_disk}");
    assert_eq!(cursor.position(), first);
    assert_eq!(cursor.account().expired, first.0 - 1);
    let (entries, expired, corrupt) = read_all(&mut journal.reader(Seq(1)));
    assert_eq!((expired, corrupt), (first.0 - 1, 0));
    assert_eq!(entries.first().unwrap().seq, first);
    cursor
        .advance(Seq(301), delivered(301 - first.0), None)
        .await
        .unwrap();
    assert_eq!(
        cursor.account(),
        Account {
            expired: first.0 - 1,
            ..delivered(301 - first.0)
        }
    );
    journal.check().unwrap();
}

#[tokio::test]
async fn a_cursor_that_refuses_holds_new_records_back_until_it_has_passed() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        max_size: 64 << 10,
        ..small()
    };
    let (journal, _) = open(dir.path(), config);
    let options = CursorOptions {
        start: Start::Beginning,
        when_full: WhenFull::Refuse,
    };
    let cursor = journal.cursor("audit", options).unwrap();
    let mut stored = 0;
    let reason = loop {
        match journal.append(vec![sized(stored + 1, 500)]).await {
            Ok(_) => stored += 1,
            Err(AppendError::Full { reason }) => break reason,
            Err(other) => panic!("{other}"),
        }
        assert!(stored < 1000);
    };
    assert!(reason.contains("audit"), "{reason}");
    assert!(journal.stats().refusing.unwrap().contains("audit"));
    let (entries, expired, _) = read_all(&mut journal.reader(Seq(1)));
    assert_eq!((entries.len() as u64, expired), (stored, 0));
    cursor
        .advance(Seq(stored / 2), delivered(stored / 2 - 1), None)
        .await
        .unwrap();
    journal.append(vec![sized(stored + 1, 500)]).await.unwrap();
    assert_eq!(journal.stats().refusing, None);
    assert!(journal.first() <= cursor.position());
    journal.check().unwrap();

    // Taken out of the settings, it pins nothing any more.
    drop(cursor);
    journal.retire_cursors_except(&[]);
    for n in 0..300 {
        journal.append(vec![sized(n, 500)]).await.unwrap();
    }
}

#[tokio::test]
async fn a_small_spool_works_with_one_cursor() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        segment_bytes: 1 << 20,
        max_size: 4 << 20,
        ..Config::default()
    };
    let (journal, _) = open(dir.path(), config);
    let options = CursorOptions {
        start: Start::Beginning,
        ..CursorOptions::default()
    };
    let cursor = journal.cursor("link", options).unwrap();
    for n in 0..30 {
        let batch = (0..400).map(|m| sized(n * 400 + m, 700)).collect();
        journal.append(batch).await.unwrap();
        journal.check().unwrap();
    }
    let stats = journal.stats();
    assert!(stats.bytes <= 5 << 20, "{}", stats.bytes);
    let first = journal.first().0;
    assert_eq!(cursor.account().expired, first - 1);
    let (entries, _, _) = read_all(&mut journal.reader(cursor.position()));
    assert_eq!(entries.len() as u64, 12_001 - first);
    let too_large = journal.append(vec![record("x".repeat(3 << 20))]).await;
    assert!(matches!(too_large, Err(AppendError::TooLarge { .. })));
    journal.check().unwrap();
}

#[test]
fn the_second_writer_is_told_who_holds_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path(), Config::default());
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(dir.path()).unwrap());
    let second = Journal::open(Arc::clone(&disk), Config::default(), Box::new(()));
    let Err(OpenError::Locked { by, .. }) = second else {
        panic!("two writers")
    };
    assert_eq!(by, format!("process {}", std::process::id()));
    journal.close();
    assert!(Journal::open(disk, Config::default(), Box::new(())).is_ok());
}

#[tokio::test]
async fn a_directory_of_another_version_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path(), Config::default());
    journal.append(records(&["a"])).await.unwrap();
    journal.close();
    let said = "cresset-journal 900";
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(said.as_bytes());
    fs::write(
        dir.path().join("FORMAT"),
        format!("{said} {:08x}\n", hasher.finalize()),
    )
    .unwrap();
    fs::write(dir.path().join("left.cursor.tmp"), "x").unwrap();
    let before = snapshot(dir.path());
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(dir.path()).unwrap());
    let refused = Journal::open(disk, Config::default(), Box::new(()));
    let Err(
        error @ OpenError::Version {
            found: 900,
            known: FORMAT,
            ..
        },
    ) = refused
    else {
        panic!()
    };
    assert!(error.to_string().contains("nothing was changed"), "{error}");
    assert_eq!(snapshot(dir.path()), before);
}

fn snapshot(path: &Path) -> Vec<(String, Vec<u8>)> {
    files(path, "")
        .into_iter()
        .map(|n| (n.clone(), fs::read(path.join(n)).unwrap()))
        .collect()
}

#[test]
fn a_directory_that_cannot_be_written_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(dir.path()).unwrap());
    // A directory in the lock's place: also root cannot open it as a file.
    fs::create_dir(dir.path().join("LOCK")).unwrap();
    let refused = Journal::open(disk, Config::default(), Box::new(()));
    let Err(error @ OpenError::NotWritable { .. }) = refused else {
        panic!()
    };
    assert!(
        error.to_string().contains(dir.path().to_str().unwrap()),
        "{error}"
    );
}

#[tokio::test]
async fn a_fold_that_panics_closes_the_journal_instead_of_hanging_it() {
    struct Panics;
    impl journal::Checkpoint for Panics {
        fn load(&mut self, _: &[u8]) -> Result<(), String> {
            Ok(())
        }
        fn apply(&mut self, _: &journal::Entry) {
            panic!("the owner's mistake");
        }
        fn save(&self) -> Vec<u8> {
            Vec::new()
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(dir.path()).unwrap());
    let (journal, _) = Journal::open(disk, Config::default(), Box::new(Panics)).unwrap();
    for _ in 0..2 {
        let answer = journal.append(records(&["a"])).await;
        assert!(matches!(answer, Err(AppendError::Closed)), "{answer:?}");
    }
    journal.close();
}

#[test]
fn by_age_a_segment_goes_only_when_every_cursor_has_passed_it() {
    const DAY: u64 = 86_400_000_000_000;
    let disk = journal::sim::SimDisk::new(1);
    let config = Config {
        max_age: Duration::from_secs(8 * 86_400),
        ..small()
    };
    let (journal, _, mut stepper) =
        Journal::open_stepped(disk.disk(), config, Box::new(())).unwrap();
    let options = CursorOptions {
        start: Start::Beginning,
        ..CursorOptions::default()
    };
    let cursor = journal.cursor("c", options).unwrap();
    // A record a day: a segment is closed when it is older than two days.
    for day in 1..=20 {
        let mut append = Box::pin(journal.append(vec![sized(day, 100)]));
        assert!(support::poll(&mut append).is_pending());
        assert!(stepper.write(day * DAY));
        assert!(support::poll(&mut append).is_ready());
        stepper.keep(day * DAY);
    }
    assert_eq!(journal.first(), Seq(1), "the cursor has passed nothing");
    let mut advance = Box::pin(cursor.advance(Seq(6), delivered(5), None));
    assert!(support::poll(&mut advance).is_pending());
    stepper.keep(20 * DAY);
    assert!(support::poll(&mut advance).is_ready());
    assert_eq!(
        journal.first(),
        Seq(4),
        "records 1 to 3 make up the only segment before the cursor"
    );
    let mut advance = Box::pin(cursor.advance(Seq(21), delivered(15), None));
    assert!(support::poll(&mut advance).is_pending());
    stepper.keep(20 * DAY);
    assert!(support::poll(&mut advance).is_ready());
    stepper.keep(20 * DAY);
    let first = journal.first();
    assert!(first >= Seq(10) && first <= Seq(13), "{first}");
    journal.check().unwrap();
}

/// How many files below `path` this process has open, by the end of what the kernel calls them.
fn open_files(path: &Path, ending: &str) -> usize {
    let open = fs::read_dir("/proc/self/fd").unwrap();
    let files = open.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
    files
        .filter(|file| file.starts_with(path) && file.to_string_lossy().ends_with(ending))
        .count()
}

#[test]
fn what_cannot_be_read_at_the_start_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("00000000000000000001.seg")).unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(folder.path()).unwrap());
    let told = match Journal::open(disk, small(), Box::new(())) {
        Ok(_) => panic!("opened"),
        Err(error) => error.to_string(),
    };
    assert!(told.contains("00000000000000000001.seg failed"), "{told}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_reader_that_reads_no_more_keeps_no_removed_file_open() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        max_size: 64 << 10,
        ..small()
    };
    let (journal, _) = open(folder.path(), config);
    let (mut stopped, mut n) = (Vec::new(), 0);
    while journal.first() < Seq(100) {
        n += 1;
        journal.append(vec![sized(n, 500)]).await.unwrap();
        if n % 20 == 1 {
            let mut reader = journal.reader(Seq(n));
            assert_eq!(reader.next(10).unwrap().entries.len(), 1);
            stopped.push(reader);
        }
    }
    eventually(|| open_files(folder.path(), ".seg (deleted)") == 0).await;
    for mut reader in stopped {
        let lost = journal.first().0.saturating_sub(reader.position().0);
        let (_, expired, corrupt) = read_all(&mut reader);
        assert_eq!((expired, corrupt), (lost, 0));
        assert_eq!(reader.position(), Seq(n + 1));
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_reader_that_pauses_lets_its_file_go_and_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(RealDisk::open(folder.path()).unwrap());
    let (journal, _, mut stepper) = Journal::open_stepped(disk, small(), Box::new(())).unwrap();
    for n in 1..=4 {
        append(&journal, &mut stepper, vec![sized(n, 100)]).unwrap();
    }
    let writing = open_files(folder.path(), ".seg");
    let mut reader = journal.reader(Seq(1));
    assert_eq!(reader.next(1).unwrap().entries.len(), 1);
    assert_eq!(open_files(folder.path(), ".seg"), writing + 1);
    stepper.keep(0);
    assert_eq!(
        open_files(folder.path(), ".seg"),
        writing + 1,
        "it may be between two reads"
    );
    stepper.keep(0);
    assert_eq!(open_files(folder.path(), ".seg"), writing);
    assert_eq!(read_all(&mut reader).0.len(), 3);
    stepper.close(0);
}

/// Waits for the journal's threads.
async fn eventually(mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "it does not come");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
