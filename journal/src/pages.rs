//! What of the journal the kernel holds in memory.
//!
//! What was written stays in the page cache until something else needs the room. Memory that a log takes beside those it
//! serves is theirs, and pages that were never used before cost more than the write itself: on a virtual machine whose host
//! gives it memory when it is first touched, 1.1 ms of CPU a MiB against 0.35 where the same pages come round again. So
//! a closed segment that every cursor has passed is given back, but for the newest ones: a reader that comes a little late, or
//! again, finds those in memory ([`crate::Config::warm_bytes`]). Older ones are read from the disk.

use std::sync::Arc;

use crate::{
    catalog::{Shared, lock},
    config::Compression,
    disk::Access,
    retention,
    segment::Segment,
};

/// Given back at once; a journal that was just opened has many.
const MOST: usize = 64;

/// Gives back the memory of segments that nobody is expected to read.
pub(crate) fn give_back(shared: &Shared) {
    for (segment, end) in candidates(shared) {
        if !retention::all_passed(shared, end) {
            return;
        }
        // Asked before it is opened: a file that takes its name meanwhile is given back in its turn.
        let edition = segment.edition();
        if let Ok(file) = shared.disk.open(&segment.name, Access::Read) {
            file.give_back();
        }
        segment.given_back(edition);
    }
}

/// Those that are closed and in memory, as far as is known, oldest first, each with its end.
fn candidates(shared: &Shared) -> Vec<(Arc<Segment>, u64)> {
    // What is still to be compressed is read once more.
    let ready = |segment: &Segment| match shared.config.compression {
        Compression::None => true,
        Compression::Zstd { .. } => segment.is_settled(),
    };
    let catalog = lock(&shared.catalog);
    let segments = &catalog.segments;
    let closed = segments.iter().zip(segments.iter().skip(1));
    // Of a segment and those behind it.
    let mut bytes: u64 = closed.clone().map(|(segment, _)| segment.bytes()).sum();
    let mut is_old = |segment: &Segment| {
        let old = bytes > shared.config.warm_bytes;
        bytes -= segment.bytes();
        old
    };
    closed
        .take_while(|(segment, _)| is_old(segment))
        .filter(|(segment, _)| !segment.is_given_back() && ready(segment))
        .map(|(segment, next)| (Arc::clone(segment), next.base.0))
        .take(MOST)
        .collect()
}
