//! What a rule set asks for and this node does not do: told for each policy, never passed over.
//!
//! Three sources: parts that this version reads and does not enforce (the compiler marked them in the blob), parts that
//! this node's kernel cannot enforce (its abilities say so), and what `policy::flatten` had to give up on a workload that is
//! here. The set is applied all the same.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use policy::NotEnforced;
use prost::Message;
use proto::link::{Ability, RuleProblem};
use proto::rules::{Action, Manifest, PolicyBlob, Posture, Section};

/// All shortfalls of these policies, in order of policy and path.
pub(crate) fn of<'a>(
    blobs: impl Iterator<Item = &'a Bytes>,
    manifest: &Manifest,
    abilities: &[Ability],
    here: impl Iterator<Item = &'a NotEnforced>,
) -> Vec<RuleProblem> {
    let abilities: BTreeMap<&str, &Ability> = abilities
        .iter()
        .map(|ability| (ability.operation.as_str(), ability))
        .collect();
    let mut found: BTreeSet<(String, String, String)> = here
        .map(|part| (part.policy.clone(), part.path.clone(), part.reason.clone()))
        .collect();
    for blob in blobs.filter_map(|blob| PolicyBlob::decode(blob.clone()).ok()) {
        let policy = title(&blob);
        for part in &blob.unenforced {
            found.insert((policy.clone(), part.path.clone(), part.reason.clone()));
        }
        for rule in &blob.rules {
            let postures = postures(manifest, &blob.namespace);
            if let Some(message) = shortfall(rule.section(), rule.action(), &postures, &abilities) {
                let path = format!("spec.{}", section_word(rule.section()));
                found.insert((policy.clone(), path, message));
            }
        }
    }
    found
        .into_iter()
        .map(|(policy, path, message)| RuleProblem {
            policy,
            path,
            message,
            refused: false,
        })
        .collect()
}

/// `namespace/name`, or the name alone for what has no namespace.
fn title(blob: &PolicyBlob) -> String {
    if blob.namespace.is_empty() {
        return blob.name.clone();
    }
    format!("{}/{}", blob.namespace, blob.name)
}

fn shortfall(
    section: Section,
    action: Action,
    postures: &impl Fn(Section) -> Posture,
    abilities: &BTreeMap<&str, &Ability>,
) -> Option<String> {
    let operation = operation(section)?;
    let (how, why) = match abilities.get(operation) {
        Some(ability) => (ability.how.as_str(), ability.reason.as_str()),
        None => ("none", "this version does not observe it"),
    };
    let wants_denial = match action {
        Action::Block => true,
        Action::Allow => postures(section) == Posture::Block,
        Action::Audit | Action::Unspecified => false,
    };
    let because = if why.is_empty() {
        String::new()
    } else {
        format!(": {why}")
    };
    match (how, wants_denial) {
        ("deny", _) => None,
        ("kill", true) if operation != "exec" => Some(format!(
            "contained only after the fact on this node{because}"
        )),
        ("kill", _) => None,
        ("none", _) => Some(format!("neither enforced nor told on this node{because}")),
        (_, true) => Some(format!(
            "not enforced on this node, only told as `Audit (Block)`{because}"
        )),
        _ => None,
    }
}

/// The name that abilities have for a section; DNS and system calls are told by the compiler.
fn operation(section: Section) -> Option<&'static str> {
    match section {
        Section::Process => Some("exec"),
        Section::File => Some("file"),
        Section::Network => Some("network"),
        Section::Capabilities => Some("capabilities"),
        Section::Dns
        | Section::Syscalls
        | Section::Devices
        | Section::Presets
        | Section::Endpoints
        | Section::Flows
        | Section::Unspecified => None,
    }
}

fn section_word(section: Section) -> &'static str {
    match section {
        Section::Process => "process",
        Section::File => "file",
        Section::Network | Section::Dns | Section::Endpoints | Section::Flows => "network",
        Section::Capabilities => "capabilities",
        Section::Syscalls => "syscalls",
        Section::Devices => "device",
        Section::Presets => "presets",
        Section::Unspecified => "",
    }
}

/// The postures of a namespace. Process rules share the file posture, as in KubeArmor.
fn postures<'a>(manifest: &'a Manifest, namespace: &str) -> impl Fn(Section) -> Posture + use<'a> {
    let own = manifest
        .namespaces
        .iter()
        .find(|own| own.namespace == namespace);
    let chosen = own
        .and_then(|own| own.postures.as_ref())
        .or(manifest.postures.as_ref());
    move |section| {
        let Some(postures) = chosen else {
            return Posture::Audit;
        };
        match section {
            Section::Network | Section::Dns => postures.network(),
            Section::Capabilities => postures.capabilities(),
            _ => postures.file(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::rules::{Postures, Rule, Unenforced};

    fn blob(section: Section, action: Action) -> Bytes {
        let rule = Rule {
            section: section.into(),
            action: action.into(),
            ..Rule::default()
        };
        let blob = PolicyBlob {
            namespace: "shop".to_owned(),
            name: "p".to_owned(),
            rules: vec![rule],
            ..PolicyBlob::default()
        };
        blob.encode_to_vec().into()
    }

    fn ability(operation: &str, how: &str) -> Ability {
        let reason = "the kernel has no LSM hooks".to_owned();
        Ability {
            operation: operation.to_owned(),
            how: how.to_owned(),
            reason,
        }
    }

    fn native() -> Vec<Ability> {
        vec![
            ability("exec", "kill"),
            ability("file", "audit"),
            ability("network", "deny"),
            ability("capabilities", "none"),
        ]
    }

    fn found(section: Section, action: Action, manifest: &Manifest) -> Vec<String> {
        let blobs = [blob(section, action)];
        of(blobs.iter(), manifest, &native(), [].iter())
            .into_iter()
            .map(|problem| format!("{} {}: {}", problem.policy, problem.path, problem.message))
            .collect()
    }

    #[test]
    fn a_file_block_on_the_native_tier_is_told_as_not_enforced() {
        let told = found(Section::File, Action::Block, &Manifest::default());
        assert_eq!(
            told,
            [
                "shop/p spec.file: not enforced on this node, only told as `Audit (Block)`: \
                  the kernel has no LSM hooks"
            ]
        );
    }

    #[test]
    fn what_the_tier_can_do_is_no_shortfall() {
        for section in [Section::Process, Section::Network] {
            assert_eq!(
                found(section, Action::Block, &Manifest::default()),
                Vec::<String>::new()
            );
        }
        assert_eq!(
            found(Section::File, Action::Audit, &Manifest::default()),
            Vec::<String>::new()
        );
    }

    #[test]
    fn an_allow_list_falls_short_only_where_its_posture_would_deny() {
        let block = Postures {
            file: Posture::Block.into(),
            ..Postures::default()
        };
        let strict = Manifest {
            postures: Some(block),
            ..Manifest::default()
        };
        assert_eq!(
            found(Section::File, Action::Allow, &Manifest::default()),
            Vec::<String>::new()
        );
        assert_eq!(found(Section::File, Action::Allow, &strict).len(), 1);
    }

    #[test]
    fn what_is_not_observed_at_all_is_said_even_of_audit_rules() {
        let told = found(Section::Capabilities, Action::Audit, &Manifest::default());
        assert!(told[0].contains("neither enforced nor told"), "{told:?}");
    }

    #[test]
    fn parts_that_the_compiler_marked_are_told_with_their_path() {
        let part = Unenforced {
            path: "spec.dns".to_owned(),
            reason: "not yet".to_owned(),
        };
        let blob = PolicyBlob {
            namespace: "a".to_owned(),
            name: "b".to_owned(),
            unenforced: vec![part],
            ..PolicyBlob::default()
        };
        let blobs = [Bytes::from(blob.encode_to_vec())];
        let told = of(blobs.iter(), &Manifest::default(), &native(), [].iter());
        assert_eq!((told.len(), told[0].path.as_str()), (1, "spec.dns"));
        assert!(!told[0].refused);
    }
}
