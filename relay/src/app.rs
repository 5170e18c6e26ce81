//! All parts, wired: the only file that knows them all.
//!
//! ```text
//! build   data folder ─▶ journal ─▶ policies, ingest, tail, sinks ─▶ listeners bound
//! run     serve until told to stop
//! drain   no new connections ─▶ what sensors sent is written and answered ─▶ sinks flushed, cursors kept
//!         ─▶ readers let go ─▶ journal closed
//! ```

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use journal::{AppendError, Journal};
use prometheus::Registry;
use proto::query::{RelayStatus, StatusReply};
use proto::{Kind, rules};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tonic::Status;
use tonic::service::Routes;

use crate::config::{self, Address, Config};
use crate::distribute::Distributor;
use crate::fanout::{self, Fanout};
use crate::feed::{self, LogService, Tail};
use crate::http::{self, Readiness};
use crate::ingest::{self, Accounts, Importer, Ingest};
use crate::listen::{self, BindError, Bound, Connections, Grpc, Limits};
use crate::log::{Log, OpenError};
use crate::policies::{self, Policies};
use crate::query::{self, Import, QueryService};
use crate::status::Parts;
use crate::{losses, metrics};

/// How long the drain may take: sinks that are away keep their events in the journal.
const DRAIN: Duration = Duration::from_secs(10);

/// How long a listener's last calls may take.
const LAST_CALLS: Duration = Duration::from_secs(3);

/// Readers: many, each with a few calls; they send next to nothing.
const FEED: Limits = Limits {
    connections: 4096,
    streams: 128,
    window: 256 << 10,
    ping: Duration::from_secs(30),
    pong: Duration::from_secs(20),
};

/// Sensors: one call each, and batches in it. A dead one is noticed before it tries to come back for long.
const LINK: Limits = Limits {
    connections: 4096,
    streams: 4,
    window: 1 << 20,
    ping: Duration::from_secs(10),
    pong: Duration::from_secs(10),
};

/// The administrator, and what is imported.
const ADMIN: Limits = Limits {
    connections: 64,
    window: 1 << 20,
    ..FEED
};

/// Why the relay does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder or the journal in it.
    #[error(transparent)]
    Data(#[from] OpenError),
    /// An address.
    #[error(transparent)]
    Listen(#[from] listen::BindError),
    /// A certificate.
    #[error(transparent)]
    Tls(#[from] listen::TlsError),
    /// A sink.
    #[error(transparent)]
    Sinks(#[from] fanout::BuildError),
    /// The policies.
    #[error(transparent)]
    Policies(#[from] policies::BuildError),
    /// Two parts claim one metric.
    #[error("cannot set up the metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// A port where a socket file has to be.
    #[error("the admin listener cannot be at {0}; write unix:/PATH")]
    NotUnix(Address),
    /// A socket file where a port has to be.
    #[error("the {0} listener cannot be at {1}; write IP:PORT")]
    NotPort(&'static str, Address),
    /// gRPC reflection.
    #[error("cannot describe the gRPC services: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The process is being torn down.
    #[error("opening the journal was cut off: {0}")]
    CutOff(#[from] tokio::task::JoinError),
}

/// Why the relay ended without being told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A listener's task ended.
    #[error("the {0} listener ended: {1}")]
    Listener(&'static str, String),
    /// The operating system takes no signal handlers.
    #[error("cannot wait for signals: {0}")]
    Signals(#[from] std::io::Error),
}

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

/// A relay that has everything it needs to run.
pub struct App {
    addresses: Addresses,
    registry: Registry,
    readiness: Readiness,
    serving: Arc<AtomicBool>,
    log: Log,
    ingest: Ingest,
    fanout: Fanout,
    tail: Tail,
    policies: Policies,
    listeners: [Grpc; 3],
    http: TcpListener,
}

// === impl App ===

impl App {
    /// Opens the data folder, takes the addresses and puts all parts in place.
    ///
    /// # Errors
    /// What is missing or taken, by name. Nothing is overwritten and nothing stays bound.
    pub async fn build(config: Config) -> Result<Self, StartError> {
        // First what can be wrong without a trace, then what has to be let go of again.
        let certificates = Certificates::load(&config)?;
        let registry = metrics::registry()?;
        let log = open_log(&config).await?;
        let bound = Bindings::take(&config.relay.listen).await?;
        let policies = build_policies(&config, &registry)?;
        let fanout = build_sinks(&config, &log, &registry)?;
        let tail = Tail::start(log.journal.clone(), feed_config(&config), &registry)?;
        let distributor = Distributor::new(policies.current());
        let accounts = Accounts::new(&registry)?;
        let ingest = Ingest::new(
            ingest::Config::default(),
            log.clone(),
            distributor,
            accounts.clone(),
        );

        let addresses = bound.addresses.clone();
        let serving = Arc::new(AtomicBool::new(false));
        let readiness = readiness(log.journal.clone(), serving.clone());
        let about = About {
            id: log.relay_id().to_owned(),
            cluster: config.cluster,
            started: Instant::now(),
            addresses: addresses.clone(),
            readiness: readiness.clone(),
        };
        let parts = Parts::new()
            .with(move |reply| about.fill(reply))
            .with_journal(log.journal.clone())
            .with_policies(policies.current())
            .with_feeds(tail.clone())
            .with(sensors(&ingest))
            .with(sinks(&fanout))
            .with(move |reply| reply.losses.extend(losses::of_doors(&accounts)));
        let shown = parts.clone();
        metrics::register(
            &registry,
            Arc::new(move || shown.read()),
            log.journal.clone(),
        )?;
        let services = Services {
            log: &log,
            tail: &tail,
            ingest: &ingest,
            parts: &parts,
        };
        let (listeners, http) = bound
            .serve(&services, certificates, Connections::new(&registry)?)
            .await?;
        Ok(Self {
            addresses,
            registry,
            readiness,
            serving,
            log,
            ingest,
            fanout,
            tail,
            policies,
            listeners,
            http,
        })
    }

    /// Where it listens. Connections are taken from here on and served by [`App::run`].
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Serves until `shutdown` ends, then drains: what is on its way is written, answered and handed on.
    ///
    /// # Errors
    /// A part ended by itself. The others were drained all the same.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
        let Self {
            addresses,
            registry,
            readiness,
            serving,
            log,
            ingest,
            fanout,
            tail,
            policies,
            listeners,
            http,
        } = self;
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for listener in listeners {
            let (name, stopped) = (listener.name, stopped.clone());
            tasks.spawn(async move {
                listener.serve(stopped).await;
                (name, None)
            });
        }
        let (stop_http, http_stopped) = watch::channel(false);
        tasks.spawn(async move {
            let ended = http::serve(http, registry, readiness, http_stopped).await;
            ("http", ended.err().map(|error| error.to_string()))
        });
        let policies = tokio::spawn(policies.run());
        let reopening = tokio::spawn(reopen(signal(SignalKind::user_defined1())?, fanout.clone()));
        serving.store(true, Ordering::Relaxed);
        tracing::info!(feed = %addresses.feed, link = %addresses.link, http = %addresses.http, "relay is up");

        let ended = tokio::select! {
            () = shutdown => Ok(()),
            Some(ended) = tasks.join_next() => Err(match ended {
                Ok((name, why)) => RunError::Listener(name, why.unwrap_or_else(|| "nobody stopped it".to_owned())),
                Err(why) => RunError::Listener("a", why.to_string()),
            }),
        };
        tracing::info!("draining");
        serving.store(false, Ordering::Relaxed);
        policies.abort();
        reopening.abort();
        stop.send_replace(true);
        ingest.drain();
        // Readers are served while sensors' last events and the sinks are finished, so they see those events too.
        ingest.finished(LAST_CALLS).await;
        fanout.drain(DRAIN).await;
        tail.stop();
        stop_http.send_replace(true);
        let all_ended = timeout(LAST_CALLS, async {
            while tasks.join_next().await.is_some() {}
        })
        .await;
        if all_ended.is_err() {
            tracing::warn!("cut off calls that did not end");
        }
        tasks.shutdown().await;
        // Joins the journal's thread, which finishes the write it is in.
        let closed = tokio::task::spawn_blocking(move || log.journal.close()).await;
        if let Err(error) = closed {
            tracing::error!(%error, "the journal was not closed");
        }
        tracing::info!("stopped");
        ended
    }
}

/// SIGUSR1: files that sinks write were moved away.
async fn reopen(mut signals: tokio::signal::unix::Signal, fanout: Fanout) {
    while signals.recv().await.is_some() {
        tracing::info!("reopening the files of sinks");
        fanout.reopen();
    }
}

// === Parts ===

async fn open_log(config: &Config) -> Result<Log, StartError> {
    let data_dir = config.relay.data_dir.clone();
    let retention = &config.relay.retention;
    let settings = journal::Config {
        max_size: retention.max_size.0,
        max_age: retention.max_age.0,
        ..journal::Config::default()
    };
    // Recovery reads the disk.
    let (log, opened) =
        tokio::task::spawn_blocking(move || Log::open(&data_dir, settings)).await??;
    tracing::info!(?opened, "journal open");
    Ok(log)
}

fn build_policies(config: &Config, registry: &Registry) -> Result<Policies, policies::BuildError> {
    let folders: Vec<PathBuf> = config
        .policies
        .sources
        .iter()
        .map(|source| source.path.clone())
        .collect();
    let posture = &config.policies.default_posture;
    let postures = rules::Postures {
        file: wire_posture(posture.file).into(),
        network: wire_posture(posture.network).into(),
        capabilities: wire_posture(posture.capabilities).into(),
    };
    let saved = Some(config.relay.data_dir.join("policies.last"));
    policies::build(
        policies::Config {
            folders,
            postures,
            saved,
        },
        registry,
    )
}

fn wire_posture(posture: config::Posture) -> rules::Posture {
    match posture {
        config::Posture::Allow => rules::Posture::Allow,
        config::Posture::Audit => rules::Posture::Audit,
        config::Posture::Block => rules::Posture::Block,
    }
}

fn build_sinks(
    config: &Config,
    log: &Log,
    registry: &Registry,
) -> Result<Fanout, fanout::BuildError> {
    let sinks = config
        .sinks
        .iter()
        .map(|(name, sink)| (name.clone(), sink.clone()))
        .collect();
    let context = fanout::Context {
        registry: registry.clone(),
        data_dir: config.relay.data_dir.clone(),
    };
    Fanout::build(log.journal.clone(), sinks, context)
}

fn feed_config(config: &Config) -> feed::Config {
    feed::Config {
        max_lag: config.relay.feeds.max_lag.0,
        cluster: config.cluster.clone(),
        host: rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned(),
        ..feed::Config::default()
    }
}

// === Status ===

/// What the relay says of itself.
struct About {
    id: String,
    cluster: String,
    started: Instant,
    addresses: Addresses,
    readiness: Readiness,
}

impl About {
    fn fill(&self, reply: &mut StatusReply) {
        let Addresses {
            feed,
            link,
            http,
            admin,
        } = &self.addresses;
        let listeners = [
            ("feed", feed.to_string()),
            ("link", link.to_string()),
            ("http", http.to_string()),
            ("admin", format!("unix:{}", admin.display())),
        ];
        let not_ready = (self.readiness)();
        let relay: &mut RelayStatus = reply.relay.get_or_insert_default();
        relay.version = env!("CARGO_PKG_VERSION").to_owned();
        relay.id = self.id.clone();
        relay.cluster = self.cluster.clone();
        relay.uptime_seconds = self.started.elapsed().as_secs();
        relay.listeners = listeners
            .map(|(name, address)| (name.to_owned(), address))
            .into();
        relay.ready = not_ready.is_empty();
        relay.not_ready = not_ready;
    }
}

/// Events get through when the journal takes them and readers are served.
fn readiness(journal: Journal, serving: Arc<AtomicBool>) -> Readiness {
    Arc::new(move || {
        let mut not_ready = Vec::new();
        if let Some(why) = journal.stats().refusing {
            not_ready.push(format!("journal: {why}"));
        }
        if !serving.load(Ordering::Relaxed) {
            not_ready.push("feed: not serving".to_owned());
        }
        not_ready
    })
}

fn sensors(ingest: &Ingest) -> impl Fn(&mut StatusReply) + Send + Sync + 'static {
    let sensors = ingest.sensors();
    move |reply| {
        reply.sensors = sensors.list();
        reply.losses.extend(losses::of_sensors(&reply.sensors));
    }
}

fn sinks(fanout: &Fanout) -> impl Fn(&mut StatusReply) + Send + Sync + 'static {
    let fanout = fanout.clone();
    move |reply| {
        reply.sinks = fanout.status();
        reply.losses.extend(losses::of_sinks(&reply.sinks));
    }
}

/// Events from the admin socket.
#[async_trait]
impl Import for Importer {
    async fn import(&self, events: Vec<(Kind, Bytes)>) -> Result<query::Imported, Status> {
        let imported = Importer::import(self, events)
            .await
            .map_err(|error| match error {
                AppendError::Full { .. } => Status::resource_exhausted(error.to_string()),
                _ => Status::unavailable(error.to_string()),
            })?;
        let refused = imported
            .rejected
            .into_iter()
            .map(|(place, why)| (place, why.to_string()))
            .collect();
        Ok(query::Imported {
            accepted: imported.accepted,
            refused,
        })
    }
}

// === Listeners ===

/// All addresses, taken.
struct Bindings {
    feed: Bound,
    link: Bound,
    admin: Bound,
    http: TcpListener,
    addresses: Addresses,
}

impl Bindings {
    async fn take(listen: &config::Listeners) -> Result<Self, StartError> {
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
    async fn serve(
        self,
        services: &Services<'_>,
        certificates: Certificates,
        connections: Connections,
    ) -> Result<([Grpc; 3], TcpListener), StartError> {
        let grpc = |name, bound, tls, limits, routes| Grpc {
            name,
            bound,
            tls,
            limits,
            routes,
            connections: connections.clone(),
        };
        let listeners = [
            grpc(
                "feed",
                self.feed,
                certificates.feed,
                FEED,
                services.feed().await?,
            ),
            grpc("link", self.link, certificates.link, LINK, services.link()),
            grpc("admin", self.admin, None, ADMIN, services.admin()),
        ];
        Ok((listeners, self.http))
    }
}

/// What the listeners encrypt with; none: plaintext.
struct Certificates {
    feed: Option<TlsAcceptor>,
    link: Option<TlsAcceptor>,
}

impl Certificates {
    fn load(config: &Config) -> Result<Self, listen::TlsError> {
        let listen = &config.relay.listen;
        let load = |listener: &config::Listen| {
            config
                .relay
                .tls
                .as_ref()
                .filter(|_| !listener.insecure)
                .map(crate::listen::load)
                .transpose()
        };
        Ok(Self {
            feed: load(&listen.feed)?,
            link: load(&listen.link)?,
        })
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

/// What is said behind the gRPC listeners.
struct Services<'a> {
    log: &'a Log,
    tail: &'a Tail,
    ingest: &'a Ingest,
    parts: &'a Parts,
}

impl Services<'_> {
    async fn feed(&self) -> Result<Routes, StartError> {
        Ok(feed::services(LogService::new(self.tail.clone()), self.query()).await?)
    }

    fn link(&self) -> Routes {
        Routes::new(self.ingest.service())
    }

    fn admin(&self) -> Routes {
        Routes::new(
            self.query()
                .with_import(Arc::new(self.ingest.importer()))
                .into_server(),
        )
    }

    fn query(&self) -> QueryService {
        QueryService::new(self.tail.clone(), self.log.relay_id(), self.parts.clone())
    }
}
