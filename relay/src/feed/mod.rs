//! The readers' door: `feeder.LogService` as KubeArmor's clients know it.
//!
//! ```text
//! karmor, relays, exporters ─▶ WatchAlerts / WatchLogs / WatchMessages ─▶ reader ─▶ tail ─▶ journal
//! ```
//! A stream begins with the event after the subscription, stays open however long nothing happens, and is never ended
//! by the server but when the relay stops. Filter words are the ones of KubeArmor's server; any other ends the stream
//! at once with status OK. HealthCheck echoes its nonce; KubeArmor's relay and karmor ask it, and so does its Kafka client.
//!
//! The three watches send blocks of frames that were encoded once for all readers, so they are served here by hand
//! and not by generated code, which would copy and frame each event again for each reader.

mod figures;
mod frames;
mod nonces;
mod past;
mod reader;
mod ring;
mod services;
mod sieve;
mod tail;
mod threads;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use proto::{Kind, feeder};
use tonic::codec::Codec;
use tonic::codegen::http;
use tonic::server::{Grpc, NamedService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::Service;

use crate::access::{Caller, Role};
use crate::filter::accepts;
use crate::framed;
use crate::listen::remote_addr;

pub use nonces::Nonces;
pub use services::services;
pub use tail::{Config, Tail};

pub(crate) use figures::class;
pub(crate) use past::{Onward, Stretch};
pub(crate) use reader::{EXPIRED, Place, unreadable};
pub(crate) use ring::{Counts, Found};
pub(crate) use tail::{Admission, Behind, Lane, kind_index};
pub(crate) use threads::Threads;

/// What a request may weigh, in bytes: it holds one word.
const MAX_REQUEST: usize = 64 << 10;
/// `feeder.LogService` over a journal's tail.
#[derive(Clone)]
pub struct LogService {
    tail: Tail,
    nonces: Nonces,
}

impl LogService {
    /// Serves what `tail` reads.
    pub fn new(tail: Tail) -> LogService {
        let nonces = Nonces::default();
        LogService { tail, nonces }
    }

    /// For a relay that asks other feeds: where to note that it was its own.
    #[must_use]
    pub fn with_nonces(self, nonces: Nonces) -> LogService {
        LogService { nonces, ..self }
    }
}

impl NamedService for LogService {
    const NAME: &'static str = "feeder.LogService";
}

type Answer =
    Pin<Box<dyn Future<Output = Result<http::Response<tonic::body::Body>, Infallible>> + Send>>;

impl Service<http::Request<tonic::body::Body>> for LogService {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Answer {
        let LogService { tail, nonces } = self.clone();
        Box::pin(async move {
            Ok(match request.uri().path() {
                "/feeder.LogService/WatchAlerts" => watch(tail, Kind::Alert, request).await,
                "/feeder.LogService/WatchLogs" => watch(tail, Kind::Log, request).await,
                "/feeder.LogService/WatchMessages" => watch(tail, Kind::Message, request).await,
                "/feeder.LogService/HealthCheck" => health_check(nonces, request).await,
                path => {
                    Status::unimplemented(format!("feeder.LogService has no {path}")).into_http()
                }
            })
        })
    }
}

async fn watch(
    tail: Tail,
    kind: Kind,
    request: http::Request<tonic::body::Body>,
) -> http::Response<tonic::body::Body> {
    // What the watches of one client have in common.
    let peer = remote_addr(request.extensions());
    let caller = Caller::of(request.extensions().get(), Role::Reader);
    let word = match filter_word(request).await {
        Ok(word) => word,
        Err(status) => return status.into_http(),
    };
    if !accepts(kind, &word) {
        return framed::response(futures::stream::empty());
    }
    match reader::feed(&tail, kind, peer, &caller.namespaces) {
        Ok(feed) => framed::response(feed),
        Err(status) => status.into_http(),
    }
}

async fn filter_word(request: http::Request<tonic::body::Body>) -> Result<String, Status> {
    let decoder = ProstCodec::<(), feeder::RequestMessage>::default().decoder();
    let mut messages =
        Streaming::new_request(decoder, request.into_body(), None, Some(MAX_REQUEST));
    match messages.message().await? {
        Some(message) => Ok(message.filter),
        None => Err(Status::invalid_argument("the request has no message")),
    }
}

async fn health_check(
    nonces: Nonces,
    request: http::Request<tonic::body::Body>,
) -> http::Response<tonic::body::Body> {
    let echo = tower::service_fn(|request: Request<feeder::NonceMessage>| {
        let retval = request.into_inner().nonce;
        nonces.hear(retval);
        std::future::ready(Ok::<_, Status>(Response::new(feeder::ReplyMessage {
            retval,
        })))
    });
    Grpc::new(ProstCodec::default()).unary(echo, request).await
}
