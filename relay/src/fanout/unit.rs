//! One sink that is being fed: what it was made of, how it is reached, and its task.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use exporters::{Common, Sink, SinkConfig};
use journal::CursorOptions;
use prometheus::Registry;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::Instrument as _;

use super::budget::Budget;
use super::crew::Crew;
use super::dead_letters::{DeadLetters, Refused};
use super::flight::Runway;
use super::health::{Health, Lasting, StoppedOnDrop};
use super::passed::Trail;
use super::slots::Slots;
use super::steer::Post;
use super::task::{Stop, Task};
use super::{BuildError, Inner, Outlet, orders};
use crate::log::{Supply, Want};

/// Beyond what a task may take by itself: it waits for nothing without a bound, so this is never reached.
const BEYOND: Duration = Duration::from_secs(30);

/// A sink that is being fed.
pub(super) struct Unit {
    /// None: somebody else made it.
    pub(super) settings: Option<SinkConfig>,
    pub(super) post: Arc<Post>,
    stop: watch::Sender<Option<Stop>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Unit {
    pub(super) fn name(&self) -> &str {
        self.post.health.name()
    }

    pub(super) fn reopen(&self) {
        self.post.sink.reopen();
    }

    /// Ends its task in this way; its position is durable when this returns.
    pub(super) async fn end(&self, stop: Stop) {
        self.stop.send_replace(Some(stop));
        let task = self
            .task
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(mut task) = task else {
            return;
        };
        match timeout(stop.at_most() + BEYOND, &mut task).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(sink = self.name(), %error, "a sink's task died; its events wait in the journal for the next start");
            }
            Err(_) => {
                task.abort();
                tracing::error!(
                    sink = self.name(),
                    "a sink's task did not end; please report it"
                );
            }
        }
    }
}

/// A sink that has all it needs and is not fed yet.
pub(super) struct Ready {
    settings: Option<SinkConfig>,
    post: Arc<Post>,
    feeder: Feeder,
}

/// What feeds a sink.
enum Feeder {
    /// One lane, from the start.
    Task(Box<Task>),
    /// Lanes that come and go.
    Crew(Box<Crew>),
}

impl Feeder {
    async fn run(self, told: watch::Receiver<Option<Stop>>) {
        match self {
            Feeder::Task(task) => task.run(told).await,
            Feeder::Crew(crew) => crew.run(told).await,
        }
    }
}

impl Ready {
    pub(super) fn name(&self) -> &str {
        self.post.health.name()
    }

    pub(super) fn start(self) -> Arc<Unit> {
        let Ready {
            settings,
            post,
            feeder,
        } = self;
        let (stop, told) = watch::channel(None);
        let task = spawn(Arc::clone(&post.health), feeder, told);
        Arc::new(Unit {
            settings,
            post,
            stop,
            task: Mutex::new(Some(task)),
        })
    }
}

fn spawn(
    health: Arc<Health>,
    feeder: Feeder,
    told: watch::Receiver<Option<Stop>>,
) -> JoinHandle<()> {
    // As grave as the gravest line in it, so that a log of warnings says whose they are.
    let span = tracing::error_span!("sink", name = health.name());
    let life = async move {
        // However the task ends, in a panic too.
        let _stopped = StoppedOnDrop(&health);
        feeder.run(told).await;
    };
    tokio::spawn(life.instrument(span))
}

/// What the sink's own account says of its dead letters; nothing where the account goes on with another relay.
fn refused(supply: &Supply) -> Refused {
    match supply {
        Supply::Lane(lane) => {
            let cursor = Arc::clone(&lane.cursor);
            Box::new(move || cursor.stats().account.dead_lettered)
        }
        Supply::Share(_) => Box::new(|| 0),
    }
}

// === impl Inner ===

impl Inner {
    /// Makes a sink of its settings.
    pub(super) fn outlet(&self, name: String, config: &SinkConfig) -> Result<Outlet, BuildError> {
        let figures = Registry::new();
        let context = exporters::Context {
            registry: figures.clone(),
            pages: self.pages.clone(),
        };
        Ok(Outlet {
            sink: exporters::build(&name, config, &context)?,
            kind: config.kind(),
            common: config.common(),
            figures,
            name,
        })
    }

    /// Opens what outlives a sink's settings. Blocks for a sync of a new cursor.
    pub(super) fn lasting(&self, outlet: &Outlet) -> Result<Lasting, BuildError> {
        let Outlet { name, common, .. } = outlet;
        let options = CursorOptions {
            start: match common.start {
                exporters::Start::End => journal::Start::End,
                exporters::Start::Beginning => journal::Start::Beginning,
            },
            when_full: when_full(common),
        };
        let want = Want {
            options,
            sums: outlet.sink.snapshot().is_some(),
        };
        let supply = self
            .log
            .supply(name, want)
            .map_err(|source| BuildError::Cursor {
                name: name.to_owned(),
                source,
            })?;
        let path: PathBuf = self.data_dir.join("dead-letters").join(name);
        let size = common.dead_letters_max_size;
        let dead_letters = DeadLetters::new(path.clone(), size, refused(&supply));
        let dead_letters = dead_letters.map_err(|reason| BuildError::DeadLetters {
            name: name.to_owned(),
            path,
            reason,
        })?;
        let pause = self.pauses.read(name);
        if let Some(pause) = &pause {
            tracing::warn!(
                sink = name,
                by = pause.by,
                "the sink is paused; `cresset sink resume {name}` lets it go on"
            );
        }
        Ok(Lasting::new(supply, dead_letters, pause))
    }

    /// Puts a sink behind its cursor.
    pub(super) fn ready(
        &self,
        settings: Option<SinkConfig>,
        outlet: Outlet,
        lasting: Lasting,
    ) -> Ready {
        let Outlet {
            name,
            kind,
            common,
            sink,
            figures,
        } = outlet;
        if let Supply::Lane(lane) = &lasting.supply
            && let Some(state) = lane.cursor.state()
            && let Err(error) = sink.restore(&state)
        {
            tracing::warn!(sink = name, %error, "the sink begins without what it remembered");
        }
        let sink: Arc<dyn Sink> = sink.into();
        let supply = lasting.supply.clone();
        let budget = Budget::new(common.retry_budget_percent, common.retry.max);
        let health = Arc::new(Health::new(name, kind, lasting, budget, figures));
        let runway = Runway {
            sink: Arc::clone(&sink),
            dead_letters: Arc::clone(&health.dead_letters),
            taps: Arc::clone(&health.taps),
            health: Arc::clone(&health),
            traces: self.traces.clone(),
            trust: Arc::default(),
            away: Arc::default(),
            budget: Arc::clone(&health.budget),
            slots: match &supply {
                Supply::Lane(_) => Slots::own(),
                Supply::Share(_) => Slots::shared(common.concurrency),
            },
        };
        let (orders, ordered) = orders::orders();
        let post = Post {
            health: Arc::clone(&health),
            orders,
            sink,
            common: common.clone(),
        };
        let feeder = match supply {
            Supply::Lane(lane) => {
                let recent = lane.shared.then(|| Arc::clone(&self.recent));
                let trail = Trail {
                    passed: self.passed.clone(),
                    partition: None,
                };
                let task = Task::new(health, runway, common, lane, recent, ordered, trail);
                Feeder::Task(Box::new(task))
            }
            Supply::Share(join) => {
                let passed = self.passed.clone();
                let crew = Crew::new(health, runway, common, join, ordered, passed);
                Feeder::Crew(Box::new(crew))
            }
        };
        Ready {
            settings,
            post: Arc::new(post),
            feeder,
        }
    }

    /// From here on these are the sinks.
    pub(super) fn install(&self, units: Vec<Arc<Unit>>) {
        let healths = units.iter().map(|unit| Arc::clone(&unit.post.health));
        self.board.show(healths.collect());
        self.units.store(Arc::new(units));
    }
}

/// What a full journal does to a sink that lags.
pub(super) fn when_full(common: &Common) -> journal::WhenFull {
    match common.when_full {
        exporters::WhenFull::Expire => journal::WhenFull::Expire,
        exporters::WhenFull::Refuse => journal::WhenFull::Refuse,
    }
}
