//! The audit trail: what somebody did to the pipeline is told as an event, like everything else.
//!
//! An administrator may have to act just because the journal takes nothing (a sink that holds it back is skipped), so the
//! act never waits for its event: it is logged at once, and written as soon as the journal takes events again.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use journal::AppendError;
use prost::Message as _;
use proto::{Kind, feeder};
use tokio::sync::Semaphore;
use tonic::Request;
use tonic::transport::server::UdsConnectInfo;

use crate::ingest::Importer;
use crate::log::unix_nanoseconds;
use crate::losses::Origin;

/// Acts whose events may wait for the journal.
const WAITING: usize = 1000;

/// Between two attempts.
const AGAIN: Duration = Duration::from_secs(1);

/// How long the one who acts waits to hear that the event is on disk.
const PATIENCE: Duration = Duration::from_secs(2);

/// Who acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Actor {
    /// The process at the other end of the administrator's socket, as the kernel names it.
    Process { uid: u32, pid: Option<i32> },
    /// Somebody on the network.
    Address(IpAddr),
    /// The relay itself.
    Relay,
    /// Whoever came this way, where nobody can be known behind it: a signal, a service without callers.
    Way(&'static str),
    /// The kernel does not say.
    #[default]
    Unknown,
}

impl Actor {
    /// Who sent a request.
    pub(crate) fn of<T>(request: &Request<T>) -> Actor {
        let peer = request
            .extensions()
            .get::<UdsConnectInfo>()
            .and_then(|info| info.peer_cred);
        if let Some(peer) = peer {
            return Actor::Process {
                uid: peer.uid(),
                pid: peer.pid(),
            };
        }
        let address = request.remote_addr().map(|address| address.ip());
        address.map_or(Actor::Unknown, Actor::Address)
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Actor::Process {
                uid,
                pid: Some(pid),
            } => write!(f, "uid {uid}, pid {pid}"),
            Actor::Process { uid, pid: None } => write!(f, "uid {uid}"),
            Actor::Address(address) => write!(f, "whoever is at {address}"),
            Actor::Way(way) => f.write_str(way),
            Actor::Relay => f.write_str("the relay"),
            Actor::Unknown => f.write_str("somebody unknown"),
        }
    }
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Act {
    /// A verb: `pause`, `drop dead letters`.
    pub(crate) action: &'static str,
    /// As in `sink siem`.
    pub(crate) target: String,
    /// How far, how many; may be empty.
    pub(crate) detail: String,
}

/// Takes acts down; a cheap handle.
#[derive(Clone)]
pub(crate) struct Audit {
    importer: Importer,
    origin: Origin,
    waiting: Arc<Semaphore>,
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Audit")
    }
}

impl Audit {
    pub(crate) fn new(importer: Importer, origin: Origin) -> Audit {
        Audit {
            importer,
            origin,
            waiting: Arc::new(Semaphore::new(WAITING)),
        }
    }

    /// Tells of an act that is done. True: the event is on disk; false: it will be when the journal takes events again.
    pub(crate) async fn tell(&self, actor: Actor, act: Act) -> bool {
        let message = self.message(actor, act, unix_nanoseconds());
        tracing::info!(what = proto::visible::text(&message.message), "audit");
        let Ok(room) = Arc::clone(&self.waiting).try_acquire_owned() else {
            tracing::error!(
                "too many audit events wait for the journal; this one is only in the log"
            );
            return false;
        };
        let importer = self.importer.clone();
        // A task of its own: it outlives the call that it tells of.
        let telling = tokio::spawn(async move {
            let _room = room;
            until_taken(&importer, message.encode_to_vec().into()).await
        });
        let told = tokio::time::timeout(PATIENCE, telling).await;
        matches!(told, Ok(Ok(true)))
    }

    fn message(&self, actor: Actor, act: Act, now: u64) -> feeder::Message {
        let Act {
            action,
            target,
            detail,
        } = act;
        let more = if detail.is_empty() {
            String::new()
        } else {
            format!(": {detail}")
        };
        let text = format!("audit: {action} {target} by {actor}{more}");
        let audit = feeder::Audit {
            actor: actor.to_string(),
            action: action.to_owned(),
            target,
            detail,
        };
        feeder::Message {
            audit: Some(audit),
            ..self.origin.message(now, "INFO", text)
        }
    }
}

/// Writes an event, however long the journal refuses it; false: the relay stops.
async fn until_taken(importer: &Importer, payload: Bytes) -> bool {
    loop {
        let events = vec![(Kind::Message, payload.clone())];
        match importer.import(events).await {
            Ok(_) => return true,
            Err(AppendError::Closed) => return false,
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}
