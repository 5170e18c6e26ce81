//! A journal in a folder, lives of the relay over it, and a destination that does as it is told.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use exporters::{Batch, Encoded, Outcome, Sink, SinkConfig, Unavailable};
use journal::{Journal, RealDisk, Record};
use prometheus::{Encoder as _, TextEncoder};
use prost::Message as _;
use proto::query::SinkStatus;
use proto::{Event, EventId, FieldSet, Kind, StreamId, feeder};
use relay::Registry;
use relay::fanout::{Context, Fanout, Outlet};
use tempfile::TempDir;
use tokio::sync::Notify;

use crate::books::Page;

/// A data folder; a journal in it can be opened again and again.
pub(crate) struct Scene {
    pub(crate) folder: TempDir,
}

/// One life of the relay.
pub(crate) struct Life {
    pub(crate) folder: PathBuf,
    pub(crate) journal: Journal,
    pub(crate) registry: Registry,
}

impl Scene {
    pub(crate) fn new() -> Scene {
        Scene {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn life(&self) -> Life {
        self.life_with(journal::Config::default())
    }

    pub(crate) fn life_with(&self, config: journal::Config) -> Life {
        let folder = self.folder.path().to_owned();
        let disk = RealDisk::open(folder.join("journal")).unwrap();
        let (journal, _) = Journal::open(Arc::new(disk), config, Box::new(())).unwrap();
        Life {
            folder,
            journal,
            registry: Registry::new(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

pub(crate) fn event(number: u64) -> Event {
    let alert = feeder::Alert {
        pod_name: format!("pod-{number}"),
        namespace_name: if number.is_multiple_of(2) {
            "even"
        } else {
            "odd"
        }
        .to_owned(),
        ..Default::default()
    };
    let id = EventId {
        stream: StreamId(*b"sequence"),
        sequence: number,
    };
    Event {
        kind: Kind::Alert,
        id,
        payload: alert.encode_to_vec().into(),
    }
}

impl Life {
    /// Appends events with these numbers; they are acknowledged when this returns.
    pub(crate) async fn append(&self, numbers: impl IntoIterator<Item = u64>) {
        let record = |number| Record {
            kind: 1,
            time: 1,
            payload: event(number).to_journal(),
        };
        self.journal
            .append(numbers.into_iter().map(record).collect())
            .await
            .unwrap();
    }

    /// The same with 8 KiB each.
    pub(crate) async fn append_large(&self, numbers: impl IntoIterator<Item = u64>) {
        let large = feeder::Alert {
            message: "x".repeat(8 << 10),
            ..Default::default()
        }
        .encode_to_vec();
        let record = |number| {
            let event = Event {
                payload: large.clone().into(),
                ..event(number)
            };
            Record {
                kind: 1,
                time: 1,
                payload: event.to_journal(),
            }
        };
        self.journal
            .append(numbers.into_iter().map(record).collect())
            .await
            .unwrap();
    }

    fn context(&self) -> Context {
        Context {
            registry: self.registry.clone(),
            data_dir: self.folder.clone(),
            pages: None,
            traces: Default::default(),
        }
    }

    /// A fan-out to fakes.
    pub(crate) fn feed<const N: usize>(&self, sinks: [(&str, &str, Fake); N]) -> Fanout {
        let outlets = sinks.map(|(name, more, fake)| {
            let mut text = ["type: stdout", more]
                .into_iter()
                .filter(|s| !s.is_empty())
                .collect::<Vec<_>>()
                .join(", ");
            for (key, usual) in [
                ("retry", "{initial: 20ms, max: 50ms}"),
                ("start", "beginning"),
            ] {
                if !more.contains(key) {
                    text += &format!(", {key}: {usual}");
                }
            }
            let mut common = settings(&format!("{{{text}}}")).common();
            if let Some(concurrency) = fake.concurrency {
                common.concurrency = concurrency;
            }
            Outlet {
                name: name.to_owned(),
                kind: "fake",
                common,
                sink: Box::new(fake),
                figures: prometheus::Registry::new(),
            }
        });
        Fanout::over(self.journal.clone(), outlets.into(), self.context()).unwrap()
    }

    /// A fan-out to real sinks.
    pub(crate) fn build<const N: usize>(&self, sinks: [(&str, &str); N]) -> Fanout {
        let sinks = sinks.map(|(name, text)| (name.to_owned(), settings(text)));
        Fanout::build(self.journal.clone(), sinks.into(), self.context()).unwrap()
    }

    /// Ends without a drain.
    pub(crate) async fn abandon(self, fanout: Fanout) {
        drop(fanout);
        self.close().await;
    }

    pub(crate) async fn end(self, fanout: Fanout) {
        fanout.drain(Duration::from_secs(20)).await;
        self.close().await;
    }

    pub(crate) async fn close(self) {
        assert_eq!(Page::read(&self.scrape()).check(), Ok(()));
        assert_eq!(self.journal.check(), Ok(()));
        // Tasks that were dropped have let go of the journal by then.
        let journal = self.journal;
        tokio::task::spawn_blocking(move || journal.close())
            .await
            .unwrap();
    }

    pub(crate) fn scrape(&self) -> String {
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .unwrap();
        String::from_utf8(text).unwrap()
    }

    #[track_caller]
    pub(crate) fn shows(&self, sample: &str) {
        let text = self.scrape();
        assert!(
            text.lines().any(|line| line == sample),
            "{sample} is not in\n{text}"
        );
    }
}

fn settings(text: &str) -> SinkConfig {
    let (nodes, mut problems) = yaml::parse("c.yaml", text);
    let config = SinkConfig::read(&nodes[0], yaml::Severity::Error, &mut problems);
    assert_eq!(problems, []);
    config.unwrap()
}

pub(crate) fn number(event: &Encoded) -> u64 {
    event.id().sequence
}

type Answer = dyn Fn(&Encoded, usize) -> Outcome + Send + Sync;

/// A destination that does as it is told. A clone looks at the same destination.
#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) inner: Arc<FakeInner>,
    concurrency: Option<usize>,
}

pub(crate) struct FakeInner {
    /// What became of an event when it came the n-th time, from 0.
    answer: Box<Answer>,
    away: AtomicBool,
    pub(crate) panics: AtomicBool,
    /// Sends that hold an event with this number wait for `gate`.
    held: Mutex<Option<u64>>,
    gate: Notify,
    batches: Mutex<Vec<Vec<u64>>>,
    pub(crate) json: Mutex<Vec<usize>>,
    attempts: AtomicUsizes,
}

/// How often each event came.
type AtomicUsizes = Mutex<BTreeMap<u64, usize>>;

impl Fake {
    pub(crate) fn that(
        answer: impl Fn(&Encoded, usize) -> Outcome + Send + Sync + 'static,
    ) -> Fake {
        let inner = FakeInner {
            answer: Box::new(answer),
            away: AtomicBool::default(),
            panics: AtomicBool::default(),
            held: Mutex::default(),
            gate: Notify::new(),
            batches: Mutex::default(),
            json: Mutex::default(),
            attempts: Mutex::default(),
        };
        Fake {
            inner: Arc::new(inner),
            concurrency: None,
        }
    }

    pub(crate) fn takes_all() -> Fake {
        Fake::that(|_, _| Outcome::Done)
    }

    pub(crate) fn with_concurrency(mut self, concurrency: usize) -> Fake {
        self.concurrency = Some(concurrency);
        self
    }

    pub(crate) fn away(self) -> Fake {
        self.inner.away.store(true, Ordering::SeqCst);
        self
    }

    pub(crate) fn comes_back(&self) {
        self.inner.away.store(false, Ordering::SeqCst);
    }

    pub(crate) fn holding(self, number: u64) -> Fake {
        *self.inner.held.lock().unwrap() = Some(number);
        self
    }

    pub(crate) fn lets_go(&self) {
        *self.inner.held.lock().unwrap() = None;
        self.inner.gate.notify_waiters();
    }

    pub(crate) fn batches(&self) -> Vec<Vec<u64>> {
        self.inner.batches.lock().unwrap().clone()
    }

    /// All events taken, in the order they came.
    pub(crate) fn taken(&self) -> Vec<u64> {
        self.batches().concat()
    }
}

#[async_trait]
impl Sink for Fake {
    async fn send(&self, batch: Arc<Batch>) -> Result<Vec<Outcome>, Unavailable> {
        let inner = &self.inner;
        let numbers: Vec<u64> = batch.events().iter().map(|event| number(event)).collect();
        loop {
            let opened = inner.gate.notified();
            let held = *inner.held.lock().unwrap();
            if !held.is_some_and(|held| numbers.contains(&held)) {
                break;
            }
            opened.await;
        }
        assert!(!inner.panics.swap(false, Ordering::SeqCst), "as told");
        if inner.away.load(Ordering::SeqCst) {
            return Err(Unavailable::new("connection refused"));
        }
        let mut outcomes = Vec::new();
        for event in batch.events() {
            let mut attempts = inner.attempts.lock().unwrap();
            let attempt = attempts.entry(number(event)).or_default();
            outcomes.push((inner.answer)(event, *attempt));
            *attempt += 1;
            inner
                .json
                .lock()
                .unwrap()
                .push(event.json(FieldSet::KubeArmor).unwrap().as_ptr() as usize);
        }
        inner.batches.lock().unwrap().push(numbers);
        Ok(outcomes)
    }
}

/// Waits until `what` holds, for as long as a slow machine may need.
#[track_caller]
pub(crate) fn soon(what: impl Fn() -> bool) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let start = Instant::now();
        while !what() {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "{caller}: this did not come true in 20 s"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

pub(crate) fn status_of(fanout: &Fanout, name: &str) -> SinkStatus {
    fanout
        .status()
        .into_iter()
        .find(|status| status.name == name)
        .unwrap()
}

pub(crate) fn accounted(status: &SinkStatus) -> u64 {
    status.delivered + status.filtered + status.dead_lettered + status.expired + status.corrupt
}
