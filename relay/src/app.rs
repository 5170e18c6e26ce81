//! All parts, wired: the only file that knows them all.
//!
//! ```text
//! build   data folder ─▶ journal ─▶ policies, ingest, tail, sinks ─▶ listeners bound
//! run     serve until told to stop
//! drain   no new connections ─▶ what sensors sent is written and answered ─▶ sinks flushed, cursors kept
//!         ─▶ readers let go ─▶ journal closed
//! ```

mod doors;
mod trust;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use journal::{AppendError, Opened};
use prometheus::Registry;
use proto::query::{CertificateStatus, LossStatus, RelayStatus, StatusReply};
use proto::{Kind, rules};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tonic::Status;
use tonic::service::Routes;

use crate::access::AccessError;
use crate::audit::Audit;
use crate::conditions::Conditions;
use crate::config::{self, Address, Config};
use crate::distribute::Distributor;
use crate::fanout::{self, Fanout};
use crate::feed::{self, LogService, Nonces, Tail};
use crate::http::{self, Readiness};
use crate::ingest::{self, Accounts, Budget, Door, Importer, Ingest};
use crate::listen::{self, Connections, Grpc};
use crate::log::{Log, OpenError, unix_nanoseconds};
use crate::losses::Origin;
use crate::policies::{self, KubeArmor, Policies, PoliciesService};
use crate::query::{self, Import, QueryService};
use crate::sources::{self, Sources};
use crate::standing::Standing;
use crate::status::Parts;
use crate::{losses, metrics, steering};

use self::doors::{Bindings, Services};
use self::trust::Trust;

pub use self::doors::Addresses;

/// How long the drain may take: sinks that are away keep their events in the journal.
const DRAIN: Duration = Duration::from_secs(10);

/// How hard closed segments are compressed: Zstandard's own default.
const ZSTD_LEVEL: i32 = 3;

/// How long a listener's last calls may take.
const LAST_CALLS: Duration = Duration::from_secs(3);

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
    /// A file with tokens.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// A sink.
    #[error(transparent)]
    Sinks(#[from] fanout::BuildError),
    /// A source.
    #[error(transparent)]
    Sources(#[from] sources::BuildError),
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

/// A relay that has everything it needs to run.
pub struct App {
    addresses: Addresses,
    origin: Origin,
    registry: Registry,
    readiness: Readiness,
    serving: Arc<AtomicBool>,
    conditions: Conditions,
    log: Log,
    ingest: Ingest,
    sources: Sources,
    fanout: Fanout,
    tail: Tail,
    policies: Policies,
    listeners: [Grpc; 3],
    http: TcpListener,
    trust: Trust,
}

// === impl App ===

impl App {
    /// Opens the data folder, takes the addresses and puts all parts in place.
    ///
    /// # Errors
    /// What is missing or taken, by name. Nothing is overwritten and nothing stays bound.
    pub async fn build(config: Config) -> Result<Self, StartError> {
        // First what can be wrong without a trace, then what has to be let go of again.
        let trust = Trust::build(&config)?;
        let log = open_log(&config).await?;
        Self::wire(config, trust, log).await
    }

    /// The same over a log that is open already, whatever disk it lies on.
    ///
    /// # Errors
    /// As [`App::build`].
    pub async fn build_over(config: Config, log: Log) -> Result<Self, StartError> {
        let trust = Trust::build(&config)?;
        Self::wire(config, trust, log).await
    }

    async fn wire(config: Config, trust: Trust, log: Log) -> Result<Self, StartError> {
        let registry = metrics::registry()?;
        let bound = Bindings::take(&config.relay.listen).await?;
        let policies = build_policies(&config, &registry)?;
        let fanout = build_sinks(&config, &log, &registry)?;
        let tail = Tail::start(log.journal.clone(), feed_config(&config), &registry)?;
        let distributor = Distributor::new(policies.current());
        let accounts = Accounts::new(&registry)?;
        let ingest = Ingest::new(
            ingest_config(&config),
            log.clone(),
            distributor,
            accounts.clone(),
        );
        ingest.budget().register(&registry)?;

        let addresses = bound.addresses.clone();
        let origin = Origin {
            cluster: config.cluster,
            host: host_name(),
        };
        let nonces = Nonces::default();
        let sources = Sources::build(&config.sources, &ingest, &nonces, origin.clone(), &registry)?;
        let (serving, conditions) = (Arc::new(AtomicBool::new(false)), Conditions::default());
        let readiness = readiness(log.standing().clone(), serving.clone(), conditions.clone());
        let about = About {
            id: log.relay_id().to_owned(),
            cluster: origin.cluster.clone(),
            started: Instant::now(),
            addresses: addresses.clone(),
            readiness: readiness.clone(),
        };
        let parts = Parts::new()
            .with(move |reply| about.fill(reply))
            .with_log(&log)
            .with_policies(policies.current())
            .with_feeds(tail.clone())
            .with(sensors(&ingest))
            .with(sinks(&fanout))
            .with(pulled(&sources))
            .with(certificates(&trust))
            .with(move |reply| reply.losses.extend(losses::of_doors(&accounts)));
        let shown = parts.clone();
        metrics::register(&registry, Arc::new(move || shown.read()), log.clone())?;
        let log_service = LogService::new(tail.clone()).with_nonces(nonces);
        let audit = Audit::new(ingest.importer(Door::Relay), origin.clone());
        let sinks = steering::Sinks::new(fanout.clone(), audit, origin.clone());
        let serving_policies = ServingPolicies {
            handle: policies.handle(),
            kubearmor: config.policies.policy_service,
        };
        let services = services(
            &log,
            &tail,
            log_service,
            &ingest,
            &parts,
            sinks,
            serving_policies,
        )
        .await?;
        let (listeners, http) = bound.serve(
            services,
            &trust,
            &config.relay.limits,
            Connections::new(&registry)?,
            ingest.budget(),
        );
        Ok(Self {
            addresses,
            origin,
            registry,
            readiness,
            serving,
            conditions,
            log,
            ingest,
            sources,
            fanout,
            tail,
            policies,
            listeners,
            http,
            trust,
        })
    }

    /// Where it listens. Connections are taken from here on and served by [`App::run`].
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Where the program around the relay says what else is wanting.
    #[must_use]
    pub fn conditions(&self) -> Conditions {
        self.conditions.clone()
    }

    /// Serves until `shutdown` ends, then drains: what is on its way is written, answered and handed on.
    ///
    /// # Errors
    /// A part ended by itself. The others were drained all the same.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
        let reopening = signal(SignalKind::user_defined1())?;
        let telling = self.teller();
        let Self {
            addresses,
            origin,
            registry,
            readiness,
            serving,
            log,
            ingest,
            sources,
            fanout,
            tail,
            policies,
            listeners,
            http,
            trust,
            ..
        } = self;
        let mut background = JoinSet::new();
        background.spawn(policies.run(notices(ingest.importer(Door::Relay), origin.clone())));
        background.spawn(trust.watch());
        background.spawn(telling.run());
        let own = ingest.importer(Door::Relay);
        background.spawn(log.standing().clone().watch(own, origin));
        background.spawn(reopen(reopening, fanout.clone()));
        let (stop_sources, sources_stopped) = watch::channel(false);
        let pulling = tokio::spawn(sources.run(sources_stopped));
        let (stop, stopped) = watch::channel(false);
        let (stop_http, http_stopped) = watch::channel(false);
        let mut calls = JoinSet::new();
        for listener in listeners {
            let (name, stopped) = (listener.name, stopped.clone());
            calls.spawn(async move {
                listener.serve(stopped).await;
                (name, None)
            });
        }
        calls.spawn(async move {
            let ended = http::serve(http, registry, readiness, http_stopped).await;
            ("http", ended.err().map(|error| error.to_string()))
        });
        serving.store(true, Ordering::Relaxed);
        tracing::info!(feed = %addresses.feed, link = %addresses.link, http = %addresses.http, "relay is up");

        let ended = tokio::select! {
            () = shutdown => Ok(()),
            Some(ended) = calls.join_next() => Err(match ended {
                Ok((name, why)) => RunError::Listener(name, why.unwrap_or_else(|| "nobody stopped it".to_owned())),
                Err(why) => RunError::Listener("a", why.to_string()),
            }),
        };
        tracing::info!("draining");
        serving.store(false, Ordering::Relaxed);
        background.shutdown().await;
        let drain = Drain {
            stop_sources,
            pulling,
            stop,
            stop_http,
            calls,
            ingest,
            fanout,
            tail,
            log,
        };
        drain.run().await;
        tracing::info!("stopped");
        ended
    }

    fn teller(&self) -> losses::Teller<impl Fn() -> Vec<LossStatus> + use<>> {
        let fanout = self.fanout.clone();
        losses::Teller {
            losses: move || sink_losses(&fanout),
            importer: self.ingest.importer(Door::Relay),
            origin: self.origin.clone(),
        }
    }
}

/// What has to end, in order.
struct Drain {
    stop_sources: watch::Sender<bool>,
    pulling: JoinHandle<()>,
    stop: watch::Sender<bool>,
    stop_http: watch::Sender<bool>,
    calls: JoinSet<(&'static str, Option<String>)>,
    ingest: Ingest,
    fanout: Fanout,
    tail: Tail,
    log: Log,
}

impl Drain {
    async fn run(mut self) {
        self.stop.send_replace(true);
        self.stop_sources.send_replace(true);
        if timeout(LAST_CALLS, self.pulling).await.is_err() {
            tracing::warn!("sources did not end in time");
        }
        self.ingest.drain();
        // Readers are served while sensors' last events and the sinks are finished, so they see those events too.
        self.ingest.finished(LAST_CALLS).await;
        self.fanout.drain(DRAIN).await;
        self.tail.stop();
        self.stop_http.send_replace(true);
        let ended = timeout(LAST_CALLS, async {
            while self.calls.join_next().await.is_some() {}
        })
        .await;
        if ended.is_err() {
            tracing::warn!("cut off calls that did not end");
        }
        self.calls.shutdown().await;
        // Joins the journal's thread, which finishes the write it is in.
        let log = self.log;
        if let Err(error) = tokio::task::spawn_blocking(move || log.close()).await {
            tracing::error!(%error, "the journal was not closed");
        }
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
        compression: match retention.compression {
            config::Compression::None => journal::Compression::None,
            config::Compression::Zstd => journal::Compression::Zstd { level: ZSTD_LEVEL },
        },
        // All that may come in at one time: a batch waits at the door or not at all, so a stream keeps its order.
        queue_bytes: Budget::events(ingest_config(config).budget) as u64,
        ..journal::Config::default()
    };
    // Recovery reads the disk.
    let (log, opened) =
        tokio::task::spawn_blocking(move || Log::open(&data_dir, settings)).await??;
    tell_opened(&opened);
    Ok(log)
}

fn tell_opened(opened: &Opened) {
    let Opened {
        created,
        committed,
        segments,
        cut_bytes,
        corrupt,
        cursors,
        ..
    } = opened;
    tracing::info!(created, %committed, segments, cut_bytes, cursors, "journal open");
    if *corrupt > 0 {
        tracing::error!(
            corrupt,
            "records of the journal are damaged; sinks that had not passed them count them as lost"
        );
    }
    for name in &opened.cursors_lost {
        tracing::error!(sink = %name, "the position of a sink could not be read; it goes on from the oldest event, so events come twice");
    }
}

fn build_policies(config: &Config, registry: &Registry) -> Result<Policies, policies::BuildError> {
    let sources = config.policies.sources.iter().map(policy_source);
    let posture = &config.policies.default_posture;
    let postures = rules::Postures {
        file: wire_posture(posture.file).into(),
        network: wire_posture(posture.network).into(),
        capabilities: wire_posture(posture.capabilities).into(),
        ..rules::Postures::default()
    };
    policies::build(
        policies::Config {
            sources: sources.collect(),
            postures,
            data_dir: Some(config.relay.data_dir.clone()),
        },
        registry,
    )
}

fn policy_source(source: &config::PolicySource) -> policies::SourceConfig {
    let config::PolicySource { kind, path, branch } = source;
    match kind {
        config::PolicySourceKind::Git => policies::SourceConfig::Git {
            path: path.clone(),
            branch: branch.clone(),
        },
        // Custom resources are refused when the configuration is checked.
        config::PolicySourceKind::Folder | config::PolicySourceKind::Crd => {
            policies::SourceConfig::Folder(path.clone())
        }
    }
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
        pages: Some(Arc::new(http::OwnPorts)),
    };
    Fanout::build(log.journal.clone(), sinks, context)
}

fn ingest_config(config: &Config) -> ingest::Config {
    ingest::Config {
        // A machine that could not count so far could not hold it either.
        budget: usize::try_from(config.relay.ingest.budget.0).unwrap_or(usize::MAX),
        ..ingest::Config::default()
    }
}

fn feed_config(config: &Config) -> feed::Config {
    feed::Config {
        max_lag: config.relay.feeds.max_lag.0,
        cluster: config.cluster.clone(),
        host: host_name(),
        ..feed::Config::default()
    }
}

fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
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
fn readiness(standing: Standing, serving: Arc<AtomicBool>, conditions: Conditions) -> Readiness {
    Arc::new(move || {
        let mut not_ready = Vec::new();
        if let Some(why) = standing.refusing() {
            not_ready.push(format!("journal: {why}"));
        }
        if !serving.load(Ordering::Relaxed) {
            not_ready.push("feed: not serving".to_owned());
        }
        not_ready.extend(conditions.list());
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
        reply.losses.extend(sink_losses(&fanout));
    }
}

fn sink_losses(fanout: &Fanout) -> Vec<LossStatus> {
    losses::of_sinks(&fanout.status(), &fanout.dead_letters_dropped())
}

fn pulled(sources: &Sources) -> impl Fn(&mut StatusReply) + Send + Sync + 'static {
    let status = sources.status();
    move |reply| {
        reply.sources = status();
        reply.losses.extend(sources::losses(&reply.sources));
    }
}

/// What everybody who watches should know of the policies, as events. Told beside everything else: a journal that refuses
/// events must not keep policies from changing.
fn notices(importer: Importer, origin: Origin) -> impl FnMut(String) + Send + 'static {
    move |text| {
        let (importer, origin) = (importer.clone(), origin.clone());
        tokio::spawn(async move {
            let message = origin.message(unix_nanoseconds(), "WARN", text);
            let payload = Bytes::from(prost::Message::encode_to_vec(&message));
            if let Err(error) = importer.import(vec![(Kind::Message, payload)]).await {
                tracing::warn!(%error, "a notice of the policies is in the log only");
            }
        });
    }
}

/// Who is in which containers, for `karmor probe`.
fn container_policies(ingest: &Ingest) -> policies::Workloads {
    let sensors = ingest.sensors();
    Arc::new(move || {
        let workloads = sensors
            .list()
            .into_iter()
            .flat_map(|sensor| sensor.workloads);
        let one = |workload: proto::link::Workload| policies::ContainerPolicies {
            container: workload.container,
            policies: workload.policies,
        };
        workloads.map(one).collect()
    })
}

fn certificates(trust: &Trust) -> impl Fn(&mut StatusReply) + Send + Sync + 'static {
    let trust = trust.clone();
    move |reply| {
        reply.certificates = trust
            .expiries()
            .into_iter()
            .map(|(file, expires_unix)| CertificateStatus {
                file: file.display().to_string(),
                expires_unix,
            })
            .collect();
    }
}

/// Events from the admin socket.
#[async_trait]
impl Import for Importer {
    async fn import(&self, events: Vec<(Kind, Bytes)>) -> Result<query::Imported, Status> {
        let imported = Importer::import(self, events)
            .await
            .map_err(|error| match error {
                AppendError::Full { .. } | AppendError::Failed { .. } => {
                    Status::resource_exhausted(error.to_string())
                }
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

// === Services ===

async fn services(
    log: &Log,
    tail: &Tail,
    log_service: LogService,
    ingest: &Ingest,
    parts: &Parts,
    sinks: steering::Sinks,
    serving: ServingPolicies,
) -> Result<Services, StartError> {
    let query = || QueryService::new(tail.clone(), log.relay_id(), log.secret(), parts.clone());
    let admin = query().with_import(Arc::new(ingest.importer(Door::Import)));
    let reading = PoliciesService::new(serving.handle.clone());
    let changing = reading.clone().with_changes();
    let mut feed = feed::services(log_service, query())
        .await?
        .add_service(reading.into_server());
    if serving.kubearmor {
        let (policies, probe) =
            KubeArmor::new(serving.handle, container_policies(ingest)).into_servers();
        feed = feed.add_service(policies).add_service(probe);
    }
    Ok(Services {
        feed,
        link: Routes::new(ingest.service()),
        admin: Routes::new(admin.into_server())
            .add_service(sinks.into_server())
            .add_service(changing.into_server()),
    })
}

/// What of the policies is served.
struct ServingPolicies {
    handle: policies::Handle,
    /// KubeArmor's services, too.
    kubearmor: bool,
}
