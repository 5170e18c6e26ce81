//! The policies in force: read from their sources, compiled whole, kept until something better is read.
//!
//! ```text
//! folder ─▶ texts ─▶ policy::parse ─▶ policies + problems ─▶ policy::compile ─▶ CurrentSet ──watch──▶ distribute
//!                                          │ any error                                         └────▶ status
//!                                          └──▶ the last good set stays in force, whole; the problems are told
//! ```
//! A set is good or it is not used at all. Half a folder is not a smaller policy but another one: a rule that allows
//! may live in one file and the rule that blocks in the next. The last good set is also kept on disk, so that a relay
//! which starts beside a broken file goes on handing out what was in force before.

mod folder;
mod saved;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use policy::{Policy, RuleSet};
use prometheus::{IntGauge, Registry};
use prost::Message;
use proto::{query, rules};
use tokio::sync::watch;
use yaml::{Problem, Severity};

use folder::{Folder, Reading};

/// What is in force, and what stands against the newest reading.
#[derive(Clone, Debug)]
pub struct CurrentSet {
    /// The rules in force: what every sensor is to run.
    pub ruleset: RuleSet,
    /// The policies that `ruleset` was made of.
    pub policies: Vec<query::PolicyStatus>,
    /// Everything found in the newest reading; warnings alone do not keep it from being used.
    pub problems: Vec<Problem>,
    /// `ruleset` is the newest reading; false: that one was broken and an older set stays in force.
    pub current: bool,
    /// Where the policies come from.
    pub source: String,
}

impl Default for CurrentSet {
    /// No policies, from nowhere.
    fn default() -> CurrentSet {
        CurrentSet {
            ruleset: policy::compile(&[], &rules::Postures::default()),
            policies: Vec::new(),
            problems: Vec::new(),
            current: true,
            source: String::new(),
        }
    }
}

impl CurrentSet {
    /// The part of `StatusReply` that tells of policies.
    pub fn status(&self) -> query::PoliciesStatus {
        query::PoliciesStatus {
            digest: self.ruleset.manifest.digest.clone().into(),
            policies: self.policies.clone(),
            problems: self.problems.iter().map(problem_status).collect(),
            current: self.current,
            source: self.source.clone(),
        }
    }
}

fn problem_status(problem: &Problem) -> query::PolicyProblem {
    query::PolicyProblem {
        file: problem.file.clone(),
        line: problem.line,
        column: problem.column,
        path: problem.path.clone(),
        message: problem.message.clone(),
        warning: problem.severity == Severity::Warning,
    }
}

/// What the policies part needs.
#[derive(Clone, Debug)]
pub struct Config {
    /// The folders with the policy files; all together are one set.
    pub folders: Vec<PathBuf>,
    /// What happens to operations that an allow-list does not name.
    pub postures: rules::Postures,
    /// Where the last good set is kept between starts; none: not kept.
    pub saved: Option<PathBuf>,
}

/// The policies part could not be built.
#[derive(Debug, thiserror::Error)]
#[error("cannot register the metrics of the policies: {0}")]
pub struct BuildError(#[from] prometheus::Error);

/// Reads the folders once and returns the part with its first set in place; `run` keeps it up to date.
pub fn build(config: Config, registry: &Registry) -> Result<Policies, BuildError> {
    let metrics = Metrics::new(registry)?;
    let folders: Vec<Folder> = config.folders.iter().cloned().map(Folder::new).collect();
    let source = folders
        .iter()
        .map(Folder::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    let kept = config
        .saved
        .as_deref()
        .and_then(|path| saved::load(path, &source));
    let first = CurrentSet {
        source,
        ..kept.unwrap_or_default()
    };
    let policies = Policies {
        config,
        folders,
        metrics,
        current: watch::channel(Arc::new(first)).0,
    };
    policies.read();
    Ok(policies)
}

/// The policies' side of the relay.
#[derive(Debug)]
pub struct Policies {
    config: Config,
    folders: Vec<Folder>,
    metrics: Metrics,
    current: watch::Sender<Arc<CurrentSet>>,
}

impl Policies {
    /// The set in force, now and after every change.
    pub fn current(&self) -> watch::Receiver<Arc<CurrentSet>> {
        self.current.subscribe()
    }

    /// Reads the folders after every change in them, until dropped.
    pub async fn run(self) {
        let policies = Arc::new(self);
        let mut changes = folder::Changes::new(&policies.folders);
        loop {
            // At once too: the folder may have changed since it was first read.
            let reading = policies.clone();
            let read = tokio::task::spawn_blocking(move || reading.read());
            if let Err(error) = read.await {
                tracing::error!(%error, "reading the policies was cut off");
            }
            changes.next().await;
        }
    }

    /// Reads the folders and puts their set in force, or keeps the old one and tells why.
    fn read(&self) {
        let mut reading = Reading::default();
        self.folders
            .iter()
            .for_each(|folder| folder.read(&mut reading));
        let (policies, problems) = parse(&reading);
        let broken = problems
            .iter()
            .any(|problem| problem.severity == Severity::Error);
        let before = self.current.borrow().clone();
        let next = if broken || (reading.missing && !before.policies.is_empty()) {
            CurrentSet {
                problems,
                current: false,
                ..(*before).clone()
            }
        } else {
            let ruleset = policy::compile(&policies, &self.config.postures);
            let policies = statuses(&ruleset, &reading.files_of(&policies));
            CurrentSet {
                ruleset,
                policies,
                problems,
                current: true,
                source: before.source.clone(),
            }
        };
        self.tell(&before, &next);
        self.metrics.set(&next);
        self.keep(&next);
        self.current.send_if_modified(|current| {
            let changed = !same(current, &next);
            *current = Arc::new(next);
            changed
        });
    }

    /// One line for a change; nothing for a reading that says what the one before said.
    fn tell(&self, before: &CurrentSet, next: &CurrentSet) {
        let digest = proto_digest(&next.ruleset);
        if before.problems != next.problems {
            for problem in &next.problems {
                match problem.severity {
                    Severity::Error => tracing::error!(%problem, "policy problem"),
                    Severity::Warning => tracing::warn!(%problem, "policy problem"),
                }
            }
        }
        if !next.current && (before.current || before.problems != next.problems) {
            let problems = next.problems.len();
            tracing::error!(source = next.source, problems, in_force = %digest, "policies are broken: the last good set stays in force");
        }
        if next.current && (!before.current || proto_digest(&before.ruleset) != digest) {
            let policies = next.policies.len();
            tracing::info!(source = next.source, policies, %digest, "policies in force");
        }
    }

    fn keep(&self, set: &CurrentSet) {
        let Some(path) = self.config.saved.as_deref().filter(|_| set.current) else {
            return;
        };
        if let Err(error) = saved::store(path, set) {
            let path = path.display();
            tracing::warn!(%path, %error, "cannot keep the policies for the next start");
        }
    }
}

fn proto_digest(set: &RuleSet) -> proto::Digest {
    proto::Digest(<[u8; 32]>::try_from(&set.manifest.digest[..]).unwrap_or_default())
}

/// Says the same to everyone who asks.
fn same(one: &CurrentSet, other: &CurrentSet) -> bool {
    one.current == other.current
        && one.problems == other.problems
        && one.policies == other.policies
        && one.ruleset.manifest == other.ruleset.manifest
}

/// All policies of a reading and everything that is wrong with them, with what could not be read first.
fn parse(reading: &Reading) -> (Vec<Policy>, Vec<Problem>) {
    let texts = reading.texts.iter().map(|text| (&*text.file, &*text.text));
    let (policies, wrong) = policy::load(texts);
    (policies, [reading.problems.clone(), wrong].concat())
}

/// What status tells of each policy, out of the blobs that go to the sensors.
fn statuses(set: &RuleSet, files: &BTreeMap<PolicyKey, String>) -> Vec<query::PolicyStatus> {
    let mut statuses: Vec<query::PolicyStatus> = set
        .blobs
        .values()
        .filter_map(|blob| rules::PolicyBlob::decode(blob.clone()).ok())
        .map(|blob| {
            let key = (blob.kind.clone(), blob.namespace.clone(), blob.name.clone());
            query::PolicyStatus {
                file: files.get(&key).cloned().unwrap_or_default(),
                rules: u32::try_from(blob.rules.len()).unwrap_or(u32::MAX),
                not_enforced: blob
                    .unenforced
                    .iter()
                    .map(|part| format!("{}: {}", part.path, part.reason))
                    .collect(),
                namespace: blob.namespace,
                name: blob.name,
                kind: blob.kind,
            }
        })
        .collect();
    statuses
        .sort_by(|a, b| (&a.namespace, &a.name, &a.kind).cmp(&(&b.namespace, &b.name, &b.kind)));
    statuses
}

/// Kind, namespace, name: what makes a policy that policy.
type PolicyKey = (String, String, String);

#[derive(Debug)]
struct Metrics {
    problems: IntGauge,
    current: IntGauge,
    policies: IntGauge,
}

impl Metrics {
    fn new(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        let metrics = Metrics {
            problems: IntGauge::new(
                "cresset_policy_problems",
                "Errors and warnings in the newest reading of the policies.",
            )?,
            current: IntGauge::new(
                "cresset_policy_set_current",
                "1 when the newest reading of the policies is in force, 0 when it was broken and an older set is.",
            )?,
            policies: IntGauge::new("cresset_policies", "Policies in force.")?,
        };
        registry.register(Box::new(metrics.problems.clone()))?;
        registry.register(Box::new(metrics.current.clone()))?;
        registry.register(Box::new(metrics.policies.clone()))?;
        Ok(metrics)
    }

    fn set(&self, set: &CurrentSet) {
        self.problems
            .set(i64::try_from(set.problems.len()).unwrap_or(i64::MAX));
        self.current.set(i64::from(set.current));
        self.policies
            .set(i64::try_from(set.policies.len()).unwrap_or(i64::MAX));
    }
}
