//! Selectors as written → selectors as compiled: one form for all that mean the same.

use std::collections::BTreeMap;

use proto::rules;

use crate::model;

/// The label that is none: it names containers of the pod.
pub(crate) const CONTAINER_NAME: &str = "kubearmor.io/container.name";

/// The selector of a KubeArmorPolicy.
pub(crate) fn workload(namespace: &str, selector: &model::Selector) -> rules::Selector {
    let names = selector.match_labels.get(CONTAINER_NAME);
    rules::Selector {
        all_namespaces: false,
        namespace: namespace.to_owned(),
        match_labels: labels(&selector.match_labels),
        expressions: expressions(&selector.match_expressions),
        containers: names.map(|names| containers(names)).unwrap_or_default(),
        none: false,
    }
}

/// The selector of a KubeArmorClusterPolicy.
pub(crate) fn cluster(selector: &model::ClusterSelector) -> rules::Selector {
    rules::Selector {
        all_namespaces: true,
        expressions: expressions(&selector.match_expressions),
        ..rules::Selector::default()
    }
}

/// The pods of a KubeArmorNetworkPolicy, in every namespace; without a selector none.
pub(crate) fn pods(selector: Option<&model::Selector>) -> rules::Selector {
    match selector {
        Some(selector) => rules::Selector {
            all_namespaces: true,
            ..workload("", selector)
        },
        None => none(),
    }
}

/// About no workload.
pub(crate) fn none() -> rules::Selector {
    rules::Selector {
        none: true,
        ..rules::Selector::default()
    }
}

/// The nodes of a policy.
pub(crate) fn node(selector: &model::NodeSelector) -> rules::Selector {
    let all = selector.match_labels.iter();
    let labels = all.map(|(key, value)| rules::Label {
        key: key.clone(),
        value: value.clone(),
    });
    rules::Selector {
        match_labels: labels.collect(),
        ..rules::Selector::default()
    }
}

fn labels(labels: &BTreeMap<String, String>) -> Vec<rules::Label> {
    let all = labels.iter().filter(|(key, _)| *key != CONTAINER_NAME);
    all.map(|(key, value)| rules::Label {
        key: key.clone(),
        value: value.clone(),
    })
    .collect()
}

fn expressions(written: &[model::Expression]) -> Vec<rules::Expression> {
    let mut all: Vec<_> = written
        .iter()
        .map(|expression| {
            let mut values = expression.values.clone();
            values.sort_unstable();
            values.dedup();
            rules::Expression {
                key: expression.key.clone(),
                not_in: expression.operator == "NotIn",
                values,
            }
        })
        .collect();
    all.sort_by(|a, b| (&a.key, a.not_in, &a.values).cmp(&(&b.key, b.not_in, &b.values)));
    all.dedup();
    all
}

/// `"[a, b]"` → a, b, sorted. Empty: all containers.
pub(crate) fn containers(text: &str) -> Vec<String> {
    let inner = text.trim().trim_start_matches('[').trim_end_matches(']');
    let mut names: Vec<String> = inner
        .split(',')
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_names_stand_in_brackets_and_empty_ones_do_not_count() {
        assert_eq!(containers("[worker, web]"), ["web", "worker"]);
        assert_eq!(containers("[container-1,,]"), ["container-1"]);
        assert_eq!(containers("[]"), Vec::<String>::new());
        assert_eq!(containers("web"), ["web"]);
    }
}
