//! Where policies come from, and the last good reading of each place.
//!
//! ```text
//! folder ─┐                         good: parsed, without errors     ┐
//! git ────┼─▶ Reading ─▶ Good::take ─▶ broken: the last good stays   ├─▶ merged ─▶ compiled
//! offered ┘             (per source)   and its problems are told     ┘
//! ```
//! A source is good or bad as a whole: half a folder is not a smaller set of policies but another one. A bad source does
//! not hold back the others.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use policy::{Loader, Policy};
use yaml::{Problem, Severity};

use super::folder::{Folder, Reading, Text};
use super::git::Git;

/// A source as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceConfig {
    /// A folder with its subfolders.
    Folder(PathBuf),
    /// A checkout, held against a branch.
    Git {
        /// The checkout, or a folder in it.
        path: PathBuf,
        /// The branch that it should be at, as in `origin/main`; none: what its own branch follows.
        branch: Option<String>,
    },
    /// What another part of the program hands over, under this name.
    Offered(String, Offer),
}

/// The seam for sources that are no files here, such as an upstream relay or custom resources of Kubernetes: their texts,
/// replaced whole. Until they come for the first time the last good ones of an earlier life are in force.
#[derive(Clone, Debug, Default)]
pub struct Offer(Arc<Mutex<Offered>>);

#[derive(Debug, Default)]
struct Offered {
    /// None: not heard of yet.
    texts: Option<Vec<Text>>,
    trouble: Option<String>,
}

impl PartialEq for Offer {
    fn eq(&self, other: &Offer) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Offer {}

impl Offer {
    /// Names and texts of all its policies, from now on. The set is read again after [`Handle::reread`](super::Handle::reread).
    pub fn replace(&self, texts: Vec<(String, String)>) {
        let texts = texts.into_iter().map(|(file, text)| Text { file, text });
        *self.lock() = Offered {
            texts: Some(texts.collect()),
            trouble: None,
        };
    }

    /// Nothing new is heard of it; what was heard last stays. False: that is known already.
    pub fn trouble(&self, why: String) -> bool {
        let before = self.lock().trouble.replace(why);
        before != self.lock().trouble
    }

    fn lock(&self) -> MutexGuard<'_, Offered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, name: &str, reading: &mut Reading) {
        let offered = self.lock();
        match &offered.texts {
            Some(texts) => reading.texts.clone_from(texts),
            None => reading.missing = true,
        }
        reading
            .problems
            .extend(offered.trouble.as_ref().map(|why| Problem {
                severity: Severity::Warning,
                ..Problem::whole_file(name, why.clone())
            }));
    }
}

/// A source that is read.
#[derive(Clone, Debug)]
pub(super) enum Source {
    Folder(Folder),
    Git(Git),
    Offered(String, Offer),
}

impl Source {
    pub(super) fn new(config: SourceConfig) -> Source {
        match config {
            SourceConfig::Folder(path) => Source::Folder(Folder::new(path)),
            SourceConfig::Git { path, branch } => Source::Git(Git::new(path, branch)),
            SourceConfig::Offered(name, offer) => Source::Offered(name, offer),
        }
    }

    /// What it is called, the same at every start.
    pub(super) fn name(&self) -> String {
        match self {
            Source::Folder(folder) => folder.to_string(),
            Source::Git(git) => git.to_string(),
            Source::Offered(name, _) => name.clone(),
        }
    }

    /// The folder in which changes are to be looked for.
    pub(super) fn folder(&self) -> Option<Folder> {
        match self {
            Source::Folder(folder) => Some(folder.clone()),
            Source::Git(git) => Some(git.folder()),
            Source::Offered(..) => None,
        }
    }

    pub(super) fn read(&self) -> Reading {
        let mut reading = Reading::default();
        match self {
            Source::Folder(folder) => folder.read(&mut reading),
            Source::Git(git) => git.read(&mut reading),
            Source::Offered(name, offer) => offer.read(name, &mut reading),
        }
        reading
    }
}

/// The last good reading of a source, and what is wrong with a newer one.
#[derive(Clone, Debug, Default)]
pub(super) struct Good {
    pub(super) texts: Vec<Text>,
    pub(super) policies: Vec<Policy>,
    /// Warnings about them.
    wrong: Vec<Problem>,
    /// Of the newest reading.
    pub(super) problems: Vec<Problem>,
    /// The newest reading is the good one.
    pub(super) current: bool,
    /// There was nothing to read, and never was.
    pub(super) absent: bool,
    /// What to say of it behind its name: the commit of a checkout.
    pub(super) about: String,
    /// Reads only what changed.
    loader: Loader,
}

impl Good {
    /// Texts that were good once.
    pub(super) fn kept(texts: Vec<Text>) -> Good {
        let mut loader = Loader::default();
        let (policies, _) = parse(&mut loader, &texts);
        Good {
            texts,
            policies,
            loader,
            ..Good::default()
        }
    }

    /// Takes a reading in if it is good, else only what is wrong with it.
    pub(super) fn take(&mut self, reading: Reading) {
        let Reading {
            texts,
            mut problems,
            missing,
            about,
        } = reading;
        self.about = about;
        let unchanged = self.current && texts == self.texts;
        let parsed = (!unchanged).then(|| parse(&mut self.loader, &texts));
        let wrong = parsed.as_ref().map_or(&self.wrong, |(_, wrong)| wrong);
        problems.extend(wrong.iter().cloned());
        let broken = problems.iter().any(Problem::is_error);
        self.absent = missing && self.policies.is_empty();
        self.current = !broken && (!missing || self.absent);
        if self.current
            && let Some((policies, wrong)) = parsed
        {
            (self.texts, self.policies, self.wrong) = (texts, policies, wrong);
        }
        self.problems = problems;
    }
}

fn parse(loader: &mut Loader, texts: &[Text]) -> (Vec<Policy>, Vec<Problem>) {
    loader.load(texts.iter().map(|text| (&*text.file, &*text.text)))
}
