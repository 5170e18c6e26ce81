//! The end: nothing more is taken, what is on its way is finished, and positions are kept.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::fanout::Fanout;
use crate::feed::Tail;
use crate::ingest::Ingest;
use crate::log::Store;
use crate::traces::Traces;

/// How long the drain may take: sinks that are away keep their events in the journal.
const DRAIN: Duration = Duration::from_secs(10);

/// How long a listener's last calls may take.
const LAST_CALLS: Duration = Duration::from_secs(3);

/// What has to end, in order.
pub(super) struct Drain {
    pub(super) stop_reloads: watch::Sender<bool>,
    pub(super) reloading: JoinHandle<()>,
    pub(super) stop_sources: watch::Sender<bool>,
    pub(super) pulling: JoinHandle<()>,
    pub(super) stop: watch::Sender<bool>,
    pub(super) stop_http: watch::Sender<bool>,
    pub(super) calls: JoinSet<(&'static str, Option<String>)>,
    pub(super) ingest: Ingest,
    pub(super) fanout: Fanout,
    pub(super) tail: Tail,
    pub(super) log: Store,
    pub(super) traces: Traces,
}

impl Drain {
    pub(super) async fn run(mut self) {
        self.stop.send_replace(true);
        // A reload that is under way is not cut off: all that it waits for has a bound.
        self.stop_reloads.send_replace(true);
        if timeout(DRAIN, self.reloading).await.is_err() {
            tracing::warn!("a reload did not end in time");
        }
        self.stop_sources.send_replace(true);
        if timeout(LAST_CALLS, self.pulling).await.is_err() {
            tracing::warn!("sources did not end in time");
        }
        self.ingest.drain();
        // Readers are served while sensors' last events and the sinks are finished, so they see those events too.
        self.ingest.finished(LAST_CALLS).await;
        self.fanout.drain(DRAIN).await;
        self.traces.close().await;
        self.tail.stop();
        // Whoever reads the past of a log whose brokers are away would wait for them.
        self.log.log().give_up();
        self.stop_http.send_replace(true);
        let ended = timeout(LAST_CALLS, async {
            while self.calls.join_next().await.is_some() {}
        })
        .await;
        if ended.is_err() {
            tracing::warn!("cut off calls that did not end");
        }
        self.calls.shutdown().await;
        // Joins the journal's thread, which finishes the write it is in.
        let log = self.log;
        if let Err(error) = tokio::task::spawn_blocking(move || log.close()).await {
            tracing::error!(%error, "the journal was not closed");
        }
    }
}
