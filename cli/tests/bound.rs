//! The journal at its size bound with a sink that hangs: the laggard is overtaken and counted, or, if it says so, holds
//! new events back until it is done. Both on the real program, to the last event.
#![allow(clippy::expect_used, clippy::panic)] // reason: a test that cannot go on has failed

mod support;

use std::io::{BufRead, BufReader};
use std::process::{ChildStdout, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use proto::EventId;
use proto::operate::TraceRequest;
use support::books::Page;
use support::eventually;
use support::oracle::{Pace, Sensor, read_back};
use support::program::{Place, Relay};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle as Task;

/// The least that the settings allow.
const BOUND: u64 = 64 << 20;

/// An event that has gone by the time that all are sent, of a segment that has gone whole.
const MIDDLE: u64 = 1500;

/// Large events come to the bound soon: about three times as many as fit.
const PACE: Pace = Pace {
    batch: 40,
    pause: Duration::ZERO,
    total: 6000,
    size: 64_000,
};

struct Scene {
    place: Place,
    runtime: Runtime,
    sensor: Arc<Sensor>,
    relay: Relay,
    sending: Task<()>,
    /// What the hung sink writes to, and nobody reads yet.
    unread: Option<ChildStdout>,
}

impl Scene {
    /// A relay at the bound soon, with a sink that hangs in its first write. The other one is waited for, so that it misses
    /// nothing however slow the machine is.
    fn begin(when_full: &str) -> Scene {
        let place = Place::new(
            "retention: {max_size: 64MiB}",
            &format!(
                "hung: {{type: stdout, format: json, start: beginning, when_full: {when_full}}}, archive: {{type: file, path: DIR/events.jsonl, format: json, start: beginning, when_full: refuse}}"
            ),
        );
        let (running, unread) = place.spawn(Stdio::piped());
        let relay = Relay::ready(running);
        let runtime = Runtime::new().expect("a runtime");
        let sensor = Sensor::new(1, PACE);
        let (at, over) = (
            watch::Sender::new(Some(relay.link)),
            watch::Sender::new(false),
        );
        let sending = runtime.spawn(sensor.clone().run(at.subscribe(), over.subscribe()));
        // They outlive the sensor.
        std::mem::forget((at, over));
        Scene {
            place,
            runtime,
            sensor,
            relay,
            sending,
            unread,
        }
    }

    fn sent_all(&mut self) {
        let sending = &mut self.sending;
        self.runtime
            .block_on(sending)
            .expect("a sensor that finds nothing wrong");
    }

    /// What became of an event at a sink, by the relay that listens now, and what is said of the event itself.
    fn traced(&self, sequence: u64, sink: &str) -> (String, String) {
        let stream = self.sensor.stream();
        let id = EventId { stream, sequence };
        let request = TraceRequest {
            id: id.to_bytes().to_vec().into(),
        };
        let reply = self.runtime.block_on(async {
            let mut operate = self.place.operate().await;
            operate.trace(request).await.expect("an answer")
        });
        let reply = reply.into_inner();
        let at = reply.sinks.iter().find(|at| at.sink == sink);
        let at = at.unwrap_or_else(|| panic!("no {sink} in {reply:?}"));
        (at.outcome.clone(), format!("{}; {}", at.reason, reply.note))
    }
}

/// Ends the relay; how many events the archive has that it did not have on this page: the relay tells of itself as
/// events, and what it has to tell may come a moment after a page on which all is at rest.
fn stop_and_count_since(page: &Page, relay: Relay, place: &Place) -> u64 {
    relay.stop();
    lines(place, "events.jsonl") - page.sink("archive", "delivered_total")
}

fn lines(place: &Place, file: &str) -> u64 {
    let file = std::fs::File::open(place.path(file)).expect("a file");
    BufReader::new(file).lines().count() as u64
}

/// Reads to the end and counts the lines.
fn read(from: ChildStdout) -> JoinHandle<u64> {
    std::thread::spawn(move || BufReader::new(from).lines().map_while(Result::ok).count() as u64)
}

fn sink(page: &Page, what: &str) -> u64 {
    page.sink("hung", what)
}

#[test]
fn a_sink_that_hangs_is_overtaken_at_the_bound_and_every_event_that_it_missed_is_counted() {
    let mut scene = Scene::begin("expire");
    scene.sent_all();
    let acknowledged = scene.sensor.acknowledged().len() as u64;
    let relay = &scene.relay;
    let page = relay.page_when(
        "the other sink has everything and the loss is told",
        |page| {
            let lost = page.get(r#"cresset_lost_events_total{class="hung",where="journal"}"#);
            page.sink("archive", "pending") == 0
                && sink(page, "expired_total") > 0
                && lost == sink(page, "expired_total")
        },
    );
    assert_eq!(page.sink("archive", "expired_total"), 0);
    assert!(page.sink("archive", "delivered_total") >= acknowledged);
    assert!(
        sink(&page, "delivered_total") < acknowledged / 2,
        "it did not hang"
    );
    assert!(sink(&page, "pending") > 0);
    assert!(page.get("cresset_journal_bytes") <= BOUND);
    assert!(page.get("cresset_journal_removed_segments_total") > 0);
    assert!(lines(&scene.place, "events.jsonl") >= page.sink("archive", "delivered_total"));

    // An event of the middle is gone: the sink that hangs never had it, the other one has.
    let (outcome, why) = scene.traced(MIDDLE, "hung");
    assert_eq!(outcome, "expired", "{why}");
    assert!(why.contains("has left the journal by retention"), "{why}");
    assert_eq!(scene.traced(MIDDLE, "archive").0, "delivered");

    // Read at last, it gets all that is left.
    let reading = read(scene.unread.take().expect("piped"));
    let page = relay.page_when("the sink is done", |page| sink(page, "pending") == 0);
    let journaled = page.get("cresset_journal_next_sequence") - 1;
    let (delivered, expired) = (sink(&page, "delivered_total"), sink(&page, "expired_total"));
    assert_eq!(
        (sink(&page, "journaled_total"), delivered + expired),
        (journaled, journaled)
    );
    assert_eq!(page.check_at_rest(), Ok(()));
    // What it had in hand when it hung it got, so that not all that is gone expired; the one of the middle did.
    assert_eq!(scene.traced(MIDDLE, "hung").0, "expired");
    let newest = scene.sensor.acknowledged().len() as u64;
    assert_eq!(scene.traced(newest, "hung").0, "delivered");
    let since = stop_and_count_since(&page, scene.relay, &scene.place);
    assert_eq!(reading.join().expect("read"), delivered + since);
    // The next life knows it as well, from the disk alone.
    std::fs::remove_dir_all(scene.place.path("data/passed")).expect("a folder");
    scene.relay = scene.place.start();
    let (outcome, why) = scene.traced(MIDDLE, "hung");
    assert_eq!(outcome, "expired", "{why}");
    assert_eq!(scene.traced(MIDDLE, "archive").0, "delivered");
    scene.relay.stop();
}

#[test]
fn a_sink_that_refuses_to_be_overtaken_holds_new_events_back_and_lets_go_when_it_is_done() {
    let mut scene = Scene::begin("refuse");
    let relay = &scene.relay;
    let held = relay.page_when("new events are held back", |page| {
        page.get("cresset_journal_writable") == 0 && page.door("link", "refused") > 0
    });
    assert!(held.get("cresset_journal_bytes") <= BOUND);
    let page = relay.page_when("the other sink has what there is", |page| {
        page.sink("archive", "pending") == 0
    });
    assert!(sink(&page, "pending") > 0 && sink(&page, "expired_total") == 0);
    // By then only one of the two can be to blame.
    eventually("readiness names the sink", Duration::from_secs(60), || {
        let (status, why) = relay.readiness();
        assert_eq!(status, 503, "{why}");
        let words = ["size bound", "cursor hung"];
        words.iter().all(|word| why.contains(word)).then_some(())
    });
    // What is there is served meanwhile.
    let sensors = [scene.sensor.clone()];
    let served = scene.runtime.block_on(read_back(&relay.feed, &sensors));
    assert!(served.len() as u64 >= page.door("link", "acknowledged"));
    assert!(!scene.sending.is_finished());

    let reading = read(scene.unread.take().expect("piped"));
    let sending = &mut scene.sending;
    scene
        .runtime
        .block_on(sending)
        .expect("a sensor that finds nothing wrong");
    assert!(
        scene.sensor.pauses() > 0,
        "the sensor was not asked to wait"
    );
    let page = relay.page_when("all is delivered", |page| {
        sink(page, "pending") == 0
            && page.sink("archive", "pending") == 0
            && page.get("cresset_ready") == 1
    });
    let acknowledged = scene.sensor.acknowledged().len() as u64;
    assert_eq!(page.door("link", "acknowledged"), acknowledged);
    let journaled = page.get("cresset_journal_next_sequence") - 1;
    for sink in ["hung", "archive"] {
        assert_eq!(page.sink(sink, "expired_total"), 0, "{sink}");
        assert_eq!(page.sink(sink, "delivered_total"), journaled, "{sink}");
    }
    assert_eq!(page.check_at_rest(), Ok(()));
    // It was told once that it stopped, and once that it went on.
    assert_eq!(page.get("cresset_journal_refusals_total"), 1);
    assert_eq!(relay.logged("takes no new events").len(), 1);
    assert_eq!(relay.logged("takes events again").len(), 1);
    let since = stop_and_count_since(&page, scene.relay, &scene.place);
    assert_eq!(reading.join().expect("read"), journaled + since);
}
