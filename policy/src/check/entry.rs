//! A policy that stops what a workload starts with.

use std::collections::BTreeSet;

use yaml::Problem;

use super::{Surroundings, told};
use crate::compile::compile_for;
use crate::decide::decide;
use crate::lower::rules_of;
use crate::model::Policy;
use crate::operation::Operation;
use crate::select::{Workload, select};
use crate::set::Set;
use crate::standing::Rules;
use crate::verdict::Enforced;

/// A program that a workload was seen to start with, by its resolved path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// Who.
    pub workload: Workload,
    /// What.
    pub path: String,
}

pub(super) fn check(policies: &[Policy], around: &Surroundings<'_>) -> Vec<Problem> {
    if around.history.is_empty() {
        return Vec::new();
    }
    let compiled = compile_for(policies, &around.postures, &around.namespaces);
    // A set that cannot be read back holds a policy twice, which `load` has told.
    let Ok(set) = Set::from_wire(&compiled.manifest, &compiled.blobs) else {
        return Vec::new();
    };
    let mut problems = Vec::new();
    let mut seen = BTreeSet::new();
    let now = around.now.unwrap_or_default();
    for started in around.history {
        let effective = select(&set, &started.workload, now);
        let rules = Rules::new(&effective, &|path| match around.root {
            Some(root) => super::root::aliases(root, path),
            None => Vec::new(),
        });
        let verdict = decide(&rules, &Operation::exec(started.path.as_str()));
        let id = match verdict.enforced {
            Enforced::Block(id) => Some(id),
            Enforced::Posture(_) if verdict.enforced.denies() => None,
            _ => continue,
        };
        if verdict.doubt().is_none() && seen.insert((id, started.path.clone())) {
            problems.extend(stopped(policies, &rules, id, started));
        }
    }
    problems
}

fn stopped(
    policies: &[Policy],
    rules: &Rules,
    id: Option<proto::RuleId>,
    started: &Started,
) -> Option<Problem> {
    let (path, namespace) = (&started.path, &started.workload.namespace);
    if let Some(id) = id {
        let all = policies.iter().flat_map(|policy| {
            rules_of(policy)
                .into_iter()
                .map(move |placed| (policy, placed))
        });
        let (policy, placed) = all.into_iter().find(|(_, placed)| placed.rule.id == id)?;
        let message = format!(
            "stops `{path}`, which a workload of namespace `{namespace}` starts with: it would not come up; narrow the rule, or try it with `mode: audit`"
        );
        return Some(told(policy, &placed.place, message));
    }
    // The posture: every Allow of the class has a part in it, the first is told.
    let titles: BTreeSet<String> = rules.iter().map(|(title, _)| title).collect();
    let allows = |policy: &&Policy| {
        let own = rules_of(policy);
        titles.contains(&policy.title())
            && own.iter().any(|placed| {
                placed.rule.section == crate::rule::Section::Process
                    && placed.rule.action == crate::rule::Action::Allow
            })
    };
    let policy = policies.iter().find(allows)?;
    let message = format!(
        "its allow-list does not name `{path}`, which a workload of namespace `{namespace}` starts with, and the posture is block: it would not come up; allow `{path}`"
    );
    Some(told(policy, &policy.place, message))
}
