//! The rollout, between the policies and the sensors.

use proto::query::StatusReply;

use crate::audit::Audit;
use crate::config::Config;
use crate::distribute::Distributor;
use crate::log::Store;
use crate::metrics::Registry;
use crate::policies::Policies;
use crate::rollout::{self, Rollout};

/// What stands between the policies and the sensors.
pub(super) fn rollout(
    config: &Config,
    policies: &Policies,
    log: &Store,
    registry: &Registry,
) -> Result<Rollout, prometheus::Error> {
    let steps = config
        .policies
        .rollout
        .as_ref()
        .map(|steps| rollout::Config {
            canary: steps.canary.clone(),
            hold: steps.hold.0,
            blocked_rate: steps.stop_on.blocked_rate,
        });
    let file = config.relay.data_dir.join("policies.rollout");
    rollout::build(steps, policies.current(), log.view(), Some(file), registry)
}

/// The trial in the status of the policies.
pub(super) fn trial(rollout: &Rollout) -> impl Fn(&mut StatusReply) + Send + Sync + 'static {
    let rollout = rollout.handle();
    move |reply| reply.policies.get_or_insert_default().rollout = rollout.status()
}

/// The rollout with all that it works with.
pub(super) struct Rolling {
    pub(super) rollout: Rollout,
    pub(super) distributor: Distributor,
    pub(super) audit: Audit,
}

impl Rolling {
    pub(super) async fn run(self) {
        self.rollout.run(self.distributor, self.audit).await;
    }
}
