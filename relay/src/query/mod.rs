//! Our own readers' door: live tail and history with a filter on the server, status, and import for the administrator.
//!
//! ```text
//! Watch  ─▶ plan (where to begin, where to end) ─▶ history from the journal ─▶ live from the shared tail
//! Status ─▶ the parts of the relay, each for itself
//! Import ─▶ checked and journaled like events from a sensor; admin socket only
//! ```
//! The feed listener and the admin socket serve the same service; only the second one is given something to import into.

mod limited;
mod resume;
mod watch;

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;
use proto::query::query_server::Query;
use proto::query::{
    ImportReply, ImportRequest, StatusReply, StatusRequest, WatchReply, WatchRequest,
};
use proto::{Kind, MAX_BATCH, link};
use tonic::{Request, Response, Status, Streaming};

use self::resume::Tokens;
use crate::access::{Caller, Role};
use crate::feed::Tail;
use crate::log::Numbering;
use crate::status::Parts;

pub use proto::query::query_server::QueryServer;

/// Events that are imported with one write.
const IMPORT_EVENTS: usize = 1000;
/// Refused events that an answer names; more are counted by the difference to what was sent.
const IMPORT_REFUSED: usize = 1000;

/// In the metadata of an import's error: how many events are on disk all the same.
const ACCEPTED: &str = "cresset-accepted";

/// Takes events that come from no sensor.
#[async_trait]
pub trait Import: Send + Sync + 'static {
    /// Checks and journals these events; done when they are on disk. What is wrong with single events is in the
    /// answer, by their place in `events`.
    ///
    /// # Errors
    /// The status for the client, when nothing can be journaled now.
    async fn import(&self, events: Vec<(Kind, Bytes)>) -> Result<Imported, Status>;
}

/// What became of some events.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Imported {
    /// How many are on disk.
    pub accepted: u64,
    /// Which were refused, and why.
    pub refused: Vec<(usize, String)>,
}

/// The query service.
#[derive(Clone)]
pub struct QueryService {
    tail: Tail,
    tokens: Tokens,
    status: Parts,
    import: Option<Arc<dyn Import>>,
}

impl QueryService {
    /// For the feed listener. `relay` names this relay's journal in resume tokens; `secret` hides what those of limited
    /// readers say, and has to be the same after a restart.
    pub fn new(tail: Tail, relay: &str, secret: [u8; 32], status: Parts) -> QueryService {
        QueryService {
            tail,
            tokens: Tokens::new(relay, secret),
            status,
            import: None,
        }
    }

    /// For a log that other relays number, too.
    #[must_use]
    pub fn numbered(self, numbering: &Numbering) -> QueryService {
        QueryService {
            tokens: self.tokens.numbered(numbering),
            ..self
        }
    }

    /// For the admin socket.
    #[must_use]
    pub fn with_import(self, import: Arc<dyn Import>) -> QueryService {
        QueryService {
            import: Some(import),
            ..self
        }
    }

    /// As a service of a tonic server.
    pub fn into_server(self) -> QueryServer<QueryService> {
        QueryServer::new(self)
    }
}

#[async_trait]
impl Query for QueryService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchReply, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let caller = Caller::of(request.extensions().get(), Role::Reader);
        let tokens = self.tokens.clone();
        let (tail, mut request) = (self.tail.clone(), request.into_inner());
        let filter = tail.filters().filter(request.filter.take()).await?;
        // Finding the beginning asks the disk, or a broker.
        let threads = tail.threads().clone();
        let finding =
            threads.run(move || watch::Watch::new(&tail, tokens, &caller, filter, request));
        let watch = finding.await?;
        Ok(Response::new(Box::pin(watch.replies())))
    }

    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<StatusReply>, Status> {
        let caller = Caller::of(request.extensions().get(), Role::Reader);
        let reply = self.status.read();
        Ok(Response::new(if caller.namespaces.is_all() {
            reply
        } else {
            limited::status(reply, &caller.namespaces)
        }))
    }

    async fn import(
        &self,
        request: Request<Streaming<ImportRequest>>,
    ) -> Result<Response<ImportReply>, Status> {
        let Some(import) = &self.import else {
            return Err(Status::permission_denied(
                "events are imported through the relay's admin socket only",
            ));
        };
        import_all(import.as_ref(), request.into_inner())
            .await
            .map(Response::new)
    }
}

/// Imports batch by batch, so that the memory of one call is one batch however long the stream is.
async fn import_all(
    import: &dyn Import,
    requests: Streaming<ImportRequest>,
) -> Result<ImportReply, Status> {
    let mut reply = ImportReply::default();
    match import_into(&mut reply, import, requests).await {
        Ok(()) => Ok(reply),
        Err(mut status) => {
            status
                .metadata_mut()
                .insert(ACCEPTED, reply.accepted.into());
            Err(status)
        }
    }
}

/// When it is cut off, the reply has what is on disk by then.
async fn import_into(
    reply: &mut ImportReply,
    import: &dyn Import,
    mut requests: Streaming<ImportRequest>,
) -> Result<(), Status> {
    let mut batch = ImportBatch::default();
    let mut at: u64 = 0;
    while let Some(request) = requests.message().await? {
        match Kind::try_from(request.kind()) {
            Ok(kind) => {
                if batch.is_full(&request.payload) {
                    batch.write(import, reply).await?;
                }
                batch.add(at, kind, request.payload);
            }
            Err(error) => refuse(reply, at, error.to_string()),
        }
        at += 1;
    }
    batch.write(import, reply).await?;
    reply.rejected.sort_by_key(|rejected| rejected.sequence);
    Ok(())
}

fn refuse(reply: &mut ImportReply, sequence: u64, reason: String) {
    if reply.rejected.len() < IMPORT_REFUSED {
        reply.rejected.push(link::Rejected { sequence, reason });
    }
}

#[derive(Default)]
struct ImportBatch {
    events: Vec<(Kind, Bytes)>,
    places: Vec<u64>,
    size: usize,
}

impl ImportBatch {
    fn is_full(&self, payload: &Bytes) -> bool {
        self.events.len() == IMPORT_EVENTS
            || (self.size + payload.len() > MAX_BATCH && self.size > 0)
    }

    fn add(&mut self, place: u64, kind: Kind, payload: Bytes) {
        self.size += payload.len();
        self.places.push(place);
        self.events.push((kind, payload));
    }

    async fn write(&mut self, import: &dyn Import, reply: &mut ImportReply) -> Result<(), Status> {
        let ImportBatch { events, places, .. } = std::mem::take(self);
        if events.is_empty() {
            return Ok(());
        }
        let imported = import.import(events).await?;
        reply.accepted += imported.accepted;
        for (place, reason) in imported.refused {
            refuse(
                reply,
                places.get(place).copied().unwrap_or_default(),
                reason,
            );
        }
        Ok(())
    }
}

/// How many records a range of the journal has.
fn length(range: &Range<journal::Seq>) -> u64 {
    range.end.0.saturating_sub(range.start.0)
}
