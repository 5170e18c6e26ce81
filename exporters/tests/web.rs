//! What the HTTP client of the sinks does when a destination fails as only a scripted one does, and what a flood becomes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "support/events.rs"]
mod events;
#[path = "support/fake_http.rs"]
mod fake_http;
#[path = "support/ocsf.rs"]
mod ocsf;
#[path = "web/schema.rs"]
mod schema;
#[path = "support/servers.rs"]
mod servers;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use exporters::{Outcome, Sink};
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{
    LogsService, LogsServiceServer,
};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use serde_json::Value;
use tokio::time::timeout;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use events::{alert, alerts, batch, letters, sink};
use fake_http::{Answer, FakeHttp};

const SOON: Duration = Duration::from_secs(60);

fn ndjson(url: &str, more: &str) -> Box<dyn Sink> {
    sink(&format!(
        "{{type: webhook, shape: ndjson, url: '{url}', {more}}}"
    ))
}

/// Why the sink says that the destination is away, when it does this.
async fn told(answer: Answer) -> String {
    let server = FakeHttp::start(move |_| answer.clone()).await;
    let sink = ndjson(&server.url(), "timeout: 500ms");
    let sent = timeout(SOON, sink.send(alerts(2))).await.expect("in time");
    sent.unwrap_err().reason
}

#[tokio::test]
async fn a_destination_that_fails_in_the_middle_is_away_and_says_how() {
    for (answer, words) in [
        (Answer::Reset, "the request failed"),
        (Answer::CutShort, "the request failed"),
        (Answer::Nonsense, "the request failed"),
        (Answer::Silence, "no answer in time"),
    ] {
        let reason = told(answer.clone()).await;
        assert!(reason.contains(words), "{answer:?}: {reason}");
    }
}

#[tokio::test]
async fn wrong_settings_are_told_and_nothing_is_rejected() {
    for (code, words) in [
        (301, "the address has moved"),
        (401, "check auth"),
        (403, "does not allow this"),
        (404, "check it"),
        (500, "HTTP 500"),
    ] {
        let reason = told(Answer::saying(code, "why\nso")).await;
        assert!(
            reason.contains(words) && reason.contains("why\\nso"),
            "{code}: {reason}"
        );
    }
}

#[tokio::test]
async fn a_slow_answer_byte_by_byte_is_an_answer() {
    let server = FakeHttp::start(|_| Answer::Slowly).await;
    let outcomes = ndjson(&server.url(), "").send(alerts(2)).await.unwrap();
    assert_eq!(letters(&outcomes), "dd");
}

#[tokio::test]
async fn a_secret_that_was_changed_is_used_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "old\n").unwrap();
    let server = FakeHttp::start(|request| match request.header("authorization") {
        Some("Bearer new") => Answer::status(200),
        _ => Answer::status(401),
    })
    .await;
    let sink = ndjson(
        &server.url(),
        &format!("auth: {{token_file: '{}'}}", path.display()),
    );
    let away = sink.send(alerts(1)).await.unwrap_err();
    assert!(!away.reason.contains("old"), "{away}");
    std::fs::write(&path, "new\n").unwrap();
    assert_eq!(sink.send(alerts(1)).await, Ok(vec![Outcome::Done]));
}

/// A collector that lets in whoever shows this key, and what it was shown.
struct Collector {
    key: &'static str,
    shown: Arc<Mutex<Vec<MetadataMap>>>,
}

#[tonic::async_trait]
impl LogsService for Collector {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let metadata = request.metadata();
        self.shown.lock().unwrap().push(metadata.clone());
        match metadata.get("dd-api-key") {
            Some(key) if key == self.key => Ok(Response::new(ExportLogsServiceResponse::default())),
            _ => Err(Status::unauthenticated("no such key")),
        }
    }
}

#[tokio::test]
async fn a_token_has_a_header_of_its_own_over_grpc_and_is_read_again_when_it_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    std::fs::write(&path, "old-key\n").unwrap();
    let shown = Arc::<Mutex<Vec<MetadataMap>>>::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let door = LogsServiceServer::new(Collector {
        key: "new-key",
        shown: Arc::clone(&shown),
    });
    let served = tonic::transport::Server::builder()
        .add_service(door)
        .serve_with_incoming(TcpListenerStream::new(listener));
    let server = tokio::spawn(served);
    let sink = sink(&format!(
        "{{type: otlp, endpoint: 'http://{at}', auth: {{token_file: '{}', header: DD-API-KEY}}}}",
        path.display()
    ));
    let away = sink.send(alerts(1)).await.unwrap_err();
    assert!(away.reason.contains("no such key"), "{away}");
    assert!(away.reason.contains("check auth"), "{away}");
    assert!(!away.reason.contains("old-key"), "{away}");
    std::fs::write(&path, "new-key\n").unwrap();
    assert_eq!(sink.send(alerts(1)).await, Ok(vec![Outcome::Done]));
    {
        let shown = shown.lock().unwrap();
        let keys: Vec<_> = shown
            .iter()
            .filter_map(|seen| seen.get("dd-api-key"))
            .collect();
        assert!(
            keys.len() == shown.len()
                && *keys[0] == "old-key"
                && *keys[keys.len() - 1] == "new-key",
            "{keys:?}"
        );
        let bearer = |seen: &MetadataMap| seen.contains_key("authorization");
        assert!(
            !shown.iter().any(bearer),
            "it stands in its own header only"
        );
    }
    // What cannot stand there is told and not left out.
    std::fs::write(&path, "new\u{7f}\n").unwrap();
    let away = sink.send(alerts(1)).await.unwrap_err();
    assert!(
        away.reason
            .contains("cannot stand in the header dd-api-key"),
        "{away}"
    );
    server.abort();
}

#[test]
fn a_header_for_bytes_is_no_header_for_a_token_over_grpc() {
    let (nodes, mut problems) = yaml::parse(
        "c.yaml",
        "type: otlp\nendpoint: 'http://x'\nauth:\n  token_file: /k\n  header: key-bin\nheaders: {Other-Bin: x}\n",
    );
    exporters::SinkConfig::read(&nodes[0], yaml::Severity::Error, &mut problems);
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[0].starts_with("c.yaml:6: headers.Other-Bin: "),
        "{told:?}"
    );
    assert!(told[1].starts_with("c.yaml:5: auth.header: "), "{told:?}");
}

#[tokio::test]
async fn what_a_server_repeats_of_secrets_is_told_to_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, format!("{text}\n")).unwrap();
        path.display().to_string()
    };
    for code in [400, 401, 404, 500] {
        let server = FakeHttp::start(move |request| {
            let said = request.header("authorization").unwrap_or_default();
            let body = String::from_utf8_lossy(&request.body);
            Answer::saying(
                code,
                &format!("Cannot POST {}: {said} {body}", request.path),
            )
        })
        .await;
        let url = write(
            "url",
            &format!("{}/services/T0/hush1?x=hush2", server.url()),
        );
        let (key, password) = (write("key", "hush3"), write("password", "hush4"));
        let sink = sink(&format!(
            "{{type: webhook, shape: pagerduty, url_file: '{url}', routing_key_file: '{key}', \
             auth: {{username: me, password_file: '{password}'}}}}"
        ));
        let reason = match sink.send(alerts(1)).await {
            Ok(outcomes) => events::reason(&outcomes, 0).to_owned(),
            Err(away) => away.reason,
        };
        assert!(reason.contains("Cannot POST ***"), "{reason}");
        for secret in ["hush", "bWU6aHVzaDQ="] {
            assert!(!reason.contains(secret), "{code}: {reason}");
        }
    }
}

#[tokio::test]
async fn an_address_that_is_a_secret_does_not_stand_in_the_settings() {
    let problems = |url: &str| {
        let text = format!("{{type: webhook, shape: slack, url: '{url}'}}");
        let (nodes, mut problems) = yaml::parse("c.yaml", &text);
        exporters::SinkConfig::read(&nodes[0], yaml::Severity::Error, &mut problems);
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        told.join("; ")
    };
    for url in [
        "https://hooks.slack.com/services/T0/B0/hush",
        "https://chat.example/hook?token=hush",
        "https://me:hush@chat.example/hook",
        "https://me:hush@chat.example:x/",
    ] {
        let told = problems(url);
        assert!(
            told.contains("url: ") && !told.contains("hush"),
            "{url}: {told}"
        );
    }
    assert_eq!(problems("https://chat.example/hook?team=a"), "");
}

#[tokio::test]
async fn a_secret_file_that_is_missing_is_named_when_the_sink_is_built() {
    let (nodes, mut problems) = yaml::parse(
        "c.yaml",
        "{type: webhook, shape: ndjson, url: 'http://x', auth: {token_file: /nowhere/token}}",
    );
    let config = exporters::SinkConfig::read(&nodes[0], yaml::Severity::Error, &mut problems);
    let built = exporters::build("chat", &config.unwrap(), &exporters::Context::default());
    let error = built.err().expect("an error").to_string();
    assert!(
        error.contains("/nowhere/token") && error.contains("chat"),
        "{error}"
    );
}

#[tokio::test]
async fn requests_go_through_the_proxy_with_its_credentials() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    std::fs::write(&path, "hush").unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let here = Arc::clone(&seen);
    let proxy = FakeHttp::start(move |request| {
        let credentials = request.header("proxy-authorization").map(str::to_owned);
        here.lock()
            .unwrap()
            .push((request.path.clone(), credentials));
        Answer::status(200)
    })
    .await;
    let more = format!(
        "proxy: {{url: '{}', username: me, password_file: '{}'}}",
        proxy.url(),
        path.display()
    );
    let sink = ndjson("http://siem.invalid/in", &more);
    assert_eq!(sink.send(alerts(1)).await, Ok(vec![Outcome::Done]));
    // The password that its file holds by now.
    std::fs::write(&path, "other").unwrap();
    assert_eq!(sink.send(alerts(1)).await, Ok(vec![Outcome::Done]));
    let expected = ["bWU6aHVzaA==", "bWU6b3RoZXI="].map(|pair| {
        let credentials = Some(format!("Basic {pair}"));
        ("http://siem.invalid/in".to_owned(), credentials)
    });
    assert_eq!(*seen.lock().unwrap(), expected);
}

/// The counts at the head of the messages that a chat got.
fn counts(messages: &[Value]) -> usize {
    let count = |message: &Value| {
        let text = message["text"].as_str().unwrap().to_owned();
        let number = text
            .split(' ')
            .next()
            .and_then(|word| word.parse::<usize>().ok());
        number.unwrap_or(1)
    };
    messages.iter().map(count).sum()
}

#[tokio::test]
async fn a_flood_becomes_few_messages_that_count_every_event() {
    let messages = Arc::new(Mutex::new(Vec::new()));
    let here = Arc::clone(&messages);
    let server = FakeHttp::start(move |request| {
        here.lock().unwrap().push(request.json());
        Answer::saying(200, "ok")
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("url");
    std::fs::write(&path, format!("{}/services/T0/B0/x\n", server.url())).unwrap();
    let sink = sink(&format!(
        "{{type: webhook, shape: slack, url_file: '{}', rate: {{messages: 3, per: 1s}}}}",
        path.display()
    ));
    // Two batches of a thousand, of fifty pods each.
    for start in [1, 1001] {
        let flood = batch((start..start + 1000).map(|n| alert(n, &format!("pod-{}", n % 50))));
        let outcomes = timeout(SOON, sink.send(flood))
            .await
            .expect("in time")
            .unwrap();
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Done));
    }
    let messages = messages.lock().unwrap();
    assert!((2..=6).contains(&messages.len()), "{}", messages.len());
    assert_eq!(counts(&messages), 2000, "{messages:#?}");
}

#[tokio::test]
async fn a_flood_is_bounded_for_every_shape_of_messages_though_nobody_set_a_rate() {
    let count = |shape: &str, message: &Value| match shape {
        "alertmanager" => message[0]["annotations"]["count"].as_str()?.parse().ok(),
        "falcosidekick" => message["output_fields"]["cresset.count"].as_u64(),
        _ => message["count"].as_u64(),
    };
    for (shape, more, rate) in [
        ("alertmanager", "", 120),
        ("falcosidekick", "", 60),
        ("template", ", template: '{\"count\": {{ count }}}'", 20),
    ] {
        let messages = Arc::new(Mutex::new(Vec::new()));
        let here = Arc::clone(&messages);
        let server = FakeHttp::start(move |request| {
            here.lock().unwrap().push(request.json());
            Answer::saying(200, "ok")
        })
        .await;
        let sink = sink(&format!(
            "{{type: webhook, shape: {shape}, url: '{}'{more}}}",
            server.url()
        ));
        // Three batches of a thousand, of two hundred pods each: more than a minute's messages.
        for start in [1, 1001, 2001] {
            let flood = batch((start..start + 1000).map(|n| alert(n, &format!("pod-{}", n % 200))));
            let outcomes = timeout(SOON, sink.send(flood)).await.expect("in time");
            let done = |outcome: &Outcome| *outcome == Outcome::Done;
            assert!(outcomes.unwrap().iter().all(done), "{shape}");
        }
        let messages = messages.lock().unwrap();
        let counted: u64 = messages.iter().filter_map(|told| count(shape, told)).sum();
        assert_eq!(counted, 3000, "{shape}");
        // A slow machine gives time for some more.
        let sent = messages.len();
        assert!((rate + 2..=3 * rate).contains(&sent), "{shape}: {sent}");
    }
}

#[tokio::test]
async fn a_message_that_is_refused_costs_its_group_alone() {
    let server = FakeHttp::start(|request| match request.json()["text"].as_str() {
        Some(text) if text.contains("evil") => Answer::saying(400, "invalid_blocks"),
        _ => Answer::saying(200, "ok"),
    })
    .await;
    let sink = sink(&format!(
        "{{type: webhook, shape: slack, url: '{}'}}",
        server.url()
    ));
    let pods = ["a", "evil", "a", "evil", "b"];
    let outcomes = sink
        .send(batch(pods.iter().zip(1..).map(|(pod, n)| alert(n, pod))))
        .await;
    let outcomes = outcomes.unwrap();
    assert_eq!(letters(&outcomes), "dxdxd");
    assert!(events::reason(&outcomes, 1).contains("invalid_blocks"));
}

#[tokio::test]
async fn loki_gets_a_bounded_number_of_streams() {
    let streams = Arc::new(Mutex::new(Vec::new()));
    let here = Arc::clone(&streams);
    let server = FakeHttp::start(move |request| {
        for stream in request.json()["streams"].as_array().unwrap() {
            let operation = stream["stream"]["operation"].clone();
            for value in stream["values"].as_array().unwrap() {
                // What `other` stands for.
                let kept = value[2]["operation"].clone();
                here.lock().unwrap().push((operation.clone(), kept));
            }
        }
        Answer::status(204)
    })
    .await;
    let sink = sink(&format!(
        "{{type: loki, url: '{}', label_fields: [operation], max_streams: 2}}",
        server.url()
    ));
    let of = |n: u64, operation: &str| {
        let alert = proto::feeder::Alert {
            operation: operation.into(),
            ..Default::default()
        };
        events::of(n, prost::Message::encode_to_vec(&alert))
    };
    let operations = ["a", "b", "c", "d", "a"];
    let outcomes = sink
        .send(batch(operations.iter().zip(1..).map(|(o, n)| of(n, o))))
        .await;
    assert_eq!(letters(&outcomes.unwrap()), "ddddd");
    let streams = streams.lock().unwrap();
    let streams: Vec<(&str, &str)> = (streams.iter())
        .map(|(stream, kept)| (stream.as_str().unwrap(), kept.as_str().unwrap()))
        .collect();
    assert_eq!(
        streams,
        [
            ("a", "a"),
            ("a", "a"),
            ("b", "b"),
            ("other", "c"),
            ("other", "d")
        ]
    );
}

#[tokio::test]
async fn who_tries_a_sink_does_not_wait_for_its_rate() {
    let server = FakeHttp::start(|_| Answer::saying(200, "ok")).await;
    let sink = sink(&format!(
        "{{type: webhook, shape: slack, url: '{}', rate: {{messages: 1, per: 1h}}}}",
        server.url()
    ));
    for n in 1..=3 {
        let (tried, why) = events::steps(&*sink, alert(n, "marked")).await;
        assert_eq!(tried, ["+resolve", "+connect", "+write"], "{why}");
    }
}

#[tokio::test]
async fn one_that_refuses_every_message_is_not_asked_a_thousand_times() {
    let asked = Arc::new(Mutex::new(0));
    let here = Arc::clone(&asked);
    let server = FakeHttp::start(move |_| {
        *here.lock().unwrap() += 1;
        Answer::saying(400, "no_service")
    })
    .await;
    let sink = sink(&format!(
        "{{type: webhook, shape: alertmanager, url: '{}'}}",
        server.url()
    ));
    let outcomes = sink
        .send(batch((1..=1000).map(|n| alert(n, &format!("pod-{n}")))))
        .await
        .unwrap();
    assert_eq!(*asked.lock().unwrap(), 8);
    let letters = letters(&outcomes);
    assert_eq!(letters.matches('x').count(), 8, "{letters}");
    assert_eq!(letters.matches('r').count(), 992, "{letters}");
}
