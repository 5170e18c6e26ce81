//! A policy as it was written → its rules: attributes inherited, comma lists taken apart, paths and names in their one form.
//!
//! Here is what all sections share; each has its items in a file of its own.

mod beyond;
mod network;
mod numbers;
mod paths;

use std::collections::BTreeMap;

use proto::RuleId;
use proto::rules::{self, Unenforced};

use crate::model::{self, Attributes, Policy, Spec};
use crate::path::canonical;
use crate::preset::Preset;
use crate::rule::{Action, Object, Rule, Section, rule_id};

pub(crate) use beyond::{PORT_NAMES, bytes};

/// A rule and where it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Placed {
    /// The rule.
    pub rule: Rule,
    /// Its place in the document: `spec.process.matchPaths[0]`.
    pub place: String,
}

/// The rules of a policy in order of their ids, each with the first place where it is written.
pub fn rules_of(policy: &Policy) -> Vec<Placed> {
    let rules = Lower::new(policy).run().rules.into_values();
    rules.map(|lowered| lowered.placed).collect()
}

/// A rule with its form on the wire, which its id was made of.
pub(crate) struct Lowered {
    pub(crate) placed: Placed,
    pub(crate) wire: rules::Rule,
}

/// What lowering a policy gives.
pub(crate) struct Lower<'p> {
    policy: &'p Policy,
    place: String,
    pub(crate) rules: BTreeMap<RuleId, Lowered>,
    pub(crate) unenforced: Vec<Unenforced>,
}

/// What a rule is about and under which conditions; the attributes come from the levels around it.
struct Written<'p> {
    section: Section,
    object: Object,
    sources: Vec<Object>,
    owner_only: bool,
    read_only: bool,
    pts: Option<bool>,
    args: &'p [String],
}

impl Written<'_> {
    fn new(section: Section, object: Object) -> Self {
        let (sources, args) = (Vec::new(), &[][..]);
        Written {
            section,
            object,
            sources,
            owner_only: false,
            read_only: false,
            pts: None,
            args,
        }
    }
}

/// The sections that kinds have in common.
struct Sections<'p> {
    process: Option<&'p model::Process>,
    file: Option<&'p model::File>,
    network: Option<&'p model::Network>,
    capabilities: Option<&'p model::Capabilities>,
    syscalls: Option<&'p model::Syscalls>,
    attributes: Attributes<'p>,
}

macro_rules! sections {
    ($spec:expr) => {
        Sections {
            process: $spec.process.as_ref(),
            file: $spec.file.as_ref(),
            network: $spec.network.as_ref(),
            capabilities: $spec.capabilities.as_ref(),
            syscalls: $spec.syscalls.as_ref(),
            attributes: $spec.attributes(),
        }
    };
}

impl<'p> Lower<'p> {
    pub(crate) fn new(policy: &'p Policy) -> Lower<'p> {
        let place = if policy.place.is_empty() {
            "spec".to_owned()
        } else {
            format!("{}.spec", policy.place)
        };
        Lower {
            policy,
            place,
            rules: BTreeMap::new(),
            unenforced: Vec::new(),
        }
    }

    pub(crate) fn run(mut self) -> Lower<'p> {
        match &self.policy.spec {
            Spec::Workload(spec) => {
                self.sections(&sections!(spec));
                self.presets(&spec.presets, spec.attributes());
                self.apparmor(&spec.apparmor);
            }
            Spec::Cluster(spec) => {
                self.sections(&sections!(spec));
                self.presets(&spec.presets, spec.attributes());
                self.apparmor(&spec.apparmor);
            }
            Spec::Host(spec) => {
                self.sections(&sections!(spec));
                if let Some(device) = &spec.device {
                    self.devices(device, spec.attributes());
                }
                self.apparmor(&spec.apparmor);
            }
            Spec::Network(spec) => self.flows(spec),
        }
        self
    }

    fn sections(&mut self, sections: &Sections<'p>) {
        let outer = sections.attributes;
        if let Some(section) = sections.process {
            self.process(section, outer);
        }
        if let Some(section) = sections.file {
            self.file(section, outer);
        }
        if let Some(section) = sections.network {
            self.network(section, outer);
        }
        if let Some(section) = sections.capabilities {
            self.capabilities(section, outer);
        }
        if let Some(section) = sections.syscalls {
            self.syscalls(section, outer);
        }
    }

    /// The action of a preset is its own alone: without one, and for Allow, it blocks.
    fn presets(&mut self, presets: &[model::Preset], outer: Attributes<'p>) {
        for (index, preset) in presets.iter().enumerate() {
            let Some(kind) = Preset::of(&preset.name) else {
                continue;
            };
            let action = match preset.action {
                Some(Action::Audit) => Action::Audit,
                Some(Action::Allow | Action::Block) | None => Action::Block,
            };
            let attributes = Attributes {
                action: Some(action),
                ..outer
            };
            let written = Written::new(Section::Presets, Object::Preset(kind));
            self.add(format!("presets[{index}]"), written, attributes);
        }
    }

    fn apparmor(&mut self, text: &str) {
        if !text.trim().is_empty() {
            self.left_out(
                "apparmor",
                "raw AppArmor rules are for the AppArmor enforcer, which this is not",
            );
        }
    }

    fn add(&mut self, at: String, written: Written<'_>, attributes: Attributes<'_>) {
        let rule = Rule {
            id: RuleId(0),
            section: written.section,
            action: attributes.action.unwrap_or(Action::Block),
            object: written.object,
            sources: written.sources,
            owner_only: written.owner_only,
            read_only: written.read_only,
            // `true` says nothing.
            pts: written.pts.filter(|pts| !pts),
            args: written.args.to_vec(),
            severity: attributes
                .severity
                .and_then(|severity| u32::try_from(severity).ok())
                // Network policies do not bound it.
                .map_or(0, |severity| severity.min(10)),
            tags: attributes.tags.to_vec(),
            message: attributes.message.to_owned(),
        };
        let wire = rule.to_wire();
        let Policy {
            kind,
            namespace,
            name,
            ..
        } = self.policy;
        let id = rule_id(kind.name(), namespace, name, &wire);
        let place = format!("{}.{at}", self.place);
        let wire = rules::Rule { id: id.0, ..wire };
        let placed = Placed {
            rule: Rule { id, ..rule },
            place,
        };
        (self.rules.entry(id)).or_insert(Lowered { placed, wire });
    }

    fn left_out(&mut self, at: &str, reason: &str) {
        let joint = if at.is_empty() { "" } else { "." };
        let part = Unenforced {
            path: format!("{}{joint}{at}", self.place),
            reason: reason.to_owned(),
        };
        // A comma list is one place.
        if self.unenforced.last() != Some(&part) {
            self.unenforced.push(part);
        }
    }
}

/// The parts of a comma list.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
}

fn sources(written: &[model::Source]) -> Vec<Object> {
    in_order(
        written
            .iter()
            .map(|source| Object::Path(canonical(&source.path))),
    )
}

fn in_order(sources: impl Iterator<Item = Object>) -> Vec<Object> {
    let mut sources: Vec<Object> = sources.collect();
    sources.sort_unstable();
    sources.dedup();
    sources
}
