//! Steering single sinks: pause, resume, rewind, skip, test, tap, dead letters.
//!
//! A pause is on disk before it holds, so a crash in between pauses at most what was asked to be. Moves are made by the sink's
//! own task ([`super::orders`]); what they did is durable when the call returns.

use std::sync::Arc;
use std::time::Duration;

use exporters::{Carried, Common, Encoded, Outcome, Sink, Step, Trial, Unavailable};
use proto::Event;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::Fanout;
use super::dead_letters::{DeadLetters, Fate, Part};
use super::health::Health;
use super::orders::{Errand, Moved, Order};
use super::pauses::{Pause, Pauses};
use super::taps::Onlooker;
use crate::log::{Supply, unix_nanoseconds};

/// How long a task may take to obey: it waits for nothing but the disk.
const OBEY: Duration = Duration::from_secs(30);

/// Why a sink was not steered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SteerError {
    /// There is no such sink.
    #[error("there is no sink `{name}`; there are: {known}")]
    Unknown { name: String, known: String },
    /// It cannot be done to this sink, or not now.
    #[error("sink {name}: {reason}")]
    Refused { name: String, reason: String },
    /// The sink's task has ended.
    #[error("sink {name} does not answer; its state in `cresset sink list` says more")]
    Silent { name: String },
}

/// Where a sink's orders go.
pub(super) struct Post {
    pub(super) health: Arc<Health>,
    pub(super) orders: mpsc::Sender<Order>,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) common: Common,
}

/// What a move did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Steered {
    /// The event that the cursor stood at.
    pub(crate) from: u64,
    /// The event that it stands at.
    pub(crate) to: u64,
}

/// One sink, for whoever may steer it.
#[derive(Clone)]
pub(crate) struct Steering {
    post: Arc<Post>,
    pauses: Pauses,
}

impl Fanout {
    /// The sink of this name.
    ///
    /// # Errors
    /// [`SteerError::Unknown`].
    pub(crate) fn steering(&self, name: &str) -> Result<Steering, SteerError> {
        let units = self.inner.units.load();
        let Some(unit) = units.iter().find(|unit| unit.name() == name) else {
            let known: Vec<&str> = units.iter().map(|unit| unit.name()).collect();
            return Err(SteerError::Unknown {
                name: name.to_owned(),
                known: known.join(", "),
            });
        };
        Ok(Steering {
            post: Arc::clone(&unit.post),
            pauses: self.inner.pauses.clone(),
        })
    }
}

impl Steering {
    /// The sink's name.
    pub(crate) fn name(&self) -> &str {
        self.post.health.name()
    }

    /// Whether it is fed from the partitions that this relay has, while other relays have others.
    pub(crate) fn has_a_share(&self) -> bool {
        matches!(self.post.health.lasting().supply, Supply::Share(_))
    }

    fn refused(&self, reason: impl ToString) -> SteerError {
        SteerError::Refused {
            name: self.name().to_owned(),
            reason: reason.to_string(),
        }
    }

    fn silent(&self) -> SteerError {
        SteerError::Silent {
            name: self.name().to_owned(),
        }
    }

    /// Nothing more is sent until [`resume`](Steering::resume), also after a restart; what is on its way is finished. False:
    /// it was paused already.
    ///
    /// # Errors
    /// The disk.
    pub(crate) async fn pause(&self, by: String) -> Result<bool, SteerError> {
        if self.post.health.is_paused() {
            return Ok(false);
        }
        let since = unix_nanoseconds() / 1_000_000_000;
        let pause = Pause { by, since };
        self.on_disk({
            let pause = pause.clone();
            move |pauses, name| pauses.set(name, &pause)
        })
        .await?;
        Ok(self.post.health.set_pause(Some(pause)))
    }

    /// It goes on where it stands. False: it was not paused.
    ///
    /// # Errors
    /// The disk; the sink's task has ended.
    pub(crate) async fn resume(&self) -> Result<bool, SteerError> {
        self.on_disk(|pauses, name| pauses.clear(name)).await?;
        let changed = self.post.health.set_pause(None);
        self.order(Order::Look).await?;
        Ok(changed)
    }

    async fn on_disk(
        &self,
        change: impl FnOnce(&Pauses, &str) -> std::io::Result<()> + Send + 'static,
    ) -> Result<(), SteerError> {
        let (pauses, name) = (self.pauses.clone(), self.name().to_owned());
        tokio::task::spawn_blocking(move || change(&pauses, &name))
            .await
            .map_err(|e| self.refused(e))?
            .map_err(|e| self.refused(format!("it cannot be kept on disk: {e}")))
    }

    /// Everything since then (unix nanoseconds) is sent again.
    ///
    /// # Errors
    /// The sink cannot go back, or stands before that.
    pub(crate) async fn rewind(&self, since: u64) -> Result<Steered, SteerError> {
        self.moved(|done| Order::Rewind { since, done }).await
    }

    /// What came before then (unix nanoseconds; none: before now) is left out.
    ///
    /// # Errors
    /// The sink stands after that.
    pub(crate) async fn skip(&self, until: Option<u64>) -> Result<Steered, SteerError> {
        self.moved(|done| Order::Skip { until, done }).await
    }

    async fn moved(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<Moved, String>>) -> Order,
    ) -> Result<Steered, SteerError> {
        let (done, moved) = oneshot::channel();
        self.order(order(done)).await?;
        match timeout(OBEY, moved).await {
            Ok(Ok(Ok(Moved { from, to }))) => Ok(Steered { from, to }),
            Ok(Ok(Err(reason))) => Err(self.refused(reason)),
            Ok(Err(_)) | Err(_) => Err(self.silent()),
        }
    }

    async fn order(&self, order: Order) -> Result<(), SteerError> {
        let given = timeout(OBEY, self.post.orders.send(order)).await;
        given.map_err(|_| self.silent())?.map_err(|_| self.silent())
    }

    /// Whether the sink's filter wants an event like this.
    pub(crate) fn wants(&self, event: &Event) -> bool {
        self.post.common.filter.wants(event)
    }

    /// Tries the destination with an event; the steps come out as they end. A paused sink is tried all the same.
    ///
    /// # Errors
    /// The sink's task has ended.
    pub(crate) async fn test(&self, event: Event) -> Result<mpsc::Receiver<Step>, SteerError> {
        let (trial, steps) = Trial::new();
        let event = Carried::from(Encoded::new(event));
        self.order(Order::Errand(Errand::Test { event, trial }))
            .await?;
        Ok(steps)
    }

    /// Looks on while it sends.
    ///
    /// # Errors
    /// Too many look on.
    pub(crate) fn tap(&self) -> Result<Onlooker, SteerError> {
        self.post
            .health
            .taps
            .watch()
            .map_err(|reason| self.refused(reason))
    }

    /// Its dead letters.
    pub(crate) fn letters(&self) -> Letters {
        Letters {
            sink: self.clone(),
            store: Arc::clone(&self.post.health.dead_letters),
        }
    }
}

/// The dead letters of one sink.
#[derive(Clone)]
pub(crate) struct Letters {
    sink: Steering,
    store: Arc<DeadLetters>,
}

impl Letters {
    /// One past the newest letter.
    pub(crate) fn end(&self) -> u64 {
        self.store.end()
    }

    /// Whether their events' numbers say something by themselves: those of one partition of many do not.
    pub(crate) fn are_numbered(&self) -> bool {
        matches!(self.sink.post.health.supply, Supply::Lane(_))
    }

    /// Some of those that are kept, from `from` on and before `until`.
    ///
    /// # Errors
    /// The disk.
    pub(crate) async fn read(&self, from: u64, until: u64) -> Result<Part, SteerError> {
        let store = Arc::clone(&self.store);
        let read = tokio::task::spawn_blocking(move || store.read(from, until)).await;
        read.map_err(|e| self.sink.refused(e))?
            .map_err(|e| self.sink.refused(e))
    }

    /// Sends some once more, without what the sink's settings take out by now: a secret may have been seen in one first. Those
    /// that are delivered are letters no longer; what became of each is the answer.
    ///
    /// # Errors
    /// The sink is paused, busy for longer than `patience`, or its task has ended; the letters stay.
    pub(crate) async fn send(
        &self,
        letters: &[(u64, Event)],
        patience: Duration,
        by: String,
    ) -> Result<Result<Vec<Outcome>, Unavailable>, SteerError> {
        if self.sink.post.health.is_paused() {
            return Err(self
                .sink
                .refused("it is paused; `cresset sink resume` comes first"));
        }
        let redact = &self.sink.post.common.redact;
        let events = letters
            .iter()
            .map(|(_, event)| redact.event(Encoded::new(event.clone()).into()))
            .collect();
        let (done, answer) = oneshot::channel();
        self.sink
            .order(Order::Errand(Errand::Send { events, done }))
            .await?;
        let answer = match timeout(patience, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => return Err(self.sink.silent()),
            Err(_) => Err(Unavailable::new(format!("no answer in {patience:?}"))),
        };
        if let Ok(outcomes) = &answer {
            let done = letters.iter().zip(outcomes);
            let done = done.filter(|(_, outcome)| **outcome == Outcome::Done);
            let numbers: Vec<u64> = done.map(|((number, _), _)| *number).collect();
            self.settle(&numbers, Fate::Retried, by).await?;
        }
        Ok(answer)
    }

    /// Lets some go, unsent.
    ///
    /// # Errors
    /// The disk.
    pub(crate) async fn discard(&self, letters: &[u64], by: String) -> Result<(), SteerError> {
        self.settle(letters, Fate::Dropped, by).await
    }

    async fn settle(&self, letters: &[u64], fate: Fate, by: String) -> Result<(), SteerError> {
        if letters.is_empty() {
            return Ok(());
        }
        let settled = self.store.settle(letters, fate, by).await;
        settled.map_err(|e| self.sink.refused(e))
    }
}

#[cfg(test)]
mod tests;
