//! The listeners' addresses, limits and certificates.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::net::TcpListener;
use tonic::service::Routes;

use super::StartError;
use super::trust::Trust;
use crate::access::Door;
use crate::audit::Audit;
use crate::config::{self, Address};
use crate::enrolment;
use crate::ingest::Budget;
use crate::listen::{self, BindError, Bound, Connections, Grpc, Limits};

/// Readers: many, each with a few calls; they send next to nothing.
const FEED: Limits = Limits {
    connections: 4096,
    streams: 128,
    window: 256 << 10,
    ping: Duration::from_secs(30),
    pong: Duration::from_secs(20),
    per_peer: 1024,
    handshakes: 1024,
    idle: Duration::from_secs(300),
};

/// Sensors: one call each, and batches in it. A dead one is noticed before it tries to come back for long. How many there
/// may be and what they may send ahead is up to the budget of what comes in.
const LINK: Limits = Limits {
    connections: 1 << 20,
    streams: 4,
    window: 65_535,
    ping: Duration::from_secs(10),
    pong: Duration::from_secs(10),
    ..FEED
};

/// The administrator, and what is imported.
const ADMIN: Limits = Limits {
    connections: 16,
    streams: 8,
    window: 256 << 10,
    ..FEED
};

/// Where the relay listens, with the ports that the kernel chose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// Readers.
    pub feed: SocketAddr,
    /// Sensors.
    pub link: SocketAddr,
    /// Metrics and health.
    pub http: SocketAddr,
    /// The administrator's socket.
    pub admin: PathBuf,
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            feed,
            link,
            http,
            admin,
        } = self;
        write!(
            f,
            "feed={feed} link={link} http={http} admin={}",
            admin.display()
        )
    }
}

/// What is said behind the gRPC listeners.
pub(super) struct Services {
    pub(super) feed: Routes,
    pub(super) link: Routes,
    pub(super) admin: Routes,
}

impl Services {
    /// Adds what gives certificates, and who may have them.
    pub(super) fn enrol(&mut self, trust: &Trust, counters: enrolment::Counters, audit: Audit) {
        let tokens = enrolment::tokens_server(trust.enrolment.clone(), audit.clone());
        self.admin = std::mem::take(&mut self.admin).add_service(tokens);
        if let Some(enrolment) = trust.enrolment.clone() {
            let server = enrolment.into_server(counters, audit);
            self.link = std::mem::take(&mut self.link).add_service(server);
        }
    }
}

/// All addresses, taken.
pub(super) struct Bindings {
    feed: Bound,
    link: Bound,
    admin: Bound,
    http: TcpListener,
    pub(super) addresses: Addresses,
}

impl Bindings {
    pub(super) async fn take(listen: &config::Listeners) -> Result<Self, StartError> {
        let (feed, feed_at) = tcp("feed", &listen.feed.address).await?;
        let (link, link_at) = tcp("link", &listen.link.address).await?;
        let (http, http_at) = tcp("http", &listen.http.address).await?;
        let admin = listen::bind("admin", &listen.admin.address).await?;
        let Address::Unix(admin_at) = listen.admin.address.clone() else {
            return Err(StartError::NotUnix(listen.admin.address.clone()));
        };
        let addresses = Addresses {
            feed: feed_at,
            link: link_at,
            http: http_at,
            admin: admin_at,
        };
        Ok(Self {
            feed: Bound::Tcp(feed),
            link: Bound::Tcp(link),
            admin,
            http,
            addresses,
        })
    }
}

impl Bindings {
    /// Puts the services behind the addresses.
    pub(super) fn serve(
        self,
        services: Services,
        trust: &Trust,
        limits: &config::PeerLimits,
        connections: Connections,
        budget: &Budget,
    ) -> ([Grpc; 3], TcpListener) {
        // A quarter of all files for each of the two that strangers reach; the rest is the relay's own.
        let most = (listen::raise_limit() / 4).max(1);
        let of = |limits: Limits| Limits {
            connections: limits.connections.min(most),
            ..limits
        };
        let strangers = |own: Limits| Limits {
            per_peer: usize::try_from(limits.connections).unwrap_or(usize::MAX),
            handshakes: usize::try_from(limits.handshakes).unwrap_or(usize::MAX),
            idle: limits.idle.0,
            ..own
        };
        let grpc = |name, door, bound, tls, limits, routes| Grpc {
            name,
            door,
            access: trust.access.clone(),
            bound,
            tls,
            enrolment: trust.enrolment.clone(),
            limits: of(limits),
            budget: None,
            routes,
            connections: connections.clone(),
        };
        let (feed, link) = (trust.feed.clone(), trust.link.clone());
        let link = grpc(
            "link",
            Door::Link,
            self.link,
            link,
            strangers(LINK),
            services.link,
        );
        let listeners = [
            grpc(
                "feed",
                Door::Feed,
                self.feed,
                feed,
                strangers(FEED),
                services.feed,
            ),
            Grpc {
                budget: Some(budget.clone()),
                ..link
            },
            grpc(
                "admin",
                Door::Admin,
                self.admin,
                None,
                ADMIN,
                services.admin,
            ),
        ];
        (listeners, self.http)
    }
}

/// A port for one of the listeners that cannot be Unix sockets.
async fn tcp(
    name: &'static str,
    address: &Address,
) -> Result<(TcpListener, SocketAddr), StartError> {
    match listen::bind(name, address).await? {
        Bound::Tcp(listener) => {
            let address = listener.local_addr().map_err(|source| BindError::Other {
                listener: name,
                address: address.clone(),
                source,
            })?;
            Ok((listener, address))
        }
        Bound::Unix(..) => Err(StartError::NotPort(name, address.clone())),
    }
}
