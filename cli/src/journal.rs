//! `cresset journal`: looks into a journal on disk, verifies it, and makes permanent what a start would work around.
//!
//! It works on a folder, not on a relay: `inspect`, `verify` and `snapshot` change nothing and may be used beside a running relay;
//! `repair` refuses while one holds the folder. A relay's data folder will do as well as the journal in it.

mod print;
mod snapshot;

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand, ValueEnum};
use journal::inspect::{ASIDE, Depth, InspectError, Report, inspect};
use journal::repair::{RepairError, Step, plan, repair};
use journal::{Disk, OpenError, RealDisk};

use crate::connect::{Trouble, say};

/// Look into, verify or repair a journal on disk
#[derive(Args, Debug)]
pub(crate) struct JournalArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Show segments and cursors; reads only their ends
    Inspect(Look),
    /// Read everything and verify every checksum, every index and every account
    Verify(Look),
    /// Mend what can be mended without losing a readable record; copies of what goes are kept in DIR/repair-TIME
    Repair(Repair),
    /// Copy a relay's data folder while it runs: journal, cursors, dead letters; verified
    Snapshot(snapshot::Snapshot),
    /// Make a data folder of a snapshot
    Restore(snapshot::Restore),
}

#[derive(Args, Debug)]
struct Look {
    /// The journal's folder, or the data folder of a relay
    dir: PathBuf,

    /// How the answer looks
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

#[derive(Args, Debug)]
struct Repair {
    #[command(flatten)]
    look: Look,

    /// Do it; without this, it is only shown what would be done
    #[arg(long)]
    yes: bool,

    /// Only show what would be done
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Tables to read
    Text,
    /// One JSON object
    Json,
}

/// Runs `cresset journal …`: 0 fine, 1 problems found, 3 when there is no journal that could be opened.
///
/// # Errors
/// The output cannot be written.
pub(crate) fn run(args: JournalArgs) -> Result<ExitCode, Trouble> {
    let done = match args.command {
        Command::Inspect(look) => show(&look, Depth::Ends),
        Command::Verify(look) => show(&look, Depth::Everything),
        Command::Snapshot(args) => snapshot::snapshot(&args),
        Command::Restore(args) => snapshot::restore(&args),
        Command::Repair(Repair {
            look, yes: true, ..
        }) => mend(&look),
        Command::Repair(Repair { look, dry_run, .. }) => foretell(&look, dry_run),
    };
    done.or_else(|failed| match failed {
        Failed::Said(trouble) => Err(trouble),
        Failed::Closed(why) => {
            eprintln!("cresset: {why}");
            Ok(ExitCode::from(3))
        }
        Failed::Midway(why) => {
            eprintln!("cresset: {why}");
            Ok(ExitCode::FAILURE)
        }
    })
}

/// Why there is no answer.
enum Failed {
    /// The output cannot be written.
    Said(Trouble),
    /// The journal cannot be opened, or not now.
    Closed(String),
    /// A repair was not finished.
    Midway(String),
}

impl From<Trouble> for Failed {
    fn from(trouble: Trouble) -> Failed {
        Failed::Said(trouble)
    }
}

impl From<InspectError> for Failed {
    fn from(error: InspectError) -> Failed {
        Failed::Closed(error.to_string())
    }
}

impl From<RepairError> for Failed {
    fn from(error: RepairError) -> Failed {
        let text = error.to_string();
        match error {
            RepairError::Inspect(_)
            | RepairError::Open(OpenError::Locked { .. } | OpenError::Version { .. }) => {
                Failed::Closed(text)
            }
            _ => Failed::Midway(text),
        }
    }
}

fn show(look: &Look, depth: Depth) -> Result<ExitCode, Failed> {
    let (path, disk) = open(&look.dir)?;
    let report = inspect(&disk, depth)?;
    let text = match (look.output, depth) {
        (Format::Json, _) => print::json(&path, &report),
        (Format::Text, Depth::Ends) => print::tables(&path, &report),
        (Format::Text, Depth::Everything) => print::verdict(&path, &report),
    };
    say(&text)?;
    Ok(verdict(&report))
}

/// What `cresset journal inspect` shows of a journal, or why not.
pub(crate) fn inspected(dir: &Path) -> Result<String, String> {
    let look = || {
        let (path, disk) = open(dir)?;
        let report = inspect(&disk, Depth::Ends)?;
        Ok(print::tables(&path, &report))
    };
    look().map_err(|failed: Failed| match failed {
        Failed::Said(trouble) => trouble.to_string(),
        Failed::Closed(why) | Failed::Midway(why) => why,
    })
}

fn verdict(report: &Report) -> ExitCode {
    if report.is_sound() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Shows what a repair would do.
fn foretell(look: &Look, asked: bool) -> Result<ExitCode, Failed> {
    let (path, disk) = open(&look.dir)?;
    let report = inspect(&disk, Depth::Everything)?;
    if let Some(by) = &report.holder {
        return Err(Failed::Closed(format!(
            "the journal in {} is in use by {by}; stop it, then repair",
            path.display()
        )));
    }
    let steps = plan(&report);
    match look.output {
        Format::Json => say(&print::repaired_json(&path, &steps, &report, false))?,
        Format::Text => {
            let mut text = print::steps("would", &steps);
            text += &print::verdict(&path, &report);
            if !steps.is_empty() && !asked {
                text += "nothing was changed; do it with --yes\n";
            }
            say(&text)?;
        }
    }
    Ok(verdict(&report))
}

/// Repairs.
fn mend(look: &Look) -> Result<ExitCode, Failed> {
    let (path, disk) = open(&look.dir)?;
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let mut kept = None;
    let done = repair(&disk, || {
        let place = aside(&path)?;
        kept = Some(place.clone());
        Ok(Arc::new(RealDisk::open(place)?))
    })?;
    let text = match look.output {
        Format::Json => print::repaired_json(&path, &done.steps, &done.left, true),
        Format::Text => {
            let mut text = print::steps("did", &done.steps);
            if let Some(kept) = kept {
                text += &format!("copies of what went are in {}\n", kept.display());
            }
            text + &print::verdict(&path, &done.left)
        }
    };
    say(&text)?;
    Ok(verdict(&done.left))
}

/// A folder's name that is not taken: DIR/repair-20260102T030405Z.
fn aside(path: &Path) -> io::Result<PathBuf> {
    let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
    let names = std::iter::once(format!("{ASIDE}{now}"))
        .chain((2..100).map(|n| format!("{ASIDE}{now}-{n}")));
    for name in names {
        let place = path.join(name);
        // Events tell of secrets.
        match fs::DirBuilder::new().mode(0o700).create(&place) {
            Ok(()) => {
                fs::File::open(path)?.sync_all()?;
                return Ok(place);
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// The journal's folder: DIR itself, or DIR/journal of a relay's data folder.
fn open(dir: &Path) -> Result<(PathBuf, RealDisk), Failed> {
    let inner = dir.join("journal");
    let path = if !holds_journal(dir) && inner.is_dir() {
        inner
    } else {
        dir.to_owned()
    };
    match RealDisk::open_existing(&path) {
        Ok(disk) => Ok((path, disk)),
        Err(why) => Err(Failed::Closed(format!(
            "cannot open {}: {why}; give the journal's folder, or the data folder of a relay",
            path.display()
        ))),
    }
}

/// Whether the folder has files of a journal.
fn holds_journal(dir: &Path) -> bool {
    let Ok(entries) = fs::read_dir(dir) else {
        return false;
    };
    let mut names = entries.flatten().map(|entry| entry.file_name());
    names.any(|name| {
        let name = name.to_string_lossy();
        name == "FORMAT" || name.ends_with(".seg") || name.ends_with(".cursor")
    })
}

/// What a step says, for programs.
fn step_json(step: &Step) -> serde_json::Value {
    serde_json::json!({"file": step.file, "offset": step.offset, "does": step.to_string()})
}
