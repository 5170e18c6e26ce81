//! Which rule is asked first: the order that makes the arrival of policies not matter.
//!
//! Presets, which are about what no object can name. Then exact path, name, directory, each with a source; then the same
//! without; then patterns. Deeper before shallower, direct children before all below. At equal rank Block, Audit, Allow, then
//! the rule's id, then its policy's digest. Where there are no paths, narrower stands for deeper: a protocol before a type
//! before `all`, a domain before its parent, a range of addresses before the range around it and with ports before without.
//!
//! ```text
//! u64    62 tier · 60 breadth · 44 depth, turned · 43 wide · 40 action · 0 slot         smaller is asked first
//! ```

use crate::preset::Preset;
use crate::rule::{Action, Object, Rule};

/// The rank of a rule for an object that it matches by a name of some depth; smaller is asked first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank(pub(crate) u64);

/// Deeper than any path, name, range or device is narrow.
const DEEPEST: usize = 0xffff;

impl Rank {
    pub(crate) fn of(rule: &Rule, slot: u32, depth: usize) -> Rank {
        let tier = match (&rule.object, rule.sources.is_empty()) {
            (Object::Preset(_), _) => 0,
            (Object::Pattern(_), _) => 3,
            (_, false) => 1,
            (_, true) => 2,
        };
        let action = match rule.action {
            Action::Block => 0,
            Action::Audit => 1,
            Action::Allow => 2,
        };
        let shallow = DEEPEST - depth.min(DEEPEST);
        Rank(
            tier << 62
                | breadth(&rule.object) << 60
                | (shallow as u64) << 44
                | u64::from(is_wide(&rule.object)) << 43
                | action << 40
                | u64::from(slot),
        )
    }
}

/// 0 exact, 1 name, 2 directory; of sockets 0 protocol, 1 type, 2 all.
fn breadth(object: &Object) -> u64 {
    match object {
        Object::Name(_) => 1,
        Object::Directory { .. } => 2,
        Object::Protocol(protocol) => u64::from(protocol.breadth()),
        Object::Preset(Preset::ProtectProc | Preset::Exec) => 1,
        _ => 0,
    }
}

/// The wider of two that are equally deep.
fn is_wide(object: &Object) -> bool {
    match object {
        Object::Directory { recursive, .. } => *recursive,
        Object::Endpoints(endpoints) => endpoints.ports.is_empty(),
        Object::Flows(flows) => flows.ports.is_empty() && flows.interfaces.is_empty(),
        _ => false,
    }
}
