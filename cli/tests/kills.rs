//! `kill -9` on the real relay, again and again: whatever it acknowledged is there, and there once.
//!
//! Sensors send all the while and count only what was acknowledged. The relay is killed at a random moment: while it
//! starts, while it works, while it drains. `cargo xtask soak --kills N` runs this with another number.
#![allow(clippy::expect_used, clippy::panic)] // reason: a test that cannot go on has failed

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::EventId;
use support::oracle::{Dice, Pace, Sensor, read_back};
use support::program;
use support::program::{Place, Relay};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinSet;

const KILLS: u64 = 20;
const SENSORS: u8 = 4;
const PACE: Pace = Pace {
    batch: 40,
    pause: Duration::from_millis(10),
    total: u64::MAX,
    size: 600,
};

/// When the relay dies.
#[derive(Debug, Clone, Copy)]
enum Moment {
    Starting,
    Working,
    Draining,
}

/// Where the relay is, for the sensors.
type At = watch::Sender<Option<SocketAddr>>;

fn kills() -> u64 {
    std::env::var("CRESSET_KILLS").map_or(KILLS, |text| text.parse().expect("a number"))
}

#[test]
fn whatever_was_acknowledged_is_there_once_however_often_the_relay_is_killed() {
    let (kills, mut dice) = (kills(), Dice::seeded());
    let place = Place::new(
        "",
        "archive: {type: file, path: DIR/events.jsonl, format: json, fields: all, start: beginning}, metrics: {type: prometheus, start: beginning}",
    );
    let runtime = Runtime::new().expect("a runtime");
    let (at, over) = (watch::Sender::new(None), watch::Sender::new(false));
    let sensors: Vec<Arc<Sensor>> = (0..SENSORS).map(|n| Sensor::new(n, PACE)).collect();
    let mut sending = JoinSet::new();
    for sensor in &sensors {
        let run = sensor.clone().run(at.subscribe(), over.subscribe());
        sending.spawn_on(run, runtime.handle());
    }

    let (begun, mut moments) = (Instant::now(), [0; 3]);
    for kill in 1..=kills {
        let moment = match dice.roll(10) {
            0..=2 => Moment::Starting,
            3..=7 => Moment::Working,
            _ => Moment::Draining,
        };
        moments[moment as usize] += 1;
        one_life(&place, &at, moment, &mut dice);
        if kill % 50 == 0 {
            println!("{kill} kills in {:.0?}", begun.elapsed());
        }
    }

    let relay = place.start();
    at.send_replace(Some(relay.link));
    over.send_replace(true);
    runtime.block_on(async {
        while let Some(ended) = sending.join_next().await {
            ended.expect("a sensor that finds nothing wrong");
        }
    });
    let (acknowledged, stored) = check(&relay, &runtime, &place, &sensors);
    let found: u64 = sensors.iter().map(|sensor| sensor.found()).sum();
    println!(
        "{kills} kills ({} starting, {} working, {} draining) in {:.0?}: {acknowledged} events acknowledged, {stored} stored once, 0 missing; {found} were on disk before their sensor was told",
        moments[0],
        moments[1],
        moments[2],
        begun.elapsed()
    );
    assert!(acknowledged > 100 * kills.min(1000), "too little happened");
    relay.stop();
}

/// One life of the relay and its end.
fn one_life(place: &Place, at: &At, moment: Moment, dice: &mut Dice) {
    let sleep = |milliseconds| std::thread::sleep(Duration::from_millis(milliseconds));
    let (mut running, _) = place.spawn(Stdio::null());
    if let Moment::Starting = moment {
        sleep(dice.roll(60));
        return running.kill();
    }
    let mut relay = Relay::ready(running);
    at.send_replace(Some(relay.link));
    sleep(20 + dice.roll(300));
    if let Moment::Draining = moment {
        relay.running.signal(libc::SIGTERM);
        sleep(dice.roll(120));
    }
    relay.running.kill();
    at.send_replace(None);
}

/// Holds what is there against what was acknowledged; gives how many were acknowledged and how many are there.
fn check(relay: &Relay, runtime: &Runtime, place: &Place, sensors: &[Arc<Sensor>]) -> (u64, u64) {
    assert!(sensors.iter().all(|sensor| sensor.is_settled()));
    let acknowledged: BTreeSet<EventId> = sensors
        .iter()
        .flat_map(|sensor| {
            let stream = sensor.stream();
            let id = move |sequence| EventId { stream, sequence };
            sensor.acknowledged().into_iter().map(id)
        })
        .collect();
    let stored = runtime.block_on(read_back(&relay.feed, sensors));
    let missing = acknowledged.iter().find(|id| !stored.contains_key(id));
    assert_eq!(missing, None, "acknowledged, and not in the journal");
    let doubled = stored.iter().find(|(_, count)| **count != 1);
    assert_eq!(doubled, None, "in the journal more than once");

    let page = relay.page_when("the sinks have everything", |page| {
        page.sink("archive", "pending") == 0 && page.sink("metrics", "pending") == 0
    });
    assert_eq!(page.check_at_rest(), Ok(()));
    let journaled = page.get("cresset_journal_next_sequence") - 1;
    let cut = told_of_cuts(place);
    assert_eq!(
        journaled,
        stored.len() as u64 + cut,
        "the journal holds something else"
    );
    for sink in ["archive", "metrics"] {
        assert_eq!(page.sink(sink, "journaled_total"), journaled, "{sink}");
        assert_eq!(page.sink(sink, "delivered_total"), journaled, "{sink}");
    }
    let mut left = acknowledged.clone();
    archived(place, |id| {
        left.remove(&id);
    });
    assert_eq!(left.first(), None, "acknowledged, and not in the file sink");
    traced(place, &acknowledged);
    verify(place);
    (acknowledged.len() as u64, stored.len() as u64)
}

/// How often a start told that it cut off what a kill in the middle of a write had left: an event of the relay's own, which the file
/// sink may have more than once.
fn told_of_cuts(place: &Place) -> u64 {
    let archive = std::fs::read_to_string(place.path("events.jsonl")).expect("the archive");
    let told = archive
        .lines()
        .filter(|line| line.contains("at the end of the journal were cut"))
        .map(|line| serde_json::from_str(line).expect("JSON"));
    let ids: BTreeSet<String> = told
        .map(|message: serde_json::Value| message["EventID"].to_string())
        .collect();
    ids.len() as u64
}

/// What people would ask: where is every one of them? Each is in the journal, and at every sink.
fn traced(place: &Place, acknowledged: &BTreeSet<EventId>) {
    let ids: Vec<String> = acknowledged.iter().map(|id| format!("{id}\n")).collect();
    std::fs::write(place.path("ids"), ids.concat()).expect("written");
    let mut trace = program("cresset");
    trace.args(["trace", "-o", "json", "--from-file"]);
    trace.arg(place.path("ids"));
    trace.arg("--socket").arg(place.path("admin.sock"));
    let begun = Instant::now();
    let out = trace.output().expect("cresset trace");
    let told = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(0), "{told}");
    println!(
        "where {} events are was told in {:.0?}",
        acknowledged.len(),
        begun.elapsed()
    );
    let mut left = acknowledged.clone();
    for line in out
        .stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        let answer: serde_json::Value = serde_json::from_slice(line).expect("JSON");
        let id = answer["id"]
            .as_str()
            .expect("an id")
            .parse()
            .expect("an id");
        assert!(left.remove(&id), "{id} was told twice, or not asked for");
        assert!(
            answer["received"] == true && answer["journal"]["sequence"].is_u64(),
            "{answer}"
        );
        let sinks = answer["sinks"].as_array().expect("sinks");
        assert_eq!(sinks.len(), 2, "{answer}");
        assert!(
            sinks.iter().all(|at| at["outcome"] == "delivered"),
            "{answer}"
        );
    }
    assert_eq!(left.first(), None, "asked for, and not told of");
}

/// Every event in the file sink; a line that a kill cut off stands alone.
fn archived(place: &Place, mut each: impl FnMut(EventId)) {
    let file = std::fs::File::open(place.path("events.jsonl")).expect("the archive");
    for line in BufReader::new(file).lines() {
        let line = line.expect("text");
        let json: serde_json::Value =
            serde_json::from_str(&line).unwrap_or_else(|why| panic!("{why}: {line:?}"));
        let id = json["EventID"].as_str().expect("an id");
        each(id.parse().expect("an id"));
    }
}

/// What people would run: the journal is sound.
fn verify(place: &Place) {
    let mut verify = program("cresset");
    verify.args(["journal", "verify"]).arg(place.path("data"));
    let out = verify.output().expect("cresset journal verify");
    let told = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let text = told(&out.stdout) + &told(&out.stderr);
    assert_eq!(out.status.code(), Some(0), "{text}");
}
