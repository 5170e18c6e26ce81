//! The rules for values. They run over the document and not over the model, so that every problem has the line of the
//! value, also when other parts of the document did not read.
//!
//! A value's rule is found by its path without the list positions: `process.matchPaths.path`. What depends on several
//! values of one item stands in [`item`], what depends on a whole selector in [`selection`].

use std::collections::BTreeMap;

use yaml::{Node, Problem, Severity};

use crate::compile::encoded_len;
use crate::model::{Kind, Policy};
use crate::selector::{CONTAINER_NAME, containers};
use crate::set::MAX_BLOB;

mod flow;
mod item;
mod selection;
mod word;

/// Where rules stand in a file: `spec.process.matchPaths[0]` → line and column.
pub(crate) type Lines = BTreeMap<String, (u32, u32)>;

const MAX_ARGS: usize = 20;
const MAX_RULES: usize = 10_000;

enum Finding {
    Error(String),
    Warning(String),
}

type Judged = Result<(), Finding>;

fn wrong<T>(message: impl Into<String>) -> Result<T, Finding> {
    Err(Finding::Error(message.into()))
}

fn warn<T>(message: impl Into<String>) -> Result<T, Finding> {
    Err(Finding::Warning(message.into()))
}

/// Checks every value of a policy's document, and tells where its rules are.
pub(crate) fn check(document: &Node, policy: &Policy, problems: &mut Vec<Problem>) -> Lines {
    let Some(spec) = document.get("spec") else {
        return Lines::new();
    };
    let before = problems.len();
    let mut walk = Walk {
        kind: policy.kind,
        rules: 0,
        lines: Lines::new(),
        problems,
    };
    walk.node(spec, "");
    selection::check(&policy.spec, spec, walk.problems);
    let rules = walk.rules;
    if rules == 0 {
        let message = "no rules: this policy does nothing".to_owned();
        walk.tell(spec, Finding::Warning(message));
    } else if rules > MAX_RULES {
        walk.tell(
            spec,
            Finding::Error(format!("more than {MAX_RULES} rules; split the policy")),
        );
    } else if walk.problems.len() == before && encoded_len(policy) > MAX_BLOB {
        let message = format!(
            "compiles to more than {} MiB; split the policy",
            MAX_BLOB >> 20
        );
        walk.tell(spec, Finding::Error(message));
    }
    walk.lines
}

struct Walk<'p> {
    kind: Kind,
    rules: usize,
    lines: Lines,
    problems: &'p mut Vec<Problem>,
}

impl Walk<'_> {
    /// `at` is the node's path below `spec`, without list positions.
    fn node(&mut self, node: &Node, at: &str) {
        if node.is_null() {
            return;
        }
        if let Some(text) = node.as_str() {
            self.rules += usize::from(at == "apparmor");
            if let Err(finding) = word::judge(self.kind, at, text) {
                self.tell(node, finding);
            }
            return;
        }
        self.mapping(node, at);
        for (index, child) in node.items().iter().enumerate() {
            if at == "process.matchPaths.allowedArgs" && index == MAX_ARGS {
                self.tell(
                    child,
                    Finding::Error(format!("more than {MAX_ARGS} arguments; list fewer")),
                );
            }
            if child.is_null() && !is_word_list(at) {
                let message = "an empty item; write it out, or remove the `-`".to_owned();
                self.tell(child, Finding::Error(message));
            }
            if child.as_str().is_none() || is_word_list(at) {
                self.node(child, at);
            }
        }
        for (key, child) in node.entries() {
            let below = if at.is_empty() {
                key.to_owned()
            } else {
                format!("{at}.{key}")
            };
            if below == "selector.matchLabels" || below == "nodeSelector.matchLabels" {
                self.labels(child);
            } else {
                self.node(child, &below);
            }
        }
    }

    fn mapping(&mut self, node: &Node, at: &str) {
        if !node.is_map() {
            return;
        }
        if is_rule(at) {
            self.rules += 1;
            self.lines.insert(node.path(), (node.line(), node.column()));
        }
        if let Err(finding) = item::judge(self.kind, at, node) {
            self.tell(node, finding);
        }
    }

    fn labels(&mut self, node: &Node) {
        for (key, value) in node.entries() {
            let text = value.as_str().unwrap_or_default();
            if key == CONTAINER_NAME && !(text.starts_with('[') && text.ends_with(']')) {
                let names = containers(text).join(", ");
                let message = format!("container names stand in brackets; write \"[{names}]\"");
                self.tell(value, Finding::Warning(message));
            }
        }
    }

    fn tell(&mut self, node: &Node, finding: Finding) {
        let problem = match finding {
            Finding::Error(message) => node.problem(message),
            Finding::Warning(message) => Problem {
                severity: Severity::Warning,
                ..node.problem(message)
            },
        };
        self.problems.push(problem);
    }
}

/// Whether a list of plain words stands at this path. Elsewhere one is the reader's to complain of.
fn is_word_list(at: &str) -> bool {
    let name = at.rsplit('.').next().unwrap_or_default();
    ["tags", "syscall", "allowedArgs", "values", "iface"].contains(&name)
}

/// Whether an item at this path makes something happen.
fn is_rule(at: &str) -> bool {
    let item = at.rsplit('.').next().unwrap_or_default();
    matches!(item, "presets" | "ingress" | "egress")
        || (at.contains('.') && item.starts_with("match") && !at.contains("elector"))
}
