//! Reads on from a sequence number, block by block, and waits at the end.
//!
//! A block is one `pread`; its entries are slices of it. Readers share nothing but the catalog's lock, taken once a
//! block, so a slow one disturbs nobody. What cannot be handed out is told as a range: records that retention has
//! removed, and records that are damaged.

use std::{io, ops::Range, sync::Arc};

use tokio::sync::watch;

use crate::{
    Account, Entry, Seq,
    catalog::{Place, Shared, lock},
    content::Body,
    disk::Access,
    held::{Held, Hold},
    segment::{BadHead, Extent, Head, Segment},
    walk::{PATIENCE, SCAN, Walk},
};

/// The disk failed; nothing was skipped. Try again: a place that fails three times in a row is then read around.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {name}: {source}; try again")]
pub struct ReadError {
    /// The segment's file name.
    pub name: String,
    /// What the disk said.
    pub source: io::Error,
}

/// What one [`Reader::next`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// In order.
    pub entries: Vec<Entry>,
    /// Passed over without being handed out, in order: `expired + corrupt` records together.
    pub skipped: Vec<Range<Seq>>,
    /// Records in `skipped` that retention removed.
    pub expired: u64,
    /// Records in `skipped` that are damaged, or that a crash interrupted before they were acknowledged.
    pub corrupt: u64,
    /// Where the next block begins.
    pub next: Seq,
}

impl Block {
    /// Whether there was nothing to read and nothing to skip.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.skipped.is_empty()
    }

    /// The skipped records as they belong into a cursor's account.
    #[must_use]
    pub fn losses(&self) -> Account {
        Account {
            expired: self.expired,
            corrupt: self.corrupt,
            ..Account::default()
        }
    }

    fn skip(&mut self, range: Range<u64>, count: fn(&mut Block) -> &mut u64) {
        if !range.is_empty() {
            *count(self) += range.end - range.start;
            self.skipped.push(Seq(range.start)..Seq(range.end));
        }
    }

    fn skip_expired(&mut self, range: Range<u64>) {
        self.skip(range, |b| &mut b.expired);
    }

    fn skip_corrupt(&mut self, range: Range<u64>) {
        self.skip(range, |b| &mut b.corrupt);
    }
}

/// Reads committed records from a place on.
pub struct Reader {
    shared: Arc<Shared>,
    next: u64,
    hold: Arc<Hold>,
    committed: watch::Receiver<Seq>,
    failures: u32,
}

impl Reader {
    pub(crate) fn new(shared: &Arc<Shared>, from: Seq) -> Reader {
        let committed = shared.committed.subscribe();
        Reader {
            shared: Arc::clone(shared),
            next: from.0.max(1),
            hold: shared.holds.add(),
            committed,
            failures: 0,
        }
    }

    /// Where the next block begins.
    #[must_use]
    pub fn position(&self) -> Seq {
        Seq(self.next)
    }

    /// How many records there are from there on.
    #[must_use]
    pub fn behind(&self) -> u64 {
        (self.committed.borrow().0 + 1).saturating_sub(self.next)
    }

    /// Goes to another place.
    pub fn seek(&mut self, to: Seq) {
        self.next = to.0.max(1);
        self.hold.close();
    }

    /// Reads on: about `max_bytes` (at least one record where there is one), or an empty block at the end. Blocks the
    /// thread for one read, mostly of the page cache.
    ///
    /// # Errors
    /// The disk failed; call again.
    pub fn next(&mut self, max_bytes: usize) -> Result<Block, ReadError> {
        let mut block = Block::default();
        while block.is_empty() {
            let place = {
                let catalog = lock(&self.shared.catalog);
                let first = catalog.first();
                if self.next < first {
                    block.skip_expired(self.next..first);
                    self.next = first;
                }
                catalog
                    .locate(self.next)
                    .filter(|_| self.next < catalog.next)
            };
            let Some(place) = place else { break };
            match self.read(&place, max_bytes, &mut block) {
                Ok(()) => self.failures = 0,
                Err(source) if block.is_empty() => {
                    self.failures += 1;
                    return Err(ReadError {
                        name: place.segment.name.clone(),
                        source,
                    });
                }
                // What was skipped is told first; the failure comes again.
                Err(_) => break,
            }
        }
        block.next = Seq(self.next);
        Ok(block)
    }

    /// Waits until there is something to read; `false` once the journal is closed and read to its end.
    pub async fn wait(&mut self) -> bool {
        let next = self.next;
        // The sender lives as long as `shared`; a closed journal says so by a last, unchanged value.
        loop {
            if self.committed.borrow_and_update().0 >= next {
                return true;
            }
            if lock(&self.shared.chores).closing {
                return false;
            }
            if self.committed.changed().await.is_err() {
                return false;
            }
        }
    }

    fn read(&mut self, place: &Place, max: usize, block: &mut Block) -> io::Result<()> {
        let held = match self.hold.take(&place.segment) {
            Some(held) => Some(held),
            None => hold(&self.shared, place, self.next)?,
        };
        let Some(mut held) = held else {
            return self.segment_lost(place, block);
        };
        let read = self.read_on(&mut held.walk, place, max, block);
        self.hold.keep(held);
        read
    }

    /// One step of `walk` in the segment of `place`.
    fn read_on(
        &mut self,
        walk: &mut Walk,
        place: &Place,
        max: usize,
        block: &mut Block,
    ) -> io::Result<()> {
        walk.upper = place.upper;
        if let Some((end, _)) = place.open {
            walk.end = end;
        } else if let Some(extent) = place.segment.extent.get() {
            walk.end = extent.end;
        }
        walk.keep_from = self.next;
        walk.tolerant = self.failures >= PATIENCE;
        let mut piece = walk.step(max, false)?;
        while piece.is_empty() && !piece.done {
            piece = walk.step(SCAN, false)?;
        }
        let mut gaps = piece.gaps;
        gaps.extend(piece.voids);
        gaps.sort_unstable_by_key(|gap| gap.start);
        for gap in gaps {
            block.skip_corrupt(gap);
        }
        self.next = self.next.max(walk.next);
        if piece.done && self.next < place.upper {
            block.skip_corrupt(self.next..place.upper);
            self.next = place.upper;
            walk.next = place.upper;
        }
        block.entries = piece.entries;
        Ok(())
    }

    /// The file is gone or its header is damaged: if retention was not it, the records are lost.
    fn segment_lost(&mut self, place: &Place, block: &mut Block) -> io::Result<()> {
        if self.shared.first() <= self.next {
            block.skip_corrupt(self.next..place.upper);
            self.next = place.upper;
        }
        Ok(())
    }
}

/// Opens the segment of `place` at the record `next`, or shortly before it. `None`: there is no such file, or it has
/// no readable header.
fn hold(shared: &Shared, place: &Place, next: u64) -> io::Result<Option<Held>> {
    let segment = &place.segment;
    let edition = segment.edition();
    let Some(body) = open(shared, segment)? else {
        return Ok(None);
    };
    let (end, entry) = match place.open {
        Some((end, hint)) => (end, hint),
        None => {
            let extent = extent_of(segment, &body, place.upper)?;
            let index = match &extent.index {
                Some(index) => Some(Arc::clone(index)),
                None => body.index()?,
            };
            let entry = index.and_then(|index| {
                let after = index.partition_point(|e| e.seq <= next);
                after.checked_sub(1).and_then(|n| index.get(n).copied())
            });
            (extent.end, entry)
        }
    };
    let mut walk = Walk::new(&body, end, place.upper);
    walk.keep_from = next;
    if let Some(entry) = entry {
        walk.skip_to(entry);
    }
    Ok(Some(Held {
        segment: Arc::clone(segment),
        edition,
        walk,
    }))
}

/// Opens a segment; `None` where it is gone or its header is damaged. The header is read with every opening: the
/// file may have been exchanged for a compressed one.
pub(crate) fn open(shared: &Shared, segment: &Segment) -> io::Result<Option<Body>> {
    let file = match shared.disk.open(&segment.name, Access::Read) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    match Head::read(&*file)? {
        // Another segment's file under this name: its records have other numbers.
        Ok(head) if head.base != segment.base => Ok(None),
        Ok(head) => Body::open(file, head).map(Some),
        // Not damaged: skipping its records as lost would be wrong.
        Err(BadHead::Codec(codec)) => Err(unknown_codec(codec)),
        Err(_) => Ok(None),
    }
}

pub(crate) fn unknown_codec(codec: u8) -> io::Error {
    let text = format!("its records have codec {codec}; use a program that knows it");
    io::Error::new(io::ErrorKind::Unsupported, text)
}

/// What is known of a segment that grows no more: from its trailer, or by walking it once.
pub(crate) fn extent_of(segment: &Segment, body: &Body, upper: u64) -> io::Result<Extent> {
    if let Some(extent) = segment.extent.get() {
        return Ok(extent.clone());
    }
    let extent = match body.extent()? {
        Some(extent) => extent,
        None => scan_extent(body, upper)?,
    };
    Ok(segment.extent.get_or_init(|| extent).clone())
}

fn scan_extent(body: &Body, upper: u64) -> io::Result<Extent> {
    let mut walk = Walk::new(body, body.content.end()?, upper);
    let mut growth = walk.grow()?;
    // What could not be read today may be readable tomorrow: it is left within the extent.
    growth.end = if walk.tolerant { walk.end } else { growth.end };
    Ok(growth.extent(true))
}

/// The first record at or after `unix_ns`; one past the end if there is none.
pub(crate) fn seek_time(shared: &Arc<Shared>, unix_ns: u64) -> Result<Seq, ReadError> {
    let mut from = shared.first();
    loop {
        let place = {
            let catalog = lock(&shared.catalog);
            from = from.max(catalog.first());
            catalog.locate(from).filter(|_| from < catalog.next)
        };
        let Some(place) = place else {
            return Ok(Seq(from));
        };
        let at = seek_in(shared, &place, from, unix_ns).map_err(|source| ReadError {
            name: place.segment.name.clone(),
            source,
        })?;
        match at {
            Some(seq) => return Ok(Seq(seq)),
            None => from = place.upper,
        }
    }
}

/// The checkpoint at the head of the segment that begins at `base`.
pub(crate) fn checkpoint(shared: &Shared, base: Seq) -> Result<Option<Vec<u8>>, ReadError> {
    let place = lock(&shared.catalog).locate(base.0);
    let Some(segment) = place.map(|place| place.segment).filter(|s| s.base == base) else {
        return Ok(None);
    };
    let read = || match open(shared, &segment)? {
        Some(body) => body.head.read_checkpoint(&*body.file),
        None => Ok(None),
    };
    read().map_err(|source| ReadError {
        name: segment.name.clone(),
        source,
    })
}

fn seek_in(shared: &Arc<Shared>, place: &Place, from: u64, time: u64) -> io::Result<Option<u64>> {
    let Some(body) = open(shared, &place.segment)? else {
        return Ok(None);
    };
    let (end, max_time, index) = match place.open {
        Some((end, _)) => {
            let catalog = lock(&shared.catalog);
            let growth = catalog.open.as_ref();
            let index = growth.map(|g| Arc::new(g.index.clone()));
            (end, growth.map_or(u64::MAX, |g| g.max_time), index)
        }
        None => {
            let extent = extent_of(&place.segment, &body, place.upper)?;
            let index = match extent.index {
                Some(index) => Some(index),
                None => body.index()?,
            };
            (extent.end, extent.max_time, index)
        }
    };
    if max_time < time {
        return Ok(None);
    }
    let mut walk = Walk::new(&body, end, place.upper);
    walk.keep_from = from;
    if let Some(index) = index {
        let after = index.partition_point(|e| e.before < time);
        if let Some(entry) = after.checked_sub(1).and_then(|n| index.get(n)) {
            walk.skip_to(*entry);
        }
    }
    loop {
        let piece = walk.step_patiently(SCAN, false)?;
        if let Some(entry) = piece.entries.iter().find(|e| e.time >= time) {
            return Ok(Some(entry.seq.0));
        }
        if piece.done {
            return Ok(None);
        }
    }
}
