//! The four kinds of policy as people write them: every field of KubeArmor's custom resources, group
//! `security.kubearmor.com`, version `v1`.
//!
//! The types say what may stand where and nothing about what it means; rules for values are in `check`, meaning is in
//! `compile`. They also carry the JSON schema from which the custom resource definitions are made.

use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::{Deserialize as Read, Serialize as Write};

use crate::rule::Action;

/// One policy as it was read, free of errors.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// The file it was read from.
    pub file: String,
    /// The line on which its document starts.
    pub line: u32,
    /// Where its document stands in the file, as in `items[2]`; empty for a document of its own.
    pub place: String,
    /// What kind of policy it is.
    pub kind: Kind,
    /// Its namespace; empty for kinds that have none.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What it says.
    pub spec: Spec,
}

/// The kinds of policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `KubeArmorPolicy`, for the workloads of one namespace.
    Workload,
    /// `KubeArmorClusterPolicy`, for workloads of many namespaces.
    Cluster,
    /// `KubeArmorHostPolicy`, for nodes.
    Host,
    /// `KubeArmorNetworkPolicy`, for the network of nodes and the quota of pods.
    Network,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 4] = [Kind::Workload, Kind::Cluster, Kind::Host, Kind::Network];

    /// The word in `kind:`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Workload => "KubeArmorPolicy",
            Kind::Cluster => "KubeArmorClusterPolicy",
            Kind::Host => "KubeArmorHostPolicy",
            Kind::Network => "KubeArmorNetworkPolicy",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a policy of each kind says.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the types say it")]
pub enum Spec {
    Workload(Box<WorkloadSpec>),
    Cluster(Box<ClusterSpec>),
    Host(Box<HostSpec>),
    Network(Box<NetworkSpec>),
}

/// The four attributes that may stand at every level. The first level that has one wins: item, section, spec.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes<'a> {
    /// 1 to 10.
    pub severity: Option<i64>,
    /// Any words.
    pub tags: &'a [String],
    /// Any text.
    pub message: &'a str,
    /// What to do.
    pub action: Option<Action>,
}

impl<'a> Attributes<'a> {
    /// These, completed by those of the level around.
    pub fn within(self, outer: Attributes<'a>) -> Attributes<'a> {
        Attributes {
            severity: self
                .severity
                .filter(|severity| *severity != 0)
                .or(outer.severity),
            tags: if self.tags.is_empty() {
                outer.tags
            } else {
                self.tags
            },
            message: if self.message.is_empty() {
                outer.message
            } else {
                self.message
            },
            action: self.action.or(outer.action),
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Declares an object of the language: fields that must be given, fields that may, and the four attributes.
macro_rules! object {
    ($(#[$meta:meta])* $name:ident {
        $(required { $($(#[$rmeta:meta])* $rfield:ident: $rtype:ty,)* })?
        $(optional { $($(#[$ometa:meta])* $ofield:ident: $otype:ty,)* })?
    } with attributes) => {
        object! { $(#[$meta])* $name {
            $(required { $($(#[$rmeta])* $rfield: $rtype,)* })?
            optional {
                $($($(#[$ometa])* $ofield: $otype,)*)?
                /// 1 (lowest) to 10 (highest).
                #[schemars(range(min = 1, max = 10))]
                severity: Option<i64>,
                /// Told with every alert.
                tags: Vec<String>,
                /// Told with every alert.
                message: String,
                /// Block when no level says anything.
                action: Option<Action>,
            }
        } }

        impl $name {
            /// The attributes of this level alone.
            pub fn attributes(&self) -> Attributes<'_> {
                let Self { severity, tags, message, action, .. } = self;
                Attributes { severity: *severity, tags, message, action: *action }
            }
        }
    };
    ($(#[$meta:meta])* $name:ident {
        $(required { $($(#[$rmeta:meta])* $rfield:ident: $rtype:ty,)* })?
        $(optional { $($(#[$ometa:meta])* $ofield:ident: $otype:ty,)* })?
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Read, Write, JsonSchema)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        pub struct $name {
            $($($(#[$rmeta])* pub $rfield: $rtype,)*)?
            $($($(#[$ometa])* #[serde(default, skip_serializing_if = "is_default")] pub $ofield: $otype,)*)?
        }
    };
}

// === spec ===

object! {
    /// `spec` of a KubeArmorPolicy.
    WorkloadSpec {
        optional {
            /// For which workloads of the namespace; empty: all.
            selector: Selector,
            /// Programs that are started.
            process: Option<Process>,
            /// Files that are opened or changed.
            file: Option<File>,
            /// Sockets and names.
            network: Option<Network>,
            /// Capabilities that are used.
            capabilities: Option<Capabilities>,
            /// System calls to tell of.
            syscalls: Option<Syscalls>,
            /// Ready-made checks.
            presets: Vec<Preset>,
            /// Raw AppArmor rules, for that enforcer only.
            apparmor: String,
        }
    } with attributes
}

object! {
    /// `spec` of a KubeArmorClusterPolicy.
    ClusterSpec {
        optional {
            /// For which namespaces and workloads; empty: all.
            selector: ClusterSelector,
            /// Programs that are started.
            process: Option<Process>,
            /// Files that are opened or changed.
            file: Option<File>,
            /// Sockets and names.
            network: Option<Network>,
            /// Capabilities that are used.
            capabilities: Option<Capabilities>,
            /// System calls to tell of.
            syscalls: Option<Syscalls>,
            /// Ready-made checks.
            presets: Vec<Preset>,
            /// Raw AppArmor rules, for that enforcer only.
            apparmor: String,
        }
    } with attributes
}

object! {
    /// `spec` of a KubeArmorHostPolicy.
    HostSpec {
        required {
            /// For which nodes; empty: none.
            node_selector: NodeSelector,
        }
        optional {
            /// Programs that are started.
            process: Option<Process>,
            /// Files that are opened or changed.
            file: Option<File>,
            /// Sockets and names.
            network: Option<Network>,
            /// Capabilities that are used.
            capabilities: Option<Capabilities>,
            /// System calls to tell of.
            syscalls: Option<Syscalls>,
            /// USB devices.
            device: Option<Device>,
            /// Raw AppArmor rules, for that enforcer only.
            apparmor: String,
        }
    } with attributes
}

object! {
    /// `spec` of a KubeArmorNetworkPolicy.
    NetworkSpec {
        optional {
            /// For which nodes.
            node_selector: Option<NodeSelector>,
            /// For which pods (quotas only).
            selector: Option<Selector>,
            /// Whether a quota is each pod's own (`pod`) or shared (`policy`).
            level: Option<String>,
            /// What comes in.
            ingress: Vec<Ingress>,
            /// What goes out.
            egress: Vec<Egress>,
        }
    } with attributes
}

// === selectors ===

object! {
    /// Which workloads of a namespace.
    Selector {
        optional {
            /// All of these labels. `kubearmor.io/container.name: "[a, b]"` limits it to those containers.
            match_labels: BTreeMap<String, String>,
            /// All of these expressions.
            match_expressions: Vec<Expression>,
        }
    }
}

object! {
    /// Which namespaces and workloads.
    ClusterSelector {
        optional {
            /// All of these expressions.
            match_expressions: Vec<Expression>,
        }
    }
}

object! {
    /// One expression of a selector.
    Expression {
        required {
            /// `label`, or in cluster policies `namespace`.
            key: String,
            /// `In` or `NotIn`.
            operator: String,
        }
        optional {
            /// `key=value` for labels, names for namespaces.
            values: Vec<String>,
        }
    }
}

object! {
    /// Which nodes.
    NodeSelector {
        optional {
            /// All of these labels.
            match_labels: BTreeMap<String, String>,
        }
    }
}

// === process and file ===

object! {
    /// By which program.
    Source {
        required {
            /// Absolute path of its file.
            #[schemars(length(max = 200), regex(pattern = r"^\/+.*[^\/]$"))]
            path: String,
        }
    }
}

object! {
    /// Rules on programs that are started.
    Process {
        optional {
            /// Single programs.
            match_paths: Vec<ProcessPath>,
            /// Programs in directories.
            match_directories: Vec<ProcessDirectory>,
            /// Programs by glob.
            match_patterns: Vec<ProcessPattern>,
        }
    } with attributes
}

object! {
    /// One program.
    ProcessPath {
        optional {
            /// Absolute path; literal.
            #[schemars(length(max = 200), regex(pattern = r"^\/+.*[^\/]$"))]
            path: Option<String>,
            /// File name in any directory.
            #[schemars(regex(pattern = r"^[^\/]+$"))]
            execname: Option<String>,
            /// Only the owner of the file may.
            owner_only: bool,
            /// `false`: not with a terminal attached.
            pts: Option<bool>,
            /// Only when started by one of these.
            from_source: Vec<Source>,
            /// The arguments that may be used.
            #[schemars(length(max = 20))]
            allowed_args: Vec<String>,
        }
    } with attributes
}

object! {
    /// Programs in a directory.
    ProcessDirectory {
        required {
            /// Absolute, ends in `/`.
            #[schemars(regex(pattern = r"^\/$|^\/.*\/$"))]
            dir: String,
        }
        optional {
            /// Everything below, not only direct children.
            recursive: bool,
            /// Only the owner of the file may.
            owner_only: bool,
            /// `false`: not with a terminal attached.
            pts: Option<bool>,
            /// Only when started by one of these.
            from_source: Vec<Source>,
        }
    } with attributes
}

object! {
    /// Programs by glob.
    ProcessPattern {
        required {
            /// Glob over the absolute path.
            pattern: String,
        }
        optional {
            /// Only the owner of the file may.
            owner_only: bool,
        }
    } with attributes
}

object! {
    /// Rules on files.
    File {
        optional {
            /// Single files.
            match_paths: Vec<FilePath>,
            /// Files in directories.
            match_directories: Vec<FileDirectory>,
            /// Files by glob.
            match_patterns: Vec<FilePattern>,
        }
    } with attributes
}

object! {
    /// One file.
    FilePath {
        required {
            /// Absolute path; literal.
            #[schemars(length(max = 200), regex(pattern = r"^\/+.*[^\/]$"))]
            path: String,
        }
        optional {
            /// It may be read and not written.
            read_only: bool,
            /// Only the owner of the file may.
            owner_only: bool,
            /// `false`: not with a terminal attached.
            pts: Option<bool>,
            /// Only when done by one of these.
            from_source: Vec<Source>,
        }
    } with attributes
}

object! {
    /// Files in a directory.
    FileDirectory {
        required {
            /// Absolute, ends in `/`.
            #[schemars(regex(pattern = r"^\/$|^\/.*\/$"))]
            dir: String,
        }
        optional {
            /// Everything below, not only direct children.
            recursive: bool,
            /// They may be read and not written.
            read_only: bool,
            /// Only the owner of the file may.
            owner_only: bool,
            /// `false`: not with a terminal attached.
            pts: Option<bool>,
            /// Only when done by one of these.
            from_source: Vec<Source>,
        }
    } with attributes
}

object! {
    /// Files by glob.
    FilePattern {
        required {
            /// Glob over the absolute path.
            pattern: String,
        }
        optional {
            /// They may be read and not written.
            read_only: bool,
            /// Only the owner of the file may.
            owner_only: bool,
        }
    } with attributes
}

// === network, capabilities, system calls, presets ===

object! {
    /// Rules on sockets and names.
    Network {
        optional {
            /// Sockets by protocol or type.
            match_protocols: Vec<NetworkProtocol>,
            /// Names that are looked up.
            #[serde(rename = "matchDNSQueries")]
            match_dns_queries: Vec<DnsQuery>,
        }
    } with attributes
}

object! {
    /// Sockets of a protocol or type.
    NetworkProtocol {
        required {
            /// `tcp`, `udp`, `icmp`, `icmpv6`, `sctp`, `stream`, `dgram`, `raw`, `rdm`, `seqpacket`, `dccp`, `packet`, `all`; several
            /// with commas.
            protocol: String,
        }
        optional {
            /// `false`: not with a terminal attached.
            pts: Option<bool>,
            /// Only when done by one of these.
            from_source: Vec<Source>,
        }
    } with attributes
}

object! {
    /// A name that is looked up.
    DnsQuery {
        required {
            /// The name; names below it are meant, too.
            domain: String,
        }
        optional {
            /// Only when done by one of these.
            from_source: Vec<Source>,
        }
    } with attributes
}

object! {
    /// Rules on capabilities.
    Capabilities {
        optional {
            /// Single capabilities.
            match_capabilities: Vec<Capability>,
        }
    } with attributes
}

object! {
    /// A capability.
    Capability {
        required {
            /// Lower case, without `cap_`.
            capability: String,
        }
        optional {
            /// Only when used by one of these.
            from_source: Vec<Source>,
        }
    } with attributes
}

object! {
    /// System calls to tell of; they are never denied.
    Syscalls {
        optional {
            /// Wherever they act.
            match_syscalls: Vec<SyscallMatch>,
            /// On these paths.
            match_paths: Vec<SyscallPath>,
            /// 1 (lowest) to 10 (highest).
            #[schemars(range(min = 1, max = 10))]
            severity: Option<i64>,
            /// Told with every alert.
            tags: Vec<String>,
            /// Told with every alert.
            message: String,
        }
    }
}

impl Syscalls {
    /// The attributes of this level alone; system calls have no action of their own.
    pub fn attributes(&self) -> Attributes<'_> {
        let Self {
            severity,
            tags,
            message,
            ..
        } = self;
        Attributes {
            severity: *severity,
            tags,
            message,
            action: None,
        }
    }
}

object! {
    /// System calls wherever they act.
    SyscallMatch {
        optional {
            /// Their names.
            syscall: Vec<String>,
            /// Only when made by one of these.
            from_source: Vec<SyscallSource>,
        }
    }
}

object! {
    /// System calls on a path.
    SyscallPath {
        required {
            /// A file, or a directory with its closing `/`.
            #[schemars(regex(pattern = r"(^\/+.*[^\/]$)|(^\/$|^\/.*\/$)"))]
            path: String,
        }
        optional {
            /// Everything below the directory.
            recursive: bool,
            /// Their names.
            syscall: Vec<String>,
            /// Only when made by one of these.
            from_source: Vec<SyscallSource>,
        }
    }
}

object! {
    /// By which program, or by those of which directory.
    SyscallSource {
        optional {
            /// Absolute path of a program.
            #[schemars(length(max = 200), regex(pattern = r"^\/+.*[^\/]$"))]
            path: Option<String>,
            /// Absolute path of a directory.
            dir: Option<String>,
            /// Everything below the directory.
            recursive: bool,
        }
    }
}

object! {
    /// A ready-made check.
    Preset {
        required {
            /// `filelessExec`, `anonymousMapExec`, `protectEnv`, `protectProc` or `exec`.
            name: String,
        }
        optional {
            /// Does not come from the spec: nothing and `Allow` mean Block.
            action: Option<Action>,
        }
    }
}

// === hosts and networks ===

object! {
    /// Rules on USB devices.
    Device {
        optional {
            /// Single classes.
            match_device: Vec<DeviceMatch>,
        }
    } with attributes
}

object! {
    /// A class of devices.
    DeviceMatch {
        required {
            /// Name, number, hexadecimal number or `ALL`.
            class: String,
        }
        optional {
            /// Its subclass.
            sub_class: Option<i32>,
            /// Its protocol.
            protocol: Option<i32>,
            /// How many hubs deep.
            #[schemars(range(min = 1))]
            level: Option<i32>,
        }
    } with attributes
}

/// Declares one direction of a network policy.
macro_rules! direction {
    ($(#[$meta:meta])* $name:ident, $(#[$pmeta:meta])* $peers:ident) => {
        object! {
            $(#[$meta])*
            $name {
                optional {
                    $(#[$pmeta])*
                    $peers: Vec<Peer>,
                    /// Network interfaces.
                    iface: Vec<String>,
                    /// Ports.
                    ports: Vec<Port>,
                    /// How much may pass in `duration`; without a unit in GB.
                    #[schemars(regex(pattern = r"^[0-9]+(KB|MB|GB|K|M|G)?$"))]
                    limit: Option<String>,
                    /// The time that `limit` is for.
                    duration: Option<String>,
                    /// Not bounded here, as in KubeArmor.
                    severity: Option<i64>,
                    /// Told with every alert.
                    tags: Vec<String>,
                    /// Told with every alert.
                    message: String,
                    /// Block when no level says anything.
                    action: Option<Action>,
                }
            }
        }
    };
}

direction! {
    /// What comes in.
    Ingress,
    /// From where.
    from
}
direction! {
    /// What goes out.
    Egress,
    /// To where.
    to
}

object! {
    /// The far end.
    Peer {
        required {
            /// A range of addresses.
            ip_block: IpBlock,
        }
    }
}

object! {
    /// A range of addresses.
    IpBlock {
        required {
            /// As in `10.0.0.0/8`.
            cidr: String,
        }
    }
}

object! {
    /// Ports of a protocol.
    Port {
        required {
            /// A number, `ssh`, `http`, `https` or `dns`.
            port: String,
        }
        optional {
            /// The last port of a range.
            #[schemars(range(min = 1, max = 65535))]
            end_port: Option<i32>,
            /// `TCP`, `UDP` or `SCTP`.
            protocol: Option<String>,
        }
    }
}

// === Action ===

const ACTIONS: &[&str] = &["Allow", "Audit", "Block"];

/// Any case is read: files from the field have `audit` and `BLOCK`, too.
impl<'de> Deserialize<'de> for Action {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Action, D::Error> {
        struct Word;
        impl Visitor<'_> for Word {
            type Value = Action;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`Allow`, `Audit` or `Block`")
            }
            fn visit_str<E: de::Error>(self, word: &str) -> Result<Action, E> {
                match word.to_ascii_lowercase().as_str() {
                    "allow" => Ok(Action::Allow),
                    "audit" => Ok(Action::Audit),
                    "block" => Ok(Action::Block),
                    _ => Err(E::unknown_variant(word, ACTIONS)),
                }
            }
        }
        from.deserialize_str(Word)
    }
}

impl Write for Action {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(match self {
            Action::Allow => "Allow",
            Action::Audit => "Audit",
            Action::Block => "Block",
        })
    }
}

impl JsonSchema for Action {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Action".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "enum": ACTIONS})
    }
}
