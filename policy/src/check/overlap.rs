//! Whether two policies may be about the same workload, and whether one is about all that the other is about.

use proto::rules::{Expression, Label, Selector};

use super::Subject;

/// Whether some workload or node may be selected by both; true when in doubt.
pub(super) fn meet(a: &Subject<'_>, b: &Subject<'_>) -> bool {
    let nodes = match (&a.nodes, &b.nodes) {
        (Some(a), Some(b)) => agree(&a.match_labels, &b.match_labels),
        _ => false,
    };
    let workloads = !a.selector.none && !b.selector.none && share(&a.selector, &b.selector);
    nodes || workloads
}

fn share(a: &Selector, b: &Selector) -> bool {
    (a.all_namespaces || b.all_namespaces || a.namespace == b.namespace)
        && (a.containers.is_empty()
            || b.containers.is_empty()
            || a.containers.iter().any(|name| b.containers.contains(name)))
        && agree(&a.match_labels, &b.match_labels)
        && permits(&a.expressions, b)
        && permits(&b.expressions, a)
}

/// No label with two values.
fn agree(a: &[Label], b: &[Label]) -> bool {
    let fights = |one: &Label, other: &Label| one.key == other.key && one.value != other.value;
    !a.iter().any(|one| b.iter().any(|other| fights(one, other)))
}

/// Whether what the other selector demands is left possible by these expressions.
fn permits(expressions: &[Expression], other: &Selector) -> bool {
    expressions.iter().all(|expression| {
        if expression.key == "namespace" {
            let named = expression.values.contains(&other.namespace);
            return other.all_namespaces || named != expression.not_in;
        }
        let pairs = expression
            .values
            .iter()
            .filter_map(|value| value.split_once('='));
        let demanded = |(key, value): (&str, &str)| {
            let label = other.match_labels.iter().find(|label| label.key == key);
            label.map(|label| label.value == value)
        };
        let mut known = pairs.map(demanded);
        if expression.not_in {
            !known.any(|demanded| demanded == Some(true))
        } else {
            known.any(|demanded| demanded != Some(false))
        }
    })
}

/// Whether every workload that the second is about is one of the first.
pub(super) fn covers(wide: &Subject<'_>, narrow: &Subject<'_>) -> bool {
    let nodes = match (&wide.nodes, &narrow.nodes) {
        (Some(wide), Some(narrow)) => subset(&wide.match_labels, &narrow.match_labels),
        (_, None) => true,
        (None, Some(_)) => false,
    };
    let (a, b) = (&wide.selector, &narrow.selector);
    let workloads = b.none
        || (!a.none
            && (a.all_namespaces || (!b.all_namespaces && a.namespace == b.namespace))
            && (a.containers.is_empty()
                || (!b.containers.is_empty() && subset(&b.containers, &a.containers)))
            && subset(&a.match_labels, &b.match_labels)
            && subset(&a.expressions, &b.expressions));
    nodes && workloads
}

fn subset<T: PartialEq>(few: &[T], many: &[T]) -> bool {
    few.iter().all(|one| many.contains(one))
}
