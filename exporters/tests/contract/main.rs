//! What every sink that connects promises the fan-out, held against each of them.
//!
//! Two sinks do not connect and are held to the same elsewhere: `stdout` in its own tests and through the program (`cli/tests/sinks.rs`),
//! `prometheus`, which keeps sums and no events, in `tests/prometheus.rs`.
//!
//! A destination joins by a [`Peer`] in `peers/` and a line in [`contract!`] below. A peer is a scripted server that checks
//! the form of what it gets and remembers which events it has.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "../support/events.rs"]
mod events;
#[path = "../support/fake_http.rs"]
mod fake_http;
mod peers;

use std::sync::Arc;
use std::time::Duration;

use exporters::{Batch, Outcome, Sink, Unavailable};
use tokio::time::timeout;

use events::{alert, alerts, batch, broken, ids, letters, reason, sink, steps};
use peers::{Mood, Peer};

/// What every test gives up after.
const SOON: Duration = Duration::from_secs(60);

macro_rules! contract {
    ($($name:ident: $peer:ty;)*) => { $(
        mod $name {
            use super::*;

            #[tokio::test]
            async fn an_empty_batch_is_fine_and_sends_nothing() {
                super::empty::<$peer>().await;
            }
            #[tokio::test]
            async fn what_it_takes_it_has_once_and_in_order() {
                super::takes::<$peer>().await;
            }
            #[tokio::test]
            async fn a_destination_that_is_busy_is_asked_again_later() {
                super::busy::<$peer>().await;
            }
            #[tokio::test]
            async fn one_bad_event_among_good_ones_costs_itself() {
                super::one_bad::<$peer>().await;
            }
            #[tokio::test]
            async fn a_connection_that_breaks_in_the_middle_loses_nothing() {
                super::breaks::<$peer>().await;
            }
            #[tokio::test]
            async fn a_destination_that_is_away_at_the_start_is_met_later() {
                super::away_at_start::<$peer>().await;
            }
            #[tokio::test]
            async fn a_flush_at_the_end_leaves_nothing_behind() {
                super::drains::<$peer>().await;
            }
            #[tokio::test]
            async fn odd_texts_arrive_or_are_rejected_with_the_reason() {
                super::odd::<$peer>().await;
            }
            #[tokio::test]
            async fn one_that_refuses_everything_is_no_heap_of_dead_letters() {
                super::refuses_all::<$peer>().await;
            }
            #[tokio::test]
            async fn a_trial_tells_every_step_and_the_first_that_fails() {
                super::trial::<$peer>().await;
            }
        }
    )* };
}

contract! {
    elasticsearch: peers::elasticsearch::Elasticsearch;
    file: peers::file::File;
    kafka: peers::kafka::Kafka;
    loki: peers::loki::Loki;
    otlp_http: peers::otlp::OtlpHttp;
    otlp_grpc: peers::otlp::OtlpGrpc;
    webhook_ndjson: peers::webhook::Ndjson;
    webhook_ocsf: peers::webhook::Ocsf;
    syslog_tcp: peers::syslog::Json;
    syslog_cef: peers::syslog::Cef;
    syslog_leef: peers::syslog::Leef;
    relay: peers::relay::Upstream;
}

async fn send(sink: &dyn Sink, batch: &Arc<Batch>) -> Result<Vec<Outcome>, Unavailable> {
    timeout(SOON, sink.send(Arc::clone(batch)))
        .await
        .expect("an answer in time")
}

/// Sends what is not settled until everything is, as the fan-out does.
async fn until_settled(sink: &dyn Sink, batch: &Arc<Batch>) -> String {
    let mut letters = vec!['r'; batch.len()];
    timeout(SOON, async {
        loop {
            let places: Vec<usize> = (0..batch.len()).filter(|&at| letters[at] == 'r').collect();
            if places.is_empty() {
                return;
            }
            let rest = events::batch(places.iter().map(|&at| batch.events()[at].clone()));
            if let Ok(outcomes) = sink.send(rest).await {
                for (place, letter) in places.iter().zip(events::letters(&outcomes).chars()) {
                    letters[*place] = letter;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("settled in time");
    letters.into_iter().collect()
}

async fn met<P: Peer>() -> (P, Box<dyn Sink>) {
    let peer = P::start(fake_http::free_address().await).await;
    let sink = sink(&P::settings(&peer.at()));
    (peer, sink)
}

async fn empty<P: Peer>() {
    let (peer, sink) = met::<P>().await;
    assert_eq!(send(&*sink, &alerts(0)).await, Ok(vec![]));
    assert_eq!(peer.has(), [""; 0]);
}

async fn takes<P: Peer>() {
    let (peer, sink) = met::<P>().await;
    let (first, second) = (alerts(40), batch((41..=50).map(|n| alert(n, "till"))));
    for batch in [&first, &second] {
        let outcomes = send(&*sink, batch).await.unwrap();
        assert_eq!(letters(&outcomes), "d".repeat(batch.len()));
    }
    let expected = [ids(&first), ids(&second)].concat();
    peer.settled(expected.len()).await;
    assert_eq!(peer.has(), expected);
}

async fn busy<P: Peer>() {
    let (peer, sink) = met::<P>().await;
    if !peer.feels(Mood::Busy) {
        return;
    }
    let batch = alerts(3);
    let away = send(&*sink, &batch).await.unwrap_err();
    if let Some(after) = away.after {
        assert_eq!(after, Duration::from_secs(7), "{away}");
    }
    assert!(!away.reason.is_empty());
    peer.feels(Mood::Taking);
    assert_eq!(until_settled(&*sink, &batch).await, "ddd");
    peer.settled(3).await;
    assert_eq!(peer.has(), ids(&batch));
}

async fn one_bad<P: Peer>() {
    let (peer, sink) = met::<P>().await;
    let good = |n| alert(n, "cart");
    // One that nobody can read, and one that only the destination does not like.
    let refusing = peer.feels(Mood::Refusing("evil"));
    let mut events = vec![good(1), broken(2), good(3), good(4)];
    let mut expected = "dxdd".to_owned();
    if refusing {
        events.extend([alert(5, "evil"), good(6)]);
        expected.push_str("xd");
    }
    let batch = batch(events);
    let outcomes = send(&*sink, &batch).await.unwrap();
    assert_eq!(letters(&outcomes), expected, "{outcomes:?}");
    assert!(!reason(&outcomes, 1).is_empty());
    let there = |at: &usize| expected.as_bytes()[*at] == b'd';
    let expected: Vec<String> = (0..batch.len())
        .filter(there)
        .map(|at| ids(&batch)[at].clone())
        .collect();
    peer.settled(expected.len()).await;
    assert_eq!(peer.has(), expected);
    if refusing {
        let told = reason(&outcomes, 4);
        assert!(
            told.contains("I do not like it"),
            "in the destination's words: {told}"
        );
    }
}

async fn breaks<P: Peer>() {
    let (peer, sink) = met::<P>().await;
    if !peer.feels(Mood::Breaking) {
        return;
    }
    let batch = batch((1..=20).map(|n| alert(n, &"c".repeat(P::BULK))));
    // What was said to be done while it broke has to be there in the end, too.
    let first = send(&*sink, &batch).await;
    let done = first
        .map(|outcomes| letters(&outcomes).matches('d').count())
        .unwrap_or(0);
    assert_eq!(done, 0, "nothing is done on a connection that broke");
    peer.feels(Mood::Taking);
    assert_eq!(until_settled(&*sink, &batch).await, "d".repeat(20));
    peer.settled(20).await;
    let mut has = peer.has();
    has.sort();
    has.dedup();
    assert_eq!(has, ids(&batch));
}

async fn away_at_start<P: Peer>() {
    let at = fake_http::free_address().await;
    let sink = sink(&P::settings(&at.to_string()));
    let batch = alerts(2);
    let away = send(&*sink, &batch).await.unwrap_err();
    assert!(!away.reason.is_empty());
    let peer = P::start(at).await;
    assert_eq!(until_settled(&*sink, &batch).await, "dd");
    peer.settled(2).await;
    assert_eq!(peer.has(), ids(&batch));
}

async fn drains<P: Peer>() {
    let (peer, sink) = met::<P>().await;
    let batch = alerts(5);
    assert_eq!(letters(&send(&*sink, &batch).await.unwrap()), "ddddd");
    timeout(SOON, sink.flush()).await.expect("in time").unwrap();
    drop(sink);
    peer.settled(5).await;
    assert_eq!(peer.has(), ids(&batch));
}

/// Control characters, a zero byte, a quote of everybody's syntax, a line end, a mebibyte.
async fn odd<P: Peer>() {
    let (peer, sink) = met::<P>().await;
    // With the rest of the event that is what a relay takes at most.
    let long = "x".repeat(proto::MAX_EVENT - 1024);
    let texts = [
        "\u{1}\u{7f}\u{1b}[31m",
        "a\0b",
        "\"\\|=]}{\t'",
        "one\r\ntwo",
        "dotted.key=\u{feff}\u{202e}火",
        &long,
    ];
    let batch = batch(texts.iter().zip(1..).map(|(text, n)| alert(n, text)));
    let settled = until_settled(&*sink, &batch).await;
    assert_eq!(settled, "dddddd");
    peer.settled(texts.len()).await;
    let mut has = peer.has();
    has.sort();
    assert_eq!(has, ids(&batch));
    for (id, text) in ids(&batch).iter().zip(texts) {
        let seen = peer.pod(id);
        assert!(seen == text, "{id}: {:.60?} came as {:.60?}", text, seen);
    }
}

/// It says no to whatever comes, as after a wrong setting: every event is refused or comes again, with few requests, and all of
/// them go once it is mended.
async fn refuses_all<P: Peer>() {
    let (peer, sink) = met::<P>().await;
    if !peer.feels(Mood::Refusing("")) {
        return;
    }
    let batch = alerts(100);
    let outcomes = send(&*sink, &batch).await.unwrap();
    assert!(!outcomes.contains(&Outcome::Done));
    let refused = |outcome: &&Outcome| matches!(outcome, Outcome::Refuse { .. });
    assert!(outcomes.iter().filter(refused).count() >= 8);
    let rejected = |outcome: &Outcome| matches!(outcome, Outcome::Reject { .. });
    assert!(
        !outcomes.iter().any(rejected),
        "that is for the fan-out to say"
    );
    peer.feels(Mood::Taking);
    assert_eq!(until_settled(&*sink, &batch).await, "d".repeat(100));
    peer.settled(100).await;
}

async fn trial<P: Peer>() {
    let at = fake_http::free_address().await;
    let sink = sink(&P::settings(&at.to_string()));
    let (failed, why) = steps(&*sink, alert(7, "marked")).await;
    assert_eq!(failed.last(), Some(&format!("-{}", P::AWAY)), "{why}");
    assert!(why.contains(&at.port().to_string()), "{why}");
    let peer = P::start(at).await;
    let (told, last) = steps(&*sink, alert(7, "marked")).await;
    let expected: Vec<String> = P::STEPS.iter().map(|step| format!("+{step}")).collect();
    assert_eq!(told, expected, "{last}");
    peer.settled(1).await;
    assert_eq!(peer.pod(&alert(7, "").id().to_string()), "marked");
    if peer.feels(Mood::Refusing("marked")) {
        let (told, why) = steps(&*sink, alert(7, "marked")).await;
        assert_eq!(told.last().map(String::as_str), Some("-write"), "{told:?}");
        assert!(why.contains("I do not like it"), "{why}");
    }
}

#[tokio::test]
async fn otlp_finds_the_events_that_a_collector_did_not_take_and_has_all_others() {
    let (peer, sink) = met::<peers::otlp::OtlpGrpc>().await;
    peer.feels(Mood::AllBut("evil"));
    let pods = |n| {
        if [13, 14, 60].contains(&n) {
            "evil"
        } else {
            "cart"
        }
    };
    let batch = batch((1..=64).map(|n| alert(n, pods(n))));
    let outcomes = send(&*sink, &batch).await.unwrap();
    let expected: String = (1..=64)
        .map(|n| if pods(n) == "evil" { 'x' } else { 'd' })
        .collect();
    assert_eq!(letters(&outcomes), expected);
    assert_eq!(reason(&outcomes, 12), "I do not like it");
    let mut has = peer.has();
    let times = has.len();
    has.sort();
    has.dedup();
    assert_eq!(has.len(), 61, "every good one is there");
    assert!(
        times < 61 * 5,
        "{times}: some more than once, and not often"
    );
}
