//! Which segments may go.
//!
//! History is kept by age and size, not by delivery. By age, the oldest segment goes when its newest record was written
//! longer than `max_age` ago and every cursor has durably passed it. By size, it goes when room is needed: a cursor that lags is
//! overtaken (its account says how many expired), unless it was opened with [`WhenFull::Refuse`].
//!
//! Segments go oldest first, each removal made durable before the next, so a crash leaves no hole among them.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
};

use crate::{
    catalog::{Shared, lock},
    cursor::WhenFull,
    reader,
    segment::Segment,
};

/// Makes room for `need` more bytes within the size bound.
///
/// # Errors
/// Why there is none, for people.
pub(crate) fn make_room(shared: &Shared, need: u64) -> Result<(), String> {
    let _removal = lock(&shared.removal);
    loop {
        let (oldest, upper) = {
            let catalog = lock(&shared.catalog);
            let fits = catalog.used + need <= shared.config.max_size;
            let (Some(oldest), Some(second)) = (catalog.segments.front(), catalog.segments.get(1))
            else {
                return Ok(());
            };
            if fits {
                return Ok(());
            }
            (Arc::clone(oldest), second.base.0)
        };
        if let Some(name) = holder(shared, upper) {
            return Err(format!(
                "the journal has reached its size bound of {} bytes and cursor {name} (when_full: refuse) still needs the oldest segment",
                shared.config.max_size
            ));
        }
        remove(shared, &oldest).map_err(|e| {
            format!(
                "the journal has reached its size bound and {} cannot be removed: {e}",
                oldest.name
            )
        })?;
    }
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
    let max_age = u64::try_from(shared.config.max_age.as_nanos()).unwrap_or(u64::MAX);
    let Some(limit) = now.checked_sub(max_age) else {
        return Ok(());
    };
    let _removal = lock(&shared.removal);
    loop {
        let segments: Vec<_> = lock(&shared.catalog).segments.iter().cloned().collect();
        let [oldest, later @ ..] = segments.as_slice() else {
            return Ok(());
        };
        let Some(second) = later.first() else {
            return Ok(());
        };
        if !all_passed(shared, second.base.0) || ended(shared, later)? >= limit {
            return Ok(());
        }
        remove(shared, oldest)?;
    }
}

fn all_passed(shared: &Shared, upper: u64) -> bool {
    let cursors = lock(&shared.cursors);
    cursors.values().all(|cell| {
        let inner = lock(&cell.inner);
        inner.retired || inner.durable.min(inner.slot.position) >= upper
    })
}

/// When the segment before `later` stopped growing: when the next one was made. By the journal's own clock, so that
/// records with times of their own (another node's, or imported ones) neither stay nor go because of them.
fn ended(shared: &Shared, later: &[Arc<Segment>]) -> io::Result<u64> {
    for segment in later {
        if let Some((_, head)) = reader::open(shared, segment)? {
            return Ok(head.created);
        }
    }
    Ok(u64::MAX)
}

/// Removes the oldest segment. It leaves the catalog first, so no reader finds it; if the disk refuses, it comes back.
fn remove(shared: &Shared, oldest: &Arc<Segment>) -> io::Result<()> {
    {
        let mut catalog = lock(&shared.catalog);
        let is_oldest = catalog
            .segments
            .front()
            .is_some_and(|s| Arc::ptr_eq(s, oldest));
        if !is_oldest || catalog.segments.len() < 2 {
            return Ok(());
        }
        catalog.segments.pop_front();
        catalog.used -= oldest.bytes();
    }
    let unlinked = match shared.disk.unlink(&oldest.name) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    if let Err(e) = unlinked {
        let mut catalog = lock(&shared.catalog);
        catalog.used += oldest.bytes();
        catalog.segments.push_front(Arc::clone(oldest));
        return Err(e);
    }
    shared
        .counters
        .removed_segments
        .fetch_add(1, Ordering::Relaxed);
    // The name is gone for this process either way; an error here comes again with the next one.
    shared.disk.fsync_dir()
}
