//! A connection to a destination that does not speak HTTP/1: bare, encrypted, or through a proxy by CONNECT.
//!
//! ```text
//! TCP to the proxy or the destination ─▶ CONNECT, if there is a proxy ─▶ TLS, if asked for ─▶ a stream of bytes
//! ```
//! Names are resolved at every connection.

mod trial;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper_util::rt::TokioIo;
use reqwest::Url;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::{CertificateError, Error as TlsError};
use tonic::transport::{Channel, Endpoint};

use crate::Unavailable;
use crate::http::Proxy;
use crate::tls::ClientTls;

pub(crate) use trial::reach;

/// For names, TCP, the proxy's word and TLS together.
const WITHIN: Duration = Duration::from_secs(10);
/// Of a proxy's answer.
const MAX_HEAD: usize = 8 << 10;

/// How to come to a destination.
#[derive(Clone, Debug)]
pub(crate) struct Dial {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// None: not encrypted.
    pub(crate) tls: Option<ClientTls>,
    /// What is spoken inside, for TLS: `h2`, or nothing.
    pub(crate) protocols: &'static [&'static str],
    pub(crate) proxy: Proxy,
}

/// A stream of bytes to a destination.
pub(crate) enum Wire {
    Plain(TcpStream),
    Encrypted(Box<TlsStream<TcpStream>>),
}

impl Dial {
    /// Connects. The certificates' files are read each time.
    ///
    /// # Errors
    /// Which step failed, and how.
    pub(crate) async fn connect(&self) -> Result<Wire, Unavailable> {
        let to = format!("{}:{}", self.host, self.port);
        match timeout(WITHIN, self.steps()).await {
            Ok(Ok(wire)) => Ok(wire),
            Ok(Err(why)) => Err(Unavailable::new(format!("cannot connect to {to}: {why}"))),
            Err(_) => Err(Unavailable::new(format!(
                "cannot connect to {to}: not within {} s",
                WITHIN.as_secs()
            ))),
        }
    }

    /// A gRPC channel that connects when it is used, and again after it broke. The encryption is done here, so what tonic sees
    /// is plain `http`; requests name the address as it was written.
    ///
    /// # Errors
    /// The address is none.
    pub(crate) fn channel(self, url: &Url) -> Result<Channel, String> {
        let authority = url.authority();
        let bad = |_| format!("`{url}` is no address");
        let endpoint = Endpoint::from_shared(format!("http://{authority}"))
            .map_err(|error| error.to_string())?
            .origin(
                format!("{}://{authority}", url.scheme())
                    .parse()
                    .map_err(bad)?,
            )
            .http2_keep_alive_interval(Duration::from_secs(30));
        let dial = Arc::new(self);
        Ok(
            endpoint.connect_with_connector_lazy(tower::service_fn(move |_| {
                let dial = Arc::clone(&dial);
                async move { dial.connect().await.map(TokioIo::new) }
            })),
        )
    }

    async fn steps(&self) -> Result<Wire, String> {
        let stream = match &self.proxy.url {
            None => tcp(&self.host, self.port).await?,
            Some(_) => self.through().await?,
        };
        self.encrypt(stream).await
    }

    async fn encrypt(&self, stream: TcpStream) -> Result<Wire, String> {
        let Some(tls) = &self.tls else {
            return Ok(Wire::Plain(stream));
        };
        let config = tls
            .client_config(self.protocols)
            .map_err(|e| e.to_string())?;
        let name = tls.name_of(&self.host).map_err(|e| e.to_string())?;
        let connected = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await;
        let stream = connected.map_err(|error| format!("TLS: {}", tls_trouble(&error)))?;
        Ok(Wire::Encrypted(Box::new(stream)))
    }

    async fn through(&self) -> Result<TcpStream, String> {
        let url = self.proxy.address().ok_or("there is no proxy")??;
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or(80);
        let at = |why: String| format!("proxy {host}:{port}: {why}");
        let mut stream = tcp(host, port).await.map_err(at)?;
        self.ask_proxy(&mut stream).await.map_err(at)?;
        Ok(stream)
    }

    /// Has a proxy connect to the destination.
    async fn ask_proxy(&self, stream: &mut TcpStream) -> Result<(), String> {
        let request = self.connect_request()?;
        let asked = ask(stream, request.as_bytes()).await;
        let head = asked.map_err(|error| error.to_string())?;
        let status = head.split_whitespace().nth(1).unwrap_or_default();
        match status.starts_with('2') {
            true => Ok(()),
            false => Err(format!(
                "it answered `{}`; check the sink's proxy",
                crate::http::shown(head.lines().next().unwrap_or_default())
            )),
        }
    }

    fn connect_request(&self) -> Result<String, String> {
        let host = bare(&self.host);
        let to = match host.contains(':') {
            true => format!("[{host}]:{}", self.port),
            false => format!("{host}:{}", self.port),
        };
        let mut request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n");
        if let Some((user, password)) = self.proxy.credentials()? {
            let pair = STANDARD.encode(format!("{user}:{}", password.expose()));
            request.push_str(&format!("Proxy-Authorization: Basic {pair}\r\n"));
        }
        request.push_str("\r\n");
        Ok(request)
    }
}

/// What is wrong with a handshake, and what to do.
fn tls_trouble(error: &io::Error) -> String {
    let cause = error
        .get_ref()
        .and_then(|cause| cause.downcast_ref::<TlsError>());
    let advice = match cause {
        Some(TlsError::InvalidCertificate(wrong)) => certificate_advice(wrong),
        Some(TlsError::AlertReceived(_)) => {
            "it ends the connection; it may want a client certificate that it knows (tls.cert_file, tls.key_file)"
        }
        Some(TlsError::InvalidMessage(_)) => {
            "what answers there speaks no TLS; check the port, or leave the encryption out"
        }
        _ if error.kind() == io::ErrorKind::UnexpectedEof => {
            "it ended the connection in the middle; check the port, and that it speaks TLS"
        }
        _ => return error.to_string(),
    };
    format!("{error}; {advice}")
}

fn certificate_advice(wrong: &CertificateError) -> &'static str {
    match wrong {
        // The second: signed by another authority of the same name.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate is signed by nobody known here; name the authority's certificate in tls.ca_file"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "its certificate is for other names; write one of them into the address or into tls.server_name"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has ended; renew it there, or set this machine's clock"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet; look at the clocks of both machines"
        }
        _ => "its certificate is not good",
    }
}

/// An IPv6 address of a URL without its brackets.
fn bare(host: &str) -> &str {
    host.trim_matches(['[', ']'])
}

async fn tcp(host: &str, port: u16) -> Result<TcpStream, String> {
    let stream = TcpStream::connect((bare(host), port))
        .await
        .map_err(|e| e.to_string())?;
    stream.set_nodelay(true).map_err(|e| e.to_string())?;
    Ok(stream)
}

/// Byte by byte up to the empty line, for what comes behind it belongs to the destination.
async fn ask(stream: &mut TcpStream, request: &[u8]) -> io::Result<String> {
    stream.write_all(request).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= MAX_HEAD {
            return Err(io::Error::other("its answer has no end"));
        }
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

// === impl Wire ===

impl Wire {
    /// The connection below the encryption.
    pub(crate) fn tcp(&self) -> &TcpStream {
        match self {
            Wire::Plain(stream) => stream,
            Wire::Encrypted(stream) => stream.get_ref().0,
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Wire::Encrypted(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Wire::Encrypted(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    /// HTTP/2 writes a frame's header and its content together by this.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Wire::Encrypted(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Wire::Plain(stream) => stream.is_write_vectored(),
            Wire::Encrypted(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Wire::Encrypted(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Wire::Encrypted(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
