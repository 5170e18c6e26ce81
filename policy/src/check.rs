//! What is wrong with policies together, though each is right by itself.
//!
//! Two policies meet when some workload may be selected by both. Among policies that meet this finds rules that contradict
//! each other at equal rank (and says who wins), rules that another one makes useless, and an Allow that makes an allow-list
//! of what another policy treats as a deny-list. With a history of what workloads started with it finds a policy that stops
//! them at once; with a root it finds paths that are links or applets of one binary; with the time, policies that have ended.
//!
//! Everything here is a warning: the meaning of the policies is settled, it may only not be the one that was wanted. The
//! crate stays pure: history, root and time are handed in.

mod ended;
mod entry;
mod listed;
mod overlap;
mod pairs;
mod root;

use std::collections::BTreeMap;

use proto::rules;
use yaml::{Problem, Severity};

use crate::compile::{Beyond, selectors};
use crate::lower::{Placed, rules_of};
use crate::model::{Mode, Policy};
use crate::select::Moment;

pub use ended::ended;
pub use entry::Started;
pub use root::{Found, Root};

/// What is known of the place where the policies will be in force.
#[derive(Default)]
pub struct Surroundings<'s> {
    /// The default postures.
    pub postures: rules::Postures,
    /// Postures of namespaces.
    pub namespaces: BTreeMap<String, rules::Postures>,
    /// What workloads have started with.
    pub history: &'s [Started],
    /// The file system of the workloads.
    pub root: Option<&'s dyn Root>,
    /// The time; none: nothing is said of policies that have ended.
    pub now: Option<Moment>,
}

/// Everything that is wrong with policies together, in order of file and line.
pub fn check(policies: &[Policy], around: &Surroundings<'_>) -> Vec<Problem> {
    let subjects: Vec<Subject<'_>> = policies.iter().map(Subject::new).collect();
    let mut problems = pairs::check(&subjects);
    problems.extend(listed::check(&subjects, &around.postures));
    problems.extend(entry::check(policies, around));
    if let Some(root) = around.root {
        problems.extend(root::check(&subjects, root));
    }
    if let Some(now) = around.now {
        problems.extend(ended(policies, now));
    }
    problems.sort_by(|a, b| {
        let key = |problem: &Problem| (problem.file.clone(), problem.line, problem.column);
        key(a).cmp(&key(b)).then_with(|| a.message.cmp(&b.message))
    });
    problems.dedup();
    problems
}

/// A policy with its rules.
struct Subject<'p> {
    policy: &'p Policy,
    selector: rules::Selector,
    nodes: Option<rules::Selector>,
    rules: Vec<Placed>,
    /// `mode: audit`.
    shadow: bool,
}

impl<'p> Subject<'p> {
    fn new(policy: &'p Policy) -> Subject<'p> {
        let (selector, nodes) = selectors(policy);
        Subject {
            policy,
            selector,
            nodes,
            rules: rules_of(policy),
            shadow: Beyond::of(&policy.spec).mode == Some(Mode::Audit),
        }
    }
}

/// A problem at a rule's place.
fn told(policy: &Policy, place: &str, message: String) -> Problem {
    let at = policy.lines.get(place).copied();
    let (line, column) = at.unwrap_or((policy.line, 1));
    Problem {
        severity: Severity::Warning,
        line,
        column,
        path: place.to_owned(),
        ..Problem::whole_file(&policy.file, message)
    }
}

/// Where a rule of another policy stands, for the reader: `shop/other (b.yaml:7)`.
fn elsewhere(policy: &Policy, place: &str) -> String {
    let line = policy
        .lines
        .get(place)
        .map_or(policy.line, |(line, _)| *line);
    format!("{} ({}:{line})", policy.title(), policy.file)
}
