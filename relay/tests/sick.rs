//! A disk that takes nothing any more: who sends is told, who reads goes on, and it heals by itself.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod support;

use std::path::Path;
use std::time::Duration;

use proto::Kind;
use proto::link::from_relay::Is as Reply;
use proto::query::query_client::QueryClient;
use proto::query::watch_reply::Is as Watched;
use proto::query::{ImportRequest, StatusRequest, WatchRequest};
use support::books::Page;
use support::disk::{Mood, Moody};
use support::{Relay, SOON, channel, settings};
use tokio::time::{Instant, timeout};
use tonic::Code;
use tonic::transport::{Endpoint, Uri};

async fn relay(folder: &Path) -> (Relay, Moody) {
    let disk = Moody::new(&folder.join("journal"));
    let sinks = format!(
        "sinks: {{archive: {{type: file, path: {}, start: beginning}}}}",
        folder.join("events").display()
    );
    let config = settings(folder, &sinks);
    let (relay, _) = Relay::over(config, &disk, journal::Config::default()).await;
    (relay, disk)
}

/// Texts of all messages and the number of all other events in the relay's history.
async fn history(relay: &Relay) -> (Vec<String>, usize) {
    let mut client = QueryClient::new(channel(relay.at.feed).await);
    let kinds = [Kind::Alert, Kind::Log, Kind::Message];
    let request = WatchRequest {
        filter: Some(proto::query::Filter {
            kinds: kinds
                .map(|kind| proto::link::EventKind::from(kind).into())
                .into(),
            ..Default::default()
        }),
        since_ns: 1,
        ..Default::default()
    };
    let mut replies = client.watch(request).await.expect("a stream").into_inner();
    let (mut messages, mut others) = (Vec::new(), 0);
    while let Some(reply) = timeout(SOON, replies.message())
        .await
        .expect("in time")
        .expect("a reply")
    {
        let Some(Watched::Event(event)) = reply.is else {
            continue;
        };
        match Kind::try_from(event.kind()) {
            Ok(Kind::Message) => {
                let message = <proto::feeder::Message as prost::Message>::decode(event.payload);
                messages.push(message.expect("a message").message);
            }
            _ => others += 1,
        }
    }
    (messages, others)
}

/// What the administrator hears who imports one event.
async fn import(relay: &Relay) -> Result<u64, tonic::Status> {
    let path = relay.at.admin.clone();
    let endpoint = Endpoint::from_static("http://relay");
    let channel = endpoint
        .connect_with_connector(tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move {
                let stream = tokio::net::UnixStream::connect(path).await?;
                Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
            }
        }))
        .await
        .expect("connected");
    let log = proto::feeder::Log {
        pod_name: "imported".to_owned(),
        ..Default::default()
    };
    let request = ImportRequest {
        kind: proto::link::EventKind::Log.into(),
        payload: prost::Message::encode_to_vec(&log).into(),
    };
    let mut client = QueryClient::new(channel);
    let reply = client.import(tokio_stream::iter([request])).await?;
    Ok(reply.into_inner().accepted)
}

async fn page_when(relay: &Relay, what: &str, fits: impl Fn(&Page) -> bool) -> Page {
    let deadline = Instant::now() + SOON;
    loop {
        let page = relay.page().await;
        if fits(&page) {
            return page;
        }
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn refuses_and_heals(mood: Mood, words: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let (relay, disk) = relay(folder.path()).await;
    let (mut sensor, _) = relay.welcomed("a").await;
    sensor.batch(1, 10).await;
    assert_eq!(sensor.ack().await.up_to, 10);
    disk.set(mood);
    sensor.batch(11, 10).await;
    match sensor.hear().await.expect("an answer").is {
        Some(Reply::Pause(pause)) => {
            assert!(pause.reason.contains(words), "{}", pause.reason);
            assert!(pause.retry_after_ms > 0);
        }
        other => panic!("a Pause was expected, not {other:?}"),
    }
    let status = sensor.end().await;
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    let refused = import(&relay).await.expect_err("refused");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains(words), "{refused}");
    let accepted = refused.metadata().get("cresset-accepted").expect("told");
    assert_eq!(accepted, "0");

    // It says so, once; what is there is handed on and served.
    let (head, body) = relay.get("/readyz").await;
    assert!(
        head.starts_with("HTTP/1.1 503") && body.contains(words),
        "{body}"
    );
    let mut client = QueryClient::new(channel(relay.at.feed).await);
    let told = client.status(StatusRequest {}).await.expect("a status");
    let told = told.into_inner();
    assert_eq!(told.journal.expect("a journal").state, "refusing");
    let page = page_when(&relay, "the sink has everything", |page| {
        page.sink("archive", "pending") == 0
    })
    .await;
    assert_eq!(page.sink("archive", "delivered_total"), 10);
    assert_eq!(page.get("cresset_journal_writable"), 0);
    assert_eq!(page.get("cresset_journal_refusals_total"), 1);
    assert_eq!(
        (page.door("link", "refused"), page.door("import", "refused")),
        (10, 1)
    );
    assert_eq!(history(&relay).await, (vec![], 10));

    // Nobody sends: the relay itself finds out that it is over, and says so once.
    disk.set(Mood::Works);
    let page = page_when(&relay, "it heals", |page| page.get("cresset_ready") == 1).await;
    assert_eq!(page.get("cresset_journal_refusals_total"), 1);
    let (messages, events) = history(&relay).await;
    assert_eq!((messages.len(), events), (1, 10), "{messages:?}");
    assert!(messages[0].contains("takes events again"), "{messages:?}");
    let (mut sensor, _) = relay.welcomed("a").await;
    sensor.batch(11, 10).await;
    assert_eq!(sensor.ack().await.up_to, 20);
    assert_eq!(import(&relay).await.expect("taken"), 1);
    assert_eq!(history(&relay).await.1, 21);
    assert_eq!(relay.page().await.check_at_rest(), Ok(()));
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_by_name_and_heals_without_anybody_sending() {
    refuses_and_heals(Mood::Full, "no space left").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_disk_refuses_by_name_and_heals_without_anybody_sending() {
    refuses_and_heals(Mood::Broken, "Input/output error").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_answers_nothing_makes_the_relay_unready_until_it_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let (relay, disk) = relay(folder.path()).await;
    let (mut sensor, _) = relay.welcomed("a").await;
    disk.set(Mood::Hangs(0));
    sensor.batch(1, 10).await;
    relay.metric_is("cresset_ready", 0.0).await;
    let (head, body) = relay.get("/readyz").await;
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    assert!(body.contains("the disk hangs"), "{body}");
    disk.set(Mood::Works);
    assert_eq!(sensor.ack().await.up_to, 10);
    relay.metric_is("cresset_ready", 1.0).await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_is_down_is_told_of_and_makes_nothing_unready() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("file"), "in the way").expect("written");
    let sinks = format!(
        "sinks: {{lost: {{type: file, path: {}, start: beginning}}}}",
        folder.path().join("file/events").display()
    );
    let relay = Relay::with(settings(folder.path(), &sinks)).await;
    let (mut sensor, _) = relay.welcomed("a").await;
    sensor.batch(1, 10).await;
    assert_eq!(sensor.ack().await.up_to, 10);
    let page = page_when(&relay, "the sink is down", |page| {
        page.sink("lost", "up") == 0
    })
    .await;
    assert_eq!(page.get("cresset_ready"), 1);
    let (head, body) = relay.get("/readyz").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let told: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(told["ready"], true);
    assert_eq!(told["sinks"]["lost"]["state"], "retrying", "{body}");
    assert_eq!(told["sinks"]["lost"]["pending"], 10, "{body}");
    assert!(
        told["sinks"]["lost"]["last_error"]
            .as_str()
            .is_some_and(|why| !why.is_empty()),
        "{body}"
    );
    relay.stop().await;
}
