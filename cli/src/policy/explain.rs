//! `cresset policy explain`: what policies do, in words.
//!
//! It speaks of the compiled rules, so defaults, inheritance and split lists are already worked in: what is read here is
//! what a sensor gets.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use policy::Policy;
use proto::rules::{Action, Mode, PolicyBlob, Postures, Rule, Section};

use super::loaded::{Compiled, Loaded, title};
use super::words;
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
    let compiled = loaded.compile(&Postures::default())?;
    let texts: Vec<String> = compiled
        .blobs
        .iter()
        .map(|blob| explained(blob, &loaded.policies, &compiled))
        .collect();
    say(&texts.join("\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// So many of them are worth telling of when they are left open.
const MAIN: usize = 6;

/// The parts in the order in which they are told.
const SECTIONS: [Section; 10] = [
    Section::Process,
    Section::File,
    Section::Network,
    Section::Dns,
    Section::Capabilities,
    Section::Syscalls,
    Section::Presets,
    Section::Endpoints,
    Section::Devices,
    Section::Flows,
];

fn explained(blob: &PolicyBlob, policies: &[Policy], _: &Compiled) -> String {
    let mut page = Page::default();
    page.line(
        0,
        &format!("{} {}{}", blob.kind, title(blob), place(blob, policies)),
    );
    page.line(1, &format!("For {}.", words::workloads(blob)));
    if blob.mode() == Mode::Audit {
        page.line(
            1,
            "Mode audit: it decides nothing and tells what it would have decided.",
        );
    }
    if blob.expires > 0 {
        page.line(1, &format!("Until {} (unix time).", blob.expires));
    }
    page.rules(blob, Action::Block, "Stopped and told");
    page.rules(blob, Action::Audit, "Passes and is told");
    page.rules(blob, Action::Allow, "Passes in silence");
    page.left_open(blob);
    page.tiers(blob);
    if !blob.unenforced.is_empty() {
        page.line(1, "Enforced nowhere:");
        for part in &blob.unenforced {
            page.line(2, &format!("{}: {}", part.path, part.reason));
        }
    }
    page.text
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

    fn rules(&mut self, blob: &PolicyBlob, action: Action, head: &str) {
        let mut lines: BTreeSet<(usize, String)> = BTreeSet::new();
        for rule in blob.rules.iter().filter(|rule| rule.action() == action) {
            let order = SECTIONS
                .iter()
                .position(|section| *section == rule.section())
                .unwrap_or(SECTIONS.len());
            lines.insert((order, format!("{}{}", words::rule(rule), attributes(rule))));
        }
        if !lines.is_empty() {
            self.line(1, &format!("{head}:"));
        }
        lines.iter().for_each(|(_, line)| self.line(2, line));
    }

    fn left_open(&mut self, blob: &PolicyBlob) {
        let allow_lists: Vec<String> = SECTIONS
            .into_iter()
            .filter(|section| has(blob, *section, Action::Allow))
            .map(|section| words::section(section).to_owned())
            .collect();
        if !allow_lists.is_empty() {
            self.line(1, "Everything else:");
            let names = words::listed(&allow_lists, "and");
            self.line(2, &format!(
                "{names}: what no rule names meets the default posture, which is audit unless the relay's configuration or \
                 the policy says otherwise"
            ));
        }
        let open: Vec<String> = SECTIONS
            .into_iter()
            .take(MAIN)
            .filter(|section| !has(blob, *section, Action::Allow))
            .map(|section| words::section(section).to_owned())
            .collect();
        if allow_lists.is_empty() {
            self.line(1, "Left open: everything else.");
        } else if !open.is_empty() {
            self.line(2, &format!("{}: left open", words::listed(&open, "and")));
        }
    }

    fn tiers(&mut self, blob: &PolicyBlob) {
        let blocked: Vec<Section> = SECTIONS
            .into_iter()
            .filter(|section| {
                has(blob, *section, Action::Block) || has(blob, *section, Action::Allow)
            })
            .filter(|section| *section != Section::Syscalls)
            .collect();
        if blocked.is_empty() {
            return self.line(1, "Enforced: nothing; it tells on every tier.");
        }
        self.line(1, "Enforced:");
        let names: Vec<String> = blocked
            .iter()
            .map(|section| words::section(*section).to_owned())
            .collect();
        self.line(
            2,
            &format!(
                "tiers 1 and 2 (BPF LSM, fmod_ret): {} are refused",
                words::listed(&names, "and")
            ),
        );
        let third: Vec<String> = blocked
            .iter()
            .map(|section| third(*section).to_owned())
            .collect();
        self.line(2, &format!("tier 3 (neither): {}", third.join("; ")));
    }
}

/// What tier 3 makes of a Block (README, "What a node can enforce").
fn third(section: Section) -> &'static str {
    match section {
        Section::Process => "programs are killed before their first instruction",
        Section::File => "files are told after the fact (killed with `contain: all`)",
        Section::Network => "IP sockets are refused",
        Section::Dns => "names are told",
        Section::Capabilities => "capabilities are told, on kernels from 6.14 on",
        _ => "the rest is told",
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
