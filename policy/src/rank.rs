//! Which rule is asked first: the order that makes the arrival of policies not matter.
//!
//! Exact path, name, directory, each with a source; then the same without; then patterns. Deeper before shallower,
//! direct children before all below. At equal rank Block, Audit, Allow, then the rule's id, then its policy's digest.
//! Among sockets a protocol comes before a type and a type before `all`, as a path comes before its directory.

use std::cmp::Reverse;

use crate::force::Standing;
use crate::rule::{Action, Object};

/// Smaller is asked first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    /// 0 with a source, 1 without, 2 for patterns.
    tier: u8,
    /// 0 exact, 1 name, 2 directory; of sockets 0 protocol, 1 type, 2 all.
    breadth: u8,
    depth: Reverse<usize>,
    recursive: bool,
    action: u8,
    /// Order of rule id and policy, which is the order of slots.
    slot: u32,
}

impl Rank {
    /// The rank of a rule that matches by an object of this depth (components of the path or directory).
    pub(crate) fn of(standing: &Standing<'_>, slot: u32, depth: usize) -> Rank {
        let rule = standing.rule;
        let tier = match (&rule.object, rule.sources.is_empty()) {
            (Object::Pattern(_), _) => 2,
            (_, false) => 0,
            (_, true) => 1,
        };
        let breadth = match &rule.object {
            Object::Name(_) => 1,
            Object::Directory { .. } => 2,
            Object::Protocol(protocol) => protocol.breadth(),
            _ => 0,
        };
        let action = match standing.action {
            Action::Block => 0,
            Action::Audit => 1,
            Action::Allow => 2,
        };
        let recursive = matches!(
            rule.object,
            Object::Directory {
                recursive: true,
                ..
            }
        );
        Rank {
            tier,
            breadth,
            depth: Reverse(depth),
            recursive,
            action,
            slot,
        }
    }
}
