//! Events that the relay has not acknowledged yet, on disk and bounded.
//!
//! ```text
//! <spool>/verdicts-<stream>/     a journal a stream: alerts, and messages about losses
//!         telemetry-<stream>/    logs
//! ```
//! A start of the sensor draws two new streams; the journal's numbers are the stream's sequences. Streams of earlier
//! starts are drained and then removed. When a bound is reached the oldest events go, counted and told.
//!
//! Half of the bound is for streams of earlier starts; of the rest, verdicts have a quarter, so that
//! telemetry never displaces them.

mod outbound;

use std::io;
use std::path::{Path, PathBuf};

use journal::{Journal, Record};
use proto::StreamId;
use tokio::sync::mpsc;

use crate::lost::{Class, Losses, Place};
use crate::teller::Outgoing;
pub use outbound::Outbound;

/// Events of one batch on the link, and of one append.
const BATCH_EVENTS: usize = 1000;
/// Bytes of one append: well below half of the smallest bound.
const APPEND_BYTES: usize = 512 << 10;
/// Streams of earlier starts that are kept; a relay takes no greeting with many more.
const MOST_LEFT: usize = 128;

/// Why the spool cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The folder.
    #[error("spool folder {}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A journal in it.
    #[error("spool {}: {why}", path.display())]
    Journal {
        /// Which.
        path: PathBuf,
        /// Why not.
        why: String,
    },
}

/// An opened spool.
#[derive(Debug)]
pub struct Spool {
    /// Takes alerts and messages.
    pub verdicts: Writer,
    /// Takes logs.
    pub telemetry: Writer,
    /// All streams that have something to send: those of earlier starts first.
    pub streams: Vec<Outbound>,
}

impl Spool {
    /// Opens the folder, with two new streams and those of earlier starts that are not drained.
    pub fn open(dir: &Path, max_size: u64, losses: &Losses) -> Result<Self, SpoolError> {
        std::fs::create_dir_all(dir).map_err(|source| SpoolError::Io {
            path: dir.to_owned(),
            source,
        })?;
        let mut streams = leftovers(dir, max_size / 2, losses)?;
        let mut writer = |class: Class, bound: u64| {
            let id = StreamId::random();
            let path = dir.join(format!("{}-{id}", folder_word(class)));
            let stream = Outbound::open(path, id, class, bound, true, losses)?;
            let writer = Writer {
                journal: stream.journal.clone(),
                class,
                losses: losses.clone(),
            };
            streams.push(stream);
            Ok::<_, SpoolError>(writer)
        };
        let verdicts = writer(Class::Verdict, max_size / 8)?;
        let telemetry = writer(Class::Telemetry, max_size / 8 * 3)?;
        Ok(Self {
            verdicts,
            telemetry,
            streams,
        })
    }
}

fn folder_word(class: Class) -> &'static str {
    match class {
        Class::Verdict => "verdicts",
        Class::Telemetry => "telemetry",
    }
}

/// Class and stream of a folder's name.
fn parse_folder(name: &str) -> Option<(Class, StreamId)> {
    let (word, id) = name.split_once('-')?;
    let class = [Class::Verdict, Class::Telemetry]
        .into_iter()
        .find(|c| folder_word(*c) == word)?;
    Some((class, id.parse().ok()?))
}

/// Opens what earlier starts left, newest first, until `bound` bytes; what is older goes, counted.
fn leftovers(dir: &Path, bound: u64, losses: &Losses) -> Result<Vec<Outbound>, SpoolError> {
    let io_error = |source| SpoolError::Io {
        path: dir.to_owned(),
        source,
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io_error)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some((class, id)) = parse_folder(&name) {
            let time = entry
                .metadata()
                .and_then(|metadata| metadata.modified())
                .map_err(io_error)?;
            found.push((time, entry.path(), class, id));
        }
    }
    found.sort_by_key(|(time, ..)| std::cmp::Reverse(*time));
    let mut streams = Vec::new();
    let mut bytes = 0;
    for (_, path, class, id) in found {
        // One stream's damage must not keep the sensor from starting.
        let stream = match Outbound::open(path.clone(), id, class, bound.max(1), false, losses) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "a spooled stream of an earlier start cannot be read and is left alone");
                continue;
            }
        };
        bytes += size_of_folder(&path);
        if stream.is_drained() {
            stream.remove();
        } else if bytes > bound || streams.len() >= MOST_LEFT {
            let reason = "streams of earlier starts fill the spool";
            stream.give_up(reason);
        } else {
            streams.push(stream);
        }
    }
    streams.reverse();
    Ok(streams)
}

fn size_of_folder(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.metadata().ok())
        .map(|metadata| metadata.len())
        .sum()
}

/// Appends the events of one class.
pub struct Writer {
    journal: Journal,
    class: Class,
    losses: Losses,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("class", &self.class)
            .finish_non_exhaustive()
    }
}

impl Writer {
    /// Until every sender is gone and what they sent is on disk.
    pub async fn run(self, mut queue: mpsc::Receiver<Outgoing>) {
        let mut events = Vec::new();
        while queue.recv_many(&mut events, BATCH_EVENTS).await > 0 {
            let mut rest = events.drain(..).peekable();
            while rest.peek().is_some() {
                let mut room = APPEND_BYTES;
                let mut records = Vec::new();
                while let Some(event) =
                    rest.next_if(|event| records.is_empty() || event.payload.len() <= room)
                {
                    room = room.saturating_sub(event.payload.len());
                    records.push(Record {
                        kind: event.kind as u8,
                        time: event.time,
                        payload: event.payload,
                    });
                }
                self.append(records).await;
            }
        }
    }

    async fn append(&self, records: Vec<Record>) {
        let count = records.len() as u64;
        if let Err(error) = self.journal.append(records).await {
            tracing::warn!(%error, class = self.class.word(), count, "events could not be spooled");
            self.losses
                .count(Place::Spool, self.class, count, &error.to_string());
        }
    }
}
