//! What goes beyond KubeArmor's language. All of it is optional and changes nothing in files that do not have it.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize as Read, Serialize as Write};

use super::{Attributes, Source, is_default};
use crate::rule::Action;

/// Declares a closed list of words that are read in any case and written in one.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Write)]
        pub enum $name {
            $($(#[$vmeta])* #[serde(rename = $word)] $variant,)*
        }

        impl $name {
            const WORDS: &'static [&'static str] = &[$($word),*];
        }

        impl<'de> Read<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<$name, D::Error> {
                let word = String::deserialize(from)?;
                match word.to_ascii_lowercase().as_str() {
                    $($word => Ok($name::$variant),)*
                    _ => Err(serde::de::Error::unknown_variant(&word, $name::WORDS)),
                }
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "enum": $name::WORDS})
            }
        }
    };
}

words! {
    /// Whether a policy decides.
    Mode {
        /// It does.
        Enforce = "enforce",
        /// It stops nothing and tells what it would have stopped.
        Audit = "audit",
    }
}

words! {
    /// What happens to what an allow-list does not name.
    PostureWord {
        /// It passes, in silence.
        Allow = "allow",
        /// It passes and is told.
        Audit = "audit",
        /// It fails and is told.
        Block = "block",
    }
}

words! {
    /// Who began a connection.
    DirectionWord {
        /// The workload.
        Egress = "egress",
        /// The far end.
        Ingress = "ingress",
    }
}

object! {
    /// Default postures of one policy. What is not given is the namespace's or the node's.
    DefaultPosture {
        optional {
            /// Of programs and files.
            file: Option<PostureWord>,
            /// Of sockets, names, endpoints and flows.
            network: Option<PostureWord>,
            /// Of capabilities.
            capabilities: Option<PostureWord>,
            /// Of USB devices; host policies only.
            device: Option<PostureWord>,
        }
    }
}

object! {
    /// Connections by their far end.
    EndpointMatch {
        optional {
            /// A range of addresses, as in `10.0.0.0/8`.
            cidr: Option<String>,
            /// A name by which the address was looked up; names below it are meant, too.
            domain: Option<String>,
            /// Its ports; none: all.
            ports: Vec<EndpointPort>,
            /// `tcp`, `udp` or `sctp`, for all of `ports`; none: each.
            protocol: Option<String>,
            /// `egress` or `ingress`; none: both.
            direction: Option<DirectionWord>,
            /// `false`: not with a terminal attached.
            pts: Option<bool>,
            /// Only when done by one of these.
            from_source: Vec<Source>,
        }
    } with attributes
}

object! {
    /// Ports of an endpoint.
    EndpointPort {
        required {
            /// A number, `ssh`, `http`, `https` or `dns`.
            port: String,
        }
        optional {
            /// The last port of a range.
            #[schemars(range(min = 1, max = 65535))]
            end_port: Option<i32>,
            /// `tcp`, `udp` or `sctp`.
            protocol: Option<String>,
        }
    }
}
