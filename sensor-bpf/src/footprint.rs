//! What a sensor leaves on a machine: nothing. Taken before it runs, looked at after it ended.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::kernel;

/// The kernel frees a program a moment after its last user is gone: after a grace period of RCU and on a work queue.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// Everything that one sensor puts into the kernel and the file system for as long as it runs.
#[derive(Debug, Clone, Default)]
pub struct Footprint {
    pub(crate) programs: Vec<kernel::Loaded>,
    pub(crate) paths: Vec<PathBuf>,
}

impl Footprint {
    /// What is still there, each with a name that a person can look for. Waits a moment for the kernel.
    pub fn left(&self) -> Vec<String> {
        self.left_within(GONE_WITHIN)
    }

    fn left_within(&self, moment: Duration) -> Vec<String> {
        let deadline = Instant::now() + moment;
        loop {
            let programs = kernel::still_loaded(&self.programs);
            let programs = programs
                .into_iter()
                .map(|name| format!("kernel program {name}"));
            let paths = self.paths.iter().filter(|path| path.exists());
            let left: Vec<String> = programs
                .chain(paths.map(|path| path.display().to_string()))
                .collect();
            if left.is_empty() || Instant::now() > deadline {
                return left;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_still_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path().to_owned();
        let gone = here.join("nothing");
        let footprint = Footprint {
            programs: Vec::new(),
            paths: vec![here.clone(), gone],
        };
        let left = footprint.left_within(Duration::ZERO);
        assert_eq!(left, [here.display().to_string()]);
    }
}
