//! `cresset policy diff`: two sets of policies compared by what they do.
//!
//! Both sets answer the same operations of the same workloads (see [`probes`](super::probes)); what they answer alike is
//! no difference, however differently it is written. No list of operations holds everything: a policy whose selector or
//! rules differ while nothing that was tried tells the two apart is named, and the sets are not called equal.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use policy::Workload;
use prost::Message;
use proto::rules::{PolicyBlob, Postures, Rule};
use serde_json::{Value, json};

use super::asked::{Answer, Asked, Judge, Outcome, POSTURE};
use super::check::counted;
use super::loaded::{Compiled, Loaded, title};
use super::probes::{self, Place};
use super::remote;
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
Exits with 1 when they differ, or when a policy differs and nothing that was tried shows how; 3 when no relay answers.

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
    /// Policies that are not the same in both, for whose workloads nothing that was tried differs.
    unseen: Vec<String>,
    /// Everything that rules draw a line at was tried.
    complete: bool,
}

/// What differs for one workload or node.
struct Changed {
    place: Place,
    /// Titles of the policies about it, in either set, whose word or whose allow-lists make the differences.
    policies: BTreeSet<String>,
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
        let workloads: Vec<Changed> = probes::places(both())
            .into_iter()
            .filter_map(|place| changed(before, after, place, &probes.operations))
            .collect();
        let seen = workloads.iter().flat_map(|changed| &changed.policies);
        let seen: BTreeSet<&String> = seen.collect();
        let mut unseen = written_differently(before, after);
        unseen.retain(|title| !seen.contains(title));
        Difference {
            gone: old.difference(&new).cloned().collect(),
            new: new.difference(&old).cloned().collect(),
            workloads,
            unseen,
            complete: probes.complete,
        }
    }

    fn is_none(&self) -> bool {
        self.workloads.is_empty() && self.unseen.is_empty()
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
            place, operations, ..
        } in &self.workloads
        {
            text += &format!("{}:\n", name(place));
            for (asked, before, after) in operations {
                text += &format!("  {asked}: {before} -> {after}\n");
            }
        }
        for title in &self.unseen {
            text += &format!("policy {title} {UNSEEN}\n");
        }
        text += &match self.workloads.iter().map(|one| one.operations.len()).sum() {
            0 if self.unseen.is_empty() => "no difference in what they do\n".to_owned(),
            0 => "no difference in what was tried\n".to_owned(),
            sum => format!(
                "{} for {}\n",
                counted(sum, "difference", "differences"),
                self.affected()
            ),
        };
        if !self.complete {
            text += "not everything was tried: there are too many combinations\n";
        }
        text
    }

    fn affected(&self) -> String {
        let all = self.workloads.iter();
        let nodes = all
            .filter(|one| matches!(one.place, Place::Node(_)))
            .count();
        let workloads = self.workloads.len() - nodes;
        let nodes = (nodes > 0).then(|| counted(nodes, "node", "nodes"));
        let workloads = (workloads > 0).then(|| counted(workloads, "workload", "workloads"));
        let both: Vec<String> = workloads.into_iter().chain(nodes).collect();
        both.join(" and ")
    }

    fn json(&self) -> Value {
        let answer = |answer: &Answer| json!({"outcome": answer.outcome, "by": answer.by});
        let operation = |(asked, before, after): &(Asked, Answer, Answer)| json!({"operation": asked.to_string(), "before": answer(before), "after": answer(after)});
        let workloads: Vec<Value> = self
            .workloads
            .iter()
            .map(|changed| {
                let changes: Vec<Value> = changed.operations.iter().map(operation).collect();
                match &changed.place {
                    Place::Workload(own) => json!({
                        "namespace": own.namespace,
                        "labels": own.labels,
                        "container": own.container,
                        "changes": changes,
                    }),
                    Place::Node(own) => json!({
                        "node": own.hostname,
                        "labels": own.labels,
                        "changes": changes,
                    }),
                }
            })
            .collect();
        json!({
            "policies": {"gone": self.gone, "new": self.new},
            "workloads": workloads,
            "not_compared": self.unseen,
            "complete": self.complete,
        })
    }
}

/// Behind the title of a policy that no probe tells from what it was.
const UNSEEN: &str =
    "differs in its selector or its rules, in what is not compared here: read both";

/// Titles of policies whose selector, rules, mode, end or postures are not the same in both sets.
fn written_differently(before: &Compiled, after: &Compiled) -> Vec<String> {
    let (old, new) = (meanings(before), meanings(after));
    let titles: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let differs = |title: &&&String| old.get(**title) != new.get(**title);
    titles
        .iter()
        .filter(differs)
        .map(|title| (*title).clone())
        .collect()
}

/// Each policy that says anything, without what changes nothing that it does.
fn meanings(set: &Compiled) -> BTreeMap<String, BTreeSet<Vec<u8>>> {
    let mut all: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    let saying = |blob: &&PolicyBlob| !blob.rules.is_empty() || blob.postures.is_some();
    for blob in set.blobs.iter().filter(saying) {
        all.entry(title(blob)).or_default().insert(meaning(blob));
    }
    all
}

fn meaning(blob: &PolicyBlob) -> Vec<u8> {
    let mut blob = blob.clone();
    for rule in &mut blob.rules {
        let Rule {
            id,
            severity,
            tags,
            message,
            ..
        } = rule;
        (*id, *severity) = (0, 0);
        tags.clear();
        message.clear();
    }
    blob.rules.sort_by_cached_key(Message::encode_to_vec);
    blob.unenforced.clear();
    blob.encode_to_vec()
}

/// The same policy in both: it draws no line where the sets could differ.
fn in_both(blob: &PolicyBlob, before: &Compiled, after: &Compiled) -> bool {
    [before, after]
        .iter()
        .all(|set| set.blobs.iter().any(|own| own == blob))
}

/// None where nothing that is tried differs.
fn changed(
    before: &Compiled,
    after: &Compiled,
    place: Place,
    operations: &BTreeSet<Asked>,
) -> Option<Changed> {
    let none = |_: &str| Vec::new();
    let judge = |set| match &place {
        Place::Workload(workload) => Judge::new(set, workload, &none),
        Place::Node(node) => Judge::on_node(set, node, &none),
    };
    let (old, new) = (judge(before), judge(after));
    if old.digest() == new.digest() {
        return None;
    }
    let mut changed = Vec::new();
    for asked in operations {
        let (was, is) = (old.answer(asked), new.answer(asked));
        // Who allows in silence what passed in silence before is no difference in behaviour.
        if was.outcome != is.outcome || (was.by != is.by && was.outcome != Outcome::Pass) {
            changed.push((asked.clone(), was, is));
        }
    }
    if changed.is_empty() {
        return None;
    }
    let policies = old.policies().iter().chain(new.policies());
    let policies = policies.filter(|title| has_a_part(title, &changed));
    Some(Changed {
        policies: policies.cloned().collect(),
        operations: simplest(changed),
        place,
    })
}

/// Whether a policy speaks in one of the answers; the posture is everybody's word.
fn has_a_part(title: &str, changed: &[(Asked, Answer, Answer)]) -> bool {
    let name = title.rsplit('/').next().unwrap_or_default();
    let speaks = |answer: &Answer| answer.by == name || answer.by == POSTURE;
    let mut all = changed.iter();
    all.any(|(_, before, after)| speaks(before) || speaks(after))
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
        + usize::from(asked.session == Some(true))
        + asked.args.len()
}

fn name(place: &Place) -> String {
    let node = match place {
        Place::Workload(workload) => return who(workload),
        Place::Node(node) => node,
    };
    let hostname = match &*node.hostname {
        probes::STRANGER => "of any other name",
        name => name,
    };
    let labels = node.labels.iter();
    let labels: String = labels
        .map(|(key, value)| format!(", {key}={value}"))
        .collect();
    format!("node {hostname}{labels}")
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
