//! Finding a relay and reaching it.
//!
//! An address is `HOST:PORT`, `http://HOST:PORT` or `unix:/PATH`. Without one it is `$CRESSET_RELAY`, then KubeArmor's
//! `$KUBEARMOR_SERVICE`, then 127.0.0.1:32767. What only an administrator may do goes through the relay's Unix socket.

mod authorized;

use std::error::Error;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use proto::feeder::NonceMessage;
use proto::feeder::log_service_client::LogServiceClient;
use tonic::transport::Endpoint;
use tonic::{Code, Status};

pub(crate) use self::authorized::Authorized;
use self::authorized::Credentials;

/// How long a relay may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How long it may take to say the first word over a connection that it accepted.
const GREETING: Duration = Duration::from_secs(10);
/// How often the kernel asks a silent connection whether it is there. Pings of HTTP/2 are left off: KubeArmor's
/// servers end the connection of a client that sends them more often than every five minutes.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// Where a relay listens when nothing is said.
const DEFAULT: &str = "127.0.0.1:32767";
/// An event is at most 1 MiB; what surrounds it is little.
const MAX_MESSAGE: usize = 4 << 20;

/// Which relay to ask.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct RelayArgs {
    /// Address of the relay: HOST:PORT, http://HOST:PORT or unix:/PATH [default: $CRESSET_RELAY, $KUBEARMOR_SERVICE,
    /// 127.0.0.1:32767]
    #[arg(long, alias = "gRPC", value_name = "ADDR")]
    pub(crate) relay: Option<String>,
    // Boxed: most commands have them, and few use them.
    #[command(flatten)]
    credentials: Box<Credentials>,
}

impl RelayArgs {
    /// The address that was given, by flag or environment, or the usual one.
    fn address(&self) -> String {
        let variable = |name| std::env::var(name).ok();
        [
            self.relay.clone(),
            variable("CRESSET_RELAY"),
            variable("KUBEARMOR_SERVICE"),
        ]
        .into_iter()
        .flatten()
        .find(|address| !address.is_empty())
        .unwrap_or_else(|| DEFAULT.to_string())
    }

    /// Connects to the relay.
    pub(crate) async fn connect(&self) -> Result<Relay, Trouble> {
        Relay::connect_as(&self.address(), &self.credentials).await
    }
}

/// Which relay to administer.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct AdminArgs {
    /// The relay's data folder; its socket is DIR/admin.sock [default: where `cresset up` and the service put it]
    #[arg(long, value_name = "DIR", global = true, display_order = 100)]
    data: Option<PathBuf>,

    /// The relay's admin socket itself, as in its relay.listen.admin
    #[arg(
        long,
        value_name = "PATH",
        global = true,
        conflicts_with = "data",
        display_order = 101
    )]
    socket: Option<PathBuf>,
}

impl AdminArgs {
    /// Connects to the relay's admin socket.
    pub(crate) async fn connect(&self) -> Result<Relay, Trouble> {
        match &self.socket {
            Some(socket) => Relay::connect(&format!("unix:{}", socket.display())).await,
            None => Relay::connect_admin(self.data.as_deref()).await,
        }
    }
}

/// A relay that was reached.
#[derive(Clone, Debug)]
pub(crate) struct Relay {
    /// As it was given, for messages.
    pub(crate) address: String,
    /// The connection.
    pub(crate) channel: Authorized,
}

impl Relay {
    /// Connects to an address.
    pub(crate) async fn connect(address: &str) -> Result<Relay, Trouble> {
        Relay::connect_as(address, &Credentials::default()).await
    }

    async fn connect_as(address: &str, credentials: &Credentials) -> Result<Relay, Trouble> {
        let endpoint = Endpoint::from_shared(uri(address, credentials.is_encrypted())?)
            .map_err(|error| Trouble::Usage(error.to_string()))?;
        let endpoint = credentials
            .secure(endpoint)?
            .connect_timeout(CONNECT)
            .tcp_keepalive(Some(KEEPALIVE))
            .tcp_nodelay(true);
        let channel = endpoint
            .connect()
            .await
            .map_err(|error| Trouble::Unreachable {
                address: address.to_string(),
                reason: deepest(&error),
            })?;
        let relay = Relay {
            address: address.to_string(),
            channel: Authorized::new(channel, credentials.authorization()?),
        };
        relay.greet().await?;
        Ok(relay)
    }

    /// Whether anybody is there: the kernel accepts connections for a process that is stopped or hangs. Every feed knows the
    /// question, and any answer will do, a refusal too.
    async fn greet(&self) -> Result<(), Trouble> {
        let mut feed = LogServiceClient::new(self.channel.clone());
        let answer = feed.health_check(NonceMessage::default());
        match tokio::time::timeout(GREETING, answer).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Trouble::Silent {
                address: self.address.clone(),
            }),
        }
    }

    /// Connects to the admin socket of the relay whose data are in `data`, or of the usual ones.
    pub(crate) async fn connect_admin(data: Option<&Path>) -> Result<Relay, Trouble> {
        let socket = admin_socket(data);
        Relay::connect(&format!("unix:{}", socket.display())).await
    }

    /// What a status from this relay means to the user.
    pub(crate) fn trouble(&self, status: Status) -> Trouble {
        let address = self.address.clone();
        match status.code() {
            Code::InvalidArgument => Trouble::Usage(status.message().to_string()),
            // What the relay itself says has no cause on this side.
            Code::Unavailable if status.source().is_none() => Trouble::Unable {
                address,
                reason: reason(&status),
            },
            Code::Unavailable => Trouble::Gone {
                address,
                reason: reason(&status),
            },
            Code::Unknown | Code::Internal if status.source().is_some() => Trouble::Gone {
                address,
                reason: reason(&status),
            },
            _ => Trouble::Refused {
                address,
                reason: reason(&status),
            },
        }
    }

    /// What an administrator may do with this relay's sinks.
    pub(crate) fn sinks(&self) -> proto::sinks::sinks_client::SinksClient<Authorized> {
        proto::sinks::sinks_client::SinksClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE)
    }

    /// What an administrator may do with this relay itself.
    pub(crate) fn operate(&self) -> proto::operate::operate_client::OperateClient<Authorized> {
        proto::operate::operate_client::OperateClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE)
    }

    /// The query service of this relay.
    pub(crate) fn query(&self) -> proto::query::query_client::QueryClient<Authorized> {
        proto::query::query_client::QueryClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE)
    }
}

/// DIR/admin.sock; without DIR, the first of the usual places that exists.
fn admin_socket(data: Option<&Path>) -> PathBuf {
    let of = |folder: &Path| folder.join("admin.sock");
    if let Some(data) = data {
        return of(data);
    }
    let usual = of(&relay::default_data_dir());
    let runtime = std::env::var_os("XDG_RUNTIME_DIR")
        .map(|folder| of(&PathBuf::from(folder).join("cresset")));
    let places = [
        Some(usual.clone()),
        Some(of(Path::new("/run/cresset"))),
        runtime,
    ];
    places
        .into_iter()
        .flatten()
        .find(|place| place.exists())
        .unwrap_or(usual)
}

/// What tonic understands of what people write.
fn uri(address: &str, encrypted: bool) -> Result<String, Trouble> {
    if address.starts_with("unix:") || address.starts_with("http://") {
        return Ok(address.to_string());
    }
    if address.starts_with("https://") {
        return if encrypted {
            Ok(address.to_string())
        } else {
            Err(Trouble::Usage(format!(
                "{address}: who signed its certificate? give --ca-file FILE"
            )))
        };
    }
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    let host = if host.is_empty() { "127.0.0.1" } else { host };
    if address.contains("://") || address.contains('/') || port.parse::<u16>().is_err() {
        return Err(Trouble::Usage(format!(
            "`{address}` is no address of a relay; give HOST:PORT, as in {DEFAULT}"
        )));
    }
    let scheme = if encrypted { "https" } else { "http" };
    Ok(format!("{scheme}://{host}:{port}"))
}

/// Why a command could not do what it was asked to.
#[derive(Debug, PartialEq)]
pub(crate) enum Trouble {
    /// What was asked for makes no sense.
    Usage(String),
    /// Nobody answers there.
    Unreachable { address: String, reason: String },
    /// Somebody takes connections there and says nothing.
    Silent { address: String },
    /// The relay answered, and then no more.
    Gone { address: String, reason: String },
    /// The relay cannot do that at present.
    Unable { address: String, reason: String },
    /// The relay said no.
    Refused { address: String, reason: String },
    /// Nobody answers at a sensor's control socket.
    Sensor { socket: String, reason: String },
    /// A sink's destination does not answer.
    Destination { sink: String, reason: String },
    /// Something on this side of the connection.
    Local(String),
}

impl Trouble {
    /// 1 problems found, 2 wrong usage, 3 could not reach.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Trouble::Usage(_) => 2,
            Trouble::Unreachable { .. }
            | Trouble::Silent { .. }
            | Trouble::Gone { .. }
            | Trouble::Unable { .. }
            | Trouble::Sensor { .. }
            | Trouble::Destination { .. } => 3,
            Trouble::Refused { .. } | Trouble::Local(_) => 1,
        })
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Usage(what) | Trouble::Local(what) => f.write_str(what),
            Trouble::Unreachable { address, reason } if address.starts_with("unix:") => write!(
                f,
                "cannot reach the relay at {address}: {reason}; is it running, is its data folder another one \
                 (--data DIR), and may this user open its socket?"
            ),
            Trouble::Unreachable { address, reason } => write!(
                f,
                "cannot reach a relay at {address}: {reason}; start one with `cresset up`, or say where it is with \
                 --relay HOST:PORT or $CRESSET_RELAY"
            ),
            Trouble::Silent { address } => write!(
                f,
                "at {address} a connection is taken and nothing answered for {GREETING:?}; is it a relay, and is that \
                 stopped, or does its disk hang?"
            ),
            Trouble::Sensor { socket, reason } => write!(
                f,
                "cannot reach a sensor at {socket}: {reason}; does it run, is this its `sensor.control`, and may this \
                 user open it?"
            ),
            Trouble::Destination { sink, reason } => {
                write!(f, "cannot reach the destination of sink {sink}: {reason}")
            }
            Trouble::Gone { address, reason } => {
                write!(f, "the relay at {address} went away: {reason}")
            }
            Trouble::Unable { address, reason } => {
                write!(f, "the relay at {address} cannot do that now: {reason}")
            }
            Trouble::Refused { address, reason } => {
                write!(f, "the relay at {address} refused: {reason}")
            }
        }
    }
}

impl Error for Trouble {}

/// Writes to standard output. A reader that has had enough is no error.
pub(crate) fn say(text: &str) -> Result<(), Trouble> {
    let mut stdout = std::io::stdout();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Trouble::Local(format!("cannot write stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// A status in words.
fn reason(status: &Status) -> String {
    match status.source() {
        Some(source) => deepest(source),
        None if status.message().is_empty() => status.code().description().to_string(),
        None => status.message().to_string(),
    }
}

/// The innermost cause: the outer ones say "transport error".
fn deepest(error: &(dyn Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_what_people_write() {
        let uri = |address| uri(address, false).ok();
        assert_eq!(uri("127.0.0.1:1").as_deref(), Some("http://127.0.0.1:1"));
        assert_eq!(
            uri("localhost:32767").as_deref(),
            Some("http://localhost:32767")
        );
        assert_eq!(uri("[::1]:9").as_deref(), Some("http://[::1]:9"));
        assert_eq!(uri(":32767").as_deref(), Some("http://127.0.0.1:32767"));
        assert_eq!(uri("http://relay:1").as_deref(), Some("http://relay:1"));
        assert_eq!(uri("unix:/run/a.sock").as_deref(), Some("unix:/run/a.sock"));
        for bad in [
            "relay",
            "relay:port",
            "ftp://relay:1",
            "/run/a.sock",
            "https://relay:1",
            "a:99999",
        ] {
            assert_eq!(uri(bad), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn an_address_where_nobody_listens_is_exit_3_with_the_address_and_what_to_do() {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let trouble = Relay::connect(&format!("127.0.0.1:{port}"))
            .await
            .unwrap_err();
        assert_eq!(trouble.exit_code(), ExitCode::from(3));
        let text = trouble.to_string();
        assert!(
            text.contains(&format!("127.0.0.1:{port}: Connection refused")),
            "{text}"
        );
        assert!(text.contains("cresset up"), "{text}");
    }
}
