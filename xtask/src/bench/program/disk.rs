//! The disk below the measured relay: how fast it syncs, how much room it has, and what is on it afterwards.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use journal::{Config, Journal, RealDisk};
use proto::{EventId, StreamId};
use rustix::fs::{Advice, fadvise, fdatasync, statvfs};

use super::measure::Times;

/// Writes of one probe.
const PROBES: u32 = 300;
/// Bytes of one write: a small group of events.
const PROBE: usize = 16 << 10;

/// How long `fdatasync` takes in a folder after an append of 16 KiB.
pub(crate) fn sync_times(folder: &Path) -> Result<Times> {
    let path = folder.join("probe");
    let mut file = File::create(&path)?;
    let bytes = vec![0x5a; PROBE];
    let mut times = Times::default();
    for _ in 0..PROBES {
        file.write_all(&bytes)?;
        let begun = Instant::now();
        fdatasync(&file)?;
        times.add(begun.elapsed(), 1);
    }
    fs::remove_file(path)?;
    Ok(times)
}

/// Room on the file system of a folder, in bytes.
pub(crate) fn room(folder: &Path) -> Result<u64> {
    let space = statvfs(folder)?;
    Ok(space.f_bavail * space.f_frsize)
}

/// Makes the kernel forget what it keeps in memory of a folder's files, so that they are read from the disk.
pub(crate) fn forget(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let file = File::open(entry?.path())?;
        if file.metadata()?.is_file() {
            fadvise(&file, 0, None, Advice::DontNeed)?;
        }
    }
    Ok(())
}

/// The sequences of each stream that a stopped relay's journal holds, from first to last.
pub(crate) struct Kept {
    pub(crate) streams: HashMap<StreamId, (u64, u64)>,
    /// Events in it.
    pub(crate) count: u64,
    /// Events before the first one that is still there.
    pub(crate) removed: u64,
}

/// Reads a journal from end to end.
///
/// # Errors
/// Something is damaged, or a stream has a hole or something twice.
pub(crate) fn read_back(data: &Path) -> Result<Kept> {
    let disk = RealDisk::open_existing(data.join("journal"))?;
    let config = Config {
        max_size: u64::MAX / 4,
        ..Config::default()
    };
    let (journal, _) = Journal::open(Arc::new(disk), config, Box::new(()))?;
    let mut reader = journal.reader(journal.first());
    let mut kept = Kept {
        streams: HashMap::new(),
        count: 0,
        removed: journal.first().0.saturating_sub(1),
    };
    loop {
        let block = reader.next(1 << 20)?;
        ensure!(
            block.skipped.is_empty(),
            "the journal cannot read {:?}",
            block.skipped
        );
        if block.is_empty() {
            break;
        }
        for entry in &block.entries {
            let id = entry.payload.first_chunk().context("a record without id")?;
            kept.enter(EventId::from_bytes(*id))?;
        }
    }
    journal.close();
    Ok(kept)
}

impl Kept {
    fn enter(&mut self, id: EventId) -> Result<()> {
        self.count += 1;
        let (_, last) = self
            .streams
            .entry(id.stream)
            .or_insert((id.sequence, id.sequence - 1));
        ensure!(
            id.sequence == *last + 1,
            "event {id} follows sequence {last} in the journal"
        );
        *last = id.sequence;
        Ok(())
    }
}

/// Counts the lines of a file.
pub(crate) fn lines(path: &Path) -> Result<u64> {
    let mut file = File::open(path).with_context(|| path.display().to_string())?;
    let (mut buffer, mut lines) = (vec![0; 1 << 20], 0);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(lines),
            length => {
                lines += buffer[..length]
                    .iter()
                    .filter(|&&byte| byte == b'\n')
                    .count() as u64
            }
        }
    }
}
