//! Workloads and nodes at which selectors can differ: one that fits, and one for each value that a selector names.

use std::collections::BTreeMap;

use policy::{Node, Workload};
use proto::rules::{Expression, PolicyBlob, Selector};

use super::STRANGER;

/// Somebody whom policies are about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Place {
    Workload(Workload),
    Node(Node),
}

/// Those that the policies tell apart, and for each namespace a workload with every label.
pub(in super::super) fn places<'b>(blobs: impl Iterator<Item = &'b PolicyBlob>) -> Vec<Place> {
    let mut all: Vec<Place> = Vec::new();
    let mut whole: BTreeMap<String, Workload> = BTreeMap::new();
    for blob in blobs {
        let selector = blob.selector.as_ref().filter(|selector| !selector.none);
        for (at, workload) in selector.map(workloads).into_iter().flatten().enumerate() {
            if at == 0 {
                together(&mut whole, &workload);
            }
            all.push(Place::Workload(workload));
        }
        all.extend(blob.nodes.iter().flat_map(nodes).map(Place::Node));
    }
    all.extend(whole.into_values().map(Place::Workload));
    let mut once: Vec<Place> = Vec::new();
    for place in all {
        if !once.contains(&place) {
            once.push(place);
        }
    }
    once
}

fn together(whole: &mut BTreeMap<String, Workload>, workload: &Workload) {
    let namespace = &workload.namespace;
    let all = whole.entry(namespace.clone()).or_insert_with(|| Workload {
        namespace: namespace.clone(),
        ..Workload::default()
    });
    all.labels.extend(workload.labels.clone());
}

/// The plainest that the selector is about, first; then one for each other value that it names, and for none of them.
fn workloads(selector: &Selector) -> Vec<Workload> {
    let plain = selected(selector);
    let mut all = vec![plain.clone()];
    for expression in &selector.expressions {
        let values = expression.values.iter();
        all.extend(values.map(|value| with(&plain, expression, value)));
        if expression.key == "namespace" {
            all.push(with(&plain, expression, STRANGER));
        }
    }
    let containers = selector.containers.iter().cloned();
    let stranger = (!selector.containers.is_empty()).then(|| STRANGER.to_owned());
    all.extend(containers.chain(stranger).map(|container| Workload {
        container,
        ..plain.clone()
    }));
    all
}

/// With the first of all that must be, and nothing of what must not.
fn selected(selector: &Selector) -> Workload {
    let labels = selector.match_labels.iter();
    let mut workload = Workload {
        namespace: selector.namespace.clone(),
        labels: labels
            .map(|label| (label.key.clone(), label.value.clone()))
            .collect(),
        container: selector.containers.first().cloned().unwrap_or_default(),
    };
    for expression in selector.expressions.iter().filter(|own| !own.not_in) {
        if let Some(value) = expression.values.first() {
            workload = with(&workload, expression, value);
        }
    }
    if workload.namespace.is_empty() {
        workload.namespace = "default".to_owned();
    }
    workload
}

fn with(workload: &Workload, expression: &Expression, value: &str) -> Workload {
    let mut workload = workload.clone();
    if expression.key == "namespace" {
        workload.namespace = value.to_owned();
    } else if let Some((key, value)) = value.split_once('=') {
        workload.labels.insert(key.to_owned(), value.to_owned());
    }
    workload
}

/// A node for each host name that a selector names, and one of another name with the same labels.
fn nodes(selector: &Selector) -> Vec<Node> {
    if selector.match_labels.is_empty() {
        return Vec::new();
    }
    let mut names = vec![STRANGER.to_owned()];
    let mut labels = BTreeMap::new();
    for label in &selector.match_labels {
        if label.key.ends_with("io/hostname") || label.key.ends_with("io/hostnamereg") {
            let words = label.value.split(',').map(str::trim);
            names.extend(
                words
                    .filter(|word| *word != "*")
                    .map(|word| word.replace('*', "a")),
            );
        } else {
            labels.insert(label.key.clone(), label.value.clone());
        }
    }
    let node = |hostname| Node {
        hostname,
        labels: labels.clone(),
    };
    names.into_iter().map(node).collect()
}
