//! The sensors' door over a real socket, and a disk that does what the test says.

#[path = "../../tests/support/disk.rs"]
mod disk;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use proto::link::from_relay::Is as Reply;
use proto::link::from_sensor::Is as Say;
use proto::link::link_client::LinkClient;
use proto::link::stream_state::Is as Known;
use proto::{Kind, StreamId, batch, feeder, link};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::{Code, Status, Streaming};

use self::disk::{Mood, Moody};
use super::{Accounts, Config, Door, EndReason, Ingest};
use crate::distribute::{Distributor, Offered};
use crate::listen::{Bound, Connections, Grpc, Limits};
use crate::log::Store;
use crate::metrics::Registry;

const SOON: Duration = Duration::from_secs(20);
const STREAM: StreamId = StreamId([1; 8]);

/// A link listener over a moody disk.
struct Relay {
    address: SocketAddr,
    disk: Moody,
    log: Store,
    ingest: Ingest,
    accounts: Accounts,
    _stop: watch::Sender<bool>,
    _folder: TempDir,
}

impl Drop for Relay {
    fn drop(&mut self) {
        // A journal that closes waits for its disk.
        self.disk.set(Mood::Works);
    }
}

async fn relay() -> Relay {
    relay_with(Config {
        pause: Duration::from_millis(100),
        ..Config::default()
    })
    .await
}

async fn relay_with(config: Config) -> Relay {
    let folder = tempfile::tempdir().unwrap();
    let disk = Moody::new(folder.path());
    let (log, _) = Store::open_on(Arc::new(disk.clone()), journal::Config::default()).unwrap();
    let registry = Registry::new();
    let accounts = Accounts::new(&registry).unwrap();
    let none = policy::compile(&[], &proto::rules::Postures::default());
    let (_, policies) = watch::channel(Arc::new(Offered::to_all(Arc::new(none))));
    let ingest = Ingest::new(
        config,
        log.clone(),
        Distributor::new(policies),
        accounts.clone(),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits = Limits {
        connections: 10,
        streams: 4,
        window: 1 << 20,
        ping: SOON,
        pong: SOON,
        per_peer: 10,
        handshakes: 100,
        idle: SOON,
    };
    let grpc = Grpc {
        name: "link",
        door: crate::access::Door::Link,
        access: crate::access::Access::default(),
        bound: Bound::Tcp(listener),
        tls: None,
        enrolment: None,
        limits,
        budget: Some(ingest.budget().clone()),
        routes: Routes::new(ingest.service()),
        connections: Connections::new(&registry).unwrap(),
    };
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(grpc.serve(stopped));
    Relay {
        address,
        disk,
        log,
        ingest,
        accounts,
        _stop: stop,
        _folder: folder,
    }
}

impl Relay {
    /// A sensor that said Hello, and the relay's first answer.
    async fn sensor(&self, id: &str) -> (Sensor, Result<link::FromRelay, Status>) {
        let spooled = link::SpooledStream {
            stream: STREAM.0.to_vec().into(),
            ..Default::default()
        };
        let hello = link::Hello {
            version: 1,
            sensor: id.to_owned(),
            streams: vec![spooled],
            ..Default::default()
        };
        let mut sensor = self.connect().await;
        sensor.say(Say::Hello(hello)).await;
        let first = sensor.hear().await;
        (sensor, first)
    }

    /// A sensor that was welcomed.
    async fn welcomed(&self, id: &str) -> Sensor {
        let (sensor, first) = self.sensor(id).await;
        assert!(matches!(first.unwrap().is, Some(Reply::Welcome(_))));
        sensor
    }

    async fn connect(&self) -> Sensor {
        let mut client = LinkClient::connect(format!("http://{}", self.address))
            .await
            .unwrap();
        let (say, said) = mpsc::channel(100);
        let heard = client
            .exchange(ReceiverStream::new(said))
            .await
            .unwrap()
            .into_inner();
        Sensor { say, heard }
    }

    /// The books balance, and this is what they say.
    fn ledger(&self) -> journal::Ledger {
        let ledger = self.accounts.ledger(Door::Link);
        let journal::Ledger {
            received,
            acknowledged,
            refused,
            duplicate,
            in_flight,
        } = ledger;
        assert_eq!(
            received,
            acknowledged + refused + duplicate + in_flight,
            "{ledger:?}"
        );
        ledger
    }

    async fn eventually(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + SOON;
        while !done(self) {
            assert!(
                tokio::time::Instant::now() < deadline,
                "{what}: {:?}",
                self.ledger()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

struct Sensor {
    say: mpsc::Sender<link::FromSensor>,
    heard: Streaming<link::FromRelay>,
}

impl Sensor {
    async fn say(&self, what: Say) {
        self.say
            .send(link::FromSensor { is: Some(what) })
            .await
            .unwrap();
    }

    async fn batch(&self, first: u64, count: u64) {
        let events = (first..first + count).map(event).collect();
        self.say(Say::Batch(link::Batch {
            stream: STREAM.0.to_vec().into(),
            first,
            events,
        }))
        .await;
    }

    /// The next answer but for rules.
    async fn hear(&mut self) -> Result<link::FromRelay, Status> {
        loop {
            let heard = timeout(SOON, self.heard.message())
                .await
                .expect("an answer in time")?;
            let heard = heard.ok_or_else(|| Status::ok("the stream ended"))?;
            if !matches!(heard.is, Some(Reply::Rules(_))) {
                return Ok(heard);
            }
        }
    }

    async fn ack(&mut self) -> link::Ack {
        match self.hear().await.unwrap().is {
            Some(Reply::Ack(ack)) => ack,
            other => panic!("an Ack was expected, not {other:?}"),
        }
    }

    async fn acked_up_to(&mut self, sequence: u64) {
        while self.ack().await.up_to < sequence {}
    }

    /// Nothing is answered.
    async fn silence(&mut self) {
        let heard = timeout(Duration::from_millis(300), self.hear()).await;
        assert!(
            heard.is_err(),
            "nothing should have been answered: {heard:?}"
        );
    }

    /// The status that the relay ends the session with.
    async fn end(&mut self) -> Status {
        loop {
            if let Err(status) = self.hear().await {
                return status;
            }
        }
    }
}

fn event(number: u64) -> bytes::Bytes {
    let alert = feeder::Alert {
        pod_name: format!("pod-{number}"),
        ..Default::default()
    };
    batch::join(Kind::Alert, &alert.encode_to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ack_waits_until_the_events_are_on_disk() {
    let relay = relay().await;
    let mut sensor = relay.welcomed("a").await;
    relay.disk.set(Mood::Hangs(0));
    sensor.batch(1, 3).await;
    sensor.silence().await;
    assert_eq!(relay.log.view().committed().0, 0);
    assert_eq!(relay.ledger().in_flight, 3);
    relay.disk.set(Mood::Works);
    assert_eq!(sensor.ack().await.up_to, 3);
    assert_eq!(
        (relay.log.view().committed().0, relay.ledger().acknowledged),
        (3, 3)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_sent_again_while_it_is_being_written_is_journaled_once() {
    let relay = relay().await;
    let first = relay.welcomed("a").await;
    relay.disk.set(Mood::Hangs(0));
    first.batch(1, 3).await;
    relay
        .eventually("the batch is on its way", |relay| {
            relay.ledger().in_flight == 3
        })
        .await;
    drop(first);
    relay
        .eventually("the first session ended", |relay| {
            relay.ingest.sensors().connected() == 0
        })
        .await;
    let mut second = relay.welcomed("a").await;
    second.batch(1, 5).await;
    second.silence().await;
    relay.disk.set(Mood::Works);
    assert_eq!(second.ack().await.up_to, 5);
    assert_eq!(relay.log.view().committed().0, 5);
    let ledger = relay.ledger();
    assert_eq!(
        (ledger.received, ledger.acknowledged, ledger.duplicate),
        (8, 5, 3)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_with_a_pause_and_a_reason_and_heals() {
    let relay = relay().await;
    let mut sensor = relay.welcomed("a").await;
    sensor.batch(1, 1).await;
    assert_eq!(sensor.ack().await.up_to, 1);
    relay.disk.set(Mood::Full);
    sensor.batch(2, 2).await;
    let pause = match sensor.hear().await.unwrap().is {
        Some(Reply::Pause(pause)) => pause,
        other => panic!("a Pause was expected, not {other:?}"),
    };
    assert_eq!(pause.retry_after_ms, 100);
    assert!(!pause.reason.is_empty());
    let status = sensor.end().await;
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(relay.ledger().refused, 2);
    assert_eq!(relay.accounts.sessions_ended(EndReason::Refused), 1);

    relay.disk.set(Mood::Works);
    // It looks again a second after it found no room.
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        let (mut sensor, first) = relay.sensor("a").await;
        let Some(Reply::Welcome(welcome)) = first.unwrap().is else {
            panic!("no Welcome")
        };
        let Some(Known::Received(ranges)) = &welcome.streams[0].is else {
            panic!("{welcome:?}")
        };
        assert_eq!(ranges.ranges, [link::Range { first: 1, end: 2 }]);
        sensor.batch(2, 2).await;
        match sensor.hear().await.unwrap().is {
            Some(Reply::Ack(ack)) => break assert_eq!(ack.up_to, 3),
            Some(Reply::Pause(_)) => drop(sensor.end().await),
            other => panic!("an Ack or a Pause was expected, not {other:?}"),
        }
        assert!(tokio::time::Instant::now() < deadline, "it does not heal");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(relay.log.view().committed().0, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_larger_than_the_budget_passes_alone_and_others_after_it() {
    // An eighth for events: 256 KiB, and 3,000 events come to more.
    let relay = relay_with(Config {
        budget: 2 << 20,
        ..Config::default()
    })
    .await;
    let mut sensor = relay.welcomed("a").await;
    let mut other = relay.welcomed("b").await;
    for n in 0..5 {
        sensor.batch(1 + 3000 * n, 3000).await;
    }
    sensor.acked_up_to(15_000).await;
    let events = vec![event(1)];
    other
        .say(Say::Batch(link::Batch {
            stream: vec![2; 8].into(),
            first: 1,
            events,
        }))
        .await;
    assert_eq!(other.ack().await.up_to, 1);
    assert_eq!(relay.ledger().acknowledged, 15_001);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sensor_that_does_not_read_what_was_rejected_is_let_go_with_all_it_holds() {
    let relay = relay_with(Config {
        arrival: Duration::from_millis(300),
        ..Config::default()
    })
    .await;
    let sensor = relay.welcomed("deaf").await;
    let bad = bytes::Bytes::from_static(&[0x08]);
    let sending = tokio::spawn(async move {
        for batch in 0..30_u64 {
            let batch = link::Batch {
                stream: STREAM.0.to_vec().into(),
                first: 1 + 16_000 * batch,
                events: vec![bad.clone(); 16_000],
            };
            let message = link::FromSensor {
                is: Some(Say::Batch(batch)),
            };
            if sensor.say.send(message).await.is_err() {
                break;
            }
        }
        sensor
    });
    relay
        .eventually("it is let go", |relay| {
            relay.accounts.sessions_ended(EndReason::Stalled) == 1
        })
        .await;
    relay
        .eventually("nothing is held for it", |relay| {
            relay.ingest.budget().held() == 0 && relay.ledger().in_flight == 0
        })
        .await;
    let _sensor = sending.await.unwrap();
    let mut other = relay.welcomed("other").await;
    other.batch(1_000_000, 2).await;
    assert_eq!(other.ack().await.up_to, 1_000_001);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_answers_what_was_sent_and_then_ends_the_session() {
    let relay = relay().await;
    let mut sensor = relay.welcomed("a").await;
    relay.disk.set(Mood::Hangs(0));
    sensor.batch(1, 4).await;
    relay
        .eventually("the batch is on its way", |relay| {
            relay.ledger().in_flight == 4
        })
        .await;
    relay.ingest.drain();
    sensor.silence().await;
    relay.disk.set(Mood::Works);
    assert_eq!(sensor.ack().await.up_to, 4);
    assert_eq!(sensor.end().await.code(), Code::Unavailable);
    relay.ingest.finished(SOON).await;
    assert_eq!(relay.ingest.sensors().connected(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_say_hello_is_sent_away_with_the_reason() {
    let relay = relay_with(Config {
        hello: Duration::from_millis(100),
        ..Config::default()
    })
    .await;
    let mut silent = relay.connect().await;
    assert_eq!(silent.end().await.code(), Code::DeadlineExceeded);
    assert_eq!(relay.accounts.sessions_ended(EndReason::BadHello), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_something_else_first_is_sent_away_with_the_reason() {
    let relay = relay().await;
    let mut rude = relay.connect().await;
    rude.batch(1, 1).await;
    let status = rude.end().await;
    assert_eq!(
        (status.code(), status.message()),
        (Code::InvalidArgument, "the first message has to be Hello")
    );

    let mut newer = relay.connect().await;
    newer
        .say(Say::Hello(link::Hello {
            version: 3,
            sensor: "a".to_owned(),
            ..Default::default()
        }))
        .await;
    let status = newer.end().await;
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(
        status.message().contains("version 3") && status.message().contains("version 1"),
        "{status}"
    );
    assert_eq!(relay.accounts.sessions_ended(EndReason::BadHello), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn imported_events_get_ids_of_the_relays_own_stream_and_bad_ones_their_reason() {
    let relay = relay().await;
    let importer = relay.ingest.importer(Door::Import);
    let alert = bytes::Bytes::from(
        feeder::Alert {
            pod_name: "p".to_owned(),
            ..Default::default()
        }
        .encode_to_vec(),
    );
    let broken = bytes::Bytes::from_static(&[0xff]);
    let events = vec![
        (Kind::Alert, alert.clone()),
        (Kind::Alert, broken),
        (Kind::Alert, alert),
    ];
    let imported = importer.import(events).await.unwrap();
    assert_eq!(
        (
            imported.accepted,
            imported.rejected.len(),
            imported.rejected[0].0
        ),
        (2, 1, 1)
    );
    let mut reader = relay.log.view().reader(journal::Seq(1));
    let block = reader.next(1 << 20).unwrap();
    let ids: Vec<_> = block
        .entries
        .iter()
        .map(|entry| proto::EventId::try_from(&entry.payload[..16]).unwrap())
        .collect();
    assert_eq!(ids.iter().map(|id| id.sequence).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(ids[0].stream, ids[1].stream);
    let ledger = relay.accounts.ledger(Door::Import);
    assert_eq!(
        (
            ledger.received,
            ledger.acknowledged,
            ledger.refused,
            ledger.in_flight
        ),
        (3, 2, 1, 0)
    );
}
