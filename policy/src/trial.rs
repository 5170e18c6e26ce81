//! A new set on trial: what is in force stays in force, and the new policies stand beside it in mode audit.
//!
//! ```text
//! in force   a  b1  c          the old policies decide
//! new        a  b2     d
//! trial      a  b1  c  b2' d'  the new ones tell what they would have stopped: `Audit (Block)`
//! ```
//! A policy that is only taken away, and postures, cannot be tried so: they stay as they are until the new set is in force.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message;
use proto::rules::{Mode, PolicyBlob};
use proto::{Digest, RuleId};

use crate::compile::RuleSet;
use crate::set::blob_digest;

/// What a node runs that tries a set.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// The set in force, with the new and changed policies in mode audit.
    pub set: RuleSet,
    /// Rules whose `Audit (Block)` tells of a difference between the two sets: new ones, and all of a policy that is
    /// now about other workloads.
    pub rules: BTreeSet<RuleId>,
    /// The new and changed policies, `namespace/name`, in byte order.
    pub policies: Vec<String>,
}

/// What a policy is known by.
type Title = (String, String, String);

impl Trial {
    /// A trial of `new` where `old` is in force; `None` when there is no new or changed policy.
    pub fn of(new: &RuleSet, old: &RuleSet) -> Option<Trial> {
        let before: BTreeMap<Title, (&Digest, PolicyBlob)> = decoded(old.blobs.iter())
            .map(|(digest, blob)| (title(&blob), (digest, blob)))
            .collect();
        let changed = new
            .blobs
            .iter()
            .filter(|(digest, _)| !old.blobs.contains_key(digest));
        let mut blobs = old.blobs.clone();
        let (mut rules, mut policies) = (BTreeSet::new(), BTreeSet::new());
        for (_, blob) in decoded(changed) {
            let was = before.get(&title(&blob));
            rules.extend(differing(&blob, was.map(|(_, was)| was)));
            policies.insert(match blob.namespace.as_str() {
                "" => blob.name.clone(),
                namespace => format!("{namespace}/{}", blob.name),
            });
            // There is one policy of a name in mode audit. The old one told as much, and decided nothing.
            if let Some((digest, _)) = was.filter(|(_, was)| was.mode() == Mode::Audit) {
                blobs.remove(digest);
            }
            let (digest, tried) = in_mode_audit(blob);
            blobs.insert(digest, tried);
        }
        if policies.is_empty() {
            return None;
        }
        Some(Trial {
            set: old.with_blobs(blobs),
            rules,
            policies: policies.into_iter().collect(),
        })
    }
}

fn decoded<'b>(
    blobs: impl Iterator<Item = (&'b Digest, &'b Bytes)>,
) -> impl Iterator<Item = (&'b Digest, PolicyBlob)> {
    // The compiler made them.
    blobs.filter_map(|(digest, blob)| Some((digest, PolicyBlob::decode(blob.clone()).ok()?)))
}

fn title(blob: &PolicyBlob) -> Title {
    let PolicyBlob {
        kind,
        namespace,
        name,
        ..
    } = blob;
    (kind.clone(), namespace.clone(), name.clone())
}

fn in_mode_audit(blob: PolicyBlob) -> (Digest, Bytes) {
    let tried = PolicyBlob {
        mode: Mode::Audit.into(),
        ..blob
    };
    let bytes = Bytes::from(tried.encode_to_vec());
    (blob_digest(&bytes), bytes)
}

/// Rules of a policy that the set in force does not have for these workloads.
fn differing(blob: &PolicyBlob, was: Option<&PolicyBlob>) -> impl Iterator<Item = RuleId> {
    let same = was.filter(|was| {
        was.mode == blob.mode && was.selector == blob.selector && was.nodes == blob.nodes
    });
    let old: BTreeSet<u64> = same
        .iter()
        .flat_map(|was| &was.rules)
        .map(|rule| rule.id)
        .collect();
    let ids = blob.rules.iter().map(|rule| rule.id);
    ids.filter(move |id| !old.contains(id))
        .map(RuleId)
        .collect::<Vec<_>>()
        .into_iter()
}
