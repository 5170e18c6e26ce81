//! The settings of an `elasticsearch` or `opensearch` sink, and the client that they make.

use std::path::PathBuf;
use std::time::Duration;

use elasticsearch::http::Url;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use yaml::{Node, Problem, Span};

use super::DEFAULTS;
use super::client::{self, Client, Identity};
use super::index::IndexConfig;
use crate::http::Proxy;
use crate::secret::Keys;
use crate::tls::ClientTls;

config! {
    /// Settings of an `elasticsearch` or `opensearch` sink.
    pub struct Config {
        /// Addresses of the nodes, as in `https://es-0:9200`. Required. Requests go to those that answer, in turn.
        pub endpoints: Vec<String>,
        /// Who this program is: an API key, or a user and a password. A client certificate stands in `tls`.
        pub auth: Auth,
        /// Certificates, for endpoints that begin with `https://`.
        pub tls: ClientTls,
        /// A proxy in between.
        pub proxy: Proxy,
        /// Where events go, and how long they stay.
        pub index: IndexConfig,
        /// `gzip` makes requests several times smaller, for some of this machine's time.
        pub compression: Compression,
        /// An answer is waited for so long. Not given: 60s.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub request_timeout: Option<Span>,
    }
}

/// How the sink proves who it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// File with an API key: `ID:KEY`, or that in base64 as Kibana shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key_file: Option<PathBuf>,
    /// Environment variable with an API key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key_env: Option<String>,
    /// A user, with a password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// File with the user's password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// Environment variable with the user's password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_env: Option<String>,
}

/// Whether requests are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// They are not.
    #[default]
    None,
    /// `Content-Encoding: gzip`.
    Gzip,
}

const TIMEOUT: Duration = Duration::from_secs(60);

impl Auth {
    fn api_key(&self) -> Keys<'_> {
        Keys {
            name: "auth.api_key",
            file: self.api_key_file.as_deref(),
            env: self.api_key_env.as_deref(),
        }
    }

    fn password(&self) -> Keys<'_> {
        Keys {
            name: "auth.password",
            file: self.password_file.as_deref(),
            env: self.password_env.as_deref(),
        }
    }

    fn check(&self, node: &Node, problems: &mut Vec<Problem>) {
        self.api_key().check(node, problems);
        self.password().check(node, problems);
        let (key, password) = (self.api_key().source(), self.password().source());
        let mut wrong = |key: &str, message: &str| problems.push(node.problem_at(key, message));
        match (&self.username, &password) {
            (Some(_), None) => wrong(
                "auth.username",
                "needs a password; give password_file or password_env, too",
            ),
            (None, Some(_)) => wrong("auth", "a password needs its user; give username, too"),
            (Some(name), _) if name.contains(':') => {
                wrong("auth.username", "no user's name holds a colon")
            }
            _ => {}
        }
        if key.is_some() && (self.username.is_some() || password.is_some()) {
            wrong("auth", "there is an API key and a user; keep one of them");
        }
    }
}

impl Config {
    /// Reports files and variables that are not there.
    pub(crate) fn look(&self, node: &Node, problems: &mut Vec<Problem>) {
        self.auth.api_key().look(node, problems);
        self.auth.password().look(node, problems);
        self.tls.look("tls", node, problems);
        self.proxy.keys().look(node, problems);
    }

    pub(crate) fn check(&self, node: &Node, problems: &mut Vec<Problem>) {
        let mut wrong = |key: &str, message: String| problems.push(node.problem_at(key, message));
        if self.endpoints.is_empty() {
            wrong(
                "endpoints",
                "is missing; write where the server is, as in `endpoints: [\"https://es:9200\"]`"
                    .to_owned(),
            );
        }
        for (at, text) in self.endpoints.iter().enumerate() {
            if let Err(why) = url(text) {
                wrong(&format!("endpoints[{at}]"), why);
            }
        }
        if self.timeout() < Duration::from_millis(100) || self.timeout() > Duration::from_secs(3600)
        {
            wrong("request_timeout", "use 100ms to 1h".to_owned());
        }
        if self.tls.server_name.is_some() {
            wrong(
                "tls.server_name",
                "this sink goes by the names in `endpoints`; write there the name that the certificate has".to_owned(),
            );
        }
        self.auth.check(node, problems);
        self.tls.check("tls", node, problems);
        self.proxy.check(node, problems);
        self.index.check(node, problems);
    }

    fn timeout(&self) -> Duration {
        self.request_timeout.map_or(TIMEOUT, |Span(span)| span)
    }

    pub(super) fn client(&self) -> Result<Client, String> {
        Client::new(client::Settings {
            endpoints: self
                .endpoints
                .iter()
                .map(|text| url(text))
                .collect::<Result<_, _>>()?,
            tls: self.tls.clone(),
            proxy: self.proxy.clone(),
            timeout: self.timeout(),
            identity: self.identity()?,
        })
    }

    fn identity(&self) -> Result<Identity, String> {
        let open = |keys: Keys<'_>| keys.open().map_err(|error| error.to_string());
        if let Some(key) = open(self.auth.api_key())? {
            return Ok(Identity::ApiKey(key));
        }
        Ok(match (&self.auth.username, open(self.auth.password())?) {
            (Some(user), Some(password)) => Identity::Basic(user.clone(), password),
            _ => Identity::Anonymous,
        })
    }
}

fn url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| {
        format!("`{text}` is no address ({error}); write as in `https://es:9200`")
    })?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(format!(
            "`{text}` is no address; begin with http:// or https://"
        ));
    }
    if !url.username().is_empty() || url.password().is_some() {
        // Not shown: there is a password in it.
        return Err("holds a user or a password, which would be shown wherever the settings are; use `auth`".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("`{text}` has a query; write the address alone"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use crate::SinkConfig;

    fn problems(rest: &str) -> Vec<String> {
        let text = format!("{{type: elasticsearch, {rest}}}");
        let (nodes, mut problems) = yaml::parse("c.yaml", &text);
        let config = SinkConfig::read(&nodes[0], yaml::Severity::Error, &mut problems);
        if let Some(config) = config {
            let shown = serde_json::to_string(&config).unwrap();
            let (nodes, _) = yaml::parse("c.yaml", &shown);
            let again = SinkConfig::read(&nodes[0], yaml::Severity::Error, &mut Vec::new());
            assert_eq!(again, Some(config), "{shown}");
        }
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_settings_of_the_example_are_good() {
        let found = problems(
            "endpoints: ['https://es-0:9200', 'https://es-1:9200/path'], auth: {api_key_file: /k}, tls: {ca_file: /ca}, \
             proxy: {url: 'http://p:3128', username: u, password_file: /p}, index: {layout: data-stream, retention: 90d}, compression: gzip, request_timeout: 5s, \
             filter: {kinds: [alert, log], min_severity: 3}, batch: {max_events: 5000, max_bytes: 8MiB, max_delay: 1s}, concurrency: 4",
        );
        assert_eq!(found, [""; 0]);
        assert_eq!(
            problems("endpoints: ['http://[::1]:9200'], auth: {username: u, password_env: P}"),
            [""; 0]
        );
    }

    #[test]
    fn what_cannot_work_is_told_with_its_key() {
        let good = "endpoints: ['https://es:9200']";
        for (text, told) in [
            ("", "endpoints: is missing"),
            (
                "endpoints: ['es:9200']",
                "endpoints[0]: `es:9200` is no address",
            ),
            (
                "endpoints: ['https://']",
                "endpoints[0]: `https://` is no address",
            ),
            (
                "endpoints: ['https://u:hush@es:9200']",
                "endpoints[0]: holds a user or a password",
            ),
            ("endpoints: ['https://es:9200/?x=1']", "endpoints[0]: "),
            (
                "proxy: {url: 'socks5://x'}",
                "proxy.url: `socks5://x` is no address",
            ),
            (
                "proxy: {url: 'http://u:hush@p:1'}",
                "proxy.url: has a name or password in it",
            ),
            (
                "proxy: {url: 'https://p:1'}",
                "proxy.url: `https://p:1`: a proxy is spoken to without encryption",
            ),
            (
                "proxy: {username: u, password_env: P}",
                "proxy.url: is missing",
            ),
            ("auth: {username: u}", "auth.username: needs a password"),
            ("auth: {password_env: P}", "auth: a password needs its user"),
            (
                "auth: {api_key_env: K, username: u, password_env: P}",
                "auth: there is an API key and a user",
            ),
            ("tls: {server_name: x}", "tls.server_name: "),
            ("request_timeout: 1ms", "request_timeout: "),
            ("index: {alert: A}", "index.alert: "),
            ("concurrency: 65", "concurrency: "),
        ] {
            let whole = if text.starts_with("endpoints") || text.is_empty() {
                text.to_owned()
            } else {
                format!("{good}, {text}")
            };
            let found = problems(&whole);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(
                found[0].contains(told) && !found[0].contains("hush"),
                "{text}: {found:?}"
            );
        }
    }
}
