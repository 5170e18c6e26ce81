//! Sinks alone: batches as the fan-out makes them, a destination that is faster than any real one in a process of its own, so
//! that the CPU time of this process is what an event costs us. With `--real` the real Kafka and Elasticsearch of the tests stand
//! beside the fakes, and say what a real one takes.

mod fake;
mod link;
mod real;
mod web;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use exporters::{Batch, Carried, Common, Encoded, Outcome, Sink, SinkConfig};
use futures::StreamExt as _;
use proto::{Event, EventId, Kind, StreamId};

use crate::args::{FakeKind, SinkCase};
use crate::events::{Maker, unix_ns};
use crate::measure;
use crate::table::Row;

pub(crate) use fake::{Fake, be_fake};
pub(crate) use real::Real;

/// Different events that batches are made of.
const POOL: u64 = 500;

/// What the command line says.
pub(crate) struct Options {
    pub(crate) seconds: u64,
    /// For files and for what real servers keep.
    pub(crate) folder: PathBuf,
    /// Also against the real servers.
    pub(crate) real: bool,
}

/// What the rows of a case go to, and their settings: AT is its address, FOLDER a folder.
struct Plan {
    to: To,
    rows: &'static [(&'static str, &'static str)],
}

enum To {
    Fake(FakeKind),
    Real(&'static str),
    Here,
}

fn plans(case: SinkCase) -> Vec<Plan> {
    let plan = |to, rows| Plan { to, rows };
    match case {
        SinkCase::Elasticsearch => vec![
            plan(
                To::Fake(FakeKind::Bulk),
                &[
                    (
                        "fields: all",
                        "type: elasticsearch, endpoints: ['http://AT'], index: {setup: manual}",
                    ),
                    (
                        "fields: kubearmor",
                        "type: elasticsearch, endpoints: ['http://AT'], index: {setup: manual}, fields: kubearmor",
                    ),
                    (
                        "fields: all, gzip",
                        "type: elasticsearch, endpoints: ['http://AT'], index: {setup: manual}, compression: gzip",
                    ),
                ],
            ),
            plan(
                To::Real("elasticsearch"),
                &[(
                    "fields: all",
                    "type: elasticsearch, endpoints: ['http://AT']",
                )],
            ),
        ],
        SinkCase::Kafka => vec![
            plan(
                To::Fake(FakeKind::Kafka),
                &[
                    ("json, lz4", "type: kafka, brokers: ['AT']"),
                    (
                        "json, not compressed",
                        "type: kafka, brokers: ['AT'], compression: none",
                    ),
                    (
                        "protobuf, lz4",
                        "type: kafka, brokers: ['AT'], format: protobuf",
                    ),
                ],
            ),
            plan(
                To::Real("kafka"),
                &[("json, lz4", "type: kafka, brokers: ['AT']")],
            ),
        ],
        SinkCase::Otlp => vec![
            plan(
                To::Fake(FakeKind::Logs),
                &[("gRPC", "type: otlp, endpoint: 'http://AT'")],
            ),
            plan(
                To::Fake(FakeKind::Web),
                &[
                    (
                        "HTTP, gzip",
                        "type: otlp, protocol: http, endpoint: 'http://AT'",
                    ),
                    (
                        "HTTP, not compressed",
                        "type: otlp, protocol: http, endpoint: 'http://AT', compression: none",
                    ),
                ],
            ),
        ],
        SinkCase::Loki => vec![plan(
            To::Fake(FakeKind::Web),
            &[
                ("gzip", "type: loki, url: 'http://AT'"),
                (
                    "not compressed",
                    "type: loki, url: 'http://AT', compression: none",
                ),
            ],
        )],
        SinkCase::Webhook => vec![plan(
            To::Fake(FakeKind::Web),
            &[
                ("ndjson", "type: webhook, shape: ndjson, url: 'http://AT/'"),
                ("ocsf", "type: webhook, shape: ocsf, url: 'http://AT/'"),
                (
                    "alertmanager",
                    "type: webhook, shape: alertmanager, url: 'http://AT/'",
                ),
            ],
        )],
        SinkCase::Syslog => vec![plan(
            To::Fake(FakeKind::Drain),
            &[
                ("json", "type: syslog, address: 'AT'"),
                ("cef", "type: syslog, address: 'AT', format: cef"),
            ],
        )],
        SinkCase::Relay => vec![plan(
            To::Fake(FakeKind::Link),
            &[("the link", "type: relay, url: 'http://AT', name: bench")],
        )],
        SinkCase::File => vec![plan(
            To::Here,
            &[
                (
                    "json",
                    "type: file, path: 'FOLDER/events.jsonl', rotate: {max_size: 256MiB, keep: 1}",
                ),
                (
                    "text",
                    "type: file, path: 'FOLDER/events.txt', format: text, rotate: {max_size: 256MiB, keep: 1}",
                ),
            ],
        )],
        SinkCase::Prometheus => vec![plan(To::Here, &[("counters", "type: prometheus")])],
    }
}

pub(crate) async fn run(case: SinkCase, options: &Options) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for Plan { to, rows: wanted } in plans(case) {
        let (server, label) = match to {
            To::Real(_) if !options.real => continue,
            To::Real(name) => {
                let folder = options.folder.join(name);
                (Server::Real(Real::start(name, &folder)?), "real")
            }
            To::Fake(kind) => (Server::Fake(Fake::start(kind)?), "fake"),
            To::Here => (Server::None, "this machine"),
        };
        let folder = options.folder.join("sinks");
        std::fs::create_dir_all(&folder)?;
        for (what, settings) in wanted {
            let settings = settings
                .replace("AT", server.address())
                .replace("FOLDER", &folder.display().to_string());
            let mut row = Row::new("sinks alone", format!("{case} ({label}), {what}"));
            drive(&format!("{{{settings}}}"), options.seconds, &mut row).await?;
            rows.push(row);
        }
        let _ = std::fs::remove_dir_all(&folder);
    }
    Ok(rows)
}

enum Server {
    Fake(Fake),
    Real(Real),
    None,
}

impl Server {
    fn address(&self) -> &str {
        match self {
            Server::Fake(fake) => &fake.address,
            Server::Real(real) => &real.address,
            Server::None => "",
        }
    }
}

/// Events of this moment, one alert in five.
fn pool() -> Vec<(Kind, Bytes)> {
    let (mut maker, now) = (Maker::new(1, 0), unix_ns());
    (0..POOL)
        .map(|n| {
            let kind = if n.is_multiple_of(5) {
                Kind::Alert
            } else {
                Kind::Log
            };
            (kind, Bytes::copy_from_slice(maker.event(kind, now)))
        })
        .collect()
}

/// Where batches come from: as large as the sink's own settings say.
struct Batches {
    pool: Vec<(Kind, Bytes)>,
    common: Common,
    sequence: u64,
}

impl Batches {
    fn next(&mut self) -> Arc<Batch> {
        let (mut events, mut bytes) = (Vec::new(), 0);
        while events.len() < self.common.batch.max_events {
            let (kind, payload) = &self.pool[(self.sequence % POOL) as usize];
            if bytes + payload.len() > self.common.batch.max_bytes {
                break;
            }
            bytes += payload.len();
            self.sequence += 1;
            let id = EventId {
                stream: StreamId(*b"bench-00"),
                sequence: self.sequence,
            };
            events.push(Carried::from(Encoded::new(Event {
                kind: *kind,
                id,
                payload: payload.clone(),
            })));
        }
        Arc::new(Batch::new(events))
    }
}

/// Sends batches and puts down what they cost.
async fn drive(settings: &str, seconds: u64, row: &mut Row) -> Result<()> {
    let (nodes, mut problems) = yaml::parse("bench", settings);
    let node = nodes.first().context("no settings")?;
    let config =
        SinkConfig::read(node, yaml::Severity::Error, &mut problems).context("bad settings")?;
    let sink: Arc<dyn Sink> =
        exporters::build("bench", &config, &exporters::Context::default())?.into();
    let mut batches = Batches {
        pool: pool(),
        common: config.common(),
        sequence: 0,
    };
    let flying_at_once = batches.common.concurrency;
    let mut flying = futures::stream::FuturesUnordered::new();
    let (start, cpu) = (Instant::now(), measure::cpu(std::process::id())?);
    let end = start + Duration::from_secs(seconds);
    let mut done = 0_u64;
    loop {
        while Instant::now() < end && flying.len() < flying_at_once {
            let (sink, batch) = (Arc::clone(&sink), batches.next());
            flying.push(tokio::spawn(async move { sink.send(batch).await }));
        }
        let Some(answer) = flying.next().await else {
            break;
        };
        match answer? {
            Ok(outcomes) => done += count(&outcomes),
            Err(away) => row.failed(away.reason),
        }
    }
    let (took, cpu) = (start.elapsed(), measure::cpu(std::process::id())? - cpu);
    // librdkafka's own threads, before they end with the sink.
    let theirs = measure::cpu_of_threads("rdk:")?;
    let sent = batches.sequence;
    let events = done as f64;
    row.must(done == sent, || {
        format!("{done} of {sent} events were taken")
    });
    row.put("events/s", events / took.as_secs_f64(), 0);
    row.put("CPU µs/event", cpu.as_secs_f64() * 1e6 / events, 2);
    if !theirs.is_zero() {
        row.put(
            "of it librdkafka's threads",
            theirs.as_secs_f64() * 1e6 / events,
            2,
        );
    }
    row.put("events/s a core", events / cpu.as_secs_f64(), 0);
    row.put("cores", cpu.as_secs_f64() / took.as_secs_f64(), 2);
    row.put("RSS MiB", measure::memory(std::process::id())?.0, 0);
    Ok(())
}

fn count(outcomes: &[Outcome]) -> u64 {
    let done = outcomes.iter().filter(|outcome| **outcome == Outcome::Done);
    done.count() as u64
}
