//! The contract.
#![allow(missing_docs)]
/// KubeArmor's feeder messages and `LogService`.
pub mod feeder {
    tonic::include_proto!("feeder");
}
/// KubeArmor's `PolicyService` and `ProbeService`.
pub mod policy_v1 {
    tonic::include_proto!("policy");
}
/// Nested as the packages are, because generated code names its neighbours by relative paths.
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
}
pub use cresset::{link::v1 as link, query::v1 as query, rules::v1 as rules};
/// The descriptors of all packages, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
