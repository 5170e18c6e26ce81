//! The entries of `relay.access`, read: tokens by their digest, certificates by their name.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{AccessEntry, Door, Namespaces, Presented, Role};

/// A token that can be guessed is none.
const LEAST: usize = 16;

/// What one entry grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) namespaces: Namespaces,
}

/// A token file that is of no use.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// It cannot be read.
    #[error("cannot read the tokens in {path}: {source}; see relay.access")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is nothing in it.
    #[error("{0} holds no token; write one a line")]
    Empty(PathBuf),
    /// A token is too short.
    #[error(
        "{path}:{line}: a token of less than {LEAST} characters can be guessed; `openssl rand -hex 32` makes a good one"
    )]
    Short {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
    },
    /// The same token stands in two places.
    #[error(
        "{path}:{line}: this token stands in another file or line as well; every token means one entry"
    )]
    Twice {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
    },
}

/// All entries, ready to be asked. A token is looked up by its SHA-256, so how long that takes says nothing of the token.
#[derive(Debug, Default)]
pub(super) struct Rules {
    tokens: HashMap<[u8; 32], Grant>,
    certificates: HashMap<String, Grant>,
    anonymous: Option<Grant>,
}

impl Rules {
    pub(super) fn load(entries: &[AccessEntry]) -> Result<Self, AccessError> {
        let mut rules = Self::default();
        for entry in entries {
            let grant = |name: String| Grant {
                name,
                role: entry.role,
                namespaces: namespaces(&entry.namespaces),
            };
            if let Some(path) = &entry.token_file {
                let file = path.file_name().unwrap_or(path.as_os_str());
                let grant = grant(format!("token of {}", file.to_string_lossy()));
                rules.read(path, &grant)?;
            } else if let Some(name) = &entry.certificate {
                let grant = grant(format!("certificate {name}"));
                rules.certificates.insert(name.clone(), grant);
            } else {
                rules.anonymous = Some(grant("anonymous".to_owned()));
            }
        }
        Ok(rules)
    }

    fn read(&mut self, path: &Path, grant: &Grant) -> Result<(), AccessError> {
        let path = || path.to_owned();
        let text = fs::read_to_string(path()).map_err(|source| AccessError::Read {
            path: path(),
            source,
        })?;
        let tokens = (1..)
            .zip(text.lines().map(str::trim))
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let mut any = false;
        for (line, token) in tokens {
            any = true;
            if token.len() < LEAST {
                return Err(AccessError::Short { path: path(), line });
            }
            if self.tokens.insert(digest(token), grant.clone()).is_some() {
                return Err(AccessError::Twice { path: path(), line });
            }
        }
        if any {
            Ok(())
        } else {
            Err(AccessError::Empty(path()))
        }
    }

    pub(super) fn token(&self, token: &str) -> Option<&Grant> {
        self.tokens.get(&digest(token))
    }

    pub(super) fn certificate(&self, certificate: &Presented) -> Option<&Grant> {
        self.certificates.get(certificate.name())
    }

    pub(super) fn anonymous(&self) -> Option<&Grant> {
        self.anonymous.as_ref()
    }

    /// Are there entries for those who come to this door? Then nobody comes in without one.
    pub(super) fn speaks_of(&self, door: Door) -> bool {
        let grants = self.tokens.values().chain(self.certificates.values());
        grants
            .chain(&self.anonymous)
            .any(|grant| door.admits(grant.role))
    }

    pub(super) fn without_certificate(&self, door: Door) -> bool {
        let grants = self.tokens.values().chain(&self.anonymous);
        grants.into_iter().any(|grant| door.admits(grant.role))
    }
}

fn namespaces(names: &[String]) -> Namespaces {
    if names.is_empty() {
        return Namespaces::default();
    }
    Namespaces::only(names.iter().cloned())
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}
