//! A server of `_bulk`, which judges every event of a request by itself.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::webhook::text;
use super::{Memory, Mood, Peer};
use crate::fake_http::{Answer, FakeHttp, Request};

pub(crate) struct Elasticsearch {
    _server: FakeHttp,
    memory: Memory,
}

impl Peer for Elasticsearch {
    const STEPS: &[&str] = &["resolve", "connect", "authenticate", "write", "read back"];

    async fn start(at: SocketAddr) -> Self {
        let memory = Memory::new(at);
        let here = memory.clone();
        let server = FakeHttp::at(at, move |request| match request.method.as_str() {
            "POST" => bulk(&here, request),
            "HEAD" => Answer::status(200),
            _ => told(&here, request),
        });
        Elasticsearch {
            _server: server.await,
            memory,
        }
    }

    fn settings(at: &str) -> String {
        // Its events are of a day that the usual retention may be past.
        format!(
            "{{type: elasticsearch, endpoints: ['http://{at}'], index: {{setup: manual, retention: 3650d}}}}"
        )
    }

    fn memory(&self) -> &Memory {
        &self.memory
    }
}

fn told(memory: &Memory, request: &Request) -> Answer {
    if request.path == "/" {
        let about = json!({"version": {"number": "8.19.0"}, "tagline": "You Know, for Search"});
        return Answer::saying(200, &about.to_string());
    }
    let (_, id) = request.path.split_once("/_doc/").expect("a document");
    let found = memory.ids().iter().any(|kept| kept == id);
    Answer::saying(
        if found { 200 } else { 404 },
        &json!({ "found": found }).to_string(),
    )
}

fn bulk(memory: &Memory, request: &Request) -> Answer {
    assert!(request.path.starts_with("/_bulk"), "{}", request.path);
    match memory.mood() {
        Mood::Busy => return Answer::after(429, 7),
        Mood::Breaking => return Answer::Reset,
        _ => {}
    }
    let body = std::str::from_utf8(&request.body).expect("UTF-8");
    assert!(body.ends_with('\n'));
    let lines: Vec<Value> = body
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert!(!lines.is_empty() && lines.len().is_multiple_of(2));
    let items: Vec<Value> = lines
        .chunks(2)
        .map(|pair| json!({"create": item(memory, &pair[0]["create"], &pair[1])}))
        .collect();
    Answer::saying(200, &json!({ "errors": true, "items": items }).to_string())
}

fn item(memory: &Memory, place: &Value, event: &Value) -> Value {
    let event = (text(&place["_id"]), text(&event["PodName"]));
    if memory.ids().contains(&event.0) && memory.mood() == Mood::Taking {
        return json!({"status": 409, "error": {"type": "version_conflict_engine_exception", "reason": "there"}});
    }
    if memory.refuses(std::slice::from_ref(&event)) {
        return json!({"status": 400, "error": {"type": "mapper_parsing_exception", "reason": "I do not like it"}});
    }
    memory.keep([event]);
    json!({"status": 201})
}
