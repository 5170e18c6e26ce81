//! All policies off for a while: what is broken by a policy must be repairable at once.
//!
//! The end is kept on disk, so that a restart neither ends the pause nor makes it longer.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::applied::replace;

/// Nobody needs longer; who does says it again.
pub(super) const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// A pause, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pause {
    pub(super) until_unix: u64,
    pub(super) reason: String,
}

impl Pause {
    /// From now on, for at most [`LONGEST`].
    pub(super) fn starting(length: Duration, reason: String) -> Pause {
        Pause {
            until_unix: now() + length.min(LONGEST).as_secs(),
            reason,
        }
    }

    /// What is left of it; none: it is over. A clock that was set back does not make it longer than [`LONGEST`].
    pub(super) fn left(&self) -> Option<Duration> {
        let left = Duration::from_secs(self.until_unix.checked_sub(now())?);
        (!left.is_zero() && left <= LONGEST).then_some(left)
    }
}

/// The pause that was kept.
pub(super) fn load(file: &Path) -> Option<Pause> {
    let pause: Pause = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    pause.left().map(|_| pause)
}

/// Keeps a pause, or that there is none.
pub(super) fn store(file: &PathBuf, pause: Option<&Pause>) -> io::Result<()> {
    match pause {
        Some(pause) => replace(file, &serde_json::to_vec(pause).map_err(io::Error::other)?),
        None => match fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        },
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_kept_and_ends_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pause");
        let pause = Pause::starting(Duration::from_secs(600), "why".into());
        store(&file, Some(&pause)).unwrap();
        assert_eq!(load(&file), Some(pause.clone()));
        store(
            &file,
            Some(&Pause {
                until_unix: 1,
                ..pause.clone()
            }),
        )
        .unwrap();
        assert_eq!(load(&file), None);
        store(&file, None).unwrap();
        store(&file, None).unwrap();
        assert_eq!(load(&file), None);
        let far = Pause {
            until_unix: u64::MAX,
            ..pause
        };
        assert_eq!(far.left(), None, "a clock that was set back");
    }
}
