//! The rules of one workload or node as they stand in its root: every path with all its names, every glob compiled, every
//! mode and posture settled. [`decide`](crate::decide()) asks them; [`flatten`](crate::flatten()) makes tables of them.

use std::sync::Arc;

use proto::Digest;
use sha2::{Digest as _, Sha256};

use crate::aliases::Aliases;
use crate::condition::{Holds, Program, holds};
use crate::flat::NotEnforced;
use crate::glob::Glob;
use crate::operation::{Act, Operation};
use crate::path::depth;
use crate::rule::{Action, Object, Rule, Section};
use crate::select::Effective;
use crate::set::{CompiledPolicy, Postures, Unnamed};
use crate::syscalls::SYSCALLS;
use crate::verdict::{Class, Posture};

/// The rules about one workload or node, ready to be asked.
#[derive(Clone, Debug)]
pub struct Rules {
    /// In order of rule id, then policy: the index is the slot.
    pub(crate) standing: Vec<Standing>,
    pub(crate) modes: Modes,
    /// As if every policy with `mode: audit` decided.
    pub(crate) shadow: Modes,
    pub(crate) digest: Digest,
    /// Parts that no node enforces.
    pub(crate) left_out: Vec<NotEnforced>,
}

/// One rule in one root.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub(crate) policy: Arc<CompiledPolicy>,
    pub(crate) rule: Arc<Rule>,
    /// All names of its path, its own first; empty for what has none.
    pub(crate) names: Vec<String>,
    /// All names of its pattern.
    pub(crate) globs: Vec<Glob>,
    /// Its sources by all their names.
    pub(crate) sources: Vec<Program>,
}

/// The mode of each class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as sections are")]
pub struct Modes {
    pub process: Class,
    pub file: Class,
    pub network: Class,
    pub dns: Class,
    pub endpoints: Class,
    pub capabilities: Class,
    pub devices: Class,
    pub flows: Class,
}

impl Modes {
    /// No class is an allow-list.
    pub const OPEN: Modes = Modes {
        process: Class::OPEN,
        file: Class::OPEN,
        network: Class::OPEN,
        dns: Class::OPEN,
        endpoints: Class::OPEN,
        capabilities: Class::OPEN,
        devices: Class::OPEN,
        flows: Class::OPEN,
    };

    /// Every class by its section.
    pub(crate) fn each(self) -> [(Section, Class); 8] {
        [
            (Section::Process, self.process),
            (Section::File, self.file),
            (Section::Network, self.network),
            (Section::Dns, self.dns),
            (Section::Endpoints, self.endpoints),
            (Section::Capabilities, self.capabilities),
            (Section::Devices, self.devices),
            (Section::Flows, self.flows),
        ]
    }

    /// The mode of the class that an operation belongs to.
    pub fn of(&self, act: &Act) -> Class {
        match act {
            Act::Exec { .. } => self.process,
            Act::Open { .. } => self.file,
            Act::Socket { .. } => self.network,
            Act::Connect(_) => self.endpoints,
            Act::Lookup { .. } => self.dns,
            Act::Capability { .. } => self.capabilities,
            Act::Device(_) => self.devices,
            Act::Packet(_) => self.flows,
            // Only told of, and only named by presets.
            Act::Syscall { .. } | Act::MapExec => Class::OPEN,
        }
    }
}

impl Rules {
    /// Resolves the rules about a workload. `aliases` gives the other names of an absolute path in the workload's root
    /// (directories are asked with a closing `/`): `/bin/sleep` → `/usr/bin/sleep`. Rules cover all names.
    pub fn new(effective: &Effective, aliases: &dyn Fn(&str) -> Vec<String>) -> Rules {
        let aliases = Aliases::of_set(effective, aliases);
        let all = effective.policies.iter();
        let mut standing: Vec<Standing> = all
            .flat_map(|policy| policy.rules.iter().map(move |rule| (policy, rule)))
            .filter(|(_, rule)| effective.judges(rule))
            .map(|(policy, rule)| Standing::new(policy, rule, &aliases))
            .collect();
        standing.sort_by_key(|standing| (standing.rule.id, standing.policy.digest));
        let mut hash = Sha256::new();
        hash.update(effective.digest().0);
        aliases.hash(&mut hash);
        Rules {
            modes: modes(effective, &standing, false),
            shadow: modes(effective, &standing, true),
            digest: Digest(hash.finalize().into()),
            left_out: reported(effective),
            standing,
        }
    }

    /// The rules, with the title of their policy, in order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (String, &Rule)> {
        let all = self.standing.iter();
        all.map(|standing| (standing.policy.title(), &*standing.rule))
    }

    /// One rule by its name.
    pub fn get(&self, id: proto::RuleId) -> Option<&Rule> {
        let mut all = self.standing.iter();
        all.find(|standing| standing.rule.id == id)
            .map(|standing| &*standing.rule)
    }

    /// The modes in force.
    pub fn modes(&self) -> Modes {
        self.modes
    }
}

fn modes(effective: &Effective, standing: &[Standing], shadow: bool) -> Modes {
    let counts = |policy: &CompiledPolicy| shadow || !policy.shadow;
    let own = effective.policies.iter().filter(|policy| counts(policy));
    let own = own.fold(Postures::default(), |strictest, policy| {
        strictest.strictest(policy.postures)
    });
    let postures = effective.postures.under(own);
    let class = |section: Section, unnamed: Option<Unnamed>| {
        let allow_list = standing.iter().any(|standing| {
            let rule = &standing.rule;
            counts(&standing.policy) && rule.section == section && rule.action == Action::Allow
        });
        Class::new(allow_list, unnamed.unwrap_or_default())
    };
    Modes {
        process: class(Section::Process, postures.file),
        file: class(Section::File, postures.file),
        network: class(Section::Network, postures.network),
        dns: class(Section::Dns, postures.network),
        endpoints: class(Section::Endpoints, postures.network),
        capabilities: class(Section::Capabilities, postures.capabilities),
        devices: class(Section::Devices, postures.devices),
        flows: class(Section::Flows, postures.network),
    }
}

impl Class {
    fn new(allow_list: bool, unnamed: Unnamed) -> Class {
        match unnamed {
            // An allow-list that lets everything else pass in silence is none.
            Unnamed::Allow => Class::OPEN,
            Unnamed::Audit => Class {
                allow_list,
                posture: Posture::Audit,
            },
            Unnamed::Block => Class {
                allow_list,
                posture: Posture::Block,
            },
        }
    }
}

fn reported(effective: &Effective) -> Vec<NotEnforced> {
    let parts = effective.policies.iter().flat_map(|policy| {
        policy.unenforced.iter().map(|part| NotEnforced {
            policy: policy.title(),
            path: part.path.clone(),
            reason: part.reason.clone(),
            softened: false,
        })
    });
    parts.collect()
}

impl Standing {
    fn new(policy: &Arc<CompiledPolicy>, rule: &Arc<Rule>, aliases: &Aliases) -> Standing {
        let sources = rule.sources.iter().flat_map(|source| {
            let names = aliases.of(source).iter();
            names.map(|name| match source {
                Object::Directory { recursive, .. } => Program::Below {
                    directory: name.clone(),
                    recursive: *recursive,
                },
                _ => Program::Exact(name.clone()),
            })
        });
        let globs = match &rule.object {
            Object::Pattern(_) => aliases.of(&rule.object),
            _ => &[],
        };
        let names = match &rule.object {
            Object::Path(_) | Object::Directory { .. } => aliases.of(&rule.object).to_vec(),
            _ => Vec::new(),
        };
        Standing {
            policy: policy.clone(),
            rule: rule.clone(),
            names,
            // One that is too long behind a link is reported by nobody and matches nothing.
            globs: globs
                .iter()
                .filter_map(|text| Glob::new(text).ok())
                .collect(),
            sources: sources.collect(),
        }
    }

    /// Whether the policy only tells.
    pub(crate) fn shadow(&self) -> bool {
        self.policy.shadow
    }

    pub(crate) fn holds(&self, operation: &Operation) -> Holds {
        holds(&self.rule, &self.sources, operation)
    }

    /// How narrow the rule is about the operation, by the narrowest of its names; `None` when its object is another.
    pub(crate) fn depth(&self, act: &Act) -> Option<usize> {
        let (section, object) = (self.rule.section, &self.rule.object);
        match (section, act) {
            (Section::Process, Act::Exec { path, .. })
            | (Section::File, Act::Open { path, .. }) => self.depth_of_path(path),
            (Section::Presets, act) => {
                let about = matches!(object, Object::Preset(preset) if preset.about(act));
                about.then_some(0)
            }
            _ => depth_of(object, act),
        }
    }

    fn depth_of_path(&self, path: &str) -> Option<usize> {
        match &self.rule.object {
            Object::Name(name) => (path.rsplit('/').next() == Some(name)).then_some(0),
            Object::Pattern(_) => {
                let globs = self.globs.iter().filter(|glob| glob.matches(path));
                globs.map(|glob| depth(glob.prefix())).max()
            }
            object => {
                let names = self
                    .names
                    .iter()
                    .filter(|name| names_path(object, name, path));
                names.map(|name| depth(name)).max()
            }
        }
    }
}

/// Objects that are no paths.
fn depth_of(object: &Object, act: &Act) -> Option<usize> {
    match (object, act) {
        (Object::Protocol(protocol), Act::Socket { key }) => protocol.covers(*key).then_some(0),
        (Object::Endpoints(endpoints), Act::Connect(connection)) => endpoints.depth(connection),
        (Object::Domain(domain), Act::Lookup { name }) => {
            crate::domain::covers(domain, name).then(|| crate::domain::labels(domain))
        }
        (Object::Capability(own), Act::Capability { number }) => (own == number).then_some(0),
        (Object::Syscall { .. }, Act::Syscall { number, .. }) => {
            let called = SYSCALLS.get(usize::from(*number));
            object
                .syscalls()
                .any(|own| called == Some(&own))
                .then_some(0)
        }
        (Object::Devices(devices), Act::Device(device)) => {
            devices.about(*device).then(|| devices.narrowness())
        }
        (Object::Flows(flows), Act::Packet(packet)) => {
            flows.about(packet).then(|| flows.narrowness())
        }
        _ => None,
    }
}

/// A directory rule is about the directory itself, too.
fn names_path(object: &Object, name: &str, path: &str) -> bool {
    let Object::Directory { recursive, .. } = object else {
        return name == path;
    };
    if path == name || name.strip_suffix('/') == Some(path) {
        return true;
    }
    path.strip_prefix(name)
        .is_some_and(|rest| *recursive || !rest.contains('/'))
}
