//! The data folder: what holds it, what it says of itself.
//!
//! ```text
//! DATA/cresset-data    "cresset data", its format, the relay's id     read before anything is written
//! DATA/lock            held while a relay runs; holds its process id
//! DATA/journal/        segments and cursors
//! DATA/positions/      where sinks that sum up stand, with the log in Kafka
//! ```
//! A folder of another format, or one that another relay holds, is refused and left as it is.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use proto::StreamId;
use rustix::fs::{FlockOperation, flock};

/// Format of the data folder.
const FORMAT: u32 = 1;

/// The version file.
const MARK: &str = "cresset-data";

/// What it begins with in every format.
const FIRST_LINE: &str = "cresset data";

/// What only this folder knows.
const SECRET: &str = "relay.secret";

/// What an attempt to write writes: more than a file system keeps in the file's own entry.
const PROBE_BYTES: usize = 16 << 10;

/// The lock file.
const LOCK: &str = "lock";

/// Why the data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is a file where the folder should be, or one above it.
    #[error("{path} is a file; relay.data_dir (--data) needs a folder")]
    NotFolder {
        /// The file.
        path: PathBuf,
    },
    /// The version file is none.
    #[error(
        "{path} is not the version file of a data folder (it begins with {begins:?}); restore it, or give another relay.data_dir (--data)"
    )]
    NotMark {
        /// The file.
        path: PathBuf,
        /// What it begins with.
        begins: String,
    },
    /// It cannot be read.
    #[error("cannot read {path}: {source}; relay.data_dir needs a folder that this user may use")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Made by another version.
    #[error(
        "{path} has data format {found}; this program reads format {FORMAT}. Give another relay.data_dir, or use the version that wrote it"
    )]
    Format {
        /// The folder.
        path: PathBuf,
        /// Its format.
        found: String,
    },
    /// There is a journal, but nothing says of which format.
    #[error(
        "{path} holds a journal without its version file `{MARK}`; give another relay.data_dir, or restore that file"
    )]
    NoMark {
        /// The folder.
        path: PathBuf,
    },
    /// Another relay uses it.
    #[error("{path} is in use by {holder}; stop that relay, or give another relay.data_dir")]
    Locked {
        /// The folder.
        path: PathBuf,
        /// Who holds it.
        holder: String,
    },
    /// It cannot be written.
    #[error(
        "cannot write {path}: {source}; relay.data_dir needs a folder that this user may write, with room in it"
    )]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The secret is not one.
    #[error(
        "{path} is damaged: it is not 32 bytes long; restore it, or remove it, and resume tokens of limited readers are not known any more"
    )]
    Secret {
        /// The file.
        path: PathBuf,
    },
    /// The journal in it cannot be opened.
    #[error("the journal cannot be opened: {0}")]
    Journal(#[from] journal::OpenError),
    /// The log in Kafka cannot be used.
    #[error("relay.log: {0}")]
    Kafka(String),
    /// Its brokers do not answer.
    #[error("relay.log: {0}")]
    Unreached(String),
}

/// A data folder that this process holds.
pub(super) struct Folder {
    pub(super) path: PathBuf,
    pub(super) relay_id: String,
    pub(super) secret: [u8; 32],
    lock: File,
}

impl Folder {
    pub(super) fn take(path: &Path) -> Result<Self, OpenError> {
        let failed = |what: &Path| {
            let path = what.to_owned();
            move |source| OpenError::Write { path, source }
        };
        let mark = path.join(MARK);
        if let Some(file) = path.ancestors().find(|part| part.is_file()) {
            return Err(OpenError::NotFolder {
                path: file.to_owned(),
            });
        }
        // Events tell of secrets, so nobody else may look in.
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(failed(path))?;
        let known = read_mark(path, &mark)?;
        let lock = lock(path)?;
        // Only the holder of the lock makes the mark; who waited for it reads what the other made.
        let relay_id = match known.map_or_else(|| read_mark(path, &mark), |id| Ok(Some(id)))? {
            Some(id) => id,
            None => make_mark(path, &mark).map_err(failed(&mark))?,
        };
        Ok(Self {
            path: path.to_owned(),
            relay_id,
            secret: secret(path)?,
            lock,
        })
    }

    /// Writes what needs room on the disk, and takes it away again: whether events could be kept there. Blocks.
    pub(super) fn attempt(&self) -> Result<(), String> {
        let name = self.path.join("probe.tmp");
        let tried = File::create(&name).and_then(|mut file| {
            file.write_all(&[0; PROBE_BYTES])?;
            file.sync_data()
        });
        // Whether it can be removed matters little: the next one replaces it.
        let _ = fs::remove_file(&name);
        tried.map_err(|error| {
            let path = self.path.display();
            format!("nothing can be written to {path}: {error}")
        })
    }

    /// Frees the folder, also while a child that is about to start still has the file open.
    pub(super) fn free(&self) {
        // Closing the file would do it a moment later.
        let _ = flock(&self.lock, FlockOperation::Unlock);
    }
}

/// The relay's id out of the version file; none in a new folder.
fn read_mark(path: &Path, mark: &Path) -> Result<Option<String>, OpenError> {
    let text = match fs::read(mark) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(why) if why.kind() == io::ErrorKind::NotFound => {
            return if path.join("journal").exists() {
                Err(OpenError::NoMark {
                    path: path.to_owned(),
                })
            } else {
                Ok(None)
            };
        }
        Err(source) => {
            return Err(OpenError::Read {
                path: mark.to_owned(),
                source,
            });
        }
    };
    if !text.starts_with(FIRST_LINE) {
        return Err(OpenError::NotMark {
            path: mark.to_owned(),
            begins: text.chars().take(20).collect(),
        });
    }
    let value = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key))
            .map(|value| value.trim().to_owned())
    };
    let format = value("format ").unwrap_or_else(|| "unknown".to_owned());
    if format != FORMAT.to_string() {
        return Err(OpenError::Format {
            path: path.to_owned(),
            found: format,
        });
    }
    Ok(Some(value("relay ").unwrap_or_default()))
}

/// Writes the version file of a new folder, whole or not at all.
fn make_mark(path: &Path, mark: &Path) -> io::Result<String> {
    let relay_id = StreamId::random().to_string();
    let new = mark.with_extension("new");
    let mut file = File::create(&new)?;
    write!(file, "{FIRST_LINE}\nformat {FORMAT}\nrelay {relay_id}\n")?;
    file.sync_all()?;
    fs::rename(&new, mark)?;
    File::open(path)?.sync_all()?;
    Ok(relay_id)
}

/// Reads the folder's secret, or draws one that is there whole or not at all.
fn secret(path: &Path) -> Result<[u8; 32], OpenError> {
    let name = path.join(SECRET);
    match fs::read(&name) {
        Ok(bytes) => bytes
            .try_into()
            .map_err(|_| OpenError::Secret { path: name }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_secret(path, &name).map_err(|source| OpenError::Write { path: name, source })
        }
        Err(source) => Err(OpenError::Read { path: name, source }),
    }
}

fn make_secret(path: &Path, name: &Path) -> io::Result<[u8; 32]> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret)?;
    let new = path.join(format!("{SECRET}.new"));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(&secret)?;
    file.sync_all()?;
    fs::rename(&new, name)?;
    File::open(path)?.sync_all()?;
    Ok(secret)
}

/// Takes the lock, or says who has it.
fn lock(path: &Path) -> Result<File, OpenError> {
    let name = path.join(LOCK);
    let failed = |source: io::Error| OpenError::Write {
        path: name.clone(),
        source,
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&name)
        .map_err(failed)?;
    if let Err(why) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
        if why != rustix::io::Errno::WOULDBLOCK {
            return Err(failed(why.into()));
        }
        let mut text = String::new();
        // Who holds it is told as well as it can be read; that it is held is certain.
        let _ = file.read_to_string(&mut text);
        let holder = if text.trim().is_empty() {
            "another process".to_owned()
        } else {
            format!("process {}", text.trim())
        };
        return Err(OpenError::Locked {
            path: path.to_owned(),
            holder,
        });
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .map_err(failed)?;
    write!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_there_whole_or_not_at_all_and_never_drawn_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        // What a crash leaves of one that is being made is none.
        fs::write(path.join("relay.secret.new"), [1; 7]).unwrap();
        let drawn = secret(path).unwrap();
        assert_eq!(secret(path).unwrap(), drawn);
        assert!(!path.join("relay.secret.new").exists());

        fs::write(path.join(SECRET), [1; 7]).unwrap();
        let short = secret(path).unwrap_err().to_string();
        assert!(short.contains("relay.secret is damaged"), "{short}");

        fs::remove_file(path.join(SECRET)).unwrap();
        fs::create_dir(path.join(SECRET)).unwrap();
        let unreadable = secret(path).unwrap_err().to_string();
        assert!(unreadable.starts_with("cannot read"), "{unreadable}");
    }
}
