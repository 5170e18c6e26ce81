//! Whether two rules can be about the same operation, and which of them would be asked first.

use crate::path::components;
use crate::rank::Rank;
use crate::rule::{Object, Rule};
use crate::socket::SocketKey;
use crate::standing::Standing;

/// Whether an Allow could be asked before a Block for some operation that both are about. Of directories it depends on
/// which name leads there, so it may.
pub(crate) fn may_beat(allow: &Rule, block: &Rule) -> bool {
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
pub(crate) fn may_share(a: &Standing, b: &Standing) -> bool {
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
    let bare = other.trim_end_matches('/');
    form.trim_end_matches('/') == bare
        || (matches!(object, Object::Directory { .. }) && format!("{bare}/").starts_with(form))
}
