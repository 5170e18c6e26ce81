//! The `sources` section: where events come from besides Cresset's own sensors.
//!
//! ```yaml
//! old-daemons:                           # the source's name, in status and metrics
//!   type: kubearmor
//!   addresses: ["127.0.0.1:32767", "https://node-b:32767"]    # one a daemon
//!   tls: {ca_file: ca.crt, cert_file: client.crt, key_file: client.key, server_name: node-b}
//!   insecure: false                      # plaintext from another machine
//! ```

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use yaml::{Node, Problem};

/// The settings of one source. `type` says which.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum SourceConfig {
    /// KubeArmor daemons, or whatever else serves `feeder.LogService`.
    KubeArmor(KubeArmor),
}

yaml::tagged! { SourceConfig { "kubearmor" => KubeArmor } }

/// Daemons that are read as KubeArmor's relay reads them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KubeArmor {
    /// `HOST:PORT` of each daemon; names are resolved at every connection. A daemon that stands here twice, under two
    /// names for example, gives its events twice.
    pub addresses: Vec<String>,
    /// Certificates. With them every address is encrypted that does not say `http://`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<SourceTls>,
    /// Plaintext from other machines, where whoever is in between can read and change events.
    pub insecure: bool,
}

/// PEM files for connections to daemons, read again at every connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceTls {
    /// The authorities that may sign a daemon's certificate.
    pub ca_file: PathBuf,
    /// This relay's certificate chain; KubeArmor's daemons want one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    /// The key of that certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// The name in the daemons' certificates. Default: the host of the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
}

impl SourceConfig {
    /// The word after `type`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            SourceConfig::KubeArmor(_) => "kubearmor",
        }
    }

    /// Reports what the types cannot. `node` is where the settings stand.
    pub(crate) fn check(&self, node: &Node, problems: &mut Vec<Problem>) {
        match self {
            SourceConfig::KubeArmor(config) => config.check(node, problems),
        }
    }

    /// The addresses as they were written.
    pub(crate) fn addresses(&self) -> &[String] {
        match self {
            SourceConfig::KubeArmor(config) => &config.addresses,
        }
    }
}

impl KubeArmor {
    fn check(&self, node: &Node, problems: &mut Vec<Problem>) {
        let mut say = |path: &str, message: String| problems.push(node.problem_at(path, message));
        if self.addresses.is_empty() {
            say(
                "addresses",
                "no address; write [\"HOST:PORT\"], one a daemon".to_owned(),
            );
        }
        for (index, text) in self.addresses.iter().enumerate() {
            let path = format!("addresses[{index}]");
            match Address::read(text, self.tls.is_some()) {
                Err(error) => say(&path, error.to_string()),
                Ok(address) if address.tls && self.tls.is_none() => {
                    say(
                        &path,
                        format!("{text} needs tls with a ca_file beside addresses"),
                    );
                }
                Ok(address) if !address.tls && !address.is_local() && !self.insecure => say(
                    &path,
                    format!(
                        "plaintext from {text} can be read and changed on its way; give tls, or write insecure: true beside addresses"
                    ),
                ),
                Ok(_) => {}
            }
        }
        if let Some(tls) = &self.tls
            && tls.cert_file.is_some() != tls.key_file.is_some()
        {
            say(
                "tls",
                "a certificate and its key go together; give cert_file and key_file".to_owned(),
            );
        }
    }
}

/// One daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: bool,
}

/// Text that is no address of a daemon.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no address of a daemon; write HOST:PORT, http://HOST:PORT or https://HOST:PORT")]
pub(super) struct BadAddress(String);

impl Address {
    /// Reads `HOST:PORT`, encrypted if there are `certificates`, or an address that says so itself.
    pub(super) fn read(text: &str, certificates: bool) -> Result<Self, BadAddress> {
        let bad = || BadAddress(text.to_owned());
        let (tls, rest) = match text.split_once("://") {
            None => (certificates, text),
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some(_) => return Err(bad()),
        };
        let (host, port) = rest
            .trim_end_matches('/')
            .rsplit_once(':')
            .ok_or_else(bad)?;
        let port = u16::from_str(port)
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(bad)?;
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let fits = match bare {
            Some(host) => host.parse::<IpAddr>().is_ok(),
            None => {
                !host.is_empty()
                    && host
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b))
            }
        };
        let host = bare.unwrap_or(host).to_owned();
        if fits {
            Ok(Self { host, port, tls })
        } else {
            Err(bad())
        }
    }

    /// `localhost` is loopback by RFC 6761; other names could resolve to anything.
    fn is_local(&self) -> bool {
        let ip = self.host.parse::<IpAddr>();
        self.host.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_what_people_write() {
        let read = |text: &str, certificates| {
            Address::read(text, certificates)
                .map(|address| (address.to_string(), address.tls))
                .ok()
        };
        let of = |text: &str, tls| Some((text.to_owned(), tls));
        assert_eq!(read("127.0.0.1:32767", false), of("127.0.0.1:32767", false));
        assert_eq!(read("node-a.example:1", true), of("node-a.example:1", true));
        assert_eq!(read("http://node-a:1", true), of("node-a:1", false));
        assert_eq!(read("https://[::1]:9/", false), of("[::1]:9", true));
        for bad in [
            "",
            "node",
            "node:",
            "node:0",
            "node:99999",
            ":1",
            "ftp://node:1",
            "a b:1",
            "[node]:1",
            "::1:9",
        ] {
            assert_eq!(read(bad, false), None, "{bad}");
        }
    }

    #[test]
    fn what_cannot_work_is_said_with_its_place() {
        let told = |text: &str| -> Vec<String> {
            let (documents, _) = yaml::parse("c.yaml", text);
            let mut problems = Vec::new();
            let config: Option<SourceConfig> =
                documents[0].read(yaml::Severity::Error, &mut problems);
            if let Some(config) = config {
                config.check(&documents[0], &mut problems);
            }
            problems.iter().map(ToString::to_string).collect()
        };
        let says = |text: &str, word: &str| {
            let told = told(text);
            assert!(
                told.iter().any(|line| line.contains(word)),
                "no {word} in {told:?} for {text}"
            );
        };
        says("type: kubearmor", "addresses: no address");
        says(
            "{type: kubearmor, addresses: [nowhere]}",
            "addresses[0]: `nowhere` is no address",
        );
        says(
            "{type: kubearmor, addresses: ['10.0.0.1:1']}",
            "insecure: true",
        );
        says("{type: kubearmor, addresses: ['https://a:1']}", "needs tls");
        says(
            "{type: kubearmor, addresses: ['a:1'], tls: {ca_file: /c, cert_file: /d}}",
            "go together",
        );
        says(
            "{type: kubearmor, addreses: []}",
            "did you mean `addresses`?",
        );
        says("{type: kubearmour}", "kubearmor");
        for good in [
            "{type: kubearmor, addresses: ['127.0.0.1:32000', 'localhost:1']}",
            "{type: kubearmor, addresses: ['10.0.0.1:1'], insecure: true}",
            "{type: kubearmor, addresses: ['a:1'], tls: {ca_file: /c}}",
        ] {
            assert_eq!(told(good), [""; 0], "{good}");
        }
    }
}
