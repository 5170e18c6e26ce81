//! The sensor put together: what [`Sensor::build`] opens, [`Sensor::run`] drives and ends.
//!
//! ```text
//! control ─▶ engine thread ─▶ queues ─▶ spool writers ─▶ spool ─▶ link ─▶ relay
//!               ▲  losses ─▶ messages ────┘                        │
//!               └───────────────────────── rules ──────────────────┘
//! ```
//! **The end.** On shutdown the sensor ends its workloads first, while their rules hold: without it, native rules are gone,
//! and a workload must not run unjudged. Then the last records are read, the spool is flushed, and the relay gets
//! a moment to take what is left; the rest waits on disk for the next start.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future::BoxFuture;
use prost::Message;
use proto::Kind;
use tokio::sync::{mpsc, watch};

use crate::address::{AddressError, Relay};
use crate::cgroup::{self, CgroupError, Nursery};
use crate::config::{Config, ConfigProblem, SensorConfig};
use crate::control::{Control, ControlError};
use crate::enforcer::{Enforcer, Native};
use crate::engine::{self, Handle, Parts, Queues};
use crate::footprint::Footprint;
use crate::link::{Introduction, Link, Stage};
use crate::lost::{self, Class, Losses};
use crate::redact::{Redact, RedactError};
use crate::render::Node;
use crate::rules_file::RulesFile;
use crate::spool::{Outbound, Spool, SpoolError, Writer};
use crate::teller::{Outgoing, Teller};
use crate::throttle::Throttle;
use crate::trust::{Membership, Trust, TrustError};

/// Events between the engine and the spool, for each class.
const QUEUE: usize = 16_384;
/// How long workloads of a sensor that never had rules wait for a relay's first ones.
const FIRST_RULES: Duration = Duration::from_secs(5);
/// How long a relay may take what is left at the end.
const DRAIN: Duration = Duration::from_secs(3);

/// Why a sensor cannot start: what is missing, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Settings.
    #[error(transparent)]
    Config(#[from] ConfigProblem),
    /// A relay's address.
    #[error("sensor.relay: {0}")]
    Relay(#[from] AddressError),
    /// Certificates.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A redaction.
    #[error(transparent)]
    Redact(#[from] RedactError),
    /// The process.
    #[error(
        "the sensor needs root: it loads kernel programs, makes cgroups and ends workloads; run it with sudo"
    )]
    NotRoot,
    /// The kernel half.
    #[error(transparent)]
    Kernel(#[from] crate::kernel::LoadError),
    /// No place for workloads.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// No spool.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// No control socket.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A file or folder.
    #[error("{what} {}: {source}", path.display())]
    File {
        /// What it is for.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another sensor has the data folder.
    #[error("data folder {} is used by another sensor; stop it, or choose another sensor.data_dir", .0.display())]
    Locked(PathBuf),
    /// The engine's thread.
    #[error("engine thread: {0}")]
    Thread(#[from] io::Error),
}

/// A sensor that can run. Nothing is enforced before a workload is registered.
#[derive(Debug)]
pub struct Sensor {
    tier: u8,
    reason: String,
    footprint: Footprint,
    node: Node,
    engine: Handle,
    thread: JoinHandle<()>,
    control: Control,
    link: Link,
    /// What renews certificates, and with whom.
    renewal: Option<(Membership, Vec<Relay>)>,
    patience: Duration,
    losses: Losses,
    verdicts: (mpsc::Sender<Outgoing>, mpsc::Receiver<Outgoing>, Writer),
    telemetry: (mpsc::Receiver<Outgoing>, Writer),
    _lock: File,
}

impl Sensor {
    /// Loads the kernel programs and opens everything the sensor needs. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// What is missing on this machine, or in the settings, and what to do about it.
    pub fn build(config: Config) -> Result<Self, StartError> {
        if !rustix::process::geteuid().is_root() {
            return Err(StartError::NotRoot);
        }
        let settings = config.sensor.clone();
        let mount = cgroup::mount_point()?;
        Self::build_on(config, mount.clone(), move || {
            Ok(Native::load(&settings, &mount)?)
        })
    }

    /// Like [`Sensor::build`], on a kernel half made by `load` and with workloads' cgroups below `mount`.
    pub fn build_on<K: Enforcer>(
        config: Config,
        mount: PathBuf,
        load: impl FnOnce() -> Result<K, StartError> + Send + 'static,
    ) -> Result<Self, StartError> {
        if let Some(problem) = config.check().into_iter().next() {
            return Err(problem.into());
        }
        let Config {
            cluster,
            sensor: settings,
        } = config;
        let data = settings.data_path();
        let lock = lock_data(&data)?;
        let losses = Losses::default();
        let name = settings.node.clone().unwrap_or_else(crate::node::host_name);
        let introduction = introduction(&settings, &name)?;
        let relays = relays(&settings)?;
        let trust = Trust::build(&settings, &introduction.sensor)?;
        let renewal = renewal(&trust, &relays);
        let redact = Redact::new(&settings.redact)?;
        let nursery = Nursery::new(&mount)?;
        let control = Control::bind(settings.control_path())?;
        let paths = vec![nursery.path().to_owned(), control.path().to_owned()];
        let (verdict_sender, verdict_queue) = mpsc::channel(QUEUE);
        let (telemetry_sender, telemetry_queue) = mpsc::channel(QUEUE);
        let queues = Queues {
            verdicts: verdict_sender.clone(),
            telemetry: telemetry_sender,
        };
        let node = Node {
            id: crate::node::machine_id(&name),
            cluster,
            name,
            tier: 0,
        };
        let (told, heard) = std::sync::mpsc::channel();
        let parts = {
            let (node, losses, rules) = (node.clone(), losses.clone(), RulesFile::new(&data));
            let throttle = Throttle::new(settings.throttle.alerts_per_second);
            let visible = settings.visibility.clone();
            move |kernel: &K| {
                // The receiver is below, unless building has failed meanwhile.
                let _ = told.send((kernel.tier(), kernel.reason(), kernel.programs()));
                let node = Node {
                    tier: kernel.tier(),
                    ..node
                };
                let classes = visible.workloads.iter().copied().collect();
                let teller = Teller::new(node, visible, redact, throttle, losses.clone());
                Parts {
                    nursery,
                    teller,
                    queues,
                    losses,
                    rules,
                    visible: classes,
                }
            }
        };
        let (engine, thread) = engine::start(load, parts)?;
        let (tier, reason, programs) = heard.recv().unwrap_or_default();
        let footprint = Footprint { programs, paths };
        // Last: a start that fails leaves no empty streams behind.
        let Spool {
            verdicts,
            telemetry,
            streams,
        } = Spool::open(&settings.spool_path(), settings.spool.max_size.0, &losses)?;
        let patience = if relays.is_empty() {
            Duration::ZERO
        } else {
            FIRST_RULES
        };
        let link = Link::new(
            relays,
            trust,
            introduction,
            engine.clone(),
            losses.clone(),
            streams,
        );
        Ok(Self {
            tier,
            reason,
            footprint,
            node: Node { tier, ..node },
            engine,
            thread,
            control,
            link,
            renewal,
            patience,
            losses,
            verdicts: (verdict_sender, verdict_queue, verdicts),
            telemetry: (telemetry_queue, telemetry),
            _lock: lock,
        })
    }

    /// 1 LSM, 2 fmod_ret, 3 contain.
    pub fn tier(&self) -> u8 {
        self.tier
    }

    /// Why there is no better tier; empty on tier 1.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// What it puts into the kernel and the file system while it runs.
    pub fn footprint(&self) -> Footprint {
        self.footprint.clone()
    }

    /// The control socket.
    pub fn control_path(&self) -> &Path {
        self.control.path()
    }

    /// Works until `shutdown` resolves, then ends workloads, flushes and returns.
    ///
    /// Boxed, so that what a sensor does is compiled here, once, and not in each program and each test that runs one.
    pub fn run<'a>(self, shutdown: impl Future<Output = ()> + Send + 'a) -> BoxFuture<'a, ()> {
        self.run_until(Box::pin(shutdown))
    }

    fn run_until(self, shutdown: BoxFuture<'_, ()>) -> BoxFuture<'_, ()> {
        Box::pin(self.live(shutdown))
    }

    async fn live(self, shutdown: BoxFuture<'_, ()>) {
        let Self {
            node,
            engine,
            thread,
            control,
            link,
            patience,
            ..
        } = self;
        let Self {
            losses,
            renewal,
            verdicts,
            telemetry,
            _lock,
            ..
        } = self;
        let (verdict_sender, verdict_queue, verdict_writer) = verdicts;
        let (telemetry_queue, telemetry_writer) = telemetry;
        let (stop, stopped) = watch::channel(false);
        let (stage, staged) = watch::channel(Stage::Running);

        let writers = tokio::spawn(async move {
            tokio::join!(
                verdict_writer.run(verdict_queue),
                telemetry_writer.run(telemetry_queue)
            );
        });
        let link = tokio::spawn(link.run(staged));
        let root = PathBuf::from("/");
        let served = tokio::spawn(control.serve(engine.clone(), root, patience, stopped.clone()));
        if let Some((membership, relays)) = renewal {
            // Ends with the sensor; nobody has to wait for it.
            tokio::spawn(membership.renew(relays, stopped.clone()));
        }
        let teller = tokio::spawn(tell_losses(node, losses, verdict_sender, stopped));

        shutdown.await;
        tracing::info!("draining");
        // The receivers are the tasks that are waited for next.
        let _ = stop.send(true);
        let _ = served.await;
        engine.stop();
        let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        let _ = teller.await;
        // Every sender is gone: the writers end when all is on disk.
        let _ = writers.await;
        let _ = stage.send(Stage::Draining(tokio::time::Instant::now() + DRAIN));
        close(link.await.unwrap_or_default()).await;
    }
}

/// Once a second, and once at the end: what was lost becomes events.
async fn tell_losses(
    node: Node,
    losses: Losses,
    queue: mpsc::Sender<Outgoing>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let stopping = tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => false,
            _ = stop.wait_for(|stop| *stop) => true,
        };
        let mut untold = Vec::new();
        for loss in losses.take() {
            let time = now_ns();
            let payload = lost::message(&node, time, &loss).encode_to_vec().into();
            let event = Outgoing {
                class: Class::Verdict,
                kind: Kind::Message,
                time,
                payload,
            };
            if queue.try_send(event).is_err() {
                untold.push(loss);
            }
        }
        losses.untold(untold);
        if stopping {
            return;
        }
    }
}

async fn close(streams: Vec<Outbound>) {
    for stream in streams {
        if stream.is_drained() {
            // Nothing in it for the next start.
            stream.remove();
        } else {
            stream.close().await;
        }
    }
}

fn now_ns() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn lock_data(data: &Path) -> Result<File, StartError> {
    let failed = |source| StartError::File {
        what: "data folder",
        path: data.to_owned(),
        source,
    };
    std::fs::create_dir_all(data).map_err(failed)?;
    let lock = File::create(data.join("sensor.lock")).map_err(failed)?;
    match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StartError::Locked(data.to_owned())),
        Err(why) => Err(failed(why.into())),
    }
}

fn introduction(settings: &SensorConfig, name: &str) -> Result<Introduction, StartError> {
    let path = settings.id_path();
    let sensor = crate::node::sensor_id(&path).map_err(|source| StartError::File {
        what: "sensor identity",
        path,
        source,
    })?;
    Ok(Introduction {
        sensor,
        node: name.to_owned(),
        labels: settings.labels.clone(),
    })
}

fn relays(settings: &SensorConfig) -> Result<Vec<Relay>, AddressError> {
    settings
        .relay
        .iter()
        .map(|relay| Relay::parse(relay, settings.has_certificates()))
        .collect()
}

fn renewal(trust: &Trust, relays: &[Relay]) -> Option<(Membership, Vec<Relay>)> {
    match trust {
        Trust::Membership(membership) => Some((membership.clone(), relays.to_vec())),
        Trust::Plain | Trust::Files(_) => None,
    }
}
