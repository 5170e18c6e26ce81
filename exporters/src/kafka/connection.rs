//! How a program reaches a Kafka cluster: brokers, name and password, encryption. The sink and the relay's log share it.

use std::net::IpAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use yaml::{Node, Problem, Severity};

use crate::secret::Keys;
use crate::tls::ClientTls;

/// Brokers, and what they want to know of a client.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Connection {
    /// `HOST:PORT` of brokers to begin with.
    pub brokers: Vec<String>,
    /// Name and password.
    pub sasl: Option<Sasl>,
    /// Encryption; none without.
    pub tls: Option<ClientTls>,
}

/// Name and password, and how they are told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sasl {
    /// `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.
    pub mechanism: Mechanism,
    /// The name. Required.
    pub username: String,
    /// A file that holds the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// An environment variable that holds the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_env: Option<String>,
}

/// How name and password are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Mechanism {
    /// The password itself: only where the connection is encrypted.
    #[serde(rename = "PLAIN")]
    Plain,
    /// A proof of the password (RFC 5802, RFC 7677).
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// The same with the longer hash.
    #[default]
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

impl Sasl {
    pub(super) fn password(&self) -> Keys<'_> {
        Keys {
            name: "sasl.password",
            file: self.password_file.as_deref(),
            env: self.password_env.as_deref(),
        }
    }

    fn check(&self, open: bool, node: &Node, problems: &mut Vec<Problem>) {
        self.password().check(node, problems);
        if self.username.is_empty() {
            problems.push(node.problem_at("sasl.username", "is missing"));
        }
        if self.password().source().is_none() {
            let message = "is missing; name a file that holds the password alone";
            problems.push(node.problem_at("sasl.password_file", message));
        }
        if open && self.mechanism == Mechanism::Plain {
            problems.push(Problem {
                severity: Severity::Warning,
                ..node.problem_at(
                    "sasl.mechanism",
                    "PLAIN sends the password readable for all in between; add `tls`, or use SCRAM-SHA-512",
                )
            });
        }
    }
}

impl Connection {
    /// Reports files and variables that are not there. librdkafka reads the certificates, and more kinds of them than this program.
    pub fn look(&self, node: &Node, problems: &mut Vec<Problem>) {
        if let Some(sasl) = &self.sasl {
            sasl.password().look(node, problems);
        }
        if let Some(tls) = &self.tls {
            tls.look_for_files("tls", node, problems);
        }
    }

    /// Reports what cannot work. `node` is where `brokers`, `sasl` and `tls` stand.
    pub fn check(&self, node: &Node, problems: &mut Vec<Problem>) {
        if self.brokers.is_empty() {
            let message =
                "is missing; name a broker or several, as in `brokers: [\"kafka-0:9092\"]`";
            problems.push(node.problem_at("brokers", message));
        }
        for (n, broker) in self.brokers.iter().enumerate() {
            if !is_address(broker) {
                let message = format!("`{broker}` is no address; write HOST:PORT");
                problems.push(node.problem_at(&format!("brokers[{n}]"), message));
            }
        }
        if let Some(sasl) = &self.sasl {
            let open = self.tls.is_none() && !self.brokers.iter().all(|broker| is_near(broker));
            sasl.check(open, node, problems);
        }
        if let Some(tls) = &self.tls {
            tls.check("tls", node, problems);
            if tls.server_name.is_some() {
                let message =
                    "brokers are known by the hosts that they advertise; leave this key out";
                problems.push(node.problem_at("tls.server_name", message));
            }
        }
    }
}

/// Host and port, of which the port may be missing.
fn parts(broker: &str) -> (&str, Option<&str>) {
    match broker.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
        _ => (broker, None),
    }
}

/// Kafka's own port.
#[cfg(feature = "kafka")]
const PORT: u16 = 9092;

#[cfg(feature = "kafka")]
impl Connection {
    /// Hosts and ports of the brokers to begin with.
    pub(super) fn hosts(&self) -> Vec<(String, u16)> {
        let host = |broker: &String| {
            let (host, port) = parts(broker);
            let port = port.and_then(|port| port.parse().ok());
            (host.to_owned(), port.unwrap_or(PORT))
        };
        self.brokers.iter().map(host).collect()
    }
}

fn is_address(broker: &str) -> bool {
    let (host, port) = parts(broker);
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '[' | ']' | ':');
    !host.is_empty()
        && host.chars().all(fits)
        && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

fn is_near(broker: &str) -> bool {
    let host = parts(broker).0.trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(feature = "kafka")]
pub use client::{BadConnection, Client};

#[cfg(feature = "kafka")]
mod client {
    use rdkafka::config::{ClientConfig, RDKafkaLogLevel};

    use super::{Connection, Mechanism};
    use crate::secret::{BadSecret, Secret};

    /// A connection whose secrets are at hand.
    pub struct Client {
        connection: Connection,
        password: Option<Secret>,
    }

    /// A cluster that cannot be reached with these settings.
    #[derive(Debug, thiserror::Error)]
    pub enum BadConnection {
        /// The password cannot be read.
        #[error(transparent)]
        Secret(#[from] BadSecret),
        /// librdkafka does not take them: a file that is no certificate, say.
        #[error("{0}")]
        Refused(#[from] rdkafka::error::KafkaError),
    }

    impl Connection {
        /// Reads the secrets.
        ///
        /// # Errors
        /// The password cannot be read.
        pub fn open(self) -> Result<Client, BadConnection> {
            let keys = self.sasl.as_ref().map(|sasl| sasl.password().open());
            let password = keys.transpose()?.flatten();
            Ok(Client {
                connection: self,
                password,
            })
        }
    }

    impl Client {
        /// The brokers, for people.
        #[must_use]
        pub fn brokers(&self) -> String {
            self.connection.brokers.join(", ")
        }

        /// The way to the brokers.
        pub(in crate::kafka) fn connection(&self) -> &Connection {
            &self.connection
        }

        /// The password was refused: it is read again for the next client.
        pub fn refused(&self) {
            if let Some(password) = &self.password {
                password.refused();
            }
        }

        /// What every client of the cluster needs, with the password as it is now.
        #[must_use]
        pub fn config(&self) -> ClientConfig {
            let mut config = ClientConfig::new();
            config
                .set("bootstrap.servers", self.connection.brokers.join(","))
                .set("client.id", "cresset")
                .set("security.protocol", self.protocol())
                .set("socket.keepalive.enable", "true")
                .set("reconnect.backoff.max.ms", "2000")
                // What the client does is told by this program's own metrics.
                .set("enable.metrics.push", "false")
                .set_log_level(RDKafkaLogLevel::Warning);
            self.set_tls(&mut config);
            self.set_sasl(&mut config);
            config
        }

        fn protocol(&self) -> &'static str {
            let Connection { sasl, tls, .. } = &self.connection;
            match (sasl.is_some(), tls.is_some()) {
                (false, false) => "plaintext",
                (false, true) => "ssl",
                (true, false) => "sasl_plaintext",
                (true, true) => "sasl_ssl",
            }
        }

        fn set_tls(&self, config: &mut ClientConfig) {
            let Some(tls) = &self.connection.tls else {
                return;
            };
            for (key, file) in [
                ("ssl.ca.location", &tls.ca_file),
                ("ssl.certificate.location", &tls.cert_file),
                ("ssl.key.location", &tls.key_file),
            ] {
                if let Some(file) = file {
                    config.set(key, file.to_string_lossy());
                }
            }
            if tls.insecure_skip_verify {
                config.set("enable.ssl.certificate.verification", "false");
            }
        }

        fn set_sasl(&self, config: &mut ClientConfig) {
            let Some(sasl) = &self.connection.sasl else {
                return;
            };
            let mechanism = match sasl.mechanism {
                Mechanism::Plain => "PLAIN",
                Mechanism::ScramSha256 => "SCRAM-SHA-256",
                Mechanism::ScramSha512 => "SCRAM-SHA-512",
            };
            config
                .set("sasl.mechanism", mechanism)
                .set("sasl.username", &sasl.username);
            if let Some(password) = &self.password {
                config.set("sasl.password", password.current().expose());
            }
        }
    }
}
