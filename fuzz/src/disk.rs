//! A journal's directory in memory, with files of anybody's making.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use journal::{
    Compression, Config, Disk, Entry, Journal, OpenError, Opened, Record, Seq, Stepper,
    sim::SimDisk,
};

/// An empty journal of the present version.
pub(crate) fn fresh() -> SimDisk {
    let disk = SimDisk::new(1);
    let (_, _, stepper) = open(&disk).expect("an empty directory");
    stepper.close(0);
    disk
}

pub(crate) fn open(disk: &SimDisk) -> Result<(Journal, Opened, Stepper), OpenError> {
    Journal::open_stepped(disk.disk(), Config::default(), Box::new(()))
}

/// A journal that compresses in the smallest blocks when it is told to.
pub(crate) fn packing(disk: &SimDisk) -> (Journal, Stepper) {
    let config = Config {
        segment_bytes: 64 << 10,
        max_size: 1 << 20,
        compression: Compression::Zstd { level: 1 },
        block_bytes: 1 << 10,
        ..Config::default()
    };
    let opened = Journal::open_stepped(disk.disk(), config, Box::new(()));
    let (journal, _, stepper) = opened.expect("a journal");
    (journal, stepper)
}

/// Queues the records and has them written.
pub(crate) fn append(journal: &Journal, stepper: &mut Stepper, records: Vec<Record>) {
    let mut append = pin!(journal.append(records));
    let mut context = Context::from_waker(Waker::noop());
    assert!(append.as_mut().poll(&mut context).is_pending());
    stepper.write(0);
    assert!(append.poll(&mut context).is_ready());
}

/// Where a repair puts what it cuts.
pub(crate) fn aside() -> std::io::Result<Arc<dyn Disk>> {
    Ok(SimDisk::new(2).disk())
}

/// Everything that can be read; every number between is handed out or told as skipped.
pub(crate) fn read_all(journal: &Journal) -> Vec<Entry> {
    let mut reader = journal.reader(Seq(1));
    let mut entries = Vec::new();
    loop {
        let before = reader.position();
        let block = reader.next(4 << 10).expect("a disk that does not fail");
        if block.is_empty() {
            return entries;
        }
        let skipped: u64 = block.skipped.iter().map(|r| r.end.0 - r.start.0).sum();
        assert_eq!(skipped, block.expired + block.corrupt);
        let told = block.entries.len() as u64 + skipped;
        assert_eq!(block.next.0 - before.0, told);
        entries.extend(block.entries);
    }
}
