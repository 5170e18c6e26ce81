//! One task a sink: read, filter, send, move the cursor.
//!
//! ```text
//!            ┌ recent: decoded once, shared ┐        ┌──────── a task a sink ─────────────────────────┐
//! journal ──▶│ the newest events            │──▶ filter ─▶ batch ─▶ up to `concurrency` in flight ─▶ Sink
//!            └──────────────────────────────┘        │                      │ outcomes, in any order  │
//! cursor  ◀── position, account, state: one write ◀──┤ progress: what became of each event            │
//! dead letters (a journal of their own) ◀────────────┘ before the cursor moves past a rejected one    │
//! ```
//!
//! - A sink that is slow or away is a cursor that lags; no other sink, nor ingest, notices.
//! - The cursor moves to the lowest event that is not finished. Finished is: delivered, filtered, or on disk among the dead
//!   letters. After a crash the events from there on are sent again: at least once.
//! - Every event that the cursor passes is accounted for, once: delivered, filtered, dead-lettered, expired or corrupt.
//! - A destination that is away is left alone for a random time up to a bound that doubles, then asked with one batch.
//! - Shown figures come from the cursor, so they go on after a restart and never ahead of what is durable.

pub(crate) mod backoff;
mod dead_letters;
mod flight;
mod health;
mod orders;
mod pauses;
mod progress;
mod recent;
mod source;
mod steer;
mod taps;
mod task;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use exporters::{Common, Sink, SinkConfig};
use journal::{CursorError, CursorOptions, Journal};
use proto::query::SinkStatus;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::Instrument as _;

pub(crate) use self::dead_letters::Kept;
pub use self::dead_letters::{BadDeadLetter, DeadLetter};
pub(crate) use self::steer::{Letters, SteerError, Steered, Steering};
pub(crate) use self::taps::{Onlooker, Seen};

use self::dead_letters::DeadLetters;
use self::flight::Runway;
use self::health::{Board, Health, Shown, StoppedOnDrop};
use self::pauses::Pauses;
use self::recent::Recent;
use self::steer::Post;
use self::taps::Taps;
use self::task::Task;

/// What the fan-out uses of the program around it.
#[derive(Clone)]
pub struct Context {
    /// Metrics of the sinks and of the fan-out.
    pub registry: prometheus::Registry,
    /// Dead letters are kept in `dead-letters/SINK` below it, and which sinks are paused in `paused`.
    pub data_dir: PathBuf,
    /// Serves pages of figures for sinks that want a port of their own.
    pub pages: Option<Arc<dyn exporters::Pages>>,
}

/// A sink that is made, and how it wants to be fed.
pub struct Outlet {
    /// Its name: cursor, dead letters, metric label.
    pub name: String,
    /// The word after `type` in the settings.
    pub kind: &'static str,
    /// Filter, batches, back-off.
    pub common: Common,
    /// The sink.
    pub sink: Box<dyn Sink>,
}

/// The sinks cannot be fed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A sink cannot be made.
    #[error(transparent)]
    Sink(#[from] exporters::BuildError),
    /// A sink's cursor cannot be opened.
    #[error("sink {name}: {source}")]
    Cursor {
        /// The sink.
        name: String,
        /// What the journal said.
        source: CursorError,
    },
    /// A sink's dead letters cannot be opened.
    #[error("sink {name}: the dead letters in {} cannot be opened: {reason}", path.display())]
    DeadLetters {
        /// The sink.
        name: String,
        /// Their folder.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The metrics are registered already.
    #[error("the fan-out's metrics cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// All sinks, being fed; a cheap clone. When the last one is dropped the sinks stop where they are.
#[derive(Clone)]
pub struct Fanout {
    board: Board,
    sinks: Arc<Vec<Arc<dyn Sink>>>,
    posts: Arc<Vec<Arc<Post>>>,
    pauses: Pauses,
    journal: Journal,
    life: Arc<Life>,
}

struct Life {
    /// How long the sinks may drain, once they are told to.
    stop: watch::Sender<Option<Duration>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Fanout {
    /// Makes the sinks of the settings, opens their cursors and begins to feed them. Cursors of sinks that are no longer in
    /// the settings stop holding events back. No destination is needed yet; a tokio runtime is.
    ///
    /// # Errors
    /// [`BuildError`] names the sink.
    pub fn build(
        journal: Journal,
        sinks: Vec<(String, SinkConfig)>,
        context: Context,
    ) -> Result<Fanout, BuildError> {
        let inner = exporters::Context {
            registry: context.registry.clone(),
            pages: context.pages.clone(),
        };
        let outlets = sinks.into_iter().map(|(name, config)| {
            let sink = exporters::build(&name, &config, &inner)?;
            Ok(Outlet {
                name,
                kind: config.kind(),
                common: config.common(),
                sink,
            })
        });
        let outlets = outlets.collect::<Result<Vec<_>, exporters::BuildError>>()?;
        Self::over(journal, outlets, context)
    }

    /// The same for sinks that are made already.
    ///
    /// # Errors
    /// [`BuildError`] names the sink.
    pub fn over(
        journal: Journal,
        outlets: Vec<Outlet>,
        context: Context,
    ) -> Result<Fanout, BuildError> {
        let recent = Recent::new(journal.clone());
        let mut tasks = Vec::with_capacity(outlets.len());
        let (mut posts, mut sinks) = (Vec::new(), Vec::new());
        for outlet in outlets {
            let (task, post, sink) = task_of(&journal, &recent, outlet, &context)?;
            tasks.push(task);
            posts.push(Arc::new(post));
            sinks.push(sink);
        }
        let names: Vec<&str> = tasks.iter().map(|task| task.health().name()).collect();
        journal.retire_cursors_except(&names);
        let board = Board::new(tasks.iter().map(|task| Arc::clone(task.health())).collect());
        context
            .registry
            .register(Box::new(Shown::new(board.clone())?))?;
        let (stop, told) = watch::channel(None);
        let tasks = tasks
            .into_iter()
            .map(|task| spawn(task, told.clone()))
            .collect();
        let life = Arc::new(Life {
            stop,
            tasks: Mutex::new(tasks),
        });
        Ok(Fanout {
            board,
            sinks: Arc::new(sinks),
            posts: Arc::new(posts),
            pauses: Pauses::new(&context.data_dir),
            journal,
            life,
        })
    }

    /// What every sink does and did, in the order of the settings.
    #[must_use]
    pub fn status(&self) -> Vec<SinkStatus> {
        self.board.status()
    }

    /// How many dead letters of every sink went to keep their bound.
    #[must_use]
    pub fn dead_letters_dropped(&self) -> Vec<(String, u64)> {
        self.board.dead_letters_dropped()
    }

    /// Tells the sinks to close and open what has a name.
    pub fn reopen(&self) {
        self.sinks.iter().for_each(|sink| sink.reopen());
    }

    /// Ends the feeding: what is committed by now is delivered to every sink that takes it, for at most `grace`. What is
    /// left waits in the journal for the next start. Positions are durable when this returns, and the dead letters' folders
    /// are free.
    pub async fn drain(&self, grace: Duration) {
        self.life.stop.send_replace(Some(grace));
        let tasks = std::mem::take(
            &mut *self
                .life
                .tasks
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a sink's task died; its events wait in the journal for the next start");
            }
        }
        self.board.close().await;
    }
}

fn spawn(task: Task, told: watch::Receiver<Option<Duration>>) -> JoinHandle<()> {
    let health = Arc::clone(task.health());
    // As grave as the gravest line in it, so that a log of warnings says whose they are.
    let span = tracing::error_span!("sink", name = health.name());
    let life = async move {
        // However the task ends, in a panic too.
        let _stopped = StoppedOnDrop(&health);
        task.run(told).await;
    };
    tokio::spawn(life.instrument(span))
}

fn task_of(
    journal: &Journal,
    recent: &Arc<Recent>,
    outlet: Outlet,
    context: &Context,
) -> Result<(Task, Post, Arc<dyn Sink>), BuildError> {
    let Outlet {
        name,
        kind,
        common,
        sink,
    } = outlet;
    let options = CursorOptions {
        start: match common.start {
            exporters::Start::End => journal::Start::End,
            exporters::Start::Beginning => journal::Start::Beginning,
        },
        when_full: match common.when_full {
            exporters::WhenFull::Expire => journal::WhenFull::Expire,
            exporters::WhenFull::Refuse => journal::WhenFull::Refuse,
        },
    };
    let cursor = journal
        .cursor(&name, options)
        .map_err(|source| BuildError::Cursor {
            name: name.clone(),
            source,
        })?;
    if let Some(state) = cursor.state()
        && let Err(error) = sink.restore(&state)
    {
        tracing::warn!(sink = name, %error, "the sink begins without what it remembered");
    }
    let path = context.data_dir.join("dead-letters").join(&name);
    let dead_letters =
        DeadLetters::new(path.clone(), common.dead_letters_max_size).map_err(|reason| {
            BuildError::DeadLetters {
                name: name.clone(),
                path,
                reason,
            }
        })?;
    let pause = Pauses::new(&context.data_dir).read(&name);
    if let Some(pause) = &pause {
        tracing::warn!(
            sink = name,
            by = pause.by,
            "the sink is paused; `cresset sink resume {name}` lets it go on"
        );
    }
    let sink: Arc<dyn Sink> = sink.into();
    let taps = Arc::new(Taps::default());
    let health = Arc::new(Health::new(name, kind, cursor, dead_letters, pause));
    let runway = Runway {
        sink: Arc::clone(&sink),
        dead_letters: Arc::clone(&health.dead_letters),
        taps: Arc::clone(&taps),
    };
    let (orders, ordered) = orders::orders();
    let post = Post {
        health: Arc::clone(&health),
        orders,
        taps,
        filter: common.filter.clone(),
    };
    let recent = Arc::clone(recent);
    let task = Task::new(health, runway, common, journal.clone(), recent, ordered);
    Ok((task, post, sink))
}
