//! Operations and workloads at which sets of rules can differ: one for every side of every boundary that a rule draws.
//!
//! ```text
//! path /a/b          /a/b, a name beside it, a name below it
//! directory /a/      /a/, a child, a grandchild
//! name, domain       itself, one below, one that only looks like it
//! sources            nobody named, each source that a rule names, a stranger
//! ownerOnly, pts, readOnly, allowedArgs      both sides, where a rule looks at them
//! ```
//! Two sets that answer all of it alike differ at most in places that both leave to the same rules.

use std::collections::{BTreeMap, BTreeSet};

use policy::{SocketKey, Workload};
use proto::rules::object::Is;
use proto::rules::{Object, PolicyBlob, Rule, Section, Selector};

use super::asked::{Asked, SocketName, What};

/// A name that no rule has.
const STRANGER: &str = "cresset-probe";
/// Operations that are tried for one workload, at most.
const MAX: usize = 50_000;

/// Operations to try; `complete` is false when there would be more than is sensible.
pub(super) struct Probes {
    pub(super) operations: BTreeSet<Asked>,
    pub(super) complete: bool,
}

/// The operations for all rules of these policies.
pub(super) fn operations<'b>(blobs: impl Iterator<Item = &'b PolicyBlob>) -> Probes {
    let rules: Vec<&Rule> = blobs.flat_map(|blob| &blob.rules).collect();
    let mut operations = BTreeSet::new();
    let mut complete = true;
    let mut sections: BTreeMap<i32, Vec<&Rule>> = BTreeMap::new();
    for rule in rules {
        sections.entry(rule.section).or_default().push(rule);
    }
    for rules in sections.values() {
        let circumstances = circumstances(rules);
        let deeds: BTreeSet<What> = rules.iter().flat_map(|rule| deeds(rule)).collect();
        for what in deeds {
            for circumstance in &circumstances {
                if operations.len() == MAX {
                    complete = false;
                    break;
                }
                operations.insert(Asked {
                    what: what.clone(),
                    ..circumstance.clone()
                });
            }
        }
    }
    Probes {
        operations,
        complete,
    }
}

/// Who may do it and how, as far as one of these rules looks at that.
fn circumstances(rules: &[&Rule]) -> Vec<Asked> {
    let mut sources: BTreeSet<Option<String>> = BTreeSet::from([None]);
    for source in rules.iter().flat_map(|rule| &rule.sources) {
        sources.extend(paths(source).into_iter().map(Some));
    }
    if sources.len() > 1 {
        sources.insert(Some(format!("/{STRANGER}")));
    }
    let both = |looked_at: bool| {
        if looked_at {
            vec![false, true]
        } else {
            vec![false]
        }
    };
    let owners = both(rules.iter().any(|rule| rule.owner_only));
    let terminals = both(rules.iter().any(|rule| rule.pts == Some(false)));
    let mut arguments: BTreeSet<Vec<String>> = BTreeSet::from([Vec::new()]);
    for rule in rules.iter().filter(|rule| !rule.args.is_empty()) {
        arguments.insert(rule.args.clone());
        arguments.insert(vec![STRANGER.to_owned()]);
    }
    let mut all = Vec::new();
    for source in &sources {
        for owner in &owners {
            for tty in &terminals {
                for args in &arguments {
                    all.push(Asked {
                        source: source.clone(),
                        owner: *owner,
                        tty: *tty,
                        args: args.clone(),
                        ..Asked::plain(What::Exec(String::new()))
                    });
                }
            }
        }
    }
    all
}

fn deeds(rule: &Rule) -> Vec<What> {
    let Some(object) = &rule.object else {
        return Vec::new();
    };
    match rule.section() {
        Section::Process => paths(object).into_iter().map(What::Exec).collect(),
        Section::File => {
            let open = |path: String| {
                [false, true].map(|write| What::Open {
                    path: path.clone(),
                    write,
                })
            };
            paths(object).into_iter().flat_map(open).collect()
        }
        Section::Network => {
            let keys = SocketKey::ALL.into_iter();
            keys.map(|key| What::Socket(SocketName(key))).collect()
        }
        _ => named(object),
    }
}

fn named(object: &Object) -> Vec<What> {
    match &object.is {
        Some(Is::Domain(domain)) => [
            domain.clone(),
            format!("{STRANGER}.{domain}"),
            format!("{STRANGER}{domain}"),
        ]
        .map(What::Dns)
        .into(),
        Some(Is::Capability(name)) => vec![What::Capability(name.clone())],
        Some(Is::Syscall(call)) => {
            let places = match call.path.as_str() {
                "" => vec![String::new()],
                path => around(path),
            };
            let mut all = Vec::new();
            for name in &call.names {
                all.extend(places.iter().map(|path| What::Syscall {
                    name: name.clone(),
                    path: path.clone(),
                }));
            }
            all
        }
        _ => Vec::new(),
    }
}

/// Paths on every side of what an object means.
fn paths(object: &Object) -> Vec<String> {
    match &object.is {
        Some(Is::Path(path)) => around(path),
        Some(Is::Directory(directory)) => around(&directory.path),
        Some(Is::Name(name)) => vec![
            format!("/usr/bin/{name}"),
            format!("/{STRANGER}/{name}"),
            format!("/usr/bin/{name}{STRANGER}"),
        ],
        Some(Is::Pattern(pattern)) => globbed(pattern),
        _ => Vec::new(),
    }
}

/// Itself, beside it, below it, far below it.
fn around(path: &str) -> Vec<String> {
    let bare = path.trim_end_matches('/');
    let parent = bare.rsplit_once('/').map_or("", |(parent, _)| parent);
    let mut all = vec![
        format!("{bare}/{STRANGER}"),
        format!("{bare}/{STRANGER}/{STRANGER}"),
        format!("{parent}/{STRANGER}"),
    ];
    if !bare.is_empty() {
        all.push(bare.to_owned());
    }
    all
}

/// Something that a glob is likely to be about, and something that it is not.
fn globbed(pattern: &str) -> Vec<String> {
    let plain = pattern.replace("**", "a/b").replace(['*', '?'], "a");
    let choice = match (plain.find('{'), plain.find('}')) {
        (Some(open), Some(close)) if open < close => {
            let first = plain[open + 1..close].split(',').next().unwrap_or_default();
            format!("{}{first}{}", &plain[..open], &plain[close + 1..])
        }
        _ => plain,
    };
    let deeper = pattern.replace('*', "a/b").replace('?', "a");
    vec![choice.clone(), format!("{choice}/{STRANGER}"), deeper]
}

// === workloads ===

/// Workloads that selectors tell apart: for each one that it is about, and for each namespace one with every label.
pub(super) fn workloads<'b>(blobs: impl Iterator<Item = &'b PolicyBlob>) -> Vec<Workload> {
    let mut all: Vec<Workload> = Vec::new();
    let mut whole: BTreeMap<String, Workload> = BTreeMap::new();
    for selector in blobs.filter_map(|blob| blob.selector.as_ref()) {
        let workload = selected(selector);
        let together = whole
            .entry(workload.namespace.clone())
            .or_insert_with(|| Workload {
                namespace: workload.namespace.clone(),
                ..Workload::default()
            });
        together.labels.extend(workload.labels.clone());
        if !all.contains(&workload) {
            all.push(workload);
        }
    }
    for workload in whole.into_values() {
        if !all.contains(&workload) {
            all.push(workload);
        }
    }
    all
}

/// The plainest workload that a selector is about.
fn selected(selector: &Selector) -> Workload {
    let mut workload = Workload {
        namespace: selector.namespace.clone(),
        labels: BTreeMap::new(),
        container: selector.containers.first().cloned().unwrap_or_default(),
    };
    for label in &selector.match_labels {
        workload
            .labels
            .insert(label.key.clone(), label.value.clone());
    }
    for expression in selector.expressions.iter().filter(|own| !own.not_in) {
        let Some(value) = expression.values.first() else {
            continue;
        };
        if expression.key == "namespace" {
            workload.namespace = value.clone();
        } else if let Some((key, value)) = value.split_once('=') {
            workload.labels.insert(key.to_owned(), value.to_owned());
        }
    }
    if workload.namespace.is_empty() {
        workload.namespace = "default".to_owned();
    }
    workload
}
