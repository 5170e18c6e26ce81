//! `feeder.LogService` as KubeArmor's clients meet it: over a real socket and a real journal.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod readers;

use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use futures::StreamExt;
use proto::feeder::log_service_client::LogServiceClient;
use proto::feeder::{NonceMessage, RequestMessage};
use proto::query::WatchRequest;
use readers::{Feed, alert, log, message, number, silent, soon};
use relay::feed;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

fn word(filter: &str) -> RequestMessage {
    RequestMessage {
        filter: filter.to_owned(),
    }
}

fn lagging(max_lag: Duration) -> feed::Config {
    feed::Config {
        max_lag,
        ..Default::default()
    }
}

#[tokio::test]
async fn health_check_echoes_the_nonce() {
    let feed = Feed::start().await;
    let reply = soon(
        feed.feeder()
            .await
            .health_check(NonceMessage { nonce: -77 }),
    )
    .await
    .expect("a reply");
    assert_eq!(reply.into_inner().retval, -77);
}

#[tokio::test]
async fn every_filter_word_gets_what_kubearmor_gives_it() {
    let feed = Feed::start().await;
    let words = ["all", "policy", "system", "", "ALL", "policy "];
    let (mut open, mut ended) = (Vec::new(), Vec::new());
    for filter in words {
        let mut client = feed.feeder().await;
        let mut alerts = soon(client.watch_alerts(word(filter)))
            .await
            .expect("a stream")
            .into_inner();
        if matches!(filter, "all" | "policy") {
            open.push(tokio::spawn(async move {
                alerts.message().await.map(|alert| alert.is_some())
            }));
        } else {
            ended.push(soon(alerts.message()).await.map(|alert| alert.is_none()));
        }
        let mut logs = soon(client.watch_logs(word(filter)))
            .await
            .expect("a stream")
            .into_inner();
        if matches!(filter, "all" | "system") {
            open.push(tokio::spawn(async move {
                logs.message().await.map(|log| log.is_some())
            }));
        } else {
            ended.push(soon(logs.message()).await.map(|log| log.is_none()));
        }
        let mut messages = soon(client.watch_messages(word(filter)))
            .await
            .expect("a stream")
            .into_inner();
        open.push(tokio::spawn(async move {
            messages.message().await.map(|message| message.is_some())
        }));
    }
    assert_eq!((open.len(), ended.len()), (10, 8));
    assert!(
        ended.into_iter().all(|ended| ended.expect("status OK")),
        "an end at once, and nothing before it"
    );
    feed.clients(10).await;
    feed.append(vec![alert(1), log(2, 10), message(3)]).await;
    for stream in open {
        assert!(
            soon(stream).await.expect("no panic").expect("status OK"),
            "an event"
        );
    }
}

#[tokio::test]
async fn an_unknown_method_is_unimplemented_and_a_broken_request_ends_only_its_call() {
    let feed = Feed::start().await;
    let mut grpc = tonic::client::Grpc::new(feed.channel().await);
    grpc.ready().await.expect("ready");
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/feeder.LogService/WatchAll");
    let answer = grpc
        .unary(
            tonic::Request::new(word("")),
            path,
            ProstCodec::<_, RequestMessage>::default(),
        )
        .await;
    assert_eq!(answer.expect_err("refused").code(), Code::Unimplemented);
    let path =
        tonic::codegen::http::uri::PathAndQuery::from_static("/feeder.LogService/WatchAlerts");
    grpc.ready().await.expect("ready");
    let garbage = tonic::Request::new(vec![0x0a_u8, 0xff]);
    let answer = grpc.unary(garbage, path, Raw).await;
    assert!(answer.is_err());
    let reply = soon(feed.feeder().await.health_check(NonceMessage { nonce: 1 })).await;
    assert_eq!(reply.expect("still served").into_inner().retval, 1);
}

#[tokio::test]
async fn a_subscriber_gets_what_happens_and_nothing_of_what_happened() {
    let feed = Feed::start().await;
    feed.append(vec![alert(1), alert(2)]).await;
    let mut alerts = feed
        .feeder()
        .await
        .watch_alerts(word("policy"))
        .await
        .expect("a stream")
        .into_inner();
    feed.clients(1).await;
    silent(alerts.message()).await;
    feed.append(vec![log(3, 10), alert(4)]).await;
    // The cancelled wait above took nothing out of the stream.
    let mut late = feed
        .feeder()
        .await
        .watch_alerts(word("all"))
        .await
        .expect("a stream")
        .into_inner();
    feed.clients(2).await;
    feed.append(vec![alert(5)]).await;
    let next = async |stream: &mut tonic::Streaming<proto::feeder::Alert>| {
        number(
            &soon(stream.message())
                .await
                .expect("no error")
                .expect("an alert")
                .event_id,
        )
    };
    assert_eq!((next(&mut alerts).await, next(&mut alerts).await), (4, 5));
    assert_eq!(next(&mut late).await, 5);
    assert_eq!(feed.metric("cresset_feed_sent_total", "alert"), 3.0);
}

/// Sends bytes as they are and returns them as they came.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
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
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(
        &mut self,
        item: Vec<u8>,
        out: &mut tonic::codec::EncodeBuf<'_>,
    ) -> Result<(), Status> {
        bytes::BufMut::put_slice(out, &item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

#[tokio::test]
async fn what_leaves_is_the_journals_bytes_and_the_id_behind_them() {
    let feed = Feed::start().await;
    let mut grpc = tonic::client::Grpc::new(feed.channel().await);
    grpc.ready().await.expect("ready");
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/feeder.LogService/WatchLogs");
    let request = tonic::Request::new(b"\x0a\x03all".to_vec());
    let logs = grpc
        .server_streaming(request, path, Raw)
        .await
        .expect("a stream")
        .into_inner();
    feed.clients(1).await;
    // A field that nobody knows, out of order and twice, must come through as it is.
    let mut odd = log(2, 3);
    odd.payload = [&odd.payload[..], b"\xb8\x3e\x07\x08\x01\xb8\x3e\x08"]
        .concat()
        .into();
    let events = [log(1, 3), odd, log(3, 100_000)];
    feed.append(events.to_vec()).await;
    let came: Vec<Bytes> = soon(logs.take(3).map(|log| log.expect("no error")).collect()).await;
    for (came, event) in came.iter().zip(&events) {
        let (payload, id) = came.split_at(event.payload.len());
        assert_eq!(payload, &event.payload[..]);
        assert_eq!(id, [&[0xa2, 0x06, 16][..], &event.id.to_bytes()].concat());
    }
    assert_eq!(came.len(), 3);
}

#[tokio::test]
async fn a_slow_client_misses_nothing_within_max_lag_and_slows_nobody() {
    const EVENTS: u64 = 12_000;
    let feed = Feed::start().await;
    let mut slow = feed
        .feeder()
        .await
        .watch_logs(word("all"))
        .await
        .expect("a stream")
        .into_inner();
    let mut quick = feed
        .feeder()
        .await
        .watch_logs(word("all"))
        .await
        .expect("a stream")
        .into_inner();
    feed.clients(2).await;
    // 24 MB: more than the ring and what HTTP/2 buffers for a client that does not read.
    let reading = tokio::spawn(async move {
        for expected in 1..=EVENTS {
            let log = quick.message().await.expect("no error").expect("a log");
            assert_eq!(number(&log.event_id), expected);
        }
    });
    for first in (1..=EVENTS).step_by(1000) {
        feed.append(
            (first..first + 1000)
                .map(|number| log(number, 2000))
                .collect(),
        )
        .await;
    }
    soon(reading)
        .await
        .expect("the quick one gets all while the slow one reads nothing");
    for expected in 1..=EVENTS {
        let log = soon(slow.message())
            .await
            .expect("no error")
            .expect("a log");
        assert_eq!(number(&log.event_id), expected);
    }
    assert_eq!(feed.metric("cresset_feed_missed_total", "log"), 0.0);
}

#[tokio::test]
async fn a_client_beyond_max_lag_jumps_and_is_told_exactly_how_many_it_missed() {
    const EVENTS: u64 = 12_000;
    let config = lagging(Duration::from_millis(300));
    let feed = Feed::with(config, Default::default(), |query| query).await;
    let mut client = feed.feeder().await;
    let mut logs = client
        .watch_logs(word("all"))
        .await
        .expect("a stream")
        .into_inner();
    let mut told = client
        .watch_messages(word(""))
        .await
        .expect("a stream")
        .into_inner();
    let mut stranger = feed
        .feeder()
        .await
        .watch_messages(word(""))
        .await
        .expect("a stream")
        .into_inner();
    feed.clients(3).await;
    for first in (1..=EVENTS).step_by(1000) {
        let logs = (first..first + 1000).map(|number| log(number, 2000));
        // Alerts in between are not what a reader of logs misses.
        feed.append(logs.chain([alert(first)]).collect()).await;
    }
    tokio::time::sleep(Duration::from_millis(400)).await;
    // Where the machine is busy it may lag more than once: whatever comes or is told must add up.
    let reading = async {
        let (mut got, mut last) = (0, 0);
        loop {
            let log = logs.message().await.expect("no error").expect("a log");
            match number(&log.event_id) {
                0 => return got,
                number => {
                    assert!(number > last, "{number} after {last}");
                    (got, last) = (got + 1, number);
                }
            }
        }
    };
    let appending = async {
        // What is fresh comes after the jump.
        eventually_missed(&feed).await;
        feed.append(vec![log(0, 1)]).await;
    };
    let (got, ()) = soon(futures::future::join(reading, appending)).await;
    let missed = EVENTS - got;
    assert!(got > 0 && missed > 0, "{got} came, {missed} were missed");
    let counted = feed.metric("cresset_feed_missed_total", "log");
    assert_eq!(counted, missed as f64);
    let mut told_of = 0;
    while told_of < missed {
        let message = soon(told.message()).await.expect("no error");
        let message = message.expect("a message");
        let lost = message.lost.expect("a loss");
        assert_eq!((&*lost.r#where, &*lost.class), ("feed", "log"));
        assert_eq!((&*message.level, &*message.r#type), ("WARN", "Message"));
        assert!(message.message.contains(&lost.count.to_string()));
        told_of += lost.count;
    }
    assert_eq!(told_of, missed);
    silent(stranger.message()).await;
}

async fn eventually_missed(feed: &Feed) {
    readers::eventually("the client is found too slow", || {
        feed.metric("cresset_feed_missed_total", "log") > 0.0
    })
    .await;
}

#[tokio::test]
async fn a_client_that_waited_long_for_its_kind_is_not_behind() {
    let config = feed::Config {
        max_lag: Duration::from_secs(1),
        ring: 64 << 10,
        ..Default::default()
    };
    let feed = Feed::with(config, Default::default(), |query| query).await;
    let mut alerts = feed
        .feeder()
        .await
        .watch_alerts(word("all"))
        .await
        .expect("a stream")
        .into_inner();
    let mut logs = feed
        .feeder()
        .await
        .watch_logs(word("all"))
        .await
        .expect("a stream")
        .into_inner();
    feed.clients(2).await;
    // Far more logs than the ring holds go by, over more than max_lag.
    for first in (0..2000).step_by(500) {
        feed.append(
            (first + 1..=first + 500)
                .map(|number| log(number, 1000))
                .collect(),
        )
        .await;
        for _ in 0..500 {
            soon(logs.message())
                .await
                .expect("no error")
                .expect("a log");
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    feed.append(vec![alert(7)]).await;
    let alert = soon(alerts.message())
        .await
        .expect("no error")
        .expect("an alert");
    assert_eq!(number(&alert.event_id), 7);
    assert_eq!(feed.metric("cresset_feed_missed_total", "alert"), 0.0);
}

#[tokio::test]
async fn a_thousand_idle_clients_are_held_open_and_each_gets_the_next_event() {
    let feed = Feed::start().await;
    let mut streams = Vec::new();
    for _ in 0..50 {
        let mut client = feed.feeder().await;
        for _ in 0..20 {
            streams.push(
                client
                    .watch_alerts(word("policy"))
                    .await
                    .expect("a stream")
                    .into_inner(),
            );
        }
    }
    feed.clients(1000).await;
    let began = Instant::now();
    feed.append(vec![alert(1)]).await;
    let firsts = streams.iter_mut().map(|stream| async {
        number(
            &stream
                .message()
                .await
                .expect("no error")
                .expect("an alert")
                .event_id,
        )
    });
    let firsts: Vec<u64> = soon(futures::future::join_all(firsts)).await;
    assert_eq!(firsts, vec![1; 1000]);
    println!("1,000 clients had the event after {:?}", began.elapsed());
    drop(streams);
    feed.clients(0).await;
}

#[tokio::test]
async fn readers_that_come_and_go_find_the_live_end_again() {
    let feed = Feed::start().await;
    let mut client = feed.feeder().await;
    for round in 1..=50 {
        let mut alerts = client
            .watch_alerts(word("all"))
            .await
            .expect("a stream")
            .into_inner();
        feed.clients(1).await;
        feed.append(vec![alert(round)]).await;
        let alert = soon(alerts.message())
            .await
            .expect("no error")
            .expect("an alert");
        assert_eq!(number(&alert.event_id), round);
        drop(alerts);
        feed.clients(0).await;
        feed.append(vec![alert_nobody_sees()]).await;
    }
}

fn alert_nobody_sees() -> proto::Event {
    alert(0)
}

#[tokio::test]
async fn a_stopping_relay_ends_its_streams_with_unavailable() {
    let feed = Feed::start().await;
    let mut alerts = feed
        .feeder()
        .await
        .watch_alerts(word("all"))
        .await
        .expect("a stream")
        .into_inner();
    feed.clients(1).await;
    feed.tail.stop();
    let end = soon(alerts.message())
        .await
        .expect_err("an end that is not OK");
    assert_eq!(end.code(), Code::Unavailable);
}

#[tokio::test]
async fn health_and_reflection_know_the_services() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    let feed = Feed::start().await;
    let mut health = HealthClient::new(feed.channel().await);
    for service in ["", "feeder.LogService", "cresset.query.v1.Query"] {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        let status = soon(health.check(request))
            .await
            .expect("known")
            .into_inner()
            .status;
        assert_eq!(status, 1, "{service:?} is not serving");
    }
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(feed.channel().await);
    let mut answers = soon(reflection.server_reflection_info(futures::stream::iter([request])))
        .await
        .expect("a stream")
        .into_inner();
    let answer = soon(answers.message())
        .await
        .expect("no error")
        .expect("an answer");
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("not a list: {answer:?}");
    };
    let mut names: Vec<String> = list
        .service
        .into_iter()
        .map(|service| service.name)
        .collect();
    names.sort();
    // All that a relay's feed answers, and nothing that it does not: no link, none of KubeArmor's policy service.
    assert_eq!(
        names,
        [
            "cresset.policies.v1.Policies",
            "cresset.query.v1.Query",
            "feeder.LogService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
        ]
    );
}

#[tokio::test]
async fn a_client_that_pings_all_the_time_is_never_sent_away() {
    let feed = Feed::start().await;
    let endpoint = Channel::from_shared(format!("http://{}", feed.address))
        .expect("an address")
        .http2_keep_alive_interval(Duration::from_millis(5))
        .keep_alive_while_idle(true);
    let channel = endpoint.connect().await.expect("connected");
    let mut client = LogServiceClient::new(channel);
    let mut alerts = client
        .watch_alerts(word("all"))
        .await
        .expect("a stream")
        .into_inner();
    feed.clients(1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    feed.append(vec![alert(1)]).await;
    let alert = soon(alerts.message()).await.expect("no GOAWAY");
    assert_eq!(number(&alert.expect("an alert").event_id), 1);
}

#[tokio::test]
async fn more_readers_than_may_be_are_refused_until_one_goes() {
    let config = feed::Config {
        max_clients: 2,
        ..Default::default()
    };
    let feed = Feed::with(config, Default::default(), |query| query).await;
    let mut client = feed.feeder().await;
    let first = client.watch_alerts(word("all")).await.expect("a stream");
    let live = WatchRequest {
        follow: true,
        ..Default::default()
    };
    let _second = feed
        .query()
        .await
        .watch(live.clone())
        .await
        .expect("a stream");
    let refused = client.watch_logs(word("all")).await.expect_err("refused");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let refused = feed.query().await.watch(live).await.expect_err("refused");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    drop(first);
    feed.clients(1).await;
    client.watch_logs(word("all")).await.expect("a stream");
}
