//! PINGs at a listener's door, frame by frame (RFC 9113, 4.1 and 6.7).

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::service::Routes;

use super::{Bound, Connections, Grpc, Limits};
use crate::access::{Access, Door};
use crate::metrics::Registry;

const SOON: Duration = Duration::from_secs(60);

const SETTINGS: u8 = 4;
const PING: u8 = 6;
const ACK: u8 = 1;

/// A listener without services that asks its peers this often, and waits so long for the answer.
async fn listening(ping: Duration, pong: Duration) -> (SocketAddr, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (health, service) = tonic_health::server::health_reporter();
    drop(health);
    let grpc = Grpc {
        name: "feed",
        door: Door::Feed,
        access: Access::default(),
        bound: Bound::Tcp(listener),
        tls: None,
        enrolment: None,
        limits: Limits {
            connections: 10,
            streams: 4,
            window: 65_535,
            ping,
            pong,
            per_peer: 10,
            handshakes: 10,
            idle: SOON,
        },
        budget: None,
        routes: Routes::new(service),
        connections: Connections::new(&Registry::new()).unwrap(),
    };
    let (stop, stopping) = watch::channel(false);
    tokio::spawn(grpc.serve(stopping));
    (address, stop)
}

#[derive(Debug, PartialEq)]
struct Frame {
    kind: u8,
    flags: u8,
    payload: Vec<u8>,
}

/// A client that says hello and then only what a test says.
struct Peer(TcpStream);

impl Peer {
    async fn greet(at: SocketAddr) -> Peer {
        let mut peer = Peer(TcpStream::connect(at).await.unwrap());
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        peer.0.write_all(preface).await.unwrap();
        peer.say(SETTINGS, 0, &[]).await;
        peer
    }

    async fn say(&mut self, kind: u8, flags: u8, payload: &[u8]) {
        let len = u8::try_from(payload.len()).unwrap();
        let mut frame = vec![0, 0, len, kind, flags, 0, 0, 0, 0];
        frame.extend_from_slice(payload);
        self.0.write_all(&frame).await.unwrap();
    }

    /// The next frame; none once the connection is closed.
    async fn hear(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        let read = timeout(SOON, self.0.read_exact(&mut head)).await;
        read.expect("in time").ok()?;
        let [_, high, low, kind, flags, ..] = head;
        let mut payload = vec![0; usize::from(high) << 8 | usize::from(low)];
        self.0.read_exact(&mut payload).await.ok()?;
        Some(Frame {
            kind,
            flags,
            payload,
        })
    }
}

#[tokio::test]
async fn a_peer_that_does_not_answer_a_ping_is_let_go() {
    let often = Duration::from_millis(50);
    let (address, _stop) = listening(often, often).await;
    let mut peer = Peer::greet(address).await;
    let mut heard = Vec::new();
    while let Some(frame) = peer.hear().await {
        heard.push((frame.kind, frame.flags));
    }
    assert!(heard.contains(&(PING, 0)), "{heard:?}");
}

#[tokio::test]
async fn a_peer_that_answers_stays() {
    let (address, _stop) = listening(Duration::from_millis(5), SOON).await;
    let mut peer = Peer::greet(address).await;
    let mut answered = 0;
    while answered < 50 {
        let frame = peer.hear().await.expect("it stays open");
        if (frame.kind, frame.flags) == (PING, 0) {
            peer.say(PING, ACK, &frame.payload).await;
            answered += 1;
        }
    }
}

#[tokio::test]
async fn a_peer_that_pings_all_the_time_is_answered_and_never_sent_away() {
    let (address, _stop) = listening(SOON, SOON).await;
    let mut peer = Peer::greet(address).await;
    // Without a single call, which grpc-go by itself allows nobody.
    for number in 0..5_000_u64 {
        peer.say(PING, 0, &number.to_be_bytes()).await;
        loop {
            let frame = peer.hear().await.expect("it stays open");
            if frame.kind == PING {
                assert_eq!(frame.flags, ACK);
                assert_eq!(frame.payload, number.to_be_bytes());
                break;
            }
            assert!(matches!(frame.kind, SETTINGS | 8), "{frame:?}");
        }
    }
}
