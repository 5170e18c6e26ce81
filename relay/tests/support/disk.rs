//! A real folder whose disk does what the test says.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};

use journal::disk::{Access, DiskFile, Lock, LockError};
use journal::{Disk, RealDisk};

/// What a disk does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mood {
    Works,
    /// So many more syncs come back, and no other.
    Hangs(u64),
    /// No room for anything more.
    Full,
    /// Nothing can be written (EIO).
    Broken,
}

/// The disk; a clone is the same one.
#[derive(Clone)]
pub struct Moody {
    disk: Arc<RealDisk>,
    mood: Arc<(Mutex<Mood>, Condvar)>,
}

impl Moody {
    pub fn new(folder: &Path) -> Moody {
        Moody {
            disk: Arc::new(RealDisk::open(folder).unwrap()),
            mood: Arc::new((Mutex::new(Mood::Works), Condvar::new())),
        }
    }

    pub fn set(&self, mood: Mood) {
        *self.mood.0.lock().unwrap() = mood;
        self.mood.1.notify_all();
    }

    /// Lets one more sync come back.
    pub fn one_more(&self) {
        let mut mood = self.mood.0.lock().unwrap();
        if let Mood::Hangs(left) = &mut *mood {
            *left += 1;
        }
        self.mood.1.notify_all();
    }

    fn mood(&self) -> Mood {
        *self.mood.0.lock().unwrap()
    }

    /// Whether there is room and the disk takes it.
    fn writable(&self) -> io::Result<()> {
        match self.mood() {
            Mood::Full => Err(io::ErrorKind::StorageFull.into()),
            Mood::Broken => Err(io::Error::from_raw_os_error(5)),
            Mood::Works | Mood::Hangs(_) => Ok(()),
        }
    }

    fn wrap(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(MoodyFile {
            file,
            disk: self.clone(),
        })
    }
}

impl Disk for Moody {
    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(name, access).map(|file| self.wrap(file))
    }
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.create(name).map(|file| self.wrap(file))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn unlink(&self, name: &str) -> io::Result<()> {
        self.disk.unlink(name)
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
    fn length(&self, name: &str) -> io::Result<u64> {
        self.disk.length(name)
    }
    fn fsync_dir(&self) -> io::Result<()> {
        self.disk.fsync_dir()
    }
    fn space(&self) -> io::Result<u64> {
        match self.mood() {
            Mood::Full => Ok(0),
            _ => self.disk.space(),
        }
    }
    fn lock(&self) -> Result<Box<dyn Lock>, LockError> {
        self.disk.lock()
    }
    fn path(&self) -> PathBuf {
        self.disk.path()
    }
}

struct MoodyFile {
    file: Arc<dyn DiskFile>,
    disk: Moody,
}

impl DiskFile for MoodyFile {
    fn pread(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.pread(buf, offset)
    }
    fn pwrite(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.disk.writable()?;
        self.file.pwrite(buf, offset)
    }
    fn fdatasync(&self) -> io::Result<()> {
        let (mood, changed) = &*self.disk.mood;
        let mut mood = mood.lock().unwrap();
        while *mood == Mood::Hangs(0) {
            mood = changed.wait(mood).unwrap();
        }
        match &mut *mood {
            Mood::Hangs(left) => *left -= 1,
            Mood::Broken => return Err(io::Error::from_raw_os_error(5)),
            Mood::Works | Mood::Full => {}
        }
        drop(mood);
        self.file.fdatasync()
    }
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }
}
