//! Which policies are about a workload.
//!
//! All conditions of a selector must hold: its namespace, every label of `matchLabels`, every expression of
//! `matchExpressions` (`In`: one of the values is there; `NotIn`: none is), one of its containers. The order in which
//! they are written does not matter. An empty selector is about everything in its namespace.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::Digest;
use proto::rules::{Expression, Selector};
use sha2::{Digest as _, Sha256};

use crate::set::{CompiledPolicy, Postures, Set, Unnamed};

/// Labels that Kubernetes makes up anew for every version of a workload: no selector sees them.
const UNSEEN: [&str; 3] = [
    "pod-template-hash",
    "pod-template-generation",
    "controller-revision-hash",
];

/// Who does something, as selectors see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// Its namespace.
    pub namespace: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The name of its container.
    pub container: String,
}

/// The policies about one workload, with the postures of its namespace.
#[derive(Clone, Debug)]
pub struct Effective {
    pub(crate) policies: Vec<Arc<CompiledPolicy>>,
    pub(crate) postures: Postures,
}

/// Takes the policies about a workload out of a set.
pub fn select(set: &Set, workload: &Workload) -> Effective {
    // Policies for hosts and for the network between them are about no workload.
    let about = |policy: &&Arc<CompiledPolicy>| {
        matches!(
            policy.kind.as_str(),
            "KubeArmorPolicy" | "KubeArmorClusterPolicy"
        ) && matches(&policy.selector, workload)
    };
    let own = set.namespaces.get(&workload.namespace);
    Effective {
        policies: set.policies.iter().filter(about).cloned().collect(),
        postures: own.copied().unwrap_or(set.postures),
    }
}

impl Effective {
    /// The names of the policies, `namespace/name` (the name alone for cluster policies), in byte order.
    pub fn policies(&self) -> Vec<String> {
        let mut titles: Vec<String> = self.policies.iter().map(|policy| policy.title()).collect();
        titles.sort_unstable();
        titles
    }

    /// Equal for equal policies under equal postures.
    pub fn digest(&self) -> Digest {
        let mut hash = Sha256::new();
        for posture in [
            self.postures.file,
            self.postures.network,
            self.postures.capabilities,
        ] {
            hash.update(match posture {
                Unnamed::Allow => [0u8],
                Unnamed::Audit => [1],
                Unnamed::Block => [2],
            });
        }
        for policy in &self.policies {
            hash.update(policy.digest.0);
        }
        Digest(hash.finalize().into())
    }
}

/// Whether a selector is about a workload.
pub(crate) fn matches(selector: &Selector, workload: &Workload) -> bool {
    (selector.all_namespaces || selector.namespace == workload.namespace)
        && (selector.containers.is_empty() || selector.containers.contains(&workload.container))
        && selector
            .match_labels
            .iter()
            .all(|label| has(workload, &label.key, &label.value))
        && selector
            .expressions
            .iter()
            .all(|expression| holds(expression, workload))
}

fn holds(expression: &Expression, workload: &Workload) -> bool {
    let named = expression
        .values
        .iter()
        .any(|value| match expression.key.as_str() {
            "namespace" => *value == workload.namespace,
            _ => value
                .split_once('=')
                .is_some_and(|(key, value)| has(workload, key, value)),
        });
    named != expression.not_in
}

fn has(workload: &Workload, key: &str, value: &str) -> bool {
    !UNSEEN.contains(&key) && workload.labels.get(key).is_some_and(|own| own == value)
}
