//! `cresset policy simulate`: what a set of policies would have done to the past.
//!
//! ```text
//! relay ─ Set, List ─▶ the set in force ─┬─ with the files ─▶ the new set
//!       ─ Watch(since) ─▶ events ─▶ Recorded ─▶ both sets decide ─▶ Tally ─▶ text, markdown, JSON
//! ```
//! A record is less than the truth, so the answer has three values. Where a record does not say what a rule looks at (who
//! owns the file, what a link leads to), every possible case is decided; when they do not agree, the answer is `unknown`. What
//! was not recorded at all cannot be simulated, and is told as evidence that is missing, never taken for a pass.

mod page;
pub(super) mod recorded;
mod tally;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use proto::Kind;
use proto::query::watch_reply::Is;
use yaml::Span;

use super::asked::Links;
use super::loaded::Loaded;
use super::names::Names;
use super::past::{self, Period};
use super::remote;
use crate::connect::{Relay, RelayArgs, Trouble, say};
use tally::Tally;

/// Replay recorded events through policies: what would have been blocked, told and let pass
#[derive(Args)]
#[command(after_help = HELP)]
pub(crate) struct SimulateArgs {
    /// Policies that are added to those in force, or replace those of the same name: files, folders, or -
    #[arg(required = true, value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,

    /// Nothing but these files, not on top of what is in force
    #[arg(long)]
    alone: bool,

    /// How far back the record is read
    #[arg(long, value_name = "DURATION", default_value = "7d")]
    since: Span,

    /// Only workloads of this namespace
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,

    /// The workloads' root folder, in which links are followed as the kernel does
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,

    /// Exit with 1 when less than this share of what the policies judge could be decided, or when one of the files' policies
    /// is about no workload of the record
    #[arg(long, value_name = "PERCENT", default_value_t = 0, hide_default_value = true,
        value_parser = clap::value_parser!(u8).range(0..=100))]
    min_coverage: u8,

    /// How the result is told
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,

    #[command(flatten)]
    relay: RelayArgs,

    /// Ask the relay whose data folder this is, through DIR/admin.sock
    #[arg(long, value_name = "DIR", conflicts_with = "relay")]
    data: Option<PathBuf>,
}

const HELP: &str = "\
Exits with 1 below --min-coverage (also when a policy is about no workload of the record), 3 when no relay answers.

Examples:
  cresset policy simulate new.yaml                        the last seven days, on top of what is in force
  cresset policy simulate policies/ --alone --since 24h
  cresset policy simulate new.yaml -o markdown            a comment for a pull request";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A page to read
    Text,
    /// A comment for a pull request
    Markdown,
    /// One JSON object
    Json,
}

/// Runs `cresset policy simulate`.
///
/// # Errors
/// Files with errors, a relay that cannot be reached, an output that cannot be written.
pub(super) async fn run(args: &SimulateArgs) -> Result<ExitCode, Trouble> {
    let files = Loaded::sound(&args.paths)?;
    let titles: BTreeSet<String> = files.policies.iter().map(policy::Policy::title).collect();
    let relay = remote::reading(&args.relay, args.data.as_deref()).await?;
    let now = remote::set(&relay).await?;
    let policies = if args.alone {
        files.policies
    } else {
        remote::on_top(remote::models(&relay).await?, files.policies)
    };
    let new = remote::beside(&now, &policies)?;
    let names = Names::new(args.root.clone());
    let (as_written, merged) = (
        |path: &str| names.of(path, false),
        |path: &str| names.of(path, true),
    );
    // With a root the links are known; without, both ways are tried.
    let links: [Links<'_>; 2] = [&as_written, &merged];
    let links = if args.root.is_some() {
        &links[..1]
    } else {
        &links[..]
    };
    let mut tally = Tally::new(&now, &new, &names, links, args.namespace.as_deref());
    let span = replay(&relay, args, &mut tally).await?;
    let result = tally.result(span, &titles);
    say(&match args.output {
        Format::Text => page::text(&result),
        Format::Markdown => page::markdown(&result),
        Format::Json => page::json(&result),
    })?;
    match result.shut(args.min_coverage) {
        None => Ok(ExitCode::SUCCESS),
        Some(why) => {
            eprintln!("cresset: {why}");
            Ok(ExitCode::FAILURE)
        }
    }
}

async fn replay(
    relay: &Relay,
    args: &SimulateArgs,
    tally: &mut Tally<'_>,
) -> Result<Period, Trouble> {
    past::read(relay, args.since, |is| match is {
        Is::Event(event) => {
            if let Ok(kind) = Kind::try_from(event.kind()) {
                tally.event(kind, &event.payload);
            }
        }
        Is::Gap(gap) => tally.gap(gap.missed, &gap.reason),
        _ => {}
    })
    .await
}
