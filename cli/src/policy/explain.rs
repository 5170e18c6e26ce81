//! `cresset policy explain`: what policies do, in words.
//!
//! It speaks of the compiled rules, so defaults, inheritance and split lists are already worked in: what is read here is
//! what a sensor gets.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use policy::{Judges, NotEnforced, Policy};
use proto::rules::{Action, Mode, PolicyBlob, Postures, Rule, Section};

use super::loaded::{Loaded, title};
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

fn explained(blob: &PolicyBlob, policies: &[Policy], shortfall: &[NotEnforced]) -> String {
    let policy = title(blob);
    let own = shortfall.iter().filter(|part| part.policy == policy);
    let mut shortfall: Vec<NotEnforced> = own.cloned().collect();
    shortfall.sort_by(|one, other| one.path.cmp(&other.path));
    let mut page = Page {
        text: String::new(),
        shortfall,
    };
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
        page.line(1, &format!("In force until {}.", moment(blob.expires)));
    }
    page.rules(blob, Action::Block, "Stopped and told");
    page.rules(blob, Action::Audit, "Passes and is told");
    page.rules(blob, Action::Allow, "Passes in silence");
    page.left_open(blob);
    page.tiers(blob);
    page.shortfall();
    page.text
}

fn moment(unix: i64) -> String {
    match Timestamp::from_second(unix) {
        Ok(time) => time.to_string(),
        Err(_) => format!("second {unix} of unix time"),
    }
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

/// Whether this version's sensor judges a rule, and as it is written.
fn is_enforced(blob: &PolicyBlob, rule: &Rule, shortfall: &[NotEnforced]) -> bool {
    let Ok(rule) = policy::Rule::from_wire(rule) else {
        return false;
    };
    let softened = |part: &NotEnforced| part.softened && part.path == rule.title();
    let is_softened = rule.action == policy::Action::Block && shortfall.iter().any(softened);
    Judges::SENSOR.judges(&blob.kind, &rule) && !is_softened
}

struct Page {
    text: String,
    /// What sensors leave out of the policy.
    shortfall: Vec<NotEnforced>,
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
            let mark = if is_enforced(blob, rule, &self.shortfall) {
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
        let wanted = |rule: &&Rule| {
            let decides = matches!(rule.action(), Action::Block | Action::Allow);
            decides && rule.section() != Section::Syscalls
        };
        if !blob.rules.iter().any(|rule| wanted(&rule)) {
            return self.line(1, "Enforced: nothing; it tells on every tier.");
        }
        let judged: Vec<&Rule> = (blob.rules.iter().filter(wanted))
            .filter(|rule| is_enforced(blob, rule, &self.shortfall))
            .collect();
        let enforced: Vec<Section> = SECTIONS
            .into_iter()
            .filter(|section| judged.iter().any(|rule| rule.section() == *section))
            .collect();
        if enforced.is_empty() {
            return self.line(1, "Enforced: nothing on any tier.");
        }
        self.line(1, "Enforced:");
        let each = |of: fn(Section) -> &'static str| -> Vec<String> {
            let all = enforced.iter();
            all.map(|section| of(*section).to_owned()).collect()
        };
        let names = words::listed(&each(words::section), "and");
        self.line(
            2,
            &format!("tiers 1 and 2 (BPF LSM, fmod_ret): {names} are refused"),
        );
        self.line(2, &format!("tier 3 (neither): {}", each(third).join("; ")));
    }

    /// In the words of `policy status`.
    fn shortfall(&mut self) {
        let all: Vec<String> = self.shortfall.iter().map(shortfall::words).collect();
        if !all.is_empty() {
            self.line(1, "Not enforced, on any tier:");
        }
        all.iter().for_each(|part| self.line(2, part));
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
