//! What becomes of an operation, and why: the words in which [`decide`](crate::decide()) and [`Flat::decide`](crate::Flat)
//! answer.

use crate::condition::Condition;
use crate::rule::Action;

/// The mode of a class of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// An Allow rule is in force: what no rule names falls to the posture. Never set for posture `allow`, under which
    /// an allow-list changes nothing.
    pub allow_list: bool,
    /// What happens to what an allow-list does not name.
    pub posture: Posture,
}

impl Class {
    /// What no rule names passes in silence.
    pub const OPEN: Class = Class {
        allow_list: false,
        posture: Posture::Audit,
    };

    /// Whether what no rule names is stopped.
    pub(crate) fn stops(self) -> bool {
        self.allow_list && self.posture == Posture::Block
    }
}

/// What happens to an operation that an allow-list does not name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Posture {
    /// It passes and is told as `DefaultPosture`.
    Audit,
    /// It fails and is told as `DefaultPosture`.
    Block,
}

/// What becomes of an operation. `R` names rules: a slot, or a [`RuleId`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict<R> {
    /// Who decides, and how.
    pub enforced: Enforced<R>,
    /// What policies with `mode: audit` would have made of it, where that is another outcome. A denial here is told as
    /// `Audit (Block)`.
    pub shadow: Option<Enforced<R>>,
    /// The Audit rule that tells of it if it passes. It tells in place of an audit posture, too.
    pub audit: Option<R>,
    /// What each rule that was asked said, in order, up to the one that decides.
    pub why: Vec<Step<R>>,
}

impl<R> Verdict<R> {
    /// Whether an alert comes of it, mode audit aside.
    pub fn tells(&self) -> bool {
        self.audit.is_some() || !matches!(self.enforced, Enforced::Nothing | Enforced::Allow(_))
    }

    /// What would have to be known of the doer to be sure of the verdict; `None`: it is sure.
    pub fn doubt(&self) -> Option<Condition> {
        self.why.iter().find_map(|step| match step.said {
            Said::Unknown(condition) => Some(condition),
            _ => None,
        })
    }
}

/// One rule that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step<R> {
    /// Which.
    pub rule: R,
    /// Its action.
    pub action: Action,
    /// What it said.
    pub said: Said,
}

/// What a rule said when it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// It is about the operation and decides.
    Decides,
    /// It is about the operation and tells of it.
    Tells,
    /// It would decide if its policy were not in mode audit.
    Would,
    /// This condition does not hold, or could change nothing.
    Passed(Condition),
    /// This is not known, and the verdict depends on it.
    Unknown(Condition),
}

/// Who decides whether an operation passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforced<R> {
    /// Nobody: it passes.
    Nothing,
    /// A rule: it passes.
    Allow(R),
    /// A rule: it fails.
    Block(R),
    /// Nobody, in an allow-list.
    Posture(Posture),
}

impl<R> Enforced<R> {
    /// Whether the operation fails.
    pub fn denies(&self) -> bool {
        matches!(self, Enforced::Block(_) | Enforced::Posture(Posture::Block))
    }
}
