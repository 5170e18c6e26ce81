//! A policy as it was written → its rules: attributes inherited, comma lists taken apart, paths and names in their one form.

use std::collections::BTreeMap;

use proto::RuleId;
use proto::rules::{self, Unenforced};

use crate::model::{self, Attributes, Policy, Spec};
use crate::names::{Protocol, capability};
use crate::path::canonical;
use crate::preset::Preset;
use crate::rule::{Action, Object, Rule, Section, rule_id};

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
        sections
            .process
            .into_iter()
            .for_each(|section| self.process(section, outer));
        sections
            .file
            .into_iter()
            .for_each(|section| self.file(section, outer));
        sections
            .network
            .into_iter()
            .for_each(|section| self.network(section, outer));
        sections
            .capabilities
            .into_iter()
            .for_each(|section| self.capabilities(section, outer));
        sections
            .syscalls
            .into_iter()
            .for_each(|section| self.syscalls(section, outer));
    }

    fn process(&mut self, section: &'p model::Process, outer: Attributes<'p>) {
        let outer = section.attributes().within(outer);
        for (index, item) in section.match_paths.iter().enumerate() {
            let object = match (&item.path, &item.execname) {
                (Some(path), _) => Object::Path(canonical(path)),
                (None, name) => Object::Name(name.clone().unwrap_or_default()),
            };
            let written = Written {
                sources: sources(&item.from_source),
                owner_only: item.owner_only,
                pts: item.pts,
                args: &item.allowed_args,
                ..Written::new(Section::Process, object)
            };
            self.add(
                format!("process.matchPaths[{index}]"),
                written,
                item.attributes().within(outer),
            );
        }
        for (index, item) in section.match_directories.iter().enumerate() {
            let object = Object::Directory {
                path: canonical(&item.dir),
                recursive: item.recursive,
            };
            let written = Written {
                sources: sources(&item.from_source),
                owner_only: item.owner_only,
                pts: item.pts,
                ..Written::new(Section::Process, object)
            };
            self.add(
                format!("process.matchDirectories[{index}]"),
                written,
                item.attributes().within(outer),
            );
        }
        for (index, item) in section.match_patterns.iter().enumerate() {
            let object = Object::Pattern(item.pattern.clone());
            let written = Written {
                owner_only: item.owner_only,
                ..Written::new(Section::Process, object)
            };
            self.add(
                format!("process.matchPatterns[{index}]"),
                written,
                item.attributes().within(outer),
            );
        }
    }

    fn file(&mut self, section: &'p model::File, outer: Attributes<'p>) {
        let outer = section.attributes().within(outer);
        for (index, item) in section.match_paths.iter().enumerate() {
            let written = Written {
                sources: sources(&item.from_source),
                owner_only: item.owner_only,
                read_only: item.read_only,
                pts: item.pts,
                ..Written::new(Section::File, Object::Path(canonical(&item.path)))
            };
            self.add(
                format!("file.matchPaths[{index}]"),
                written,
                item.attributes().within(outer),
            );
        }
        for (index, item) in section.match_directories.iter().enumerate() {
            let object = Object::Directory {
                path: canonical(&item.dir),
                recursive: item.recursive,
            };
            let written = Written {
                sources: sources(&item.from_source),
                owner_only: item.owner_only,
                read_only: item.read_only,
                pts: item.pts,
                ..Written::new(Section::File, object)
            };
            self.add(
                format!("file.matchDirectories[{index}]"),
                written,
                item.attributes().within(outer),
            );
        }
        for (index, item) in section.match_patterns.iter().enumerate() {
            let written = Written {
                owner_only: item.owner_only,
                read_only: item.read_only,
                ..Written::new(Section::File, Object::Pattern(item.pattern.clone()))
            };
            self.add(
                format!("file.matchPatterns[{index}]"),
                written,
                item.attributes().within(outer),
            );
        }
    }

    fn network(&mut self, section: &'p model::Network, outer: Attributes<'p>) {
        let outer = section.attributes().within(outer);
        for (index, item) in section.match_protocols.iter().enumerate() {
            let protocols =
                parts(&item.protocol).filter_map(|name| Protocol::of(&name.to_ascii_lowercase()));
            for protocol in protocols {
                let written = Written {
                    sources: sources(&item.from_source),
                    pts: item.pts,
                    ..Written::new(Section::Network, Object::Protocol(protocol))
                };
                self.add(
                    format!("network.matchProtocols[{index}]"),
                    written,
                    item.attributes().within(outer),
                );
            }
        }
        for (index, item) in section.match_dns_queries.iter().enumerate() {
            for domain in parts(&item.domain) {
                let object = Object::Domain(crate::domain::canonical(domain));
                let written = Written {
                    sources: sources(&item.from_source),
                    ..Written::new(Section::Dns, object)
                };
                self.add(
                    format!("network.matchDNSQueries[{index}]"),
                    written,
                    item.attributes().within(outer),
                );
            }
        }
        self.endpoints(section, outer);
    }

    fn capabilities(&mut self, section: &'p model::Capabilities, outer: Attributes<'p>) {
        let outer = section.attributes().within(outer);
        for (index, item) in section.match_capabilities.iter().enumerate() {
            for number in parts(&item.capability).filter_map(capability) {
                let written = Written {
                    sources: sources(&item.from_source),
                    ..Written::new(Section::Capabilities, Object::Capability(number))
                };
                let place = format!("capabilities.matchCapabilities[{index}]");
                self.add(place, written, item.attributes().within(outer));
            }
        }
    }

    /// System calls are told of and never denied, whatever the spec's action says.
    fn syscalls(&mut self, section: &'p model::Syscalls, outer: Attributes<'p>) {
        let outer = Attributes {
            action: Some(Action::Audit),
            ..section.attributes().within(outer)
        };
        for (index, item) in section.match_syscalls.iter().enumerate() {
            let object = Object::Syscall {
                names: sorted(&item.syscall),
                path: String::new(),
                recursive: false,
            };
            let written = Written {
                sources: syscall_sources(&item.from_source),
                ..Written::new(Section::Syscalls, object)
            };
            let place = format!("syscalls.matchSyscalls[{index}]");
            self.add(place.clone(), written, outer);
            for name in ["exit", "exit_group"] {
                if item.syscall.iter().any(|listed| listed == name) {
                    self.left_out(
                        &place,
                        &format!("`{name}` does not return, so it is not told of"),
                    );
                }
            }
        }
        for (index, item) in section.match_paths.iter().enumerate() {
            let object = Object::Syscall {
                names: sorted(&item.syscall),
                path: canonical(&item.path),
                recursive: item.recursive,
            };
            let written = Written {
                sources: syscall_sources(&item.from_source),
                ..Written::new(Section::Syscalls, object)
            };
            self.add(format!("syscalls.matchPaths[{index}]"), written, outer);
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

mod beyond;

pub(crate) use beyond::{PORT_NAMES, bytes};

/// The parts of a comma list.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
}

fn sorted(words: &[String]) -> Vec<String> {
    let mut words = words.to_vec();
    words.sort_unstable();
    words.dedup();
    words
}

fn sources(written: &[model::Source]) -> Vec<Object> {
    in_order(
        written
            .iter()
            .map(|source| Object::Path(canonical(&source.path))),
    )
}

fn syscall_sources(written: &[model::SyscallSource]) -> Vec<Object> {
    in_order(
        written
            .iter()
            .map(|source| match (&source.path, &source.dir) {
                (Some(path), _) => Object::Path(canonical(path)),
                (None, dir) => {
                    let dir = canonical(&format!("{}/", dir.as_deref().unwrap_or_default()));
                    Object::Directory {
                        path: dir,
                        recursive: source.recursive,
                    }
                }
            }),
    )
}

fn in_order(sources: impl Iterator<Item = Object>) -> Vec<Object> {
    let mut sources: Vec<Object> = sources.collect();
    sources.sort_unstable();
    sources.dedup();
    sources
}
