//! What can be wrong with a journal, and what it costs.

use std::{fmt, ops::Range};

use crate::Seq;

/// Something wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file's name.
    pub file: String,
    /// Where in it, in bytes.
    pub offset: Option<u64>,
    /// The records concerned.
    pub numbers: Option<Range<Seq>>,
    /// What it is.
    pub fault: Fault,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The version file is missing or damaged; segments and cursors say the version too.
    Format,
    /// An interrupted creation left the file.
    Unfinished,
    /// One of a segment's two headers is damaged.
    HeaderCopy,
    /// Both are: without them no record of the segment can be told from damage.
    Header,
    /// The segment is written in a way that this program does not know.
    Unknown(String),
    /// The owner's saved state is damaged: a start takes an older one and reads on from there.
    Checkpoint,
    /// A closed segment has no whole index: seeking in it reads all of it.
    Index,
    /// The index is whole and does not fit the records.
    WrongIndex(String),
    /// Damaged records, or missing ones.
    Records,
    /// The disk does not read a place in the file.
    Unreadable,
    /// Bytes that a crash left behind the last record, or in the last group: they were never acknowledged.
    Torn {
        /// How many.
        bytes: u64,
    },
    /// One of a cursor's two slots is damaged; the other one counts.
    Slot,
    /// Both are: the consumer's place is not known.
    Slots,
    /// The cursor stands past the last record: what it passed there is gone.
    Ahead,
    /// The cursor's account does not add up.
    Account(String),
}

/// What it costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// Nothing: the next start mends it or goes without.
    None,
    /// A start or a search takes longer.
    Time,
    /// Records are lost.
    Records,
    /// A consumer gets records twice.
    Place,
    /// Something does not add up and should be reported.
    Bug,
}

impl Problem {
    pub(crate) fn of(file: &str, fault: Fault) -> Problem {
        Problem {
            file: file.to_owned(),
            offset: None,
            numbers: None,
            fault,
        }
    }

    pub(crate) fn at(file: &str, offset: u64, fault: Fault) -> Problem {
        Problem {
            offset: Some(offset),
            ..Problem::of(file, fault)
        }
    }

    pub(crate) fn over(mut self, numbers: Range<u64>) -> Problem {
        self.numbers = Some(Seq(numbers.start)..Seq(numbers.end));
        self
    }

    /// Records that should be there and cannot be read.
    #[must_use]
    pub fn lost(&self) -> u64 {
        let lost = matches!(self.fault, Fault::Records | Fault::Header | Fault::Ahead);
        match &self.numbers {
            Some(numbers) if lost => numbers.end.0 - numbers.start.0,
            _ => 0,
        }
    }
}

impl Fault {
    /// One word, for programs.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Fault::Format => "format",
            Fault::Unfinished => "unfinished",
            Fault::HeaderCopy => "header_copy",
            Fault::Header => "header",
            Fault::Unknown(_) => "unknown",
            Fault::Checkpoint => "checkpoint",
            Fault::Index => "index",
            Fault::WrongIndex(_) => "wrong_index",
            Fault::Records => "records",
            Fault::Unreadable => "unreadable",
            Fault::Torn { .. } => "torn",
            Fault::Slot => "slot",
            Fault::Slots => "slots",
            Fault::Ahead => "ahead",
            Fault::Account(_) => "account",
        }
    }

    /// What it costs.
    #[must_use]
    pub fn harm(&self) -> Harm {
        match self {
            Fault::Format
            | Fault::Unfinished
            | Fault::HeaderCopy
            | Fault::Torn { .. }
            | Fault::Slot => Harm::None,
            Fault::Checkpoint | Fault::Index => Harm::Time,
            Fault::Header
            | Fault::Unknown(_)
            | Fault::Records
            | Fault::Unreadable
            | Fault::Ahead => Harm::Records,
            Fault::Slots => Harm::Place,
            Fault::WrongIndex(_) | Fault::Account(_) => Harm::Bug,
        }
    }
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Harm::None => "harmless",
            Harm::Time => "slower",
            Harm::Records => "records lost",
            Harm::Place => "events come twice",
            Harm::Bug => "please report it",
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Format => f.write_str("missing or damaged; the segments tell the version too"),
            Fault::Unfinished => f.write_str("left by an interrupted creation"),
            Fault::HeaderCopy => {
                f.write_str("one of the two headers is damaged; the other one counts")
            }
            Fault::Header => {
                f.write_str("both headers are damaged; the segment's records cannot be read")
            }
            Fault::Unknown(what) => write!(f, "{what}; use a program that knows it"),
            Fault::Checkpoint => {
                f.write_str("the saved state is damaged; a start that needs it reads further back")
            }
            Fault::Index => f.write_str("no whole index; seeking reads the whole segment"),
            Fault::WrongIndex(what) => write!(f, "the index does not fit the records: {what}"),
            Fault::Records => f.write_str("cannot be read"),
            Fault::Unreadable => f.write_str("the disk does not read all of it"),
            Fault::Torn { bytes } => {
                write!(f, "{bytes} bytes of a write that a crash interrupted")
            }
            Fault::Slot => f.write_str("one of the two slots is damaged; the other one counts"),
            Fault::Slots => f.write_str("both slots are damaged; the position is not known"),
            Fault::Ahead => f.write_str("passed by the cursor and gone"),
            Fault::Account(what) => f.write_str(what),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(offset) = self.offset {
            write!(f, " at {offset}")?;
        }
        f.write_str(": ")?;
        match &self.numbers {
            Some(Range { start, end }) if start.next() == *end => write!(f, "record {start}: ")?,
            Some(Range { start, end }) if start < end => {
                write!(f, "records {start} to {}: ", end.0 - 1)?;
            }
            _ => {}
        }
        write!(f, "{} ({})", self.fault, self.fault.harm())
    }
}
