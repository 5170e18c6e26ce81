//! Relay of relays: what one relay forwards to another by its `relay` sink.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod support;

use std::path::Path;

use bytes::Bytes;
use proto::EventId;
use proto::query::WatchRequest;
use proto::query::query_client::QueryClient;
use proto::query::watch_reply::Is;
use support::{Relay, SOON, STREAM, channel, settings};
use tokio::time::timeout;

/// A relay of a cluster that forwards everything to `upstream`.
async fn forwarding(folder: &Path, upstream: &Relay) -> Relay {
    let sink = format!(
        "sinks:\n  up: {{type: relay, url: \"http://{}\", name: eu, start: beginning, retry: {{initial: 20ms, max: 200ms}}}}\n",
        upstream.at.link
    );
    Relay::with(settings(folder, &sink)).await
}

/// The ids and bytes of all events that a relay has.
async fn kept(relay: &Relay) -> Vec<(EventId, Bytes)> {
    let mut client = QueryClient::new(channel(relay.at.feed).await);
    let request = WatchRequest {
        since_ns: 1,
        ..Default::default()
    };
    let mut replies = client.watch(request).await.expect("a stream").into_inner();
    let mut events = Vec::new();
    while let Some(reply) = timeout(SOON, replies.message())
        .await
        .expect("in time")
        .expect("a reply")
    {
        if let Some(Is::Event(event)) = reply.is {
            events.push((
                EventId::try_from(&event.id[..]).expect("an id"),
                event.payload,
            ));
        }
    }
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn forwarded_events_keep_their_ids_and_bytes_and_count_once_whichever_way_they_come() {
    let folders = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let upstream = Relay::start(folders[0].path()).await;
    let cluster = forwarding(folders[1].path(), &upstream).await;
    let (mut sensor, _) = cluster.welcomed("node-a").await;
    sensor.batch(1, 300).await;
    assert_eq!(sensor.ack().await.up_to, 300);
    // With a gap, as a filter leaves one.
    sensor.batch(401, 100).await;
    assert_eq!(sensor.ack().await.up_to, 500);
    let delivered = r#"cresset_sink_delivered_total{sink="up",type="relay"}"#;
    cluster.metric_is(delivered, 400.0).await;

    // The same sensor reaches the upstream relay by itself, too.
    let (mut direct, _) = upstream.welcomed("node-a").await;
    direct.batch(1, 500).await;
    assert_eq!(direct.ack().await.up_to, 500);

    let (here, mut there) = (kept(&cluster).await, kept(&upstream).await);
    assert_eq!((here.len(), there.len()), (400, 500));
    assert!(here.iter().all(|event| there.contains(event)));
    there.sort();
    let ids: Vec<EventId> = (1..=500)
        .map(|sequence| EventId {
            stream: STREAM,
            sequence,
        })
        .collect();
    assert!(there.iter().map(|(id, _)| *id).eq(ids));
    cluster.stop().await;
    upstream.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_relay_that_is_away_gets_everything_when_it_comes_back() {
    let folders = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let upstream = Relay::start(folders[0].path()).await;
    let link = upstream.at.link;
    let cluster = forwarding(folders[1].path(), &upstream).await;
    let (mut sensor, _) = cluster.welcomed("node-a").await;
    sensor.batch(1, 50).await;
    assert_eq!(sensor.ack().await.up_to, 50);
    let delivered = r#"cresset_sink_delivered_total{sink="up",type="relay"}"#;
    cluster.metric_is(delivered, 50.0).await;
    upstream.stop().await;

    sensor.batch(51, 50).await;
    assert_eq!(sensor.ack().await.up_to, 100);
    let mut config = settings(folders[0].path(), "");
    config.relay.listen.link = relay::Listen::loopback(link.port());
    let upstream = Relay::with(config).await;
    cluster.metric_is(delivered, 100.0).await;
    let kept = kept(&upstream).await;
    assert_eq!(kept.len(), 100);
    cluster.stop().await;
    upstream.stop().await;
}
