//! The other names of the paths that rules name, in one workload's root.
//!
//! `/bin/sleep` is `/usr/bin/sleep` where `/bin` is a link. The kernel judges the resolved name, so a rule covers the path
//! as it is written and as it resolves. Who knows the workload's root answers for each path; here the answers are put
//! in order, so that equal answers make equal sets.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};

use crate::path::{canonical, impossible};
use crate::rule::Object;
use crate::select::Effective;

/// Every path that the rules of an effective set name, with all its names, its own first.
#[derive(Debug, Default)]
pub(crate) struct Aliases(BTreeMap<String, Vec<String>>);

impl Aliases {
    /// Asks for the other names of every path once. Directories are asked with their closing `/`, which an answer may
    /// leave out.
    pub(crate) fn of_set(effective: &Effective, ask: &dyn Fn(&str) -> Vec<String>) -> Aliases {
        let objects = effective
            .policies
            .iter()
            .flat_map(|policy| policy.rules.iter().map(|rule| &rule.object));
        let paths: BTreeSet<&str> = objects.filter_map(path_of).collect();
        Aliases(
            paths
                .into_iter()
                .map(|path| (path.to_owned(), names(path, ask(path))))
                .collect(),
        )
    }

    /// All names of an object that has a path; none for others.
    pub(crate) fn of(&self, object: &Object) -> &[String] {
        path_of(object)
            .and_then(|path| self.0.get(path))
            .map_or(&[], Vec::as_slice)
    }

    pub(crate) fn hash(&self, into: &mut Sha256) {
        for (path, names) in self.0.iter().filter(|(_, names)| names.len() > 1) {
            into.update(path.as_bytes());
            names.iter().skip(1).for_each(|name| {
                into.update(b"\0");
                into.update(name.as_bytes());
            });
            into.update(b"\0\0");
        }
    }
}

fn path_of(object: &Object) -> Option<&str> {
    match object {
        Object::Path(path) | Object::Directory { path, .. } => Some(path),
        _ => None,
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
