//! What one effective set means to a kernel: strings and lists, no hashes.
//!
//! ```text
//! path /usr/bin/sleep      0 ─usr─▶ 1 ─bin─▶ 2 ─sleep─▶ 3     ends at a state that was built for it: its `here`
//!      /usr/bin/ls         0 ─usr─▶ 2, no edge `ls`           one name too many: `child` of 2
//!      /usr/bin/x/y        0 ─usr─▶ 2, no edge `x`            more than one:     `below` of 2
//! ```
//! Each of the three is a [`List`], computed once with all precedence in it; file names, patterns and presets have lists
//! beside them, and [`Candidate::order`] puts them into one. Whoever decides only scans: a candidate whose conditions do not
//! hold is passed over, the first Allow or Block is what is enforced, the first Audit before it is told if the operation
//! passes. With neither Allow nor Block a class in allow-list mode falls to its posture. [`Flat::decide`] is that scan, word
//! for word what the kernel's programs do for the parts that they judge; [`decide`](crate::decide()) is the meaning that it
//! is tested against.

use std::collections::BTreeMap;

use proto::{Digest, RuleId};

use crate::condition::{Condition, Holds, Program, holds};
use crate::glob::Glob;
use crate::operation::{Act, Operation};
use crate::path::components;
use crate::rule::{Action, Object, Rule, Section};
use crate::socket::SocketKey;
use crate::standing::Modes;

/// One effective set, ready for maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flat {
    /// Equal for equal policies, postures, path aliases and abilities of the node.
    pub digest: Digest,
    /// The rules that lists name by their index here.
    pub slots: Vec<SlotRule>,
    /// The same rules, for what a list cannot say. A slot beyond its end matches wherever it is listed.
    pub judged: Vec<Judged>,
    /// The mode of each class.
    pub modes: Modes,
    /// The modes if every policy with `mode: audit` decided.
    pub shadow: Modes,
    /// The path automaton; the first state is `/` and is always there.
    pub states: Vec<State>,
    /// Programs by their file name.
    pub names: BTreeMap<String, List>,
    /// Programs and files by globs, each tried.
    pub patterns: List,
    /// Presets, each tried.
    pub presets: List,
    /// Keys without a rule are left out.
    pub sockets: Vec<(SocketKey, List)>,
    /// Connections, each tried.
    pub endpoints: List,
    /// Names that are looked up: the list of the longest domain that covers one, its parents' rules included.
    pub domains: BTreeMap<String, List>,
    /// By capability number.
    pub capability_rules: Vec<(u8, List)>,
    /// By number of the system call on x86-64. Only Audit: a system call is told of and never denied.
    pub syscalls: Vec<(u16, List)>,
    /// USB devices, each tried.
    pub devices: List,
    /// Packets, each tried.
    pub flows: List,
    /// What the policies ask for and is not done.
    pub not_enforced: Vec<NotEnforced>,
}

impl Default for Flat {
    /// No rules.
    fn default() -> Flat {
        Flat {
            digest: Digest([0; 32]),
            slots: Vec::new(),
            judged: Vec::new(),
            modes: Modes::OPEN,
            shadow: Modes::OPEN,
            states: vec![State::default()],
            names: BTreeMap::new(),
            patterns: List::default(),
            presets: List::default(),
            sockets: Vec::new(),
            endpoints: List::default(),
            domains: BTreeMap::new(),
            capability_rules: Vec::new(),
            syscalls: Vec::new(),
            devices: List::default(),
            flows: List::default(),
            not_enforced: Vec::new(),
        }
    }
}

/// What an alert tells of the rule behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotRule {
    /// The rule's name.
    pub id: RuleId,
    /// Kind of its policy, as in `KubeArmorPolicy`.
    pub kind: String,
    /// Namespace of its policy; empty for cluster policies.
    pub namespace: String,
    /// Name of its policy.
    pub policy: String,
    /// Where it belongs.
    pub section: Section,
    /// The action that was written.
    pub action: Action,
    /// What it is about.
    pub object: Object,
    /// By whom it must be done; empty: anyone.
    pub sources: Vec<Object>,
    /// 1 to 10; 0 when none was given.
    pub severity: u32,
    /// Told with every alert.
    pub tags: Vec<String>,
    /// Told with every alert.
    pub message: String,
}

/// What is asked of a rule beyond the list that it stands in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    pub(crate) rule: std::sync::Arc<Rule>,
    pub(crate) globs: Vec<Glob>,
    pub(crate) programs: Vec<Program>,
}

/// The mode of a class of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// An Allow rule is in force: what no rule names falls to the posture. Never set for posture `allow`, under which
    /// an allow-list changes nothing.
    pub allow_list: bool,
    /// What happens to what an allow-list does not name.
    pub posture: Posture,
}

impl Class {
    /// What no rule names passes in silence.
    pub const OPEN: Class = Class {
        allow_list: false,
        posture: Posture::Audit,
    };
}

/// What happens to an operation that an allow-list does not name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Posture {
    /// It passes and is told as `DefaultPosture`.
    Audit,
    /// It fails and is told as `DefaultPosture`.
    Block,
}

/// A state of the path automaton.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The next state by component.
    pub edges: BTreeMap<String, u32>,
    /// What exec of a path that ends the walk here means.
    pub process: Lists,
    /// What opening it means.
    pub file: Lists,
}

/// The three ways in which a path can leave the automaton.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    /// It ends at this state.
    pub here: List,
    /// One more component, for which there is no edge.
    pub child: List,
    /// More than one, for the first of which there is no edge.
    pub below: List,
}

/// Rules in the order in which they are asked, ended by the first Allow or Block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List(pub Vec<Candidate>);

/// One rule in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Index in [`Flat::slots`].
    pub slot: u32,
    /// The action here: a Block that must not be enforced stands as Audit.
    pub action: Action,
    /// Its place among candidates of other lists; smaller is asked first. Ascending in every list.
    pub order: u64,
    /// Of a policy with `mode: audit`: it decides nothing, only what is told as its shadow.
    pub shadow: bool,
}

/// A part of a policy that is not done here, or done less than it says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NotEnforced {
    /// `namespace/name`.
    pub policy: String,
    /// Where in the document, or which rule.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// What becomes of an operation. `R` names rules: a slot, or a [`RuleId`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict<R> {
    /// Who decides, and how.
    pub enforced: Enforced<R>,
    /// What policies with `mode: audit` would have made of it, where that is another outcome. A denial here is told as
    /// `Audit (Block)`.
    pub shadow: Option<Enforced<R>>,
    /// The Audit rule that tells of it if it passes. It tells in place of an audit posture, too.
    pub audit: Option<R>,
    /// What each rule that was asked said, in order, up to the one that decides.
    pub why: Vec<Step<R>>,
}

impl<R> Verdict<R> {
    /// Whether an alert comes of it, mode audit aside.
    pub fn tells(&self) -> bool {
        self.audit.is_some() || !matches!(self.enforced, Enforced::Nothing | Enforced::Allow(_))
    }

    /// What would have to be known of the doer to be sure of the verdict; `None`: it is sure.
    pub fn doubt(&self) -> Option<Condition> {
        self.why.iter().find_map(|step| match step.said {
            Said::Unknown(condition) => Some(condition),
            _ => None,
        })
    }
}

/// One rule that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step<R> {
    /// Which.
    pub rule: R,
    /// Its action.
    pub action: Action,
    /// What it said.
    pub said: Said,
}

/// What a rule said when it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// It is about the operation and decides.
    Decides,
    /// It is about the operation and tells of it.
    Tells,
    /// It would decide if its policy were not in mode audit.
    Would,
    /// This condition does not hold, or could change nothing.
    Passed(Condition),
    /// This is not known, and the verdict depends on it.
    Unknown(Condition),
}

/// Who decides whether an operation passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforced<R> {
    /// Nobody: it passes.
    Nothing,
    /// A rule: it passes.
    Allow(R),
    /// A rule: it fails.
    Block(R),
    /// Nobody, in an allow-list.
    Posture(Posture),
}

impl<R> Enforced<R> {
    /// Whether the operation fails.
    pub fn denies(&self) -> bool {
        matches!(self, Enforced::Block(_) | Enforced::Posture(Posture::Block))
    }
}

impl Flat {
    /// Decides as the kernel's programs do.
    pub fn decide(&self, operation: &Operation) -> Verdict<u32> {
        let act = &operation.act;
        let mut candidates: Vec<Candidate> = Vec::new();
        self.collect(act, &mut |list| candidates.extend(&list.0));
        candidates.sort_unstable_by_key(|candidate| candidate.order);
        // A name that was looked up may reach a rule in two ways; the narrower counts.
        let mut seen = Vec::new();
        candidates.retain(|candidate| {
            let first = !seen.contains(&candidate.slot);
            seen.push(candidate.slot);
            first
        });
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
