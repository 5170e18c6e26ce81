//! `cresset dlq`: events that a destination refused for good, and why; sent again, or let go.

mod show;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use proto::EventId;
use proto::sinks::{LettersReply, LettersRequest};
use tonic::{Status, Streaming};

use crate::connect::{AdminArgs, Relay, Trouble, say};
use crate::logs::time;

/// Look into, retry or drop what a destination refused for good
#[derive(Args, Clone, Debug)]
pub(crate) struct DlqArgs {
    #[command(flatten)]
    admin: AdminArgs,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    /// A line for each dead letter: when, which event, why
    List(show::ListArgs),
    /// Everything about each: reason, the destination's answer, the event
    Show(show::ShowArgs),
    /// Send them once more; what is delivered is a dead letter no longer
    #[command(after_help = "Exits with 0 when all were delivered, 1 when some stay.")]
    Retry(Which),
    /// Let them go, unsent
    Drop(DropArgs),
}

/// Which sink's, and which of them; every condition that is given must hold
#[derive(Args, Clone, Debug)]
struct Which {
    /// The sink's name in the configuration file
    #[arg(value_name = "SINK")]
    sink: String,

    /// Namespace of the event (expression, case ignored)
    #[arg(short, long, value_name = "RE")]
    namespace: Option<String>,

    /// Operation of the event: Process, File, Network, … (expression, case ignored)
    #[arg(long, value_name = "RE")]
    operation: Option<String>,

    /// Reason or answer (expression, case ignored)
    #[arg(long, value_name = "RE")]
    reason: Option<String>,

    /// Refused since this: a duration back from now (10m, 2h, 7d) or a time (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<i64>,

    /// Event id: 32 hex digits; may be given several times
    #[arg(long, value_name = "ID")]
    id: Vec<EventId>,

    /// At most so many, oldest first
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

/// Which ones; all of them only when it is said
#[derive(Args, Clone, Debug)]
struct DropArgs {
    #[command(flatten)]
    which: Which,

    /// All of them
    #[arg(long)]
    all: bool,
}

impl Which {
    fn request(&self) -> LettersRequest {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        LettersRequest {
            sink: self.sink.clone(),
            namespace: text(&self.namespace),
            operation: text(&self.operation),
            reason: text(&self.reason),
            since_ns: self.since.unwrap_or(0),
            ids: self
                .id
                .iter()
                .map(|id| id.to_bytes().to_vec().into())
                .collect(),
            limit: self.limit.unwrap_or(0),
        }
    }

    /// Whether nothing narrows it down.
    fn is_all(&self) -> bool {
        let Which {
            sink: _,
            namespace,
            operation,
            reason,
            since,
            id,
            limit,
        } = self;
        let texts = [namespace, operation, reason];
        texts.iter().all(|text| text.is_none())
            && since.is_none()
            && id.is_empty()
            && limit.is_none()
    }
}

/// Runs `cresset dlq …`.
///
/// # Errors
/// Wrong usage, an unreachable relay, a disk that the relay cannot read.
pub(crate) async fn dlq(args: DlqArgs) -> Result<ExitCode, Trouble> {
    let relay = args.admin.connect().await?;
    match args.command {
        Command::List(args) => show::list(&relay, &args).await,
        Command::Show(args) => show::show(&relay, &args).await,
        Command::Retry(which) => retry(&relay, &which).await,
        Command::Drop(args) => drop_letters(&relay, &args).await,
    }
}

async fn retry(relay: &Relay, which: &Which) -> Result<ExitCode, Trouble> {
    let replies = relay.sinks().retry_letters(which.request()).await;
    let tally = last(relay, replies).await?;
    let LettersReply {
        matched,
        done,
        refused,
        kept,
        ref reason,
        ..
    } = tally;
    let mut text = format!("{}: {done} of {matched} delivered", which.sink);
    if refused > 0 {
        text += &format!("; {refused} refused again and stay");
    }
    if kept > 0 {
        text += &format!("; {kept} not taken this time and stay");
    }
    if !reason.is_empty() {
        let first = reason.lines().next().unwrap_or_default();
        text += &format!(": {}", proto::visible::text(first));
    }
    say(&format!("{text}\n"))?;
    Ok(match refused + kept {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

async fn drop_letters(relay: &Relay, args: &DropArgs) -> Result<ExitCode, Trouble> {
    let sink = &args.which.sink;
    if args.which.is_all() && !args.all {
        return Err(Trouble::Usage(format!(
            "this would drop every dead letter of {sink} unsent; say --all, or which ones (`cresset dlq drop --help`)"
        )));
    }
    let replies = relay.sinks().drop_letters(args.which.request()).await;
    let tally = last(relay, replies).await?;
    say(&format!("{sink}: {} dropped\n", tally.done))?;
    Ok(ExitCode::SUCCESS)
}

/// Follows the work to its end.
async fn last(
    relay: &Relay,
    replies: Result<tonic::Response<Streaming<LettersReply>>, Status>,
) -> Result<LettersReply, Trouble> {
    let failed = |status| relay.trouble(status);
    let mut replies = replies.map_err(failed)?.into_inner();
    let mut so_far = LettersReply::default();
    loop {
        match replies.message().await {
            Ok(Some(reply)) => so_far = reply,
            Ok(None) if so_far.last => break,
            Ok(None) => return Err(failed(Status::unavailable("the answer was cut off"))),
            Err(status) => {
                if so_far.done > 0 {
                    eprintln!("cresset: {} were done by then", so_far.done);
                }
                return Err(failed(status));
            }
        }
    }
    if !so_far.audited {
        eprintln!("cresset: the audit event waits until the journal takes events again");
    }
    Ok(so_far)
}
