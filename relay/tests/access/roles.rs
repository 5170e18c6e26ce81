//! Who may speak: roles, tokens, namespaces, certificates that change, and peers that take too much.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::support::authority::{Authority, Pair, connect};
use crate::support::{Relay, SOON, channel, hello, settings};
use proto::feeder::log_service_client::LogServiceClient;
use proto::feeder::{self, NonceMessage, RequestMessage};
use proto::link::from_relay::Is as Reply;
use proto::link::from_sensor::Is as Say;
use proto::link::link_client::LinkClient;
use proto::link::{self, EventKind};
use proto::policies::ListRequest;
use proto::policies::policies_client::PoliciesClient;
use proto::query::query_client::QueryClient;
use proto::query::watch_reply::Is;
use proto::query::{Filter, StatusRequest, WatchReply, WatchRequest};
use relay::Config;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

pub(crate) const SIEM: &str = "0123456789abcdef-siem";
const ALL: &str = "0123456789abcdef-all";

/// A request of somebody with this token.
pub(crate) fn with<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value: MetadataValue<_> = format!("Bearer {token}").parse().expect("a header");
    request.metadata_mut().insert("authorization", value);
    request
}

/// A relay on plaintext ports whose readers need tokens.
pub(crate) fn with_tokens(folder: &Path) -> Config {
    fs::write(folder.join("siem"), SIEM).expect("written");
    fs::write(folder.join("all"), format!("# everything\n{ALL}\n")).expect("written");
    let text = format!(
        "cluster: test\nrelay:\n  data_dir: {0}/data\n  listen: {{feed: \"127.0.0.1:0\", link: \"127.0.0.1:0\", http: \"127.0.0.1:0\", admin: \"unix:{0}/admin.sock\"}}\n  access:\n    - {{token_file: {0}/siem, role: reader, namespaces: [shop]}}\n    - {{token_file: {0}/all, role: reader}}\npolicies: {{sources: []}}\n",
        folder.display()
    );
    let settings = relay::Settings::parse("test.yaml", &text, []);
    settings.expect("good settings").config
}

/// A relay with certificates of `authority`.
pub(crate) fn with_certificates(folder: &Path, authority: &Authority) -> Config {
    write_certificates(folder, authority);
    let mut config = settings(folder, "");
    config.relay.tls = Some(relay::Tls {
        dir: Some(folder.to_owned()),
        ..relay::Tls::default()
    });
    config
}

/// KubeArmor's layout.
fn write_certificates(folder: &Path, authority: &Authority) {
    let (certificate, key) = authority.sign("relay.test");
    for (name, text) in [
        ("server.crt", certificate),
        ("server.key", key),
        ("ca.crt", authority.pem()),
    ] {
        fs::write(folder.join(name), text).expect("written");
    }
}

/// A session that was welcomed; it ends when dropped.
pub(crate) struct Greeted {
    pub(crate) heard: Streaming<link::FromRelay>,
    _say: mpsc::Sender<link::FromSensor>,
}

pub(crate) async fn greet(channel: Channel, id: &str) -> Result<Greeted, Status> {
    let (say, said) = mpsc::channel(1);
    let first = link::FromSensor {
        is: Some(Say::Hello(hello(id))),
    };
    say.send(first).await.expect("room");
    let mut client = LinkClient::new(channel);
    let exchange = client.exchange(ReceiverStream::new(said)).await?;
    let mut heard = exchange.into_inner();
    let first = timeout(SOON, heard.message()).await.expect("in time")?;
    assert!(matches!(
        first.and_then(|first| first.is),
        Some(Reply::Welcome(_))
    ));
    Ok(Greeted { heard, _say: say })
}

/// What becomes of a Hello with this certificate; a handshake that fails has no code.
async fn link_with(at: SocketAddr, authority: &Authority, pair: Pair, id: &str) -> Option<Code> {
    let channel = connect(at, authority.client(Some(pair))).await.ok()?;
    Some(
        greet(channel, id)
            .await
            .map_or_else(|status| status.code(), |_| Code::Ok),
    )
}

async fn feed_with(at: SocketAddr, authority: &Authority, pair: Pair) -> Option<Code> {
    let channel = connect(at, authority.client(Some(pair))).await.ok()?;
    let asked = LogServiceClient::new(channel)
        .health_check(NonceMessage { nonce: 5 })
        .await;
    Some(asked.map_or_else(|status| status.code(), |_| Code::Ok))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificates_role_opens_its_door_and_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new();
    let relay = Relay::with(with_certificates(folder.path(), &authority)).await;
    let link = async |pair, id| link_with(relay.at.link, &authority, pair, id).await;
    let feed = async |pair| feed_with(relay.at.feed, &authority, pair).await;

    assert_eq!(
        link(authority.spiffe("sensor/a"), "a").await,
        Some(Code::Ok)
    );
    assert_eq!(
        link(authority.spiffe("sensor/a"), "b").await,
        Some(Code::PermissionDenied),
        "in another's name"
    );
    assert_eq!(link(authority.spiffe("relay/x"), "b").await, Some(Code::Ok));
    for (pair, what) in [
        (authority.spiffe("reader/a"), "a reader"),
        (authority.spiffe("root/a"), "an unknown role"),
        (authority.sign("a"), "KubeArmor's certificates are readers"),
    ] {
        assert_eq!(
            link(pair, "a").await,
            Some(Code::PermissionDenied),
            "{what}"
        );
    }
    for pair in [authority.spiffe("reader/a"), authority.sign("kubearmor")] {
        assert_eq!(feed(pair).await, Some(Code::Ok));
    }
    assert_eq!(
        feed(authority.spiffe("sensor/a")).await,
        Some(Code::PermissionDenied)
    );
    assert_ne!(feed(authority.expired("reader/a")).await, Some(Code::Ok));
    let ended = r#"cresset_link_sessions_ended_total{reason="not_itself"}"#;
    relay.metric_is(ended, 1.0).await;
    let denied = r#"cresset_calls_denied_total{listener="feed",reason="role"}"#;
    relay.metric_is(denied, 1.0).await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_change_under_living_connections_and_the_old_authority_is_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let (old, new) = (Authority::new(), Authority::new());
    let relay = Relay::with(with_certificates(folder.path(), &old)).await;
    let living = connect(relay.at.feed, old.client(Some(old.sign("reader"))))
        .await
        .expect("connected");
    write_certificates(folder.path(), &new);
    let deadline = tokio::time::Instant::now() + SOON;
    while feed_with(relay.at.feed, &new, new.sign("reader")).await != Some(Code::Ok) {
        assert!(tokio::time::Instant::now() < deadline, "never taken up");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // It trusts the new relay and shows the old authority's certificate.
    assert_ne!(
        feed_with(relay.at.feed, &new, old.sign("reader")).await,
        Some(Code::Ok)
    );
    let asked = LogServiceClient::new(living)
        .health_check(NonceMessage { nonce: 5 })
        .await;
    assert_eq!(asked.expect("still there").into_inner().retval, 5);
    // Files that are no good change nothing.
    fs::write(folder.path().join("server.key"), "no key").expect("written");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(
        feed_with(relay.at.feed, &new, new.sign("reader")).await,
        Some(Code::Ok)
    );
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_token_nobody_reads() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = Relay::with(with_tokens(folder.path())).await;
    let mut feed = LogServiceClient::new(channel(relay.at.feed).await);
    let nonce = NonceMessage { nonce: 5 };
    let code = |asked: Result<tonic::Response<_>, Status>| {
        asked.map_or_else(
            |status| status.code(),
            |_: tonic::Response<feeder::ReplyMessage>| Code::Ok,
        )
    };
    assert_eq!(code(feed.health_check(nonce).await), Code::Unauthenticated);
    for (token, wanted) in [
        ("0123456789abcdef-else", Code::Unauthenticated),
        (SIEM, Code::Ok),
    ] {
        assert_eq!(code(feed.health_check(with(token, nonce)).await), wanted);
    }
    // A token that is taken out is out, without a restart.
    fs::write(folder.path().join("siem"), "another-token-of-some-length").expect("written");
    let deadline = tokio::time::Instant::now() + SOON;
    while code(feed.health_check(with(SIEM, nonce)).await) != Code::Unauthenticated {
        assert!(tokio::time::Instant::now() < deadline, "never taken up");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Sensors are another matter.
    let (_sensor, _) = relay.welcomed("a").await;
    relay.stop().await;
}

/// Everything of a finite stream.
async fn all(mut stream: Streaming<WatchReply>) -> Vec<Is> {
    let mut replies = Vec::new();
    while let Some(reply) = timeout(SOON, stream.message())
        .await
        .expect("in time")
        .expect("a reply")
    {
        replies.extend(reply.is);
    }
    replies
}

fn history() -> WatchRequest {
    let kinds = [EventKind::Alert, EventKind::Log, EventKind::Message];
    WatchRequest {
        filter: Some(Filter {
            kinds: kinds.map(i32::from).to_vec(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_one_namespace_sees_nothing_else_by_any_door() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = Relay::with(with_tokens(folder.path())).await;
    let to_relay = channel(relay.at.feed).await;
    let (mut feed, mut query) = (
        LogServiceClient::new(to_relay.clone()),
        QueryClient::new(to_relay),
    );
    let word = || RequestMessage {
        filter: "all".to_owned(),
    };
    // The answer's head comes with the first event, so the call is made beside it.
    let mut watcher = feed.clone();
    let live = tokio::spawn(async move {
        let mut alerts = watcher
            .watch_alerts(with(SIEM, word()))
            .await
            .expect("a stream")
            .into_inner();
        timeout(SOON, alerts.message()).await.expect("in time")
    });
    relay
        .metric_becomes("cresset_feed_clients", |clients| clients >= 1.0)
        .await;
    let (mut sensor, _) = relay.welcomed("a").await;
    sensor
        .alerts_of(1, &["bank", "", "shop", "bank", "shopping"])
        .await;
    assert_eq!(sensor.ack().await.up_to, 5);
    let seen = live
        .await
        .expect("no panic")
        .expect("good")
        .expect("an alert");
    assert_eq!(seen.namespace_name, "shop");

    let replies = all(query
        .watch(with(SIEM, history()))
        .await
        .expect("a stream")
        .into_inner())
    .await;
    let [Is::Event(event)] = &replies[..] else {
        panic!("one event was expected, not {replies:?}");
    };
    assert!(
        !event
            .resume
            .windows(8)
            .any(|bytes| bytes == 3_u64.to_be_bytes())
    );
    let everything = all(query
        .watch(with(ALL, history()))
        .await
        .expect("a stream")
        .into_inner())
    .await;
    assert_eq!(everything.len(), 5);
    // The token goes on behind the event, and not further back.
    let resumed = WatchRequest {
        resume: event.resume.clone(),
        ..history()
    };
    let after = all(query
        .watch(with(SIEM, resumed))
        .await
        .expect("a stream")
        .into_inner())
    .await;
    assert_eq!(after, []);
    // Nor does a token of somebody who sees all say anything.
    let Some(Is::Event(other)) = everything.first() else {
        panic!("an event was expected");
    };
    let stolen = WatchRequest {
        resume: other.resume.clone(),
        ..history()
    };
    let stolen = query
        .watch(with(SIEM, stolen))
        .await
        .expect("a stream")
        .into_inner();
    let stolen = all(stolen).await;
    let [Is::Gap(gap), Is::Event(own)] = &stolen[..] else {
        panic!("a gap and the one event were expected, not {stolen:?}");
    };
    assert_eq!((gap.missed, &own.id), (0, &event.id));

    let status = query
        .status(with(SIEM, StatusRequest {}))
        .await
        .expect("a status");
    let status = status.into_inner();
    assert!(status.relay.expect("a relay").ready);
    assert!(status.sensors.is_empty() && status.sinks.is_empty() && status.journal.is_none());
    assert!(status.losses.is_empty() && status.certificates.is_empty());
    let mut policies = PoliciesClient::new(channel(relay.at.feed).await);
    let listed = policies.list(with(SIEM, ListRequest::default())).await;
    assert_eq!(listed.expect_err("refused").code(), Code::PermissionDenied);
    let listed = policies.list(with(ALL, ListRequest::default())).await;
    assert!(listed.is_ok());
    assert!(
        feed.health_check(with(SIEM, NonceMessage { nonce: 1 }))
            .await
            .is_ok()
    );
    drop(sensor);
    relay.stop().await;
}

/// A connection from another address of this machine.
async fn from(own: &str, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(format!("{own}:0").parse().expect("an address"))?;
    socket.connect(to).await
}

/// Waits until so many connections of a listener were closed for one of these reasons.
pub(crate) async fn failures(relay: &Relay, listener: &str, reasons: &[&str], wanted: f64) {
    let counted = async {
        loop {
            let mut closed = 0.0;
            for reason in reasons {
                let line = format!(
                    r#"cresset_connection_failures_total{{listener="{listener}",reason="{reason}"}}"#
                );
                // What has never been counted has no line.
                closed += relay.metric(&line).await.max(0.0);
            }
            if closed >= wanted {
                return closed;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let closed = timeout(SOON, counted).await.expect("closed in time");
    assert_eq!(closed, wanted);
}

/// Whether the far side ends the connection.
async fn is_closed(mut stream: TcpStream, within: Duration) -> bool {
    let mut buffer = [0; 64];
    let read_to_end = async { while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {} };
    timeout(within, read_to_end).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_cannot_take_the_room_of_the_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = settings(folder.path(), "");
    config.relay.limits.connections = 3;
    let relay = Relay::with(config).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(from("127.0.0.2", relay.at.feed).await.expect("connected"));
    }
    relay
        .metric_is(r#"cresset_connections{listener="feed"}"#, 3.0)
        .await;
    // Closed, or it has the place of the first of them, which has said nothing for two seconds by now.
    let fourth = from("127.0.0.2", relay.at.feed).await.expect("connected");
    failures(&relay, "feed", &["crowded", "room"], 1.0).await;
    let mut other = LogServiceClient::new(channel(relay.at.feed).await);
    assert!(other.health_check(NonceMessage { nonce: 1 }).await.is_ok());
    drop((held, fourth));
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_cannot_begin_many_handshakes_at_once_and_may_when_they_are_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new();
    let mut config = with_certificates(folder.path(), &authority);
    config.relay.limits.handshakes = 2;
    let relay = Relay::with(config).await;
    let reader = async || feed_with(relay.at.feed, &authority, authority.spiffe("reader/a")).await;
    // Those that are over do not count, however many stay connected.
    let mut living = Vec::new();
    for _ in 0..4 {
        let tls = authority.client(Some(authority.spiffe("reader/a")));
        living.push(connect(relay.at.feed, tls).await.expect("connected"));
    }
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(from("127.0.0.2", relay.at.feed).await.expect("connected"));
    }
    relay
        .metric_is(r#"cresset_connections{listener="feed"}"#, 6.0)
        .await;
    // Without a word; or the first of them, if it has said nothing for two seconds by now.
    let third = from("127.0.0.2", relay.at.feed).await.expect("connected");
    let reasons = ["handshakes", "room"];
    failures(&relay, "feed", &reasons, 1.0).await;
    assert_eq!(reader().await, Some(Code::Ok), "from another address");
    drop((held, third));
    relay
        .metric_becomes(r#"cresset_connections{listener="feed"}"#, |open| {
            open <= 5.0
        })
        .await;
    let again = from("127.0.0.2", relay.at.feed).await.expect("connected");
    assert!(!is_closed(again, Duration::from_millis(300)).await);
    failures(&relay, "feed", &reasons, 1.0).await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_asks_nothing_is_closed_and_one_that_listens_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = settings(folder.path(), "");
    config.relay.limits.idle = yaml::Span(Duration::from_secs(1));
    let relay = Relay::with(config).await;
    let mut listener = LogServiceClient::new(channel(relay.at.feed).await);
    let live = tokio::spawn(async move {
        let word = RequestMessage {
            filter: "all".to_owned(),
        };
        let mut alerts = listener.watch_alerts(word).await?.into_inner();
        alerts.message().await
    });
    relay
        .metric_becomes("cresset_feed_clients", |clients| clients >= 1.0)
        .await;
    let asked = channel(relay.at.feed).await;
    let answer = LogServiceClient::new(asked.clone())
        .health_check(NonceMessage { nonce: 1 })
        .await;
    assert!(answer.is_ok());
    let idle = r#"cresset_connection_failures_total{listener="feed",reason="idle"}"#;
    relay.metric_is(idle, 1.0).await;
    let (mut sensor, _) = relay.welcomed("a").await;
    sensor.batch(1, 1).await;
    assert_eq!(sensor.ack().await.up_to, 1);
    let alert = timeout(SOON, live)
        .await
        .expect("in time")
        .expect("no panic");
    assert!(alert.expect("still there").is_some());
    drop(asked);
    relay.stop().await;
}
