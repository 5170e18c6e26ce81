//! Syslog (RFC 5424) over UDP, TCP with octet counting (RFC 6587) or TLS (RFC 5425); the message is JSON, CEF, LEEF or text.
//!
//! ```text
//! <109>1 2026-01-01T00:00:00.123456Z node-a cresset - alert [cresset@32473 id="…" kind="Alert"] CEF:0|Cresset|…
//!   │                                  │              │                                         └ one line
//!   └ facility and severity            └ the node     └ kind
//! ```
//! Syslog has no answers, so how sure "delivered" is depends on the way:
//!
//! - **tcp, tls**: an event is done when the receiver's kernel has acknowledged its last byte (`SIOCOUTQ` is 0) and the
//!   connection still stands. What the receiver's kernel had and its program did not read is lost when it dies.
//! - **udp**: an event is done when the kernel here has taken it. A receiver that is not there is noticed, by ICMP, at the
//!   next event; what the network loses is lost. An event that fits no datagram is a dead letter.

mod cef;
mod frame;
mod leef;
mod sent;
mod text;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use proto::FieldSet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UdpSocket;
use tokio::sync::Mutex;
use tokio::time::timeout;
use yaml::{Node, Problem};

use crate::config::{BatchLimits, Defaults};
use crate::dial::{Dial, Wire};
use crate::http::Proxy;
use crate::lines::unreadable;
use crate::tls::ClientTls;
use crate::{
    Batch, BuildError, Carried, Context, Encoded, Failed, Outcome, Sink, Trial, Unavailable,
};

config! {
    /// Settings of a `syslog` sink.
    pub struct Config {
        /// `HOST:PORT`, as in `siem.example:6514`. Required.
        pub address: String,
        /// `tcp`, `tls` or `udp`.
        pub transport: Transport,
        /// What the message is.
        pub format: SyslogFormat,
        /// Facility, 0 to 23. Default: 13, log audit.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub facility: Option<u8>,
        /// The APP-NAME. Default: `cresset`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub app_name: Option<String>,
        /// The private enterprise number of the structured data. Default: 32473, which is nobody's (RFC 5612).
        #[serde(skip_serializing_if = "Option::is_none")]
        pub enterprise_number: Option<u32>,
        /// Encryption, for `transport: tls`.
        pub tls: ClientTls,
        /// A proxy in between, for tcp and tls.
        pub proxy: Proxy,
    }
}

/// Order is kept: one batch at a time.
pub(crate) static DEFAULTS: Defaults = Defaults {
    batch: BatchLimits {
        max_events: 1000,
        max_bytes: 1 << 20,
        max_delay: Duration::from_millis(200),
    },
    concurrency: 1,
    max_concurrency: 1,
    fields: FieldSet::All,
};

/// How messages travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// One connection, octet counting.
    #[default]
    Tcp,
    /// The same, encrypted.
    Tls,
    /// One datagram a message.
    Udp,
}

/// What a message is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SyslogFormat {
    /// The event as JSON.
    #[default]
    Json,
    /// ArcSight's Common Event Format.
    Cef,
    /// QRadar's Log Event Extended Format 2.0.
    Leef,
    /// What happened, in one line.
    Text,
}

/// For a batch to be taken by the receiver's kernel.
const WITHIN: Duration = Duration::from_secs(30);
/// The largest payload of a datagram over IPv4, in bytes.
const MAX_DATAGRAM: usize = 65_507;

impl Config {
    /// Reports files and variables that are not there.
    pub(crate) fn look(&self, node: &Node, problems: &mut Vec<Problem>) {
        self.tls.look("tls", node, problems);
        self.proxy.keys().look(node, problems);
    }

    pub(crate) fn check(&self, node: &Node, problems: &mut Vec<Problem>) {
        self.tls.check("tls", node, problems);
        self.proxy.check(node, problems);
        let mut wrong = |path: &str, message: &str| problems.push(node.problem_at(path, message));
        if self.address.is_empty() {
            wrong("address", "is missing; write HOST:PORT");
        } else if host_and_port(&self.address).is_none() {
            wrong(
                "address",
                "is no HOST:PORT, as in `siem.example:6514` or `[::1]:514`",
            );
        }
        if self.facility.is_some_and(|facility| facility > 23) {
            wrong("facility", "use 0 to 23");
        }
        if self
            .app_name
            .as_ref()
            .is_some_and(|name| !frame::is_name(name, 48))
        {
            wrong(
                "app_name",
                "use 1 to 48 printable ASCII characters without spaces",
            );
        }
        if self.transport != Transport::Tls && self.tls != ClientTls::default() {
            wrong("tls", "belongs to `transport: tls`");
        }
        if self.transport == Transport::Udp && self.proxy != Proxy::default() {
            wrong("proxy", "does not carry datagrams; use tcp or tls");
        }
    }
}

fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    // An IPv6 address without brackets could end in a port or not.
    let clear = bare.is_some() || !host.contains(':');
    let host = bare.unwrap_or(host);
    let port = port.parse().ok().filter(|port| *port > 0)?;
    (clear && !host.is_empty()).then(|| (host.to_owned(), port))
}

/// The sink.
pub struct Syslog {
    way: Way,
    format: SyslogFormat,
    fields: FieldSet,
    header: frame::Header,
}

enum Way {
    Stream {
        dial: Box<Dial>,
        /// None until it is needed, and after it broke.
        wire: Mutex<Option<Wire>>,
    },
    Datagram {
        host: String,
        port: u16,
        socket: Mutex<Option<UdpSocket>>,
    },
}

impl Syslog {
    /// Makes the sink; nothing is connected yet.
    ///
    /// # Errors
    /// A file that the settings name cannot be used.
    pub fn build(name: &str, config: &Config, _context: &Context) -> Result<Self, BuildError> {
        let bad = |why: String| BuildError::new(name, why);
        let (host, port) = host_and_port(&config.address)
            .ok_or_else(|| bad("address: write HOST:PORT".to_owned()))?;
        let encrypted = config.transport == Transport::Tls;
        if encrypted {
            config
                .tls
                .client_config(&[])
                .map_err(|e| bad(e.to_string()))?;
        }
        let way = match config.transport {
            Transport::Udp => Way::Datagram {
                host,
                port,
                socket: Mutex::default(),
            },
            Transport::Tcp | Transport::Tls => Way::Stream {
                dial: Box::new(Dial {
                    host,
                    port,
                    tls: encrypted.then(|| config.tls.clone()),
                    protocols: &[],
                    proxy: config.proxy.clone(),
                }),
                wire: Mutex::default(),
            },
        };
        Ok(Syslog {
            way,
            format: config.format,
            fields: config.common().fields,
            header: frame::Header {
                facility: config.facility.unwrap_or(13),
                app_name: config.app_name.clone().unwrap_or("cresset".to_owned()),
                enterprise: config.enterprise_number.unwrap_or(32_473),
            },
        })
    }

    /// One message, without framing.
    fn message(&self, event: &Encoded) -> Result<Vec<u8>, String> {
        // Also tells of an event that cannot be read, whatever the format.
        let json = event
            .json(self.fields)
            .map_err(|malformed| unreadable(event.kind(), &malformed))?;
        let view = event.view();
        let mut out = self.header.begin(event, &view);
        match self.format {
            SyslogFormat::Json => out.extend_from_slice(&json),
            SyslogFormat::Cef => out.extend(cef::write(event, &view).bytes()),
            SyslogFormat::Leef => out.extend(leef::write(event, &view).bytes()),
            SyslogFormat::Text => out.extend(text::line(&view).bytes()),
        }
        Ok(out)
    }
}

#[async_trait]
impl Sink for Syslog {
    async fn send(&self, batch: Arc<Batch>) -> Result<Vec<Outcome>, Unavailable> {
        let messages = batch.events().iter().map(|event| self.message(event));
        let messages: Vec<Result<Vec<u8>, String>> = messages.collect();
        match &self.way {
            Way::Stream { dial, wire } => {
                let mut wire = wire.lock().await;
                stream(dial, &mut wire, messages).await
            }
            Way::Datagram { host, port, socket } => {
                let mut socket = socket.lock().await;
                datagrams(host, *port, &mut socket, messages).await
            }
        }
    }

    async fn test(&self, event: Carried, trial: &Trial) -> Result<(), Failed> {
        match &self.way {
            Way::Stream { dial, .. } => dial.try_out(trial).await?,
            Way::Datagram { host, port, .. } => {
                trial.step("resolve", resolved(host, *port)).await?;
            }
        }
        let promise = match &self.way {
            Way::Stream { .. } => {
                "the receiver's kernel has it; syslog has no answers, so look for it there"
            }
            Way::Datagram { .. } => {
                "it was sent; nobody says whether it came, so look for it there"
            }
        };
        let batch = Arc::new(Batch::new(vec![event]));
        trial.write_told(self.send(batch), promise).await
    }

    async fn flush(&self) -> Result<(), Unavailable> {
        if let Way::Stream { wire, .. } = &self.way
            && let Some(mut wire) = wire.lock().await.take()
        {
            // Everything in it was acknowledged; this only says good-bye.
            let _ = wire.shutdown().await;
        }
        Ok(())
    }
}

/// All messages over one connection; it is dropped if any step fails.
async fn stream(
    dial: &Dial,
    held: &mut Option<Wire>,
    messages: Vec<Result<Vec<u8>, String>>,
) -> Result<Vec<Outcome>, Unavailable> {
    let mut bytes = Vec::new();
    let mut outcomes = Vec::with_capacity(messages.len());
    for message in messages {
        outcomes.push(match message {
            Ok(message) => {
                bytes.extend(format!("{} ", message.len()).bytes());
                bytes.extend(message);
                Outcome::Done
            }
            Err(reason) => Outcome::Reject { reason },
        });
    }
    if bytes.is_empty() {
        return Ok(outcomes);
    }
    // A receiver may have closed an idle connection: that is seen before anything is written into it.
    let mut wire = match held.take().filter(sent::stands) {
        Some(wire) => wire,
        None => dial.connect().await?,
    };
    let done = timeout(WITHIN, async {
        wire.write_all(&bytes).await?;
        wire.flush().await?;
        sent::acknowledged(&wire).await
    });
    match done.await {
        Ok(Ok(())) => {
            *held = Some(wire);
            Ok(outcomes)
        }
        Ok(Err(error)) => Err(Unavailable::new(format!("the connection broke: {error}"))),
        Err(_) => Err(Unavailable::new(format!(
            "the receiver did not take a batch within {} s",
            WITHIN.as_secs()
        ))),
    }
}

async fn datagrams(
    host: &str,
    port: u16,
    held: &mut Option<UdpSocket>,
    messages: Vec<Result<Vec<u8>, String>>,
) -> Result<Vec<Outcome>, Unavailable> {
    let socket = match held.take() {
        Some(socket) => socket,
        None => connected(host, port).await?,
    };
    let mut outcomes = Vec::with_capacity(messages.len());
    let mut away: Option<String> = None;
    for message in messages {
        outcomes.push(match (message, &away) {
            (Err(reason), _) => Outcome::Reject { reason },
            (Ok(message), _) if message.len() > MAX_DATAGRAM => Outcome::Reject {
                reason: format!(
                    "a message of {} bytes fits no datagram ({MAX_DATAGRAM}); use tcp or tls",
                    message.len()
                ),
            },
            (Ok(_), Some(reason)) => later(reason),
            (Ok(message), None) => match socket.send(&message).await {
                Ok(_) => Outcome::Done,
                Err(error) => {
                    let reason = format!("{host}:{port}: {error}");
                    let outcome = later(&reason);
                    away = Some(reason);
                    outcome
                }
            },
        });
    }
    match away {
        // Nothing was taken at all.
        Some(reason) if !outcomes.contains(&Outcome::Done) => Err(Unavailable::new(reason)),
        Some(_) => Ok(outcomes),
        None => {
            *held = Some(socket);
            Ok(outcomes)
        }
    }
}

fn later(reason: &str) -> Outcome {
    Outcome::Retry {
        after: None,
        reason: reason.to_owned(),
    }
}

async fn resolved(host: &str, port: u16) -> Result<((), String), String> {
    match connected(host, port).await {
        Ok(socket) => Ok((
            (),
            socket
                .peer_addr()
                .map(|to| to.to_string())
                .unwrap_or_default(),
        )),
        Err(away) => Err(format!("{}; check the sink's address", away.reason)),
    }
}

async fn connected(host: &str, port: u16) -> Result<UdpSocket, Unavailable> {
    let away = |error: std::io::Error| Unavailable::new(format!("{host}:{port}: {error}"));
    let mut addresses = tokio::net::lookup_host((host, port)).await.map_err(away)?;
    let Some(to) = addresses.next() else {
        return Err(Unavailable::new(format!("{host} has no address")));
    };
    let from = match to.is_ipv4() {
        true => "0.0.0.0:0",
        false => "[::]:0",
    };
    let socket = UdpSocket::bind(from).await.map_err(away)?;
    socket.connect(to).await.map_err(away)?;
    Ok(socket)
}

#[cfg(test)]
mod tests;
