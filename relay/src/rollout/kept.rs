//! The set that everybody runs and the trial of the next one, on disk: a relay that starts again goes on where it was.
//!
//! ```text
//! SHA-256 of what follows, hex, line feed
//! {"target":"…","from":17,"since":1767225600,"stopped":null}, or null without a trial, line feed
//! an encoded `Rules` with the manifest and all blobs of the set that everybody runs
//! ```
//! The file is replaced whole. One that is not as it was stored is not used: the next set then goes to everybody, as the
//! first one does.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use journal::Seq;
use policy::{RuleSet, Set, blob_digest};
use prost::Message as _;
use proto::{Digest, link};
use serde::{Deserialize, Serialize};

use crate::policies::replace;

/// What was kept.
pub(super) struct Kept {
    pub(super) stable: RuleSet,
    pub(super) progress: Option<Progress>,
}

/// How far a trial is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    /// The set that is tried.
    pub(super) target: Digest,
    /// Its events come from here on.
    pub(super) from: Seq,
    /// When the first canary ran it, in unix seconds.
    pub(super) since: Option<u64>,
    /// Why it was stopped, if it was.
    pub(super) stopped: Option<String>,
}

/// The same as it is written.
#[derive(Serialize, Deserialize)]
struct Written {
    target: String,
    from: u64,
    since: Option<u64>,
    stopped: Option<String>,
}

/// What was stored; none when there is none or it is not as it was stored.
pub(super) fn load(path: &Path) -> Option<Kept> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "the rollout of the last run cannot be read");
            return None;
        }
    };
    let kept = read(&bytes);
    if kept.is_none() {
        tracing::error!(path = %path.display(), "the rollout of the last run is damaged: the policies go to everybody");
    }
    kept
}

fn read(bytes: &[u8]) -> Option<Kept> {
    let (digest, rest) = line(bytes)?;
    if digest != blob_digest(rest).to_string().as_bytes() {
        return None;
    }
    let (progress, rules) = line(rest)?;
    let written: Option<Written> = serde_json::from_slice(progress).ok()?;
    let progress = match written {
        Some(written) => Some(Progress {
            target: written.target.parse().ok()?,
            from: Seq(written.from),
            since: written.since,
            stopped: written.stopped,
        }),
        None => None,
    };
    let rules = link::Rules::decode(rules).ok()?;
    let blobs: BTreeMap<Digest, _> = rules
        .blobs
        .into_iter()
        .map(|blob| (blob_digest(&blob), blob))
        .collect();
    let stable = RuleSet {
        manifest: rules.manifest?,
        blobs,
    };
    // A newer version may have written what this one does not know, and no sensor of this version would take it.
    Set::from_wire(&stable.manifest, &stable.blobs).ok()?;
    Some(Kept { stable, progress })
}

fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

/// Keeps the set that everybody runs, and the trial beside it.
pub(super) fn store(path: &Path, stable: &RuleSet, progress: Option<&Progress>) -> io::Result<()> {
    let bytes = written(stable, progress)?;
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    replace(path, &bytes)
}

fn written(stable: &RuleSet, progress: Option<&Progress>) -> io::Result<Vec<u8>> {
    let progress = progress.map(|progress| Written {
        target: progress.target.to_string(),
        from: progress.from.0,
        since: progress.since,
        stopped: progress.stopped.clone(),
    });
    let rules = link::Rules {
        manifest: Some(stable.manifest.clone()),
        blobs: stable.blobs.values().cloned().collect(),
        commit: true,
        change: None,
    };
    let mut rest = serde_json::to_vec(&progress).map_err(io::Error::other)?;
    rest.push(b'\n');
    rules.encode(&mut rest).map_err(io::Error::other)?;
    let mut bytes = blob_digest(&rest).to_string().into_bytes();
    bytes.push(b'\n');
    bytes.extend(rest);
    Ok(bytes)
}

/// No rollout is wanted any more.
pub(super) fn forget(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "cannot remove what was kept of a rollout");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> RuleSet {
        let text = "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata: {name: a, namespace: n}\n\
                    spec: {selector: {}, process: {matchPaths: [{path: /bin/a}]}}\n";
        let (policies, problems) = policy::parse("a.yaml", text);
        assert_eq!((policies.len(), problems), (1, Vec::new()));
        policy::compile(&policies, &proto::rules::Postures::default())
    }

    #[test]
    fn what_is_stored_is_loaded_and_any_damage_is_seen() {
        let progress = Progress {
            target: Digest([9; 32]),
            from: Seq(17),
            since: Some(1_767_225_600),
            stopped: Some("too \"much\"\nof it".to_owned()),
        };
        for progress in [Some(&progress), None] {
            let bytes = written(&set(), progress).unwrap();
            let kept = read(&bytes).unwrap();
            assert_eq!((kept.stable, kept.progress.as_ref()), (set(), progress));
            for at in 0..bytes.len() {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1;
                assert!(read(&damaged).is_none(), "byte {at}");
                assert!(read(&bytes[..at]).is_none(), "cut at {at}");
            }
        }
    }
}
