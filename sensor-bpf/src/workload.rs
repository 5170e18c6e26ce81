//! Workloads: who they are, and which index the kernel knows them by.
//!
//! Index 0 is never given out: in a record it means a task without a label. The kernel has room for [`MOST`]; an index
//! is used again only when an ended workload's last records have been read, so a late record never names
//! the wrong one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Indexes are below this, as in the kernel's table.
pub const MOST: u32 = 4096;

/// How long an ended workload can still be named by records.
const GRACE: Duration = Duration::from_secs(30);

/// The identity that a workload is registered with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Identity {
    /// Kubernetes namespace, or what stands for it.
    pub namespace: String,
    /// Pod name.
    pub name: String,
    /// Pod labels, which policies select.
    pub labels: BTreeMap<String, String>,
    /// Container name.
    pub container: String,
    /// Image, as `name@sha256…`.
    pub image: String,
    /// Top-most controller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
}

/// The controller that a workload belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Owner {
    /// Kind: Deployment, StatefulSet, …
    #[serde(rename = "ref")]
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
}

/// Why an identity is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IdentityError {
    /// A text that policies or events could not carry.
    #[error("{field} {value:?}: {why}")]
    Text {
        /// Which part.
        field: &'static str,
        /// What was given.
        value: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// More than policies can select by.
    #[error("{0} labels; at most 64")]
    TooManyLabels(usize),
}

impl Identity {
    /// Fills what was left out and refuses what could be read two ways in `k=v,k=v`.
    pub fn checked(mut self) -> Result<Self, IdentityError> {
        if self.namespace.is_empty() {
            "default".clone_into(&mut self.namespace);
        }
        if self.container.is_empty() {
            self.container.clone_from(&self.name);
        }
        if self.labels.len() > 64 {
            return Err(IdentityError::TooManyLabels(self.labels.len()));
        }
        plain("namespace", &self.namespace, "/=,")?;
        plain("name", &self.name, "/=,")?;
        plain("container", &self.container, "/=,")?;
        plain("image", &self.image, ",")?;
        for (key, value) in &self.labels {
            if key.is_empty() {
                return Err(text_error("label", key, "has no key; write KEY=VALUE"));
            }
            plain("label", key, "=,")?;
            plain("label", value, ",")?;
        }
        Ok(self)
    }

    /// `k=v,k=v` in key order: the event's `Labels`.
    pub fn labels_text(&self) -> String {
        let pairs: Vec<String> = self
            .labels
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        pairs.join(",")
    }
}

fn text_error(field: &'static str, value: &str, why: &'static str) -> IdentityError {
    IdentityError::Text {
        field,
        value: value.to_owned(),
        why,
    }
}

fn plain(field: &'static str, value: &str, forbidden: &str) -> Result<(), IdentityError> {
    if value.len() > 253 {
        return Err(text_error(field, value, "is longer than 253 bytes"));
    }
    if value
        .chars()
        .any(|c| c.is_control() || c.is_whitespace() || forbidden.contains(c))
    {
        return Err(text_error(
            field,
            value,
            "holds a space, a control character, or one of / = ,",
        ));
    }
    Ok(())
}

/// A registered workload.
#[derive(Debug)]
pub struct Workload {
    /// The kernel's name for it.
    pub index: u32,
    /// Who it is.
    pub identity: Identity,
    /// `Labels` as events carry them.
    pub labels: String,
    /// `ContainerID`: the name of its cgroup.
    pub container_id: String,
    /// Its root directory: rules' paths are resolved there.
    pub root: PathBuf,
    /// Its cgroup.
    pub cgroup: PathBuf,
}

/// All workloads by index.
#[derive(Debug, Default)]
pub struct Registry {
    live: BTreeMap<u32, Arc<Workload>>,
    ended: BTreeMap<u32, (Instant, Arc<Workload>)>,
    last: u32,
}

impl Registry {
    /// An index that no workload has, the one unused for longest; none when there are too many.
    pub fn free(&mut self, now: Instant) -> Option<u32> {
        self.expire(now);
        let next = |from: u32| (from.max(1)..MOST).find(|index| self.get(*index).is_none());
        self.last = next(self.last + 1).or_else(|| next(1))?;
        Some(self.last)
    }

    /// Takes a workload in.
    pub fn insert(&mut self, workload: Workload) {
        self.live.insert(workload.index, Arc::new(workload));
    }

    /// It has ended; late records can name it for a while.
    pub fn end(&mut self, index: u32, now: Instant) -> Option<Arc<Workload>> {
        self.expire(now);
        let workload = self.live.remove(&index)?;
        self.ended.insert(index, (now, Arc::clone(&workload)));
        Some(workload)
    }

    /// By the index of a record.
    pub fn get(&self, index: u32) -> Option<&Arc<Workload>> {
        self.live
            .get(&index)
            .or_else(|| self.ended.get(&index).map(|(_, workload)| workload))
    }

    fn expire(&mut self, now: Instant) {
        self.ended
            .retain(|_, (since, _)| now.duration_since(*since) < GRACE);
    }

    /// Those that run, by index.
    pub fn live(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.live.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(labels: &[(&str, &str)]) -> Identity {
        let labels = labels
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        Identity {
            name: "demo".to_owned(),
            labels,
            ..Identity::default()
        }
    }

    fn workload(index: u32) -> Workload {
        Workload {
            index,
            identity: identity(&[]),
            labels: String::new(),
            container_id: String::new(),
            root: PathBuf::from("/"),
            cgroup: PathBuf::new(),
        }
    }

    #[test]
    fn labels_are_written_in_key_order() {
        let checked = identity(&[("tier", "web"), ("app", "shop")])
            .checked()
            .unwrap();
        assert_eq!(checked.labels_text(), "app=shop,tier=web");
        assert_eq!(
            (checked.namespace.as_str(), checked.container.as_str()),
            ("default", "demo")
        );
    }

    #[test]
    fn labels_that_could_be_read_two_ways_are_refused() {
        for bad in [
            ("a,b", "c"),
            ("a", "b,c=d"),
            ("a=b", "c"),
            ("", "x"),
            ("a", "b\nc"),
        ] {
            assert!(identity(&[bad]).checked().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_ended_workload_is_known_until_its_last_records_are_read() {
        let mut registry = Registry::default();
        let start = Instant::now();
        registry.insert(workload(1));
        registry.insert(workload(2));
        assert!(registry.end(1, start).is_some());
        assert!(registry.end(1, start).is_none());
        assert!(registry.get(1).is_some());
        assert_eq!(registry.live().map(|w| w.index).collect::<Vec<_>>(), [2]);
        registry.end(2, start + GRACE);
        assert!(registry.get(1).is_none());
    }

    #[test]
    fn an_index_is_used_again_only_after_its_grace() {
        let mut registry = Registry::default();
        let start = Instant::now();
        for expected in 1..MOST {
            let index = registry.free(start).unwrap();
            assert_eq!(index, expected);
            registry.insert(workload(index));
        }
        assert_eq!(registry.free(start), None);
        registry.end(17, start);
        assert_eq!(registry.free(start), None);
        assert_eq!(registry.free(start + GRACE), Some(17));
    }
}
