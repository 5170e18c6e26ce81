//! One kind of event of one daemon: read, journaled, and only then given back to the daemon's window.
//!
//! ```text
//! daemon ═▶ read what is there ─▶ import: check, number, journal ─▶ release
//!              ▲                      │ the journal is full, or the budget used up: wait
//!              └──────────────────────┘ meanwhile the daemon may send one window, and no more, which is hoarded
//! ```

use std::time::Duration;

use bytes::Bytes;
use exporters::Retry;
use futures::FutureExt;
use journal::AppendError;
use prost::Message as _;
use proto::{Event, Kind, MAX_EVENT, check, feeder};
use tokio::sync::watch;

use super::account::{Account, kind_word};
use super::client::{CallError, Client, Messages};
use super::deframe::Item;
use crate::fanout::backoff;
use crate::ingest::Importer;

/// Bytes of events that are journaled together, more or less.
const BATCH: usize = 512 << 10;

/// A message may be as large as an event with the id that another relay put behind it, and some.
const LIMIT: usize = MAX_EVENT + 64;

/// Before what failed is tried again. A daemon keeps nothing for those who are away, so not for long.
pub(super) const RETRY: Retry = Retry {
    initial: Duration::from_millis(100),
    max: Duration::from_secs(5),
};

/// Whether a connection is still of use; seen by all that goes on over it.
pub(super) struct Line {
    /// The relay stops.
    pub(super) stop: watch::Receiver<bool>,
    /// Why the connection is of no use any more.
    pub(super) broken: watch::Sender<Option<String>>,
}

impl Line {
    pub(super) fn new(stop: &watch::Receiver<bool>) -> Self {
        Self {
            stop: stop.clone(),
            broken: watch::Sender::new(None),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        *self.stop.borrow() || self.broken.borrow().is_some()
    }

    pub(super) async fn over(&self) {
        let (mut stop, mut broken) = (self.stop.clone(), self.broken.subscribe());
        // An error says that there is nobody left to tell, which is the end as well.
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => {}
            _ = broken.wait_for(Option::is_some) => {}
        }
    }

    pub(super) async fn pause(&self, time: Duration) {
        tokio::select! {
            () = self.over() => {}
            () = tokio::time::sleep(time) => {}
        }
    }
}

/// A stream of one kind.
pub(super) struct Watch<'a> {
    pub(super) kind: Kind,
    pub(super) client: &'a Client,
    pub(super) line: &'a Line,
    pub(super) account: &'a Account,
    pub(super) importer: &'a Importer,
}

impl Watch<'_> {
    /// One stream, to its end. `CallError` says why it ended; none: the line is over.
    pub(super) async fn stream(&self) -> Option<CallError> {
        let (method, filter) = words(self.kind);
        let request = feeder::RequestMessage {
            filter: filter.to_owned(),
        };
        // A daemon that has nothing to tell does not begin its answer either.
        self.account.opened(self.kind);
        let called = tokio::select! {
            called = self.client.call(method, &request, LIMIT) => called,
            () = self.line.over() => return None,
        };
        match called {
            Ok(messages) => self.read(messages).await,
            Err(why) => Some(why),
        }
    }

    async fn read(&self, mut messages: Messages) -> Option<CallError> {
        let mut items = Vec::new();
        loop {
            let read = tokio::select! {
                read = messages.read(&mut items, BATCH) => Some(read),
                () = self.line.over() => None,
            };
            tokio::select! {
                () = self.deliver(&mut items) => {}
                () = messages.hoard() => {}
            }
            match read {
                Some(Ok(())) => messages.release(),
                Some(Err(why)) => return Some(why),
                None => break,
            }
        }
        // What has reached this process is kept; nothing is released, so it is one window at most.
        while let Some(Ok(())) = messages.read(&mut items, BATCH).now_or_never() {
            self.deliver(&mut items).await;
        }
        self.deliver(&mut items).await;
        None
    }

    /// Journals what came, however long that takes.
    async fn deliver(&self, items: &mut Vec<Item>) {
        let mut events = Vec::with_capacity(items.len());
        for item in items.drain(..) {
            match item {
                Item::Message(bytes) => events.push((self.kind, self.admit(bytes))),
                Item::TooLarge(size) => {
                    self.reject(
                        1,
                        &format!("{size} bytes are more than the limit of {MAX_EVENT}"),
                    );
                }
            }
        }
        let mut failures = 0;
        while !events.is_empty() {
            match self.importer.import(events.clone()).await {
                Ok(imported) => {
                    self.account.journaled(self.kind, imported.accepted);
                    if let Some((_, why)) = imported.rejected.last() {
                        self.reject(imported.rejected.len() as u64, &why.to_string()); // usize is at most 64 bits
                    }
                    return;
                }
                Err(why) => {
                    failures += 1;
                    if matches!(why, AppendError::Closed) || *self.line.stop.borrow() {
                        return self.drop_all(events.len() as u64, &why);
                    }
                    self.wait(backoff::wait(RETRY, failures, None)).await;
                }
            }
        }
    }

    /// Waits while nothing can be journaled, whether the daemon is there or not.
    async fn wait(&self, time: Duration) {
        let mut stop = self.line.stop.clone();
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }

    fn reject(&self, events: u64, why: &str) {
        self.account.rejected(self.kind, events, why);
    }

    fn drop_all(&self, events: u64, why: &AppendError) {
        self.account.dropped(self.kind, events);
        tracing::error!(kind = kind_word(self.kind), events, %why, "events given up: this relay stops and cannot journal them");
    }

    /// The event as it is journaled, noting what it tells of losses on its way.
    fn admit(&self, bytes: Bytes) -> Bytes {
        let payload = without_id(self.kind, bytes);
        if self.kind == Kind::Message
            && let Ok(message) = feeder::Message::decode(payload.clone())
            && let Some(lost) = message.lost.filter(|lost| lost.r#where == "feed")
            && let Some(kind) = Kind::ALL
                .into_iter()
                .find(|kind| kind_word(*kind) == lost.class)
        {
            self.account.missed(kind, lost.count);
        }
        payload
    }
}

/// An event of another relay has that relay's id behind it. Here it gets one of its own: nothing vouches for the other,
/// and with it one event could pose as another.
fn without_id(kind: Kind, bytes: Bytes) -> Bytes {
    match Event::split_id(&bytes) {
        // Had the id been part of another field, what is left would not be whole.
        Some((_, rest)) if check(kind, &rest).is_ok() => rest,
        _ => bytes,
    }
}

/// The method and the filter word with which KubeArmor's relay asks for a kind.
fn words(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Message => ("WatchMessages", "all"),
        Kind::Alert => ("WatchAlerts", "policy"),
        Kind::Log => ("WatchLogs", "system"),
    }
}
