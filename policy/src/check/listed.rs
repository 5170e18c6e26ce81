//! An Allow makes an allow-list of a class; a policy that only blocks counts on a deny-list.

use proto::rules::{Posture, Postures};
use yaml::Problem;

use super::overlap::meet;
use super::{Subject, told};
use crate::compile::Beyond;
use crate::lower::Placed;
use crate::model::PostureWord;
use crate::rule::{Action, Section};

/// The classes with an allow-list of their own.
const CLASSES: [Section; 8] = [
    Section::Process,
    Section::File,
    Section::Network,
    Section::Dns,
    Section::Endpoints,
    Section::Capabilities,
    Section::Devices,
    Section::Flows,
];

pub(super) fn check(subjects: &[Subject<'_>], postures: &Postures) -> Vec<Problem> {
    let mut problems = Vec::new();
    for class in CLASSES {
        let listing: Vec<(&Subject<'_>, &Placed)> = subjects
            .iter()
            .filter_map(|subject| Some((subject, allows(subject, class)?)))
            .collect();
        for (subject, allow) in listing {
            let others = subjects.iter().filter(|other| {
                denies_only(other, class) && other.shadow == subject.shadow && meet(subject, other)
            });
            let names: Vec<String> = others.map(|other| other.policy.title()).collect();
            let posture = posture(subject, class, postures);
            if !names.is_empty() && posture != Posture::Allow {
                problems.push(told(
                    subject.policy,
                    &allow.place,
                    message(class, &names, posture),
                ));
            }
        }
    }
    problems
}

fn message(class: Section, names: &[String], posture: Posture) -> String {
    let fate = if posture == Posture::Block {
        "stopped"
    } else {
        "told as DefaultPosture"
    };
    let (few, more) = names.split_at(names.len().min(3));
    let more = if more.is_empty() {
        String::new()
    } else {
        format!(" and {} more", more.len())
    };
    format!(
        "this Allow makes {} an allow-list: what no Allow names is {fate}, also where {}{more} only blocks single things; allow `/` there, or set defaultPosture",
        class.name(),
        few.join(", ")
    )
}

fn allows<'s>(subject: &'s Subject<'_>, class: Section) -> Option<&'s Placed> {
    let own = subject
        .rules
        .iter()
        .filter(|placed| placed.rule.section == class);
    let mut allows: Vec<&Placed> = own
        .filter(|placed| placed.rule.action == Action::Allow)
        .collect();
    allows.sort_by_key(|placed| subject.policy.lines.get(&placed.place).copied());
    // The lenient idiom: everything is allowed, so nothing is left for the posture.
    let lenient = allows.iter().any(|placed| is_everything(placed));
    allows.first().copied().filter(|_| !lenient)
}

fn is_everything(placed: &Placed) -> bool {
    use crate::names::Protocol;
    use crate::rule::Object;
    let all = match &placed.rule.object {
        Object::Directory { path, recursive } => path == "/" && *recursive,
        Object::Protocol(protocol) => *protocol == Protocol::All,
        Object::Devices(devices) => devices.narrowness() == 0,
        _ => false,
    };
    all && placed.rule.is_plain()
}

fn denies_only(subject: &Subject<'_>, class: Section) -> bool {
    let mut own = subject
        .rules
        .iter()
        .filter(|placed| placed.rule.section == class)
        .peekable();
    own.peek().is_some() && own.all(|placed| placed.rule.action != Action::Allow)
}

fn posture(subject: &Subject<'_>, class: Section, postures: &Postures) -> Posture {
    let own = Beyond::of(&subject.policy.spec).postures;
    let (own, outer) = match class {
        Section::Process | Section::File => (own.and_then(|own| own.file), postures.file()),
        Section::Capabilities => (
            own.and_then(|own| own.capabilities),
            postures.capabilities(),
        ),
        Section::Devices => (own.and_then(|own| own.device), postures.devices()),
        _ => (own.and_then(|own| own.network), postures.network()),
    };
    match own {
        Some(PostureWord::Allow) => Posture::Allow,
        Some(PostureWord::Audit) => Posture::Audit,
        Some(PostureWord::Block) => Posture::Block,
        None => outer,
    }
}
