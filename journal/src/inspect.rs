//! Looks into a directory without changing it: what `cresset journal inspect` and `verify` say.
//!
//! [`Depth::Ends`] reads headers, trailers and cursors, and walks only a segment that has no trailer;
//! [`Depth::Everything`] reads every record, verifies every checksum and holds the index against the records.
//!
//! Neither takes the lock, so both may be used beside a running writer; what it is just writing at the newest
//! segment's end is then no problem.

mod cursors;
mod problem;
mod segments;

use std::{io, path::PathBuf};

use self::segments::Look;
pub use self::{
    cursors::CursorReport,
    problem::{Fault, Harm, Problem},
    segments::{SegmentReport, State},
};
use crate::{
    Disk, OpenError, Seq,
    format::{FORMAT_FILE, Format},
    recovery::{Opening, is_unfinished},
    segment,
};

/// What [`crate::repair`] calls the folders of what it cut.
pub const ASIDE: &str = "repair-";

/// How much is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// What stands at the ends of segments, and the cursors.
    Ends,
    /// Every record.
    Everything,
}

/// A directory's journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What the FORMAT file says; `None` where it is missing or damaged.
    pub format: Option<u16>,
    /// Who writes here at this moment.
    pub holder: Option<String>,
    /// Oldest first.
    pub segments: Vec<SegmentReport>,
    /// By name.
    pub cursors: Vec<CursorReport>,
    /// What repairs kept aside.
    pub aside: Vec<String>,
    /// Files that are none of the journal's.
    pub foreign: Vec<String>,
    /// What is wrong, segments first, in the order of the files.
    pub problems: Vec<Problem>,
}

impl Report {
    /// Oldest record that is kept; 1 for an empty journal.
    #[must_use]
    pub fn first(&self) -> Seq {
        self.segments.first().map_or(Seq(1), |s| s.base)
    }

    /// The last number that a segment holds; 0 for an empty journal.
    #[must_use]
    pub fn committed(&self) -> Seq {
        let past = self
            .segments
            .last()
            .map_or(1, |s| s.base.0.max(s.last.0 + 1));
        Seq(past - 1)
    }

    /// Records that can be read.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.segments.iter().map(|s| s.records).sum()
    }

    /// Records that should be there and cannot be read.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.problems.iter().map(Problem::lost).sum()
    }

    /// Bytes in segments.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.bytes).sum()
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// Neither segments nor cursors nor a version file.
    #[error(
        "{path} holds no journal; give the folder with the .seg files, or a relay's data folder"
    )]
    Nothing {
        /// The directory.
        path: PathBuf,
    },
    /// Another version, or not a journal.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The system refused something on the way.
    #[error("{path} cannot be read: {source}")]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Looks at a directory's journal and changes nothing. Damage is no error but part of the report.
///
/// # Errors
/// There is no journal, it is of another version, or the directory cannot be read.
pub fn inspect(disk: &dyn Disk, depth: Depth) -> Result<Report, InspectError> {
    let holder = disk.holder().map_err(|source| InspectError::Io {
        path: disk.path(),
        source,
    })?;
    inspect_beside(disk, depth, holder)
}

/// As [`inspect`], beside this writer; none for whoever holds the lock itself.
pub(crate) fn inspect_beside(
    disk: &dyn Disk,
    depth: Depth,
    holder: Option<String>,
) -> Result<Report, InspectError> {
    let path = disk.path();
    let opening = Opening { disk, path: &path };
    if opening.check_version()? == Format::New {
        return Err(InspectError::Nothing { path });
    }
    look(&opening, depth, holder).map_err(|source| InspectError::Io { path, source })
}

fn look(opening: &Opening<'_>, depth: Depth, holder: Option<String>) -> io::Result<Report> {
    let disk = opening.disk;
    let mut report = Report {
        format: opening.read_format().unwrap_or(None),
        holder,
        ..Report::default()
    };
    // Before the segments: what a cursor has passed is in them by then, also beside a running writer.
    let slots = cursors::read(disk)?;
    let mut names = disk.list()?;
    names.sort_unstable();
    let bases: Vec<Seq> = names.iter().filter_map(|n| segment::base_of(n)).collect();
    for (n, base) in bases.iter().enumerate() {
        let following = bases.get(n + 1).map(|b| b.0);
        Look::new(disk, &mut report, depth).segment(*base, following)?;
    }
    cursors::tell(slots, &mut report);
    if report.format.is_none() {
        report
            .problems
            .push(Problem::of(FORMAT_FILE, Fault::Format));
    }
    for name in names {
        classify(name, &mut report);
    }
    Ok(report)
}

/// Sorts the files that are neither segment nor cursor.
fn classify(name: String, report: &mut Report) {
    let ours = name == FORMAT_FILE || name == "LOCK" || name.ends_with(".cursor");
    if ours || segment::base_of(&name).is_some() {
        return;
    }
    if name.starts_with(ASIDE) {
        report.aside.push(name);
    } else if !is_unfinished(&name) {
        report.foreign.push(name);
    } else if report.holder.is_none() {
        report.problems.push(Problem::of(&name, Fault::Unfinished));
    }
}
