//! The sensors' door: takes batches, checks every event in place, writes what is new, and says "yes" afterwards.
//!
//! ```text
//! sensor ══ Batch ══▶ session ─ check ─ reserve ─ budget ─▶ committer ─▶ log.append ─ fdatasync ─┐
//!        ◀═ Ack ════════════════════════════════════════════════════════════════════════════════┘
//!        ◀═ Rules ═══ distribute
//! ```
//! The rule of the house: an `Ack` is sent after the events up to it are on disk, never before.
//!
//! A session reads one batch after the other and hands each to its committer, so many batches are on their way to the
//! disk at once. What bounds them is one budget of bytes that all sessions share. The committer is a task of its own:
//! when the connection breaks, what it has is still written, and the sensor finds it received when it comes back.
//!
//! One bad event is rejected by its number and the rest of its batch is taken; only bad framing ends a session.

mod accounts;
mod committer;
mod hello;
mod importer;
mod sensors;
mod service;
mod session;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use proto::link::link_server::LinkServer;
use tokio::sync::{Semaphore, watch};

use crate::distribute::Distributor;
use crate::log::Log;

pub use accounts::{Accounts, Door, EndReason};
pub use importer::{Imported, Importer};
pub use sensors::Sensors;
pub use service::LinkService;

/// What the sensors' door needs.
#[derive(Debug, Clone)]
pub struct Config {
    /// Bytes of events between the socket and the disk, for all sensors together.
    pub budget: usize,
    /// How long a new connection may take to say who it is.
    pub hello: Duration,
    /// How long a sensor is asked to wait when events cannot be taken.
    pub pause: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            budget: 32 << 20,
            hello: Duration::from_secs(10),
            pause: Duration::from_secs(2),
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
    log: Log,
    accounts: Accounts,
    sensors: Sensors,
    distributor: Distributor,
    budget: Budget,
    /// True once the relay drains: sessions finish what they have and end.
    draining: watch::Sender<bool>,
    /// Sessions that have not ended.
    live: watch::Sender<usize>,
}

impl Ingest {
    /// Puts the door in place. Nothing listens yet.
    pub fn new(config: Config, log: Log, distributor: Distributor, accounts: Accounts) -> Self {
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
            budget,
            draining,
            live,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// The gRPC service for the link listener.
    pub fn service(&self) -> LinkServer<LinkService> {
        service::server(self.shared.clone())
    }

    /// The way in for events that have no id yet.
    pub fn importer(&self) -> Importer {
        Importer::new(self.shared.clone())
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

/// One bound for all sessions: bytes of events that are not on disk yet.
#[derive(Clone)]
struct Budget {
    bytes: Arc<Semaphore>,
    size: usize,
}

/// Part of the budget, given back when dropped.
type Share = tokio::sync::OwnedSemaphorePermit;

impl Budget {
    fn new(size: usize) -> Self {
        Self {
            bytes: Arc::new(Semaphore::new(size)),
            size,
        }
    }

    /// Waits until there is room for `bytes` in `events` events. None when the relay stops.
    async fn take(&self, bytes: usize, events: usize) -> Option<Share> {
        // Beside its payload an event costs its place in two lists and its id.
        let wanted = (bytes + 128 * events).min(self.size);
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        self.bytes.clone().acquire_many_owned(wanted).await.ok()
    }
}
