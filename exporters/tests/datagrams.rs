//! Syslog over UDP: what a datagram holds, what does not fit, and a receiver that is not there.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "support/events.rs"]
mod events;

use std::time::Duration;

use exporters::Sink;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use events::{alert, batch, letters, reason, sink};

const SOON: Duration = Duration::from_secs(60);

fn to(port: u16) -> Box<dyn Sink> {
    sink(&format!(
        "{{type: syslog, transport: udp, address: '127.0.0.1:{port}'}}"
    ))
}

#[tokio::test]
async fn a_datagram_is_one_message_and_what_does_not_fit_is_rejected() {
    let receiver = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let sink = to(receiver.local_addr().unwrap().port());
    let events = [alert(1, "a"), alert(2, &"x".repeat(70_000)), alert(3, "c")];
    let outcomes = sink.send(batch(events)).await.unwrap();
    assert_eq!(letters(&outcomes), "dxd");
    assert!(reason(&outcomes, 1).contains("fits no datagram"));
    for pod in ["a", "c"] {
        let mut datagram = vec![0; 65_536];
        let length = timeout(SOON, receiver.recv(&mut datagram))
            .await
            .unwrap()
            .unwrap();
        let message = std::str::from_utf8(&datagram[..length]).unwrap();
        assert!(message.starts_with("<107>1 2026-"), "{message}");
        assert!(
            message.contains(&format!("\"PodName\":\"{pod}\"")),
            "{message}"
        );
    }
}

#[tokio::test]
async fn a_receiver_that_is_not_there_is_noticed_and_met_when_it_comes() {
    let receiver = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = receiver.local_addr().unwrap();
    drop(receiver);
    let sink = to(at.port());
    // The first may go before the kernel hears that nobody is there.
    let reason = timeout(SOON, async {
        loop {
            match sink.send(batch([alert(1, "a")])).await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                Err(away) => return away.reason,
            }
        }
    });
    let reason = reason.await.expect("noticed in time");
    assert!(reason.contains("refused"), "{reason}");
    let receiver = UdpSocket::bind(at).await.unwrap();
    let outcomes = sink.send(batch([alert(2, "b")])).await.unwrap();
    assert_eq!(letters(&outcomes), "d");
    let mut datagram = [0; 2048];
    let length = timeout(SOON, receiver.recv(&mut datagram))
        .await
        .unwrap()
        .unwrap();
    assert!(String::from_utf8_lossy(&datagram[..length]).contains("\"PodName\":\"b\""));
}
