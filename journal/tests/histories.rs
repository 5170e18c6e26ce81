//! Random histories on the simulated disk against a model.
//!
//! Each history appends, reads, moves cursors, fills the disk, makes operations fail, kills the process and cuts the
//! power, also in the middle of an operation, and compares everything with a model that knows only what was answered.
//! `CRESSET_HISTORIES=N` runs N of them; `CRESSET_HISTORY=SEED` runs one again and tells its story.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::{collections::BTreeMap, future::Future, pin::Pin, sync::Arc, task::Poll, time::Duration};

use bytes::Bytes;
use journal::{
    Account, AppendError, Checkpoint, Compression, Config, Cursor, CursorError, CursorOptions,
    Entry, Journal, Record, Seq, Start, Stepper, WhenFull,
    sim::{Failure, Fault, Op, Random, SimDisk},
};
use support::poll;

const SEGMENT: u64 = 16 << 10;
const BOUND: u64 = 64 << 10;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|v| v.parse().ok())
}

#[test]
fn no_history_loses_what_was_acknowledged() {
    if let Some(seed) = variable("CRESSET_HISTORY") {
        History::new(seed, true).run();
        return;
    }
    let count = variable("CRESSET_HISTORIES").unwrap_or(10_000);
    let first = variable("CRESSET_SEED").unwrap_or(1);
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let told: Vec<_> = (0..threads)
        .map(|n| {
            std::thread::spawn(move || {
                let mut told = Told::default();
                for seed in (first..first + count).filter(|seed| seed % threads == n) {
                    let run = std::panic::catch_unwind(|| History::new(seed, false).run());
                    match run {
                        Ok(one) => told += one,
                        Err(_) => panic!("run it again with CRESSET_HISTORY={seed}"),
                    }
                }
                told
            })
        })
        .collect();
    let told = told
        .into_iter()
        .map(|t| t.join().unwrap())
        .fold(Told::default(), |mut a, b| {
            a += b;
            a
        });
    println!("{count} histories from seed {first}: {told:?}");
    // A suite that never came to the interesting places proves nothing.
    if count >= 1_000 {
        let Told {
            acknowledged,
            full,
            failed,
            crashes,
            power,
            torn,
            expired,
            moves,
            suspects,
            sealed,
            packed,
            unpacked,
        } = told;
        for (what, n) in [
            ("acknowledged", acknowledged / 10),
            ("full", full),
            ("failed", failed),
            ("crashes", crashes),
            ("power losses", power),
            ("torn groups", torn),
            ("expired", expired),
            ("cursor moves", moves),
            ("suspect segments", suspects),
            ("sealed segments", sealed),
            ("compressed segments", packed),
            ("failures to compress", unpacked),
        ] {
            assert!(n >= count / 50, "only {n} {what} in {count} histories");
        }
    }
}

/// How often the interesting things happened.
#[derive(Debug, Default)]
struct Told {
    acknowledged: u64,
    full: u64,
    failed: u64,
    crashes: u64,
    power: u64,
    torn: u64,
    expired: u64,
    moves: u64,
    suspects: u64,
    sealed: u64,
    packed: u64,
    unpacked: u64,
}

impl std::ops::AddAssign for Told {
    fn add_assign(&mut self, o: Told) {
        let Told {
            acknowledged,
            full,
            failed,
            crashes,
            power,
            torn,
            expired,
            moves,
            suspects,
            sealed,
            packed,
            unpacked,
        } = o;
        self.acknowledged += acknowledged;
        self.full += full;
        self.failed += failed;
        self.crashes += crashes;
        self.power += power;
        self.torn += torn;
        self.expired += expired;
        self.moves += moves;
        self.suspects += suspects;
        self.sealed += sealed;
        self.packed += packed;
        self.unpacked += unpacked;
    }
}

/// A fold over (sequence, payload) that the model can compute too.
#[derive(Default)]
struct Sum(Arc<std::sync::Mutex<u64>>);

fn mark(seq: u64, payload: &[u8]) -> u64 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&seq.to_le_bytes());
    hasher.update(payload);
    u64::from(hasher.finalize())
}

impl Checkpoint for Sum {
    fn load(&mut self, bytes: &[u8]) -> Result<(), String> {
        *self.0.lock().unwrap() = u64::from_le_bytes(bytes.try_into().unwrap());
        Ok(())
    }

    fn apply(&mut self, entry: &Entry) {
        *self.0.lock().unwrap() += mark(entry.seq.0, &entry.payload);
    }

    fn save(&self) -> Vec<u8> {
        self.0.lock().unwrap().to_le_bytes().to_vec()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Offered, not answered, or answered "failed": it may be there or not.
    Doubt,
    Refused,
    Acknowledged(u64),
}

type Answer<T, E> = Pin<Box<dyn Future<Output = Result<T, E>>>>;

struct Waiting {
    payloads: Vec<Bytes>,
    answer: Answer<std::ops::Range<Seq>, AppendError>,
}

struct Moving {
    cursor: usize,
    to: u64,
    answer: Answer<(), CursorError>,
}

/// A cursor as the model sees it.
struct Known {
    options: CursorOptions,
    handle: Option<Arc<Cursor>>,
    /// Durable for certain, and the furthest that was asked for since.
    at_least: u64,
    at_most: u64,
    made: bool,
}

struct History {
    seed: u64,
    tell: bool,
    random: Random,
    disk: SimDisk,
    open: Option<(Journal, Stepper)>,
    fold: Arc<std::sync::Mutex<u64>>,
    now: u64,
    max_age: Duration,
    compresses: bool,
    offered: BTreeMap<Bytes, Fate>,
    /// Everything that is in the journal, or was until retention removed it.
    records: BTreeMap<u64, Bytes>,
    next_payload: u64,
    waiting: Vec<Waiting>,
    moving: Vec<Moving>,
    cursors: Vec<Known>,
    told: Told,
}

const NAMES: [&str; 2] = ["a", "b"];

impl History {
    fn new(seed: u64, tell: bool) -> History {
        let mut random = Random::new(seed);
        let disk = SimDisk::new(random.number());
        let refuse = random.one_in(3);
        let cursors = (0..2).map(|n| Known {
            options: CursorOptions {
                start: Start::Beginning,
                when_full: if n == 1 && refuse {
                    WhenFull::Refuse
                } else {
                    WhenFull::Expire
                },
            },
            handle: None,
            at_least: 0,
            at_most: 0,
            made: false,
        });
        let cursors = cursors.collect();
        History {
            seed,
            tell,
            random,
            disk,
            open: None,
            fold: Arc::default(),
            now: 1_700_000_000_000_000_000,
            max_age: Duration::from_secs(if seed.is_multiple_of(2) { 15 } else { 3_600 }),
            compresses: !seed.is_multiple_of(3),
            offered: BTreeMap::new(),
            records: BTreeMap::new(),
            next_payload: 0,
            waiting: Vec::new(),
            moving: Vec::new(),
            cursors,
            told: Told::default(),
        }
    }

    fn say(&self, what: impl FnOnce() -> String) {
        if self.tell {
            println!("[{}] {}", self.disk.steps(), what());
        }
    }

    fn run(mut self) -> Told {
        self.reopen();
        for _ in 0..self.random.below(60) + 20 {
            self.act();
            if self.disk.is_down() {
                self.crash();
            }
        }
        // The end: a clean machine, everything that was acknowledged is there.
        self.disk.heal();
        self.disk.set_capacity(None);
        if self.open.is_none() {
            self.reopen();
        }
        if self.random.one_in(2) {
            self.close()
        } else {
            self.crash()
        }
        self.told
    }

    fn act(&mut self) {
        self.now += self.random.below(2_000_000_000);
        if self.open.is_none() {
            self.reopen();
            return;
        }
        match self.random.below(100) {
            0..34 => self.append(),
            34..60 => self.write(),
            60..68 => self.advance(),
            68..74 => self.keep(),
            74..80 => self.check_reading(),
            80..83 => self.inject(),
            83 => self.capacity(),
            84..86 => {
                self.say(|| "seal".into());
                if let Some((_, stepper)) = &mut self.open {
                    stepper.seal();
                    self.told.sealed += 1;
                }
            }
            86..89 => self.pack(),
            89..92 => {
                let step = self.disk.steps() + 1 + self.random.below(12);
                self.say(|| format!("crash at step {step}"));
                self.disk.crash_at(step);
            }
            92..94 => self.rewind(),
            94..96 => self.close(),
            96..98 => self.time(),
            _ => self.crash(),
        }
        self.invariants();
    }

    fn append(&mut self) {
        for _ in 0..1 + self.random.below(3) {
            let mut records = Vec::new();
            for _ in 0..1 + self.random.below(5) {
                let len = if self.random.one_in(20) {
                    5_000
                } else {
                    self.random.below(900)
                };
                let mut text = format!("{}:", self.next_payload);
                self.next_payload += 1;
                text.push_str(&"x".repeat(len as usize));
                let payload = Bytes::from(text);
                self.offered.insert(payload.clone(), Fate::Doubt);
                records.push(Record {
                    kind: len as u8,
                    time: self.now,
                    payload,
                });
            }
            let payloads: Vec<_> = records.iter().map(|r| r.payload.clone()).collect();
            self.say(|| {
                format!(
                    "append {} records from {:?}",
                    payloads.len(),
                    head(&payloads[0])
                )
            });
            let Some((journal, _)) = &self.open else {
                return;
            };
            let journal = journal.clone();
            let mut answer: Answer<_, _> = Box::pin(async move { journal.append(records).await });
            assert!(poll(&mut answer).is_pending());
            self.waiting.push(Waiting { payloads, answer });
        }
    }

    fn write(&mut self) {
        let Some((_, stepper)) = &mut self.open else {
            return;
        };
        stepper.write(self.now);
        self.answers();
    }

    /// Takes the answers that came.
    fn answers(&mut self) {
        for mut waiting in std::mem::take(&mut self.waiting) {
            let answer = match poll(&mut waiting.answer) {
                Poll::Pending => {
                    self.waiting.push(waiting);
                    continue;
                }
                Poll::Ready(answer) => answer,
            };
            self.say(|| format!("answer for {:?}: {answer:?}", head(&waiting.payloads[0])));
            match answer {
                Ok(range) => {
                    assert_eq!(range.end.0 - range.start.0, waiting.payloads.len() as u64);
                    for (seq, payload) in (range.start.0..).zip(waiting.payloads) {
                        let before = self.records.insert(seq, payload.clone());
                        assert_eq!(before, None, "number {seq} was given twice");
                        self.offered.insert(payload, Fate::Acknowledged(seq));
                        self.told.acknowledged += 1;
                    }
                }
                Err(AppendError::Full { .. } | AppendError::TooLarge { .. }) => {
                    self.told.full += 1;
                    for payload in waiting.payloads {
                        self.offered.insert(payload, Fate::Refused);
                    }
                }
                Err(AppendError::Failed { .. } | AppendError::Closed) => self.told.failed += 1,
            }
        }
    }

    /// Compresses on: a block, or as far as there is something to do.
    fn pack(&mut self) {
        let Some((_, stepper)) = &mut self.open else {
            return;
        };
        let mut left = if self.random.one_in(2) {
            1 + self.random.below(4)
        } else {
            u64::MAX
        };
        while left > 0 && stepper.pack() {
            left -= 1;
        }
        self.say(|| "pack".into());
    }

    fn cursor(&mut self, n: usize) -> Option<Arc<Cursor>> {
        let (journal, _) = self.open.as_ref()?;
        let known = &mut self.cursors[n];
        if known.handle.is_none() {
            let cursor = journal.cursor(NAMES[n], known.options).ok()?;
            if !known.made {
                known.made = true;
                // It may be older than this answer, and overtaken by a removal that is not durable yet.
                known.at_least = cursor.position().0 - cursor.account().total();
                known.at_most = cursor.position().0;
            }
            known.handle = Some(Arc::new(cursor));
        }
        known.handle.clone()
    }

    fn advance(&mut self) {
        let n = self.random.below(2) as usize;
        let Some(cursor) = self.cursor(n) else { return };
        let Some((journal, _)) = &self.open else {
            return;
        };
        let position = cursor.position().0;
        let room = journal.committed().0 + 1 - position;
        let by = self.random.below(room + 1);
        let filtered = self.random.below(by + 1);
        let delta = Account {
            delivered: by - filtered,
            filtered,
            ..Account::default()
        };
        let state = self.random.one_in(4).then(|| {
            let len = if self.random.one_in(5) { 9_000 } else { 30 };
            let mut state = (position + by).to_le_bytes().to_vec();
            state.resize(len, 7);
            Bytes::from(state)
        });
        let to = position + by;
        self.say(|| format!("cursor {} from {position} to {to}", NAMES[n]));
        let mut answer: Answer<(), CursorError> =
            Box::pin(async move { cursor.advance(Seq(to), delta, state).await });
        assert!(poll(&mut answer).is_pending());
        self.cursors[n].at_most = self.cursors[n].at_most.max(to);
        self.moving.push(Moving {
            cursor: n,
            to,
            answer,
        });
    }

    fn rewind(&mut self) {
        let n = self.random.below(2) as usize;
        let Some(cursor) = self.cursor(n) else { return };
        let Some((journal, stepper)) = &mut self.open else {
            return;
        };
        let first = journal.first().0;
        let position = cursor.position().0;
        let to = first + self.random.below(position - first + 1);
        let mut answer: Answer<Seq, CursorError> =
            Box::pin(async move { cursor.rewind(Seq(to), None).await });
        assert!(poll(&mut answer).is_pending());
        stepper.keep(self.now);
        self.say(|| format!("cursor {} rewound to {to}", NAMES[n]));
        self.cursors[n].at_least = self.cursors[n].at_least.min(to);
        self.moves();
    }

    fn keep(&mut self) {
        let Some((_, stepper)) = &mut self.open else {
            return;
        };
        stepper.keep(self.now);
        self.say(|| "keep".into());
        self.moves();
    }

    fn moves(&mut self) {
        for mut moving in std::mem::take(&mut self.moving) {
            match poll(&mut moving.answer) {
                Poll::Pending => self.moving.push(moving),
                Poll::Ready(Ok(())) => {
                    let known = &mut self.cursors[moving.cursor];
                    // A later rewind may be durable in the same write.
                    let now = known.handle.as_ref().map_or(moving.to, |c| c.position().0);
                    known.at_least = known.at_least.max(moving.to.min(now));
                    self.told.moves += 1;
                }
                Poll::Ready(Err(_)) => {}
            }
        }
    }

    fn inject(&mut self) {
        let ops = [
            Op::Open,
            Op::Create,
            Op::Rename,
            Op::Unlink,
            Op::SyncDir,
            Op::Read,
            Op::Write,
            Op::Write,
            Op::Sync,
            Op::Sync,
            Op::Truncate,
        ];
        let op = ops[self.random.below(ops.len() as u64) as usize];
        let failure = match self.random.below(3) {
            0 => Failure::NoSpace,
            1 if op == Op::Write => Failure::Short,
            _ => Failure::Io,
        };
        let suffix = ["", ".seg", ".cursor", ".tmp"][self.random.below(4) as usize].to_owned();
        // More than a reader's patience would be a damaged disk, where records may be lost.
        let times = 1 + self.random.below(if op == Op::Read { 1 } else { 3 });
        let fault = Fault {
            op,
            failure,
            skip: self.random.below(3),
            times,
            suffix,
        };
        self.say(|| format!("{fault:?}"));
        self.disk.heal();
        self.disk.inject(fault);
    }

    fn capacity(&mut self) {
        let capacity = self
            .random
            .one_in(2)
            .then(|| 20_000 + self.random.below(80_000));
        self.say(|| format!("capacity {capacity:?}"));
        self.disk.set_capacity(capacity);
    }

    /// What a reader finds is what was acknowledged.
    fn check_reading(&mut self) {
        let Some((journal, _)) = &self.open else {
            return;
        };
        let (first, committed) = (journal.first().0, journal.committed().0);
        let from = 1 + self.random.below(committed + 2);
        let mut reader = journal.reader(Seq(from));
        let mut at = from;
        let mut failures = 0;
        loop {
            let block = match reader.next(1 << self.random.below(16)) {
                Ok(block) => block,
                Err(_) if self.disk.is_down() => return,
                Err(_) => {
                    failures += 1;
                    assert!(failures < 10);
                    continue;
                }
            };
            if block.is_empty() {
                break;
            }
            let mut skipped = block
                .skipped
                .iter()
                .flat_map(|r| r.start.0..r.end.0)
                .peekable();
            let mut entries = block.entries.iter().peekable();
            for seq in at..block.next.0 {
                if skipped.next_if_eq(&seq).is_some() {
                    let gone = seq < first || !self.records.contains_key(&seq);
                    assert!(
                        gone,
                        "acknowledged record {seq} was skipped: {:?}",
                        block.skipped
                    );
                } else {
                    let entry = entries.next().unwrap();
                    assert_eq!(entry.seq.0, seq);
                    assert_eq!(self.records.get(&seq), Some(&entry.payload), "record {seq}");
                }
            }
            assert_eq!((entries.next(), skipped.next()), (None, None));
            at = block.next.0;
        }
        assert_eq!(at, from.max(committed + 1));
    }

    fn time(&mut self) {
        let Some((journal, _)) = &self.open else {
            return;
        };
        let first = journal.first().0;
        let time = self.now.saturating_sub(self.random.below(60_000_000_000));
        let Ok(seq) = journal.seek_time(time) else {
            return;
        };
        assert!(seq.0 >= first && seq.0 <= journal.committed().0 + 1);
    }

    fn invariants(&mut self) {
        let Some((journal, _)) = &self.open else {
            return;
        };
        journal.check().unwrap();
        for (n, known) in self.cursors.iter().enumerate() {
            if let Some(cursor) = &known.handle {
                assert!(
                    cursor.position().0 >= known.at_least,
                    "cursor {} went back",
                    NAMES[n]
                );
            }
        }
        if self.disk.is_down() {
            return;
        }
        let used: usize = self
            .disk
            .names()
            .iter()
            .filter(|n| n.ends_with(".seg") || n.ends_with(".zst.tmp"))
            .map(|n| self.disk.contents(n).unwrap().len())
            .sum();
        // What a failed write left behind the end of a segment is not counted by the journal.
        assert!(used as u64 <= BOUND + 2 * SEGMENT, "{used} bytes on disk");
        // The fold has seen exactly what is committed.
        let expected: u64 = self
            .records
            .iter()
            .map(|(seq, payload)| mark(*seq, payload))
            .sum();
        assert_eq!(*self.fold.lock().unwrap(), expected, "the fold differs");
    }

    fn close(&mut self) {
        self.say(|| "close".into());
        let Some((journal, stepper)) = self.open.take() else {
            return;
        };
        self.tell_of(&journal);
        stepper.close(self.now);
        drop(journal);
        self.answers();
        self.moves();
        self.forget();
        if self.disk.is_down() {
            self.crash();
        } else {
            self.reopen();
        }
    }

    fn crash(&mut self) {
        if let Some((journal, _stepper)) = self.open.take() {
            self.tell_of(&journal);
        }
        self.told.crashes += 1;
        if self.random.one_in(3) {
            self.say(|| "kill".into());
            self.disk.kill();
        } else {
            self.say(|| "power loss".into());
            self.told.power += 1;
            self.disk.power_loss();
        }
        self.forget();
        self.reopen();
    }

    /// What this opening of the journal came to.
    fn tell_of(&mut self, journal: &Journal) {
        let stats = journal.stats();
        self.told.suspects += stats.suspects;
        self.told.packed += stats.packed_segments;
        self.told.unpacked += stats.pack_failures;
        self.told.expired += u64::from(stats.first.0 > 1);
    }

    fn forget(&mut self) {
        self.waiting.clear();
        self.moving.clear();
        self.cursors
            .iter_mut()
            .for_each(|known| known.handle = None);
    }

    fn reopen(&mut self) {
        let fold = Sum::default();
        self.fold = Arc::clone(&fold.0);
        let config = Config {
            segment_bytes: SEGMENT,
            max_size: BOUND,
            max_age: self.max_age,
            // Now and then by a relay that was told not to compress.
            compression: match self.compresses && !self.random.one_in(4) {
                true => Compression::Zstd { level: 1 },
                false => Compression::None,
            },
            block_bytes: 1 << (10 + self.random.below(4)),
            ..Config::default()
        };
        let opened = Journal::open_stepped(self.disk.disk(), config, Box::new(fold));
        let (journal, opened, stepper) = match opened {
            Ok(opened) => opened,
            // A disk that fails at opening is tried again.
            Err(error) => {
                self.say(|| format!("not opened: {error}"));
                if !self.disk.is_down() {
                    self.disk.heal();
                }
                return;
            }
        };
        self.say(|| format!("{opened:?}"));
        self.told.torn += u64::from(opened.cut_bytes > 0 || opened.torn > 0);
        assert_eq!(
            (opened.corrupt, opened.burned),
            (0, 0),
            "nothing was damaged"
        );
        assert!(opened.cursors_lost.is_empty());
        self.recovered(&journal);
        let committed = journal.committed().0;
        self.open = Some((journal, stepper));
        for (n, name) in NAMES.iter().enumerate() {
            if !self.cursors[n].made {
                continue;
            }
            let Some(cursor) = self.cursor(n) else {
                continue;
            };
            let known = &self.cursors[n];
            let position = cursor.position().0;
            assert!(
                position >= known.at_least,
                "cursor {name} fell from {}",
                known.at_least
            );
            assert!(position <= committed + 1);
            if let Some(state) = cursor.state() {
                let at = u64::from_le_bytes(state[..8].try_into().unwrap());
                assert!(at <= known.at_most, "a state of the future");
            }
        }
        self.invariants();
    }

    /// Acknowledged ⊆ recovered, and whatever else is there was offered and never refused.
    fn recovered(&mut self, journal: &Journal) {
        let first = journal.first().0;
        let mut reader = journal.reader(Seq(1));
        let mut found = BTreeMap::new();
        loop {
            let Ok(block) = reader.next(1 << 20) else {
                continue;
            };
            if block.is_empty() {
                break;
            }
            found.extend(block.entries.into_iter().map(|e| (e.seq.0, e.payload)));
        }
        for (seq, payload) in self.records.range(first..) {
            assert_eq!(
                found.get(seq),
                Some(payload),
                "seed {}: record {seq} is lost",
                self.seed
            );
        }
        for (seq, payload) in found {
            if self.records.contains_key(&seq) {
                continue;
            }
            match self.offered.get(&payload) {
                Some(Fate::Doubt) => {}
                other => panic!(
                    "seed {}: {seq} holds {:?}, which was {other:?}",
                    self.seed,
                    head(&payload)
                ),
            }
            self.offered
                .insert(payload.clone(), Fate::Acknowledged(seq));
            self.records.insert(seq, payload);
        }
        let last = self.records.last_key_value().map_or(0, |(seq, _)| *seq);
        assert!(journal.committed().0 >= last);
    }
}

/// The number of a payload.
fn head(payload: &Bytes) -> String {
    let text = String::from_utf8_lossy(payload);
    text.split(':').next().unwrap_or_default().to_owned()
}
