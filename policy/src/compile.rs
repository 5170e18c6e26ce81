//! Policies → a rule set: one blob a policy, one manifest.
//!
//! Everything that may be written in more than one way gets one form (paths without doubled slashes, lists of protocols
//! one rule each, attributes inherited, rules and selectors sorted), so that equal policies in any order give equal
//! bytes. What is not judged by this version is in the blob all the same, and listed there with its place and the reason.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use proto::rules::{self, Manifest, PolicyBlob, Unenforced};
use proto::{Digest, RuleId};

use crate::model::{self, Attributes, Kind, Policy, Spec};
use crate::names::{Protocol, capability};
use crate::path::canonical;
use crate::rule::{Action, Object, Rule, Section, rule_id, unenforced};
use crate::selector;
use crate::set::{blob_digest, manifest_digest};

/// What is distributed: policies by name, and the list of names.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleSet {
    /// The sorted names of the blobs, the postures, and the digest of it all.
    pub manifest: Manifest,
    /// Encoded [`PolicyBlob`]s by their digest.
    pub blobs: BTreeMap<Digest, Bytes>,
}

/// Compiles a whole set under these default postures.
pub fn compile(policies: &[Policy], postures: &rules::Postures) -> RuleSet {
    compile_for(policies, postures, &BTreeMap::new())
}

/// [`compile`] with namespaces that have postures of their own (given in full).
pub fn compile_for(
    policies: &[Policy],
    postures: &rules::Postures,
    namespaces: &BTreeMap<String, rules::Postures>,
) -> RuleSet {
    let blobs: BTreeMap<Digest, Bytes> = policies
        .iter()
        .map(|policy| Bytes::from(blob(policy).encode_to_vec()))
        .map(|bytes| (blob_digest(&bytes), bytes))
        .collect();
    let namespaces = namespaces
        .iter()
        .map(|(namespace, postures)| rules::NamespacePostures {
            namespace: namespace.clone(),
            postures: Some(*postures),
        });
    let mut manifest = Manifest {
        digest: Default::default(),
        blobs: blobs.keys().map(|digest| digest.0.to_vec()).collect(),
        postures: Some(*postures),
        namespaces: namespaces.collect(),
    };
    manifest.digest = manifest_digest(&manifest).0.to_vec();
    RuleSet { manifest, blobs }
}

/// How large a policy's blob is.
pub(crate) fn encoded_len(policy: &Policy) -> usize {
    blob(policy).encoded_len()
}

fn blob(policy: &Policy) -> PolicyBlob {
    let place = if policy.place.is_empty() {
        "spec".to_owned()
    } else {
        format!("{}.spec", policy.place)
    };
    let mut lower = Lower {
        policy,
        place,
        rules: BTreeMap::new(),
        unenforced: Vec::new(),
    };
    let selector = lower.spec();
    let Lower {
        rules, unenforced, ..
    } = lower;
    PolicyBlob {
        kind: policy.kind.to_string(),
        namespace: policy.namespace.clone(),
        name: policy.name.clone(),
        selector: Some(selector),
        rules: rules.into_values().collect(),
        unenforced,
    }
}

struct Lower<'p> {
    policy: &'p Policy,
    place: String,
    rules: BTreeMap<RuleId, rules::Rule>,
    unenforced: Vec<Unenforced>,
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
    fn spec(&mut self) -> rules::Selector {
        match &self.policy.spec {
            Spec::Workload(spec) => {
                self.sections(&sections!(spec));
                self.extras(&spec.presets, &spec.apparmor);
                selector::workload(&self.policy.namespace, &spec.selector)
            }
            Spec::Cluster(spec) => {
                self.sections(&sections!(spec));
                self.extras(&spec.presets, &spec.apparmor);
                selector::cluster(&spec.selector)
            }
            Spec::Host(spec) => {
                self.left_out("", "host policies are not judged by this version");
                self.sections(&sections!(spec));
                selector::node(&spec.node_selector)
            }
            Spec::Network(spec) => {
                self.left_out("", "network policies are not judged by this version");
                spec.node_selector
                    .as_ref()
                    .map(selector::node)
                    .unwrap_or_default()
            }
        }
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
                let object = Object::Domain(domain.trim_end_matches('.').to_ascii_lowercase());
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

    fn extras(&mut self, presets: &[model::Preset], apparmor: &str) {
        for (index, preset) in presets.iter().enumerate() {
            let reason = format!("the preset {} is not judged by this version", preset.name);
            self.left_out(&format!("presets[{index}]"), &reason);
        }
        if !apparmor.trim().is_empty() {
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
                .unwrap_or(0),
            tags: attributes.tags.to_vec(),
            message: attributes.message.to_owned(),
        };
        // Kinds that are not judged at all are reported once, as a whole.
        if matches!(self.policy.kind, Kind::Workload | Kind::Cluster)
            && let Some(reason) = unenforced(&rule)
        {
            self.left_out(&at, reason);
        }
        let wire = rule.to_wire();
        let Policy {
            kind,
            namespace,
            name,
            ..
        } = self.policy;
        let id = rule_id(kind.name(), namespace, name, &wire);
        self.rules.insert(id, rules::Rule { id: id.0, ..wire });
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
