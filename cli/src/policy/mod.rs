//! `cresset policy`: what people do with policies. One module a command.
//!
//! ```text
//! without a relay   check  fmt  convert  explain  diff  test      files ─▶ policy crate ─▶ words
//! with a relay      simulate  diff -f  apply  delete  get  status  rollout  disable   relay's policies and journal
//! ```
//! Everything that says what a policy does asks `policy::decide`, which is what the kernel is tested against: there is no
//! second opinion on the meaning anywhere in this folder.

mod apply;
mod asked;
mod check;
mod convert;
mod diff;
mod disable;
mod explain;
mod files;
mod fmt;
mod get;
mod layout;
mod loaded;
mod names;
mod past;
mod probes;
mod reach;
mod remote;
mod report;
mod rollout;
mod shortfall;
mod simulate;
mod status;
mod test;
mod words;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::connect::Trouble;

/// Policies: checked, explained, tested, tried on the past, put in force.
#[derive(Args)]
pub(crate) struct PolicyArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Find every problem of policy files, with its line; exits 1 when there is one
    #[command(after_help = check::HELP)]
    Check(check::CheckArgs),
    /// Write policy files in their one canonical form
    Fmt(fmt::FmtArgs),
    /// Turn old forms into today's
    Convert(convert::ConvertArgs),
    /// Say in words what policies do: for whom, what is stopped, told and left open, and where it can be enforced
    Explain(explain::ExplainArgs),
    /// Compare two sets of policies, or files and what is in force, by what they do; exits 1 when they differ
    #[command(after_help = diff::HELP)]
    Diff(diff::DiffArgs),
    /// Run the test cases beside policies; exits 1 when one fails
    #[command(after_help = test::HELP)]
    Test(test::TestArgs),
    /// Replay recorded events: what policies would have blocked, told and let pass, and how much of it is certain
    Simulate(simulate::SimulateArgs),
    /// Put policies in force at the relay
    Apply(apply::ApplyArgs),
    /// Take applied policies out of force
    Delete(apply::DeleteArgs),
    /// Show the policies in force
    Get(get::GetArgs),
    /// Show which node runs which policies, and what it cannot enforce of them
    Status(status::StatusArgs),
    /// End the trial of a new set: it goes to every sensor, or to none
    Rollout(rollout::RolloutArgs),
    /// Put all policies out of force for a while: break the glass
    Disable(disable::DisableArgs),
    /// Put them back in force before their time
    Enable(disable::EnableArgs),
}

/// Runs `cresset policy …`.
///
/// # Errors
/// Wrong usage, files that cannot be read, a relay that cannot be reached, an output that cannot be written.
pub(crate) async fn policy(args: PolicyArgs) -> Result<ExitCode, Trouble> {
    match args.command {
        Command::Check(args) => check::run(&args).await,
        Command::Fmt(args) => fmt::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Diff(args) => diff::run(&args).await,
        Command::Test(args) => test::run(&args),
        Command::Simulate(args) => simulate::run(&args).await,
        Command::Apply(args) => apply::apply(&args).await,
        Command::Delete(args) => apply::delete(&args).await,
        Command::Get(args) => get::run(&args).await,
        Command::Status(args) => status::run(&args).await,
        Command::Rollout(args) => rollout::run(&args).await,
        Command::Disable(args) => disable::disable(&args).await,
        Command::Enable(args) => disable::enable(&args).await,
    }
}
