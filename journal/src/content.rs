//! The records of one segment file, whatever way it stores them.
//!
//! ```text
//! Walk (reader, recovery, seek, inspection) ─▶ Content ─┬─ Plain: bytes as they stand in the file
//!                                                      └─ Packed: blocks, decompressed one at a time
//! ```
//!
//! Offsets are those of the plain file in both, so nobody above has to know. A damaged block reads as zeros: to the
//! walk it is a bad region like any other, and costs the records in it.

use std::{io, sync::Arc};

use bytes::Bytes;

use crate::{
    disk::{DiskFile, read_full, read_new},
    packed::Packed,
    segment::{self, Extent, Head, IndexEntry, PLAIN},
};

/// Unreadable places are stepped over in units of this many bytes.
const SECTOR: usize = 4 << 10;

/// An open segment file.
#[derive(Clone)]
pub(crate) struct Body {
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) head: Head,
    pub(crate) content: Content,
}

impl Body {
    pub(crate) fn open(file: Arc<dyn DiskFile>, head: Head) -> io::Result<Body> {
        let content = match head.codec {
            PLAIN => Content::Plain(Arc::clone(&file)),
            _ => Content::Packed(Arc::new(Packed::open(Arc::clone(&file), &head)?)),
        };
        Ok(Body {
            file,
            head,
            content,
        })
    }

    /// The same without trust in the index.
    pub(crate) fn search(file: Arc<dyn DiskFile>, head: Head) -> io::Result<Body> {
        let content = match head.codec {
            PLAIN => Content::Plain(Arc::clone(&file)),
            _ => Content::Packed(Arc::new(Packed::search(Arc::clone(&file), &head)?)),
        };
        Ok(Body {
            file,
            head,
            content,
        })
    }

    /// What the trailer says; `None` where there is no whole one.
    pub(crate) fn extent(&self) -> io::Result<Option<Extent>> {
        segment::read_extent(&*self.file, &self.head)
    }

    /// The index; `None` where it is damaged or missing, which costs time and nothing else.
    pub(crate) fn index(&self) -> io::Result<Option<Arc<Vec<IndexEntry>>>> {
        match &self.content {
            Content::Plain(file) => Ok(segment::read_index(&**file, &self.head)?.map(Arc::new)),
            Content::Packed(packed) => Ok(packed.index()),
        }
    }
}

/// Where a walk gets its bytes.
#[derive(Clone)]
pub(crate) enum Content {
    Plain(Arc<dyn DiskFile>),
    Packed(Arc<Packed>),
}

impl Content {
    /// Where the records end at the latest.
    pub(crate) fn end(&self) -> io::Result<u64> {
        match self {
            Content::Plain(file) => file.length(),
            Content::Packed(packed) => Ok(packed.end()),
        }
    }

    /// Up to `len` bytes at `offset`, and at least one. All of them from a plain file (zeros where it has fewer, or where
    /// a sector cannot be read and `tolerant`); from a packed one those to the end of the block, and no record goes
    /// further than that.
    pub(crate) fn fetch(&self, offset: u64, len: usize, tolerant: bool) -> io::Result<Bytes> {
        match self {
            Content::Plain(file) => Ok(read(&**file, offset, len, tolerant)?.into()),
            Content::Packed(packed) => packed.fetch(offset, len, tolerant),
        }
    }

    /// `offset`, or the first place after it where a record can be, as far as that is known without looking.
    pub(crate) fn skip(&self, offset: u64, tolerant: bool) -> io::Result<u64> {
        match self {
            Content::Plain(_) => Ok(offset),
            Content::Packed(packed) => packed.skip(offset, tolerant),
        }
    }

    /// Where in the file the byte at `offset` is, or the block that has it.
    pub(crate) fn place(&self, offset: u64) -> u64 {
        match self {
            Content::Plain(_) => offset,
            Content::Packed(packed) => packed.place(offset),
        }
    }
}

/// `len` bytes at `offset`; zeros where the file has fewer, or where a sector cannot be read and `tolerant`.
pub(crate) fn read(
    file: &dyn DiskFile,
    offset: u64,
    len: usize,
    tolerant: bool,
) -> io::Result<Vec<u8>> {
    let mut bytes = match read_new(file, len, offset) {
        Ok(bytes) => bytes,
        Err(e) if !tolerant => return Err(e),
        Err(_) => read_around(file, len, offset),
    };
    bytes.resize(len, 0);
    Ok(bytes)
}

/// Sector by sector; zeros where one cannot be read.
fn read_around(file: &dyn DiskFile, len: usize, offset: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    for (n, sector) in bytes.chunks_mut(SECTOR).enumerate() {
        if read_full(file, sector, offset + (n * SECTOR) as u64).is_err() {
            sector.fill(0);
        }
    }
    bytes
}
