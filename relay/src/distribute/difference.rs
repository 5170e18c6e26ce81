//! What one set has that another has not, computed once for all sensors that go from one to the other.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use policy::{RuleSet, change_between};
use proto::Digest;
use proto::link::ManifestChange;

/// Differences remembered: from the set before to the newest, for canaries and the others, and what a few laggards need.
const MOST: usize = 4;

/// From one set to another.
#[derive(Debug)]
pub(super) struct Difference {
    from: Digest,
    to: Digest,
    /// None: the manifests differ in more than their policies.
    pub(super) change: Option<ManifestChange>,
    /// The blobs that are new.
    pub(super) blobs: Vec<Bytes>,
}

/// The newest differences.
#[derive(Default)]
pub(super) struct Differences(Mutex<VecDeque<Arc<Difference>>>);

impl Differences {
    pub(super) fn between(&self, from: &RuleSet, to: &RuleSet) -> Arc<Difference> {
        let names = (from.digest(), to.digest());
        // Held while it is computed: the others want the same one.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.iter().find(|one| (one.from, one.to) == names) {
            return found.clone();
        }
        let difference = Arc::new(Difference::new(from, to));
        known.truncate(MOST - 1);
        known.push_front(difference.clone());
        difference
    }
}

impl Difference {
    fn new(from: &RuleSet, to: &RuleSet) -> Difference {
        let new = to.blobs.iter();
        let new = new.filter(|(digest, _)| !from.blobs.contains_key(digest));
        Difference {
            from: from.digest(),
            to: to.digest(),
            change: change_between(&from.manifest, &to.manifest),
            blobs: new.map(|(_, blob)| blob.clone()).collect(),
        }
    }
}
