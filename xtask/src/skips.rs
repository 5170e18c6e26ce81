//! Suites that could not run. A test that cannot run here calls for what it needs (`root`, `bpf`, `qemu`, …) by
//! appending a line `NEED<tab>SUITE<tab>REASON` to the file that `CRESSET_SKIPS` names; here the lines are counted, and a skip
//! of something that this machine can do is told apart, because in CI it is a failure.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::workspace;

/// The environment variable that carries the file's path to the tests.
pub(crate) const VARIABLE: &str = "CRESSET_SKIPS";

/// One suite that did not run.
pub(crate) struct Skip {
    need: String,
    suite: String,
    reason: String,
}

impl Skip {
    pub(crate) fn new(need: &str, suite: &str, reason: &str) -> Self {
        Self {
            need: need.into(),
            suite: suite.into(),
            reason: reason.into(),
        }
    }

    /// Whether this machine has what the suite says is missing.
    pub(crate) fn is_avoidable(&self) -> bool {
        match self.need.as_str() {
            "root" => workspace::is_root(),
            "bpf" => workspace::is_root() && Path::new("/sys/kernel/btf/vmlinux").exists(),
            "java" => ["java", "javac", "mvn"].into_iter().all(workspace::on_path),
            "kcat" => workspace::on_path("kcat"),
            "qemu" => workspace::on_path("qemu-system-x86_64"),
            "prometheus" => workspace::on_path("prometheus") && workspace::on_path("promtool"),
            // Quick runs leave it out; what else a suite may name (another tier, a newer kernel) is not here to be had.
            _ => false,
        }
    }
}

impl std::fmt::Display for Skip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "SKIPPED {}: {} (needs {})",
            self.suite, self.reason, self.need
        )
    }
}

/// The file in which the tests of one run leave their skips.
pub(crate) struct Ledger(PathBuf);

impl Ledger {
    pub(crate) fn create() -> Result<Self> {
        let dir = workspace::target();
        std::fs::create_dir_all(&dir)?;
        let path = dir.join(format!("skips-{}", std::process::id()));
        std::fs::write(&path, "")?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Every skip once, in the order of the suites' names.
    pub(crate) fn read(&self) -> Result<Vec<Skip>> {
        let text = std::fs::read_to_string(&self.0)?;
        let lines: BTreeSet<&str> = text.lines().collect();
        Ok(lines
            .into_iter()
            .map(|line| {
                let mut parts = line.splitn(3, '\t');
                let mut next = || parts.next().unwrap_or("unknown");
                let (need, suite) = (next(), next());
                Skip::new(need, suite, next())
            })
            .collect())
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
