//! A consumer's durable place, with the account of what became of the records before it.
//!
//! A move is seen at once and durable within [`crate::Config::cursor_sync`]: the keeper writes all cursors that moved,
//! each with one `fdatasync`, and wakes whoever waits. Only durable positions allow a segment to be removed.
//!
//! When retention overtakes a cursor nothing is written: the records between its position and the journal's first
//! one *are* expired, today and after a crash. They enter the account when the owner moves on.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::{
    Account, Expired, Seq,
    account::CursorBooks,
    catalog::{Shared, lock},
    slots::{MAX_STATE, Slot, SlotFile},
};

/// Where a new cursor begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// After all that is committed.
    #[default]
    End,
    /// At the oldest record that is kept.
    Beginning,
    /// At this record, or the nearest one that is kept.
    At(Seq),
}

/// What happens at the size bound when this cursor has not passed the oldest segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// The segment goes; its records count as expired for this cursor.
    #[default]
    Expire,
    /// The segment stays and new records are refused.
    Refuse,
}

/// How a cursor is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CursorOptions {
    /// Only for a cursor that does not exist yet.
    pub start: Start,
    /// In force as long as the cursor is open or pins records.
    pub when_full: WhenFull,
}

/// A cursor's figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CursorStats {
    /// Its name.
    pub name: String,
    /// The next record to deliver.
    pub position: Seq,
    /// Committed records at and after `position`.
    pub pending: u64,
    /// What became of the records before it, since its birth.
    pub account: Account,
    /// Records committed since its birth, with those that it went back over counted again: what `account` and `pending`
    /// add up to.
    pub journaled: u64,
    /// Where it began when it was made.
    pub birth: Seq,
    /// It was retired: it pins nothing until it is opened again.
    pub retired: bool,
}

/// A cursor could not be opened or moved.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CursorError {
    /// The name would not make a file name.
    #[error(
        "cursor name `{name}`: use 1 to 64 of a-z, A-Z, 0-9, `.`, `_`, `-`, not beginning with `.`"
    )]
    Name {
        /// As given.
        name: String,
    },
    /// It is open already; drop the other handle first.
    #[error("cursor {name} is in use; drop its other handle first")]
    Busy {
        /// The cursor.
        name: String,
    },
    /// A move backwards or past what is committed.
    #[error(
        "cursor {name} stands at {position} and cannot move to {to} (committed: {committed}); going back takes a rewind"
    )]
    Position {
        /// The cursor.
        name: String,
        /// Where it is.
        position: Seq,
        /// Where it was to go.
        to: Seq,
        /// Newest record.
        committed: Seq,
    },
    /// The account given does not add up to the records passed.
    #[error(
        "cursor {name}: {passed} records passed but {accounted} accounted for; account for each one once"
    )]
    Unbalanced {
        /// The cursor.
        name: String,
        /// Records between the old and the new position.
        passed: u64,
        /// Sum of the account given.
        accounted: u64,
    },
    /// The owner's state is longer than 16 MiB.
    #[error("cursor {name}: a state of {bytes} bytes is too long; keep it below 16 MiB")]
    State {
        /// The cursor.
        name: String,
        /// Length of the state.
        bytes: usize,
    },
    /// The move holds in memory but could not be made durable; it is tried again by itself.
    #[error("cursor {name} cannot be written: {source}; it is tried again")]
    Disk {
        /// The cursor.
        name: String,
        /// What the disk said.
        source: Arc<io::Error>,
    },
    /// The journal was closed before the move was durable.
    #[error("the journal is closed")]
    Closed,
}

type Waiter = oneshot::Sender<Result<(), CursorError>>;

/// A cursor as the journal holds it, open or not.
pub(crate) struct Cell {
    pub(crate) name: String,
    pub(crate) in_use: AtomicBool,
    pub(crate) inner: Mutex<Inner>,
}

pub(crate) struct Inner {
    pub(crate) slot: Slot,
    /// `None` after a failed write: the next one makes a new file.
    pub(crate) file: Option<SlotFile>,
    pub(crate) durable: u64,
    pub(crate) dirty: bool,
    pub(crate) waiters: Vec<Waiter>,
    pub(crate) when_full: WhenFull,
    pub(crate) retired: bool,
}

impl Cell {
    pub(crate) fn new(name: &str, slot: Slot, file: Option<SlotFile>) -> Cell {
        let dirty = file.is_none();
        let inner = Inner {
            durable: slot.position,
            slot,
            file,
            dirty,
            waiters: Vec::new(),
            when_full: WhenFull::Expire,
            retired: false,
        };
        Cell {
            name: name.to_owned(),
            in_use: AtomicBool::new(false),
            inner: Mutex::new(inner),
        }
    }

    /// Makes what moved durable and tells the waiters. Called by one thread at a time (the keeper).
    pub(crate) fn flush(&self, shared: &Shared) -> Result<(), Arc<io::Error>> {
        let (mut slot, file, waiters) = {
            let mut inner = lock(&self.inner);
            if !inner.dirty {
                return Ok(());
            }
            inner.dirty = false;
            inner.slot.generation += 1;
            (
                inner.slot.clone(),
                inner.file.take(),
                std::mem::take(&mut inner.waiters),
            )
        };
        let written = match file.filter(|file| file.fits(&slot)) {
            Some(file) => file.write(&slot).map(|()| file),
            None => SlotFile::create(&*shared.disk, &file_name(&self.name), &mut slot),
        };
        let mut inner = lock(&self.inner);
        let outcome = match written {
            Ok(file) => {
                inner.file = Some(file);
                inner.durable = slot.position;
                inner.slot.generation = slot.generation;
                Ok(())
            }
            Err(source) => {
                // Neither this file nor its sync is trusted again.
                inner.dirty = true;
                Err(Arc::new(source))
            }
        };
        drop(inner);
        for waiter in waiters {
            // Whoever stopped waiting does not mind.
            let _ = waiter.send(outcome.clone().map_err(|source| self.disk_error(source)));
        }
        outcome
    }

    fn disk_error(&self, source: Arc<io::Error>) -> CursorError {
        CursorError::Disk {
            name: self.name.clone(),
            source,
        }
    }

    pub(crate) fn books(&self) -> CursorBooks {
        let inner = lock(&self.inner);
        CursorBooks {
            name: self.name.clone(),
            birth: Seq(inner.slot.birth),
            position: Seq(inner.slot.position),
            account: inner.slot.account,
            rewound: inner.slot.rewound,
        }
    }

    pub(crate) fn stats(&self, first: u64, next: u64) -> CursorStats {
        let inner = lock(&self.inner);
        let (position, account) = seen(&inner.slot, first);
        // Records may have been committed, and passed, since `next` was looked up.
        let next = next.max(position);
        CursorStats {
            name: self.name.clone(),
            position: Seq(position),
            pending: next - position,
            account,
            journaled: next + inner.slot.rewound - inner.slot.birth,
            birth: Seq(inner.slot.birth),
            retired: inner.retired,
        }
    }
}

/// Position and account with what retention has overtaken.
fn seen(slot: &Slot, first: u64) -> (u64, Account) {
    let overtaken = first.saturating_sub(slot.position);
    let mut account = slot.account;
    account.expired += overtaken;
    (slot.position + overtaken, account)
}

/// Puts down as expired what retention has overtaken.
fn overtake(slot: &mut Slot, first: u64) {
    let from = slot.position;
    (slot.position, slot.account) = seen(slot, first);
    slot.expired.add(from, slot.position, slot.position - from);
}

/// `NAME.cursor`
pub(crate) fn file_name(name: &str) -> String {
    format!("{name}.cursor")
}

pub(crate) fn check_name(name: &str) -> Result<(), CursorError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let fine = (1..=64).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(plain);
    if fine {
        Ok(())
    } else {
        Err(CursorError::Name {
            name: name.to_owned(),
        })
    }
}

/// A consumer's place in the journal. One handle a name at a time; dropping it keeps the cursor.
pub struct Cursor {
    pub(crate) shared: Arc<Shared>,
    pub(crate) cell: Arc<Cell>,
}

impl Cursor {
    /// Opens the cursor, making it where there is none.
    pub(crate) fn open(
        shared: &Arc<Shared>,
        name: &str,
        options: CursorOptions,
    ) -> Result<Cursor, CursorError> {
        check_name(name)?;
        let mut cursors = lock(&shared.cursors);
        let cell = match cursors.get(name) {
            Some(cell) => Arc::clone(cell),
            None => {
                let cell = Arc::new(new_cell(shared, name, options.start)?);
                cursors.insert(name.to_owned(), Arc::clone(&cell));
                cell
            }
        };
        if cell.in_use.swap(true, Ordering::AcqRel) {
            return Err(CursorError::Busy {
                name: name.to_owned(),
            });
        }
        {
            let mut inner = lock(&cell.inner);
            inner.when_full = options.when_full;
            inner.retired = false;
        }
        Ok(Cursor {
            shared: Arc::clone(shared),
            cell,
        })
    }

    /// Pins nothing from now on, although the handle stays: what is removed meanwhile counts as expired.
    pub fn retire(&self) {
        lock(&self.cell.inner).retired = true;
    }

    /// Pins records again, or goes on doing so, in this way when the journal is full.
    pub fn take_up(&self, when_full: WhenFull) {
        let mut inner = lock(&self.cell.inner);
        (inner.when_full, inner.retired) = (when_full, false);
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.cell.name
    }

    /// The next record to deliver, by the last move or by what retention has overtaken.
    #[must_use]
    pub fn position(&self) -> Seq {
        let first = self.shared.first();
        Seq(seen(&lock(&self.cell.inner).slot, first).0)
    }

    /// What became of the records before [`Cursor::position`], since the cursor's birth.
    #[must_use]
    pub fn account(&self) -> Account {
        let first = self.shared.first();
        seen(&lock(&self.cell.inner).slot, first).1
    }

    /// Which records expired, oldest first: those in the account, as far as they were written down, and those that retention
    /// has overtaken by now.
    #[must_use]
    pub fn expired(&self) -> Vec<Expired> {
        let first = self.shared.first();
        let mut slot = lock(&self.cell.inner).slot.clone();
        overtake(&mut slot, first);
        slot.expired.to_vec()
    }

    /// The state that was stored with the position.
    #[must_use]
    pub fn state(&self) -> Option<Bytes> {
        lock(&self.cell.inner).slot.state.clone()
    }

    /// Its figures.
    #[must_use]
    pub fn stats(&self) -> CursorStats {
        let (first, next) = {
            let catalog = lock(&self.shared.catalog);
            (catalog.first(), catalog.next)
        };
        self.cell.stats(first, next)
    }

    /// Moves to `to` (the next record to deliver), accounts for the records passed, and stores `state` with it, all
    /// in one atomic write; `None` keeps the state that is stored. Resolves when that is durable; moves made meanwhile
    /// share one write. The move holds even if the future is dropped after its first poll.
    ///
    /// `delta` sums to the records passed. What retention removed before the cursor came there may be left out: it is
    /// put down as expired.
    ///
    /// # Errors
    /// [`CursorError`]; after `Disk` the move holds in memory and is written again by itself.
    pub async fn advance(
        &self,
        to: Seq,
        delta: Account,
        state: Option<Bytes>,
    ) -> Result<(), CursorError> {
        self.check_state(state.as_ref())?;
        let durable = self.change(|slot, first, committed| {
            let from = slot.position;
            if to.0 < from || to.0 > committed + 1 {
                return Err(self.position_error(from, to, committed));
            }
            let delta = self.balance(from, to.0, first, delta)?;
            slot.position = to.0;
            slot.account += delta;
            // None of them was in the journal any more.
            slot.expired.add(from, to.0.min(first), delta.expired);
            if state.is_some() {
                slot.state = state;
            }
            Ok(())
        })?;
        durable.await.unwrap_or(Err(CursorError::Closed))
    }

    /// Goes back to `to`, or to the oldest record that is kept; everything from there on is delivered again. The
    /// account keeps what it has: what is delivered twice counts twice.
    ///
    /// # Errors
    /// [`CursorError::Position`] if `to` is ahead, `Disk` as for [`Cursor::advance`].
    pub async fn rewind(&self, to: Seq, state: Option<Bytes>) -> Result<Seq, CursorError> {
        self.check_state(state.as_ref())?;
        let mut reached = to;
        let durable = self.change(|slot, first, committed| {
            overtake(slot, first);
            reached = Seq(to.0.max(first));
            if reached.0 > slot.position {
                return Err(self.position_error(slot.position, to, committed));
            }
            slot.rewound += slot.position - reached.0;
            slot.position = reached.0;
            if state.is_some() {
                slot.state = state;
            }
            Ok(())
        })?;
        durable
            .await
            .unwrap_or(Err(CursorError::Closed))
            .map(|()| reached)
    }

    /// Changes the slot under its lock and answers what will resolve when that is durable.
    fn change(
        &self,
        change: impl FnOnce(&mut Slot, u64, u64) -> Result<(), CursorError>,
    ) -> Result<oneshot::Receiver<Result<(), CursorError>>, CursorError> {
        // Held to the end, so the keeper's last flush comes either before the refusal or after the move.
        let mut chores = lock(&self.shared.chores);
        if chores.closing {
            return Err(CursorError::Closed);
        }
        let (first, next) = {
            let catalog = lock(&self.shared.catalog);
            (catalog.first(), catalog.next)
        };
        let (sender, receiver) = oneshot::channel();
        {
            let mut inner = lock(&self.cell.inner);
            let mut slot = inner.slot.clone();
            change(&mut slot, first, next - 1)?;
            inner.slot = slot;
            inner.dirty = true;
            inner.waiters.push(sender);
        }
        chores.cursors_moved = true;
        self.shared.chore.notify_all();
        Ok(receiver)
    }

    /// The account of the records `from..to`, completed by what expired unseen.
    fn balance(
        &self,
        from: u64,
        to: u64,
        first: u64,
        mut delta: Account,
    ) -> Result<Account, CursorError> {
        let (passed, accounted) = (to - from, delta.total());
        let unseen = first.min(to).saturating_sub(from);
        match passed.checked_sub(accounted) {
            Some(missing) if missing <= unseen => {
                delta.expired += missing;
                Ok(delta)
            }
            _ => Err(CursorError::Unbalanced {
                name: self.cell.name.clone(),
                passed,
                accounted,
            }),
        }
    }

    fn check_state(&self, state: Option<&Bytes>) -> Result<(), CursorError> {
        match state {
            Some(state) if state.len() > MAX_STATE => Err(CursorError::State {
                name: self.cell.name.clone(),
                bytes: state.len(),
            }),
            _ => Ok(()),
        }
    }

    fn position_error(&self, position: u64, to: Seq, committed: u64) -> CursorError {
        CursorError::Position {
            name: self.cell.name.clone(),
            position: Seq(position),
            to,
            committed: Seq(committed),
        }
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.cell.in_use.store(false, Ordering::Release);
    }
}

fn new_cell(shared: &Shared, name: &str, start: Start) -> Result<Cell, CursorError> {
    let (first, next) = {
        let catalog = lock(&shared.catalog);
        (catalog.first(), catalog.next)
    };
    let position = match start {
        Start::End => next,
        Start::Beginning => first,
        Start::At(seq) => seq.0.clamp(first, next),
    };
    let mut slot = Slot {
        birth: position,
        position,
        ..Slot::default()
    };
    let file = SlotFile::create(&*shared.disk, &file_name(name), &mut slot).map_err(|source| {
        CursorError::Disk {
            name: name.to_owned(),
            source: Arc::new(source),
        }
    })?;
    Ok(Cell::new(name, slot, Some(file)))
}
