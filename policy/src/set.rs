//! A rule set off the wire: the door through which everything enters a sensor that runs as root.
//!
//! Nothing that comes in is believed. Digests must fit the bytes, names must be sorted and unique, every rule must be
//! one that the compiler could have made and must carry the id that its content has. A set is taken whole or refused
//! whole, with every reason.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use proto::Digest;
use proto::rules::{self, Manifest, PolicyBlob};
use sha2::{Digest as _, Sha256};

use crate::rule::{Rule, rule_id};
use crate::select::Moment;

/// The largest policy that is accepted, encoded.
pub const MAX_BLOB: usize = 4 << 20;
/// How many reasons of a refusal are kept.
const MAX_REASONS: usize = 100;
/// The kinds of policy, by their name in YAML.
pub(crate) const KINDS: [&str; 4] = [
    "KubeArmorPolicy",
    "KubeArmorClusterPolicy",
    "KubeArmorHostPolicy",
    "KubeArmorNetworkPolicy",
];

/// The name of a policy: SHA-256 of its encoded bytes.
pub fn blob_digest(blob: &[u8]) -> Digest {
    Digest(Sha256::digest(blob).into())
}

/// The name of a set: SHA-256 of its manifest with an empty digest.
pub(crate) fn manifest_digest(manifest: &Manifest) -> Digest {
    blob_digest(
        &Manifest {
            digest: Default::default(),
            ..manifest.clone()
        }
        .encode_to_vec(),
    )
}

/// Everything that a node may have to judge by. The default is the empty set.
#[derive(Clone, Debug, Default)]
pub struct Set {
    pub(crate) policies: Vec<Arc<CompiledPolicy>>,
    pub(crate) postures: Postures,
    pub(crate) namespaces: BTreeMap<String, Postures>,
    pub(crate) host: Postures,
}

/// One policy of a set.
#[derive(Debug)]
pub(crate) struct CompiledPolicy {
    pub(crate) digest: Digest,
    pub(crate) kind: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) selector: rules::Selector,
    pub(crate) nodes: rules::Selector,
    pub(crate) rules: Vec<Arc<Rule>>,
    /// `mode: audit`.
    pub(crate) shadow: bool,
    pub(crate) expires: Option<Moment>,
    pub(crate) postures: Postures,
    pub(crate) unenforced: Vec<rules::Unenforced>,
}

impl CompiledPolicy {
    pub(crate) fn title(&self) -> String {
        title(&self.namespace, &self.name)
    }
}

/// `namespace/name`, or the name alone for what has no namespace.
pub(crate) fn title(namespace: &str, name: &str) -> String {
    match namespace {
        "" => name.to_owned(),
        _ => format!("{namespace}/{name}"),
    }
}

/// What an allow-list does with what it does not name, for each class that has its own posture; `None`: whoever is asked
/// next says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Postures {
    pub(crate) file: Option<Unnamed>,
    pub(crate) network: Option<Unnamed>,
    pub(crate) capabilities: Option<Unnamed>,
    pub(crate) devices: Option<Unnamed>,
}

impl Postures {
    /// The stricter of each.
    pub(crate) fn strictest(self, other: Postures) -> Postures {
        self.each(other, std::cmp::Ord::max)
    }

    /// These, where `inner` says nothing.
    pub(crate) fn under(self, inner: Postures) -> Postures {
        self.each(inner, |outer, inner| inner.or(outer))
    }

    fn each(
        self,
        other: Postures,
        of: impl Fn(Option<Unnamed>, Option<Unnamed>) -> Option<Unnamed>,
    ) -> Postures {
        Postures {
            file: of(self.file, other.file),
            network: of(self.network, other.network),
            capabilities: of(self.capabilities, other.capabilities),
            devices: of(self.devices, other.devices),
        }
    }
}

/// What becomes of an operation that an allow-list does not name; later ones are stricter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Unnamed {
    Allow,
    #[default]
    Audit,
    Block,
}

/// Why a set was refused. It is not used in part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Every reason, at most 100.
    pub reasons: Vec<String>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule set refused: {}", self.reasons.join("; "))
    }
}

impl std::error::Error for Refused {}

impl Set {
    /// Checks a manifest and its blobs and takes them in. `blobs` may hold more than the manifest names.
    ///
    /// # Errors
    /// [`Refused`] when anything about them is not as the compiler makes it.
    pub fn from_wire(manifest: &Manifest, blobs: &BTreeMap<Digest, Bytes>) -> Result<Set, Refused> {
        Set::default().followed_by(manifest, blobs)
    }

    /// [`Set::from_wire`] for the set that comes after this one: policies that both have are not checked again.
    ///
    /// # Errors
    /// As [`Set::from_wire`].
    pub fn followed_by(
        &self,
        manifest: &Manifest,
        blobs: &BTreeMap<Digest, Bytes>,
    ) -> Result<Set, Refused> {
        let mut reasons = Reasons::default();
        if manifest.digest[..] != manifest_digest(manifest).0 {
            reasons.add("the manifest's digest does not fit its content".to_owned());
        }
        let mut set = Set {
            postures: postures(manifest.postures.as_ref(), &mut reasons),
            host: postures(manifest.host.as_ref(), &mut reasons),
            ..Set::default()
        };
        namespaces(manifest, &mut set, &mut reasons);
        set.policies = policies(manifest, blobs, &self.policies, &mut reasons);
        if reasons.0.is_empty() {
            Ok(set)
        } else {
            Err(Refused { reasons: reasons.0 })
        }
    }

    /// How many policies it holds.
    pub fn len(&self) -> usize {
        self.policies.len()
    }

    /// When the next of its policies expires, after `now`: from then on [`select`](crate::select()) gives less.
    pub fn next_expiry(&self, now: Moment) -> Option<Moment> {
        let all = self.policies.iter().filter_map(|policy| policy.expires);
        all.filter(|expires| *expires > now).min()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }
}

#[derive(Default)]
struct Reasons(Vec<String>);

impl Reasons {
    fn add(&mut self, reason: String) {
        if self.0.len() < MAX_REASONS {
            self.0.push(reason);
        }
    }
}

fn postures(wire: Option<&rules::Postures>, reasons: &mut Reasons) -> Postures {
    let Some(wire) = wire else {
        return Postures::default();
    };
    let mut one = |value: i32| match rules::Posture::try_from(value) {
        Ok(rules::Posture::Allow) => Some(Unnamed::Allow),
        Ok(rules::Posture::Block) => Some(Unnamed::Block),
        Ok(rules::Posture::Audit) => Some(Unnamed::Audit),
        Ok(rules::Posture::Unspecified) => None,
        Err(_) => {
            reasons.add(format!("posture {value} is not known here"));
            None
        }
    };
    Postures {
        file: one(wire.file),
        network: one(wire.network),
        capabilities: one(wire.capabilities),
        devices: one(wire.devices),
    }
}

fn namespaces(manifest: &Manifest, set: &mut Set, reasons: &mut Reasons) {
    if !manifest
        .namespaces
        .is_sorted_by(|a, b| a.namespace < b.namespace)
    {
        reasons.add("the manifest's namespaces are not sorted and unique".to_owned());
    }
    for own in &manifest.namespaces {
        let postures = postures(own.postures.as_ref(), reasons);
        set.namespaces.insert(own.namespace.clone(), postures);
    }
}

/// The policies that a manifest names; those in `known` have been checked.
fn policies(
    manifest: &Manifest,
    blobs: &BTreeMap<Digest, Bytes>,
    known: &[Arc<CompiledPolicy>],
    reasons: &mut Reasons,
) -> Vec<Arc<CompiledPolicy>> {
    if !manifest.blobs.is_sorted_by(|a, b| a < b) {
        reasons.add("the manifest's policies are not sorted and unique".to_owned());
    }
    let known: HashMap<&[u8], &Arc<CompiledPolicy>> = known
        .iter()
        .map(|policy| (&policy.digest.0[..], policy))
        .collect();
    let mut all = Vec::with_capacity(manifest.blobs.len());
    for name in &manifest.blobs {
        match known.get(&name[..]) {
            Some(policy) => all.push(Arc::clone(policy)),
            None => match policy(name, blobs) {
                Ok(policy) => all.push(Arc::new(policy)),
                Err(why) => why.into_iter().for_each(|reason| reasons.add(reason)),
            },
        }
    }
    // One that decides and one in mode audit may share a name: that is how a changed policy is tried.
    let mut titles = HashSet::new();
    for policy in &all {
        let title = (&policy.kind, &policy.namespace, &policy.name, policy.shadow);
        if !titles.insert(title) {
            reasons.add(format!("policy {} is there twice", policy.title()));
        }
    }
    all
}

fn policy(name: &[u8], blobs: &BTreeMap<Digest, Bytes>) -> Result<CompiledPolicy, Vec<String>> {
    let digest =
        Digest::try_from(name).map_err(|_| vec!["a policy's name is not 32 bytes".to_owned()])?;
    let bytes = blobs
        .get(&digest)
        .ok_or_else(|| vec![format!("policy {digest} is missing")])?;
    if bytes.len() > MAX_BLOB {
        return Err(vec![format!(
            "policy {digest} is larger than {MAX_BLOB} bytes"
        )]);
    }
    if blob_digest(bytes) != digest {
        return Err(vec![format!(
            "policy {digest}: its bytes have another digest"
        )]);
    }
    let blob = PolicyBlob::decode(bytes.clone())
        .map_err(|error| vec![format!("policy {digest} cannot be decoded: {error}")])?;
    let mut reasons = Vec::new();
    let who = format!("policy {}/{}", blob.namespace, blob.name);
    if !KINDS.contains(&blob.kind.as_str()) {
        reasons.push(format!("{who}: kind `{}` is not known here", blob.kind));
    }
    if blob.name.is_empty() {
        reasons.push(format!("policy {digest} has no name"));
    }
    let selector = blob.selector.clone().unwrap_or_default();
    reasons.extend(bad_selector(&blob, &selector).map(|why| format!("{who}: {why}")));
    let nodes = blob.nodes.clone().unwrap_or_default();
    if rules::Mode::try_from(blob.mode).is_err() {
        reasons.push(format!("{who}: mode {} is not known here", blob.mode));
    }
    let mut bad = Reasons::default();
    let own = postures(blob.postures.as_ref(), &mut bad);
    reasons.extend(bad.0.into_iter().map(|why| format!("{who}: {why}")));
    let shadow = blob.mode() == rules::Mode::Audit;
    let mut rules = Vec::with_capacity(blob.rules.len());
    for (index, wire) in blob.rules.iter().enumerate() {
        let id = rule_id(&blob.kind, &blob.namespace, &blob.name, wire);
        match Rule::from_wire(wire) {
            Ok(rule) if rule.id == id => rules.push(Arc::new(rule)),
            Ok(_) => reasons.push(format!(
                "{who}: rule {index}: its id does not fit its content"
            )),
            Err(why) => reasons.push(format!("{who}: rule {index}: {why}")),
        }
    }
    if !rules.is_sorted_by(|a, b| a.id < b.id) {
        reasons.push(format!("{who}: its rules are not sorted and unique"));
    }
    if !reasons.is_empty() {
        return Err(reasons);
    }
    let PolicyBlob {
        kind,
        namespace,
        name,
        selector: _,
        nodes: _,
        rules: _,
        mode: _,
        expires,
        postures: _,
        unenforced,
    } = blob;
    Ok(CompiledPolicy {
        digest,
        kind,
        namespace,
        name,
        selector,
        nodes,
        rules,
        shadow,
        expires: Some(Moment(expires)).filter(|_| expires != 0),
        postures: own,
        unenforced,
    })
}

fn bad_selector(blob: &PolicyBlob, selector: &rules::Selector) -> Option<String> {
    let cluster = blob.kind == "KubeArmorClusterPolicy" || blob.kind == "KubeArmorNetworkPolicy";
    let host = blob.kind == "KubeArmorHostPolicy";
    if selector.all_namespaces != cluster && !selector.none {
        return Some(format!("its selector does not fit a {}", blob.kind));
    }
    if host != selector.none && blob.kind != "KubeArmorNetworkPolicy" {
        return Some(format!("its selector does not fit a {}", blob.kind));
    }
    if blob.kind == "KubeArmorPolicy"
        && (blob.namespace.is_empty() || selector.namespace != blob.namespace)
    {
        return Some("its selector is for another namespace".to_owned());
    }
    let bad = selector
        .expressions
        .iter()
        .find(|expression| match expression.key.as_str() {
            "label" => false,
            "namespace" => !cluster,
            _ => true,
        });
    bad.map(|expression| format!("its selector has the key `{}`", expression.key))
}
