//! `feeds`: clients of `feeder.LogService`, each with all alerts and logs.
//!
//! Live rows: everybody reads while sensors send as fast as they can, on the same cores. Held rows: clients subscribe and
//! hold their reading back until a stretch of events is journaled, so that the feed alone is measured. In both, every
//! client must get every event, once and in order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use proto::query::query_client::QueryClient;
use proto::query::{Filter, WatchRequest};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tonic::transport::Endpoint;

use crate::clock::Clock;
use crate::readers::Readers;
use crate::relay::Relay;
use crate::scene::{self, Bench, Folder, Moment, Spent};
use crate::sensors::{Fleet, Load, Sent};
use crate::table::Row;

/// Bound of the journal, in bytes; a client that is further behind loses, which it must not.
const LIMIT: u64 = 3 << 30;
/// Events of a live row at most: what the journal holds.
const MOST: u64 = 3_500_000;
/// Events of a held row.
const HELD: u64 = 400_000;
/// Readers have this long without seeing anything.
const STALLED: Duration = Duration::from_secs(20);

pub(crate) async fn run(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let flat_out = Load {
        most: MOST,
        ..bench.load(4, None)
    };
    live(bench, &mut rows, "flat out", &flat_out, &[0, 1, 4, 16, 64]).await?;
    let steady = bench.load(4, Some(50_000.0));
    live(bench, &mut rows, "50 k/s", &steady, &[0, 4, 16]).await?;
    for filters in [4, 64] {
        let what = format!("{filters} slow filters, flat out");
        if bench.wants(&what) {
            rows.push(filtered(bench, Row::new("feeds", what), filters, &flat_out).await?);
        }
    }
    for clients in [1, 4, 16] {
        let what = format!("{}, held", counted(clients));
        if bench.wants(&what) {
            rows.push(held(bench, Row::new("feeds", what), clients).await?);
        }
    }
    let what = "4 clients, 10 k/s, from due to received";
    if bench.wants(what) {
        rows.push(timed(bench, Row::new("feeds", what)).await?);
    }
    Ok(rows)
}

fn counted(clients: usize) -> String {
    match clients {
        1 => "1 client".to_owned(),
        _ => format!("{clients} clients"),
    }
}

/// The same load with more and more clients. The first number of clients is 0: what it costs then is no delivery's.
async fn live(
    bench: &Bench,
    rows: &mut Vec<Row>,
    how: &str,
    load: &Load,
    clients: &[usize],
) -> Result<()> {
    let mut alone = f64::NAN;
    for &clients in clients {
        let what = format!("{}, {how}", counted(clients));
        if bench.wants(&what) {
            let row = Row::new("feeds", what);
            rows.push(beside_ingest(bench, row, clients, load, &mut alone).await?);
        }
    }
    Ok(())
}

async fn beside_ingest(
    bench: &Bench,
    mut row: Row,
    clients: usize,
    load: &Load,
    alone: &mut f64,
) -> Result<Row> {
    let folder = Folder::make(bench, LIMIT)?;
    let relay = Relay::start(&bench.program, folder.path(), LIMIT, "").await?;
    let readers = Readers::connect(relay.feed, clients, None).await?;
    readers.go();
    let fleet = Fleet::start(relay.link, load).await?;
    scene::warm_up().await;
    let before = readers.events();
    let spent = scene::window(bench, &relay, &fleet, load).await?;
    let delivered = between(&before, &readers.events());
    let sent = fleet.finish().await?;
    let ended = Instant::now();
    await_readers(&mut row, &readers, scene::total(&sent)).await;
    if clients == 0 {
        *alone = spent.relay_us(spent.acknowledged);
    }
    row.put("acked/s", spent.rate(spent.acknowledged), 0);
    put_clients(&mut row, &delivered, spent.seconds);
    row.put("last s after", ended.elapsed().as_secs_f64(), 1);
    let above = spent.relay * 1e6 - *alone * spent.acknowledged;
    let deliveries: u64 = delivered.iter().sum();
    row.put("relay µs/delivery", above / deliveries as f64, 2);
    spent.put_cpu(&mut row);
    scene::put_memory(&mut row, &relay)?;
    end(row, relay, readers, &folder, &sent).await
}

/// Readers of the query service whose filters cost much more than an event and let none pass: what they leave to sensors.
async fn filtered(bench: &Bench, mut row: Row, filters: usize, load: &Load) -> Result<Row> {
    let folder = Folder::make(bench, LIMIT)?;
    let relay = Relay::start(&bench.program, folder.path(), LIMIT, "").await?;
    let mut watching = JoinSet::new();
    for number in 0..filters {
        let feed = Endpoint::from_shared(format!("http://{}", relay.feed))?;
        let request = WatchRequest {
            filter: Some(Filter {
                source: format!(r"(a|b|c|ab|bc)*[\pL]{{9}}.*#{number}"),
                ..Filter::default()
            }),
            follow: true,
            ..WatchRequest::default()
        };
        let mut client = QueryClient::new(feed.connect().await?);
        let mut replies = client.watch(request).await?.into_inner();
        watching.spawn(async move { while let Ok(Some(_)) = replies.message().await {} });
    }
    let fleet = Fleet::start(relay.link, load).await?;
    scene::warm_up().await;
    let spent = scene::window(bench, &relay, &fleet, load).await?;
    let sent = fleet.finish().await?;
    row.put("acked/s", spent.rate(spent.acknowledged), 0);
    spent.put_cpu(&mut row);
    scene::put_memory(&mut row, &relay)?;
    scene::check_metrics(&mut row, &relay, &sent).await?;
    watching.shutdown().await;
    scene::stop(&mut row, relay, &folder, &sent).await?;
    Ok(row)
}

/// Clients that subscribe, and read when all is journaled.
async fn held(bench: &Bench, mut row: Row, clients: usize) -> Result<Row> {
    let folder = Folder::make(bench, LIMIT)?;
    let relay = Relay::start(&bench.program, folder.path(), LIMIT, "").await?;
    let readers = Readers::connect(relay.feed, clients, None).await?;
    let load = Load {
        most: HELD,
        ..bench.load(4, None)
    };
    let fleet = Fleet::start(relay.link, &load).await?;
    while !fleet.is_done(&load) && fleet.is_whole() {
        sleep(Duration::from_millis(10)).await;
    }
    let totals = fleet.totals.clone();
    let sent = fleet.finish().await?;
    let before = Moment::now(&relay, &totals)?;
    readers.go();
    await_readers(&mut row, &readers, scene::total(&sent)).await;
    let spent = Spent::between(&before, &Moment::now(&relay, &totals)?);
    let delivered = readers.events();
    let deliveries = delivered.iter().sum::<u64>() as f64;
    put_clients(&mut row, &delivered, spent.seconds);
    row.put("relay µs/delivery", spent.relay_us(deliveries), 2);
    row.put("client µs/delivery", spent.own * 1e6 / deliveries, 2);
    scene::put_memory(&mut row, &relay)?;
    end(row, relay, readers, &folder, &sent).await
}

/// How late events come to clients when nobody is in a hurry.
async fn timed(bench: &Bench, mut row: Row) -> Result<Row> {
    let folder = Folder::make(bench, LIMIT)?;
    let relay = Relay::start(&bench.program, folder.path(), LIMIT, "").await?;
    let clock = Arc::new(Clock::default());
    let readers = Readers::connect(relay.feed, 4, Some(clock.clone())).await?;
    readers.go();
    let load = Load {
        clock: Some(clock),
        ..bench.load(4, Some(10_000.0))
    };
    let fleet = Fleet::start(relay.link, &load).await?;
    scene::window(bench, &relay, &fleet, &load).await?;
    let sent = fleet.finish().await?;
    await_readers(&mut row, &readers, scene::total(&sent)).await;
    let times = readers.times();
    for (name, share) in [("p50 ms", 0.5), ("p99 ms", 0.99), ("p99.9 ms", 0.999)] {
        row.put(name, times.ms(share), 1);
    }
    end(row, relay, readers, &folder, &sent).await
}

async fn end(
    mut row: Row,
    relay: Relay,
    readers: Readers,
    folder: &Folder,
    sent: &[Sent],
) -> Result<Row> {
    scene::check_metrics(&mut row, &relay, sent).await?;
    readers.hang_up().await?;
    scene::stop(&mut row, relay, folder, sent).await?;
    Ok(row)
}

/// Waits until every client has seen everything.
async fn await_readers(row: &mut Row, readers: &Readers, wanted: u64) {
    let (mut seen, mut since) = (0, Instant::now());
    loop {
        let events = readers.events();
        let now: u64 = events.iter().sum();
        if events.iter().all(|&events| events == wanted) || since.elapsed() > STALLED {
            break;
        }
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
        sleep(Duration::from_millis(5)).await;
    }
    let events = readers.events();
    let short = events.iter().filter(|&&events| events != wanted).count();
    row.must(short == 0, || {
        format!("{short} clients did not get {wanted} events: {events:?}")
    });
    let faults = readers.faults();
    row.must(faults == 0, || {
        format!("{faults} events were left out, came twice, or had no id")
    });
}

fn between(before: &[u64], after: &[u64]) -> Vec<u64> {
    before.iter().zip(after).map(|(a, b)| b - a).collect()
}

/// The slowest client and all together.
fn put_clients(row: &mut Row, delivered: &[u64], seconds: f64) {
    let slowest = delivered
        .iter()
        .min()
        .map_or(f64::NAN, |&least| least as f64);
    let all = delivered.iter().sum::<u64>() as f64;
    row.put("slowest client/s", slowest / seconds, 0);
    row.put("deliveries/s", all / seconds, 0);
}
