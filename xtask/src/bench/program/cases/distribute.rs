//! `distribute`: one policy of 5,000 is edited, and 1,000 sensors run the new set.
//!
//! ```text
//! write(2) ─▶ inotify ─▶ quiet for half a second ─▶ read, compiled ─▶ 1,000 links ─▶ 1,000 answers
//! └───────────────────────────── what is measured ────────────────────────────────────────────┘
//! ```
//! The relay, its files and the connections are real; the sensors answer without applying anything, for one machine cannot
//! be a thousand. What a sensor does with a set is measured where sensors are.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use proto::link;
use proto::link::link_client::LinkClient;
use proto::link::{FromRelay, FromSensor, Hello, KernelFacts, RuleStatus, from_relay, from_sensor};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::measure;
use crate::relay::Relay;
use crate::scene::{Bench, Folder};
use crate::table::Row;

/// Edits, one after the other; the slowest counts.
const EDITS: usize = 5;
/// Bound of the journal, in bytes; no events are sent.
const LIMIT: u64 = 256 << 20;
/// An edit has this long to arrive everywhere.
const PATIENCE: Duration = Duration::from_secs(120);
/// What an edit may take.
const GOOD: Duration = Duration::from_secs(2);
/// How much the relay may have grown from the first edit to the last, in MiB.
const GROWTH: f64 = 32.0;

pub(crate) async fn run(bench: &Bench) -> Result<Vec<Row>> {
    let mut row = Row::new(
        "distribute",
        format!(
            "{} policies, {} sensors, {EDITS} edits",
            bench.policies, bench.sensors
        ),
    );
    let folder = Folder::make(bench, LIMIT)?;
    let policies = folder.path().join("policies");
    fs::create_dir(&policies)?;
    (0..bench.policies).try_for_each(|number| write(&policies, number, 0))?;
    let source = format!(
        "policies: {{sources: [{{type: folder, path: {}}}]}}\n",
        policies.display()
    );
    let relay = Relay::start(&bench.program, folder.path(), LIMIT, &source).await?;

    let begun = Instant::now();
    let mut fleet = Fleet::start(relay.link, bench.sensors).await?;
    fleet.all_run(None).await?;
    row.put("first set everywhere, s", begun.elapsed().as_secs_f64(), 2);
    let (mut before, _) = measure::memory(relay.pid)?;
    let mut slowest = Duration::ZERO;
    for edit in 1..=EDITS {
        let old = fleet.digest();
        let begun = Instant::now();
        write(&policies, bench.policies / 2, edit)?;
        fleet.all_run(old).await?;
        slowest = slowest.max(begun.elapsed());
        if edit == 1 {
            // Two sets are there for a moment at every edit, and the heap keeps the room for the second one.
            (before, _) = measure::memory(relay.pid)?;
        }
    }
    let (after, most) = measure::memory(relay.pid)?;
    row.put("slowest edit, s", slowest.as_secs_f64(), 2);
    row.put("MiB after one", before, 1);
    row.put("MiB after all", after, 1);
    row.put("peak MiB", most, 1);
    row.must(slowest < GOOD, || format!("an edit took {slowest:?}"));
    row.must(after - before < GROWTH, || {
        format!("the relay grew from {before:.0} to {after:.0} MiB")
    });
    fleet.stop().await?;
    relay.stop().await?;
    Ok(vec![row])
}

/// A policy that says something else at every edit.
fn write(folder: &Path, number: usize, edit: usize) -> Result<()> {
    let text = format!(
        "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\n\
         metadata: {{name: policy-{number}, namespace: namespace-{}}}\n\
         spec:\n  severity: {}\n  message: edit {edit}\n  selector: {{matchLabels: {{app: app-{number}}}}}\n  \
         process: {{matchPaths: [{{path: /usr/bin/tool-{number}}}, {{path: /usr/sbin/tool-{number}}}]}}\n  \
         file: {{matchDirectories: [{{dir: /srv/data-{number}/, recursive: true}}]}}\n  action: Block\n",
        number % 100,
        1 + edit % 10,
    );
    let file = folder.join(format!("{number}.yaml"));
    fs::write(&file, text).with_context(|| file.display().to_string())
}

/// Sensors that take every set.
struct Fleet {
    /// What each runs, as it says so.
    running: mpsc::UnboundedReceiver<(usize, Vec<u8>)>,
    now: Vec<Vec<u8>>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<Result<()>>,
}

impl Fleet {
    async fn start(relay: SocketAddr, sensors: usize) -> Result<Fleet> {
        let (told, running) = mpsc::unbounded_channel();
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for number in 0..sensors {
            let sensor = Sensor::connect(relay, number).await?;
            tasks.spawn(sensor.run(told.clone(), stopped.clone()));
        }
        Ok(Fleet {
            running,
            now: vec![Vec::new(); sensors],
            stop,
            tasks,
        })
    }

    /// What the first sensor runs; they run the same between edits.
    fn digest(&self) -> Option<Vec<u8>> {
        self.now.first().cloned()
    }

    /// Waits until all sensors run one set that is not `old`.
    async fn all_run(&mut self, old: Option<Vec<u8>>) -> Result<()> {
        let old = old.unwrap_or_default();
        let done = |now: &[Vec<u8>]| now[0] != old && now.iter().all(|own| *own == now[0]);
        let waited = timeout(PATIENCE, async {
            while !done(&self.now) {
                let Some((number, digest)) = self.running.recv().await else {
                    bail!("the sensors ended");
                };
                self.now[number] = digest;
            }
            Ok(())
        });
        waited.await.unwrap_or_else(|_| {
            let behind = self.now.iter().filter(|own| **own == old).count();
            let all = self.now.len();
            bail!("{behind} of {all} sensors still run the old set after {PATIENCE:?}")
        })
    }

    async fn stop(mut self) -> Result<()> {
        self.stop.send_replace(true);
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        Ok(())
    }
}

struct Sensor {
    number: usize,
    out: mpsc::Sender<FromSensor>,
    inbound: Streaming<FromRelay>,
}

impl Sensor {
    async fn connect(relay: SocketAddr, number: usize) -> Result<Sensor> {
        let channel = Channel::from_shared(format!("http://{relay}"))?
            .tcp_nodelay(true)
            .connect()
            .await?;
        let (out, queue) = mpsc::channel(4);
        let hello = Hello {
            version: 1,
            sensor: format!("bench-{number}"),
            sensor_version: "bench".to_owned(),
            node: format!("node-{number}"),
            changes: true,
            kernel: Some(KernelFacts {
                tier: 3,
                ..KernelFacts::default()
            }),
            ..Hello::default()
        };
        out.send(say(from_sensor::Is::Hello(hello))).await?;
        let mut client = LinkClient::new(channel);
        let stream = client.exchange(ReceiverStream::new(queue)).await?;
        let mut inbound = stream.into_inner();
        let first = timeout(PATIENCE, inbound.message()).await??;
        let is = first.and_then(|message| message.is);
        ensure!(
            matches!(is, Some(from_relay::Is::Welcome(_))),
            "the relay did not welcome a sensor"
        );
        Ok(Sensor {
            number,
            out,
            inbound,
        })
    }

    /// Says of every complete set that it runs.
    async fn run(
        mut self,
        told: mpsc::UnboundedSender<(usize, Vec<u8>)>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<()> {
        let mut named = Vec::new();
        loop {
            let message = tokio::select! {
                message = self.inbound.message() => message?.context("the relay hung up")?,
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
            };
            let Some(from_relay::Is::Rules(rules)) = message.is else {
                continue;
            };
            named = digest(&rules).unwrap_or(named);
            if rules.commit {
                let digest = named.clone();
                let status = RuleStatus {
                    digest: digest.clone().into(),
                    applied: true,
                    problems: Vec::new(),
                };
                self.out
                    .send(say(from_sensor::Is::RuleStatus(status)))
                    .await?;
                told.send((self.number, digest))?;
            }
        }
    }
}

/// The set that a part names; the first one of a set does.
fn digest(rules: &link::Rules) -> Option<Vec<u8>> {
    match (&rules.manifest, &rules.change) {
        (Some(manifest), _) => Some(manifest.digest.clone()),
        (None, Some(change)) => Some(change.digest.to_vec()),
        (None, None) => None,
    }
}

fn say(is: from_sensor::Is) -> FromSensor {
    FromSensor { is: Some(is) }
}
