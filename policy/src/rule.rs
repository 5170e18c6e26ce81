//! One compiled rule, and its name.
//!
//! On the wire a rule is `cresset.rules.v1.Rule` (see `wire`); here it is the same with everything checked, so that nothing
//! behind this module looks twice. What a rule is *called* is a hash of what it says:
//!
//! ```text
//! RuleId = first 8 bytes of SHA-256( len kind · len namespace · len policy · encoded Rule with id 0 )
//! ```

use std::fmt;

use prost::Message;
use proto::RuleId;
use proto::rules;
use sha2::{Digest as _, Sha256};

use crate::device::Devices;
use crate::endpoint::{Endpoints, Flows};
use crate::names::{CAPABILITIES, Protocol};
use crate::preset::Preset;

/// What a rule makes happen to what it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// It passes, in silence, and its class becomes an allow-list.
    Allow,
    /// It passes and is told.
    Audit,
    /// It fails and is told.
    Block,
}

impl Action {
    /// The word in a policy.
    pub fn name(self) -> &'static str {
        match self {
            Action::Allow => "Allow",
            Action::Audit => "Audit",
            Action::Block => "Block",
        }
    }
}

/// The part of the language that a rule belongs to. Each but system calls and presets is a class with an allow-list mode
/// of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names are the language's own")]
pub enum Section {
    Process,
    File,
    Network,
    Dns,
    Capabilities,
    Syscalls,
    Devices,
    Presets,
    Endpoints,
    Flows,
}

impl Section {
    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Section::Process => "process",
            Section::File => "file",
            Section::Network => "network",
            Section::Dns => "network DNS",
            Section::Capabilities => "capabilities",
            Section::Syscalls => "syscalls",
            Section::Devices => "device",
            Section::Presets => "presets",
            Section::Endpoints => "network endpoints",
            Section::Flows => "network flows",
        }
    }
}

/// What a rule is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Object {
    /// One literal, absolute path.
    Path(String),
    /// A file name in any directory.
    Name(String),
    /// The children of a directory, or all that is below it. Ends in `/`.
    Directory {
        /// Absolute, with the closing `/`.
        path: String,
        /// Everything below, not only direct children.
        recursive: bool,
    },
    /// A [glob](crate::Glob).
    Pattern(String),
    /// A protocol or socket type.
    Protocol(Protocol),
    /// A domain and all below it.
    Domain(String),
    /// A capability's number.
    Capability(u8),
    /// System calls, and where they act.
    Syscall {
        /// Their names.
        names: Vec<String>,
        /// The path that they act on; empty: any. With a closing `/` a directory.
        path: String,
        /// `path` is a directory and everything below it is meant.
        recursive: bool,
    },
    /// Far ends of connections.
    Endpoints(Endpoints),
    /// USB devices.
    Devices(Devices),
    /// A ready-made check.
    Preset(Preset),
    /// Packets of a network policy.
    Flows(Flows),
}

impl Object {
    /// The names of the system calls that this object is about.
    pub(crate) fn syscalls(&self) -> impl Iterator<Item = &str> {
        let names = match self {
            Object::Syscall { names, .. } => &names[..],
            _ => &[],
        };
        names.iter().map(String::as_str)
    }
}

/// One rule, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name.
    pub id: RuleId,
    /// Where it belongs.
    pub section: Section,
    /// What it makes happen.
    pub action: Action,
    /// What it is about.
    pub object: Object,
    /// Only when done by one of these; empty: by anyone.
    pub sources: Vec<Object>,
    /// The owner of the file may; see [`Rule::has_modifiers`].
    pub owner_only: bool,
    /// Reading is permitted.
    pub read_only: bool,
    /// `Some(false)`: permitted without a terminal. Other values say nothing.
    pub pts: Option<bool>,
    /// The arguments that are permitted; empty: any.
    pub args: Vec<String>,
    /// 1 to 10; 0 when none was given.
    pub severity: u32,
    /// Told with every alert.
    pub tags: Vec<String>,
    /// Told with every alert.
    pub message: String,
}

impl Rule {
    /// Whether the rule says what is *permitted* with its object: by the owner, reading, without a terminal, with these
    /// arguments. An Allow with modifiers is about what they permit, a Block or Audit about everything else.
    pub fn has_modifiers(&self) -> bool {
        self.owner_only || self.read_only || self.pts == Some(false) || !self.args.is_empty()
    }

    /// Whether it matches by its object alone, whoever does it and however.
    pub(crate) fn is_plain(&self) -> bool {
        let whole = match &self.object {
            Object::Syscall { path, .. } => path.is_empty(),
            Object::Preset(preset) => {
                matches!(preset, Preset::FilelessExec | Preset::AnonymousMapExec)
            }
            Object::Flows(flows) => flows.quota.is_none(),
            _ => true,
        };
        whole && self.sources.is_empty() && !self.has_modifiers()
    }

    /// What it is called where people read it: `process: /bin/sleep`.
    pub fn title(&self) -> String {
        format!("{}: {}", self.section.name(), self.object)
    }
}

/// The name of a rule, whatever its `id` field says.
pub(crate) fn rule_id(kind: &str, namespace: &str, policy: &str, rule: &rules::Rule) -> RuleId {
    let mut hash = Sha256::new();
    for word in [kind, namespace, policy] {
        hash.update((word.len() as u64).to_be_bytes());
        hash.update(word);
    }
    if rule.id == 0 {
        hash.update(rule.encode_to_vec());
    } else {
        let bare = rules::Rule {
            id: 0,
            ..rule.clone()
        };
        hash.update(bare.encode_to_vec());
    }
    let digest: [u8; 32] = hash.finalize().into();
    let [a, b, c, d, e, f, g, h, ..] = digest;
    // 0 means "no rule" in events.
    RuleId(u64::from_be_bytes([a, b, c, d, e, f, g, h]).max(1))
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Object::Path(text) | Object::Pattern(text) | Object::Domain(text) => f.write_str(text),
            Object::Name(text) => f.write_str(text),
            Object::Directory { path, .. } => f.write_str(path),
            Object::Protocol(protocol) => f.write_str(protocol.name()),
            Object::Capability(number) => f.write_str(
                CAPABILITIES
                    .get(usize::from(*number))
                    .copied()
                    .unwrap_or("?"),
            ),
            Object::Syscall { names, path, .. } if path.is_empty() => f.write_str(&names.join(" ")),
            Object::Syscall { names, path, .. } => write!(f, "{} {path}", names.join(" ")),
            Object::Endpoints(endpoints) => endpoints.fmt(f),
            Object::Devices(devices) => devices.fmt(f),
            Object::Preset(preset) => f.write_str(preset.name()),
            Object::Flows(flows) => flows.fmt(f),
        }
    }
}
