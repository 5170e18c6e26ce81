//! The real relay in front of a real Elasticsearch: what it acknowledged is there, and there once, however often either dies.
#![allow(clippy::expect_used, clippy::panic)] // reason: a test that cannot go on has failed

#[path = "../../exporters/tests/support/elasticsearch.rs"]
mod server;
#[path = "../../exporters/tests/support/servers.rs"]
mod servers;
mod support;

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use proto::EventId;
use serde_json::json;
use server::{Elasticsearch, Product};
use support::oracle::{Dice, Pace, Sensor};
use support::program::{Place, Relay};
use support::{eventually, program};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinSet;

const SUITE: &str = "elasticsearch behind the real relay";
const KILLS: u64 = 8;
const PACE: Pace = Pace {
    batch: 60,
    pause: Duration::from_millis(10),
    total: u64::MAX,
    size: 400,
};

fn place(server: &Elasticsearch, index: &str) -> Place {
    let url = server.url();
    Place::new(
        "",
        &format!(
            "siem: {{type: elasticsearch, endpoints: ['{url}'], start: beginning, request_timeout: 10s, \
             batch: {{max_events: 300, max_delay: 10ms}}, retry: {{initial: 50ms, max: 500ms}}, index: {{{index}}}}}"
        ),
    )
}

/// Sensors that send until they are told that it is over.
struct Senders {
    sensors: Vec<Arc<Sensor>>,
    at: watch::Sender<Option<std::net::SocketAddr>>,
    over: watch::Sender<bool>,
    sending: JoinSet<()>,
}

impl Senders {
    fn start(count: u8, runtime: &Runtime) -> Senders {
        let (at, over) = (watch::Sender::new(None), watch::Sender::new(false));
        let sensors: Vec<Arc<Sensor>> = (0..count).map(|n| Sensor::new(n, PACE)).collect();
        let mut sending = JoinSet::new();
        for sensor in &sensors {
            let run = sensor.clone().run(at.subscribe(), over.subscribe());
            sending.spawn_on(run, runtime.handle());
        }
        Senders {
            sensors,
            at,
            over,
            sending,
        }
    }

    /// Waits until each had that much acknowledged.
    fn acknowledged_each(&self, least: usize) {
        eventually("events are acknowledged", Duration::from_secs(60), || {
            let has = |sensor: &Arc<Sensor>| sensor.acknowledged().len() >= least;
            self.sensors.iter().all(has).then_some(())
        });
    }

    /// Ends when all that was sent is acknowledged; what was.
    fn finish(mut self, runtime: &Runtime) -> BTreeSet<EventId> {
        self.over.send_replace(true);
        runtime.block_on(async {
            while let Some(ended) = self.sending.join_next().await {
                ended.expect("a sensor that finds nothing wrong");
            }
        });
        let ids = self.sensors.iter().flat_map(|sensor| {
            let stream = sensor.stream();
            let id = move |sequence| EventId { stream, sequence };
            sensor.acknowledged().into_iter().map(id)
        });
        ids.collect()
    }
}

fn sleep(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

#[test]
fn what_was_acknowledged_is_in_elasticsearch_once_though_relay_and_server_are_killed_in_mid_bulk() {
    let Some(mut server) = Elasticsearch::start(SUITE, Product::Elasticsearch, &[]) else {
        return;
    };
    // The oracle's events have no time of their own.
    let place = place(&server, "layout: fixed");
    let (runtime, mut dice) = (Runtime::new().expect("a runtime"), Dice::seeded());
    let senders = Senders::start(3, &runtime);
    for kill in 1..=KILLS {
        let mut relay = Relay::ready(place.spawn(Stdio::null()).0);
        senders.at.send_replace(Some(relay.link));
        sleep(100 + dice.roll(400));
        if kill == KILLS / 2 {
            server.kill();
            sleep(dice.roll(300));
            server.restart();
        }
        relay.running.kill();
        senders.at.send_replace(None);
    }
    let relay = place.start();
    senders.at.send_replace(Some(relay.link));
    sleep(500);
    let acknowledged = senders.finish(&runtime);
    let page = relay.page_when("the sink has everything", |page| {
        page.sink("siem", "pending") == 0
    });
    assert_eq!(page.check_at_rest(), Ok(()));
    assert_eq!(page.sink("siem", "dead_lettered_total"), 0);

    let there = runtime.block_on(server.ids("kubearmor-*"));
    let doubled: Vec<_> = there.iter().filter(|(_, count)| **count != 1).collect();
    assert!(doubled.is_empty(), "{doubled:?}");
    let missing = acknowledged
        .iter()
        .find(|id| !there.contains_key(&id.to_string()));
    assert_eq!(missing, None, "acknowledged, and not in Elasticsearch");
    assert_eq!(there.len() as u64, page.sink("siem", "journaled_total"));
    assert!(
        acknowledged.len() > 1000,
        "too little happened: {}",
        acknowledged.len()
    );
    println!(
        "{KILLS} kills of the relay, 1 of the server: {} events acknowledged, {} there once",
        acknowledged.len(),
        there.len()
    );
    relay.stop();
}

#[test]
fn events_that_do_not_fit_become_dead_letters_and_the_others_arrive() {
    let Some(server) = Elasticsearch::shared(SUITE) else {
        return;
    };
    let runtime = Runtime::new().expect("a runtime");
    // Alerts of the oracle have a text where this index wants a number.
    let columns = json!({ "mappings": { "properties": { "PolicyName": { "type": "long" } } } });
    runtime.block_on(server.put("narrow", columns));
    let place = place(
        &server,
        "layout: fixed, alert: narrow, log: narrow, message: narrow, setup: manual",
    );
    let relay = place.start();
    let senders = Senders::start(1, &runtime);
    senders.at.send_replace(Some(relay.link));
    senders.acknowledged_each(100);
    let acknowledged = senders.finish(&runtime);
    let page = relay.page_when("the sink has everything", |page| {
        page.sink("siem", "pending") == 0
    });
    let alerts = acknowledged
        .iter()
        .filter(|id| id.sequence.is_multiple_of(3))
        .count() as u64;
    assert_eq!(page.sink("siem", "dead_lettered_total"), alerts);
    assert!(alerts > 10, "too little happened");
    let there = runtime.block_on(server.ids("narrow"));
    assert_eq!(there.len() as u64, page.sink("siem", "delivered_total"));
    let logged = relay.logged("kept as dead letters");
    let reason = "status 400 document_parsing_exception: ";
    assert!(
        logged.iter().any(|line| line.contains(reason)),
        "{logged:?}"
    );
    relay.stop();
}

#[test]
fn setup_prepares_the_server_and_check_tells_what_differs() {
    let Some(server) = Elasticsearch::shared(SUITE) else {
        return;
    };
    let place = place(
        &server,
        "alert: cli-alerts, log: cli-logs, message: cli-messages",
    );
    let setup = |more: &[&str]| {
        let mut command = program("cresset");
        command
            .args(["sink", "setup", "--config"])
            .arg(place.path("relay.yaml"))
            .args(more);
        let out = command.output().expect("cresset sink setup");
        let text = String::from_utf8_lossy(&out.stdout).into_owned()
            + &String::from_utf8_lossy(&out.stderr);
        (out.status.code(), text)
    };
    let (code, text) = setup(&["siem", "--check"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.starts_with("Elasticsearch 8.") && text.contains("MISSING"),
        "{text}"
    );
    let (code, text) = setup(&["siem"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("index template  cli-alerts            made"),
        "{text}"
    );
    let (code, text) = setup(&["siem", "--check"]);
    assert_eq!(code, Some(0), "{text}");

    let policy = json!({ "policy": { "phases": { "delete": { "min_age": "1d", "actions": { "delete": {} } } } } });
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(server.put("_ilm/policy/cli-logs", policy));
    let (code, text) = setup(&["siem", "--check"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("policy.phases.delete.min_age is 1d, should be 32d"),
        "{text}"
    );

    let (code, text) = setup(&["seim"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(
        text.contains("there is no sink `seim`") && text.contains("siem"),
        "{text}"
    );
}

#[test]
fn the_script_for_curl_makes_what_setup_finds_to_be_as_it_should_be() {
    if !servers::on_path("curl") {
        return servers::skip("curl", SUITE, "there is no curl; install curl");
    }
    let Some(server) = Elasticsearch::shared(SUITE) else {
        return;
    };
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../elk/setup.sh");
    let run = |url: &str| {
        let mut script = std::process::Command::new(&script);
        let out = script
            .args([url, "--noproxy", "*"])
            .output()
            .expect("it runs");
        (
            out.status.code(),
            String::from_utf8_lossy(&out.stdout).into_owned(),
        )
    };
    // Again, and with a slash at the end.
    for url in [server.url(), server.url() + "/"] {
        let (code, text) = run(&url);
        assert_eq!((code, text.matches(": ok").count()), (Some(0), 6), "{text}");
    }
    let mut check = program("cresset");
    check.args(["sink", "setup", "siem", "--check", "--config"]);
    let place = place(&server, "retention: 30d");
    let out = check.arg(place.path("relay.yaml")).output();
    let out = out.expect("cresset sink setup");
    let text = String::from_utf8_lossy(&out.stdout);
    assert_eq!(out.status.code(), Some(0), "{text}");
    assert_eq!(text.matches("as it should be").count(), 9, "{text}");
    assert_eq!(run("http://127.0.0.1:1").0, Some(3));
    assert_eq!(run("elasticsearch").0, Some(2));
}

#[test]
fn an_event_is_traced_to_its_document_and_to_its_offset_in_kafka() {
    let Some(server) = Elasticsearch::shared(SUITE) else {
        return;
    };
    let Some(kafka) = servers::Kafka::shared(SUITE) else {
        return;
    };
    let (url, brokers) = (server.url(), kafka.brokers());
    let place = Place::new(
        "",
        &format!(
            "siem: {{type: elasticsearch, endpoints: ['{url}'], start: beginning, index: {{layout: fixed, alert: traced, log: traced, message: traced, setup: manual}}}}, \
             bus: {{type: kafka, brokers: ['{brokers}'], start: beginning, topics: {{alert: traced, log: traced, message: traced}}}}"
        ),
    );
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(server.put("traced", json!({})));
    let relay = place.start();
    let senders = Senders::start(2, &runtime);
    senders.at.send_replace(Some(relay.link));
    senders.acknowledged_each(1);
    let acknowledged = senders.finish(&runtime);
    relay.page_when("both have everything", |page| {
        page.sink("siem", "pending") == 0 && page.sink("bus", "pending") == 0
    });
    let ids = [acknowledged.first(), acknowledged.last()];
    for id in ids.into_iter().flatten() {
        let mut trace = program("cresset");
        trace.args(["trace", &id.to_string(), "-o", "json", "--socket"]);
        let out = trace
            .arg(place.path("admin.sock"))
            .output()
            .expect("cresset trace");
        let found: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
        let at = |sink: &str| {
            let sinks = found["sinks"].as_array().expect("sinks");
            let at = sinks
                .iter()
                .find(|at| at["sink"] == sink)
                .expect("the sink");
            assert_eq!(at["outcome"], "delivered", "{found}");
            at["place"].as_str().expect("a place").to_owned()
        };
        assert_eq!(at("siem"), format!("traced/_doc/{id}"));
        let address = url.trim_start_matches("http://").trim_end_matches('/');
        let (status, document) =
            support::get(address, &format!("/{}", at("siem"))).expect("an answer");
        assert!(
            status == 200 && document.contains(&id.to_string()),
            "{status} {document}"
        );
        let bus = at("bus");
        let numbers = bus.strip_prefix("topic traced, partition ");
        let (partition, offset) = numbers
            .and_then(|rest| rest.split_once(", offset "))
            .unwrap_or_else(|| panic!("{bus}"));
        let mut kcat = std::process::Command::new("kcat");
        kcat.args([
            "-C", "-q", "-b", &brokers, "-t", "traced", "-c", "1", "-f", "%h",
        ]);
        match kcat.args(["-p", partition, "-o", offset]).output() {
            Ok(out) => {
                let headers = String::from_utf8_lossy(&out.stdout).into_owned();
                assert!(
                    headers.contains(&format!("event-id={id}")),
                    "{bus}: {headers}"
                );
            }
            Err(why) => servers::skip("kcat", SUITE, &format!("kcat: {why}")),
        }
    }
    relay.stop();
}
