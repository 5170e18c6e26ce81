//! Loki's push API, as strict as Loki about labels, times and entries.

use std::net::SocketAddr;

use serde_json::Value;

use super::webhook::{answer, text};
use super::{Memory, Peer};
use crate::fake_http::{Answer, FakeHttp, Request};

pub(crate) struct Loki {
    _server: FakeHttp,
    memory: Memory,
}

impl Peer for Loki {
    const STEPS: &[&str] = &["resolve", "connect", "authenticate", "write", "read back"];

    async fn start(at: SocketAddr) -> Self {
        let memory = Memory::new(at);
        let here = memory.clone();
        let server = FakeHttp::at(at, move |request| match request.method.as_str() {
            "GET" => told(&here, request),
            _ => answer(&here, &read(request), || Answer::status(204)),
        });
        Loki {
            _server: server.await,
            memory,
        }
    }

    fn settings(at: &str) -> String {
        format!("{{type: loki, url: 'http://{at}', tenant: blue}}")
    }

    fn memory(&self) -> &Memory {
        &self.memory
    }
}

/// What it says to who asks.
fn told(memory: &Memory, request: &Request) -> Answer {
    assert_eq!(request.header("x-scope-orgid"), Some("blue"));
    if request.path == "/loki/api/v1/labels" {
        return Answer::saying(200, r#"{"status":"success","data":["job"]}"#);
    }
    let query = request.path.strip_prefix("/loki/api/v1/query_range?query=");
    let query = query.expect("a question about a range");
    let has = |id: &String| query.contains(&format!("event_id%3D%22{id}%22"));
    let found = memory.ids().iter().any(has);
    assert!(
        query.starts_with("%7B") && query.contains("job%3D%22cresset%22"),
        "{query}"
    );
    Answer::saying(
        200,
        match found {
            true => r#"{"data":{"result":[{"stream":{},"values":[]}]}}"#,
            false => r#"{"data":{"result":[]}}"#,
        },
    )
}

fn read(request: &Request) -> Vec<(String, String)> {
    assert_eq!(
        (request.method.as_str(), request.path.as_str()),
        ("POST", "/loki/api/v1/push")
    );
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(request.header("content-encoding"), Some("gzip"));
    assert_eq!(request.header("x-scope-orgid"), Some("blue"));
    let body = request.json();
    let streams = body["streams"].as_array().expect("streams");
    assert!(!streams.is_empty() && body.as_object().unwrap().len() == 1);
    streams.iter().flat_map(stream).collect()
}

fn stream(stream: &Value) -> Vec<(String, String)> {
    let labels = stream["stream"].as_object().expect("labels");
    assert!((1..=15).contains(&labels.len()), "{labels:?}");
    for (name, value) in labels {
        assert!(
            name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'),
            "{name}"
        );
        assert!(!text(value).is_empty(), "{name} is empty");
    }
    assert_eq!(labels["job"], "cresset");
    let mut last = 0;
    let values = stream["values"].as_array().expect("values");
    values
        .iter()
        .map(|entry| {
            let [time, line, metadata] = &entry.as_array().expect("an entry")[..] else {
                panic!("time, line and metadata, not {entry}")
            };
            let time: u64 = text(time).parse().expect("nanoseconds");
            assert!(time >= last, "a stream goes backwards");
            last = time;
            for value in metadata.as_object().expect("metadata").values() {
                text(value);
            }
            let line: Value = serde_json::from_str(&text(line)).expect("a line of JSON");
            assert_eq!(line["EventID"], metadata["event_id"]);
            (text(&metadata["event_id"]), text(&line["PodName"]))
        })
        .collect()
}
