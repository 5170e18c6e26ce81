//! What one effective set means to a kernel: strings and lists, no hashes.
//!
//! ```text
//! path /usr/bin/sleep      0 ─usr─▶ 1 ─bin─▶ 2 ─sleep─▶ 3     ends at a state that was built for it: its `here`
//!      /usr/bin/ls         0 ─usr─▶ 2, no edge `ls`           one name too many: `child` of 2
//!      /usr/bin/x/y        0 ─usr─▶ 2, no edge `x`            more than one:     `below` of 2
//! ```
//! Each of the three is a [`List`], computed once with all precedence in it. Whoever decides only scans: the first Allow
//! or Block is what is enforced, the first Audit before it is told if the operation passes. With neither Allow nor Block
//! a class in allow-list mode falls to its posture. [`Flat::decide`] is that scan, word for word what the kernel's
//! programs do; [`decide`](crate::decide()) is the meaning that it is tested against.

use std::collections::BTreeMap;

use proto::{Digest, RuleId};

use crate::operation::Operation;
use crate::path::components;
use crate::rule::{Action, Object, Section};
use crate::socket::SocketKey;

/// One effective set, ready for maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flat {
    /// Equal for equal policies, postures and path aliases.
    pub digest: Digest,
    /// The rules that lists name by their index here.
    pub slots: Vec<SlotRule>,
    /// Mode of exec.
    pub process: Class,
    /// Mode of files.
    pub file: Class,
    /// Mode of sockets.
    pub network: Class,
    /// Mode of capabilities.
    pub capabilities: Class,
    /// The path automaton; the first state is `/` and is always there.
    pub states: Vec<State>,
    /// Keys without a rule are left out.
    pub sockets: Vec<(SocketKey, List)>,
    /// By capability number.
    pub capability_rules: Vec<(u8, List)>,
    /// By number of the system call on x86-64. Only Audit: a system call is told of and never denied.
    pub syscalls: Vec<(u16, List)>,
    /// What the policies ask for and is not done.
    pub not_enforced: Vec<NotEnforced>,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict<R> {
    /// Who decides, and how.
    pub enforced: Enforced<R>,
    /// The Audit rule that tells of it if it passes. It tells in place of an audit posture, too.
    pub audit: Option<R>,
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
        let (list, class) = match operation {
            Operation::Exec { path } => (self.walk(path, |state| &state.process), self.process),
            Operation::Open { path, write: _ } => (self.walk(path, |state| &state.file), self.file),
            Operation::Socket { key } => (find(&self.sockets, key), self.network),
            Operation::Capability { number } => {
                (find(&self.capability_rules, number), self.capabilities)
            }
            Operation::Syscall { number } => (find(&self.syscalls, number), Class::OPEN),
        };
        scan(list, class)
    }

    fn walk(&self, path: &str, lists: fn(&State) -> &Lists) -> Option<&List> {
        let mut state = self.states.first()?;
        let mut rest = components(path);
        while let Some(component) = rest.next() {
            match state
                .edges
                .get(component)
                .and_then(|next| self.states.get(*next as usize))
            {
                Some(next) => state = next,
                None if rest.next().is_none() => return Some(&lists(state).child),
                None => return Some(&lists(state).below),
            }
        }
        Some(&lists(state).here)
    }
}

fn find<'f, K: PartialEq>(rules: &'f [(K, List)], key: &K) -> Option<&'f List> {
    rules
        .iter()
        .find(|(known, _)| known == key)
        .map(|(_, list)| list)
}

fn scan(list: Option<&List>, class: Class) -> Verdict<u32> {
    let mut audit = None;
    for candidate in list.map_or(&[][..], |list| &list.0) {
        match candidate.action {
            Action::Allow => {
                return Verdict {
                    enforced: Enforced::Allow(candidate.slot),
                    audit,
                };
            }
            Action::Block => {
                return Verdict {
                    enforced: Enforced::Block(candidate.slot),
                    audit: None,
                };
            }
            Action::Audit => audit = audit.or(Some(candidate.slot)),
        }
    }
    let enforced = if class.allow_list {
        Enforced::Posture(class.posture)
    } else {
        Enforced::Nothing
    };
    // What fails is told by who denied it.
    Verdict {
        enforced,
        audit: if enforced.denies() { None } else { audit },
    }
}
