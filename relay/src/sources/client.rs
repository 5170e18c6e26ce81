//! One HTTP/2 connection to a daemon, and calls over it.
//!
//! A generated client would do but for four things that matter here: what it receives it gives back to the far side's
//! window at once, where this one does so when the events are in the journal; it ends a stream at one message over its
//! limit; it connects again by itself, without a word; and it panics at a status whose details are not base64.
//!
//! No PING is ever sent. A server of grpc-go ends the connection of a client that sends more than two within five minutes
//! (`keepalive.EnforcementPolicy`, MinTime's default), which KubeArmor's daemons do not change. The daemons ask
//! themselves, every second, and their PINGs are answered as long as this process lives, whoever reads what.

use std::io;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::FutureExt;
use h2::client::{Builder, SendRequest};
use h2::{Reason, RecvStream};
use prost::Message;
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::Code;
use tonic::codegen::http;

use super::config::Address;
use super::deframe::{BadFrame, Deframer, Item};

/// How long a peer that is silent at the level of TCP is believed to be there, and how often the kernel then asks.
const SILENCE: Duration = Duration::from_secs(30);
const ASK: Duration = Duration::from_secs(5);
const ASKS: u32 = 4;

/// Why something did not work. What to do is always the same: try again later.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("cannot resolve or reach it: {0}")]
    Connect(io::Error),
    #[error("no TLS: {0}")]
    Tls(io::Error),
    #[error("no HTTP/2: {0}")]
    Http(#[from] h2::Error),
    #[error("HTTP status {0}, which no gRPC server sends")]
    NotGrpc(u16),
    #[error("{}: {message}", code.description())]
    Status { code: Code, message: String },
    #[error("it ended the stream")]
    Ended,
    #[error(transparent)]
    Frame(#[from] BadFrame),
    #[error("no answer within {} s", .0.as_secs())]
    Late(Duration),
    #[error("it answered HealthCheck with another number than it was asked with")]
    Echo,
    #[error(
        "it is this relay's own feed, and its events would go round for ever; take it out of the source's addresses"
    )]
    Itself,
    #[error("{0}")]
    Certificates(String),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection. It is closed when this is dropped.
pub(super) struct Client {
    send: SendRequest<Bytes>,
    origin: String,
    /// Holds why the connection ended, once it has.
    ended: watch::Receiver<Option<String>>,
    _driver: JoinSet<()>,
}

/// Bytes that a daemon may send ahead: on one stream, and on the connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Windows {
    pub(super) stream: u32,
    pub(super) connection: u32,
}

impl Client {
    /// Resolves the name and connects; what it resolves to is tried in turn.
    pub(super) async fn connect(
        address: &Address,
        tls: Option<(TlsConnector, ServerName<'static>)>,
        windows: Windows,
    ) -> Result<Self, CallError> {
        let tcp = TcpStream::connect((address.host.as_str(), address.port))
            .await
            .map_err(CallError::Connect)?;
        watched(&tcp).map_err(CallError::Connect)?;
        let (scheme, stream): (_, Box<dyn Stream>) = match tls {
            None => ("http", Box::new(tcp)),
            Some((connector, name)) => (
                "https",
                Box::new(connector.connect(name, tcp).await.map_err(CallError::Tls)?),
            ),
        };
        let (send, connection) = Builder::new()
            .initial_window_size(windows.stream)
            .initial_connection_window_size(windows.connection)
            .enable_push(false)
            .handshake(stream)
            .await?;
        let (ending, ended) = watch::channel(None);
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            let why = connection.await.map_or_else(
                |error| error.to_string(),
                |()| "it closed the connection".to_owned(),
            );
            ending.send_replace(Some(why));
        });
        Ok(Self {
            send,
            origin: format!("{scheme}://{address}"),
            ended,
            _driver: driver,
        })
    }

    /// Waits until the connection has ended, and says why.
    pub(super) async fn ended(&self) -> String {
        let mut ended = self.ended.clone();
        let why = ended
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|why| why.clone());
        why.unwrap_or_else(|| "the connection's task ended".to_owned())
    }

    /// Calls `/feeder.LogService/METHOD`. The answer may begin long after: KubeArmor's daemon sends nothing at all before
    /// its first event.
    pub(super) async fn call(
        &self,
        method: &str,
        message: &impl Message,
        limit: usize,
    ) -> Result<Messages, CallError> {
        let request = http::Request::post(format!("{}/feeder.LogService/{method}", self.origin))
            .header("te", "trailers")
            .header("content-type", "application/grpc")
            .header("user-agent", concat!("cresset/", env!("CARGO_PKG_VERSION")))
            .body(())
            .map_err(|error| CallError::Connect(io::Error::other(error)))?;
        let mut send = self.send.clone().ready().await?;
        let (answer, mut body) = send.send_request(request, false)?;
        body.send_data(framed(message), true)?;
        let (head, body) = answer.await?.into_parts();
        if head.status != http::StatusCode::OK {
            return Err(CallError::NotGrpc(head.status.as_u16()));
        }
        if let Some(end) = status(&head.headers) {
            return Err(end);
        }
        Ok(Messages {
            body,
            deframer: Deframer::new(limit),
            ahead: Ahead::default(),
            unreleased: 0,
        })
    }

    /// A call with one answer.
    pub(super) async fn ask<A: Message + Default>(
        &self,
        method: &str,
        message: &impl Message,
    ) -> Result<A, CallError> {
        /// Answers hold a number.
        const LIMIT: usize = 1 << 10;
        let mut messages = self.call(method, message, LIMIT).await?;
        let mut items = Vec::new();
        while items.is_empty() {
            messages.read(&mut items, 1).await?;
        }
        match items.swap_remove(0) {
            Item::Message(bytes) => A::decode(bytes).map_err(|_| CallError::Echo),
            Item::TooLarge(_) => Err(CallError::Echo),
        }
    }
}

/// Has the kernel find out when the peer's machine is gone.
fn watched(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    sockopt::set_socket_keepalive(tcp, true)?;
    sockopt::set_tcp_keepidle(tcp, SILENCE)?;
    sockopt::set_tcp_keepintvl(tcp, ASK)?;
    sockopt::set_tcp_keepcnt(tcp, ASKS)?;
    Ok(())
}

fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut out = BytesMut::with_capacity(5 + length);
    out.put_u8(0);
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX)); // a request holds one word
    // A BytesMut has room for everything.
    let _ = message.encode(&mut out);
    out.freeze()
}

/// What a server streams.
pub(super) struct Messages {
    body: RecvStream,
    deframer: Deframer,
    ahead: Ahead,
    /// Bytes that were received and not given back to the sender's window.
    unreleased: usize,
}

/// What came while nobody could take it: one window at most.
#[derive(Default)]
struct Ahead {
    bytes: BytesMut,
    /// Why nothing comes behind that.
    end: Option<CallError>,
}

impl Messages {
    /// Adds what comes next, and what is there behind it, up to about `most` bytes. Stopped while it waits, it has taken
    /// nothing.
    ///
    /// # Errors
    /// Why the stream ended. `out` holds what came before that.
    pub(super) async fn read(&mut self, out: &mut Vec<Item>, most: usize) -> Result<(), CallError> {
        if !self.ahead.bytes.is_empty() {
            let piece = self.ahead.bytes.len().min(most);
            let bytes = self.ahead.bytes.split_to(piece).freeze();
            self.unreleased += bytes.len();
            return Ok(self.deframer.take(bytes, out)?);
        }
        if let Some(end) = self.ahead.end.take() {
            return Err(end);
        }
        let mut data = self.body.data().await;
        let mut taken = 0;
        loop {
            match data {
                Some(Ok(bytes)) => {
                    taken += bytes.len();
                    self.unreleased += bytes.len();
                    self.deframer.take(bytes, out)?;
                }
                Some(Err(error)) => return Err(error.into()),
                None => return Err(self.end().await),
            }
            if taken >= most {
                return Ok(());
            }
            match self.body.data().now_or_never() {
                Some(next) => data = next,
                None => return Ok(()),
            }
        }
    }

    /// Takes what comes out of the connection's hands while nobody reads, for the next [`Messages::read`]; goes on until it
    /// is stopped. A daemon sends each event in a frame of its own, and h2 ends a connection on which too many wait that are
    /// below 256 bytes (`too_many_data_frames`), long before the window is full. Nothing is released, so it is one window.
    pub(super) async fn hoard(&mut self) {
        while self.ahead.end.is_none() {
            match self.body.data().await {
                Some(Ok(bytes)) => self.ahead.bytes.extend_from_slice(&bytes),
                Some(Err(error)) => self.ahead.end = Some(error.into()),
                None => self.ahead.end = Some(self.end().await),
            }
        }
        std::future::pending().await
    }

    /// Lets the far side send as much again as was read since the last time.
    pub(super) fn release(&mut self) {
        let bytes = std::mem::take(&mut self.unreleased);
        // Fails only when the stream is over, and then nothing comes any more.
        let _ = self.body.flow_control().release_capacity(bytes);
    }

    async fn end(&mut self) -> CallError {
        match self.body.trailers().await {
            Ok(trailers) => trailers
                .as_ref()
                .and_then(status)
                .unwrap_or(CallError::Ended),
            Err(error) if error.reason() == Some(Reason::NO_ERROR) => CallError::Ended,
            Err(error) => error.into(),
        }
    }
}

/// The status in headers or trailers, if they have one. OK is an end, too.
fn status(headers: &http::HeaderMap) -> Option<CallError> {
    let code = Code::from_bytes(headers.get("grpc-status")?.as_bytes());
    if code == Code::Ok {
        return Some(CallError::Ended);
    }
    let message = headers
        .get("grpc-message")
        .map(|text| String::from_utf8_lossy(text.as_bytes()).into_owned());
    Some(CallError::Status {
        code,
        message: message.unwrap_or_default(),
    })
}
