//! Connections of a gRPC listener.
//!
//! PINGs go both ways without offence. KubeArmor's clients may send as many as they like: what grpc-go calls enforcement,
//! ending the connection of a client that pings more than every five minutes, is not done here. A peer that does not
//! answer ours is let go, or a machine that vanished would hold its place for ever.

use std::error::Error;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use prometheus::{IntCounterVec, IntGaugeVec, Opts};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tonic::service::Routes;
use tonic::transport::server::{Connected as _, TcpConnectInfo, UdsConnectInfo};
use tracing::Instrument;

use super::complaints::Complaints;
use super::gate::{Calls, Gate, Gated};
use super::places::{Full, Place, Places};
use super::{Bound, Certificates};
use crate::access::{Access, Denied, Door, Presented};
use crate::enrolment::Enrolment;
use crate::ingest::Budget;
use crate::metrics::Registry;

#[cfg(test)]
mod tests;

/// How long a peer may take to speak TLS, and then to speak HTTP/2.
const GREETING: Duration = Duration::from_secs(10);

/// Bytes of the HTTP/2 connection preface (RFC 9113, 3.4).
const PREFACE: usize = 24;

/// How often who waits for room looks whether somebody asks nothing by now.
const LOOK: Duration = Duration::from_millis(200);

/// What one listener admits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Connections at one time; the next one takes the place of one on which nothing is asked, or waits.
    pub(crate) connections: usize,
    /// Calls at one time in a connection.
    pub(crate) streams: u32,
    /// Bytes that a peer may send ahead, where no budget lends them.
    pub(crate) window: u32,
    /// A peer that says nothing is asked this often whether it is there,
    pub(crate) ping: Duration,
    /// and has this long to answer.
    pub(crate) pong: Duration,
    /// Connections of one address at one time; the next one takes the place of one of them on which nothing is asked, or is
    /// closed.
    pub(crate) per_peer: usize,
    /// Those of them that have not finished TLS and the first words of HTTP/2; likewise.
    pub(crate) handshakes: usize,
    /// A connection without a call is closed after this time.
    pub(crate) idle: Duration,
}

/// Counts of all listeners' connections; a cheap handle.
#[derive(Debug, Clone)]
pub(crate) struct Connections {
    open: IntGaugeVec,
    accepted: IntCounterVec,
    failed: IntCounterVec,
    denied: IntCounterVec,
    complaints: Complaints,
}

impl Connections {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let open = IntGaugeVec::new(
            Opts::new("cresset_connections", "Open connections."),
            &["listener"],
        )?;
        let accepted = IntCounterVec::new(
            Opts::new(
                "cresset_connections_accepted_total",
                "Connections accepted.",
            ),
            &["listener"],
        )?;
        let failed = IntCounterVec::new(
            Opts::new(
                "cresset_connection_failures_total",
                "Connections that were closed: tls (no handshake), silent (said nothing), protocol (no HTTP/2), crowded (their address has as many as it may), handshakes (their address has as many unfinished ones as it may), idle (no call for a long time), room (no call for a moment, and its place was needed), revoked (its certificate was revoked or replaced).",
            ),
            &["listener", "reason"],
        )?;
        let denied = IntCounterVec::new(
            Opts::new(
                "cresset_calls_denied_total",
                "Calls refused for who made them: nobody (no certificate and no token), token (not known), form (of the header), certificate (its name says no role), role (not for this door), revoked (its certificate was revoked or replaced).",
            ),
            &["listener", "reason"],
        )?;
        registry.register(Box::new(denied.clone()))?;
        registry.register(Box::new(open.clone()))?;
        registry.register(Box::new(accepted.clone()))?;
        registry.register(Box::new(failed.clone()))?;
        Ok(Self {
            open,
            accepted,
            failed,
            denied,
            complaints: Complaints::default(),
        })
    }

    fn fail(&self, listener: &str, failure: &Failure) {
        let reason = failure.word();
        self.failed.with_label_values(&[listener, reason]).inc();
        if let Some(left_out) = self.complaints.may(reason) {
            tracing::info!(reason, why = %failure, left_out, "connection closed");
        }
    }

    /// Counts a call that is refused and says so.
    pub(super) fn deny(&self, listener: &str, denied: &Denied) {
        let reason = denied.word();
        self.denied.with_label_values(&[listener, reason]).inc();
        if let Some(left_out) = self.complaints.may(reason) {
            tracing::warn!(reason, why = %denied, left_out, "call denied");
        }
    }
}

/// Why a connection is of no use.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no TLS handshake: {0}")]
    Tls(io::Error),
    #[error("nothing said for {GREETING:?}")]
    Silent,
    #[error("no HTTP/2: {0}")]
    Protocol(Box<dyn Error + Send + Sync>),
    #[error(
        "its address has {0} connections, which is as many as one may have; see relay.limits.connections"
    )]
    Crowded(usize),
    #[error(
        "its address has {0} handshakes under way, which is as many as one may have; see relay.limits.handshakes"
    )]
    Handshakes(usize),
    #[error("no call for {0:?}")]
    Idle(Duration),
    #[error("no call, and its place was needed")]
    Room,
    #[error("its certificate was revoked or replaced")]
    Revoked,
}

impl Failure {
    fn word(&self) -> &'static str {
        match self {
            Self::Tls(_) => "tls",
            Self::Silent => "silent",
            Self::Protocol(_) => "protocol",
            Self::Crowded(_) => "crowded",
            Self::Handshakes(_) => "handshakes",
            Self::Idle(_) => "idle",
            Self::Room => "room",
            Self::Revoked => "revoked",
        }
    }
}

/// A gRPC listener, ready to serve.
pub(crate) struct Grpc {
    pub(crate) name: &'static str,
    pub(crate) bound: Bound,
    pub(crate) door: Door,
    pub(crate) access: Access,
    pub(crate) tls: Option<Certificates>,
    /// Gives certificates, and knows those that it gave.
    pub(crate) enrolment: Option<Enrolment>,
    pub(crate) limits: Limits,
    /// Lends every connection what its peer may send ahead.
    pub(crate) budget: Option<Budget>,
    pub(crate) routes: Routes,
    pub(crate) connections: Connections,
}

impl Grpc {
    /// Serves until `stop` is true and every call of every connection has ended. Dropped before that, it cuts them off.
    pub(crate) async fn serve(self, mut stop: watch::Receiver<bool>) {
        let Self {
            name,
            bound,
            door,
            access,
            tls,
            enrolment,
            limits,
            budget,
            routes,
            connections,
        } = self;
        let places = Places::new(limits.per_peer, limits.handshakes);
        let server = Arc::new(Server {
            name,
            door,
            access,
            tls,
            enrolment,
            limits,
            budget,
            routes: routes.prepare(),
            connections,
        });
        // A connection for which the budget has no window is not accepted.
        let most = server
            .budget
            .as_ref()
            .map_or(usize::MAX, Budget::connections);
        let room = Arc::new(Semaphore::new(limits.connections.min(most)));
        let mut open = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = told(&mut stop) => break,
                accepted = accept(&bound) => accepted,
            };
            while open.try_join_next().is_some() {}
            let Some((stream, peer)) = accepted else {
                continue;
            };
            let span =
                tracing::info_span!("connection", listener = name, peer = tracing::field::Empty);
            if let Some(peer) = peer.tcp.remote_addr {
                span.record("peer", tracing::field::display(peer));
            }
            let address = peer.tcp.remote_addr.map(|peer| peer.ip());
            let calls = Arc::new(Calls::new());
            let place = match places.enter(address, calls.clone()) {
                Ok(place) => Arc::new(place),
                Err(full) => {
                    let failure = server.full(full);
                    span.in_scope(|| server.connections.fail(name, &failure));
                    continue;
                }
            };
            let permit = tokio::select! {
                biased;
                () = told(&mut stop) => break,
                permit = admit(name, &room, &places) => permit,
            };
            let stop = stop.clone();
            let connection = server.clone().connection(stream, peer, calls, place, stop);
            open.spawn(
                async move {
                    connection.await;
                    drop(permit);
                }
                .instrument(span),
            );
        }
        drop(bound);
        while open.join_next().await.is_some() {}
    }
}

/// Waits until the listener is to stop.
async fn told(stop: &mut watch::Receiver<bool>) {
    // An error says that nobody is left to tell, which is the end as well.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Who is at the other end; services find it among a request's extensions.
#[derive(Clone)]
pub(super) struct Peer {
    pub(super) tcp: TcpConnectInfo,
    /// On a Unix socket: the process, as the kernel names it.
    pub(super) unix: Option<UdsConnectInfo>,
}

type Accepted = (Box<dyn Stream>, Peer);

/// Room for a connection: what somebody leaves who asks nothing, or else what is free first.
async fn admit(name: &str, room: &Arc<Semaphore>, places: &Places) -> Option<OwnedSemaphorePermit> {
    let mut waiting = false;
    loop {
        if let Ok(permit) = room.clone().try_acquire_owned() {
            return Some(permit);
        }
        places.make_room();
        let freed = tokio::time::timeout(LOOK, room.clone().acquire_owned()).await;
        if let Ok(permit) = freed {
            return permit.ok();
        }
        if !std::mem::replace(&mut waiting, true) {
            tracing::warn!(
                listener = name,
                "as many connections as there may be, and all of them are busy; the next ones wait until one ends"
            );
        }
    }
}

/// The next connection. None after an error that concerns only that connection.
async fn accept(bound: &Bound) -> Option<Accepted> {
    let accepted: io::Result<(Box<dyn Stream>, Peer)> = match bound {
        Bound::Tcp(listener) => listener.accept().await.map(|(stream, peer)| {
            // Acks and events are small and must not wait for more; without the option they are only later.
            let _ = stream.set_nodelay(true);
            let tcp = TcpConnectInfo {
                local_addr: stream.local_addr().ok(),
                remote_addr: Some(peer),
            };
            (
                Box::new(stream) as Box<dyn Stream>,
                Peer { tcp, unix: None },
            )
        }),
        Bound::Unix(listener, _) => listener.accept().await.map(|(stream, _)| {
            let tcp = TcpConnectInfo {
                local_addr: None,
                remote_addr: None,
            };
            let unix = Some(stream.connect_info());
            (Box::new(stream) as Box<dyn Stream>, Peer { tcp, unix })
        }),
    };
    match accepted {
        Ok(accepted) => Some(accepted),
        Err(error) => {
            tracing::warn!(%error, "cannot accept a connection");
            // Out of file descriptors, say: trying again at once would only burn time.
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

fn builder(limits: &Limits, window: u32) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new()).http2_only();
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(window)
        .initial_connection_window_size(window)
        .max_concurrent_streams(limits.streams)
        .keep_alive_interval(limits.ping)
        .keep_alive_timeout(limits.pong);
    builder
}

/// What all connections of a listener share.
struct Server {
    name: &'static str,
    door: Door,
    access: Access,
    tls: Option<Certificates>,
    enrolment: Option<Enrolment>,
    limits: Limits,
    budget: Option<Budget>,
    routes: Routes,
    connections: Connections,
}

impl Server {
    async fn connection(
        self: Arc<Self>,
        stream: Box<dyn Stream>,
        peer: Peer,
        calls: Arc<Calls>,
        place: Arc<Place>,
        stop: watch::Receiver<bool>,
    ) {
        self.connections
            .accepted
            .with_label_values(&[self.name])
            .inc();
        let open = self.connections.open.with_label_values(&[self.name]);
        open.inc();
        let ended = tokio::select! {
            ended = self.converse(stream, peer, calls, &place, stop) => ended,
            () = place.taken() => Err(Failure::Room),
        };
        open.dec();
        if let Err(failure) = ended {
            self.connections.fail(self.name, &failure);
        }
    }

    async fn converse(
        &self,
        stream: Box<dyn Stream>,
        peer: Peer,
        calls: Arc<Calls>,
        place: &Arc<Place>,
        stop: watch::Receiver<bool>,
    ) -> Result<(), Failure> {
        let Some(tls) = &self.tls else {
            let heard = Heard::new(stream, place.clone());
            return self.http(heard, peer, None, calls, stop).await;
        };
        let accepting = tls.acceptor().accept(stream);
        let stream = tokio::time::timeout(GREETING, accepting)
            .await
            .map_err(|_| Failure::Silent)?
            .map_err(Failure::Tls)?;
        let shown = stream.get_ref().1.peer_certificates();
        let certificate = shown
            .and_then(<[_]>::first)
            .map(|leaf| Presented::read(leaf));
        let heard = Heard::new(Box::new(stream), place.clone());
        self.http(heard, peer, certificate, calls, stop).await
    }

    fn full(&self, full: Full) -> Failure {
        match full {
            Full::Peer => Failure::Crowded(self.limits.per_peer),
            Full::Handshakes => Failure::Handshakes(self.limits.handshakes),
        }
    }

    async fn http(
        &self,
        stream: Heard,
        peer: Peer,
        certificate: Option<Presented>,
        calls: Arc<Calls>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), Failure> {
        let heard = stream.bytes.clone();
        let io = TokioIo::new(stream);
        let lent = self.budget.as_ref().map(|budget| Arc::new(budget.lend()));
        let window = lent
            .as_ref()
            .map_or(self.limits.window, |lent| lent.window());
        let mut void = pin!(voided(self.enrolment.clone(), certificate.clone()));
        let gate = Gate {
            listener: self.name,
            door: self.door,
            access: self.access.clone(),
            asked: self.tls.as_ref().is_some_and(Certificates::asks),
            certificate,
            enrolment: self.enrolment.clone(),
            connections: self.connections.clone(),
            calls: calls.clone(),
        };
        let service = TowerToHyperService::new(Gated {
            routes: self.routes.clone(),
            gate: Arc::new(gate),
            peer,
            lent,
        });
        let builder = builder(&self.limits, window);
        let mut connection = pin!(builder.serve_connection(io, service));
        let mut greeting = pin!(tokio::time::sleep(GREETING));
        let mut look = pin!(tokio::time::sleep(self.limits.idle));
        let (mut greeted, mut stopping, mut idle) = (false, false, false);
        loop {
            tokio::select! {
                ended = connection.as_mut() => return match ended.or_else(judge) {
                    Ok(()) if idle => Err(Failure::Idle(self.limits.idle)),
                    ended => ended,
                },
                () = &mut look, if !idle && !stopping => {
                    let left = calls.idle().map_or(self.limits.idle, |idle| self.limits.idle.saturating_sub(idle));
                    look.as_mut().reset(tokio::time::Instant::now() + left);
                    idle = left.is_zero();
                    if idle {
                        connection.as_mut().graceful_shutdown();
                    }
                }
                () = &mut void => return Err(Failure::Revoked),
                () = &mut greeting, if !greeted => {
                    greeted = heard.load(Ordering::Relaxed) >= PREFACE;
                    if !greeted {
                        return Err(Failure::Silent);
                    }
                }
                () = told(&mut stop), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

/// Ends when a connection's certificate is revoked or replaced; calls are refused from the start with one that is.
async fn voided(enrolment: Option<Enrolment>, certificate: Option<Presented>) {
    match (enrolment, certificate) {
        (Some(enrolment), Some(certificate)) if !enrolment.is_void(&certificate) => {
            enrolment.until_void(&certificate).await;
        }
        _ => std::future::pending().await,
    }
}

/// A connection that broke is nobody's fault; anything else was not HTTP/2.
fn judge(error: Box<dyn Error + Send + Sync>) -> Result<(), Failure> {
    let mut cause: Option<&(dyn Error + 'static)> = Some(&*error);
    while let Some(error) = cause {
        if error.is::<io::Error>() {
            return Ok(());
        }
        cause = error.source();
    }
    Err(Failure::Protocol(error))
}

/// TCP, Unix or TLS.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Counts what the peer said, up to its first words.
struct Heard {
    stream: Box<dyn Stream>,
    bytes: Arc<AtomicUsize>,
    /// Told when it has said them.
    greeting: Option<Arc<Place>>,
}

impl Heard {
    fn new(stream: Box<dyn Stream>, place: Arc<Place>) -> Self {
        Self {
            stream,
            bytes: Arc::default(),
            greeting: Some(place),
        }
    }
}

impl AsyncRead for Heard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Some(place) = &self.greeting {
            let read = buffer.filled().len() - before;
            if self.bytes.fetch_add(read, Ordering::Relaxed) + read >= PREFACE {
                place.greeted();
                self.greeting = None;
            }
        }
        polled
    }
}

impl AsyncWrite for Heard {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }
}
