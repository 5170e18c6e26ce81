//! [`Flat::decide`]: the scan of the lists that the kernel's programs do, word for word, for the parts that they judge.

use std::collections::HashSet;

use crate::condition::{Holds, holds};
use crate::flat::{Candidate, Flat, List, Lists, State};
use crate::operation::{Act, Operation};
use crate::path::components;
use crate::rule::{Action, Object, Section};
use crate::verdict::{Class, Enforced, Said, Step, Verdict};

impl Flat {
    /// Decides as the kernel's programs do.
    pub fn decide(&self, operation: &Operation) -> Verdict<u32> {
        let act = &operation.act;
        let mut candidates: Vec<Candidate> = Vec::new();
        self.collect(act, &mut |list| candidates.extend(&list.0));
        candidates.sort_unstable_by_key(|candidate| candidate.order);
        // A name that was looked up may reach a rule in two ways; the narrower counts.
        let mut seen = HashSet::new();
        candidates.retain(|candidate| seen.insert(candidate.slot));
        let mut scan = Scan::default();
        for candidate in candidates {
            if scan.ends(candidate, self.says(candidate.slot, operation)) {
                break;
            }
        }
        scan.verdict(self.modes.of(act), self.shadow.of(act))
    }

    /// Every list that may hold a rule about the operation.
    fn collect<'f>(&'f self, act: &Act, take: &mut dyn FnMut(&'f List)) {
        take(&self.presets);
        match act {
            Act::Exec { path, .. } => {
                let name = path.rsplit('/').next().unwrap_or_default();
                self.names.get(name).into_iter().for_each(&mut *take);
                take(&self.patterns);
                take(self.walk(path, |state| &state.process));
            }
            Act::Open { path, .. } => {
                take(&self.patterns);
                take(self.walk(path, |state| &state.file));
            }
            Act::Socket { key } => find(&self.sockets, key).for_each(take),
            Act::Connect(_) => take(&self.endpoints),
            Act::Lookup { name } => {
                for form in crate::domain::forms(name) {
                    let mut parents = crate::domain::parents(&form);
                    let list = parents.find_map(|parent| self.domains.get(parent));
                    list.into_iter().for_each(&mut *take);
                }
            }
            Act::Capability { number } => find(&self.capability_rules, number).for_each(take),
            Act::Syscall { number, .. } => find(&self.syscalls, number).for_each(take),
            Act::Device(_) => take(&self.devices),
            Act::Packet(_) => take(&self.flows),
            Act::MapExec => {}
        }
    }

    /// Whether a candidate is about the operation: what its list could not say, and its conditions.
    fn says(&self, slot: u32, operation: &Operation) -> Option<Holds> {
        let Some(slot) = self.judged.get(slot as usize) else {
            return Some(Holds::Yes);
        };
        let act = &operation.act;
        let about = match &slot.rule.object {
            Object::Pattern(_) => {
                let path = match (slot.rule.section, act) {
                    (Section::Process, Act::Exec { path, .. })
                    | (Section::File, Act::Open { path, .. }) => path,
                    _ => return None,
                };
                slot.globs.iter().any(|glob| glob.matches(path))
            }
            Object::Preset(preset) => preset.about(act),
            Object::Endpoints(own) => matches!(act, Act::Connect(c) if own.depth(c).is_some()),
            Object::Devices(own) => matches!(act, Act::Device(device) if own.about(*device)),
            Object::Flows(own) => matches!(act, Act::Packet(packet) if own.about(packet)),
            _ => true,
        };
        about.then(|| holds(&slot.rule, &slot.programs, operation))
    }

    fn walk(&self, path: &str, lists: fn(&State) -> &Lists) -> &List {
        static NONE: List = List(Vec::new());
        let Some(mut state) = self.states.first() else {
            return &NONE;
        };
        let mut rest = components(path);
        while let Some(component) = rest.next() {
            match state
                .edges
                .get(component)
                .and_then(|next| self.states.get(*next as usize))
            {
                Some(next) => state = next,
                None if rest.next().is_none() => return &lists(state).child,
                None => return &lists(state).below,
            }
        }
        &lists(state).here
    }
}

fn find<'f, K: PartialEq>(
    rules: &'f [(K, List)],
    key: &K,
) -> impl Iterator<Item = &'f List> + use<'f, K> {
    let found = rules.iter().find(|(known, _)| known == key);
    found.map(|(_, list)| list).into_iter()
}

/// What a scan has met so far.
#[derive(Default)]
struct Scan {
    audit: Option<u32>,
    enforced: Option<Enforced<u32>>,
    would: Option<Enforced<u32>>,
    why: Vec<Step<u32>>,
}

impl Scan {
    /// Takes the next candidate; true when nothing after it can matter.
    fn ends(&mut self, candidate: Candidate, says: Option<Holds>) -> bool {
        let Some(says) = says else { return false };
        let Candidate {
            slot,
            action,
            shadow,
            order: _,
        } = candidate;
        let said = match says {
            Holds::No(condition) => Said::Passed(condition),
            Holds::Unknown(condition) => Said::Unknown(condition),
            Holds::Yes => self.takes(slot, action, shadow),
        };
        self.why.push(Step {
            rule: slot,
            action,
            said,
        });
        said == Said::Decides
    }

    fn takes(&mut self, slot: u32, action: Action, shadow: bool) -> Said {
        let decision = match action {
            Action::Audit => {
                self.audit = self.audit.or(Some(slot));
                return Said::Tells;
            }
            Action::Allow => Enforced::Allow(slot),
            Action::Block => Enforced::Block(slot),
        };
        self.would = self.would.or(Some(decision));
        if shadow {
            return Said::Would;
        }
        self.enforced = Some(decision);
        Said::Decides
    }

    fn verdict(self, class: Class, shadow: Class) -> Verdict<u32> {
        let unnamed = |class: Class| match class {
            Class {
                allow_list: true,
                posture,
            } => Enforced::Posture(posture),
            Class {
                allow_list: false, ..
            } => Enforced::Nothing,
        };
        let enforced = self.enforced.unwrap_or_else(|| unnamed(class));
        let would = self.would.unwrap_or_else(|| unnamed(shadow));
        Verdict {
            shadow: Some(would).filter(|would| would.denies() != enforced.denies()),
            // What fails is told by who denied it.
            audit: self.audit.filter(|_| !enforced.denies()),
            enforced,
            why: self.why,
        }
    }
}
