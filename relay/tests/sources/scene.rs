//! A relay that pulls, what it keeps, and what it says of its sources.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use proto::query::query_client::QueryClient;
use proto::query::watch_reply::Is;
use proto::query::{Filter, SourceStatus, StatusReply, StatusRequest, WatchReply, WatchRequest};
use proto::{EventId, Kind, feeder};
use tokio::time::{Instant, timeout};
use tonic::Streaming;

use crate::support::{self, Relay, SOON, channel};

/// A relay under `folder` with one source, `old`, of these addresses.
pub(crate) async fn pulling(folder: &Path, addresses: &[SocketAddr]) -> Relay {
    Relay::with(support::settings(folder, &source(addresses))).await
}

/// The settings of the source `old`.
pub(crate) fn source(addresses: &[SocketAddr]) -> String {
    let addresses: Vec<String> = addresses.iter().map(|at| format!("\"{at}\"")).collect();
    format!(
        "sources:\n  old: {{type: kubearmor, addresses: [{}]}}\n",
        addresses.join(", ")
    )
}

pub(crate) async fn eventually(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !done().await {
        assert!(Instant::now() < deadline, "{what}: not within {SOON:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) async fn status(relay: &Relay) -> StatusReply {
    let mut query = QueryClient::new(channel(relay.at.feed).await);
    query
        .status(StatusRequest {})
        .await
        .expect("a status")
        .into_inner()
}

/// What the relay says of the only daemon, which it begins to read right after it serves.
pub(crate) async fn daemon_status(relay: &Relay) -> SourceStatus {
    let mut sources = Vec::new();
    eventually("the source is there", async || {
        sources = status(relay).await.sources;
        !sources.is_empty()
    })
    .await;
    sources.swap_remove(0)
}

/// One figure of the daemon's streams: alerts, logs, messages.
pub(crate) fn of_streams(
    status: &SourceStatus,
    figure: fn(&proto::query::SourceStream) -> u64,
) -> [u64; 3] {
    [0, 1, 2].map(|kind| figure(&status.streams[kind]))
}

/// Everything that is in a relay's journal, and then what comes.
pub(crate) struct Kept(Streaming<WatchReply>);

impl Kept {
    pub(crate) async fn of(relay: &Relay, kinds: &[Kind]) -> Kept {
        let filter = Filter {
            kinds: kinds
                .iter()
                .map(|kind| i32::from(u8::from(*kind)))
                .collect(),
            ..Filter::default()
        };
        let request = WatchRequest {
            filter: Some(filter),
            since_ns: 1,
            follow: true,
            complete: true,
            ..WatchRequest::default()
        };
        let mut query = QueryClient::new(channel(relay.at.feed).await);
        Kept(query.watch(request).await.expect("a stream").into_inner())
    }

    pub(crate) async fn next(&mut self) -> (EventId, Bytes) {
        loop {
            let reply = timeout(SOON, self.0.message()).await.expect("in time");
            match reply.expect("no error").expect("more").is {
                Some(Is::Event(event)) => {
                    return (
                        EventId::try_from(&event.id[..]).expect("an id"),
                        event.payload,
                    );
                }
                Some(Is::Live(_)) => {}
                other => panic!("not an event: {other:?}"),
            }
        }
    }

    /// The next log's number.
    pub(crate) async fn log(&mut self) -> u64 {
        let (_, payload) = self.next().await;
        number(&payload)
    }

    pub(crate) async fn message(&mut self) -> feeder::Message {
        let (_, payload) = self.next().await;
        feeder::Message::decode(payload).expect("a message")
    }
}

/// A log of this number and so many bytes of data.
pub(crate) fn log(number: u64, size: usize) -> Vec<u8> {
    let log = feeder::Log {
        pod_name: format!("pod-{number}"),
        data: "x".repeat(size),
        ..feeder::Log::default()
    };
    log.encode_to_vec()
}

pub(crate) fn alert(number: u64) -> Vec<u8> {
    let alert = feeder::Alert {
        pod_name: format!("pod-{number}"),
        policy_name: "deny".to_owned(),
        ..feeder::Alert::default()
    };
    alert.encode_to_vec()
}

pub(crate) fn message(text: &str) -> Vec<u8> {
    let message = feeder::Message {
        message: text.to_owned(),
        ..feeder::Message::default()
    };
    message.encode_to_vec()
}

/// The number of a log.
pub(crate) fn number(payload: &Bytes) -> u64 {
    let log = feeder::Log::decode(payload.clone()).expect("a log");
    log.pod_name
        .strip_prefix("pod-")
        .and_then(|n| n.parse().ok())
        .expect("a number")
}
