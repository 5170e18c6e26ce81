//! What this version's sensor leaves out of force on every tier: said alike by `check`, `explain` and `simulate`, and by each
//! node for itself in `status`.

use policy::{Judges, NotEnforced, Policy};
use proto::rules::Postures;
use serde::Serialize;

use super::loaded::Compiled;

/// What is left out of one policy.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Note {
    pub(super) file: String,
    pub(super) line: u32,
    /// `namespace/name`.
    pub(super) policy: String,
    /// The rule and the reason.
    pub(super) parts: Vec<String>,
}

/// Everything that sensors leave out of a set.
pub(super) fn of(set: &Compiled) -> Vec<NotEnforced> {
    Judges::SENSOR.shortfall(&set.set)
}

/// `process: curl: execname is not judged by this version's sensor`.
pub(super) fn words(part: &NotEnforced) -> String {
    format!("{}: {}", part.path, part.reason)
}

/// By policy, for those of which something is left out; nothing for policies that no sensor would take in.
pub(super) fn notes(policies: &[Policy]) -> Vec<Note> {
    let compiled = Compiled::new(policy::compile(policies, &Postures::default()));
    let all = compiled.map(|compiled| of(&compiled)).unwrap_or_default();
    let note = |policy: &Policy| {
        let title = title(policy);
        let own = all.iter().filter(|part| part.policy == title);
        let parts: Vec<String> = own.map(words).collect();
        (!parts.is_empty()).then(|| Note {
            file: policy.file.clone(),
            line: policy.line,
            policy: title,
            parts,
        })
    };
    policies.iter().filter_map(note).collect()
}

fn title(policy: &Policy) -> String {
    if policy.namespace.is_empty() {
        return policy.name.clone();
    }
    format!("{}/{}", policy.namespace, policy.name)
}
