//! Which segments may go.
//!
//! History is kept by age and size, not by delivery. By age, the oldest segment goes when its newest record was written
//! longer than `max_age` ago and every cursor has durably passed it. By size, it goes when room is needed: a cursor that lags is
//! overtaken (its account says how many expired), unless it was opened with [`WhenFull::Refuse`].
//!
//! Segments go oldest first, each removal made durable before the next, so a crash leaves no hole among them. A crash
//! before that brings a segment back, and its records with it.

use std::{io, sync::atomic::Ordering};

use crate::{
    catalog::{Shared, lock},
    cursor::WhenFull,
    reader,
};

/// Makes room for `need` more bytes within the size bound. What has to go for that leaves the catalog; its file goes a
/// little later, by the keeper's hand, unless that would need more than one segment beyond the bound.
///
/// # Errors
/// Why there is none, for people.
pub(crate) fn make_room(shared: &Shared, need: u64) -> Result<(), String> {
    let (config, max_size) = (&shared.config, shared.bounds.max_size());
    loop {
        let upper = {
            let catalog = lock(&shared.catalog);
            match catalog.segments.get(1) {
                Some(second) if catalog.used + need > max_size => second.base.0,
                _ => break,
            }
        };
        if let Some(name) = holder(shared, upper) {
            return Err(format!(
                "the journal has reached its size bound of {} bytes and cursor {name} (when_full: refuse) still needs the oldest segment; let it go on or skip what it has not read, or raise the bound",
                max_size
            ));
        }
        dismiss(shared, upper);
    }
    // Half a segment is for a copy that is being compressed, the last quarter for a new segment's head.
    while lock(&shared.catalog).on_disk() + need > max_size + config.segment_bytes / 4 {
        match remove(shared) {
            Ok(true) => {}
            Ok(false) => break,
            Err(e) => {
                return Err(format!(
                    "the journal has reached its size bound and its oldest segment cannot be removed: {e}"
                ));
            }
        }
    }
    Ok(())
}

/// The first cursor that refuses to be overtaken and has not durably passed the records before `upper`.
fn holder(shared: &Shared, upper: u64) -> Option<String> {
    let cursors = lock(&shared.cursors);
    let holds = cursors.values().find(|cell| {
        let inner = lock(&cell.inner);
        inner.when_full == WhenFull::Refuse
            && !inner.retired
            && inner.durable.min(inner.slot.position) < upper
    });
    holds.map(|cell| cell.name.clone())
}

/// Removes the segments whose records are all older than `max_age` and passed by every cursor.
pub(crate) fn remove_old(shared: &Shared, now: u64) -> io::Result<()> {
    let Some(limit) = now.checked_sub(shared.bounds.max_age_ns()) else {
        return Ok(());
    };
    loop {
        let Some(second) = lock(&shared.catalog).segments.get(1).cloned() else {
            return Ok(());
        };
        if !all_passed(shared, second.base.0) || oldest_ended(shared)? >= limit {
            return Ok(());
        }
        dismiss(shared, second.base.0);
    }
}

/// Whether every cursor is durably past the records before `upper`.
pub(crate) fn all_passed(shared: &Shared, upper: u64) -> bool {
    let cursors = lock(&shared.cursors);
    cursors.values().all(|cell| {
        let inner = lock(&cell.inner);
        inner.retired || inner.durable.min(inner.slot.position) >= upper
    })
}

/// When the oldest segment stopped growing: when the next one was made, or the first after it whose header is whole. By
/// the journal's own clock, so that records with times of their own (another node's, or imported ones) neither stay nor go
/// because of them.
fn oldest_ended(shared: &Shared) -> io::Result<u64> {
    for n in 1.. {
        let Some(segment) = lock(&shared.catalog).segments.get(n).cloned() else {
            break;
        };
        if let Some(created) = segment.created.get() {
            return Ok(*created);
        }
        if let Some(body) = reader::open(shared, &segment)? {
            return Ok(*segment.created.get_or_init(|| body.head.created));
        }
    }
    Ok(u64::MAX)
}

/// The oldest segment, all of it before `upper`, leaves the catalog: from now on no reader finds it, and the keeper is
/// asked to remove it.
fn dismiss(shared: &Shared, upper: u64) {
    {
        let mut guard = lock(&shared.catalog);
        let catalog = &mut *guard;
        let is_it = catalog.segments.get(1).is_some_and(|s| s.base.0 == upper);
        let Some(oldest) = catalog.segments.pop_front_if(|_| is_it) else {
            return;
        };
        catalog.used -= oldest.bytes();
        catalog.leaving.push_back(oldest);
    }
    lock(&shared.chores).leaving = true;
    shared.chore.notify_all();
}

/// Removes all segments that are leaving; answers whether there were any.
pub(crate) fn finish_removals(shared: &Shared) -> io::Result<bool> {
    let mut any = false;
    while remove(shared)? {
        any = true;
    }
    Ok(any)
}

/// Removes the file of the segment that has been leaving longest; `false` if there is none. If the disk refuses, it goes
/// on leaving.
fn remove(shared: &Shared) -> io::Result<bool> {
    let _removal = lock(&shared.removal);
    let Some(oldest) = lock(&shared.catalog).leaving.front().cloned() else {
        return Ok(false);
    };
    match shared.disk.unlink(&oldest.name) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    oldest.next_edition();
    shared.holds.close_stale();
    // Until this is durable it goes on leaving: were the next one taken meanwhile, a crash could keep this one and not that.
    shared.disk.fsync_dir()?;
    lock(&shared.catalog).leaving.pop_front();
    shared
        .counters
        .removed_segments
        .fetch_add(1, Ordering::Relaxed);
    Ok(true)
}
