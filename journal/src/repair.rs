//! Makes permanent what a start and readers would only work around.
//!
//! ```text
//! verify ─▶ plan ─▶ lock ─▶ verify ─▶ keep a copy of what goes ─▶ headers, indexes, cursors ─▶ recovery ─▶ verify
//! ```
//!
//! No readable record is ever removed. What is cut or written over is copied first, and the copies are durable before
//! anything changes. Torn tails, unfinished files and the version file are left to recovery itself, so a repair and a
//! start cannot disagree. Records that are damaged stay where they are: readers skip and count them.

use std::{fmt, io, path::PathBuf, sync::Arc};

use crate::{
    Config, Disk, OpenError, Seq, Stepper,
    content::{Body, Content},
    disk::{Access, DiskFile, read_full, write_all},
    inspect::{self, Depth, Fault, InspectError, Problem, Report},
    keeper,
    packed::Packed,
    record::MAX_SEQ,
    recovery::{self, Opening},
    segment::{self, BLOCK, Extent, Growth, Head},
    slots::{Found, SlotFile},
    walk::Walk,
};

/// Bytes copied at a time.
const COPY: usize = 1 << 20;

/// What is done to one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The file's name.
    pub file: String,
    /// Where in it, in bytes; 0 for all of it.
    pub offset: u64,
    /// What is done.
    pub fix: Fix,
}

/// What a repair does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fix {
    /// Writes the version file again.
    Format,
    /// Removes what an interrupted creation left.
    Remove,
    /// Writes one header again, from the other.
    Header,
    /// Writes the index again, from the records; what stands behind the last record is cut.
    Index,
    /// Cuts bytes that a crash left behind the last record.
    Cut {
        /// How many.
        bytes: u64,
    },
    /// Marks numbers of a group that a crash interrupted, so that they do not count as damage.
    Mark {
        /// Bytes that stand in their place.
        bytes: u64,
    },
    /// Writes both slots of a cursor again, from the whole one.
    Slot,
    /// Puts a cursor without a readable position at the oldest record: everything from there on comes again.
    Reset {
        /// That record.
        to: Seq,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Step { file, offset, fix } = self;
        match fix {
            Fix::Format => write!(f, "{file}: write it again"),
            Fix::Remove => write!(f, "{file}: remove it"),
            Fix::Header => write!(
                f,
                "{file} at {offset}: write this header again from the other"
            ),
            Fix::Index => write!(f, "{file}: write its index again from the records"),
            Fix::Cut { bytes } => {
                write!(
                    f,
                    "{file} at {offset}: cut {bytes} bytes behind the last record"
                )
            }
            Fix::Mark { bytes } => {
                write!(
                    f,
                    "{file} at {offset}: mark {bytes} bytes as interrupted by a crash"
                )
            }
            Fix::Slot => write!(f, "{file}: write both slots again from the whole one"),
            Fix::Reset { to } => {
                write!(
                    f,
                    "{file}: put the cursor at the oldest record, {to}; records come twice"
                )
            }
        }
    }
}

/// What was done and what is still wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repaired {
    /// In the order in which it was done.
    pub steps: Vec<Step>,
    /// The journal as it is now.
    pub left: Report,
}

/// Why a repair was not done, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// The journal cannot be looked at.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// Somebody writes there, or recovery refuses.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// What would go cannot be copied; nothing was changed.
    #[error("{file} of {path} cannot be kept aside: {source}; nothing was changed")]
    Aside {
        /// The directory.
        path: PathBuf,
        /// The file.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// A step failed; a copy of what it was to change is kept, and the repair can be done again.
    #[error(
        "{file} in {path} cannot be repaired: {source}; copies of what was to change are kept, do it again"
    )]
    Step {
        /// The directory.
        path: PathBuf,
        /// The file.
        file: String,
        /// What the system said.
        source: io::Error,
    },
}

/// What a repair would do about the problems of a report.
#[must_use]
pub fn plan(report: &Report) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for problem in &report.problems {
        let Some(fix) = fix(problem, report) else {
            continue;
        };
        let step = Step {
            file: problem.file.clone(),
            offset: problem.offset.unwrap_or(0),
            fix,
        };
        // An index that is written again is so for whatever was wrong with it.
        let again = step.fix == Fix::Index
            && steps
                .iter()
                .any(|s| s.fix == Fix::Index && s.file == step.file);
        if !again {
            steps.push(step);
        }
    }
    steps
}

fn fix(problem: &Problem, report: &Report) -> Option<Fix> {
    let unreadable = |file: &str| {
        let mut others = report.problems.iter();
        others.any(|p| p.file == file && p.fault == Fault::Unreadable)
    };
    match problem.fault {
        Fault::Format => Some(Fix::Format),
        Fault::Unfinished => Some(Fix::Remove),
        Fault::HeaderCopy => Some(Fix::Header),
        // What the disk does not read today may be records.
        Fault::Index | Fault::WrongIndex(_) => (!unreadable(&problem.file)).then_some(Fix::Index),
        Fault::Torn { bytes } => Some(match problem.numbers {
            None => Fix::Cut { bytes },
            Some(_) => Fix::Mark { bytes },
        }),
        Fault::Slot => Some(Fix::Slot),
        Fault::Slots => Some(Fix::Reset { to: report.first() }),
        Fault::Header
        | Fault::Unknown(_)
        | Fault::Checkpoint
        | Fault::Records
        | Fault::Unreadable
        | Fault::Ahead
        | Fault::Account(_) => None,
    }
}

/// Repairs what can be. `aside` is asked for a place for the copies once there is something to do.
///
/// # Errors
/// [`RepairError`]: somebody writes there, a copy cannot be made, or a step fails.
pub fn repair(
    disk: &Arc<dyn Disk>,
    aside: impl FnOnce() -> io::Result<Arc<dyn Disk>>,
) -> Result<Repaired, RepairError> {
    let path = disk.path();
    let opening = Opening {
        disk: &**disk,
        path: &path,
    };
    // A directory of another version is not touched at all, not even by a lock.
    opening.check_version()?;
    let lock = opening.lock()?;
    let report = inspect::inspect_beside(&**disk, Depth::Everything, None)?;
    let steps = plan(&report);
    if steps.is_empty() {
        return Ok(Repaired {
            steps,
            left: report,
        });
    }
    let repair = Repair {
        disk: &**disk,
        path: path.clone(),
    };
    repair.keep_aside(&steps, aside)?;
    for step in &steps {
        repair.step(step)?;
    }
    // What is left to do is what every start does.
    let (shared, writer, _) =
        recovery::open_locked(Arc::clone(disk), Config::default(), Box::new(()), lock)?;
    Stepper::new(shared, writer).close(keeper::now());
    let left = inspect::inspect(&**disk, Depth::Everything)?;
    Ok(Repaired { steps, left })
}

struct Repair<'a> {
    disk: &'a dyn Disk,
    path: PathBuf,
}

impl Repair<'_> {
    /// Copies all that will go, durable before this returns.
    fn keep_aside(
        &self,
        steps: &[Step],
        aside: impl FnOnce() -> io::Result<Arc<dyn Disk>>,
    ) -> Result<(), RepairError> {
        let refused = |file: &str, source| RepairError::Aside {
            path: self.path.clone(),
            file: file.to_owned(),
            source,
        };
        let first = steps.first().map_or("", |step| step.file.as_str());
        let aside = aside().map_err(|e| refused(first, e))?;
        for step in steps {
            self.copy(step, &*aside)
                .map_err(|e| refused(&step.file, e))?;
        }
        aside.fsync_dir().map_err(|e| refused(first, e))
    }

    fn copy(&self, step: &Step, aside: &dyn Disk) -> io::Result<()> {
        let Step { file, offset, fix } = step;
        let from = match self.disk.open(file, Access::Read) {
            Ok(from) => from,
            // A version file that is missing is nothing to keep.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e),
        };
        let len = from.length()?;
        let (offset, end) = match fix {
            Fix::Format | Fix::Remove | Fix::Slot | Fix::Reset { .. } => (0, len),
            Fix::Header => (*offset, *offset + BLOCK as u64),
            Fix::Cut { bytes } | Fix::Mark { bytes } => (*offset, *offset + bytes),
            Fix::Index => {
                let body = Body::search(Arc::clone(&from), head(&*from)?)?;
                (self.ends(file, &body)?.file_end, len)
            }
        };
        let end = end.min(len);
        if offset >= end {
            return Ok(());
        }
        let whole = (offset, end) == (0, len);
        let name = if whole {
            file.clone()
        } else {
            format!("{file}@{offset}")
        };
        copy(&*from, offset, end, &*aside.create(&name)?)
    }

    fn step(&self, step: &Step) -> Result<(), RepairError> {
        let done = match &step.fix {
            Fix::Header => self.write_header(&step.file, step.offset),
            Fix::Index => self.write_index(&step.file),
            Fix::Slot => self.write_slots(&step.file),
            // Recovery does these.
            Fix::Format | Fix::Remove | Fix::Cut { .. } | Fix::Mark { .. } | Fix::Reset { .. } => {
                Ok(())
            }
        };
        done.map_err(|source| RepairError::Step {
            path: self.path.clone(),
            file: step.file.clone(),
            source,
        })
    }

    fn write_header(&self, name: &str, at: u64) -> io::Result<()> {
        let file = self.disk.open(name, Access::Write)?;
        head(&*file)?.restore(&*file, at)
    }

    fn write_index(&self, name: &str) -> io::Result<()> {
        let file = self.disk.open(name, Access::Write)?;
        let body = Body::search(Arc::clone(&file), head(&*file)?)?;
        let Ends { extent, file_end } = self.ends(name, &body)?;
        if file_end > file.length()? {
            let text = format!("{name} ends before what its trailer says of it");
            return Err(io::Error::other(text));
        }
        file.truncate(file_end)?;
        write_all(&*file, &segment::closing(&body.head, &extent), file_end)?;
        file.fdatasync()
    }

    /// What a walk over a closed segment finds. A trailer that is whole says where the records end and which was the
    /// last: one that is damaged there stays, and its number was given out.
    fn ends(&self, name: &str, body: &Body) -> io::Result<Ends> {
        let bases = self.disk.list()?;
        let following = bases.iter().filter_map(|n| segment::base_of(n));
        let following = following.filter(|base| *base > body.head.base).min();
        let said = segment::read_ending(&*body.file, &body.head)?;
        let (end, last) = match &said {
            Some((extent, _)) => (extent.end, extent.last),
            None => (body.content.end()?, MAX_SEQ),
        };
        let mut walk = Walk::new(body, end, following.map_or(last + 1, |base| base.0));
        let growth = walk.grow()?;
        if walk.tolerant {
            let text = format!("{name} cannot be read to its end");
            return Err(io::Error::other(text));
        }
        let found = match &body.content {
            Content::Plain(_) => Ends {
                extent: growth.extent(true),
                file_end: growth.end,
            },
            Content::Packed(packed) => packed_ends(body, packed, walk.upper, &growth)?,
        };
        Ok(found.within(said))
    }

    fn write_slots(&self, name: &str) -> io::Result<()> {
        if let (_, Found::Slot { mut slot, .. }) = SlotFile::open(self.disk, name, Access::Read)? {
            SlotFile::create(self.disk, name, &mut slot)?;
        }
        Ok(())
    }
}

/// Where a segment's records end.
struct Ends {
    /// With the index that belongs to it.
    extent: Extent,
    /// Where in the file that index belongs.
    file_end: u64,
}

impl Ends {
    /// The same with what a whole trailer says of the end.
    fn within(self, said: Option<(Extent, u64)>) -> Ends {
        let Some((said, file_end)) = said else {
            return self;
        };
        let extent = Extent {
            end: said.end,
            last: said.last,
            ..self.extent
        };
        Ends { extent, file_end }
    }
}

/// Of compressed blocks: an entry each, with the latest time before it.
fn packed_ends(body: &Body, packed: &Packed, upper: u64, growth: &Growth) -> io::Result<Ends> {
    let (blocks, file_end) = packed.found();
    let mut blocks = blocks.to_vec();
    let mut latest = 0;
    for n in 0..blocks.len() {
        let following = blocks.get(n + 1).map_or(packed.end(), |b| b.offset);
        let Some(entry) = blocks.get_mut(n) else {
            break;
        };
        entry.before = latest;
        let mut walk = Walk::new(body, following, upper);
        walk.skip_to(*entry);
        latest = latest.max(walk.grow()?.max_time);
    }
    // The first number of the last block was given out even if the block cannot be read.
    let begun = blocks.last().map_or(0, |b| b.seq);
    let extent = Extent {
        end: packed.end(),
        last: growth.last.max(begun),
        index: Some(Arc::new(blocks)),
        ..growth.extent(false)
    };
    Ok(Ends { extent, file_end })
}

fn head(file: &dyn DiskFile) -> io::Result<Head> {
    Head::read(file)?.map_err(|_| io::Error::other("no header can be read"))
}

fn copy(from: &dyn DiskFile, mut at: u64, end: u64, to: &dyn DiskFile) -> io::Result<()> {
    let mut bytes = vec![0; COPY];
    let mut written = 0;
    while at < end {
        let want = usize::try_from(end - at).unwrap_or(COPY).min(COPY);
        let part = bytes.get_mut(..want).unwrap_or_default();
        let n = read_full(from, part, at)?;
        if n == 0 {
            break;
        }
        write_all(to, part.get(..n).unwrap_or_default(), written)?;
        (at, written) = (at + n as u64, written + n as u64);
    }
    to.fdatasync()
}
