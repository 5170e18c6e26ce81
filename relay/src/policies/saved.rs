//! The last good set on disk, so that it outlives the relay.
//!
//! One file: the source's name, a line feed, then an encoded `link.Rules` with the manifest and every blob. It is
//! replaced whole (a new file, synced, renamed). A set of another source is not used: somebody who points the relay
//! at another folder wants that folder's policies or none.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use policy::RuleSet;
use prost::Message;
use proto::{Digest, link};

use super::{CurrentSet, statuses};

/// The set that was stored for this source; none when there is none, or when it is not whole.
pub(super) fn load(path: &Path, source: &str) -> Option<CurrentSet> {
    let bytes = fs::read(path).ok()?;
    let split = bytes.iter().position(|byte| *byte == b'\n')?;
    if bytes[..split] != *source.as_bytes() {
        return None;
    }
    let kept = link::Rules::decode(&bytes[split + 1..]).ok()?;
    let manifest = kept.manifest?;
    if manifest.blobs.len() != kept.blobs.len() {
        return None;
    }
    let names = manifest
        .blobs
        .iter()
        .map(|name| <[u8; 32]>::try_from(&name[..]).map(Digest));
    let names = names.collect::<Result<Vec<_>, _>>().ok()?;
    let blobs: BTreeMap<_, _> = names.into_iter().zip(kept.blobs).collect();
    policy::Set::from_wire(&manifest, &blobs).ok()?; // digests and contents fit each other
    let ruleset = RuleSet { manifest, blobs };
    let policies = statuses(&ruleset, &BTreeMap::new());
    Some(CurrentSet {
        ruleset,
        policies,
        ..CurrentSet::default()
    })
}

/// Stores a set, unless it is there already.
pub(super) fn store(path: &Path, set: &CurrentSet) -> io::Result<()> {
    let rules = link::Rules {
        manifest: Some(set.ruleset.manifest.clone()),
        blobs: set.ruleset.blobs.values().cloned().collect(),
        commit: true,
    };
    let mut bytes = set.source.clone().into_bytes();
    bytes.push(b'\n');
    bytes.extend(rules.encode_to_vec());
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}
