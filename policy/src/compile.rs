//! Policies → a rule set: one blob a policy, one manifest.
//!
//! Everything that may be written in more than one way gets one form (paths without doubled slashes, lists of protocols
//! one rule each, attributes inherited, rules and selectors sorted), so that equal policies in any order give equal
//! bytes. What is not judged by this version is in the blob all the same, and listed there with its place and the reason.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use prost::Message;
use proto::Digest;
use proto::rules::{self, Manifest, PolicyBlob};

use crate::expiry::moment;
use crate::lower::Lower;
use crate::model::{DefaultPosture, Kind, Mode, Policy, PostureWord, Spec};
use crate::selector;
use crate::set::{blob_digest, manifest_digest};

/// What is distributed: policies by name, and the list of names.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleSet {
    /// The sorted names of the blobs, the postures, and the digest of it all.
    pub manifest: Manifest,
    /// Encoded [`PolicyBlob`]s by their digest.
    pub blobs: BTreeMap<Digest, Bytes>,
}

/// Compiles a whole set under these default postures.
pub fn compile(policies: &[Policy], postures: &rules::Postures) -> RuleSet {
    compile_for(policies, postures, &BTreeMap::new())
}

/// [`compile`] with namespaces that have postures of their own; what they leave unspecified is the default.
pub fn compile_for(
    policies: &[Policy],
    postures: &rules::Postures,
    namespaces: &BTreeMap<String, rules::Postures>,
) -> RuleSet {
    let blobs = policies.iter().map(|policy| {
        let bytes = Bytes::from(blob(policy).encode_to_vec());
        (blob_digest(&bytes), bytes)
    });
    RuleSet::new(blobs.collect(), postures, namespaces)
}

/// Compiles set after set and does the work only for policies that changed.
#[derive(Debug, Default)]
pub struct Compiler {
    made: HashMap<(Kind, String, String), Made>,
}

#[derive(Debug)]
struct Made {
    /// What the blob was made of.
    spec: Spec,
    place: String,
    digest: Digest,
    blob: Bytes,
}

impl Compiler {
    /// [`compile_for`], remembering the blobs for the next time. What is not in `policies` is forgotten.
    pub fn compile(
        &mut self,
        policies: &[Policy],
        postures: &rules::Postures,
        namespaces: &BTreeMap<String, rules::Postures>,
    ) -> RuleSet {
        let mut before = std::mem::take(&mut self.made);
        let mut blobs = BTreeMap::new();
        for policy in policies {
            let key = (policy.kind, policy.namespace.clone(), policy.name.clone());
            let made = match before.remove(&key) {
                Some(made) if made.is_of(policy) => made,
                _ => Made::new(policy),
            };
            blobs.insert(made.digest, made.blob.clone());
            self.made.insert(key, made);
        }
        RuleSet::new(blobs, postures, namespaces)
    }
}

impl Made {
    fn new(policy: &Policy) -> Made {
        let blob = Bytes::from(blob(policy).encode_to_vec());
        Made {
            spec: policy.spec.clone(),
            place: policy.place.clone(),
            digest: blob_digest(&blob),
            blob,
        }
    }

    fn is_of(&self, policy: &Policy) -> bool {
        self.spec == policy.spec && self.place == policy.place
    }
}

impl RuleSet {
    fn new(
        blobs: BTreeMap<Digest, Bytes>,
        postures: &rules::Postures,
        namespaces: &BTreeMap<String, rules::Postures>,
    ) -> RuleSet {
        let namespaces = namespaces
            .iter()
            .map(|(namespace, postures)| rules::NamespacePostures {
                namespace: namespace.clone(),
                postures: Some(*postures),
            });
        let mut manifest = Manifest {
            digest: Default::default(),
            blobs: blobs.keys().map(|digest| digest.0.to_vec()).collect(),
            postures: Some(*postures),
            namespaces: namespaces.collect(),
            host: None,
        };
        manifest.digest = manifest_digest(&manifest).0.to_vec();
        RuleSet { manifest, blobs }
    }

    /// Other policies under the same postures.
    pub(crate) fn with_blobs(&self, blobs: BTreeMap<Digest, Bytes>) -> RuleSet {
        let mut manifest = Manifest {
            digest: Default::default(),
            blobs: blobs.keys().map(|digest| digest.0.to_vec()).collect(),
            ..self.manifest.clone()
        };
        manifest.digest = manifest_digest(&manifest).0.to_vec();
        RuleSet { manifest, blobs }
    }

    /// The set's name.
    pub fn digest(&self) -> Digest {
        // A compiled manifest always carries its 32 bytes; one that does not is named by zeroes and never equals a real one.
        Digest(<[u8; 32]>::try_from(&self.manifest.digest[..]).unwrap_or_default())
    }

    /// The same set with default postures for nodes.
    #[must_use]
    pub fn with_host(mut self, postures: rules::Postures) -> RuleSet {
        self.manifest.host = Some(postures);
        self.manifest.digest = manifest_digest(&self.manifest).0.to_vec();
        self
    }
}

/// How large a policy's blob is.
pub(crate) fn encoded_len(policy: &Policy) -> usize {
    blob(policy).encoded_len()
}

fn blob(policy: &Policy) -> PolicyBlob {
    let Lower {
        rules, unenforced, ..
    } = Lower::new(policy).run();
    let (selector, nodes) = selectors(policy);
    let beyond = Beyond::of(&policy.spec);
    PolicyBlob {
        kind: policy.kind.to_string(),
        namespace: policy.namespace.clone(),
        name: policy.name.clone(),
        selector: Some(selector),
        rules: rules.into_values().map(|lowered| lowered.wire).collect(),
        unenforced,
        mode: match beyond.mode {
            Some(Mode::Audit) => rules::Mode::Audit.into(),
            Some(Mode::Enforce) | None => rules::Mode::Enforce.into(),
        },
        // What cannot be read was told by `parse`, and such a policy is not compiled.
        expires: beyond.expires.and_then(moment).map_or(0, |moment| moment.0),
        postures: beyond.postures.map(postures),
        nodes,
    }
}

/// For which workloads, and for which nodes.
pub(crate) fn selectors(policy: &Policy) -> (rules::Selector, Option<rules::Selector>) {
    match &policy.spec {
        Spec::Workload(spec) => (selector::workload(&policy.namespace, &spec.selector), None),
        Spec::Cluster(spec) => (selector::cluster(&spec.selector), None),
        Spec::Host(spec) => (selector::none(), Some(selector::node(&spec.node_selector))),
        Spec::Network(spec) => (
            selector::pods(spec.selector.as_ref()),
            spec.node_selector.as_ref().map(selector::node),
        ),
    }
}

/// What specs of all kinds have beyond KubeArmor's.
pub(crate) struct Beyond<'p> {
    pub(crate) mode: Option<Mode>,
    pub(crate) expires: Option<&'p str>,
    pub(crate) postures: Option<&'p DefaultPosture>,
}

macro_rules! beyond {
    ($spec:expr, $postures:expr) => {
        Beyond {
            mode: $spec.mode,
            expires: $spec.expires.as_deref(),
            postures: $postures,
        }
    };
}

impl<'p> Beyond<'p> {
    pub(crate) fn of(spec: &'p Spec) -> Beyond<'p> {
        match spec {
            Spec::Workload(spec) => beyond!(spec, spec.default_posture.as_ref()),
            Spec::Cluster(spec) => beyond!(spec, spec.default_posture.as_ref()),
            Spec::Host(spec) => beyond!(spec, spec.default_posture.as_ref()),
            Spec::Network(spec) => beyond!(spec, None),
        }
    }
}

fn postures(own: &DefaultPosture) -> rules::Postures {
    let word = |word: Option<PostureWord>| {
        let posture = match word {
            None => rules::Posture::Unspecified,
            Some(PostureWord::Allow) => rules::Posture::Allow,
            Some(PostureWord::Audit) => rules::Posture::Audit,
            Some(PostureWord::Block) => rules::Posture::Block,
        };
        posture.into()
    };
    rules::Postures {
        file: word(own.file),
        network: word(own.network),
        capabilities: word(own.capabilities),
        devices: word(own.device),
    }
}
