//! Logs to try: one in a folder, one in a broker; opened again as often as a test likes.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use exporters::{Batch, Outcome, Sink, SinkConfig, Unavailable};
use journal::Seq;
use prost::Message as _;
use proto::{Event, EventId, Kind, StreamId, feeder};
use relay::Registry;
use relay::fanout::{Context, Fanout, Outlet};
use relay::log::kafka::Config;
use relay::log::{Store, View};
use tempfile::TempDir;

/// What every wait gives up after.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A log that can be opened and closed.
pub(crate) struct Ground {
    folder: TempDir,
    /// Brokers and topic.
    kafka: Option<(String, String)>,
}

impl Ground {
    pub(crate) fn journal() -> Ground {
        Ground {
            folder: tempfile::tempdir().unwrap(),
            kafka: None,
        }
    }

    /// A topic of its own.
    pub(crate) fn kafka(brokers: &str) -> Ground {
        static TOPICS: AtomicU64 = AtomicU64::new(0);
        let topic = format!("log-{}", TOPICS.fetch_add(1, Ordering::Relaxed));
        Ground::topic(brokers, &topic)
    }

    pub(crate) fn topic(brokers: &str, topic: &str) -> Ground {
        Ground {
            folder: tempfile::tempdir().unwrap(),
            kafka: Some((brokers.to_owned(), topic.to_owned())),
        }
    }

    /// Another relay on the same log.
    pub(crate) fn beside(&self) -> Ground {
        Ground {
            folder: tempfile::tempdir().unwrap(),
            kafka: self.kafka.clone(),
        }
    }

    pub(crate) async fn open(&self) -> Store {
        let data: PathBuf = self.folder.path().join("data");
        let kafka = self.kafka.clone();
        let opening = tokio::task::spawn_blocking(move || match kafka {
            None => Store::open(&data, journal::Config::default()).unwrap().0,
            Some((brokers, topic)) => Store::open_kafka(&data, config(&brokers, &topic)).unwrap(),
        });
        opening.await.unwrap()
    }

    /// A sink that keeps what it is sent.
    pub(crate) fn feed(&self, store: &Store, sink: Box<dyn Sink>) -> Fanout {
        self.feed_with(store, sink, "{initial: 50ms, max: 1s}")
    }

    /// The same with this `retry`.
    pub(crate) fn feed_with(&self, store: &Store, sink: Box<dyn Sink>, retry: &str) -> Fanout {
        let text = format!(
            "{{type: stdout, start: beginning, batch: {{max_delay: 10ms}}, retry: {retry}}}"
        );
        let (nodes, mut problems) = yaml::parse("c.yaml", &text);
        let common = SinkConfig::read(&nodes[0], yaml::Severity::Error, &mut problems)
            .unwrap()
            .common();
        let outlet = Outlet {
            name: "siem".to_owned(),
            kind: "fake",
            common,
            sink,
            figures: prometheus::Registry::new(),
        };
        let context = Context {
            registry: Registry::new(),
            data_dir: self.folder.path().to_owned(),
            pages: None,
            traces: relay::traces::Traces::default(),
        };
        Fanout::over(Arc::clone(store.log()), vec![outlet], context).unwrap()
    }
}

pub(crate) fn config(brokers: &str, topic: &str) -> Config {
    Config {
        connection: exporters::kafka::Connection {
            brokers: vec![brokers.to_owned()],
            ..Default::default()
        },
        topic: topic.to_owned(),
        partitions: 4,
        replication: None,
        max_age: Duration::from_secs(3600),
    }
}

pub(crate) async fn close(store: Store) {
    tokio::task::spawn_blocking(move || store.close())
        .await
        .unwrap();
}

/// An event of a sensor's stream.
pub(crate) fn event(sensor: u8, sequence: u64) -> Event {
    let alert = feeder::Alert {
        namespace_name: "shop".into(),
        pod_name: format!("{sensor}/{sequence}"),
        ..Default::default()
    };
    Event {
        kind: Kind::Alert,
        id: id(sensor, sequence),
        payload: alert.encode_to_vec().into(),
    }
}

pub(crate) fn id(sensor: u8, sequence: u64) -> EventId {
    EventId {
        stream: StreamId([sensor; 8]),
        sequence,
    }
}

/// Appends a sensor's events; they are acknowledged when this returns.
pub(crate) async fn append(store: &Store, sensor: u8, sequences: impl Iterator<Item = u64>) {
    let events = sequences.map(|sequence| event(sensor, sequence)).collect();
    let from = format!("sensor-{sensor}").into();
    assert_eq!(store.append(from, events).await.unwrap().refused, []);
}

/// Text that no compression makes much shorter.
fn noise(seed: u64, length: usize) -> String {
    let mut state = seed;
    let letters = std::iter::repeat_with(|| {
        // xorshift64 (Marsaglia, 2003)
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b' ' + (state % 95) as u8)
    });
    letters.take(length).collect()
}

/// Appends events of a sensor, 200 KiB each.
pub(crate) async fn fill(store: &Store, sequences: impl Iterator<Item = u64>) {
    for sequence in sequences {
        let alert = feeder::Alert {
            message: noise(sequence, 200 << 10),
            ..Default::default()
        };
        let event = Event {
            kind: Kind::Alert,
            id: id(1, sequence),
            payload: alert.encode_to_vec().into(),
        };
        let kept = store.append("sensor-1".into(), vec![event]).await.unwrap();
        assert_eq!(kept.refused, []);
    }
}

/// Ids from a place on, until there are so many; a gap is a failure.
pub(crate) async fn read(view: &Arc<dyn View>, from: Seq, count: usize) -> Vec<EventId> {
    let mut reader = view.reader(from);
    let mut ids = Vec::new();
    let deadline = Instant::now() + LONG;
    while ids.len() < count {
        assert!(Instant::now() < deadline, "{} of {count} events", ids.len());
        assert!(reader.wait().await);
        let (back, block) = tokio::task::spawn_blocking(move || {
            let block = reader.next(64 << 10).unwrap();
            (reader, block)
        })
        .await
        .unwrap();
        reader = back;
        assert_eq!((block.expired, block.corrupt), (0, 0));
        let mut last = None;
        for entry in block.entries {
            assert!(last.replace(entry.seq) < Some(entry.seq));
            ids.push(Event::from_journal(entry.kind, entry.payload).unwrap().id);
        }
    }
    ids
}

/// Waits for something.
pub(crate) async fn soon(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A destination that keeps the ids of what it is sent.
#[derive(Clone, Default)]
pub(crate) struct Kept(Arc<Mutex<Vec<EventId>>>);

impl Kept {
    pub(crate) fn ids(&self) -> Vec<EventId> {
        self.0.lock().unwrap().clone()
    }
}

#[async_trait]
impl Sink for Kept {
    async fn send(&self, batch: Arc<Batch>) -> Result<Vec<Outcome>, Unavailable> {
        let ids = batch.events().iter().map(|event| event.id());
        self.0.lock().unwrap().extend(ids);
        Ok(vec![Outcome::Done; batch.len()])
    }
}
