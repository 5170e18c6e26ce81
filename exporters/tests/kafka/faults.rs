//! Brokers that go away, topics that are not there, events that are too large or no events.

use std::sync::Arc;
use std::time::Duration;

use exporters::Outcome;
use proto::Kind;

use crate::SUITE;
use crate::scene::{
    LONG, alert, assert_in_order, event, make_topic, read_back, send, send_until_settled, sink,
};
use crate::servers::Kafka;

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_is_told_of_and_nothing_is_rejected() {
    let sink = sink("brokers: ['127.0.0.1:1']");
    let away = send(sink.as_ref(), vec![alert("cart", "x", 1)]).await;
    let reason = away.unwrap_err().reason;
    assert!(reason.contains("127.0.0.1:1"), "{reason}");
    assert!(reason.contains("Connection refused"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_in_mid_stream_loses_nothing_and_keeps_the_order() {
    let Some(mut kafka) = Kafka::start(SUITE) else {
        return;
    };
    let brokers = kafka.brokers();
    let sink: Arc<dyn exporters::Sink> = sink(&format!(
        "brokers: ['{brokers}'], topics: {{alert: t}}, timeout: 10s"
    ))
    .into();
    let feeding = Arc::clone(&sink);
    let (told, mut tells) = tokio::sync::mpsc::unbounded_channel();
    let (trouble, mut troubles) = tokio::sync::mpsc::unbounded_channel();
    let feeder = tokio::spawn(async move {
        for first in (1..=10_000).step_by(100) {
            let batch = (first..first + 100).map(|n| alert(&format!("pod-{}", n % 7), "x", n));
            let mut left: Vec<_> = batch.collect();
            while !left.is_empty() {
                let mut outcomes = match send(feeding.as_ref(), left.clone()).await {
                    Ok(outcomes) => outcomes.into_iter(),
                    Err(away) => {
                        let _ = trouble.send(away.reason);
                        continue;
                    }
                };
                left.retain(|_| match outcomes.next() {
                    Some(Outcome::Done) => false,
                    Some(Outcome::Retry { reason, .. }) => {
                        let _ = trouble.send(reason);
                        true
                    }
                    other => panic!("{other:?}"),
                });
            }
            let _ = told.send(first);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    for _ in 0..10 {
        tells.recv().await.unwrap();
    }
    tokio::task::spawn_blocking(move || {
        kafka.kill();
        let missed = troubles.blocking_recv();
        assert!(missed.is_some(), "the broker was never missed");
        kafka.restart();
        kafka
    })
    .await
    .map(|kafka| async move {
        tokio::time::timeout(5 * LONG, feeder)
            .await
            .unwrap()
            .unwrap();
        let stored = read_back(&kafka.brokers(), "t");
        let ids: std::collections::BTreeSet<u64> = stored.iter().map(|r| r.sequence()).collect();
        assert_eq!(ids, (1..=10_000).collect());
        assert_in_order(&stored);
    })
    .unwrap()
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_missing_holds_back_its_own_events_until_it_is_made() {
    let nothing_made = |_| "auto.create.topics.enable=false\n".to_owned();
    let Some(kafka) = Kafka::with(SUITE, nothing_made) else {
        return;
    };
    let brokers = kafka.brokers();
    make_topic(&brokers, "alerts", &[]).await;
    let sink = sink(&format!(
        "brokers: ['{brokers}'], topics: {{alert: alerts, log: logs}}"
    ));
    let log = || event(Kind::Log, Vec::new(), 2);
    let outcomes = send(sink.as_ref(), vec![alert("cart", "x", 1), log()]).await;
    let outcomes = outcomes.unwrap();
    assert_eq!(outcomes[0], Outcome::Done);
    assert!(
        matches!(&outcomes[1], Outcome::Retry { reason, .. } if reason == "there is no topic logs; create it"),
        "{outcomes:?}"
    );
    let away = send(sink.as_ref(), vec![log()]).await.unwrap_err();
    assert_eq!(away.reason, "there is no topic logs; create it");
    make_topic(&brokers, "logs", &[]).await;
    send_until_settled(sink.as_ref(), vec![log()]).await;
    assert_eq!(read_back(&brokers, "logs").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_event_that_is_too_large_is_rejected_out_of_a_full_request() {
    let Some(kafka) = Kafka::shared(SUITE) else {
        return;
    };
    let brokers = kafka.brokers();
    make_topic(&brokers, "small", &[("max.message.bytes", "20000")]).await;
    let sink = sink(&format!(
        "brokers: ['{brokers}'], topics: {{alert: small}}, compression: none"
    ));
    let large = "x".repeat(30_000);
    for round in 0..2 {
        // Together they are far larger than the topic takes.
        let mut events: Vec<_> = (1..=300)
            .map(|n| alert("cart", &"y".repeat(500), round * 1000 + n))
            .collect();
        events.insert(150, alert("cart", &large, round * 1000 + 500));
        let outcomes = send(sink.as_ref(), events).await.unwrap();
        for (n, outcome) in outcomes.iter().enumerate() {
            match outcome {
                Outcome::Refuse { reason } if n == 150 => {
                    assert!(reason.contains("topic small") && reason.contains("max.message.bytes"));
                }
                outcome => assert_eq!((n, outcome), (n, &Outcome::Done)),
            }
        }
    }
    let stored = read_back(&brokers, "small");
    assert_eq!(stored.len(), 600);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_above_the_brokers_own_limit_is_rejected_with_the_reason() {
    let Some(kafka) = Kafka::shared(SUITE) else {
        return;
    };
    let sink = sink(&format!(
        "brokers: ['{}'], topics: {{alert: large}}, compression: none",
        kafka.brokers()
    ));
    let mib = "x".repeat(1 << 20);
    let events = vec![
        alert("cart", "a", 1),
        alert("cart", &mib, 2),
        alert("cart", "b", 3),
    ];
    let outcomes = send(sink.as_ref(), events).await.unwrap();
    assert_eq!(
        (&outcomes[0], &outcomes[2]),
        (&Outcome::Done, &Outcome::Done)
    );
    assert!(
        matches!(&outcomes[1], Outcome::Refuse { reason } if reason.contains("large")),
        "{:?}",
        outcomes[1]
    );
    assert_eq!(read_back(&kafka.brokers(), "large").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_event_are_rejected_and_the_others_arrive() {
    let Some(kafka) = Kafka::shared(SUITE) else {
        return;
    };
    let sink = sink(&format!(
        "brokers: ['{}'], topics: {{alert: odd}}",
        kafka.brokers()
    ));
    let long = "é".repeat(400_000);
    let texts = [
        "line\nbreak \u{0} \u{7f}\u{1b}[31m",
        "\"\\{}[],:",
        "dotted.key=\u{2028}\u{feff}\u{202e}火",
        "",
        &long,
    ];
    let mut events = vec![
        alert("cart", "a", 1),
        event(Kind::Alert, vec![0x0a, 200], 2),
    ];
    events.extend(
        texts
            .iter()
            .zip(3..)
            .map(|(text, n)| alert("cart", text, n)),
    );
    // A pod whose name is no name: the key of its record.
    events.push(alert("\0/\u{7f}{pod}", "key", 8));
    let outcomes = send(sink.as_ref(), events).await.unwrap();
    for (n, outcome) in outcomes.iter().enumerate() {
        match n {
            1 => assert!(matches!(outcome, Outcome::Reject { .. }), "{outcomes:?}"),
            n => assert_eq!((n, outcome), (n, &Outcome::Done)),
        }
    }
    let stored = read_back(&kafka.brokers(), "odd");
    assert_eq!(stored.len(), 7);
    for (text, n) in texts.iter().zip(3..) {
        let record = stored.iter().find(|r| r.sequence() == n).unwrap().json();
        let message = record["Message"].as_str().unwrap_or_default();
        assert!(message == *text, "{n}: {message:.60}");
    }
    let odd = stored.iter().find(|r| r.sequence() == 8).unwrap();
    assert_eq!(odd.json()["PodName"], "\0/\u{7f}{pod}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_send_that_nobody_waits_for_leaves_nothing_behind_for_the_next() {
    let Some(kafka) = Kafka::shared(SUITE) else {
        return;
    };
    let sink = sink(&format!(
        "brokers: ['{}'], topics: {{alert: dropped}}",
        kafka.brokers()
    ));
    let many = (1..=5000).map(|n| alert("cart", "x", n)).collect();
    let cut = tokio::time::timeout(Duration::from_millis(1), send(sink.as_ref(), many)).await;
    assert!(cut.is_err(), "it took longer than it should");
    let outcomes = send(sink.as_ref(), vec![alert("cart", "y", 9000)]).await;
    assert_eq!(outcomes, Ok(vec![Outcome::Done]));
    let stored = read_back(&kafka.brokers(), "dropped");
    assert_eq!(stored.last().map(|r| r.sequence()), Some(9000));
}
