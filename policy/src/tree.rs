//! The path automaton of a [`Flat`](crate::Flat), grown from the names of all rules.

use std::collections::BTreeMap;

use crate::flat::{Candidate, Lists, State};
use crate::flatten::{Entry, entry, list};
use crate::force::Force;
use crate::path::{components, depth};
use crate::rule::{Object, Section};

/// The paths of all rules in force, by component.
pub(crate) struct Tree {
    nodes: Vec<Branch>,
    /// What ends the lists of programs and of files.
    unnamed: [Option<Candidate>; 2],
}

#[derive(Default)]
struct Branch {
    edges: BTreeMap<String, u32>,
    parent: Option<usize>,
    process: Named,
    file: Named,
}

/// Rules that name this very path.
#[derive(Default)]
struct Named {
    exact: Vec<Entry>,
    /// Directories of which only direct children are meant, and those of which everything below is.
    direct: Vec<Entry>,
    recursive: Vec<Entry>,
}

impl Tree {
    pub(crate) fn grow(force: &Force<'_>) -> Tree {
        let mut tree = Tree {
            nodes: vec![Branch::default()],
            unnamed: [Section::Process, Section::File].map(|section| force.unnamed(section)),
        };
        for member in &force.members {
            let rule = &member.standing.rule;
            for name in &member.standing.names {
                let at = tree.reach(name);
                let branch = &mut tree.nodes[at];
                let named = match rule.section {
                    Section::Process => &mut branch.process,
                    _ => &mut branch.file,
                };
                let place = match rule.object {
                    Object::Directory {
                        recursive: true, ..
                    } => &mut named.recursive,
                    Object::Directory {
                        recursive: false, ..
                    } => &mut named.direct,
                    _ => &mut named.exact,
                };
                place.push(entry(member, depth(name)));
            }
        }
        tree
    }

    /// The node of a path, made if it is not there.
    fn reach(&mut self, path: &str) -> usize {
        let mut at = 0;
        for component in components(path) {
            at = match self.nodes[at].edges.get(component) {
                Some(next) => *next as usize,
                None => {
                    let next = self.nodes.len();
                    let edge = u32::try_from(next).unwrap_or(u32::MAX); // fewer states than bytes of rules
                    self.nodes[at].edges.insert(component.to_owned(), edge);
                    self.nodes.push(Branch {
                        parent: Some(at),
                        ..Branch::default()
                    });
                    next
                }
            };
        }
        at
    }

    pub(crate) fn states(&self) -> Vec<State> {
        let [process, file] = self.unnamed;
        (0..self.nodes.len())
            .map(|at| State {
                edges: self.nodes[at].edges.clone(),
                process: self.lists(at, process, |branch| &branch.process),
                file: self.lists(at, file, |branch| &branch.file),
            })
            .collect()
    }

    fn lists(&self, at: usize, unnamed: Option<Candidate>, of: fn(&Branch) -> &Named) -> Lists {
        let own = of(&self.nodes[at]);
        let above: Vec<&Branch> =
            std::iter::successors(self.nodes[at].parent, |at| self.nodes[*at].parent)
                .map(|at| &self.nodes[at])
                .collect();
        let inherited: Vec<Entry> = above
            .iter()
            .flat_map(|branch| &of(branch).recursive)
            .copied()
            .collect();
        let parents = above.first().map_or(&[][..], |parent| &of(parent).direct);
        let join = |parts: &[&[Entry]]| {
            let entries = parts.iter().flat_map(|part| part.iter().copied());
            list(entries.collect(), unnamed)
        };
        Lists {
            // A directory rule is about the directory itself, too.
            here: join(&[&own.exact, &own.direct, &own.recursive, parents, &inherited]),
            child: join(&[&own.direct, &own.recursive, &inherited]),
            below: join(&[&own.recursive, &inherited]),
        }
    }
}
