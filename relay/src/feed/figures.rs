//! The feeds' figures: who reads, what was handed on and what was missed.

use prometheus::{IntCounterVec, IntGauge, Opts};
use proto::Kind;

use super::tail::kind_index;
use crate::metrics::Registry;

/// What `/metrics` shows of the feeds.
pub(super) struct Figures {
    pub(super) clients: IntGauge,
    pub(super) sent: [prometheus::IntCounter; 3],
    missed: [prometheus::IntCounter; 3],
}

impl Figures {
    pub(super) fn new(registry: &Registry) -> Result<Figures, prometheus::Error> {
        let clients = IntGauge::new("cresset_feed_clients", "Streams that read the feed now.")?;
        let sent = IntCounterVec::new(
            Opts::new(
                "cresset_feed_sent_total",
                "Events handed to readers of the feed, once for each reader.",
            ),
            &["kind"],
        )?;
        let missed = IntCounterVec::new(
            Opts::new(
                "cresset_feed_missed_total",
                "Events that readers of the feed missed because they were too slow.",
            ),
            &["kind"],
        )?;
        registry.register(Box::new(clients.clone()))?;
        registry.register(Box::new(sent.clone()))?;
        registry.register(Box::new(missed.clone()))?;
        let of = |counters: &IntCounterVec| {
            Kind::ALL.map(|kind| counters.with_label_values(&[class(kind)]))
        };
        Ok(Figures {
            clients,
            sent: of(&sent),
            missed: of(&missed),
        })
    }

    pub(super) fn missed(&self, kind: Kind) -> &prometheus::IntCounter {
        &self.missed[kind_index(kind)]
    }
}

/// A kind as metrics and losses name it.
pub(crate) fn class(kind: Kind) -> &'static str {
    match kind {
        Kind::Alert => "alert",
        Kind::Log => "log",
        Kind::Message => "message",
    }
}
