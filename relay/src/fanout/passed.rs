//! Which events every sink passed, and when: what `cresset trace` knows beyond the cursor.
//!
//! ```text
//! DATA/passed/SINK      "MILLISECONDS FROM TO FATE" a line, a second's events in one; FROM ≤ event < TO. Where a sink has
//!                       many partitions, the partition behind it: numbers are of their own in each
//! DATA/passed/SINK.1    the one before it, once SINK was full
//! ```
//! It is a help and no promise: lines are written by a thread of their own and not synced, so a sink never waits for them.
//! Where they are gone the cursor still tells that an event was passed, only not when.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use crate::log::unix_nanoseconds;

/// A file is full at this size: some hours of a busy sink, some weeks of a quiet one.
const FULL: u64 = 4 << 20;
/// Events that were passed within this time share a line.
const TOGETHER: Duration = Duration::from_secs(1);
/// Lines that wait for the disk; what comes then is not noted.
const WAITING: usize = 1024;
/// How long whoever asks waits for lines to be written.
const PATIENCE: Duration = Duration::from_secs(2);

/// What became of the events of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// Delivered, filtered or among the dead letters: whoever asks can tell which.
    Done,
    /// Gone from the journal before the sink came to them.
    Expired,
    /// Damaged in the journal.
    Corrupt,
    /// Left out by an administrator.
    Skipped,
}

impl Word {
    const ALL: [Word; 4] = [Word::Done, Word::Expired, Word::Corrupt, Word::Skipped];

    fn text(self) -> &'static str {
        match self {
            Word::Done => "done",
            Word::Expired => "expired",
            Word::Corrupt => "corrupt",
            Word::Skipped => "skipped",
        }
    }
}

/// What is known of when an event was passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pass {
    /// Unix milliseconds.
    pub(super) at: u64,
    pub(super) word: Word,
}

/// A stretch of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Line {
    partition: Option<i32>,
    from: u64,
    to: u64,
    pass: Pass,
}

/// Whose events they are: the sink's, or those of one of its partitions.
type Whose = (String, Option<i32>);

enum Order {
    Note(String, Line),
    /// Whatever waits, now.
    Write(SyncSender<()>),
}

/// The way to the thread that writes; a cheap handle.
#[derive(Clone)]
pub(super) struct Passed {
    folder: PathBuf,
    orders: SyncSender<Order>,
}

impl Passed {
    pub(super) fn start(data_dir: &Path) -> Passed {
        let folder = data_dir.join("passed");
        let (orders, given) = sync_channel(WAITING);
        let writer = Writer {
            folder: folder.clone(),
            open: HashMap::new(),
            waiting: HashMap::new(),
        };
        let thread = std::thread::Builder::new().name("sinks-passed".to_owned());
        if let Err(error) = thread.spawn(move || writer.run(&given)) {
            tracing::warn!(%error, "when events are delivered is not noted: `cresset trace` will not know");
        }
        Passed { folder, orders }
    }

    /// The sink has passed `from..to`, of a partition if it has many.
    pub(super) fn note(
        &self,
        sink: &str,
        partition: Option<i32>,
        Range {
            start: from,
            end: to,
        }: Range<u64>,
        word: Word,
    ) {
        let at = unix_nanoseconds() / 1_000_000;
        let line = Line {
            partition,
            from,
            to,
            pass: Pass { at, word },
        };
        if from < to {
            // Full, or no thread: the disk takes nothing, and the sink does not wait for it.
            let _ = self.orders.try_send(Order::Note(sink.to_owned(), line));
        }
    }

    /// All that was noted of a sink. Blocks the thread.
    pub(super) fn of(&self, sink: &str) -> Passes {
        let (written, told) = sync_channel(1);
        if self.orders.try_send(Order::Write(written)).is_ok() {
            // What is not written by then is not known yet.
            let _ = told.recv_timeout(PATIENCE);
        }
        let newest = self.folder.join(sink);
        let texts = [full(&newest), newest].map(|file| fs::read_to_string(file).ok());
        let lines = texts.iter().flatten().flat_map(|text| text.lines());
        Passes(lines.filter_map(Line::read).collect())
    }
}

/// What a task notes with: of its sink's only lane, or of one of many.
#[derive(Clone)]
pub(super) struct Trail {
    pub(super) passed: Passed,
    pub(super) partition: Option<i32>,
}

impl Trail {
    /// The sink has passed these events of the lane.
    pub(super) fn note(&self, sink: &str, events: Range<u64>, word: Word) {
        self.passed.note(sink, self.partition, events, word);
    }
}

/// What was noted of one sink, oldest first: two files' worth at most.
pub(super) struct Passes(Vec<Line>);

impl Passes {
    /// The last time that the sink passed this event.
    pub(super) fn find(&self, partition: Option<i32>, event: u64) -> Option<Pass> {
        let passed =
            |line: &&Line| line.partition == partition && line.from <= event && event < line.to;
        self.0.iter().rev().find(passed).map(|line| line.pass)
    }

    /// How many of these it passed in this way, and when the last of them.
    pub(super) fn count(&self, among: &Range<u64>, word: Word) -> (u64, Option<Pass>) {
        let within = |line: &Line| {
            let (from, to) = (line.from.max(among.start), line.to.min(among.end));
            to.saturating_sub(from)
        };
        let lines = self.0.iter().filter(|line| line.pass.word == word);
        let lines = lines.filter(|line| within(line) > 0);
        lines.fold((0, None), |(count, _), line| {
            (count + within(line), Some(line.pass))
        })
    }
}

/// The file before this one.
fn full(file: &Path) -> PathBuf {
    // Sinks' names have no `.`.
    file.with_extension("1")
}

impl Line {
    fn read(text: &str) -> Option<Line> {
        let mut words = text.split(' ');
        let mut number = || words.next()?.parse().ok();
        let (at, from, to) = (number()?, number()?, number()?);
        let last = words.next()?;
        let word = Word::ALL.into_iter().find(|word| word.text() == last)?;
        let partition = words.next().map(str::parse).transpose().ok()?;
        Some(Line {
            partition,
            from,
            to,
            pass: Pass { at, word },
        })
    }

    /// Takes in the stretch behind this one, if it is of the same kind.
    fn join(&mut self, next: &Line) -> bool {
        let joins = self.to == next.from && self.pass.word == next.pass.word;
        if joins {
            (self.to, self.pass.at) = (next.to, next.pass.at);
        }
        joins
    }
}

struct Writer {
    folder: PathBuf,
    open: HashMap<String, (File, u64)>,
    /// Lines that grow, with when they began to.
    waiting: HashMap<Whose, (Line, Instant)>,
}

impl Writer {
    fn run(mut self, given: &Receiver<Order>) {
        loop {
            match given.recv_timeout(TOGETHER) {
                Ok(Order::Note(sink, line)) => self.note(sink, line),
                Ok(Order::Write(done)) => {
                    self.write_older_than(Duration::ZERO);
                    // Whoever asked may have gone.
                    let _ = done.try_send(());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return self.write_older_than(Duration::ZERO);
                }
            }
            self.write_older_than(TOGETHER);
        }
    }

    fn note(&mut self, sink: String, line: Line) {
        let whose = (sink, line.partition);
        if let Some((waiting, _)) = self.waiting.get_mut(&whose) {
            if waiting.join(&line) {
                return;
            }
            let done = *waiting;
            self.write(&whose.0, done);
        }
        self.waiting.insert(whose, (line, Instant::now()));
    }

    fn write_older_than(&mut self, age: Duration) {
        let due = |(whose, (line, since)): (&Whose, &(Line, Instant))| {
            (since.elapsed() >= age).then(|| (whose.clone(), *line))
        };
        let due: Vec<(Whose, Line)> = self.waiting.iter().filter_map(due).collect();
        for (whose, line) in due {
            self.waiting.remove(&whose);
            self.write(&whose.0, line);
        }
    }

    fn write(&mut self, sink: &str, line: Line) {
        if let Err(error) = self.try_write(sink, line) {
            // The next line opens it again.
            self.open.remove(sink);
            tracing::debug!(sink, %error, "when events were passed cannot be noted");
        }
    }

    fn try_write(&mut self, sink: &str, line: Line) -> io::Result<()> {
        let path = self.folder.join(sink);
        if self
            .open
            .get(sink)
            .is_some_and(|(_, length)| *length >= FULL)
        {
            self.open.remove(sink);
            fs::rename(&path, full(&path))?;
        }
        if !self.open.contains_key(sink) {
            self.open
                .insert(sink.to_owned(), open(&self.folder, &path)?);
        }
        let Some((file, length)) = self.open.get_mut(sink) else {
            return Ok(());
        };
        let Line {
            partition,
            from,
            to,
            pass,
        } = line;
        let partition = partition.map(|partition| format!(" {partition}"));
        let text = format!(
            "{} {from} {to} {}{}\n",
            pass.at,
            pass.word.text(),
            partition.unwrap_or_default()
        );
        file.write_all(text.as_bytes())?;
        *length += text.len() as u64;
        Ok(())
    }
}

fn open(folder: &Path, path: &Path) -> io::Result<(File, u64)> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let mut options = OpenOptions::new();
    let mut file = options.append(true).create(true).mode(0o600).open(path)?;
    let mut length = file.metadata()?.len();
    // A line that a crash cut off ends here.
    if length > 0 {
        file.write_all(b"\n")?;
        length += 1;
    }
    Ok((file, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_time_that_an_event_was_passed_is_found_also_in_the_next_life() {
        let folder = tempfile::tempdir().unwrap();
        let passed = Passed::start(folder.path());
        passed.note("siem", None, 1..10, Word::Done);
        passed.note("siem", None, 10..20, Word::Done);
        passed.note("siem", None, 20..25, Word::Expired);
        passed.note("siem", None, 5..8, Word::Done);
        passed.note("bus", None, 1..2, Word::Skipped);
        let word =
            |passed: &Passed, sink, event| passed.of(sink).find(None, event).map(|pass| pass.word);
        assert_eq!(word(&passed, "siem", 1), Some(Word::Done));
        assert_eq!(word(&passed, "siem", 24), Some(Word::Expired));
        assert_eq!(word(&passed, "siem", 25), None);
        let expired = passed.of("siem").count(&(22..40), Word::Expired);
        assert_eq!((expired.0, expired.1.is_some()), (3, true));
        let (first, again) = (
            passed.of("siem").find(None, 1),
            passed.of("siem").find(None, 6),
        );
        assert!(first.map(|pass| pass.at) <= again.map(|pass| pass.at));
        let text = fs::read_to_string(folder.path().join("passed/siem")).unwrap();
        assert_eq!(
            text.lines().count(),
            3,
            "what was passed together shares a line: {text}"
        );
        drop(passed);
        fs::write(folder.path().join("passed/siem"), text + "17999 30").unwrap();
        let passed = Passed::start(folder.path());
        passed.note("siem", None, 30..31, Word::Corrupt);
        assert_eq!(
            word(&passed, "siem", 30),
            Some(Word::Corrupt),
            "behind a line that was cut off"
        );
        assert_eq!(word(&passed, "siem", 19), Some(Word::Done));
        let corrupt = |among| passed.of("siem").count(&among, Word::Corrupt).0;
        assert_eq!(
            (corrupt(28..40), corrupt(25..30), corrupt(31..40)),
            (1, 0, 0)
        );
        assert_eq!(word(&passed, "bus", 1), Some(Word::Skipped));
    }

    #[test]
    fn partitions_of_a_sink_have_numbers_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let passed = Passed::start(folder.path());
        passed.note("siem", Some(3), 1..10, Word::Done);
        passed.note("siem", Some(11), 1..4, Word::Expired);
        passed.note("siem", Some(3), 10..12, Word::Done);
        let passes = passed.of("siem");
        let word = |partition, event| passes.find(partition, event).map(|pass| pass.word);
        assert_eq!(word(Some(3), 11), Some(Word::Done));
        assert_eq!(word(Some(11), 2), Some(Word::Expired));
        assert_eq!((word(Some(11), 5), word(None, 2)), (None, None));
    }

    #[test]
    fn a_full_file_makes_room_and_stays_for_one_more_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passed");
        fs::create_dir(&path).unwrap();
        fs::write(
            path.join("siem"),
            "1 1 2 done\n".repeat(FULL as usize / 11 + 1),
        )
        .unwrap();
        let passed = Passed::start(folder.path());
        for event in 2..6 {
            passed.note("siem", None, event..event + 1, Word::Done);
            passed.of("siem").find(None, event).unwrap();
        }
        assert_eq!(passed.of("siem").find(None, 1).unwrap().at, 1);
        assert!(fs::metadata(path.join("siem")).unwrap().len() < 200);
    }
}
