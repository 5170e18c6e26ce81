//! The whole relay as sensors meet it, good ones and bad ones.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod support;

use std::time::Duration;

use bytes::Bytes;
use proto::link::from_relay::Is as Reply;
use proto::link::from_sensor::Is as Say;
use proto::link::stream_state::Is as Known;
use proto::query::query_client::QueryClient;
use proto::query::{StatusRequest, WatchRequest};
use proto::{EventId, MAX_EVENT, StreamId, link};
use support::{Relay, SOON, STREAM, alert, channel, hello, settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::Code;

fn received(welcome: &link::Welcome) -> Vec<(u64, u64)> {
    match &welcome.streams[0].is {
        Some(Known::Received(ranges)) => ranges
            .ranges
            .iter()
            .map(|range| (range.first, range.end))
            .collect(),
        Some(Known::Unknown(true)) => Vec::new(),
        other => panic!("{other:?}"),
    }
}

/// The sequences of all events that the relay has, in order.
async fn history(relay: &Relay) -> Vec<u64> {
    let mut client = QueryClient::new(channel(relay.at.feed).await);
    let request = WatchRequest {
        since_ns: 1,
        ..Default::default()
    };
    let mut replies = client.watch(request).await.expect("a stream").into_inner();
    let mut sequences = Vec::new();
    while let Some(reply) = timeout(SOON, replies.message())
        .await
        .expect("in time")
        .expect("a reply")
    {
        if let Some(proto::query::watch_reply::Is::Event(event)) = reply.is {
            sequences.push(EventId::try_from(&event.id[..]).expect("an id").sequence);
        }
    }
    sequences
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_a_restart_and_only_the_rest_is_taken() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = Relay::start(folder.path()).await;
    let (mut sensor, welcome) = relay.welcomed("a").await;
    assert_eq!(received(&welcome), []);
    sensor.batch(1, 10).await;
    assert_eq!(sensor.ack().await.up_to, 10);
    sensor.batch(21, 5).await;
    assert_eq!(sensor.ack().await.up_to, 25);
    relay.stop().await;

    let relay = Relay::start(folder.path()).await;
    let (mut sensor, again) = relay.welcomed("a").await;
    assert_eq!(again.relay, welcome.relay, "the relay is the same one");
    assert_eq!(received(&again), [(1, 11), (21, 26)]);
    sensor.batch(1, 30).await;
    assert_eq!(sensor.ack().await.up_to, 30);
    relay
        .metric_is(
            r#"cresset_ingest_events_total{door="link",outcome="duplicate"}"#,
            15.0,
        )
        .await;
    relay
        .metric_is(
            r#"cresset_ingest_events_total{door="link",outcome="acknowledged"}"#,
            15.0,
        )
        .await;
    let mut sequences = history(&relay).await;
    sequences.sort_unstable();
    assert_eq!(sequences, (1..=30).collect::<Vec<_>>());
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_event_is_rejected_by_its_number_and_the_rest_is_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = Relay::start(folder.path()).await;
    let (mut sensor, _) = relay.welcomed("a").await;
    let with_id = {
        // Field 100, which only a relay writes: key 0xa2 0x06, 16 bytes.
        let mut payload = vec![0xa2, 0x06, 16];
        payload.extend([7; 16]);
        proto::batch::join(proto::Kind::Alert, &payload)
    };
    let too_large = proto::batch::join(proto::Kind::Log, &vec![0; MAX_EVENT + 1]);
    let broken = Bytes::from_static(&[0x08, 0x01, 0x12, 0x01, 0xff]);
    sensor
        .events(
            1,
            vec![alert(1), with_id, alert(3), broken, too_large, alert(6)],
        )
        .await;
    let ack = sensor.ack().await;
    assert_eq!(ack.up_to, 6);
    assert_eq!(
        ack.rejected
            .iter()
            .map(|rejected| rejected.sequence)
            .collect::<Vec<_>>(),
        [2, 4, 5]
    );
    assert!(
        ack.rejected[0].reason.contains("field 100"),
        "{:?}",
        ack.rejected[0]
    );
    assert_eq!(history(&relay).await, [1, 3, 6]);
    relay
        .metric_is(
            r#"cresset_ingest_events_total{door="link",outcome="rejected"}"#,
            3.0,
        )
        .await;
    let page = relay.page().await;
    assert_eq!(page.check_at_rest(), Ok(()));
    let lost = r#"cresset_lost_events_total{class="rejected",where="link"}"#;
    assert_eq!(page.get(lost), 3);
    assert_eq!(
        (
            page.door("link", "acknowledged"),
            page.door("link", "rejected")
        ),
        (3, 3)
    );
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversize_or_misframed_batch_ends_its_own_session_with_the_reason_and_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = Relay::start(folder.path()).await;
    let (mut good, _) = relay.welcomed("good").await;

    let (mut large, _) = relay.welcomed("large").await;
    large.events(1, vec![Bytes::from(vec![0; 5 << 20])]).await;
    let status = large.end().await;
    assert_eq!(status.code(), Code::OutOfRange);
    assert!(status.message().contains("limit"), "{status}");

    for (name, batch) in [
        (
            "no-stream",
            link::Batch {
                stream: Bytes::from_static(b"abc"),
                first: 1,
                events: vec![alert(1)],
            },
        ),
        (
            "zero",
            link::Batch {
                stream: STREAM.0.to_vec().into(),
                first: 0,
                events: vec![alert(1)],
            },
        ),
        (
            "end",
            link::Batch {
                stream: STREAM.0.to_vec().into(),
                first: u64::MAX,
                events: vec![alert(1), alert(2)],
            },
        ),
        (
            "many",
            link::Batch {
                stream: STREAM.0.to_vec().into(),
                first: 1,
                events: vec![Bytes::new(); 70_000],
            },
        ),
    ] {
        let (mut sensor, _) = relay.welcomed(name).await;
        sensor.say(Say::Batch(batch)).await;
        let status = sensor.end().await;
        assert_eq!(status.code(), Code::InvalidArgument, "{name}: {status}");
    }
    relay
        .metric_is(
            r#"cresset_link_sessions_ended_total{reason="bad_batch"}"#,
            3.0,
        )
        .await;
    relay
        .metric_is(
            r#"cresset_link_sessions_ended_total{reason="bad_message"}"#,
            2.0,
        )
        .await;

    good.batch(1, 2).await;
    assert_eq!(good.ack().await.up_to, 2);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_a_port_moves_a_counter_and_nobody_else_notices() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = Relay::start(folder.path()).await;
    let (mut good, _) = relay.welcomed("good").await;
    for address in [relay.at.link, relay.at.feed] {
        for garbage in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[0xff; 4096]] {
            let mut stream = TcpStream::connect(address).await.expect("connected");
            stream.write_all(garbage).await.expect("written");
            let mut answer = Vec::new();
            // Closed, be it with a reset.
            let _ = timeout(SOON, stream.read_to_end(&mut answer))
                .await
                .expect("closed in time");
        }
    }
    for listener in ["link", "feed"] {
        let line = format!(
            r#"cresset_connection_failures_total{{listener="{listener}",reason="protocol"}}"#
        );
        relay.metric_is(&line, 2.0).await;
    }
    good.batch(1, 2).await;
    assert_eq!(good.ack().await.up_to, 2);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_session_with_one_id_is_refused_loudly_and_the_first_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = Relay::start(folder.path()).await;
    let (mut first, _) = relay.welcomed("twin").await;
    let (_, refused) = relay.sensor("twin").await;
    let status = refused.expect_err("refused");
    assert_eq!(status.code(), Code::AlreadyExists);
    assert!(status.message().contains("twin"), "{status}");
    relay
        .metric_is(
            r#"cresset_link_sessions_ended_total{reason="second_session"}"#,
            1.0,
        )
        .await;
    first.batch(1, 1).await;
    assert_eq!(first.ack().await.up_to, 1);
    drop(first);
    relay
        .metric_is(r#"cresset_sensors{state="away"}"#, 1.0)
        .await;
    relay.welcomed("twin").await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_sensors_at_once_lose_nothing_and_each_hears_its_own_acks() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = Relay::start(folder.path()).await;
    let mut sensors = tokio::task::JoinSet::new();
    for n in 1..=8u8 {
        let mut sensor = relay.connect().await;
        sensors.spawn(async move {
            let stream = StreamId([n; 8]);
            sensor.say(Say::Hello(hello(&format!("sensor-{n}")))).await;
            assert!(matches!(
                sensor.hear().await.expect("welcome").is,
                Some(Reply::Welcome(_))
            ));
            for batch in 0..20u64 {
                let events = (0..50).map(alert).collect();
                let first = 1 + 50 * batch;
                sensor
                    .say(Say::Batch(link::Batch {
                        stream: stream.0.to_vec().into(),
                        first,
                        events,
                    }))
                    .await;
            }
            let mut up_to = 0;
            while up_to < 1000 {
                let ack = sensor.ack().await;
                assert_eq!(ack.stream, stream.0.to_vec());
                assert!(ack.up_to > up_to, "in order");
                up_to = ack.up_to;
            }
        });
    }
    while let Some(sensor) = sensors.join_next().await {
        sensor.expect("a sensor got its answers");
    }
    assert_eq!(history(&relay).await.len(), 8000);
    relay
        .metric_is("cresset_journal_next_sequence", 8001.0)
        .await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_reach_the_sensor_and_its_answer_reaches_status() {
    let folder = tempfile::tempdir().expect("a folder");
    let policies = folder.path().join("policies");
    std::fs::create_dir(&policies).expect("a folder");
    let policy = "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata: {name: block-sleep, namespace: shop}\n\
        spec: {selector: {matchLabels: {app: web}}, process: {matchPaths: [{path: /bin/sleep}]}, action: Block, severity: 5}\n";
    std::fs::write(policies.join("p.yaml"), policy).expect("written");
    let mut config = settings(folder.path(), "");
    config.policies.sources = vec![relay::PolicySource {
        kind: relay::PolicySourceKind::Folder,
        path: policies.clone(),
        branch: None,
    }];
    let relay = Relay::with(config).await;
    let (mut sensor, _) = relay.welcomed("a").await;
    let rules = rules(&mut sensor).await;
    let manifest = rules.manifest.expect("a manifest");
    assert!(rules.commit);
    assert_eq!(rules.blobs.len(), 1);
    let problems = vec![link::RuleProblem {
        policy: "shop/block-sleep".to_owned(),
        ..Default::default()
    }];
    sensor
        .say(Say::RuleStatus(link::RuleStatus {
            digest: manifest.digest.clone().into(),
            applied: true,
            problems,
        }))
        .await;
    let workloads = vec![link::Workload {
        pod: "web".to_owned(),
        ..Default::default()
    }];
    let counters = [("lost_ring_telemetry".to_owned(), 3)].into();
    sensor
        .say(Say::Health(link::Health {
            counters,
            workloads,
            off: None,
        }))
        .await;
    relay
        .metric_is(
            r#"cresset_lost_events_total{class="telemetry",where="sensor ring"}"#,
            3.0,
        )
        .await;
    relay
        .metric_is("cresset_sensors_rules_not_applied", 0.0)
        .await;

    let mut client = QueryClient::new(channel(relay.at.feed).await);
    let status = client
        .status(StatusRequest {})
        .await
        .expect("a status")
        .into_inner();
    let told = &status.sensors[0];
    assert_eq!(
        (&*told.sensor, told.connected, told.rules_applied),
        ("a", true, true)
    );
    assert_eq!(told.rules, manifest.digest);
    assert_eq!((told.problems.len(), told.workloads.len()), (1, 1));
    assert!(status.relay.expect("a relay").ready);
    drop(sensor);
    relay
        .metric_is(r#"cresset_sensors{state="connected"}"#, 0.0)
        .await;
    let status = client
        .status(StatusRequest {})
        .await
        .expect("a status")
        .into_inner();
    assert!(!status.sensors[0].connected && status.sensors[0].last_seen_unix > 0);
    relay.stop().await;
}

/// The next rules that come.
async fn rules(sensor: &mut support::Sensor) -> link::Rules {
    while sensor.skipped.is_empty() {
        if timeout(Duration::from_millis(50), sensor.hear())
            .await
            .is_ok()
        {
            panic!("only rules were expected");
        }
    }
    sensor.skipped.remove(0)
}

/// Bytes as they are, in place of messages.
#[derive(Clone, Copy)]
struct Raw;

impl tonic::codec::Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl tonic::codec::Encoder for Raw {
    type Item = Bytes;
    type Error = tonic::Status;

    fn encode(
        &mut self,
        item: Bytes,
        out: &mut tonic::codec::EncodeBuf<'_>,
    ) -> Result<(), tonic::Status> {
        bytes::BufMut::put(out, item);
        Ok(())
    }
}

impl tonic::codec::Decoder for Raw {
    type Item = Bytes;
    type Error = tonic::Status;

    fn decode(
        &mut self,
        from: &mut tonic::codec::DecodeBuf<'_>,
    ) -> Result<Option<Bytes>, tonic::Status> {
        let length = bytes::Buf::remaining(from);
        Ok(Some(bytes::Buf::copy_to_bytes(from, length)))
    }
}

/// The messages of a session as a sensor of some version once sent them, each behind its length.
fn frozen(version: u32) -> Vec<Bytes> {
    let file = format!(
        "{}/tests/fixtures/link/version-{version}.bin",
        env!("CARGO_MANIFEST_DIR")
    );
    let mut bytes = Bytes::from(std::fs::read(file).expect("a fixture"));
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let length = prost::decode_length_delimiter(&mut bytes).expect("a length");
        messages.push(bytes.split_to(length));
    }
    messages
}

#[tokio::test(flavor = "multi_thread")]
async fn sensors_of_neighbouring_versions_are_understood_byte_for_byte() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = Relay::start(folder.path()).await;
    for version in [1, 2] {
        let mut client = tonic::client::Grpc::new(channel(relay.at.link).await);
        client.ready().await.expect("ready");
        // The stream stays open, as a sensor's does.
        let messages = tokio_stream::iter(frozen(version));
        let messages = futures::StreamExt::chain(messages, futures::stream::pending());
        let path = "/cresset.link.v1.Link/Exchange".parse().expect("a path");
        let request = tonic::Request::new(messages);
        let answers = client
            .streaming(request, path, Raw)
            .await
            .expect("a session");
        let mut answers = answers.into_inner();
        let (mut welcomed, mut acknowledged) = (0, 0);
        while acknowledged == 0 {
            let answer = timeout(SOON, answers.message()).await.expect("in time");
            let bytes = answer.expect("an answer").expect("more");
            let answer: link::FromRelay = prost::Message::decode(bytes).expect("a message");
            match answer.is {
                Some(Reply::Welcome(welcome)) => welcomed = welcome.version,
                Some(Reply::Ack(ack)) => acknowledged = ack.up_to,
                _ => {}
            }
        }
        assert_eq!((welcomed, acknowledged), (1, 3), "version {version}");
    }
    assert_eq!(history(&relay).await, [1, 2, 3, 1, 2, 3]);
    relay.stop().await;
}
