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

use crate::flat::{Class, NotEnforced, Posture};
use crate::judges::{Judges, Part};
use crate::meet::{may_beat, may_share};
use crate::rule::{Action, Section};
use crate::standing::{Modes, Rules, Standing};

/// A rule that judges, with the action that it has here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member<'r> {
    pub(crate) standing: &'r Standing,
    pub(crate) slot: u32,
    pub(crate) action: Action,
    pub(crate) shadow: bool,
}

#[derive(Debug)]
pub(crate) struct Force<'r> {
    pub(crate) members: Vec<Member<'r>>,
    pub(crate) modes: Modes,
    pub(crate) shadow: Modes,
    pub(crate) not_enforced: Vec<NotEnforced>,
}

pub(crate) fn in_force(rules: &Rules, judges: Judges) -> Force<'_> {
    let mut force = Force {
        members: Vec::new(),
        modes: rules.modes,
        shadow: rules.shadow,
        not_enforced: rules.left_out.clone(),
    };
    let mut exceptions: Vec<&Standing> = Vec::new();
    for (slot, standing) in (0..).zip(&rules.standing) {
        match judges.lack(&standing.rule) {
            Some(reason) => {
                force.report(standing, reason);
                if standing.rule.action == Action::Allow && !standing.shadow() {
                    exceptions.push(standing);
                }
            }
            None => force.admit(standing, slot, judges.has(Part::Shadow)),
        }
    }
    force.soften(&exceptions);
    force.lower_postures(&exceptions);
    force
}

impl<'r> Force<'r> {
    fn report(&mut self, standing: &Standing, reason: String) {
        self.not_enforced.push(NotEnforced {
            policy: standing.policy.title(),
            path: standing.rule.title(),
            reason,
        });
    }

    /// Without shadows, a Block of a policy in mode audit stands as the Audit that it amounts to, and an Allow is nothing.
    fn admit(&mut self, standing: &'r Standing, slot: u32, shadows: bool) {
        let written = standing.rule.action;
        let (action, shadow) = match (standing.shadow(), written) {
            (true, Action::Block) if !shadows => (Action::Audit, false),
            (true, Action::Allow) if !shadows => {
                let reason =
                    "mode: audit: what this allow-list would stop is not told on this node";
                return self.report(standing, reason.to_owned());
            }
            (shadow, _) => (written, shadow),
        };
        self.members.push(Member {
            standing,
            slot,
            action,
            shadow,
        });
    }

    fn soften(&mut self, exceptions: &[&Standing]) {
        let mut told = Vec::new();
        for member in &mut self.members {
            if member.action != Action::Block || member.shadow {
                continue;
            }
            let excepts = |allow: &&&Standing| {
                allow.rule.section == member.standing.rule.section
                    && may_beat(&allow.rule, &member.standing.rule)
                    && may_share(allow, member.standing)
            };
            let Some(allow) = exceptions.iter().find(excepts) else {
                continue;
            };
            member.action = Action::Audit;
            let reason = format!(
                "told instead of blocked: the Allow on `{}` of policy {} may except from it and is not judged on this node",
                allow.rule.object,
                allow.policy.title()
            );
            told.push((member.standing, reason));
        }
        for (standing, reason) in told {
            self.report(standing, reason);
        }
    }

    fn lower_postures(&mut self, exceptions: &[&Standing]) {
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
            let mut of_class = exceptions
                .iter()
                .filter(|allow| allow.rule.section == section);
            let Some(allow) = of_class.next() else {
                continue;
            };
            let listed = (self.members.iter()).any(|member| {
                let rule = &member.standing.rule;
                rule.section == section && member.action == Action::Allow && !member.shadow
            });
            if listed && *class != Class::OPEN && class.posture == Posture::Block {
                self.not_enforced.push(NotEnforced {
                    policy: allow.policy.title(),
                    path: section.name().to_owned(),
                    reason: format!(
                        "posture block is only told for {} operations: an Allow of this policy is not judged on this node",
                        section.name()
                    ),
                });
            }
            // An allow-list of which no Allow is left would stop, or tell of, everything.
            class.allow_list &= listed;
            class.posture = Posture::Audit;
        }
    }
}
