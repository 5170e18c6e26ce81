//! One sink hangs, one is dead, one is slow: what comes in and what goes to the others is what it was without them.
//!
//! The real program, with its standard output as the sink that a test can hold: a pipe that is not read, or read slowly.
//! `CRESSET_ISOLATION=N` (or `cargo xtask soak --isolation`) sends N events and prints how fast the others were in
//! proportion; the test itself only counts.
#![allow(clippy::expect_used, clippy::panic)] // reason: a test that cannot go on has failed

mod support;

use std::io::Read;
use std::process::{ChildStdout, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use support::oracle::{Pace, Sensor};
use support::program::{Place, Relay};
use tokio::runtime::Runtime;
use tokio::sync::watch;

const EVENTS: u64 = 8_000;
const SENSORS: u8 = 2;

/// Sinks that have to go on.
const HEALTHY: &str = "archive: {type: file, path: DIR/events.jsonl, format: json, start: beginning}, metrics: {type: prometheus, start: beginning}";

/// Where a file should be there is a folder.
const DEAD: &str =
    "dead: {type: file, path: DIR/relay.yaml/events, format: json, start: beginning}";

const CONSOLE: &str = "console: {type: stdout, format: json, start: beginning}";

/// What is wrong beside the healthy sinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    Nothing,
    Hung,
    Dead,
    Slow,
}

impl Case {
    const ALL: [Case; 4] = [Case::Nothing, Case::Hung, Case::Dead, Case::Slow];

    fn sinks(self) -> String {
        match self {
            Case::Nothing => HEALTHY.to_owned(),
            Case::Hung | Case::Slow => format!("{HEALTHY}, {CONSOLE}"),
            Case::Dead => format!("{HEALTHY}, {DEAD}"),
        }
    }

    fn sick(self) -> Option<&'static str> {
        match self {
            Case::Nothing => None,
            Case::Hung | Case::Slow => Some("console"),
            Case::Dead => Some("dead"),
        }
    }
}

/// How long it took until everything was acknowledged, and until the healthy sinks had everything.
struct Took {
    ingest: Duration,
    sinks: Duration,
}

/// Reads a little now and then.
fn dawdle(mut from: ChildStdout) {
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while from.read(&mut buffer).is_ok_and(|read| read > 0) {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
}

fn run(case: Case, events: u64) -> Took {
    let place = Place::new("", &case.sinks());
    let (running, stdout) = place.spawn(Stdio::piped());
    let relay = Relay::ready(running);
    let unread = match (case, stdout) {
        (Case::Slow, Some(stdout)) => {
            dawdle(stdout);
            None
        }
        (_, stdout) => stdout,
    };
    let pace = Pace {
        batch: 400,
        pause: Duration::ZERO,
        total: events / u64::from(SENSORS),
        size: 600,
    };
    let runtime = Runtime::new().expect("a runtime");
    let (at, over) = (
        watch::Sender::new(Some(relay.link)),
        watch::Sender::new(false),
    );
    let sensors: Vec<Arc<Sensor>> = (0..SENSORS).map(|n| Sensor::new(n, pace)).collect();
    let begun = Instant::now();
    let sending: Vec<_> = sensors
        .iter()
        .map(|sensor| runtime.spawn(sensor.clone().run(at.subscribe(), over.subscribe())))
        .collect();
    for sending in sending {
        runtime
            .block_on(sending)
            .expect("a sensor that finds nothing wrong");
    }
    let ingest = begun.elapsed();
    let acknowledged: u64 = sensors
        .iter()
        .map(|sensor| sensor.acknowledged().len() as u64)
        .sum();
    let page = relay.page_when("the healthy sinks have everything", |page| {
        ["archive", "metrics"]
            .iter()
            .all(|sink| page.sink(sink, "delivered_total") == acknowledged)
    });
    let took = Took {
        ingest,
        sinks: begun.elapsed(),
    };
    assert_eq!(page.door("link", "acknowledged"), acknowledged);
    assert!(
        sensors.iter().all(|sensor| sensor.pauses() == 0),
        "a sensor was asked to wait"
    );
    if let Some(sick) = case.sick() {
        assert!(
            page.sink(sick, "pending") > 0,
            "{sick} kept up, so nothing was tried"
        );
        assert_eq!(page.sink(sick, "expired_total"), 0);
    }
    // A pipe that is closed ends its sink's send; a drain waits for nobody.
    drop(unread);
    relay.stop();
    took
}

#[test]
fn a_hung_a_dead_and_a_slow_sink_hold_up_neither_ingest_nor_the_others() {
    let Some(events) = std::env::var("CRESSET_ISOLATION").ok() else {
        for case in Case::ALL {
            run(case, EVENTS);
        }
        return;
    };
    let events = events.parse().expect("a number");
    table(events);
}

/// Cases take turns, so that what else the machine does falls on all of them; the middle one of each counts.
fn table(events: u64) {
    const ROUNDS: usize = 5;
    let mut took: [Vec<Took>; 4] = Default::default();
    for round in 1..=ROUNDS {
        for case in Case::ALL {
            let run = run(case, events);
            println!(
                "round {round} of {ROUNDS}, {}: acknowledged in {:.1?}, at both sinks in {:.1?}",
                format!("{case:?}").to_lowercase(),
                run.ingest,
                run.sinks
            );
            took[case as usize].push(run);
        }
    }
    let rate = |of: fn(&Took) -> Duration, case: Case| {
        let mut times: Vec<Duration> = took[case as usize].iter().map(of).collect();
        times.sort_unstable();
        events as f64 / times[ROUNDS / 2].as_secs_f64()
    };
    let of = |took: &Took| took.ingest;
    let with = |took: &Took| took.sinks;
    println!(
        "{events} events, {ROUNDS} rounds, middle values; beside a file and a Prometheus sink:"
    );
    println!(
        "{:<10} {:>16} {:>8} {:>18} {:>8}",
        "sink", "acknowledged/s", "", "to both sinks/s", ""
    );
    for case in Case::ALL {
        let (ingest, sinks) = (rate(of, case), rate(with, case));
        let share = |value: f64, of: fn(&Took) -> Duration| 100.0 * value / rate(of, Case::Nothing);
        println!(
            "{:<10} {ingest:>16.0} {:>7.1}% {sinks:>18.0} {:>7.1}%",
            format!("{case:?}").to_lowercase(),
            share(ingest, of),
            share(sinks, with),
        );
    }
}
