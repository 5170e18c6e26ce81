//! `cresset policy check`: every problem of policy files at once.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use policy::Surroundings;
use yaml::{Problem, Severity};

use super::loaded::Loaded;
use super::report::{Format, report};
use crate::connect::{Trouble, say};

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
}

/// Runs `cresset policy check`.
///
/// # Errors
/// A file that cannot be read; an output that cannot be written.
pub(super) fn run(args: &CheckArgs) -> Result<ExitCode, Trouble> {
    let mut loaded = Loaded::read(&args.paths)?;
    loaded
        .problems
        .extend(policy::check(&loaded.policies, &Surroundings::default()));
    loaded
        .problems
        .sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    if args.strict {
        for problem in &mut loaded.problems {
            problem.severity = Severity::Error;
        }
    }
    let mut text = report(&loaded.problems, args.output);
    if args.output == Format::Text {
        text += &summary(&loaded);
    }
    say(&text)?;
    Ok(if loaded.problems.iter().any(Problem::is_error) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
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

/// `1 file`, `2 files`.
pub(super) fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
