//! One history: the journal on its disk, the model of what was answered, and the dice that choose what happens next.

use std::{collections::BTreeMap, future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use journal::{
    AppendError, Checkpoint, Compression, Config, Cursor, CursorError, CursorOptions, Entry,
    Journal, Seq, Start, Stepper, WhenFull,
    sim::{Random, SimDisk},
};

use super::told::Told;

pub(super) const SEGMENT: u64 = 16 << 10;
pub(super) const BOUND: u64 = 64 << 10;

/// A fold over (sequence, payload) that the model can compute too.
#[derive(Default)]
pub(super) struct Sum(Arc<std::sync::Mutex<u64>>);

pub(super) fn mark(seq: u64, payload: &[u8]) -> u64 {
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
pub(super) enum Fate {
    /// Offered, not answered, or answered "failed": it may be there or not.
    Doubt,
    Refused,
    Acknowledged(u64),
}

pub(super) type Answer<T, E> = Pin<Box<dyn Future<Output = Result<T, E>>>>;

pub(super) struct Waiting {
    pub(super) payloads: Vec<Bytes>,
    pub(super) answer: Answer<std::ops::Range<Seq>, AppendError>,
}

pub(super) struct Moving {
    pub(super) cursor: usize,
    pub(super) to: u64,
    pub(super) answer: Answer<(), CursorError>,
}

/// A cursor as the model sees it.
pub(super) struct Known {
    pub(super) options: CursorOptions,
    pub(super) handle: Option<Arc<Cursor>>,
    /// Durable for certain, and the furthest that was asked for since.
    pub(super) at_least: u64,
    pub(super) at_most: u64,
    pub(super) made: bool,
}

pub(super) struct History {
    pub(super) seed: u64,
    pub(super) tell: bool,
    pub(super) random: Random,
    pub(super) disk: SimDisk,
    pub(super) open: Option<(Journal, Stepper)>,
    pub(super) fold: Arc<std::sync::Mutex<u64>>,
    pub(super) now: u64,
    pub(super) max_age: Duration,
    pub(super) compresses: bool,
    pub(super) offered: BTreeMap<Bytes, Fate>,
    /// Everything that is in the journal, or was until retention removed it.
    pub(super) records: BTreeMap<u64, Bytes>,
    pub(super) next_payload: u64,
    pub(super) waiting: Vec<Waiting>,
    pub(super) moving: Vec<Moving>,
    pub(super) cursors: Vec<Known>,
    pub(super) told: Told,
}

pub(super) const NAMES: [&str; 2] = ["a", "b"];

impl History {
    pub(super) fn new(seed: u64, tell: bool) -> History {
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

    pub(super) fn say(&self, what: impl FnOnce() -> String) {
        if self.tell {
            println!("[{}] {}", self.disk.steps(), what());
        }
    }

    pub(super) fn run(mut self) -> Told {
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

    pub(super) fn act(&mut self) {
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

    pub(super) fn close(&mut self) {
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

    pub(super) fn crash(&mut self) {
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
    pub(super) fn tell_of(&mut self, journal: &Journal) {
        let stats = journal.stats();
        self.told.suspects += stats.suspects;
        self.told.packed += stats.packed_segments;
        self.told.unpacked += stats.pack_failures;
        self.told.expired += u64::from(stats.first.0 > 1);
    }

    pub(super) fn forget(&mut self) {
        self.waiting.clear();
        self.moving.clear();
        self.cursors
            .iter_mut()
            .for_each(|known| known.handle = None);
    }

    pub(super) fn reopen(&mut self) {
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
}

/// The number of a payload.
pub(super) fn head(payload: &Bytes) -> String {
    let text = String::from_utf8_lossy(payload);
    text.split(':').next().unwrap_or_default().to_owned()
}
