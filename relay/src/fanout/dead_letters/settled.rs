//! Which dead letters are done with although older ones are kept.
//!
//! ```text
//!        cursor ▼
//! ─ gone ───────┤ kept │ retried × 3 │ kept │ dropped │ kept …
//! state  version u8 = 2 │ elsewhere u64 │ (first u64 │ count u64 │ fate u8: 1 retried, 2 dropped, 3 damaged)…        big-endian
//! ```
//! Version 1 had no `elsewhere`, and no letter was damaged in it.
//!
//! It is the state of the cursor in the dead letters' journal, so place and state are one atomic write.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use journal::Account;

const VERSION: u8 = 2;
/// Read, not written.
const FIRST_VERSION: u8 = 1;

/// What became of a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fanout) enum Fate {
    /// The destination has it now.
    Retried,
    /// Somebody let it go.
    Dropped,
    /// It cannot be read any more.
    Damaged,
}

/// Which are done with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Settled {
    /// Letters of the sink that never were here: it had them in a folder that somebody took away before this one was made.
    pub(super) elsewhere: u64,
    /// Runs of letters of one fate: first letter → how many, and what became of them. No two touch and share a fate.
    runs: BTreeMap<u64, (u64, Fate)>,
}

/// So many of each fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) retried: u64,
    pub(super) dropped: u64,
    pub(super) damaged: u64,
}

impl Tally {
    pub(super) fn all(self) -> u64 {
        self.retried + self.dropped + self.damaged
    }

    fn add(&mut self, count: u64, fate: Fate) {
        *match fate {
            Fate::Retried => &mut self.retried,
            Fate::Dropped => &mut self.dropped,
            Fate::Damaged => &mut self.damaged,
        } += count;
    }
}

impl Settled {
    pub(super) fn has(&self, letter: u64) -> bool {
        self.fate(letter).is_some()
    }

    /// What became of a letter that is done with behind one that is kept.
    pub(super) fn fate(&self, letter: u64) -> Option<Fate> {
        let (first, (count, fate)) = self.runs.range(..=letter).next_back()?;
        (letter - first < *count).then_some(*fate)
    }

    /// The last letter that has a fate; 0: none has.
    pub(super) fn last(&self) -> u64 {
        let last = self.runs.last_key_value();
        last.map_or(0, |(first, (count, _))| first + count - 1)
    }

    /// A letter that has no fate yet gets one; answers whether it had none.
    pub(super) fn put(&mut self, letter: u64, fate: Fate) -> bool {
        if self.has(letter) {
            return false;
        }
        let (mut first, mut count) = (letter, 1);
        if let Some((&before, &(n, same))) = self.runs.range(..letter).next_back()
            && same == fate
            && before + n == letter
        {
            (first, count) = (before, n + 1);
        }
        if let Some(&(n, same)) = self.runs.get(&(letter + 1))
            && same == fate
        {
            self.runs.remove(&(letter + 1));
            count += n;
        }
        self.runs.insert(first, (count, fate));
        true
    }

    /// Takes what is settled in front of the first letter that is not, from `low` on: where that letter is, and the account
    /// of what lies before it.
    pub(super) fn take_front(&mut self, low: u64) -> (u64, Account) {
        let (mut to, mut taken) = (low, Tally::default());
        while let Some(run) = self.runs.first_entry().filter(|run| *run.key() <= to) {
            let (first, (count, fate)) = run.remove_entry();
            taken.add(count, fate);
            to = to.max(first + count);
        }
        let account = Account {
            delivered: taken.retried,
            filtered: taken.dropped,
            corrupt: taken.damaged,
            ..Account::default()
        };
        (to, account)
    }

    /// How many letters from `low` on have which fate.
    pub(super) fn count_from(&self, low: u64) -> Tally {
        let mut tally = Tally::default();
        for (&first, &(count, fate)) in &self.runs {
            tally.add((first + count).saturating_sub(first.max(low)), fate);
        }
        tally
    }

    pub(super) fn save(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(9 + 17 * self.runs.len());
        out.put_u8(VERSION);
        out.put_u64(self.elsewhere);
        for (&first, &(count, fate)) in &self.runs {
            out.put_u64(first);
            out.put_u64(count);
            out.put_u8(match fate {
                Fate::Retried => 1,
                Fate::Dropped => 2,
                Fate::Damaged => 3,
            });
        }
        out.freeze()
    }

    pub(super) fn load(mut bytes: Bytes) -> Result<Settled, String> {
        let mut settled = Settled::default();
        match bytes.try_get_u8() {
            Ok(FIRST_VERSION) => {}
            Ok(VERSION) => {
                let elsewhere = bytes.try_get_u64();
                settled.elsewhere = elsewhere.map_err(|_| "it is cut short".to_owned())?;
            }
            found => return Err(format!("its version is {found:?}, not {VERSION}")),
        }
        while bytes.len() >= 17 {
            let (first, count) = (bytes.get_u64(), bytes.get_u64());
            let fate = match bytes.get_u8() {
                1 => Fate::Retried,
                2 => Fate::Dropped,
                3 => Fate::Damaged,
                other => return Err(format!("{other} is no fate of a dead letter")),
            };
            settled.runs.insert(first, (count, fate));
        }
        if bytes.is_empty() {
            Ok(settled)
        } else {
            Err("it is cut short".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(letters: &[(u64, Fate)]) -> Settled {
        let mut settled = Settled::default();
        for &(letter, fate) in letters {
            settled.put(letter, fate);
        }
        settled
    }

    #[test]
    fn neighbours_of_one_fate_are_one_run_in_whatever_order_they_came() {
        use Fate::{Dropped, Retried};
        let one = settled(&[(3, Retried), (5, Retried), (4, Retried), (6, Dropped)]);
        let other = settled(&[
            (6, Dropped),
            (4, Retried),
            (3, Retried),
            (5, Retried),
            (4, Dropped),
        ]);
        assert_eq!(one, other);
        assert_eq!(one.runs.len(), 2);
        assert_eq!(
            [2, 3, 5, 6, 7].map(|letter| one.has(letter)),
            [false, true, true, true, false]
        );
        let tally = |retried, dropped| Tally {
            retried,
            dropped,
            damaged: 0,
        };
        assert_eq!(one.count_from(0), tally(3, 1));
        assert_eq!(one.count_from(5), tally(1, 1));
        assert_eq!((one.last(), Settled::default().last()), (6, 0));
    }

    #[test]
    fn the_front_is_taken_up_to_the_first_letter_that_is_kept() {
        use Fate::{Dropped, Retried};
        let mut settled = settled(&[(1, Retried), (2, Dropped), (3, Retried), (5, Dropped)]);
        let account = Account {
            delivered: 2,
            filtered: 1,
            ..Account::default()
        };
        assert_eq!(settled.take_front(1), (4, account));
        assert_eq!(settled.take_front(4), (4, Account::default()));
        assert!(settled.has(5));
        // Retention went past letter 5, and one was retried before that.
        let dropped = Account {
            filtered: 1,
            ..Account::default()
        };
        assert_eq!(settled.take_front(8), (8, dropped));
    }

    #[test]
    fn what_is_saved_is_loaded_and_what_is_cut_is_refused() {
        let fates = [(1, Fate::Retried), (9, Fate::Dropped), (11, Fate::Damaged)];
        let settled = Settled {
            elsewhere: 7,
            ..settled(&fates)
        };
        let bytes = settled.save();
        assert_eq!(Settled::load(bytes.clone()), Ok(settled));
        for cut in (0..bytes.len()).filter(|cut| cut % 17 != 9) {
            assert!(Settled::load(bytes.slice(..cut)).is_err(), "cut at {cut}");
        }
        assert!(Settled::load(Bytes::from_static(&[3])).is_err());
    }

    #[test]
    fn what_the_first_version_wrote_is_loaded() {
        let mut bytes = vec![1];
        for (first, fate) in [(1_u64, 1_u8), (9, 2)] {
            bytes.extend(first.to_be_bytes());
            bytes.extend(1_u64.to_be_bytes());
            bytes.push(fate);
        }
        let fates = [(1, Fate::Retried), (9, Fate::Dropped)];
        assert_eq!(Settled::load(bytes.into()), Ok(settled(&fates)));
    }
}
