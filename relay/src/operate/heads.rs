//! What had been received when segments began that have left the journal since.
//!
//! ```text
//! DATA/heads/BASE   the received ranges at the head of the segment that begins with event BASE, as the journal has them
//! ```
//! An event that retention took has no record any more. Between the newest head that does not know it and the oldest one that
//! does it was, which is enough to say what became of it at every sink. It is a help and no promise: heads are not synced,
//! and where there are too many some go from in between, so that the answer says less and stays true.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use journal::{Journal, Seq};
use proto::EventId;

use crate::received::Received;

/// New segments are looked for this often; each takes longer to be filled, and much longer to go.
const OFTEN: Duration = Duration::from_secs(1);
/// Heads that are kept,
const MOST: usize = 256;
/// and their bytes. Most have some kilobytes, none more than one MiB.
const MOST_BYTES: u64 = 8 << 20;

/// The folder; a cheap handle.
#[derive(Clone, Debug)]
pub(crate) struct Heads(PathBuf);

/// What the heads say, oldest first.
pub(super) struct Past(Vec<(u64, Received)>);

impl Heads {
    /// Nothing is written yet.
    pub(crate) fn new(data_dir: &Path) -> Heads {
        Heads(data_dir.join("heads"))
    }

    /// Keeps the head of every segment that begins, for as long as the journal is open.
    pub(crate) async fn watch(self, journal: Option<Journal>) {
        let Some(journal) = journal else { return };
        let mut kept = None;
        loop {
            let newest = journal.segments().last().copied();
            if newest != kept {
                let (heads, journal) = (self.clone(), journal.clone());
                let saved = tokio::task::spawn_blocking(move || heads.keep(&journal)).await;
                match saved {
                    Ok(Ok(())) => kept = newest,
                    Ok(Err(error)) => {
                        tracing::debug!(%error, "the heads of segments cannot be kept")
                    }
                    Err(_) => return,
                }
            }
            tokio::time::sleep(OFTEN).await;
        }
    }

    /// Blocks for the disk.
    fn keep(&self, journal: &Journal) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)?;
        let kept = self.files()?;
        let newest = kept.last_key_value().map_or(0, |(base, _)| *base);
        for base in journal
            .segments()
            .into_iter()
            .filter(|base| base.0 > newest)
        {
            // A damaged head, or one that has gone meanwhile, says nothing.
            if let Some(saved) = journal.checkpoint(base).ok().flatten() {
                self.write(base, &saved)?;
            }
        }
        for base in too_many(self.files()?) {
            fs::remove_file(self.path(base))?;
        }
        Ok(())
    }

    fn write(&self, base: Seq, saved: &[u8]) -> io::Result<()> {
        let (path, new) = (self.path(base.0), self.0.join("new"));
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        options.open(&new)?.write_all(saved)?;
        fs::rename(new, path)
    }

    fn path(&self, base: u64) -> PathBuf {
        self.0.join(format!("{base:020}"))
    }

    /// Those there are, with their lengths.
    fn files(&self) -> io::Result<BTreeMap<u64, u64>> {
        let mut files = BTreeMap::new();
        for file in fs::read_dir(&self.0)? {
            let file = file?;
            let base = file.file_name().to_str().and_then(|name| name.parse().ok());
            if let Some(base) = base {
                files.insert(base, file.metadata()?.len());
            }
        }
        Ok(files)
    }

    /// All that is kept; what cannot be read says nothing.
    pub(super) fn read(&self) -> Past {
        let files = self.files().unwrap_or_default();
        let read = |base: u64| {
            let saved = fs::read(self.path(base)).ok()?;
            Some((base, Received::saved(&saved).ok()?))
        };
        Past(files.into_keys().filter_map(read).collect())
    }
}

/// Those to let go of, until the rest is within the bounds: each time the one whose neighbours are closest together.
fn too_many(mut files: BTreeMap<u64, u64>) -> Vec<u64> {
    let mut gone = Vec::new();
    let mut bytes: u64 = files.values().sum();
    while files.len() > MOST || bytes > MOST_BYTES {
        let bases: Vec<u64> = files.keys().copied().collect();
        let between = bases.windows(3).min_by_key(|three| three[2] - three[0]);
        let Some(base) = between.map(|three| three[1]).or(bases.first().copied()) else {
            break;
        };
        bytes -= files.remove(&base).unwrap_or_default();
        gone.push(base);
    }
    gone
}

impl Past {
    /// Which of the events before `first` this one was, that was received and has left the journal.
    pub(super) fn place(&self, id: EventId, first: u64) -> Range<u64> {
        let known = |(_, received): &(u64, Received)| received.has(id);
        match self.0.iter().position(|head| known(head) == Some(true)) {
            Some(at) => {
                let from = at.checked_sub(1).map_or(1, |before| self.0[before].0);
                from.min(first)..self.0[at].0.min(first)
            }
            // It came after the newest head, if that one knows its stream.
            None => match self.0.last() {
                Some(head) if known(head) == Some(false) => head.0.min(first)..first,
                _ => 1..first,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::StreamId;

    use super::*;

    const STREAM: StreamId = StreamId([7; 8]);

    fn id(sequence: u64) -> EventId {
        EventId {
            stream: STREAM,
            sequence,
        }
    }

    /// As if every segment had brought ten events.
    fn past(bases: &[u64]) -> Past {
        let head = |base: &u64| {
            let received = Received::default();
            let ids: Vec<EventId> = (1..*base).map(id).collect();
            received.note(&ids);
            (*base, received)
        };
        Past(bases.iter().map(head).collect())
    }

    #[test]
    fn an_event_was_between_the_last_head_without_it_and_the_first_with_it() {
        let past = past(&[11, 21, 31]);
        assert_eq!(past.place(id(5), 40), 1..11);
        assert_eq!(past.place(id(10), 40), 1..11);
        assert_eq!(past.place(id(11), 40), 11..21);
        assert_eq!(past.place(id(20), 15), 11..15, "only what has left");
        assert_eq!(past.place(id(35), 40), 31..40);
        let other = EventId {
            stream: StreamId([8; 8]),
            sequence: 1,
        };
        assert_eq!(
            past.place(other, 40),
            1..40,
            "of a stream that no head knows"
        );
        assert_eq!(Past(Vec::new()).place(id(5), 40), 1..40);
    }

    #[test]
    fn too_many_heads_are_thinned_out_and_the_ends_stay() {
        let files: BTreeMap<u64, u64> = (1..=1000).map(|n| (n * 10, 100)).collect();
        let gone = too_many(files.clone());
        let left: Vec<u64> = files
            .into_keys()
            .filter(|base| !gone.contains(base))
            .collect();
        assert_eq!(left.len(), MOST);
        assert_eq!((left[0], left[MOST - 1]), (10, 10_000));
        let widest = left.windows(2).map(|two| two[1] - two[0]).max();
        assert!(widest <= Some(160), "{widest:?}");
        let large: BTreeMap<u64, u64> = (1..=20).map(|n| (n, 1 << 20)).collect();
        assert_eq!(too_many(large).len(), 12);
    }

    #[test]
    fn what_is_kept_is_read_and_what_is_half_written_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let heads = Heads::new(folder.path());
        assert!(heads.read().0.is_empty(), "no folder yet");
        fs::create_dir(&heads.0).unwrap();
        let received = Received::default();
        received.note(&[id(1), id(2)]);
        let saved = received.checkpoint().save();
        heads.write(Seq(3), &saved).unwrap();
        fs::write(heads.path(9), &saved[..saved.len() - 1]).unwrap();
        assert_eq!(heads.read().place(id(2), 20), 1..3);
    }
}
