//! Policies out of files, compiled: what the commands without a relay work on.

use std::collections::BTreeMap;
use std::path::PathBuf;

use policy::{Moment, Policy, RuleSet, Set};
use prost::Message;
use proto::rules::{self, PolicyBlob};
use proto::{Digest, RuleId};
use yaml::Problem;

use super::files::{self, Wanted};
use super::report::line;
use crate::connect::Trouble;

/// What files hold.
pub(super) struct Loaded {
    /// How many files there were.
    pub(super) files: usize,
    /// Those free of errors.
    pub(super) policies: Vec<Policy>,
    pub(super) problems: Vec<Problem>,
}

impl Loaded {
    /// Reads files and folders.
    ///
    /// # Errors
    /// A path that is not there. What is wrong with what is there is in `problems`.
    pub(super) fn read(paths: &[PathBuf]) -> Result<Loaded, Trouble> {
        let read = files::read(paths, Wanted::Policies)?;
        if read.files() == 0 {
            let names: Vec<String> = paths
                .iter()
                .map(|path| path.display().to_string())
                .collect();
            return Err(Trouble::Local(format!(
                "no policy files in {}; *.yaml, *.yml and *.json are read",
                names.join(", ")
            )));
        }
        let (policies, mut problems) = policy::load(read.named());
        let files = read.files();
        problems.extend(read.problems);
        Ok(Loaded {
            files,
            policies,
            problems,
        })
    }

    /// Reads files that must be without errors. Warnings, that a policy has ended among them, go to standard error: what
    /// follows is about less than was written.
    ///
    /// # Errors
    /// As [`Loaded::read`]; errors in the content, every one.
    pub(super) fn sound(paths: &[PathBuf]) -> Result<Loaded, Trouble> {
        let loaded = Loaded::read(paths)?;
        let lines = |errors: bool| -> String {
            let told = loaded.problems.iter();
            told.filter(|problem| problem.is_error() == errors)
                .map(line)
                .collect()
        };
        let ended = policy::ended(&loaded.policies, now());
        let ended: String = ended.iter().map(line).collect();
        eprint!("{}{ended}", lines(false));
        match lines(true) {
            none if none.is_empty() => Ok(loaded),
            errors => Err(Trouble::Local(errors.trim_end().to_owned())),
        }
    }

    /// The policies, compiled under these postures.
    ///
    /// # Errors
    /// A set that a sensor would refuse, with its reasons.
    pub(super) fn compile(&self, postures: &rules::Postures) -> Result<Compiled, Trouble> {
        Compiled::new(policy::compile(&self.policies, postures))
    }
}

/// The time, for policies that end.
pub(super) fn now() -> Moment {
    Moment::from(std::time::SystemTime::now())
}

/// A set as a sensor has it, with what its rules are called.
pub(super) struct Compiled {
    pub(super) ruleset: RuleSet,
    pub(super) set: Set,
    /// In the order of title.
    pub(super) blobs: Vec<PolicyBlob>,
    names: BTreeMap<RuleId, (usize, usize)>,
}

impl Compiled {
    /// Takes a set in as a sensor does.
    ///
    /// # Errors
    /// The reasons for which a sensor would refuse it.
    pub(super) fn new(ruleset: RuleSet) -> Result<Compiled, Trouble> {
        let set = Set::from_wire(&ruleset.manifest, &ruleset.blobs)
            .map_err(|refused| Trouble::Local(refused.to_string()))?;
        let blobs = ruleset.blobs.values();
        let mut blobs: Vec<PolicyBlob> = blobs
            .filter_map(|blob| PolicyBlob::decode(blob.clone()).ok())
            .collect();
        blobs.sort_by_key(|blob| (blob.namespace.clone(), blob.name.clone(), blob.kind.clone()));
        let mut names = BTreeMap::new();
        for (at, blob) in blobs.iter().enumerate() {
            let rules = blob.rules.iter().enumerate();
            names.extend(rules.map(|(rule, wire)| (RuleId(wire.id), (at, rule))));
        }
        Ok(Compiled {
            ruleset,
            set,
            blobs,
            names,
        })
    }

    /// The set's digest.
    pub(super) fn digest(&self) -> Digest {
        // A compiled manifest carries its 32 bytes.
        Digest::try_from(&self.ruleset.manifest.digest[..]).unwrap_or(Digest([0; 32]))
    }

    /// The policy and the rule of this id.
    pub(super) fn rule(&self, id: RuleId) -> Option<(&PolicyBlob, &rules::Rule)> {
        let (blob, rule) = *self.names.get(&id)?;
        let blob = self.blobs.get(blob)?;
        Some((blob, blob.rules.get(rule)?))
    }

    /// The name of the policy of a rule, as alerts have it.
    pub(super) fn policy_of(&self, id: RuleId) -> &str {
        self.rule(id).map_or("", |(blob, _)| &blob.name)
    }
}

/// `namespace/name`, or the name alone.
pub(super) fn title(blob: &PolicyBlob) -> String {
    if blob.namespace.is_empty() {
        blob.name.clone()
    } else {
        format!("{}/{}", blob.namespace, blob.name)
    }
}
