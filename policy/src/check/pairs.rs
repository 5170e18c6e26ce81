//! Rules that contradict each other, say the same, or are never reached.

use std::collections::HashMap;

use yaml::Problem;

use super::overlap::{covers, meet};
use super::{Subject, elsewhere, told};
use crate::glob::Glob;
use crate::lower::Placed;
use crate::rule::{Action, Object, Section};

type Named<'s, 'p> = (&'s Subject<'p>, &'s Placed);

pub(super) fn check(subjects: &[Subject<'_>]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut by_object: HashMap<(Section, &Object), Vec<Named<'_, '_>>> = HashMap::new();
    let all = || {
        subjects
            .iter()
            .flat_map(|subject| subject.rules.iter().map(move |rule| (subject, rule)))
    };
    for (subject, placed) in all() {
        let key = (placed.rule.section, &placed.rule.object);
        by_object.entry(key).or_default().push((subject, placed));
    }
    for same in by_object.values().filter(|same| same.len() > 1) {
        for (number, one) in same.iter().enumerate() {
            let others = same.iter().skip(number + 1);
            problems.extend(others.filter_map(|other| compare(one, other)));
        }
    }
    let directories: Vec<Named<'_, '_>> = all()
        .filter(|(_, placed)| is_whole_directory(placed))
        .collect();
    for pattern in all().filter(|(_, placed)| matches!(placed.rule.object, Object::Pattern(_))) {
        problems.extend(
            directories
                .iter()
                .find_map(|directory| unreached(&pattern, directory)),
        );
    }
    problems
}

/// Two rules on one object.
fn compare(one: &Named<'_, '_>, other: &Named<'_, '_>) -> Option<Problem> {
    let (a, b) = (&one.1.rule, &other.1.rule);
    // Modifiers split an object between an Allow and a Block; that is what they are for.
    let alike = a.sources == b.sources && !a.has_modifiers() && !b.has_modifiers();
    let same_mode = one.0.shadow == other.0.shadow;
    if !alike || !same_mode || !meet(one.0, other.0) {
        return None;
    }
    if a.action == b.action {
        return repeated(one, other).or_else(|| repeated(other, one));
    }
    // Block before Audit before Allow.
    let (winner, loser) = if a.action > b.action {
        (one, other)
    } else {
        (other, one)
    };
    let (won, lost) = (winner.1.rule.action, loser.1.rule.action);
    let what = &winner.1.rule.object;
    let place = elsewhere(winner.0.policy, &winner.1.place);
    let message = match (won, lost) {
        (Action::Block, Action::Allow) => format!(
            "contradicts the Block on `{what}` of {place}: the Block wins where both are about a workload; remove one, or narrow this one with fromSource"
        ),
        (Action::Block, _) => format!(
            "is never told: the Block on `{what}` of {place} decides first; remove this Audit"
        ),
        _ => format!(
            "does not silence the Audit on `{what}` of {place}, which is of equal rank; remove one of them"
        ),
    };
    Some(told(loser.0.policy, &loser.1.place, message))
}

/// The second says nothing that the first does not say.
fn repeated(wide: &Named<'_, '_>, narrow: &Named<'_, '_>) -> Option<Problem> {
    let reached = covers(wide.0, narrow.0) && !std::ptr::eq(wide.0, narrow.0);
    reached.then(|| {
        let place = elsewhere(wide.0.policy, &wide.1.place);
        let (action, object) = (narrow.1.rule.action.name(), &narrow.1.rule.object);
        let message =
            format!("the {action} on `{object}` is already in {place}; remove one of them");
        told(narrow.0.policy, &narrow.1.place, message)
    })
}

fn is_whole_directory(placed: &Placed) -> bool {
    let rule = &placed.rule;
    matches!(
        rule.object,
        Object::Directory {
            recursive: true,
            ..
        }
    ) && rule.action != Action::Audit
        && rule.is_plain()
}

/// A pattern is asked after every directory, so below one that decides it is never reached.
fn unreached(pattern: &Named<'_, '_>, directory: &Named<'_, '_>) -> Option<Problem> {
    let (inner, outer) = (&pattern.1.rule, &directory.1.rule);
    let (Object::Pattern(text), Object::Directory { path, .. }) = (&inner.object, &outer.object)
    else {
        return None;
    };
    let below = Glob::new(text).is_ok_and(|glob| glob.prefix().starts_with(path.as_str()));
    let before =
        inner.section == outer.section && !directory.0.shadow && covers(directory.0, pattern.0);
    (below && before && inner.action != outer.action).then(|| {
        let place = elsewhere(directory.0.policy, &directory.1.place);
        let message = format!(
            "never matches: the {} on the directory `{path}` of {place} is asked before every pattern; name the paths, or narrow the directory",
            outer.action.name()
        );
        told(pattern.0.policy, &pattern.1.place, message)
    })
}
