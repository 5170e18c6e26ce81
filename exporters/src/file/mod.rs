//! A file of events, rotated by size and count.
//!
//! ```text
//! events.jsonl        written to; on disk (fdatasync) before an event counts as delivered
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

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use proto::FieldSet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use yaml::{Node, Problem, Size};

use crate::blocking::OwnThread;
use crate::config::{BatchLimits, Defaults};
use crate::lines::{Format, Lines};
use crate::{Batch, BuildError, Context, Outcome, Sink, Unavailable};

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

/// When a new file begins, and what becomes of the full ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rotate {
    /// A file is full at this size. An event is never split, so one larger than this has a file to itself.
    pub max_size: Size,
    /// So many full files are kept beside the one that is written.
    pub keep: u32,
    /// `gzip` compresses full files.
    pub compress: Compress,
}

impl Default for Rotate {
    fn default() -> Self {
        Rotate {
            max_size: Size(256 << 20),
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
        if !(1..=1000).contains(&self.rotate.keep) {
            wrong("rotate.keep", "use 1 to 1000 files");
        }
    }
}

/// The sink.
pub struct File {
    thread: OwnThread,
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
        Ok(File { thread })
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
}
