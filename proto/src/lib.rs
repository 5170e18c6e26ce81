//! The contract: KubeArmor's events byte for byte, our own link and query protocols, and the two ways to print an event.
//!
//! ```text
//! link::Event bytes ─ batch::split ─▶ kind + payload ─ check ─▶ Event ─┬─ json::write ─▶ {"Timestamp":…}
//!                                     (the sender's own bytes)         ├─ text::write ─▶ == Alert / … ==
//!                                                                      └─ view ───────▶ what filters look at
//! ```
//!
//! An event stays the bytes that its sender encoded. Nothing on the way decodes it into a message: [`check`] walks the
//! bytes once at the door, and the renderers walk them again where somebody wants to read. The generated messages are
//! for those who make events ([`feeder`]) and for the services.
//!
//! [`fields`] is the one list of all event fields: JSON order, names, index types and meanings come from it.

mod check;
mod decimal;
mod event;
mod eventdata;
mod found;
mod ids;
mod join;
mod link_version;
mod place;
mod plain;
mod slots;
mod time;
mod values;
mod view;
mod walk;
mod workload;

pub mod batch;
pub mod fields;
pub mod json;
pub mod rewrite;
pub mod text;
pub mod visible;

pub use check::{MAX_BATCH, MAX_EVENT, Malformed, check};
pub use event::{Event, Kind, UnknownKind};
pub use eventdata::event_data;
pub use fields::FieldSet;
pub use found::{Found, Many, Marks, Value};
pub use ids::{BadId, Digest, EventId, RuleId, StreamId};
pub use join::{BadToken, JoinToken, RELAY_NAME};
pub use link_version::{LINK_VERSION, understands};
pub use place::Place;
pub use time::updated_time;
pub use values::{FieldValue, values};
pub use view::{Texts, View};
pub use workload::workload;

/// KubeArmor's feeder messages and `LogService`.
#[allow(
    missing_docs,
    unreachable_pub,
    reason = "generated; the .proto file is the documentation"
)]
pub mod feeder {
    tonic::include_proto!("feeder");
}
/// KubeArmor's `PolicyService` and `ProbeService`.
#[allow(
    missing_docs,
    unreachable_pub,
    reason = "generated; the .proto file is the documentation"
)]
pub mod policy_v1 {
    tonic::include_proto!("policy");
}
/// Nested as the packages are, because generated code names its neighbours by relative paths.
#[allow(
    missing_docs,
    unreachable_pub,
    reason = "generated; the .proto files are the documentation"
)]
#[allow(
    clippy::large_enum_variant,
    reason = "generated; the large variant, Hello, comes once a connection"
)]
mod cresset {
    pub mod rules {
        pub mod v1 {
            tonic::include_proto!("cresset.rules.v1");
        }
    }
    pub mod link {
        pub mod v1 {
            tonic::include_proto!("cresset.link.v1");
        }
    }
    pub mod query {
        pub mod v1 {
            tonic::include_proto!("cresset.query.v1");
        }
    }
    pub mod sinks {
        pub mod v1 {
            tonic::include_proto!("cresset.sinks.v1");
        }
    }
    pub mod policies {
        pub mod v1 {
            tonic::include_proto!("cresset.policies.v1");
        }
    }
    pub mod operate {
        pub mod v1 {
            tonic::include_proto!("cresset.operate.v1");
        }
    }
    pub mod enrolment {
        pub mod v1 {
            tonic::include_proto!("cresset.enrolment.v1");
        }
    }
    pub mod downlink {
        pub mod v1 {
            tonic::include_proto!("cresset.downlink.v1");
        }
    }
}
pub use cresset::{
    downlink::v1 as downlink, enrolment::v1 as enrolment, link::v1 as link, operate::v1 as operate,
    policies::v1 as policies, query::v1 as query, rules::v1 as rules, sinks::v1 as sinks,
};

/// The descriptors of all packages, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
