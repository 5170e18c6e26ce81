//! The last accepted rule set on disk: what a sensor enforces while it has no relay.
//!
//! One file, the encoded `Rules` message of the link with all its blobs. It is replaced whole (written beside, synced,
//! renamed, folder synced); its content names itself by digests, so a damaged file is found when it is read.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use prost::Message;
use proto::link::Rules;

/// Where the set is kept.
#[derive(Debug, Clone)]
pub struct RulesFile {
    path: PathBuf,
}

impl RulesFile {
    /// The file `rules.bin` in the data folder, which exists.
    pub fn new(data: &Path) -> Self {
        Self {
            path: data.join("rules.bin"),
        }
    }

    /// What was accepted last; none at the first start. Errors: the file cannot be read or is not a rule set.
    pub fn load(&self) -> io::Result<Option<Rules>> {
        match std::fs::read(&self.path) {
            Ok(bytes) => Rules::decode(bytes.as_slice())
                .map(Some)
                .map_err(io::Error::other),
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(why) => Err(why),
        }
    }

    /// Replaces it.
    pub fn save(&self, rules: &Rules) -> io::Result<()> {
        let beside = self.path.with_extension("new");
        let mut file = File::create(&beside)?;
        file.write_all(&rules.encode_to_vec())?;
        file.sync_all()?;
        std::fs::rename(&beside, &self.path)?;
        match self.path.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_loaded_and_nothing_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = RulesFile::new(dir.path());
        assert_eq!(file.load().unwrap(), None);
        let rules = Rules {
            blobs: vec![vec![1, 2, 3].into()],
            commit: true,
            ..Rules::default()
        };
        file.save(&rules).unwrap();
        assert_eq!(file.load().unwrap(), Some(rules));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_file_is_an_error_and_not_an_empty_set() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("rules.bin"), [0xff; 9]).unwrap();
        assert!(RulesFile::new(dir.path()).load().is_err());
    }
}
