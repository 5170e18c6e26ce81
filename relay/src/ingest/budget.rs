//! One bound in bytes for everything between the sockets and the disk.
//!
//! ```text
//! budget ┬ ⅞ windows  lent to connections: what a peer may send before anybody reads it, and a message being put together
//!        └ ⅛ events   taken for a message before it is decoded, given back when its events are on disk or refused
//! ```
//! Windows are lent when a connection is accepted and cannot be called back, so every connection that there may be has
//! the least one set aside, and the first ones get more of what is left over. A connection that has no window is not
//! accepted. Whoever waits for a part of the events' bytes holds no other part of them, so nobody waits in a circle.
//!
//! One session has at most a quarter of the events' bytes (but the largest message must pass): a sensor that sends without
//! end leaves room for the others. The journal's own queue has room for all of them, so nothing waits before it, and a
//! stream's batches go in as they came.

use crate::metrics::Registry;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGaugeVec, Opts};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{MAX_EVENTS, MAX_MESSAGE};

/// The window that every HTTP/2 connection has before anybody can say otherwise (RFC 9113, 6.9.2).
const LEAST_WINDOW: usize = 65_535;

/// A frame that has been taken out of the window and is not yet part of a message (RFC 9113, 4.2).
const FRAME: usize = 16 << 10;

/// What the least connection is lent.
const LEAST: usize = LEAST_WINDOW + FRAME;

/// Beyond that a window makes nothing faster.
const MOST_WINDOW: usize = 512 << 10;

/// Beside its payload an event costs its place in two lists and its id.
const BESIDE: usize = 128;

/// What a message may come to when it is decoded: it can be all events, and no event has fewer than two bytes.
pub(super) fn worst(message: usize) -> usize {
    message + BESIDE * (message / 2).min(MAX_EVENTS)
}

/// What events come to.
pub(super) fn cost(bytes: usize, events: usize) -> usize {
    bytes + BESIDE * events
}

/// The budget; a cheap handle.
#[derive(Debug, Clone)]
pub struct Budget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    windows: Windows,
    events: Arc<Semaphore>,
    events_size: usize,
    events_peak: AtomicUsize,
}

#[derive(Debug)]
struct Windows {
    size: usize,
    connections: usize,
    lent: Mutex<Loans>,
}

#[derive(Debug, Default)]
struct Loans {
    bytes: usize,
    peak: usize,
    /// Bytes above the least of each connection.
    extra: usize,
}

// === impl Budget ===

impl Budget {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let events_size = Self::events(bytes);
        let size = bytes - events_size;
        let windows = Windows {
            size,
            // A sixth is for the first ones to have more.
            connections: (size / 6 * 5 / LEAST).max(1),
            lent: Mutex::default(),
        };
        let shared = Shared {
            windows,
            events: Arc::new(Semaphore::new(events_size)),
            events_size,
            events_peak: AtomicUsize::new(0),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// The events' part of a budget of so many bytes.
    #[must_use]
    pub fn events(bytes: usize) -> usize {
        bytes / 8
    }

    /// How many connections there may be at one time.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.windows.connections
    }

    /// The window of a connection that is accepted.
    #[must_use]
    pub fn lend(&self) -> Lent {
        let windows = &self.shared.windows;
        let mut loans = windows.loans();
        let spare = windows
            .size
            .saturating_sub(windows.connections * LEAST + loans.extra);
        // Twice: once as a window, once to put a message together.
        let window = (spare / 16).clamp(LEAST_WINDOW, MOST_WINDOW);
        let own = window - LEAST_WINDOW;
        let bytes = LEAST + 2 * own;
        loans.bytes += bytes;
        loans.extra += 2 * own;
        loans.peak = loans.peak.max(loans.bytes);
        drop(loans);
        Lent {
            budget: self.clone(),
            window,
            own,
            claimed: AtomicBool::new(false),
            bytes,
        }
    }

    /// What one session may hold of the events' bytes.
    pub(super) fn purse(&self) -> Purse {
        let most = (self.shared.events_size / 4)
            .max(worst(MAX_MESSAGE))
            .min(self.shared.events_size);
        Purse {
            shared: self.shared.clone(),
            own: Arc::new(Semaphore::new(most)),
            most,
        }
    }

    /// Bytes of events that are held now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.shared.held()
    }

    /// Shows the bound, what is held of it, and the most that ever was.
    ///
    /// # Errors
    /// The registry has these figures already.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(Shown {
            budget: self.clone(),
            figures: Figures::new()?,
        }))
    }
}

impl Shared {
    fn held(&self) -> usize {
        self.events_size - self.events.available_permits()
    }

    fn note_peak(&self) {
        self.events_peak.fetch_max(self.held(), Ordering::Relaxed);
    }
}

impl Windows {
    fn loans(&self) -> MutexGuard<'_, Loans> {
        // Every change is a few additions that cannot panic in between.
        self.lent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a connection was lent; given back when dropped.
#[derive(Debug)]
pub struct Lent {
    budget: Budget,
    window: usize,
    own: usize,
    claimed: AtomicBool,
    bytes: usize,
}

impl Lent {
    /// The HTTP/2 window of the connection and of each of its calls.
    #[must_use]
    pub fn window(&self) -> u32 {
        // At most `MOST_WINDOW`.
        self.window as u32
    }

    /// Bytes of a message that one call may put together before it has a part of the events' bytes: for the call that
    /// asks first.
    pub(super) fn claim(&self) -> usize {
        if self.claimed.swap(true, Ordering::Relaxed) {
            0
        } else {
            self.own
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut loans = self.budget.shared.windows.loans();
        loans.bytes -= self.bytes;
        loans.extra -= 2 * self.own;
    }
}

/// What one session takes its parts out of; a cheap handle.
#[derive(Debug, Clone)]
pub(super) struct Purse {
    shared: Arc<Shared>,
    own: Arc<Semaphore>,
    most: usize,
}

/// Part of the events' bytes; given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    all: OwnedSemaphorePermit,
    own: OwnedSemaphorePermit,
}

impl Purse {
    /// Takes them if there is room now.
    pub(super) fn try_take(&self, bytes: usize) -> Option<Share> {
        let wanted = u32::try_from(bytes.min(self.most)).unwrap_or(u32::MAX);
        let own = self.own.clone().try_acquire_many_owned(wanted).ok()?;
        let all = self.shared.events.clone();
        let all = all.try_acquire_many_owned(wanted).ok()?;
        self.shared.note_peak();
        Some(Share { all, own })
    }

    /// Waits until there is room for `bytes`. More than a session may ever hold counts as that much, and passes alone.
    /// None when the relay stops.
    pub(super) async fn take(self, bytes: usize) -> Option<Share> {
        let wanted = u32::try_from(bytes.min(self.most)).unwrap_or(u32::MAX);
        // First what only this session waits for.
        let own = self.own.acquire_many_owned(wanted).await.ok()?;
        let shared = self.shared;
        let all = shared.events.clone();
        let all = all.acquire_many_owned(wanted).await.ok()?;
        shared.note_peak();
        Some(Share { all, own })
    }
}

impl Share {
    /// Gives back what is more than `bytes`.
    pub(super) fn shrink(&mut self, bytes: usize) {
        let more = self.all.num_permits().saturating_sub(bytes);
        drop((self.all.split(more), self.own.split(more)));
    }
}

/// The figures, made anew for every scrape.
struct Figures {
    size: IntGaugeVec,
    held: IntGaugeVec,
    peak: IntGaugeVec,
}

impl Figures {
    fn new() -> Result<Self, prometheus::Error> {
        let gauge = |name, help| {
            let name = format!("cresset_ingest_{name}_bytes");
            IntGaugeVec::new(Opts::new(name, help), &["part"])
        };
        Ok(Self {
            size: gauge(
                "budget",
                "Bound of the bytes between the sockets and the disk: windows (what peers may send ahead) and events.",
            )?,
            held: gauge("held", "What is taken of it now.")?,
            peak: gauge(
                "held_peak",
                "The most that was taken of it since the start.",
            )?,
        })
    }

    fn collectors(&self) -> [&dyn Collector; 3] {
        [&self.size, &self.held, &self.peak]
    }

    fn fill(&self, shared: &Shared) {
        let loans = shared.windows.loans();
        let peak = shared.events_peak.load(Ordering::Relaxed);
        for (part, size, held, peak) in [
            ("windows", shared.windows.size, loans.bytes, loans.peak),
            ("events", shared.events_size, shared.held(), peak),
        ] {
            for (gauge, bytes) in [(&self.size, size), (&self.held, held), (&self.peak, peak)] {
                gauge
                    .with_label_values(&[part])
                    .set(i64::try_from(bytes).unwrap_or(i64::MAX));
            }
        }
    }
}

/// The budget as the registry sees it.
struct Shown {
    budget: Budget,
    /// Only described, never filled.
    figures: Figures,
}

impl Collector for Shown {
    fn desc(&self) -> Vec<&Desc> {
        self.figures
            .collectors()
            .into_iter()
            .flat_map(Collector::desc)
            .collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // The same names were made once already, so they can be made again.
        let Ok(figures) = Figures::new() else {
            return Vec::new();
        };
        figures.fill(&self.budget.shared);
        figures
            .collectors()
            .into_iter()
            .flat_map(Collector::collect)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn all_connections_together_never_have_more_than_the_windows_part() {
        for budget in [32, 64, 128, 1024].map(|mib| Budget::new(mib << 20)) {
            let windows = &budget.shared.windows;
            let lent: Vec<Lent> = (0..budget.connections()).map(|_| budget.lend()).collect();
            let bytes: usize = lent.iter().map(|lent| lent.bytes).sum();
            assert!(bytes <= windows.size, "{bytes} of {}", windows.size);
            assert!(lent[0].window > lent[lent.len() - 1].window);
            assert!(lent.iter().all(|lent| lent.window >= LEAST_WINDOW));
            assert_eq!(windows.loans().bytes, bytes);
            drop(lent);
            let loans = windows.loans();
            assert_eq!((loans.bytes, loans.extra, loans.peak), (0, 0, bytes));
        }
    }

    #[tokio::test]
    async fn a_session_has_a_quarter_and_others_go_on_beside_it() {
        let budget = Budget::new(256 << 20);
        let (greedy, other) = (budget.purse(), budget.purse());
        let held: Vec<Option<Share>> =
            futures::future::join_all((0..8).map(|_| greedy.clone().take(1 << 20))).await;
        assert!(greedy.try_take(1).is_none() && greedy.take(1).now_or_never().is_none());
        let mut share = other.take(5 << 20).now_or_never().unwrap().unwrap();
        assert_eq!(budget.held(), 13 << 20);
        share.shrink(1000);
        assert_eq!(budget.held(), (8 << 20) + 1000);
        drop((held, share));
        assert_eq!(budget.held(), 0);
        assert_eq!(budget.shared.events_peak.load(Ordering::Relaxed), 13 << 20);
    }
}
