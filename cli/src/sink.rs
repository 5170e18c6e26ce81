//! `cresset sink`: what the relay's destinations do, trying one, and steering it.

mod list;
mod setup;
mod steer;
mod test;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::connect::{AdminArgs, Trouble};

/// List, prepare, try or steer sinks
#[derive(Args, Clone, Debug)]
pub(crate) struct SinkArgs {
    #[command(flatten)]
    admin: AdminArgs,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    /// Show every sink: state, what it has sent, what waits, its last error
    List(list::ListArgs),
    /// Prepare a destination: index templates, lifecycles, read aliases; safe to run again
    #[command(
        after_help = "Speaks to the destination itself, with the settings of the configuration file; no relay is needed.\n\
        Exits with 0 when everything is as it should be, 1 when something is not, 3 when the destination cannot be reached."
    )]
    Setup(setup::SetupArgs),
    /// Send one marked event and tell each step: connect, authenticate, write, read back
    #[command(after_help = "Exits with 0 when every step went well, 1 when one failed.")]
    Test(test::TestArgs),
    /// Send nothing until `resume`, also after a restart; events wait in the journal
    Pause(steer::Name),
    /// Go on after `pause`
    Resume(steer::Name),
    /// Send everything again that came since a time, as far as the journal still has it
    Rewind(steer::RewindArgs),
    /// Leave out what waits and go on with what comes
    Skip(steer::SkipArgs),
}

/// Runs `cresset sink …`.
///
/// # Errors
/// Wrong usage, an unreachable relay, an order that the relay refuses.
pub(crate) async fn sink(args: SinkArgs) -> Result<ExitCode, Trouble> {
    let command = match args.command {
        Command::Setup(args) => return setup::setup(&args).await,
        command => command,
    };
    let relay = args.admin.connect().await?;
    match command {
        Command::Setup(args) => setup::setup(&args).await,
        Command::List(args) => list::list(&relay, &args).await,
        Command::Test(args) => test::test(&relay, &args).await,
        Command::Pause(name) => steer::pause(&relay, &name).await,
        Command::Resume(name) => steer::resume(&relay, &name).await,
        Command::Rewind(args) => steer::rewind(&relay, &args).await,
        Command::Skip(args) => steer::skip(&relay, &args).await,
    }
}
