//! Events that a destination refused for good: a journal of their own for each sink.
//!
//! ```text
//! DATA/dead-letters/SINK/   a journal, made with the first dead letter
//!   *.seg                   letter.rs; at the bound the oldest go, and are counted
//!   kept.cursor             at the oldest that is kept; its state says which later ones are done with: settled.rs
//! ```
//! Beside it stands who did what to them: acts.rs. A dead letter is on disk before the sink's own cursor moves past its event, and stays until somebody retries it with
//! success, drops it, or the bound is reached. One that cannot be read any more is lost, and done with: store.rs. A segment goes once all its letters are done with.

mod acts;
mod letter;
mod settled;
mod store;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use journal::Seq;

pub use self::letter::{BadDeadLetter, DeadLetter};

use self::acts::Acts;
use self::store::Store;
use crate::log::unix_nanoseconds;

pub(super) use self::acts::Act;
pub(super) use self::settled::Fate;
pub(super) use self::store::AtOpening;

/// How many of its events the sink has made dead letters by its own account, which is written after them: what is here at
/// the least, or was.
pub(super) type Refused = Box<dyn Fn() -> u64 + Send + Sync>;

/// One sink's dead letters.
pub(super) struct DeadLetters {
    path: PathBuf,
    acts: Acts,
    max_size: AtomicU64,
    refused: Refused,
    at_start: AtOpening,
    held: Mutex<Held>,
    /// Held by whoever settles: one at a time.
    settling: tokio::sync::Mutex<()>,
}

enum Held {
    /// Nothing has been refused yet.
    Nothing,
    Open(Arc<Store>),
    /// Let go of, with what there was.
    Closed(Count),
}

/// How many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// On disk, to be seen to.
    pub(super) kept: u64,
    /// Gone, to keep the bound.
    pub(super) overrun: u64,
    /// Gone, because they cannot be read any more.
    pub(super) damaged: u64,
    /// Sent again with success.
    pub(super) retried: u64,
    /// Dropped by somebody.
    pub(super) dropped: u64,
}

/// A dead letter in its place.
pub(crate) struct Kept {
    /// Among the sink's dead letters.
    pub(crate) number: u64,
    /// When it was refused, in unix nanoseconds.
    pub(crate) time: u64,
    pub(crate) letter: Result<DeadLetter, BadDeadLetter>,
}

/// A letter, and what became of it.
pub(super) struct Found {
    /// Among the sink's dead letters.
    pub(super) number: u64,
    pub(super) became: Became,
    /// When it was refused, in unix nanoseconds.
    pub(super) time: u64,
    pub(super) letter: DeadLetter,
}

/// What became of a letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Became {
    /// It is still to be seen to.
    Kept,
    /// It is done with, and who did what is known.
    Settled(Act),
    /// It is done with, and what became of it is known if it is not long ago.
    Done(Option<Fate>),
}

/// Some of the letters that are kept, in order.
#[derive(Default)]
pub(crate) struct Part {
    pub(crate) letters: Vec<Kept>,
    /// Where the next part begins; none: this was the last.
    pub(crate) next: Option<u64>,
}

// === impl DeadLetters ===

impl DeadLetters {
    /// Opens what is there; without dead letters there is nothing on disk.
    pub(super) fn new(path: PathBuf, max_size: u64, refused: Refused) -> Result<Self, String> {
        let there = path.exists();
        let mut dead_letters = DeadLetters {
            acts: Acts::beside(&path),
            path,
            max_size: AtomicU64::new(max_size),
            refused,
            at_start: AtOpening::default(),
            held: Mutex::new(Held::Nothing),
            settling: tokio::sync::Mutex::default(),
        };
        if there {
            dead_letters.at_start = dead_letters.open()?.found;
        }
        Ok(dead_letters)
    }

    /// What the start found of them.
    pub(super) fn at_start(&self) -> AtOpening {
        self.at_start
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is open already.
    fn store(&self) -> Option<Arc<Store>> {
        match &*self.held() {
            Held::Open(store) => Some(Arc::clone(store)),
            Held::Nothing | Held::Closed(_) => None,
        }
    }

    /// Blocks the thread when it opens.
    fn open(&self) -> Result<Arc<Store>, String> {
        let mut held = self.held();
        match &*held {
            Held::Nothing => {}
            Held::Open(store) => return Ok(Arc::clone(store)),
            Held::Closed(_) => return Err("the relay is stopping".to_owned()),
        }
        let max_size = self.max_size.load(Ordering::Relaxed);
        let store = Arc::new(Store::open(&self.path, max_size, (self.refused)())?);
        self.look_through(&store);
        *held = Held::Open(Arc::clone(&store));
        Ok(store)
    }

    /// Finds what is damaged, however long that takes, without making anybody wait. Ends when they are let go of.
    fn look_through(&self, store: &Arc<Store>) {
        let mut from = store.oldest();
        if from.is_none() {
            return;
        }
        let (store, path) = (Arc::downgrade(store), self.path.clone());
        let look = move || {
            while let (Some(at), Some(store)) = (from, store.upgrade()) {
                from = store.look_on(at).unwrap_or_else(|error| {
                    tracing::warn!(path = %path.display(), error, "the dead letters cannot be looked through for damage");
                    None
                });
            }
        };
        let spawned = thread::Builder::new().name("dead-letters".to_owned());
        if let Err(error) = spawned.spawn(look) {
            tracing::warn!(path = %self.path.display(), %error, "the dead letters are not looked through for damage");
        }
    }

    /// Writes them; they are on disk when this returns.
    pub(super) async fn write(self: &Arc<Self>, letters: &[DeadLetter]) -> Result<(), String> {
        let here = Arc::clone(self);
        let opened = tokio::task::spawn_blocking(move || here.open()).await;
        let store = opened.map_err(|e| e.to_string())??;
        let time = unix_nanoseconds();
        let records = letters
            .iter()
            .map(|letter| letter.to_record(time))
            .collect();
        let written = store.journal.append(records).await;
        written.map(drop).map_err(|e| e.to_string())
    }

    /// Reads the letters that are kept, from `from` on and before `until`. Blocks the thread.
    pub(super) fn read(&self, from: u64, until: u64) -> Result<Part, String> {
        match self.store() {
            Some(store) => store.read(from, until),
            None => Ok(Part::default()),
        }
    }

    /// One past the newest letter.
    pub(super) fn end(&self) -> u64 {
        self.store()
            .map_or(1, |store| store.journal.committed().0 + 1)
    }

    /// Whether some that were there are not on disk any more.
    pub(super) fn some_are_gone(&self) -> bool {
        self.store()
            .is_some_and(|store| store.journal.first() > Seq(1))
    }

    /// Puts down what became of some letters and by whom; durable when this returns. Letters that are gone by now stay gone.
    pub(super) async fn settle(
        self: &Arc<Self>,
        letters: &[u64],
        fate: Fate,
        by: String,
    ) -> Result<(), String> {
        let _turn = self.settling.lock().await;
        let store = self.store().ok_or("the relay is stopping")?;
        store.settle(letters, fate).await?;
        let (here, letters, at) = (
            Arc::clone(self),
            letters.to_vec(),
            unix_nanoseconds() / 1_000_000,
        );
        let adding = move || here.acts.add(&letters, fate, at, &by);
        // A panic has been told, and ends only this note.
        if let Ok(Err(error)) = tokio::task::spawn_blocking(adding).await {
            tracing::warn!(%error, path = %self.path.display(), "who settled dead letters cannot be noted; the audit trail has it");
        }
        Ok(())
    }

    pub(super) fn count(&self) -> Count {
        match &*self.held() {
            Held::Nothing => Count::default(),
            Held::Open(store) => store.count(),
            Held::Closed(count) => *count,
        }
    }

    /// Lets go of the folder. Nothing is written after that.
    pub(super) async fn close(&self) {
        let closed = Held::Closed(self.count());
        let was = std::mem::replace(&mut *self.held(), closed);
        if let Held::Open(store) = was {
            let journal = store.journal.clone();
            // Joins the journal's thread. A panic there is told by the journal.
            let _ = tokio::task::spawn_blocking(move || journal.close()).await;
        }
    }

    /// Gives them another bound. Whoever writes meanwhile is refused, and tries again.
    pub(super) async fn resize(self: &Arc<Self>, max_size: u64) -> Result<(), String> {
        if self.max_size.swap(max_size, Ordering::Relaxed) == max_size {
            return Ok(());
        }
        let Some(store) = self.store() else {
            return Ok(());
        };
        let here = Arc::clone(self);
        let reopened = tokio::task::spawn_blocking(move || {
            let mut held = here.held();
            // Joins the journal's thread, which frees the folder.
            store.journal.clone().close();
            *held = Held::Nothing;
            drop(held);
            here.open().map(drop)
        });
        reopened.await.map_err(|e| e.to_string())?
    }

    /// Shows all that are on disk, oldest first, whether they are done with or not. Blocks the thread.
    pub(super) fn look(&self, each: impl FnMut(Found)) -> Result<(), String> {
        let acts = self.acts.read();
        self.store().map_or(Ok(()), |store| store.look(&acts, each))
    }

    pub(super) fn path(&self) -> &std::path::Path {
        &self.path
    }
}

#[cfg(test)]
mod tests;
