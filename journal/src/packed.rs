//! Compressed records: blocks of whole records, each with its own header and checksums.
//!
//! ```text
//! block   0 magic "CRZB"     4 crc u32, of the 36 bytes behind it   8 offset u64   16 first sequence u64
//!        24 plain length u32   28 stored length u32   32 crc u32 of the stored bytes   36 way of storing u32
//!        40 stored bytes: 0 as they are, 1 a Zstandard frame
//! ```
//!
//! `offset` is where the records stood in the plain file. The index has an entry a block, so a search decompresses one;
//! without an index the headers are looked for, and a header that is damaged too costs its own block. Checksums start
//! from the segment's salt, and the records' own, inside, are verified as ever.

use std::{
    io,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use zstd::bulk::{Compressor, Decompressor};

use crate::{
    catalog::lock,
    content::read,
    disk::DiskFile,
    record::{checksum, is_whole},
    segment::{self, Head, IndexEntry, get, put},
    walk::PATIENCE,
};

const MAGIC: &[u8; 4] = b"CRZB";
/// Bytes of a block's header.
pub(crate) const HEADER: usize = 40;
const AS_IS: u32 = 0;
const FRAME: u32 = 1;
/// No block is longer, plain: a record is at most 16 MiB.
const LONGEST: u32 = 32 << 20;
/// Bytes looked through at a time for a header.
const WINDOW: usize = 256 << 10;

/// A block's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Label {
    offset: u64,
    first: u64,
    plain: u32,
    stored: u32,
    crc: u32,
    way: u32,
}

impl Label {
    fn encode(&self, salt: u32) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        put(&mut out, 0, MAGIC);
        put(&mut out, 8, &self.offset.to_le_bytes());
        put(&mut out, 16, &self.first.to_le_bytes());
        put(&mut out, 24, &self.plain.to_le_bytes());
        put(&mut out, 28, &self.stored.to_le_bytes());
        put(&mut out, 32, &self.crc.to_le_bytes());
        put(&mut out, 36, &self.way.to_le_bytes());
        let crc = checksum(salt, &out[8..]);
        put(&mut out, 4, &crc.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8], salt: u32) -> Option<Label> {
        let bytes: &[u8; HEADER] = bytes.first_chunk()?;
        let whole = bytes.starts_with(MAGIC)
            && is_whole(salt, &bytes[8..], u32::from_le_bytes(get(bytes, 4)));
        let label = Label {
            offset: u64::from_le_bytes(get(bytes, 8)),
            first: u64::from_le_bytes(get(bytes, 16)),
            plain: u32::from_le_bytes(get(bytes, 24)),
            stored: u32::from_le_bytes(get(bytes, 28)),
            crc: u32::from_le_bytes(get(bytes, 32)),
            way: u32::from_le_bytes(get(bytes, 36)),
        };
        let sized = (1..=LONGEST).contains(&label.plain) && label.stored <= label.plain;
        (whole && sized).then_some(label)
    }

    /// Where the records of the block end.
    fn end(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.plain))
    }
}

/// Makes blocks.
pub(crate) struct BlockMaker {
    compressor: Compressor<'static>,
    salt: u32,
}

impl BlockMaker {
    pub(crate) fn new(level: i32, salt: u32) -> io::Result<BlockMaker> {
        let compressor = Compressor::new(level)?;
        Ok(BlockMaker { compressor, salt })
    }

    /// Header and stored bytes of the records `plain`, which stood at `offset`. What does not shrink is stored as it is.
    pub(crate) fn block(&mut self, offset: u64, first: u64, plain: &[u8]) -> io::Result<Vec<u8>> {
        let frame = self.compressor.compress(plain)?;
        let (way, stored) = if frame.len() < plain.len() {
            (FRAME, frame.as_slice())
        } else {
            (AS_IS, plain)
        };
        let label = Label {
            offset,
            first,
            plain: u32::try_from(plain.len()).map_err(io::Error::other)?,
            stored: u32::try_from(stored.len()).map_err(io::Error::other)?,
            crc: checksum(self.salt, stored),
            way,
        };
        let mut out = Vec::with_capacity(HEADER + stored.len());
        out.extend_from_slice(&label.encode(self.salt));
        out.extend_from_slice(stored);
        Ok(out)
    }
}

/// The blocks of an open file.
pub(crate) struct Packed {
    file: Arc<dyn DiskFile>,
    salt: u32,
    /// By offset.
    blocks: Arc<Vec<IndexEntry>>,
    /// The index was whole; the entries have their times.
    indexed: bool,
    /// Where the last block's records end.
    end: u64,
    /// Where the last block itself ends in the file, if it was looked for.
    file_end: u64,
    last: Mutex<Last>,
}

/// The block decompressed last: a walk comes by it again with its next step.
#[derive(Default)]
struct Last {
    decompressor: Option<Decompressor<'static>>,
    block: Option<(usize, Option<Bytes>)>,
}

/// What there is at some offset.
struct Stretch {
    /// The block that it is in; `None` where that is damaged or missing.
    bytes: Option<Bytes>,
    /// Where in it.
    at: usize,
    /// Where the next block begins, or all ends.
    end: u64,
}

impl Packed {
    pub(crate) fn open(file: Arc<dyn DiskFile>, head: &Head) -> io::Result<Packed> {
        let extent = segment::read_extent(&*file, head)?;
        let index = segment::read_index(&*file, head)?;
        let (Some(extent), Some(blocks)) = (extent, index) else {
            return Packed::search(file, head);
        };
        Ok(Packed {
            file,
            salt: head.salt,
            blocks: Arc::new(blocks),
            indexed: true,
            end: extent.end,
            file_end: 0,
            last: Mutex::default(),
        })
    }

    /// Opens it by the blocks' headers alone.
    pub(crate) fn search(file: Arc<dyn DiskFile>, head: &Head) -> io::Result<Packed> {
        let (blocks, end, file_end) = find_patiently(&*file, head)?;
        let extent = segment::read_extent(&*file, head)?;
        Ok(Packed {
            file,
            salt: head.salt,
            blocks: Arc::new(blocks),
            indexed: false,
            // The last header may be damaged.
            end: extent.map_or(end, |e| e.end.max(end)),
            file_end,
            last: Mutex::default(),
        })
    }

    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// The index, if it was whole.
    pub(crate) fn index(&self) -> Option<Arc<Vec<IndexEntry>>> {
        self.indexed.then(|| Arc::clone(&self.blocks))
    }

    /// The blocks of [`Packed::search`], their times not known, and where the last one ends in the file.
    pub(crate) fn found(&self) -> (&[IndexEntry], u64) {
        (&self.blocks, self.file_end)
    }

    pub(crate) fn place(&self, offset: u64) -> u64 {
        let after = self.blocks.partition_point(|b| b.offset <= offset);
        let block = after.checked_sub(1).and_then(|n| self.blocks.get(n));
        block.map_or(offset, |b| b.place)
    }

    /// See [`crate::content::Content::fetch`].
    pub(crate) fn fetch(&self, offset: u64, len: usize, tolerant: bool) -> io::Result<Bytes> {
        let stretch = self.stretch(offset, tolerant)?;
        if let Some(bytes) = stretch.bytes {
            let until = bytes.len().min(stretch.at.saturating_add(len));
            return Ok(bytes.slice(stretch.at..until));
        }
        // Damaged, or missing: as far as the next block.
        let missing = usize::try_from(stretch.end.saturating_sub(offset)).unwrap_or(usize::MAX);
        Ok(vec![0; len.min(missing.max(1))].into())
    }

    /// `offset`, or where the next block begins (or all ends) if no record can be had from there.
    pub(crate) fn skip(&self, offset: u64, tolerant: bool) -> io::Result<u64> {
        let stretch = self.stretch(offset, tolerant)?;
        Ok(match stretch.bytes {
            Some(_) => offset,
            None => stretch.end.max(offset),
        })
    }

    /// What there is at `offset`.
    fn stretch(&self, offset: u64, tolerant: bool) -> io::Result<Stretch> {
        let after = self.blocks.partition_point(|b| b.offset <= offset);
        let end = self.blocks.get(after).map_or(self.end, |b| b.offset);
        let before = after.checked_sub(1);
        let start = before.and_then(|n| self.blocks.get(n)).map(|b| b.offset);
        let at = usize::try_from(offset - start.unwrap_or(offset)).unwrap_or(usize::MAX);
        let bytes = match before {
            Some(n) => self.block(n, tolerant)?,
            None => None,
        };
        let bytes = bytes.filter(|bytes| at < bytes.len());
        Ok(Stretch { bytes, at, end })
    }

    /// The records of one block; `None` where it is damaged.
    fn block(&self, n: usize, tolerant: bool) -> io::Result<Option<Bytes>> {
        let mut last = lock(&self.last);
        if let Some((at, bytes)) = &last.block
            && *at == n
        {
            return Ok(bytes.clone());
        }
        let bytes = self
            .unpack(n, tolerant, &mut last.decompressor)?
            .map(Bytes::from);
        last.block = Some((n, bytes.clone()));
        Ok(bytes)
    }

    fn unpack(
        &self,
        n: usize,
        tolerant: bool,
        decompressor: &mut Option<Decompressor<'static>>,
    ) -> io::Result<Option<Vec<u8>>> {
        let Some(entry) = self.blocks.get(n) else {
            return Ok(None);
        };
        let header = read(&*self.file, entry.place, HEADER, tolerant)?;
        let label = Label::decode(&header, self.salt).filter(|label| label.offset == entry.offset);
        let Some(label) = label else {
            return Ok(None);
        };
        let at = entry.place + HEADER as u64;
        if at.saturating_add(u64::from(label.stored)) > self.file.length()? {
            return Ok(None);
        }
        let stored = read(&*self.file, at, label.stored as usize, tolerant)?;
        if !is_whole(self.salt, &stored, label.crc) {
            return Ok(None);
        }
        let plain = match label.way {
            AS_IS => stored,
            FRAME => {
                let decompressor = match decompressor {
                    Some(decompressor) => decompressor,
                    None => decompressor.insert(Decompressor::new()?),
                };
                match decompressor.decompress(&stored, label.plain as usize) {
                    Ok(plain) => plain,
                    Err(_) => return Ok(None),
                }
            }
            _ => return Ok(None),
        };
        Ok((plain.len() == label.plain as usize).then_some(plain))
    }
}

/// Blocks by their headers, where their records end, and where the last block ends in the file.
type Headers = (Vec<IndexEntry>, u64, u64);

fn find_patiently(file: &dyn DiskFile, head: &Head) -> io::Result<Headers> {
    for _ in 1..PATIENCE {
        if let Ok(found) = find(file, head, false) {
            return Ok(found);
        }
    }
    find(file, head, true)
}

/// Goes from header to header, and looks for the next one where there is none.
fn find(file: &dyn DiskFile, head: &Head, tolerant: bool) -> io::Result<Headers> {
    let len = file.length()?;
    let mut blocks: Vec<IndexEntry> = Vec::new();
    let start = head.data_start();
    let (mut at, mut end, mut file_end) = (start, start, start);
    while at + HEADER as u64 <= len {
        let bytes = read(file, at, HEADER, tolerant)?;
        // A header may not lead back: offsets and places grow together.
        let label = Label::decode(&bytes, head.salt).filter(|label| label.offset >= end);
        let Some(label) = label else {
            match next_header(file, at + 1, len, head.salt, tolerant)? {
                Some(next) => at = next,
                None => break,
            }
            continue;
        };
        blocks.push(IndexEntry {
            seq: label.first,
            offset: label.offset,
            before: 0,
            place: at,
        });
        end = label.end();
        at += HEADER as u64 + u64::from(label.stored);
        file_end = at.min(len);
    }
    Ok((blocks, end, file_end))
}

/// The place of the next whole header from `from` on.
fn next_header(
    file: &dyn DiskFile,
    mut from: u64,
    len: u64,
    salt: u32,
    tolerant: bool,
) -> io::Result<Option<u64>> {
    while from + HEADER as u64 <= len {
        let want = usize::try_from(len - from).unwrap_or(WINDOW).min(WINDOW);
        let window = read(file, from, want, tolerant)?;
        let headers = window.windows(HEADER);
        if let Some(at) = headers
            .enumerate()
            .find_map(|(at, bytes)| Label::decode(bytes, salt).map(|_| at))
        {
            return Ok(Some(from + at as u64));
        }
        from += (want - HEADER + 1) as u64;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: u32 = 0x5a17;

    #[test]
    fn any_flipped_bit_of_a_header_goes_noticed() {
        let mut maker = BlockMaker::new(3, SALT).unwrap();
        let block = maker.block(4160, 7, &[5; 1000]).unwrap();
        assert!(block.len() < 100, "{}", block.len());
        let label = Label::decode(&block, SALT).unwrap();
        assert_eq!((label.offset, label.first, label.plain), (4160, 7, 1000));
        assert_eq!(label.stored as usize + HEADER, block.len());
        for bit in 0..HEADER * 8 {
            let mut bad = block.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Label::decode(&bad, SALT), None, "bit {bit}");
        }
        assert_eq!(Label::decode(&block, SALT + 1), None);
    }

    #[test]
    fn what_does_not_shrink_is_stored_as_it_is() {
        let mut random = [0; 500];
        getrandom::fill(&mut random).unwrap();
        let block = BlockMaker::new(3, SALT)
            .unwrap()
            .block(0, 1, &random)
            .unwrap();
        assert_eq!(&block[HEADER..], random);
        assert_eq!(Label::decode(&block, SALT).unwrap().way, AS_IS);
    }
}
