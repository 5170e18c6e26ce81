//! The policies in force: read from their sources, compiled whole, kept until something better is read.
//!
//! ```text
//! folder ─┐
//! git ────┼─▶ last good texts of each ─▶ merged ─▶ policy::compile ─▶ CurrentSet ──watch──▶ distribute
//! offered ┤        │ errors                                                      └────▶ status
//! applied ┘        └──▶ that source's last good texts stay, its problems are told
//! ```
//! A source is good or it is not used at all. Half a folder is not a smaller policy but another one: a rule that allows
//! may live in one file and the rule that blocks in the next. The last good texts are also kept on disk, so that a relay
//! which starts beside a broken file goes on handing out what was in force before. A policy that two sources have is
//! an error of both, and the whole last set stays.

mod applied;
mod change;
mod downlink;
mod folder;
mod git;
mod kubearmor;
mod pause;
mod reader;
mod saved;
mod service;
mod source;
mod upper;

use crate::metrics::Registry;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use policy::{Compiler, Judges, Policy, RuleSet};
use prometheus::IntGauge;
use prost::Message;
use proto::visible::text as visible;
use proto::{query, rules};
use tokio::sync::{Notify, mpsc, watch};
use yaml::{Problem, Severity};

use applied::{Applied, Key};
use pause::Pause;
use source::{Good, Source};

pub(crate) use applied::replace;
pub(crate) use downlink::Downlink;
pub(crate) use kubearmor::KubeArmor;
pub use kubearmor::{ContainerPolicies, Workloads};
pub use service::PoliciesService;
pub use source::{Offer, SourceConfig};
pub(crate) use upper::{Upper, differ};

/// What the source of applied policies is called.
const APPLIED: &str = "applied";
/// Notices that nobody took yet.
const NOTICES: usize = 16;

/// What is in force, and what stands against the newest reading.
#[derive(Clone, Debug)]
pub struct CurrentSet {
    /// The rules in force: what every sensor is to run.
    pub ruleset: Arc<RuleSet>,
    /// All policies are off for a while: `ruleset` is empty for that reason.
    pub paused: bool,
    /// The policies that `ruleset` was made of.
    pub policies: Vec<query::PolicyStatus>,
    /// The same as they were read.
    pub models: Arc<Vec<Policy>>,
    /// Everything found in the newest reading; warnings alone do not keep it from being used.
    pub problems: Vec<Problem>,
    /// `ruleset` is the newest reading; false: a source was broken and its older policies stay in force.
    pub current: bool,
    /// A source is not there yet, and never was: there may be more policies than these.
    pub absent: bool,
    /// Where the policies come from.
    pub source: String,
}

impl Default for CurrentSet {
    /// No policies, from nowhere.
    fn default() -> CurrentSet {
        CurrentSet {
            ruleset: Arc::new(policy::compile(&[], &rules::Postures::default())),
            paused: false,
            policies: Vec::new(),
            models: Arc::default(),
            problems: Vec::new(),
            current: true,
            absent: false,
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
            rollout: None,
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
    /// Where policies come from; all together are one set. What is applied comes on top.
    pub sources: Vec<SourceConfig>,
    /// What happens to operations that an allow-list does not name.
    pub postures: rules::Postures,
    /// The folder for what is kept between starts (`policies.last`, `policies.applied`, `policies.pause`); none: nothing is.
    pub data_dir: Option<PathBuf>,
}

/// The policies part could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Its metrics.
    #[error("cannot register the metrics of the policies: {0}")]
    Metrics(#[from] prometheus::Error),
    /// What was applied before cannot be read: to start without it would take rules out of force.
    #[error("cannot read the applied policies in {}: {source}; restore the file, or remove it to start without them", path.display())]
    Applied {
        /// Where they are.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

/// Reads the sources once and returns the part with its first set in place; `run` keeps it up to date.
///
/// # Errors
/// [`BuildError`]. Broken policies are none: they are told, and the last good ones are in force.
pub fn build(config: Config, registry: &Registry) -> Result<Policies, BuildError> {
    let metrics = Metrics::new(registry)?;
    let sources: Vec<Source> = config.sources.iter().cloned().map(Source::new).collect();
    let mut kept = config
        .kept("last")
        .map(|path| saved::load(&path))
        .unwrap_or_default();
    let mut good: Vec<Good> = sources
        .iter()
        .map(|source| Good::kept(kept.remove(&source.name()).unwrap_or_default()))
        .collect();
    let applied = match config.kept("applied") {
        Some(path) => {
            Applied::open(path.clone()).map_err(|source| BuildError::Applied { path, source })?
        }
        None => Applied::default(),
    };
    good.push(Good::kept(applied.texts()));
    let pause = config.kept("pause").and_then(|path| pause::load(&path));
    let (notices, told) = mpsc::channel(NOTICES);
    let inner = Inner {
        metrics,
        state: Mutex::new(State {
            sources,
            postures: config.postures,
            good,
            applied,
            pause,
            compiler: Compiler::default(),
        }),
        data_dir: config.data_dir,
        current: watch::channel(Arc::new(CurrentSet::default())).0,
        again: Notify::new(),
        moved: Notify::new(),
        notices,
    };
    let policies = Policies {
        handle: Handle(Arc::new(inner)),
        notices: told,
    };
    policies.handle.0.read_all();
    Ok(policies)
}

impl Config {
    fn kept(&self, what: &str) -> Option<PathBuf> {
        kept(self.data_dir.as_ref(), what)
    }
}

fn kept(data_dir: Option<&PathBuf>, what: &str) -> Option<PathBuf> {
    Some(data_dir?.join(format!("policies.{what}")))
}

/// The policies' side of the relay.
#[derive(Debug)]
pub struct Policies {
    handle: Handle,
    notices: mpsc::Receiver<String>,
}

/// The way to the policies; cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    data_dir: Option<PathBuf>,
    metrics: Metrics,
    state: Mutex<State>,
    current: watch::Sender<Arc<CurrentSet>>,
    /// Somebody wants the sources to be read again.
    again: Notify,
    /// The sources are others now, and changes have to be looked for elsewhere.
    moved: Notify,
    /// What everybody who watches events should know.
    notices: mpsc::Sender<String>,
}

#[derive(Debug)]
struct State {
    sources: Vec<Source>,
    postures: rules::Postures,
    /// Of each source, then of what is applied.
    good: Vec<Good>,
    applied: Applied,
    pause: Option<Pause>,
    compiler: Compiler,
}

impl Policies {
    /// The set in force, now and after every change.
    pub fn current(&self) -> watch::Receiver<Arc<CurrentSet>> {
        self.handle.current()
    }

    /// The way to them.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Reads the sources after every change in them, until dropped. `tell` gets what everybody who watches should know.
    pub async fn run(self, mut tell: impl FnMut(String)) {
        let Policies {
            handle,
            mut notices,
        } = self;
        let mut changes = handle.0.changes();
        let reader = reader::start(&handle);
        loop {
            // At once too: a folder may have changed since it was first read.
            if !reader::read(&reader).await {
                tracing::error!("reading the policies was cut off");
            }
            loop {
                tokio::select! {
                    () = changes.next() => break,
                    () = handle.0.again.notified() => break,
                    () = handle.0.moved.notified() => {
                        changes = handle.0.changes();
                        break;
                    }
                    () = handle.0.pause_is_over() => break,
                    Some(notice) = notices.recv() => tell(notice),
                }
            }
        }
    }
}

impl Handle {
    /// The set in force, now and after every change.
    pub fn current(&self) -> watch::Receiver<Arc<CurrentSet>> {
        self.0.current.subscribe()
    }

    /// Replaces where policies come from. A source that stays keeps its last good texts; what a new one says is in force when
    /// this returns, if it is good. Reads files: not for an async task.
    pub fn replace(&self, sources: Vec<SourceConfig>, postures: rules::Postures) {
        let inner = &self.0;
        let mut state = inner.lock();
        let sources: Vec<Source> = sources.into_iter().map(Source::new).collect();
        let State {
            sources: before,
            good: goods,
            ..
        } = &mut *state;
        let applied = goods.pop();
        let good_of = |source: &Source| {
            let at = before
                .iter()
                .position(|known| known.name() == source.name());
            at.and_then(|at| goods.get(at)).cloned().unwrap_or_default()
        };
        let mut good: Vec<Good> = sources.iter().map(good_of).collect();
        good.extend(applied);
        (state.sources, state.good, state.postures) = (sources, good, postures);
        inner.read(&mut state);
        drop(state);
        inner.moved.notify_one();
    }

    /// Has the sources read again soon.
    pub fn reread(&self) {
        self.0.again.notify_one();
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is a few assignments; a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_all(&self) {
        self.read(&mut self.lock());
    }

    /// Looks for changes in every source that is a folder.
    fn changes(&self) -> folder::Changes {
        let state = self.lock();
        let folders: Vec<folder::Folder> =
            state.sources.iter().filter_map(Source::folder).collect();
        folder::Changes::new(&folders)
    }

    fn kept(&self, what: &str) -> Option<PathBuf> {
        kept(self.data_dir.as_ref(), what)
    }

    /// Reads every source and puts what they say in force.
    fn read(&self, state: &mut State) {
        let applied = state.applied.texts();
        for (source, good) in state.sources.iter().zip(&mut state.good) {
            good.take(source.read());
        }
        if let Some(good) = state.good.last_mut() {
            good.take(folder::Reading {
                texts: applied,
                ..folder::Reading::default()
            });
        }
        self.settle(state);
    }

    /// Puts what is good in force, and tells.
    fn settle(&self, state: &mut State) {
        if state
            .pause
            .as_ref()
            .is_some_and(|pause| pause.left().is_none())
        {
            state.pause = None;
            self.notice("policies are in force again".to_owned());
        }
        let before = self.current.borrow().clone();
        let next = self.next(&before, state);
        self.tell(&before, &next);
        self.metrics.set(&next);
        self.keep(&next, state);
        self.current.send_if_modified(|current| {
            let changed = !same(current, &next);
            *current = Arc::new(next);
            changed
        });
    }

    fn next(&self, before: &CurrentSet, state: &mut State) -> CurrentSet {
        let source = self.describe(state);
        let doubles = doubles(&state.good);
        let good = state.good.iter();
        let mut problems: Vec<Problem> = good
            .clone()
            .flat_map(|good| good.problems.clone())
            .collect();
        problems.extend(doubles.clone());
        let current = doubles.is_empty() && good.clone().all(|good| good.current);
        let absent = good.clone().any(|good| good.absent);
        if let Some(pause) = &state.pause {
            problems.push(paused(pause));
            return CurrentSet {
                ruleset: Arc::new(policy::compile(&[], &state.postures)),
                paused: true,
                policies: Vec::new(),
                models: Arc::default(),
                problems,
                current,
                absent,
                source,
            };
        }
        if !doubles.is_empty() {
            return CurrentSet {
                problems,
                current,
                absent,
                source,
                ..before.clone()
            };
        }
        let models: Vec<Policy> = good
            .flat_map(|good| good.policies.iter().cloned())
            .collect();
        let none = BTreeMap::new();
        let ruleset = (state.compiler).compile(&models, &state.postures, &none);
        CurrentSet {
            policies: statuses(&ruleset, &models),
            ruleset: Arc::new(ruleset),
            paused: false,
            models: Arc::new(models),
            problems,
            current,
            absent,
            source,
        }
    }

    /// Every source with what is to say of it; what is applied only when there is some.
    fn describe(&self, state: &State) -> String {
        let about = |(source, good): (&Source, &Good)| match good.about.as_str() {
            "" => source.name(),
            about => format!("{} {about}", source.name()),
        };
        let mut all: Vec<String> = state.sources.iter().zip(&state.good).map(about).collect();
        match state.good.last().map_or(0, |good| good.policies.len()) {
            0 => {}
            1 => all.push(format!("1 {APPLIED} policy")),
            more => all.push(format!("{more} {APPLIED} policies")),
        }
        all.join(", ")
    }

    /// One line for a change; nothing for a reading that says what the one before said.
    fn tell(&self, before: &CurrentSet, next: &CurrentSet) {
        let digest = next.ruleset.digest();
        if before.problems != next.problems {
            for problem in &next.problems {
                let severity = problem.severity;
                // What files hold is shown, not obeyed.
                let problem = visible(&problem.to_string());
                match severity {
                    Severity::Error => tracing::error!(problem, "policy problem"),
                    Severity::Warning => tracing::warn!(problem, "policy problem"),
                }
            }
        }
        if !next.current && (before.current || before.problems != next.problems) {
            let problems = next.problems.len();
            tracing::error!(source = next.source, problems, in_force = %digest, "policies are broken: the last good ones stay in force");
        }
        if next.current && (!before.current || before.ruleset.digest() != digest) {
            let policies = next.policies.len();
            tracing::info!(source = next.source, policies, %digest, "policies in force");
        }
    }

    fn keep(&self, set: &CurrentSet, state: &State) {
        let Some(path) = self.kept("last").filter(|_| set.current) else {
            return;
        };
        let sources = state.sources.iter().zip(&state.good);
        let texts = sources.map(|(source, good)| (source.name(), &good.texts[..]));
        if let Err(error) = saved::store(&path, texts) {
            let path = path.display();
            tracing::warn!(%path, %error, "cannot keep the policies for the next start");
        }
    }

    fn notice(&self, text: String) {
        tracing::warn!(notice = visible(&text), "policies");
        // Full: the events that were to tell of it wait already, and the log has it.
        let _ = self.notices.try_send(text);
    }

    /// Resolves when a pause ends; never without one.
    async fn pause_is_over(&self) {
        let left = self.lock().pause.as_ref().and_then(Pause::left);
        match left {
            Some(left) => tokio::time::sleep(left + Duration::from_millis(50)).await,
            None => std::future::pending().await,
        }
    }
}

fn paused(pause: &Pause) -> Problem {
    let until = i64::try_from(pause.until_unix).ok();
    let until = until.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    let until = until.map_or_else(
        || "an end that no clock has".to_owned(),
        |time| time.to_string(),
    );
    let message = format!(
        "all policies are off until {until}: {}; `cresset policy enable` ends it",
        pause.reason
    );
    Problem {
        severity: Severity::Warning,
        ..Problem::whole_file("policies", message)
    }
}

/// Policies that more than one source has.
fn doubles(good: &[Good]) -> Vec<Problem> {
    let mut seen: BTreeMap<Key, &Policy> = BTreeMap::new();
    let mut problems = Vec::new();
    for policy in good.iter().flat_map(|good| &good.policies) {
        if let Some(first) = seen.insert(Key::of(policy), policy) {
            let message = format!(
                "policy {} is in {} too; take one of them out, the last good set stays in force",
                policy.name, first.file
            );
            problems.push(Problem {
                line: policy.line,
                ..Problem::whole_file(&policy.file, message)
            });
        }
    }
    problems
}

/// Says the same to everyone who asks.
fn same(one: &CurrentSet, other: &CurrentSet) -> bool {
    one.current == other.current
        && one.problems == other.problems
        && one.policies == other.policies
        && one.source == other.source
        && one.paused == other.paused
        && one.ruleset.manifest == other.ruleset.manifest
}

/// What status tells of each policy, out of the blobs that go to the sensors.
fn statuses(set: &RuleSet, models: &[Policy]) -> Vec<query::PolicyStatus> {
    let files: BTreeMap<Key, &str> = models
        .iter()
        .map(|policy| (Key::of(policy), policy.file.as_str()))
        .collect();
    let mut statuses: Vec<query::PolicyStatus> = set
        .blobs
        .values()
        .filter_map(|blob| rules::PolicyBlob::decode(blob.clone()).ok())
        .map(|blob| {
            let key = Key {
                kind: blob.kind.clone(),
                namespace: blob.namespace.clone(),
                name: blob.name.clone(),
            };
            query::PolicyStatus {
                file: files.get(&key).copied().unwrap_or_default().to_owned(),
                rules: u32::try_from(blob.rules.len()).unwrap_or(u32::MAX),
                not_enforced: left_out(&blob),
                expires_unix: u64::try_from(blob.expires).unwrap_or_default(),
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

/// In the words in which sensors report it.
fn left_out(blob: &rules::PolicyBlob) -> Vec<String> {
    let parts = Judges::SENSOR.lacks_in(blob).into_iter();
    parts
        .map(|part| format!("{}: {}", part.path, part.reason))
        .collect()
}

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
