//! The vocabulary of the reader's tests: a feed over a real journal and a real socket, events, and clients.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use journal::{Checkpoint, Entry, Journal, RealDisk, Record, Seq};
use prost::Message;
use proto::feeder::{self, log_service_client::LogServiceClient};
use proto::query::query_client::QueryClient;
use proto::{Event, EventId, Kind, StreamId};
use relay::Registry;
use relay::feed::{self, LogService, Tail};
use relay::query::QueryService;
use relay::status::Parts;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Server};

/// What every test gives up after.
pub const SOON: Duration = Duration::from_secs(60);

/// This relay's name in resume tokens.
pub const RELAY: &str = "a1b2c3d4e5f60718";

struct NoCheckpoint;

impl Checkpoint for NoCheckpoint {
    fn load(&mut self, _: &[u8]) -> Result<(), String> {
        Ok(())
    }

    fn apply(&mut self, _: &Entry) {}

    fn save(&self) -> Vec<u8> {
        Vec::new()
    }
}

/// A journal with a feed listener over it.
pub struct Feed {
    pub journal: Journal,
    pub tail: Tail,
    pub registry: Registry,
    pub address: SocketAddr,
    server: tokio::task::JoinHandle<()>,
    _folder: TempDir,
}

impl Feed {
    pub async fn start() -> Feed {
        Feed::with(
            feed::Config::default(),
            journal::Config::default(),
            |query| query,
        )
        .await
    }

    pub async fn with(
        config: feed::Config,
        journal: journal::Config,
        change: impl FnOnce(QueryService) -> QueryService,
    ) -> Feed {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = RealDisk::open(folder.path()).expect("a disk");
        let (journal, _) =
            Journal::open(Arc::new(disk), journal, Box::new(NoCheckpoint)).expect("a journal");
        let registry = Registry::new();
        let tail = Tail::start(journal.clone(), config, &registry).expect("a tail");
        let parts = Parts::new()
            .with_feeds(tail.clone())
            .with_journal(journal.clone());
        let query = change(QueryService::new(tail.clone(), RELAY, [7; 32], parts));
        let routes = feed::services(LogService::new(tail.clone()), query)
            .await
            .expect("services");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let server = tokio::spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            Server::builder()
                .add_routes(routes)
                .serve_with_incoming(incoming)
                .await
                .expect("served");
        });
        Feed {
            journal,
            tail,
            registry,
            address,
            server,
            _folder: folder,
        }
    }

    /// A connection of its own.
    pub async fn channel(&self) -> Channel {
        let endpoint =
            Channel::from_shared(format!("http://{}", self.address)).expect("an address");
        endpoint.connect().await.expect("connected")
    }

    pub async fn feeder(&self) -> LogServiceClient<Channel> {
        LogServiceClient::new(self.channel().await)
    }

    pub async fn query(&self) -> QueryClient<Channel> {
        QueryClient::new(self.channel().await)
    }

    /// Journals events; returns the number of the last.
    pub async fn append(&self, events: Vec<Event>) -> Seq {
        let record = |event: Event| Record {
            kind: event.kind.into(),
            time: now(),
            payload: event.to_journal(),
        };
        let range = self
            .journal
            .append(events.into_iter().map(record).collect())
            .await
            .expect("appended");
        Seq(range.end.0 - 1)
    }

    /// Waits until that many streams are read.
    pub async fn clients(&self, count: u64) {
        eventually("the streams are open", || self.tail.clients() == count).await;
    }

    /// The value of a metric with these labels.
    pub fn metric(&self, name: &str, label: &str) -> f64 {
        let families = self.registry.gather();
        let family = families
            .iter()
            .find(|family| family.name() == name)
            .expect("a metric of that name");
        let of = |metric: &&prometheus::proto::Metric| {
            label.is_empty() || metric.get_label().iter().any(|pair| pair.value() == label)
        };
        let metric = family
            .get_metric()
            .iter()
            .find(of)
            .expect("a metric with that label");
        metric.get_counter().get_value() + metric.get_gauge().get_value()
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.tail.stop();
        self.server.abort();
    }
}

pub async fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + SOON;
    while !done() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "{what}: not within {SOON:?}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What comes within the time that every test allows.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, what).await.expect("in time")
}

/// Nothing comes.
pub async fn silent<T>(what: impl Future<Output = T>) {
    let came = tokio::time::timeout(Duration::from_millis(200), what).await;
    assert!(came.is_err(), "nothing should have come");
}

pub fn now() -> u64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    since.as_nanos() as u64
}

fn event(kind: Kind, number: u64, payload: Vec<u8>) -> Event {
    let id = EventId {
        stream: StreamId(*b"a stream"),
        sequence: number,
    };
    Event {
        kind,
        id,
        payload: Bytes::from(payload),
    }
}

/// The alert number `number`, of a pod of that number.
pub fn alert(number: u64) -> Event {
    let alert = feeder::Alert {
        namespace_name: "shop".into(),
        pod_name: format!("pod-{number}"),
        severity: (number % 10 + 1).to_string(),
        labels: "app=cart".into(),
        resource: format!("/usr/bin/tool {number}"),
        action: "Block".into(),
        ..Default::default()
    };
    event(Kind::Alert, number, alert.encode_to_vec())
}

/// A log of this many bytes and a few more.
pub fn log(number: u64, size: usize) -> Event {
    let log = feeder::Log {
        pod_name: format!("pod-{number}"),
        data: "x".repeat(size),
        ..Default::default()
    };
    event(Kind::Log, number, log.encode_to_vec())
}

pub fn message(number: u64) -> Event {
    let message = feeder::Message {
        message: format!("message {number}"),
        ..Default::default()
    };
    event(Kind::Message, number, message.encode_to_vec())
}

/// The number that an event was made with, out of its id.
pub fn number(id: &[u8]) -> u64 {
    EventId::try_from(id).expect("an id").sequence
}
