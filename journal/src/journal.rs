//! The handle: open, append, read, cursors, figures, close.

use std::{
    ops::Range,
    sync::{Arc, Mutex, atomic::Ordering},
    thread::JoinHandle,
    time::Duration,
};

use tokio::sync::{oneshot, watch};

use crate::{
    AppendError, Checkpoint, Config, Cursor, CursorError, CursorOptions, CursorStats, Disk, Ledger,
    MAX_PAYLOAD, OpenError, Opened, ReadError, Reader, Record, Seq, Stepper, Violation,
    account::{self, Books},
    catalog::{Shared, lock},
    keeper,
    packing::Packer,
    reader, record, recovery,
    writer::Pending,
};

/// A cheap handle to one open journal. When the last one goes, what waits is still written.
#[derive(Clone)]
pub struct Journal {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.begin_close();
    }
}

/// A journal's figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Oldest record that is kept.
    pub first: Seq,
    /// Newest record; 0 if there never was one.
    pub committed: Seq,
    /// Segments on disk.
    pub segments: usize,
    /// Bytes in segments.
    pub bytes: u64,
    /// Bound of `bytes`, from the settings.
    pub max_size: u64,
    /// Records offered and what became of them, since the journal was opened.
    pub ledger: Ledger,
    /// Group commits since then.
    pub groups: u64,
    /// Bytes committed since then.
    pub written: u64,
    /// How long the last `fdatasync` of a group took, in nanoseconds.
    pub sync_last_ns: u64,
    /// The longest since then.
    pub sync_max_ns: u64,
    /// Segments given up after a failed write or sync since then.
    pub suspects: u64,
    /// Segments that retention removed since then.
    pub removed_segments: u64,
    /// Cursor writes that failed (and were tried again) since then.
    pub cursor_failures: u64,
    /// Segments compressed since then.
    pub packed_segments: u64,
    /// Bytes of those before.
    pub packed_from: u64,
    /// Bytes of those now.
    pub packed_to: u64,
    /// Attempts to compress a segment that failed since then; the segment stays as it was.
    pub pack_failures: u64,
    /// Why records are refused right now.
    pub refusing: Option<String>,
    /// An identity of [`crate::account`] that was found broken: a bug to report.
    pub violation: Option<String>,
    /// By name.
    pub cursors: Vec<CursorStats>,
}

impl Journal {
    /// Opens the directory's journal, making it where there is none, and starts its threads. Blocks for the scan
    /// of the newest segment.
    ///
    /// # Errors
    /// [`OpenError`] says what to do. Nothing is changed when it is `Locked` or `Version`.
    pub fn open(
        disk: Arc<dyn Disk>,
        config: Config,
        checkpoint: Box<dyn Checkpoint>,
    ) -> Result<(Journal, Opened), OpenError> {
        let path = disk.path();
        let (shared, writer, opened) = recovery::open(disk, config, checkpoint)?;
        let thread = |name: &str, body: Box<dyn FnOnce() + Send>| {
            let named = std::thread::Builder::new().name(name.to_owned());
            named.spawn(body).map_err(|source| OpenError::Io {
                path: path.clone(),
                doing: "starting a thread",
                source,
            })
        };
        // Ends keeper and packer after the writer: also after a panic of the owner's fold, or if a thread is not had.
        let end = EndKeeper(Arc::clone(&shared));
        let kept = Arc::clone(&shared);
        let packing = match Packer::new(&shared) {
            Some(packer) => Some(thread("journal-packer", Box::new(move || packer.run()))?),
            None => None,
        };
        let keeping = thread(
            "journal-keeper",
            Box::new(move || {
                keeper::run(&kept);
                // Nobody touches the directory once it is free for the next writer.
                if let Some(packing) = packing {
                    let _ = packing.join();
                }
                keeper::finish(&kept);
            }),
        )?;
        let writing = thread(
            "journal-writer",
            Box::new(move || {
                let _then = end;
                writer.run(keeper::now);
            }),
        )?;
        let threads = Mutex::new(vec![writing, keeping]);
        Ok((
            Journal {
                handle: Arc::new(Handle { shared, threads }),
            },
            opened,
        ))
    }

    /// As [`Journal::open`] without threads: the [`Stepper`] does their work when told to. For tests that need every
    /// order of operations to be repeatable.
    ///
    /// # Errors
    /// As [`Journal::open`].
    pub fn open_stepped(
        disk: Arc<dyn Disk>,
        config: Config,
        checkpoint: Box<dyn Checkpoint>,
    ) -> Result<(Journal, Opened, Stepper), OpenError> {
        let (shared, writer, opened) = recovery::open(disk, config, checkpoint)?;
        let stepper = Stepper::new(Arc::clone(&shared), writer);
        let handle = Arc::new(Handle {
            shared,
            threads: Mutex::default(),
        });
        Ok((Journal { handle }, opened, stepper))
    }

    /// Appends the records, in order and without others between them, and resolves when they are on disk. Waits while
    /// the queue is full. Dropped after its first poll, it may still append.
    ///
    /// # Errors
    /// [`AppendError`]: `Full`, `Closed` and `TooLarge` stored nothing; after `Failed` it is not known.
    pub async fn append(&self, records: Vec<Record>) -> Result<Range<Seq>, AppendError> {
        let shared = &self.handle.shared;
        let count = records.len() as u64;
        if records.is_empty() {
            let next = self.committed().next();
            return Ok(next..next);
        }
        let bytes = self.check_size(&records).inspect_err(|_| {
            let mut ledger = lock(&shared.ledger);
            ledger.received += count;
            ledger.refused += count;
        })?;
        // Fits: `queue_bytes` is at most 2^30.
        let permits = bytes.min(shared.config.queue_bytes) as u32;
        let budget = Arc::clone(&shared.budget);
        let permit = budget
            .acquire_many_owned(permits)
            .await
            .map_err(|_| AppendError::Closed)?;
        let (reply, answer) = oneshot::channel();
        {
            let mut queue = lock(&shared.queue);
            if queue.closing || queue.closed {
                return Err(AppendError::Closed);
            }
            let mut ledger = lock(&shared.ledger);
            ledger.received += count;
            ledger.in_flight += count;
            drop(ledger);
            let wakes = queue.push(Pending {
                records,
                bytes,
                reply,
                _permit: permit,
            });
            drop(queue);
            if wakes {
                shared.work.notify_one();
            }
        }
        answer.await.unwrap_or(Err(AppendError::Closed))
    }

    fn check_size(&self, records: &[Record]) -> Result<u64, AppendError> {
        let longest = records.iter().map(|r| r.payload.len()).max().unwrap_or(0);
        if longest > MAX_PAYLOAD {
            return Err(AppendError::TooLarge {
                bytes: longest as u64,
                limit: MAX_PAYLOAD as u64,
            });
        }
        let limit = self.handle.shared.bounds.max_size() / 2;
        let bytes = records.iter().map(record::size).sum();
        if bytes > limit {
            Err(AppendError::TooLarge { bytes, limit })
        } else {
            Ok(bytes)
        }
    }

    /// The newest record that may be read; 0 if there is none.
    #[must_use]
    pub fn committed(&self) -> Seq {
        *self.handle.shared.committed.borrow()
    }

    /// The oldest record that is kept; one past [`Journal::committed`] if there is none.
    #[must_use]
    pub fn first(&self) -> Seq {
        Seq(self.handle.shared.first())
    }

    /// Changes with every group commit.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Seq> {
        self.handle.shared.committed.subscribe()
    }

    /// Reads from `from` on, which may be past the end.
    #[must_use]
    pub fn reader(&self, from: Seq) -> Reader {
        Reader::new(&self.handle.shared, from)
    }

    /// The first record whose time is `unix_ns` or later; one past the end if there is none.
    ///
    /// # Errors
    /// The disk failed.
    pub fn seek_time(&self, unix_ns: u64) -> Result<Seq, ReadError> {
        reader::seek_time(&self.handle.shared, unix_ns)
    }

    /// Opens a cursor where it was, or makes it where there is none. Blocks for a sync of a new one.
    ///
    /// # Errors
    /// [`CursorError`]: a bad name, a cursor in use, or the disk.
    pub fn cursor(&self, name: &str, options: CursorOptions) -> Result<Cursor, CursorError> {
        Cursor::open(&self.handle.shared, name, options)
    }

    /// Cursors not named here, and not open, pin nothing from now on. Their files stay: opened again, they go on where
    /// they were, and what was removed meanwhile counts as expired.
    pub fn retire_cursors_except(&self, names: &[&str]) {
        for cell in lock(&self.handle.shared.cursors).values() {
            let wanted = names.contains(&cell.name.as_str());
            if !wanted && !cell.in_use.load(Ordering::Acquire) {
                lock(&cell.inner).retired = true;
            }
        }
    }

    /// Keeps records for `max_age` from now on, and up to `max_size` bytes where that is more than before: what is on disk
    /// stays within its bound at every moment, so less takes effect with the next opening. False: the size stayed.
    pub fn retain(&self, max_size: u64, max_age: Duration) -> bool {
        let bounds = &self.handle.shared.bounds;
        bounds.set(max_size, max_age);
        bounds.max_size() == max_size
    }

    /// Where every segment begins, oldest first: the number that its first record has, or will have.
    #[must_use]
    pub fn segments(&self) -> Vec<Seq> {
        let catalog = lock(&self.handle.shared.catalog);
        catalog
            .segments
            .iter()
            .map(|segment| segment.base)
            .collect()
    }

    /// The owner's checkpoint at the head of the segment that begins at `base`: the fold over all records before it. None
    /// where there is no such segment any more, or its head is damaged. Blocks for a read of the disk.
    ///
    /// # Errors
    /// The disk failed.
    pub fn checkpoint(&self, base: Seq) -> Result<Option<Vec<u8>>, ReadError> {
        reader::checkpoint(&self.handle.shared, base)
    }

    /// The figures of this moment.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let shared = &self.handle.shared;
        let (first, next, segments, bytes) = {
            let catalog = lock(&shared.catalog);
            (
                catalog.first(),
                catalog.next,
                catalog.segments.len(),
                catalog.on_disk(),
            )
        };
        let cursors = lock(&shared.cursors)
            .values()
            .map(|cell| cell.stats(first, next))
            .collect();
        let counters = &shared.counters;
        Stats {
            first: Seq(first),
            committed: Seq(next - 1),
            segments,
            bytes,
            max_size: shared.bounds.max_size(),
            ledger: *lock(&shared.ledger),
            groups: counters.groups.load(Ordering::Relaxed),
            written: counters.bytes.load(Ordering::Relaxed),
            sync_last_ns: counters.sync_last_ns.load(Ordering::Relaxed),
            sync_max_ns: counters.sync_max_ns.load(Ordering::Relaxed),
            suspects: counters.suspects.load(Ordering::Relaxed),
            removed_segments: counters.removed_segments.load(Ordering::Relaxed),
            cursor_failures: counters.cursor_failures.load(Ordering::Relaxed),
            packed_segments: counters.packed_segments.load(Ordering::Relaxed),
            packed_from: counters.packed_from.load(Ordering::Relaxed),
            packed_to: counters.packed_to.load(Ordering::Relaxed),
            pack_failures: counters.pack_failures.load(Ordering::Relaxed),
            refusing: lock(&counters.refusing).clone(),
            violation: lock(&counters.violation).clone(),
            cursors,
        }
    }

    /// Checks the identities of [`crate::account`] now, and on the way from the last time.
    ///
    /// # Errors
    /// The first that does not hold: a bug.
    pub fn check(&self) -> Result<(), Violation> {
        check(&self.handle.shared)
    }

    /// Writes what waits, makes cursors durable, ends the threads and gives up the lock. Other handles then answer
    /// `Closed`; readers still read.
    pub fn close(self) {
        self.handle.shared.begin_close();
        for thread in lock(&self.handle.threads).drain(..) {
            // A thread that panicked has closed the journal on its way out.
            let _ = thread.join();
        }
    }
}

/// Checks the books of this moment against the identities and against those of the last check.
pub(crate) fn check(shared: &Shared) -> Result<(), Violation> {
    let mut last = lock(&shared.checked);
    let books = books(shared);
    account::check(&books, last.as_ref())?;
    *last = Some(books);
    Ok(())
}

/// The books of this moment.
fn books(shared: &Shared) -> Books {
    // Cursors before the catalog: what they have passed is committed by then.
    let cursors = lock(&shared.cursors)
        .values()
        .map(|cell| cell.books())
        .collect();
    let catalog = lock(&shared.catalog);
    Books {
        first: Seq(catalog.first()),
        committed: Seq(catalog.next - 1),
        segments: catalog.segments.iter().map(|s| s.base).collect(),
        bytes: catalog.on_disk(),
        bound: shared.bounds.max_size() + shared.config.segment_bytes,
        ledger: *lock(&shared.ledger),
        cursors,
    }
}

struct EndKeeper(Arc<Shared>);

impl Drop for EndKeeper {
    fn drop(&mut self) {
        lock(&self.0.chores).closing = true;
        self.0.chore.notify_all();
    }
}
