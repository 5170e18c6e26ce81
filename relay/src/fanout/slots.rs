//! How many batches of a sink may be on their way at once, whoever of its lanes sends them.
//!
//! A sink with one lane counts by itself. Lanes that share a sink share its `concurrency` as well: as many partitions as this
//! relay has would otherwise send as many times what the destination is meant to bear, or the sink can take.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places of a sink; a cheap handle.
#[derive(Clone)]
pub(super) struct Slots(Option<Arc<Semaphore>>);

/// A place, free again when it is dropped.
pub(super) struct Slot {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Slots {
    /// For the one lane of a sink.
    pub(super) fn own() -> Self {
        Slots(None)
    }

    /// For lanes that come and go.
    pub(super) fn shared(concurrency: usize) -> Self {
        Slots(Some(Arc::new(Semaphore::new(concurrency.max(1)))))
    }

    /// A place, if one is free.
    pub(super) fn take(&self) -> Option<Slot> {
        let permit = match &self.0 {
            // Full: nobody closes it.
            Some(places) => Some(Arc::clone(places).try_acquire_owned().ok()?),
            None => None,
        };
        Some(Slot { _permit: permit })
    }

    /// The next place that is free; who waited longest has it first. Dropping this future loses nothing.
    pub(super) async fn wait(&self) -> Slot {
        let permit = match &self.0 {
            Some(places) => Arc::clone(places).acquire_owned().await.ok(),
            None => None,
        };
        Slot { _permit: permit }
    }
}
