//! Looks into a directory without changing it: what `journal inspect` and `journal verify` print.
//!
//! It takes no lock, so it may be used beside a running writer; the newest segment's last group may then look torn.

use std::{io, ops::Range, sync::Arc};

use crate::{
    Account, Disk, FORMAT, Seq,
    disk::{Access, DiskFile},
    record::MAX_SEQ,
    segment::{self, BadHead, Head},
    slots::{Found, SlotFile},
    walk::Walk,
};

const SCAN: usize = 1 << 20;

/// A directory's journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Oldest first.
    pub segments: Vec<SegmentReport>,
    /// By name.
    pub cursors: Vec<CursorReport>,
    /// Files that are none of the journal's.
    pub foreign: Vec<String>,
}

impl Report {
    /// Records that can be read.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.segments.iter().map(|s| s.records).sum()
    }

    /// Records that should be there and cannot be read.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.segments
            .iter()
            .flat_map(|s| &s.gaps)
            .map(|gap| gap.end.0 - gap.start.0)
            .sum()
    }

    /// Whether everything that was written can be read.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let segments = self
            .segments
            .iter()
            .all(|s| s.problem.is_none() && s.gaps.is_empty());
        segments && self.cursors.iter().all(|c| c.problem.is_none())
    }
}

/// One segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentReport {
    /// File name.
    pub name: String,
    /// Length in bytes.
    pub bytes: u64,
    /// Its first sequence number, by its name.
    pub base: Seq,
    /// It is closed with an index.
    pub sealed: bool,
    /// Unix ns of its making.
    pub created: u64,
    /// Length of the owner's checkpoint.
    pub checkpoint_bytes: u64,
    /// Records that can be read.
    pub records: u64,
    /// The last of them; 0 if there is none.
    pub last: Seq,
    /// Earliest and latest time of a record, unix ns; 0 if there is none.
    pub times: (u64, u64),
    /// Numbers without a readable record.
    pub gaps: Vec<Range<Seq>>,
    /// Numbers that a crash interrupted before they were acknowledged.
    pub interrupted: u64,
    /// Bytes behind the last record that are neither record nor index.
    pub tail_bytes: u64,
    /// What is wrong beside that.
    pub problem: Option<String>,
}

/// One cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CursorReport {
    /// Its name.
    pub name: String,
    /// The next record to deliver.
    pub position: Seq,
    /// Where it began.
    pub birth: Seq,
    /// What became of the records passed.
    pub account: Account,
    /// Records gone back over by rewinds.
    pub rewound: u64,
    /// Length of the owner's state, if there is one.
    pub state_bytes: Option<usize>,
    /// What is wrong with it.
    pub problem: Option<String>,
}

/// Reads everything, verifying every record, and changes nothing.
///
/// # Errors
/// As the disk gives them; damage is no error but part of the report.
pub fn inspect(disk: &dyn Disk) -> io::Result<Report> {
    let mut names = disk.list()?;
    names.sort_unstable();
    let mut report = Report::default();
    let bases: Vec<Seq> = names.iter().filter_map(|n| segment::base_of(n)).collect();
    for (n, base) in bases.iter().enumerate() {
        let next = bases.get(n + 1).map(|b| b.0);
        report.segments.push(inspect_segment(disk, *base, next)?);
    }
    for name in names {
        if let Some(cursor) = name.strip_suffix(".cursor") {
            report.cursors.push(inspect_cursor(disk, &name, cursor)?);
        } else if segment::base_of(&name).is_none() && name != "FORMAT" && name != "LOCK" {
            report.foreign.push(name);
        }
    }
    Ok(report)
}

fn inspect_segment(disk: &dyn Disk, base: Seq, next: Option<u64>) -> io::Result<SegmentReport> {
    let name = segment::name(base);
    let file = disk.open(&name, Access::Read)?;
    let mut report = SegmentReport {
        name,
        bytes: file.length()?,
        base,
        ..SegmentReport::default()
    };
    let head = match Head::read(&*file)? {
        Ok(head) if head.base == base => head,
        Err(BadHead::Version(found)) => {
            report.problem = Some(format!("format version {found}; known is {FORMAT}"));
            return Ok(report);
        }
        Err(BadHead::Codec(codec)) => {
            report.problem = Some(format!(
                "its records have codec {codec}, which is not known"
            ));
            return Ok(report);
        }
        Ok(_) | Err(BadHead::Damaged) => {
            report.problem =
                Some("both copies of the header are damaged; its records are lost".to_owned());
            report.gaps.extend(next.map(|next| base..Seq(next)));
            return Ok(report);
        }
    };
    report.created = head.created;
    report.checkpoint_bytes = u64::from(head.checkpoint_len);
    if head.read_checkpoint(&*file)?.is_none() {
        report.problem = Some("the checkpoint is damaged".to_owned());
    }
    let extent = segment::read_extent(&*file, &head)?;
    if extent.is_some() && segment::read_index(&*file, &head)?.is_none() {
        report.problem = Some("the index is damaged; reading from the middle is slower".to_owned());
    }
    let end = extent.as_ref().map_or(report.bytes, |e| e.end);
    let upper = next.or(extent.as_ref().map(|e| e.last + 1));
    report.sealed = extent.is_some();
    count_records(&mut report, &file, &head, end, upper)?;
    Ok(report)
}

fn count_records(
    report: &mut SegmentReport,
    file: &Arc<dyn DiskFile>,
    head: &Head,
    end: u64,
    upper: Option<u64>,
) -> io::Result<()> {
    let mut walk = Walk {
        file: Arc::clone(file),
        salt: head.salt,
        at: head.data_start(),
        end,
        next: head.base.0,
        upper: upper.unwrap_or(MAX_SEQ + 1),
        keep_from: 0,
        bad_from: None,
        tolerant: false,
    };
    let (mut earliest, mut latest) = (u64::MAX, 0);
    loop {
        let piece = walk.step_patiently(SCAN, false)?;
        report.records += piece.entries.len() as u64;
        report
            .gaps
            .extend(piece.gaps.iter().map(|gap| Seq(gap.start)..Seq(gap.end)));
        report.interrupted += piece.voids.iter().map(|v| v.end - v.start).sum::<u64>();
        for entry in &piece.entries {
            earliest = earliest.min(entry.time);
            latest = latest.max(entry.time);
            report.last = entry.seq;
        }
        if piece.done {
            break;
        }
    }
    if report.records > 0 {
        report.times = (earliest, latest);
    }
    if let Some(upper) = upper.filter(|upper| walk.next < *upper) {
        report.gaps.push(Seq(walk.next)..Seq(upper));
    }
    report.tail_bytes = end - walk.at;
    Ok(())
}

fn inspect_cursor(disk: &dyn Disk, file: &str, name: &str) -> io::Result<CursorReport> {
    let mut report = CursorReport {
        name: name.to_owned(),
        ..CursorReport::default()
    };
    match SlotFile::open(disk, file, Access::Read)?.1 {
        Found::Slot { slot, alone } => {
            report.position = Seq(slot.position);
            report.birth = Seq(slot.birth);
            report.account = slot.account;
            report.rewound = slot.rewound;
            report.state_bytes = slot.state.map(|s| s.len());
            report.problem =
                alone.then(|| "one slot is not whole; the other one counts".to_owned());
        }
        Found::Damaged => report.problem = Some("both slots are damaged".to_owned()),
        Found::Version(found) => {
            report.problem = Some(format!("format version {found}; known is {FORMAT}"));
        }
    }
    Ok(report)
}
