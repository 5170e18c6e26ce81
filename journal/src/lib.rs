//! An append-only log of opaque records with named, durable cursors.
//!
//! The journal stores bytes and knows no event. One std thread writes: it takes what waits, writes it with one
//! `pwrite`, makes it durable with one `fdatasync`, folds it into the owner's [`Checkpoint`], publishes it, and then
//! wakes everyone who waited. [`Journal::append`] therefore resolves only when the records are on disk.
//!
//! # The directory, format version 2
//!
//! ```text
//! FORMAT                        "cresset-journal 2 CRC": the first file made, the first one read
//! LOCK                          flock'ed by the one writer; says who
//! 00000000000000000001.seg      a segment, named after its first sequence number
//! NAME.cursor                   a cursor
//! *.tmp                         being made; removed at the next start
//!
//! segment   ┌─ header ─┬─ copy ─┬─ checkpoint ─┬─ record ─┬─ record ─ … ─┬─ index ─┬─ trailer ─┐
//!           0         4096     4160                                       (both only once sealed)
//! record    crc u32 │ flags u8, len u24 │ kind u8, seq u56 │ time u64 │ payload
//! packed    ┌─ header ─┬─ copy ─┬─ checkpoint ─┬─ block ─┬─ block ─ … ─┬─ index ─┬─ trailer ─┐   the same records, compressed
//! block     header 40, with where its records stood │ stored bytes
//! index     every ~64 KiB, or every block: seq u64 │ offset u64 │ latest time before it u64 │ block's place u64, if packed
//! cursor    two slots of equal size, each: generation, position, account, owner's state, crc; the newer valid one counts
//! ```
//!
//! Numbers are little-endian. Magic and version of a segment and of a cursor stand in their first ten bytes in every
//! version to come. A directory of another version is refused before anything in it is changed.
//!
//! # What always holds
//!
//! * Acknowledged ⊆ recovered: whatever [`Journal::append`] answered "yes" to is there after a crash or power loss.
//! * Sequence numbers start at 1 and have no gap; a record that is lost to damage or retention is reported as a range.
//! * Readers see synced records only, and every record's checksum is verified on every read.
//! * Only a bad region with no valid record after it is a torn tail. A bad record in the middle costs itself.
//! * A failed `fdatasync` is never repeated on the same file: the segment is left as it is and a new one takes over.
//! * A full disk (or the size bound with a cursor that refuses to be overtaken) refuses new records with
//!   [`AppendError::Full`] and heals by itself.
//! * A cursor never goes back but by [`Cursor::rewind`], nor past what is committed.
//! * The identities of [`account`] hold at every moment; [`Journal::check`] tells.

pub mod account;
mod catalog;
mod config;
mod content;
mod cursor;
pub mod disk;
mod expired;
mod format;
mod held;
pub mod inspect;
mod journal;
mod keeper;
mod opened;
mod packed;
mod packing;
mod pages;
mod reader;
mod record;
mod recovery;
pub mod repair;
mod retention;
mod segment;
pub mod sim;
mod slots;
mod walk;
mod writer;

use std::fmt;

use bytes::Bytes;

pub use self::{
    account::{Account, Ledger, Violation},
    config::{Compression, Config},
    cursor::{Cursor, CursorError, CursorOptions, CursorStats, Start, WhenFull},
    disk::{Disk, RealDisk},
    expired::Expired,
    journal::{Journal, Stats},
    keeper::Stepper,
    opened::{CheckpointFrom, OpenError, Opened},
    reader::{Block, ReadError, Reader},
    record::MAX_PAYLOAD,
    writer::AppendError,
};

/// The version of the format that this code writes. It reads those before it too; a directory of one of them says this
/// one from its first opening on.
///
/// 1: as drawn above, plain segments only. 2: sealed segments may be compressed.
pub const FORMAT: u16 = 2;

/// A record's place in the journal: from 1, without gaps. 0 is "none".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

impl Seq {
    /// The next place.
    #[must_use]
    pub fn next(self) -> Seq {
        Seq(self.0 + 1)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The owner's word for what the payload is.
    pub kind: u8,
    /// Nanoseconds since the Unix epoch, by the owner's clock; [`Journal::seek_time`] goes by it. (Retention by age goes
    /// by when the journal wrote the record.)
    pub time: u64,
    /// At most [`MAX_PAYLOAD`] bytes.
    pub payload: Bytes,
}

/// What is read: a record and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The record's place.
    pub seq: Seq,
    /// As appended.
    pub kind: u8,
    /// As appended.
    pub time: u64,
    /// As appended; a slice of the block that it was read in.
    pub payload: Bytes,
}

/// The owner's fold over committed records, such as "which ranges have I received".
///
/// Its bytes open every segment, so a start reads the newest one and the records after it, nothing older. All calls
/// come from one thread, in commit order.
pub trait Checkpoint: Send {
    /// Takes over what an earlier [`Checkpoint::save`] gave. Not called for a new journal.
    ///
    /// # Errors
    /// Why the bytes cannot be used; the journal then does not open.
    fn load(&mut self, bytes: &[u8]) -> Result<(), String>;

    /// Folds in one committed record, before whoever appended it is woken.
    fn apply(&mut self, entry: &Entry);

    /// The state after all records applied so far, at most 64 MiB: with more no segment can be made.
    fn save(&self) -> Vec<u8>;
}

/// For owners that fold nothing.
impl Checkpoint for () {
    fn load(&mut self, _: &[u8]) -> Result<(), String> {
        Ok(())
    }

    fn apply(&mut self, _: &Entry) {}

    fn save(&self) -> Vec<u8> {
        Vec::new()
    }
}
