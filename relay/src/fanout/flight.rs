//! One batch on its way: sent, judged, and what was refused for good written down.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use exporters::{Batch, Carried, Outcome, Sink, Unavailable};
use futures::FutureExt as _;
use tokio::time::Instant;

use super::away::Away;
use super::budget::Budget;
use super::dead_letters::{DeadLetter, DeadLetters};
use super::health::Health;
use super::progress::Fate;
use super::slots::Slots;
use super::taps::Taps;
use super::trust::{self, Doubt, Trust, Verdict};
use crate::traces::{self, Traces};

/// Events that are sent together, with their places in the journal, in order.
pub(super) struct Parcel {
    pub(super) events: Vec<(u64, Carried)>,
    /// How often the destination asked for another try.
    pub(super) attempts: u32,
    pub(super) not_before: Option<Instant>,
    /// What the destination had taken when it refused all of these before.
    doubted: Option<Doubt>,
    /// How often it refused single ones that may be at fault.
    asks: BTreeMap<u64, u32>,
}

impl Parcel {
    pub(super) fn new(events: Vec<(u64, Carried)>) -> Self {
        Parcel {
            events,
            attempts: 0,
            not_before: None,
            doubted: None,
            asks: BTreeMap::new(),
        }
    }

    /// It was refused before, by a destination that takes others or should.
    fn is_asked_again(&self) -> bool {
        self.doubted.is_some() || !self.asks.is_empty()
    }

    /// Its lowest event.
    pub(super) fn first(&self) -> u64 {
        self.events.first().map_or(u64::MAX, |(event, _)| *event)
    }
}

/// What became of a parcel.
pub(super) struct Flown {
    pub(super) settled: Vec<(u64, Fate)>,
    /// What must be sent again; empty without trouble.
    pub(super) again: Parcel,
    pub(super) trouble: Option<Trouble>,
}

/// Why not all is settled.
pub(super) struct Trouble {
    pub(super) reason: String,
    /// What the destination asked for.
    pub(super) after: Option<Duration>,
    /// It took nothing at all.
    pub(super) away: bool,
    /// It took nothing because it refuses everything.
    pub(super) refuses: bool,
    /// It is asked once more, which need not wait.
    pub(super) at_once: bool,
}

impl Trouble {
    fn away(Unavailable { reason, after }: Unavailable) -> Self {
        Trouble {
            reason,
            after,
            away: true,
            refuses: false,
            at_once: false,
        }
    }
}

/// What flights of a sink share.
#[derive(Clone)]
pub(super) struct Runway {
    pub(super) sink: Arc<dyn Sink>,
    pub(super) dead_letters: Arc<DeadLetters>,
    pub(super) taps: Arc<Taps>,
    pub(super) health: Arc<Health>,
    pub(super) traces: Traces,
    pub(super) trust: Arc<Trust>,
    pub(super) budget: Arc<Budget>,
    pub(super) away: Arc<Away>,
    pub(super) slots: Slots,
}

impl Runway {
    /// Sends these events together: an outcome for each, in their order.
    pub(super) async fn send(&self, batch: &Arc<Batch>) -> Result<Vec<Outcome>, Unavailable> {
        let tapped = self.taps.sent(batch.events());
        let answer = self.ask(batch).await;
        if let Some(tapped) = tapped {
            tapped.answered(batch.events(), &answer);
        }
        answer
    }

    async fn ask(&self, batch: &Arc<Batch>) -> Result<Vec<Outcome>, Unavailable> {
        // One sink's mistake must not end the others.
        let sending = AssertUnwindSafe(self.sink.send(Arc::clone(batch)));
        match sending.catch_unwind().await {
            Ok(Ok(outcomes)) if outcomes.len() != batch.len() => Err(Unavailable::new(format!(
                "the sink told of {} events when {} were sent; please report it",
                outcomes.len(),
                batch.len()
            ))),
            Ok(answer) => answer,
            Err(_) => Err(Unavailable::new(
                "the sink panicked; please report it with the log",
            )),
        }
    }
}

/// Sends a parcel. Dead letters are on disk when this ends.
pub(super) async fn fly(runway: Runway, parcel: Parcel) -> Flown {
    if !runway.traces.is_on() {
        return carry(runway, parcel).await;
    }
    let (traces, health) = (runway.traces.clone(), Arc::clone(&runway.health));
    let flight = traces::Flight {
        sink: &health.name,
        kind: health.kind,
        first: parcel.first(),
        last: parcel.events.last().map_or(0, |(event, _)| *event),
        events: parcel.events.len(),
        began: SystemTime::now(),
    };
    let flown = carry(runway, parcel).await;
    let trouble = flown
        .trouble
        .as_ref()
        .map(|trouble| trouble.reason.as_str());
    traces.sent(&flight, trouble);
    flown
}

async fn carry(runway: Runway, mut parcel: Parcel) -> Flown {
    if parcel.is_asked_again() {
        runway.sink.elsewhere();
    }
    let before = runway.trust.now();
    // Moved, not cloned: to count who holds an event costs more than the rest of its flight.
    let (numbers, events): (Vec<u64>, Vec<Carried>) =
        std::mem::take(&mut parcel.events).into_iter().unzip();
    let batch = Arc::new(Batch::new(events));
    let mut events = numbers.into_iter().zip(batch.events());
    let outcomes = match runway.send(&batch).await {
        Ok(outcomes) => outcomes,
        Err(away) => {
            parcel.events = events
                .map(|(number, event)| (number, event.clone()))
                .collect();
            return nothing(parcel, away);
        }
    };
    let mut flown = Flown {
        settled: Vec::with_capacity(outcomes.len()),
        again: parcel,
        trouble: None,
    };
    let (mut dead, mut refused) = (Vec::new(), Vec::new());
    let asks = std::mem::take(&mut flown.again.asks);
    let mut contradicts = false;
    for (outcome, (number, event)) in outcomes.into_iter().zip(&mut events) {
        match outcome {
            Outcome::Done => {
                contradicts |= asks.contains_key(&number);
                flown.settled.push((number, Fate::Delivered));
            }
            Outcome::Retry { after, reason } => {
                flown.again.events.push((number, event.clone()));
                flown.blame(reason, after);
            }
            Outcome::Reject { reason } => dead.push((number, event.clone(), reason)),
            Outcome::Refuse { reason } => refused.push((number, event.clone(), reason)),
        }
    }
    let taken = flown.settled.len();
    runway.trust.took(taken);
    if taken > 0 {
        runway.budget.took();
    }
    if contradicts && runway.trust.contradicts() {
        tracing::warn!("{}", trust::CONTRADICTS);
    }
    if !refused.is_empty() {
        let doubted = match taken {
            0 => flown.again.doubted,
            _ => Some(before),
        };
        let first = refused
            .iter()
            .filter(|(number, ..)| !asks.contains_key(number));
        match runway.trust.judge(first.count(), doubted) {
            Ok(()) => {
                dead.append(&mut flown.ask_again(refused, asks, &runway.trust));
                // As long as some of them are asked again.
                flown.again.doubted = doubted.filter(|_| !flown.again.asks.is_empty());
            }
            Err(doubt) => flown.doubt(refused, doubt),
        }
    }
    dead.sort_unstable_by_key(|(number, ..)| *number);
    if !dead.is_empty() {
        bury(&runway.dead_letters, dead, &mut flown).await;
    }
    flown
}

/// Events that were not taken, with their places in the journal and the reason.
type Refused = Vec<(u64, Carried, String)>;

fn nothing(parcel: Parcel, away: Unavailable) -> Flown {
    Flown {
        settled: Vec::new(),
        again: parcel,
        trouble: Some(Trouble::away(away)),
    }
}

impl Flown {
    /// The first reason is told, the longest wait is kept.
    fn blame(&mut self, reason: String, after: Option<Duration>) {
        match &mut self.trouble {
            Some(trouble) => trouble.after = trouble.after.max(after),
            None => {
                self.trouble = Some(Trouble {
                    reason,
                    after,
                    away: false,
                    refuses: false,
                    at_once: false,
                })
            }
        }
    }

    /// Asks again for those whose refusal is not believed yet; the others are dead.
    fn ask_again(&mut self, refused: Refused, asks: BTreeMap<u64, u32>, trust: &Trust) -> Refused {
        let (mut dead, mut again) = (Refused::new(), Refused::new());
        let mut at_once = self.trouble.is_none();
        for one in refused {
            let asked = 1 + asks.get(&one.0).copied().unwrap_or_default();
            match trust.verdict(asked) {
                Verdict::Dead => {
                    dead.push(one);
                    continue;
                }
                Verdict::Again => {}
                Verdict::Later => at_once = false,
            }
            self.again.asks.insert(one.0, asked);
            again.push(one);
        }
        if let Some((.., reason)) = again.first() {
            let why = if at_once {
                "once more"
            } else {
                trust::CONTRADICTS
            };
            self.blame(format!("refused, and asked again ({why}): {reason}"), None);
            if let Some(trouble) = &mut self.trouble {
                trouble.at_once = at_once;
            }
        }
        self.put_back(again);
        dead
    }

    /// The destination refused these and took nothing else, which may be its own fault.
    fn doubt(&mut self, refused: Refused, doubt: Doubt) {
        let reason = refused.first().map(|(.., reason)| trust::told(reason));
        self.put_back(refused);
        self.again.doubted = Some(doubt);
        self.trouble = Some(Trouble {
            reason: reason.unwrap_or_default(),
            after: None,
            away: true,
            refuses: true,
            at_once: false,
        });
    }

    /// They are sent again.
    fn put_back(&mut self, events: Refused) {
        let events = events.into_iter();
        self.again
            .events
            .extend(events.map(|(number, event, _)| (number, event)));
        self.again
            .events
            .sort_unstable_by_key(|(number, _)| *number);
    }
}

/// Writes down what was refused; what cannot be written down is sent again later.
async fn bury(dead_letters: &Arc<DeadLetters>, refused: Refused, flown: &mut Flown) {
    let letters: Vec<DeadLetter> = refused
        .iter()
        .map(|(sequence, event, reason)| DeadLetter {
            sequence: *sequence,
            reason: reason.clone(),
            event: event.event().clone(),
        })
        .collect();
    match dead_letters.write(&letters).await {
        Ok(()) => {
            let (count, reason) = (letters.len(), &letters[0].reason);
            tracing::warn!(
                count,
                reason,
                "events refused for good are kept as dead letters"
            );
            flown.settled.extend(
                refused
                    .into_iter()
                    .map(|(number, ..)| (number, Fate::DeadLettered)),
            );
        }
        Err(error) => {
            let path = dead_letters.path().display();
            flown.blame(
                format!("{path}: dead letters cannot be written: {error}"),
                None,
            );
            flown.put_back(refused);
        }
    }
}
