//! Paths that are not what they look like in the file system of the workloads.

use std::collections::BTreeSet;

use yaml::Problem;

use super::{Subject, told};
use crate::rule::Object;

/// The file system of a workload, as somebody else sees it for us.
pub trait Root {
    /// What is at an absolute path.
    fn find(&self, path: &str) -> Found;
}

impl<F: Fn(&str) -> Found> Root for F {
    fn find(&self, path: &str) -> Found {
        self(path)
    }
}

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A file or directory that has this path after all links are followed.
    Itself,
    /// It, or a directory on the way to it, is a link: what is there has this path.
    Link {
        /// The path after all links are followed.
        to: String,
    },
    /// One of many names of a binary that does what its name says, as in busybox.
    Applet {
        /// The binary's path.
        of: String,
    },
}

/// The other names of a path, for [`Rules`](crate::Rules).
pub(super) fn aliases(root: &dyn Root, path: &str) -> Vec<String> {
    match root.find(path) {
        Found::Link { to } | Found::Applet { of: to } => vec![to],
        Found::Nothing | Found::Itself => Vec::new(),
    }
}

pub(super) fn check(subjects: &[Subject<'_>], root: &dyn Root) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut seen = BTreeSet::new();
    for subject in subjects {
        for placed in &subject.rules {
            let objects = std::iter::once(&placed.rule.object).chain(&placed.rule.sources);
            for object in objects {
                let (Object::Path(path) | Object::Directory { path, .. }) = object else {
                    continue;
                };
                let message = message(path, &root.find(path));
                if let Some(message) = message
                    && seen.insert((subject.policy.title(), placed.place.clone(), path.clone()))
                {
                    problems.push(told(subject.policy, &placed.place, message));
                }
            }
        }
    }
    problems
}

fn message(path: &str, found: &Found) -> Option<String> {
    match found {
        Found::Itself => None,
        Found::Nothing => Some(format!("`{path}` does not exist in the given root")),
        // The usual merged /usr is seen through and needs no word.
        Found::Link { to } if *to == format!("/usr{path}") => None,
        Found::Link { to } => Some(format!(
            "`{path}` is a link: the rule is about `{to}`, whatever name it is reached by; write `{to}` if that is meant"
        )),
        Found::Applet { of } => Some(format!(
            "`{path}` is one of many names of `{of}`: the rule is about that binary and with it about all of them; use allowedArgs or execname to tell them apart"
        )),
    }
}
