//! Operations and workloads at which sets of rules can differ: one for every side of every boundary that a rule draws.
//!
//! ```text
//! path /a/b          /a/b, a name beside it, a name below it
//! directory /a/      /a/, a child, a grandchild
//! name, domain       itself, one below, one that only looks like it
//! sources            nobody named, each source that a rule names, a stranger
//! glob               each of its choices (see `globs`)
//! range, ports       its edges and what is next to them (see `far`)
//! preset             what it is about
//! ownerOnly, pts, readOnly, allowedArgs, session     both sides, where a rule looks at them
//! ```
//! Two sets that answer all of it alike differ at most in places that both leave to the same rules.

mod far;
mod globs;
mod places;

use std::collections::{BTreeMap, BTreeSet};

use policy::{Preset, SocketKey};
use proto::rules::object::Is;
use proto::rules::{Object, PolicyBlob, Rule, Section};

use super::asked::{Asked, SocketName, What};
pub(super) use places::{Place, places};

/// A name that no rule has.
pub(super) const STRANGER: &str = "cresset-probe";
/// The process that asks.
const PID: u32 = 7;
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
        let mut deeds: BTreeSet<What> = rules.iter().flat_map(|rule| deeds(rule)).collect();
        match rules.first().map(|rule| rule.section()) {
            Some(Section::Endpoints) => deeds.extend(far::connections(rules)),
            Some(Section::Flows) => deeds.extend(far::packets(rules)),
            _ => {}
        }
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
    let presets = || rules.iter().filter_map(|rule| preset(rule));
    let sessions = both(presets().any(|preset| preset == Preset::Exec));
    let pid = presets().next().map(|_| PID);
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
                    all.extend(sessions.iter().map(|session| Asked {
                        source: source.clone(),
                        owner: *owner,
                        tty: *tty,
                        args: args.clone(),
                        session: Some(*session),
                        pid,
                        ..Asked::plain(What::Exec(String::new()))
                    }));
                }
            }
        }
    }
    all
}

fn preset(rule: &Rule) -> Option<Preset> {
    match rule.object.as_ref()?.is.as_ref()? {
        Is::Preset(name) => Preset::of(name),
        _ => None,
    }
}

/// What a preset is about.
fn checked(preset: Preset) -> What {
    let open = |path: &str| What::Open {
        path: path.to_owned(),
        write: false,
    };
    match preset {
        Preset::FilelessExec => What::Exec(format!("/dev/shm/{STRANGER}")),
        Preset::AnonymousMapExec => What::MapExec,
        Preset::ProtectEnv => open("/proc/8/environ"),
        Preset::ProtectProc => open("/proc/8/maps"),
        Preset::Exec => What::Exec(format!("/{STRANGER}")),
    }
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
        Some(Is::Device(device)) => far::devices(device),
        Some(Is::Preset(name)) => Preset::of(name).map(checked).into_iter().collect(),
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
        Some(Is::Pattern(pattern)) => {
            let mut all = globs::samples(pattern);
            all.extend(all.first().map(|path| format!("{path}/{STRANGER}")));
            all
        }
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
