//! Live events of a relay or daemon that is KubeArmor's: `feeder.LogService`, filtered on this side.
//!
//! The events come as the bytes that were sent, not as decoded messages: what a newer KubeArmor adds is of no
//! concern here, and the printers read bytes anyway.

use bytes::{Buf, Bytes};
use futures::StreamExt;
use proto::feeder::RequestMessage;
use proto::query::WatchRequest;
use proto::{Event, EventId, Kind, StreamId};
use relay::filter::Filter;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Request, Status};

use super::{Seen, Watched};
use crate::connect::{Relay, Trouble};

/// Opens a stream for each kind and merges them.
pub(super) async fn watch(
    relay: &Relay,
    request: WatchRequest,
    kinds: &[Kind],
) -> Result<Watched, Trouble> {
    let filter = Filter::new(request.filter).map_err(|error| Trouble::Usage(error.to_string()))?;
    let mut streams = Vec::new();
    for kind in kinds {
        streams.push(
            open(relay, *kind)
                .await
                .map_err(|status| relay.trouble(status))?,
        );
    }
    let limit = usize::try_from(request.limit)
        .ok()
        .filter(|limit| *limit > 0)
        .unwrap_or(usize::MAX);
    let events = futures::stream::select_all(streams).filter_map(move |event| {
        let seen = match event {
            Ok(event) if filter.matches(&event) => Some(Ok(Seen::Event {
                kind: event.kind,
                payload: event.payload,
                id: None,
            })),
            Ok(_) => None,
            Err(status) => Some(Err(status)),
        };
        std::future::ready(seen)
    });
    let live = futures::stream::iter([Ok(Seen::Live)]);
    Ok(Box::pin(live.chain(events.take(limit))))
}

type Events = std::pin::Pin<Box<dyn futures::Stream<Item = Result<Event, Status>> + Send>>;

async fn open(relay: &Relay, kind: Kind) -> Result<Events, Status> {
    let path = match kind {
        Kind::Alert => "/feeder.LogService/WatchAlerts",
        Kind::Log => "/feeder.LogService/WatchLogs",
        Kind::Message => "/feeder.LogService/WatchMessages",
    };
    let mut grpc = Grpc::new(relay.channel.clone());
    grpc.ready()
        .await
        .map_err(|error| Status::from_error(error.into()))?;
    let request = Request::new(RequestMessage {
        filter: "all".to_string(),
    });
    let stream = grpc
        .server_streaming(request, PathAndQuery::from_static(path), Raw)
        .await?
        .into_inner();
    // Not numbered by a sensor of ours.
    let id = EventId {
        stream: StreamId([0; 8]),
        sequence: 0,
    };
    Ok(Box::pin(stream.map(move |payload| {
        payload.map(|payload| Event { kind, id, payload })
    })))
}

/// Messages as the bytes they are on the wire.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = RequestMessage;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = RequestMessage;
    type Error = Status;

    fn encode(&mut self, item: RequestMessage, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        prost::Message::encode(&item, out).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
