//! Walks the records of one segment, verifying each, and finds its way again after a bad one.
//!
//! Reader, recovery, seek and inspection all walk by this code, so they agree on what a record is.
//!
//! After a bad region the walk looks for the next place where a header is plausible (its sequence number has not
//! been passed and is below the segment's end, its length fits) and the checksum holds. The segment's salt makes a
//! payload that imitates a record fail that test.

use std::{io, ops::Range};

use bytes::Bytes;

use crate::{
    Entry, Seq,
    content::{Body, Content},
    record::{GROUP_START, HEADER, Header, VOID},
    segment::{Growth, IndexEntry},
};

/// Bytes looked through at a time when searching for the next record.
const WINDOW: usize = 256 << 10;
/// Bytes read at a time when nothing is handed out.
pub(crate) const SCAN: usize = 1 << 20;
/// After so many failed reads at one place, unreadable sectors count as damaged.
pub(crate) const PATIENCE: u32 = 3;

/// A place in a segment.
pub(crate) struct Walk {
    pub(crate) content: Content,
    pub(crate) salt: u32,
    /// Offset of the next record.
    pub(crate) at: u64,
    /// The records end at or before this offset.
    pub(crate) end: u64,
    /// The sequence number expected at `at`.
    pub(crate) next: u64,
    /// Records from here on belong to the next segment.
    pub(crate) upper: u64,
    /// Records before this are passed over without being handed out.
    pub(crate) keep_from: u64,
    /// Where the bad region before `at` begins, if there is one.
    pub(crate) bad_from: Option<u64>,
    /// Read unreadable sectors as zeros instead of failing. (A failed step changes nothing: it can be repeated.)
    pub(crate) tolerant: bool,
}

/// What one step found.
#[derive(Debug, Default)]
pub(crate) struct Piece {
    pub(crate) entries: Vec<Entry>,
    /// Sequence numbers for which there is no valid record, each before some valid one.
    pub(crate) gaps: Vec<Range<u64>>,
    /// Where the bytes of gaps are.
    pub(crate) holes: Vec<Hole>,
    /// Sequence numbers that were never acknowledged, marked so by recovery.
    pub(crate) voids: Vec<Range<u64>>,
    /// Offset and header of each entry, if asked for.
    pub(crate) places: Vec<(u64, Header)>,
    /// No further record: either `at == end`, or what lies between is no record.
    pub(crate) done: bool,
}

impl Piece {
    /// Whether nothing was handed out and nothing skipped.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.gaps.is_empty() && self.voids.is_empty()
    }

    /// Each record with its place and the holes between it and the one before, if places were asked for.
    pub(crate) fn records(&self) -> impl Iterator<Item = (&[Hole], u64, &Header, &Entry)> {
        let mut holes = self.holes.as_slice();
        let records = self.places.iter().zip(&self.entries);
        records.map(move |((offset, header), entry)| {
            let (before, rest) = holes.split_at(holes.partition_point(|h| h.to <= *offset));
            holes = rest;
            (before, *offset, header, entry)
        })
    }
}

/// A bad region between two valid records.
#[derive(Clone, Debug)]
pub(crate) struct Hole {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) numbers: Range<u64>,
}

impl Walk {
    /// From a segment's first record to `end`, as far as the numbers below `upper`.
    pub(crate) fn new(body: &Body, end: u64, upper: u64) -> Walk {
        Walk {
            content: body.content.clone(),
            salt: body.head.salt,
            at: body.head.data_start(),
            end,
            next: body.head.base.0,
            upper,
            keep_from: 0,
            bad_from: None,
            tolerant: false,
        }
    }

    /// Goes on from a place in the middle that the index gave.
    pub(crate) fn skip_to(&mut self, entry: IndexEntry) {
        (self.at, self.next) = (entry.offset, entry.seq);
    }

    /// Reads on, about `max` bytes but at least one record if there is one.
    pub(crate) fn step(&mut self, max: usize, places: bool) -> io::Result<Piece> {
        let mut piece = Piece::default();
        let mut want = max.max(HEADER);
        loop {
            if self.at >= self.end || self.next >= self.upper {
                piece.done = true;
                return Ok(piece);
            }
            let asked = want.min(left(self.end, self.at));
            let block = self.fetch(self.at, asked)?;
            match self.parse(&block, places, &mut piece) {
                Parsed::Some => return Ok(piece),
                // A block that ends before does not hold it.
                Parsed::Longer(bytes) if block.len() == asked => want = bytes,
                Parsed::Longer(_) | Parsed::Bad => match self.resync()? {
                    Some(offset) => {
                        self.bad_from.get_or_insert(self.at);
                        self.at = offset;
                    }
                    None => {
                        piece.done = true;
                        return Ok(piece);
                    }
                },
            }
        }
    }

    /// As [`Walk::step`], but a place that fails [`PATIENCE`] times is read around, and so is all that follows.
    pub(crate) fn step_patiently(&mut self, max: usize, places: bool) -> io::Result<Piece> {
        for _ in 1..PATIENCE {
            if let Ok(piece) = self.step(max, places) {
                return Ok(piece);
            }
        }
        self.step(max, places).or_else(|_| {
            self.tolerant = true;
            self.step(max, places)
        })
    }

    /// Walks to the end and enters every record: what a segment without an index would have in it.
    pub(crate) fn grow(&mut self) -> io::Result<Growth> {
        let mut growth = Growth::new(Seq(self.next), self.at);
        loop {
            let piece = self.step_patiently(SCAN, true)?;
            for (offset, header) in &piece.places {
                growth.add(header.seq, header.time, *offset, header.frame() as u64);
            }
            if piece.done {
                return Ok(growth);
            }
        }
    }

    /// Takes the records of `block`, which begins at `self.at`.
    fn parse(&mut self, block: &Bytes, places: bool, piece: &mut Piece) -> Parsed {
        let start = self.at;
        let mut pos = 0;
        let moved = loop {
            let rest = block.get(pos..).unwrap_or_default();
            let room = left(self.end, self.at);
            // At least a header was asked for: less is the end of the records, or of a block.
            let Some(header) = Header::decode(rest) else {
                break Parsed::Bad;
            };
            let frame = header.frame();
            if frame > room || header.seq < self.next {
                break Parsed::Bad;
            }
            if header.next() > self.upper {
                break Parsed::Bad;
            }
            let Some(bytes) = rest.get(..frame) else {
                break Parsed::Longer(frame);
            };
            if !header.verify(self.salt, bytes) {
                break Parsed::Bad;
            }
            self.take(
                &header,
                block.slice(pos + HEADER..pos + frame),
                places,
                piece,
            );
            pos += frame;
        };
        // What stands after good records is looked at again by the next step.
        if self.at > start { Parsed::Some } else { moved }
    }

    fn take(&mut self, header: &Header, payload: Bytes, places: bool, piece: &mut Piece) {
        let seq = header.seq;
        if let Some(from) = self.bad_from.take() {
            piece.holes.push(Hole {
                from,
                to: self.at,
                numbers: self.next..seq,
            });
        }
        let from = self.next.max(self.keep_from);
        if seq > from {
            piece.gaps.push(from..seq);
        }
        if header.flags & VOID != 0 {
            piece.voids.push(seq.max(from)..header.next());
        } else if seq >= self.keep_from {
            let Header { kind, time, .. } = *header;
            piece.entries.push(Entry {
                seq: Seq(seq),
                kind,
                time,
                payload,
            });
            if places {
                piece.places.push((self.at, *header));
            }
        }
        self.at += header.frame() as u64;
        self.next = header.next();
    }

    /// The offset of the next valid record after the bad one at `self.at`.
    fn resync(&self) -> io::Result<Option<u64>> {
        if let Some(offset) = self.follow()? {
            return Ok(Some(offset));
        }
        let mut from = self.at + 1;
        loop {
            from = self.content.skip(from, self.tolerant)?;
            if left(self.end, from) < HEADER {
                return Ok(None);
            }
            let asked = WINDOW.min(left(self.end, from));
            let window = self.fetch(from, asked)?;
            for (pos, bytes) in window.windows(HEADER).enumerate() {
                let at = from + pos as u64;
                if self.plausible(bytes, at).is_some() && self.valid(at)?.is_some() {
                    return Ok(Some(at));
                }
            }
            // A header may begin in the last bytes, unless they end a block.
            let ends = window.len() < asked;
            let overlap = if ends { 0 } else { HEADER - 1 };
            from += (window.len() - overlap) as u64;
        }
    }

    /// The usual damage leaves the length whole: then the next record stands right behind the bad one.
    fn follow(&self) -> io::Result<Option<u64>> {
        let head = self.fetch(self.at, HEADER.min(left(self.end, self.at)))?;
        let Some(bad) = Header::decode(&head) else {
            return Ok(None);
        };
        let at = self.at + bad.frame() as u64;
        let next = self.valid(at)?.filter(|header| header.seq == self.next + 1);
        Ok(next.map(|_| at))
    }

    fn valid(&self, at: u64) -> io::Result<Option<Header>> {
        let room = left(self.end, at);
        if room < HEADER {
            return Ok(None);
        }
        let head = self.fetch(at, HEADER)?;
        let Some(header) = self.plausible(&head, at) else {
            return Ok(None);
        };
        let frame = self.fetch(at, header.frame())?;
        let whole = frame.len() == header.frame() && header.verify(self.salt, &frame);
        Ok(whole.then_some(header))
    }

    fn plausible(&self, bytes: &[u8], at: u64) -> Option<Header> {
        let header = Header::decode(bytes)?;
        let ahead = header.seq.checked_sub(self.next)?;
        let fits = header.frame() <= left(self.end, at);
        (header.next() <= self.upper && ahead < (1 << 40) && fits).then_some(header)
    }

    fn fetch(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        self.content.fetch(offset, len, self.tolerant)
    }
}

enum Parsed {
    /// At least one record was taken (or none is left).
    Some,
    /// The first record is this long.
    Longer(usize),
    /// What stands at `at` is no record.
    Bad,
}

/// Bytes from `at` to `end`.
fn left(end: u64, at: u64) -> usize {
    usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX)
}

/// Whether the record opened a group commit.
pub(crate) fn opens_group(header: &Header) -> bool {
    header.flags & GROUP_START != 0
}
