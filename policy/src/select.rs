//! Which policies are about a workload.
//!
//! All conditions of a selector must hold: its namespace, every label of `matchLabels`, every expression of
//! `matchExpressions` (`In`: one of the values is there; `NotIn`: none is), one of its containers. The order in which
//! they are written does not matter. An empty selector is about everything in its namespace.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::Digest;
use proto::rules::{self, Expression, Selector};
use sha2::{Digest as _, Sha256};

use crate::rule::{Object, Rule};
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

/// A machine, as selectors see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its host name.
    pub hostname: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// A point in time, in seconds since 1970. The crate has no clock: who asks says when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub i64);

impl From<std::time::SystemTime> for Moment {
    fn from(time: std::time::SystemTime) -> Moment {
        let since = time.duration_since(std::time::UNIX_EPOCH);
        let seconds = since.map_or(0, |since| since.as_secs());
        Moment(i64::try_from(seconds).unwrap_or(i64::MAX))
    }
}

/// The policies about one workload or node, with the postures around it.
#[derive(Clone, Debug)]
pub struct Effective {
    pub(crate) policies: Vec<Arc<CompiledPolicy>>,
    pub(crate) postures: Postures,
    pub(crate) of_node: bool,
}

/// Takes the policies about a workload out of a set: those that select it and have not expired.
pub fn select(set: &Set, workload: &Workload, now: Moment) -> Effective {
    let about = |policy: &&Arc<CompiledPolicy>| {
        policy.kind != HOST && !policy.selector.none && matches(&policy.selector, workload)
    };
    let own = set.namespaces.get(&workload.namespace).copied();
    Effective {
        policies: in_time(set, now).filter(about).cloned().collect(),
        postures: set.postures.under(own.unwrap_or_default()),
        of_node: false,
    }
}

/// Takes the policies about a node out of a set: host and network policies whose nodeSelector fits it.
pub fn select_node(set: &Set, node: &Node, now: Moment) -> Effective {
    let about = |policy: &&Arc<CompiledPolicy>| matches_node(&policy.nodes, node);
    Effective {
        policies: in_time(set, now).filter(about).cloned().collect(),
        postures: set.host,
        of_node: true,
    }
}

const HOST: &str = "KubeArmorHostPolicy";

fn in_time(set: &Set, now: Moment) -> impl Iterator<Item = &Arc<CompiledPolicy>> {
    let all = set.policies.iter();
    all.filter(move |policy| policy.expires.is_none_or(|expires| expires > now))
}

impl Effective {
    /// One policy, as if it were about somebody and no other were.
    pub(crate) fn alone(policy: &Arc<CompiledPolicy>, set: &Set) -> Effective {
        let own = set.namespaces.get(&policy.namespace).copied();
        let of_node = policy.kind == HOST;
        Effective {
            policies: vec![policy.clone()],
            postures: if of_node {
                set.host
            } else {
                set.postures.under(own.unwrap_or_default())
            },
            of_node,
        }
    }

    /// The names of the policies, `namespace/name` (the name alone for cluster policies), in byte order.
    pub fn policies(&self) -> Vec<String> {
        let mut titles: Vec<String> = self.policies.iter().map(|policy| policy.title()).collect();
        titles.sort_unstable();
        titles.dedup();
        titles
    }

    /// Equal for equal policies under equal postures.
    pub fn digest(&self) -> Digest {
        let mut hash = Sha256::new();
        let Postures {
            file,
            network,
            capabilities,
            devices,
        } = self.postures;
        for posture in [file, network, capabilities, devices] {
            hash.update(match posture {
                None => [0u8],
                Some(Unnamed::Allow) => [1],
                Some(Unnamed::Audit) => [2],
                Some(Unnamed::Block) => [3],
            });
        }
        hash.update([u8::from(self.of_node)]);
        for policy in &self.policies {
            hash.update(policy.digest.0);
        }
        Digest(hash.finalize().into())
    }

    /// On workloads, network policies are about quotas alone, as in KubeArmor.
    pub(crate) fn judges(&self, rule: &Rule) -> bool {
        match &rule.object {
            Object::Flows(flows) => self.of_node || flows.quota.is_some(),
            _ => true,
        }
    }
}

/// Labels that are asked of the host's name, whatever its labels say.
const HOSTNAMES: [&str; 2] = ["kubearmor.io/hostname", "kubernetes.io/hostname"];
const HOSTNAME_PATTERNS: [&str; 2] = ["kubearmor.io/hostnamereg", "kubernetes.io/hostnamereg"];

/// Whether a nodeSelector is about a node: all its labels. An empty one is about none.
fn matches_node(nodes: &Selector, node: &Node) -> bool {
    let holds = |label: &rules::Label| {
        let (key, value) = (label.key.as_str(), label.value.as_str());
        let mut words = value
            .split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty());
        if HOSTNAMES.contains(&key) {
            return words.any(|word| word == "*" || word == node.hostname);
        }
        if HOSTNAME_PATTERNS.contains(&key) {
            return words.any(|word| wild(word, &node.hostname));
        }
        node.labels.get(key).is_some_and(|own| own == value)
    };
    !nodes.match_labels.is_empty() && nodes.match_labels.iter().all(holds)
}

/// `*` stands for any run of characters.
fn wild(pattern: &str, text: &str) -> bool {
    let Some((front, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(front) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.ends_with(last)
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
