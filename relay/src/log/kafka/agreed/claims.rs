//! Who claimed what, as the records of the topic tell it: no I/O.
//!
//! What holds is a function of the claims that are not taken back and of their order. So it is the same for who has followed
//! every record, for who reads what compaction left of them, and wherever compaction stands: see the test at the end.

use std::collections::{HashMap, HashSet, VecDeque};

use bytes::Bytes;

/// What the record key of a claim begins with; a key of earlier versions is text.
const CLAIM: u8 = 1;
/// Keys of one value, and of all. Beyond that the oldest of the value with the most are forgotten.
const MAX_OF_VALUE: usize = 512;
const MAX_TOTAL: usize = 65_536;

/// A claim's name: drawn for each one, so that no record ever takes the place of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id([u8; 16]);

impl Id {
    /// A new one; none: there is no randomness to be had.
    pub(super) fn draw() -> Result<Id, getrandom::Error> {
        let mut id = [0; 16];
        getrandom::fill(&mut id)?;
        Ok(Id(id))
    }

    /// The record key of this claim of `key`.
    pub(super) fn record_key(self, key: &[u8]) -> Bytes {
        Bytes::from([&[CLAIM][..], &self.0, key].concat())
    }
}

/// Reads a record key: the claim, and the key that it is of. None: earlier versions had one record key for all claims of a key.
fn parts(record_key: &[u8]) -> (Option<Id>, &[u8]) {
    let claim = match record_key.split_first() {
        Some((&CLAIM, rest)) => rest.split_first_chunk(),
        _ => None,
    };
    match claim {
        Some((id, key)) => (Some(Id(*id)), key),
        None => (None, record_key),
    }
}

/// One claim of a key.
struct Claim {
    /// None: of an earlier version.
    id: Option<Id>,
    value: Bytes,
}

impl Claim {
    fn record_key(&self, key: &Bytes) -> Bytes {
        self.id.map_or_else(|| key.clone(), |id| id.record_key(key))
    }
}

/// Keys with their claims.
#[derive(Default)]
pub(super) struct Claims {
    /// The oldest first, which holds; never none.
    of: HashMap<Bytes, Vec<Claim>>,
    /// Keys by the value that holds, the oldest first.
    by: HashMap<Bytes, VecDeque<Bytes>>,
    /// Keys of earlier versions of which the last record says something else than the first.
    contested: HashSet<Bytes>,
}

impl Claims {
    /// Takes in the next record.
    pub(super) fn read(&mut self, record_key: Option<&[u8]>, value: Option<&[u8]>) {
        let Some(record_key) = record_key else {
            return;
        };
        let (id, key) = parts(record_key);
        let key = Bytes::copy_from_slice(key);
        match value {
            Some(value) => self.claim(&key, id, value),
            None => self.take_back(&key, id),
        }
        // Whoever claims keys forgets others; should nobody do, this memory is bounded all the same.
        if self.of.len() > 2 * MAX_TOTAL {
            for key in self.surplus(1) {
                self.change(&key, Vec::clear);
            }
        }
    }

    fn claim(&mut self, key: &Bytes, id: Option<Id>, value: &[u8]) {
        let known = self.of.get(key).into_iter().flatten();
        if let Some(known) = known.into_iter().find(|claim| claim.id == id) {
            // Only earlier versions wrote one record key twice.
            match known.value == value {
                true => self.contested.remove(key),
                false => self.contested.insert(key.clone()),
            };
            return;
        }
        let value = Bytes::copy_from_slice(value);
        self.change(key, |claims| {
            // Those of earlier versions are older than all others, wherever a record that repeats one stands.
            let at = if id.is_none() { 0 } else { claims.len() };
            claims.insert(at, Claim { id, value });
        });
    }

    fn take_back(&mut self, key: &Bytes, id: Option<Id>) {
        self.change(key, |claims| claims.retain(|claim| claim.id != id));
    }

    /// Changes the claims of a key, and where it stands among those of its value.
    fn change(&mut self, key: &Bytes, how: impl FnOnce(&mut Vec<Claim>)) {
        let before = self.holder(key).cloned();
        let claims = self.of.entry(key.clone()).or_default();
        how(claims);
        let after = claims.first().map(|claim| claim.value.clone());
        if claims.is_empty() {
            self.of.remove(key);
            self.contested.remove(key);
        }
        if before == after {
            return;
        }
        if let Some(before) = before
            && let Some(keys) = self.by.get_mut(&before)
        {
            keys.retain(|other| other != key);
            if keys.is_empty() {
                self.by.remove(&before);
            }
        }
        if let Some(after) = after {
            self.by.entry(after).or_default().push_back(key.clone());
        }
    }

    /// The value that holds.
    pub(super) fn holder(&self, key: &Bytes) -> Option<&Bytes> {
        let first = self.of.get(key)?.first()?;
        Some(&first.value)
    }

    /// Whether this claim is the one that holds.
    pub(super) fn holds(&self, key: &Bytes, id: Id) -> bool {
        let first = self.of.get(key).and_then(|claims| claims.first());
        first.is_some_and(|first| first.id == Some(id))
    }

    /// Record keys of the claims of a key that came too late.
    pub(super) fn late(&self, key: &Bytes) -> Vec<Bytes> {
        let claims = self.of.get(key).map_or(&[][..], Vec::as_slice);
        let late = claims.iter().skip(1);
        late.map(|claim| claim.record_key(key)).collect()
    }

    /// What those left undone that died: record keys of claims that came too late, and of earlier versions' keys what has to
    /// be said once more.
    pub(super) fn undone(&self) -> (Vec<Bytes>, Vec<(Bytes, Bytes)>) {
        let late = self.of.keys().flat_map(|key| self.late(key)).collect();
        let again = self.contested.iter().filter_map(|key| {
            let claims = self.of.get(key)?.iter();
            let first = claims.into_iter().find(|claim| claim.id.is_none())?;
            Some((key.clone(), first.value.clone()))
        });
        (late, again.collect())
    }

    /// Record keys of all that is too much, for `at_most` so many keys: of values that have too many, and of all if they are
    /// too many. Of each key the claim that holds comes last.
    pub(super) fn too_many(&self, at_most: usize) -> Vec<Bytes> {
        let all = |key: &Bytes| {
            let claims = self.of.get(key).map_or(&[][..], Vec::as_slice);
            let claims = claims.iter().rev();
            claims
                .map(|claim| claim.record_key(key))
                .collect::<Vec<_>>()
        };
        self.surplus(at_most).iter().flat_map(all).collect()
    }

    fn surplus(&self, at_most: usize) -> Vec<Bytes> {
        let over = self.of.len().saturating_sub(MAX_TOTAL);
        let most = self.by.values().max_by_key(|keys| keys.len());
        let Some(keys) = most else {
            return Vec::new();
        };
        let surplus = over.max(keys.len().saturating_sub(MAX_OF_VALUE));
        keys.iter().take(surplus.min(at_most)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// A record: its key, and what it says.
    type Record = (Bytes, Option<Bytes>);

    fn id(number: u64) -> Id {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&number.to_be_bytes());
        Id(id)
    }

    fn claimed(number: u64, key: &'static str, value: &'static str) -> Record {
        (id(number).record_key(key.as_bytes()), Some(value.into()))
    }

    fn read(records: &[Record]) -> Claims {
        let mut claims = Claims::default();
        for (key, value) in records {
            claims.read(Some(key), value.as_deref());
        }
        claims
    }

    fn holders(claims: &Claims) -> BTreeMap<Bytes, Bytes> {
        let keys = claims.of.keys();
        keys.map(|key| (key.clone(), claims.holder(key).unwrap().clone()))
            .collect()
    }

    /// What compaction leaves of the first `clean` records: of each record key the last one, and no deletion where `swept`.
    fn compacted(records: &[Record], clean: usize, swept: bool) -> Vec<Record> {
        let (head, tail) = records.split_at(clean);
        let is_last =
            |at: usize, key: &Bytes| !head[at + 1..].iter().any(|(other, _)| other == key);
        let kept = head
            .iter()
            .enumerate()
            .filter(|(at, (key, value))| is_last(*at, key) && !(swept && value.is_none()));
        kept.map(|(_, record)| record)
            .chain(tail)
            .cloned()
            .collect()
    }

    #[test]
    fn the_first_claim_holds_until_it_is_taken_back() {
        let mut records = vec![claimed(1, "k", "a"), claimed(2, "k", "b")];
        let claims = read(&records);
        assert_eq!(claims.holder(&"k".into()), Some(&"a".into()));
        assert!(claims.holds(&"k".into(), id(1)) && !claims.holds(&"k".into(), id(2)));
        assert_eq!(claims.late(&"k".into()), [id(2).record_key(b"k")]);
        assert_eq!(claims.undone().0, [id(2).record_key(b"k")]);
        records.push((id(2).record_key(b"k"), None));
        records.push((id(1).record_key(b"k"), None));
        let claims = read(&records);
        assert_eq!(claims.holder(&"k".into()), None);
        assert!(claims.of.is_empty() && claims.by.is_empty());
    }

    /// Three relays claim two keys, one after the other or before they have read of each other; each may die between any two
    /// of its records. However far compaction has come at whatever moment, who begins to read then knows what all others know.
    #[test]
    fn compaction_changes_no_holder_wherever_it_stands_and_whoever_dies() {
        let mut chance = 7_u64;
        let mut draw = |below: u64| {
            // xorshift64 (Marsaglia, 2003)
            chance ^= chance << 13;
            chance ^= chance >> 7;
            chance ^= chance << 17;
            chance % below
        };
        let mut contested = 0;
        for round in 0..300 {
            let (mut records, mut number) = (Vec::new(), 0);
            for _ in 0..8 {
                let key = ["k", "l"][draw(2) as usize];
                // What a relay has read that asks for the key: not all, if others are quick.
                let seen = records.len() - draw(records.len().min(3) as u64 + 1) as usize;
                let known = read(&records[..seen]);
                if known.holder(&key.into()).is_some() && draw(4) > 0 {
                    continue;
                }
                number += 1;
                records.push(claimed(number, key, ["a", "b", "c"][draw(3) as usize]));
                let late = read(&records).late(&key.into());
                contested += late.len();
                // It tidies up, unless it dies first; now and then the key is forgotten.
                let forgotten = match draw(8) {
                    0 => vec![read(&records).of[key.as_bytes()][0].record_key(&key.into())],
                    _ => Vec::new(),
                };
                let done = draw(late.len() as u64 + 1) as usize;
                let tidied = late.into_iter().take(done).chain(forgotten);
                records.extend(tidied.map(|key| (key, None)));
            }
            let expected = holders(&read(&records));
            for clean in 0..=records.len() {
                for swept in [false, true] {
                    let left = compacted(&records, clean, swept);
                    let found = holders(&read(&left));
                    assert_eq!(
                        found, expected,
                        "round {round}, {clean} records: {records:?}"
                    );
                }
            }
        }
        assert!(
            contested > 100,
            "the test tries what it is about: {contested}"
        );
    }

    #[test]
    fn a_key_of_an_earlier_version_keeps_its_first_value_and_that_is_said_once_more() {
        let old =
            |value: &'static str| -> Record { ("stream/12345678".into(), Some(value.into())) };
        let key = Bytes::from("stream/12345678");
        let mut records = vec![old("a"), old("b")];
        let claims = read(&records);
        assert_eq!(claims.holder(&key), Some(&"a".into()));
        let (late, again) = claims.undone();
        assert_eq!(
            (late, again.clone()),
            (vec![], vec![(key.clone(), "a".into())])
        );
        // A claim of now, then what was said once more and all that compaction leaves of it.
        records.push((id(1).record_key(&key), Some("c".into())));
        records.extend(again.into_iter().map(|(key, value)| (key, Some(value))));
        for clean in [0, records.len()] {
            let claims = read(&compacted(&records, clean, true));
            assert_eq!(claims.holder(&key), Some(&"a".into()), "{clean}");
            assert_eq!(claims.undone().1, []);
        }
    }

    #[test]
    fn a_value_with_too_many_keys_loses_its_oldest() {
        let mut records = vec![claimed(0, "x", "a")];
        let keys: Vec<String> = (1..=MAX_OF_VALUE + 2).map(|n| format!("{n}")).collect();
        for (number, key) in (1..).zip(&keys) {
            records.push((id(number).record_key(key.as_bytes()), Some("b".into())));
        }
        let claims = read(&records);
        let surplus = claims.too_many(10);
        assert_eq!(surplus, [id(1).record_key(b"1"), id(2).record_key(b"2")]);
        records.extend(surplus.into_iter().map(|key| (key, None)));
        let claims = read(&records);
        assert_eq!(claims.too_many(10), [""; 0]);
        assert_eq!(claims.holder(&"x".into()), Some(&"a".into()));
    }
}
