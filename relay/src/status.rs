//! What the relay says of itself: every part fills its own piece of one answer.
//!
//! A part gives a closure when it is wired up. It is called for each answer, must not wait, and touches only what
//! is its own; so parts need not know each other, nor this module them.

use std::sync::Arc;

use journal::Journal;
use proto::query::{JournalStatus, LossStatus, StatusReply};
use tokio::sync::watch;

use crate::feed::Tail;
use crate::policies::CurrentSet;

type Part = Arc<dyn Fn(&mut StatusReply) + Send + Sync>;

/// The parts of a status; a cheap handle.
#[derive(Clone, Default)]
pub struct Parts {
    parts: Vec<Part>,
}

impl Parts {
    /// None yet.
    pub fn new() -> Parts {
        Parts::default()
    }

    /// Adds a part.
    #[must_use]
    pub fn with(mut self, part: impl Fn(&mut StatusReply) + Send + Sync + 'static) -> Parts {
        self.parts.push(Arc::new(part));
        self
    }

    /// Adds what the policies say.
    #[must_use]
    pub fn with_policies(self, current: watch::Receiver<Arc<CurrentSet>>) -> Parts {
        self.with(move |reply| reply.policies = Some(current.borrow().status()))
    }

    /// Adds what the feeds say.
    #[must_use]
    pub fn with_feeds(self, tail: Tail) -> Parts {
        self.with(move |reply| {
            reply.relay.get_or_insert_default().feed_clients = tail.clients();
            for (kind, count) in tail.missed().into_iter().filter(|(_, count)| *count > 0) {
                let class = kind.name().to_lowercase();
                reply.losses.push(LossStatus {
                    r#where: "feed".to_string(),
                    class,
                    count,
                });
            }
        })
    }

    /// Adds what the journal says; `max_bytes` is its configured bound.
    #[must_use]
    pub fn with_journal(self, journal: Journal, max_bytes: u64) -> Parts {
        self.with(move |reply| reply.journal = Some(journal_status(&journal, max_bytes)))
    }

    /// Asks every part.
    pub fn read(&self) -> StatusReply {
        let mut reply = StatusReply::default();
        self.parts.iter().for_each(|part| part(&mut reply));
        reply
    }
}

fn journal_status(journal: &Journal, max_bytes: u64) -> JournalStatus {
    let stats = journal.stats();
    JournalStatus {
        first: journal.first().0,
        next: journal.committed().0 + 1,
        bytes: stats.bytes,
        max_bytes,
        segments: stats.segments,
        oldest_unix: stats.oldest / 1_000_000_000,
        state: stats.state.to_string(),
    }
}
