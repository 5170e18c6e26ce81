//! What the relay says of itself: every part fills its own piece of one answer.
//!
//! A part gives a closure when it is wired up. It is called for each answer, must not wait, and touches only what
//! is its own; so parts need not know each other, nor this module them.

use std::sync::{Arc, Mutex, PoisonError};

use journal::Seq;
use proto::query::{JournalStatus, LossStatus, StatusReply};
use tokio::sync::watch;

use crate::feed::Tail;
use crate::log::{Log, Store};
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

    /// Adds what the log itself says.
    #[must_use]
    pub fn with_journal(self, log: impl Log + 'static) -> Parts {
        let oldest = Mutex::new((Seq(0), 0));
        self.with(move |reply| reply.journal = Some(journal_status(&log, &oldest)))
    }

    /// The same, and whether it takes new events.
    #[must_use]
    pub fn with_log(self, store: &Store) -> Parts {
        let standing = store.standing().clone();
        self.with_journal(Arc::clone(store.log()))
            .with(move |reply| {
                let refusing = standing.refusing().is_some();
                reply.journal.get_or_insert_default().state = state(refusing).to_owned();
            })
    }

    /// Asks every part.
    pub fn read(&self) -> StatusReply {
        let mut reply = StatusReply::default();
        self.parts.iter().for_each(|part| part(&mut reply));
        reply
    }
}

/// `oldest` is the oldest record when it was last looked at, and when that was journaled, in unix seconds.
fn journal_status(log: &dyn Log, oldest: &Mutex<(Seq, u64)>) -> JournalStatus {
    let stats = log.figures();
    let mut oldest = oldest.lock().unwrap_or_else(PoisonError::into_inner);
    if oldest.0 != stats.first || oldest.1 == 0 {
        *oldest = (stats.first, log.oldest_unix());
    }
    JournalStatus {
        first: stats.first.0,
        next: stats.committed.0 + 1,
        bytes: stats.bytes,
        max_bytes: stats.max_size,
        segments: stats.segments as u64, // usize is at most 64 bits
        oldest_unix: oldest.1,
        state: state(stats.refusing.is_some()).to_owned(),
        place: log.place(),
        found: Vec::new(),
    }
}

fn state(refusing: bool) -> &'static str {
    if refusing { "refusing" } else { "writable" }
}
