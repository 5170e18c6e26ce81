//! The meaning of the language, small enough to read in one sitting.
//!
//! 1. A rule is *about* an operation when its object fits: the path itself; a child of its directory, the directory itself,
//!    or anything below where it is recursive; the file name; the glob; a socket of its protocol; the domain or one below it.
//! 2. Such rules are asked in the order of their [`Rank`]. One whose conditions (source, owner, readOnly, args, pts) do not
//!    hold does not match, and the search goes on.
//! 3. The first Allow or Block that matches is what is *enforced*. With none, a class in which an Allow is in force falls to
//!    its *posture*; other classes let everything pass.
//! 4. The first Audit that matches before it *tells* of an operation that passes; it never changes the outcome. An Allow of
//!    higher rank silences it.
//! 5. The Allows and Blocks of a policy with `mode: audit` are passed over in all this. What they would have made of it is
//!    the *shadow*.
//!
//! The kernel does not run this: it scans the lists of a [`Flat`](crate::Flat). The two share the rank of a rule and the test
//! of its conditions and nothing else, so that each can be tested against the other.

use proto::RuleId;

use crate::condition::{Condition, Holds};
use crate::operation::Operation;
use crate::rank::Rank;
use crate::rule::Action;
use crate::standing::{Rules, Standing};
use crate::verdict::{Class, Enforced, Said, Step, Verdict};

/// Decides one operation by the rules themselves.
pub fn decide(rules: &Rules, operation: &Operation) -> Verdict<RuleId> {
    let asked = asked(rules, operation);
    let matching: Vec<&Standing> = asked
        .iter()
        .filter(|(_, holds)| *holds == Holds::Yes)
        .map(|(standing, _)| *standing)
        .collect();

    let enforced = first(&matching, |standing| !standing.shadow())
        .unwrap_or_else(|| unnamed(rules.modes.of(&operation.act)));
    let would =
        first(&matching, |_| true).unwrap_or_else(|| unnamed(rules.shadow.of(&operation.act)));
    let before = matching
        .iter()
        .take_while(|standing| standing.shadow() || standing.rule.action == Action::Audit);
    let audit = before
        .filter(|standing| standing.rule.action == Action::Audit)
        .map(|standing| standing.rule.id)
        .next();
    let verdict = Verdict {
        audit: audit.filter(|_| !enforced.denies()),
        shadow: Some(would).filter(|would| would.denies() != enforced.denies()),
        enforced,
        why: Vec::new(),
    };
    Verdict {
        why: why(&asked, &verdict),
        ..verdict
    }
}

/// The rules that are about the operation, in the order in which they are asked.
fn asked<'r>(rules: &'r Rules, operation: &Operation) -> Vec<(&'r Standing, Holds)> {
    let mut about: Vec<(Rank, &Standing)> = (0..)
        .zip(&rules.standing)
        .filter_map(|(slot, standing)| {
            let depth = standing.depth(&operation.act)?;
            Some((Rank::of(&standing.rule, slot, depth), standing))
        })
        .collect();
    about.sort_by_key(|(rank, _)| *rank);
    let about = about.into_iter();
    about
        .map(|(_, standing)| (standing, standing.holds(operation)))
        .collect()
}

/// What the first Allow or Block makes of it, among the rules that count.
fn first(matching: &[&Standing], counts: impl Fn(&Standing) -> bool) -> Option<Enforced<RuleId>> {
    let mut counting = matching.iter().filter(|standing| counts(standing));
    counting.find_map(|standing| match standing.rule.action {
        Action::Block => Some(Enforced::Block(standing.rule.id)),
        Action::Allow => Some(Enforced::Allow(standing.rule.id)),
        Action::Audit => None,
    })
}

/// What becomes of an operation that no Allow and no Block is about.
fn unnamed(class: Class) -> Enforced<RuleId> {
    if class.allow_list {
        Enforced::Posture(class.posture)
    } else {
        Enforced::Nothing
    }
}

/// What each rule that was asked said, up to the one that decides.
fn why(asked: &[(&Standing, Holds)], verdict: &Verdict<RuleId>) -> Vec<Step<RuleId>> {
    let mut steps = Vec::new();
    for (standing, holds) in asked {
        let (id, action) = (standing.rule.id, standing.rule.action);
        let said = match holds {
            Holds::No(condition) => Said::Passed(*condition),
            Holds::Unknown(condition) => doubtful(standing, *condition, verdict),
            Holds::Yes if action == Action::Audit => Said::Tells,
            Holds::Yes if standing.shadow() => Said::Would,
            Holds::Yes => Said::Decides,
        };
        steps.push(Step {
            rule: id,
            action,
            said,
        });
        if said == Said::Decides {
            break;
        }
    }
    steps
}

/// A rule with an unknown condition matters only where it would make another verdict.
fn doubtful(standing: &Standing, condition: Condition, verdict: &Verdict<RuleId>) -> Said {
    let denies = verdict.enforced.denies();
    let matters = match standing.rule.action {
        _ if standing.shadow() => false,
        Action::Block => !denies,
        // It would silence an Audit of lower rank, or an audit posture.
        Action::Allow => denies || verdict.tells(),
        Action::Audit => !denies && verdict.audit.is_none(),
    };
    if matters {
        Said::Unknown(condition)
    } else {
        Said::Passed(condition)
    }
}
