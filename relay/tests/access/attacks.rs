//! What bad input gets: a status with the reason, or a closed connection that is counted; and whoever is there already
//! notices nothing.

use std::fs;
use std::net::SocketAddr;

use bytes::Bytes;
use proto::feeder::log_service_client::LogServiceClient;
use proto::feeder::{NonceMessage, RequestMessage};
use relay::App;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::codegen::http::{HeaderMap, Request};

use crate::roles::{SIEM, failures, with_certificates, with_tokens};
use crate::support::authority::{Authority, connect};
use crate::support::{Relay, SOON, Sensor, channel, settings};

/// A sensor and a reader that were there before.
struct Bystander {
    sensor: Sensor,
    next: u64,
    alerts: mpsc::Receiver<String>,
}

impl Bystander {
    async fn at(relay: &Relay) -> Bystander {
        let mut feed = LogServiceClient::new(channel(relay.at.feed).await);
        let (seen, alerts) = mpsc::channel(100);
        tokio::spawn(async move {
            let word = RequestMessage {
                filter: "all".to_owned(),
            };
            let Ok(watching) = feed.watch_alerts(word).await else {
                return;
            };
            let mut watching = watching.into_inner();
            while let Ok(Some(alert)) = watching.message().await {
                if seen.send(alert.pod_name).await.is_err() {
                    return;
                }
            }
        });
        relay
            .metric_becomes("cresset_feed_clients", |clients| clients >= 1.0)
            .await;
        let (sensor, _) = relay.welcomed("bystander").await;
        let mut bystander = Bystander {
            sensor,
            next: 1,
            alerts,
        };
        bystander.notices_nothing().await;
        bystander
    }

    /// An event goes all the way over the connections that were there before.
    async fn notices_nothing(&mut self) {
        let number = self.next;
        self.next += 1;
        self.sensor.batch(number, 1).await;
        assert_eq!(self.sensor.ack().await.up_to, number);
        let alert = timeout(SOON, self.alerts.recv()).await.expect("in time");
        assert_eq!(alert.as_deref(), Some(&format!("pod-{number}")[..]));
    }
}

/// A call by hand: its `grpc-status` and message; `body` follows the gRPC prefix.
async fn call(
    at: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    frame: Vec<u8>,
) -> (i32, String) {
    let tcp = TcpStream::connect(at).await.expect("connected");
    let (mut client, connection) = h2::client::handshake(tcp).await.expect("HTTP/2");
    tokio::spawn(connection);
    let mut request = Request::post(format!("http://relay{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(()).expect("a request");
    let (answer, mut body) = client.send_request(request, false).expect("sent");
    // What is refused at once is not read.
    let _ = body.send_data(Bytes::from(frame), false);
    let answer = timeout(SOON, answer)
        .await
        .expect("in time")
        .expect("an answer");
    if let Some(status) = status_of(answer.headers()) {
        return status;
    }
    let mut stream = answer.into_body();
    while let Some(part) = timeout(SOON, stream.data()).await.expect("in time") {
        let part = part.expect("data");
        stream
            .flow_control()
            .release_capacity(part.len())
            .expect("room");
    }
    let trailers = timeout(SOON, stream.trailers()).await.expect("in time");
    status_of(&trailers.expect("trailers").expect("some")).expect("a status")
}

fn status_of(headers: &HeaderMap) -> Option<(i32, String)> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let status = text("grpc-status")?.parse().ok()?;
    Some((status, text("grpc-message").unwrap_or_default().to_owned()))
}

const UNIMPLEMENTED: i32 = 12;
const INTERNAL: i32 = 13;
const OUT_OF_RANGE: i32 = 11;

const EXCHANGE: &str = "/cresset.link.v1.Link/Exchange";
const WATCH: &str = "/cresset.query.v1.Query/Watch";
const WATCH_ALERTS: &str = "/feeder.LogService/WatchAlerts";

#[tokio::test(flavor = "multi_thread")]
async fn compressed_messages_and_those_that_say_that_they_are_huge_are_refused_unread() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = Relay::start(folder.path()).await;
    let mut bystander = Bystander::at(&relay).await;
    // Ten bytes of gzip that may become anything.
    let mut bomb = vec![1, 0, 0, 0, 10];
    bomb.extend([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]);
    let huge = vec![0, 0xff, 0xff, 0xff, 0xff, 0];
    for (at, path) in [
        (relay.at.link, EXCHANGE),
        (relay.at.feed, WATCH),
        (relay.at.feed, WATCH_ALERTS),
    ] {
        let gzip = [("grpc-encoding", "gzip")];
        let (status, why) = call(at, path, &gzip, bomb.clone()).await;
        // The feed's own services say that it is no good message, the others that they know no compression.
        assert!([UNIMPLEMENTED, INTERNAL].contains(&status), "{path}: {why}");
        let (status, why) = call(at, path, &[], huge.clone()).await;
        assert_eq!(status, OUT_OF_RANGE, "{path}: {why}");
        bystander.notices_nothing().await;
    }
    relay
        .metric_becomes(
            r#"cresset_link_sessions_ended_total{reason="bad_message"}"#,
            |ended| ended >= 1.0,
        )
        .await;
    drop(bystander);
    relay.stop().await;
}

/// Speaks HTTP/2 until the far side has had enough; gives the bytes that it took.
async fn flood(at: SocketAddr, first: &[u8], then: &[u8]) -> usize {
    let mut stream = TcpStream::connect(at).await.expect("connected");
    let mut begin = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    begin.extend(first);
    let talk = async {
        stream.write_all(&begin).await.ok()?;
        let (mut reading, mut writing) = stream.split();
        let mut taken = 0;
        let mut heard = [0; 1024];
        loop {
            tokio::select! {
                read = reading.read(&mut heard) => if !read.is_ok_and(|read| read > 0) {
                    return Some(taken);
                },
                written = writing.write_all(then), if !then.is_empty() => match written {
                    Ok(()) => taken += then.len(),
                    Err(_) => return Some(taken),
                },
            }
        }
    };
    let taken = timeout(SOON, talk).await;
    taken.expect("it was let go").unwrap_or_default()
}

/// An HTTP/2 frame of stream 1 (RFC 9113, 4.1).
fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
    let [_, _, _, _, _, high, middle, low] = (length as u64).to_be_bytes();
    let mut frame = vec![high, middle, low, kind, flags, 0, 0, 0, 1];
    // A literal header field without indexing, empty name and value (RFC 7541, 6.2.2).
    frame.resize(9 + length, 0);
    frame
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_headers_and_oversize_frames_cost_their_own_connection() {
    const HEADERS: u8 = 1;
    const CONTINUATION: u8 = 9;
    let folder = tempfile::tempdir().expect("a folder");
    let relay = Relay::start(folder.path()).await;
    let mut bystander = Bystander::at(&relay).await;
    for (name, at) in [("feed", relay.at.feed), ("link", relay.at.link)] {
        let failed =
            format!(r#"cresset_connection_failures_total{{listener="{name}",reason="protocol"}}"#);
        // Headers without end.
        let continued = frame(CONTINUATION, 0, 16_384);
        let taken = flood(at, &frame(HEADERS, 0, 16_384), &continued).await;
        assert!(taken < 16 << 20, "it took {taken} bytes");
        relay
            .metric_becomes(&failed, |failures| failures >= 1.0)
            .await;
        bystander.notices_nothing().await;
        // A frame above what was agreed on (SETTINGS_MAX_FRAME_SIZE, 16 KiB by default).
        flood(at, &frame(HEADERS, 4, (1 << 24) - 1)[..64], &[]).await;
        relay
            .metric_becomes(&failed, |failures| failures >= 2.0)
            .await;
        bystander.notices_nothing().await;
    }
    // A list of headers that is whole and too long costs its call.
    let long = "x".repeat(40_000);
    let tcp = TcpStream::connect(relay.at.feed).await.expect("connected");
    let (mut client, connection) = h2::client::handshake(tcp).await.expect("HTTP/2");
    tokio::spawn(connection);
    let request = Request::post(format!("http://relay{WATCH}")).header("x", long);
    let (answer, _) = client
        .send_request(request.body(()).expect("a request"), false)
        .expect("sent");
    let answer = timeout(SOON, answer).await.expect("in time");
    assert!(!answer.is_ok_and(|answer| answer.status().is_success()));
    bystander.notices_nothing().await;
    drop(bystander);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_do_not_end_are_ended() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new();
    let relay = Relay::with(with_certificates(folder.path(), &authority)).await;
    let mut held = Vec::new();
    for at in [relay.at.feed, relay.at.link] {
        for said in 0..50 {
            let mut stream = TcpStream::connect(at).await.expect("connected");
            // The head of a TLS record, or nothing at all.
            let head = &[0x16, 3, 1, 2, 0][..said % 6];
            stream.write_all(head).await.expect("said");
            held.push(stream);
        }
    }
    // Meanwhile whoever has a certificate is served.
    let pair = authority.spiffe("reader/r");
    let feed = connect(relay.at.feed, authority.client(Some(pair))).await;
    let mut feed = LogServiceClient::new(feed.expect("connected"));
    assert!(feed.health_check(NonceMessage { nonce: 1 }).await.is_ok());
    for listener in ["feed", "link"] {
        let silent = format!(
            r#"cresset_connection_failures_total{{listener="{listener}",reason="silent"}}"#
        );
        relay.metric_is(&silent, 50.0).await;
    }
    assert!(feed.health_check(NonceMessage { nonce: 2 }).await.is_ok());
    // Without a certificate there is no handshake.
    let stranger = connect(relay.at.feed, authority.client(None)).await;
    let refused = match stranger {
        Ok(channel) => {
            let mut stranger = LogServiceClient::new(channel);
            let asked = stranger.health_check(NonceMessage { nonce: 3 }).await;
            asked.is_err()
        }
        Err(_) => true,
    };
    assert!(refused);
    drop(held);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_connections_take_a_bounded_room_and_are_let_go() {
    const ADDRESSES: u8 = 10;
    const EACH: usize = 1000;
    const ROOM: u32 = 200;
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = settings(folder.path(), "");
    config.relay.limits.connections = ROOM;
    config.relay.limits.handshakes = ROOM;
    // The relay raises the limit of files for this process, which holds both ends.
    let relay = Relay::with(config).await;
    let mut bystander = Bystander::at(&relay).await;
    let mut opening = tokio::task::JoinSet::new();
    for number in 1..=ADDRESSES {
        let to = relay.at.feed;
        opening.spawn(async move {
            let mut held = Vec::with_capacity(EACH);
            for _ in 0..EACH {
                let socket = TcpSocket::new_v4().expect("a socket");
                let own = SocketAddr::from(([127, 0, 1, number], 0));
                socket.bind(own).expect("an address");
                held.push(socket.connect(to).await.expect("connected"));
            }
            held
        });
    }
    let held: Vec<TcpStream> = opening.join_all().await.into_iter().flatten().collect();
    assert_eq!(held.len(), usize::from(ADDRESSES) * EACH);
    let open = r#"cresset_connections{listener="feed"}"#;
    let most = f64::from(ROOM * u32::from(ADDRESSES) + 10);
    assert!(relay.metric(open).await <= most);
    bystander.notices_nothing().await;
    // A new reader comes in at once.
    let mut other = LogServiceClient::new(channel(relay.at.feed).await);
    assert!(other.health_check(NonceMessage { nonce: 1 }).await.is_ok());
    // On a slow machine the first are let go (they say nothing for ten seconds) before the last have come.
    let failed = |reason| {
        format!(r#"cresset_connection_failures_total{{listener="feed",reason="{reason}"}}"#)
    };
    relay.metric_becomes(open, |open| open <= 10.0).await;
    // The last of them are counted a moment later.
    let all = ["crowded", "silent", "room"];
    failures(&relay, "feed", &all, held.len() as f64).await;
    assert!(relay.metric(&failed("silent")).await > 0.0);
    bystander.notices_nothing().await;
    drop((held, bystander));
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sensor_comes_in_though_strangers_hold_every_place() {
    const ADDRESSES: u8 = 3;
    const EACH: usize = 250;
    let folder = tempfile::tempdir().expect("a folder");
    // Windows for 597 connections.
    let mut config = settings(folder.path(), "");
    config.relay.ingest.budget = yaml::Size(64 << 20);
    let relay = Relay::with(config).await;
    let mut held = Vec::new();
    for number in 1..=ADDRESSES {
        for _ in 0..EACH {
            let socket = TcpSocket::new_v4().expect("a socket");
            let own = SocketAddr::from(([127, 0, 1, number], 0));
            socket.bind(own).expect("an address");
            held.push(socket.connect(relay.at.link).await.expect("connected"));
        }
    }
    let (mut sensor, _) = relay.welcomed("a").await;
    sensor.batch(1, 1).await;
    assert_eq!(sensor.ack().await.up_to, 1);
    let of = |reason| {
        format!(r#"cresset_connection_failures_total{{listener="link",reason="{reason}"}}"#)
    };
    // Those before the sensor in the queue, and it, have the places of those that came first.
    let beyond = (usize::from(ADDRESSES) * EACH - 597) as f64;
    let room = relay.metric(&of("room")).await;
    let silent = relay.metric(&of("silent")).await.max(0.0);
    assert!(room > 0.0 && room + silent >= beyond, "{room} {silent}");
    drop(held);
    sensor.batch(2, 1).await;
    assert_eq!(sensor.ack().await.up_to, 2);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_administrator_may_do_is_not_there_for_readers() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = Relay::with(with_tokens(folder.path())).await;
    let authorization = format!("Bearer {SIEM}");
    let token = [("authorization", &authorization[..])];
    for path in [
        "/cresset.operate.v1.Operate/Trace",
        "/cresset.operate.v1.Operate/TraceMany",
        "/cresset.operate.v1.Operate/Reload",
        "/cresset.operate.v1.Operate/ForgetSensor",
        "/cresset.operate.v1.Operate/Settings",
        "/cresset.operate.v1.Operate/Logs",
        "/cresset.sinks.v1.Sinks/Tap",
        "/cresset.sinks.v1.Sinks/ListLetters",
        "/cresset.enrolment.v1.Tokens/Create",
        "/cresset.enrolment.v1.Enrolment/Join",
        EXCHANGE,
    ] {
        let (status, why) = call(relay.at.feed, path, &token, vec![0; 5]).await;
        assert_eq!(status, UNIMPLEMENTED, "{path}: {why}");
    }
    let (status, why) = call(
        relay.at.feed,
        "/cresset.query.v1.Query/Import",
        &token,
        vec![0; 5],
    )
    .await;
    assert_ne!(status, 0, "{why}");
    relay.stop().await;
}

/// Why a relay with these settings does not start.
async fn refused(config: relay::Config) -> String {
    match App::build(config).await {
        Ok(_) => panic!("it should not have started"),
        Err(why) => why.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_there_is_named_and_nothing_stays_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let none = folder.path().join("none.pem");
    let mut config = settings(folder.path(), "");
    config.relay.tls = Some(relay::Tls {
        cert_file: Some(none.clone()),
        key_file: Some(none.clone()),
        ..relay::Tls::default()
    });
    let why = refused(config).await;
    assert!(why.contains("none.pem"), "{why}");
    let mut config = settings(folder.path(), "");
    config.relay.access = vec![relay::AccessEntry {
        token_file: Some(none),
        certificate: None,
        anonymous: false,
        role: relay::Role::Reader,
        namespaces: Vec::new(),
    }];
    let why = refused(config).await;
    assert!(
        why.contains("none.pem") && why.contains("relay.access"),
        "{why}"
    );
    // What the relay keeps itself and somebody has damaged is named, too.
    let data = folder.path().join("data");
    fs::create_dir_all(data.join("authority")).expect("a folder");
    for (name, enrolment) in [
        ("streams", false),
        ("authority/authority.pem", true),
        ("authority/book.json", true),
    ] {
        let mut config = settings(folder.path(), "");
        config.relay.tls = enrolment.then(|| relay::Tls {
            enrolment,
            ..relay::Tls::default()
        });
        fs::write(data.join(name), "what nobody wrote").expect("written");
        let why = refused(config).await;
        fs::remove_file(data.join(name)).expect("removed");
        let name = name.rsplit('/').next().expect("a name");
        assert!(why.contains(name), "{name}: {why}");
    }
    // Who was known is not worth a start.
    fs::write(data.join("sensors.json"), "what nobody wrote").expect("written");
    Relay::start(folder.path()).await.stop().await;
}
