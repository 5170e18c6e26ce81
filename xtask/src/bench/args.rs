//! The arguments of `cargo xtask bench`, and those of the program that it builds.
#![allow(
    dead_code,
    reason = "xtask and the programs that it builds each use their part"
)]

use std::path::PathBuf;

use clap::ValueEnum;

/// What to measure, and how.
#[derive(Clone, clap::Args)]
pub(crate) struct RelayArgs {
    /// Cases; none: all
    #[arg(value_enum)]
    cases: Vec<Case>,
    /// Only rows whose name has this in it
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) rows: String,
    /// How long each row is measured
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) seconds: u64,
    /// Write the figures here as well
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// The journal that `backlog` starts with, in GiB
    #[arg(long, default_value_t = 2.0)]
    pub(crate) gib: f64,
    /// Policies of `distribute`
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub(crate) policies: u32,
    /// Sensors of `distribute`
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) sensors: u32,
    /// `sinks` also with the real Kafka and Elasticsearch of the tests (Java, downloaded once)
    #[arg(long)]
    pub(crate) real: bool,
    /// Of the generator; the same events for the same seed
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Measure this relay [default: the one of this checkout, built with --release]
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) program: Option<PathBuf>,
    /// Put journals and files here [default: bench in the build folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) folder: Option<PathBuf>,
}

/// A case.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Case {
    /// Events in, on disk, acknowledged; no sinks, no readers
    Ingest,
    /// Every kind of sink that there is
    Sinks,
    /// 1 to 64 clients of feeder.LogService
    Feeds,
    /// 1, 10, 50 and 100 thousand events a second
    Paced,
    /// Five times what the relay can take
    Overload,
    /// A start with a large journal, and sinks that catch up
    Backlog,
    /// Nothing happens
    Idle,
    /// One policy of 5,000 is edited under 1,000 sensors
    Distribute,
}

impl RelayArgs {
    /// Only this case.
    pub(crate) fn only(mut self, case: Case) -> RelayArgs {
        self.cases = vec![case];
        self
    }

    /// Those named, else all.
    pub(crate) fn cases(&self) -> Vec<Case> {
        if self.cases.is_empty() {
            Case::value_variants().to_vec()
        } else {
            self.cases.clone()
        }
    }
}

/// Which sinks to measure, and how.
#[derive(clap::Args)]
pub(crate) struct SinksArgs {
    /// Sinks; none: all
    #[arg(value_enum)]
    cases: Vec<SinkCase>,
    /// How long each row is measured
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) seconds: u64,
    /// Also against the real Kafka and Elasticsearch of the tests (Java, downloaded once)
    #[arg(long)]
    pub(crate) real: bool,
    /// Write the figures here as well
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Put files here [default: bench in the build folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) folder: Option<PathBuf>,
}

/// A sink, alone, without a relay around it.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SinkCase {
    /// Bulk requests
    Elasticsearch,
    /// Records, with delivery reports
    Kafka,
    /// OpenTelemetry logs, over gRPC and HTTP
    Otlp,
    /// Pushes
    Loki,
    /// Events as they are, and messages with counts
    Webhook,
    /// Over TCP
    Syslog,
    /// The link to an upstream relay
    Relay,
    /// Lines in a file, which is rotated
    File,
    /// Counters
    Prometheus,
}

/// A destination that says yes to everything.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FakeKind {
    /// Of bulk requests
    Bulk,
    /// librdkafka's broker for tests
    Kafka,
    /// 200 without a body
    Web,
    /// A collector over gRPC
    Logs,
    /// The link of a relay
    Link,
    /// A socket that is read
    Drain,
}

impl SinksArgs {
    /// Those named, else all.
    pub(crate) fn cases(&self) -> Vec<SinkCase> {
        if self.cases.is_empty() {
            SinkCase::value_variants().to_vec()
        } else {
            self.cases.clone()
        }
    }
}

/// Which loops to count.
#[derive(clap::Args)]
pub(crate) struct MicroArgs {
    /// Loops; none: all
    #[arg(value_enum)]
    cases: Vec<MicroCase>,
    /// Fail when one grew by more than 10 % against bench/baseline.json
    #[arg(long)]
    pub(crate) check: bool,
    /// Write bench/baseline.json
    #[arg(long, conflicts_with = "check")]
    pub(crate) update: bool,
}

impl MicroArgs {
    /// Those named, else all.
    pub(crate) fn cases(&self) -> Vec<MicroCase> {
        if self.cases.is_empty() {
            MicroCase::value_variants().to_vec()
        } else {
            self.cases.clone()
        }
    }
}

/// A piece of code.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum MicroCase {
    /// proto: is it a well-formed event?
    Check,
    /// proto: a batch out of the link's bytes, each event checked
    Receive,
    /// proto: the fields that filters look at
    View,
    /// exporters: a sink's filter with a condition of every sort
    Filter,
    /// proto: a record as the feed sends it
    Frame,
    /// proto: JSON as KubeArmor's client prints it
    JsonKubearmor,
    /// proto: JSON with our own fields
    JsonAll,
    /// proto: text as KubeArmor's client prints it
    Text,
    /// journal: 1000 events at a time
    Append,
    /// journal: 64 KiB at a time
    Read,
}

/// The word on the command line.
fn word(value: &impl ValueEnum, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
    let value = value.to_possible_value();
    f.write_str(value.as_ref().map_or("", |value| value.get_name()))
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        word(self, f)
    }
}

impl std::fmt::Display for SinkCase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        word(self, f)
    }
}

impl std::fmt::Display for FakeKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        word(self, f)
    }
}

impl std::fmt::Display for MicroCase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        word(self, f)
    }
}
