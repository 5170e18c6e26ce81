//! Policies that were handed to the relay: by `cresset policy apply`, and by clients of KubeArmor's PolicyService.
//!
//! They are kept in one file, replaced whole for every change, so that a change is there after a crash or is not.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use policy::{Kind, Policy, model::Spec};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::folder::Text;

/// What all of them together may take.
const MAX_BYTES: usize = 64 << 20;

/// What a policy is known by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Key {
    pub(super) kind: String,
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Key {
    pub(super) fn of(policy: &Policy) -> Key {
        Key {
            kind: policy.kind.name().to_owned(),
            namespace: policy.namespace.clone(),
            name: policy.name.clone(),
        }
    }
}

/// The policies that were handed over, in the order of their keys.
#[derive(Clone, Debug, Default)]
pub(super) struct Applied {
    file: PathBuf,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    #[serde(flatten)]
    key: Key,
    /// The whole policy.
    object: Value,
}

/// What applying did to one policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Created,
    Changed,
    Unchanged,
}

impl Applied {
    /// Reads what was handed over before.
    ///
    /// # Errors
    /// The file is there and cannot be read or understood.
    pub(super) fn open(file: PathBuf) -> io::Result<Applied> {
        let entries = match fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::other)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        Ok(Applied { file, entries })
    }

    /// A document for each.
    pub(super) fn texts(&self) -> Vec<Text> {
        let text = |entry: &Entry| Text {
            file: format!("applied {}/{}", entry.key.namespace, entry.key.name),
            text: entry.object.to_string(),
        };
        self.entries.iter().map(text).collect()
    }

    pub(super) fn has(&self, key: &Key) -> bool {
        self.entries.iter().any(|entry| entry.key == *key)
    }

    /// Those of a name; an empty kind is any.
    pub(super) fn found(&self, key: &Key) -> Vec<Key> {
        let is = |own: &Key| {
            own.name == key.name
                && own.namespace == key.namespace
                && (key.kind.is_empty() || own.kind == key.kind)
        };
        self.entries
            .iter()
            .filter(|entry| is(&entry.key))
            .map(|entry| entry.key.clone())
            .collect()
    }

    /// Puts a policy in place of the one of its key.
    pub(super) fn put(&mut self, policy: &Policy) -> What {
        let entry = Entry {
            key: Key::of(policy),
            object: object(policy),
        };
        match self.entries.binary_search_by(|own| own.key.cmp(&entry.key)) {
            Ok(at) if self.entries[at] == entry => What::Unchanged,
            Ok(at) => {
                self.entries[at] = entry;
                What::Changed
            }
            Err(at) => {
                self.entries.insert(at, entry);
                What::Created
            }
        }
    }

    /// Takes a policy out; false: it was not there.
    pub(super) fn remove(&mut self, key: &Key) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| entry.key != *key);
        self.entries.len() < before
    }

    /// Keeps what is here on disk.
    ///
    /// # Errors
    /// The disk says no, or it is too much.
    pub(super) fn save(&self) -> io::Result<()> {
        let bytes = serde_json::to_vec(&self.entries).map_err(io::Error::other)?;
        if bytes.len() > MAX_BYTES {
            let bound = MAX_BYTES >> 20;
            return Err(io::Error::other(format!(
                "applied policies would take more than {bound} MiB; keep them in a folder"
            )));
        }
        replace(&self.file, &bytes)
    }
}

/// Replaces a file whole: written beside it, synced, renamed.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// A policy as the object that it would be in Kubernetes.
pub(super) fn object(policy: &Policy) -> Value {
    let spec = match &policy.spec {
        Spec::Workload(spec) => serde_json::to_value(spec),
        Spec::Cluster(spec) => serde_json::to_value(spec),
        Spec::Host(spec) => serde_json::to_value(spec),
        Spec::Network(spec) => serde_json::to_value(spec),
    };
    let mut metadata = json!({"name": policy.name});
    if policy.kind == Kind::Workload {
        metadata["namespace"] = json!(policy.namespace);
    }
    json!({
        "apiVersion": policy::API_VERSION,
        "kind": policy.kind.name(),
        "metadata": metadata,
        // A spec is plain data: strings, numbers, lists and maps with string keys.
        "spec": spec.unwrap_or_default(),
    })
}
