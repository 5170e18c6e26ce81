//! The settings of a sink: a `type`, the keys that all sinks have, and the sink's own.
//!
//! ```yaml
//! archive:                      # the sink's name: its cursor, its dead letters, its metrics
//!   type: file
//!   path: /var/log/events.jsonl # the sink's own keys
//!   filter: {kinds: [alert]}    # from here on: every sink's keys
//!   sample: {log: 0.1}
//!   redact: [{field: arguments, match: '(?i)token=\S+', replace: '***'}]
//!   batch: {max_events: 1000, max_bytes: 1MiB, max_delay: 50ms}
//!   concurrency: 1
//!   retry: {initial: 500ms, max: 30s, budget_percent: 20}
//!   when_full: expire
//!   start: end
//!   fields: kubearmor
//!   dead_letters: {max_size: 1GiB}
//! ```
//!
//! What is written is kept as it is (absent means absent); [`SinkConfig::common`] fills in the sink's own defaults. The
//! `config!` macro repeats the common keys in every sink's struct instead of flattening one struct into the others,
//! because serde buffers what it flattens and a problem would lose its line.

use std::time::Duration;

use proto::FieldSet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use yaml::{Node, Problem, Severity, Size, Span};

use crate::Carried;
use crate::filter::{Filter, FilterConfig};
use crate::redact::{self, Redact, Redaction};
use crate::sample::{Sample, SampleConfig};
use crate::{
    BuildError, Context, Sink, elasticsearch, file, kafka, loki, otlp, prometheus, stdout, syslog,
    upstream, webhook,
};

/// Declares a sink's `Config`: its own keys, then those of all sinks.
macro_rules! config {
    (
        $(#[$doc:meta])*
        pub struct Config { $( $(#[$field_doc:meta])* pub $field:ident: $ty:ty, )* }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        pub struct Config {
            $( $(#[$field_doc])* pub $field: $ty, )*
            /// Which events go here. Nothing said: all.
            pub filter: $crate::FilterConfig,
            /// The share of them that goes here, by kind. Nothing said: all.
            pub sample: $crate::SampleConfig,
            /// What is taken out of their texts.
            #[serde(skip_serializing_if = "Vec::is_empty")]
            pub redact: Vec<$crate::Redaction>,
            /// How many events go together.
            pub batch: $crate::BatchConfig,
            /// Batches on their way at once.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub concurrency: Option<u32>,
            /// How long to wait before the destination is tried again.
            pub retry: $crate::RetryConfig,
            /// What happens when the journal is full and this sink lags.
            pub when_full: $crate::WhenFull,
            /// Where a sink that is new begins.
            pub start: $crate::Start,
            /// Which fields JSON shows.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub fields: Option<$crate::Fields>,
            /// Events that the destination refuses for good.
            pub dead_letters: $crate::DeadLettersConfig,
        }

        impl Config {
            pub(crate) fn common(&self) -> $crate::Common {
                $crate::config::Written {
                    filter: &self.filter,
                    sample: self.sample,
                    redact: &self.redact,
                    batch: &self.batch,
                    concurrency: self.concurrency,
                    retry: &self.retry,
                    when_full: self.when_full,
                    start: self.start,
                    fields: self.fields,
                    dead_letters: &self.dead_letters,
                }
                .complete(&DEFAULTS)
            }
        }
    };
}

/// The list of all sinks: what it is, the word after `type`, its module with `Config`, `DEFAULTS` and a type of the same
/// name as the variant.
macro_rules! sinks {
    ($( $(#[cfg($on:meta)])? #[doc = $doc:literal] $word:literal => $module:ident::$sink:ident; )+) => {
        /// The settings of one sink. `type` says which.
        #[allow(clippy::large_enum_variant, reason = "there is one for each sink of the settings, made once")]
        #[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
        #[serde(tag = "type")]
        pub enum SinkConfig {
            $( $(#[cfg($on)])? #[doc = $doc] #[serde(rename = $word)] $sink($module::Config), )+
        }

        yaml::tagged! { SinkConfig { $( $(#[cfg($on)])? $word => $sink ),+ } }

        impl SinkConfig {
            /// The word after `type`.
            #[must_use]
            pub fn kind(&self) -> &'static str {
                match self { $( $(#[cfg($on)])? SinkConfig::$sink(_) => $word, )+ }
            }

            /// What all sinks have, with this sink's defaults where nothing is written.
            #[must_use]
            pub fn common(&self) -> Common {
                match self { $( $(#[cfg($on)])? SinkConfig::$sink(config) => config.common(), )+ }
            }

            fn check_own(&self, node: &Node, problems: &mut Vec<Problem>) {
                match self { $( $(#[cfg($on)])? SinkConfig::$sink(config) => config.check(node, problems), )+ }
            }

            /// Reports files and variables that the settings name and that are not there, or are not what they should be: what
            /// else would be found when the sink is made, without its line. `node` is where the settings stand.
            pub fn look(&self, node: &Node, problems: &mut Vec<Problem>) {
                match self { $( $(#[cfg($on)])? SinkConfig::$sink(config) => config.look(node, problems), )+ }
            }

            fn redactions(&self) -> &[Redaction] {
                match self { $( $(#[cfg($on)])? SinkConfig::$sink(config) => &config.redact, )+ }
            }

            fn defaults(&self) -> &'static Defaults {
                match self { $( $(#[cfg($on)])? SinkConfig::$sink(_) => &$module::DEFAULTS, )+ }
            }
        }

        /// Makes the sink that the settings describe. Its destination need not be there yet.
        ///
        /// # Errors
        /// The settings cannot work in this program: two sinks claim the same metrics, say.
        pub fn build(
            name: &str,
            config: &SinkConfig,
            context: &Context,
        ) -> Result<Box<dyn Sink>, BuildError> {
            Ok(match config {
                $( $(#[cfg($on)])? SinkConfig::$sink(config) => {
                    Box::new($module::$sink::build(name, config, context)?)
                } )+
            })
        }
    };
}

sinks! {
    /// This program's standard output.
    "stdout" => stdout::Stdout;
    /// A file that is rotated.
    "file" => file::File;
    /// Counters on this program's `/metrics`.
    "prometheus" => prometheus::Prometheus;
    /// Topics of a Kafka cluster.
    "kafka" => kafka::Kafka;
    /// OpenTelemetry logs, to a collector.
    "otlp" => otlp::Otlp;
    /// Syslog: JSON, CEF or LEEF.
    "syslog" => syslog::Syslog;
    /// Any HTTP endpoint: chat, paging, OCSF, a template.
    "webhook" => webhook::Webhook;
    /// Grafana Loki.
    "loki" => loki::Loki;
    /// Another relay.
    "relay" => upstream::Upstream;
    /// Elasticsearch, each event once.
    "elasticsearch" => elasticsearch::Elasticsearch;
    /// OpenSearch, each event once.
    "opensearch" => elasticsearch::OpenSearch;
}

impl SinkConfig {
    /// Reads the settings of one sink and reports everything that is wrong with them. `Some` may come with problems: do
    /// not use it if one of them is an error.
    pub fn read(node: &Node, unknown: Severity, problems: &mut Vec<Problem>) -> Option<Self> {
        let config: SinkConfig = node.read(unknown, problems)?;
        let read = problems.len();
        config.check(node, problems);
        yaml::drop_echoes(problems, read);
        Some(config)
    }

    /// Reports what the types cannot: values out of range, keys that are missing. `node` is where the settings stand.
    pub fn check(&self, node: &Node, problems: &mut Vec<Problem>) {
        let most = self.defaults().max_concurrency;
        check_common(&self.common(), most, self.kind(), node, problems);
        for (at, message) in redact::problems(self.redactions()) {
            problems.push(node.problem_at(&format!("redact[{at}].match"), message));
        }
        self.check_own(node, problems);
    }
}

/// Why a word cannot be a sink's name, if it cannot: the name is also a cursor, a folder and a metric label.
#[must_use]
pub fn name_problem(name: &str) -> Option<String> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    let good = (1..=63).contains(&name.len())
        && name.bytes().all(fits)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric());
    (!good).then(|| {
        format!("`{name}` cannot name a sink; use 1 to 63 of a-z 0-9 - _, a letter or digit first")
    })
}

/// What all sinks have, ready for use.
#[derive(Clone, Debug)]
pub struct Common {
    /// Which events go here.
    pub filter: Filter,
    /// The share of them.
    pub sample: Sample,
    /// What is taken out of them.
    pub redact: Redact,
    /// How many go together.
    pub batch: BatchLimits,
    /// Batches on their way at once, at least 1.
    pub concurrency: usize,
    /// Back-off.
    pub retry: Retry,
    /// Batches that may be sent again, in percent of those that the destination took lately.
    pub retry_budget_percent: u16,
    /// What a full journal does to a sink that lags.
    pub when_full: WhenFull,
    /// Where a new sink begins.
    pub start: Start,
    /// Which fields JSON shows.
    pub fields: FieldSet,
    /// Bound of the dead letters on disk, in bytes.
    pub dead_letters_max_size: u64,
}

impl Common {
    /// The event as the sink gets it, or none if it is not for this sink.
    #[must_use]
    pub fn outgoing(&self, event: Carried) -> Option<Carried> {
        let wanted = self.filter.wants(event.event()) && self.sample.keeps(event.event());
        wanted.then(|| self.redact.event(event))
    }
}

/// A batch goes when one of these is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Events.
    pub max_events: usize,
    /// Bytes of protobuf payload. One event larger than this still goes, alone.
    pub max_bytes: usize,
    /// Since the first event of the batch was read; zero: what is there goes at once.
    pub max_delay: Duration,
}

/// Full-jitter back-off: a wait is drawn evenly from nothing up to a bound that doubles from `initial` to `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// First bound.
    pub initial: Duration,
    /// Last bound.
    pub max: Duration,
}

/// What a sink's module says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    /// Batches.
    pub batch: BatchLimits,
    /// Batches on their way at once.
    pub concurrency: u32,
    /// The most that `concurrency` may be set to; 1 for sinks that keep the journal's order or have a snapshot.
    pub max_concurrency: u32,
    /// Fields of JSON.
    pub fields: FieldSet,
}

/// How many events go together; what is absent is the sink's own default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BatchConfig {
    /// At most so many events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_events: Option<u32>,
    /// At most so many bytes of payload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<Size>,
    /// A batch that is not full goes after this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_delay: Option<Span>,
}

/// Back-off while a destination is away: waits are random, up to a bound that doubles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetryConfig {
    /// The first bound.
    pub initial: Span,
    /// The last bound.
    pub max: Span,
    /// Batches that may be sent again, in percent of those that the destination took in the last ten seconds, besides ten a
    /// second; one goes every `max` all the same.
    pub budget_percent: u16,
}

impl Default for RetryConfig {
    fn default() -> Self {
        RetryConfig {
            initial: Span(Duration::from_millis(500)),
            max: Span(Duration::from_secs(30)),
            budget_percent: 20,
        }
    }
}

/// Events that a destination refuses for good are kept on disk, oldest out first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DeadLettersConfig {
    /// At most so much.
    pub max_size: Size,
}

impl Default for DeadLettersConfig {
    fn default() -> Self {
        DeadLettersConfig {
            max_size: Size(1 << 30),
        }
    }
}

/// What happens when the journal has reached its size and a sink still lags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WhenFull {
    /// The oldest events go, and are counted as expired for this sink.
    #[default]
    Expire,
    /// New events are refused until this sink has caught up.
    Refuse,
}

/// Where a sink begins that was not in the settings before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// With the next event.
    #[default]
    End,
    /// With the oldest event in the journal.
    Beginning,
}

/// Which fields JSON shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Fields {
    /// KubeArmor's own: exactly what its client prints.
    Kubearmor,
    /// Ours too: event id, rule id, tier, argv and more.
    All,
}

impl From<Fields> for FieldSet {
    fn from(fields: Fields) -> FieldSet {
        match fields {
            Fields::Kubearmor => FieldSet::KubeArmor,
            Fields::All => FieldSet::All,
        }
    }
}

/// The common keys of one sink as they were written.
pub(crate) struct Written<'a> {
    pub(crate) filter: &'a FilterConfig,
    pub(crate) sample: SampleConfig,
    pub(crate) redact: &'a [Redaction],
    pub(crate) batch: &'a BatchConfig,
    pub(crate) concurrency: Option<u32>,
    pub(crate) retry: &'a RetryConfig,
    pub(crate) when_full: WhenFull,
    pub(crate) start: Start,
    pub(crate) fields: Option<Fields>,
    pub(crate) dead_letters: &'a DeadLettersConfig,
}

impl Written<'_> {
    pub(crate) fn complete(self, defaults: &Defaults) -> Common {
        let BatchConfig {
            max_events,
            max_bytes,
            max_delay,
        } = *self.batch;
        let batch = BatchLimits {
            max_events: max_events.map_or(defaults.batch.max_events, |n| n as usize),
            max_bytes: max_bytes.map_or(defaults.batch.max_bytes, saturating),
            max_delay: max_delay.map_or(defaults.batch.max_delay, |Span(delay)| delay),
        };
        let RetryConfig {
            initial,
            max,
            budget_percent,
        } = self.retry;
        Common {
            filter: Filter::new(self.filter.clone()),
            sample: Sample::new(self.sample),
            redact: Redact::new(self.redact),
            batch,
            concurrency: self.concurrency.unwrap_or(defaults.concurrency) as usize,
            retry: Retry {
                initial: initial.0,
                max: max.0,
            },
            retry_budget_percent: *budget_percent,
            when_full: self.when_full,
            start: self.start,
            fields: self.fields.map_or(defaults.fields, FieldSet::from),
            dead_letters_max_size: self.dead_letters.max_size.0,
        }
    }
}

fn saturating(Size(bytes): Size) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Largest batch in bytes: what one sink may hold in memory, times its concurrency.
const MAX_BATCH_BYTES: usize = 256 << 20;
/// Smallest room for dead letters: two segments of the journal that holds them.
pub(crate) const MIN_DEAD_LETTERS: u64 = 8 << 20;

/// Ten times what was taken: no budget any more.
const MAX_BUDGET: u16 = 1000;

fn check_common(
    common: &Common,
    max_concurrency: u32,
    kind: &str,
    node: &Node,
    problems: &mut Vec<Problem>,
) {
    let mut wrong = |path: &str, message: String| problems.push(node.problem_at(path, message));
    let BatchLimits {
        max_events,
        max_bytes,
        ..
    } = common.batch;
    if !(1..=100_000).contains(&max_events) {
        wrong(
            "batch.max_events",
            format!("{max_events} events; use 1 to 100000"),
        );
    }
    if !(1..=MAX_BATCH_BYTES).contains(&max_bytes) {
        wrong(
            "batch.max_bytes",
            format!("{max_bytes} bytes; use up to 256MiB"),
        );
    }
    if common.concurrency == 0 || common.concurrency > max_concurrency as usize {
        wrong(
            "concurrency",
            match max_concurrency {
                1 => format!("a {kind} sink takes one batch at a time; leave this key out"),
                most => format!("{}; use 1 to {most}", common.concurrency),
            },
        );
    }
    if common.retry.initial.is_zero() || common.retry.initial > common.retry.max {
        wrong(
            "retry.initial",
            "must be above zero and not above `retry.max`".to_owned(),
        );
    }
    if common.retry_budget_percent > MAX_BUDGET {
        wrong(
            "retry.budget_percent",
            format!("{}; use 0 to {MAX_BUDGET}", common.retry_budget_percent),
        );
    }
    if common.dead_letters_max_size < MIN_DEAD_LETTERS {
        wrong("dead_letters.max_size", "use 8MiB or more".to_owned());
    }
    if let Some(severity) = common.filter.severity_out_of_range() {
        wrong(
            "filter.min_severity",
            format!("{severity} is no severity; use 1 to 10, or 0 for any"),
        );
    }
    if let Some((key, share)) = common.sample.out_of_range() {
        let message = format!("{share} is no share; use above 0 and up to 1 (0.1: one in ten)");
        wrong(key, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Option<SinkConfig>, Vec<String>) {
        let (nodes, mut problems) = yaml::parse("c.yaml", text);
        let config = SinkConfig::read(&nodes[0], Severity::Error, &mut problems);
        (config, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn keys_that_are_absent_take_the_sinks_own_defaults() {
        let (config, problems) =
            read("{type: file, path: /x, batch: {max_events: 7}, fields: all}");
        assert_eq!(problems, [""; 0]);
        let common = config.unwrap().common();
        assert_eq!(common.batch.max_events, 7);
        assert_eq!(common.batch.max_bytes, file::DEFAULTS.batch.max_bytes);
        assert_eq!(common.fields, FieldSet::All);
        assert_eq!(common.retry.max, Duration::from_secs(30));
    }

    #[test]
    fn every_problem_is_told_with_its_line() {
        let (_, problems) = read(
            "type: file\nbatch:\n  max_events: 0\nconcurrency: 4\nretry: {initial: 2m}\nformt: json\nfilter: {min_severity: 11}\n",
        );
        let lines: Vec<&str> = problems.iter().map(|p| &p[..9]).collect();
        assert_eq!(
            lines,
            [
                "c.yaml:6:",
                "c.yaml:3:",
                "c.yaml:4:",
                "c.yaml:5:",
                "c.yaml:7:",
                "c.yaml:1:"
            ]
            .map(|l| &l[..9]),
            "{problems:#?}"
        );
        assert!(
            problems[0].contains("did you mean `format`?"),
            "{}",
            problems[0]
        );
        assert!(problems[5].contains("path"), "{}", problems[5]);
    }

    #[test]
    fn a_key_that_cannot_be_read_is_told_once_by_its_line_and_its_words() {
        let (_, problems) =
            read("type: webhook\nurl: http://127.0.0.1:1/\nshape: slak\ntemplate: [x]\n");
        assert_eq!(problems.len(), 2, "{problems:#?}");
        assert!(
            problems[0].starts_with("c.yaml:3: shape: unknown value `slak`; did you mean `slack`?")
                && problems[0].contains("`falcosidekick`"),
            "{}",
            problems[0]
        );
        let (_, problems) = read("type: kafka\nbrokers: [{host: a}]\n");
        assert_eq!(problems.len(), 1, "{problems:#?}");
        assert!(
            problems[0].starts_with("c.yaml:2: brokers[0]"),
            "{problems:?}"
        );
    }

    #[test]
    fn an_unknown_type_is_told_with_the_known_ones() {
        let (config, problems) = read("type: kafkaesque\n");
        assert!(config.is_none());
        assert!(problems[0].starts_with("c.yaml:1: type:"), "{problems:?}");
    }

    #[test]
    fn settings_survive_a_round_through_their_text_form() {
        let (config, _) = read("{type: stdout, format: text, filter: {kinds: [alert]}}");
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(read(&json).0, config, "{json}");
    }

    #[test]
    fn names_that_are_no_folder_and_no_label_are_refused() {
        for bad in ["", "a/b", "..", "A", "-a", "ä", &"x".repeat(64)] {
            assert!(name_problem(bad).is_some(), "{bad}");
        }
        for good in ["console", "siem-2", "0_x"] {
            assert_eq!(name_problem(good), None);
        }
    }
}
