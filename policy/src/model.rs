//! The four kinds of policy as people write them: every field of KubeArmor's custom resources, group
//! `security.kubearmor.com`, version `v1`.
//!
//! The types say what may stand where and nothing about what it means; rules for values are in `check`, meaning is in
//! `compile`. They also carry the JSON schema from which the custom resource definitions are made.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
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
    /// Where its rules stand: `spec.process.matchPaths[0]` → line and column.
    pub lines: BTreeMap<String, (u32, u32)>,
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

impl Policy {
    /// `namespace/name`, or the name alone for what has no namespace.
    pub fn title(&self) -> String {
        if self.namespace.is_empty() {
            return self.name.clone();
        }
        format!("{}/{}", self.namespace, self.name)
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

mod action;
mod beyond;
mod node;
mod workload;

pub use beyond::*;
pub use node::*;
pub use workload::*;

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
            /// `audit`: nothing is stopped, what would have been is told.
            mode: Option<Mode>,
            /// From when on the policy is no more in force, as in `2027-01-31T18:00:00Z`.
            expires: Option<String>,
            /// What happens to what this policy's allow-lists do not name, before the namespace's and the node's own.
            default_posture: Option<DefaultPosture>,
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
            /// `audit`: nothing is stopped, what would have been is told.
            mode: Option<Mode>,
            /// From when on the policy is no more in force, as in `2027-01-31T18:00:00Z`.
            expires: Option<String>,
            /// What happens to what this policy's allow-lists do not name, before the namespace's and the node's own.
            default_posture: Option<DefaultPosture>,
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
            /// `audit`: nothing is stopped, what would have been is told.
            mode: Option<Mode>,
            /// From when on the policy is no more in force, as in `2027-01-31T18:00:00Z`.
            expires: Option<String>,
            /// What happens to what this policy's allow-lists do not name, before the namespace's and the node's own.
            default_posture: Option<DefaultPosture>,
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
            #[schemars(extend("enum" = ["pod", "policy", "Pod", "Policy"]))]
            level: Option<String>,
            /// What comes in.
            ingress: Vec<Ingress>,
            /// What goes out.
            egress: Vec<Egress>,
            /// `audit`: nothing is stopped, what would have been is told.
            mode: Option<Mode>,
            /// From when on the policy is no more in force, as in `2027-01-31T18:00:00Z`.
            expires: Option<String>,
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
        optional {
            /// `label`, or in cluster policies `namespace`.
            #[schemars(extend("enum" = ["label", "namespace"]))]
            key: String,
            /// `In` or `NotIn`.
            #[schemars(extend("enum" = ["In", "NotIn"]))]
            operator: String,
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
