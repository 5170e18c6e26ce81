//! Rules → [`Flat`]: every path that some rule names becomes a state, and every state gets its lists.

use std::collections::BTreeMap;

use proto::Digest;
use sha2::{Digest as _, Sha256};

use crate::flat::{Candidate, Flat, Judged, List, SlotRule};
use crate::force::{Force, Member, in_force};
use crate::judges::Judges;
use crate::names::CAPABILITIES;
use crate::path::depth;
use crate::rank::Rank;
use crate::rule::{Action, Object, Section};
use crate::socket::SocketKey;
use crate::standing::{Rules, Standing};
use crate::syscalls::syscall;
use crate::tree::Tree;

/// Computes tables of the rules for a node that judges these parts of the language. What it does not judge is left out,
/// softened where leaving it out would deny more than was written, and reported in [`Flat::not_enforced`].
pub fn flatten(rules: &Rules, judges: Judges) -> Flat {
    let force = in_force(rules, judges);
    let lists = Lists(&force);
    Flat {
        digest: digest(rules, judges),
        slots: rules.standing.iter().map(slot_rule).collect(),
        judged: rules.standing.iter().map(judged).collect(),
        modes: force.modes,
        shadow: force.shadow,
        states: Tree::grow(&force).states(),
        names: lists.keyed(None, [], |object| match object {
            Object::Name(name) => vec![name.clone()],
            _ => Vec::new(),
        }),
        patterns: lists.of(|standing| {
            let globs = standing.globs.iter().map(|glob| depth(glob.prefix()));
            globs.max()
        }),
        presets: lists
            .of(|standing| matches!(standing.rule.object, Object::Preset(_)).then_some(0)),
        sockets: lists.sockets(),
        endpoints: lists.of(|standing| match &standing.rule.object {
            Object::Endpoints(endpoints) => Some(endpoints.narrowness()),
            _ => None,
        }),
        domains: lists.domains(),
        capability_rules: lists.capabilities(),
        syscalls: pairs(lists.keyed(None, [], |object| {
            object.syscalls().filter_map(syscall).collect()
        })),
        devices: lists.of(|standing| match &standing.rule.object {
            Object::Devices(devices) => Some(devices.narrowness()),
            _ => None,
        }),
        flows: lists.of(|standing| match &standing.rule.object {
            Object::Flows(flows) => Some(flows.narrowness()),
            _ => None,
        }),
        not_enforced: force.not_enforced,
    }
}

fn pairs<K>(map: BTreeMap<K, List>) -> Vec<(K, List)> {
    map.into_iter().collect()
}

fn digest(rules: &Rules, judges: Judges) -> Digest {
    let mut hash = Sha256::new();
    hash.update(rules.digest.0);
    hash.update(judges.bits().to_be_bytes());
    Digest(hash.finalize().into())
}

fn slot_rule(standing: &Standing) -> SlotRule {
    let (policy, rule) = (&standing.policy, &standing.rule);
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

fn judged(standing: &Standing) -> Judged {
    Judged {
        rule: standing.rule.clone(),
        globs: standing.globs.clone(),
        programs: standing.sources.clone(),
    }
}

/// A candidate of a list, and whether it matches without a condition.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    candidate: Candidate,
    plain: bool,
    on_trial: bool,
}

pub(crate) fn entry(member: &Member<'_>, depth: usize) -> Entry {
    let rule = &member.standing.rule;
    Entry {
        candidate: Candidate {
            slot: member.slot,
            action: member.action,
            order: Rank::of(rule, member.slot, depth).0,
            shadow: member.shadow,
        },
        plain: rule.is_plain(),
        on_trial: member.on_trial,
    }
}

/// Sorts, and cuts what can have no effect: all after the first Allow or Block that always matches and decides, all Audits
/// after the first that always matches, and what would happen on trial after an Allow on trial that always matches. Where
/// nothing always decides, `unnamed` is the end.
pub(crate) fn list(mut all: Vec<Entry>, unnamed: Option<Candidate>) -> List {
    all.sort_unstable_by_key(|entry| entry.candidate.order);
    let mut kept: Vec<Candidate> = Vec::new();
    let (mut told, mut silenced) = (false, false);
    for entry in all {
        let (candidate, plain) = (entry.candidate, entry.plain);
        match candidate.action {
            Action::Allow if entry.on_trial => silenced |= plain,
            Action::Audit if told || (entry.on_trial && silenced) => {}
            Action::Audit => {
                kept.push(candidate);
                told = plain;
            }
            Action::Allow | Action::Block => {
                kept.push(candidate);
                if plain && !candidate.shadow {
                    return List(kept);
                }
            }
        }
    }
    kept.extend(unnamed.filter(|_| !told && !silenced));
    List(kept)
}

/// Makes the lists of what is in force.
struct Lists<'f, 'r>(&'f Force<'r>);

impl Lists<'_, '_> {
    /// One list of all rules that have a depth here. What is tried one by one matches only some operations, so nothing is cut.
    fn of(&self, depth: impl Fn(&Standing) -> Option<usize>) -> List {
        let members = self.0.members.iter();
        let members = members.filter(|member| !member.only_silences());
        let entries = members.filter_map(|member| Some(entry(member, depth(member.standing)?)));
        let mut all: Vec<Candidate> = entries.map(|entry| entry.candidate).collect();
        all.sort_unstable_by_key(|candidate| candidate.order);
        List(all)
    }

    /// The lists of what has a key instead of a path. Where all that no rule names is told, `known` keys have one, too.
    fn keyed<K: Ord>(
        &self,
        unnamed: Option<Candidate>,
        known: impl IntoIterator<Item = K>,
        keys: impl Fn(&Object) -> Vec<K>,
    ) -> BTreeMap<K, List> {
        let mut by_key: BTreeMap<K, Vec<Entry>> = BTreeMap::new();
        if unnamed.is_some() {
            by_key.extend(known.into_iter().map(|key| (key, Vec::new())));
        }
        for member in &self.0.members {
            for key in keys(&member.standing.rule.object) {
                by_key.entry(key).or_default().push(entry(member, 0));
            }
        }
        let lists = by_key.into_iter();
        lists
            .map(|(key, entries)| (key, list(entries, unnamed)))
            .collect()
    }

    fn sockets(&self) -> Vec<(SocketKey, List)> {
        let unnamed = self.0.unnamed(Section::Network);
        pairs(self.keyed(unnamed, SocketKey::ALL, |object| match object {
            Object::Protocol(protocol) => {
                let covered = SocketKey::ALL
                    .into_iter()
                    .filter(|key| protocol.covers(*key));
                covered.collect()
            }
            _ => Vec::new(),
        }))
    }

    fn capabilities(&self) -> Vec<(u8, List)> {
        let unnamed = self.0.unnamed(Section::Capabilities);
        let known = (0..).take(CAPABILITIES.len());
        pairs(self.keyed(unnamed, known, |object| match object {
            Object::Capability(number) => vec![*number],
            _ => Vec::new(),
        }))
    }

    /// Each domain has its own rules and those of all its parents.
    fn domains(&self) -> BTreeMap<String, List> {
        let mut own: BTreeMap<&str, Vec<Entry>> = BTreeMap::new();
        for member in &self.0.members {
            if let Object::Domain(domain) = &member.standing.rule.object {
                let depth = crate::domain::labels(domain);
                own.entry(domain).or_default().push(entry(member, depth));
            }
        }
        let all = |domain: &str| {
            let parents = crate::domain::parents(domain).filter_map(|parent| own.get(parent));
            list(parents.flatten().copied().collect(), None)
        };
        own.keys()
            .map(|domain| ((*domain).to_owned(), all(domain)))
            .collect()
    }
}
