//! Segments: their ends, or every record in them.

use std::{fmt, io, ops::Range, sync::Arc};

use super::{Depth, Fault, Problem, Report};
use crate::{
    Disk, FORMAT, Seq,
    content::{Body, Content},
    disk::{Access, DiskFile},
    record::{Header, MAX_SEQ},
    segment::{self, BadHead, COPIES, Extent, Head, IndexEntry, PLAIN},
    walk::{Hole, Piece, SCAN, Walk, opens_group},
};

/// One segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentReport {
    /// File name.
    pub name: String,
    /// Length in bytes.
    pub bytes: u64,
    /// Its records are compressed.
    pub compressed: bool,
    /// Length without compression and without the index, in bytes.
    pub plain_bytes: u64,
    /// Its first sequence number, by its name.
    pub base: Seq,
    /// How far it got.
    pub state: State,
    /// Unix ns of its making.
    pub created: u64,
    /// Length of the owner's saved state.
    pub checkpoint_bytes: u64,
    /// Records that can be read (without reading them: that were there when it was closed).
    pub records: u64,
    /// The last number that it holds; 0 if there is none.
    pub last: Seq,
    /// Earliest and latest time of a record, unix ns; 0 if there is none.
    pub times: (u64, u64),
    /// Numbers that a crash interrupted before they were acknowledged (known only where records are read).
    pub interrupted: u64,
}

/// How far a segment got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Its header is not readable, or of another kind.
    #[default]
    Unreadable,
    /// Records are added to it.
    Open,
    /// Closed, with an index.
    Sealed,
    /// Closed by the one that follows, without an index.
    Unindexed,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Unreadable => "unreadable",
            State::Open => "open",
            State::Sealed => "sealed",
            State::Unindexed => "no index",
        })
    }
}

/// Looks at one segment.
pub(super) struct Look<'a> {
    disk: &'a dyn Disk,
    report: &'a mut Report,
    depth: Depth,
    segment: SegmentReport,
}

impl<'a> Look<'a> {
    pub(super) fn new(disk: &'a dyn Disk, report: &'a mut Report, depth: Depth) -> Look<'a> {
        Look {
            disk,
            report,
            depth,
            segment: SegmentReport::default(),
        }
    }

    /// The segment that begins with `base`, before one that begins with `following`.
    pub(super) fn segment(mut self, base: Seq, following: Option<u64>) -> io::Result<()> {
        self.segment.name = segment::name(base);
        self.segment.base = base;
        let file = match self.disk.open(&self.segment.name, Access::Read) {
            Ok(file) => file,
            // Retention was faster.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e),
        };
        self.segment.bytes = file.length()?;
        if let Some(head) = self.head(&*file, following)? {
            self.segment.compressed = head.codec != PLAIN;
            self.body(&Body::open(file, head)?, following)?;
        }
        self.report.segments.push(self.segment);
        Ok(())
    }

    fn tell(&mut self, offset: u64, fault: Fault) {
        let problem = Problem::at(&self.segment.name, offset, fault);
        self.report.problems.push(problem);
    }

    fn tell_of(&mut self, numbers: Range<u64>, offset: u64, fault: Fault) {
        let problem = Problem::at(&self.segment.name, offset, fault);
        self.report.problems.push(problem.over(numbers));
    }

    fn head(&mut self, file: &dyn DiskFile, following: Option<u64>) -> io::Result<Option<Head>> {
        let base = self.segment.base;
        let fault = match Head::read(file)? {
            Ok(head) if head.base == base => {
                self.head_copies(file);
                self.segment.created = head.created;
                self.segment.checkpoint_bytes = u64::from(head.checkpoint_len);
                if head.read_checkpoint(file)?.is_none() {
                    self.tell(segment::CHECKPOINT, Fault::Checkpoint);
                }
                return Ok(Some(head));
            }
            Err(BadHead::Version(found)) => Fault::Unknown(format!(
                "format version {found}, known are those up to {FORMAT}"
            )),
            Err(BadHead::Codec(codec)) => {
                Fault::Unknown(format!("its records are stored with codec {codec}"))
            }
            Ok(_) | Err(BadHead::Damaged) => Fault::Header,
        };
        self.tell_of(base.0..following.unwrap_or(base.0), 0, fault);
        self.segment.last = following.map_or(Seq(0), |next| Seq(next - 1));
        Ok(None)
    }

    fn head_copies(&mut self, file: &dyn DiskFile) {
        let (first, second) = Head::copies(file);
        for (at, copy) in COPIES.into_iter().zip([first, second]) {
            if !matches!(copy, Ok(Ok(_))) {
                self.tell(at, Fault::HeaderCopy);
            }
        }
    }

    fn body(&mut self, body: &Body, following: Option<u64>) -> io::Result<()> {
        let extent = body.extent()?;
        let index = body.index()?;
        self.segment.state = match (&extent, following) {
            (Some(_), _) => State::Sealed,
            (None, None) if !self.segment.compressed => State::Open,
            (None, _) => State::Unindexed,
        };
        let closed = self.segment.state != State::Open;
        if closed && index.is_none() {
            self.tell(self.segment.bytes, Fault::Index);
        }
        match &extent {
            Some(extent) if self.depth == Depth::Ends => {
                self.by_extent(extent, following);
                Ok(())
            }
            _ => self.walk(body, following, extent, index),
        }
    }

    /// What the trailer says, unseen.
    fn by_extent(&mut self, extent: &Extent, following: Option<u64>) {
        self.segment.records = extent.records;
        self.segment.plain_bytes = extent.end;
        self.segment.times = (extent.min_time, extent.max_time);
        let past = following.unwrap_or(extent.last + 1);
        self.segment.last = Seq(past - 1);
        if extent.last + 1 < past {
            self.tell_of(extent.last + 1..past, self.segment.bytes, Fault::Records);
        }
    }

    fn walk(
        &mut self,
        body: &Body,
        following: Option<u64>,
        extent: Option<Extent>,
        index: Option<Arc<Vec<IndexEntry>>>,
    ) -> io::Result<()> {
        let end = match &extent {
            Some(extent) => extent.end,
            None => body.content.end()?,
        };
        let upper = following.or(extent.as_ref().map(|e| e.last + 1));
        let mut walk = Walk::new(body, end, upper.unwrap_or(MAX_SEQ + 1));
        let mut seen = Seen::new(index.as_deref());
        let mut pending = Vec::new();
        loop {
            let piece = walk.step_patiently(SCAN, true)?;
            self.piece(&piece, &body.content, &mut seen, &mut pending);
            if piece.done {
                break;
            }
        }
        self.take(&seen);
        self.segment.last = Seq(walk.next.max(upper.unwrap_or(0)) - 1);
        if walk.tolerant {
            self.tell(body.head.data_start(), Fault::Unreadable);
        }
        let live = self.segment.state == State::Open && !walk.tolerant;
        self.gaps(pending, &body.content, live);
        self.end(&walk, end, upper, live);
        self.segment.plain_bytes = walk.at;
        if let Some(extent) = extent {
            seen.sure &= walk.next > extent.last;
            self.hold_against(&seen, &extent);
        }
        Ok(())
    }

    /// Takes in one piece. Gaps since the last group began wait in `pending`.
    fn piece(
        &mut self,
        piece: &Piece,
        content: &Content,
        seen: &mut Seen<'_>,
        pending: &mut Vec<Hole>,
    ) {
        self.segment.interrupted += piece.voids.iter().map(|v| v.end - v.start).sum::<u64>();
        let mut gaps = piece.gaps.iter().peekable();
        for (holes, offset, header, _) in piece.records() {
            pending.extend(holes.iter().cloned());
            // A number that is missing without a bad byte.
            while let Some(gap) = gaps.next_if(|gap| gap.end <= header.seq) {
                if !pending.iter().any(|hole| hole.numbers == *gap) {
                    pending.push(Hole {
                        from: offset,
                        to: offset,
                        numbers: gap.clone(),
                    });
                }
            }
            seen.sure &= pending.is_empty();
            if opens_group(header) {
                self.gaps(std::mem::take(pending), content, false);
            }
            seen.add(offset, header);
        }
    }

    /// Tells of bad places between records: damage, or (`torn`) what a crash left in a group that was never
    /// acknowledged.
    fn gaps(&mut self, holes: Vec<Hole>, content: &Content, torn: bool) {
        for hole in holes {
            let fault = if torn {
                Fault::Torn {
                    bytes: hole.to - hole.from,
                }
            } else {
                Fault::Records
            };
            self.tell_of(hole.numbers, content.place(hole.from), fault);
        }
    }

    /// What stands, or is missing, behind the last record.
    fn end(&mut self, walk: &Walk, end: u64, upper: Option<u64>, live: bool) {
        if let Some(upper) = upper.filter(|upper| walk.next < *upper) {
            let place = walk.content.place(walk.at);
            self.tell_of(walk.next..upper, place, Fault::Records);
        } else if live && walk.at < end && self.report.holder.is_none() {
            let bytes = end - walk.at;
            self.tell(walk.at, Fault::Torn { bytes });
        }
    }

    fn take(&mut self, seen: &Seen<'_>) {
        self.segment.records = seen.records;
        if seen.records > 0 {
            self.segment.times = (seen.min_time, seen.max_time);
        }
    }

    fn hold_against(&mut self, seen: &Seen<'_>, extent: &Extent) {
        let said = (extent.records, extent.min_time, extent.max_time);
        let found = (seen.records, seen.min_time, seen.max_time);
        let wrong = match &seen.wrong {
            Some(entry) => Some(entry.clone()),
            None if seen.sure && said != found => Some(format!(
                "it says {said:?} (records, times), there are {found:?}"
            )),
            None => None,
        };
        if let Some(wrong) = wrong {
            self.tell(self.segment.bytes, Fault::WrongIndex(wrong));
        }
    }
}

/// What a walk has come by.
struct Seen<'a> {
    records: u64,
    min_time: u64,
    max_time: u64,
    /// Nothing was missing so far, so the figures must be those of the trailer.
    sure: bool,
    index: std::slice::Iter<'a, IndexEntry>,
    entry: Option<&'a IndexEntry>,
    wrong: Option<String>,
}

impl<'a> Seen<'a> {
    fn new(index: Option<&'a Vec<IndexEntry>>) -> Seen<'a> {
        let mut index = index.map_or(&[][..], Vec::as_slice).iter();
        Seen {
            records: 0,
            min_time: u64::MAX,
            max_time: 0,
            sure: true,
            entry: index.next(),
            index,
            wrong: None,
        }
    }

    fn add(&mut self, offset: u64, header: &Header) {
        while let Some(entry) = self.entry.filter(|entry| entry.offset <= offset) {
            let fits = entry.offset == offset && entry.seq == header.seq;
            let dated = entry.before == self.max_time || !self.sure;
            // An entry whose own record is damaged cannot be judged.
            let judged = entry.offset == offset || self.sure;
            if judged && !(fits && dated) {
                self.wrong
                    .get_or_insert(format!("entry of record {} at {}", entry.seq, entry.offset));
            }
            self.entry = self.index.next();
        }
        self.records += 1;
        self.min_time = self.min_time.min(header.time);
        self.max_time = self.max_time.max(header.time);
    }
}
