//! Services over gRPC: a collector of logs, and the link of an upstream relay.

use std::pin::Pin;

use anyhow::Result;
use futures::{Stream, StreamExt as _};
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{
    LogsService, LogsServiceServer,
};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use proto::link;
use proto::link::from_relay::Is as Reply;
use proto::link::from_sensor::Is as Say;
use proto::link::link_server::{Link, LinkServer};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
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
            FakeKind::Logs => Server::builder()
                .add_service(LogsServiceServer::new(Taking).max_decoding_message_size(MESSAGE)),
            _ => Server::builder()
                .add_service(LinkServer::new(Taking).max_decoding_message_size(MESSAGE)),
        };
        tokio::spawn(server.serve_with_incoming(incoming));
        tokio::task::spawn_blocking(fake::wait).await?
    })
}

/// Takes everything.
struct Taking;

#[tonic::async_trait]
impl LogsService for Taking {
    async fn export(
        &self,
        _: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        Ok(Response::new(ExportLogsServiceResponse::default()))
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
