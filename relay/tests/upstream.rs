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
use proto::query::query_client::QueryClient;
use proto::query::watch_reply::Is;
use proto::query::{PoliciesStatus, StatusRequest, WatchRequest};
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

/// A policy that blocks a program in the namespace `shop`.
fn policy(name: &str, path: &str) -> String {
    format!(
        "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  selector: {{matchLabels: {{app: web}}}}\n  process: {{matchPaths: [{{path: {path}}}]}}\n  action: Block\n"
    )
}

fn with_folder(mut config: relay::Config, policies: &Path) -> relay::Config {
    config.policies.sources = vec![relay::PolicySource {
        kind: relay::PolicySourceKind::Folder,
        path: policies.to_owned(),
        branch: None,
    }];
    config
}

/// A relay below that takes up the policies of the one at `link`.
async fn below(folder: &Path, link: std::net::SocketAddr, policies: &Path) -> Relay {
    let sink = format!(
        "sinks: {{up: {{type: relay, url: \"http://{link}\", name: eu, policies: true}}}}\n"
    );
    Relay::with(with_folder(settings(folder, &sink), policies)).await
}

async fn policies(relay: &Relay) -> PoliciesStatus {
    let mut client = QueryClient::new(channel(relay.at.feed).await);
    let status = client.status(StatusRequest {}).await.expect("a status");
    status.into_inner().policies.expect("policies")
}

async fn policies_when(
    relay: &Relay,
    what: &str,
    fits: impl Fn(&PoliciesStatus) -> bool,
) -> PoliciesStatus {
    let deadline = std::time::Instant::now() + SOON;
    loop {
        let now = policies(relay).await;
        if fits(&now) {
            return now;
        }
        assert!(std::time::Instant::now() < deadline, "{what}: {now:#?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

fn names(status: &PoliciesStatus) -> Vec<&str> {
    status
        .policies
        .iter()
        .map(|policy| policy.name.as_str())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_flow_down_to_the_sensors_below_and_outlive_a_broken_link() {
    let folders = [(); 4].map(|()| tempfile::tempdir().expect("a folder"));
    let [up, down, ups, downs] = folders.each_ref().map(tempfile::TempDir::path);
    std::fs::write(ups.join("curl.yaml"), policy("curl", "/bin/curl")).expect("written");
    std::fs::write(downs.join("own.yaml"), policy("own", "/bin/own")).expect("written");
    let upper = Relay::with(with_folder(settings(up, ""), ups)).await;
    let link = upper.at.link;
    let lower = below(down, link, downs).await;
    let both = policies_when(&lower, "both", |now| names(now) == ["curl", "own"]).await;
    let from = |name: &str| {
        let found = both.policies.iter().find(|policy| policy.name == name);
        found.expect("a policy").file.clone()
    };
    assert_eq!(
        from("curl"),
        format!("relay up: {}", ups.join("curl.yaml").display())
    );
    assert_eq!(from("own"), downs.join("own.yaml").display().to_string());
    assert!(both.current && both.source.contains("relay up"), "{both:?}");

    // A sensor below gets both in one set.
    let (mut sensor, _) = lower.welcomed("node-a").await;
    sensor.batch(1, 1).await;
    assert_eq!(sensor.ack().await.up_to, 1);
    while !sensor.skipped.iter().any(|part| part.commit) {
        sensor.batch(2, 1).await;
        sensor.ack().await;
    }
    let blobs: usize = sensor.skipped.iter().map(|part| part.blobs.len()).sum();
    assert_eq!(blobs, 2);
    drop(sensor);

    // An edit above is in force below; a policy that both have is told, and the last good set stays.
    std::fs::write(ups.join("wget.yaml"), policy("wget", "/bin/wget")).expect("written");
    policies_when(&lower, "an edit", |now| {
        names(now) == ["curl", "own", "wget"]
    })
    .await;
    std::fs::write(downs.join("twice.yaml"), policy("wget", "/bin/other")).expect("written");
    let twice = policies_when(&lower, "a conflict", |now| !now.current).await;
    assert_eq!(names(&twice), ["curl", "own", "wget"]);
    let told = twice
        .problems
        .iter()
        .find(|problem| !problem.warning)
        .expect("an error");
    assert!(told.file.starts_with("relay up: "), "{told:?}");
    assert!(told.message.contains("twice.yaml too"), "{told:?}");
    std::fs::remove_file(downs.join("twice.yaml")).expect("removed");
    policies_when(&lower, "mended", |now| now.current).await;

    // The link breaks: what was heard stays, also in the next life, and it is told.
    upper.stop().await;
    let away = |now: &PoliciesStatus| {
        let problems = now.problems.iter();
        problems
            .filter(|problem| problem.warning)
            .any(|problem| problem.message.contains("not heard"))
    };
    let alone = policies_when(&lower, "told", away).await;
    assert_eq!(names(&alone), ["curl", "own", "wget"]);
    lower.stop().await;
    let lower = below(down, link, downs).await;
    let alone = policies_when(&lower, "told again", away).await;
    assert_eq!(names(&alone), ["curl", "own", "wget"]);

    // It comes back with one less.
    std::fs::remove_file(ups.join("curl.yaml")).expect("removed");
    let mut config = with_folder(settings(up, ""), ups);
    config.relay.listen.link = relay::Listen::loopback(link.port());
    let upper = Relay::with(config).await;
    let back = policies_when(&lower, "back", |now| names(now) == ["own", "wget"]).await;
    assert!(back.problems.is_empty(), "{back:?}");
    lower.stop().await;
    upper.stop().await;
}
