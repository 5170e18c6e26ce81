//! What a relay asks a daemon, and what becomes of the events.

use std::collections::BTreeSet;

use bytes::Bytes;
use proto::Kind;
use proto::feeder::RequestMessage;
use proto::feeder::log_service_client::LogServiceClient;

use crate::daemon::{Daemon, free};
use crate::scene::{
    Kept, alert, daemon_status, eventually, log, message, number, of_streams, pulling, status,
};
use crate::support::channel;

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_is_asked_what_kubearmors_relay_asks_over_one_connection() {
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start().await;
    let relay = pulling(folder.path(), &[daemon.address]).await;
    daemon.watched().await;
    let mut asked = daemon.asked();
    assert_eq!(asked.remove(0), "HealthCheck");
    asked.sort();
    assert_eq!(
        asked,
        [
            "WatchAlerts policy",
            "WatchLogs system",
            "WatchMessages all"
        ]
    );
    assert_eq!(daemon.connections(), 1);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_kept_byte_for_byte_under_ids_given_at_arrival() {
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start().await;
    let relay = pulling(folder.path(), &[daemon.address]).await;
    daemon.watched().await;
    // A field that nobody knows, and known ones twice and out of order, come through as they are.
    let odd = [&alert(2)[..], b"\xb8\x3e\x07\x08\x01\xb8\x3e\x08"].concat();
    let sent = [
        (Kind::Alert, alert(1)),
        (Kind::Alert, odd),
        (Kind::Log, log(3, 100_000)),
        (Kind::Message, message("hello")),
    ];
    for (kind, event) in &sent {
        daemon.send(*kind, event.clone()).await;
    }
    let mut kept = Kept::of(&relay, &Kind::ALL).await;
    let (mut streams, mut sequences, mut payloads) =
        (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for _ in &sent {
        let (id, payload) = kept.next().await;
        streams.insert(id.stream);
        sequences.insert(id.sequence);
        payloads.insert(payload);
    }
    assert_eq!(streams.len(), 1, "one stream a source");
    assert_eq!(sequences, BTreeSet::from([1, 2, 3, 4]));
    assert_eq!(
        payloads,
        sent.into_iter()
            .map(|(_, event)| Bytes::from(event))
            .collect()
    );
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_clients_of_the_relay_get_what_the_daemon_sends() {
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start().await;
    let relay = pulling(folder.path(), &[daemon.address]).await;
    let mut client = LogServiceClient::new(channel(relay.at.feed).await);
    let word = RequestMessage {
        filter: "policy".to_owned(),
    };
    let mut alerts = client
        .watch_alerts(word)
        .await
        .expect("a stream")
        .into_inner();
    daemon.watched().await;
    daemon.send(Kind::Alert, alert(7)).await;
    let alert = alerts.message().await.expect("no error").expect("an alert");
    assert_eq!((&*alert.pod_name, alert.event_id.len()), ("pod-7", 16));
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_and_metrics_tell_how_each_daemon_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let (daemon, nobody) = (Daemon::start().await, free().await);
    let relay = pulling(folder.path(), &[daemon.address, nobody]).await;
    daemon.watched().await;
    for number in 0..5 {
        daemon.send(Kind::Log, log(number, 10)).await;
    }
    daemon.send(Kind::Alert, alert(1)).await;
    eventually("all is counted", async || {
        let status = status(&relay).await;
        of_streams(&status.sources[0], |stream| stream.events) == [1, 5, 0]
            && status.sources[1].errors > 0
    })
    .await;
    let status = status(&relay).await;
    let [up, down] = &status.sources[..] else {
        panic!("one status a daemon: {:?}", status.sources)
    };
    assert_eq!(
        (&*up.name, &*up.r#type, &*up.address),
        ("old", "kubearmor", &*daemon.address.to_string())
    );
    assert!(
        up.connected && up.since_unix > 0 && up.streams.iter().all(|stream| stream.open),
        "{up:?}"
    );
    assert!(!down.connected && down.since_unix == 0, "{down:?}");
    assert!(
        down.last_error.contains("refused") && down.last_error_unix > 0,
        "{down:?}"
    );
    assert_eq!(status.losses, []);

    let (up, down) = (daemon.address, nobody);
    let figure = async |name: &str| relay.metric(name).await;
    assert_eq!(
        figure(&format!(
            r#"cresset_source_connected{{address="{up}",source="old"}}"#
        ))
        .await,
        1.0
    );
    assert_eq!(
        figure(&format!(
            r#"cresset_source_connected{{address="{down}",source="old"}}"#
        ))
        .await,
        0.0
    );
    let events =
        format!(r#"cresset_source_events_total{{address="{up}",kind="log",source="old"}}"#);
    assert_eq!(figure(&events).await, 5.0);
    let errors = format!(
        r#"cresset_source_errors_total{{address="{down}",source="old",what="connection"}}"#
    );
    assert!(figure(&errors).await > 0.0);
    assert_eq!(relay.page().await.door("source", "acknowledged"), 6);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_is_in_the_journal_when_the_relay_has_stopped() {
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start().await;
    let relay = pulling(folder.path(), &[daemon.address]).await;
    daemon.watched().await;
    let sending = async {
        for number in 1.. {
            daemon.send(Kind::Log, log(number, 500)).await;
            // With nobody there it waits for nothing.
            tokio::task::yield_now().await;
        }
    };
    let stopping = async {
        eventually("events come", async || {
            daemon_status(&relay).await.streams[1].events > 100
        })
        .await;
        relay.stop().await;
    };
    tokio::select! {
        () = sending => panic!("it never ends"),
        () = stopping => {}
    }
    drop(daemon);
    // Without the source: what is there is what was kept.
    let relay = crate::support::Relay::start(folder.path()).await;
    let next = status(&relay).await.journal.expect("a journal").next;
    assert!(next > 100, "{next}");
    let mut kept = Kept::of(&relay, &[Kind::Log]).await;
    for expected in 1..next {
        let (id, payload) = kept.next().await;
        assert_eq!(
            (id.sequence, number(&payload)),
            (expected, expected),
            "in order and without a hole"
        );
    }
    relay.stop().await;
}
