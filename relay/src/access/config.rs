//! The `relay.access` section: who may do what.
//!
//! ```yaml
//! access:
//!   - {token_file: siem.token, role: reader, namespaces: [shop]}
//!   - {certificate: "spiffe://example.org/reader/siem", role: reader, namespaces: [shop]}
//!   - {anonymous: true, role: reader, namespaces: [public]}
//! ```

use std::fmt;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use yaml::{Node, Problem};

/// What somebody is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Pushes the events of its node and is told the rules.
    Sensor,
    /// Pushes the events of other sensors.
    Relay,
    /// Reads events.
    Reader,
    /// Reads everything.
    Admin,
}

impl Role {
    /// The role of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Sensor, Self::Relay, Self::Reader, Self::Admin]
            .into_iter()
            .find(|role| role.name() == name)
    }

    /// Its name in files, certificates and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sensor => "sensor",
            Self::Relay => "relay",
            Self::Reader => "reader",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Who, by exactly one of three keys, and what they may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccessEntry {
    /// Whoever knows a token of this file: one a line, at least 16 characters; lines with `#` are comments. It is read
    /// again when it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// Whoever has a certificate with this URI SAN or, where it has none, this common name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// Whoever says nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub anonymous: bool,
    /// What they are.
    pub role: Role,
    /// A reader sees the events of these namespaces only. Empty: of all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
}

/// Adds what the types let through; `node` is the whole document.
pub(crate) fn check(entries: &[AccessEntry], node: &Node, problems: &mut Vec<Problem>) {
    let mut anonymous = false;
    for (index, entry) in entries.iter().enumerate() {
        let mut say = |key: &str, message: &str| {
            let path = format!("relay.access[{index}]{key}");
            problems.push(node.problem_at(&path, message.to_owned()));
        };
        let ways = [
            entry.token_file.is_some(),
            entry.certificate.is_some(),
            entry.anonymous,
        ];
        if ways.into_iter().filter(|given| *given).count() != 1 {
            say(
                "",
                "who is meant? give one of token_file, certificate and anonymous: true",
            );
        }
        if !entry.namespaces.is_empty() && entry.role != Role::Reader {
            say(
                ".namespaces",
                "only a reader can be limited to namespaces; take them out, or write role: reader",
            );
        }
        if entry.namespaces.iter().any(String::is_empty) {
            say(".namespaces", "an empty name is no namespace; take it out");
        }
        if entry.anonymous && entry.role != Role::Reader {
            say(".role", "who says nothing can be a reader and no more");
        }
        if entry.anonymous && std::mem::replace(&mut anonymous, true) {
            say(".anonymous", "stands here twice; keep one");
        }
    }
}
