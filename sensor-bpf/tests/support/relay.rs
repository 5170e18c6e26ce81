//! A relay in a runtime of its own, so that it can die in the middle of anything. What it took outlives it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use proto::link::link_server::{Link, LinkServer};
use proto::link::{
    Ack, Batch, FromRelay, FromSensor, Health, Hello, Pause, Range, Ranges, Rejected, RuleStatus,
    Rules, StreamState, Welcome, from_relay, from_sensor, stream_state,
};
use proto::{Kind, StreamId};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

/// What the relay has, and how it behaves.
#[derive(Debug, Default)]
pub struct Ledger {
    pub hellos: Vec<Hello>,
    pub events: BTreeMap<(StreamId, u64), (Kind, Bytes)>,
    /// How often an event came that was there already.
    pub duplicates: u64,
    pub batches: u64,
    pub statuses: Vec<RuleStatus>,
    pub health: Option<Health>,
    /// Acknowledge nothing.
    pub silent: bool,
    /// Ask for a pause instead of taking the next batch.
    pub pause: Option<u32>,
    /// Refuse events with this in them.
    pub refuse: Option<&'static str>,
    /// Say that no stream is known.
    pub forgetful: bool,
    /// Sent after the greeting. None: an empty set, as a relay without policies sends.
    pub rules: Option<Vec<Rules>>,
    /// Speak this much newer a version of the link.
    pub newer: u32,
    /// Batches whose event count exceeds the contract.
    pub oversize: u64,
}

impl Ledger {
    /// Payloads of one kind, decoded, by stream and sequence.
    pub fn of<M: prost::Message + Default>(&self, kind: Kind) -> Vec<M> {
        let events = self.events.values().filter(|(found, _)| *found == kind);
        events
            .map(|(_, payload)| M::decode(payload.clone()).unwrap())
            .collect()
    }

    fn ranges(&self, stream: StreamId) -> Vec<Range> {
        let mut ranges: Vec<Range> = Vec::new();
        for (id, sequence) in self.events.keys() {
            match ranges.last_mut() {
                _ if *id != stream => {}
                Some(last) if last.end == *sequence => last.end += 1,
                _ => ranges.push(Range {
                    first: *sequence,
                    end: sequence + 1,
                }),
            }
        }
        ranges
    }

    fn welcome(&self, hello: &Hello) -> Welcome {
        let streams = hello.streams.iter().map(|described| {
            let stream = StreamId::try_from(&described.stream[..]).unwrap();
            let ranges = self.ranges(stream);
            let is = if self.forgetful || ranges.is_empty() {
                stream_state::Is::Unknown(true)
            } else {
                stream_state::Is::Received(Ranges { ranges })
            };
            StreamState {
                stream: described.stream.clone(),
                is: Some(is),
            }
        });
        Welcome {
            version: 1 + self.newer,
            relay: "fake".to_owned(),
            streams: streams.collect(),
        }
    }

    fn take(&mut self, batch: Batch) -> Option<from_relay::Is> {
        self.batches += 1;
        let size: usize = batch.events.iter().map(Bytes::len).sum();
        self.oversize += u64::from(batch.events.len() > 1000 || size > proto::MAX_BATCH);
        if let Some(retry_after_ms) = self.pause.take() {
            return Some(from_relay::Is::Pause(Pause {
                reason: "test".to_owned(),
                retry_after_ms,
            }));
        }
        let stream = StreamId::try_from(&batch.stream[..]).unwrap();
        let up_to = batch.first + batch.events.len() as u64 - 1;
        let mut rejected = Vec::new();
        for (sequence, event) in (batch.first..).zip(batch.events) {
            let (kind, payload) = proto::batch::split(event).unwrap();
            proto::check(kind, &payload).unwrap();
            let refused = self
                .refuse
                .is_some_and(|text| payload.windows(text.len()).any(|w| w == text.as_bytes()));
            if refused {
                rejected.push(Rejected {
                    sequence,
                    reason: "refused by the test".to_owned(),
                });
            } else if self
                .events
                .insert((stream, sequence), (kind, payload))
                .is_some()
            {
                self.duplicates += 1;
            }
        }
        let stream = batch.stream;
        (!self.silent).then_some(from_relay::Is::Ack(Ack {
            stream,
            up_to,
            rejected,
        }))
    }
}

/// The state that outlives the process, so to say.
#[derive(Debug, Clone, Default)]
pub struct Memory(Arc<Mutex<Ledger>>);

impl Memory {
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap()
    }
}

/// A relay that runs.
pub struct FakeRelay {
    pub address: SocketAddr,
    runtime: Mutex<Option<Runtime>>,
}

impl FakeRelay {
    /// On a free port.
    pub fn start(memory: &Memory) -> Self {
        Self::start_at(memory, "127.0.0.1:0".parse().unwrap())
    }

    /// Where an earlier one was.
    pub fn start_at(memory: &Memory, address: SocketAddr) -> Self {
        Self::serve(memory, address, None)
    }

    /// On a free port, with certificates.
    pub fn start_tls(memory: &Memory, tls: ServerTlsConfig) -> Self {
        Self::serve(memory, "127.0.0.1:0".parse().unwrap(), Some(tls))
    }

    fn serve(memory: &Memory, address: SocketAddr, tls: Option<ServerTlsConfig>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        let runtime = runtime.unwrap();
        let socket = std::net::TcpListener::bind(address).unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        let service = LinkServer::new(Service(memory.clone()));
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(socket).unwrap();
            let mut server = Server::builder();
            if let Some(tls) = tls {
                server = server.tls_config(tls).unwrap();
            }
            server
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
        });
        Self {
            address,
            runtime: Mutex::new(Some(runtime)),
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every connection breaks.
    pub fn kill(&self) -> SocketAddr {
        if let Some(runtime) = self.runtime.lock().unwrap().take() {
            // A runtime may not be waited for inside another.
            let ending =
                std::thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(1)));
            ending.join().unwrap();
        }
        self.address
    }
}

impl Drop for FakeRelay {
    fn drop(&mut self) {
        self.kill();
    }
}

fn no_rules() -> Rules {
    let set = policy::compile(&[], &proto::rules::Postures::default());
    Rules {
        manifest: Some(set.manifest),
        commit: true,
        ..Rules::default()
    }
}

struct Service(Memory);

#[tonic::async_trait]
impl Link for Service {
    type ExchangeStream = ReceiverStream<Result<FromRelay, Status>>;

    async fn exchange(
        &self,
        request: Request<Streaming<FromSensor>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let (out, replies) = mpsc::channel(64);
        tokio::spawn(converse(self.0.clone(), request.into_inner(), out));
        Ok(Response::new(ReceiverStream::new(replies)))
    }
}

async fn converse(
    memory: Memory,
    mut inbound: Streaming<FromSensor>,
    out: mpsc::Sender<Result<FromRelay, Status>>,
) {
    while let Ok(Some(message)) = inbound.message().await {
        let replies: Vec<from_relay::Is> = match message.is {
            Some(from_sensor::Is::Hello(hello)) => {
                let mut ledger = memory.ledger();
                let welcome = from_relay::Is::Welcome(ledger.welcome(&hello));
                ledger.hellos.push(hello);
                let rules = ledger.rules.clone().unwrap_or_else(|| vec![no_rules()]);
                let rules = rules.into_iter().map(from_relay::Is::Rules);
                std::iter::once(welcome).chain(rules).collect()
            }
            Some(from_sensor::Is::Batch(batch)) => {
                memory.ledger().take(batch).into_iter().collect()
            }
            Some(from_sensor::Is::RuleStatus(status)) => {
                memory.ledger().statuses.push(status);
                Vec::new()
            }
            Some(from_sensor::Is::Health(health)) => {
                memory.ledger().health = Some(health);
                Vec::new()
            }
            None => Vec::new(),
        };
        for is in replies {
            if out.send(Ok(FromRelay { is: Some(is) })).await.is_err() {
                return;
            }
        }
    }
}
