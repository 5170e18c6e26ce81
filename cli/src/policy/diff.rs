//! `cresset policy diff`: two sets of policies compared by what they do.
//!
//! Both sets answer the same operations of the same workloads (see [`probes`](super::probes)); what they answer alike is
//! no difference, however differently it is written.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use policy::Workload;
use proto::rules::{PolicyBlob, Postures};
use serde_json::{Value, json};

use super::asked::{Answer, Asked, Judge, Outcome};
use super::check::counted;
use super::loaded::{Compiled, Loaded, title};
use super::{probes, remote};
use crate::connect::{RelayArgs, Trouble, say};

/// Compare two sets of policies by what they do
#[derive(Args)]
pub(crate) struct DiffArgs {
    /// The set before and the set after: two files or folders
    #[arg(value_names = ["A", "B"], num_args = 2, required_unless_present = "files", conflicts_with = "files")]
    sets: Vec<PathBuf>,

    /// What is in force at the relay, and what it would be with these files applied: files, folders, or -
    #[arg(short, long = "file", value_name = "FILE|DIR")]
    files: Vec<PathBuf>,

    /// With -f: nothing but these files, not on top of what is in force
    #[arg(long, requires = "files")]
    alone: bool,

    /// How differences are told
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,

    #[command(flatten)]
    relay: RelayArgs,

    /// Ask the relay whose data folder this is, through DIR/admin.sock
    #[arg(long, value_name = "DIR", conflicts_with = "relay")]
    data: Option<PathBuf>,
}

pub(super) const HELP: &str = "\
Exits with 1 when they differ, 3 when no relay answers.

Examples:
  cresset policy diff old/ new/
  cresset policy diff -f new.yaml                  what applying it would change
  cresset policy diff -f policies/ --alone         a checkout against what is in force";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Lines to read
    Text,
    /// One JSON object
    Json,
}

/// Runs `cresset policy diff`.
///
/// # Errors
/// A file that cannot be read or has errors; an output that cannot be written.
pub(super) async fn run(args: &DiffArgs) -> Result<ExitCode, Trouble> {
    let (before, after) = match &args.sets[..] {
        [before, after] => (set(before)?, set(after)?),
        _ => in_force(args).await?,
    };
    let difference = Difference::between(&before, &after);
    say(&match args.output {
        Format::Text => difference.text(),
        Format::Json => format!("{:#}\n", difference.json()),
    })?;
    Ok(if difference.is_none() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn set(path: &PathBuf) -> Result<Compiled, Trouble> {
    Loaded::sound(std::slice::from_ref(path))?.compile(&Postures::default())
}

/// What the relay has, and what it would have.
async fn in_force(args: &DiffArgs) -> Result<(Compiled, Compiled), Trouble> {
    let files = Loaded::sound(&args.files)?;
    let relay = remote::reading(&args.relay, args.data.as_deref()).await?;
    let now = remote::set(&relay).await?;
    let policies = match args.alone {
        true => files.policies,
        false => remote::on_top(remote::models(&relay).await?, files.policies),
    };
    let next = remote::beside(&now, &policies)?;
    Ok((now, next))
}

/// What differs.
pub(super) struct Difference {
    /// Policies by title: only before, only after.
    gone: Vec<String>,
    new: Vec<String>,
    workloads: Vec<Changed>,
    /// Everything that rules draw a line at was tried.
    complete: bool,
}

/// What differs for one workload.
struct Changed {
    workload: Workload,
    /// Operation, answer before, answer after.
    operations: Vec<(Asked, Answer, Answer)>,
}

impl Difference {
    /// Compares two sets.
    pub(super) fn between(before: &Compiled, after: &Compiled) -> Difference {
        let titles = |set: &Compiled| -> BTreeSet<String> { set.blobs.iter().map(title).collect() };
        let (old, new) = (titles(before), titles(after));
        let both = || before.blobs.iter().chain(&after.blobs);
        let probes = probes::operations(both().filter(|blob| !in_both(blob, before, after)));
        let changed = |workload: Workload| {
            let operations = changed(before, after, &workload, &probes.operations);
            Changed {
                workload,
                operations,
            }
        };
        Difference {
            gone: old.difference(&new).cloned().collect(),
            new: new.difference(&old).cloned().collect(),
            workloads: probes::workloads(both())
                .into_iter()
                .map(changed)
                .filter(|changed| !changed.operations.is_empty())
                .collect(),
            complete: probes.complete,
        }
    }

    fn is_none(&self) -> bool {
        self.workloads.is_empty()
    }

    /// In lines.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for (sign, titles) in [("-", &self.gone), ("+", &self.new)] {
            titles
                .iter()
                .for_each(|title| text += &format!("{sign} policy {title}\n"));
        }
        for Changed {
            workload,
            operations,
        } in &self.workloads
        {
            text += &format!("{}:\n", who(workload));
            for (asked, before, after) in operations {
                text += &format!("  {asked}: {before} -> {after}\n");
            }
        }
        text += &match self.workloads.iter().map(|one| one.operations.len()).sum() {
            0 => "no difference in what they do\n".to_owned(),
            sum => format!(
                "{} for {}\n",
                counted(sum, "difference", "differences"),
                counted(self.workloads.len(), "workload", "workloads")
            ),
        };
        if !self.complete {
            text += "not everything was tried: there are too many combinations\n";
        }
        text
    }

    fn json(&self) -> Value {
        let answer = |answer: &Answer| json!({"outcome": answer.outcome, "by": answer.by});
        let operation = |(asked, before, after): &(Asked, Answer, Answer)| json!({"operation": asked.to_string(), "before": answer(before), "after": answer(after)});
        let workloads: Vec<Value> = self
            .workloads
            .iter()
            .map(|changed| {
                json!({
                    "namespace": changed.workload.namespace,
                    "labels": changed.workload.labels,
                    "container": changed.workload.container,
                    "changes": changed.operations.iter().map(operation).collect::<Vec<_>>(),
                })
            })
            .collect();
        json!({
            "policies": {"gone": self.gone, "new": self.new},
            "workloads": workloads,
            "complete": self.complete,
        })
    }
}

/// The same policy in both: it draws no line where the sets could differ.
fn in_both(blob: &PolicyBlob, before: &Compiled, after: &Compiled) -> bool {
    [before, after]
        .iter()
        .all(|set| set.blobs.iter().any(|own| own == blob))
}

fn changed(
    before: &Compiled,
    after: &Compiled,
    workload: &Workload,
    operations: &BTreeSet<Asked>,
) -> Vec<(Asked, Answer, Answer)> {
    let none = |_: &str| Vec::new();
    let (old, new) = (
        Judge::new(before, workload, &none),
        Judge::new(after, workload, &none),
    );
    if old.digest() == new.digest() {
        return Vec::new();
    }
    let mut changed = Vec::new();
    for asked in operations {
        let (was, is) = (old.answer(asked), new.answer(asked));
        // Who allows in silence what passed in silence before is no difference in behaviour.
        if was.outcome != is.outcome || (was.by != is.by && was.outcome != Outcome::Pass) {
            changed.push((asked.clone(), was, is));
        }
    }
    simplest(changed)
}

/// Of operations that differ in nothing but the circumstances and change alike, the plainest.
fn simplest(changed: Vec<(Asked, Answer, Answer)>) -> Vec<(Asked, Answer, Answer)> {
    let mut groups: BTreeMap<_, (Asked, Answer, Answer)> = BTreeMap::new();
    for (asked, before, after) in changed {
        let key = (asked.what.clone(), before.clone(), after.clone());
        let plainer = |one: &Asked, other: &Asked| weight(one) < weight(other);
        match groups.get_mut(&key) {
            Some(known) if plainer(&asked, &known.0) => known.0 = asked,
            Some(_) => {}
            None => {
                groups.insert(key, (asked, before, after));
            }
        }
    }
    groups.into_values().collect()
}

fn weight(asked: &Asked) -> usize {
    usize::from(asked.source.is_some())
        + usize::from(asked.owner)
        + usize::from(asked.tty)
        + asked.args.len()
}

/// A workload in words.
pub(super) fn who(workload: &Workload) -> String {
    let mut text = format!("namespace {}", workload.namespace);
    for (key, value) in &workload.labels {
        text += &format!(", {key}={value}");
    }
    if !workload.container.is_empty() {
        text += &format!(", container {}", workload.container);
    }
    text
}
