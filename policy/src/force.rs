//! Which rules are in force on a node that judges less than the whole language, and as what.
//!
//! A rule that the node does not judge is left out whole. That alone would deny too much: an `Allow … fromSource` is an
//! exception from some `Block`, and without the exception the Block would stop what the policy allows. So where an Allow
//! was left out,
//!
//! - a Block whose objects it may share, and that it would have beaten, is told instead of enforced;
//! - the posture of its class is at most `audit`.
//!
//! Both are reported. Nothing is ever enforced more broadly than it was written. On a node that judges everything this
//! module changes nothing.
//!
//! A node without shadows has one verdict for an operation, so what a policy in mode audit would do is told as an Audit: a
//! Block as the Audit that it amounts to; what its allow-list does not name by one Audit that ends every list of the class
//! ([`Force::unnamed`]); and its Allows keep both from the lists that they would have decided.

use crate::flat::{Candidate, NotEnforced};
use crate::judges::{Judges, Part};
use crate::meet::Exceptions;
use crate::rule::{Action, Section};
use crate::standing::{Modes, Rules, Standing};
use crate::verdict::{Class, Posture};

/// A rule that judges, with the action that it has here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member<'r> {
    pub(crate) standing: &'r Standing,
    pub(crate) slot: u32,
    pub(crate) action: Action,
    pub(crate) shadow: bool,
    /// An Allow or Block of a policy in mode audit, on a node without shadows: it keeps silent or tells, and decides nothing.
    pub(crate) on_trial: bool,
}

impl Member<'_> {
    /// Lists do not hold it: it only keeps others out of them.
    pub(crate) fn only_silences(&self) -> bool {
        self.on_trial && self.action == Action::Allow
    }
}

#[derive(Debug)]
pub(crate) struct Force<'r> {
    pub(crate) members: Vec<Member<'r>>,
    pub(crate) modes: Modes,
    pub(crate) shadow: Modes,
    pub(crate) not_enforced: Vec<NotEnforced>,
    /// What tells of operations that an allow-list on trial would stop, by its section: an Audit in the slot of one of its
    /// Allows.
    unnamed: Vec<(Section, Candidate)>,
}

pub(crate) fn in_force(rules: &Rules, judges: Judges) -> Force<'_> {
    let mut force = Force {
        members: Vec::new(),
        modes: rules.modes,
        shadow: rules.shadow,
        not_enforced: rules.left_out.clone(),
        unnamed: Vec::new(),
    };
    let mut exceptions: Vec<&Standing> = Vec::new();
    let mut unknown: Vec<Section> = Vec::new();
    for (slot, standing) in (0..).zip(&rules.standing) {
        match judges.lack(&standing.rule) {
            Some(reason) => {
                force.report(standing, reason);
                if standing.rule.action == Action::Allow {
                    unknown.push(standing.rule.section);
                    exceptions.extend(Some(standing).filter(|allow| !allow.shadow()));
                }
            }
            None => force.admit(standing, slot, judges.has(Part::Shadow)),
        }
    }
    let exceptions = Exceptions::new(exceptions);
    force.soften(&exceptions);
    force.lower_postures(&exceptions);
    force.tell_trials(judges, &unknown);
    force
}

impl<'r> Force<'r> {
    fn report(&mut self, standing: &Standing, reason: String) {
        self.not_enforced.push(NotEnforced {
            policy: standing.policy.title(),
            path: standing.rule.title(),
            reason,
            softened: false,
        });
    }

    fn admit(&mut self, standing: &'r Standing, slot: u32, shadows: bool) {
        let written = standing.rule.action;
        let on_trial = standing.shadow() && !shadows && written != Action::Audit;
        let action = match written {
            Action::Block if on_trial => Action::Audit,
            _ => written,
        };
        self.members.push(Member {
            standing,
            slot,
            action,
            shadow: standing.shadow() && shadows,
            on_trial,
        });
    }

    fn soften(&mut self, exceptions: &Exceptions<'_>) {
        let mut told = Vec::new();
        for member in &mut self.members {
            if member.action != Action::Block || member.shadow {
                continue;
            }
            let Some(allow) = exceptions.from(member.standing) else {
                continue;
            };
            member.action = Action::Audit;
            let reason = format!(
                "told instead of blocked: the Allow on `{}` of policy {} may except from it and is not judged by this version's sensor",
                allow.rule.object,
                allow.policy.title()
            );
            told.push(NotEnforced {
                policy: member.standing.policy.title(),
                path: member.standing.rule.title(),
                reason,
                softened: true,
            });
        }
        self.not_enforced.extend(told);
    }

    fn lower_postures(&mut self, exceptions: &Exceptions<'_>) {
        let modes = [
            (Section::Process, &mut self.modes.process),
            (Section::File, &mut self.modes.file),
            (Section::Network, &mut self.modes.network),
            (Section::Dns, &mut self.modes.dns),
            (Section::Endpoints, &mut self.modes.endpoints),
            (Section::Capabilities, &mut self.modes.capabilities),
            (Section::Devices, &mut self.modes.devices),
            (Section::Flows, &mut self.modes.flows),
        ];
        for (section, class) in modes {
            let Some(allow) = exceptions.of(section) else {
                continue;
            };
            let listed = (self.members.iter()).any(|member| {
                let rule = &member.standing.rule;
                let decides = !member.shadow && !member.on_trial;
                rule.section == section && member.action == Action::Allow && decides
            });
            if listed && *class != Class::OPEN && class.posture == Posture::Block {
                self.not_enforced.push(NotEnforced {
                    policy: allow.policy.title(),
                    path: section.name().to_owned(),
                    reason: format!(
                        "posture block is only told for {} operations: an Allow of this policy is not judged by this version's sensor",
                        section.name()
                    ),
                    softened: false,
                });
            }
            // An allow-list of which no Allow is left would stop, or tell of, everything.
            class.allow_list &= listed;
            class.posture = Posture::Audit;
        }
    }

    /// The end of every list of a section in which nothing decides, where an allow-list is on trial.
    pub(crate) fn unnamed(&self, section: Section) -> Option<Candidate> {
        let mut all = self.unnamed.iter();
        let (_, candidate) = all.find(|(own, _)| *own == section)?;
        Some(*candidate)
    }

    /// Decides for every class whether what an allow-list on trial would stop can be told, and reports where it cannot.
    /// `unknown` are the sections of Allows that the node does not judge: what those let pass cannot be told from the rest.
    fn tell_trials(&mut self, judges: Judges, unknown: &[Section]) {
        let classes = self.modes.each().into_iter().zip(self.shadow.each());
        for ((section, now), (_, then)) in classes {
            if now.stops() || !then.stops() {
                continue;
            }
            let own = |member: &&Member<'_>| {
                member.only_silences() && member.standing.rule.section == section
            };
            let allows: Vec<Member<'r>> = self.members.iter().filter(own).copied().collect();
            let Some(first) = allows.first() else {
                continue;
            };
            let all_plain = allows.iter().all(|allow| allow.standing.rule.is_plain());
            let one_list = ends_in_one_list(section, judges) && !now.allow_list;
            if one_list && all_plain && !unknown.contains(&section) {
                let candidate = Candidate {
                    slot: first.slot,
                    action: Action::Audit,
                    order: u64::MAX,
                    shadow: false,
                };
                self.unnamed.push((section, candidate));
                continue;
            }
            let reason =
                "mode: audit: what this allow-list would stop is not told by this version's sensor";
            for allow in allows {
                self.report(allow.standing, reason.to_owned());
            }
        }
    }
}

/// Whether every operation of a section is looked up in one list and no other, which may then end in what tells of all that
/// nothing names.
fn ends_in_one_list(section: Section, judges: Judges) -> bool {
    let more = [Part::Name, Part::Pattern, Part::Preset];
    match section {
        Section::Process | Section::File => !more.into_iter().any(|part| judges.has(part)),
        Section::Network | Section::Capabilities => true,
        _ => false,
    }
}
