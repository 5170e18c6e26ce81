//! Where events go: one trait, one module a destination.
//!
//! ```text
//! journal ─▶ fan-out (a task a sink) ─ filter, batch ─▶ Sink::send(batch) ─▶ Done | Retry | Refuse | Reject, one an event
//!                 ▲                                              │           or Unavailable for the whole sink
//!                 └──── cursor, back-off, dead letters ◀─────────┘
//! ```
//!
//! A sink only knows how to hand over one batch and to say what became of each event. It keeps no queue, starts no
//! retries, counts nothing and never drops: all of that is done once, by the fan-out, for every sink alike. A sink that is
//! slow or away therefore hurts nobody but itself: it is a cursor that lags.
//!
//! # How to write a sink
//!
//! 1. **Module.** `src/NAME.rs`, or a folder with the pure halves apart (`request.rs`: batch → body; `response.rs`: answer →
//!    outcomes), so that they can be tested without a server.
//! 2. **Settings.** `config! { pub struct Config { … } }` with the sink's own keys; the macro adds the keys that all sinks
//!    have. `DEFAULTS` says the batch size and how many batches may be in flight; `Config::check` reports what the types
//!    cannot.
//! 3. **Sink.** A struct with `fn build(name, &Config, &Context) -> Result<Self, BuildError>`. Building must not need the
//!    destination: a server that is away at start is met at the first `send`.
//! 4. **`send`.** Answer one [`Outcome`] for every event of the batch, in its order. Events may come again after a crash
//!    (at least once), so hand [`Encoded::id`] on where the destination can use it.
//!    - the destination has it, and keeps it → [`Outcome::Done`]; before that the cursor does not move, so never say it early
//!    - it would take it later → [`Outcome::Retry`]
//!    - it says no to *this event* → [`Outcome::Refuse`] with the reason: the event is sent again (after [`Sink::elsewhere`]) and
//!      becomes a dead letter, unless the destination says no to every other, too; then the settings are wrong, and the fan-out
//!      waits and says so
//!    - the event cannot even be offered (unreadable, too large for the protocol) → [`Outcome::Reject`]: a dead letter at once
//!    - it takes nothing at all (away, wrong password, no such index) → [`Unavailable`]: everything waits, nothing is rejected
//! 5. **`test`** where the destination has steps worth telling apart (resolve, connect, TLS, authenticate, read back): `cresset sink
//!    test` shows them; `dial` and `http` have a `try_out` for the way there. Without it the one step is a `write`.
//! 6. **Name it** in the list of `config.rs`, the one place that knows all sinks.
//! 7. **Tests** through the real door: a real file, a real pipe, a real server; and a line in `tests/contract`.
//!
//! What connecting sinks share: [`tls`] and [`secret`], `http` (one client, one meaning of status codes), `dial` (bare and gRPC
//! connections, proxies), `offer` (finding the bad events of what is refused). `docs/sinks.md` goes through all of it.
//!
//! `send` runs on the relay's runtime and must not block it. A destination that can only block (a pipe, a disk) gets a
//! thread of its own: see `blocking.rs`, which `stdout` and `file` use.

#[macro_use]
mod config;
mod aside;
mod batch;
mod blocking;
mod dial;
mod exposition;
mod filter;
#[cfg(test)]
mod fixtures;
mod found;
mod http;
mod lines;
mod offer;
mod pages;
mod pen;
mod redact;
mod sample;
mod stamp;
mod told;
mod trial;

pub mod elasticsearch;
pub mod file;
pub mod kafka;
pub mod loki;
pub mod otlp;
pub mod prometheus;
pub mod secret;
pub mod setup;
pub mod stdout;
pub mod syslog;
pub mod tls;
pub mod upstream;
pub mod webhook;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

pub use batch::{Batch, Carried, Encoded};
pub use config::{
    BatchConfig, BatchLimits, Common, DeadLettersConfig, Defaults, Fields, Retry, RetryConfig,
    SinkConfig, Start, WhenFull, build, name_problem,
};
pub use exposition::Page;
pub use filter::{Filter, FilterConfig, KindName};
pub use found::Found;
pub use http::{Auth, Compression, Proxy};
pub use lines::Format;
pub use pages::{Pages, Served};
pub use redact::{Redact, RedactField, Redaction};
pub use sample::{Sample, SampleConfig};
pub use stamp::Stamp;
pub use trial::{Failed, Step, Trial};

/// One destination.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Hands over one batch and waits until the destination has it: one outcome for each event, in the batch's order.
    ///
    /// Up to [`Common::concurrency`] calls run at once.
    ///
    /// # Errors
    /// The destination takes nothing at present. The same events come again later; some may then come twice.
    async fn send(&self, batch: Arc<Batch>) -> Result<Vec<Outcome>, Unavailable>;

    /// Where the destination has an event that it took, as a person would look it up there: `INDEX/_doc/ID`, a file. None:
    /// that cannot be said.
    fn whereabouts(&self, _event: &Encoded) -> Option<String> {
        None
    }

    /// The same, asked of the destination itself where only that knows: blocks the thread, for seconds at most. The event was
    /// not sent before `since`, in unix milliseconds.
    fn look_up(&self, event: &Encoded, _since: u64) -> Option<Found> {
        self.whereabouts(event).map(Found::unseen)
    }

    /// Called once before the sink is let go: what a destination holds back goes out now.
    ///
    /// # Errors
    /// As for [`send`](Sink::send).
    async fn flush(&self) -> Result<(), Unavailable> {
        Ok(())
    }

    /// The destination refused what it may take elsewhere: what is sent from now on goes over new connections, if the sink has
    /// any. Behind one address there may be a server that is set up wrongly among others that are not.
    fn elsewhere(&self) {}

    /// Closes and opens what has a name (SIGUSR1, after somebody moved a log file away). Takes effect before the next batch.
    fn reopen(&self) {}

    /// All events that were waiting when the program started have been sent: from here on the sink shows the present.
    fn caught_up(&self) {}

    /// What the sink must remember of the events sent so far. It is stored with the cursor's position in one atomic write,
    /// so a sink with a snapshot is given one batch at a time.
    fn snapshot(&self) -> Option<Bytes> {
        None
    }

    /// Takes up a snapshot of an earlier life, before the first `send`.
    ///
    /// # Errors
    /// The bytes are no snapshot of this sink; it starts from nothing then.
    fn restore(&self, _snapshot: &[u8]) -> Result<(), BadSnapshot> {
        Ok(())
    }

    /// Tries the destination with one marked event, telling each step as it ends. The event is in no journal; whoever finds it
    /// at the destination knows it by its id, which stands in its text too. May run beside [`send`](Sink::send).
    ///
    /// # Errors
    /// A step failed; it has been told.
    async fn test(&self, event: Carried, trial: &Trial) -> Result<(), Failed> {
        trial
            .write(self.send(Arc::new(Batch::new(vec![event]))))
            .await
    }
}

/// What became of one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The destination has it and keeps it.
    Done,
    /// Not now; again after `after`, or when the fan-out's own back-off says so.
    Retry {
        /// What the destination asked for.
        after: Option<Duration>,
        /// Why, for status and logs.
        reason: String,
    },
    /// Never, and that is certain: nobody can read it, or it fits in no message. It becomes a dead letter.
    Reject {
        /// Why, in one line. Lines after it, if any, are the destination's answer as it came: they are kept with the dead
        /// letter and shown by `cresset dlq show`.
        reason: String,
    },
    /// The destination said no to this event. It becomes a dead letter where the destination takes others; one that says no to
    /// everything is set up wrongly, so everything waits.
    Refuse {
        /// As for [`Outcome::Reject`].
        reason: String,
    },
}

/// The destination takes nothing at present.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Unavailable {
    /// What is wrong and what to do.
    pub reason: String,
    /// How long the destination asked to be left alone.
    pub after: Option<Duration>,
}

impl Unavailable {
    /// Away, for as long as the fan-out's back-off says.
    pub fn new(reason: impl Into<String>) -> Self {
        Unavailable {
            reason: reason.into(),
            after: None,
        }
    }
}

/// Bytes that are no snapshot of this sink.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the saved state of the sink cannot be read: {0}")]
pub struct BadSnapshot(pub String);

/// What a sink may use of the program around it.
#[derive(Clone, Default)]
pub struct Context {
    /// What `/metrics` shows.
    pub registry: ::prometheus::Registry,
    /// Serves pages on ports of their own; none: this program does not.
    pub pages: Option<Arc<dyn Pages>>,
}

/// A sink that cannot be made from its settings.
#[derive(Debug, thiserror::Error)]
#[error("sink {name}: {reason}")]
pub struct BuildError {
    /// The sink's name in the settings.
    pub name: String,
    /// What is wrong and what to do.
    pub reason: String,
}

impl BuildError {
    pub(crate) fn new(name: &str, reason: impl std::fmt::Display) -> Self {
        BuildError {
            name: name.to_owned(),
            reason: reason.to_string(),
        }
    }
}
