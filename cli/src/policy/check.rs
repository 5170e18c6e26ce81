//! `cresset policy check`: every problem of policy files at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use policy::{Found, Started, Surroundings};
use proto::rules::Postures;
use yaml::{Problem, Severity, Span};

use super::loaded::{Loaded, now};
use super::report::{Format, report};
use super::shortfall::{self, Note};
use super::{names, past, remote};
use crate::connect::{RelayArgs, Trouble, say};

/// Find every problem of policy files, with its line; exits 1 when there is one
#[derive(Args)]
pub(crate) struct CheckArgs {
    /// Files, folders, or - for standard input
    #[arg(required = true, value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,

    /// How problems are told
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,

    /// Warnings (unknown fields, rules without effect) are errors
    #[arg(long)]
    strict: bool,

    /// The workloads' root folder: tells of paths that are links, names of busybox, or not there
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,

    /// Ask the relay what workloads started with in so long a time: tells of policies that would stop it
    #[arg(long, value_name = "DURATION")]
    history: Option<Span>,

    #[command(flatten)]
    relay: RelayArgs,

    /// Ask the relay whose data folder this is, through DIR/admin.sock
    #[arg(long, value_name = "DIR", conflicts_with = "relay")]
    data: Option<PathBuf>,
}

pub(super) const HELP: &str = "\
Examples:
  cresset policy check policies/ -o github          annotations of a pull request
  cresset policy check policies/ --root rootfs/     against an image that was unpacked there
  cresset policy check new.yaml --history 7d        against what workloads were recorded to start with";

/// Runs `cresset policy check`.
///
/// # Errors
/// A file that cannot be read, a relay that cannot be reached; an output that cannot be written.
pub(super) async fn run(args: &CheckArgs) -> Result<ExitCode, Trouble> {
    let mut loaded = Loaded::read(&args.paths)?;
    if let Some(root) = args.root.as_deref() {
        is_folder(root)?;
    }
    let past = Past::of(args).await?;
    let found = |path: &str| match &args.root {
        Some(root) => names::find(root, path),
        None => Found::Itself,
    };
    let around = Surroundings {
        postures: past.postures,
        namespaces: past.namespaces,
        history: &past.started,
        root: args.root.is_some().then_some(&found as &dyn policy::Root),
        now: Some(now()),
    };
    let together = policy::check(&loaded.policies, &around);
    loaded.problems.extend(together);
    loaded
        .problems
        .sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    if args.strict {
        for problem in &mut loaded.problems {
            problem.severity = Severity::Error;
        }
    }
    let notes = shortfall::notes(&loaded.policies);
    let mut text = report(&loaded.problems, &notes, args.output);
    if args.output == Format::Text {
        text += &summary(&loaded);
        text += &left_out(&notes);
    }
    say(&text)?;
    Ok(if loaded.problems.iter().any(Problem::is_error) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// In what is no folder nothing is found, and everything would be told of.
fn is_folder(root: &Path) -> Result<(), Trouble> {
    match root.is_dir() {
        true => Ok(()),
        false => Err(Trouble::Usage(format!(
            "--root: {} is not a folder; unpack the image somewhere and name that",
            root.display()
        ))),
    }
}

/// What a relay knows of the place where policies are to be in force; nothing where none is asked.
#[derive(Default)]
struct Past {
    started: Vec<Started>,
    postures: Postures,
    namespaces: BTreeMap<String, Postures>,
}

impl Past {
    async fn of(args: &CheckArgs) -> Result<Past, Trouble> {
        let Some(since) = args.history else {
            return Ok(Past::default());
        };
        let relay = remote::reading(&args.relay, args.data.as_deref()).await?;
        let manifest = remote::set(&relay).await?.ruleset.manifest;
        let namespaces = manifest.namespaces.into_iter();
        let started = past::started(&relay, since).await?;
        if started.is_empty() {
            return Err(Trouble::Local(format!(
                "the relay has no record of a program that a workload started in the last {since}; is it visible \
                 (sensor.visibility)?"
            )));
        }
        Ok(Past {
            started,
            postures: manifest.postures.unwrap_or_default(),
            namespaces: namespaces
                .map(|own| (own.namespace, own.postures.unwrap_or_default()))
                .collect(),
        })
    }
}

fn summary(loaded: &Loaded) -> String {
    let errors = loaded
        .problems
        .iter()
        .filter(|told| told.is_error())
        .count();
    let warnings = loaded.problems.len() - errors;
    format!(
        "{} in {}: {}, {}\n",
        counted(loaded.policies.len(), "sound policy", "sound policies"),
        counted(loaded.files, "file", "files"),
        counted(errors, "error", "errors"),
        counted(warnings, "warning", "warnings"),
    )
}

/// That sensors leave something out is no fault of the file, so it is neither an error nor a warning.
pub(super) fn left_out(notes: &[Note]) -> String {
    let parts = notes.iter().map(|note| note.parts.len()).sum();
    if parts == 0 {
        return String::new();
    }
    format!(
        "note: {} of {} {} not enforced by this version's sensor; `cresset policy explain` says which and why\n",
        counted(parts, "part", "parts"),
        counted(notes.len(), "policy", "policies"),
        if parts == 1 { "is" } else { "are" },
    )
}

/// `1 file`, `2 files`.
pub(super) fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
