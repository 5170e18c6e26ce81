//! Whether a destination that says no to an event is believed.
//!
//! A wrong setting (an address that answers 400 to everything, a mapping that takes nothing) looks like thousands of bad events.
//! Made dead letters one by one they would be a disk full of good events, and the sink would look healthy. The rule:
//!
//! | what it refused | so |
//! |---|---|
//! | some events of a batch of which it took others | they are dead letters |
//! | a whole batch, and it has taken nothing since it was set up | nothing is: the sink waits and says so |
//! | up to 100 events in a row, and before them it took some | they are dead letters: rare bad events come alone |
//! | more than that in a row | the sink waits and says so |
//! | what it refused before it took others | they are dead letters: it was the events |
//!
//! While the sink waits, the oldest batch is tried again, and right after it another one: up to [`HELD`] batches are held, and
//! the first event that any of them gets in shows whose fault it was. So a batch of nothing but bad events costs a working sink
//! one more round, and a wrong setting costs 100 dead letters at most. What stays is a destination that refuses [`HELD`] whole
//! batches in a row for the events' own sake: that cannot be told from a wrong setting, and `cresset sink skip` ends it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Refusals in a row that a destination is believed which has taken events before.
const BELIEVED: u64 = 100;
/// Refused batches that wait at once, to be tried in turn.
pub(super) const HELD: usize = 4;

/// What a destination has shown since its sink was set up. All lanes of a sink share it.
#[derive(Debug, Default)]
pub(super) struct Trust {
    taken: AtomicU64,
    /// In a row.
    refused: AtomicU64,
}

/// When a batch was refused as a whole, by what the destination had taken until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Doubt(u64);

impl Trust {
    /// It took so many events.
    pub(super) fn took(&self, events: usize) {
        if events > 0 {
            self.taken.fetch_add(events as u64, Ordering::Relaxed);
            self.refused.store(0, Ordering::Relaxed);
        }
    }

    /// It took nothing of a batch and refused so many events of it: whether that is their own fault. `before` is what was
    /// answered when it refused them the first time.
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
}

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
}
