//! Where events are.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use prost::Message as _;
use proto::link::from_sensor::Is as Say;
use proto::{EventId, Kind, StreamId, feeder, link};
use serde_json::Value;

use crate::scene::{ARCHIVE, Scene};

#[test]
fn an_event_is_traced_to_journal_and_sinks_whatever_became_of_it() {
    let scene = Scene::new(
        "",
        &format!(
            "{ARCHIVE}, few: {{type: file, path: DIR/few.jsonl, filter: {{namespaces: [other]}}}}, away: {{type: file, path: DIR/relay.yaml/none, start: beginning}}"
        ),
    );
    let relay = scene.place.start();
    scene.import("shop", 2);
    let event = scene.alerts("shop", 2).remove(0);
    let id = event["EventID"].as_str().expect("an id").to_owned();
    let trace = |id: &str| {
        let (code, text) = scene.said(&["trace", id, "-o", "json"]);
        let trace: Value =
            serde_json::from_str(&text).unwrap_or_else(|why| panic!("{why}: {text}"));
        (code, trace)
    };
    let at = |trace: &Value, sink: &str| {
        let sinks = trace["sinks"].as_array().expect("sinks").clone();
        sinks
            .into_iter()
            .find(|at| at["sink"] == sink)
            .expect("the sink")
    };
    relay.page_when("the archive has passed it", |page| {
        page.sink("archive", "pending") == 0
    });
    let (code, found) = trace(&id);
    assert_eq!(code, Some(0), "{found}");
    assert_eq!(found["journal"]["sequence"], 1, "{found}");
    assert_eq!(found["journal"]["segment"], 1, "{found}");
    assert_eq!(
        found["journal"]["event"]["NamespaceName"], "shop",
        "{found}"
    );
    let archive = at(&found, "archive");
    assert_eq!(archive["outcome"], "delivered", "{found}");
    assert!(
        archive["time_ns"].as_i64() > Some(1_700_000_000_000_000_000),
        "{found}"
    );
    assert!(
        archive["place"]
            .as_str()
            .expect("a place")
            .contains("events.jsonl"),
        "{found}"
    );
    assert_eq!(at(&found, "few")["outcome"], "filtered", "{found}");
    let away = at(&found, "away");
    assert_eq!(away["outcome"], "pending", "{found}");
    assert!(
        away["reason"]
            .as_str()
            .expect("a reason")
            .contains("it is the next one"),
        "{found}"
    );

    let (_, skipped) = scene.said(&["sink", "skip", "away"]);
    assert!(skipped.contains("away"), "{skipped}");
    assert_eq!(at(&trace(&id).1, "away")["outcome"], "skipped");
    // A page for people.
    let (_, page) = scene.said(&["trace", &id]);
    assert!(
        page.contains("journal   event 1, segment 00000000000000000001.seg"),
        "{page}"
    );
    assert!(page.contains("Alert: shop p File"), "{page}");

    let (code, nothing) = trace("0badc0de00000001000000000000002a");
    assert_eq!(code, Some(1), "{nothing}");
    assert!(
        nothing["note"]
            .as_str()
            .expect("a note")
            .contains("knows nothing of its stream"),
        "{nothing}"
    );
    let (code, said) = scene.said(&["trace", "0bad"]);
    assert_eq!(code, Some(2), "{said}");
    relay.stop();
}

/// Where an event is, as `cresset trace -o json` tells.
fn traced(scene: &Scene, id: &str) -> Value {
    let (_, text) = scene.said(&["trace", id, "-o", "json"]);
    serde_json::from_str(&text).unwrap_or_else(|why| panic!("{why}: {text}"))
}

fn at(trace: &Value, sink: &str) -> Value {
    let sinks = trace["sinks"].as_array().expect("sinks");
    let at = sinks.iter().find(|at| at["sink"] == sink);
    at.unwrap_or_else(|| panic!("no {sink} in {trace}")).clone()
}

fn has(value: &Value, words: &str) {
    assert!(
        value.as_str().is_some_and(|text| text.contains(words)),
        "{words}: {value}"
    );
}

/// Takes whatever does not speak of `odd`, and refuses that.
fn picky() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    at
}

fn answer(mut stream: TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().expect("a stream"));
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let lower = line.to_ascii_lowercase();
            if let Some(given) = lower.strip_prefix("content-length:") {
                length = given.trim().parse().expect("a length");
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let odd = body.windows(3).any(|word| word == b"odd");
        let status = if odd { "400 Bad Request" } else { "200 OK" };
        let said = write!(
            stream,
            "HTTP/1.1 {status}\r\ncontent-length: 5\r\n\r\nno: x"
        );
        if said.is_err() {
            return;
        }
    }
}

#[test]
fn what_a_destination_refused_for_good_is_traced_with_its_reason_and_so_is_what_was_dropped() {
    let picky = picky();
    let scene = Scene::new(
        "",
        &format!(
            "{ARCHIVE}, hook: {{type: webhook, shape: json, url: \"http://{picky}/\", start: beginning}}"
        ),
    );
    let relay = scene.place.start();
    scene.import("shop", 1);
    relay.page_when("it takes events", |page| {
        page.sink("hook", "delivered_total") >= 1
    });
    scene.import("odd", 1);
    let event = scene.alerts("odd", 1).remove(0);
    let id = event["EventID"].as_str().expect("an id").to_owned();
    relay.page_when("it was refused", |page| {
        page.sink("hook", "dead_lettered_total") >= 1
    });
    let hook = at(&traced(&scene, &id), "hook");
    assert_eq!(hook["outcome"], "dead letter", "{hook}");
    has(&hook["reason"], "400");
    assert!(
        hook["time_ns"].as_i64() > Some(1_700_000_000_000_000_000),
        "{hook}"
    );
    let refused = hook["time_ns"].as_i64();
    let (code, said) = scene.said(&["dlq", "drop", "hook", "--all"]);
    assert_eq!(code, Some(0), "{said}");
    let hook = at(&traced(&scene, &id), "hook");
    assert_eq!(hook["outcome"], "dropped", "{hook}");
    has(&hook["reason"], "by `cresset dlq drop` of uid ");
    has(&hook["reason"], "400");
    assert!(hook["time_ns"].as_i64() >= refused, "{hook}");
    relay.stop();
}

#[test]
fn an_event_whose_record_is_damaged_is_traced_to_the_damage_that_is_counted() {
    let scene = Scene::new("", ARCHIVE);
    let relay = scene.place.start();
    scene.import("whole", 3);
    scene.import("broken", 1);
    scene.import("whole", 3);
    scene.alerts("whole", 6);
    let event = scene.alerts("broken", 1).remove(0);
    let id = event["EventID"].as_str().expect("an id").to_owned();
    relay.page_when("the archive has passed it", |page| {
        page.sink("archive", "pending") == 0
    });
    relay.stop();
    let segment = scene.place.path("data/journal/00000000000000000001.seg");
    let mut bytes = std::fs::read(&segment).expect("a segment");
    let place = bytes.windows(6).position(|found| found == b"broken");
    bytes[place.expect("the event")] ^= 1;
    std::fs::write(&segment, bytes).expect("written");
    scene.edit(
        ARCHIVE,
        &format!("{ARCHIVE}, late: {{type: file, path: DIR/late.jsonl, start: beginning}}"),
    );
    let relay = scene.place.start();
    relay.page_when("the new sink has passed it", |page| {
        page.sink("late", "corrupt_total") == 1 && page.sink("late", "pending") == 0
    });
    let found = traced(&scene, &id);
    assert_eq!(found["losses"][0]["where"], "journal damage", "{found}");
    assert_eq!(found["losses"][0]["count"], 1, "{found}");
    let (code, page) = scene.said(&["trace", &id]);
    assert!(
        code == Some(0)
            && page.contains("events 4 to 4 cannot be read any more, and it may be among them"),
        "{page}"
    );
    relay.stop();
}

#[test]
fn events_of_a_sensor_are_traced_to_its_spool_and_to_the_losses_that_it_counted() {
    let scene = Scene::new("", ARCHIVE);
    let relay = scene.place.start();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let stream = StreamId(*b"trace\0\0\x07");
    let id = |sequence| EventId { stream, sequence }.to_string();
    runtime.block_on(async {
        let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", relay.link));
        let channel = channel
            .expect("an address")
            .connect()
            .await
            .expect("connected");
        let (say, said) = tokio::sync::mpsc::channel(4);
        let spooled = link::SpooledStream {
            stream: stream.0.to_vec().into(),
            spooled: Some(link::Range { first: 5, end: 9 }),
            ..Default::default()
        };
        let hello = link::Hello {
            version: 1,
            sensor: "spooling".to_owned(),
            node: "node-s".to_owned(),
            streams: vec![spooled],
            ..Default::default()
        };
        let lost = feeder::Message {
            level: "WARN".to_owned(),
            message: "lost 4 events".to_owned(),
            lost: Some(feeder::Lost {
                r#where: "spool".to_owned(),
                count: 4,
                stream: stream.0.to_vec(),
                first: 1,
                last: 4,
                reason: "the spool was full".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let batch = link::Batch {
            stream: stream.0.to_vec().into(),
            first: 5,
            events: vec![proto::batch::join(Kind::Message, &lost.encode_to_vec())],
        };
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
        while let Some(reply) = heard.message().await.expect("an answer") {
            if matches!(reply.is, Some(link::from_relay::Is::Ack(_))) {
                break;
            }
        }
        // Seen while it is connected.
        let acknowledged = traced(&scene, &id(5));
        assert_eq!(acknowledged["received"], true, "{acknowledged}");
        let waits = traced(&scene, &id(6));
        assert_eq!(waits["received"], false, "{waits}");
        assert_eq!(waits["sensor"]["sensor"], "spooling", "{waits}");
        assert_eq!(waits["sensor"]["in_spool"], true, "{waits}");
        let (code, page) = scene.said(&["trace", &id(6)]);
        assert!(
            code == Some(0) && page.contains("spooling, connected; waits in its spool"),
            "{page}"
        );
    });
    let lost = traced(&scene, &id(3));
    has(&lost["note"], "among the losses that its sensor counted");
    assert_eq!(lost["losses"][0]["where"], "spool", "{lost}");
    assert_eq!(lost["losses"][0]["count"], 4, "{lost}");
    let (code, page) = scene.said(&["trace", &id(3)]);
    assert!(
        code == Some(0) && page.contains("one of 4 events counted at spool: the spool was full"),
        "{page}"
    );

    // Many at once: each is told of once, and one that is nowhere is the exit code.
    let file = scene.place.path("ids");
    let many = [id(3), id(5), id(5), id(6), String::new()].join("\n");
    std::fs::write(&file, &many).expect("written");
    let file = file.to_str().expect("text");
    let (code, said) = scene.said(&["trace", "--from-file", file, "-o", "json"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.ends_with("cresset: 3 events are somewhere, 0 are nowhere\n"),
        "{said}"
    );
    let lines = said.lines().filter(|line| line.starts_with('{'));
    let told: Vec<Value> = lines
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(told.len(), 3, "{said}");
    assert!(
        told.iter().any(|one| one["losses"][0]["count"] == 4),
        "{said}"
    );
    std::fs::write(file, many + "0badc0de00000001000000000000002a\n").expect("written");
    let (code, said) = scene.said(&["trace", "--from-file", file]);
    assert!(
        code == Some(1) && said.contains("3 events are somewhere, 1 are nowhere"),
        "{said}"
    );
    std::fs::write(file, "no id\n").expect("written");
    let (code, said) = scene.said(&["trace", "--from-file", file]);
    assert!(code == Some(2) && said.contains("ids:1: "), "{said}");
    relay.stop();
}
