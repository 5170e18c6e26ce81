//! The link's gRPC service: one session a call, whose messages have a part of the budget before they are decoded.
//!
//! It stands in place of the generated server because that decodes whatever arrives, and keeps the room of the largest
//! answer for as long as the session lasts.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use prost::Message as _;
use proto::{batch, link};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codec::{BufferSettings, DecodeBuf, Decoder};
use tonic::codegen::http;
use tonic::server::NamedService;
use tonic::{Status, Streaming};
use tower::Service;
use tracing::Instrument;

use super::budget::{Lent, Share};
use super::gate::{Gate, Slot, Whole};
use super::session::Peer;
use super::{MAX_EVENTS, MAX_MESSAGE, Shared, session};
use crate::access::{Caller, Role};
use crate::framed;
use crate::listen::remote_addr;

/// Answers that wait for the connection. Acks are joined while there is no room, so this is no bound on throughput.
const REPLIES: usize = 16;

/// `cresset.link.v1.Link`.
#[derive(Clone)]
pub struct LinkService {
    shared: Arc<Shared>,
}

impl LinkService {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl NamedService for LinkService {
    const NAME: &'static str = link::link_server::SERVICE_NAME;
}

impl Service<http::Request<Body>> for LinkService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() != "/cresset.link.v1.Link/Exchange" {
            let none = Status::unimplemented("the link has one method: Exchange");
            return std::future::ready(Ok(none.into_http())).boxed();
        }
        if let Some(encoding) = compression(request.headers()) {
            let why = format!("the link takes no {encoding}: send messages as they are");
            return std::future::ready(Ok(Status::unimplemented(why).into_http())).boxed();
        }
        let shared = self.shared.clone();
        async move {
            let lent = request.extensions().get::<Arc<Lent>>();
            let own = lent.map_or(0, |lent| lent.claim());
            let slot = Slot::default();
            let (purse, arrival) = (shared.budget.purse(), shared.config.arrival);
            let request = request.map(|body| Gate::new(body, purse, own, arrival, slot.clone()));
            Ok(exchange(shared, request, Framing(slot)))
        }
        .boxed()
    }
}

/// How messages may be compressed, if they may (gRPC over HTTP/2, "Message-Encoding").
fn compression(headers: &http::HeaderMap) -> Option<String> {
    let encoding = headers.get("grpc-encoding")?;
    let encoding = String::from_utf8_lossy(encoding.as_bytes());
    (encoding != "identity").then(|| encoding.chars().take(32).collect())
}

/// Starts a session, whose replies are the answer.
fn exchange(
    shared: Arc<Shared>,
    request: http::Request<Gate>,
    decoder: Framing,
) -> http::Response<Body> {
    let peer = remote_addr(request.extensions());
    let peer = peer.map_or_else(|| "unknown".to_owned(), |peer| peer.to_string());
    let caller = Caller::of(request.extensions().get(), Role::Sensor);
    let inbound = Streaming::new_request(decoder, request.into_body(), None, Some(MAX_MESSAGE));
    let (replies, stream) = mpsc::channel(REPLIES);
    // As grave as the gravest line in it, so that a log of warnings says whose they are.
    let span = tracing::error_span!("link", %peer, sensor = tracing::field::Empty);
    let session = session::run(shared, Peer { peer, caller }, inbound, replies);
    tokio::spawn(session.instrument(span));
    framed::messages(ReceiverStream::new(stream))
}

/// A message of a sensor, and its part of the budget.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    pub(super) message: link::FromSensor,
    /// None for an empty message.
    pub(super) share: Option<Share>,
}

/// Decodes what the gate has let in.
struct Framing(Slot);

impl Decoder for Framing {
    type Item = Inbound;
    type Error = Status;

    fn decode(&mut self, _: &mut DecodeBuf<'_>) -> Result<Option<Inbound>, Status> {
        let Some(Whole { bytes, share }) = self.0.take() else {
            return Ok(Some(Inbound::default()));
        };
        let events = batch::count(&bytes);
        if events > MAX_EVENTS {
            let why = format!("a batch of {events} events; at most {MAX_EVENTS}");
            return Err(Status::invalid_argument(why));
        }
        let message = link::FromSensor::decode(bytes)
            .map_err(|why| Status::invalid_argument(why.to_string()))?;
        Ok(Some(Inbound {
            message,
            share: Some(share),
        }))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}
