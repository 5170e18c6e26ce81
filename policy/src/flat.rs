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

use crate::condition::Program;
use crate::glob::Glob;
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
    /// It is a Block that is told instead, for an exception from it is not judged.
    pub softened: bool,
}
