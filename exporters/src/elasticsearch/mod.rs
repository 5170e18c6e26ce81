//! Elasticsearch and OpenSearch: each event once, under its id.
//!
//! ```text
//! batch ─▶ request (index by day, shared JSON) ─▶ pace (how much, how many at once) ─▶ client (several hosts) ─▶ _bulk
//! outcomes ◀─ response (each item judged alone) ◀──────────────────────────────────────────────┘
//! setup: template and lifecycle, from the field table, before the first event
//! ```
//!
//! Decisions:
//! - **Once.** `create` with the event id as `_id`, into an index that follows from the event alone: sent again after a crash,
//!   a lost answer or by another relay, it is a conflict (409), and that is success.
//! - **Each item alone.** One event that the mapping refuses is one dead letter with the server's reason; what is wrong with
//!   the destination (401, 403, no such index, no room for shards, unknown host, certificates) holds everything back and is
//!   never held against an event. See [`response`] for the table.
//! - **As much as the server takes.** 429 and `Retry-After` make bodies smaller and fewer, success makes them grow again; a
//!   body that is too large (413) goes in halves.
//! - **`elasticsearch` and `opensearch`** differ in what [`setup`] makes; the server says itself which it is. Events are sent
//!   alike, and no product is asked for.
//! - Data streams check ids in the newest backing index only, so there an event that comes again after a rollover is
//!   doubled: at least once.

mod client;
mod day;
mod index;
mod lifecycle;
mod lookup;
mod outcomes;
mod pace;
mod prepared;
mod request;
mod response;
mod settings;
pub(crate) mod setup;
mod template;
mod trial;

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use elasticsearch::http::Method;
use flate2::write::GzEncoder;
use proto::FieldSet;
use tokio::sync::Mutex;
use tokio::time::Instant;

use self::client::{Body, Client};
use self::day::Day;
use self::index::Indices;
use self::outcomes::Outcomes;
use self::pace::{Pace, Turn};
use self::prepared::{Look, Prepared};
use self::request::{Bodies, Bulk, Places, Refused};
use self::response::{Judged, Verdict, Whole};
use crate::aside::aside;
use crate::config::{BatchLimits, Defaults};
use crate::{
    Batch, BuildError, Carried, Context, Encoded, Failed, Found, Outcome, Sink, Trial, Unavailable,
};

pub use self::index::{IndexConfig, Layout, Setup};
pub use self::settings::{Auth, Compression, Config};
pub use self::template::{Flavour, generated};

/// Elastic's advice is bodies of 5 to 15 MB, a few at once.
pub(crate) static DEFAULTS: Defaults = Defaults {
    batch: BatchLimits {
        max_events: 2000,
        max_bytes: 8 << 20,
        max_delay: Duration::from_secs(1),
    },
    concurrency: 4,
    max_concurrency: 64,
    fields: FieldSet::All,
};

/// Largest body; JSON is about twice as long as what `batch.max_bytes` counts.
const MAX_BODY: usize = 16 << 20;

/// The sink.
pub struct Elasticsearch {
    client: Client,
    bodies: Writer,
    pace: Pace,
    setup: Setup,
    flavour: Flavour,
    /// That the server was seen to hold what it needs. None: not yet, or it was away since, and may have come back without.
    prepared: Mutex<Option<Prepared>>,
}

/// What makes bodies, on another thread.
#[derive(Clone)]
struct Writer {
    indices: Arc<Indices>,
    fields: FieldSet,
    gzip: bool,
}

/// The next body of a batch.
struct Filled {
    bulk: Bulk,
    /// As it goes over the wire.
    bytes: Bytes,
    next: usize,
    refused: Refused,
}

/// The sink, should the server not say which product it is.
pub struct OpenSearch;

impl OpenSearch {
    /// Makes the sink; its server need not be there yet.
    ///
    /// # Errors
    /// A secret or certificate cannot be read.
    pub fn build(name: &str, config: &Config, _: &Context) -> Result<Elasticsearch, BuildError> {
        Elasticsearch::of(name, Flavour::OpenSearch, config)
    }
}

impl Elasticsearch {
    /// Makes the sink; its server need not be there yet.
    ///
    /// # Errors
    /// A secret or certificate cannot be read.
    pub fn build(name: &str, config: &Config, _: &Context) -> Result<Self, BuildError> {
        Self::of(name, Flavour::Elasticsearch, config)
    }

    fn of(name: &str, flavour: Flavour, config: &Config) -> Result<Self, BuildError> {
        let common = config.common();
        let client = config
            .client()
            .map_err(|error| BuildError::new(name, error))?;
        Ok(Elasticsearch {
            client,
            bodies: Writer {
                indices: Arc::new(Indices::of(config)),
                fields: common.fields,
                gzip: config.compression == Compression::Gzip,
            },
            pace: Pace::new(MAX_BODY, common.concurrency),
            setup: config.index.setup,
            flavour,
            prepared: Mutex::default(),
        })
    }

    /// Before an index is made of which nobody knows what its fields are: before the first event, again each day, after the
    /// server was away, or may have been, and after an index was made.
    async fn prepare(&self) -> Result<(), Unavailable> {
        if self.setup == Setup::Manual {
            return Ok(());
        }
        let (today, now) = (Day::today(), Instant::now());
        let mut prepared = self.prepared.lock().await;
        let holds = match prepared.as_mut() {
            Some(seen) => self.holds(seen, today, now).await?,
            None => false,
        };
        if !holds {
            *prepared = None;
            let indices = &self.bodies.indices;
            let cluster = setup::make_missing(&self.client, indices, self.flavour).await?;
            *prepared = Some(Prepared::new(today, cluster, now));
        }
        Ok(())
    }

    /// An index was made for an event. That is so once a day, and where somebody removed all that there was in mid-stream,
    /// templates too: then that index has the fields that the server guessed, and no other shall.
    async fn look_again(&self) {
        *self.prepared.lock().await = None;
        if let Err(away) = self.prepare().await {
            // The next request looks again, and waits for it.
            tracing::debug!(reason = away.reason, "after an index was made");
        }
    }

    /// Whether the server is still the one that was seen.
    async fn holds(
        &self,
        seen: &mut Prepared,
        today: Day,
        now: Instant,
    ) -> Result<bool, Unavailable> {
        let holds = match seen.look(today, now) {
            Look::Nothing => true,
            Look::Everything => false,
            Look::Cluster => setup::cluster(&self.client).await? == seen.cluster,
        };
        if holds {
            seen.used(now);
        }
        Ok(holds)
    }

    /// Sends one body and says whether another may follow.
    async fn post(&self, filled: Filled, turn: Turn<'_>, outcomes: &mut Outcomes) -> Next {
        let Filled { bulk, bytes, .. } = filled;
        let size = bulk.body.len();
        let body = Body {
            bytes,
            lines: true,
            gzip: self.bodies.gzip,
        };
        let answer = match self
            .client
            .request(Method::Post, response::BULK, Some(body))
            .await
        {
            Ok(answer) => answer,
            Err(unreached) => {
                *self.prepared.lock().await = None;
                if unreached.slow {
                    turn.refused(size);
                }
                outcomes.stop(unreached.reason, None);
                return Next::Stop;
            }
        };
        let after = answer.retry_after;
        let of_host = |reason: String| format!("{}: {reason}", answer.host);
        if answer.status == 200 {
            match response::items(&answer.body, bulk.events.len()) {
                Ok(Judged { verdicts, made }) => {
                    take(verdicts, &bulk, after, turn, outcomes);
                    if made {
                        self.look_again().await;
                    }
                }
                Err(reason) => {
                    outcomes.stop(of_host(reason), after);
                    return Next::Stop;
                }
            }
            return Next::On;
        }
        match response::whole(answer.status, &answer.body) {
            Whole::TooLarge(reason) => {
                turn.too_large(size);
                let [only] = bulk.events[..] else {
                    return Next::Smaller;
                };
                outcomes.too_large(
                    only,
                    format!("{reason}: the event alone makes a request of {size} bytes"),
                );
                Next::On
            }
            Whole::Busy(reason) => {
                turn.refused(size);
                outcomes.stop(of_host(reason), after);
                Next::Stop
            }
            Whole::Away(reason) => {
                outcomes.stop(of_host(reason), after);
                Next::Stop
            }
        }
    }
}

/// What follows a request.
enum Next {
    /// The events behind it.
    On,
    /// Its own events in smaller requests.
    Smaller,
    /// Nothing at present.
    Stop,
}

fn take(
    verdicts: Vec<Verdict>,
    bulk: &Bulk,
    after: Option<Duration>,
    turn: Turn<'_>,
    outcomes: &mut Outcomes,
) {
    let busy = verdicts
        .iter()
        .any(|verdict| matches!(verdict, Verdict::Again { busy: true, .. }));
    match busy {
        true => turn.refused(bulk.body.len()),
        // Within an event of the limit.
        false => {
            let full = bulk.body.len() + bulk.body.len() / 8 >= turn.bytes;
            turn.taken(full);
        }
    }
    for (&place, verdict) in bulk.events.iter().zip(verdicts) {
        outcomes.judge(place, verdict, after);
    }
}

#[async_trait]
impl Sink for Elasticsearch {
    async fn send(&self, batch: Arc<Batch>) -> Result<Vec<Outcome>, Unavailable> {
        let mut outcomes = Outcomes::of(batch.len());
        let mut from = 0;
        while from < batch.len() {
            self.prepare().await?;
            let turn = self.pace.turn().await;
            let mut filled = self.bodies.fill(&batch, from, turn.bytes).await;
            for (place, reason) in std::mem::take(&mut filled.refused) {
                outcomes.refuse(place, reason);
            }
            let next = filled.next;
            if filled.bulk.events.is_empty() {
                from = next;
                continue;
            }
            match self.post(filled, turn, &mut outcomes).await {
                Next::On => from = next,
                Next::Smaller => {}
                Next::Stop => break,
            }
        }
        outcomes.finish()
    }

    fn whereabouts(&self, event: &Encoded) -> Option<String> {
        let index = self.bodies.place(event).ok()?;
        Some(format!("{index}/_doc/{}", event.id()))
    }

    fn look_up(&self, event: &Encoded, _since: u64) -> Option<Found> {
        Some(lookup::look_up(&self.client, self.whereabouts(event)?))
    }

    async fn test(&self, event: Carried, trial: &Trial) -> Result<(), Failed> {
        trial::run(self, event, trial).await
    }
}

impl Writer {
    async fn fill(&self, batch: &Arc<Batch>, from: usize, limit: usize) -> Filled {
        let (this, batch) = (self.clone(), Arc::clone(batch));
        aside(move || this.fill_now(&batch, from, limit)).await
    }

    /// The index of one event.
    fn place(&self, event: &Encoded) -> Result<String, String> {
        let mut places = Places::new(&self.indices, Day::today());
        let index = places.of(event).map_err(|why| why.to_string())?;
        Ok(index.to_owned())
    }

    fn fill_now(&self, batch: &Batch, from: usize, limit: usize) -> Filled {
        let mut bodies = Bodies {
            fields: self.fields,
            places: Places::new(&self.indices, Day::today()),
        };
        let mut refused = Vec::new();
        let (bulk, next) = bodies.fill(batch, from, limit, &mut refused);
        let bytes = match self.gzip {
            true => compressed(&bulk.body),
            false => bulk.body.clone(),
        };
        Filled {
            bulk,
            bytes,
            next,
            refused,
        }
    }
}

/// Level 1: half the time of the usual level for nearly the same size of such lines.
fn compressed(body: &[u8]) -> Bytes {
    let mut out = GzEncoder::new(
        Vec::with_capacity(body.len() / 8),
        flate2::Compression::fast(),
    );
    // Writing to memory cannot fail.
    let _ = out.write_all(body);
    out.finish().unwrap_or_default().into()
}
