//! Far more offered than the disk takes: the senders wait, the memory stays where it is, nothing is lost.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use proto::link::from_relay::Is as Reply;
use proto::link::from_sensor::Is as Say;
use proto::link::link_client::LinkClient;
use proto::{EventId, Kind, StreamId, batch, feeder, link};
use relay::log::Store;
use support::books::Page;
use support::disk::{Mood, Moody};
use support::{Relay, SOON, channel, hello, settings};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

const SENSORS: u8 = 12;
const BATCHES: u64 = 60;
const EVENTS: u64 = 200;
/// Bytes of one event, and a little.
const SIZE: usize = 1024;
const BUDGET: u64 = 64 << 20;

fn event(number: u64) -> Bytes {
    let log = feeder::Log {
        pod_name: format!("pod-{number}"),
        resource: "x".repeat(SIZE),
        ..Default::default()
    };
    batch::join(Kind::Log, &log.encode_to_vec())
}

/// Sends all its batches, counting those that the connection took, and reads answers until the last one.
async fn sensor(at: std::net::SocketAddr, number: u8, taken: Arc<AtomicU64>) {
    let mut client = LinkClient::new(channel(at).await);
    // Hello and one batch at a time wait on this side; HTTP/2 takes what the relay has a window for.
    let (say, said) = mpsc::channel(1);
    let stream = StreamId([number; 8]);
    let sending = tokio::spawn(async move {
        let message = |is| link::FromSensor { is: Some(is) };
        let id = format!("sensor-{number}");
        say.send(message(Say::Hello(hello(&id))))
            .await
            .expect("a session");
        for batch in 0..BATCHES {
            let first = 1 + batch * EVENTS;
            let events = (first..first + EVENTS).map(event).collect();
            let stream = stream.0.to_vec().into();
            let batch = link::Batch {
                stream,
                first,
                events,
            };
            say.send(message(Say::Batch(batch)))
                .await
                .expect("the session lives");
            taken.fetch_add(1, Ordering::Relaxed);
        }
        say
    });
    let heard = client.exchange(ReceiverStream::new(said)).await;
    let mut heard = heard.expect("a stream").into_inner();
    let mut up_to = 0;
    while up_to < BATCHES * EVENTS {
        let message = heard.message().await.expect("an answer").expect("more");
        if let Some(Reply::Ack(ack)) = message.is {
            assert_eq!(ack.rejected, []);
            up_to = ack.up_to;
        }
    }
    drop(sending.await.expect("all sent"));
}

async fn page_when(relay: &Relay, what: &str, fits: impl Fn(&Page) -> bool) -> Page {
    let deadline = tokio::time::Instant::now() + 3 * SOON;
    loop {
        let page = relay.page().await;
        page.check().expect("the accounts add up");
        if fits(&page) {
            return page;
        }
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn part(page: &Page, figure: &str, part: &str) -> u64 {
    page.get(&format!(
        r#"cresset_ingest_{figure}_bytes{{part="{part}"}}"#
    ))
}

/// How often each event is in the journal, where every stream has to stand in its order.
fn stored(log: &Store) -> BTreeMap<EventId, u32> {
    let mut reader = log.view().reader(journal::Seq(1));
    let (mut stored, mut last) = (BTreeMap::new(), BTreeMap::new());
    loop {
        let block = reader.next(1 << 20).expect("readable");
        if block.entries.is_empty() {
            return stored;
        }
        for entry in block.entries {
            let id = EventId::try_from(&entry.payload[..16]).expect("an id");
            let before = last.insert(id.stream, id.sequence);
            assert!(
                before.is_none_or(|before| before < id.sequence),
                "{id} follows {before:?}"
            );
            *stored.entry(id).or_default() += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sensors_wait_within_the_budget_while_the_disk_hangs_and_nothing_acknowledged_is_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = Moody::new(&folder.path().join("journal"));
    let mut config = settings(folder.path(), "");
    config.relay.ingest.budget.0 = BUDGET;
    let (relay, log) = Relay::over(config, &disk, journal::Config::default()).await;
    disk.set(Mood::Hangs(0));
    let taken = Arc::new(AtomicU64::new(0));
    let mut sensors = JoinSet::new();
    for number in 1..=SENSORS {
        sensors.spawn(sensor(relay.at.link, number, taken.clone()));
    }

    // What a batch of this size may come to does not fit any more.
    let room = (3 << 20) as u64;
    let page = page_when(&relay, "the budget fills", |page| {
        part(page, "held", "events") + room > part(page, "budget", "events")
    })
    .await;
    let budget = |figure| part(&page, figure, "events") + part(&page, figure, "windows");
    assert_eq!(budget("budget"), BUDGET);
    assert!(budget("held") <= BUDGET);
    assert_eq!(page.door("link", "acknowledged"), 0);
    assert_eq!(log.view().committed().0, 0);
    let in_flight = page.get(r#"cresset_ingest_in_flight_events{door="link"}"#);
    assert!(
        in_flight > 0 && in_flight * SIZE as u64 <= part(&page, "budget", "events"),
        "{in_flight} events in flight"
    );
    // The rest has not left the sensors: beside the budget there is what each client's own HTTP/2 holds.
    let offered = u64::from(SENSORS) * BATCHES;
    let waiting = offered - taken.load(Ordering::Relaxed);
    assert!(
        waiting > offered / 4,
        "only {waiting} of {offered} batches wait"
    );

    // One sync after the other: as much comes in as goes out.
    for _ in 0..20 {
        let before = log.view().committed();
        let page = page_when(&relay, "a group is written", |_| {
            let written = log.view().committed() > before;
            if !written {
                disk.one_more();
            }
            written
        })
        .await;
        assert!(part(&page, "held", "events") <= part(&page, "budget", "events"));
    }
    disk.set(Mood::Works);
    while let Some(sensor) = sensors.join_next().await {
        sensor.expect("a sensor got all its answers");
    }

    let events = u64::from(SENSORS) * BATCHES * EVENTS;
    let page = page_when(&relay, "all is acknowledged", |page| {
        page.door("link", "acknowledged") == events && page.check_at_rest().is_ok()
    })
    .await;
    for outcome in ["refused", "rejected", "duplicate"] {
        assert_eq!(page.door("link", outcome), 0, "{outcome}");
    }
    let peak = part(&page, "held_peak", "events") + part(&page, "held_peak", "windows");
    assert!(peak <= BUDGET, "at most {peak} bytes were held");
    assert_eq!(part(&page, "held", "events"), 0);
    let stored = stored(&log);
    assert_eq!(stored.len() as u64, events);
    assert!(stored.values().all(|count| *count == 1));
    relay.stop().await;
}
