//! Whether a destination that says no to an event is believed.
//!
//! A wrong setting (an address that answers 400 to everything, a mapping that takes nothing) looks like thousands of bad events.
//! Made dead letters one by one they would be a disk full of good events, and the sink would look healthy. So does one bad
//! server of several behind one address: it refuses what the others take. The rule:
//!
//! | what it refused | so |
//! |---|---|
//! | some events of a batch of which it took others | they are asked again, then dead letters |
//! | a whole batch, and it has taken nothing since it was set up | nothing is: the sink waits and says so |
//! | up to 100 events in a row, and before them it took some | they are asked again, then dead letters: rare bad events come alone |
//! | more than that in a row | the sink waits and says so |
//! | what it refused before it took others | they are asked again, then dead letters: it was the events |
//!
//! **Asked again**: twice, at once, without the others, each time over another connection where the sink has such
//! ([`exporters::Sink::elsewhere`]).
//! A destination that then takes what it has refused contradicts itself. Until it has taken [`FORGIVEN`] events without
//! doing so again, its word counts after [`ASKS_DOUBTED`] times only, with pauses between them, and [`BELIEVED`] times; what is over that
//! waits. So a bad event costs two requests more, and a server of two that refuses everything costs one dead letter in 128 of
//! what it is asked, and 100 at most.
//!
//! While the sink waits, the oldest batch is tried again, and right after it another one: up to [`HELD`] batches are held, and
//! the first event that any of them gets in shows whose fault it was. So a batch of nothing but bad events costs a working sink
//! one more round, and a wrong setting costs 100 dead letters at most. What stays is a destination that refuses [`HELD`] whole
//! batches in a row for the events' own sake: that cannot be told from a wrong setting, and `cresset sink skip` ends it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Refusals in a row that a destination is believed which has taken events before; in all, while it contradicts itself.
const BELIEVED: u64 = 100;
/// How often an event is refused before it is a dead letter. Twice would not do: of two servers behind one address the second
/// question comes to the first again, where the rest of the batch went to the other.
const ASKS: u32 = 3;
/// The same for a destination that took what it had refused.
const ASKS_DOUBTED: u32 = 8;
/// Events that it takes before that is forgotten.
const FORGIVEN: u64 = 10_000;
/// Refused batches that wait at once, to be tried in turn.
pub(super) const HELD: usize = 4;

/// What a destination has shown since its sink was set up. All lanes of a sink share it.
#[derive(Debug, Default)]
pub(super) struct Trust {
    taken: AtomicU64,
    /// In a row.
    refused: AtomicU64,
    /// When its contradictions are forgotten, by what it has taken until then; 0: there was none.
    doubted_until: AtomicU64,
    /// Dead letters that it got while it contradicted itself.
    cost: AtomicU64,
}

/// When a batch was refused as a whole, by what the destination had taken until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Doubt(u64);

/// What becomes of an event whose refusal may be its own fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It was refused often enough.
    Dead,
    /// It is asked again at once.
    Again,
    /// It is asked again after a pause: the destination contradicts itself.
    Later,
}

impl Trust {
    /// It took so many events.
    pub(super) fn took(&self, events: usize) {
        if events > 0 {
            self.taken.fetch_add(events as u64, Ordering::Relaxed);
            self.refused.store(0, Ordering::Relaxed);
        }
    }

    /// What it has taken until now.
    pub(super) fn now(&self) -> Doubt {
        Doubt(self.taken.load(Ordering::Relaxed))
    }

    /// It took nothing of a batch and refused events of it, so many for the first time: whether that is their own fault.
    /// `before` is what was answered when it refused them before.
    ///
    /// # Errors
    /// That is not known: they wait.
    pub(super) fn judge(&self, refused: usize, before: Option<Doubt>) -> Result<(), Doubt> {
        let taken = self.taken.load(Ordering::Relaxed);
        if before.is_some_and(|Doubt(then)| taken > then) {
            return Ok(());
        }
        let refused = refused as u64;
        let row = self.refused.fetch_add(refused, Ordering::Relaxed) + refused;
        match taken > 0 && row <= BELIEVED {
            true => Ok(()),
            false => Err(before.unwrap_or(Doubt(taken))),
        }
    }

    /// It took what it had refused. True: for the first time, as far as is remembered.
    pub(super) fn contradicts(&self) -> bool {
        let taken = self.taken.load(Ordering::Relaxed);
        let until = self.doubted_until.swap(taken + FORGIVEN, Ordering::Relaxed);
        let new = taken >= until;
        if new {
            self.cost.store(0, Ordering::Relaxed);
        }
        new
    }

    fn is_doubted(&self) -> bool {
        self.taken.load(Ordering::Relaxed) < self.doubted_until.load(Ordering::Relaxed)
    }

    /// What becomes of an event that was refused so often.
    pub(super) fn verdict(&self, asks: u32) -> Verdict {
        if !self.is_doubted() {
            return match asks >= ASKS {
                true => Verdict::Dead,
                false => Verdict::Again,
            };
        }
        let dies = asks >= ASKS_DOUBTED && self.cost.fetch_add(1, Ordering::Relaxed) < BELIEVED;
        match dies {
            true => Verdict::Dead,
            false if asks < ASKS => Verdict::Again,
            false => Verdict::Later,
        }
    }
}

/// What is said of a destination that contradicts itself.
pub(super) const CONTRADICTS: &str = "it takes events that it refused a moment ago: is there more than one server behind its address, and one of them set up wrongly?";

/// What status says of a sink whose destination refuses everything.
pub(super) fn told(reason: &str) -> String {
    let line = reason.lines().next().unwrap_or_default();
    format!(
        "it refuses every event, so none is made a dead letter: {line}; mend the sink's settings or the destination, or leave these events out with `cresset sink skip`"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_that_has_taken_nothing_is_not_believed() {
        let trust = Trust::default();
        assert_eq!(trust.judge(1, None), Err(Doubt(0)));
        trust.took(0);
        assert_eq!(trust.judge(1, Some(Doubt(0))), Err(Doubt(0)));
        // It takes others: so it was the events, however many.
        trust.took(1);
        assert_eq!(trust.judge(5000, Some(Doubt(0))), Ok(()));
    }

    #[test]
    fn one_that_takes_events_is_believed_a_hundred_times_in_a_row() {
        let trust = Trust::default();
        trust.took(7);
        for _ in 0..BELIEVED {
            assert_eq!(trust.judge(1, None), Ok(()));
        }
        assert_eq!(trust.judge(1, None), Err(Doubt(7)));
        assert_eq!(trust.judge(1, Some(Doubt(7))), Err(Doubt(7)));
        trust.took(1);
        assert_eq!(trust.judge(1, Some(Doubt(7))), Ok(()));
        assert_eq!(trust.judge(101, None), Err(Doubt(8)));
    }

    #[test]
    fn an_event_is_asked_three_times_and_more_often_of_one_that_contradicts_itself() {
        let trust = Trust::default();
        trust.took(1);
        for asks in 1..ASKS {
            assert_eq!(trust.verdict(asks), Verdict::Again);
        }
        assert_eq!(trust.verdict(ASKS), Verdict::Dead);
        assert!(trust.contradicts() && !trust.contradicts());
        assert_eq!(trust.verdict(1), Verdict::Again);
        for asks in ASKS..ASKS_DOUBTED {
            assert_eq!(trust.verdict(asks), Verdict::Later);
        }
        for _ in 0..BELIEVED {
            assert_eq!(trust.verdict(ASKS_DOUBTED), Verdict::Dead);
        }
        assert_eq!(trust.verdict(ASKS_DOUBTED + 100), Verdict::Later);
        trust.took(FORGIVEN as usize);
        assert_eq!(trust.verdict(ASKS), Verdict::Dead);
        assert!(trust.contradicts(), "that is news again");
    }
}
