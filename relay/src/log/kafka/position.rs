//! Where a sink that sums up stands, and its sum: one file, replaced whole.
//!
//! ```text
//! cresset position 1
//! TOPIC                    of which cluster
//! OFFSET OFFSET …          of each partition
//! CHECKSUM                 SHA-256 of the lines before and the bytes after
//! the sink's state, as it gave it
//! ```

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::cut::Cut;

const MARK: &str = "cresset position 1";

/// What the file says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) cut: Cut,
    pub(super) state: Option<Bytes>,
}

/// The file.
pub(super) struct PositionFile {
    path: PathBuf,
    topic: String,
}

/// A position that cannot be kept or used.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadPosition {
    #[error("{}: {source}", path.display())]
    Disk { path: PathBuf, source: io::Error },
    #[error(
        "{} is damaged; move it away, and the sink begins with a new sum at the end of the log", path.display()
    )]
    Damaged { path: PathBuf },
}

impl PositionFile {
    /// The file of a sink in `folder`, which is made.
    pub(super) fn new(folder: &Path, sink: &str, topic: &str) -> Result<Self, BadPosition> {
        fs::create_dir_all(folder).map_err(|source| BadPosition::Disk {
            path: folder.to_owned(),
            source,
        })?;
        Ok(PositionFile {
            path: folder.join(format!("{sink}.position")),
            topic: topic.to_owned(),
        })
    }

    fn disk(&self, source: io::Error) -> BadPosition {
        BadPosition::Disk {
            path: self.path.clone(),
            source,
        }
    }

    /// What it says; none if there is none. Of another topic only the sum goes on.
    pub(super) fn load(&self) -> Result<Option<Position>, BadPosition> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.disk(error)),
        };
        let damaged = || BadPosition::Damaged {
            path: self.path.clone(),
        };
        let mut parts = bytes.splitn(5, |byte| *byte == b'\n');
        let mut line = || parts.next().and_then(|line| std::str::from_utf8(line).ok());
        let (mark, topic, cut, sum) = (line(), line(), line(), line());
        let state = parts.next().ok_or_else(damaged)?;
        let (Some(MARK), Some(topic), Some(text), Some(sum)) = (mark, topic, cut, sum) else {
            return Err(damaged());
        };
        let cut = Cut::from_text(text).ok_or_else(damaged)?;
        if checksum(&head(topic, text), state) != sum {
            return Err(damaged());
        }
        if topic != self.topic {
            tracing::warn!(
                path = %self.path.display(),
                topic,
                "the position is of another log; the sink begins anew"
            );
            return Ok(None);
        }
        let state = (!state.is_empty()).then(|| Bytes::copy_from_slice(state));
        Ok(Some(Position { cut, state }))
    }

    /// Replaces it. Blocks for the disk.
    pub(super) fn save(&self, cut: &Cut, state: Option<&Bytes>) -> Result<(), BadPosition> {
        self.write(cut, state.map_or(&[], |state| state))
            .map_err(|error| self.disk(error))
    }

    fn write(&self, cut: &Cut, state: &[u8]) -> io::Result<()> {
        let head = head(&self.topic, &cut.to_text());
        let new = self.path.with_extension("tmp");
        let mut file = File::create(&new)?;
        file.write_all(format!("{head}{}\n", checksum(&head, state)).as_bytes())?;
        file.write_all(state)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        match self.path.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    }
}

fn head(topic: &str, cut: &str) -> String {
    format!("{MARK}\n{topic}\n{cut}\n")
}

fn checksum(head: &str, state: &[u8]) -> String {
    let sum = Sha256::new_with_prefix(head).chain_update(state).finalize();
    sum.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_was_saved_and_damage_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = PositionFile::new(folder.path(), "metrics", "kafka c log").unwrap();
        assert_eq!(file.load().unwrap(), None);
        for state in [None, Some(Bytes::from_static(b"a\nb\0"))] {
            let cut = Cut(vec![3, 0, 9]);
            file.save(&cut, state.as_ref()).unwrap();
            assert_eq!(file.load().unwrap(), Some(Position { cut, state }));
        }
        let other = PositionFile::new(folder.path(), "metrics", "kafka c other").unwrap();
        assert_eq!(other.load().unwrap(), None);
        let path = folder.path().join("metrics.position");
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, bad).unwrap();
            assert!(file.load().is_err(), "byte {at}");
        }
    }
}
