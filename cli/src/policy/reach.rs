//! How far a policy reaches: what of it is refused on which tier, what is only told, and what is neither.
//!
//! Said of what this version's sensor judges: a rule that it leaves out reaches nowhere, whatever the rule says.

use policy::{Judges, NotEnforced};
use proto::rules::object::Is;
use proto::rules::{Action, Mode, PolicyBlob, Posture, Rule, Section};

use super::{loaded, words};

/// The parts in the order in which they are told.
pub(super) const SECTIONS: [Section; 10] = [
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

/// A policy, with what sensors leave out of it.
pub(super) struct Reach<'p> {
    pub(super) blob: &'p PolicyBlob,
    pub(super) shortfall: &'p [NotEnforced],
}

impl Reach<'_> {
    /// Whether its time is over.
    pub(super) fn has_ended(&self) -> bool {
        self.blob.expires > 0 && self.blob.expires <= loaded::now().0
    }

    /// `mode: audit`.
    pub(super) fn is_trial(&self) -> bool {
        self.blob.mode() == Mode::Audit
    }

    /// Whether a rule does on a node what is written.
    pub(super) fn enforces(&self, rule: &Rule) -> bool {
        let softened = |part: &NotEnforced| part.softened && part.path == title(rule);
        let is_softened = rule.action() == Action::Block && self.shortfall.iter().any(softened);
        self.judges(rule) && !is_softened
    }

    /// Whether a node looks at a rule at all.
    fn judges(&self, rule: &Rule) -> bool {
        let rule = policy::Rule::from_wire(rule);
        rule.is_ok_and(|rule| Judges::SENSOR.judges(&self.blob.kind, &rule))
    }

    /// Parts in which what no rule names is left to the default posture.
    pub(super) fn allow_lists(&self) -> Vec<Section> {
        self.lists(|_| true)
    }

    /// Out of these rules. One that allows everything leaves nothing to the posture.
    fn lists(&self, counts: impl Fn(&Rule) -> bool) -> Vec<Section> {
        let allows = |section: Section| {
            let all = self.blob.rules.iter().filter(|rule| counts(rule));
            let mut own = all
                .filter(|rule| rule.section() == section && rule.action() == Action::Allow)
                .peekable();
            own.peek().is_some() && !own.any(is_everything)
        };
        let all = SECTIONS.into_iter();
        all.filter(|section| allows(*section)).collect()
    }

    /// What it says itself of what its allow-list does not name.
    pub(super) fn posture(&self, section: Section) -> Option<Posture> {
        let own = self.blob.postures.unwrap_or_default();
        let posture = match section {
            Section::Process | Section::File => own.file(),
            Section::Capabilities => own.capabilities(),
            Section::Devices => own.devices(),
            _ => own.network(),
        };
        Some(posture).filter(|posture| *posture != Posture::Unspecified)
    }

    /// What is enforced where, with the depth of each line.
    pub(super) fn lines(&self) -> Vec<(usize, String)> {
        let lists = self.lists(|rule| self.enforces(rule));
        let (refused, open) = (self.refused(&lists), self.open(&lists));
        if self.has_ended() || !self.tells(&lists) {
            return vec![(1, "Enforced: nothing on any tier.".to_owned())];
        }
        if self.is_trial() || refused.is_empty() && open.is_empty() {
            return vec![(1, "Enforced: nothing; it tells on every tier.".to_owned())];
        }
        let mut lines = vec![(1, "Enforced:".to_owned())];
        if !refused.is_empty() {
            lines.extend(tiers(&refused).map(|line| (2, line)));
        }
        if !open.is_empty() {
            let names = words::listed(&named(&open, words::section), "and");
            lines.push((
                2,
                format!("{names}: what is not allowed is refused only where the default posture is block"),
            ));
        }
        lines
    }

    /// Parts of which something is refused, whatever others say.
    fn refused(&self, lists: &[Section]) -> Vec<Section> {
        let blocks = |section: Section| {
            let mut all = self.blob.rules.iter();
            all.any(|rule| {
                rule.section() == section && rule.action() == Action::Block && self.enforces(rule)
            })
        };
        let strict =
            |section| lists.contains(&section) && self.posture(section) == Some(Posture::Block);
        let all = SECTIONS.into_iter();
        all.filter(|section| *section != Section::Syscalls)
            .filter(|section| blocks(*section) || strict(*section))
            .collect()
    }

    /// Allow-lists of which others say what becomes of the rest.
    fn open(&self, lists: &[Section]) -> Vec<Section> {
        let all = lists.iter().copied();
        all.filter(|section| self.posture(*section).is_none())
            .collect()
    }

    /// Whether anything comes of it on a node.
    fn tells(&self, lists: &[Section]) -> bool {
        let speaks = |rule: &Rule| rule.action() != Action::Allow && self.judges(rule);
        let is_loud = |section: &Section| self.posture(*section) != Some(Posture::Allow);
        self.blob.rules.iter().any(speaks) || lists.iter().any(is_loud)
    }
}

/// What a shortfall calls a rule.
fn title(rule: &Rule) -> String {
    policy::Rule::from_wire(rule).map_or_else(|_| String::new(), |rule| rule.title())
}

/// The lenient idiom: `/` and all below, for everybody.
fn is_everything(rule: &Rule) -> bool {
    let plain = rule.sources.is_empty()
        && rule.args.is_empty()
        && rule.pts.is_none()
        && !rule.owner_only
        && !rule.read_only;
    let object = rule.object.as_ref().and_then(|object| object.is.as_ref());
    let all = match object {
        Some(Is::Directory(directory)) => directory.path == "/" && directory.recursive,
        Some(Is::Protocol(name)) => name == "all",
        Some(Is::Device(device)) => *device == proto::rules::object::Device::default(),
        _ => false,
    };
    plain && all
}

fn named(sections: &[Section], name: fn(Section) -> &'static str) -> Vec<String> {
    let all = sections.iter();
    all.map(|section| name(*section).to_owned()).collect()
}

fn tiers(refused: &[Section]) -> impl Iterator<Item = String> {
    let names = words::listed(&named(refused, words::section), "and");
    let third = named(refused, third).join("; ");
    [
        format!("tiers 1 and 2 (BPF LSM, fmod_ret): {names} are refused"),
        format!("tier 3 (neither): {third}"),
    ]
    .into_iter()
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
