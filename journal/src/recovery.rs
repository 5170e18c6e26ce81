//! Opening: the version, the lock, the cursors, the newest segment, the owner's fold.
//!
//! Only the newest segment is walked; older ones are known by name and length until someone reads them. The last group
//! is written and synced again before anyone may read it: after a kill or a failed sync it may be in the page cache
//! only, and clean there.
//!
//! A region behind the last valid record is a torn tail and is cut. A gap before a valid record costs the records in
//! it; if no group commit begins after the gap, they may never have been acknowledged, and are told apart.
//!
//! A cursor that stands beyond the last record proves that records were there which are damaged now. Their numbers are
//! not given out again: the journal goes on behind them, and whoever reads over them is told.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex},
};

use tokio::sync::{Semaphore, watch};

use crate::{
    Checkpoint, CheckpointFrom, Config, Disk, FORMAT, Ledger, OpenError, Opened, Seq,
    catalog::{Bounds, Catalog, Chores, Counters, Shared},
    content::Body,
    cursor::Cell,
    disk::{Access, DiskFile, Lock, LockError, read_full, write_all},
    format::{FORMAT_FILE, Format},
    held::Holds,
    packing, reader,
    record::{self, HEADER, MAX_SEQ},
    segment::{self, BadHead, Extent, Growth, Head, PLAIN, Segment},
    slots::{Found, Slot, SlotFile},
    walk::{Hole, SCAN, Walk, opens_group},
    writer::{Active, Queue, Writer},
};

/// Opens the journal without starting its threads.
pub(crate) fn open(
    disk: Arc<dyn Disk>,
    config: Config,
    checkpoint: Box<dyn Checkpoint>,
) -> Result<(Arc<Shared>, Writer, Opened), OpenError> {
    let path = disk.path();
    let opening = Opening {
        disk: &*disk,
        path: &path,
    };
    // Before the lock, so that a directory of another version is not touched at all.
    opening.check_version()?;
    let guard = opening.lock()?;
    open_locked(disk, config, checkpoint, guard)
}

/// As [`open`], by the holder of the lock.
pub(crate) fn open_locked(
    disk: Arc<dyn Disk>,
    config: Config,
    mut checkpoint: Box<dyn Checkpoint>,
    guard: Box<dyn Lock>,
) -> Result<(Arc<Shared>, Writer, Opened), OpenError> {
    let path = disk.path();
    let opening = Opening {
        disk: &*disk,
        path: &path,
    };
    let format = opening.check_version()?;
    opening.remove_temporary_files()?;
    if format != Format::Known {
        opening.write_format()?;
    }
    // A name whose sync failed earlier is seen and yet may not be there after a power loss.
    opening.disk.fsync_dir().map_err(opening.io("syncing"))?;
    let mut opened = Opened {
        created: format == Format::New,
        ..Opened::default()
    };
    let mut cursors = opening.load_cursors(&mut opened)?;
    let mut catalog = opening.list_segments()?;
    opened.segments = catalog.segments.len();
    opened.newest = catalog.segments.back().map_or(Seq(1), |newest| newest.base);
    let active = opening.recover(&mut catalog, &mut *checkpoint, &mut opened)?;

    let passed = cursors
        .values()
        .map(|(slot, _)| slot.position)
        .max()
        .unwrap_or(0);
    opened.burned = passed.saturating_sub(catalog.next);
    catalog.next = catalog.next.max(passed);
    catalog.drop_numberless();
    let first = catalog.first();
    for name in &opened.cursors_lost {
        if let Some((slot, _)) = cursors.get_mut(name) {
            (slot.birth, slot.position) = (first, first);
        }
    }
    (opened.first, opened.committed) = (Seq(first), Seq(catalog.next - 1));
    let (shared, writer) = assemble(disk, config, checkpoint, catalog, cursors, active, guard);
    Ok((shared, writer, opened))
}

/// An open segment file and what its header says.
type Open = (Arc<dyn DiskFile>, Head);
type Cursors = BTreeMap<String, (Slot, Option<SlotFile>)>;

fn assemble(
    disk: Arc<dyn Disk>,
    config: Config,
    checkpoint: Box<dyn Checkpoint>,
    catalog: Catalog,
    cursors: Cursors,
    active: Option<Active>,
    guard: Box<dyn Lock>,
) -> (Arc<Shared>, Writer) {
    let config = config.fitted();
    let next = catalog.next;
    let cells = cursors.into_iter().map(|(name, (slot, file))| {
        let cell = Cell::new(&name, slot, file);
        (name, Arc::new(cell))
    });
    let shared = Arc::new(Shared {
        disk,
        catalog: Mutex::new(catalog),
        holds: Holds::default(),
        removal: Mutex::new(()),
        queue: Mutex::new(Queue::default()),
        work: Condvar::new(),
        budget: Arc::new(Semaphore::new(config.queue_bytes as usize)),
        ledger: Mutex::new(Ledger::default()),
        // A cursor whose file is not trusted is written at the first opportunity.
        chores: Mutex::new(Chores {
            cursors_moved: true,
            ..Chores::default()
        }),
        chore: Condvar::new(),
        cursors: Mutex::new(cells.collect()),
        checked: Mutex::new(None),
        committed: watch::Sender::new(Seq(next - 1)),
        counters: Counters::default(),
        lock: Mutex::new(Some(guard)),
        bounds: Bounds::new(&config),
        config,
    });
    let writer = Writer {
        shared: Arc::clone(&shared),
        checkpoint,
        active,
        next,
        buffer: Vec::new(),
        full: None,
    };
    (shared, writer)
}

/// What the walk over the newest segment found.
struct Walked {
    growth: Growth,
    /// Where the last group commit begins.
    last_group: u64,
    /// Bad regions after that.
    holes: Vec<Hole>,
    /// Some of it cannot be read.
    unreadable: bool,
}

pub(crate) struct Opening<'a> {
    pub(crate) disk: &'a dyn Disk,
    pub(crate) path: &'a Path,
}

impl Opening<'_> {
    pub(crate) fn io(&self, doing: &'static str) -> impl Fn(io::Error) -> OpenError {
        self.io_of("", doing)
    }

    /// The same with one of its files.
    pub(crate) fn io_of(&self, name: &str, doing: &'static str) -> impl Fn(io::Error) -> OpenError {
        let path = self.path.join(name).components().collect::<PathBuf>();
        move |source| OpenError::Io {
            path: path.clone(),
            doing,
            source,
        }
    }

    pub(crate) fn version(&self, found: u16) -> OpenError {
        OpenError::Version {
            path: self.path.to_owned(),
            found,
            known: FORMAT,
        }
    }

    pub(crate) fn lock(&self) -> Result<Box<dyn Lock>, OpenError> {
        let path = self.path.to_owned();
        self.disk.lock().map_err(|error| match error {
            LockError::Held { by } => OpenError::Locked { path, by },
            LockError::Io(source) => OpenError::NotWritable { path, source },
        })
    }

    /// Removes what an interrupted creation left.
    fn remove_temporary_files(&self) -> Result<(), OpenError> {
        let names = self.disk.list().map_err(self.io("listing the files of"))?;
        for name in names.iter().filter(|n| is_unfinished(n)) {
            self.disk
                .unlink(name)
                .map_err(self.io_of(name, "removing"))?;
        }
        Ok(())
    }

    fn load_cursors(&self, opened: &mut Opened) -> Result<Cursors, OpenError> {
        let names = self.disk.list().map_err(self.io("listing the files of"))?;
        let mut cursors = Cursors::new();
        for file_name in names {
            let Some(name) = file_name.strip_suffix(".cursor") else {
                continue;
            };
            let (file, found) = SlotFile::open(self.disk, &file_name, Access::Write)
                .map_err(self.io_of(&file_name, "reading"))?;
            let (slot, file) = match found {
                Found::Slot { slot, alone } => {
                    if alone {
                        opened.cursors_behind.push(name.to_owned());
                    }
                    // As for the last group: written again, so that its sync means something. If that fails, a new
                    // file takes its place.
                    let file = file.write(&slot).is_ok().then_some(file);
                    (slot, file)
                }
                Found::Damaged => {
                    opened.cursors_lost.push(name.to_owned());
                    (Slot::default(), None)
                }
                Found::Version(found) => return Err(self.version(found)),
            };
            cursors.insert(name.to_owned(), (slot, file));
        }
        opened.cursors = cursors.len();
        Ok(cursors)
    }

    fn list_segments(&self) -> Result<Catalog, OpenError> {
        let names = self.disk.list().map_err(self.io("listing the files of"))?;
        let mut bases: Vec<Seq> = names.iter().filter_map(|n| segment::base_of(n)).collect();
        bases.sort_unstable();
        let mut catalog = Catalog {
            next: 1,
            ..Catalog::default()
        };
        for base in bases {
            let name = segment::name(base);
            let len = self
                .disk
                .length(&name)
                .map_err(self.io_of(&name, "looking at"))?;
            catalog.push(Arc::new(Segment::new(base, len)));
        }
        Ok(catalog)
    }

    /// Walks the newest segment and takes up the fold; answers the segment if records can be added to it.
    fn recover(
        &self,
        catalog: &mut Catalog,
        fold: &mut dyn Checkpoint,
        opened: &mut Opened,
    ) -> Result<Option<Active>, OpenError> {
        let Some(newest) = catalog.segments.back().cloned() else {
            return Ok(None);
        };
        let from = self.load_checkpoint(catalog, fold, opened)?;
        let older = catalog
            .segments
            .iter()
            .skip(from)
            .zip(catalog.segments.iter().skip(from + 1));
        for (segment, following) in older {
            self.refold(segment, following.base.0, fold)?;
        }

        let Some((file, head)) = self.head(&newest, Access::Write)? else {
            // Its records cannot be told apart any more; no number that it may have held is given out again.
            catalog.next = newest.base.0 + newest.bytes() / HEADER as u64;
            opened.corrupt += catalog.next - newest.base.0;
            return Ok(None);
        };
        let reading = self.io_of(&newest.name, "reading");
        let body = Body::open(file, head).map_err(&reading)?;
        let extent = body.extent().map_err(&reading)?;
        let end = match &extent {
            Some(extent) => extent.end,
            None => body.content.end().map_err(&reading)?,
        };
        let walked = self.walk_newest(&body, end, fold, opened)?;
        let growth = &walked.growth;
        // Nothing is added to a segment that was closed, or compressed after that.
        let closed = match extent {
            None if head.codec != PLAIN => Some(growth.extent(false)),
            extent => extent,
        };
        if let Some(extent) = closed {
            catalog.next = extent.last + 1;
            // All of it was synced: nothing that is missing was merely interrupted.
            opened.corrupt += std::mem::take(&mut opened.torn);
            opened.corrupt += extent.last.saturating_sub(growth.last);
            let _ = newest.extent.set(extent);
            return Ok(None);
        }
        catalog.next = growth.last + 1;
        if walked.unreadable {
            // What cannot be read is no torn tail: nothing is cut, nothing is added, and no number that may stand
            // there is given out again.
            let hidden = newest.bytes().saturating_sub(growth.end) / HEADER as u64;
            catalog.next += hidden;
            opened.corrupt += std::mem::take(&mut opened.torn) + hidden;
            let extent = Extent {
                end: newest.bytes(),
                ..growth.extent(true)
            };
            let _ = newest.extent.set(extent);
            return Ok(None);
        }
        self.rewrite(&*body.file, head.salt, &walked)?;
        self.keep(catalog, &newest, body.file, head, walked.growth, opened)
            .map(Some)
    }

    /// Loads the newest readable checkpoint; answers the place in the catalog of the segment it opens.
    fn load_checkpoint(
        &self,
        catalog: &Catalog,
        fold: &mut dyn Checkpoint,
        opened: &mut Opened,
    ) -> Result<usize, OpenError> {
        for (n, segment) in catalog.segments.iter().enumerate().rev() {
            let Some((file, head)) = self.head(segment, Access::Read)? else {
                continue;
            };
            let bytes = head
                .read_checkpoint(&*file)
                .map_err(self.io_of(&segment.name, "reading the checkpoint of"))?;
            if let Some(bytes) = bytes {
                let path = self.path.join(&segment.name);
                fold.load(&bytes)
                    .map_err(|reason| OpenError::Checkpoint { path, reason })?;
                opened.checkpoint = CheckpointFrom::Before(segment.base);
                return Ok(n);
            }
        }
        let whole = catalog.first() == 1;
        opened.checkpoint = if whole {
            CheckpointFrom::Fresh
        } else {
            CheckpointFrom::Lost
        };
        Ok(0)
    }

    fn refold(
        &self,
        segment: &Segment,
        upper: u64,
        fold: &mut dyn Checkpoint,
    ) -> Result<(), OpenError> {
        let Some((file, head)) = self.head(segment, Access::Read)? else {
            return Ok(());
        };
        let reading = self.io_of(&segment.name, "reading");
        let body = Body::open(file, head).map_err(&reading)?;
        let mut walk = Walk::new(&body, body.content.end().map_err(&reading)?, upper);
        loop {
            let piece = walk.step_patiently(SCAN, false).map_err(&reading)?;
            piece.entries.iter().for_each(|entry| fold.apply(entry));
            if piece.done {
                return Ok(());
            }
        }
    }

    fn walk_newest(
        &self,
        body: &Body,
        end: u64,
        fold: &mut dyn Checkpoint,
        opened: &mut Opened,
    ) -> Result<Walked, OpenError> {
        let head = &body.head;
        let mut growth = Growth::new(head.base, head.data_start());
        let mut walk = Walk::new(body, end, MAX_SEQ + 1);
        let (mut holes, mut last_group) = (Vec::new(), head.data_start());
        loop {
            let piece = walk
                .step_patiently(SCAN, true)
                .map_err(self.io("reading the newest segment in"))?;
            for (before, offset, header, entry) in piece.records() {
                holes.extend(before.iter().cloned());
                if opens_group(header) {
                    opened.corrupt += missing(&holes);
                    holes.clear();
                    last_group = offset;
                }
                growth.add(header.seq, header.time, offset, header.frame() as u64);
                fold.apply(entry);
            }
            if piece.done {
                opened.torn = missing(&holes);
                let unreadable = walk.tolerant;
                return Ok(Walked {
                    growth,
                    last_group,
                    holes,
                    unreadable,
                });
            }
        }
    }

    /// Writes the last group again. If its sync failed in an earlier process, its pages may be clean and yet not on
    /// disk: only a new write makes the sync that follows mean something. Groups before it were synced.
    ///
    /// Holes in it become voids, so that they are not taken for damage at the next start.
    fn rewrite(&self, file: &dyn DiskFile, salt: u32, walked: &Walked) -> Result<(), OpenError> {
        let from = walked.last_group;
        let mut bytes = vec![0; usize::try_from(walked.growth.end - from).unwrap_or(0)];
        read_full(file, &mut bytes, from).map_err(self.io("reading the newest segment in"))?;
        for Hole {
            from: start,
            to,
            numbers,
        } in &walked.holes
        {
            let range = start.saturating_sub(from) as usize..to.saturating_sub(from) as usize;
            if let Some(hole) = bytes.get_mut(range) {
                record::fill_void(hole, salt, numbers.start, numbers.end - numbers.start);
            }
        }
        write_all(file, &bytes, from).map_err(self.io("writing the last records again in"))
    }

    /// Cuts the torn tail and makes what is left durable.
    fn keep(
        &self,
        catalog: &mut Catalog,
        newest: &Arc<Segment>,
        file: Arc<dyn DiskFile>,
        head: Head,
        growth: Growth,
        opened: &mut Opened,
    ) -> Result<Active, OpenError> {
        let len = newest.bytes();
        opened.cut_bytes = len.saturating_sub(growth.end);
        if len != growth.end {
            file.truncate(growth.end)
                .map_err(self.io_of(&newest.name, "cutting the torn tail of"))?;
        }
        file.fdatasync()
            .map_err(self.io_of(&newest.name, "syncing"))?;
        catalog.used = catalog.used - len + growth.end;
        newest
            .len
            .store(growth.end, std::sync::atomic::Ordering::Relaxed);
        let end = growth.end;
        catalog.open = Some(growth);
        Ok(Active {
            segment: Arc::clone(newest),
            file,
            head,
            end,
        })
    }

    /// A segment's file and header; `None` if the header is damaged.
    fn head(&self, segment: &Segment, access: Access) -> Result<Option<Open>, OpenError> {
        let file = self
            .disk
            .open(&segment.name, access)
            .map_err(self.io_of(&segment.name, "opening"))?;
        match Head::read(&*file).map_err(self.io_of(&segment.name, "reading"))? {
            Ok(head) if head.base == segment.base => {
                let _ = segment.created.set(head.created);
                Ok(Some((file, head)))
            }
            Err(BadHead::Version(found)) => Err(self.version(found)),
            Err(BadHead::Codec(codec)) => Err(self.io_of(&segment.name, "reading")(
                reader::unknown_codec(codec),
            )),
            _ => Ok(None),
        }
    }
}

/// Whether an interrupted creation left the file.
pub(crate) fn is_unfinished(name: &str) -> bool {
    let ours = |n: &str| {
        let segment = n.strip_suffix(packing::SUFFIX).unwrap_or(n);
        n == FORMAT_FILE || n.ends_with(".cursor") || segment::base_of(segment).is_some()
    };
    name.strip_suffix(".tmp").is_some_and(ours)
}

fn missing(holes: &[Hole]) -> u64 {
    holes
        .iter()
        .map(|hole| hole.numbers.end - hole.numbers.start)
        .sum()
}
