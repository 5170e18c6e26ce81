//! The loop that finds every problem: read, report, leave out, read again.

use serde::de::DeserializeOwned;

use crate::de::{De, Skipped, TAG};
use crate::fault::{Fault, Kind};
use crate::node::Node;
use crate::problem::{Problem, Severity};

/// After so many problems in one document the writer has enough to do.
const MAX_PROBLEMS: usize = 100;
/// How many extra attempts may go into finding which part of a buffered value is at fault.
const MAX_PROBES: usize = 256;

impl Node {
    /// Reads a `T` and reports everything that stands in the way, each problem at its own line. Unknown fields
    /// (of types with `deny_unknown_fields`) get the severity `unknown`, all else is an error.
    ///
    /// `Some` comes back when a `T` can be had by leaving broken parts out, so that further checks can go on; whether it
    /// may be *used* is told by the problems: not if one of them [is an error](Problem::is_error).
    pub fn read<T: DeserializeOwned>(
        &self,
        unknown: Severity,
        problems: &mut Vec<Problem>,
    ) -> Option<T> {
        let mut skipped = Skipped::new();
        let mut probes = MAX_PROBES;
        for _ in 0..MAX_PROBLEMS {
            let next = match T::deserialize(De::new(self, &skipped)) {
                Ok(value) => return Some(value),
                Err(fault) => self.judge::<T>(fault, &skipped, unknown, &mut probes),
            };
            problems.extend(next.problem);
            if std::ptr::eq(next.leave_out, self) || !skipped.insert(next.leave_out) {
                return None;
            }
        }
        problems.push(self.problem(format!(
            "more than {MAX_PROBLEMS} problems; mend those first"
        )));
        None
    }

    fn judge<'t, T: DeserializeOwned>(
        &'t self,
        fault: Fault<'t>,
        skipped: &Skipped,
        unknown: Severity,
        probes: &mut usize,
    ) -> Verdict {
        let site = fault.site.unwrap_or(self);
        let mut verdict = Verdict {
            leave_out: site,
            problem: None,
        };
        match &fault.kind {
            // What is missing was reported as broken before: its owner goes too, quietly.
            Kind::Missing { field } if was_left_out(site, field, skipped) => return verdict,
            Kind::Missing { .. } | Kind::MissingTag { .. } => {}
            Kind::UnknownField { field, .. } if fault.key.is_none() => {
                // Buffered by serde: the key is known, its place is found by name.
                if let Some(entry) = site.map().iter().find(|entry| *entry.key == **field) {
                    verdict.leave_out = &entry.value;
                    let at = (entry.line, entry.column);
                    verdict.problem = Some(problem(&fault, &entry.value, Some(at), unknown));
                    return verdict;
                }
            }
            _ if fault.key.is_none() => {
                let culprit = self.culprit::<T>(site, &fault.kind, skipped, probes);
                verdict.leave_out = culprit;
                verdict.problem = Some(problem(&fault, culprit, None, unknown));
                return verdict;
            }
            _ => {}
        }
        verdict.problem = Some(problem(&fault, site, fault.key, unknown));
        verdict
    }

    /// Serde's tagged and flattened types buffer a mapping before they look at it, so their errors point at the
    /// whole of it. The part at fault is the one without which the error changes.
    fn culprit<'t, T: DeserializeOwned>(
        &'t self,
        site: &'t Node,
        kind: &Kind,
        skipped: &Skipped,
        probes: &mut usize,
    ) -> &'t Node {
        let mut at = site;
        loop {
            // Parts without which only their own absence is complained of: at fault if there is but one.
            let mut required = Vec::new();
            let mut found = None;
            for child in at.children() {
                if *probes == 0 || skipped.contains(&std::ptr::from_ref(child)) {
                    continue;
                }
                *probes -= 1;
                let mut without = skipped.clone();
                without.insert(child);
                match T::deserialize(De::new(self, &without)).map_err(|fault| fault.kind) {
                    Err(same) if same == *kind => {}
                    Err(Kind::Missing { field: TAG }) => {}
                    Err(Kind::Missing { field }) if is_key(at, field, child) => {
                        required.push(child)
                    }
                    _ => {
                        found = Some(child);
                        break;
                    }
                }
            }
            match (found, required.as_slice()) {
                (Some(child), _) | (None, &[child]) => at = child,
                (None, _) => return at,
            }
        }
    }
}

fn is_key(of: &Node, field: &str, child: &Node) -> bool {
    of.key(field)
        .is_some_and(|value| std::ptr::eq(value, child))
}

struct Verdict {
    leave_out: *const Node,
    problem: Option<Problem>,
}

fn was_left_out(site: &Node, field: &str, skipped: &Skipped) -> bool {
    site.key(field)
        .is_some_and(|value| skipped.contains(&std::ptr::from_ref(value)))
}

fn problem(fault: &Fault<'_>, node: &Node, key: Option<(u32, u32)>, unknown: Severity) -> Problem {
    // A field without a value is at fault on its own line.
    let node = match &fault.kind {
        Kind::Missing { field } => node
            .key(field)
            .filter(|value| value.is_null())
            .unwrap_or(node),
        _ => node,
    };
    let owner = fault.site.unwrap_or(node);
    let mut problem = node.problem(fault.message(if key.is_some() { node } else { owner }));
    if let Kind::Type { .. } = fault.kind {
        problem.message = fault.message(node);
    }
    if let Some((line, column)) = key {
        (problem.line, problem.column) = (line, column);
    }
    if let Kind::UnknownField { .. } = fault.kind {
        problem.severity = unknown;
    }
    problem
}
