//! The chores beside writing: cursors are made durable, old segments leave, the books are checked.
//!
//! The keeper is a thread of its own, so a cursor's `fdatasync` never stands in the way of a group commit. Tests drive
//! both threads' work step by step instead ([`Stepper`]), which makes every order of disk operations repeatable.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::{
    catalog::{Chores, Shared, lock},
    journal,
    packing::{self, Packer},
    pages, retention,
    writer::{Writer, close_queue},
};

/// Old segments are looked for this often.
const TICK: Duration = Duration::from_secs(5);

/// The thread: does chores until the journal closes, then once more.
pub(crate) fn run(shared: &Shared) {
    let mut last_tick = Instant::now();
    loop {
        let Woken { moved, closing } = wait_for_chores(shared);
        if flush_cursors(shared) {
            lock(&shared.chores).cursors_moved = true;
        }
        // What the disk does not remove today is tried again at the next chore.
        let _ = retention::finish_removals(shared);
        pages::give_back(shared);
        if last_tick.elapsed() >= TICK {
            last_tick = Instant::now();
            tick(shared, now());
        }
        if closing {
            return;
        }
        if moved {
            coalesce(shared);
        }
    }
}

/// What the keeper was woken for, besides segments.
struct Woken {
    /// Cursors have moved.
    moved: bool,
    closing: bool,
}

/// Sleeps until a cursor moves, a segment is closed or leaves, the journal closes, or the next tick.
fn wait_for_chores(shared: &Shared) -> Woken {
    let mut chores = lock(&shared.chores);
    let idle = |c: &mut Chores| !c.cursors_moved && !c.leaving && !c.outgrown && !c.closing;
    let waited = shared.chore.wait_timeout_while(chores, TICK, idle);
    chores = waited.unwrap_or_else(PoisonError::into_inner).0;
    let woken = Woken {
        moved: chores.cursors_moved,
        closing: chores.closing,
    };
    (chores.cursors_moved, chores.leaving, chores.outgrown) = (false, false, false);
    woken
}

/// Lets moves gather, so each cursor is synced at most once in `cursor_sync`.
fn coalesce(shared: &Shared) {
    let chores = lock(&shared.chores);
    let waited = shared
        .chore
        .wait_timeout_while(chores, shared.config.cursor_sync, |c| !c.closing);
    drop(waited.unwrap_or_else(PoisonError::into_inner));
}

/// Writes every cursor that moved; `true` if one could not be written and wants another try.
fn flush_cursors(shared: &Shared) -> bool {
    let cells: Vec<_> = lock(&shared.cursors).values().cloned().collect();
    let failed = cells
        .iter()
        .filter(|cell| cell.flush(shared).is_err())
        .count();
    shared
        .counters
        .cursor_failures
        .fetch_add(failed as u64, Ordering::Relaxed);
    failed > 0
}

fn tick(shared: &Shared, now: u64) {
    // A disk that cannot be read or changed today is asked again at the next tick.
    let _ = retention::remove_old(shared, now);
    let _ = retention::finish_removals(shared);
    shared.holds.close_idle();
    if let Err(violation) = journal::check(shared) {
        *lock(&shared.counters.violation) = Some(violation.to_string());
    }
}

/// After the last flush: nobody may wait any more, the directory is free for the next writer.
pub(crate) fn finish(shared: &Shared) {
    lock(&shared.chores).closing = true;
    for cell in lock(&shared.cursors).values() {
        lock(&cell.inner).waiters.clear();
    }
    *lock(&shared.lock) = None;
    // Wakes readers, who then see that it is closed.
    shared.committed.send_modify(|_| {});
}

/// Nanoseconds since the Unix epoch.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A journal without threads, driven by its caller: [`crate::Journal::open_stepped`].
///
/// Appends and cursor moves only queue (poll their futures once); the calls here do the work.
pub struct Stepper {
    shared: Arc<Shared>,
    writer: Writer,
    packer: Option<Packer>,
}

impl Stepper {
    pub(crate) fn new(shared: Arc<Shared>, writer: Writer) -> Stepper {
        let packer = Packer::new(&shared);
        Stepper {
            shared,
            writer,
            packer,
        }
    }

    /// Commits one group; `false` if nothing waited.
    pub fn write(&mut self, now: u64) -> bool {
        self.writer.turn(now)
    }

    /// Makes cursors durable and removes what is old.
    pub fn keep(&mut self, now: u64) {
        lock(&self.shared.chores).cursors_moved = false;
        flush_cursors(&self.shared);
        pages::give_back(&self.shared);
        tick(&self.shared, now);
    }

    /// Closes the active segment with its index, as rotation does.
    pub fn seal(&mut self) {
        self.writer.seal();
    }

    /// Compresses one block, or does another such step; `false` if there is nothing to do or it failed.
    pub fn pack(&mut self) -> bool {
        let packer = self.packer.as_mut();
        packer.is_some_and(|packer| packer.step() == packing::Step::More)
    }

    /// Finishes as [`crate::Journal::close`] does: writes what waits, makes cursors durable, gives up the lock.
    pub fn close(mut self, now: u64) {
        self.shared.begin_close();
        while self.writer.turn(now) {}
        close_queue(&self.shared);
        lock(&self.shared.chores).closing = true;
        flush_cursors(&self.shared);
        let _ = retention::finish_removals(&self.shared);
        if let Some(packer) = &mut self.packer {
            packer.give_up();
        }
        finish(&self.shared);
    }
}
