//! Where a sensor's rules stand to those that it is to run.

use crate::query::PoliciesStatus;

/// What a set of rules is, while policies are rolled out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The newest set.
    Current,
    /// The newest set on trial: the sensor is a canary.
    Canary,
    /// The set before, which the sensor is to keep until the trial is over, or because it was stopped.
    Held,
    /// Another one, or none.
    Other,
}

impl PoliciesStatus {
    /// What a sensor runs that has this digest in force.
    pub fn place(&self, rules: &[u8]) -> Place {
        let rollout = self.rollout.as_ref();
        match rollout {
            _ if !rules.is_empty() && rules == &self.digest[..] => Place::Current,
            Some(rollout) if rules == &rollout.stable[..] => Place::Held,
            Some(rollout) if rules == &rollout.trial[..] && rollout.state != "stopped" => {
                Place::Canary
            }
            _ => Place::Other,
        }
    }
}
