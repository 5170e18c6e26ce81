//! One task a sink: read, filter, send, move the cursor.
//!
//! ```text
//!            ┌ recent: decoded once, shared ┐        ┌──────── a task a sink ─────────────────────────┐
//! log ──────▶│ the newest events            │──▶ filter ─▶ batch ─▶ up to `concurrency` in flight ─▶ Sink
//!            └──────────────────────────────┘        │                      │ outcomes, in any order  │
//! cursor  ◀── position, account, state: one write ◀──┤ progress: what became of each event            │
//! dead letters (a journal of their own) ◀────────────┘ before the cursor moves past a rejected one    │
//! ```
//!
//! - With the log in Kafka a sink has a lane for each partition that its group gave to this relay (crew.rs); a lane is fed as
//!   drawn, without the window.
//! - A sink that is slow or away is a cursor that lags; no other sink, nor ingest, notices.
//! - The cursor moves to the lowest event that is not finished. Finished is: delivered, filtered, or on disk among the dead
//!   letters. After a crash the events from there on are sent again: at least once.
//! - Every event that the cursor passes is accounted for, once: delivered, filtered, dead-lettered, expired or corrupt.
//! - A destination that is away is left alone for a random time up to a bound that doubles, then asked with one batch.
//! - Shown figures come from the cursor, so they go on after a restart. A move shows at once and is durable a moment later
//!   (`journal::Config::cursor_sync`): after a crash they may stand a little lower.
//! - Sinks are added, exchanged and taken out while the others go on (change.rs).

mod away;
pub(crate) mod backoff;
mod budget;
mod change;
mod company;
mod crew;
mod dead_letters;
mod figures;
mod flight;
mod health;
mod orders;
mod pace;
mod passed;
mod pauses;
mod progress;
mod recent;
mod slots;
mod source;
mod spare;
mod steer;
mod taps;
mod task;
mod trace;
mod trust;
mod unit;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use exporters::{Common, Sink, SinkConfig};
use futures::future::join_all;
use journal::CursorError;
use proto::query::SinkStatus;
use tokio::sync::Mutex as TurnMutex;

pub(crate) use self::change::Changes;
pub(crate) use self::dead_letters::Kept;
pub use self::dead_letters::{BadDeadLetter, DeadLetter};
pub(crate) use self::steer::{Letters, SteerError, Steered, Steering};
pub(crate) use self::taps::{Onlooker, Seen};

pub(crate) use self::trace::{Look, Place, Sought};

use self::figures::Shown;
use self::health::{Board, Lasting};
use self::passed::Passed;
use self::pauses::Pauses;
use self::recent::Recent;
use self::task::Stop;
use self::unit::{Ready, Unit};
use crate::log::{Log, Numbering};
use crate::traces::Traces;

/// What the fan-out uses of the program around it.
#[derive(Clone)]
pub struct Context {
    /// Metrics of the sinks and of the fan-out.
    pub registry: crate::metrics::Registry,
    /// Dead letters are kept in `dead-letters/SINK` below it, and which sinks are paused in `paused`.
    pub data_dir: PathBuf,
    /// Serves pages of figures for sinks that want a port of their own.
    pub pages: Option<Arc<dyn exporters::Pages>>,
    /// What traces batches.
    pub traces: Traces,
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
    /// Metrics of its own, shown as long as it is fed.
    pub figures: prometheus::Registry,
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
        /// What the log said.
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
    /// The relay drains.
    #[error("the relay is stopping")]
    Stopping,
    /// The metrics are registered already.
    #[error("the fan-out's metrics cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// All sinks, being fed; a cheap clone. When the last one is dropped the sinks stop where they are.
#[derive(Clone)]
pub struct Fanout {
    inner: Arc<Inner>,
}

struct Inner {
    log: Arc<dyn Log>,
    data_dir: PathBuf,
    pages: Option<Arc<dyn exporters::Pages>>,
    traces: Traces,
    recent: Arc<Recent>,
    pauses: Pauses,
    passed: Passed,
    /// For status and metrics, which must not keep a sink alive.
    board: Board,
    /// In the order of the settings.
    units: ArcSwap<Vec<Arc<Unit>>>,
    /// Held by whoever changes which sinks there are: one at a time.
    turn: TurnMutex<Turn>,
}

#[derive(Default)]
struct Turn {
    closed: bool,
    /// What is left of sinks that were taken out: a cursor has one handle, so it is kept for the day they come back.
    shelf: BTreeMap<String, Lasting>,
}

impl Fanout {
    /// Makes the sinks of the settings, opens their cursors and begins to feed them. Cursors of sinks that are no longer in
    /// the settings stop holding events back. No destination is needed yet; a tokio runtime is.
    ///
    /// # Errors
    /// [`BuildError`] names the sink.
    pub fn build(
        log: impl Log + 'static,
        sinks: Vec<(String, SinkConfig)>,
        context: Context,
    ) -> Result<Fanout, BuildError> {
        let fanout = Self::empty(Arc::new(log), context)?;
        let outlets = sinks.into_iter().map(|(name, config)| {
            let outlet = fanout.inner.outlet(name, &config)?;
            Ok((Some(config), outlet))
        });
        let outlets = outlets.collect::<Result<Vec<_>, BuildError>>()?;
        fanout.begin(outlets)
    }

    /// The same for sinks that are made already.
    ///
    /// # Errors
    /// [`BuildError`] names the sink.
    pub fn over(
        log: impl Log + 'static,
        outlets: Vec<Outlet>,
        context: Context,
    ) -> Result<Fanout, BuildError> {
        let outlets = outlets.into_iter().map(|outlet| (None, outlet)).collect();
        Self::empty(Arc::new(log), context)?.begin(outlets)
    }

    fn empty(log: Arc<dyn Log>, context: Context) -> Result<Fanout, BuildError> {
        let board = Board::default();
        context
            .registry
            .register(Box::new(Shown::new(board.clone())?))?;
        // Not the registry: what it shows holds a handle of this.
        let Context {
            registry: _,
            data_dir,
            pages,
            traces,
        } = context;
        let inner = Inner {
            recent: Recent::new(log.view()),
            pauses: Pauses::new(&data_dir),
            passed: Passed::start(&data_dir),
            units: ArcSwap::default(),
            turn: TurnMutex::default(),
            log,
            data_dir,
            pages,
            traces,
            board,
        };
        Ok(Fanout {
            inner: Arc::new(inner),
        })
    }

    fn begin(self, outlets: Vec<(Option<SinkConfig>, Outlet)>) -> Result<Fanout, BuildError> {
        let inner = &self.inner;
        let ready = outlets.into_iter().map(|(settings, outlet)| {
            let lasting = inner.lasting(&outlet)?;
            Ok(inner.ready(settings, outlet, lasting))
        });
        let ready = ready.collect::<Result<Vec<Ready>, BuildError>>()?;
        let names: Vec<&str> = ready.iter().map(Ready::name).collect();
        inner.log.only(&names);
        inner.install(ready.into_iter().map(Ready::start).collect());
        let places = (inner.log.numbering() == Numbering::Own).then(|| inner.log.view());
        tokio::spawn(pace::keep(inner.board.downgrade(), places));
        Ok(self)
    }

    /// What every sink does and did, in the order of the settings.
    #[must_use]
    pub fn status(&self) -> Vec<SinkStatus> {
        self.inner.board.status()
    }

    /// How many dead letters of every sink went to keep their bound.
    #[must_use]
    pub fn dead_letters_dropped(&self) -> Vec<(String, u64)> {
        self.inner.board.dead_letters_dropped()
    }

    /// Tells the sinks to close and open what has a name.
    pub fn reopen(&self) {
        self.inner
            .units
            .load()
            .iter()
            .for_each(|unit| unit.reopen());
    }

    /// Ends the feeding: what is committed by now is delivered to every sink that takes it, for at most `grace`. What is
    /// left waits in the journal for the next start. Positions are durable when this returns, and the dead letters' folders
    /// are free.
    pub async fn drain(&self, grace: Duration) {
        // A change under way comes to its end first; every part of it is bounded.
        let mut turn = self.inner.turn.lock().await;
        turn.closed = true;
        let units = self.inner.units.load_full();
        join_all(units.iter().map(|unit| unit.end(Stop::Drain(grace)))).await;
        let shelved = turn
            .shelf
            .values()
            .map(|lasting| lasting.dead_letters.close());
        join_all(shelved).await;
        self.inner.board.close().await;
    }
}
