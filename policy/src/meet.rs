//! Whether two rules can be about the same operation, and which of them would be asked first.

use std::collections::BTreeMap;

use crate::path::components;
use crate::rank::Rank;
use crate::rule::{Object, Rule, Section};
use crate::socket::SocketKey;
use crate::standing::Standing;

/// Whether an Allow could be asked before a Block for some operation that both are about. Of directories it depends on
/// which name leads there, so it may.
fn may_beat(allow: &Rule, block: &Rule) -> bool {
    match (&allow.object, &block.object) {
        (Object::Directory { .. }, Object::Directory { .. })
        | (Object::Pattern(_), Object::Pattern(_)) => tier(allow) <= tier(block),
        _ => order(allow) < order(block),
    }
}

fn tier(rule: &Rule) -> u64 {
    order(rule) >> 62
}

/// The rank without what tells two rules of one kind apart by their names.
fn order(rule: &Rule) -> u64 {
    let depth = match &rule.object {
        Object::Endpoints(endpoints) => endpoints.narrowness(),
        Object::Devices(devices) => devices.narrowness(),
        Object::Flows(flows) => flows.narrowness(),
        Object::Domain(domain) => crate::domain::labels(domain),
        _ => 0,
    };
    Rank::of(rule, 0, depth).0
}

/// Whether some operation may be about the objects of both; true when in doubt.
fn may_share(a: &Standing, b: &Standing) -> bool {
    match (&a.rule.object, &b.rule.object) {
        (
            Object::Path(_) | Object::Directory { .. },
            Object::Path(_) | Object::Directory { .. },
        ) => {
            let mut pairs = a
                .names
                .iter()
                .flat_map(|one| b.names.iter().map(move |other| (one, other)));
            pairs.any(|(one, other)| {
                under(one, &a.rule.object, other) || under(other, &b.rule.object, one)
            })
        }
        (Object::Path(_), Object::Name(name)) => ends_in(a, name),
        (Object::Name(name), Object::Path(_)) => ends_in(b, name),
        (Object::Pattern(_), Object::Path(_)) => b
            .names
            .iter()
            .any(|name| a.globs.iter().any(|glob| glob.matches(name))),
        (Object::Path(_), Object::Pattern(_)) => a
            .names
            .iter()
            .any(|name| b.globs.iter().any(|glob| glob.matches(name))),
        (Object::Name(a), Object::Name(b)) => a == b,
        (Object::Protocol(a), Object::Protocol(b)) => SocketKey::ALL
            .iter()
            .any(|key| a.covers(*key) && b.covers(*key)),
        (Object::Capability(a), Object::Capability(b)) => a == b,
        (Object::Domain(a), Object::Domain(b)) => {
            crate::domain::covers(a, b) || crate::domain::covers(b, a)
        }
        (Object::Endpoints(a), Object::Endpoints(b)) => a.meets(b),
        (Object::Devices(a), Object::Devices(b)) => a.meets(b),
        (Object::Flows(a), Object::Flows(b)) => a.meets(b),
        (Object::Syscall { .. }, Object::Syscall { .. }) => a
            .rule
            .object
            .syscalls()
            .any(|one| b.rule.object.syscalls().any(|other| one == other)),
        _ => true,
    }
}

fn ends_in(path: &Standing, name: &str) -> bool {
    path.names
        .iter()
        .any(|path| components(path).last() == Some(name))
}

/// Whether `form` of `object` is, or may reach, the path or directory `other`.
fn under(form: &str, object: &Object, other: &str) -> bool {
    let bare = bare(other);
    self::bare(form) == bare
        || (matches!(object, Object::Directory { .. }) && bare.starts_with(form))
}

/// A name without the `/` that marks a directory; empty for the root.
fn bare(name: &str) -> &str {
    name.trim_end_matches('/')
}

/// Allows that a node leaves out, found by what they may be about.
pub(crate) struct Exceptions<'r> {
    all: Vec<&'r Standing>,
    /// Those with paths, by every bare name of theirs.
    by_name: BTreeMap<&'r str, Vec<&'r Standing>>,
    /// Those that are about no path in particular.
    elsewhere: Vec<&'r Standing>,
}

impl<'r> Exceptions<'r> {
    pub(crate) fn new(all: Vec<&'r Standing>) -> Exceptions<'r> {
        let mut by_name: BTreeMap<&str, Vec<&Standing>> = BTreeMap::new();
        for &allow in &all {
            for name in &allow.names {
                by_name.entry(bare(name)).or_default().push(allow);
            }
        }
        let unnamed = all.iter().filter(|allow| allow.names.is_empty());
        Exceptions {
            elsewhere: unnamed.copied().collect(),
            by_name,
            all,
        }
    }

    /// One of them in a section.
    pub(crate) fn of(&self, section: Section) -> Option<&'r Standing> {
        let mut all = self.all.iter();
        all.find(|allow| allow.rule.section == section).copied()
    }

    /// One that may be asked before a Block about something that both are about.
    pub(crate) fn from(&self, block: &Standing) -> Option<&'r Standing> {
        let excepts = |allow: &&'r Standing| {
            allow.rule.section == block.rule.section
                && may_beat(&allow.rule, &block.rule)
                && may_share(allow, block)
        };
        if block.names.is_empty() {
            return self.all.iter().copied().find(excepts);
        }
        let near = block.names.iter().flat_map(|name| self.near(bare(name)));
        self.elsewhere.iter().copied().chain(near).find(excepts)
    }

    /// Those that name a path, what it lies in, or what lies in it.
    fn near<'n>(&'n self, name: &'n str) -> impl Iterator<Item = &'r Standing> + 'n {
        let above = name.match_indices('/').map(|(at, _)| &name[..at]);
        let above = above.filter_map(|above| self.by_name.get(above));
        let below = self.by_name.range(name..);
        let below = below.take_while(move |(own, _)| own.starts_with(name));
        above
            .chain(below.map(|(_, allows)| allows))
            .flatten()
            .copied()
    }
}
