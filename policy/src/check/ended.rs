//! A policy whose time is over: it reads as if it were in force, and is about nothing.

use yaml::Problem;

use super::told;
use crate::compile::Beyond;
use crate::expiry::moment;
use crate::model::Policy;
use crate::select::Moment;

const PLACE: &str = "spec.expires";

/// A warning for each policy that is not in force any more at this time.
pub fn ended(policies: &[Policy], now: Moment) -> Vec<Problem> {
    let problem = |policy: &Policy| {
        let expires = Beyond::of(&policy.spec).expires?;
        let is_over = moment(expires).is_some_and(|end| end <= now);
        let message = || {
            format!(
                "the policy ended on {expires} and is in force nowhere; give it a later time, or remove it"
            )
        };
        is_over.then(|| told(policy, PLACE, message()))
    };
    policies.iter().filter_map(problem).collect()
}
