//! What opening says: what it found, or why it refused.

use std::{io, path::PathBuf};

use crate::Seq;

/// Why a directory's journal was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process writes here.
    #[error("the journal in {path} is in use by {by}; stop it, or use another directory")]
    Locked {
        /// The directory.
        path: PathBuf,
        /// What the holder says of itself.
        by: String,
    },
    /// Another version of the format; nothing was changed.
    #[error(
        "the journal in {path} has format version {found} and this program knows {known}; use a program that knows it, or another directory (nothing was changed)"
    )]
    Version {
        /// The directory.
        path: PathBuf,
        /// The version found.
        found: u16,
        /// The version that this program reads and writes.
        known: u16,
    },
    /// The directory cannot be written.
    #[error("{path} cannot be written: {source}; make it writable, or use another directory")]
    NotWritable {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What stands there is not a journal that could be read.
    #[error("{path} cannot be read as a journal: {what}; move it away to begin with an empty one")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The owner does not take the checkpoint that it once saved.
    #[error(
        "the checkpoint in {path} is not accepted: {reason}; use the program that wrote it, or another directory"
    )]
    Checkpoint {
        /// The segment.
        path: PathBuf,
        /// The owner's reason.
        reason: String,
    },
    /// The system refused something on the way.
    #[error("{doing} {path} failed: {source}; check the disk and start again")]
    Io {
        /// The directory.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// Where the owner's fold was taken up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CheckpointFrom {
    /// A new journal, or one whose every record was folded again from the first.
    #[default]
    Fresh,
    /// The checkpoint before this record, and all records from there.
    Before(Seq),
    /// No checkpoint was readable and the oldest records are gone: the fold knows only what is still kept.
    Lost,
}

/// What was found at opening.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// The journal was made.
    pub created: bool,
    /// Oldest record that is kept.
    pub first: Seq,
    /// Newest record.
    pub committed: Seq,
    /// Segments found.
    pub segments: usize,
    /// First record of the newest one, the only one that was walked.
    pub newest: Seq,
    /// Bytes of a torn tail that were cut: writes that a crash interrupted.
    pub cut_bytes: u64,
    /// Records missing inside the last group commit: interrupted by a crash and never acknowledged, or else damaged.
    pub torn: u64,
    /// Records missing before that in the newest segment: damaged.
    pub corrupt: u64,
    /// Numbers not given out again because a cursor had passed them.
    pub burned: u64,
    /// Where the owner's fold was taken up.
    pub checkpoint: CheckpointFrom,
    /// Cursors found.
    pub cursors: usize,
    /// Cursors of which one slot is not whole; they go on from the other, at most one write behind.
    pub cursors_behind: Vec<String>,
    /// Cursors that could not be read; they go on from the oldest record.
    pub cursors_lost: Vec<String>,
}
