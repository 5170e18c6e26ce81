//! The cgroups that workloads run in.
//!
//! ```text
//! <cgroup2 mount>/cresset/sensor-<pid>-<random>/     one folder a sensor, held by flock(2) as long as it lives
//!                                              1/    one a workload
//!                                              2/
//! ```
//! The lock says whether the sensor that made a folder is alive, whatever happened to process ids meanwhile and
//! whichever pid namespace it runs in. A folder that nobody holds is a dead sensor's: what still runs in it
//! is ended (its rules went with the sensor) and it is removed.
//!
//! No existing process is ever moved. `cgroup.kill` needs Linux 5.14.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

/// How long killed tasks may take to leave their cgroup.
const EMPTY_WITHIN: Duration = Duration::from_secs(10);

/// Why there is no place for workloads.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No cgroup2 file system is mounted.
    #[error("no cgroup2 file system is mounted; mount one: mount -t cgroup2 none /sys/fs/cgroup")]
    NoMount,
    /// Something at a path failed.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Tasks that cannot be killed (in uninterruptible sleep) keep the cgroup.
    #[error("{} still holds tasks {} s after cgroup.kill", path.display(), EMPTY_WITHIN.as_secs())]
    Populated {
        /// Where.
        path: PathBuf,
    },
}

/// The cgroup2 mount point, from `/proc/self/mountinfo`: hybrid hierarchies have it beside the old ones.
pub fn mount_point() -> Result<PathBuf, CgroupError> {
    let path = PathBuf::from("/proc/self/mountinfo");
    let text = std::fs::read_to_string(&path).map_err(io_error("read", &path))?;
    text.lines()
        .find_map(cgroup2_of)
        .ok_or(CgroupError::NoMount)
}

/// `36 35 98:0 /root /mount/point opts… - cgroup2 source super`; spaces are written `\040` (proc(5)).
fn cgroup2_of(line: &str) -> Option<PathBuf> {
    let (before, after) = line.split_once(" - ")?;
    if after.split(' ').next() != Some("cgroup2") {
        return None;
    }
    let point = before.split(' ').nth(4)?;
    Some(PathBuf::from(point.replace("\\040", " ")))
}

/// One sensor's folder. Dropping it removes the folder if it is empty.
#[derive(Debug)]
pub struct Nursery {
    path: PathBuf,
    _lock: File,
}

impl Nursery {
    /// Cleans up after dead sensors below `<mount>/cresset` and makes this sensor's folder there.
    pub fn new(mount: &Path) -> Result<Self, CgroupError> {
        let base = mount.join("cresset");
        create(&base)?;
        clean(&base);
        let mut last = None;
        for _ in 0..10 {
            match Self::settle(&base) {
                Ok(nursery) => return Ok(nursery),
                Err(why) => last = Some(why),
            }
        }
        Err(last.unwrap_or(CgroupError::NoMount))
    }

    /// Another sensor that starts at the same moment may clean the folder away before it is locked.
    fn settle(base: &Path) -> Result<Self, CgroupError> {
        create(base)?;
        let path = base.join(format!(
            "sensor-{}-{}",
            std::process::id(),
            proto::StreamId::random()
        ));
        create(&path)?;
        let lock = hold(&path).map_err(io_error("lock", &path))?;
        std::fs::metadata(&path).map_err(io_error("find", &path))?;
        Ok(Self { path, _lock: lock })
    }

    /// Makes the cgroup of workload `index`.
    pub fn make(&self, index: u32) -> Result<Cgroup, CgroupError> {
        let path = self.path.join(index.to_string());
        std::fs::create_dir(&path).map_err(io_error("make", &path))?;
        Ok(Cgroup { path, gone: false })
    }

    /// Where the workloads' cgroups are.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Nursery {
    fn drop(&mut self) {
        // Not empty, not removed: the next sensor finds the lock free and cleans.
        let _ = std::fs::remove_dir(&self.path);
        if let Some(base) = self.path.parent() {
            let _ = std::fs::remove_dir(base);
        }
    }
}

/// A workload's cgroup. Dropping it kills what is in it and removes it.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    gone: bool,
}

impl Cgroup {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A name for events: `<sensor folder>/<index>` without the path before it.
    pub fn name(&self) -> String {
        let parts: Vec<_> = self
            .path
            .iter()
            .rev()
            .take(2)
            .map(|part| part.to_string_lossy())
            .collect();
        parts.into_iter().rev().collect::<Vec<_>>().join("-")
    }

    /// Kills every task in it and waits until it is empty; it stays, so that its rules hold to the last.
    pub fn kill(&self) -> Result<(), CgroupError> {
        kill(&self.path)
    }

    /// Removes it, and those that the workload made below it; no task may be in any.
    pub fn remove(mut self) -> Result<(), CgroupError> {
        self.gone = true;
        remove_tree(&self.path)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if !self.gone {
            end(&self.path);
        }
    }
}

fn io_error<'a>(what: &'static str, path: &'a Path) -> impl Fn(io::Error) -> CgroupError + 'a {
    move |source| CgroupError::Io {
        what,
        path: path.to_owned(),
        source,
    }
}

fn create(path: &Path) -> Result<(), CgroupError> {
    match std::fs::create_dir(path) {
        Err(why) if why.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(io_error("make", path)),
    }
}

/// Takes the lock of a folder, or says `WouldBlock`: its sensor lives.
fn hold(path: &Path) -> io::Result<File> {
    let folder = File::open(path)?;
    rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive)?;
    Ok(folder)
}

fn clean(base: &Path) {
    for folder in folders(base) {
        let ours = folder
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"sensor-"));
        if !ours {
            continue;
        }
        // Held: another sensor is alive on this machine and its workloads are its own.
        if let Ok(_lock) = hold(&folder) {
            for workload in folders(&folder) {
                end(&workload);
            }
            end(&folder);
            tracing::info!(folder = %folder.display(), "cleaned up after a sensor that is gone");
        }
    }
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(path) else {
        return Vec::new();
    };
    let is_folder = |entry: &std::fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    entries
        .flatten()
        .filter(is_folder)
        .map(|entry| entry.path())
        .collect()
}

/// Kill and remove, for clean-up paths where nobody can be told but the log.
fn end(path: &Path) {
    let result = kill(path).and_then(|()| remove_tree(path));
    if let Err(error) = result {
        tracing::warn!(%error, "a workload's cgroup stays behind");
    }
}

/// A workload may have made cgroups of its own below.
fn remove_tree(path: &Path) -> Result<(), CgroupError> {
    for below in folders(path) {
        remove_tree(&below)?;
    }
    match std::fs::remove_dir(path) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path)(why)),
        _ => Ok(()),
    }
}

fn kill(path: &Path) -> Result<(), CgroupError> {
    let switch = path.join("cgroup.kill");
    // Without O_CREAT: what has no such file is no cgroup, or is gone.
    match File::options()
        .write(true)
        .open(&switch)
        .and_then(|mut file| file.write_all(b"1"))
    {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(io_error("write", &switch))?,
    }
    let deadline = Instant::now() + EMPTY_WITHIN;
    let mut pause = Duration::from_millis(1);
    while populated(path)? {
        if Instant::now() > deadline {
            return Err(CgroupError::Populated {
                path: path.to_owned(),
            });
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
    Ok(())
}

fn populated(path: &Path) -> Result<bool, CgroupError> {
    let file = path.join("cgroup.events");
    let text = std::fs::read_to_string(&file).map_err(io_error("read", &file))?;
    Ok(text.lines().any(|line| line == "populated 1"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    /// A cgroup of the test's own that stands for the mount point.
    struct Place(PathBuf);

    impl Place {
        /// None where no cgroup can be made; the test then says that it was left out.
        fn new(name: &str) -> Option<Self> {
            let path = mount_point()
                .ok()?
                .join(format!("cresset-test-{}-{name}", std::process::id()));
            match std::fs::create_dir(&path) {
                Ok(()) => Some(Self(path)),
                Err(why) => {
                    eprintln!("left out: {} cannot be made: {why}", path.display());
                    None
                }
            }
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            end(&self.0);
        }
    }

    /// A child of this test that moves itself, and only itself, into the cgroup.
    fn sleeper(cgroup: &Path) -> Child {
        let script = format!(
            "echo 0 > {}/cgroup.procs && exec sleep 60",
            cgroup.display()
        );
        let child = Command::new("/bin/sh")
            .args(["-c", &script])
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while !populated(cgroup).unwrap() {
            assert!(
                Instant::now() < deadline,
                "the child did not enter the cgroup"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        child
    }

    #[test]
    fn the_mount_point_is_found_in_unified_and_hybrid_lists() {
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
            41 31 0:38 / /sys/fs/cgroup/uni\\040fied rw,relatime shared:9 - cgroup2 cgroup2 rw";
        let found: Vec<_> = hybrid.lines().filter_map(cgroup2_of).collect();
        assert_eq!(found, [PathBuf::from("/sys/fs/cgroup/uni fied")]);
    }

    #[test]
    fn ending_a_workload_kills_its_tasks_and_leaves_nothing() {
        let Some(place) = Place::new("end") else {
            return;
        };
        let nursery = Nursery::new(&place.0).unwrap();
        let cgroup = nursery.make(1).unwrap();
        let path = cgroup.path().to_owned();
        let below = path.join("made/by/the/workload");
        std::fs::create_dir_all(&below).unwrap();
        let mut child = sleeper(&below);
        cgroup.kill().unwrap();
        cgroup.remove().unwrap();
        assert!(!path.exists());
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn a_dropped_cgroup_is_killed_and_removed_with_those_below_it() {
        let Some(place) = Place::new("drop") else {
            return;
        };
        let nursery = Nursery::new(&place.0).unwrap();
        let cgroup = nursery.make(1).unwrap();
        let path = cgroup.path().to_owned();
        std::fs::create_dir(path.join("below")).unwrap();
        let mut child = sleeper(&path.join("below"));
        drop(cgroup);
        assert!(!path.exists());
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn a_dead_sensors_cgroups_are_cleaned_and_a_living_ones_are_not() {
        let Some(place) = Place::new("dead") else {
            return;
        };
        let living = Nursery::new(&place.0).unwrap();
        let kept = living.make(1).unwrap();
        let dead = place.0.join("cresset/sensor-0-test").join("7");
        std::fs::create_dir_all(&dead).unwrap();
        let mut child = sleeper(&dead);
        let next = Nursery::new(&place.0).unwrap();
        assert!(!dead.exists());
        assert!(!child.wait().unwrap().success());
        assert!(kept.path().exists());
        assert_ne!(next.path(), living.path());
    }
}
