//! Whether a rule whose object fits is about *this* operation: who does it, and how.
//!
//! Two kinds of condition. `fromSource` says by which program: a rule is about no other. The modifiers say what is
//! *permitted* with the object, and the action says which side of that line the rule is about:
//!
//! ```text
//!                permitted            not permitted         permitted means: all that are given hold
//! Allow          matches              no match              ownerOnly     the doer owns the file
//! Block, Audit   no match             matches               readOnly      it is not changed
//!                                                           pts: false    no terminal is attached
//!                                                           allowedArgs   every argument is listed
//! ```
//! A rule that does not match is passed over and the search goes on. What is not known of the doer is said, not guessed.

use crate::operation::{Act, Actor, Operation};
use crate::preset::{Preset, of_process};
use crate::rule::{Action, Object, Rule};

/// Something that a rule asks of an operation beyond its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// By which program.
    Source,
    /// By the owner or not.
    Owner,
    /// Reading or writing.
    ReadOnly,
    /// With a terminal or without.
    Terminal,
    /// With which arguments.
    Arguments,
    /// By which process.
    Process,
    /// Out of an interactive session or not.
    Session,
    /// How much has passed.
    Quota,
    /// On which path.
    Path,
}

impl Condition {
    /// The word for it in a policy, or for people.
    pub fn name(self) -> &'static str {
        match self {
            Condition::Source => "fromSource",
            Condition::Owner => "ownerOnly",
            Condition::ReadOnly => "readOnly",
            Condition::Terminal => "pts",
            Condition::Arguments => "allowedArgs",
            Condition::Process => "process id",
            Condition::Session => "session",
            Condition::Quota => "limit",
            Condition::Path => "path",
        }
    }
}

/// Whether a rule is about an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// It is.
    Yes,
    /// It is not, by this.
    No(Condition),
    /// That depends on something that is not known.
    Unknown(Condition),
}

/// A program or folder of programs that a rule names as source, by one of its names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Program {
    Exact(String),
    Below { directory: String, recursive: bool },
}

impl Program {
    fn is(&self, path: &str) -> bool {
        match self {
            Program::Exact(own) => own == path,
            Program::Below {
                directory,
                recursive,
            } => path
                .strip_prefix(directory.as_str())
                .is_some_and(|rest| *recursive || !rest.contains('/')),
        }
    }
}

/// Asks all conditions of a rule whose object fits. `sources` are the rule's, by all their names.
pub(crate) fn holds(rule: &Rule, sources: &[Program], operation: &Operation) -> Holds {
    let Operation { act, by } = operation;
    match own(&rule.object, act, by) {
        Holds::Yes => {}
        other => return other,
    }
    if !rule.sources.is_empty() {
        match &by.program {
            None => return Holds::Unknown(Condition::Source),
            Some(program) if !sources.iter().any(|source| source.is(program)) => {
                return Holds::No(Condition::Source);
            }
            Some(_) => {}
        }
    }
    modifiers(rule, act, by)
}

fn modifiers(rule: &Rule, act: &Act, by: &Actor) -> Holds {
    if !rule.has_modifiers() {
        return Holds::Yes;
    }
    let given = [
        (rule.owner_only, Condition::Owner, by.owner),
        (rule.read_only, Condition::ReadOnly, reads(act)),
        (
            rule.pts == Some(false),
            Condition::Terminal,
            by.terminal.map(|there| !there),
        ),
        (
            !rule.args.is_empty(),
            Condition::Arguments,
            listed(&rule.args, act),
        ),
    ];
    let asked = given.into_iter().filter(|(asked, _, _)| *asked);
    let asked: Vec<(Condition, Option<bool>)> = asked
        .map(|(_, condition, good)| (condition, good))
        .collect();
    let broken = asked.iter().find(|(_, good)| *good == Some(false));
    let unknown = asked.iter().find(|(_, good)| good.is_none());
    match (rule.action, broken, unknown) {
        (Action::Allow, Some((condition, _)), _) => Holds::No(*condition),
        (Action::Block | Action::Audit, Some(_), _) => Holds::Yes,
        (_, None, Some((condition, _))) => Holds::Unknown(*condition),
        (Action::Allow, None, None) => Holds::Yes,
        (Action::Block | Action::Audit, None, None) => Holds::No(
            asked
                .first()
                .map_or(Condition::Owner, |(condition, _)| *condition),
        ),
    }
}

fn reads(act: &Act) -> Option<bool> {
    Some(!matches!(act, Act::Open { write: true, .. }))
}

fn listed(permitted: &[String], act: &Act) -> Option<bool> {
    let Act::Exec { args, .. } = act else {
        return Some(true);
    };
    let args = args.as_ref()?;
    Some(args.iter().all(|arg| permitted.contains(arg)))
}

/// What some objects ask of an operation themselves.
fn own(object: &Object, act: &Act, by: &Actor) -> Holds {
    let known = |fact: Option<bool>, condition| match fact {
        Some(true) => Holds::Yes,
        Some(false) => Holds::No(condition),
        None => Holds::Unknown(condition),
    };
    match (object, act) {
        (Object::Preset(Preset::ProtectEnv | Preset::ProtectProc), Act::Open { path, .. }) => {
            let other = by
                .pid
                .zip(of_process(path))
                .map(|(own, (pid, _))| own != pid);
            known(other, Condition::Process)
        }
        (Object::Preset(Preset::Exec), _) => known(by.session, Condition::Session),
        (Object::Flows(flows), Act::Packet(packet)) => {
            let Some(quota) = &flows.quota else {
                return Holds::Yes;
            };
            known(packet.used.map(|used| used > quota.bytes), Condition::Quota)
        }
        (
            Object::Syscall {
                path: own,
                recursive,
                ..
            },
            Act::Syscall { path, .. },
        ) if !own.is_empty() => {
            let on = path.as_ref().map(|path| acts_on(own, *recursive, path));
            known(on, Condition::Path)
        }
        _ => Holds::Yes,
    }
}

/// A path of `syscalls.matchPaths`: a directory is meant itself, and what is below it where it is recursive.
fn acts_on(own: &str, recursive: bool, path: &str) -> bool {
    let Some(directory) = own.strip_suffix('/') else {
        return own == path;
    };
    let bare = path.strip_suffix('/').unwrap_or(path);
    bare == directory || (recursive && path.starts_with(own))
}
