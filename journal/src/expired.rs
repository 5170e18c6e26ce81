//! Where the records were that retention removed before a cursor came to them.
//!
//! The account says how many expired, this says which: stretches in order, kept with the cursor ([`crate::slots`]), so that
//! somebody who looks for one record of long ago gets an answer. At most [`MOST`] are kept; beyond that the two oldest become
//! one that says less and is still true: *so many of these*.

use std::ops::Range;

use crate::Seq;

/// Stretches that a cursor keeps: each is an outage that outlasted what the journal holds.
pub(crate) const MOST: usize = 64;
/// first, end, count: three u64, little-endian.
pub(crate) const ENCODED: usize = 24;

/// So many of the records from `first` on and before `end` expired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// The oldest that may be among them.
    pub first: Seq,
    /// One past the newest.
    pub end: Seq,
    /// How many did: all, or fewer where neighbours had to be put together.
    pub count: u64,
}

impl Expired {
    /// Whether every record of the stretch expired.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.end.0 - self.first.0 == self.count
    }

    /// How many of these records expired: at least, and at most.
    #[must_use]
    pub fn among(&self, records: &Range<Seq>) -> (u64, u64) {
        let (first, end) = (
            self.first.0.max(records.start.0),
            self.end.0.min(records.end.0),
        );
        let inside = end.saturating_sub(first);
        let outside = self.end.0 - self.first.0 - inside;
        (self.count.saturating_sub(outside), self.count.min(inside))
    }

    /// One that can be: in order, of more than nothing and no more than there is room for.
    fn is_possible(&self) -> bool {
        self.first < self.end && (1..=self.end.0 - self.first.0).contains(&self.count)
    }
}

/// Those of one cursor, in order and apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stretches(Vec<Expired>);

impl Stretches {
    /// `count` of the next records expired; none of `first..end` is in an earlier stretch.
    pub(crate) fn add(&mut self, first: u64, end: u64, count: u64) {
        let next = Expired {
            first: Seq(first),
            end: Seq(end),
            count,
        };
        match self.0.last_mut() {
            _ if !next.is_possible() => {}
            Some(last) if last.end == next.first && last.is_whole() && next.is_whole() => {
                (last.end, last.count) = (next.end, last.count + next.count);
            }
            _ => self.0.push(next),
        }
        self.keep(MOST);
    }

    /// Puts the oldest together until there are no more than `most`.
    fn keep(&mut self, most: usize) {
        while self.0.len() > most {
            let oldest = self.0.remove(0);
            let Some(next) = self.0.first_mut() else {
                return;
            };
            (next.first, next.count) = (oldest.first, oldest.count + next.count);
        }
    }

    /// How many records they tell of; bytes that mean nothing may tell of more than there are.
    pub(crate) fn total(&self) -> u128 {
        self.0.iter().map(|stretch| u128::from(stretch.count)).sum()
    }

    pub(crate) fn to_vec(&self) -> Vec<Expired> {
        self.0.clone()
    }

    /// All of them, or where there is not room for so many bytes fewer that say less.
    pub(crate) fn encode(&self, room: usize) -> Vec<u8> {
        let mut fitting = self.clone();
        fitting.keep(room / ENCODED);
        let numbers = fitting.0.iter().flat_map(|e| [e.first.0, e.end.0, e.count]);
        numbers.flat_map(u64::to_le_bytes).collect()
    }

    /// What was encoded; none if it cannot be that.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Stretches> {
        let (numbers, rest) = bytes.as_chunks::<8>();
        let numbers: Vec<u64> = numbers.iter().map(|b| u64::from_le_bytes(*b)).collect();
        let (stretches, odd) = numbers.as_chunks::<3>();
        let stretches: Vec<Expired> = stretches
            .iter()
            .map(|&[first, end, count]| Expired {
                first: Seq(first),
                end: Seq(end),
                count,
            })
            .collect();
        let possible = rest.is_empty()
            && odd.is_empty()
            && stretches.len() <= MOST
            && stretches.iter().all(Expired::is_possible)
            && stretches.is_sorted_by(|a, b| a.end <= b.first);
        possible.then_some(Stretches(stretches))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretches(of: &[(u64, u64, u64)]) -> Stretches {
        let mut stretches = Stretches::default();
        for &(first, end, count) in of {
            stretches.add(first, end, count);
        }
        stretches
    }

    fn shown(stretches: &Stretches) -> Vec<(u64, u64, u64)> {
        let all = stretches.0.iter();
        all.map(|e| (e.first.0, e.end.0, e.count)).collect()
    }

    #[test]
    fn neighbours_are_one_and_what_cannot_be_said_exactly_stands_alone() {
        let all = stretches(&[(1, 5, 4), (5, 9, 4), (9, 20, 3), (20, 21, 1), (30, 30, 0)]);
        assert_eq!(shown(&all), [(1, 9, 8), (9, 20, 3), (20, 21, 1)]);
        assert!(all.0[0].is_whole() && !all.0[1].is_whole());
    }

    #[test]
    fn beyond_the_bound_the_oldest_say_less_and_stay_true() {
        let mut all = Stretches::default();
        for n in 0..1000 {
            all.add(10 * n, 10 * n + 3, 3);
        }
        assert_eq!(all.0.len(), MOST);
        assert_eq!(all.0.iter().map(|e| e.count).sum::<u64>(), 3000);
        assert_eq!(shown(&all)[0].0, 0);
        assert!(all.0[1..].iter().all(Expired::is_whole));
    }

    #[test]
    fn how_many_of_some_records_expired_is_between_two_numbers() {
        let among = |(first, end, count), records: Range<u64>| {
            let one = stretches(&[(first, end, count)]).0[0];
            one.among(&(Seq(records.start)..Seq(records.end)))
        };
        assert_eq!(among((10, 20, 10), 5..15), (5, 5));
        assert_eq!(among((10, 20, 10), 20..25), (0, 0));
        assert_eq!(among((10, 20, 4), 10..15), (0, 4));
        assert_eq!(among((10, 20, 8), 10..15), (3, 5));
    }

    #[test]
    fn what_is_encoded_is_read_back_and_what_cannot_be_is_none() {
        let all = stretches(&[(1, 5, 4), (9, 20, 3)]);
        let bytes = all.encode(4096);
        assert_eq!(bytes.len(), 2 * ENCODED);
        assert_eq!(Stretches::decode(&bytes), Some(all.clone()));
        assert_eq!(Stretches::decode(&[]), Some(Stretches::default()));
        let one = Stretches::decode(&all.encode(ENCODED + 3)).unwrap();
        assert_eq!(shown(&one), [(1, 20, 7)]);
        assert_eq!(all.encode(3), []);
        assert_eq!(Stretches::decode(&bytes[1..]), None);
        assert_eq!(Stretches::decode(&bytes[..40]), None);
        for at in [0, 8, 16, 24] {
            let mut bad = bytes.clone();
            bad[at] = 77;
            assert_eq!(Stretches::decode(&bad), None, "{at}");
        }
    }
}
