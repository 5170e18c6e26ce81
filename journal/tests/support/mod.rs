//! Vocabulary of the journal's tests.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use journal::{
    Account, Checkpoint, Compression, Config, CursorOptions, Entry, Journal, OpenError, Opened,
    Reader, Record, Seq, Start, Stepper, sim::SimDisk,
};

pub(crate) fn record(text: impl Into<String>) -> Record {
    Record {
        kind: 1,
        time: 1_000,
        payload: Bytes::from(text.into()),
    }
}

pub(crate) fn records(texts: &[&str]) -> Vec<Record> {
    texts.iter().map(|t| record(*t)).collect()
}

/// A record of about `bytes` bytes that names its number.
pub(crate) fn sized(number: u64, bytes: usize) -> Record {
    let mut text = format!("record {number} ");
    while text.len() < bytes {
        text.push('x');
    }
    Record {
        time: number * 1_000,
        ..record(text)
    }
}

pub(crate) fn text(entry: &Entry) -> String {
    String::from_utf8_lossy(&entry.payload).into_owned()
}

/// Everything from `reader`'s place to the end: entries, and how many were skipped as expired and as corrupt.
pub(crate) fn read_all(reader: &mut Reader) -> (Vec<Entry>, u64, u64) {
    let (mut entries, mut expired, mut corrupt) = (Vec::new(), 0, 0);
    loop {
        let before = reader.position();
        let block = reader.next(64 << 10).unwrap();
        if block.is_empty() {
            return (entries, expired, corrupt);
        }
        // Every number between two places is either handed out or told as skipped.
        let skipped: u64 = block.skipped.iter().map(|r| r.end.0 - r.start.0).sum();
        assert_eq!(skipped, block.expired + block.corrupt);
        assert_eq!(
            block.next.0 - before.0,
            block.entries.len() as u64 + skipped
        );
        entries.extend(block.entries);
        expired += block.expired;
        corrupt += block.corrupt;
    }
}

pub(crate) fn texts(journal: &Journal) -> Vec<String> {
    read_all(&mut journal.reader(Seq(1)))
        .0
        .iter()
        .map(text)
        .collect()
}

/// Polls once.
pub(crate) fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    let mut context = Context::from_waker(Waker::noop());
    pin!(future).poll(&mut context)
}

/// A fold that remembers how many records there were and which came last.
#[derive(Default)]
pub(crate) struct Counting(pub(crate) Arc<std::sync::Mutex<(u64, u64)>>);

impl Counting {
    pub(crate) fn new() -> (Counting, Arc<std::sync::Mutex<(u64, u64)>>) {
        let seen = Arc::default();
        (Counting(Arc::clone(&seen)), seen)
    }
}

impl Checkpoint for Counting {
    fn load(&mut self, bytes: &[u8]) -> Result<(), String> {
        let bytes: [u8; 16] = bytes
            .try_into()
            .map_err(|_| "16 bytes expected".to_owned())?;
        let number = u128::from_le_bytes(bytes);
        *self.0.lock().unwrap() = (number as u64, (number >> 64) as u64);
        Ok(())
    }

    fn apply(&mut self, entry: &Entry) {
        let mut seen = self.0.lock().unwrap();
        seen.0 += 1;
        assert!(entry.seq.0 > seen.1, "out of order");
        seen.1 = entry.seq.0;
    }

    fn save(&self) -> Vec<u8> {
        let seen = self.0.lock().unwrap();
        (u128::from(seen.0) | (u128::from(seen.1) << 64))
            .to_le_bytes()
            .to_vec()
    }
}

/// Appends and lets the stepper write it.
pub(crate) fn append(
    journal: &Journal,
    stepper: &mut journal::Stepper,
    records: Vec<Record>,
) -> Result<std::ops::Range<Seq>, journal::AppendError> {
    let mut append = Box::pin(journal.append(records));
    if let Poll::Ready(answer) = poll(&mut append) {
        return answer;
    }
    assert!(stepper.write(0));
    match poll(&mut append) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("not answered"),
    }
}

/// Records of [`sample`].
pub(crate) const RECORDS: u64 = 12;

/// Segments of records 1–4, 5–8 (both sealed) and 9–12 (open), and a cursor at 3 whose slots differ by one move.
pub(crate) fn sample() -> SimDisk {
    let disk = SimDisk::new(1);
    let (journal, _, mut stepper) = open_counting(&disk).unwrap();
    let options = CursorOptions {
        start: Start::Beginning,
        ..CursorOptions::default()
    };
    let cursor = journal.cursor("c", options).unwrap();
    for n in 0..RECORDS / 2 {
        if n > 0 && n % 2 == 0 {
            stepper.seal();
        }
        let texts = [
            format!("record {}", 2 * n + 1),
            format!("record {}", 2 * n + 2),
        ];
        append(&journal, &mut stepper, texts.iter().map(record).collect()).unwrap();
    }
    for to in [2, 3] {
        let delta = Account {
            delivered: 1,
            ..Account::default()
        };
        let mut advance = Box::pin(cursor.advance(Seq(to), delta, None));
        assert!(poll(&mut advance).is_pending());
        stepper.keep(0);
        assert!(poll(&mut advance).is_ready());
    }
    drop(cursor);
    stepper.close(0);
    disk
}

/// Records of [`packed_sample`].
pub(crate) const PACKED: u64 = 12;

/// A compressed segment of records 1–12 in four blocks of three, and an open one with 13 and 14.
pub(crate) fn packed_sample() -> SimDisk {
    let disk = SimDisk::new(1);
    let (journal, _, mut stepper) =
        Journal::open_stepped(disk.disk(), packing(), Box::new(())).unwrap();
    for n in 1..=PACKED {
        append(&journal, &mut stepper, vec![sized(n, 300)]).unwrap();
    }
    stepper.seal();
    append(&journal, &mut stepper, vec![sized(13, 300), sized(14, 300)]).unwrap();
    while stepper.pack() {}
    assert_eq!(journal.stats().packed_segments, 1);
    stepper.close(0);
    disk
}

/// Compresses in the smallest blocks.
pub(crate) fn packing() -> Config {
    Config {
        segment_bytes: 16 << 10,
        max_size: 1 << 20,
        compression: Compression::Zstd { level: 1 },
        block_bytes: 1 << 10,
        ..Config::default()
    }
}

pub(crate) fn open_counting(disk: &SimDisk) -> Result<(Journal, Opened, Stepper), OpenError> {
    let (fold, _) = Counting::new();
    Journal::open_stepped(disk.disk(), Config::default(), Box::new(fold))
}

/// Names of the segments, oldest first.
pub(crate) fn segments(disk: &SimDisk) -> Vec<String> {
    let mut names = disk.names();
    names.retain(|n| n.ends_with(".seg"));
    names
}
