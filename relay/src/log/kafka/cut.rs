//! A place in all partitions at once: the next offset of each.
//!
//! Its number is 1 + the sum of the offsets: how many records lie before it since the topic was made, and one more. Cuts
//! that lie on one reader's way are ordered as their numbers are.

use prost::encoding::{decode_varint, encode_varint};

/// The next offset of every partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cut(pub(super) Vec<i64>);

impl Cut {
    /// The number of the record that comes next.
    pub(super) fn number(&self) -> u64 {
        let sum: i64 = self.0.iter().sum();
        1 + u64::try_from(sum).unwrap_or(0)
    }

    /// Where both have come to.
    pub(super) fn min(&self, other: &Cut) -> Cut {
        self.with(other, i64::min)
    }

    /// Where one of them has come to.
    pub(super) fn max(&self, other: &Cut) -> Cut {
        self.with(other, i64::max)
    }

    /// Where to go on in what is kept from `low` to `high`. What a partition says that ends before this place came after it
    /// was made anew: all of it.
    pub(super) fn kept(&self, low: &Cut, high: &Cut) -> Cut {
        let bounds = low.0.iter().zip(&high.0);
        let places = self.0.iter().zip(bounds).map(|(own, (low, high))| {
            let within = own >= low && own <= high;
            if within { *own } else { *low }
        });
        Cut(places.collect())
    }

    fn with(&self, other: &Cut, one: impl Fn(i64, i64) -> i64) -> Cut {
        Cut(self
            .0
            .iter()
            .zip(&other.0)
            .map(|(a, b)| one(*a, *b))
            .collect())
    }

    /// Whether it lies before `other`, or at the same place, in every partition.
    pub(super) fn is_within(&self, other: &Cut) -> bool {
        self.0.iter().zip(&other.0).all(|(own, other)| own <= other)
    }

    /// How many records lie between this one and those of `other` that lie behind it.
    pub(super) fn missing_before(&self, other: &Cut) -> u64 {
        let missing = self
            .0
            .iter()
            .zip(&other.0)
            .map(|(own, other)| (other - own).max(0));
        u64::try_from(missing.sum::<i64>()).unwrap_or(0)
    }

    /// As it is kept: numbers with spaces between.
    pub(super) fn to_text(&self) -> String {
        let words: Vec<String> = self.0.iter().map(i64::to_string).collect();
        words.join(" ")
    }

    /// Reads what [`Cut::to_text`] wrote.
    pub(super) fn from_text(text: &str) -> Option<Cut> {
        let numbers = text.split_whitespace().map(|word| word.parse().ok());
        numbers.collect::<Option<Vec<i64>>>().map(Cut)
    }

    /// As it travels: offsets as in protobuf, seven bits a byte, the lowest first.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(4 * self.0.len());
        for offset in &self.0 {
            encode_varint(u64::try_from(*offset).unwrap_or(0), &mut bytes);
        }
        bytes
    }

    /// Reads what [`Cut::to_bytes`] wrote.
    pub(super) fn from_bytes(mut bytes: &[u8]) -> Option<Cut> {
        let mut offsets = Vec::new();
        while !bytes.is_empty() {
            let offset = decode_varint(&mut bytes).ok()?;
            offsets.push(i64::try_from(offset).ok()?);
        }
        Some(Cut(offsets))
    }

    /// The same for a relay that knows so many partitions.
    pub(super) fn of_length(mut self, partitions: usize) -> Cut {
        self.0.resize(partitions, 0);
        self
    }

    /// The same for a topic that has more partitions now.
    pub(super) fn widened(mut self, partitions: usize) -> Cut {
        self.0.resize(partitions.max(self.0.len()), 0);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_is_numbered_by_what_lies_before_it() {
        let (a, b) = (Cut(vec![3, 0, 7]), Cut(vec![1, 2, 7]));
        assert_eq!((a.number(), Cut(vec![0; 3]).number()), (11, 1));
        assert_eq!((a.min(&b).0, a.max(&b).0), (vec![1, 0, 7], vec![3, 2, 7]));
        assert_eq!(Cut::from_text(&a.to_text()), Some(a.clone()));
        assert_eq!(Cut::from_text("1 x"), None);
        assert_eq!(a.widened(4).0, [3, 0, 7, 0]);
    }

    #[test]
    fn a_place_that_retention_took_or_that_is_not_there_yet_is_where_what_is_kept_begins() {
        let (low, high) = (Cut(vec![3, 3, 0]), Cut(vec![9, 9, 2]));
        assert_eq!(Cut(vec![5, 1, 7]).kept(&low, &high).0, [5, 3, 0]);
        assert_eq!(high.kept(&low, &high), high);
    }

    #[test]
    fn a_cut_travels_and_is_held_against_others() {
        let (a, b) = (Cut(vec![3, 0, 1 << 40]), Cut(vec![5, 0, 1 << 40]));
        for cut in [&a, &b] {
            assert_eq!(Cut::from_bytes(&cut.to_bytes()).as_ref(), Some(cut));
        }
        assert_eq!(Cut::from_bytes(&[0x80]), None);
        assert!(a.is_within(&b) && !b.is_within(&a) && a.is_within(&a));
        assert_eq!((a.missing_before(&b), b.missing_before(&a)), (2, 0));
    }
}
