//! One compiled rule, and its name.
//!
//! On the wire a rule is `cresset.rules.v1.Rule`; here it is the same with everything checked, so that nothing behind
//! this module looks twice. What a rule is *called* is a hash of what it says:
//!
//! ```text
//! RuleId = first 8 bytes of SHA-256( len kind · len namespace · len policy · encoded Rule with id 0 )
//! ```

use prost::Message;
use proto::RuleId;
use proto::rules;
use sha2::{Digest as _, Sha256};

use crate::names::{self, Protocol};
use crate::path::{canonical, impossible};
use crate::syscalls::SYSCALLS;

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

/// The part of the language that a rule belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names are the language's own")]
pub enum Section {
    Process,
    File,
    Network,
    Dns,
    Capabilities,
    Syscalls,
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
    /// A glob.
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
        /// The path that they act on; empty: any.
        path: String,
        /// `path` is a directory and everything below it is meant.
        recursive: bool,
    },
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
    /// Only for others than the owner of the file (Block, Audit), only for the owner (Allow).
    pub owner_only: bool,
    /// Only for writes (Block, Audit), only for reads (Allow).
    pub read_only: bool,
    /// `Some(false)`: only with a terminal attached. Other values say nothing.
    pub pts: Option<bool>,
    /// The arguments that an exec may use; empty: any.
    pub args: Vec<String>,
    /// 1 to 10; 0 when none was given.
    pub severity: u32,
    /// Told with every alert.
    pub tags: Vec<String>,
    /// Told with every alert.
    pub message: String,
}

/// Why this version leaves a rule out of force; `None` for one that it judges in full. A rule with a condition that
/// is not judged is left out whole, rather than applied more broadly than it was written.
pub(crate) fn unenforced(rule: &Rule) -> Option<&'static str> {
    match &rule.object {
        Object::Path(path) | Object::Directory { path, .. } => {
            if crate::path::depth(path) > crate::path::MAX_COMPONENTS {
                return Some("the path has more than 48 components");
            }
            if crate::path::components(path).any(|name| name.len() > crate::path::MAX_COMPONENT) {
                return Some("a component of the path is longer than 255 bytes, which none can be");
            }
        }
        Object::Protocol(_) | Object::Capability(_) => {}
        Object::Name(_) => return Some("execname is not judged by this version"),
        Object::Pattern(_) => return Some("matchPatterns is not judged by this version"),
        Object::Domain(_) => return Some("DNS queries are not judged by this version"),
        Object::Syscall { path, .. } if path.is_empty() => {}
        Object::Syscall { .. } => {
            return Some("the path that a system call acts on is not judged by this version");
        }
    }
    let conditions = [
        (
            !rule.sources.is_empty(),
            "fromSource is not judged by this version: the rule is left out",
        ),
        (
            rule.owner_only,
            "ownerOnly is not judged by this version: the rule is left out",
        ),
        (
            rule.read_only,
            "readOnly is not judged by this version: the rule is left out",
        ),
        (
            rule.pts == Some(false),
            "pts is not judged by this version: the rule is left out",
        ),
        (
            !rule.args.is_empty(),
            "allowedArgs is not judged by this version: the rule is left out",
        ),
    ];
    conditions
        .iter()
        .find(|(there, _)| *there)
        .map(|(_, reason)| *reason)
}

/// The name of a rule, whatever its `id` field says.
pub(crate) fn rule_id(kind: &str, namespace: &str, policy: &str, rule: &rules::Rule) -> RuleId {
    let mut hash = Sha256::new();
    for word in [kind, namespace, policy] {
        hash.update((word.len() as u64).to_be_bytes());
        hash.update(word);
    }
    hash.update(
        rules::Rule {
            id: 0,
            ..rule.clone()
        }
        .encode_to_vec(),
    );
    let digest: [u8; 32] = hash.finalize().into();
    let [a, b, c, d, e, f, g, h, ..] = digest;
    // 0 means "no rule" in events.
    RuleId(u64::from_be_bytes([a, b, c, d, e, f, g, h]).max(1))
}

// === wire ===

impl Rule {
    /// A rule off the wire, or what is wrong with it.
    pub(crate) fn from_wire(wire: &rules::Rule) -> Result<Rule, String> {
        let section = section(wire.section())?;
        let object = object(wire.object.as_ref())?;
        fits(section, &object)?;
        if wire.severity > 10 {
            return Err(format!(
                "severity {} is not between 0 and 10",
                wire.severity
            ));
        }
        let sources = wire.sources.iter().map(object_of_source);
        Ok(Rule {
            id: RuleId(wire.id),
            section,
            action: action(wire.action())?,
            object,
            sources: sources.collect::<Result<_, _>>()?,
            owner_only: wire.owner_only,
            read_only: wire.read_only,
            pts: wire.pts,
            args: wire.args.clone(),
            severity: wire.severity,
            tags: wire.tags.clone(),
            message: wire.message.clone(),
        })
    }

    /// The rule as it goes over the wire.
    pub fn to_wire(&self) -> rules::Rule {
        rules::Rule {
            id: self.id.0,
            section: wire_section(self.section).into(),
            action: wire_action(self.action).into(),
            object: Some(wire_object(&self.object)),
            sources: self.sources.iter().map(wire_object).collect(),
            owner_only: self.owner_only,
            read_only: self.read_only,
            pts: self.pts,
            args: self.args.clone(),
            severity: self.severity,
            tags: self.tags.clone(),
            message: self.message.clone(),
        }
    }
}

fn section(wire: rules::Section) -> Result<Section, String> {
    match wire {
        rules::Section::Process => Ok(Section::Process),
        rules::Section::File => Ok(Section::File),
        rules::Section::Network => Ok(Section::Network),
        rules::Section::Dns => Ok(Section::Dns),
        rules::Section::Capabilities => Ok(Section::Capabilities),
        rules::Section::Syscalls => Ok(Section::Syscalls),
        rules::Section::Unspecified => Err("a section that is not known here".to_owned()),
    }
}

fn wire_section(section: Section) -> rules::Section {
    match section {
        Section::Process => rules::Section::Process,
        Section::File => rules::Section::File,
        Section::Network => rules::Section::Network,
        Section::Dns => rules::Section::Dns,
        Section::Capabilities => rules::Section::Capabilities,
        Section::Syscalls => rules::Section::Syscalls,
    }
}

fn action(wire: rules::Action) -> Result<Action, String> {
    match wire {
        rules::Action::Allow => Ok(Action::Allow),
        rules::Action::Audit => Ok(Action::Audit),
        rules::Action::Block => Ok(Action::Block),
        rules::Action::Unspecified => Err("an action that is not known here".to_owned()),
    }
}

fn wire_action(action: Action) -> rules::Action {
    match action {
        Action::Allow => rules::Action::Allow,
        Action::Audit => rules::Action::Audit,
        Action::Block => rules::Action::Block,
    }
}

fn fits(section: Section, object: &Object) -> Result<(), String> {
    let good = match object {
        Object::Path(_) | Object::Directory { .. } | Object::Pattern(_) => {
            matches!(section, Section::Process | Section::File)
        }
        Object::Name(_) => section == Section::Process,
        Object::Protocol(_) => section == Section::Network,
        Object::Domain(_) => section == Section::Dns,
        Object::Capability(_) => section == Section::Capabilities,
        Object::Syscall { .. } => section == Section::Syscalls,
    };
    if good {
        Ok(())
    } else {
        Err(format!("{object:?} does not belong in {section:?}"))
    }
}

fn object(wire: Option<&rules::Object>) -> Result<Object, String> {
    use rules::object::Is;
    let is = wire
        .and_then(|object| object.is.as_ref())
        .ok_or("a rule about nothing that is known here")?;
    match is {
        Is::Path(path) => Ok(Object::Path(literal(path, false)?)),
        Is::Name(name) if name.is_empty() || name.contains(['/', '\0']) => {
            Err(format!("`{name}` is not a file name"))
        }
        Is::Name(name) => Ok(Object::Name(name.clone())),
        Is::Directory(directory) => Ok(Object::Directory {
            path: literal(&directory.path, true)?,
            recursive: directory.recursive,
        }),
        Is::Pattern(pattern) => Ok(Object::Pattern(pattern.clone())),
        Is::Protocol(name) => {
            let protocol =
                Protocol::of(name).ok_or_else(|| format!("`{name}` is not a protocol"))?;
            Ok(Object::Protocol(protocol))
        }
        Is::Domain(domain) => Ok(Object::Domain(domain.clone())),
        Is::Capability(name) => {
            let number =
                names::capability(name).ok_or_else(|| format!("`{name}` is not a capability"))?;
            Ok(Object::Capability(number))
        }
        Is::Syscall(call) => {
            if let Some(name) = call
                .names
                .iter()
                .find(|name| !SYSCALLS.contains(&name.as_str()))
            {
                return Err(format!("`{name}` is not a system call"));
            }
            if !call.path.is_empty() {
                literal(&call.path, call.path.ends_with('/'))?;
            }
            let (names, path) = (call.names.clone(), call.path.clone());
            Ok(Object::Syscall {
                names,
                path,
                recursive: call.recursive,
            })
        }
    }
}

fn object_of_source(wire: &rules::Object) -> Result<Object, String> {
    match object(Some(wire))? {
        source @ (Object::Path(_) | Object::Directory { .. }) => Ok(source),
        other => Err(format!("{other:?} cannot be a source")),
    }
}

fn literal(path: &str, directory: bool) -> Result<String, String> {
    let form =
        path.starts_with('/') && path.ends_with('/') == directory && canonical(path) == *path;
    if !form {
        let what = if directory { "a directory" } else { "a path" };
        return Err(format!("`{path}` is not {what} in canonical form"));
    }
    match impossible(path) {
        Some(why) => Err(format!("the path `{path}` {why}")),
        None => Ok(path.to_owned()),
    }
}

fn wire_object(object: &Object) -> rules::Object {
    use rules::object::{Directory, Is, Syscall};
    let is = match object {
        Object::Path(path) => Is::Path(path.clone()),
        Object::Name(name) => Is::Name(name.clone()),
        Object::Directory { path, recursive } => Is::Directory(Directory {
            path: path.clone(),
            recursive: *recursive,
        }),
        Object::Pattern(pattern) => Is::Pattern(pattern.clone()),
        Object::Protocol(protocol) => Is::Protocol(protocol.name().to_owned()),
        Object::Domain(domain) => Is::Domain(domain.clone()),
        Object::Capability(number) => {
            let name = names::CAPABILITIES
                .get(usize::from(*number))
                .copied()
                .unwrap_or_default();
            Is::Capability(name.to_owned())
        }
        Object::Syscall {
            names,
            path,
            recursive,
        } => Is::Syscall(Syscall {
            names: names.clone(),
            path: path.clone(),
            recursive: *recursive,
        }),
    };
    rules::Object { is: Some(is) }
}

impl std::fmt::Display for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Object::Path(text)
            | Object::Name(text)
            | Object::Pattern(text)
            | Object::Domain(text) => f.write_str(text),
            Object::Directory { path, .. } => f.write_str(path),
            Object::Protocol(protocol) => f.write_str(protocol.name()),
            Object::Capability(number) => f.write_str(
                names::CAPABILITIES
                    .get(usize::from(*number))
                    .copied()
                    .unwrap_or("?"),
            ),
            Object::Syscall { names, path, .. } if path.is_empty() => f.write_str(&names.join(" ")),
            Object::Syscall { names, path, .. } => write!(f, "{} {path}", names.join(" ")),
        }
    }
}
