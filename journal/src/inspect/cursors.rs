//! Cursors, held against the segments and their own accounts.

use std::io;

use super::{Fault, Problem, Report};
use crate::{
    Account, Disk, Expired, FORMAT, Seq,
    account::{self, Books, CursorBooks},
    disk::Access,
    slots::{Found, SlotFile},
};

/// One cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CursorReport {
    /// Its name.
    pub name: String,
    /// Whether it could be read; all that follows is 0 or none otherwise.
    pub readable: bool,
    /// The next record to deliver.
    pub position: Seq,
    /// Where it began.
    pub birth: Seq,
    /// What became of the records passed.
    pub account: Account,
    /// Records gone back over by rewinds.
    pub rewound: u64,
    /// Records that retention removed before the consumer came to them, and that are not in the account yet.
    pub overtaken: u64,
    /// Which records expired, those overtaken too: oldest first, as far as they were written down.
    pub expired: Vec<Expired>,
    /// Records from its position to the end.
    pub lag: u64,
    /// Length of the owner's state, if there is one.
    pub state_bytes: Option<usize>,
}

/// A cursor's file and what stands in it.
pub(super) struct Read {
    file: String,
    found: Found,
}

/// Reads all cursors, by name. One that is removed meanwhile is none.
pub(super) fn read(disk: &dyn Disk) -> io::Result<Vec<Read>> {
    let mut names = disk.list()?;
    names.retain(|name| name.ends_with(".cursor"));
    names.sort_unstable();
    let mut read = Vec::new();
    for file in names {
        match SlotFile::open(disk, &file, Access::Read) {
            Ok((_, found)) => read.push(Read { file, found }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(read)
}

pub(super) fn tell(cursors: Vec<Read>, report: &mut Report) {
    let (first, committed) = (report.first().0, report.committed().0);
    for Read { file, found } in cursors {
        let mut cursor = CursorReport {
            name: file.trim_end_matches(".cursor").to_owned(),
            ..CursorReport::default()
        };
        let fault = match found {
            Found::Slot { slot, alone } => {
                cursor.readable = true;
                cursor.position = Seq(slot.position);
                cursor.birth = Seq(slot.birth);
                cursor.account = slot.account;
                cursor.rewound = slot.rewound;
                cursor.overtaken = first.saturating_sub(slot.position);
                let mut expired = slot.expired;
                expired.add(slot.position, first, cursor.overtaken);
                cursor.expired = expired.to_vec();
                cursor.lag = (committed + 1).saturating_sub(slot.position.max(first));
                cursor.state_bytes = slot.state.map(|s| s.len());
                report.problems.extend(misplaced(&file, &cursor, committed));
                alone.then_some(Fault::Slot)
            }
            Found::Damaged => Some(Fault::Slots),
            Found::Version(found) => Some(Fault::Unknown(format!(
                "format version {found}, known are those up to {FORMAT}"
            ))),
        };
        let problem = fault.map(|fault| Problem::of(&file, fault));
        report.problems.extend(problem);
        report.cursors.push(cursor);
    }
}

/// A position or an account that cannot be.
fn misplaced(file: &str, cursor: &CursorReport, committed: u64) -> Option<Problem> {
    let position = cursor.position.0;
    if position > committed + 1 {
        let ahead = Problem::of(file, Fault::Ahead);
        return Some(ahead.over(committed + 1..position));
    }
    let books = Books {
        first: Seq(1),
        committed: Seq(committed),
        cursors: vec![CursorBooks {
            name: cursor.name.clone(),
            birth: cursor.birth,
            position: cursor.position,
            account: cursor.account,
            rewound: cursor.rewound,
        }],
        ..Books::default()
    };
    let violation = account::check(&books, None).err()?;
    Some(Problem::of(file, Fault::Account(violation.to_string())))
}
