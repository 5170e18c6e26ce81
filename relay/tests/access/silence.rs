//! Sensors that are not heard any more, and two machines with one id: told as events, in status and in metrics.

use std::path::Path;
use std::time::Duration;

use prost::Message as _;
use proto::feeder;
use proto::link::EventKind;
use proto::query::query_client::QueryClient;
use proto::query::watch_reply::Is;
use proto::query::{Filter, StatusRequest, WatchRequest};
use relay::Config;
use tonic::Code;

use crate::support::{Relay, SOON, channel, settings};

const SILENT: &str = r#"cresset_sensor_silent_since_timestamp_seconds{node="node-a",sensor="a"}"#;

fn impatient(folder: &Path) -> Config {
    let mut config = settings(folder, "");
    config.relay.sensors.silent_after = yaml::Span(Duration::from_secs(1));
    config
}

/// What the relay told so far.
async fn told(relay: &Relay) -> Vec<String> {
    let request = WatchRequest {
        filter: Some(Filter {
            kinds: vec![EventKind::Message.into()],
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut query = QueryClient::new(channel(relay.at.feed).await);
    let watched = query.watch(request).await.expect("a stream");
    let mut replies = watched.into_inner();
    let mut told = Vec::new();
    while let Some(reply) = replies.message().await.expect("a reply") {
        if let Some(Is::Event(event)) = reply.is {
            let message = feeder::Message::decode(event.payload).expect("a message");
            told.push(format!("{}: {}", message.level, message.message));
        }
    }
    told
}

async fn is_told(relay: &Relay, words: &str, times: usize) {
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        let told = told(relay).await;
        if told.iter().filter(|text| text.contains(words)).count() >= times {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{words}: {told:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sensor_that_goes_silent_is_missed_also_after_a_restart_until_it_is_heard_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = Relay::with(impatient(folder.path())).await;
    let (sensor, _) = relay.welcomed("a").await;
    drop(sensor);
    is_told(&relay, "WARN: sensor a (node node-a) is silent", 1).await;
    relay.metric_becomes(SILENT, |since| since > 0.0).await;
    relay.stop().await;
    let relay = Relay::with(impatient(folder.path())).await;
    is_told(&relay, "is silent", 2).await;
    let (_sensor, _) = relay.welcomed("a").await;
    is_told(&relay, "INFO: sensor a (node node-a) is heard again", 1).await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_machine_with_the_same_id_is_refused_and_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = Relay::start(folder.path()).await;
    let (mut sensor, _) = relay.welcomed("a").await;
    let (_second, refused) = relay.sensor("a").await;
    assert_eq!(refused.expect_err("refused").code(), Code::AlreadyExists);
    is_told(&relay, "a second machine, at 127.0.0.1:", 1).await;
    let mut query = QueryClient::new(channel(relay.at.feed).await);
    let status = query.status(StatusRequest {}).await.expect("a status");
    let sensors = status.into_inner().sensors;
    let [shown] = &sensors[..] else {
        panic!("one sensor was expected, not {sensors:?}");
    };
    assert!(shown.connected && shown.refused_sessions == 1);
    assert!(shown.refused_peer.starts_with("127.0.0.1:"));
    // The first one notices nothing.
    sensor.batch(1, 1).await;
    assert_eq!(sensor.ack().await.up_to, 1);
    relay.stop().await;
}
