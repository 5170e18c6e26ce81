//! `cresset policy rollout`: end the trial of a new set by hand.
//!
//! A trial that was stopped by blocks that are meant goes on with `go`; one that looks wrong before its time is over ends with
//! `stop`. Both are told in the audit trail.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use proto::policies::SteerRolloutRequest;
use proto::query::{RolloutStatus, StatusRequest};
use proto::visible::text as visible;
use yaml::Span;

use super::check::counted;
use super::remote::{self, AdminArgs};
use crate::connect::{Relay, Trouble, say};

/// End the trial of a new set
#[derive(Args)]
pub(crate) struct RolloutArgs {
    #[command(subcommand)]
    order: Order,
}

#[derive(Subcommand)]
enum Order {
    /// Give the new set to every sensor now, stopped or not
    Go(OrderArgs),
    /// Take the new set from the canaries; nobody gets it until the policies change
    Stop(OrderArgs),
}

#[derive(Args)]
struct OrderArgs {
    /// Why, for whoever reads the audit trail
    #[arg(long, value_name = "TEXT", default_value = "no reason given")]
    reason: String,

    #[command(flatten)]
    admin: AdminArgs,
}

/// Runs `cresset policy rollout`.
///
/// # Errors
/// There is no trial; a relay that cannot be reached.
pub(super) async fn run(args: &RolloutArgs) -> Result<ExitCode, Trouble> {
    let (go_on, order) = match &args.order {
        Order::Go(order) => (true, order),
        Order::Stop(order) => (false, order),
    };
    let relay = order.admin.connect().await?;
    let Some(trial) = trial(&relay).await? else {
        return Err(Trouble::Local(
            "no new set is on trial; every sensor is to run the policies as they are".to_owned(),
        ));
    };
    let request = SteerRolloutRequest {
        go_on,
        // The one that was just looked at, and no newer one.
        trial: trial.trial.clone(),
        reason: order.reason.clone(),
    };
    let reply = remote::client(&relay).steer_rollout(request).await;
    reply.map_err(|status| relay.trouble(status))?;
    let policies = counted(
        trial.policies.len(),
        "new or changed policy",
        "new or changed policies",
    );
    say(&match go_on {
        true if trial.policies.len() == 1 => format!("{policies} goes to every sensor\n"),
        true => format!("{policies} go to every sensor\n"),
        false => format!("{policies} stopped; every sensor keeps the set before\n"),
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn trial(relay: &Relay) -> Result<Option<RolloutStatus>, Trouble> {
    let reply = relay.query().status(StatusRequest {}).await;
    let reply = reply.map_err(|status| relay.trouble(status))?.into_inner();
    Ok(reply.policies.and_then(|policies| policies.rollout))
}

/// A trial in a few lines.
pub(super) fn text(rollout: &RolloutStatus, now_unix: u64) -> String {
    let mut canary: Vec<String> = rollout
        .canary
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    canary.sort_unstable();
    let mut text = format!(
        "rollout {}: {} on {} with {}, for {}{}\n",
        rollout.state,
        counted(
            rollout.policies.len(),
            "new or changed policy",
            "new or changed policies"
        ),
        counted(rollout.canaries as usize, "sensor", "sensors"),
        visible(&canary.join(", ")),
        span(rollout.hold_seconds),
        left(rollout, now_unix),
    );
    if !rollout.why.is_empty() {
        text += &format!("  ! {}\n", visible(&rollout.why));
    }
    text += &format!(
        "  would have stopped {}; {} a minute are allowed\n",
        counted(rollout.would_block as usize, "operation", "operations"),
        rollout.blocked_rate
    );
    let mut by: Vec<(&String, &u64)> = rollout.by_policy.iter().collect();
    by.sort_unstable();
    for (policy, count) in by {
        text += &format!("    {}: {count}\n", visible(policy));
    }
    if rollout.state == "stopped" {
        text += "  change the policies, or `cresset policy rollout go`\n";
    }
    text
}

fn left(rollout: &RolloutStatus, now_unix: u64) -> String {
    if rollout.state != "holding" {
        return String::new();
    }
    let end = rollout.since_unix + rollout.hold_seconds;
    format!(", {} left", span(end.saturating_sub(now_unix)))
}

fn span(seconds: u64) -> Span {
    Span(std::time::Duration::from_secs(seconds))
}
