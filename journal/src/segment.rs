//! One segment file: its header (twice), the owner's checkpoint, and, once it is sealed, its index and trailer.
//!
//! ```text
//! header, 64 bytes, at 0 and again at 4096 (another page: one unreadable page must not cost a segment its salt)
//!   0 magic "CRSTJRNL"   8 version u16   10 codec u8 (0 plain, 1 zstd blocks)   11 reserved
//!  12 salt u32          16 base sequence u64                   24 created, unix ns, u64
//!  32 checkpoint length u32   36 checkpoint crc u32            40 reserved, 20 bytes           60 crc u32
//!
//! index, before the trailer: an entry every ~64 KiB of records, or one a block
//!   plain, 24 bytes:       seq u64   offset u64   latest time before it u64
//!   zstd blocks, 32 bytes: the same, then the block's place in the file u64
//!
//! trailer, the last 64 bytes of a sealed file
//!   0 magic "CRSTSEAL"   8 end of the records u64   16 index length u32   20 index crc u32   24 last sequence u64
//!  32 earliest time u64 40 latest time u64   48 records u64   56 salt u32   60 crc u32
//! ```
//!
//! Offsets of records count bytes of the segment as it was written; in a compressed one ([`crate::packed`]) they stay the
//! same, so that an index and an end that somebody holds stay true when the file is exchanged.
//!
//! A file gets its `.seg` name by rename, after header and checkpoint are synced, so a named segment always has them.
//! A segment's range ends where the next one's begins: a segment given up after a failed `fdatasync` may end in
//! records that were written again in the next one, and those do not count.

use std::{
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use crate::{
    FORMAT, Seq,
    disk::{Access, Disk, DiskFile, read_full, write_all},
    format,
    record::{MAX_SEQ, checksum, is_whole},
};

const MAGIC: &[u8; 8] = b"CRSTJRNL";
const SEALED: &[u8; 8] = b"CRSTSEAL";
pub(crate) const BLOCK: usize = 64;
const COPY: usize = 4096;
/// Where the header stands.
pub(crate) const COPIES: [u64; 2] = [0, COPY as u64];
/// The longest checkpoint, in bytes.
pub(crate) const MAX_CHECKPOINT: u32 = 64 << 20;
/// Where the owner's checkpoint stands.
pub(crate) const CHECKPOINT: u64 = (COPY + BLOCK) as u64;
/// A new index entry is made when this many bytes were written since the last.
pub(crate) const INDEX_EVERY: u64 = 64 << 10;
const PLAIN_ENTRY: usize = 24;
const ZSTD_ENTRY: usize = 32;

/// Records as they are.
pub(crate) const PLAIN: u8 = 0;
/// Blocks of records, each compressed with Zstandard.
pub(crate) const ZSTD: u8 = 1;

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// The format version that the segment was written in.
    pub(crate) version: u16,
    pub(crate) codec: u8,
    pub(crate) salt: u32,
    pub(crate) base: Seq,
    pub(crate) created: u64,
    pub(crate) checkpoint_len: u32,
    pub(crate) checkpoint_crc: u32,
}

impl Head {
    /// Where the first record is.
    pub(crate) fn data_start(&self) -> u64 {
        CHECKPOINT + u64::from(self.checkpoint_len)
    }

    fn encode(&self) -> [u8; BLOCK] {
        let mut out = [0; BLOCK];
        put(&mut out, 0, MAGIC);
        put(&mut out, 8, &self.version.to_le_bytes());
        put(&mut out, 10, &[self.codec]);
        put(&mut out, 12, &self.salt.to_le_bytes());
        put(&mut out, 16, &self.base.0.to_le_bytes());
        put(&mut out, 24, &self.created.to_le_bytes());
        put(&mut out, 32, &self.checkpoint_len.to_le_bytes());
        put(&mut out, 36, &self.checkpoint_crc.to_le_bytes());
        let crc = checksum(0, &out[..60]);
        put(&mut out, 60, &crc.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8; BLOCK]) -> Result<Head, BadHead> {
        if !bytes.starts_with(MAGIC) {
            return Err(BadHead::Damaged);
        }
        let version = u16::from_le_bytes(get(bytes, 8));
        let whole = is_whole(0, &bytes[..60], u32::from_le_bytes(get(bytes, 60)));
        if !format::is_known(version) {
            // Another version may keep its checksum elsewhere, so it cannot be asked for.
            return Err(BadHead::Version(version));
        }
        let codec = bytes[10];
        if !whole {
            return Err(BadHead::Damaged);
        }
        if codec > ZSTD {
            return Err(BadHead::Codec(codec));
        }
        let checkpoint_len = u32::from_le_bytes(get(bytes, 32));
        if checkpoint_len > MAX_CHECKPOINT {
            return Err(BadHead::Damaged);
        }
        Ok(Head {
            version,
            codec,
            salt: u32::from_le_bytes(get(bytes, 12)),
            base: Seq(u64::from_le_bytes(get(bytes, 16))),
            created: u64::from_le_bytes(get(bytes, 24)),
            checkpoint_len,
            checkpoint_crc: u32::from_le_bytes(get(bytes, 36)),
        })
    }

    /// Reads the header: the first copy that is whole. `Ok(Err(_))` says that neither is.
    pub(crate) fn read(file: &dyn DiskFile) -> io::Result<Result<Head, BadHead>> {
        let (first, second) = match Head::copies(file) {
            (Err(error), Err(_)) => return Err(error),
            (first, second) => (
                first.unwrap_or(Err(BadHead::Damaged)),
                second.unwrap_or(Err(BadHead::Damaged)),
            ),
        };
        Ok(match (first, second) {
            (Ok(head), _) | (_, Ok(head)) => Ok(head),
            (Err(BadHead::Codec(codec)), _) | (_, Err(BadHead::Codec(codec))) => {
                Err(BadHead::Codec(codec))
            }
            (Err(BadHead::Version(a)), Err(BadHead::Version(b))) if a == b => {
                Err(BadHead::Version(a))
            }
            _ => Err(BadHead::Damaged),
        })
    }

    /// Both copies as they are.
    pub(crate) fn copies(file: &dyn DiskFile) -> (io::Result<HeadCopy>, io::Result<HeadCopy>) {
        let copy = |at: u64| -> io::Result<HeadCopy> {
            let mut bytes = [0; BLOCK];
            read_full(file, &mut bytes, at)?;
            Ok(Head::decode(&bytes))
        };
        let [first, second] = COPIES.map(copy);
        (first, second)
    }

    /// Writes the header over one of its copies and syncs it.
    pub(crate) fn restore(&self, file: &dyn DiskFile, at: u64) -> io::Result<()> {
        write_all(file, &self.encode(), at)?;
        file.fdatasync()
    }

    /// Reads the checkpoint; `None` where it is damaged.
    pub(crate) fn read_checkpoint(&self, file: &dyn DiskFile) -> io::Result<Option<Vec<u8>>> {
        if file.length()? < self.data_start() {
            return Ok(None);
        }
        let mut bytes = vec![0; self.checkpoint_len as usize];
        let n = read_full(file, &mut bytes, CHECKPOINT)?;
        let whole = n == bytes.len() && is_whole(self.salt, &bytes, self.checkpoint_crc);
        Ok(whole.then_some(bytes))
    }
}

type HeadCopy = Result<Head, BadHead>;

/// Why there is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadHead {
    /// Neither copy is whole.
    Damaged,
    /// Both copies say that they are of this other version.
    Version(u16),
    /// The header is whole and its records are written in a way that this program does not know.
    Codec(u8),
}

/// A point from which a reader can start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    pub(crate) seq: u64,
    pub(crate) offset: u64,
    /// The latest time of any record of the segment before `offset`; 0 at its first record.
    pub(crate) before: u64,
    /// Where that is in the file: `offset`, or the beginning of the block.
    pub(crate) place: u64,
}

/// Where a segment's records end and what is known of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) end: u64,
    pub(crate) last: u64,
    pub(crate) min_time: u64,
    pub(crate) max_time: u64,
    pub(crate) records: u64,
    /// In memory for a segment without trailer, else read from the file when needed.
    pub(crate) index: Option<Arc<Vec<IndexEntry>>>,
}

impl Extent {
    /// Whether a segment of that header whose index begins there can end so. (A checksum says that the bytes are the
    /// written ones, not that whoever wrote them meant well.)
    fn is_possible(&self, head: &Head, index_at: u64) -> bool {
        let start = head.data_start();
        let ends = match head.codec {
            PLAIN => index_at == self.end,
            _ => index_at >= start,
        };
        let numbers = self.last < MAX_SEQ && self.last + 1 >= head.base.0;
        ends && numbers && self.end >= start
    }
}

/// Index and extent of a segment while it grows.
#[derive(Clone, Debug)]
pub(crate) struct Growth {
    pub(crate) end: u64,
    pub(crate) last: u64,
    pub(crate) min_time: u64,
    pub(crate) max_time: u64,
    pub(crate) records: u64,
    pub(crate) index: Vec<IndexEntry>,
}

impl Growth {
    pub(crate) fn new(base: Seq, data_start: u64) -> Growth {
        Growth {
            end: data_start,
            last: base.0.saturating_sub(1),
            min_time: u64::MAX,
            max_time: 0,
            records: 0,
            index: Vec::new(),
        }
    }

    /// Takes in one record of `size` bytes that begins at `offset`.
    pub(crate) fn add(&mut self, seq: u64, time: u64, offset: u64, size: u64) {
        let due = self
            .index
            .last()
            .is_none_or(|e| offset - e.offset >= INDEX_EVERY);
        if due {
            self.index.push(IndexEntry {
                seq,
                offset,
                before: self.max_time,
                place: offset,
            });
        }
        self.end = offset + size;
        self.last = seq;
        self.min_time = self.min_time.min(time);
        self.max_time = self.max_time.max(time);
        self.records += 1;
    }

    pub(crate) fn extent(&self, keep_index: bool) -> Extent {
        Extent {
            end: self.end,
            last: self.last,
            min_time: self.min_time,
            max_time: self.max_time,
            records: self.records,
            index: keep_index.then(|| Arc::new(self.index.clone())),
        }
    }
}

/// Index and trailer of a segment whose index is in `extent`.
pub(crate) fn closing(head: &Head, extent: &Extent) -> Vec<u8> {
    let index = extent.index.as_deref().map_or(&[][..], Vec::as_slice);
    let mut out = Vec::with_capacity(index.len() * ZSTD_ENTRY + BLOCK);
    for entry in index {
        out.extend_from_slice(&entry.seq.to_le_bytes());
        out.extend_from_slice(&entry.offset.to_le_bytes());
        out.extend_from_slice(&entry.before.to_le_bytes());
        if head.codec != PLAIN {
            out.extend_from_slice(&entry.place.to_le_bytes());
        }
    }
    let mut trailer = [0; BLOCK];
    put(&mut trailer, 0, SEALED);
    put(&mut trailer, 8, &extent.end.to_le_bytes());
    put(&mut trailer, 16, &(out.len() as u32).to_le_bytes());
    put(&mut trailer, 20, &checksum(head.salt, &out).to_le_bytes());
    put(&mut trailer, 24, &extent.last.to_le_bytes());
    put(&mut trailer, 32, &extent.min_time.to_le_bytes());
    put(&mut trailer, 40, &extent.max_time.to_le_bytes());
    put(&mut trailer, 48, &extent.records.to_le_bytes());
    put(&mut trailer, 56, &head.salt.to_le_bytes());
    let crc = checksum(head.salt, &trailer[..60]);
    put(&mut trailer, 60, &crc.to_le_bytes());
    out.extend_from_slice(&trailer);
    out
}

/// The trailer, read back.
struct Trailer {
    extent: Extent,
    /// Where the index begins.
    index_at: u64,
    index_len: u32,
    index_crc: u32,
}

fn read_trailer(file: &dyn DiskFile, head: &Head) -> io::Result<Option<Trailer>> {
    let len = file.length()?;
    let Some(at) = len
        .checked_sub(BLOCK as u64)
        .filter(|at| *at >= head.data_start())
    else {
        return Ok(None);
    };
    let mut bytes = [0; BLOCK];
    if read_full(file, &mut bytes, at)? < BLOCK || !bytes.starts_with(SEALED) {
        return Ok(None);
    }
    if !is_whole(head.salt, &bytes[..60], u32::from_le_bytes(get(&bytes, 60))) {
        return Ok(None);
    }
    let extent = Extent {
        end: u64::from_le_bytes(get(&bytes, 8)),
        last: u64::from_le_bytes(get(&bytes, 24)),
        min_time: u64::from_le_bytes(get(&bytes, 32)),
        max_time: u64::from_le_bytes(get(&bytes, 40)),
        records: u64::from_le_bytes(get(&bytes, 48)),
        index: None,
    };
    let index_len = u32::from_le_bytes(get(&bytes, 16));
    let index_at = at.checked_sub(u64::from(index_len));
    let Some(index_at) = index_at.filter(|index_at| extent.is_possible(head, *index_at)) else {
        return Ok(None);
    };
    Ok(Some(Trailer {
        extent,
        index_at,
        index_len,
        index_crc: u32::from_le_bytes(get(&bytes, 20)),
    }))
}

/// What a sealed segment's trailer says; `None` where there is no whole one.
pub(crate) fn read_extent(file: &dyn DiskFile, head: &Head) -> io::Result<Option<Extent>> {
    Ok(read_trailer(file, head)?.map(|t| t.extent))
}

/// The same with where the index begins in the file.
pub(crate) fn read_ending(file: &dyn DiskFile, head: &Head) -> io::Result<Option<(Extent, u64)>> {
    Ok(read_trailer(file, head)?.map(|t| (t.extent, t.index_at)))
}

/// The index of a sealed segment; `None` where it is damaged, which costs time and nothing else.
pub(crate) fn read_index(file: &dyn DiskFile, head: &Head) -> io::Result<Option<Vec<IndexEntry>>> {
    let Some(trailer) = read_trailer(file, head)? else {
        return Ok(None);
    };
    let mut bytes = vec![0; trailer.index_len as usize];
    let n = read_full(file, &mut bytes, trailer.index_at)?;
    if n < bytes.len() || !is_whole(head.salt, &bytes, trailer.index_crc) {
        return Ok(None);
    }
    let size = match head.codec {
        PLAIN => PLAIN_ENTRY,
        _ => ZSTD_ENTRY,
    };
    let entries: Vec<IndexEntry> = bytes.chunks_exact(size).map(index_entry).collect();
    let whole = is_in_order(&entries, head, &trailer);
    Ok(whole.then_some(entries))
}

/// Whether numbers, offsets and places grow together and stay within the segment.
fn is_in_order(entries: &[IndexEntry], head: &Head, trailer: &Trailer) -> bool {
    let grows = entries.is_sorted_by(|a, b| {
        a.seq < b.seq && a.offset < b.offset && a.place < b.place && a.before <= b.before
    });
    let starts = entries.first().is_none_or(|first| {
        let start = head.data_start();
        first.seq >= head.base.0 && first.offset >= start && first.place >= start
    });
    let ends = entries.last().is_none_or(|last| {
        let Extent { end, last: seq, .. } = trailer.extent;
        last.seq <= seq && last.offset < end && last.place < trailer.index_at
    });
    grows && starts && ends
}

fn index_entry(bytes: &[u8]) -> IndexEntry {
    let offset = u64::from_le_bytes(get(bytes, 8));
    IndexEntry {
        seq: u64::from_le_bytes(get(bytes, 0)),
        offset,
        before: u64::from_le_bytes(get(bytes, 16)),
        place: match bytes.len() {
            PLAIN_ENTRY => offset,
            _ => u64::from_le_bytes(get(bytes, 24)),
        },
    }
}

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
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.len.load(Ordering::Relaxed)
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

/// Writes index and trailer after the last record and syncs them.
pub(crate) fn seal(file: &dyn DiskFile, head: &Head, growth: &Growth) -> io::Result<()> {
    let bytes = closing(head, &growth.extent(true));
    write_all(file, &bytes, growth.end)?;
    file.fdatasync()
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

    #[test]
    fn a_header_survives_the_loss_of_either_copy_but_not_of_both() {
        let head = Head {
            version: FORMAT,
            codec: PLAIN,
            salt: 9,
            base: Seq(77),
            created: 5,
            checkpoint_len: 3,
            checkpoint_crc: 8,
        };
        let whole = head.encode();
        for bit in 0..whole.len() * 8 {
            let mut bad = whole;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Head::decode(&bad).is_err(), "bit {bit} went unnoticed");
        }
        assert_eq!(Head::decode(&whole), Ok(head));
    }
}
