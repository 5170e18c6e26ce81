//! SIGKILL in the middle: no acknowledged event is missing from a file sink, and none is counted twice.
//!
//! The test runs itself as a child that appends events and prints the number of each one that was acknowledged, and kills
//! it at some moment, again and again over the same folder.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use exporters::SinkConfig;
use journal::{Journal, RealDisk, Record};
use prost::Message as _;
use proto::{Event, EventId, Kind, StreamId, feeder};
use relay::Registry;
use relay::fanout::{Context, Fanout};

const ROUNDS: u64 = 6;
const TEST: &str = "no_acknowledged_event_is_missing_after_a_kill";

#[test]
fn no_acknowledged_event_is_missing_after_a_kill() {
    if let (Ok(folder), Ok(first)) = (std::env::var("FOLDER"), std::env::var("FIRST")) {
        return child(Path::new(&folder), first.parse().unwrap());
    }
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeSet::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([TEST, "--exact", "--nocapture"])
            .env("FOLDER", folder.path())
            .env("FIRST", (round * 1_000_000 + 1).to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut lines = out
            .lines()
            .map_while(Result::ok)
            .filter_map(|line| line.parse::<u64>().ok());
        acknowledged.extend(lines.by_ref().take(200 + 150 * round as usize));
        child.kill().unwrap();
        acknowledged.extend(lines);
        child.wait().unwrap();
    }
    assert!(acknowledged.len() > 2000, "{}", acknowledged.len());
    runtime().block_on(async {
        let (journal, fanout, registry) = start(folder.path());
        fanout.drain(Duration::from_secs(30)).await;
        assert!(fanout.status().iter().all(|status| status.pending == 0));
        assert_eq!(counted(&registry), journal.committed().0);
        journal.close();
    });
    let text = std::fs::read_to_string(folder.path().join("events")).unwrap();
    let written: BTreeSet<u64> = text.lines().map(number).collect();
    let missing: Vec<&u64> = acknowledged.difference(&written).collect();
    assert!(
        missing.is_empty(),
        "{} missing, first {:?}",
        missing.len(),
        missing[0]
    );
}

/// The number in a line, which must be whole.
fn number(line: &str) -> u64 {
    let json: serde_json::Value =
        serde_json::from_str(line).unwrap_or_else(|e| panic!("torn line {line:?}: {e}"));
    json["PodName"].as_str().unwrap().parse().unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// What the alerts' counter by action shows: their action is empty, so there is one value.
fn counted(registry: &Registry) -> u64 {
    let families = registry.gather();
    let family = families
        .iter()
        .find(|family| family.name() == "kubearmor_alerts_with_action_total")
        .unwrap();
    family.get_metric()[0].get_counter().get_value() as u64
}

fn start(folder: &Path) -> (Journal, Fanout, Registry) {
    let file = format!(
        "{{type: file, path: {}, start: beginning}}",
        folder.join("events").display()
    );
    let sinks = [
        ("archive", file.as_str()),
        ("metrics", "{type: prometheus, start: beginning}"),
    ]
    .map(|(name, text)| {
        let (nodes, mut problems) = yaml::parse("c.yaml", text);
        let config = SinkConfig::read(&nodes[0], yaml::Severity::Error, &mut problems).unwrap();
        assert_eq!(problems, []);
        (name.to_owned(), config)
    });
    let disk = RealDisk::open(folder.join("journal")).unwrap();
    let (journal, _) =
        Journal::open(Arc::new(disk), journal::Config::default(), Box::new(())).unwrap();
    let registry = Registry::new();
    let context = Context {
        registry: registry.clone(),
        data_dir: folder.to_owned(),
        pages: None,
        traces: Default::default(),
    };
    let fanout = Fanout::build(journal.clone(), sinks.into(), context).unwrap();
    (journal, fanout, registry)
}

fn child(folder: &Path, first: u64) {
    runtime().block_on(async {
        let (journal, _fanout, _registry) = start(folder);
        for number in first.. {
            let alert = feeder::Alert {
                pod_name: number.to_string(),
                ..Default::default()
            };
            let id = EventId {
                stream: StreamId(*b"kill -9!"),
                sequence: number,
            };
            let event = Event {
                kind: Kind::Alert,
                id,
                payload: alert.encode_to_vec().into(),
            };
            let record = Record {
                kind: 1,
                time: 1,
                payload: event.to_journal(),
            };
            journal.append(vec![record]).await.unwrap();
            // One write a line, so that what was printed is whole.
            std::io::stdout()
                .write_all(format!("\n{number}\n").as_bytes())
                .unwrap();
        }
    });
}
