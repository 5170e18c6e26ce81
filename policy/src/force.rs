//! Which rules of an effective set are in force, and as what.
//!
//! A rule with a condition that this version does not judge is left out whole. That alone would deny too much: an
//! `Allow … fromSource` is an exception from some `Block`, and without the exception the Block would stop what the
//! policy allows. So where an Allow was left out,
//!
//! - a Block whose objects it may share, and that it would have beaten, is told instead of enforced;
//! - the posture of its class is at most `audit`.
//!
//! Both are reported. Nothing is ever enforced more broadly than it was written.

use std::sync::Arc;

use crate::aliases::Aliases;
use crate::flat::{Class, NotEnforced, Posture};
use crate::path::components;
use crate::rule::{Action, Object, Rule, Section, unenforced};
use crate::select::Effective;
use crate::set::{CompiledPolicy, Unnamed};
use crate::socket::SocketKey;

/// A rule that judges, with the action that it has here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing<'e> {
    pub(crate) policy: &'e Arc<CompiledPolicy>,
    pub(crate) rule: &'e Rule,
    pub(crate) action: Action,
}

#[derive(Debug)]
pub(crate) struct Force<'e> {
    /// In order of rule id, then policy: the index is the slot.
    pub(crate) standing: Vec<Standing<'e>>,
    pub(crate) process: Class,
    pub(crate) file: Class,
    pub(crate) network: Class,
    pub(crate) capabilities: Class,
    pub(crate) not_enforced: Vec<NotEnforced>,
}

pub(crate) fn in_force<'e>(effective: &'e Effective, aliases: &Aliases) -> Force<'e> {
    let all = effective
        .policies
        .iter()
        .flat_map(|policy| policy.rules.iter().map(move |rule| (policy, rule)));
    let (mut standing, mut exceptions) = (Vec::new(), Vec::new());
    for (policy, rule) in all {
        match unenforced(rule) {
            None => standing.push(Standing {
                policy,
                rule,
                action: rule.action,
            }),
            Some(_) if rule.action == Action::Allow => exceptions.push((policy, rule)),
            Some(_) => {}
        }
    }
    standing.sort_by_key(|standing| (standing.rule.id, standing.policy.digest));
    let mut not_enforced = reported(effective);
    for standing in &mut standing {
        soften(standing, &exceptions, aliases, &mut not_enforced);
    }
    let mut class = |section: Section, posture: Unnamed| {
        let listed = standing
            .iter()
            .any(|s| s.rule.section == section && s.action == Action::Allow);
        let excepted = exceptions.iter().find(|(_, rule)| rule.section == section);
        class(
            listed,
            posture,
            excepted.map(|(policy, _)| policy.title()),
            section,
            &mut not_enforced,
        )
    };
    let postures = effective.postures;
    Force {
        process: class(Section::Process, postures.file),
        file: class(Section::File, postures.file),
        network: class(Section::Network, postures.network),
        capabilities: class(Section::Capabilities, postures.capabilities),
        standing,
        not_enforced,
    }
}

fn reported(effective: &Effective) -> Vec<NotEnforced> {
    let parts = effective.policies.iter().flat_map(|policy| {
        policy.unenforced.iter().map(|part| NotEnforced {
            policy: policy.title(),
            path: part.path.clone(),
            reason: part.reason.clone(),
        })
    });
    parts.collect()
}

fn soften(
    standing: &mut Standing<'_>,
    exceptions: &[(&Arc<CompiledPolicy>, &Rule)],
    aliases: &Aliases,
    not_enforced: &mut Vec<NotEnforced>,
) {
    if standing.action != Action::Block {
        return;
    }
    let rule = standing.rule;
    let excepts = |(_, allow): &&(&Arc<CompiledPolicy>, &Rule)| {
        allow.section == rule.section
            && may_share(&allow.object, &rule.object, aliases)
            && may_beat(allow, &rule.object)
    };
    if let Some((policy, allow)) = exceptions.iter().find(excepts) {
        standing.action = Action::Audit;
        let reason = format!(
            "told instead of blocked: the Allow on `{}` of policy {} may except from it and is not judged by this version",
            allow.object,
            policy.title()
        );
        let path = format!("{}: {}", word(rule.section), rule.object);
        not_enforced.push(NotEnforced {
            policy: standing.policy.title(),
            path,
            reason,
        });
    }
}

fn class(
    listed: bool,
    posture: Unnamed,
    excepted: Option<String>,
    section: Section,
    not_enforced: &mut Vec<NotEnforced>,
) -> Class {
    let posture = match (posture, excepted) {
        // An allow-list that lets everything else pass in silence is none.
        (Unnamed::Allow, _) => {
            return Class::OPEN;
        }
        (Unnamed::Block, None) => Posture::Block,
        (Unnamed::Audit, _) => Posture::Audit,
        (Unnamed::Block, Some(policy)) => {
            if listed {
                let reason = format!(
                    "posture block is only told for {} operations: an Allow of this policy is not judged by this version",
                    word(section)
                );
                not_enforced.push(NotEnforced {
                    policy,
                    path: word(section).to_owned(),
                    reason,
                });
            }
            Posture::Audit
        }
    };
    Class {
        allow_list: listed,
        posture,
    }
}

pub(crate) fn word(section: Section) -> &'static str {
    match section {
        Section::Process => "process",
        Section::File => "file",
        Section::Network => "network",
        Section::Dns => "network DNS",
        Section::Capabilities => "capabilities",
        Section::Syscalls => "syscalls",
    }
}

/// Whether an Allow on the first object, left out of force, could have won over a Block on the second. With a source
/// it wins over every rule without one; on a pattern it loses to all that is not a pattern.
fn may_beat(allow: &Rule, blocked: &Object) -> bool {
    if !allow.sources.is_empty() {
        return true;
    }
    match (&allow.object, blocked) {
        (Object::Pattern(_), _) => false,
        (Object::Name(_), Object::Path(_)) => false,
        (Object::Directory { .. }, Object::Path(_)) => false,
        // Equal rank goes to the Block.
        (Object::Path(_), Object::Path(_)) => false,
        (Object::Protocol(a), Object::Protocol(b)) => a.breadth() < b.breadth(),
        _ => true,
    }
}

/// Whether some operation may be about both objects; true when in doubt.
fn may_share(a: &Object, b: &Object, aliases: &Aliases) -> bool {
    match (a, b) {
        (
            Object::Path(_) | Object::Directory { .. },
            Object::Path(_) | Object::Directory { .. },
        ) => {
            let mut pairs = aliases
                .of(a)
                .iter()
                .flat_map(|a| aliases.of(b).iter().map(move |b| (a, b)));
            pairs.any(|(one, other)| under(one, a, other) || under(other, b, one))
        }
        (Object::Path(path), Object::Name(name)) | (Object::Name(name), Object::Path(path)) => {
            components(path).last() == Some(name)
        }
        (Object::Name(a), Object::Name(b)) => a == b,
        (Object::Protocol(a), Object::Protocol(b)) => SocketKey::ALL
            .iter()
            .any(|key| a.covers(*key) && b.covers(*key)),
        (Object::Capability(a), Object::Capability(b)) => a == b,
        _ => true,
    }
}

/// Whether `form` of `object` is, or may reach, the path or directory `other`.
fn under(form: &str, object: &Object, other: &str) -> bool {
    let bare = other.trim_end_matches('/');
    form.trim_end_matches('/') == bare
        || (matches!(object, Object::Directory { .. }) && format!("{bare}/").starts_with(form))
}
