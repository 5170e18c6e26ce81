//! The link's gRPC service: one session a call.

use std::sync::Arc;

use proto::link::link_server::{Link, LinkServer};
use proto::{MAX_BATCH, link};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument;

use super::{Shared, session};

/// The largest message, in bytes: a batch, and what stands around its events.
const MAX_MESSAGE: usize = MAX_BATCH + (512 << 10);

/// Answers that wait for the connection. Acks are joined while there is no room, so this is no bound on throughput.
const REPLIES: usize = 16;

/// `cresset.link.v1.Link`.
#[derive(Clone)]
pub struct LinkService {
    shared: Arc<Shared>,
}

pub(super) fn server(shared: Arc<Shared>) -> LinkServer<LinkService> {
    LinkServer::new(LinkService { shared }).max_decoding_message_size(MAX_MESSAGE)
}

#[tonic::async_trait]
impl Link for LinkService {
    type ExchangeStream = ReceiverStream<Result<link::FromRelay, Status>>;

    async fn exchange(
        &self,
        request: Request<Streaming<link::FromSensor>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let peer = request
            .remote_addr()
            .map_or_else(|| "unknown".to_owned(), |peer| peer.to_string());
        let (replies, stream) = mpsc::channel(REPLIES);
        // As grave as the gravest line in it, so that a log of warnings says whose they are.
        let span = tracing::error_span!("link", %peer, sensor = tracing::field::Empty);
        let session = session::run(self.shared.clone(), peer, request.into_inner(), replies);
        tokio::spawn(session.instrument(span));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
