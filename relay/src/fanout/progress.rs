//! What became of every event from the cursor on: outcomes come in any order, the cursor moves in one.
//!
//! ```text
//!          taken ▼ low (lowest open)          end (read so far) ▼
//! ───────────────┤ open │ delivered │ filtered × 900 │ open │ …  │
//! ```

use std::collections::VecDeque;
use std::ops::Range;

use journal::Account;

/// What an event is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Not finished.
    Open,
    Delivered,
    Filtered,
    DeadLettered,
    Expired,
    Corrupt,
}

/// Neighbours of one fate, so that a long filtered stretch costs one entry.
#[derive(Clone, Copy, Debug)]
struct Run {
    first: u64,
    count: u64,
    fate: Fate,
}

/// The events between the cursor and what has been read.
#[derive(Debug)]
pub(super) struct Progress {
    /// In order and without gaps; open events stand alone.
    runs: VecDeque<Run>,
    end: u64,
    /// Where the next event to be settled most likely is: outcomes come batch by batch, in order.
    likely: usize,
    /// What was taken and is neither delivered nor filtered, until somebody asks.
    lost: Vec<(Range<u64>, Fate)>,
}

impl Progress {
    /// Nothing read yet; the next event is `next`.
    pub(super) fn new(next: u64) -> Self {
        Progress {
            runs: VecDeque::new(),
            end: next,
            likely: 0,
            lost: Vec::new(),
        }
    }

    /// The event that will be read next.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// The lowest event that is not finished.
    pub(super) fn low(&self) -> u64 {
        let open = self.runs.iter().find(|run| run.fate == Fate::Open);
        open.map_or(self.end, |run| run.first)
    }

    /// How many entries are held.
    pub(super) fn len(&self) -> usize {
        self.runs.len()
    }

    /// The next `count` events share a fate.
    pub(super) fn push(&mut self, fate: Fate, count: u64) {
        if count == 0 {
            return;
        }
        let first = self.end;
        self.end += count;
        match self.runs.back_mut() {
            Some(last) if last.fate == fate && fate != Fate::Open => last.count += count,
            _ => self.runs.push_back(Run { first, count, fate }),
        }
    }

    /// An open event is finished.
    pub(super) fn settle(&mut self, event: u64, fate: Fate) {
        let at = match self.runs.get(self.likely) {
            Some(run) if run.first == event => self.likely,
            _ => self.runs.partition_point(|run| run.first < event),
        };
        self.likely = at + 1;
        if let Some(run) = self.runs.get_mut(at)
            && run.first == event
            && run.fate == Fate::Open
        {
            run.fate = fate;
        }
    }

    /// Whether the cursor can move.
    pub(super) fn has_settled(&self) -> bool {
        self.runs.front().is_some_and(|run| run.fate != Fate::Open)
    }

    /// Takes finished events in front, expired ones or others but never both, so that the cursor remembers which they were:
    /// its new position and the account of what it passes.
    pub(super) fn take(&mut self) -> (u64, Account) {
        let mut account = Account::default();
        let front = self.runs.front().copied();
        let expired = front.is_some_and(|run| run.fate == Fate::Expired);
        while let Some(run) = self.runs.front().copied()
            && run.fate != Fate::Open
            && (run.fate == Fate::Expired) == expired
        {
            run.fate.count(run.count, &mut account);
            if matches!(run.fate, Fate::Expired | Fate::Corrupt) {
                self.lost.push((run.first..run.first + run.count, run.fate));
            }
            self.runs.pop_front();
        }
        (self.start(), account)
    }

    /// Stretches that could not be had among what was taken since the last call.
    pub(super) fn lost(&mut self) -> Vec<(Range<u64>, Fate)> {
        std::mem::take(&mut self.lost)
    }

    /// The event that the cursor stands at, once all that was taken is saved.
    pub(super) fn start(&self) -> u64 {
        self.runs.front().map_or(self.end, |run| run.first)
    }

    /// The account of all events from [`start`](Progress::start) to `to` when nothing more is done for them: those that are
    /// not finished, or not even read, count as filtered, for somebody left them out; `first` is the oldest that there is.
    pub(super) fn abandoned(&self, to: u64, first: u64) -> Account {
        let mut account = Account::default();
        for run in &self.runs {
            let inside = (run.first + run.count).min(to).saturating_sub(run.first);
            let fate = match run.fate {
                Fate::Open => Fate::Filtered,
                finished => finished,
            };
            fate.count(inside, &mut account);
        }
        let unread = to.saturating_sub(self.end);
        let expired = first.min(to).saturating_sub(self.end);
        account.expired += expired;
        account.filtered += unread - expired;
        account
    }
}

impl Fate {
    /// Puts events of this fate into an account; open ones have no place in it.
    fn count(self, events: u64, account: &mut Account) {
        match self {
            Fate::Open => {}
            Fate::Delivered => account.delivered += events,
            Fate::Filtered => account.filtered += events,
            Fate::DeadLettered => account.dead_lettered += events,
            Fate::Expired => account.expired += events,
            Fate::Corrupt => account.corrupt += events,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cursor_stops_at_the_lowest_open_event() {
        let mut progress = Progress::new(10);
        for _ in 0..4 {
            progress.push(Fate::Open, 1);
        }
        progress.settle(11, Fate::Delivered);
        progress.settle(13, Fate::DeadLettered);
        assert!(!progress.has_settled());
        assert_eq!(progress.low(), 10);
        progress.settle(10, Fate::Delivered);
        let two = Account {
            delivered: 2,
            ..Account::default()
        };
        assert_eq!(progress.take(), (12, two));
        progress.settle(12, Fate::Delivered);
        let rest = Account {
            delivered: 1,
            dead_lettered: 1,
            ..Account::default()
        };
        assert_eq!(progress.take(), (14, rest));
        assert_eq!(progress.take(), (14, Account::default()));
    }

    #[test]
    fn the_account_adds_up_to_the_events_passed_whatever_the_order() {
        // Every order of settling five open events between other fates.
        let orders = permutations(&[101, 103, 110, 111, 115]);
        assert_eq!(orders.len(), 120);
        for order in orders {
            let mut progress = Progress::new(100);
            for (fate, count) in [
                (Fate::Filtered, 1),
                (Fate::Open, 1),
                (Fate::Expired, 1),
                (Fate::Open, 1),
                (Fate::Filtered, 4),
                (Fate::Corrupt, 2),
                (Fate::Open, 1),
                (Fate::Open, 1),
                (Fate::Filtered, 3),
                (Fate::Open, 1),
            ] {
                progress.push(fate, count);
            }
            let (mut position, mut total) = (100, Account::default());
            for event in order {
                progress.settle(event, Fate::Delivered);
                while progress.has_settled() {
                    let (to, account) = progress.take();
                    assert_eq!(to - position, account.total());
                    assert!([0, account.total()].contains(&account.expired));
                    (position, total) = (to, total + account);
                }
            }
            let expected = Account {
                delivered: 5,
                filtered: 8,
                expired: 1,
                corrupt: 2,
                dead_lettered: 0,
            };
            assert_eq!((position, total), (116, expected));
        }
    }

    #[test]
    fn a_long_filtered_stretch_is_one_entry() {
        let mut progress = Progress::new(1);
        progress.push(Fate::Open, 1);
        for _ in 0..10_000 {
            progress.push(Fate::Filtered, 1);
        }
        assert_eq!(progress.len(), 2);
    }

    #[test]
    fn what_is_abandoned_is_accounted_for_to_the_last_event() {
        let mut progress = Progress::new(10);
        progress.push(Fate::Open, 1);
        progress.push(Fate::Open, 1);
        progress.push(Fate::Corrupt, 3);
        progress.push(Fate::Open, 1);
        progress.settle(11, Fate::Delivered);
        for to in 10..25 {
            for first in [1, 12, 18, 30] {
                assert_eq!(progress.abandoned(to, first).total(), to - 10, "to {to}");
            }
        }
        let all = Account {
            delivered: 1,
            corrupt: 3,
            filtered: 6,
            ..Account::default()
        };
        assert_eq!(progress.abandoned(20, 1), all);
        let expired = Account {
            expired: 2,
            filtered: 4,
            ..all
        };
        assert_eq!(progress.abandoned(20, 18), expired);
    }

    fn permutations(items: &[u64]) -> Vec<Vec<u64>> {
        if items.is_empty() {
            return vec![Vec::new()];
        }
        let mut all = Vec::new();
        for (at, &item) in items.iter().enumerate() {
            let rest: Vec<u64> = items
                .iter()
                .enumerate()
                .filter(|(n, _)| *n != at)
                .map(|(_, &i)| i)
                .collect();
            all.extend(permutations(&rest).into_iter().map(|mut tail| {
                tail.insert(0, item);
                tail
            }));
        }
        all
    }
}
