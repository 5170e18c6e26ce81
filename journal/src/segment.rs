//! One segment file: its header (twice), the owner's checkpoint, and, once it is sealed, its index and trailer.
//!
//! ```text
//! 0 header: head.rs │ 64 zeros │ 4096 its copy │ 4160 checkpoint │ records: record.rs │ index, trailer: ending.rs
//! ```
//!
//! Offsets of records count bytes of the segment as it was written; in a compressed one ([`crate::packed`]) they stay the
//! same, so that an index and an end that somebody holds stay true when the file is exchanged.
//!
//! A file gets its `.seg` name by rename, after header and checkpoint are synced, so a named segment always has them.
//! A segment's range ends where the next one's begins: a segment given up after a failed `fdatasync` may end in
//! records that were written again in the next one, and those do not count.

mod ending;
mod head;

use std::{
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
};

use crate::{
    FORMAT, Seq,
    disk::{Access, Disk, DiskFile, write_all},
    record::{MAX_SEQ, checksum},
};

pub(crate) use self::{
    ending::{Extent, Growth, IndexEntry, closing, read_ending, read_extent, read_index, seal},
    head::{BadHead, COPIES, Head, MAX_CHECKPOINT},
};

use self::head::COPY;

pub(crate) const BLOCK: usize = 64;
/// Where the owner's checkpoint stands.
pub(crate) const CHECKPOINT: u64 = (COPY + BLOCK) as u64;

/// Records as they are.
pub(crate) const PLAIN: u8 = 0;
/// Blocks of records, each compressed with Zstandard.
pub(crate) const ZSTD: u8 = 1;

/// A segment as the catalog holds it. Its file is opened by whoever reads it.
pub(crate) struct Segment {
    pub(crate) base: Seq,
    pub(crate) name: String,
    /// Bytes that it takes on disk.
    pub(crate) len: AtomicU64,
    /// When it was made, unix ns, once somebody has looked.
    pub(crate) created: OnceLock<u64>,
    /// Set once no record will be added. True of the plain file and of the compressed one that takes its name.
    pub(crate) extent: OnceLock<Extent>,
    /// There is nothing to compress, or no more.
    pub(crate) settled: AtomicBool,
    /// Counts the files that had its name and were exchanged or removed.
    edition: AtomicU32,
    /// How many of those the kernel need not hold in memory any more.
    given_back: AtomicU32,
}

impl Segment {
    pub(crate) fn new(base: Seq, len: u64) -> Segment {
        Segment {
            base,
            name: name(base),
            len: AtomicU64::new(len),
            created: OnceLock::new(),
            extent: OnceLock::new(),
            settled: AtomicBool::new(false),
            edition: AtomicU32::new(0),
            given_back: AtomicU32::new(0),
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.len.load(Ordering::Relaxed)
    }

    /// Which file has its name: to be asked before it is opened. Another one later: what was opened is not it any more.
    pub(crate) fn edition(&self) -> u32 {
        self.edition.load(Ordering::Acquire)
    }

    /// The kernel was told that nobody is expected to read that file.
    pub(crate) fn given_back(&self, edition: u32) {
        self.given_back.store(edition + 1, Ordering::Relaxed);
    }

    /// Whether the kernel was told so of the file that has its name now.
    pub(crate) fn is_given_back(&self) -> bool {
        self.given_back.load(Ordering::Relaxed) > self.edition()
    }

    /// Whether it is not going to be compressed any more.
    pub(crate) fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Relaxed)
    }

    /// Its file was exchanged or removed.
    pub(crate) fn next_edition(&self) {
        self.edition.fetch_add(1, Ordering::Release);
    }
}

/// `00000000000000000001.seg`: sorts as the sequence does.
pub(crate) fn name(base: Seq) -> String {
    format!("{:020}.seg", base.0)
}

/// The base in a segment's name; `None` for any other file.
pub(crate) fn base_of(name: &str) -> Option<Seq> {
    let digits = name.strip_suffix(".seg")?;
    let shaped = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
    let base: u64 = digits.parse().ok().filter(|_| shaped)?;
    (base <= MAX_SEQ).then_some(Seq(base))
}

/// Makes a segment, durable with its name, in place of one that has the name already.
pub(crate) fn create(
    disk: &dyn Disk,
    base: Seq,
    created: u64,
    checkpoint: &[u8],
) -> io::Result<(Arc<dyn DiskFile>, Head)> {
    let mut random = [0; 4];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let salt = u32::from_le_bytes(random);
    let checkpoint_len = u32::try_from(checkpoint.len()).unwrap_or(u32::MAX);
    if checkpoint_len > MAX_CHECKPOINT {
        let text = format!("a checkpoint of more than {MAX_CHECKPOINT} bytes");
        return Err(io::Error::other(text));
    }
    let checkpoint_crc = checksum(salt, checkpoint);
    let head = Head {
        version: FORMAT,
        codec: PLAIN,
        salt,
        base,
        created,
        checkpoint_len,
        checkpoint_crc,
    };
    let bytes = opening(&head, checkpoint);

    let name = name(base);
    let temporary = format!("{name}.tmp");
    let made = (|| {
        let file = disk.create(&temporary)?;
        write_all(&*file, &bytes, 0)?;
        file.fdatasync()?;
        disk.rename(&temporary, &name)?;
        disk.fsync_dir()?;
        disk.open(&name, Access::Write)
    })();
    if made.is_err() {
        // What is left of it is also removed at the next start.
        let _ = disk.unlink(&temporary);
    }
    Ok((made?, head))
}

/// All before the first record: the header, its copy, and the checkpoint.
pub(crate) fn opening(head: &Head, checkpoint: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; CHECKPOINT as usize];
    put(&mut bytes, 0, &head.encode());
    put(&mut bytes, COPY, &head.encode());
    bytes.extend_from_slice(checkpoint);
    bytes
}

pub(crate) fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = out.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// `N` bytes at `at`; zeros where there are fewer.
pub(crate) fn get<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .copied()
        .unwrap_or([0; N])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_gives_its_base_and_nothing_else_does() {
        assert_eq!(base_of(&name(Seq(42))), Some(Seq(42)));
        for other in [
            "42.seg",
            "FORMAT",
            "+0000000000000000042.seg",
            "00000000000000000042.seg.tmp",
            "18446744073709551615.seg",
        ] {
            assert_eq!(base_of(other), None, "{other}");
        }
    }
}
