//! Events that nobody has numbered yet: recorded streams, daemons that know no ids, and what the relay itself tells.
//!
//! They get ids at arrival, from a stream that this relay draws at its start. Sending the same recording twice makes
//! two sets of events: there is nothing in them to tell a repetition by.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use journal::AppendError;
use proto::{Event, EventId, Kind, Malformed, StreamId, check};

use super::budget::{Purse, cost};
use super::{Door, Shared};

/// Numbers events and writes them; a cheap handle.
#[derive(Clone)]
pub struct Importer {
    shared: Arc<Shared>,
    door: Door,
    /// All imports together are to the budget what one session of a sensor is.
    purse: Purse,
    /// Its name among those whose events are kept in order.
    from: Arc<str>,
    stream: StreamId,
    next: Arc<AtomicU64>,
}

/// What became of imported events.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Imported {
    /// On disk.
    pub accepted: u64,
    /// Index in what was given, and why.
    pub rejected: Vec<(usize, Malformed)>,
}

impl Importer {
    pub(super) fn new(shared: Arc<Shared>, door: Door) -> Self {
        let stream = StreamId::random();
        Self {
            purse: shared.budget.purse(),
            shared,
            door,
            from: stream.to_string().into(),
            stream,
            next: Arc::new(AtomicU64::new(1)),
        }
    }

    /// Checks, numbers and writes events; done when they are on disk.
    ///
    /// # Errors
    /// None of them was written. They may be given again.
    pub async fn import(&self, events: Vec<(Kind, Bytes)>) -> Result<Imported, AppendError> {
        let this = self.clone();
        // A task of its own: when the caller goes away in the middle, the accounts are still closed by the outcome.
        let import = tokio::spawn(async move { this.write(events).await });
        import.await.unwrap_or(Err(AppendError::Closed))
    }

    async fn write(&self, events: Vec<(Kind, Bytes)>) -> Result<Imported, AppendError> {
        let bytes = events.iter().map(|(_, payload)| payload.len()).sum();
        let mut entry = self
            .shared
            .accounts
            .received(self.door, events.len(), bytes);
        let purse = self.purse.clone();
        let share = purse
            .take(cost(bytes, events.len()))
            .await
            .ok_or(AppendError::Closed)?;
        let (mut good, mut rejected) = (Vec::with_capacity(events.len()), Vec::new());
        let mut places = Vec::with_capacity(events.len());
        for (index, (kind, payload)) in events.into_iter().enumerate() {
            match check(kind, &payload) {
                Ok(()) => {
                    places.push(index);
                    good.push(Event {
                        kind,
                        id: self.draw(),
                        payload,
                    });
                }
                Err(why) => rejected.push((index, why)),
            }
        }
        entry.rejected(rejected.len());
        let mut accepted = good.len();
        if accepted > 0 {
            let written = self.shared.log.append(Arc::clone(&self.from), good).await?;
            let refused = written.refused;
            accepted -= refused.len();
            entry.rejected(refused.len());
            rejected.extend(refused.iter().map(|refused| {
                let why = Malformed::TooLarge {
                    size: refused.size,
                    limit: refused.limit,
                };
                (places[refused.index], why)
            }));
        }
        entry.acknowledged(accepted);
        drop(share);
        Ok(Imported {
            accepted: accepted as u64,
            rejected,
        })
    }

    fn draw(&self) -> EventId {
        // Only that no number is given twice matters, not in which order threads see them.
        EventId {
            stream: self.stream,
            sequence: self.next.fetch_add(1, Ordering::Relaxed),
        }
    }
}
