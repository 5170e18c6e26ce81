//! `cresset policy apply` and `delete`: policies handed to the relay, whole or not at all.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use proto::policies::{ApplyReply, ApplyRequest, Change, DeleteRequest, Document, File, Key, What};
use proto::visible::text as visible;
use yaml::{Problem, Severity};

use super::check::left_out;
use super::files::{self, Wanted};
use super::loaded::{Loaded, now};
use super::remote::{self, AdminArgs};
use super::report::{Format, report};
use super::shortfall::{self, Note};
use crate::connect::{Relay, Trouble, say};

/// What stands in the place of a file's name for policies that `apply` put in force.
const APPLIED: &str = "applied ";

/// Put policies in force at the relay, those of the same name in place of older ones
#[derive(Args)]
pub(crate) struct ApplyArgs {
    /// Files, folders, or - for standard input
    #[arg(short, long = "file", required = true, value_name = "FILE|DIR")]
    files: Vec<PathBuf>,

    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    admin: AdminArgs,
}

/// Take policies that were applied out of force
#[derive(Args)]
pub(crate) struct DeleteArgs {
    /// The policies in these files, or -
    #[arg(short, long = "file", value_name = "FILE|DIR")]
    files: Vec<PathBuf>,

    /// Policies by name
    #[arg(value_name = "NAME", required_unless_present = "files")]
    names: Vec<String>,

    /// The namespace of those names
    #[arg(short, long, default_value = "default")]
    namespace: String,

    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    admin: AdminArgs,
}

/// Runs `cresset policy apply`.
///
/// # Errors
/// Files that cannot be read, a relay that cannot be reached.
pub(super) async fn apply(args: &ApplyArgs) -> Result<ExitCode, Trouble> {
    let files = files::read(&args.files, Wanted::Policies)?;
    if files.files() == 0 {
        return Err(Trouble::Local("no policy files there".to_owned()));
    }
    if !files.problems.is_empty() {
        // Whole or not at all.
        say(&report(&files.problems, &[], Format::Text))?;
        return Ok(ExitCode::FAILURE);
    }
    let (policies, _) = policy::load(files.named());
    let (notes, ended) = (shortfall::notes(&policies), policy::ended(&policies, now()));
    let relay = args.admin.connect().await?;
    let request = ApplyRequest {
        files: files
            .texts
            .into_iter()
            .map(|file| File {
                name: file.name,
                text: file.text,
            })
            .collect(),
        dry_run: args.dry_run,
    };
    let reply = remote::client(&relay).apply(request).await;
    let reply = reply.map_err(|status| relay.trouble(status))?.into_inner();
    say(&report(&ended, &[], Format::Text))?;
    told(&reply, &notes, args.dry_run)
}

/// Runs `cresset policy delete`.
///
/// # Errors
/// As [`apply`].
pub(super) async fn delete(args: &DeleteArgs) -> Result<ExitCode, Trouble> {
    let mut keys: Vec<Key> = Vec::new();
    for name in &args.names {
        for namespace in [args.namespace.as_str(), ""] {
            keys.push(Key {
                kind: String::new(),
                namespace: namespace.to_owned(),
                name: name.clone(),
            });
        }
    }
    if !args.files.is_empty() {
        let policies = Loaded::sound(&args.files)?.policies;
        keys.extend(policies.into_iter().map(|policy| Key {
            kind: policy.kind.name().to_owned(),
            namespace: policy.namespace,
            name: policy.name,
        }));
    }
    let relay = args.admin.connect().await?;
    let request = DeleteRequest {
        keys,
        dry_run: args.dry_run,
    };
    let reply = remote::client(&relay).delete(request).await;
    let mut reply = reply.map_err(|status| relay.trouble(status))?.into_inner();
    one_of_both(&mut reply.changes, &args.names);
    let exit = told(&reply, &[], args.dry_run)?;
    if reply.problems.is_empty() {
        say(&elsewhere(&relay, &reply.changes).await?)?;
    }
    Ok(exit)
}

/// Where else there is a policy of a name that was not there.
async fn elsewhere(relay: &Relay, changes: &[Change]) -> Result<String, Trouble> {
    let missing = changes
        .iter()
        .filter(|change| change.what() == What::NotThere);
    let keys: Vec<&Key> = missing.filter_map(|change| change.key.as_ref()).collect();
    if keys.is_empty() {
        return Ok(String::new());
    }
    let documents = remote::documents(relay, "", "").await?;
    let found = documents.iter().filter(|document| {
        let named = |key: &&&Key| key.name == document.name;
        keys.iter().any(|key| named(&key))
    });
    Ok(found.map(place).collect())
}

/// What is in force from somewhere else cannot be deleted here.
fn place(document: &Document) -> String {
    let title = format!(
        "{} {}",
        document.kind,
        key_title(&document.namespace, &document.name)
    );
    let how = match document.namespace.as_str() {
        _ if !document.file.starts_with(APPLIED) => {
            format!("from {}:{}; delete it there", document.file, document.line)
        }
        "" => "delete it without -n".to_owned(),
        namespace => format!("delete it with -n {namespace}"),
    };
    format!("{}\n", visible(&format!("there is {title}: {how}")))
}

/// A name is looked for with and without a namespace: that it is not in one of the two places is no news.
fn one_of_both(changes: &mut Vec<Change>, names: &[String]) {
    let deleted: Vec<String> = changes
        .iter()
        .filter(|change| change.what() == What::Deleted)
        .filter_map(|change| Some(change.key.as_ref()?.name.clone()))
        .collect();
    changes.retain(|change| {
        let key = change.key.clone().unwrap_or_default();
        let by_name = names.contains(&key.name) && key.kind.is_empty();
        !(by_name && (deleted.contains(&key.name) || key.namespace.is_empty()))
    });
}

/// Prints an answer; 1 when nothing was changed for its problems, or what was to be deleted is not there.
fn told(reply: &ApplyReply, notes: &[Note], dry_run: bool) -> Result<ExitCode, Trouble> {
    let problems: Vec<Problem> = reply.problems.iter().map(problem).collect();
    let mut text = report(&problems, &[], Format::Text);
    let refused = problems.iter().any(Problem::is_error);
    if !refused {
        for change in &reply.changes {
            text += &line(change, dry_run);
        }
        text += &left_out(notes);
    }
    say(&text)?;
    let missing = reply
        .changes
        .iter()
        .any(|change| change.what() == What::NotThere);
    Ok(if refused || missing {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn problem(told: &proto::query::PolicyProblem) -> Problem {
    Problem {
        file: told.file.clone(),
        line: told.line,
        column: told.column,
        path: told.path.clone(),
        message: told.message.clone(),
        severity: if told.warning {
            Severity::Warning
        } else {
            Severity::Error
        },
    }
}

fn line(change: &Change, dry_run: bool) -> String {
    let key = change.key.clone().unwrap_or_default();
    let title = key_title(&key.namespace, &key.name);
    let what = match change.what() {
        What::Created => "created",
        What::Changed => "changed",
        What::Unchanged => "unchanged",
        What::Deleted => "deleted",
        What::NotThere => "not there",
        What::Unspecified => "?",
    };
    let dry = if dry_run { " (dry run)" } else { "" };
    format!("{title} {what}{dry}\n")
}

fn key_title(namespace: &str, name: &str) -> String {
    match namespace {
        "" => name.to_owned(),
        namespace => format!("{namespace}/{name}"),
    }
}
