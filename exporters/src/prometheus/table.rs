//! The values of one label and how often each was counted.

use std::collections::HashMap;

/// What a value counts as that is not admitted.
pub(super) const OTHER: &str = "other";
/// Longer values are not admitted.
const MAX_VALUE_LEN: usize = 256;

/// Admits values first come, up to a bound. `other` is always admitted and does not count against it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Table {
    counts: HashMap<Box<str>, u64>,
    other: u64,
    folded: u64,
    max_values: usize,
}

impl Table {
    pub(super) fn new(max_values: usize) -> Self {
        Table {
            counts: HashMap::new(),
            other: 0,
            folded: 0,
            max_values,
        }
    }

    pub(super) fn count(&mut self, value: &str) {
        if let Some(count) = self.counts.get_mut(value) {
            *count += 1;
        } else if value == OTHER {
            self.other += 1;
        } else if value.len() <= MAX_VALUE_LEN && self.counts.len() < self.max_values {
            self.counts.insert(value.into(), 1);
        } else {
            self.fold();
        }
    }

    /// Counts a value that is not admitted.
    pub(super) fn fold(&mut self) {
        self.other += 1;
        self.folded += 1;
    }

    /// How often a value was counted.
    pub(super) fn get(&self, value: &str) -> u64 {
        self.counts.get(value).copied().unwrap_or(self.other)
    }

    /// Puts back a value of a snapshot. One that no longer fits, as the bound was lowered, joins `other`.
    pub(super) fn put(&mut self, value: &str, count: u64) {
        if value != OTHER && value.len() <= MAX_VALUE_LEN && self.counts.len() < self.max_values {
            self.counts.insert(value.into(), count);
        } else {
            self.other += count;
        }
    }

    pub(super) fn put_folded(&mut self, folded: u64) {
        self.folded = folded;
    }

    /// Every value with its count; `other` only once it has one.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        let counts = self.counts.iter().map(|(value, &count)| (&**value, count));
        counts.chain((self.other > 0).then_some((OTHER, self.other)))
    }

    /// How many events had a value that was not admitted.
    pub(super) fn folded(&self) -> u64 {
        self.folded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(table: &Table) -> Vec<(&str, u64)> {
        let mut all: Vec<_> = table.iter().collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn values_past_the_bound_count_as_other_and_are_counted() {
        let mut table = Table::new(2);
        for value in ["a", "b", "c", "a", "d"] {
            table.count(value);
        }
        assert_eq!(sorted(&table), [("a", 2), ("b", 1), ("other", 2)]);
        assert_eq!(table.folded(), 2);
    }

    #[test]
    fn a_value_that_is_really_other_is_not_folded() {
        let mut table = Table::new(1);
        table.count("other");
        table.count("a");
        assert_eq!(
            (sorted(&table), table.folded()),
            (vec![("a", 1), ("other", 1)], 0)
        );
    }

    #[test]
    fn a_huge_value_is_folded() {
        let mut table = Table::new(10);
        table.count(&"x".repeat(257));
        assert_eq!((sorted(&table), table.folded()), (vec![("other", 1)], 1));
    }
}
