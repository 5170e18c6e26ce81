//! The meaning of the language, small enough to read in one sitting.
//!
//! 1. A rule *matches* when the operation is about its object: the path itself; a child of its directory, the directory
//!    itself, or anything below where it is recursive; a socket of its protocol or type.
//! 2. Rules that match are *ranked*: see [`Rank`].
//! 3. The first Allow or Block is what is *enforced*. With none, a class in which an Allow is in force falls to its
//!    *posture*; other classes let everything pass.
//! 4. The first Audit before that rule *tells* of an operation that passes; it never changes the outcome. An Allow of
//!    higher rank silences it.
//!
//! The kernel does not run this: it scans the lists of a [`Flat`](crate::Flat). The two share the rank of a rule and
//! nothing else, so that each can be tested against the other.

use proto::RuleId;

use crate::aliases::Aliases;
use crate::flat::{Class, Enforced, Verdict};
use crate::force::{Force, Standing, in_force};
use crate::operation::Operation;
use crate::path::depth;
use crate::rank::Rank;
use crate::rule::{Action, Object, Section};
use crate::select::Effective;
use crate::syscalls::SYSCALLS;

/// Decides one operation by the rules themselves. `aliases` is what [`flatten`](crate::flatten()) takes.
pub fn decide(
    effective: &Effective,
    aliases: &dyn Fn(&str) -> Vec<String>,
    operation: &Operation,
) -> Verdict<RuleId> {
    let aliases = Aliases::of_set(effective, aliases);
    let force = in_force(effective, &aliases);
    let mut matching: Vec<(Rank, &Standing<'_>)> = Vec::new();
    for (slot, standing) in (0..).zip(&force.standing) {
        let depths = depths(standing, operation, &aliases);
        let best = depths
            .into_iter()
            .map(|depth| Rank::of(standing, slot, depth))
            .min();
        matching.extend(best.map(|rank| (rank, standing)));
    }
    matching.sort_by_key(|(rank, _)| *rank);

    let decisive = matching
        .iter()
        .position(|(_, standing)| standing.action != Action::Audit);
    let audits = matching
        .get(..decisive.unwrap_or(matching.len()))
        .unwrap_or(&[]);
    let enforced = match decisive.map(|at| matching[at].1) {
        Some(standing) if standing.action == Action::Block => Enforced::Block(standing.rule.id),
        Some(standing) => Enforced::Allow(standing.rule.id),
        None => match class(&force, operation) {
            Class {
                allow_list: true,
                posture,
            } => Enforced::Posture(posture),
            Class {
                allow_list: false, ..
            } => Enforced::Nothing,
        },
    };
    let told = audits.first().filter(|_| !enforced.denies());
    Verdict {
        enforced,
        audit: told.map(|(_, standing)| standing.rule.id),
    }
}

fn class(force: &Force<'_>, operation: &Operation) -> Class {
    match operation {
        Operation::Exec { .. } => force.process,
        Operation::Open { .. } => force.file,
        Operation::Socket { .. } => force.network,
        Operation::Capability { .. } => force.capabilities,
        Operation::Syscall { .. } => Class::OPEN,
    }
}

/// The depth of every name by which a rule matches; none when it does not.
fn depths(standing: &Standing<'_>, operation: &Operation, aliases: &Aliases) -> Vec<usize> {
    let (rule, object) = (standing.rule, &standing.rule.object);
    match (rule.section, operation) {
        (Section::Process, Operation::Exec { path })
        | (Section::File, Operation::Open { path, .. }) => {
            let names = aliases.of(object).iter();
            names
                .filter(|name| names_path(object, name, path))
                .map(|name| depth(name))
                .collect()
        }
        (Section::Network, Operation::Socket { key }) => {
            let covers = matches!(object, Object::Protocol(protocol) if protocol.covers(*key));
            if covers { vec![0] } else { Vec::new() }
        }
        (Section::Capabilities, Operation::Capability { number })
            if *object == Object::Capability(*number) =>
        {
            vec![0]
        }
        (Section::Syscalls, Operation::Syscall { number }) => {
            let known = object
                .syscalls()
                .any(|own| SYSCALLS.get(usize::from(*number)) == Some(&own));
            if known { vec![0] } else { Vec::new() }
        }
        _ => Vec::new(),
    }
}

fn names_path(object: &Object, name: &str, path: &str) -> bool {
    let Object::Directory { recursive, .. } = object else {
        return name == path;
    };
    if path == name || format!("{path}/") == name {
        return true;
    }
    path.strip_prefix(name)
        .is_some_and(|rest| *recursive || !rest.contains('/'))
}
