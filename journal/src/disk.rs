//! The seam to the outside world: one directory of a real file system, or its simulated twin ([`crate::sim`]).
//!
//! Everything that the journal knows of storage goes through [`Disk`] and [`DiskFile`], so every promise can be
//! tested against a disk that forgets, reorders, tears and fails. The contract is POSIX's, no more:
//!
//! * bytes written are durable only after [`DiskFile::fdatasync`] of that file;
//! * a name created, renamed or removed is durable only after [`Disk::fsync_dir`];
//! * a failed `fdatasync` leaves the file's un-synced bytes in an unknown state, for good: the kernel may have
//!   marked the pages clean, so a second, successful call proves nothing.
//!
//! No memory maps: an I/O error has to be an error, not a signal.

use std::{
    fs, io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::fs::{Advice, FlockOperation};

/// The lock is asked for this often, with a pause between.
const LOCK_ATTEMPTS: u32 = 4;
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only `pread` and `length` will be called.
    Read,
    /// All of [`DiskFile`].
    Write,
}

/// One directory, flat: names hold no `/`.
pub trait Disk: Send + Sync {
    /// Opens an existing file.
    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>>;
    /// Makes an empty file, in place of one that has the name already.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Gives a file another name; a file that had that name is gone. Atomic.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a name; open handles keep working.
    fn unlink(&self, name: &str) -> io::Result<()>;
    /// All names, in no order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Length in bytes of the file with this name.
    fn length(&self, name: &str) -> io::Result<u64>;
    /// Makes every create, rename and unlink so far durable.
    fn fsync_dir(&self) -> io::Result<()>;
    /// Bytes that may still be written, as far as the file system tells.
    fn space(&self) -> io::Result<u64>;
    /// Takes the directory's single-writer lock; it is held until the guard is dropped.
    fn lock(&self) -> Result<Box<dyn Lock>, LockError>;
    /// Who holds that lock, in its own words. Changes nothing.
    fn holder(&self) -> io::Result<Option<String>> {
        Ok(None)
    }
    /// Where this is, for error messages.
    fn path(&self) -> PathBuf;
}

/// An open file. Positions are explicit; there is no file offset.
pub trait DiskFile: Send + Sync {
    /// Reads up to `buf.len()` bytes; 0 is the end of the file.
    fn pread(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Reads up to `len` bytes behind what is in `out`; 0 is the end of the file.
    fn pread_behind(&self, out: &mut Vec<u8>, len: usize, offset: u64) -> io::Result<usize> {
        let start = out.len();
        out.resize(start + len, 0);
        let read = self.pread(&mut out[start..], offset);
        out.truncate(start + read.as_ref().map_or(0, |read| *read));
        read
    }
    /// Writes up to `buf.len()` bytes; fewer is no error.
    fn pwrite(&self, buf: &[u8], offset: u64) -> io::Result<usize>;
    /// Makes the file's bytes and length durable. Never call it again after it failed.
    fn fdatasync(&self) -> io::Result<()>;
    /// Length in bytes.
    fn length(&self) -> io::Result<u64>;
    /// Cuts the file (or lengthens it with zeros).
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Says that nobody is expected to read it: what the system holds of it in memory may go. Only a hint.
    fn give_back(&self) {}
}

/// Held as long as this process is the directory's writer.
pub trait Lock: Send {}

/// The single-writer lock was not had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process (or another journal of this process) holds it; `by` is what it wrote of itself.
    #[error("held by {by}")]
    Held {
        /// What the holder said of itself, such as `process 4711`.
        by: String,
    },
    /// The lock file could not be made or locked.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Writes all of `buf`, however many calls it takes.
pub(crate) fn write_all(file: &dyn DiskFile, mut buf: &[u8], mut offset: u64) -> io::Result<()> {
    while !buf.is_empty() {
        match file.pwrite(buf, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                buf = buf.get(n..).unwrap_or_default();
                offset += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Fills `buf` from `offset`; answers how many bytes there were before the end of the file.
pub(crate) fn read_full(file: &dyn DiskFile, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    until(buf.len(), |done| {
        file.pread(&mut buf[done..], offset + done as u64)
    })
}

/// The first `len` bytes from `offset`, or as many as there are before the end of the file.
pub(crate) fn read_new(file: &dyn DiskFile, len: usize, offset: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(len);
    until(len, |done| {
        file.pread_behind(&mut bytes, len - done, offset + done as u64)
    })?;
    Ok(bytes)
}

/// Reads on until so many bytes are there or the file ends.
fn until(len: usize, mut read: impl FnMut(usize) -> io::Result<usize>) -> io::Result<usize> {
    let mut done = 0;
    while done < len {
        match read(done) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// Whether the error says that there is no room (full disk or quota), which heals by itself.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// A directory of a real file system.
pub struct RealDisk {
    path: PathBuf,
    /// For `fsync`; opened once, so a directory that is moved stays the same directory.
    directory: fs::File,
}

impl RealDisk {
    /// Opens the directory, making it and its parents (0700) where they are missing.
    ///
    /// # Errors
    /// As `mkdir`, `open` and `fsync` give them.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<RealDisk> {
        let path = path.into();
        make_directories(&path)?;
        RealDisk::open_existing(path)
    }

    /// Opens a directory that must be there already; changes nothing.
    ///
    /// # Errors
    /// As `open` gives them.
    pub fn open_existing(path: impl Into<PathBuf>) -> io::Result<RealDisk> {
        let path = path.into();
        let directory = fs::OpenOptions::new()
            .read(true)
            .custom_flags(rustix::fs::OFlags::DIRECTORY.bits() as i32)
            .open(&path)?;
        Ok(RealDisk { path, directory })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// `mkdir -p` whose every new name is durable.
fn make_directories(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        make_directories(parent)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    match path.parent().filter(|p| !p.as_os_str().is_empty()) {
        Some(parent) => fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

impl Disk for RealDisk {
    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(access == Access::Write)
            .open(self.at(name))?;
        Ok(Arc::new(RealFile(file)))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.at(name))?;
        Ok(Arc::new(RealFile(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.at(from), self.at(to))
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.at(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        Ok(fs::metadata(self.at(name))?.len())
    }

    fn fsync_dir(&self) -> io::Result<()> {
        self.directory.sync_all()
    }

    fn space(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstatvfs(&self.directory)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn lock(&self) -> Result<Box<dyn Lock>, LockError> {
        let path = self.at("LOCK");
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)?;
        for attempt in 1.. {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                // Whoever only looks who holds it has it for a moment.
                Err(rustix::io::Errno::WOULDBLOCK) if attempt < LOCK_ATTEMPTS => {
                    std::thread::sleep(LOCK_PAUSE);
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    let by = said_of_holder(&path);
                    return Err(LockError::Held { by });
                }
                Err(e) => return Err(LockError::Io(e.into())),
            }
        }
        // Only a help to people: a full disk must not keep a journal from being opened.
        let note = format!("process {}\n", std::process::id());
        let _ = file.set_len(0);
        let _ = file.write_at(note.as_bytes(), 0);
        Ok(Box::new(RealLock(file)))
    }

    fn holder(&self) -> io::Result<Option<String>> {
        let path = self.at("LOCK");
        let file = match fs::File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        // Let go of at once: closing the file would do it, but later where a child is about to start.
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => rustix::fs::flock(&file, FlockOperation::Unlock)?,
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(Some(said_of_holder(&path))),
            Err(e) => return Err(e.into()),
        }
        Ok(None)
    }

    fn path(&self) -> PathBuf {
        self.path.clone()
    }
}

/// What the holder wrote of itself into the lock file.
fn said_of_holder(path: &Path) -> String {
    let by = fs::read_to_string(path).unwrap_or_default();
    match by.trim() {
        "" => "another process".to_owned(),
        by => by.to_owned(),
    }
}

/// The lock goes with the open file description, so also when the process is killed.
struct RealLock(fs::File);

impl Lock for RealLock {}

impl Drop for RealLock {
    fn drop(&mut self) {
        // Not left to the closing of the file: a child that is about to start may still have it open.
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

struct RealFile(fs::File);

impl DiskFile for RealFile {
    fn pread(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }

    /// Into memory as it comes, which is not made zero before.
    fn pread_behind(&self, out: &mut Vec<u8>, len: usize, offset: u64) -> io::Result<usize> {
        out.reserve_exact(len);
        let start = out.len();
        let room = rustix::buffer::spare_capacity(out);
        let read = rustix::io::pread(&self.0, room, offset)?;
        // There may be room for more than was asked for.
        out.truncate(start + len);
        Ok(read.min(len))
    }

    fn pwrite(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(buf, offset)
    }

    fn fdatasync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn give_back(&self) {
        // Where a file system has no such thing, nothing is lost.
        let _ = rustix::fs::fadvise(&self.0, 0, None, Advice::DontNeed);
    }
}
