//! From what a set of policies means ([`policy::Flat`]) to what the kernel's maps hold.
//!
//! ```text
//! state 0 ─"usr"─▶ 1 ─"bin"─▶ 2 ─"sleep"─▶ 3          edges: {set, generation, state, hash("usr")} → {1, six list numbers}
//! list 7 = [Audit slot 4, Block slot 1]                lists: {set, generation, 7, chunk 0} → candidates, ended by none
//! ```
//! Pure: no kernel is needed to compute or to test it. All precedence is in the order of the lists already.

use std::collections::HashMap;

use policy::{Action, Class, Flat, List, Posture, State};

use crate::kernel::raw;
use crate::kernel::{MAX_DEPTH, RulesError};

/// Candidates in one entry of `lists` (`CHUNK` in `maps.h`).
const CHUNK: usize = 8;
/// Entries of one list that the kernel looks at (`MAX_CHUNKS` in `maps.h`).
const MAX_CHUNKS: usize = 64;
/// The edge from here leads to "/" (`ROOT_STATE` in `maps.h`).
const ROOT_STATE: u32 = u32::MAX;
/// Longest name of a component (`NAME_MAX` of linux/limits.h).
const NAME_MAX: usize = 255;

/// The secret of the component hash, drawn anew for each load: who cannot know it cannot search for collisions.
#[derive(Clone, Copy)]
pub(crate) struct Secret {
    pub(crate) seed: u64,
    /// Odd.
    pub(crate) factor: u64,
}

impl Secret {
    pub(crate) fn draw() -> Result<Self, getrandom::Error> {
        Ok(Self {
            seed: getrandom::u64()?,
            factor: getrandom::u64()? | 1,
        })
    }

    fn mix(self, hash: u64, word: u64) -> u64 {
        let hash = (hash ^ word).wrapping_mul(self.factor);
        hash ^ (hash >> 29)
    }

    /// Hash of one component; equal to `hash_name` in `path.h`.
    pub(crate) fn hash(self, name: &[u8]) -> u64 {
        let mut hash = self.mix(self.seed, name.len() as u64);
        for word in name.chunks(8) {
            let mut bytes = [0; 8];
            bytes[..word.len()].copy_from_slice(word);
            hash = self.mix(hash, u64::from_le_bytes(bytes));
        }
        self.mix(hash, hash >> 32)
    }
}

/// The entries of one generation of one set.
pub(crate) struct Rules {
    pub(crate) edges: Vec<(raw::edge_key, raw::edge)>,
    pub(crate) named: Vec<(raw::named_key, u32)>,
    pub(crate) lists: Vec<(raw::list_key, raw::chunk)>,
    /// Four bits for each class.
    pub(crate) modes: u32,
}

impl Rules {
    pub(crate) fn new(
        flat: &Flat,
        set: u32,
        generation: u32,
        secret: Secret,
    ) -> Result<Self, RulesError> {
        check_depth(flat)?;
        let mut lists = Lists {
            set,
            generation,
            numbers: HashMap::new(),
            chunks: Vec::new(),
        };
        let edges = edges(flat, set, generation, secret, &mut lists)?;
        let named = named(flat, set, generation, &mut lists)?;
        Ok(Self {
            edges,
            named,
            lists: lists.chunks,
            modes: modes(flat),
        })
    }
}

fn modes(flat: &Flat) -> u32 {
    let has_paths = |lists: fn(&policy::State) -> &policy::Lists| {
        flat.states.iter().map(lists).any(|lists| {
            !(lists.here.0.is_empty() && lists.child.0.is_empty() && lists.below.0.is_empty())
        })
    };
    let classes = [
        (
            raw::class::CLASS_PROCESS,
            Some(&flat.modes.process),
            has_paths(|state| &state.process),
        ),
        (
            raw::class::CLASS_FILE,
            Some(&flat.modes.file),
            has_paths(|state| &state.file),
        ),
        (
            raw::class::CLASS_NETWORK,
            Some(&flat.modes.network),
            !flat.sockets.is_empty(),
        ),
        (
            raw::class::CLASS_CAPABILITY,
            Some(&flat.modes.capabilities),
            !flat.capability_rules.is_empty(),
        ),
        (raw::class::CLASS_SYSCALL, None, !flat.syscalls.is_empty()),
    ];
    classes
        .iter()
        .map(|(class, mode, rules)| mode_bits(*mode, *rules) << (class.0 * 4))
        .sum()
}

fn mode_bits(class: Option<&Class>, rules: bool) -> u32 {
    let mut bits = if rules { raw::mode::MODE_RULES.0 } else { 0 };
    let Some(Class {
        allow_list: true,
        posture,
    }) = class
    else {
        return bits;
    };
    bits |= raw::mode::MODE_ALLOW_LIST.0;
    bits | match posture {
        Posture::Block => raw::mode::MODE_BLOCK.0,
        Posture::Audit => raw::mode::MODE_AUDIT.0,
    }
}

fn edges(
    flat: &Flat,
    set: u32,
    generation: u32,
    secret: Secret,
    lists: &mut Lists,
) -> Result<Vec<(raw::edge_key, raw::edge)>, RulesError> {
    let mut targets = Vec::with_capacity(flat.states.len());
    for (number, state) in flat.states.iter().enumerate() {
        let [process, file] = [&state.process, &state.file].map(|of| {
            Ok([
                lists.number(&of.here)?,
                lists.number(&of.child)?,
                lists.number(&of.below)?,
            ])
        });
        targets.push(raw::edge {
            next: number as u32,
            lists: [process?, file?],
            guarded: guard(flat, state, MAX_DEPTH).map_or(0, |slot| slot + 1),
        });
    }
    let key = |state, hash| raw::edge_key {
        set,
        generation,
        hash,
        state,
        zero: 0,
    };
    let mut edges = Vec::with_capacity(targets.len());
    edges.extend(targets.first().map(|root| (key(ROOT_STATE, 0), *root)));
    for (number, state) in flat.states.iter().enumerate() {
        let named = state
            .edges
            .iter()
            .filter(|(name, _)| name.len() <= NAME_MAX);
        edges.extend(named.filter_map(|(name, next)| {
            let target = targets.get(*next as usize)?;
            Some((key(number as u32, secret.hash(name.as_bytes())), *target))
        }));
    }
    Ok(edges)
}

/// A Block somewhere below a state: what is there must keep its name, and so must the folders on the way.
fn guard(flat: &Flat, state: &State, depth: usize) -> Option<u32> {
    if depth == 0 {
        return None;
    }
    let below = state
        .edges
        .values()
        .filter_map(|next| flat.states.get(*next as usize));
    below.into_iter().find_map(|state| {
        let lists = [&state.process, &state.file];
        let mut lists = lists.iter().flat_map(|of| [&of.here, &of.child, &of.below]);
        let block = lists.find_map(|list| list.0.iter().find(|one| one.action == Action::Block));
        block
            .map(|candidate| candidate.slot)
            .or_else(|| guard(flat, state, depth - 1))
    })
}

fn named(
    flat: &Flat,
    set: u32,
    generation: u32,
    lists: &mut Lists,
) -> Result<Vec<(raw::named_key, u32)>, RulesError> {
    let sockets = flat.sockets.iter().map(|(key, list)| {
        let number = (u32::from(key.kind) << 8) | u32::from(key.protocol);
        (raw::class::CLASS_NETWORK, number, list)
    });
    let capabilities = flat.capability_rules.iter();
    let capabilities =
        capabilities.map(|(number, list)| (raw::class::CLASS_CAPABILITY, u32::from(*number), list));
    let calls = flat.syscalls.iter();
    let calls = calls.map(|(number, list)| (raw::class::CLASS_SYSCALL, u32::from(*number), list));
    let all = sockets.chain(capabilities).chain(calls);
    all.map(|(class, number, list)| {
        let key = raw::named_key {
            set,
            generation,
            class: class.0,
            number,
        };
        Ok((key, lists.number(list)?))
    })
    .collect()
}

/// Lists by number; equal lists are one.
struct Lists {
    set: u32,
    generation: u32,
    numbers: HashMap<Vec<(u32, u32)>, u32>,
    chunks: Vec<(raw::list_key, raw::chunk)>,
}

impl Lists {
    /// 0 is the empty list.
    fn number(&mut self, list: &List) -> Result<u32, RulesError> {
        let candidates: Vec<(u32, u32)> = list
            .0
            .iter()
            .map(|candidate| (candidate.slot, action(candidate.action).0))
            .collect();
        if candidates.is_empty() {
            return Ok(0);
        }
        if let Some(number) = self.numbers.get(&candidates) {
            return Ok(*number);
        }
        if candidates.len() > CHUNK * MAX_CHUNKS {
            return Err(RulesError::Candidates(CHUNK * MAX_CHUNKS));
        }
        let number = self.numbers.len() as u32 + 1;
        for (chunk, part) in candidates.chunks(CHUNK).enumerate() {
            let key = raw::list_key {
                set: self.set,
                generation: self.generation,
                list: number,
                chunk: chunk as u32,
            };
            let mut entry = raw::chunk::default();
            for (place, (slot, action)) in entry.candidates.iter_mut().zip(part) {
                *place = raw::candidate {
                    slot: *slot,
                    action: *action,
                };
            }
            self.chunks.push((key, entry));
        }
        self.numbers.insert(candidates, number);
        Ok(number)
    }
}

fn action(action: Action) -> raw::action {
    match action {
        Action::Allow => raw::action::ACTION_ALLOW,
        Action::Audit => raw::action::ACTION_AUDIT,
        Action::Block => raw::action::ACTION_BLOCK,
    }
}

/// Breadth first, so that the first state that is too deep is found with its path.
fn check_depth(flat: &Flat) -> Result<(), RulesError> {
    let mut level = vec![(0_u32, String::new())];
    for _ in 0..=MAX_DEPTH {
        let mut next = Vec::new();
        for (state, path) in &level {
            let Some(state) = flat.states.get(*state as usize) else {
                continue;
            };
            next.extend(
                state
                    .edges
                    .iter()
                    .map(|(name, to)| (*to, format!("{path}/{name}"))),
            );
        }
        level = next;
    }
    match level.into_iter().next() {
        Some((_, path)) => Err(RulesError::Depth(path)),
        None => Ok(()),
    }
}

/// The bytes of a key or value, as the kernel reads them.
///
/// Sealed to the types below: they have no padding, so that every byte is written.
pub(crate) fn bytes_of<T: Plain>(value: &T) -> &[u8] {
    // SAFETY: a Plain type has no padding, and any value of it is readable as bytes for its size.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}

/// A type without padding.
///
/// # Safety
/// Every byte of a value must be initialised.
pub(crate) unsafe trait Plain: Copy {}
// SAFETY: four u32 around one u64 on its boundary.
unsafe impl Plain for raw::edge_key {}
// SAFETY: u32 only.
unsafe impl Plain for raw::edge {}
// SAFETY: u32 only.
unsafe impl Plain for raw::named_key {}
// SAFETY: u32 only.
unsafe impl Plain for raw::list_key {}
// SAFETY: u32 only.
unsafe impl Plain for raw::chunk {}
// SAFETY: a number.
unsafe impl Plain for u32 {}
// SAFETY: a number.
unsafe impl Plain for u64 {}

#[cfg(test)]
mod tests {
    use policy::{Candidate, SocketKey, State};

    use super::*;

    const SECRET: Secret = Secret {
        seed: 11,
        factor: 0x9e37_79b9_7f4a_7c15,
    };

    fn flat(states: Vec<State>) -> Flat {
        Flat {
            states,
            ..Flat::default()
        }
    }

    fn chain(names: &[&str]) -> Vec<State> {
        let mut states = vec![State::default()];
        for (number, name) in (1..).zip(names) {
            states[number as usize - 1]
                .edges
                .insert((*name).to_owned(), number);
            states.push(State::default());
        }
        states
    }

    fn list(slots: std::ops::Range<u32>, action: Action) -> List {
        let candidate = |slot: u32| Candidate {
            slot,
            action,
            order: slot.into(),
            shadow: false,
        };
        List(slots.map(candidate).collect())
    }

    #[test]
    fn a_hash_depends_on_every_byte_on_the_length_and_on_the_secret() {
        let other = Secret { seed: 12, ..SECRET };
        let names: [&[u8]; 7] = [
            b"",
            b"\0",
            b"a",
            b"a\0",
            b"abcdefgh",
            b"abcdefghi",
            b"abcdefgi",
        ];
        let mut hashes: Vec<u64> = names.iter().map(|name| SECRET.hash(name)).collect();
        hashes.extend(names.iter().map(|name| other.hash(name)));
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), 14);
    }

    #[test]
    fn a_chain_of_states_has_an_edge_a_component_and_one_to_the_root() {
        let mut states = chain(&["usr", "bin", "sleep"]);
        states[3].process.here = list(0..1, Action::Block);
        let rules = Rules::new(&flat(states), 3, 9, SECRET).expect("is taken");
        let from: Vec<_> = rules
            .edges
            .iter()
            .map(|(key, edge)| (key.state, edge.next))
            .collect();
        assert_eq!(from, [(ROOT_STATE, 0), (0, 1), (1, 2), (2, 3)]);
        assert!(
            rules
                .edges
                .iter()
                .all(|(key, _)| (key.set, key.generation) == (3, 9))
        );
        assert_eq!(rules.edges[3].0.hash, SECRET.hash(b"sleep"));
        assert_eq!(rules.edges[3].1.lists, [[1, 0, 0], [0, 0, 0]]);
        let guarded: Vec<_> = rules.edges.iter().map(|(_, edge)| edge.guarded).collect();
        assert_eq!(
            guarded,
            [1, 1, 1, 0],
            "the folders above it must keep their names"
        );
        assert_eq!(rules.modes, raw::mode::MODE_RULES.0);
    }

    #[test]
    fn equal_lists_are_one_and_long_ones_go_on_in_the_next_chunk() {
        let mut whole = flat(chain(&[]));
        for protocol in [6, 17] {
            let key = SocketKey { kind: 1, protocol };
            whole.sockets.push((key, list(0..20, Action::Audit)));
        }
        let rules = Rules::new(&whole, 1, 1, SECRET).expect("is taken");
        assert_eq!(
            rules
                .named
                .iter()
                .map(|(_, list)| *list)
                .collect::<Vec<_>>(),
            [1, 1]
        );
        assert_eq!(rules.named[0].0.number, 1 << 8 | 6);
        let chunks: Vec<_> = rules
            .lists
            .iter()
            .map(|(key, _)| (key.list, key.chunk))
            .collect();
        assert_eq!(chunks, [(1, 0), (1, 1), (1, 2)]);
        let last = rules.lists[2]
            .1
            .candidates
            .map(|one| (one.slot, one.action));
        assert_eq!(last[3], (19, raw::action::ACTION_AUDIT.0));
        assert_eq!(last[4], (0, raw::action::ACTION_NONE.0));
    }

    #[test]
    fn modes_tell_rules_allow_lists_and_postures_apart() {
        let mut whole = flat(chain(&[]));
        whole.modes.file = Class {
            allow_list: true,
            posture: Posture::Block,
        };
        whole.modes.network = Class {
            allow_list: true,
            posture: Posture::Audit,
        };
        let modes = Rules::new(&whole, 1, 1, SECRET).expect("is taken").modes;
        let (list, block, audit) = (
            raw::mode::MODE_ALLOW_LIST.0,
            raw::mode::MODE_BLOCK.0,
            raw::mode::MODE_AUDIT.0,
        );
        assert_eq!(modes, (list | block) << 4 | (list | audit) << 8);
    }

    #[test]
    fn what_the_kernel_could_not_follow_is_refused_with_its_name() {
        let names = vec!["d"; MAX_DEPTH + 1];
        let refused = Rules::new(&flat(chain(&names)), 1, 1, SECRET).err();
        assert!(matches!(refused, Some(RulesError::Depth(path)) if path.starts_with("/d/d/")));
        assert!(Rules::new(&flat(chain(&names[1..])), 1, 1, SECRET).is_ok());
        let mut whole = flat(chain(&[]));
        let key = SocketKey {
            kind: 1,
            protocol: 6,
        };
        whole.sockets.push((key, list(0..513, Action::Audit)));
        let refused = Rules::new(&whole, 1, 1, SECRET).err();
        assert!(matches!(refused, Some(RulesError::Candidates(512))));
    }
}
