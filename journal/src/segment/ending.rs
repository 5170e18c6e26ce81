//! What closes a segment: an index, so that readers start near what they look for, and a trailer that says where it ends.
//!
//! ```text
//! index, before the trailer: an entry every ~64 KiB of records, or one a block
//!   plain, 24 bytes:       seq u64   offset u64   latest time before it u64
//!   zstd blocks, 32 bytes: the same, then the block's place in the file u64
//!
//! trailer, the last 64 bytes of a sealed file
//!   0 magic "CRSTSEAL"   8 end of the records u64   16 index length u32   20 index crc u32   24 last sequence u64
//!  32 earliest time u64 40 latest time u64   48 records u64   56 salt u32   60 crc u32
//! ```

use std::{io, sync::Arc};

use super::{BLOCK, Head, PLAIN, get, put};
use crate::{
    Seq,
    disk::{DiskFile, read_full, write_all},
    record::{MAX_SEQ, checksum, is_whole},
};

const SEALED: &[u8; 8] = b"CRSTSEAL";
/// A new index entry is made when this many bytes were written since the last.
const INDEX_EVERY: u64 = 64 << 10;
const PLAIN_ENTRY: usize = 24;
const ZSTD_ENTRY: usize = 32;

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

/// Writes index and trailer after the last record and syncs them.
pub(crate) fn seal(file: &dyn DiskFile, head: &Head, growth: &Growth) -> io::Result<()> {
    let bytes = closing(head, &growth.extent(true));
    write_all(file, &bytes, growth.end)?;
    file.fdatasync()
}
