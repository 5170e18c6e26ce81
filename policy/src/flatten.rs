//! Effective set → [`Flat`]: every path that some rule names becomes a state, and every state gets its lists.

use std::collections::BTreeMap;

use proto::Digest;
use sha2::{Digest as _, Sha256};

use crate::aliases::Aliases;
use crate::flat::{Candidate, Flat, List, Lists, SlotRule, State};
use crate::force::{Force, Standing, in_force};
use crate::path::{components, depth};
use crate::rank::Rank;
use crate::rule::{Action, Object, Section};
use crate::select::Effective;
use crate::socket::SocketKey;
use crate::syscalls::syscall;

/// Computes what an effective set means. `aliases` gives the other names of an absolute path in the workload's root
/// (directories are asked with a closing `/`): `/bin/sleep` → `/usr/bin/sleep`. Rules cover all names.
pub fn flatten(effective: &Effective, aliases: &dyn Fn(&str) -> Vec<String>) -> Flat {
    let aliases = Aliases::of_set(effective, aliases);
    let force = in_force(effective, &aliases);
    let tree = Tree::grow(&force, &aliases);
    let flat = Flat {
        digest: digest(effective, &aliases),
        slots: force.standing.iter().map(slot_rule).collect(),
        process: force.process,
        file: force.file,
        network: force.network,
        capabilities: force.capabilities,
        states: tree.states(),
        sockets: sockets(&force),
        capability_rules: numbered(&force, |object| match object {
            Object::Capability(number) => vec![*number],
            _ => Vec::new(),
        }),
        syscalls: numbered(&force, |object| {
            object.syscalls().filter_map(syscall).collect()
        }),
        not_enforced: Vec::new(),
    };
    Flat {
        not_enforced: force.not_enforced,
        ..flat
    }
}

fn digest(effective: &Effective, aliases: &Aliases) -> Digest {
    let mut hash = Sha256::new();
    hash.update(effective.digest().0);
    aliases.hash(&mut hash);
    Digest(hash.finalize().into())
}

fn slot_rule(standing: &Standing<'_>) -> SlotRule {
    let Standing {
        policy,
        rule,
        action: _,
    } = standing;
    SlotRule {
        id: rule.id,
        kind: policy.kind.clone(),
        namespace: policy.namespace.clone(),
        policy: policy.name.clone(),
        section: rule.section,
        action: rule.action,
        object: rule.object.clone(),
        sources: rule.sources.clone(),
        severity: rule.severity,
        tags: rule.tags.clone(),
        message: rule.message.clone(),
    }
}

/// A rule that may be in a list, with its rank there.
type Ranked = (Rank, Candidate);

fn ranked(slot: usize, standing: &Standing<'_>, depth: usize) -> Ranked {
    let slot = u32::try_from(slot).unwrap_or(u32::MAX); // a set has fewer rules than bytes
    (
        Rank::of(standing, slot, depth),
        Candidate {
            slot,
            action: standing.action,
        },
    )
}

/// Sorts, and cuts what can have no effect: all after the first Allow or Block, all Audits after the first.
fn list(mut all: Vec<Ranked>) -> List {
    all.sort_unstable_by_key(|(rank, _)| *rank);
    let mut kept: Vec<Candidate> = Vec::new();
    for (_, candidate) in all {
        match candidate.action {
            Action::Audit if kept.is_empty() => kept.push(candidate),
            Action::Audit => {}
            Action::Allow | Action::Block => {
                kept.push(candidate);
                break;
            }
        }
    }
    List(kept)
}

fn sockets(force: &Force<'_>) -> Vec<(SocketKey, List)> {
    let about = |key: SocketKey| {
        let rules = force.standing.iter().enumerate().filter(move |(_, standing)| {
            matches!(standing.rule.object, Object::Protocol(protocol) if protocol.covers(key))
        });
        list(
            rules
                .map(|(slot, standing)| ranked(slot, standing, 0))
                .collect(),
        )
    };
    SocketKey::ALL
        .into_iter()
        .map(|key| (key, about(key)))
        .filter(|(_, list)| !list.0.is_empty())
        .collect()
}

/// The lists of what has a number instead of a path. `numbers` are those that an object names.
fn numbered<N: Ord + Copy>(force: &Force<'_>, numbers: fn(&Object) -> Vec<N>) -> Vec<(N, List)> {
    let mut by_number: BTreeMap<N, Vec<Ranked>> = BTreeMap::new();
    for (slot, standing) in force.standing.iter().enumerate() {
        for number in numbers(&standing.rule.object) {
            let rules = by_number.entry(number).or_default();
            rules.push(ranked(slot, standing, 0));
        }
    }
    by_number
        .into_iter()
        .map(|(number, rules)| (number, list(rules)))
        .collect()
}

/// The paths of all rules in force, by component.
struct Tree {
    nodes: Vec<Branch>,
}

#[derive(Default)]
struct Branch {
    edges: BTreeMap<String, u32>,
    parent: Option<usize>,
    process: Named,
    file: Named,
}

/// Rules that name this very path.
#[derive(Default)]
struct Named {
    exact: Vec<Ranked>,
    /// Directories of which only direct children are meant, and those of which everything below is.
    direct: Vec<Ranked>,
    recursive: Vec<Ranked>,
}

impl Tree {
    fn grow(force: &Force<'_>, aliases: &Aliases) -> Tree {
        let mut tree = Tree {
            nodes: vec![Branch::default()],
        };
        for (slot, standing) in force.standing.iter().enumerate() {
            for name in aliases.of(&standing.rule.object) {
                let at = tree.reach(name);
                let branch = &mut tree.nodes[at];
                let named = match standing.rule.section {
                    Section::Process => &mut branch.process,
                    _ => &mut branch.file,
                };
                let place = match standing.rule.object {
                    Object::Directory {
                        recursive: true, ..
                    } => &mut named.recursive,
                    Object::Directory {
                        recursive: false, ..
                    } => &mut named.direct,
                    _ => &mut named.exact,
                };
                place.push(ranked(slot, standing, depth(name)));
            }
        }
        tree
    }

    /// The node of a path, made if it is not there.
    fn reach(&mut self, path: &str) -> usize {
        let mut at = 0;
        for component in components(path) {
            at = match self.nodes[at].edges.get(component) {
                Some(next) => *next as usize,
                None => {
                    let next = self.nodes.len();
                    let edge = u32::try_from(next).unwrap_or(u32::MAX); // fewer states than bytes of rules
                    self.nodes[at].edges.insert(component.to_owned(), edge);
                    self.nodes.push(Branch {
                        parent: Some(at),
                        ..Branch::default()
                    });
                    next
                }
            };
        }
        at
    }

    fn states(&self) -> Vec<State> {
        (0..self.nodes.len())
            .map(|at| State {
                edges: self.nodes[at].edges.clone(),
                process: self.lists(at, |branch| &branch.process),
                file: self.lists(at, |branch| &branch.file),
            })
            .collect()
    }

    fn lists(&self, at: usize, of: fn(&Branch) -> &Named) -> Lists {
        let own = of(&self.nodes[at]);
        let above: Vec<&Branch> =
            std::iter::successors(self.nodes[at].parent, |at| self.nodes[*at].parent)
                .map(|at| &self.nodes[at])
                .collect();
        let inherited: Vec<Ranked> = above
            .iter()
            .flat_map(|branch| &of(branch).recursive)
            .copied()
            .collect();
        let parents = above.first().map_or(&[][..], |parent| &of(parent).direct);
        let join = |parts: &[&[Ranked]]| {
            list(parts.iter().flat_map(|part| part.iter().copied()).collect())
        };
        Lists {
            // A directory rule is about the directory itself, too.
            here: join(&[&own.exact, &own.direct, &own.recursive, parents, &inherited]),
            child: join(&[&own.direct, &own.recursive, &inherited]),
            below: join(&[&own.recursive, &inherited]),
        }
    }
}
