//! The other names of the paths that rules name, in one workload's root.
//!
//! `/bin/sleep` is `/usr/bin/sleep` where `/bin` is a link. The kernel judges the resolved name, so a rule covers the path
//! as it is written and as it resolves. Who knows the workload's root answers for each path; here the answers are put
//! in order, so that equal answers make equal sets.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};

use crate::glob::Glob;
use crate::path::{canonical, impossible};
use crate::rule::Object;
use crate::select::Effective;

/// Every path that the rules of an effective set name, with all its names, its own first. Of a pattern it is the literal
/// directory in front that has other names.
#[derive(Debug, Default)]
pub(crate) struct Aliases {
    paths: BTreeMap<String, Vec<String>>,
    patterns: BTreeMap<String, Vec<String>>,
}

impl Aliases {
    /// Asks for the other names of every path once. Directories are asked with their closing `/`, which an answer may
    /// leave out.
    pub(crate) fn of_set(effective: &Effective, ask: &dyn Fn(&str) -> Vec<String>) -> Aliases {
        let rules = effective.policies.iter().flat_map(|policy| &policy.rules);
        let mut aliases = Aliases::default();
        for object in rules.flat_map(|rule| std::iter::once(&rule.object).chain(&rule.sources)) {
            match object {
                Object::Path(path) | Object::Directory { path, .. }
                    if !aliases.paths.contains_key(path) =>
                {
                    aliases.paths.insert(path.clone(), names(path, ask(path)));
                }
                Object::Pattern(text) if !aliases.patterns.contains_key(text) => {
                    aliases.patterns.insert(text.clone(), patterns(text, ask));
                }
                _ => {}
            }
        }
        aliases
    }

    /// All names of an object that has a path; none for others.
    pub(crate) fn of(&self, object: &Object) -> &[String] {
        let names = match object {
            Object::Path(path) | Object::Directory { path, .. } => self.paths.get(path),
            Object::Pattern(text) => self.patterns.get(text),
            _ => None,
        };
        names.map_or(&[], Vec::as_slice)
    }

    pub(crate) fn hash(&self, into: &mut Sha256) {
        for (path, names) in self.paths.iter().chain(&self.patterns) {
            if names.len() > 1 {
                into.update(path.as_bytes());
                names.iter().skip(1).for_each(|name| {
                    into.update(b"\0");
                    into.update(name.as_bytes());
                });
                into.update(b"\0\0");
            }
        }
    }
}

fn names(path: &str, others: Vec<String>) -> Vec<String> {
    let directory = path.ends_with('/');
    let others: BTreeSet<String> = others
        .into_iter()
        .filter(|other| other.starts_with('/') && impossible(other).is_none())
        .map(|other| {
            canonical(&if directory {
                other + "/"
            } else {
                other.trim_end_matches('/').to_owned()
            })
        })
        .filter(|other| other != path && (directory || other != "/"))
        .collect();
    std::iter::once(path.to_owned()).chain(others).collect()
}

fn patterns(text: &str, ask: &dyn Fn(&str) -> Vec<String>) -> Vec<String> {
    let own = std::iter::once(text.to_owned());
    let glob = Glob::new(text).ok();
    let prefix = glob.as_ref().map_or("", Glob::prefix);
    if prefix.len() < 2 {
        return own.collect();
    }
    let rest = &text[prefix.len()..];
    let others = names(prefix, ask(prefix));
    let others = others.iter().skip(1);
    own.chain(others.map(|other| crate::glob::escaped(other) + rest))
        .collect()
}
