//! More than the relay can take now, and much at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proto::Kind;
use tokio::time::sleep;

use crate::daemon::{A_WHILE, Daemon};
use crate::scene::{Kept, daemon_status, eventually, log, pulling, source, status};
use crate::support::{Relay, settings};

#[tokio::test(flavor = "multi_thread")]
async fn everything_a_fast_daemon_sends_is_kept_in_order() {
    const EVENTS: u64 = 20_000;
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start().await;
    let relay = pulling(folder.path(), &[daemon.address]).await;
    daemon.watched().await;
    let sending = async {
        for number in 1..=EVENTS {
            daemon.send(Kind::Log, log(number, 600)).await;
        }
    };
    let mut kept = Kept::of(&relay, &[Kind::Log]).await;
    let reading = async {
        for expected in 1..=EVENTS {
            assert_eq!(kept.log().await, expected);
        }
    };
    tokio::join!(sending, reading);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_journal_holds_the_daemon_back_and_loses_nothing() {
    // 12 MB: more than the journal, the windows and the daemon's queue hold.
    full(12_000, 1000).await;
}

/// More frames wait than h2 allows of such small ones, were they left to it.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_journal_holds_a_daemon_of_small_events_back_and_keeps_the_connection() {
    full(120_000, 20).await;
}

/// A daemon sends so many events with so many bytes of data to a relay whose journal is full before that.
async fn full(count: u64, size: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = Arc::new(Daemon::start().await);
    // A sink that cannot write, and may not be expired: a file stands where its folder would be.
    let obstacle = folder.path().join("x");
    std::fs::write(&obstacle, "").expect("written");
    let sinks = format!(
        "sinks:\n  stuck: {{type: file, path: {}/events.jsonl, when_full: refuse, retry: {{initial: 50ms, max: 200ms}}}}\n",
        obstacle.display()
    );
    let mut config = settings(
        folder.path(),
        &format!("{}{sinks}", source(&[daemon.address])),
    );
    config.relay.retention.max_size = "2MiB".parse().expect("a size");
    let relay = Relay::with(config).await;
    daemon.watched().await;
    let sent = Arc::new(AtomicU64::new(0));
    let sending = tokio::spawn({
        let (daemon, sent) = (daemon.clone(), sent.clone());
        async move {
            for number in 1..=count {
                daemon.send(Kind::Log, log(number, size)).await;
                sent.store(number, Ordering::Relaxed);
            }
        }
    });
    let full = r#"cresset_journal_writable"#;
    relay.metric_is(full, 0.0).await;
    let mut before = u64::MAX;
    eventually("the daemon is held back", async || {
        let last = std::mem::replace(&mut before, sent.load(Ordering::Relaxed));
        sleep(A_WHILE).await;
        last == before
    })
    .await;
    assert!(before < count, "all {count} went out");
    let held = daemon_status(&relay).await;
    assert!(held.connected && held.errors == 0, "{held:?}");

    std::fs::remove_file(&obstacle).expect("removed");
    std::fs::create_dir(&obstacle).expect("a folder");
    sending.await.expect("all was sent");
    eventually("all is kept", async || {
        daemon_status(&relay).await.streams[1].events == count
    })
    .await;
    let status = status(&relay).await;
    assert_eq!((status.sources[0].errors, &status.losses[..]), (0, &[][..]));
    assert_eq!(daemon.connections(), 1);
    relay.stop().await;
    let text = std::fs::read_to_string(obstacle.join("events.jsonl")).expect("a file");
    let pods: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split(r#""PodName":"pod-"#).nth(1)?.split('"').next())
        .collect();
    let expected: Vec<String> = (1..=count).map(|number| number.to_string()).collect();
    assert!(pods == expected, "{} events in the file", pods.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_daemons_are_read_at_once_each_in_its_order() {
    const DAEMONS: u64 = 20;
    const EVENTS: u64 = 200;
    let folder = tempfile::tempdir().expect("a folder");
    let mut daemons = Vec::new();
    for _ in 0..DAEMONS {
        daemons.push(Daemon::start().await);
    }
    let addresses: Vec<_> = daemons.iter().map(|daemon| daemon.address).collect();
    let relay = pulling(folder.path(), &addresses).await;
    let sending = daemons.iter().enumerate().map(async |(index, daemon)| {
        daemon.watched().await;
        for number in 0..EVENTS {
            daemon
                .send(Kind::Log, log(1000 * index as u64 + number, 200))
                .await;
        }
    });
    futures::future::join_all(sending).await;
    let mut kept = Kept::of(&relay, &[Kind::Log]).await;
    let mut next = vec![0; DAEMONS as usize];
    for _ in 0..DAEMONS * EVENTS {
        let number = kept.log().await;
        let daemon = &mut next[(number / 1000) as usize];
        assert_eq!(number % 1000, *daemon);
        *daemon += 1;
    }
    assert_eq!(next, vec![EVENTS; DAEMONS as usize]);
    relay.stop().await;
}
