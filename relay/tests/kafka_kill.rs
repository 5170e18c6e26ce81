//! SIGKILL in the middle, with a real broker behind: no acknowledged event is missing from the topic, and every workload's
//! events lie in it in their order.
//!
//! The test runs itself as a child that appends events and prints the number of each one that was acknowledged, and kills
//! it at some moment, again and again over the same folder. Once the broker is killed, too.
#![cfg(feature = "kafka")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

#[path = "../../exporters/tests/support/servers.rs"]
mod servers;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use exporters::SinkConfig;
use journal::{Journal, RealDisk, Record};
use prost::Message as _;
use proto::{Event, EventId, Kind, StreamId, feeder};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use relay::Registry;
use relay::fanout::{Context, Fanout};

use self::servers::Kafka;

const ROUNDS: u64 = 5;
const TEST: &str = "no_acknowledged_event_is_missing_from_the_topic_after_kills";
const TOPIC: &str = "kubearmor-alerts";
const LONG: Duration = Duration::from_secs(60);
const PODS: u64 = 11;

#[test]
fn no_acknowledged_event_is_missing_from_the_topic_after_kills() {
    if let (Ok(folder), Ok(first)) = (std::env::var("FOLDER"), std::env::var("FIRST")) {
        let brokers = std::env::var("BROKERS").unwrap();
        return child(Path::new(&folder), &brokers, first.parse().unwrap());
    }
    let Some(mut kafka) = Kafka::start("relay kafka_kill") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeSet::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([TEST, "--exact", "--nocapture"])
            .env("FOLDER", folder.path())
            .env("BROKERS", kafka.brokers())
            .env("FIRST", (round * 1_000_000 + 1).to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut lines = out
            .lines()
            .map_while(Result::ok)
            .filter_map(|line| line.parse::<u64>().ok());
        acknowledged.extend(lines.by_ref().take(300 + 150 * round as usize));
        if round == 2 {
            kafka.kill();
            acknowledged.extend(lines.by_ref().take(300));
            kafka.restart();
        }
        child.kill().unwrap();
        acknowledged.extend(lines);
        child.wait().unwrap();
    }
    assert!(acknowledged.len() > 2000, "{}", acknowledged.len());
    runtime().block_on(async {
        let (journal, fanout) = start(folder.path(), &kafka.brokers());
        fanout.drain(2 * LONG).await;
        let pending: Vec<u64> = fanout
            .status()
            .iter()
            .map(|status| status.pending)
            .collect();
        assert_eq!(pending, [0]);
        journal.close();
    });
    let stored = read_back(&kafka.brokers());
    let numbers: BTreeSet<u64> = stored.iter().map(|(_, number)| *number).collect();
    let missing: Vec<&u64> = acknowledged.difference(&numbers).collect();
    assert!(
        missing.is_empty(),
        "{} missing, first {:?}",
        missing.len(),
        missing[0]
    );
    in_order(&stored);
}

/// What comes again after a kill comes from some event on, whole: behind a step back stands everything from there.
fn in_order(stored: &[(String, u64)]) {
    let mut pods: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for (pod, number) in stored {
        let seen = pods.entry(pod).or_default();
        if let Ok(at) = seen.binary_search(number) {
            seen.truncate(at);
        }
        assert!(
            seen.last().is_none_or(|last| last < number),
            "{pod}: {number} was overtaken by {:?}",
            seen.last()
        );
        seen.push(*number);
    }
    assert_eq!(pods.len() as u64, PODS);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

fn start(folder: &Path, brokers: &str) -> (Journal, Fanout) {
    let text = format!(
        "{{type: kafka, brokers: ['{brokers}'], start: beginning, retry: {{initial: 50ms, max: 1s}}}}"
    );
    let (nodes, mut problems) = yaml::parse("c.yaml", &text);
    let config = SinkConfig::read(&nodes[0], yaml::Severity::Error, &mut problems).unwrap();
    assert_eq!(problems, []);
    let disk = RealDisk::open(folder.join("journal")).unwrap();
    let (journal, _) =
        Journal::open(Arc::new(disk), journal::Config::default(), Box::new(())).unwrap();
    let context = Context {
        registry: Registry::new(),
        data_dir: folder.to_owned(),
        pages: None,
        traces: Default::default(),
    };
    let sinks = vec![("bus".to_owned(), config)];
    let fanout = Fanout::build(journal.clone(), sinks, context).unwrap();
    (journal, fanout)
}

fn child(folder: &Path, brokers: &str, first: u64) {
    runtime().block_on(async {
        let (journal, _fanout) = start(folder, brokers);
        for number in first.. {
            let alert = feeder::Alert {
                namespace_name: "shop".into(),
                pod_name: format!("pod-{}", number % PODS),
                message: number.to_string(),
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

/// Pod and number of everything in the topic, partition by partition, in order.
fn read_back(brokers: &str) -> Vec<(String, u64)> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "readback")
        .create()
        .unwrap();
    let metadata = consumer.fetch_metadata(Some(TOPIC), LONG).unwrap();
    let mut stored = Vec::new();
    for partition in metadata.topics()[0].partitions() {
        let (low, high) = consumer
            .fetch_watermarks(TOPIC, partition.id(), LONG)
            .unwrap();
        let mut one = TopicPartitionList::new();
        one.add_partition_offset(TOPIC, partition.id(), Offset::Beginning)
            .unwrap();
        consumer.assign(&one).unwrap();
        for _ in low..high {
            // A poll may also come back with nothing before its time.
            let deadline = std::time::Instant::now() + LONG;
            let message = loop {
                match consumer.poll(Duration::from_secs(1)) {
                    Some(message) => break message.unwrap(),
                    None => assert!(
                        std::time::Instant::now() < deadline,
                        "the topic ends too early"
                    ),
                }
            };
            let json: serde_json::Value =
                serde_json::from_slice(message.payload().unwrap()).unwrap();
            let number = json["Message"].as_str().unwrap().parse().unwrap();
            stored.push((json["PodName"].as_str().unwrap().to_owned(), number));
        }
    }
    stored
}
