//! How a trial looks from outside.

use crate::metrics::Registry;
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts};
use proto::Digest;
use proto::query::RolloutStatus;

use super::stage::Trying;
use super::{Config, words};

/// The states, as status and metrics name them.
const STATES: [&str; 3] = ["waiting", "holding", "stopped"];

impl Trying {
    fn state(&self) -> &'static str {
        match (&self.progress.stopped, self.progress.since) {
            (Some(_), _) => "stopped",
            (None, Some(_)) if self.canaries.running > 0 => "holding",
            (None, _) => "waiting",
        }
    }

    fn why(&self, config: &Config) -> String {
        if let Some(why) = &self.progress.stopped {
            return why.clone();
        }
        match (self.canaries.connected, self.canaries.running) {
            (0, _) => format!(
                "no connected sensor has the labels {}",
                words(&config.canary)
            ),
            (_, 0) => "no canary has said yet that it runs it".to_owned(),
            _ => String::new(),
        }
    }

    pub(super) fn status(&self, config: &Config, stable: Digest) -> RolloutStatus {
        RolloutStatus {
            state: self.state().to_owned(),
            why: self.why(config),
            stable: stable.0.to_vec().into(),
            trial: self.digest().0.to_vec().into(),
            canary: config.canary.clone().into_iter().collect(),
            policies: self.trial.policies.clone(),
            canaries: u32::try_from(self.canaries.running).unwrap_or(u32::MAX),
            since_unix: self.progress.since.unwrap_or_default(),
            hold_seconds: config.hold.as_secs(),
            would_block: self.would_block,
            by_policy: self.by_policy.clone().into_iter().collect(),
            blocked_rate: config.blocked_rate,
        }
    }
}

#[derive(Debug)]
pub(super) struct Metrics {
    state: IntGaugeVec,
    would_block: IntGauge,
    ended: IntCounterVec,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        let metrics = Metrics {
            state: IntGaugeVec::new(
                Opts::new(
                    "cresset_policy_rollout",
                    "1 for the state of the set that canaries try, 0 for the others; all 0: none is tried.",
                ),
                &["state"],
            )?,
            would_block: IntGauge::new(
                "cresset_policy_rollout_would_block",
                "Operations that the set on trial would have stopped.",
            )?,
            ended: IntCounterVec::new(
                Opts::new(
                    "cresset_policy_rollouts_total",
                    "Trials of new policy sets that ended, by outcome.",
                ),
                &["outcome"],
            )?,
        };
        for outcome in ["done", "stopped"] {
            metrics.ended.with_label_values(&[outcome]).inc_by(0);
        }
        registry.register(Box::new(metrics.state.clone()))?;
        registry.register(Box::new(metrics.would_block.clone()))?;
        registry.register(Box::new(metrics.ended.clone()))?;
        Ok(metrics)
    }

    pub(super) fn set(&self, status: Option<&RolloutStatus>) {
        for state in STATES {
            let is = status.is_some_and(|status| status.state == state);
            self.state.with_label_values(&[state]).set(i64::from(is));
        }
        let count = status.map_or(0, |status| status.would_block);
        self.would_block
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(super) fn ended(&self, good: bool) {
        let outcome = if good { "done" } else { "stopped" };
        self.ended.with_label_values(&[outcome]).inc();
    }
}
