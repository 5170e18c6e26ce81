//! What the journal, and each sink's dead letters, found lost or damaged when they were opened: shown in status and metrics as long as the relay runs, and
//! told once as events.
//!
//! ```text
//! DATA/damage.json    {"segment": 1, "damaged": 12}    of the newest segment: so many damaged records are told
//! ```
//! A start walks the newest segment only, and what is damaged inside it stays there: the next start finds it again. So
//! what was told of it is kept. All else is found once: a torn tail is cut, a hole is closed, numbers are given up, a dead
//! letter is settled.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use journal::{CheckpointFrom, Opened};
use prost::Message as _;
use proto::query::StatusReply;
use proto::{Kind, feeder};
use serde::{Deserialize, Serialize};

use super::{LOOK, LetterDamage, Origin, loss};
use crate::ingest::Importer;
use crate::log::unix_nanoseconds;

/// The place of these losses; the class says how the events went.
const PLACE: &str = "journal at start";

/// What of the newest segment is told.
const TOLD: &str = "damage.json";

/// What was found.
pub(crate) struct AtStart {
    found: Vec<Finding>,
    /// What is told once all of these are, and where that is kept.
    told: Told,
    path: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    segment: u64,
    damaged: u64,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    level: &'static str,
    /// Why events are lost; none: it is no loss, or nobody knows of how many.
    class: Option<&'static str>,
    /// Those that are,
    count: u64,
    /// and those that no earlier start told of.
    fresh: u64,
    text: String,
}

// === impl AtStart ===

impl AtStart {
    /// What `opened` says, with what earlier starts told of it in the data folder.
    pub(crate) fn of(opened: &Opened, data_dir: Option<&Path>) -> Self {
        let path = data_dir.map(|data_dir| data_dir.join(TOLD));
        let before = path.as_deref().map(read).unwrap_or_default();
        Self {
            found: findings(opened, before),
            told: Told {
                segment: opened.newest.0,
                damaged: opened.corrupt,
            },
            path,
        }
    }

    /// The same with what was found of dead letters.
    pub(crate) fn with_letters(mut self, letters: &[LetterDamage]) -> Self {
        self.found.extend(letters.iter().flat_map(of_letters));
        self
    }

    /// A line each for who reads the relay's own log.
    pub(crate) fn log(&self) {
        for Finding { level, text, .. } in &self.found {
            match *level {
                "WARN" => tracing::error!(what = text, "found when the journal was opened"),
                _ => tracing::info!(what = text, "found when the journal was opened"),
            }
        }
    }

    /// Its part of the status.
    pub(crate) fn status(&self) -> impl Fn(&mut StatusReply) + Send + Sync + 'static {
        let found = self.found.clone();
        move |reply| {
            let lost = found.iter().filter_map(Finding::loss);
            reply.losses.extend(lost);
            let texts = found.iter().map(|finding| finding.text.clone());
            let journal = reply.journal.get_or_insert_default();
            journal.found.extend(texts);
        }
    }

    /// Tells what no earlier start has told. What cannot be told now is told when the journal takes events again.
    pub(crate) async fn tell(self, importer: Importer, origin: Origin) {
        for finding in self.found.iter().filter(|finding| finding.fresh > 0) {
            let message = finding.message(&origin, unix_nanoseconds());
            let payload = Bytes::from(message.encode_to_vec());
            while importer
                .import(vec![(Kind::Message, payload.clone())])
                .await
                .is_err()
            {
                tokio::time::sleep(LOOK).await;
            }
        }
        let Some(path) = self.path else { return };
        let told = self.told;
        let keep = move || keep(&path, told);
        if let Ok(Err(why)) = tokio::task::spawn_blocking(keep).await {
            tracing::warn!(%why, "which damage of the journal is told could not be written: the next start tells of it again");
        }
    }
}

/// Nothing where there is no such file, or none that can be read: then it is told again.
fn read(path: &Path) -> Told {
    let text = fs::read(path).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Most journals have no damage, and no such file.
fn keep(path: &Path, told: Told) -> io::Result<()> {
    if told.damaged == 0 {
        return match fs::remove_file(path) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => Err(why),
            _ => Ok(()),
        };
    }
    let new = path.with_extension("json.new");
    let mut options = fs::OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&new)?;
    file.write_all(&serde_json::to_vec(&told)?)?;
    file.sync_data()?;
    fs::rename(&new, path)
}

// === impl Finding ===

impl Finding {
    fn lost(class: &'static str, count: u64, fresh: u64, why: &str) -> Option<Self> {
        let plural = if count == 1 { "" } else { "s" };
        (count > 0).then(|| Self {
            level: "WARN",
            class: Some(class),
            count,
            fresh,
            text: format!("{count} event{plural} of the journal lost: {why}"),
        })
    }

    fn other(level: &'static str, text: String) -> Self {
        Self {
            level,
            class: None,
            count: 0,
            fresh: 1,
            text,
        }
    }

    fn loss(&self) -> Option<proto::query::LossStatus> {
        Some(loss(PLACE, self.class?, self.count))
    }

    fn message(&self, origin: &Origin, now: u64) -> feeder::Message {
        let Some(class) = self.class else {
            return origin.message(now, self.level, self.text.clone());
        };
        let lost = feeder::Lost {
            r#where: PLACE.to_owned(),
            class: class.to_owned(),
            count: self.fresh,
            reason: self.text.clone(),
            ..feeder::Lost::default()
        };
        origin.warning(now, self.text.clone(), lost)
    }
}

fn findings(opened: &Opened, told: Told) -> Vec<Finding> {
    let Opened {
        cut_bytes,
        torn,
        corrupt,
        burned,
        newest,
        ..
    } = *opened;
    let before = match told {
        Told { segment, damaged } if segment == newest.0 => damaged,
        _ => 0,
    };
    let lost = [
        Finding::lost(
            "damaged",
            corrupt,
            corrupt.saturating_sub(before),
            "they are damaged on disk; sinks that had not passed them count them too. `cresset journal verify` names them",
        ),
        Finding::lost(
            "interrupted",
            torn,
            torn,
            "a crash interrupted their writing, and then nobody was told that they are safe, or else the disk damaged them",
        ),
        Finding::lost(
            "missing",
            burned,
            burned,
            "a sink had passed them, and the journal ends before them, so history and every other sink lack them. Was it restored, or did the disk lose what it had synced?",
        ),
    ];
    let cut = (cut_bytes > 0).then(|| Finding::other(
        "INFO",
        format!("{cut_bytes} bytes at the end of the journal were cut: a write that a crash interrupted. Nobody was told that those events are safe; sensors send them again"),
    ));
    let unknown = (opened.checkpoint == CheckpointFrom::Lost).then(|| Finding::other(
        "WARN",
        "what was received from sensors is known only as far as the journal's records go: older events that come again are taken as new".to_owned(),
    ));
    let positions = opened.cursors_lost.iter().map(|sink| Finding::other(
        "WARN",
        format!("the position of sink {sink} could not be read; it goes on from the oldest event, so events come twice"),
    ));
    let lost = lost.into_iter().flatten();
    lost.chain(cut).chain(unknown).chain(positions).collect()
}

fn of_letters(letters: &LetterDamage) -> impl Iterator<Item = Finding> + use<> {
    let LetterDamage {
        sink,
        lost: _,
        found: damaged,
        cut_bytes,
        forgotten,
    } = letters;
    let (damaged, cut_bytes) = (*damaged, *cut_bytes);
    let plural = if damaged == 1 { "" } else { "s" };
    // Counted with what the sink lost, and told with that.
    let damage = (damaged > 0).then(|| Finding {
        fresh: 0,
        ..Finding::other(
            "WARN",
            format!("{damaged} dead letter{plural} of sink {sink} lost: damaged on disk. `cresset dlq list {sink}` shows those that are left"),
        )
    });
    let cut = (cut_bytes > 0).then(|| Finding::other(
        "INFO",
        format!("{cut_bytes} bytes at the end of the dead letters of sink {sink} were cut: a write that a crash interrupted. Those events are offered to the sink again"),
    ));
    let forgotten = forgotten.then(|| Finding::other(
        "WARN",
        format!("which dead letters of sink {sink} are done with could not be read: all that are on disk are kept again, so a retry may send some twice"),
    ));
    damage.into_iter().chain(cut).chain(forgotten)
}

#[cfg(test)]
mod tests {
    use journal::Seq;

    use super::*;

    #[test]
    fn damage_that_an_earlier_start_told_of_is_shown_and_not_told_again() {
        let folder = tempfile::tempdir().unwrap();
        let found = |newest, corrupt| {
            let opened = Opened {
                newest: Seq(newest),
                corrupt,
                ..Opened::default()
            };
            AtStart::of(&opened, Some(folder.path()))
        };
        let fresh = |at_start: &AtStart| at_start.found.first().map(|f| (f.count, f.fresh));
        let told = |at_start: AtStart| keep(&at_start.path.unwrap(), at_start.told).unwrap();

        let first = found(1, 3);
        assert_eq!(fresh(&first), Some((3, 3)));
        assert_eq!(fresh(&found(1, 3)), Some((3, 3)), "nothing is told yet");
        told(first);
        assert_eq!(fresh(&found(1, 3)), Some((3, 0)));
        assert_eq!(fresh(&found(1, 5)), Some((5, 2)), "more has come to it");
        assert_eq!(fresh(&found(90, 3)), Some((3, 3)), "another segment");
        told(found(90, 0));
        assert!(!folder.path().join(TOLD).exists());
    }

    #[test]
    fn what_is_found_is_told_each_with_what_it_means() {
        let opened = Opened {
            cut_bytes: 7,
            torn: 1,
            burned: 2,
            checkpoint: CheckpointFrom::Lost,
            cursors_lost: vec!["siem".to_owned()],
            ..Opened::default()
        };
        let found = findings(&opened, Told::default());
        let told: Vec<_> = found
            .iter()
            .map(|finding| {
                let message = finding.message(&Origin::default(), 0);
                let lost = message.lost.unwrap_or_default();
                (message.level, lost.class, lost.count, message.message)
            })
            .collect();
        let expected = [
            ("WARN", "interrupted", 1, "1 event of the journal"),
            ("WARN", "missing", 2, "2 events of the journal"),
            ("INFO", "", 0, "7 bytes at the end"),
            ("WARN", "", 0, "what was received"),
            ("WARN", "", 0, "the position of sink siem"),
        ];
        assert_eq!(told.len(), expected.len());
        for ((level, class, count, text), wanted) in told.iter().zip(expected) {
            assert_eq!(
                (level.as_str(), class.as_str(), *count),
                (wanted.0, wanted.1, wanted.2)
            );
            assert!(text.starts_with(wanted.3), "{text}");
        }
    }
}
