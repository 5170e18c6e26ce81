//! The test programs of the workspace: built by one cargo command, run by us, because cargo runs one after another and
//! most of a test's time is waiting.

use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use cargo_metadata::{Artifact, Message, TargetKind};

use super::BENCH;
use super::pool::Job;
use crate::workspace;

/// One that hangs is a failure with a name and not a run without an end.
const TIMEOUT: [&str; 4] = ["timeout", "--kill-after=10", "--signal=ABRT", "900"];

/// Those that take longest begin first, so that the end is not one of them alone.
const LONGEST: [&str; 8] = [
    "relay --test kafka_log",
    "exporters --test kafka",
    "exporters --test elasticsearch",
    "cli --test operate",
    "relay --test access",
    "cli --test elasticsearch",
    "cli --test bad_input",
    "exporters --test contract",
];

/// A program of tests, and where it runs.
pub(crate) struct Program {
    /// What `cargo test` runs it by: `-p` and these words.
    name: String,
    executable: PathBuf,
    manifest: PathBuf,
}

impl Program {
    /// Runs its tests as cargo does: in the folder of its package.
    pub(crate) fn job(self) -> Job {
        let folder = self.manifest.parent().unwrap_or(Path::new("/"));
        let [timeout, options @ ..] = TIMEOUT;
        let mut command = Command::new(timeout);
        command
            .args(options)
            .arg(&self.executable)
            .current_dir(folder)
            .env("CARGO_MANIFEST_DIR", folder);
        Job {
            name: self.name,
            command,
        }
    }
}

/// Builds them all, and the programs that they run.
pub(crate) fn build() -> Result<Vec<Program>> {
    let mut cargo = workspace::cargo();
    cargo
        .args(["test", "--workspace", "--features", BENCH, "--no-run"])
        .args(["--message-format", "json-render-diagnostics"])
        .stdout(Stdio::piped());
    let mut child = cargo.spawn().context("cannot start cargo test")?;
    let stdout = child
        .stdout
        .take()
        .context("cargo test has no standard output")?;
    let mut programs = Vec::new();
    for message in Message::parse_stream(BufReader::new(stdout)) {
        if let Message::CompilerArtifact(artifact) = message? {
            programs.extend(program(artifact));
        }
    }
    let ended = child.wait()?;
    if !ended.success() {
        bail!("{} ended with {ended}", workspace::name(&cargo));
    }
    programs.sort_by_key(|program| rank(&program.name));
    Ok(programs)
}

/// The program of an artifact, if it is one of tests.
fn program(artifact: Artifact) -> Option<Program> {
    let executable = artifact.executable.filter(|_| artifact.profile.test)?;
    let manifest = PathBuf::from(artifact.manifest_path);
    let package = manifest.parent()?.file_name()?.to_str()?.to_owned();
    let kind = artifact.target.kind.first()?;
    let target = match kind {
        TargetKind::Lib => "--lib".to_owned(),
        kind => format!("--{kind} {}", artifact.target.name),
    };
    Some(Program {
        name: format!("{package} {target}"),
        executable: executable.into(),
        manifest,
    })
}

/// The place of a name in the order of runs: the longest, then by name.
fn rank(name: &str) -> (usize, String) {
    let place = LONGEST.iter().position(|long| *long == name);
    (place.unwrap_or(LONGEST.len()), name.to_owned())
}
