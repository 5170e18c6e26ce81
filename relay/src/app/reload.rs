//! The settings anew while everything runs: parts that are not concerned go on, cursors stay, a broken file changes nothing.
//!
//! ```text
//! SIGHUP, cresset config reload ─▶ one at a time ─▶ read, check ─▶ certificates, tokens, sources, sinks made ─ wrong:
//!                                                                          │                     nothing is changed
//!                                                                          └▶ exchanged ─▶ audit event, answer
//! ```
//! What cannot be exchanged (addresses, the data folder, budgets) is named, and takes effect with the next start.

use std::sync::{Arc, OnceLock};

use proto::operate::{Change, ReloadReply, SettingsReply};
use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, watch};
use yaml::{Problem, Severity};

use super::settings::{policies_config, sinks_of};
use super::trust::Trust;
use crate::audit::{Act, Actor, Audit};
use crate::config::{Config, Settings};
use crate::fanout::{BuildError, Changes, Fanout};
use crate::feed::Tail;
use crate::log::Log;
use crate::operate::Order;
use crate::telemetry::Logging;
use crate::{policies, sources, supervisor};

/// Orders that wait.
const WAITING: usize = 16;

/// Reads the settings of the relay again.
pub struct Source {
    /// The file, for whoever wants to know; empty: there is none.
    pub file: String,
    /// SIGHUP has it read, too.
    pub hangup: bool,
    /// Reads it. Blocks the thread.
    pub read: Box<dyn Fn() -> Result<Settings, Vec<Problem>> + Send + Sync>,
}

/// What is exchanged.
pub(super) struct Parts {
    pub(super) fanout: Fanout,
    pub(super) policies: policies::Handle,
    pub(super) upper: policies::Upper,
    pub(super) sources: sources::Handle,
    pub(super) trust: Trust,
    pub(super) log: Arc<dyn Log>,
    pub(super) tail: Tail,
    pub(super) logging: Arc<OnceLock<Logging>>,
    pub(super) audit: Audit,
}

/// Takes up new settings, one reload after the other.
pub(super) struct Reloader {
    source: Option<Arc<Source>>,
    /// In force.
    config: Config,
    parts: Parts,
    orders: mpsc::Receiver<Order>,
}

/// What one reload found and did.
#[derive(Default)]
struct Outcome {
    /// With an error among them nothing was changed.
    problems: Vec<Problem>,
    changes: Vec<Change>,
    restart: Vec<&'static str>,
}

impl Outcome {
    fn refused(problems: Vec<Problem>) -> Self {
        Self {
            problems,
            ..Self::default()
        }
    }

    fn is_refused(&self) -> bool {
        self.problems.iter().any(Problem::is_error)
    }

    fn changed(&mut self, what: impl Into<String>, how: &str) {
        self.changes.push(Change {
            what: what.into(),
            how: how.to_owned(),
        });
    }

    /// In one line.
    fn words(&self) -> String {
        let changes = self.changes.iter();
        let mut all: Vec<String> = changes
            .map(|change| format!("{} {}", change.what, change.how))
            .collect();
        let restart = self.restart.iter();
        all.extend(restart.map(|key| format!("{key} waits for the next start")));
        match &all[..] {
            [] => "nothing has changed".to_owned(),
            all => all.join(", "),
        }
    }
}

impl Reloader {
    /// With the settings that the parts were built from; orders come in by the answer's other half.
    pub(super) fn new(config: Config, parts: Parts) -> (Self, mpsc::Sender<Order>) {
        let (give, orders) = mpsc::channel(WAITING);
        let reloader = Self {
            source: None,
            config,
            parts,
            orders,
        };
        (reloader, give)
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn read_from(&mut self, source: Source) {
        self.source = Some(Arc::new(source));
    }

    /// Obeys signals and orders until `stop` is true. A reload that has begun comes to its end.
    pub(super) async fn run(mut self, mut hangups: Signal, mut stop: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                () = told(&mut stop) => return,
                // Signals that came meanwhile are one.
                Some(()) = hangups.recv(), if self.source.as_ref().is_some_and(|source| source.hangup) => {
                    self.reload(Actor::Way("SIGHUP")).await;
                }
                Some(order) = self.orders.recv() => match order {
                    // Whoever asked may have left: it is done all the same.
                    Order::Reload(actor, done) => drop(done.send(self.reload(actor).await)),
                    Order::Show(done) => drop(done.send(self.show())),
                },
            }
        }
    }

    fn show(&self) -> SettingsReply {
        SettingsReply {
            json: serde_json::to_string(&self.config).unwrap_or_default(),
            file: self
                .source
                .as_ref()
                .map(|source| source.file.clone())
                .unwrap_or_default(),
        }
    }

    async fn reload(&mut self, actor: Actor) -> ReloadReply {
        supervisor::reloading();
        let outcome = self.take_up().await;
        supervisor::ready();
        let refused = outcome.is_refused();
        for problem in &outcome.problems {
            match problem.severity {
                Severity::Error => tracing::error!(%problem, "the configuration is not taken up"),
                Severity::Warning => tracing::warn!(%problem, "the configuration"),
            }
        }
        let words = outcome.words();
        let mut audited = true;
        if !refused {
            tracing::info!(what = words, "configuration reloaded");
        }
        if !outcome.changes.is_empty() {
            let act = Act {
                action: "reload",
                target: "configuration".to_owned(),
                detail: words,
            };
            audited = self.parts.audit.tell(actor, act).await;
        }
        let shown = |problem: &Problem| proto::operate::Problem {
            text: problem.to_string(),
            warning: problem.severity == Severity::Warning,
        };
        ReloadReply {
            refused,
            problems: outcome.problems.iter().map(shown).collect(),
            changes: outcome.changes,
            restart: outcome
                .restart
                .iter()
                .map(|key| (*key).to_owned())
                .collect(),
            audited,
        }
    }

    async fn take_up(&mut self) -> Outcome {
        let settings = match self.read().await {
            Ok(settings) => settings,
            Err(problems) => return Outcome::refused(problems),
        };
        // First all that can go wrong.
        let trust = match Trust::build(&settings.config) {
            Ok(trust) => trust,
            Err(why) => return refused(&settings, "relay", why),
        };
        if let Err(why) = sources::Handle::check(&settings.config.sources) {
            return refused(&settings, "sources", why);
        }
        let changed = match self.parts.fanout.change(sinks_of(&settings.config)).await {
            Ok(changes) => changes,
            Err(why) => return refused(&settings, &at(&why), why),
        };
        let mut outcome = Outcome {
            problems: settings.warnings.clone(),
            ..Outcome::default()
        };
        tell_sinks(changed, &mut outcome);
        self.exchange(settings.config, &trust, &mut outcome).await;
        outcome
    }

    async fn read(&self) -> Result<Settings, Vec<Problem>> {
        let whole = |message: &str| vec![Problem::whole_file("configuration", message)];
        let source = self.source.clone().ok_or_else(|| {
            whole("this relay was started without a configuration file; there is nothing to read again")
        })?;
        let read = tokio::task::spawn_blocking(move || (source.read)()).await;
        read.unwrap_or_else(|died| Err(whole(&format!("reading it failed: {died}"))))
    }

    /// What cannot fail any more.
    async fn exchange(&mut self, new: Config, trust: &Trust, outcome: &mut Outcome) {
        let old = &self.config;
        outcome.restart = waits_for_restart(old, &new);
        let next = in_force(old.clone(), new.clone());
        if (&old.relay.access, &old.relay.tls) != (&next.relay.access, &next.relay.tls) {
            self.parts.trust.replace(trust);
            outcome.changed("relay.access and relay.tls", "changed");
        }
        if old.sources != new.sources {
            for (name, how) in self.parts.sources.change(new.sources.clone()).await {
                outcome.changed(format!("source {name}"), how);
            }
        }
        if (&old.policies.sources, &old.policies.default_posture)
            != (&new.policies.sources, &new.policies.default_posture)
            || policies::differ(&sinks_of(old), &sinks_of(&new))
        {
            self.replace_policies(&new).await;
            outcome.changed("policies", "changed");
        }
        if old.relay.feeds != new.relay.feeds {
            self.parts.tail.set_max_lag(new.relay.feeds.max_lag.0);
            outcome.changed("relay.feeds", "changed");
        }
        self.retain(&new, outcome);
        self.log(&new, outcome);
        self.config = next;
    }

    async fn replace_policies(&self, new: &Config) {
        let policies::Config {
            sources, postures, ..
        } = policies_config(new, &self.parts.upper);
        let handle = self.parts.policies.clone();
        let replaced = tokio::task::spawn_blocking(move || handle.replace(sources, postures));
        if let Err(error) = replaced.await {
            tracing::error!(%error, "reading the policies was cut off");
        }
        if let Err(error) = self.parts.upper.follow(&self.parts.policies) {
            // The sink was made of the same settings a moment ago.
            tracing::error!(%error, "policies of an upstream relay are not taken up");
        }
    }

    fn retain(&self, new: &Config, outcome: &mut Outcome) {
        let (old, new) = (&self.config.relay.retention, &new.relay.retention);
        if (old.max_age, old.max_size) == (new.max_age, new.max_size) {
            return;
        }
        if !self.parts.log.retain(new.max_size.0, new.max_age.0) {
            outcome.restart.push("relay.retention.max_size");
        }
        outcome.changed("relay.retention", "changed");
    }

    fn log(&self, new: &Config, outcome: &mut Outcome) {
        let level = &new.relay.telemetry.log.level;
        if self.config.relay.telemetry.log.level == *level {
            return;
        }
        match self.parts.logging.get().map(|logging| logging.set(level)) {
            Some(Ok(true)) => outcome.changed("relay.telemetry.log.level", "changed"),
            Some(Ok(false)) => tracing::warn!(
                level,
                "the level of log lines is as the command line or $RUST_LOG says"
            ),
            // The filter was read when the settings were checked.
            Some(Err(error)) => tracing::error!(%error, "the level of log lines stays"),
            None => outcome.restart.push("relay.telemetry.log.level"),
        }
    }
}

async fn told(stop: &mut watch::Receiver<bool>) {
    // An error says that nobody is left to tell, which is the end as well.
    let _ = stop.wait_for(|stop| *stop).await;
}

fn refused(settings: &Settings, path: &str, why: impl ToString) -> Outcome {
    Outcome::refused(vec![settings.problem_at(path, why.to_string())])
}

/// Where in the settings the reason is.
fn at(error: &BuildError) -> String {
    match error {
        BuildError::Sink(error) => format!("sinks.{}", error.name),
        BuildError::Cursor { name, .. } | BuildError::DeadLetters { name, .. } => {
            format!("sinks.{name}")
        }
        BuildError::Stopping | BuildError::Metrics(_) => "sinks".to_owned(),
    }
}

fn tell_sinks(changes: Changes, outcome: &mut Outcome) {
    let Changes {
        added,
        changed,
        removed,
    } = changes;
    for (names, how) in [(added, "added"), (changed, "changed")] {
        for name in names {
            outcome.changed(format!("sink {name}"), how);
        }
    }
    for (name, pending) in removed {
        outcome.changed(format!("sink {name}"), &left_behind(pending));
    }
}

/// What becomes of what a sink had still to deliver, for who meant to rename it.
fn left_behind(pending: u64) -> String {
    match pending {
        0 => "removed".to_owned(),
        left => format!(
            "removed; {left} events that it had not delivered stay so, unless it comes back under this name while the log has them"
        ),
    }
}

/// Does it give certificates?
fn gives(relay: &crate::config::Relay) -> bool {
    relay.tls.as_ref().is_some_and(|tls| tls.enrolment)
}

/// The keys that differ and are read at the start only.
fn waits_for_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let (was, is) = (&old.relay, &new.relay);
    let differs = [
        ("cluster", old.cluster != new.cluster),
        ("relay.data_dir", was.data_dir != is.data_dir),
        ("relay.listen", was.listen != is.listen),
        (
            "relay.tls (whether there is any)",
            was.tls.is_some() != is.tls.is_some(),
        ),
        ("relay.tls.enrolment", gives(was) != gives(is)),
        ("relay.sensors", was.sensors != is.sensors),
        ("relay.limits", was.limits != is.limits),
        ("relay.log", was.log != is.log),
        (
            "relay.retention.compression",
            was.retention.compression != is.retention.compression,
        ),
        ("relay.ingest", was.ingest != is.ingest),
        (
            "relay.telemetry.log.format",
            was.telemetry.log.format != is.telemetry.log.format,
        ),
        (
            "relay.telemetry.traces",
            was.telemetry.traces != is.telemetry.traces,
        ),
        (
            "policies.policy_service",
            old.policies.policy_service != new.policies.policy_service,
        ),
        (
            "policies.rollout",
            old.policies.rollout != new.policies.rollout,
        ),
    ];
    let keys = differs.into_iter().filter(|(_, differs)| *differs);
    keys.map(|(key, _)| key).collect()
}

/// The new settings, with what waits for a restart as it was: the next reload names it again.
fn in_force(old: Config, mut new: Config) -> Config {
    let (was, is) = (old.relay, &mut new.relay);
    is.data_dir = was.data_dir;
    is.listen = was.listen;
    match (&mut is.tls, was.tls) {
        (Some(is), Some(was)) => is.enrolment = was.enrolment,
        (is, was) => *is = was,
    }
    is.limits = was.limits;
    is.sensors = was.sensors;
    is.log = was.log;
    is.retention.compression = was.retention.compression;
    is.retention.max_size = is.retention.max_size.max(was.retention.max_size);
    is.ingest = was.ingest;
    is.telemetry.log.format = was.telemetry.log.format;
    is.telemetry.traces = was.telemetry.traces;
    new.cluster = old.cluster;
    new.policies.policy_service = old.policies.policy_service;
    new.policies.rollout = old.policies.rollout;
    new
}
