//! A compiled policy off the wire: what a sensor, which runs as root, takes from whoever is its relay.
//!
//! The bytes are one policy; the manifest around it is always right, so that the fuzzer gets past the digests.

use std::collections::BTreeMap;

use bytes::Bytes;
use policy::{Set, blob_digest};
use prost::Message as _;
use proto::rules::Manifest;

/// Takes it in or refuses it; what is taken can be judged by.
pub fn run(bytes: &[u8]) {
    let blob = Bytes::copy_from_slice(bytes);
    let name = blob_digest(&blob);
    let mut manifest = Manifest {
        blobs: vec![name.0.to_vec()],
        ..Manifest::default()
    };
    manifest.digest = blob_digest(&manifest.encode_to_vec()).0.to_vec();
    match Set::from_wire(&manifest, &BTreeMap::from([(name, blob)])) {
        Ok(set) => super::policy::decide(&set),
        Err(refused) => assert!(!refused.reasons.is_empty(), "refused without a reason"),
    }
}

/// Every policy of the other target's seeds, compiled.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for text in super::policy::seeds() {
        let (policies, _) = policy::parse_bytes("a.yaml", &text);
        let set = policy::compile(&policies, &proto::rules::Postures::default());
        seeds.extend(set.blobs.into_values().map(|blob| blob.to_vec()));
    }
    seeds
}
