//! Compresses sealed segments, in the background and one block at a time.
//!
//! ```text
//! N.seg (plain) ─▶ N.seg.zst.tmp: header, checkpoint, blocks, index ─▶ sync ─▶ read it all again ─▶ rename to N.seg ─▶ sync names
//! ```
//!
//! At every moment `N.seg` is one whole copy; who reads the plain file goes on in the other one. Offsets, numbers and
//! times stay as they were, so what anybody knows of the segment stays true. A segment with damage is left as it is: a
//! byte of it may yet be worth something. The newest segment is never compressed.
//!
//! It takes room for a second copy for a while, so it begins only where there is plenty and gives way to new records.
//! The copy counts as the journal's, and never grows past half a segment: one that does not shrink so far stays plain.

use std::{
    io,
    sync::{Arc, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use crate::{
    Compression,
    catalog::{Chores, Shared, lock},
    content::{Body, read},
    disk::{DiskFile, is_full, write_all},
    packed::BlockMaker,
    reader,
    segment::{self, CHECKPOINT, Extent, Head, IndexEntry, PLAIN, Segment, ZSTD},
    walk::{SCAN, Walk},
};

/// Between a segment's name and `.tmp` while it is compressed.
pub(crate) const SUFFIX: &str = ".zst";
/// Closed segments are looked for at least this often, and a failure is tried again after it.
const PAUSE: Duration = Duration::from_secs(30);
/// Room for so many copies of the segment must be there before one is begun.
const PLENTY: u64 = 3;
/// A segment that fails so often is left as it is until the next start.
const TRIES: u32 = 3;

/// What one step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// There is more to do.
    More,
    /// There is nothing to do.
    Idle,
    /// It failed and was taken back; the same segment is tried again.
    Failed,
}

/// Compresses one segment after the other.
pub(crate) struct Packer {
    shared: Arc<Shared>,
    level: i32,
    job: Option<Job>,
    /// The segment that failed last, and how often in a row.
    failed: (u64, u32),
}

impl Packer {
    /// `None` if nothing is to be compressed.
    pub(crate) fn new(shared: &Arc<Shared>) -> Option<Packer> {
        match shared.config.compression {
            Compression::None => None,
            Compression::Zstd { level } => Some(Packer {
                shared: Arc::clone(shared),
                level,
                job: None,
                failed: (0, 0),
            }),
        }
    }

    /// The thread: until the journal closes.
    pub(crate) fn run(mut self) {
        // Of the calling thread alone, on Linux; where it is not permitted, it is as urgent as the rest.
        let _ = rustix::process::setpriority_process(None, 19);
        loop {
            let step = self.step();
            let mut chores = lock(&self.shared.chores);
            if !chores.closing && step != Step::More {
                let failed = step == Step::Failed;
                let idle = |c: &mut Chores| !c.closing && (failed || !c.closed);
                let waited = self.shared.chore.wait_timeout_while(chores, PAUSE, idle);
                chores = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            chores.closed = false;
            if chores.closing {
                drop(chores);
                self.give_up();
                return;
            }
        }
    }

    /// Does a little: one block, or one of the larger steps.
    pub(crate) fn step(&mut self) -> Step {
        if let Some(job) = self.job.take() {
            return self.go_on(job);
        }
        let Some((segment, upper)) = self.candidate() else {
            return Step::Idle;
        };
        match self.begin(&segment, upper) {
            Ok(step) => step,
            Err(error) => self.fail(&segment, &error),
        }
    }

    fn fail(&mut self, segment: &Segment, error: &io::Error) -> Step {
        self.shared.counters.pack_failures.fetch_add(1, Relaxed);
        let (base, times) = self.failed;
        self.failed = match base == segment.base.0 {
            true => (base, times + 1),
            false => (segment.base.0, 1),
        };
        // A full disk says nothing about this segment.
        if self.failed.1 >= TRIES && !is_full(error) {
            settle(segment);
        }
        Step::Failed
    }

    /// Takes back what was begun; the plain segment is as it was.
    pub(crate) fn give_up(&mut self) {
        if let Some(job) = self.job.take() {
            self.remove(&job);
        }
    }

    fn remove(&self, job: &Job) {
        // What is left of it is also removed at the next start.
        if self.shared.disk.unlink(&job.temporary).is_ok() {
            lock(&self.shared.catalog).packing = 0;
        }
    }

    /// The newest segment that is closed by a following one and not looked at yet: the oldest are the next to go anyway.
    fn candidate(&self) -> Option<(Arc<Segment>, u64)> {
        let catalog = lock(&self.shared.catalog);
        let segments = &catalog.segments;
        let closed = segments.iter().zip(segments.iter().skip(1));
        let mut open = closed.filter(|(segment, _)| !segment.settled.load(Relaxed));
        open.next_back()
            .map(|(segment, following)| (Arc::clone(segment), following.base.0))
    }

    fn begin(&mut self, segment: &Arc<Segment>, upper: u64) -> io::Result<Step> {
        if self.shared.counters.disk_full.load(Relaxed)
            || self.shared.disk.space()? < PLENTY * segment.bytes()
        {
            return Ok(Step::Failed);
        }
        let edition = segment.edition();
        let body = reader::open(&self.shared, segment)?;
        let Some(body) = body.filter(|body| body.head.codec == PLAIN) else {
            return Ok(settle(segment));
        };
        let end = reader::extent_of(segment, &body, upper)?.end;
        let job = Job::begin(
            &self.shared,
            segment,
            (edition, body),
            end,
            upper,
            self.level,
        )?;
        lock(&self.shared.catalog).packing = job.at;
        self.job = Some(job);
        Ok(Step::More)
    }

    fn go_on(&mut self, mut job: Job) -> Step {
        if job.segment.edition() != job.edition {
            // It was removed; both its file and the copy take room for nothing.
            self.remove(&job);
            return Step::More;
        }
        let stage = match self.shared.counters.disk_full.load(Relaxed) {
            // What it has taken is needed for new records.
            true => Err(io::ErrorKind::StorageFull.into()),
            false => job.step(),
        };
        let stage = match stage {
            Ok(Stage::Whole) => publish(&self.shared, &job).map(|()| Stage::Whole),
            stage => stage,
        };
        match stage {
            Ok(Stage::More) => {
                lock(&self.shared.catalog).packing = job.at;
                self.job = Some(job);
                Step::More
            }
            Ok(Stage::Whole) => settle(&job.segment),
            Ok(Stage::Unfit) => {
                self.remove(&job);
                settle(&job.segment)
            }
            Err(error) => {
                self.remove(&job);
                self.fail(&job.segment, &error)
            }
        }
    }
}

/// There is nothing more to do about this one.
fn settle(segment: &Segment) -> Step {
    segment.settled.store(true, Relaxed);
    Step::More
}

/// Gives the compressed file the segment's name. Not while segments are being removed, so that a name which was
/// removed does not come back.
fn publish(shared: &Shared, job: &Job) -> io::Result<()> {
    let _removal = lock(&shared.removal);
    let kept = |segment: &Arc<Segment>| Arc::ptr_eq(segment, &job.segment);
    if !lock(&shared.catalog).segments.iter().any(kept) {
        shared.disk.unlink(&job.temporary)?;
        lock(&shared.catalog).packing = 0;
        return Ok(());
    }
    shared.disk.rename(&job.temporary, &job.segment.name)?;
    job.segment.next_edition();
    shared.holds.close_stale();
    let before = {
        let mut catalog = lock(&shared.catalog);
        catalog.packing = 0;
        let before = job.segment.len.swap(job.at, Relaxed);
        // It may be about to leave by now; then its bytes are not counted as used any more.
        if catalog.segments.iter().any(kept) {
            catalog.used = catalog.used - before + job.at;
        }
        before
    };
    let counters = &shared.counters;
    counters.packed_segments.fetch_add(1, Relaxed);
    counters.packed_from.fetch_add(before, Relaxed);
    counters.packed_to.fetch_add(job.at, Relaxed);
    // Both files are whole, so it does not matter which one a crash now leaves under the name.
    let _ = shared.disk.fsync_dir();
    Ok(())
}

/// How far a job got.
enum Stage {
    More,
    /// The plain segment is not whole, or empty, or does not shrink enough; it stays.
    Unfit,
    /// The compressed one is on disk and was read again.
    Whole,
}

/// One segment on its way.
struct Job {
    segment: Arc<Segment>,
    /// Of the plain file.
    edition: u32,
    temporary: String,
    file: Arc<dyn DiskFile>,
    head: Head,
    maker: BlockMaker,
    block_bytes: usize,
    /// Over the plain records.
    walk: Walk,
    /// Length of the new file so far, and what it may come to.
    at: u64,
    limit: u64,
    index: Vec<IndexEntry>,
    sums: Sums,
    /// Over the new file.
    check: Option<(Walk, Sums)>,
}

/// What both files must agree in.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sums {
    records: u64,
    min_time: u64,
    max_time: u64,
}

impl Sums {
    const NONE: Sums = Sums {
        records: 0,
        min_time: u64::MAX,
        max_time: 0,
    };

    fn add(&mut self, times: impl Iterator<Item = u64>) {
        for time in times {
            self.records += 1;
            self.min_time = self.min_time.min(time);
            self.max_time = self.max_time.max(time);
        }
    }
}

impl Job {
    fn begin(
        shared: &Shared,
        segment: &Arc<Segment>,
        (edition, body): (u32, Body),
        end: u64,
        upper: u64,
        level: i32,
    ) -> io::Result<Job> {
        let head = Head {
            version: crate::FORMAT,
            codec: ZSTD,
            ..body.head
        };
        let checkpoint = head.checkpoint_len as usize;
        // As it is: where it is damaged, its checksum goes on saying so.
        let checkpoint = read(&*body.file, CHECKPOINT, checkpoint, false)?;
        let maker = BlockMaker::new(level, head.salt)?;
        let temporary = format!("{}{SUFFIX}.tmp", segment.name);
        let file = shared.disk.create(&temporary)?;
        let job = Job {
            segment: Arc::clone(segment),
            edition,
            temporary,
            file,
            head,
            maker,
            block_bytes: usize::try_from(shared.config.block_bytes).unwrap_or(1 << 20),
            walk: Walk::new(&body, end, upper),
            at: head.data_start(),
            limit: shared.config.segment_bytes / 2,
            index: Vec::new(),
            sums: Sums::NONE,
            check: None,
        };
        let written = write_all(&*job.file, &segment::opening(&head, &checkpoint), 0);
        if let Err(error) = written {
            let _ = shared.disk.unlink(&job.temporary);
            return Err(error);
        }
        Ok(job)
    }

    fn step(&mut self) -> io::Result<Stage> {
        if let Some((walk, sums)) = &mut self.check {
            let piece = walk.step(SCAN, false)?;
            sums.add(piece.entries.iter().map(|e| e.time));
            return match (piece.done, &piece.gaps[..]) {
                (_, [_, ..]) => Err(differs()),
                (false, []) => Ok(Stage::More),
                (true, []) if *sums == self.sums && walk.next == self.walk.next => Ok(Stage::Whole),
                (true, []) => Err(differs()),
            };
        }
        self.block()
    }

    /// One block, or the end.
    fn block(&mut self) -> io::Result<Stage> {
        let (start, first) = (self.walk.at, self.walk.next);
        let piece = self.walk.step(self.block_bytes, false)?;
        if !piece.gaps.is_empty() || !piece.holes.is_empty() {
            return Ok(Stage::Unfit);
        }
        if self.walk.at > start {
            let len = usize::try_from(self.walk.at - start).map_err(io::Error::other)?;
            let plain = self.walk.content.fetch(start, len, false)?;
            let block = self.maker.block(start, first, &plain)?;
            if self.at + block.len() as u64 > self.limit {
                return Ok(Stage::Unfit);
            }
            write_all(&*self.file, &block, self.at)?;
            self.index.push(IndexEntry {
                seq: first,
                offset: start,
                before: self.sums.max_time,
                place: self.at,
            });
            self.at += block.len() as u64;
            self.sums.add(piece.entries.iter().map(|e| e.time));
        }
        if !piece.done {
            return Ok(Stage::More);
        }
        let all = self.walk.at >= self.walk.end && self.walk.next >= self.walk.upper;
        if !all || self.index.is_empty() {
            return Ok(Stage::Unfit);
        }
        self.finish()
    }

    /// Index and trailer; then all of it is read again.
    fn finish(&mut self) -> io::Result<Stage> {
        let extent = Extent {
            end: self.walk.at,
            last: self.walk.next - 1,
            min_time: self.sums.min_time,
            max_time: self.sums.max_time,
            records: self.sums.records,
            index: Some(Arc::new(std::mem::take(&mut self.index))),
        };
        let closing = segment::closing(&self.head, &extent);
        if self.at + closing.len() as u64 > self.limit {
            return Ok(Stage::Unfit);
        }
        write_all(&*self.file, &closing, self.at)?;
        self.at += closing.len() as u64;
        self.file.fdatasync()?;
        let body = Body::open(Arc::clone(&self.file), self.head)?;
        let walk = Walk::new(&body, extent.end, self.walk.upper);
        self.check = Some((walk, Sums::NONE));
        Ok(Stage::More)
    }
}

fn differs() -> io::Error {
    io::Error::other("the compressed segment does not read as the plain one")
}
