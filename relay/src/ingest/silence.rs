//! Sensors that go silent, and machines that share an id: told as events, once when it begins and once when it is over.
//!
//! ```text
//! heard ── nothing for silent_after ──▶ silent: WARN, /metrics, status ── heard again ──▶ heard: INFO
//!                                         └── away for forget_after ──▶ forgotten: INFO
//! ```
//! Whom the relay knows stands in `DATA/sensors.json`, so a sensor that went while the relay was down is missed, too; its
//! silence counts from the relay's start on. A sensor that is stopped on purpose is silent all the same: whether that is
//! well, only its owner knows. The time is that of the last message; a sensor that is there speaks every two seconds.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use proto::Kind;
use serde::{Deserialize, Serialize};

use super::sensors::{Notice, Sensors};
use super::{Importer, Ingest};
use crate::log::unix_nanoseconds;
use crate::losses::Origin;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// Looks between two writings of who was heard when; who is known is written at once.
const SAVE: u32 = 60;

/// Notices that wait for a journal that takes nothing. Beyond that the oldest are in the log only.
const WAITING: usize = 1000;

/// What the watch needs.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Where it keeps whom it knows; none: nowhere.
    pub(crate) path: Option<PathBuf>,
    pub(crate) silent_after: Duration,
    pub(crate) forget_after: Duration,
}

/// A sensor as it is known over restarts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) sensor: String,
    pub(super) node: String,
    pub(super) version: String,
    /// Unix seconds.
    pub(super) last_seen: u64,
}

/// The watch, ready to run.
pub(crate) struct Silence {
    settings: Settings,
    sensors: Sensors,
    importer: Importer,
    origin: Origin,
    untold: VecDeque<Notice>,
}

impl Ingest {
    /// Takes up whom this relay knows, and watches over them. A file that cannot be read keeps nothing from starting: nobody
    /// is missed who does not come once more.
    pub(crate) fn watch_silence(
        &self,
        settings: Settings,
        importer: Importer,
        origin: Origin,
    ) -> Silence {
        let sensors = self.sensors();
        if let Some(path) = &settings.path {
            match load(path) {
                Ok(known) => sensors.restore(known),
                Err(why) => tracing::error!(
                    path = %path.display(), %why,
                    "whom this relay knew cannot be read; sensors that have gone are not missed"
                ),
            }
        }
        Silence {
            settings,
            sensors,
            importer,
            origin,
            untold: VecDeque::new(),
        }
    }
}

fn load(path: &std::path::Path) -> io::Result<Vec<Known>> {
    match fs::read(path) {
        Ok(text) => Ok(serde_json::from_slice(&text)?),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(why) => Err(why),
    }
}

impl Silence {
    /// Looks every second, for ever.
    pub(crate) async fn run(mut self) {
        let (mut saved, mut looks) = (Vec::new(), 0);
        loop {
            tokio::time::sleep(LOOK).await;
            let Settings {
                silent_after,
                forget_after,
                ..
            } = self.settings;
            for notice in self.sensors.look(silent_after, forget_after) {
                tracing::warn!(what = %notice, "sensors");
                self.untold.push_back(notice);
            }
            while self.untold.len() > WAITING {
                self.untold.pop_front();
            }
            self.tell().await;
            looks += 1;
            self.save(&mut saved, looks % SAVE == 0).await;
        }
    }

    /// What cannot be told now is told when the journal takes events again.
    async fn tell(&mut self) {
        while let Some(notice) = self.untold.front() {
            let (level, text) = (notice.level(), notice.to_string());
            let message = self.origin.message(unix_nanoseconds(), level, text);
            let payload = Bytes::from(message.encode_to_vec());
            let told = self.importer.import(vec![(Kind::Message, payload)]).await;
            if told.is_err() {
                return;
            }
            self.untold.pop_front();
        }
    }

    /// Writes whom this relay knows when somebody came or went, and once a minute when they were heard.
    async fn save(&self, saved: &mut Vec<Known>, times_too: bool) {
        let Some(path) = self.settings.path.clone() else {
            return;
        };
        let known = self.sensors.known();
        let same =
            |one: &Known, other: &Known| (&one.sensor, &one.node) == (&other.sensor, &other.node);
        let unchanged = known.len() == saved.len()
            && known
                .iter()
                .zip(&*saved)
                .all(|(one, other)| same(one, other));
        if unchanged && (!times_too || known == *saved) {
            return;
        }
        let written = known.clone();
        let write = move || -> io::Result<()> {
            let text = serde_json::to_vec(&written)?;
            let new = path.with_extension("json.new");
            let file = fs::OpenOptions::new();
            let mut file = private(file).open(&new)?;
            io::Write::write_all(&mut file, &text)?;
            file.sync_data()?;
            fs::rename(&new, &path)
        };
        // Tried again a minute later: nobody waits for it.
        if let Ok(Err(why)) = tokio::task::spawn_blocking(write).await {
            tracing::warn!(%why, "who the sensors are could not be written");
        }
        *saved = known;
    }
}

fn private(mut options: fs::OpenOptions) -> fs::OpenOptions {
    use std::os::unix::fs::OpenOptionsExt as _;
    options.write(true).create(true).truncate(true).mode(0o600);
    options
}
