//! The file that is written: opening, mending, appending, syncing.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::num::NonZeroU64;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::Advice;
use yaml::Span;

use super::rotated::Rotated;
use super::{Compress, Rotate};
use crate::blocking::Destination;
use crate::lines::{Lines, unreadable};
use crate::{Batch, Outcome, Unavailable};

/// Readable by its owner and group: arguments of commands may hold secrets.
const MODE: u32 = 0o640;
/// No line of ours is longer: an event has at most 1 MiB, and JSON makes at most six bytes of one.
const LONGEST_LINE: u64 = 16 << 20;

/// Written at once: what the processor still has at hand. A batch written as a whole costs twice as much to copy.
const CHUNK: usize = 128 << 10;

/// So much of a file that was just written stays in the page cache, for readers that follow it.
const FOLLOWED: u64 = 16 << 20;
/// Given back at once.
const STEP: u64 = 4 << 20;

/// Between two looks at the age of a file that gets no events: clocks may be set.
const LEAST_REST: Duration = Duration::from_millis(10);
const MOST_REST: Duration = Duration::from_secs(60);

pub(super) struct Writer {
    path: PathBuf,
    lines: Lines,
    max_size: u64,
    max_age: Option<Duration>,
    open: Option<Open>,
    rotated: Rotated,
    /// Full files are read again, to be compressed.
    gzip: bool,
    tidied: bool,
    buffer: Vec<u8>,
}

struct Open {
    file: File,
    /// Device and inode, to see when the name means another file.
    identity: (u64, u64),
    /// Synced length.
    length: u64,
    /// Written behind that.
    ahead: u64,
    /// What the kernel need not hold in memory, from the start; none: the full file is read once more.
    given_back: Option<u64>,
    /// When it was made, as well as the file system knows.
    born: SystemTime,
}

impl Writer {
    pub(super) fn new(path: PathBuf, rotate: Rotate, lines: Lines) -> Self {
        let gzip = rotate.compress == Compress::Gzip;
        Writer {
            rotated: Rotated::new(path.clone(), rotate.keep, gzip),
            gzip,
            path,
            lines,
            max_size: rotate.max_size.0,
            max_age: rotate.max_age.map(|Span(age)| age),
            open: None,
            tidied: false,
            buffer: Vec::new(),
        }
    }

    fn write(&mut self, batch: &Batch) -> io::Result<Vec<Outcome>> {
        self.ensure_open()?;
        self.rotate_old()?;
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let mut outcomes = Vec::with_capacity(batch.len());
        for event in batch.events() {
            let start = buffer.len();
            outcomes.push(match self.lines.write(event, &mut buffer) {
                Ok(()) => Outcome::Done,
                Err(malformed) => Outcome::Reject {
                    reason: unreadable(event.kind(), &malformed),
                },
            });
            let before = self.length() + start as u64;
            if before > 0 && before + (buffer.len() - start) as u64 > self.max_size {
                self.append(&buffer[..start], true)?;
                self.rotate()?;
                buffer.drain(..start);
            } else if buffer.len() >= CHUNK {
                self.append(&buffer, false)?;
                buffer.clear();
            }
        }
        self.append(&buffer, true)?;
        self.buffer = buffer;
        Ok(outcomes)
    }

    /// With what is not synced yet.
    fn length(&self) -> u64 {
        let open = self.open.as_ref();
        open.map_or(0, |open| open.length + open.ahead)
    }

    /// Writes, and syncs all that was written if it is to; on failure nothing behind the synced length stays in the file, as
    /// far as the disk still obeys.
    fn append(&mut self, bytes: &[u8], sync: bool) -> io::Result<()> {
        let open = self.open.as_mut();
        let open = open.ok_or_else(|| io::Error::other("the file is closed"))?;
        let done = open.append(bytes, sync);
        if done.is_err() {
            let _ = open.file.set_len(open.length);
            open.ahead = 0;
        }
        done
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.open = None;
        self.rotated.take_current()?;
        self.ensure_open()
    }

    /// How long until the file that is open is too old; none: it never is.
    fn time_left(&self) -> Option<Duration> {
        let open = self.open.as_ref().filter(|open| open.length > 0)?;
        // A clock that was set back makes it young.
        let age = open.born.elapsed().unwrap_or_default();
        Some(self.max_age?.saturating_sub(age))
    }

    fn rotate_old(&mut self) -> io::Result<()> {
        if self.time_left().is_some_and(|left| left.is_zero()) {
            self.rotate()?;
        }
        Ok(())
    }

    fn ensure_open(&mut self) -> io::Result<()> {
        if let Some(open) = &self.open
            && identity(&self.path)? == Some(open.identity)
        {
            return Ok(());
        }
        self.open = None;
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder)?;
        if !std::mem::replace(&mut self.tidied, true) {
            self.rotated.tidy()?;
        }
        let mut open = Open::at(&self.path)?;
        open.given_back = (!self.gzip).then_some(open.length);
        // The name must be on disk before an event in the file counts as delivered.
        File::open(folder)?.sync_all()?;
        self.open = Some(open);
        Ok(())
    }
}

impl Destination for Writer {
    fn deliver(&mut self, batch: &Batch) -> Result<Vec<Outcome>, Unavailable> {
        self.write(batch).map_err(|e| {
            self.open = None;
            Unavailable::new(format!("{}: {}", self.path.display(), advice(&e)))
        })
    }

    fn reopen(&mut self) {
        self.open = None;
    }

    fn rest(&self) -> Option<Duration> {
        self.time_left()
            .map(|left| left.clamp(LEAST_REST, MOST_REST))
    }

    fn idle(&mut self) {
        if let Err(error) = self.ensure_open().and_then(|()| self.rotate_old()) {
            // The next batch opens it anew and tells what is wrong.
            self.open = None;
            tracing::warn!(file = %self.path.display(), %error, "an old file was not rotated");
        }
    }
}

impl Open {
    fn append(&mut self, bytes: &[u8], sync: bool) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.ahead += bytes.len() as u64;
        if sync && self.ahead > 0 {
            self.file.sync_data()?;
            self.length += std::mem::take(&mut self.ahead);
            self.give_back();
        }
        Ok(())
    }

    /// Nobody here reads the file again. Memory that it takes is its neighbours', and memory that was never used before costs more
    /// than to copy a line there: on a virtual machine 1.1 ms of CPU a MiB, against 0.35 where the same pages come round again.
    fn give_back(&mut self) {
        let followed = self.length.saturating_sub(FOLLOWED);
        let Some(from) = self.given_back.filter(|from| from + STEP <= followed) else {
            return;
        };
        let length = NonZeroU64::new(followed - from);
        // Where a file system has no such thing, nothing is lost.
        let _ = rustix::fs::fadvise(&self.file, from, length, Advice::DontNeed);
        self.given_back = Some(followed);
    }

    fn at(path: &Path) -> io::Result<Open> {
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(MODE)
            .open(path)?;
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::other(
                "is not a regular file; for a pipe or terminal use a stdout sink",
            ));
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::other(
                    "another sink or program writes to it; give each its own path",
                ));
            }
            // A file system without locks.
            Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(e)) => return Err(e),
        }
        let length = mend(&mut file, meta.len())?;
        // Not every file system knows when a file was made; then it is as old as its last event, or new.
        let born = meta.created().or_else(|_| meta.modified());
        Ok(Open {
            file,
            identity: (meta.dev(), meta.ino()),
            length,
            ahead: 0,
            given_back: None,
            born: born.unwrap_or_else(|_| SystemTime::now()),
        })
    }
}

fn identity(path: &Path) -> io::Result<Option<(u64, u64)>> {
    match fs::metadata(path) {
        Ok(meta) => Ok(Some((meta.dev(), meta.ino()))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Cuts off a last line that has no newline, and says how long the file is then.
fn mend(file: &mut File, length: u64) -> io::Result<u64> {
    let Some(torn) = torn_line(file, length)? else {
        return Ok(length);
    };
    let mended = match torn {
        Torn::Ours { start } => {
            file.set_len(start)?;
            start
        }
        Torn::Foreign => {
            file.write_all(b"\n")?;
            length + 1
        }
    };
    file.sync_data()?;
    Ok(mended)
}

enum Torn {
    /// Begins here.
    Ours { start: u64 },
    /// Not to be cut.
    Foreign,
}

fn torn_line(file: &mut File, length: u64) -> io::Result<Option<Torn>> {
    const STEP: u64 = 64 << 10;
    let mut chunk = Vec::new();
    let mut end = length;
    while end > 0 {
        let start = end.saturating_sub(STEP);
        file.seek(SeekFrom::Start(start))?;
        chunk.clear();
        Read::by_ref(file)
            .take(end - start)
            .read_to_end(&mut chunk)?;
        if let Some(at) = chunk.iter().rposition(|&byte| byte == b'\n') {
            let next = start + at as u64 + 1;
            return Ok((next < length).then_some(Torn::Ours { start: next }));
        }
        if length - start > LONGEST_LINE {
            return Ok(Some(Torn::Foreign));
        }
        end = start;
    }
    if length == 0 {
        return Ok(None);
    }
    // The whole file is one torn line. It may be somebody else's file, named by mistake.
    let ours = chunk.starts_with(b"{") || chunk.starts_with(b"==") || chunk.starts_with(&[0]);
    Ok(Some(if ours {
        Torn::Ours { start: 0 }
    } else {
        Torn::Foreign
    }))
}

fn advice(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            format!(
                "{error}; let the user that runs this program write there, or choose another path"
            )
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            format!("{error}; make room, it goes on by itself")
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mended(text: &[u8]) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        fs::write(&path, text).unwrap();
        let open = Open::at(&path).unwrap();
        let after = fs::read(&path).unwrap();
        assert_eq!(open.length, after.len() as u64);
        after
    }

    #[test]
    fn a_file_cut_at_any_byte_is_whole_lines_again() {
        let text = b"{\"a\":1}\n{\"b\":2}\n{\"c\":3}\n";
        for cut in 0..=text.len() {
            let whole = text[..cut]
                .iter()
                .rposition(|&b| b == b'\n')
                .map_or(0, |at| at + 1);
            assert_eq!(mended(&text[..cut]), &text[..whole], "cut at {cut}");
        }
    }

    #[test]
    fn a_tail_of_zeros_is_cut_too() {
        assert_eq!(mended(b"{}\n{\"a\0\0\0\0"), b"{}\n");
        assert_eq!(mended(&[0; 100]), b"");
    }

    #[test]
    fn a_torn_line_longer_than_a_block_is_found() {
        let long = [b"{}\n".as_slice(), &vec![b'x'; 200 << 10]].concat();
        assert_eq!(mended(&long), b"{}\n");
    }

    #[test]
    fn a_file_that_cannot_be_ours_loses_nothing() {
        assert_eq!(mended(b"127.0.0.1 localhost"), b"127.0.0.1 localhost\n");
    }

    #[test]
    fn what_nobody_follows_any_more_is_given_back_and_stays_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        let mut open = Open::at(&path).unwrap();
        open.given_back = Some(0);
        let line: Vec<u8> = (0..1 << 20)
            .map(|n| (n % 251) as u8)
            .chain([b'\n'])
            .collect();
        for written in 1..=24 {
            open.append(&line, true).unwrap();
            let back = open.given_back.unwrap();
            let followed = (written * line.len() as u64).saturating_sub(FOLLOWED);
            assert!(back <= followed && followed < back + STEP, "{back}");
        }
        assert!(fs::read(&path).unwrap() == line.repeat(24));
    }

    #[test]
    fn a_second_writer_is_told_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        let _first = Open::at(&path).unwrap();
        let second = Open::at(&path).err().unwrap();
        assert!(
            second.to_string().contains("another sink or program"),
            "{second}"
        );
    }
}
