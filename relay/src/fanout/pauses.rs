//! Which sinks somebody paused: it holds over restarts.
//!
//! ```text
//! DATA/paused/SINK    "by uid 0, pid 4711\nsince 1767225600\n"; there as long as the sink is paused
//! ```

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Who paused a sink, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pause {
    pub(super) by: String,
    /// Unix seconds.
    pub(super) since: u64,
}

/// The folder. Its operations block the thread for a sync of the disk.
#[derive(Clone, Debug)]
pub(super) struct Pauses(PathBuf);

impl Pauses {
    pub(super) fn new(data_dir: &Path) -> Pauses {
        Pauses(data_dir.join("paused"))
    }

    /// A file that cannot be read pauses all the same: whoever made it wanted nothing to be sent.
    pub(super) fn read(&self, sink: &str) -> Option<Pause> {
        let text = match fs::read_to_string(self.0.join(sink)) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => return None,
            text => text.unwrap_or_default(),
        };
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
        Some(Pause {
            by: value("by ").unwrap_or("somebody unknown").to_owned(),
            since: value("since ").and_then(|at| at.parse().ok()).unwrap_or(0),
        })
    }

    pub(super) fn set(&self, sink: &str, pause: &Pause) -> io::Result<()> {
        fs::create_dir_all(&self.0)?;
        // Sinks' names have no `.`.
        let new = self.0.join(format!("{sink}.new"));
        let mut file = File::create(&new)?;
        write!(file, "by {}\nsince {}\n", pause.by, pause.since)?;
        file.sync_all()?;
        fs::rename(&new, self.0.join(sink))?;
        File::open(&self.0)?.sync_all()
    }

    pub(super) fn clear(&self, sink: &str) -> io::Result<()> {
        match fs::remove_file(self.0.join(sink)) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
            done => done?,
        }
        File::open(&self.0)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_there_until_it_is_cleared() {
        let folder = tempfile::tempdir().unwrap();
        let pauses = Pauses::new(folder.path());
        assert_eq!(pauses.read("siem"), None);
        let pause = Pause {
            by: "uid 0, pid 7".to_owned(),
            since: 1_767_225_600,
        };
        pauses.set("siem", &pause).unwrap();
        assert_eq!(Pauses::new(folder.path()).read("siem"), Some(pause));
        assert_eq!(pauses.read("bus"), None);
        pauses.clear("siem").unwrap();
        pauses.clear("siem").unwrap();
        assert_eq!(pauses.read("siem"), None);
    }

    #[test]
    fn a_file_that_says_nothing_pauses_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("paused")).unwrap();
        fs::write(folder.path().join("paused/siem"), [0xff]).unwrap();
        let pause = Pauses::new(folder.path()).read("siem").unwrap();
        assert_eq!((pause.by.as_str(), pause.since), ("somebody unknown", 0));
    }
}
