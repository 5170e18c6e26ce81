//! What only policies for nodes have: USB devices, ports and addresses, quotas.

use schemars::JsonSchema;
use serde::{Deserialize as Read, Serialize as Write};

use super::{Attributes, is_default};
use crate::rule::Action;

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

        impl $name {
            /// The attributes of this level alone.
            pub fn attributes(&self) -> Attributes<'_> {
                let Self { severity, tags, message, action, .. } = self;
                Attributes { severity: *severity, tags, message, action: *action }
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
            #[schemars(extend("enum" = ["TCP", "UDP", "SCTP", "tcp", "udp", "sctp"]))]
            protocol: Option<String>,
        }
    }
}
