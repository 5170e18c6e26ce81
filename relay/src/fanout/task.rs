//! The life of one sink.
//!
//! ```text
//! source ─ piece ─▶ filter ─▶ batch ─ full or due ─▶ flight (send, dead letters) ─▶ land: settle │ wait for another try
//!                                                                                      └▶ save: cursor, account, state
//! ```
//! An administrator's orders come in between. Every await of [`Task::feed`] may be dropped without losing anything: what is under way lives in the task.

mod obey;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use exporters::{Carried, Common};
use futures::StreamExt as _;
use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::FuturesUnordered;
use journal::{CursorError, Seq};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::away::Since;
use super::backoff;
use super::flight::{Flown, Parcel, Runway, Trouble, fly};
use super::health::{Health, State};
use super::orders::{Errand, Orders};
use super::passed::{Trail, Word};
use super::progress::{Fate, Progress};
use super::recent::{Piece, Recent, Run};
use super::slots::Slot;
use super::source::Source;
use super::trust;
use crate::log::{Cursor, Lane, View};

/// How often a sink whose old end is not known yet looks whether it has come there.
const LOOK_BEHIND: Duration = Duration::from_millis(200);
/// For the last words of a sink and the last move of its cursor.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);
/// Stretches of one fate that may stand between the cursor and the newest event read.
const MAX_RUNS: usize = 1 << 18;

/// Events this far from each other lie in memory that was read for others. A batch of them would hold all of that, so each
/// is copied; a batch holds at most so many times its own bytes.
const NEAR: u64 = 4;

/// For the last words of a sink whose settings changed: whatever it has is sent again by the next one.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(2);

/// How a task is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// What is committed by now is still sent, for so long.
    Drain(Duration),
    /// What is under way may land, for so long; another task goes on from there.
    HandOver(Duration),
}

impl Stop {
    fn grace(self) -> Duration {
        let (Stop::Drain(grace) | Stop::HandOver(grace)) = self;
        grace
    }

    fn close_within(self) -> Duration {
        match self {
            Stop::Drain(_) => CLOSE_WITHIN,
            Stop::HandOver(_) => HAND_OVER_WITHIN,
        }
    }

    /// All of it.
    pub(super) fn at_most(self) -> Duration {
        self.grace() + self.close_within()
    }
}

/// Why [`Task::feed`] ended.
enum End {
    /// All that was committed before the drain is done, or the destination takes nothing.
    Drained,
    /// The cursor cannot move any more.
    Broken,
}

pub(super) struct Task {
    health: Arc<Health>,
    runway: Runway,
    common: Common,
    view: Arc<dyn View>,
    cursor: Arc<dyn Cursor>,
    /// The cursor moves at most so often.
    rhythm: Duration,
    orders: Orders,
    /// For an administrator, besides what the log has.
    errands: VecDeque<Errand>,
    source: Source,
    /// The sink has a snapshot, which goes with the position.
    stateful: bool,
    progress: Progress,
    /// Being taken apart; what lies before the progress' end is done with.
    piece: Option<Piece>,
    open: Gathering,
    /// To be sent again, lowest event first.
    waiting: VecDeque<Parcel>,
    /// Which of them was tried last beside the oldest, so that each has its turn.
    turn: usize,
    flying: FuturesUnordered<BoxFuture<'static, Landed>>,
    /// Whether the destination is left alone, as all lanes know it.
    away: watch::Receiver<Since>,
    /// It refused the oldest batch as a whole: what it says to another one tells whose fault that is.
    try_another: bool,
    /// There is no budget to send anything again before.
    unfunded: Option<Instant>,
    /// A place among the batches under way that was waited for.
    slot: Option<Slot>,
    /// Other lanes have all of them.
    crowded: bool,
    saving: Option<BoxFuture<'static, Result<(), CursorError>>>,
    saved: Instant,
    /// The sink has not come to where the log ended at start.
    behind: bool,
    /// That end, once it is known.
    old_end: Option<Seq>,
    read_again: Option<Instant>,
    /// Draining: the last event that is still sent.
    until: Option<u64>,
    /// Another task goes on when what is under way has landed.
    handing_over: bool,
    trail: Trail,
}

/// What comes back from a flight.
enum Landed {
    Parcel(Flown),
    /// Whoever sent it has been told.
    Errand,
}

/// The batch that is being filled.
#[derive(Default)]
struct Gathering {
    events: Vec<(u64, Carried)>,
    bytes: usize,
    since: Option<Instant>,
    full: bool,
}

impl Task {
    pub(super) fn new(
        health: Arc<Health>,
        runway: Runway,
        common: Common,
        lane: Lane,
        recent: Option<Arc<Recent>>,
        orders: Orders,
        trail: Trail,
    ) -> Self {
        let Lane {
            view,
            cursor,
            rhythm,
            shared: _,
        } = lane;
        let next = cursor.position().0;
        let away = runway.away.watch();
        Task {
            source: Source::new(Arc::clone(&view), recent, next),
            stateful: runway.sink.snapshot().is_some(),
            progress: Progress::new(next),
            behind: true,
            old_end: view.old_end(),
            health,
            runway,
            common,
            view,
            cursor,
            rhythm,
            orders,
            errands: VecDeque::new(),
            piece: None,
            open: Gathering::default(),
            waiting: VecDeque::new(),
            turn: 0,
            flying: FuturesUnordered::new(),
            away,
            try_another: false,
            unfunded: None,
            slot: None,
            crowded: false,
            saving: None,
            saved: Instant::now(),
            read_again: None,
            until: None,
            handing_over: false,
            trail,
        }
    }

    /// Feeds the sink until told to stop, then drains it for as long as it was told.
    pub(super) async fn run(mut self, mut told: watch::Receiver<Option<Stop>>) {
        let stop = tokio::select! {
            // Whoever would tell may be gone: then there is no time left.
            told = told.wait_for(Option::is_some) => {
                let told = told.ok().and_then(|stop| *stop);
                Some(told.unwrap_or(Stop::Drain(Duration::ZERO)))
            }
            _ = self.feed() => None,
        };
        if let Some(stop) = stop {
            match stop {
                Stop::Drain(_) => self.until = Some(self.view.committed().0),
                Stop::HandOver(_) => (self.until, self.handing_over) = (Some(0), true),
            }
            // What is not done by then waits in the log.
            let _ = timeout(stop.grace(), self.feed()).await;
        }
        let within = stop.map_or(CLOSE_WITHIN, Stop::close_within);
        if timeout(within, self.close()).await.is_err() {
            tracing::warn!("the sink did not close in time; some events may be sent again");
        }
    }

    async fn feed(&mut self) -> End {
        loop {
            self.gather();
            self.tell_caught_up();
            self.save();
            self.launch();
            if self.is_drained() {
                return End::Drained;
            }
            let wake = self.wake();
            tokio::select! {
                Some(landed) = self.flying.next(), if !self.flying.is_empty() => self.land(landed),
                order = self.orders.next() => self.obey(order).await,
                saved = settled(&mut self.saving), if self.saving.is_some() => {
                    self.saving = None;
                    if let Some(end) = self.judge_save(saved) {
                        return end;
                    }
                }
                read = self.source.piece(), if self.wants_more() => match read {
                    Ok(piece) => self.piece = Some(piece),
                    Err(error) => {
                        self.health.error(&format!("the log cannot be read: {error}"));
                        self.read_again = Some(Instant::now() + Source::after_error());
                    }
                },
                slot = self.runway.slots.wait(), if self.crowded => self.slot = Some(slot),
                // Another lane found out. Whoever tells is here, too.
                _ = self.away.changed() => {}
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {
                    self.read_again = self.read_again.filter(|at| *at > Instant::now());
                }
            }
        }
    }

    // === reading ===

    fn wants_more(&self) -> bool {
        self.piece.is_none()
            && !self.open.full
            && self.read_again.is_none()
            && self.progress.len() < MAX_RUNS
            && self.until.is_none_or(|until| self.source.next() <= until)
    }

    /// Sorts the piece at hand into what the sink wants and what not, until the batch is full.
    fn gather(&mut self) {
        let Some(piece) = self.piece.take() else {
            return;
        };
        let done = self.progress.end() - piece.first;
        match &piece.run {
            Run::Gap(count, fate) => {
                let count = count.saturating_sub(done);
                self.progress.push(*fate, count);
                self.health.error(&gap(count, *fate));
            }
            Run::Events(events) => {
                for event in Carried::from_block(events, done as usize) {
                    let Some(event) = self.common.outgoing(event) else {
                        self.progress.push(Fate::Filtered, 1);
                        continue;
                    };
                    if !self.open.take(self.progress.end(), event, &self.common) {
                        self.piece = Some(piece);
                        return;
                    }
                    self.progress.push(Fate::Open, 1);
                }
            }
        }
    }

    fn tell_caught_up(&mut self) {
        if !self.behind {
            return;
        }
        self.old_end = self.old_end.or_else(|| self.view.old_end());
        if self.old_end.is_some_and(|end| self.progress.low() > end.0) {
            self.behind = false;
            self.runway.sink.caught_up();
        }
    }

    // === sending ===

    fn launch(&mut self) {
        while self.flying.len() < self.common.concurrency
            && let Some(errand) = self.errands.pop_front()
        {
            let errand = errand.run(self.runway.clone());
            self.flying.push(errand.map(|()| Landed::Errand).boxed());
        }
        let now = Instant::now();
        self.crowded = false;
        while self.may_launch() && self.since().until.is_none_or(|until| until <= now) {
            let Some(slot) = self.slot.take().or_else(|| self.runway.slots.take()) else {
                self.crowded = true;
                break;
            };
            let Some(parcel) = self.due(now) else { break };
            let flight = fly(self.runway.clone(), parcel);
            let flight = flight.map(|flown| {
                drop(slot);
                Landed::Parcel(flown)
            });
            self.flying.push(flight.boxed());
        }
        // What cannot be used now is for others.
        self.slot = None;
    }

    /// What is known of the destination.
    fn since(&self) -> Since {
        *self.away.borrow()
    }

    /// It is not left alone any more.
    fn try_now(&mut self) {
        self.try_another = false;
        self.runway.away.is_back();
    }

    /// After a failure one batch goes ahead to see whether the destination is back.
    fn may_launch(&self) -> bool {
        let most = if self.since().attempts > 0 {
            1
        } else {
            self.common.concurrency
        };
        self.flying.len() < most && !self.health.is_paused() && !self.handing_over
    }

    /// What is refused in parts must not pile up behind ever new batches, and where one batch goes at a time nothing may
    /// overtake it: such a sink keeps the order.
    fn may_send_fresh(&self) -> bool {
        let most = match self.common.concurrency {
            1 => 1,
            more => 2 * more,
        };
        !self.open.events.is_empty() && self.waiting.len() < most
    }

    fn due(&mut self, now: Instant) -> Option<Parcel> {
        if std::mem::take(&mut self.try_another)
            && let Some(parcel) = self.another()
        {
            return Some(parcel);
        }
        if let Some(parcel) = self.resent(now) {
            return Some(parcel);
        }
        let due = self.may_send_fresh() && self.fresh_at(now) <= now;
        due.then(|| self.fresh())
    }

    /// One of those that wait, if it is time and there is budget for it.
    fn resent(&mut self, now: Instant) -> Option<Parcel> {
        let is_due = |parcel: &Parcel| parcel.not_before.is_none_or(|at| at <= now);
        let at = self.waiting.iter().position(is_due)?;
        if self.unfunded.is_some_and(|until| until > now) {
            return None;
        }
        self.unfunded = self.runway.budget.spend(now).err();
        match self.unfunded {
            None => self.waiting.remove(at),
            Some(_) => None,
        }
    }

    fn fresh(&mut self) -> Parcel {
        Parcel::new(std::mem::take(&mut self.open).events)
    }

    /// Besides one that is not among those that wait.
    fn has_another(&self) -> bool {
        !self.waiting.is_empty() || !self.open.events.is_empty()
    }

    /// A batch other than the oldest, of those that are at hand.
    fn another(&mut self) -> Option<Parcel> {
        match !self.open.events.is_empty() && self.waiting.len() < trust::HELD {
            true => Some(self.fresh()),
            false => {
                let others = self
                    .waiting
                    .len()
                    .checked_sub(1)
                    .filter(|others| *others > 0)?;
                self.turn = self.turn.wrapping_add(1);
                self.waiting.remove(1 + self.turn % others)
            }
        }
    }

    /// When the batch that is being filled goes.
    fn fresh_at(&self, now: Instant) -> Instant {
        match self.open.since {
            Some(since) if !self.open.full && self.until.is_none() => {
                since + self.common.batch.max_delay
            }
            _ => now,
        }
    }

    /// The next moment at which something can be done that could not be done now.
    fn wake(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut moments = Vec::with_capacity(4);
        if self.may_launch() && !self.crowded {
            let from = self.since().until.unwrap_or(now);
            let again = self
                .waiting
                .iter()
                .map(|parcel| parcel.not_before.unwrap_or(now))
                .min();
            let funded = self.unfunded.unwrap_or(from);
            moments.extend(again.map(|at| at.max(from).max(funded)));
            if self.may_send_fresh() {
                moments.push(self.fresh_at(now).max(from));
            }
        }
        if self.may_save() {
            moments.push(self.saved + self.rhythm);
        }
        if self.behind && self.old_end.is_none() {
            moments.push(now + LOOK_BEHIND);
        }
        moments.extend(self.read_again);
        moments.into_iter().min()
    }

    fn land(&mut self, landed: Landed) {
        let Landed::Parcel(flown) = landed else {
            return;
        };
        let Flown {
            settled,
            again,
            trouble,
        } = flown;
        for (event, fate) in settled {
            self.progress.settle(event, fate);
        }
        let Some(trouble) = trouble else {
            self.try_now();
            if self.waiting.is_empty() {
                self.health.is(State::Running);
            }
            return;
        };
        self.again(again, trouble);
    }

    /// Puts back what was not taken.
    fn again(&mut self, mut parcel: Parcel, trouble: Trouble) {
        let (now, retry) = (Instant::now(), self.common.retry);
        let Trouble {
            reason,
            after,
            away,
            refuses,
            at_once,
        } = trouble;
        let oldest = (self.waiting.front()).is_none_or(|other| parcel.first() < other.first());
        if !away {
            if !at_once {
                parcel.attempts += 1;
                parcel.not_before = Some(now + backoff::wait(retry, parcel.attempts, after));
            }
            self.try_now();
        } else {
            let another = refuses && oldest && self.has_another();
            let counts = self.runway.away.failed(now, |attempts| match another {
                true => Duration::ZERO,
                false => backoff::wait(retry, attempts, after),
            });
            if counts {
                self.try_another = another;
            }
        }
        self.health.retrying(&reason, parcel.events.len());
        let at = self
            .waiting
            .partition_point(|other| other.first() < parcel.first());
        self.waiting.insert(at, parcel);
    }

    // === the cursor ===

    /// A snapshot holds what was sent, so it fits the position only while nothing is under way.
    fn may_save(&self) -> bool {
        self.saving.is_none()
            && self.progress.has_settled()
            && !(self.stateful && !(self.flying.is_empty() && self.waiting.is_empty()))
    }

    fn save(&mut self) {
        let now = Instant::now();
        if self.may_save() && (now >= self.saved + self.rhythm || self.until.is_some()) {
            self.saved = now;
            let from = self.progress.start();
            let (to, account) = self.progress.take();
            self.note_passed(from, to);
            let state = if self.stateful {
                self.runway.sink.snapshot()
            } else {
                None
            };
            let cursor = Arc::clone(&self.cursor);
            let save = async move { cursor.advance(Seq(to), account, state).await };
            self.saving = Some(save.boxed());
        }
    }

    /// For whoever asks later what became of an event.
    fn note_passed(&mut self, from: u64, to: u64) {
        self.note(from, to, Word::Done);
        for (range, fate) in self.progress.lost() {
            let word = match fate {
                Fate::Expired => Word::Expired,
                _ => Word::Corrupt,
            };
            self.note(range.start, range.end, word);
        }
    }

    fn note(&self, from: u64, to: u64, word: Word) {
        self.trail.note(self.health.name(), from..to, word);
    }

    fn judge_save(&self, saved: Result<(), CursorError>) -> Option<End> {
        let error = saved.err()?;
        self.health.error(&error.to_string());
        match error {
            // It holds in memory and is written again by the journal.
            CursorError::Disk { .. } => None,
            _ => {
                self.health.is(State::Stopped);
                Some(End::Broken)
            }
        }
    }

    // === the end ===

    fn is_drained(&self) -> bool {
        let Some(until) = self.until else {
            return false;
        };
        if !self.flying.is_empty() {
            return false;
        }
        if self.handing_over {
            return true;
        }
        let left = !self.open.events.is_empty()
            || !self.waiting.is_empty()
            || self.piece.is_some()
            || self.source.next() <= until;
        // A destination that is away or busy is not waited for, nor is an administrator. What is asked once more goes at once.
        let busy = self
            .waiting
            .iter()
            .any(|parcel| parcel.not_before.is_some());
        self.health.is_paused() || busy || self.since().attempts > 0 || !left
    }

    async fn close(&mut self) {
        if let Err(away) = self.runway.sink.flush().await {
            self.health.error(&away.reason);
        }
        if self.saving.is_some() {
            let saved = settled(&mut self.saving).await;
            self.saving = None;
            if self.judge_save(saved).is_some() {
                return;
            }
        }
        self.until = Some(0);
        while self.may_save() {
            self.save();
            let saved = settled(&mut self.saving).await;
            self.saving = None;
            if self.judge_save(saved).is_some() {
                return;
            }
        }
    }
}

/// The answer to the save under way.
async fn settled(
    saving: &mut Option<BoxFuture<'static, Result<(), CursorError>>>,
) -> Result<(), CursorError> {
    match saving {
        Some(save) => save.await,
        None => Ok(()),
    }
}

fn gap(count: u64, fate: Fate) -> String {
    match fate {
        Fate::Expired => format!("{count} events left the log before this sink came to them"),
        _ => format!("{count} events of the log are damaged and cannot be sent"),
    }
}

impl Gathering {
    /// Takes an event in, or says that the batch is full without it.
    fn take(&mut self, number: u64, event: Carried, common: &Common) -> bool {
        let bytes = event.event().payload.len();
        let over = self.bytes + bytes > common.batch.max_bytes && !self.events.is_empty();
        if self.full || over {
            self.full = true;
            return false;
        }
        self.since.get_or_insert_with(Instant::now);
        let far = |(last, _): &(u64, _)| number - last > NEAR;
        let event = match self.events.last().is_some_and(far) {
            true => event.apart().into(),
            false => event,
        };
        self.events.push((number, event));
        self.bytes += bytes;
        self.full = self.events.len() >= common.batch.max_events;
        true
    }
}
