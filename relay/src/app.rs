//! All parts, wired: the only file that knows them all.
//!
//! ```text
//! build   data folder ─▶ journal ─▶ policies, ingest, tail, sinks ─▶ listeners bound
//! run     serve until told to stop; parts are exchanged meanwhile (reload.rs)
//! drain   no new connections ─▶ what sensors sent is written and answered ─▶ sinks flushed, cursors kept
//!         ─▶ readers let go ─▶ journal closed
//! ```

mod doors;
mod drain;
mod policy;
mod reload;
mod services;
mod settings;
mod shown;
mod trust;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use futures::future::BoxFuture;
use proto::query::LossStatus;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::access::AccessError;
use crate::audit::Audit;
use crate::conditions::Conditions;
use crate::config::{Address, Config};
use crate::distribute::Distributor;
use crate::enrolment;
use crate::fanout::{self, Fanout};
use crate::feed::{LogService, Nonces, Tail};
use crate::http::{self, Readiness};
use crate::ingest::{self, Accounts, Door, Ingest, Silence};
use crate::listen::{self, Connections, Grpc};
use crate::log::{OpenError, Store};
use crate::losses::{AtStart, Origin};
use crate::metrics::Registry;
use crate::operate::{Heads, Operate, Tracer};
use crate::policies::{self, Policies};
use crate::sources::{self, Sources};
use crate::status::Parts;
use crate::telemetry::Logging;
use crate::traces::{Traces, TracesError};
use crate::{losses, metrics, steering, supervisor};

use self::doors::Bindings;
use self::drain::Drain;
use self::policy::Rolling;
use self::reload::Reloader;
use self::services::{Serving, notices, services};
use self::settings::{feed_config, host_name, ingest_config, open_log, policies_config, sinks_of};
use self::shown::About;
use self::trust::Trust;

pub use self::doors::Addresses;
pub use self::reload::Source;

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
    /// The file of streams and their sensors.
    #[error(
        "{}: {source}; it says which sensor's streams are whose: restore it, or remove it, and they belong to who comes first",
        path.display()
    )]
    Owners {
        /// The file.
        path: PathBuf,
        /// Why it cannot be used.
        source: std::io::Error,
    },
    /// A sink.
    #[error(transparent)]
    Sinks(#[from] fanout::BuildError),
    /// A source.
    #[error(transparent)]
    Sources(#[from] sources::BuildError),
    /// The policies.
    #[error(transparent)]
    Policies(#[from] policies::BuildError),
    /// Where traces go.
    #[error(transparent)]
    Traces(#[from] TracesError),
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
    heads: Heads,
    at_start: AtStart,
    lost_before: Vec<LossStatus>,
    log: Store,
    ingest: Ingest,
    sources: Sources,
    fanout: Fanout,
    tail: Tail,
    policies: Policies,
    rolling: Rolling,
    listeners: [Grpc; 3],
    silence: Silence,
    http: TcpListener,
    trust: Trust,
    reloader: Reloader,
    logging: Arc<OnceLock<Logging>>,
    traces: Traces,
}

// === impl App ===

/// A relay is a large machine of futures. They are boxed where they leave this crate, so that they are compiled in it,
/// once, and not in each program and each test that runs a relay.
impl App {
    /// Opens the data folder, takes the addresses and puts all parts in place.
    ///
    /// # Errors
    /// What is missing or taken, by name. Nothing is overwritten and nothing stays bound.
    pub fn build(config: Config) -> BoxFuture<'static, Result<Self, StartError>> {
        Box::pin(async {
            // First what can be wrong without a trace. What the relay keeps itself is opened, or made, once the folder is its own.
            trust::look(&config)?;
            // Before the journal opens its own: a cursor a sink.
            listen::raise_limit();
            let log = open_log(&config).await?;
            Self::build_over(config, log).await
        })
    }

    /// The same over a log that is open already, whatever disk it lies on. The log is closed if this fails.
    ///
    /// # Errors
    /// As [`App::build`].
    pub fn build_over(config: Config, log: Store) -> BoxFuture<'static, Result<Self, StartError>> {
        Box::pin(async {
            let held = log.clone();
            match Self::wire(config, log).await {
                Ok(app) => Ok(app),
                Err(why) => {
                    // Whatever part has a handle by now: the folder is free for the next start.
                    tokio::task::spawn_blocking(move || held.close()).await?;
                    Err(why)
                }
            }
        })
    }

    async fn wire(config: Config, log: Store) -> Result<Self, StartError> {
        let trust = Trust::build(&config)?;
        let owners = trust::owners(&config, &log)?;
        let registry = metrics::registry()?;
        let bound = Bindings::take(&config.relay.listen).await?;
        let upper = policies::Upper::default();
        let policies = policies::build(policies_config(&config, &upper), &registry)?;
        upper
            .follow(&policies.handle())
            .map_err(fanout::BuildError::Sink)?;
        let origin = Origin {
            cluster: config.cluster.clone(),
            host: host_name(),
        };
        let traces = Traces::build(config.relay.telemetry.traces.as_ref(), &origin)?;
        let fanout = build_sinks(&config, &log, &registry, &traces)?;
        let lost_before = shown::sink_losses_before(&fanout);
        let tail = Tail::start(log.view(), feed_config(&config), &registry)?;
        let rollout = policy::rollout(&config, &policies, &log, &registry)?;
        let distributor = Distributor::new(rollout.offered());
        let accounts = Accounts::new(&registry)?;
        let ingest = Ingest::traced(
            ingest::Config {
                owners,
                ..ingest_config(&config)
            },
            log.clone(),
            distributor.clone(),
            accounts.clone(),
            traces.clone(),
        );
        ingest.budget().register(&registry)?;
        let own = ingest.importer(Door::Relay);
        let silence = ingest.watch_silence(settings::silence(&config), own, origin.clone());

        let addresses = bound.addresses.clone();
        let nonces = Nonces::default();
        let sources = Sources::build(&config.sources, &ingest, &nonces, origin.clone(), &registry)?;
        let (serving, conditions) = (Arc::new(AtomicBool::new(false)), Conditions::default());
        let readiness =
            shown::readiness(log.standing().clone(), serving.clone(), conditions.clone());
        let about = About {
            id: log.relay_id().to_owned(),
            cluster: origin.cluster.clone(),
            started: Instant::now(),
            addresses: addresses.clone(),
            readiness: readiness.clone(),
        };
        let at_start = AtStart::of(log.opened(), log.folder().as_deref())
            .with_letters(&fanout.letter_damage());
        at_start.log();
        let parts = Parts::new()
            .with(move |reply| about.fill(reply))
            .with_log(&log)
            .with(at_start.status())
            .with_policies(policies.current())
            .with(policy::trial(&rollout))
            .with_feeds(tail.clone())
            .with(shown::sensors(&ingest, &log))
            .with(shown::sinks(&fanout))
            .with(shown::pulled(&sources))
            .with(shown::certificates(&trust))
            .with(move |reply| reply.losses.extend(losses::of_doors(&accounts)));
        let shown = parts.clone();
        metrics::register(&registry, Arc::new(move || shown.read()), log.clone())?;
        let log_service = LogService::new(tail.clone()).with_nonces(nonces);
        let audit = Audit::new(ingest.importer(Door::Relay), origin.clone());
        let logging = Arc::new(OnceLock::new());
        let (reloader, reloads) = Reloader::new(
            config,
            reload::Parts {
                fanout: fanout.clone(),
                policies: policies.handle(),
                upper,
                sources: sources.handle(),
                trust: trust.clone(),
                log: Arc::clone(log.log()),
                tail: tail.clone(),
                logging: logging.clone(),
                audit: audit.clone(),
            },
        );
        let config = reloader.config().clone();
        let heads = Heads::new(&config.relay.data_dir);
        let operate = Operate::new(
            reloads,
            Tracer::new(log.clone(), fanout.clone(), ingest.sensors(), heads.clone()),
            ingest.sensors(),
            audit.clone(),
            logging.clone(),
        );
        let serving_all = Serving {
            log_service,
            sinks: steering::Sinks::new(fanout.clone(), audit.clone(), origin.clone()),
            audit: audit.clone(),
            operate,
            policies: policies.handle(),
            rollout: rollout.handle(),
            downlink: policies::Downlink::new(
                policies.current(),
                rollout.offered(),
                ingest.draining(),
            ),
            kubearmor: config.policies.policy_service,
        };
        let mut services = services(&log, &tail, &ingest, &parts, serving_all).await?;
        let given = enrolment::Counters::new(&registry)?;
        services.enrol(&trust, given, audit.clone());
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
            heads,
            at_start,
            lost_before,
            log,
            ingest,
            sources,
            fanout,
            tail,
            policies,
            rolling: Rolling {
                rollout,
                distributor,
                audit,
            },
            listeners,
            http,
            silence,
            trust,
            reloader,
            logging,
            traces,
        })
    }

    /// Where it listens. Connections are taken from here on and served by [`App::run`].
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Every metric of the relay, by name.
    #[must_use]
    pub fn metrics(&self) -> Vec<metrics::Described> {
        self.registry.described()
    }

    /// Where the program around the relay says what else is wanting.
    #[must_use]
    pub fn conditions(&self) -> Conditions {
        self.conditions.clone()
    }

    /// What events get through to, for whoever watches over this process.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Where the settings are read again when they are to be taken up anew (SIGHUP, `cresset config reload`).
    #[must_use]
    pub fn reloading_from(mut self, source: Source) -> Self {
        self.reloader.read_from(source);
        self
    }

    /// This process' logging: its level follows the settings, its latest lines are shown to the administrator.
    #[must_use]
    pub fn logging_to(self, logging: Logging) -> Self {
        // Set once: nobody else has this handle yet.
        let _ = self.logging.set(logging);
        self
    }

    /// Serves until `shutdown` ends, then drains: what is on its way is written, answered and handed on.
    ///
    /// # Errors
    /// A part ended by itself. The others were drained all the same.
    pub fn run<'a>(
        self,
        shutdown: impl Future<Output = ()> + Send + 'a,
    ) -> BoxFuture<'a, Result<(), RunError>> {
        self.run_until(Box::pin(shutdown))
    }

    fn run_until(self, shutdown: BoxFuture<'_, ()>) -> BoxFuture<'_, Result<(), RunError>> {
        Box::pin(self.live(shutdown))
    }

    async fn live(self, shutdown: BoxFuture<'_, ()>) -> Result<(), RunError> {
        let reopening = signal(SignalKind::user_defined1())?;
        let hangups = signal(SignalKind::hangup())?;
        let telling = self.teller();
        let Self {
            addresses,
            origin,
            registry,
            readiness,
            serving,
            heads,
            at_start,
            log,
            ingest,
            sources,
            fanout,
            tail,
            policies,
            rolling,
            listeners,
            http,
            silence,
            trust,
            reloader,
            traces,
            ..
        } = self;
        let mut background = JoinSet::new();
        background.spawn(policies.run(notices(ingest.importer(Door::Relay), origin.clone())));
        background.spawn(rolling.run());
        background.spawn(trust.watch());
        background.spawn(silence.run());
        background.spawn(telling.run());
        background.spawn(at_start.tell(ingest.importer(Door::Relay), origin.clone()));
        let own = ingest.importer(Door::Relay);
        background.spawn(log.standing().clone().watch(log.clone(), own, origin));
        background.spawn(log.standing().clone().probe(log.clone()));
        background.spawn(heads.watch(log.journal().cloned()));
        background.spawn(reopen(reopening, fanout.clone()));
        let (stop_reloads, reloads_stopped) = watch::channel(false);
        let reloading = tokio::spawn(reloader.run(hangups, reloads_stopped));
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
        let (sinks, alive) = (fanout.clone(), readiness.clone());
        calls.spawn(async move {
            let sinks = Arc::new(move || sinks.status());
            let ended = http::serve(http, registry.shown(), readiness, sinks, http_stopped).await;
            ("http", ended.err().map(|error| error.to_string()))
        });
        serving.store(true, Ordering::Relaxed);
        supervisor::ready();
        background.spawn(supervisor::watch(alive));
        tracing::info!(feed = %addresses.feed, link = %addresses.link, http = %addresses.http, "relay is up");

        let ended = tokio::select! {
            () = shutdown => Ok(()),
            Some(ended) = calls.join_next() => Err(match ended {
                Ok((name, why)) => RunError::Listener(name, why.unwrap_or_else(|| "nobody stopped it".to_owned())),
                Err(why) => RunError::Listener("a", why.to_string()),
            }),
        };
        tracing::info!("draining");
        supervisor::stopping();
        serving.store(false, Ordering::Relaxed);
        background.shutdown().await;
        let drain = Drain {
            stop_reloads,
            reloading,
            stop_sources,
            pulling,
            stop,
            stop_http,
            calls,
            ingest,
            fanout,
            tail,
            log,
            traces,
        };
        drain.run().await;
        tracing::info!("stopped");
        ended
    }

    fn teller(&self) -> losses::Teller<impl Fn() -> Vec<LossStatus> + use<>> {
        let fanout = self.fanout.clone();
        losses::Teller {
            losses: move || shown::sink_losses(&fanout),
            before: self.lost_before.clone(),
            importer: self.ingest.importer(Door::Relay),
            origin: self.origin.clone(),
        }
    }
}

fn build_sinks(
    config: &Config,
    log: &Store,
    registry: &Registry,
    traces: &Traces,
) -> Result<Fanout, fanout::BuildError> {
    let context = fanout::Context {
        registry: registry.clone(),
        data_dir: config.relay.data_dir.clone(),
        pages: Some(Arc::new(http::OwnPorts::default())),
        traces: traces.clone(),
    };
    Fanout::build(Arc::clone(log.log()), sinks_of(config), context)
}

/// SIGUSR1: files that sinks write were moved away.
async fn reopen(mut signals: tokio::signal::unix::Signal, fanout: Fanout) {
    while signals.recv().await.is_some() {
        tracing::info!("reopening the files of sinks");
        fanout.reopen();
    }
}
