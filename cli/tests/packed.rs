//! A journal that compresses what it closed, in the real program: killed while it does, and read to the last event.
#![allow(clippy::expect_used, clippy::panic)] // reason: a test that cannot go on has failed

mod support;

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use proto::EventId;
use support::books::Page;
use support::oracle::{Pace, Sensor, read_back};
use support::program;
use support::program::{Place, Relay};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// Files of 64 MiB, of which a few are filled; nothing goes by size.
const SETTINGS: &str = "retention: {max_size: 1GiB, compression: zstd}";
const SINKS: &str = "archive: {type: file, path: DIR/events.jsonl, format: json, fields: all, start: beginning, when_full: refuse}";
const PACE: Pace = Pace {
    batch: 40,
    // Some 64 MB a second: a file each.
    pause: Duration::from_millis(20),
    total: u64::MAX,
    size: 64_000,
};

fn compressed(page: &Page) -> u64 {
    page.get("cresset_journal_compressed_segments_total")
}

#[test]
fn what_was_acknowledged_is_there_once_after_a_kill_in_the_middle_of_compressing() {
    let place = Place::new(SETTINGS, SINKS);
    let runtime = Runtime::new().expect("a runtime");
    let sensors = [Sensor::new(1, PACE)];
    let [sensor] = &sensors;
    let (at, over) = (watch::Sender::new(None), watch::Sender::new(false));
    let sending = runtime.spawn(sensor.clone().run(at.subscribe(), over.subscribe()));

    let mut first = Relay::ready(place.spawn(Stdio::null()).0);
    at.send_replace(Some(first.link));
    // The next file is closed soon and compressed at once, so the kill falls into that, or just before or after it.
    first.page_when("a file is compressed", |page| compressed(page) > 0);
    first.running.kill();

    let second = place.start();
    at.send_replace(Some(second.link));
    second.page_when("a file is compressed here, too", |page| {
        compressed(page) > 0
    });
    over.send_replace(true);
    runtime
        .block_on(sending)
        .expect("a sensor that finds nothing wrong");
    let page = second.page_when(
        "all is delivered, and what is closed is compressed",
        |page| {
            page.sink("archive", "pending") == 0
                && compressed(page) > 0
                && page.get("cresset_journal_in_flight_events") == 0
        },
    );
    let (from, to) = (
        page.get("cresset_journal_compressed_from_bytes_total"),
        page.get("cresset_journal_compressed_to_bytes_total"),
    );
    assert!(to * 2 < from, "{from} bytes became {to}");
    assert_eq!(page.get("cresset_journal_compression_failures_total"), 0);
    assert_eq!(page.sink("archive", "expired_total"), 0);
    assert_eq!(page.sink("archive", "corrupt_total"), 0);

    let acknowledged: Vec<EventId> = ids(sensor).collect();
    assert_eq!(
        acknowledged.len() as u64,
        page.sink("archive", "journaled_total")
    );
    let stored = runtime.block_on(read_back(&second.feed, &sensors));
    assert_eq!(page.get("cresset_journal_removed_segments_total"), 0);
    let missing = acknowledged.iter().find(|id| !stored.contains_key(id));
    assert_eq!(missing, None, "acknowledged, and not in the journal");
    assert!(stored.values().all(|count| *count == 1));
    second.stop();

    // What the program left is whole, says the tool that people ask.
    let data = place.path("data");
    let verified = program("cresset")
        .args(["journal", "verify"])
        .arg(&data)
        .output();
    let verified = verified.expect("it starts");
    let text = String::from_utf8_lossy(&verified.stdout);
    assert!(
        verified.status.success() && text.contains("no problem"),
        "{text}"
    );
}

fn ids(sensor: &Arc<Sensor>) -> impl Iterator<Item = EventId> {
    let stream = sensor.stream();
    let id = move |sequence| EventId { stream, sequence };
    sensor.acknowledged().into_iter().map(id)
}
