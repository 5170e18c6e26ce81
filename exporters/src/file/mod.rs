//! A file of events, rotated by size, age and count.
//!
//! ```text
//! events.jsonl        written to; full at `max_size`, or `max_age` after it was made; on disk (fdatasync) before an event counts as delivered
//! events.jsonl.1      the newest that is full, or events.jsonl.1.gz
//! events.jsonl.2.gz … as many as `keep` says; the oldest goes
//! ```
//!
//! Decisions:
//! - **Torn last line.** A line without its newline was cut by a crash before its event was acknowledged; the event comes
//!   again whole. The torn line is cut off when the file is opened. (With `text` an event has several lines: those that were
//!   whole stay.) Where it cannot be ours it gets a newline instead, and nothing is cut.
//! - **A write that fails** is cut back to the last synced length and the file is opened anew: a failed `fdatasync` is never
//!   repeated on the same descriptor, because the kernel may have dropped what it could not write.
//! - **Missing folders** are made. A folder that cannot be made or written is a sink that is away, with the reason in status.
//! - **Two writers** would cut each other's lines, so the file is locked (`flock`); readers need no lock.
//! - **Somebody moves the file away** (logrotate): seen before the next batch by its inode, or told by SIGUSR1.
//! - At least once: after a crash the events since the cursor's last move are written again.

mod rotated;
mod writer;

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use proto::FieldSet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use yaml::{Node, Problem, Size, Span};

use crate::blocking::OwnThread;
use crate::config::{BatchLimits, Defaults};
use crate::lines::{Format, Lines};
use crate::{
    Batch, BuildError, Carried, Context, Encoded, Failed, Outcome, Sink, Trial, Unavailable,
};

config! {
    /// Settings of a `file` sink.
    pub struct Config {
        /// The file. Required.
        pub path: PathBuf,
        /// `text`, `json` or `pretty-json`.
        pub format: Format,
        /// When a new file begins, and how many are kept.
        pub rotate: Rotate,
    }
}

/// A batch costs one sync of the disk, so events of 50 ms share it.
pub(crate) static DEFAULTS: Defaults = Defaults {
    batch: BatchLimits {
        max_events: 5000,
        max_bytes: 4 << 20,
        max_delay: Duration::from_millis(50),
    },
    concurrency: 1,
    max_concurrency: 1,
    fields: FieldSet::KubeArmor,
};

/// Below that there would be a file for nearly every event.
const LEAST_AGE: Duration = Duration::from_secs(1);

/// When a new file begins, and what becomes of the full ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rotate {
    /// A file is full at this size. An event is never split, so one larger than this has a file to itself.
    pub max_size: Size,
    /// A file that has events is full so long after it was made, also when no more come. Not given: however old it gets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Span>,
    /// So many full files are kept beside the one that is written.
    pub keep: u32,
    /// `gzip` compresses full files.
    pub compress: Compress,
}

impl Default for Rotate {
    fn default() -> Self {
        Rotate {
            max_size: Size(256 << 20),
            max_age: None,
            keep: 10,
            compress: Compress::None,
        }
    }
}

/// Compression of full files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compress {
    /// They stay as they are.
    #[default]
    None,
    /// `.gz`.
    Gzip,
}

impl Config {
    /// It names none that has to be there.
    pub(crate) fn look(&self, _node: &Node, _problems: &mut Vec<Problem>) {}

    pub(crate) fn check(&self, node: &Node, problems: &mut Vec<Problem>) {
        let mut wrong = |path: &str, message: &str| problems.push(node.problem_at(path, message));
        if self.path.as_os_str().is_empty() {
            wrong(
                "path",
                "is missing; write the file's name, as in `path: /var/log/cresset/events.jsonl`",
            );
        } else if !self.path.is_absolute() {
            wrong(
                "path",
                "must begin with `/`, or it would depend on where the program was started",
            );
        } else if self.path.file_name().is_none() {
            wrong("path", "names no file");
        }
        if self.rotate.max_size.0 == 0 {
            wrong("rotate.max_size", "must be above zero");
        }
        if self.rotate.max_age.is_some_and(|Span(age)| age < LEAST_AGE) {
            wrong("rotate.max_age", "use 1s or more");
        }
        if !(1..=1000).contains(&self.rotate.keep) {
            wrong("rotate.keep", "use 1 to 1000 files");
        }
    }
}

/// The sink.
pub struct File {
    thread: OwnThread,
    path: PathBuf,
}

impl File {
    /// Makes the sink; the file is opened by the first batch.
    ///
    /// # Errors
    /// No thread can be made.
    pub fn build(name: &str, config: &Config, _context: &Context) -> Result<Self, BuildError> {
        let lines = Lines {
            format: config.format,
            fields: config.common().fields,
        };
        let writer = writer::Writer::new(config.path.clone(), config.rotate.clone(), lines);
        let thread = OwnThread::start(name, writer).map_err(|e| BuildError::new(name, e))?;
        Ok(File {
            thread,
            path: config.path.clone(),
        })
    }
}

/// How much of the end of the file is searched for the marked event.
const TAIL: u64 = 1 << 20;

/// Looks for `mark` at the end of the file.
fn found(path: &Path, mark: &str) -> Result<String, String> {
    let read = || -> io::Result<(u64, Vec<u8>)> {
        let mut file = fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut tail = Vec::new();
        file.take(TAIL).read_to_end(&mut tail)?;
        Ok((length, tail))
    };
    let (length, tail) = read().map_err(|e| format!("{}: {e}", path.display()))?;
    if tail.windows(mark.len()).any(|part| part == mark.as_bytes()) {
        Ok(format!(
            "{} has it; {length} bytes are in the file",
            path.display()
        ))
    } else {
        Err(format!(
            "{} was written and does not have it; does another program truncate it?",
            path.display()
        ))
    }
}

#[async_trait]
impl Sink for File {
    async fn send(&self, batch: Arc<Batch>) -> Result<Vec<Outcome>, Unavailable> {
        self.thread.deliver(batch).await
    }

    fn reopen(&self) {
        self.thread.reopen();
    }

    fn whereabouts(&self, _: &Encoded) -> Option<String> {
        let path = self.path.display();
        Some(format!("{path}, or a full file beside it"))
    }

    async fn test(&self, event: Carried, trial: &Trial) -> Result<(), Failed> {
        let id = event.id();
        let batch = Arc::new(Batch::new(vec![event]));
        trial.write(self.send(batch)).await?;
        let path = self.path.clone();
        let found = tokio::task::spawn_blocking(move || found(&path, &id.to_string()));
        trial
            .step("read back", async {
                found.await.map_err(|e| e.to_string())?.map(|at| ((), at))
            })
            .await
    }
}
