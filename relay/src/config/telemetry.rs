//! The `relay.telemetry` section: what the relay tells of itself beside status and metrics.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use yaml::{Node, Problem};

/// Log lines and traces.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// Log lines on standard error.
    pub log: LogLines,
    /// Where traces of batches go, in OpenTelemetry's protocol. Not given: there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traces: Option<Traces>,
}

/// Log lines on standard error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogLines {
    /// Which lines are written, as in `info` or `relay=debug,info`; can be changed while the relay runs. `--log` and
    /// `$RUST_LOG` go before it.
    pub level: String,
    /// How they look; takes effect at the start. `--log-format` goes before it.
    pub format: Format,
}

impl Default for LogLines {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: Format::default(),
        }
    }
}

/// How log lines look.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people; in colour on a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Traces of batches on their way from a sensor to the sinks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Traces {
    /// A collector that takes OTLP over gRPC, as in `http://127.0.0.1:4317`.
    pub endpoint: String,
    /// The share of batches that are traced, above 0 and up to 1.
    #[serde(default = "sample")]
    pub sample: f64,
}

fn sample() -> f64 {
    0.01
}

/// Adds what is wrong with the section.
pub(super) fn check(telemetry: &Telemetry, node: &Node, problems: &mut Vec<Problem>) {
    let mut say = |path: &str, message: String| problems.push(node.problem_at(path, message));
    let level = &telemetry.log.level;
    if let Err(error) = tracing_subscriber::EnvFilter::try_new(level) {
        say(
            "relay.telemetry.log.level",
            format!(
                "`{level}` is not a log filter: {error}; write as in `info` or `relay=debug,info`"
            ),
        );
    }
    let Some(traces) = &telemetry.traces else {
        return;
    };
    if !(traces.sample > 0.0 && traces.sample <= 1.0) {
        say(
            "relay.telemetry.traces.sample",
            "use a share above 0 and up to 1, as in 0.01".to_owned(),
        );
    }
    let good = traces
        .endpoint
        .strip_prefix("http://")
        .is_some_and(|rest| !rest.is_empty());
    if !good || traces.endpoint.parse::<tonic::transport::Uri>().is_err() {
        say(
            "relay.telemetry.traces.endpoint",
            format!(
                "`{}` is not an address without encryption, which is all that is spoken here; write as in http://127.0.0.1:4317 (a collector on this machine encrypts)",
                traces.endpoint
            ),
        );
    }
}
