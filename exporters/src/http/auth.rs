//! Who this program is at a destination: HTTP basic or a bearer token, the secret by file or environment.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use yaml::{Node, Problem};

use super::status::hidden;
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
    /// The header that carries the token as it is, as in `DD-API-KEY`. Default: `Authorization`, behind `Bearer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
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

    pub(crate) fn look(&self, node: &Node, problems: &mut Vec<Problem>) {
        self.password().look(node, problems);
        self.token().look(node, problems);
    }

    pub(crate) fn check(&self, node: &Node, problems: &mut Vec<Problem>) {
        self.password().check(node, problems);
        self.token().check(node, problems);
        let mut wrong = |message: &str| problems.push(node.problem_at("auth", message));
        let password = self.password().source().is_some();
        if self.username.is_some() != password {
            wrong("a username and a password_file (or password_env) go together");
        }
        let token = self.token().source().is_some();
        if password && token {
            wrong("a password and a token are two ways to say who this is; leave one out");
        }
        if let Some(header) = &self.header {
            if !token {
                wrong("header goes with a token_file (or token_env)");
            }
            if HeaderName::try_from(header).is_err() {
                wrong("this header is no name of a header");
            }
        }
    }
}

/// Credentials whose secrets are read.
pub(crate) enum Credentials {
    Nobody,
    Basic {
        username: String,
        password: Secret,
    },
    Bearer(Secret),
    /// In a header of its own.
    Key {
        header: HeaderName,
        token: Secret,
    },
}

impl Credentials {
    pub(crate) fn open(auth: &Auth) -> Result<Self, String> {
        let open = |keys: Keys<'_>| keys.open().map_err(|error| error.to_string());
        if let Some(token) = open(auth.token())? {
            let header = auth.header.as_ref().map(HeaderName::try_from).transpose();
            let header = header.map_err(|why| format!("auth.header: {why}"))?;
            return Ok(match header {
                Some(header) => Credentials::Key { header, token },
                None => Credentials::Bearer(token),
            });
        }
        Ok(match (auth.username.clone(), open(auth.password())?) {
            (Some(username), Some(password)) => Credentials::Basic { username, password },
            _ => Credentials::Nobody,
        })
    }

    /// Puts the header of the secret as it is now.
    pub(crate) fn put(&self, headers: &mut HeaderMap) -> Result<(), Unavailable> {
        if let Some((name, secret, text)) = self.header() {
            let mut value = HeaderValue::try_from(text).map_err(|_| {
                let place = secret.source();
                Unavailable::new(format!(
                    "the secret in {place} cannot stand in an HTTP header"
                ))
            })?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(())
    }

    fn header(&self) -> Option<(HeaderName, &Secret, String)> {
        match self {
            Credentials::Nobody => None,
            Credentials::Basic { username, password } => {
                let pair = format!("{username}:{}", password.current().expose());
                let text = format!("Basic {}", STANDARD.encode(pair));
                Some((AUTHORIZATION, password, text))
            }
            Credentials::Bearer(token) => {
                let text = format!("Bearer {}", token.current().expose());
                Some((AUTHORIZATION, token, text))
            }
            Credentials::Key { header, token } => {
                let text = token.current().expose().to_owned();
                Some((header.clone(), token, text))
            }
        }
    }

    /// The header's name and text, for protocols that carry it elsewhere than reqwest.
    pub(crate) fn carried(&self) -> Option<(HeaderName, String)> {
        self.header().map(|(name, _, text)| (name, text))
    }

    /// What must not be seen of them, in every form in which they are sent.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let (secret, sent) = match (self, self.header()) {
            (Credentials::Nobody, _) | (_, None) => return Vec::new(),
            (Credentials::Basic { .. }, Some((_, secret, text))) => {
                let encoded = text.split_once(' ').map(|(_, encoded)| encoded.to_owned());
                (secret, encoded)
            }
            (_, Some((_, secret, _))) => (secret, None),
        };
        let plain = secret.current().expose().to_owned();
        sent.into_iter().chain([plain]).collect()
    }

    /// What a destination said, without them.
    pub(crate) fn hide(&self, text: String) -> String {
        let secrets = self.secrets().into_iter();
        secrets.fold(text, |text, secret| hidden(&text, &secret).unwrap_or(text))
    }

    /// The destination refused them; true if there are others by now.
    pub(crate) fn refused(&self) -> bool {
        match self {
            Credentials::Nobody => false,
            Credentials::Basic {
                password: secret, ..
            }
            | Credentials::Bearer(secret)
            | Credentials::Key { token: secret, .. } => secret.refused(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let (nodes, mut problems) = yaml::parse("c.yaml", &format!("auth: {text}"));
        let auth: Auth = (nodes[0].get("auth").unwrap())
            .read(yaml::Severity::Error, &mut problems)
            .unwrap();
        auth.check(&nodes[0], &mut problems);
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_token_may_have_a_header_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        std::fs::write(&file, "s3cret\n").unwrap();
        let auth = Auth {
            token_file: Some(file),
            header: Some("DD-API-KEY".to_owned()),
            ..Auth::default()
        };
        let mut headers = HeaderMap::new();
        Credentials::open(&auth).unwrap().put(&mut headers).unwrap();
        assert_eq!(headers["dd-api-key"], "s3cret");
        assert!(headers["dd-api-key"].is_sensitive());
        assert_eq!(headers.len(), 1);
    }

    #[test]
    fn what_a_destination_repeats_of_them_is_taken_out() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        std::fs::write(&file, "s3cret\n").unwrap();
        let password = Auth {
            username: Some("me".to_owned()),
            password_file: Some(file.clone()),
            ..Auth::default()
        };
        let token = Auth {
            token_file: Some(file),
            ..Auth::default()
        };
        let hide = |auth: &Auth, text: &str| Credentials::open(auth).unwrap().hide(text.to_owned());
        assert_eq!(hide(&token, "no Bearer s3cret here"), "no Bearer *** here");
        assert_eq!(
            hide(&password, "no Basic bWU6czNjcmV0, no s3cret for me"),
            "no Basic ***, no *** for me"
        );
        assert_eq!(hide(&Auth::default(), "fine"), "fine");
    }

    #[test]
    fn a_header_without_a_token_or_with_a_bad_name_is_a_problem() {
        assert!(problems("{token_file: /f, header: DD-API-KEY}").is_empty());
        let [lonely] = &problems("{header: DD-API-KEY}")[..] else {
            panic!("one problem");
        };
        assert!(lonely.contains("header goes with a token_file"), "{lonely}");
        assert_eq!(problems("{token_file: /f, header: 'a b'}").len(), 1);
    }
}
