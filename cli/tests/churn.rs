//! Readers that come and go by the hundred a second, a thousand that only wait, and some that stop reading: the relay stays
//! up and does not grow, and whoever reads steadily beside them misses nothing.
//!
//! `CRESSET_CHURN=SECONDS` (or `cargo xtask soak --churn SECONDS`) goes on for so long; the test itself a few seconds.
#![allow(clippy::expect_used, clippy::panic)] // reason: a test that cannot go on has failed

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::FutureExt;
use proto::feeder::RequestMessage;
use proto::feeder::log_service_client::LogServiceClient;
use proto::query::WatchRequest;
use proto::query::query_client::QueryClient;
use proto::query::watch_reply::Is;
use proto::{EventId, StreamId, feeder};
use rustix::net::sockopt::set_socket_linger;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::oracle::{Dice, Pace, Sensor, left_out};
use support::program::{Place, Relay};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

/// How long without being told, in seconds.
const SECONDS: u64 = 4;

const IDLE: usize = 1_000;
const STALLED: usize = 20;
const CHURNERS: u64 = 32;
const SENSORS: u8 = 2;

/// About 10,000 events a second from each sensor.
const PACE: Pace = Pace {
    batch: 200,
    pause: Duration::from_millis(10),
    total: u64::MAX,
    size: 600,
};

/// What the relay may have grown by, in KiB, after as much churn again: what allocators keep, not what leaks.
const GROWTH: u64 = 24 << 10;

/// Waiting for something takes no longer than this.
const PATIENCE: Duration = Duration::from_secs(120);

fn seconds() -> u64 {
    std::env::var("CRESSET_CHURN").map_or(SECONDS, |text| text.parse().expect("a number"))
}

/// A thousand connections are more than the usual 1024 files allow.
fn raise_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, raised).expect("as far as may be");
}

/// Memory of a process, in KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let words = line.and_then(|line| line.split_whitespace().nth(1));
    words.and_then(|kib| kib.parse().ok()).expect("a number")
}

async fn connect(feed: &str) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{feed}")).expect("an address");
    endpoint.connect().await.expect("connected")
}

fn word(filter: &str) -> RequestMessage {
    RequestMessage {
        filter: filter.to_owned(),
    }
}

/// The last sequence that a reader has had of each stream.
#[derive(Default)]
struct Had(std::sync::Mutex<BTreeMap<StreamId, u64>>);

impl Had {
    /// An event; none that this reader should have had stands between it and the one before.
    fn take(&self, id: EventId, expected: impl Fn(u64) -> bool) {
        let mut had = self.0.lock().expect("a count");
        let last = had.entry(id.stream).or_insert(0);
        let missed = (*last + 1..id.sequence).find(|n| expected(*n));
        assert_eq!(missed, None, "missed before {id}");
        assert!(id.sequence > *last, "{id} came again, or late");
        *last = id.sequence;
    }

    fn has(&self, sensor: &Sensor, sequence: Option<u64>) -> bool {
        let had = self.0.lock().expect("a count");
        had.get(&sensor.stream()).copied() == sequence
    }
}

/// Alerts and logs through our own service.
async fn watch_all(feed: String, had: Arc<Had>) {
    let request = WatchRequest {
        since_ns: 1,
        follow: true,
        ..WatchRequest::default()
    };
    let mut client = QueryClient::new(connect(&feed).await);
    let mut replies = client.watch(request).await.expect("a stream").into_inner();
    while let Some(reply) = replies.message().await.expect("it stays open") {
        match reply.is {
            Some(Is::Event(event)) => {
                let id = EventId::try_from(&event.id[..]).expect("an id");
                had.take(id, |n| !left_out(n));
            }
            Some(Is::Gap(gap)) => panic!("a reader that keeps up was told of {gap:?}"),
            _ => {}
        }
    }
}

/// Alerts as KubeArmor's clients read them.
async fn watch_alerts(mut alerts: Streaming<feeder::Alert>, had: Arc<Had>) {
    while let Some(alert) = alerts.message().await.expect("it stays open") {
        let id = EventId::try_from(&alert.event_id[..]).expect("an id");
        had.take(id, |n| !left_out(n) && is_alert(n));
    }
}

fn is_alert(sequence: u64) -> bool {
    sequence.is_multiple_of(3)
}

/// Comes, reads a little or nothing, goes as clients do or as they should not; again and again.
async fn come_and_go(
    feed: SocketAddr,
    mut dice: Dice,
    over: watch::Receiver<bool>,
    count: Arc<AtomicU64>,
) {
    while !*over.borrow() {
        match dice.roll(6) {
            0 => read_a_little(feed, dice.roll(4)).await,
            1 => leave_before_the_answer(feed).await,
            2 => say(feed, b"").await,
            3 => say(feed, b"GET /metrics HTTP/1.1\r\n\r\n").await,
            // A greeting and a PING that is cut off.
            4 => {
                say(
                    feed,
                    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x08\x06",
                )
                .await
            }
            _ => cut_the_line(feed).await,
        }
        count.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(20 + dice.roll(60))).await;
    }
}

/// As far as a busy machine lets it; what fails is part of the game.
async fn try_connect(feed: SocketAddr) -> Option<LogServiceClient<Channel>> {
    let endpoint = Endpoint::from_shared(format!("http://{feed}")).expect("an address");
    endpoint.connect().await.ok().map(LogServiceClient::new)
}

async fn read_a_little(feed: SocketAddr, events: u64) {
    let Some(mut client) = try_connect(feed).await else {
        return;
    };
    let Ok(logs) = client.watch_logs(word("all")).await else {
        return;
    };
    let mut logs = logs.into_inner();
    for _ in 0..events {
        let _ = tokio::time::timeout(Duration::from_millis(200), logs.message()).await;
    }
}

async fn leave_before_the_answer(feed: SocketAddr) {
    if let Some(mut client) = try_connect(feed).await {
        let _ = client.watch_alerts(word("policy")).now_or_never();
    }
}

/// Says so much and closes.
async fn say(feed: SocketAddr, bytes: &[u8]) {
    if let Ok(mut stream) = TcpStream::connect(feed).await {
        let _ = stream.write_all(bytes).await;
    }
}

/// Resets the connection where others would close it.
async fn cut_the_line(feed: SocketAddr) {
    let Ok(mut stream) = TcpStream::connect(feed).await else {
        return;
    };
    let _ = set_socket_linger(&stream, Some(Duration::ZERO));
    let _ = stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await;
}

/// Those who are there all the time.
struct Audience {
    all: Arc<Had>,
    alerts: Arc<Had>,
    reading: JoinSet<()>,
    /// Nothing is read from these, and nothing comes in most.
    _idle: Vec<Streaming<feeder::Message>>,
    _stalled: Vec<Streaming<feeder::Log>>,
}

impl Audience {
    /// Streams that it holds open.
    const STREAMS: u64 = (IDLE + STALLED + 2) as u64;

    async fn gather(feed: &str) -> Audience {
        let (all, alerts) = (Arc::<Had>::default(), Arc::<Had>::default());
        let mut reading = JoinSet::new();
        reading.spawn(watch_all(feed.to_owned(), all.clone()));
        let mut client = LogServiceClient::new(connect(feed).await);
        let stream = client.watch_alerts(word("policy")).await.expect("a stream");
        reading.spawn(watch_alerts(stream.into_inner(), alerts.clone()));
        let (mut idle, mut stalled) = (Vec::new(), Vec::new());
        for _ in 0..IDLE {
            let mut client = LogServiceClient::new(connect(feed).await);
            let stream = client.watch_messages(word("all")).await.expect("a stream");
            idle.push(stream.into_inner());
        }
        for _ in 0..STALLED {
            let mut client = LogServiceClient::new(connect(feed).await);
            let stream = client.watch_logs(word("all")).await.expect("a stream");
            stalled.push(stream.into_inner());
        }
        Audience {
            all,
            alerts,
            reading,
            _idle: idle,
            _stalled: stalled,
        }
    }

    /// Whether the steady readers have had all that a sensor was told is kept. Fails with what one of them found wrong.
    fn has_all_of(&mut self, sensor: &Sensor) -> bool {
        if let Some(ended) = self.reading.try_join_next() {
            panic!("a steady reader ended: {ended:?}");
        }
        let kept = sensor.acknowledged();
        let last_alert = kept.iter().rev().find(|n| is_alert(**n));
        self.all.has(sensor, kept.last().copied()) && self.alerts.has(sensor, last_alert.copied())
    }
}

/// Memory and what was done, as it goes.
struct Table {
    begun: Instant,
    pid: u32,
}

impl Table {
    fn row(&self, relay: &Relay, visits: &AtomicU64) -> u64 {
        let resident = resident(self.pid);
        let page = relay.page();
        println!(
            "{:>6.1} s  {:>9} visits  {:>10} events  {:>5} streams  {:>7} KiB",
            self.begun.elapsed().as_secs_f32(),
            visits.load(Ordering::Relaxed),
            page.door("link", "acknowledged"),
            page.get("cresset_feed_clients"),
            resident,
        );
        resident
    }
}

#[test]
fn readers_that_come_and_go_or_stop_reading_cost_nobody_an_event_and_the_relay_no_memory() {
    raise_limit();
    let (seconds, dice) = (seconds(), Dice::seeded());
    let place = Place::new("", "");
    let relay = place.start();
    let feed: SocketAddr = relay.feed.parse().expect("an address");
    let runtime = Runtime::new().expect("a runtime");
    let mut audience = runtime.block_on(Audience::gather(&relay.feed));
    let held = |page: &support::books::Page| page.get("cresset_feed_clients") == Audience::STREAMS;
    relay.page_when("everybody is there", held);

    let at = watch::Sender::new(Some(relay.link));
    let (sent, left) = (watch::Sender::new(false), watch::Sender::new(false));
    let sensors: Vec<Arc<Sensor>> = (1..=SENSORS).map(|n| Sensor::new(n, PACE)).collect();
    let mut sending = JoinSet::new();
    for sensor in &sensors {
        let run = sensor.clone().run(at.subscribe(), sent.subscribe());
        sending.spawn_on(run, runtime.handle());
    }
    let visits = Arc::new(AtomicU64::new(0));
    let mut visiting = JoinSet::new();
    for number in 0..CHURNERS {
        let dice = Dice(dice.0.wrapping_add(number << 32));
        let visitor = come_and_go(feed, dice, left.subscribe(), visits.clone());
        visiting.spawn_on(visitor, runtime.handle());
    }

    let table = Table {
        begun: Instant::now(),
        pid: relay.running.pid(),
    };
    let rows = (seconds / 2).clamp(2, 20);
    let mut rss = Vec::new();
    for _ in 0..rows {
        std::thread::sleep(Duration::from_secs(seconds) / rows as u32);
        rss.push(table.row(&relay, &visits));
    }

    left.send_replace(true);
    let ended = async { while visiting.join_next().await.is_some() {} };
    let _ = runtime.block_on(async { tokio::time::timeout(PATIENCE, ended).await });
    // A visitor that waits still, though the relay has nothing of it any more, waits for its own end of the line: with one
    // that the relay keeps waiting this fails.
    let are_gone = |page: &support::books::Page| {
        held(page) && page.get(r#"cresset_connections{listener="feed"}"#) == Audience::STREAMS
    };
    relay.page_when("visitors are gone", are_gone);
    drop(visiting);
    sent.send_replace(true);
    runtime.block_on(async {
        while let Some(ended) = sending.join_next().await {
            ended.expect("a sensor that finds nothing wrong");
        }
    });
    support::eventually("the steady readers have everything", PATIENCE, || {
        let had = sensors.iter().all(|sensor| audience.has_all_of(sensor));
        had.then_some(())
    });
    let page = relay.page_when("only those are left who stay", are_gone);
    let last = table.row(&relay, &visits);
    assert!(sensors.iter().all(|sensor| sensor.is_settled()));
    assert_eq!(page.check_at_rest(), Ok(()));
    assert!(visits.load(Ordering::Relaxed) > CHURNERS, "nobody came");
    // What was there half way through, with everybody there and the allocator warm.
    let before = rss[rss.len() / 2 - 1];
    assert!(
        last <= before + GROWTH,
        "it grew from {before} KiB to {last} KiB"
    );
    let took = table.begun.elapsed().as_secs_f32();
    println!(
        "{:.0} visits and {:.0} events a second, none missing; {} KiB at first, {before} KiB half way, {last} KiB at the end",
        visits.load(Ordering::Relaxed) as f32 / took,
        page.door("link", "acknowledged") as f32 / took,
        rss[0],
    );
    runtime.block_on(async { audience.reading.shutdown().await });
    drop(audience);
    relay.stop();
}
