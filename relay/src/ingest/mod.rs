//! The sensors' door: takes batches, checks every event in place, writes what is new, and says "yes" afterwards.
//!
//! ```text
//! sensor ══ Batch ══▶ gate (budget) ─▶ session ─ check ─ reserve ─▶ committer ─▶ log.append ─ fdatasync ─┐
//!        ◀═ Ack ════════════════════════════════════════════════════════════════════════════════════════┘
//!        ◀═ Rules ═══ distribute
//! ```
//! The rule of the house: an `Ack` is sent after the events up to it are on disk, never before.
//!
//! A session reads one batch after the other and hands each to its committer, so many batches are on their way to the
//! disk at once. What bounds them is one budget of bytes that all sessions share, and a batch has its part of it before
//! it is decoded: with the disk behind, batches wait in the sensors. The committer is a task of its own: when the
//! connection breaks, what it has is still written, and the sensor finds it received when it comes back.
//!
//! One bad event is rejected by its number and the rest of its batch is taken; only bad framing ends a session.

mod accounts;
mod budget;
mod committer;
mod gate;
mod hello;
mod importer;
mod owners;
mod sensors;
mod service;
mod session;
mod silence;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use proto::{MAX_BATCH, Malformed};
use tokio::sync::watch;

use crate::distribute::Distributor;
use crate::log::Store;
use crate::traces::Traces;

pub use accounts::{Accounts, Door, EndReason};
pub use budget::{Budget, Lent};
pub use importer::{Imported, Importer};
pub use owners::Owners;
pub(crate) use sensors::NotForgotten;
pub use sensors::Sensors;
pub use service::LinkService;
pub(crate) use silence::{Settings as SilenceSettings, Silence};

/// The largest message, in bytes: a batch, and what stands around its events.
const MAX_MESSAGE: usize = MAX_BATCH + (512 << 10);

/// Events of one batch: more than fit one by their size, were they real ones.
const MAX_EVENTS: usize = 16_384;

/// Why an event is not taken, now or later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Rejection {
    /// It is no event.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// It is numbered in another's name.
    #[error("its stream belongs to another sensor")]
    Foreign,
}

/// What the sensors' door needs.
#[derive(Debug, Clone)]
pub struct Config {
    /// Bytes between the sockets and the disk, for all sensors together.
    pub budget: usize,
    /// How long a new connection may take to say who it is.
    pub hello: Duration,
    /// How long a message may take to arrive once it has its part of the budget, and a sensor to read an answer when too
    /// many wait for it.
    pub arrival: Duration,
    /// How long a sensor is asked to wait when events cannot be taken.
    pub pause: Duration,
    /// Whose stream is whose.
    pub owners: Owners,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            budget: 128 << 20,
            hello: Duration::from_secs(10),
            arrival: Duration::from_secs(20),
            pause: Duration::from_secs(2),
            owners: Owners::default(),
        }
    }
}

/// The door and what is known behind it; a cheap handle.
#[derive(Clone)]
pub struct Ingest {
    shared: Arc<Shared>,
}

/// What all sessions share.
struct Shared {
    config: Config,
    log: Store,
    accounts: Accounts,
    sensors: Sensors,
    distributor: Distributor,
    traces: Traces,
    budget: Budget,
    /// True once the relay drains: sessions finish what they have and end.
    draining: watch::Sender<bool>,
    /// Sessions that have not ended.
    live: watch::Sender<usize>,
}

impl Ingest {
    /// Becomes true when the relay drains.
    pub(crate) fn draining(&self) -> watch::Receiver<bool> {
        self.shared.draining.subscribe()
    }

    /// Puts the door in place. Nothing listens yet.
    pub fn new(config: Config, log: Store, distributor: Distributor, accounts: Accounts) -> Self {
        Self::traced(config, log, distributor, accounts, Traces::default())
    }

    /// The same with some batches traced.
    pub fn traced(
        config: Config,
        log: Store,
        distributor: Distributor,
        accounts: Accounts,
        traces: Traces,
    ) -> Self {
        let budget = Budget::new(config.budget);
        let (sensors, draining, live) = (
            Sensors::default(),
            watch::Sender::new(false),
            watch::Sender::new(0),
        );
        let shared = Shared {
            config,
            log,
            accounts,
            sensors,
            distributor,
            traces,
            budget,
            draining,
            live,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// The gRPC service for the link listener.
    pub fn service(&self) -> LinkService {
        LinkService::new(self.shared.clone())
    }

    /// What bounds the bytes between the sockets and the disk.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.shared.budget
    }

    /// A way in for events that have no id yet, with a stream of ids of its own. They are accounted for at `door`.
    pub fn importer(&self, door: Door) -> Importer {
        Importer::new(self.shared.clone(), door)
    }

    /// Who is connected, and who was.
    pub fn sensors(&self) -> Sensors {
        self.shared.sensors.clone()
    }

    /// Ends all sessions once what they have is written and answered.
    pub fn drain(&self) {
        self.shared.draining.send_replace(true);
    }

    /// Waits until all sessions have ended, and no longer than `most`.
    pub async fn finished(&self, most: Duration) {
        let mut live = self.shared.live.subscribe();
        let ended = tokio::time::timeout(most, live.wait_for(|live| *live == 0)).await;
        if ended.is_err() {
            tracing::warn!(
                sessions = *self.shared.live.borrow(),
                "sessions of sensors did not end in time"
            );
        }
    }
}

/// Counts a session while it lasts.
struct Live(Arc<Shared>);

impl Live {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.live.send_modify(|live| *live += 1);
        Self(shared.clone())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.live.send_modify(|live| *live -= 1);
    }
}
