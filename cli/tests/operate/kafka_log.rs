//! The same from outside where the log is in Kafka: one real broker and one real Elasticsearch for all scenes.

use std::collections::BTreeMap;
use std::process::Stdio;

use prost::Message as _;
use proto::link::from_sensor::Is as Say;
use proto::{Kind, feeder, link};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::elasticsearch::Elasticsearch;
use crate::scene::{ARCHIVE, SOON, Scene};
use crate::servers::Kafka;
use crate::support::eventually;

const SUITE: &str = "operate with the log in Kafka";

/// A relay's place whose log is a topic of this broker.
fn on(kafka: &Kafka, topic: &str, sinks: &str) -> Scene {
    let brokers = kafka.brokers();
    let log =
        format!("log: {{type: kafka, brokers: ['{brokers}'], topic: {topic}, partitions: 3}}");
    Scene::new(&log, sinks)
}

/// A sink into one index that a test has made.
fn siem(name: &str, server: &Elasticsearch, index: &str) -> String {
    format!(
        "{name}: {{type: elasticsearch, endpoints: ['{}'], start: beginning, filter: {{kinds: [alert]}}, \
         batch: {{max_delay: 50ms}}, retry: {{initial: 50ms, max: 500ms}}, \
         index: {{layout: fixed, alert: {index}, log: {index}, message: {index}, setup: manual}}}}",
        server.url()
    )
}

/// Ids of what the archive has of a namespace, by pod.
fn ids(scene: &Scene, namespace: &str, count: usize) -> BTreeMap<String, String> {
    let text = |event: &Value, field: &str| event[field].as_str().expect("text").to_owned();
    let alerts = scene.alerts(namespace, count).into_iter();
    let pair = |event: Value| (text(&event, "PodName"), text(&event, "EventID"));
    alerts.map(pair).collect()
}

fn traced(scene: &Scene, id: &str) -> (Option<i32>, Value) {
    let output = scene.cresset(&["trace", id, "-o", "json"]);
    let trace = serde_json::from_slice(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (
        output.status.code(),
        trace.unwrap_or_else(|why| panic!("{why}: {said}")),
    )
}

/// What a trace says of a sink.
fn at(trace: &Value, sink: &str) -> (String, String, String) {
    let sinks = trace["sinks"].as_array().expect("sinks");
    let at = sinks.iter().find(|at| at["sink"] == sink);
    let at = at.unwrap_or_else(|| panic!("{sink} is not in {trace}"));
    let text = |key: &str| at[key].as_str().expect("text").to_owned();
    (text("outcome"), text("reason"), text("place"))
}

/// An index that takes numbers as names of pods, and refuses others.
fn make_narrow(runtime: &Runtime, server: &Elasticsearch, index: &str) {
    let columns = json!({ "mappings": { "properties": { "PodName": { "type": "long" } } } });
    runtime.block_on(server.put(index, columns));
}

#[test]
fn an_event_is_traced_to_its_partition_and_to_every_sink_whichever_relay_delivered_it() {
    let (Some(kafka), Some(server)) = (Kafka::shared(SUITE), Elasticsearch::shared(SUITE)) else {
        return;
    };
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(server.put("traced", json!({})));
    make_narrow(&runtime, &server, "traced-narrow");
    let sinks = [
        ARCHIVE.to_owned(),
        siem("siem", &server, "traced"),
        siem("narrow", &server, "traced-narrow"),
        "few: {type: file, path: DIR/few.jsonl, start: beginning, filter: {namespaces: [other]}}"
            .to_owned(),
        "away: {type: file, path: DIR/relay.yaml/none, start: beginning}".to_owned(),
        "counts: {type: prometheus, start: beginning}".to_owned(),
    ]
    .join(", ");
    let one = on(&kafka, "traced-log", &sinks);
    let first = one.place.start();
    for pod in ["1", "2", "word"] {
        one.import_of(pod, "shop", 1);
    }
    let ids = ids(&one, "shop", 3);
    // Committed a moment after it was delivered.
    let settled = |scene: &Scene, sink: &str, outcome: &str, id: &str| {
        eventually(&format!("{sink} says {outcome}"), SOON, || {
            let (code, trace) = traced(scene, id);
            assert_eq!(code, Some(0), "{trace}");
            (at(&trace, sink).0 == outcome).then_some(trace)
        })
    };
    for sink in ["archive", "siem", "narrow", "counts"] {
        settled(&one, sink, "delivered", &ids["1"]);
    }
    let trace = settled(&one, "few", "filtered", &ids["1"]);
    let topic = &trace["journal"]["topic"];
    assert!(
        topic["partition"].as_i64() < Some(3) && topic["offset"].is_i64(),
        "{trace}"
    );
    assert!(
        topic["name"]
            .as_str()
            .expect("a name")
            .contains("topic traced-log of 127.0.0.1"),
        "{trace}"
    );
    assert_eq!(trace["journal"]["event"]["PodName"], "1", "{trace}");
    assert!(
        trace["journal"]["time_ns"].as_i64() > Some(1_700_000_000_000_000_000),
        "{trace}"
    );
    assert_eq!(at(&trace, "siem").2, format!("traced/_doc/{}", ids["1"]));
    let document = runtime.block_on(server.get(&at(&trace, "siem").2));
    assert_eq!(
        document["_source"]["EventID"],
        ids["1"].as_str(),
        "{document}"
    );
    let (outcome, reason, _) = at(&trace, "away");
    assert!(
        outcome == "pending" && reason.contains("of partition"),
        "{trace}"
    );
    let refused = settled(&one, "narrow", "dead letter", &ids["word"]);
    assert!(at(&refused, "narrow").1.contains("status 400"), "{refused}");

    // A page for people.
    let (_, page) = one.said(&["trace", &ids["1"]]);
    for words in [
        "log       partition ",
        ", offset ",
        "taken by relay ",
        "Alert: shop 1 File",
    ] {
        assert!(page.contains(words), "{words} is not in\n{page}");
    }

    // Another relay has nothing of its own to tell, but for what the destination says.
    let two = on(&kafka, "traced-log", &sinks);
    let second = two.place.start();
    let (code, trace) = traced(&two, &ids["1"]);
    assert_eq!(code, Some(0), "{trace}");
    assert_eq!(
        trace["journal"]["topic"]["relay"], topic["relay"],
        "{trace}"
    );
    assert_eq!(at(&trace, "siem").0, "delivered", "{trace}");
    assert_eq!(at(&trace, "archive").0, "passed", "{trace}");
    assert_eq!(at(&trace, "few").0, "filtered", "{trace}");
    assert_eq!(at(&trace, "away").0, "pending", "{trace}");
    assert_eq!(at(&trace, "counts").0, "elsewhere", "{trace}");
    let (outcome, _, place) = at(&traced(&two, &ids["word"]).1, "narrow");
    assert!(
        outcome == "passed" && place.contains("it is not there now"),
        "{outcome} {place}"
    );

    // Many at once, one of them nowhere.
    let file = two.place.path("ids");
    let nowhere = "0badc0de00000001000000000000002a";
    let many = [&ids["1"], &ids["2"], &ids["word"], nowhere].join("\n");
    std::fs::write(&file, many).expect("written");
    let (code, said) = two.said(&["trace", "--from-file", file.to_str().expect("text")]);
    assert!(
        code == Some(1) && said.contains("3 events are somewhere, 1 are nowhere"),
        "{said}"
    );
    let (code, trace) = traced(&two, nowhere);
    assert!(code == Some(1) && trace["sinks"] == json!([]), "{trace}");
    assert!(
        trace["note"]
            .as_str()
            .expect("a note")
            .contains("no relay took it"),
        "{trace}"
    );
    second.stop();
    first.stop();
}

#[test]
fn dead_letters_are_listed_sent_again_and_dropped() {
    let (Some(kafka), Some(server)) = (Kafka::shared(SUITE), Elasticsearch::shared(SUITE)) else {
        return;
    };
    let runtime = Runtime::new().expect("a runtime");
    make_narrow(&runtime, &server, "dlq-narrow");
    runtime.block_on(server.put("dlq-wide", json!({})));
    let narrow = siem("siem", &server, "dlq-narrow");
    let scene = on(&kafka, "dlq-log", &format!("{ARCHIVE}, {narrow}"));
    let relay = scene.place.start();
    for pod in ["1", "one", "two", "2"] {
        scene.import_of(pod, "shop", 1);
    }
    let ids = ids(&scene, "shop", 4);
    relay.page_when("all is settled", |page| {
        page.sink("siem", "dead_lettered_total") == 2 && page.sink("siem", "delivered_total") == 2
    });
    let (code, list) = scene.said(&["dlq", "list", "siem"]);
    assert_eq!(code, Some(0), "{list}");
    for words in [ids["one"].as_str(), &ids["two"], "status 400"] {
        assert!(list.contains(words), "{words} is not in\n{list}");
    }
    let (_, shown) = scene.said(&["dlq", "show", "siem", "--id", &ids["one"]]);
    assert!(
        shown.contains("Reason: ") && shown.contains("PodName: one"),
        "{shown}"
    );
    assert!(
        !shown.contains("Journal: "),
        "a number of one partition says nothing: {shown}"
    );
    let (code, again) = scene.said(&["dlq", "retry", "siem", "--id", &ids["one"]]);
    assert!(
        code == Some(1) && again.contains("1 refused again and stay"),
        "{again}"
    );

    // The configuration is mended while it runs; the event keeps its id.
    scene.edit(&narrow, &siem("siem", &server, "dlq-wide"));
    let (code, said) = scene.said(&["config", "reload"]);
    assert!(
        code == Some(0) && said.contains("sink siem: changed"),
        "{said}"
    );
    let (code, again) = scene.said(&["dlq", "retry", "siem", "--id", &ids["one"]]);
    assert_eq!(
        (code, again.as_str()),
        (Some(0), "siem: 1 of 1 delivered\n")
    );
    let document = runtime.block_on(server.get(&format!("dlq-wide/_doc/{}", ids["one"])));
    assert_eq!(document["_source"]["PodName"], "one", "{document}");
    let (_, trace) = traced(&scene, &ids["one"]);
    let (outcome, reason, _) = at(&trace, "siem");
    assert!(
        outcome == "delivered" && reason.contains("cresset dlq retry"),
        "{trace}"
    );
    let (code, dropped) = scene.said(&["dlq", "drop", "siem", "--all"]);
    assert_eq!((code, dropped.as_str()), (Some(0), "siem: 1 dropped\n"));
    let (_, list) = scene.said(&["dlq", "list", "siem"]);
    assert_eq!(list, "siem: no dead letters like that\n");
    relay.stop();
}

#[test]
fn sinks_come_change_and_go_while_their_groups_keep_their_places() {
    let Some(kafka) = Kafka::shared(SUITE) else {
        return;
    };
    let scene = on(&kafka, "reload-log", ARCHIVE);
    let relay = scene.place.start();
    scene.import("shop", 5);
    scene.alerts("shop", 5);
    // Away for a while: what comes meanwhile waits in the topic.
    let other = "other: {type: file, path: DIR/other.jsonl}";
    scene.edit(
        &format!("sinks: {{{ARCHIVE}}}"),
        &format!("sinks: {{{other}}}"),
    );
    let (code, said) = scene.said(&["config", "reload"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("sink archive: removed") && said.contains("sink other: added"),
        "{said}"
    );
    scene.import("away", 4);
    scene.edit(
        &format!("sinks: {{{other}}}"),
        &format!("sinks: {{{ARCHIVE}}}"),
    );
    let (code, said) = scene.said(&["config", "reload"]);
    assert_eq!(code, Some(0), "{said}");
    scene.alerts("away", 4);
    // Other settings, the same place.
    scene.edit(
        "start: beginning",
        "start: beginning, filter: {namespaces: [kept]}",
    );
    let (_, said) = scene.said(&["config", "reload"]);
    assert!(said.contains("sink archive: changed"), "{said}");
    scene.import("left-out", 2);
    scene.import("kept", 2);
    scene.alerts("kept", 2);
    // And after a restart.
    relay.stop();
    let relay = scene.place.start();
    scene.import("kept", 1);
    scene.alerts("kept", 3);
    let all = scene.archived();
    let count = |namespace: &str| {
        all.iter()
            .filter(|event| event["NamespaceName"] == namespace)
            .count()
    };
    assert_eq!(
        ["shop", "away", "left-out", "kept"].map(count),
        [5, 4, 0, 3],
        "each event once, whatever the settings were when it came"
    );
    relay.stop();
}

#[test]
fn an_event_that_the_broker_finds_too_large_is_rejected_in_the_ack_alone() {
    let Some(kafka) = Kafka::shared(SUITE) else {
        return;
    };
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mut config = ClientConfig::new();
        let admin: AdminClient<DefaultClientContext> = config
            .set("bootstrap.servers", kafka.brokers())
            .create()
            .expect("a client");
        let topic = NewTopic::new("small-log", 3, TopicReplication::Fixed(1));
        let topic = topic.set("max.message.bytes", "4096");
        let made = admin.create_topics([&topic], &AdminOptions::new()).await;
        made.expect("an answer")[0].as_ref().expect("made");
    });
    let scene = on(&kafka, "small-log", ARCHIVE);
    let relay = scene.place.start();
    let alert = |pod: &str, size: usize| {
        let alert = feeder::Alert {
            namespace_name: "shop".to_owned(),
            pod_name: pod.to_owned(),
            message: "x".repeat(size),
            ..Default::default()
        };
        proto::batch::join(Kind::Alert, &alert.encode_to_vec())
    };
    let stream = *b"toolarge";
    let ack = runtime.block_on(async {
        let hello = link::Hello {
            version: 1,
            sensor: "large".to_owned(),
            node: "node-l".to_owned(),
            streams: vec![link::SpooledStream {
                stream: stream.to_vec().into(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let batch = link::Batch {
            stream: stream.to_vec().into(),
            first: 1,
            events: vec![
                alert("before", 10),
                alert("large", 8000),
                alert("after", 10),
            ],
        };
        let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", relay.link));
        let channel = channel
            .expect("an address")
            .connect()
            .await
            .expect("connected");
        let (say, said) = tokio::sync::mpsc::channel(4);
        for is in [Say::Hello(hello), Say::Batch(batch)] {
            say.send(link::FromSensor { is: Some(is) })
                .await
                .expect("sent");
        }
        let mut client = link::link_client::LinkClient::new(channel);
        let heard = client
            .exchange(tokio_stream::wrappers::ReceiverStream::new(said))
            .await;
        let mut heard = heard.expect("a stream").into_inner();
        loop {
            let reply = heard
                .message()
                .await
                .expect("an answer")
                .expect("an answer");
            if let Some(link::from_relay::Is::Ack(ack)) = reply.is {
                return ack;
            }
        }
    });
    assert_eq!(ack.up_to, 3, "{ack:?}");
    let [rejected] = &ack.rejected[..] else {
        panic!("{ack:?}");
    };
    assert_eq!(rejected.sequence, 2);
    assert!(rejected.reason.contains("4096"), "{rejected:?}");
    let ids = ids(&scene, "shop", 2);
    assert_eq!(ids.keys().collect::<Vec<_>>(), ["after", "before"]);
    relay.stop();
}

#[test]
fn dead_brokers_hold_up_neither_the_end_nor_a_start_and_nothing_acknowledged_is_lost() {
    const EVENTS: usize = 500;
    let Some(mut kafka) = Kafka::start(SUITE) else {
        return;
    };
    let brokers = kafka.brokers();
    let to_kafka = format!("events: {{type: kafka, brokers: ['{brokers}'], start: beginning}}");
    let scene = on(&kafka, "dead-log", &format!("{ARCHIVE}, {to_kafka}"));
    let mut relay = scene.place.start();
    scene.import("shop", EVENTS);
    kafka.kill();
    // Somebody waits for an answer that does not come.
    let mut import = crate::support::program("cresset");
    let recorded = scene.place.path("late.jsonl");
    std::fs::write(
        &recorded,
        "{\"Type\":\"MatchedPolicy\",\"NamespaceName\":\"late\"}\n",
    )
    .expect("written");
    import
        .arg("import")
        .arg(&recorded)
        .arg("--socket")
        .arg(scene.place.path("admin.sock"));
    let mut unanswered = crate::support::Running::start(&mut import);
    relay.page_when("an event is on its way", |page| {
        page.get("cresset_journal_in_flight_events") >= 1
    });
    relay.running.signal(libc::SIGTERM);
    let ended = relay.running.wait(SOON);
    assert_eq!(ended.code(), Some(0), "{}", relay.running.stderr.text());
    assert_ne!(
        unanswered.wait(SOON).code(),
        Some(0),
        "nobody said that it is safe"
    );

    // Nobody answers at the start either; another one waits for them to the end.
    let other = on(&kafka, "dead-log", ARCHIVE);
    let (mut patient, _) = other.place.spawn(Stdio::null());
    let (mut starting, _) = scene.place.spawn(Stdio::null());
    let pid = starting.pid().to_string();
    let lock = scene.place.path("data/lock");
    eventually("it holds its folder", SOON, || {
        let holder = std::fs::read_to_string(&lock).unwrap_or_default();
        (holder == pid).then_some(())
    });
    starting.signal(libc::SIGTERM);
    let ended = starting.wait(SOON);
    assert_eq!(ended.code(), Some(0), "{}", starting.stderr.text());
    let ended = patient.wait(SOON);
    let said = patient.stderr.text();
    assert!(said.contains("cannot be reached"), "{said}");
    assert_eq!(ended.code(), Some(3), "{said}");

    kafka.restart();
    let relay = scene.place.start();
    scene.alerts("shop", EVENTS);
    relay.page_when("all is delivered", |page| {
        page.sink("events", "pending") == 0
    });
    relay.stop();
}
