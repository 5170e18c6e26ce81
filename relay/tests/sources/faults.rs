//! What a daemon may do wrong, and what goes on all the same.

use std::time::Duration;

use proto::{Kind, MAX_EVENT};
use tonic::Status;

use crate::daemon::{A_WHILE, Daemon, Health, free};
use crate::scene::{
    Kept, alert, daemon_status, eventually, log, message, of_streams, pulling, source, status,
};
use crate::support::{Relay, settings};

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_comes_late_is_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let address = free().await;
    let relay = pulling(folder.path(), &[address]).await;
    eventually("it is missed", async || {
        daemon_status(&relay).await.errors > 1
    })
    .await;
    let daemon = Daemon::at(address).await;
    daemon.watched().await;
    daemon.send(Kind::Log, log(1, 10)).await;
    assert_eq!(Kept::of(&relay, &[Kind::Log]).await.log().await, 1);
    let status = daemon_status(&relay).await;
    assert!(
        status.connected && status.last_error.contains("refused"),
        "{status:?}"
    );
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_is_made_again_with_a_health_check_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start().await;
    let relay = pulling(folder.path(), &[daemon.address]).await;
    let mut kept = Kept::of(&relay, &[Kind::Log]).await;
    for round in 1..=5 {
        daemon.watched().await;
        for number in 1..=100 {
            daemon.send(Kind::Log, log(100 * round + number, 300)).await;
        }
        for number in 1..=100 {
            assert_eq!(kept.log().await, 100 * round + number);
        }
        assert_eq!(daemon.connections(), round as usize);
        daemon.cut();
        eventually("the break is seen", async || {
            daemon_status(&relay).await.errors == round
        })
        .await;
    }
    daemon.watched().await;
    assert!(daemon.count("HealthCheck") >= 6);
    let status = daemon_status(&relay).await;
    assert!(status.connected, "{status:?}");
    assert_eq!(of_streams(&status, |stream| stream.events), [0, 500, 0]);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stream_that_ends_begins_again_and_the_others_notice_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start().await;
    let relay = pulling(folder.path(), &[daemon.address]).await;
    let mut kept = Kept::of(&relay, &[Kind::Alert, Kind::Log]).await;
    let ends = [
        Status::internal("the log channel is gone"),
        Status::ok(""),
        Status::unavailable(""),
    ];
    for (round, end) in ends.into_iter().enumerate() {
        daemon.watched().await;
        daemon.end(Kind::Log, end).await;
        eventually("the end is seen", async || {
            daemon_status(&relay).await.errors > round as u64
        })
        .await;
        daemon.send(Kind::Alert, alert(1)).await;
        kept.next().await;
        daemon.watched().await;
        daemon.send(Kind::Log, log(round as u64, 10)).await;
        assert_eq!(kept.log().await, round as u64);
    }
    assert_eq!(
        (
            daemon.count("WatchLogs"),
            daemon.count("WatchAlerts"),
            daemon.count("WatchMessages")
        ),
        (4, 1, 1)
    );
    assert_eq!(daemon.connections(), 1);
    let first = daemon_status(&relay).await;
    assert_eq!(of_streams(&first, |stream| stream.events), [3, 3, 0]);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_event_is_counted_and_told_and_its_stream_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start().await;
    let relay = pulling(folder.path(), &[daemon.address]).await;
    daemon.watched().await;
    let mut told = Kept::of(&relay, &[Kind::Message]).await;
    let bad = [
        vec![0xff; 40],
        b"\x0a\x7fcut".to_vec(),
        // Text that is not UTF-8, and an id that is not the relay's to take.
        b"\x12\x02\xff\xfe".to_vec(),
        [&log(1, 1)[..], b"\xa2\x06\x03abc"].concat(),
    ];
    for (number, bad) in bad.into_iter().enumerate() {
        daemon.send(Kind::Log, bad).await;
        daemon.send(Kind::Log, log(number as u64, 10)).await;
    }
    let mut kept = Kept::of(&relay, &[Kind::Log]).await;
    for number in 0..4 {
        assert_eq!(kept.log().await, number);
    }
    let mut count = 0;
    while count < 4 {
        let message = told.message().await;
        let lost = message.lost.expect("a loss");
        assert_eq!(
            (&*message.level, &*lost.r#where, &*lost.class),
            ("WARN", "source old", "log")
        );
        assert!(
            message.message.contains(&daemon.address.to_string()),
            "{}",
            message.message
        );
        assert!(!lost.reason.is_empty());
        count += lost.count;
    }
    assert_eq!(count, 4);
    assert_eq!(daemon.count("WatchLogs"), 1, "the stream never ended");
    let status = status(&relay).await;
    assert_eq!(
        of_streams(&status.sources[0], |stream| stream.rejected),
        [0, 4, 0]
    );
    let [loss] = &status.losses[..] else {
        panic!("one loss: {:?}", status.losses)
    };
    assert_eq!(
        (&*loss.r#where, &*loss.class, loss.count),
        ("source old", "log", 4)
    );
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_any_size_costs_itself_at_most() {
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start().await;
    let relay = pulling(folder.path(), &[daemon.address]).await;
    daemon.watched().await;
    let around = log(0, MAX_EVENT).len() - MAX_EVENT;
    let largest = MAX_EVENT - around;
    // Up to twice what gRPC clients take.
    for (number, size) in [
        (1, largest),
        (2, largest + 1),
        (3, 2 * MAX_EVENT),
        (4, 8 << 20),
        (5, 10),
    ] {
        daemon.send(Kind::Log, log(number, size)).await;
    }
    let mut kept = Kept::of(&relay, &[Kind::Log]).await;
    assert_eq!(kept.log().await, 1);
    assert_eq!(kept.log().await, 5);
    let status = daemon_status(&relay).await;
    assert_eq!(of_streams(&status, |stream| stream.rejected), [0, 3, 0]);
    assert_eq!((status.errors, daemon.count("WatchLogs")), (0, 1));
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_daemon_says_it_lost_on_the_way_is_counted_by_kind() {
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start().await;
    let relay = pulling(folder.path(), &[daemon.address]).await;
    daemon.watched().await;
    let told = |place: &str, class: &str, count| {
        let lost = proto::feeder::Lost {
            r#where: place.to_owned(),
            class: class.to_owned(),
            count,
            ..Default::default()
        };
        let message = proto::feeder::Message {
            level: "WARN".to_owned(),
            lost: Some(lost),
            ..Default::default()
        };
        prost::Message::encode_to_vec(&message)
    };
    daemon.send(Kind::Message, told("feed", "log", 12)).await;
    daemon.send(Kind::Message, told("feed", "alert", 3)).await;
    // Lost by somebody else and counted there.
    daemon
        .send(Kind::Message, told("ring", "telemetry", 100))
        .await;
    daemon.send(Kind::Message, message("all is well")).await;
    eventually("the messages are kept", async || {
        daemon_status(&relay).await.streams[2].events == 4
    })
    .await;
    let status = status(&relay).await;
    assert_eq!(
        of_streams(&status.sources[0], |stream| stream.missed),
        [3, 12, 0]
    );
    let missed: u64 = status.losses.iter().map(|loss| loss.count).sum();
    assert_eq!(missed, 15, "{:?}", status.losses);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_echo_the_nonce_is_no_daemon_and_is_asked_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let address = free().await;
    let daemon = Daemon::at(address).await;
    daemon.answer(Health::Wrong);
    let relay = pulling(folder.path(), &[address]).await;
    daemon.watched().await;
    let status = daemon_status(&relay).await;
    assert_eq!(status.errors, 1);
    assert!(
        status.last_error.contains("another number"),
        "{}",
        status.last_error
    );
    assert_eq!(&daemon.asked()[..2], ["HealthCheck", "HealthCheck"]);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_does_not_answer_holds_up_nobody() {
    let folder = tempfile::tempdir().expect("a folder");
    let (silent, daemon) = (Daemon::start().await, Daemon::start().await);
    for _ in 0..10 {
        silent.answer(Health::Silent);
    }
    let relay = pulling(folder.path(), &[silent.address, daemon.address]).await;
    daemon.watched().await;
    daemon.send(Kind::Log, log(1, 10)).await;
    assert_eq!(Kept::of(&relay, &[Kind::Log]).await.log().await, 1);
    tokio::time::sleep(A_WHILE).await;
    let status = status(&relay).await;
    assert_eq!(
        status
            .sources
            .iter()
            .map(|source| source.connected)
            .collect::<Vec<_>>(),
        [false, true]
    );
    assert_eq!(
        silent.count("Watch"),
        0,
        "nothing is asked of who is not there"
    );
    // It does not hold up the end either.
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_where_something_else_listens_is_told_as_such() {
    let folder = tempfile::tempdir().expect("a folder");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("bound");
    let other = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let hello = b"220 mail.example ESMTP, and some more that is no frame of HTTP/2\r\n";
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, hello).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let relay = pulling(folder.path(), &[address]).await;
    eventually("the error is told", async || {
        daemon_status(&relay).await.errors > 0
    })
    .await;
    let status = daemon_status(&relay).await;
    assert!(
        !status.connected && !status.last_error.is_empty(),
        "{status:?}"
    );
    relay.stop().await;
    other.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_its_own_source_finds_out_and_keeps_its_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let feed = free().await;
    let mut config = settings(folder.path(), &source(&[feed]));
    config.relay.listen.feed.address = relay::Address::Tcp(feed);
    let relay = Relay::with(config).await;
    let (mut sensor, _) = relay.welcomed("a").await;
    sensor.batch(1, 10).await;
    assert_eq!(sensor.ack().await.up_to, 10);
    eventually("it is found out", async || {
        daemon_status(&relay).await.last_error.contains("own feed")
    })
    .await;
    tokio::time::sleep(A_WHILE).await;
    let status = status(&relay).await;
    assert!(!status.sources[0].connected);
    assert_eq!(
        status.journal.expect("a journal").next,
        11,
        "the ten events, once"
    );
    relay.stop().await;
}
