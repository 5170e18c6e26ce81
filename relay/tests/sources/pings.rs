//! PINGs between a relay and a daemon. A server of grpc-go ends the connection of a client that sends more than a few, so
//! the relay sends none, and answers those of the daemon whatever else it does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proto::Kind;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::daemon::Daemon;
use crate::scene::{Kept, eventually, log, pulling};

const PING: u8 = 6;
const ACK: u8 = 1;
/// HTTP/2's connection preface.
const PREFACE: usize = 24;

/// Stands between a relay and a daemon: puts a PING behind every frame of the daemon, takes the answers out, and counts.
struct Between {
    address: SocketAddr,
    counts: Arc<Counts>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Counts {
    /// PINGs that the relay got,
    asked: AtomicU64,
    /// answered,
    answered: AtomicU64,
    /// and sent on its own.
    pings: AtomicU64,
}

impl Between {
    async fn start(daemon: SocketAddr) -> Between {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let counts = Arc::new(Counts::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, daemon, counts.clone()));
        Between {
            address,
            counts,
            _tasks: tasks,
        }
    }
}

async fn serve(listener: TcpListener, daemon: SocketAddr, counts: Arc<Counts>) {
    loop {
        let (relay, _) = listener.accept().await.expect("a connection");
        let daemon = TcpStream::connect(daemon).await.expect("a daemon");
        let (from_relay, to_relay) = relay.into_split();
        let (from_daemon, to_daemon) = daemon.into_split();
        let up = upwards(from_relay, to_daemon, &counts);
        let down = downwards(from_daemon, to_relay, &counts);
        // Until either side ends.
        tokio::select! { _ = up => {}, _ = down => {} }
    }
}

/// The next frame, head and all.
async fn frame(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Vec<u8>> {
    let mut frame = vec![0; 9];
    from.read_exact(&mut frame).await?;
    let len = u32::from_be_bytes([0, frame[0], frame[1], frame[2]]);
    frame.resize(9 + len as usize, 0);
    from.read_exact(&mut frame[9..]).await?;
    Ok(frame)
}

async fn upwards(
    mut from: impl AsyncRead + Unpin,
    mut to: impl tokio::io::AsyncWrite + Unpin,
    counts: &Counts,
) -> std::io::Result<()> {
    let mut preface = [0; PREFACE];
    from.read_exact(&mut preface).await?;
    to.write_all(&preface).await?;
    loop {
        let frame = frame(&mut from).await?;
        match (frame[3], frame[4] & ACK) {
            (PING, ACK) => {
                counts.answered.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            (PING, _) => {
                counts.pings.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
        to.write_all(&frame).await?;
    }
}

async fn downwards(
    mut from: impl AsyncRead + Unpin,
    mut to: impl tokio::io::AsyncWrite + Unpin,
    counts: &Counts,
) -> std::io::Result<()> {
    loop {
        let mut frame = frame(&mut from).await?;
        let number = counts.asked.fetch_add(1, Ordering::Relaxed);
        frame.extend_from_slice(&[0, 0, 8, PING, 0, 0, 0, 0, 0]);
        frame.extend_from_slice(&number.to_be_bytes());
        to.write_all(&frame).await?;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_relay_answers_a_daemons_pings_and_sends_none() {
    const EVENTS: u64 = 3_000;
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start().await;
    let between = Between::start(daemon.address).await;
    let relay = pulling(folder.path(), &[between.address]).await;
    daemon.watched().await;
    let mut kept = Kept::of(&relay, &[Kind::Log]).await;
    let sending = async {
        for number in 1..=EVENTS {
            daemon.send(Kind::Log, log(number, 600)).await;
        }
    };
    let reading = async {
        for expected in 1..=EVENTS {
            assert_eq!(kept.log().await, expected);
        }
    };
    tokio::join!(sending, reading);
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let counts = &between.counts;
    eventually("every PING is answered", async || {
        of(&counts.answered) == of(&counts.asked)
    })
    .await;
    assert!(of(&counts.asked) >= 100, "{} PINGs", of(&counts.asked));
    assert_eq!(of(&counts.pings), 0, "the relay asked by itself");
    assert_eq!(daemon.connections(), 1, "it had to connect again");
    relay.stop().await;
}
