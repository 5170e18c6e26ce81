//! `cresset policy explain`: what policies do, in words.
//!
//! It speaks of the compiled rules, so defaults, inheritance and split lists are already worked in: what is read here is
//! what a sensor gets.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use policy::{NotEnforced, Policy};
use proto::rules::{Action, PolicyBlob, Posture, Postures, Rule, Section};

use super::loaded::{Loaded, title};
use super::reach::{Reach, SECTIONS};
use super::{shortfall, words};
use crate::connect::{Trouble, say};
use proto::visible::text as visible;

/// Say in words what policies do: for whom, what is stopped, told and left open, and where it can be enforced
#[derive(Args)]
pub(crate) struct ExplainArgs {
    /// Files, folders, or - for standard input
    #[arg(required = true, value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
}

/// Runs `cresset policy explain`.
///
/// # Errors
/// A file that cannot be read or has errors; an output that cannot be written.
pub(super) fn run(args: &ExplainArgs) -> Result<ExitCode, Trouble> {
    let loaded = Loaded::sound(&args.paths)?;
    if loaded.policies.is_empty() {
        return Err(Trouble::Local(format!(
            "no policy in {}",
            named(&args.paths)
        )));
    }
    let compiled = loaded.compile(&Postures::default())?;
    let shortfall = shortfall::of(&compiled);
    let texts: Vec<String> = compiled
        .blobs
        .iter()
        .map(|blob| explained(blob, &loaded.policies, &shortfall))
        .collect();
    say(&texts.join("\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// So many of them are worth telling of when they are left open.
const MAIN: usize = 6;

fn explained(blob: &PolicyBlob, policies: &[Policy], shortfall: &[NotEnforced]) -> String {
    let policy = title(blob);
    let own = shortfall.iter().filter(|part| part.policy == policy);
    let mut shortfall: Vec<NotEnforced> = own.cloned().collect();
    shortfall.sort_by(|one, other| one.path.cmp(&other.path));
    let reach = Reach {
        blob,
        shortfall: &shortfall,
    };
    let mut page = Page::default();
    page.line(
        0,
        &format!("{} {policy}{}", blob.kind, place(blob, policies)),
    );
    page.line(1, &format!("For {}.", words::workloads(blob)));
    page.standing(&reach);
    for (action, head) in heads(reach.is_trial()) {
        page.rules(&reach, action, head);
    }
    page.left_open(&reach);
    for (depth, line) in reach.lines() {
        page.line(depth, &line);
    }
    page.shortfall(&shortfall);
    page.text
}

/// What becomes of what the rules name.
fn heads(trial: bool) -> [(Action, &'static str); 3] {
    let (block, allow) = match trial {
        true => ("Would be stopped, is told", "Would pass in silence"),
        false => ("Stopped and told", "Passes in silence"),
    };
    [
        (Action::Block, block),
        (Action::Audit, "Passes and is told"),
        (Action::Allow, allow),
    ]
}

fn named(paths: &[PathBuf]) -> String {
    let names: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    words::listed(&names, "or")
}

fn place(blob: &PolicyBlob, policies: &[Policy]) -> String {
    let same = |policy: &&Policy| {
        policy.name == blob.name
            && policy.namespace == blob.namespace
            && policy.kind.name() == blob.kind
    };
    policies
        .iter()
        .find(same)
        .map(|policy| format!(" ({}:{})", policy.file, policy.line))
        .unwrap_or_default()
}

fn has(blob: &PolicyBlob, section: Section, action: Action) -> bool {
    let is = |rule: &Rule| rule.section() == section && rule.action() == action;
    blob.rules.iter().any(is)
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn line(&mut self, depth: usize, line: &str) {
        // Writing to a String does not fail. What files hold is shown, not obeyed.
        let _ = writeln!(
            self.text,
            "{:indent$}{}",
            "",
            visible(line),
            indent = depth * 2
        );
    }

    /// Whether and how long it decides.
    fn standing(&mut self, reach: &Reach<'_>) {
        if reach.is_trial() {
            self.line(
                1,
                "Mode audit: it decides nothing and tells what it would have decided.",
            );
        }
        let end = words::time(reach.blob.expires);
        match reach.blob.expires {
            0 => {}
            _ if reach.has_ended() => self.line(
                1,
                &format!(
                    "Ended on {end}: it is in force nowhere, and does nothing of what follows."
                ),
            ),
            _ => self.line(1, &format!("In force until {end}.")),
        }
    }

    fn rules(&mut self, reach: &Reach<'_>, action: Action, head: &str) {
        let mut lines: BTreeSet<(usize, String)> = BTreeSet::new();
        let all = reach.blob.rules.iter();
        for rule in all.filter(|rule| rule.action() == action) {
            let order = SECTIONS
                .iter()
                .position(|section| *section == rule.section())
                .unwrap_or(SECTIONS.len());
            let mark = if reach.enforces(rule) {
                ""
            } else {
                "  [not enforced, see below]"
            };
            let line = format!("{}{}{mark}", words::rule(rule), attributes(rule));
            lines.insert((order, line));
        }
        if !lines.is_empty() {
            self.line(1, &format!("{head}:"));
        }
        lines.iter().for_each(|(_, line)| self.line(2, line));
    }

    fn left_open(&mut self, reach: &Reach<'_>) {
        let lists = reach.allow_lists();
        if lists.is_empty() {
            return self.line(1, "Left open: everything else.");
        }
        self.line(1, "Everything else:");
        let meets = if reach.is_trial() {
            "would meet"
        } else {
            "meets"
        };
        for sections in lists.chunk_by(|one, next| reach.posture(*one) == reach.posture(*next)) {
            let posture = posture(reach.posture(sections[0]));
            let names = listed(sections);
            self.line(
                2,
                &format!(
                    "{names}: what no rule names {meets} the default posture, which is {posture}"
                ),
            );
        }
        let allows = |section: &Section| has(reach.blob, *section, Action::Allow);
        let open: Vec<Section> = SECTIONS
            .into_iter()
            .take(MAIN)
            .filter(|section| !allows(section))
            .collect();
        if !open.is_empty() {
            self.line(2, &format!("{}: left open", listed(&open)));
        }
    }

    /// In the words of `policy status`.
    fn shortfall(&mut self, shortfall: &[NotEnforced]) {
        let all: Vec<String> = shortfall.iter().map(shortfall::words).collect();
        if !all.is_empty() {
            self.line(1, "Not enforced, on any tier:");
        }
        all.iter().for_each(|part| self.line(2, part));
    }
}

fn listed(sections: &[Section]) -> String {
    let names = sections.iter().map(|section| words::section(*section));
    let names: Vec<String> = names.map(str::to_owned).collect();
    words::listed(&names, "and")
}

/// The default posture, and whose word it is. The strictest of the policies about a workload counts.
fn posture(own: Option<Posture>) -> &'static str {
    match own {
        Some(Posture::Block) => "block (this policy's)",
        Some(Posture::Audit) => "audit (this policy's, unless another one is stricter)",
        Some(Posture::Allow) => "allow (this policy's, unless another one is stricter)",
        _ => "audit unless the relay's configuration or another policy says otherwise",
    }
}

fn attributes(rule: &Rule) -> String {
    let mut parts = Vec::new();
    if rule.severity > 0 {
        parts.push(format!("severity {}", rule.severity));
    }
    if !rule.message.is_empty() {
        parts.push(format!("\"{}\"", rule.message));
    }
    if parts.is_empty() {
        String::new()
    } else {
        format!("  ({})", parts.join(", "))
    }
}
