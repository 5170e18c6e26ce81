//! Sensors that remember what they were told: an event counts as kept only when it was acknowledged.
//!
//! What an event holds follows from its sensor and its sequence, so whoever reads it back can tell whether it is whole.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]
#![allow(clippy::expect_used, clippy::panic)] // reason: a test that cannot go on has failed

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use proto::link::from_relay::Is as Reply;
use proto::link::from_sensor::Is as Say;
use proto::link::link_client::LinkClient;
use proto::link::stream_state::Is as Known;
use proto::query::WatchRequest;
use proto::query::query_client::QueryClient;
use proto::query::watch_reply::Is as Watched;
use proto::{EventId, Kind, StreamId, batch, feeder, link};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Every so many sequences one is left out, as a sensor does that lost an event.
const LEFT_OUT: u64 = 997;

/// Events that may be on their way.
const AHEAD: u64 = 1000;

/// A small generator (splitmix64), so that a seed gives the same choices again.
#[derive(Clone)]
pub struct Dice(pub u64);

impl Dice {
    /// Seeded from `CRESSET_SEED`, else from the clock; said on standard output.
    pub fn seeded() -> Dice {
        let given = std::env::var("CRESSET_SEED").ok();
        let seed = given.map_or_else(
            || std::time::UNIX_EPOCH.elapsed().expect("a clock").as_nanos() as u64,
            |text| text.parse().expect("CRESSET_SEED is a number"),
        );
        println!("CRESSET_SEED={seed}");
        Dice(seed)
    }

    pub fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }
}

/// How a sensor sends.
#[derive(Clone, Copy)]
pub struct Pace {
    /// Most events of a batch.
    pub batch: u64,
    /// From one batch to the next; what the machine was late by is made up for, as far as may be on its way.
    pub pause: Duration,
    /// It ends after so many sequences; `u64::MAX`: when it is told to.
    pub total: u64,
    /// Bytes of the text in every event, at most.
    pub size: u64,
}

/// One sensor, through all its connections.
pub struct Sensor {
    pub number: u8,
    pace: Pace,
    told: Mutex<Told>,
}

#[derive(Clone, Copy, Default)]
struct Told {
    /// Highest sequence that was sent.
    sent: u64,
    /// All up to here were acknowledged.
    acknowledged: u64,
    /// Pauses that the relay asked for.
    pauses: u64,
    /// Events that a relay had when it came back, and had not acknowledged.
    found: u64,
}

impl Sensor {
    pub fn new(number: u8, pace: Pace) -> Arc<Sensor> {
        Arc::new(Sensor {
            number,
            pace,
            told: Mutex::default(),
        })
    }

    pub fn stream(&self) -> StreamId {
        StreamId([b'o', b'r', b'a', b'c', b'l', b'e', 0, self.number])
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().expect("a count")
    }

    /// The sequences that were acknowledged.
    pub fn acknowledged(&self) -> Vec<u64> {
        let up_to = self.told().acknowledged;
        (1..=up_to).filter(|n| !left_out(*n)).collect()
    }

    /// Whether everything that was sent was acknowledged.
    pub fn is_settled(&self) -> bool {
        let told = *self.told();
        told.sent == told.acknowledged
    }

    pub fn was_sent(&self, sequence: u64) -> bool {
        (1..=self.told().sent).contains(&sequence) && !left_out(sequence)
    }

    pub fn found(&self) -> u64 {
        self.told().found
    }

    pub fn pauses(&self) -> u64 {
        self.told().pauses
    }

    /// One event as it stands in a batch.
    fn event(&self, sequence: u64) -> Bytes {
        let (kind, payload) = payload(self.number, sequence, self.pace.size);
        batch::join(kind, &payload)
    }

    /// Connects again and again until `until` is true (or its total is sent) and everything sent is acknowledged.
    pub async fn run(
        self: Arc<Self>,
        mut at: watch::Receiver<Option<SocketAddr>>,
        until: watch::Receiver<bool>,
    ) {
        loop {
            let address = match at.wait_for(Option::is_some).await {
                Ok(address) => *address,
                Err(_) => return,
            };
            if let Some(address) = address
                && let Ok(()) = self.session(address, &until).await
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// One connection. Ok: there is nothing more to send.
    async fn session(
        &self,
        at: SocketAddr,
        until: &watch::Receiver<bool>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{at}"))?;
        let mut client = LinkClient::new(endpoint.connect().await?);
        let (say, said) = mpsc::channel(4);
        say.send(message(Say::Hello(self.hello()))).await?;
        let mut heard = client
            .exchange(ReceiverStream::new(said))
            .await?
            .into_inner();
        let welcome = match next(&mut heard).await? {
            Reply::Welcome(welcome) => welcome,
            other => panic!("a Welcome was expected, not {other:?}"),
        };
        let mut at = self.check_welcome(&welcome);
        let mut due = Instant::now();
        loop {
            let told = *self.told();
            let over = *until.borrow() || at > self.pace.total;
            if over && told.acknowledged == told.sent && at > told.sent {
                return Ok(());
            }
            let resends = at <= told.sent;
            let may_send = (!over || resends) && at <= told.acknowledged.max(1) + AHEAD;
            let before = at;
            tokio::select! {
                biased;
                reply = next(&mut heard) => self.hear(reply?),
                sent = say.reserve(), if may_send => at = self.send(sent?, at),
                () = tokio::time::sleep(Duration::from_millis(20)), if !may_send => {}
            }
            if at > before && !self.pace.pause.is_zero() {
                due += self.pace.pause;
                tokio::time::sleep_until(due).await;
            }
        }
    }

    fn hello(&self) -> link::Hello {
        let spooled = link::SpooledStream {
            stream: self.stream().0.to_vec().into(),
            ..Default::default()
        };
        link::Hello {
            version: 1,
            sensor: format!("oracle-{}", self.number),
            node: "test".to_owned(),
            streams: vec![spooled],
            ..Default::default()
        }
    }

    /// What the relay says that it has must hold all that it acknowledged, and nothing that was never sent. Gives the first
    /// sequence to send.
    fn check_welcome(&self, welcome: &link::Welcome) -> u64 {
        let ranges = match &welcome.streams[0].is {
            Some(Known::Received(ranges)) => ranges.ranges.clone(),
            Some(Known::Unknown(true)) => Vec::new(),
            other => panic!("{other:?}"),
        };
        let has = |n: u64| {
            ranges
                .iter()
                .any(|range| (range.first..range.end).contains(&n))
        };
        let told = *self.told();
        let missing = (1..=told.acknowledged).find(|n| !left_out(*n) && !has(*n));
        assert_eq!(missing, None, "acknowledged, and not received: {ranges:?}");
        for range in &ranges {
            let strange = (range.first..range.end).find(|n| left_out(*n) || *n > told.sent);
            assert_eq!(strange, None, "received, and never sent: {ranges:?}");
        }
        let unsaid = told.acknowledged + 1..=told.sent;
        let next = (1..)
            .find(|n| !left_out(*n) && !has(*n))
            .expect("there is always one");
        let mut told = self.told();
        told.found += unsaid.filter(|n| has(*n)).count() as u64;
        // What a Welcome names as received is on disk, and a sensor lets go of it: it is told no other way.
        told.acknowledged = told.acknowledged.max(told.sent.min(next - 1));
        next
    }

    /// Sends a batch that begins with `at`; gives the first sequence after it.
    fn send(&self, room: mpsc::Permit<'_, link::FromSensor>, at: u64) -> u64 {
        let mut dice = Dice(at ^ u64::from(self.number) << 56);
        let most = at + 1 + dice.roll(self.pace.batch);
        let end = (at..most).find(|n| left_out(*n)).unwrap_or(most);
        let batch = link::Batch {
            stream: self.stream().0.to_vec().into(),
            first: at,
            events: (at..end).map(|n| self.event(n)).collect(),
        };
        // Sent from here on, whatever becomes of it.
        let mut told = self.told();
        told.sent = told.sent.max(end - 1);
        room.send(message(Say::Batch(batch)));
        if left_out(end) { end + 1 } else { end }
    }

    fn hear(&self, reply: Reply) {
        let mut told = self.told();
        match reply {
            Reply::Ack(ack) => {
                assert_eq!(ack.rejected, []);
                assert!(ack.up_to <= told.sent, "acknowledged, and never sent");
                told.acknowledged = told.acknowledged.max(ack.up_to);
            }
            Reply::Pause(pause) => {
                assert!(!pause.reason.is_empty());
                told.pauses += 1;
            }
            Reply::Welcome(_) | Reply::Rules(_) | Reply::Identities(_) => {}
        }
    }
}

/// Whether a sensor left that sequence out.
pub fn left_out(sequence: u64) -> bool {
    sequence.is_multiple_of(LEFT_OUT)
}

fn message(is: Say) -> link::FromSensor {
    link::FromSensor { is: Some(is) }
}

async fn next(heard: &mut tonic::Streaming<link::FromRelay>) -> Result<Reply, Status> {
    loop {
        let message = heard.message().await?;
        let message = message.ok_or_else(|| Status::unavailable("the stream ended"))?;
        if let Some(reply) = message.is {
            return Ok(reply);
        }
    }
}

/// Kind and bytes of an event.
pub fn payload(sensor: u8, sequence: u64, size: u64) -> (Kind, Vec<u8>) {
    let mut dice = Dice(sequence << 8 | u64::from(sensor));
    let text = format!("{:x} ", dice.roll(u64::MAX))
        .repeat(1 + dice.roll(size.div_ceil(17).max(1)) as usize);
    let pod_name = format!("pod-{sensor}-{sequence}");
    if sequence.is_multiple_of(3) {
        let alert = feeder::Alert {
            pod_name,
            resource: text,
            policy_name: "kept".to_owned(),
            action: "Audit".to_owned(),
            ..Default::default()
        };
        (Kind::Alert, alert.encode_to_vec())
    } else {
        let log = feeder::Log {
            pod_name,
            resource: text,
            ..Default::default()
        };
        (Kind::Log, log.encode_to_vec())
    }
}

/// How often each event of these sensors is in the relay's history; every one of them is whole and was sent.
pub async fn read_back(feed: &str, sensors: &[Arc<Sensor>]) -> BTreeMap<EventId, u32> {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{feed}"));
    let channel = endpoint.expect("an address").connect().await;
    let mut client = QueryClient::new(channel.expect("connected"));
    let request = WatchRequest {
        since_ns: 1,
        ..Default::default()
    };
    let mut replies = client.watch(request).await.expect("a stream").into_inner();
    let mut counts = BTreeMap::new();
    while let Some(reply) = replies.message().await.expect("a reply") {
        let event = match reply.is {
            Some(Watched::Event(event)) => event,
            Some(Watched::Gap(gap)) => panic!("a gap in the history: {gap:?}"),
            _ => continue,
        };
        let id = EventId::try_from(&event.id[..]).expect("an id");
        let Some(sensor) = sensors.iter().find(|sensor| sensor.stream() == id.stream) else {
            continue;
        };
        assert!(sensor.was_sent(id.sequence), "{id} was never sent");
        let (_, wanted) = payload(sensor.number, id.sequence, sensor.pace.size);
        assert!(event.payload == wanted, "{id} is not what was sent");
        *counts.entry(id).or_default() += 1;
    }
    counts
}
