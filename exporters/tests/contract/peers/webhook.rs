//! Web servers: what they all do with a request, and the forms of the webhook sink.

use std::net::SocketAddr;

use serde_json::Value;

use super::{Memory, Mood, Peer};
use crate::fake_http::{Answer, FakeHttp, Request};

/// Answers by the mood; `read` checks a request and takes its events out.
pub(crate) async fn server(
    at: SocketAddr,
    read: fn(&Request) -> Vec<(String, String)>,
    taken: fn() -> Answer,
) -> (FakeHttp, Memory) {
    let memory = Memory::new(at);
    let here = memory.clone();
    let server = FakeHttp::at(at, move |request| answer(&here, &read(request), taken));
    (server.await, memory)
}

/// What it says to these events.
pub(crate) fn answer(
    memory: &Memory,
    events: &[(String, String)],
    taken: fn() -> Answer,
) -> Answer {
    match memory.mood() {
        Mood::Busy => Answer::after(429, 7),
        Mood::Breaking => Answer::Reset,
        _ if memory.refuses(events) => Answer::saying(400, "I do not like it"),
        _ => {
            memory.keep(events.iter().cloned());
            taken()
        }
    }
}

pub(crate) fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("a text, not {value}"))
        .to_owned()
}

macro_rules! shape {
    ($name:ident, $word:literal, $kind:literal, $read:expr) => {
        pub(crate) struct $name {
            _server: FakeHttp,
            memory: Memory,
        }

        impl Peer for $name {
            const STEPS: &[&str] = &["resolve", "connect", "write"];

            async fn start(at: SocketAddr) -> Self {
                let read = |request: &Request| {
                    assert_eq!(
                        (request.method.as_str(), request.path.as_str()),
                        ("POST", "/in")
                    );
                    assert_eq!(request.header("content-type"), Some($kind));
                    assert_eq!(request.header("content-encoding"), None);
                    let events: Vec<(String, String)> = ($read)(request);
                    assert!(!events.is_empty(), "a request without events");
                    events
                };
                let (_server, memory) = server(at, read, || Answer::Slowly).await;
                $name { _server, memory }
            }

            fn settings(at: &str) -> String {
                format!("{{type: webhook, shape: {}, url: 'http://{at}/in'}}", $word)
            }

            fn memory(&self) -> &Memory {
                &self.memory
            }
        }
    };
}

shape!(
    Ndjson,
    "ndjson",
    "application/x-ndjson",
    |request: &Request| {
        let body = std::str::from_utf8(&request.body).unwrap();
        assert!(body.ends_with('\n'));
        let event = |line: &str| {
            let event: Value = serde_json::from_str(line).unwrap();
            (
                text(&event["EventID"]),
                text(event.get("PodName").unwrap_or(&"".into())),
            )
        };
        body.lines().map(event).collect()
    }
);

shape!(Ocsf, "ocsf", "application/json", |request: &Request| {
    let events = request.json();
    let event = |event: &Value| {
        for id in [
            "class_uid",
            "category_uid",
            "activity_id",
            "type_uid",
            "severity_id",
            "time",
        ] {
            assert!(event[id].is_u64(), "{id} is missing: {event}");
        }
        assert_eq!(event["type_uid"].as_u64(), Some(200_401));
        assert_eq!(event["metadata"]["version"], "1.3.0");
        (
            text(&event["metadata"]["uid"]),
            text(&event["unmapped"]["PodName"]),
        )
    };
    events
        .as_array()
        .expect("a list")
        .iter()
        .map(event)
        .collect()
});
