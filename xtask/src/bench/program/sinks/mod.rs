//! Sinks alone: batches as the fan-out makes them, a destination that is faster than any real one in a process of its own, so
//! that the CPU time of this process is what an event costs us.

mod elasticsearch;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use exporters::{Batch, Encoded, Outcome, Sink, SinkConfig};
use futures::StreamExt as _;
use proto::{Event, EventId, Kind, StreamId};

use crate::args::SinkCase;
use crate::events::{Maker, unix_ns};
use crate::measure;
use crate::table::Row;

/// Different events that batches are made of.
const POOL: u64 = 500;

pub(crate) async fn run(case: SinkCase, seconds: u64) -> Result<Vec<Row>> {
    match case {
        SinkCase::Elasticsearch => elasticsearch::run(seconds).await,
    }
}

/// Serves until standard input ends.
pub(crate) fn be_fake(case: SinkCase) -> Result<()> {
    match case {
        SinkCase::Elasticsearch => elasticsearch::be_fake(),
    }
}

/// A destination in a process of its own; it ends with this value.
struct Fake {
    child: Child,
    address: String,
}

impl Fake {
    fn start(case: SinkCase) -> Result<Fake> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["fake", &case.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("the fake does not start")?;
        let stdout = child.stdout.take().context("the fake has no output")?;
        let mut address = String::new();
        BufReader::new(stdout).read_line(&mut address)?;
        let address = address.trim().to_owned();
        Ok(Fake { child, address })
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
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

/// What is sent and how.
struct Load<'a> {
    /// The sink's settings.
    settings: &'a str,
    /// Events of a batch.
    batch: u64,
    /// Batches on their way.
    flying: usize,
    seconds: u64,
}

/// Sends batches and puts down what they cost.
async fn drive(load: &Load<'_>, row: &mut Row) -> Result<()> {
    let (nodes, mut problems) = yaml::parse("bench", load.settings);
    let node = nodes.first().context("no settings")?;
    let config =
        SinkConfig::read(node, yaml::Severity::Error, &mut problems).context("bad settings")?;
    let sink: Arc<dyn Sink> =
        exporters::build("bench", &config, &exporters::Context::default())?.into();
    let pool = pool();
    let mut sequence = 0;
    let mut next = || {
        let events = (0..load.batch).map(|_| {
            let (kind, payload) = &pool[(sequence % POOL) as usize];
            sequence += 1;
            let stream = StreamId(*b"bench-00");
            let id = EventId { stream, sequence };
            Arc::new(Encoded::new(Event {
                kind: *kind,
                id,
                payload: payload.clone(),
            }))
        });
        let (sink, batch) = (Arc::clone(&sink), Arc::new(Batch::new(events.collect())));
        tokio::spawn(async move { sink.send(batch).await })
    };
    let mut flying = futures::stream::FuturesUnordered::new();
    let (start, cpu) = (Instant::now(), measure::cpu(std::process::id())?);
    let end = start + Duration::from_secs(load.seconds);
    let mut done = 0_u64;
    loop {
        while Instant::now() < end && flying.len() < load.flying {
            flying.push(next());
        }
        let Some(answer) = flying.next().await else {
            break;
        };
        match answer? {
            Ok(outcomes) => {
                done += outcomes
                    .iter()
                    .filter(|outcome| **outcome == Outcome::Done)
                    .count() as u64
            }
            Err(away) => row.failed(away.reason),
        }
    }
    let (took, cpu) = (start.elapsed(), measure::cpu(std::process::id())? - cpu);
    let events = done as f64;
    row.must(done == sequence, || {
        format!("{done} of {sequence} events were taken")
    });
    row.put("events/s", events / took.as_secs_f64(), 0);
    row.put("CPU µs/event", cpu.as_secs_f64() * 1e6 / events, 2);
    row.put("events/s a core", events / cpu.as_secs_f64(), 0);
    row.put("cores", cpu.as_secs_f64() / took.as_secs_f64(), 2);
    row.put("RSS MiB", measure::memory(std::process::id())?.0, 0);
    Ok(())
}
