//! A KubeArmor daemon, as far as a relay can tell: `feeder.LogService` on a port, a queue a subscriber, nothing kept.
//!
//! As with a server of grpc-go, a watch answers nothing at all, not even headers, before its first event, and each event is a
//! DATA frame of its own.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use futures::StreamExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use prost::Message;
use proto::{Kind, feeder};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http;
use tonic::server::Grpc;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::Service;

use crate::scene::eventually;

/// Events that wait for one subscriber, as in KubeArmor.
const QUEUE: usize = 1000;

type Sent = Result<Bytes, Status>;

/// What the daemon was asked, and who listens.
#[derive(Default)]
struct State {
    asked: Mutex<Vec<String>>,
    subscribers: Mutex<Vec<(Kind, mpsc::Sender<Sent>)>>,
    connections: AtomicUsize,
    /// How it answers HealthCheck; each answer is used once, then the nonce comes back.
    answers: Mutex<VecDeque<Health>>,
}

/// An answer to HealthCheck that is not the nonce.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Health {
    /// Another number.
    Wrong,
    /// None at all.
    Silent,
}

/// A daemon on a port.
pub(crate) struct Daemon {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    listening: JoinHandle<()>,
    connections: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Daemon {
    pub(crate) async fn start() -> Daemon {
        Daemon::at("127.0.0.1:0".parse().expect("an address")).await
    }

    pub(crate) async fn at(address: SocketAddr) -> Daemon {
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let state = Arc::new(State::default());
        let connections = Arc::new(Mutex::new(Vec::new()));
        let listening = tokio::spawn(listen(listener, state.clone(), connections.clone()));
        Daemon {
            address,
            state,
            listening,
            connections,
        }
    }

    /// Pushes an event to everyone who watches its kind; waits for room, where KubeArmor would drop it.
    pub(crate) async fn send(&self, kind: Kind, event: impl Into<Bytes>) {
        let event = event.into();
        for queue in self.queues(kind) {
            // One that went away meanwhile is sent nothing.
            let _ = queue.send(Ok(event.clone())).await;
        }
    }

    /// Ends the streams of a kind.
    pub(crate) async fn end(&self, kind: Kind, status: Status) {
        for queue in self.queues(kind) {
            let _ = queue.send(Err(status.clone())).await;
        }
    }

    fn queues(&self, kind: Kind) -> Vec<mpsc::Sender<Sent>> {
        let mut subscribers = self.state.subscribers.lock().expect("no panic");
        subscribers.retain(|(_, queue)| !queue.is_closed());
        let of_kind = subscribers.iter().filter(|(of, _)| *of == kind);
        of_kind.map(|(_, queue)| queue.clone()).collect()
    }

    /// Waits until somebody watches all three kinds.
    pub(crate) async fn watched(&self) {
        eventually("the daemon is watched", async || {
            Kind::ALL.iter().all(|kind| self.queues(*kind).len() == 1)
        })
        .await;
    }

    /// Breaks all connections; new ones are taken.
    pub(crate) fn cut(&self) {
        for connection in self.connections.lock().expect("no panic").drain(..) {
            connection.abort();
        }
    }

    /// The calls so far, with their words.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.state.asked.lock().expect("no panic").clone()
    }

    /// How often a method was called.
    pub(crate) fn count(&self, method: &str) -> usize {
        let asked = self.asked();
        asked.iter().filter(|call| call.starts_with(method)).count()
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// Answers the next HealthCheck in another way.
    pub(crate) fn answer(&self, health: Health) {
        self.state
            .answers
            .lock()
            .expect("no panic")
            .push_back(health);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.listening.abort();
        self.cut();
    }
}

async fn listen(
    listener: TcpListener,
    state: Arc<State>,
    connections: Arc<Mutex<Vec<JoinHandle<()>>>>,
) {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        state.connections.fetch_add(1, Ordering::Relaxed);
        let service = TowerToHyperService::new(LogService(state.clone()));
        let connection = tokio::spawn(async move {
            let server = auto::Builder::new(TokioExecutor::new()).http2_only();
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
        connections.lock().expect("no panic").push(connection);
    }
}

#[derive(Clone)]
struct LogService(Arc<State>);

type Answer =
    Pin<Box<dyn Future<Output = Result<http::Response<tonic::body::Body>, Infallible>> + Send>>;

impl<B> Service<http::Request<B>> for LogService
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Answer {
        let state = self.0.clone();
        let request = request.map(tonic::body::Body::new);
        Box::pin(async move {
            Ok(match request.uri().path() {
                "/feeder.LogService/WatchAlerts" => watch(state, Kind::Alert, request).await,
                "/feeder.LogService/WatchLogs" => watch(state, Kind::Log, request).await,
                "/feeder.LogService/WatchMessages" => watch(state, Kind::Message, request).await,
                "/feeder.LogService/HealthCheck" => health_check(state, request).await,
                path => panic!("a relay calls nothing else: {path}"),
            })
        })
    }
}

async fn watch(
    state: Arc<State>,
    kind: Kind,
    request: http::Request<tonic::body::Body>,
) -> http::Response<tonic::body::Body> {
    let stream = tower::service_fn(move |request: Request<feeder::RequestMessage>| {
        let state = state.clone();
        async move {
            let call = format!("Watch{kind}s {}", request.into_inner().filter);
            state.asked.lock().expect("no panic").push(call);
            let (queue, mut events) = mpsc::channel(QUEUE);
            state
                .subscribers
                .lock()
                .expect("no panic")
                .push((kind, queue));
            let first = events
                .recv()
                .await
                .unwrap_or_else(|| Err(Status::cancelled("")))?;
            let events = tokio_stream::wrappers::ReceiverStream::new(events);
            let events = futures::stream::iter([Ok(first)]).chain(events);
            Ok::<_, Status>(Response::new(events))
        }
    });
    Grpc::new(Raw).server_streaming(stream, request).await
}

async fn health_check(
    state: Arc<State>,
    request: http::Request<tonic::body::Body>,
) -> http::Response<tonic::body::Body> {
    let echo = tower::service_fn(move |request: Request<feeder::NonceMessage>| {
        let state = state.clone();
        async move {
            state
                .asked
                .lock()
                .expect("no panic")
                .push("HealthCheck".to_owned());
            let nonce = request.into_inner().nonce;
            let answer = state.answers.lock().expect("no panic").pop_front();
            let retval = match answer {
                None => nonce,
                Some(Health::Wrong) => nonce ^ 1,
                Some(Health::Silent) => std::future::pending().await,
            };
            Ok::<_, Status>(Response::new(feeder::ReplyMessage { retval }))
        }
    });
    let codec = ProstCodec::<feeder::ReplyMessage, feeder::NonceMessage>::default();
    Grpc::new(codec).unary(echo, request).await
}

/// Sends bytes as they are, so that a daemon can also send what is no event.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = feeder::RequestMessage;
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
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(8 << 10, 1)
    }
}

impl Decoder for Raw {
    type Item = feeder::RequestMessage;
    type Error = Status;

    fn decode(
        &mut self,
        from: &mut DecodeBuf<'_>,
    ) -> Result<Option<feeder::RequestMessage>, Status> {
        let bytes = from.copy_to_bytes(from.remaining());
        feeder::RequestMessage::decode(bytes)
            .map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

/// A port that nobody listens on.
pub(crate) async fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("bound")
}

/// A time in which something that should not happen would have.
pub(crate) const A_WHILE: Duration = Duration::from_millis(300);
