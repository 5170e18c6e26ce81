//! `relay.log`: where events are kept.

use exporters::WhenFull;
use exporters::kafka::{Connection, Sasl, WITHOUT};
use exporters::tls::ClientTls;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use yaml::{Node, Problem};

use super::Config;

/// The topic, unless another is named.
const TOPIC: &str = "cresset-log";

/// Partitions of a topic that the relay makes: so many relays can share the work of a sink.
const PARTITIONS: u32 = 12;

/// Where events are kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// `journal`: files in the data folder. `kafka`: a topic that any number of relays share.
    #[serde(rename = "type")]
    pub kind: LogKind,
    /// Kafka: brokers to begin with, as `HOST:PORT`. Required there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub brokers: Vec<String>,
    /// Kafka: the topic; the relay makes it where there is none. Not given: `cresset-log`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Kafka: partitions of a topic that the relay makes. Not given: 12.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partitions: Option<u32>,
    /// Kafka: copies of each partition of a topic that the relay makes. Not given: what the brokers do by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replication: Option<u32>,
    /// Kafka: name and password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sasl: Option<Sasl>,
    /// Kafka: encryption. Not given: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClientTls>,
}

/// The kinds of log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogKind {
    /// Files in the data folder.
    #[default]
    Journal,
    /// A Kafka topic.
    Kafka,
}

impl LogConfig {
    /// How the brokers are reached.
    #[must_use]
    pub fn connection(&self) -> Connection {
        Connection {
            brokers: self.brokers.clone(),
            sasl: self.sasl.clone(),
            tls: self.tls.clone(),
        }
    }

    /// The topic's name.
    #[must_use]
    pub fn topic(&self) -> &str {
        self.topic.as_deref().unwrap_or(TOPIC)
    }

    /// Partitions of a topic that is made.
    #[must_use]
    pub fn partitions(&self) -> u32 {
        self.partitions.unwrap_or(PARTITIONS)
    }
}

/// Adds every problem of `relay.log`, and of what does not go with it.
pub(super) fn check(config: &Config, root: &Node, problems: &mut Vec<Problem>) {
    let log = &config.relay.log;
    let mut say = |path: &str, message: &str| problems.push(root.problem_at(path, message));
    if log.kind == LogKind::Journal {
        let journal = LogConfig::default();
        if *log != journal {
            say(
                "relay.log",
                "a journal has neither brokers nor a topic; take them out, or write `type: kafka`",
            );
        }
        return;
    }
    if cfg!(not(feature = "kafka")) {
        say("relay.log.type", WITHOUT);
        return;
    }
    if let Some(message) = topic_problem(log.topic()) {
        say("relay.log.topic", &message);
    }
    if !(1..=1000).contains(&log.partitions()) {
        say("relay.log.partitions", "use 1 to 1000");
    }
    if log.replication.is_some_and(|n| !(1..=100).contains(&n)) {
        say("relay.log.replication", "use 1 to 100");
    }
    for (name, sink) in &config.sinks {
        if sink.common().when_full == WhenFull::Refuse {
            say(
                &format!("sinks.{name}.when_full"),
                "a log in Kafka keeps events as long as its topic says, whatever a sink has taken; leave this out and give the topic a longer retention",
            );
        }
    }
    if let Some(node) = root.get("relay").and_then(|relay| relay.get("log")) {
        log.connection().check(node, problems);
    }
}

/// Kafka's own rule for names (`org.apache.kafka.common.internals.Topic`).
fn topic_problem(topic: &str) -> Option<String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let good =
        (1..=249).contains(&topic.len()) && topic.chars().all(fits) && !matches!(topic, "." | "..");
    (!good).then(|| format!("`{topic}` is no topic; use 1 to 249 of a-z, A-Z, 0-9, `.`, `_`, `-`"))
}
