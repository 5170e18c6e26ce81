//! Selectors that can be about nothing.

use std::collections::{BTreeMap, BTreeSet};

use yaml::{Node, Problem, Severity};

use crate::model::{Expression, Spec};

/// Tells of a selector that no workload can fit, and of a network policy that is about nobody.
pub(super) fn check(spec: &Spec, node: &Node, problems: &mut Vec<Problem>) {
    let mut warn = |at: &str, message: String| {
        problems.push(Problem {
            severity: Severity::Warning,
            ..node.problem_at(at, message)
        });
    };
    let none = BTreeMap::new();
    let (labels, expressions) = match spec {
        Spec::Workload(spec) => (
            &spec.selector.match_labels,
            &spec.selector.match_expressions[..],
        ),
        Spec::Cluster(spec) => (&none, &spec.selector.match_expressions[..]),
        Spec::Host(_) => return,
        Spec::Network(spec) => {
            if spec.node_selector.is_none() && spec.selector.is_none() {
                return warn(
                    "",
                    "neither `nodeSelector` nor `selector` is given: this policy is about nobody"
                        .to_owned(),
                );
            }
            let quotas = spec.ingress.iter().all(|item| item.limit.is_some())
                && spec.egress.iter().all(|item| item.limit.is_some());
            if spec.node_selector.is_none() && !quotas {
                warn(
                    "selector",
                    "of pods only quotas are judged; rules without `limit` need a nodeSelector"
                        .to_owned(),
                );
            }
            match &spec.selector {
                Some(selector) => (&selector.match_labels, &selector.match_expressions[..]),
                None => return,
            }
        }
    };
    if let Some(why) = impossible(labels, expressions) {
        warn(
            "selector",
            format!("no workload can fit this selector: {why}"),
        );
    }
}

/// A workload has one value of a label and one namespace.
fn impossible(labels: &BTreeMap<String, String>, expressions: &[Expression]) -> Option<String> {
    let mut possible: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (key, value) in labels {
        possible.insert(key, BTreeSet::from([value.as_str()]));
    }
    let asked = |expression: &Expression| expression.operator == "In";
    for expression in expressions.iter().filter(|expression| asked(expression)) {
        // Values on several keys leave open which of them holds.
        if let Some((key, values)) = of_one_key(expression) {
            let values: BTreeSet<&str> = values.into_iter().collect();
            let both = match possible.get(key) {
                Some(known) => known.intersection(&values).copied().collect(),
                None => values,
            };
            if both.is_empty() {
                return Some(format!("`{key}` would have to have two values"));
            }
            possible.insert(key, both);
        }
    }
    for expression in expressions.iter().filter(|expression| !asked(expression)) {
        for value in &expression.values {
            let (key, value) = pair(expression, value);
            if let Some(known) = possible.get_mut(key) {
                known.remove(value);
                if known.is_empty() {
                    return Some(format!("`{key}` is both wanted and excluded"));
                }
            }
        }
    }
    None
}

fn of_one_key(expression: &Expression) -> Option<(&str, Vec<&str>)> {
    let mut pairs = expression
        .values
        .iter()
        .map(|value| pair(expression, value));
    let (key, first) = pairs.next()?;
    let mut values = vec![first];
    for (other, value) in pairs {
        if other != key {
            return None;
        }
        values.push(value);
    }
    Some((key, values))
}

fn pair<'e>(expression: &'e Expression, value: &'e str) -> (&'e str, &'e str) {
    match expression.key.as_str() {
        "label" => value.split_once('=').unwrap_or((value, "")),
        key => (key, value),
    }
}
