//! Who this program is at a destination: HTTP basic or a bearer token, the secret by file or environment.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use yaml::{Node, Problem};

use crate::Unavailable;
use crate::secret::{Keys, Secret};

/// Credentials for HTTP: a username and a password, or a token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// Basic authentication.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// A file with the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// A variable with the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_env: Option<String>,
    /// A file with a bearer token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// A variable with a bearer token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_env: Option<String>,
}

impl Auth {
    fn password(&self) -> Keys<'_> {
        Keys {
            name: "auth.password",
            file: self.password_file.as_deref(),
            env: self.password_env.as_deref(),
        }
    }

    fn token(&self) -> Keys<'_> {
        Keys {
            name: "auth.token",
            file: self.token_file.as_deref(),
            env: self.token_env.as_deref(),
        }
    }

    pub(crate) fn check(&self, node: &Node, problems: &mut Vec<Problem>) {
        self.password().check(node, problems);
        self.token().check(node, problems);
        let mut wrong = |message: &str| problems.push(node.problem_at("auth", message));
        let password = self.password().source().is_some();
        if self.username.is_some() != password {
            wrong("a username and a password_file (or password_env) go together");
        }
        if password && self.token().source().is_some() {
            wrong("a password and a token are two ways to say who this is; leave one out");
        }
    }
}

/// Credentials whose secrets are read.
pub(crate) enum Credentials {
    Nobody,
    Basic { username: String, password: Secret },
    Bearer(Secret),
}

impl Credentials {
    pub(crate) fn open(auth: &Auth) -> Result<Self, String> {
        let open = |keys: Keys<'_>| keys.open().map_err(|error| error.to_string());
        if let Some(token) = open(auth.token())? {
            return Ok(Credentials::Bearer(token));
        }
        Ok(match (auth.username.clone(), open(auth.password())?) {
            (Some(username), Some(password)) => Credentials::Basic { username, password },
            _ => Credentials::Nobody,
        })
    }

    /// Puts the header of the secret as it is now.
    pub(crate) fn put(&self, headers: &mut HeaderMap) -> Result<(), Unavailable> {
        if let Some((secret, text)) = self.header() {
            let mut value = HeaderValue::try_from(text).map_err(|_| {
                let place = secret.source();
                Unavailable::new(format!(
                    "the secret in {place} cannot stand in an HTTP header"
                ))
            })?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(())
    }

    fn header(&self) -> Option<(&Secret, String)> {
        match self {
            Credentials::Nobody => None,
            Credentials::Basic { username, password } => {
                let pair = format!("{username}:{}", password.current().expose());
                Some((password, format!("Basic {}", STANDARD.encode(pair))))
            }
            Credentials::Bearer(token) => {
                let text = format!("Bearer {}", token.current().expose());
                Some((token, text))
            }
        }
    }

    /// The header's text, for protocols that carry it elsewhere than reqwest.
    pub(crate) fn authorization(&self) -> Option<String> {
        self.header().map(|(_, text)| text)
    }

    /// The destination refused them; true if there are others by now.
    pub(crate) fn refused(&self) -> bool {
        match self {
            Credentials::Nobody => false,
            Credentials::Basic {
                password: secret, ..
            }
            | Credentials::Bearer(secret) => secret.refused(),
        }
    }
}
