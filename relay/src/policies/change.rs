//! What people and programs change: policies that are applied and deleted, and the pause.
//!
//! Every change is checked together with everything that is in force, kept on disk, and then put in force; or nothing is
//! changed and the problems are told.

use std::time::Duration;

use policy::Policy;
use yaml::Problem;

use super::applied::{Applied, Key, What, object};
use super::folder::Reading;
use super::pause::{self, LONGEST, Pause};
use super::{CurrentSet, Handle, Inner, State};

/// What a change did, or why it did nothing.
#[derive(Debug, Default)]
pub(super) struct Changed {
    pub(super) changes: Vec<(Key, Done)>,
    /// With an error among them nothing was changed.
    pub(super) problems: Vec<Problem>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Done {
    Put(What),
    Deleted,
    NotThere,
}

impl Changed {
    pub(super) fn is_refused(&self) -> bool {
        self.problems.iter().any(Problem::is_error)
    }

    fn refused(problem: Problem) -> Changed {
        Changed {
            problems: vec![problem],
            ..Changed::default()
        }
    }
}

impl Handle {
    /// Applies every policy of these texts, or none of them. Reads and writes files: not for an async task.
    pub(super) fn apply(&self, files: &[(String, String)], dry_run: bool) -> Changed {
        let texts = files.iter().map(|(name, text)| (&**name, &**text));
        let (policies, mut problems) = policy::load(texts);
        let inner = &self.0;
        let mut state = inner.lock();
        problems.extend(
            policies
                .iter()
                .filter_map(|policy| inner.elsewhere(&state, policy)),
        );
        if policies.is_empty() && problems.is_empty() {
            let file = files.first().map_or("", |(name, _)| name);
            problems.push(Problem::whole_file(file, "there is no policy in it"));
        }
        let mut changed = Changed {
            problems,
            ..Changed::default()
        };
        if changed.is_refused() {
            return changed;
        }
        let mut next = state.applied.clone();
        for policy in &policies {
            let done = Done::Put(next.put(policy));
            changed.changes.push((Key::of(policy), done));
        }
        if !dry_run {
            changed.problems.extend(inner.put(&mut state, next));
        }
        changed
    }

    /// Deletes policies that were applied. An empty kind is any.
    pub(super) fn delete(&self, keys: &[Key], dry_run: bool) -> Changed {
        let inner = &self.0;
        let mut state = inner.lock();
        let mut next = state.applied.clone();
        let mut changed = Changed::default();
        for key in keys {
            let found = next.found(key);
            if found.is_empty() {
                changed.problems.extend(inner.not_applied(&state, key));
                changed.changes.push((key.clone(), Done::NotThere));
            }
            for key in found {
                next.remove(&key);
                changed.changes.push((key, Done::Deleted));
            }
        }
        if !dry_run && !changed.is_refused() {
            changed.problems.extend(inner.put(&mut state, next));
        }
        changed
    }

    /// Puts all policies out of force for a while; zero: back in force. Returns the end in unix seconds, 0 for none.
    ///
    /// # Errors
    /// The pause is too long or cannot be kept on disk.
    pub(super) fn pause(&self, length: Duration, reason: &str) -> Result<u64, String> {
        if length > LONGEST {
            return Err(format!("at most {} hours", LONGEST.as_secs() / 3600));
        }
        let inner = &self.0;
        let mut state = inner.lock();
        let pause = (!length.is_zero()).then(|| Pause::starting(length, reason.to_owned()));
        if let Some(file) = inner.kept("pause") {
            pause::store(&file, pause.as_ref())
                .map_err(|error| format!("cannot keep it in {}: {error}", file.display()))?;
        }
        match &pause {
            Some(_) => inner.notice(format!(
                "ALL POLICIES ARE OFF for {}: {reason}",
                yaml::Span(length)
            )),
            None if state.pause.is_some() => {
                inner.notice(format!("policies are in force again: {reason}"));
            }
            None => {}
        }
        state.pause = pause;
        let until = state.pause.as_ref().map_or(0, |pause| pause.until_unix);
        inner.settle(&mut state);
        drop(state);
        // The end that `run` waits for is another one now.
        self.reread();
        Ok(until)
    }

    /// Whether a policy of this key was applied, and as what.
    pub(super) fn applied(&self, key: &Key) -> Option<serde_json::Value> {
        let state = self.0.lock();
        if !state.applied.has(key) {
            return None;
        }
        let good = state.good.last()?;
        let policy = good
            .policies
            .iter()
            .find(|policy| Key::of(policy) == *key)?;
        Some(object(policy))
    }

    pub(super) fn set(&self) -> std::sync::Arc<CurrentSet> {
        self.0.current.borrow().clone()
    }
}

impl Inner {
    /// Keeps applied policies and puts them in force; what stands against it.
    fn put(&self, state: &mut State, next: Applied) -> Option<Problem> {
        if self.data_dir.is_some()
            && let Err(error) = next.save()
        {
            let message = format!("cannot keep it on disk, nothing was changed: {error}");
            return Some(Problem::whole_file("applied", message));
        }
        state.applied = next;
        let texts = state.applied.texts();
        if let Some(good) = state.good.last_mut() {
            good.take(Reading {
                texts,
                ..Reading::default()
            });
        }
        self.settle(state);
        None
    }

    /// A policy of another source cannot be applied over.
    fn elsewhere(&self, state: &State, policy: &Policy) -> Option<Problem> {
        let key = Key::of(policy);
        let (_, others) = state.good.split_last()?;
        let mut others = others.iter().flat_map(|good| &good.policies);
        let other = others.find(|other| Key::of(other) == key)?;
        let message = format!(
            "policy {} comes from {}; change it there, or give this one another name",
            policy.name, other.file
        );
        Some(Problem {
            line: policy.line,
            ..Problem::whole_file(&policy.file, message)
        })
    }

    /// What of another source was asked to be deleted.
    fn not_applied(&self, state: &State, key: &Key) -> Option<Problem> {
        let is = |policy: &&Policy| policy.name == key.name && policy.namespace == key.namespace;
        let mut all = state.good.iter().flat_map(|good| &good.policies);
        let other = all.find(is)?;
        let message = format!(
            "policy {} comes from {}; delete it there",
            key.name, other.file
        );
        Some(Problem::whole_file(&other.file, message))
    }
}

impl Changed {
    /// Nothing was done, for one reason.
    pub(super) fn because(message: &str) -> Changed {
        Changed::refused(Problem::whole_file("", message))
    }
}
