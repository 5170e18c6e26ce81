//! Which dead letters are done with although older ones are kept.
//!
//! ```text
//!        cursor ▼
//! ─ gone ───────┤ kept │ retried × 3 │ kept │ dropped │ kept …
//! state  version u8 = 1 │ (first u64 │ count u64 │ fate u8: 1 retried, 2 dropped)…        big-endian
//! ```
//! It is the state of the cursor in the dead letters' journal, so place and state are one atomic write.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use journal::Account;

const VERSION: u8 = 1;

/// What became of a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fanout) enum Fate {
    /// The destination has it now.
    Retried,
    /// Somebody let it go.
    Dropped,
}

/// Runs of letters of one fate: first letter → how many, and what became of them. No two touch and share a fate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Settled(BTreeMap<u64, (u64, Fate)>);

impl Settled {
    pub(super) fn has(&self, letter: u64) -> bool {
        self.fate(letter).is_some()
    }

    /// What became of a letter that is done with behind one that is kept.
    pub(super) fn fate(&self, letter: u64) -> Option<Fate> {
        let (first, (count, fate)) = self.0.range(..=letter).next_back()?;
        (letter - first < *count).then_some(*fate)
    }

    /// A letter that has no fate yet gets one.
    pub(super) fn put(&mut self, letter: u64, fate: Fate) {
        if self.has(letter) {
            return;
        }
        let (mut first, mut count) = (letter, 1);
        if let Some((&before, &(n, same))) = self.0.range(..letter).next_back()
            && same == fate
            && before + n == letter
        {
            (first, count) = (before, n + 1);
        }
        if let Some(&(n, same)) = self.0.get(&(letter + 1))
            && same == fate
        {
            self.0.remove(&(letter + 1));
            count += n;
        }
        self.0.insert(first, (count, fate));
    }

    /// Takes what is settled in front of the first letter that is not, from `low` on: where that letter is, and the account
    /// of what lies before it.
    pub(super) fn take_front(&mut self, low: u64) -> (u64, Account) {
        let (mut to, mut account) = (low, Account::default());
        while let Some(run) = self.0.first_entry().filter(|run| *run.key() <= to) {
            let (first, (count, fate)) = run.remove_entry();
            match fate {
                Fate::Retried => account.delivered += count,
                Fate::Dropped => account.filtered += count,
            }
            to = to.max(first + count);
        }
        (to, account)
    }

    /// How many letters from `low` on have a fate: retried, dropped.
    pub(super) fn count_from(&self, low: u64) -> (u64, u64) {
        let (mut retried, mut dropped) = (0, 0);
        for (&first, &(count, fate)) in &self.0 {
            let inside = (first + count).saturating_sub(first.max(low));
            match fate {
                Fate::Retried => retried += inside,
                Fate::Dropped => dropped += inside,
            }
        }
        (retried, dropped)
    }

    pub(super) fn save(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(1 + 17 * self.0.len());
        out.put_u8(VERSION);
        for (&first, &(count, fate)) in &self.0 {
            out.put_u64(first);
            out.put_u64(count);
            out.put_u8(match fate {
                Fate::Retried => 1,
                Fate::Dropped => 2,
            });
        }
        out.freeze()
    }

    pub(super) fn load(mut bytes: Bytes) -> Result<Settled, String> {
        let mut settled = Settled::default();
        match bytes.try_get_u8() {
            Ok(VERSION) => {}
            found => return Err(format!("its version is {found:?}, not {VERSION}")),
        }
        while bytes.len() >= 17 {
            let (first, count) = (bytes.get_u64(), bytes.get_u64());
            let fate = match bytes.get_u8() {
                1 => Fate::Retried,
                2 => Fate::Dropped,
                other => return Err(format!("{other} is no fate of a dead letter")),
            };
            settled.0.insert(first, (count, fate));
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
        assert_eq!(one.0.len(), 2);
        assert_eq!(
            [2, 3, 5, 6, 7].map(|letter| one.has(letter)),
            [false, true, true, true, false]
        );
        assert_eq!(one.count_from(0), (3, 1));
        assert_eq!(one.count_from(5), (1, 1));
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
        let settled = settled(&[(1, Fate::Retried), (9, Fate::Dropped)]);
        let bytes = settled.save();
        assert_eq!(Settled::load(bytes.clone()), Ok(settled));
        for cut in (0..bytes.len()).filter(|cut| cut % 17 != 1) {
            assert!(Settled::load(bytes.slice(..cut)).is_err(), "cut at {cut}");
        }
        assert!(Settled::load(Bytes::from_static(&[2])).is_err());
    }
}
