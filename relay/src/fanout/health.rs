//! What status and metrics tell of the sinks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arc_swap::ArcSwap;
use journal::{Account, CursorStats, Expired, Seq, WhenFull};
use prometheus::Registry;
use proto::query::SinkStatus;

use super::Fanout;
use super::budget::Budget;
use super::dead_letters::DeadLetters;
use super::pace::Pace;
use super::pauses::Pause;
use super::taps::Taps;
use crate::log::{Cursor, Supply, unix_nanoseconds};
use crate::losses::LetterDamage;

/// What a sink does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Running,
    Retrying,
    Stopped,
}

/// The word for a sink that would run if nobody had paused it.
const PAUSED: &str = "paused";

impl State {
    fn word(self) -> &'static str {
        match self {
            State::Running => "running",
            State::Retrying => "retrying",
            State::Stopped => "stopped",
        }
    }
}

/// One sink, as its task tells it and others see it.
pub(super) struct Health {
    pub(super) name: String,
    pub(super) kind: &'static str,
    lasting: Lasting,
    told: Mutex<Told>,
    /// What may be sent again.
    pub(super) budget: Arc<Budget>,
    /// Of the sink itself.
    pub(super) figures: Registry,
}

/// What of a sink outlives a change of its settings; a cheap handle.
#[derive(Clone)]
pub(super) struct Lasting {
    pub(super) supply: Supply,
    pub(super) lanes: Arc<Lanes>,
    pub(super) dead_letters: Arc<DeadLetters>,
    pub(super) taps: Arc<Taps>,
    pub(super) pace: Arc<Pace>,
    retries: Arc<AtomicU64>,
    pause: Arc<Mutex<Option<Pause>>>,
}

impl Lasting {
    pub(super) fn new(supply: Supply, dead_letters: DeadLetters, pause: Option<Pause>) -> Self {
        let lanes = Lanes::default();
        if let Supply::Lane(lane) = &supply {
            lanes.opened(&lane.cursor);
        }
        Lasting {
            supply,
            lanes: Arc::new(lanes),
            dead_letters: Arc::new(dead_letters),
            taps: Arc::default(),
            pace: Arc::default(),
            retries: Arc::default(),
            pause: Arc::new(Mutex::new(pause)),
        }
    }
}

impl Lasting {
    /// It holds nothing back from now on.
    pub(super) fn retire(&self) {
        if let Supply::Lane(lane) = &self.supply {
            lane.cursor.retire();
        }
    }

    /// It holds records back again, in this way when the log is full.
    pub(super) fn take_up(&self, when_full: WhenFull) {
        if let Supply::Lane(lane) = &self.supply {
            lane.cursor.take_up(when_full);
        }
    }
}

/// What all lanes of a sink have come to.
#[derive(Default)]
pub(super) struct Lanes(Mutex<Books>);

#[derive(Default)]
struct Books {
    lanes: Vec<Arc<dyn Cursor>>,
    /// Of lanes that went to another relay.
    past: Account,
}

impl Lanes {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lane is this relay's from now on.
    pub(super) fn opened(&self, cursor: &Arc<dyn Cursor>) {
        self.books().lanes.push(Arc::clone(cursor));
    }

    /// A lane is another relay's from now on; what was done here stays in the account.
    pub(super) fn closed(&self, cursor: &Arc<dyn Cursor>) {
        let mut books = self.books();
        let before = books.lanes.len();
        books.lanes.retain(|lane| !Arc::ptr_eq(lane, cursor));
        if books.lanes.len() < before {
            books.past += cursor.stats().account;
        }
    }

    /// All lanes together.
    pub(super) fn stats(&self) -> CursorStats {
        let books = self.books();
        if let [lane] = &books.lanes[..]
            && books.past == Account::default()
        {
            return lane.stats();
        }
        let mut sum = CursorStats {
            name: String::new(),
            birth: Seq(0),
            position: Seq(0),
            pending: 0,
            account: books.past,
            journaled: books.past.total(),
            retired: false,
        };
        for lane in books.lanes.iter().map(|lane| lane.stats()) {
            sum.position.0 += lane.position.0;
            sum.pending += lane.pending;
            sum.account += lane.account;
            sum.journaled += lane.journaled;
        }
        sum
    }

    /// Which events left the log before the sink came to them; nothing where there is more than one lane.
    pub(super) fn expired(&self) -> Vec<Expired> {
        match &self.books().lanes[..] {
            [lane] => lane.expired(),
            _ => Vec::new(),
        }
    }
}

impl std::ops::Deref for Health {
    type Target = Lasting;

    fn deref(&self) -> &Lasting {
        &self.lasting
    }
}

struct Told {
    state: State,
    error: String,
    at: u64,
}

impl Health {
    pub(super) fn new(
        name: String,
        kind: &'static str,
        lasting: Lasting,
        budget: Budget,
        figures: Registry,
    ) -> Self {
        let told = Told {
            state: State::Running,
            error: String::new(),
            at: 0,
        };
        Health {
            name,
            kind,
            lasting,
            budget: Arc::new(budget),
            told: Mutex::new(told),
            figures,
        }
    }

    /// What goes on under other settings.
    pub(super) fn lasting(&self) -> Lasting {
        self.lasting.clone()
    }

    /// Events that were sent again.
    pub(super) fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// The destination takes events, as far as is known.
    pub(super) fn is_up(&self) -> bool {
        self.told().state == State::Running
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn pause(&self) -> MutexGuard<'_, Option<Pause>> {
        self.pause.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody wants nothing to be sent.
    pub(super) fn is_paused(&self) -> bool {
        self.pause().is_some()
    }

    /// Pauses the sink, or lets it go on; true if it was otherwise before.
    pub(super) fn set_pause(&self, pause: Option<Pause>) -> bool {
        let now = pause.is_some();
        let before = std::mem::replace(&mut *self.pause(), pause);
        before.is_some() != now
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs a change of state once, not every failure.
    pub(super) fn is(&self, state: State) {
        let before = std::mem::replace(&mut self.told().state, state);
        if before == State::Retrying && state == State::Running {
            tracing::info!("the destination takes events again");
        }
    }

    /// Something went wrong that does not stop the sink.
    pub(super) fn error(&self, error: &str) {
        let mut told = self.told();
        let known = told.error == error;
        error.clone_into(&mut told.error);
        told.at = unix_nanoseconds() / 1_000_000_000;
        drop(told);
        if !known {
            tracing::warn!(error, "trouble with the sink");
        }
    }

    /// The destination takes nothing; `events` wait for another attempt.
    pub(super) fn retrying(&self, error: &str, events: usize) {
        self.retries.fetch_add(events as u64, Ordering::Relaxed);
        self.error(error);
        self.is(State::Retrying);
    }

    fn status(&self) -> SinkStatus {
        self.status_of(&self.lanes.stats())
    }

    /// The status at the moment of these figures.
    pub(super) fn status_of(&self, stats: &CursorStats) -> SinkStatus {
        let CursorStats {
            position,
            pending,
            account,
            ..
        } = *stats;
        let pause = self.pause().clone();
        let told = self.told();
        let state = match (told.state, &pause) {
            (State::Stopped, _) | (_, None) => told.state.word(),
            (_, Some(_)) => PAUSED,
        };
        SinkStatus {
            name: self.name.clone(),
            r#type: self.kind.to_owned(),
            state: state.to_owned(),
            position: position.0,
            pending,
            delivered: account.delivered,
            filtered: account.filtered,
            dead_lettered: account.dead_lettered,
            expired: account.expired,
            corrupt: account.corrupt,
            last_error: told.error.clone(),
            last_error_unix: told.at,
            dead_letters: self.dead_letters.count().kept,
            paused_unix: pause.as_ref().map_or(0, |pause| pause.since),
            paused_by: pause.map(|pause| pause.by).unwrap_or_default(),
            lag_seconds: if pending == 0 { 0.0 } else { self.pace.lag() },
            rate: self.pace.rate(),
        }
    }
}

/// Says that the sink has stopped, however its task ended.
pub(super) struct StoppedOnDrop<'a>(pub(super) &'a Health);

impl Drop for StoppedOnDrop<'_> {
    fn drop(&mut self) {
        self.0.is(State::Stopped);
    }
}

/// All sinks as they are shown; a cheap handle that keeps none of them alive.
#[derive(Clone, Default)]
pub(super) struct Board(Arc<ArcSwap<Vec<Arc<Health>>>>);

/// The same for who looks on only as long as somebody else does.
pub(super) struct Glance(Weak<ArcSwap<Vec<Arc<Health>>>>);

impl Glance {
    /// None: nobody shows them any more.
    pub(super) fn all(&self) -> Option<Arc<Vec<Arc<Health>>>> {
        self.0.upgrade().map(|sinks| sinks.load_full())
    }
}

impl Board {
    pub(super) fn downgrade(&self) -> Glance {
        Glance(Arc::downgrade(&self.0))
    }

    /// These are the sinks from now on.
    pub(super) fn show(&self, sinks: Vec<Arc<Health>>) {
        self.0.store(Arc::new(sinks));
    }

    pub(super) fn all(&self) -> Arc<Vec<Arc<Health>>> {
        self.0.load_full()
    }

    pub(super) async fn close(&self) {
        for health in &*self.all() {
            health.dead_letters.close().await;
        }
    }

    pub(super) fn status(&self) -> Vec<SinkStatus> {
        self.all().iter().map(|health| health.status()).collect()
    }

    pub(super) fn dead_letters_dropped(&self) -> Vec<(String, u64)> {
        let dropped = |health: &Arc<Health>| health.dead_letters.count().overrun;
        self.all()
            .iter()
            .map(|health| (health.name.clone(), dropped(health)))
            .collect()
    }

    fn letter_damage(&self) -> Vec<LetterDamage> {
        let damage = |health: &Arc<Health>| {
            let found = health.dead_letters.at_start();
            LetterDamage {
                sink: health.name.clone(),
                lost: health.dead_letters.count().damaged,
                found: found.damaged,
                cut_bytes: found.cut_bytes,
                forgotten: found.forgotten,
            }
        };
        self.all().iter().map(damage).collect()
    }
}

impl Fanout {
    /// What the disk does not give back of every sink's dead letters.
    pub(crate) fn letter_damage(&self) -> Vec<LetterDamage> {
        self.inner.board.letter_damage()
    }
}
