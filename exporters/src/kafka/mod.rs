//! Records in Kafka topics, one topic a kind of event.
//!
//! ```text
//! send(batch) ─▶ record: topic, key, headers, value ─▶ lane: one producer, one batch at a time ─▶ brokers
//!      ▲                                                  │ a delivery report for every record
//!      └── Done · Retry · Refuse ◀── verdict ◀────────────┘
//! ```
//!
//! | part of a record | what it is |
//! |---|---|
//! | topic | by kind: `kubearmor-alerts`, `kubearmor-syslogs`, `kubearmor-messages`, as KubeArmor's Kafka client names them |
//! | key | the workload: `NAMESPACE/POD`, or the node for what belongs to no pod |
//! | headers | `event-id` (32 hex digits), `kind` (`alert`, `log`, `message`), `schema` (`feeder.Alert+json`, …) |
//! | value | the JSON that all sinks share, or the protobuf message with the event id in field 100 |
//!
//! Decisions:
//! - **Done is a delivery report** of an idempotent producer with `acks=all`, never less. librdkafka keeps nothing over from
//!   one batch to the next: what has no report in time is purged with its producer and sent again by the fan-out.
//! - **Order** is kept for every key. One batch is on its way at a time, and what fails of it, fails from some record of the
//!   partition on, because a producer that has given up is never used again. (One exception: see the next point.)
//! - **Too large** is what a broker says of all records of a request together. They are sent again one by one before any is
//!   refused, and the next requests are made smaller.
//! - **A topic that does not exist** or may not be written holds its events back, with the reason in the status; nothing is
//!   rejected, and everything goes on once it is there.
//! - **Keys find the same partitions** as those of the Java client (`murmur2`).
//! - A record's time is when it was sent: brokers refuse and delete by it. The event's own time is in the value.

#[cfg(not(feature = "kafka"))]
mod absent;
mod connection;
#[cfg(feature = "kafka")]
mod lane;
#[cfg(feature = "kafka")]
mod lookup;
#[cfg(feature = "kafka")]
mod record;
#[cfg(feature = "kafka")]
mod sink;
#[cfg_attr(
    not(feature = "kafka"),
    allow(dead_code, reason = "without the client templates are only checked")
)]
mod template;
#[cfg(feature = "kafka")]
mod trial;
#[cfg(feature = "kafka")]
mod verdict;

use std::time::Duration;

use proto::{FieldSet, Kind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use yaml::{Node, Problem, Span};

#[cfg(not(feature = "kafka"))]
pub use absent::Kafka;
pub use connection::{Connection, Mechanism, Sasl};
#[cfg(feature = "kafka")]
pub use {
    connection::{BadConnection, Client},
    sink::Kafka,
};

use self::template::{Template, topic_problem};
use crate::config::{BatchLimits, Defaults};
use crate::tls::ClientTls;

config! {
    /// Settings of a `kafka` sink.
    pub struct Config {
        /// Brokers to begin with, as `HOST:PORT`; they name the others. Required.
        pub brokers: Vec<String>,
        /// Where each kind of event goes.
        pub topics: Topics,
        /// So many topics may come out of the templates; further events go where every word is `other`. Not given: 100.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub max_topics: Option<u32>,
        /// What decides on a record's partition; records of one key stay in order. Not given: `{workload}`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub key: Option<String>,
        /// What a record's value is.
        pub format: Format,
        /// How values travel and are stored.
        pub compression: Compression,
        /// What is not delivered after this long without any delivery is sent again. Not given: 30s.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub timeout: Option<Span>,
        /// Name and password.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub sasl: Option<Sasl>,
        /// Encryption. Not given: none.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub tls: Option<ClientTls>,
    }
}

/// One batch at a time keeps the order. A large one keeps the brokers busy, and one that is larger than the processor's caches
/// is read from memory by every thread that it passes.
pub(crate) static DEFAULTS: Defaults = Defaults {
    batch: BatchLimits {
        max_events: 2000,
        max_bytes: 8 << 20,
        max_delay: Duration::from_millis(50),
    },
    concurrency: 1,
    max_concurrency: 1,
    fields: FieldSet::KubeArmor,
};

#[cfg(feature = "kafka")]
const MAX_TOPICS: u32 = 100;
#[cfg(feature = "kafka")]
const KEY: &str = "{workload}";
#[cfg(feature = "kafka")]
const TIMEOUT: Duration = Duration::from_secs(30);

/// Where each kind of event goes: names, or templates with words such as `{namespace}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Topics {
    /// Alerts.
    pub alert: String,
    /// Logs.
    pub log: String,
    /// Messages.
    pub message: String,
}

impl Default for Topics {
    fn default() -> Self {
        Topics {
            alert: "kubearmor-alerts".to_owned(),
            log: "kubearmor-syslogs".to_owned(),
            message: "kubearmor-messages".to_owned(),
        }
    }
}

impl Topics {
    fn by_kind(&self) -> [(Kind, &'static str, &str); 3] {
        [
            (Kind::Alert, "topics.alert", &self.alert),
            (Kind::Log, "topics.log", &self.log),
            (Kind::Message, "topics.message", &self.message),
        ]
    }
}

/// What a record's value is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One object, as KubeArmor's relay writes it.
    #[default]
    Json,
    /// `feeder.Alert`, `feeder.Log` or `feeder.Message`.
    Protobuf,
}

/// How values travel and are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// As they are.
    None,
    /// Cheap for both ends.
    #[default]
    Lz4,
    /// Smallest for its price.
    Zstd,
    /// For old readers.
    Gzip,
    /// For old readers.
    Snappy,
}

impl Compression {
    #[cfg(feature = "kafka")]
    fn word(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
        }
    }
}

impl Config {
    /// Reports files and variables that are not there.
    pub(crate) fn look(&self, node: &Node, problems: &mut Vec<Problem>) {
        self.connection().look(node, problems);
    }

    pub(crate) fn check(&self, node: &Node, problems: &mut Vec<Problem>) {
        if cfg!(not(feature = "kafka")) {
            problems.push(node.problem_at("type", WITHOUT));
        }
        self.connection().check(node, problems);
        let mut wrong = |path: &str, message: String| problems.push(node.problem_at(path, message));
        for (_, path, text) in self.topics.by_kind() {
            if let Some(message) = topic_problem(text) {
                wrong(path, message);
            }
        }
        if let Some(message) = self
            .key
            .as_deref()
            .and_then(|key| Template::parse(key).err())
        {
            wrong("key", message.to_string());
        }
        if self.max_topics.is_some_and(|n| !(1..=10_000).contains(&n)) {
            wrong("max_topics", "use 1 to 10000".to_owned());
        }
        if self.timeout.is_some_and(|Span(t)| {
            !(Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&t)
        }) {
            wrong("timeout", "use 1s to 1h".to_owned());
        }
    }

    fn connection(&self) -> Connection {
        Connection {
            brokers: self.brokers.clone(),
            sasl: self.sasl.clone(),
            tls: self.tls.clone(),
        }
    }
}

/// What a program without librdkafka says.
pub const WITHOUT: &str =
    "this program was built without Kafka; build it with the cargo feature `kafka`";

#[cfg(test)]
mod tests {
    use yaml::Severity;

    use crate::SinkConfig;

    fn problems(text: &str) -> Vec<String> {
        let (nodes, mut problems) = yaml::parse("c.yaml", text);
        let _ = SinkConfig::read(&nodes[0], Severity::Error, &mut problems);
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    #[cfg(feature = "kafka")]
    fn the_shortest_settings_are_one_broker() {
        assert_eq!(problems("{type: kafka, brokers: ['a:9092']}"), [""; 0]);
    }

    #[test]
    #[cfg(not(feature = "kafka"))]
    fn a_program_without_kafka_says_so() {
        let told = problems("{type: kafka, brokers: ['a:9092']}");
        assert!(told[0].contains("cargo feature `kafka`"), "{told:?}");
    }

    #[test]
    #[cfg(feature = "kafka")]
    fn every_problem_is_told_with_its_line() {
        let told = problems(
            "type: kafka\nbrokers: ['a b']\ntopics:\n  alert: alerts/{namespace}\n  log: logs-{namespce}\nkey: '{pod'\nmax_topics: 0\ntimeout: 0s\nsasl: {mechanism: PLAIN}\ntls:\n  server_name: x\nconcurrency: 2\n",
        );
        let all = told.join("\n");
        for (line, part) in [
            (2, "a b"),
            (4, "`/`"),
            (5, "did you mean `{namespace}`?"),
            (6, "`}`"),
            (7, "10000"),
            (8, "1h"),
            (9, "username"),
            (9, "password_file"),
            (11, "server_name"),
            (12, "one batch at a time"),
        ] {
            assert!(
                told.iter()
                    .any(|p| p.starts_with(&format!("c.yaml:{line}:")) && p.contains(part)),
                "line {line}, {part}: {all}"
            );
        }
    }

    #[test]
    #[cfg(feature = "kafka")]
    fn a_password_that_others_can_read_is_warned_of() {
        let text = |broker: &str| {
            format!(
                "{{type: kafka, brokers: ['{broker}'], sasl: {{mechanism: PLAIN, username: u, password_file: /p}}}}"
            )
        };
        assert!(problems(&text("kafka:9092"))[0].contains("add `tls`"));
        assert_eq!(problems(&text("127.0.0.1:9092")), [""; 0]);
    }
}
