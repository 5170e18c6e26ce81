//! Whether files are still those that were read: their inode, size and time of change.
//!
//! Kubernetes swaps a symbolic link when a mounted secret changes, editors replace the file, `echo > file` writes into it:
//! the stamp of what the path leads to is another in all three cases. One `stat` a file, so it can be taken before every
//! request.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// What `stat` said of some files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp(Vec<Option<[i64; 5]>>);

impl Stamp {
    /// Asks about every file; one that is not there counts as such.
    pub fn of<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Self {
        Stamp(paths.into_iter().map(|path| of(path.as_ref())).collect())
    }
}

/// `None` for a file that is not there.
fn of(path: &Path) -> Option<[i64; 5]> {
    let there = std::fs::metadata(path).ok()?;
    Some([
        there.ino() as i64,
        there.len() as i64,
        there.mtime(),
        there.mtime_nsec(),
        there.ctime_nsec(),
    ])
}
