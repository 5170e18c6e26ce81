//! Steering over a real journal, with a destination that refuses what it is told to.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use async_trait::async_trait;
use exporters::{Batch, Sink, SinkConfig};
use journal::{Journal, RealDisk, Record};
use proto::query::SinkStatus;
use proto::{EventId, Kind, StreamId, feeder};

use super::*;
use crate::fanout::{Context, Fanout, Outlet, Seen};

/// What the destination got, by the events' sequences, and which of them it refuses for good.
#[derive(Clone, Default)]
struct Far(Arc<Mutex<FarInner>>);

#[derive(Default)]
struct FarInner {
    got: Vec<u64>,
    pods: Vec<String>,
    refuses: BTreeSet<u64>,
    away: bool,
}

impl Far {
    fn got(&self) -> Vec<u64> {
        self.0.lock().unwrap().got.clone()
    }

    fn refuses(&self, events: impl IntoIterator<Item = u64>) {
        self.0.lock().unwrap().refuses = events.into_iter().collect();
    }

    fn is_away(&self, away: bool) {
        self.0.lock().unwrap().away = away;
    }
}

#[async_trait]
impl Sink for Far {
    async fn send(&self, batch: Arc<Batch>) -> Result<Vec<Outcome>, Unavailable> {
        let mut far = self.0.lock().unwrap();
        if far.away {
            return Err(Unavailable::new("connection refused"));
        }
        let judge = |event: &Carried| {
            let number = event.id().sequence;
            if far.refuses.contains(&number) {
                let reason = format!("400 no {number}\n{{\"status\":400}}");
                return Outcome::Reject { reason };
            }
            far.got.push(number);
            far.pods.push(event.view().pod.to_owned());
            Outcome::Done
        };
        Ok(batch.events().iter().map(judge).collect())
    }
}

/// One life of a relay with one sink, `siem`.
struct Life {
    journal: Journal,
    fanout: Fanout,
    far: Far,
}

impl Life {
    fn begin(folder: &Path, far: &Far) -> Life {
        Self::begin_with(folder, far, "")
    }

    fn begin_with(folder: &Path, far: &Far, more: &str) -> Life {
        let disk = RealDisk::open(folder.join("journal")).unwrap();
        let config = journal::Config::default();
        let (journal, _) = Journal::open(Arc::new(disk), config, Box::new(())).unwrap();
        let text = format!(
            "{{type: stdout, start: beginning, retry: {{initial: 20ms, max: 50ms}}{more}}}"
        );
        let (nodes, mut problems) = yaml::parse("c.yaml", &text);
        let config = SinkConfig::read(&nodes[0], yaml::Severity::Error, &mut problems);
        let outlet = Outlet {
            name: "siem".to_owned(),
            kind: "fake",
            common: config.unwrap().common(),
            sink: Box::new(far.clone()),
            figures: prometheus::Registry::new(),
        };
        let context = Context {
            registry: crate::metrics::Registry::new(),
            data_dir: folder.to_owned(),
            pages: None,
            traces: Default::default(),
        };
        let fanout = Fanout::over(journal.clone(), vec![outlet], context).unwrap();
        Life {
            journal,
            fanout,
            far: far.clone(),
        }
    }

    /// Events with these numbers, each journaled `number` seconds after the epoch.
    async fn append(&self, numbers: impl IntoIterator<Item = u64>) {
        let record = |number| Record {
            kind: Kind::Alert as u8,
            time: number * 1_000_000_000,
            payload: event(number).to_journal(),
        };
        let records = numbers.into_iter().map(record).collect();
        self.journal.append(records).await.unwrap();
    }

    fn siem(&self) -> Steering {
        self.fanout.steering("siem").unwrap()
    }

    fn status(&self) -> SinkStatus {
        self.fanout.status().remove(0)
    }

    async fn when(&self, what: impl Fn(&SinkStatus) -> bool) {
        let start = Instant::now();
        while !what(&self.status()) {
            let waited = start.elapsed();
            assert!(waited < Duration::from_secs(30), "{:?}", self.status());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn end(self) {
        self.fanout.drain(Duration::from_secs(20)).await;
        assert_eq!(self.journal.check(), Ok(()));
        let journal = self.journal;
        tokio::task::spawn_blocking(move || journal.close())
            .await
            .unwrap();
    }
}

fn event(number: u64) -> Event {
    use prost::Message as _;
    let alert = feeder::Alert {
        pod_name: format!("pod-{number}"),
        ..Default::default()
    };
    Event {
        kind: Kind::Alert,
        id: EventId {
            stream: StreamId(*b"steering"),
            sequence: number,
        },
        payload: alert.encode_to_vec().into(),
    }
}

/// A sink that has sent what there is.
async fn scene(events: u64) -> (tempfile::TempDir, Life) {
    let folder = tempfile::tempdir().unwrap();
    let life = Life::begin(folder.path(), &Far::default());
    life.append(1..=events).await;
    life.when(|siem| siem.pending == 0).await;
    (folder, life)
}

#[tokio::test]
async fn a_paused_sink_sends_nothing_not_even_after_a_restart_until_it_is_resumed() {
    let (folder, life) = scene(2).await;
    assert_eq!(life.siem().pause("uid 0, pid 1".to_owned()).await, Ok(true));
    assert_eq!(
        life.siem().pause("uid 0, pid 2".to_owned()).await,
        Ok(false)
    );
    life.append(3..=5).await;
    life.when(|siem| siem.pending == 3).await;
    let far = life.far.clone();
    life.end().await;
    let life = Life::begin(folder.path(), &far);
    life.append([6]).await;
    life.when(|siem| siem.pending == 4).await;
    let status = life.status();
    assert_eq!(
        (status.state.as_str(), status.paused_by.as_str()),
        ("paused", "uid 0, pid 1")
    );
    assert_eq!(far.got(), [1, 2]);
    assert_eq!(life.siem().resume().await, Ok(true));
    life.when(|siem| siem.pending == 0 && siem.state == "running")
        .await;
    assert_eq!(far.got(), [1, 2, 3, 4, 5, 6]);
    assert_eq!(life.siem().resume().await, Ok(false));
    life.end().await;
    assert_eq!(Life::begin(folder.path(), &far).status().state, "running");
}

#[tokio::test]
async fn a_rewind_sends_again_what_came_since_and_the_accounts_still_balance() {
    let (folder, life) = scene(10).await;
    let since = 8_000_000_000;
    let moved = life.siem().rewind(since).await;
    assert_eq!(moved, Ok(Steered { from: 11, to: 8 }));
    life.when(|siem| siem.delivered == 13).await;
    assert_eq!(life.far.got(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 8, 9, 10]);
    let far = life.far.clone();
    life.end().await;
    let life = Life::begin(folder.path(), &far);
    assert_eq!((life.status().delivered, life.status().pending), (13, 0));
    // To where it stands is no move, and forward is not back.
    assert_eq!(
        life.siem().rewind(11_000_000_000).await,
        Ok(Steered { from: 11, to: 11 })
    );
    life.far.is_away(true);
    life.append(11..=12).await;
    let forward = life.siem().rewind(12_000_000_000).await.unwrap_err();
    assert!(
        forward.to_string().contains("`skip --until` goes forward"),
        "{forward}"
    );
    life.far.is_away(false);
    life.when(|siem| siem.pending == 0).await;
    life.end().await;
}

#[tokio::test]
async fn a_skip_leaves_out_what_waits_and_goes_on_with_what_comes() {
    let (_folder, life) = scene(2).await;
    life.far.is_away(true);
    life.append(3..=9).await;
    life.when(|siem| siem.state == "retrying").await;
    let until = Some(6_000_000_000);
    assert_eq!(
        life.siem().skip(until).await,
        Ok(Steered { from: 3, to: 6 })
    );
    let back = life.siem().skip(Some(1_000_000_000)).await.unwrap_err();
    assert!(
        back.to_string().contains("`rewind --since` goes back"),
        "{back}"
    );
    assert_eq!(
        life.siem().skip(None).await,
        Ok(Steered { from: 6, to: 10 })
    );
    life.far.is_away(false);
    life.append([10]).await;
    life.when(|siem| siem.pending == 0 && siem.delivered == 3)
        .await;
    assert_eq!(life.far.got(), [1, 2, 10]);
    assert_eq!(life.status().filtered, 7);
    life.end().await;
}

#[tokio::test]
async fn dead_letters_are_sent_again_under_their_own_ids() {
    let folder = tempfile::tempdir().unwrap();
    let far = Far::default();
    far.refuses([2, 4, 5]);
    let life = Life::begin(folder.path(), &far);
    life.append(1..=6).await;
    life.when(|siem| siem.pending == 0).await;
    assert_eq!(
        (life.status().dead_letters, life.far.got()),
        (3, vec![1, 3, 6])
    );
    let letters = life.siem().letters();
    let part = letters.read(0, letters.end()).await.unwrap();
    let all: Vec<(u64, Event)> = part
        .letters
        .iter()
        .map(|kept| (kept.number, kept.letter.clone().unwrap().event))
        .collect();
    let first = part.letters[0].letter.clone().unwrap();
    assert_eq!(first.reason_and_answer(), ("400 no 2", "{\"status\":400}"));
    // One is mended, one is refused again, one is let go.
    far.refuses([5]);
    let patience = Duration::from_secs(30);
    let outcomes = letters
        .send(&all[..1], patience, "me".to_owned())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(outcomes, [Outcome::Done]);
    let outcomes = letters
        .send(&all[2..], patience, "me".to_owned())
        .await
        .unwrap()
        .unwrap();
    assert!(matches!(&outcomes[..], [Outcome::Reject { .. }]));
    letters.discard(&[all[1].0], "me".to_owned()).await.unwrap();
    assert_eq!(far.got(), [1, 3, 6, 2]);
    assert_eq!(life.status().dead_letters, 1);
    far.is_away(true);
    let away = letters
        .send(&all[2..], patience, "me".to_owned())
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(away.reason, "connection refused");
    life.siem().pause("me".to_owned()).await.unwrap();
    let refused = letters
        .send(&all[2..], patience, "me".to_owned())
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("resume"), "{refused}");
    life.end().await;
    let life = Life::begin(folder.path(), &far);
    let letters = life.siem().letters();
    let kept = letters.read(0, letters.end()).await.unwrap().letters;
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].letter.clone().unwrap().event, all[2].1);
    life.end().await;
}

#[tokio::test]
async fn a_dead_letter_is_sent_again_without_what_is_taken_out_by_now() {
    let folder = tempfile::tempdir().unwrap();
    let far = Far::default();
    far.refuses([1]);
    let life = Life::begin(folder.path(), &far);
    life.append([1]).await;
    life.when(|siem| siem.dead_letters == 1).await;
    life.end().await;
    // Somebody has seen a secret in it.
    let redact = ", redact: [{field: any, match: 'pod', replace: '***'}]";
    let life = Life::begin_with(folder.path(), &far, redact);
    let letters = life.siem().letters();
    let part = letters.read(0, letters.end()).await.unwrap();
    let kept = &part.letters[0];
    let event = kept.letter.clone().unwrap().event;
    far.refuses([]);
    let sent = letters
        .send(
            &[(kept.number, event)],
            Duration::from_secs(30),
            "me".to_owned(),
        )
        .await
        .unwrap();
    assert_eq!(sent, Ok(vec![Outcome::Done]));
    assert_eq!(far.0.lock().unwrap().pods, ["***-1"]);
    life.end().await;
}

#[tokio::test]
async fn a_test_goes_past_the_cursor_and_a_tap_sees_both_ways() {
    let (_folder, life) = scene(1).await;
    let mut steps = life.siem().test(event(77)).await.unwrap();
    let step = steps.recv().await.unwrap();
    assert_eq!((step.name, step.outcome.is_ok()), ("write", true));
    assert_eq!((life.far.got(), life.status().delivered), (vec![1, 77], 1));
    let onlooker = life.siem().tap().unwrap();
    life.far.refuses([3]);
    life.append(2..=3).await;
    let Seen::Sent { batch: 1, events } = onlooker.next().await else {
        panic!("what is sent comes first");
    };
    assert_eq!(events.len(), 2);
    let Seen::Answered {
        batch: 1,
        answer: Ok(outcomes),
        ..
    } = onlooker.next().await
    else {
        panic!("then the answer");
    };
    assert_eq!(outcomes[0], Outcome::Done);
    assert!(matches!(&outcomes[1], Outcome::Reject { reason } if reason.starts_with("400 no 3")));
    life.end().await;
}

#[tokio::test]
async fn a_sink_that_does_not_exist_is_named_with_those_that_do() {
    let (_folder, life) = scene(1).await;
    let unknown = life.fanout.steering("bus").err().unwrap();
    assert_eq!(
        unknown.to_string(),
        "there is no sink `bus`; there are: siem"
    );
    life.end().await;
}
