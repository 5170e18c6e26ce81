//! What a simulated disk holds: volatile and durable images, what is pending between them, and chance.

use std::collections::BTreeMap;

const SECTOR: usize = 512;

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    #[must_use]
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound` (0 for 0).
    pub fn below(&mut self, bound: u64) -> u64 {
        self.number().checked_rem(bound).unwrap_or(0)
    }

    /// True once in `n`.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

#[derive(Clone, Default)]
pub(super) struct Node {
    pub(super) volatile: Vec<u8>,
    pub(super) durable: Vec<u8>,
    pub(super) pending: Vec<Change>,
}

#[derive(Clone)]
pub(super) enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Clone)]
pub(super) enum NameChange {
    Link(String, u64),
    Unlink(String, u64),
    Rename(String, String, u64),
}

pub(super) fn apply(image: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Length(len) => image.resize(*len, 0),
        Change::Write { offset, bytes } => {
            let end = offset + bytes.len();
            if image.len() < end {
                image.resize(end, 0);
            }
            if let Some(place) = image.get_mut(*offset..end) {
                place.copy_from_slice(bytes);
            }
        }
    }
}

/// What reaches the disk of changes that were not synced: all, none, a beginning, or a choice of sectors.
pub(super) fn apply_some(random: &mut Random, image: &mut Vec<u8>, pending: Vec<Change>) {
    let whole = match random.below(4) {
        0 => pending.len() as u64,
        1 => 0,
        _ => random.below(pending.len() as u64 + 1),
    };
    let torn = random.one_in(2);
    for (n, change) in pending.iter().enumerate() {
        if (n as u64) < whole {
            apply(image, change);
        } else if torn {
            apply_torn(random, image, change);
        }
    }
}

fn apply_torn(random: &mut Random, image: &mut Vec<u8>, change: &Change) {
    let Change::Write { offset, bytes } = change else {
        if random.one_in(2) {
            apply(image, change);
        }
        return;
    };
    let end = offset + bytes.len();
    if random.one_in(2) && image.len() < end {
        // The length was written, the bytes were not.
        image.resize(end, 0);
    }
    let mut at = *offset;
    while at < end {
        let until = (at / SECTOR + 1) * SECTOR;
        let until = until.min(end);
        if random.one_in(2) {
            let part = bytes
                .get(at - offset..until - offset)
                .unwrap_or_default()
                .to_vec();
            apply(
                image,
                &Change::Write {
                    offset: at,
                    bytes: part,
                },
            );
        }
        at = until;
    }
}

pub(super) fn apply_name(names: &mut BTreeMap<String, u64>, change: &NameChange) {
    match change {
        NameChange::Link(name, id) => {
            names.insert(name.clone(), *id);
        }
        NameChange::Unlink(name, id) => {
            if names.get(name) == Some(id) {
                names.remove(name);
            }
        }
        NameChange::Rename(from, to, id) => {
            if names.get(from) == Some(id) {
                names.remove(from);
            }
            names.insert(to.clone(), *id);
        }
    }
}

pub(super) fn apply_some_names(
    random: &mut Random,
    names: &mut BTreeMap<String, u64>,
    pending: Vec<NameChange>,
) {
    let whole = random.below(pending.len() as u64 + 1);
    let scattered = random.one_in(2);
    for (n, change) in pending.iter().enumerate() {
        if (n as u64) < whole || (scattered && random.one_in(2)) {
            apply_name(names, change);
        }
    }
}
