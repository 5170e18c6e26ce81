//! Which cgroups may be labelled: empty ones of the v2 hierarchy, never the root, the sensor's own or one above it.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// `CGROUP2_SUPER_MAGIC` of linux/magic.h.
const CGROUP2_MAGIC: u64 = 0x6367_7270;
/// The root of a cgroup hierarchy has the inode number 1 (`kernfs_create_root`).
const ROOT_ID: u64 = 1;

/// Why a cgroup is not labelled.
#[derive(Debug, thiserror::Error)]
pub enum LabelError {
    /// It cannot be read.
    #[error("cgroup {}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Not on a cgroup2 file system.
    #[error("{} is not a cgroup of the v2 hierarchy", .0.display())]
    NotCgroup2(PathBuf),
    /// Every task of the machine would be in the workload.
    #[error("{} is the root cgroup; make one for the workload", .0.display())]
    Root(PathBuf),
    /// The sensor would be in the workload.
    #[error("{} holds the sensor itself; make one for the workload", .0.display())]
    Own(PathBuf),
    /// What runs there was started before its rules.
    #[error("{} holds tasks already; a workload's cgroup must be empty when it is labelled", .0.display())]
    Populated(PathBuf),
    /// The index is taken, or beyond the bound.
    #[error("workload {0} is labelled already, or beyond {max}", max = super::MAX_WORKLOADS)]
    Index(u32),
    /// The set's number is beyond the bound.
    #[error("set {0} is beyond {max}", max = super::MAX_SETS)]
    Set(u32),
    /// The kernel refuses.
    #[error("{what} {}: {source}", path.display())]
    Kernel {
        /// What was tried.
        what: &'static str,
        /// For which cgroup.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A cgroup that may be labelled.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) directory: File,
    pub(super) id: u64,
    path: PathBuf,
}

impl Checked {
    /// Opens the cgroup and refuses what must not be labelled.
    pub(super) fn open(path: &Path, mount: &Path) -> Result<Self, LabelError> {
        let io = |source| LabelError::Io {
            path: path.to_owned(),
            source,
        };
        let path = fs::canonicalize(path).map_err(io)?;
        let directory = File::open(&path).map_err(io)?;
        let file_system = rustix::fs::fstatfs(&directory).map_err(|error| io(error.into()))?;
        if file_system.f_type as u64 != CGROUP2_MAGIC {
            return Err(LabelError::NotCgroup2(path));
        }
        let id = directory.metadata().map_err(io)?.ino();
        let checked = Self {
            directory,
            id,
            path,
        };
        checked.refuse_root(mount)?;
        checked.refuse_own(mount)?;
        checked.refuse_populated()?;
        Ok(checked)
    }

    fn refuse_root(&self, mount: &Path) -> Result<(), LabelError> {
        let is_mount = fs::canonicalize(mount).is_ok_and(|mount| mount == self.path);
        if self.id == ROOT_ID || is_mount || !self.path.join("cgroup.events").exists() {
            return Err(LabelError::Root(self.path.clone()));
        }
        Ok(())
    }

    /// The line `0::/path` of /proc/self/cgroup is this process's place in the v2 hierarchy (cgroups(7)).
    fn refuse_own(&self, mount: &Path) -> Result<(), LabelError> {
        let text = fs::read_to_string("/proc/self/cgroup").map_err(|source| LabelError::Io {
            path: self.path.clone(),
            source,
        })?;
        let own = text
            .lines()
            .find_map(|line| line.strip_prefix("0::/"))
            .unwrap_or_default();
        let own = mount.join(own);
        if fs::canonicalize(&own)
            .unwrap_or(own)
            .starts_with(&self.path)
        {
            return Err(LabelError::Own(self.path.clone()));
        }
        Ok(())
    }

    /// `populated` counts the cgroups below, too.
    pub(super) fn refuse_populated(&self) -> Result<(), LabelError> {
        let events = fs::read_to_string(self.path.join("cgroup.events")).map_err(|source| {
            LabelError::Io {
                path: self.path.clone(),
                source,
            }
        })?;
        if events.lines().any(|line| line == "populated 0") {
            return Ok(());
        }
        Err(LabelError::Populated(self.path.clone()))
    }

    pub(super) fn refused(&self, what: &'static str) -> impl FnOnce(io::Error) -> LabelError {
        let path = self.path.clone();
        move |source| LabelError::Kernel { what, path, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_no_cgroup_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let refused = Checked::open(folder.path(), Path::new("/sys/fs/cgroup"));
        assert!(
            matches!(refused, Err(LabelError::NotCgroup2(_))),
            "{refused:?}"
        );
    }
}
