//! Services over gRPC: a collector of logs, and the link of an upstream relay.
//!
//! The collector takes a request as the bytes that it is: to decode one costs several times what a sink pays to make it, and
//! the two share the machine.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::Result;
use bytes::Buf as _;
use futures::{FutureExt as _, Stream, StreamExt as _};
use proto::link;
use proto::link::from_relay::Is as Reply;
use proto::link::from_sensor::Is as Say;
use proto::link::link_server::{Link, LinkServer};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use super::fake;
use crate::args::FakeKind;

/// Larger than any batch.
const MESSAGE: usize = 64 << 20;

/// Serves until standard input ends.
pub(super) fn be(kind: FakeKind) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        let incoming = TcpListenerStream::new(listener)
            .map(|stream| stream.inspect(|stream| drop(stream.set_nodelay(true))));
        let server = match kind {
            FakeKind::Logs => Server::builder().add_service(Taking),
            _ => Server::builder()
                .add_service(LinkServer::new(Taking).max_decoding_message_size(MESSAGE)),
        };
        tokio::spawn(server.serve_with_incoming(incoming));
        tokio::task::spawn_blocking(fake::wait).await?
    })
}

/// Takes everything.
#[derive(Clone, Copy)]
struct Taking;

impl NamedService for Taking {
    const NAME: &'static str = "opentelemetry.proto.collector.logs.v1.LogsService";
}

impl Service<http::Request<Body>> for Taking {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        async {
            let mut grpc = Grpc::new(Taking).max_decoding_message_size(MESSAGE);
            Ok(grpc.unary(Taking, request).await)
        }
        .boxed()
    }
}

impl UnaryService<()> for Taking {
    type Response = ();
    type Future = Ready<Result<Response<()>, Status>>;

    fn call(&mut self, _: Request<()>) -> Self::Future {
        ready(Ok(Response::new(())))
    }
}

/// Any message in, one without fields out.
impl Codec for Taking {
    type Encode = ();
    type Decode = ();
    type Encoder = Taking;
    type Decoder = Taking;

    fn encoder(&mut self) -> Taking {
        Taking
    }

    fn decoder(&mut self) -> Taking {
        Taking
    }
}

impl Encoder for Taking {
    type Item = ();
    type Error = Status;

    fn encode(&mut self, (): (), _: &mut EncodeBuf<'_>) -> Result<(), Status> {
        Ok(())
    }
}

impl Decoder for Taking {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        from.advance(from.remaining());
        Ok(Some(()))
    }
}

type Replies = Pin<Box<dyn Stream<Item = Result<link::FromRelay, Status>> + Send>>;

#[tonic::async_trait]
impl Link for Taking {
    type ExchangeStream = Replies;

    async fn exchange(
        &self,
        request: Request<Streaming<link::FromSensor>>,
    ) -> Result<Response<Replies>, Status> {
        let (replies, queue) = mpsc::channel(64);
        tokio::spawn(acknowledge(request.into_inner(), replies));
        Ok(Response::new(Box::pin(ReceiverStream::new(queue))))
    }
}

async fn acknowledge(
    mut from: Streaming<link::FromSensor>,
    replies: mpsc::Sender<Result<link::FromRelay, Status>>,
) {
    while let Ok(Some(message)) = from.message().await {
        let reply = match message.is {
            Some(Say::Hello(_)) => Reply::Welcome(link::Welcome::default()),
            Some(Say::Batch(batch)) => Reply::Ack(link::Ack {
                up_to: (batch.first + batch.events.len() as u64).saturating_sub(1),
                stream: batch.stream,
                rejected: Vec::new(),
            }),
            _ => continue,
        };
        let reply = link::FromRelay { is: Some(reply) };
        if replies.send(Ok(reply)).await.is_err() {
            return;
        }
    }
}
