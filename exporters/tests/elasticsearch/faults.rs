//! What a real server does not do on demand. Whatever happens to the answer, each event is there once, and none is said to be
//! there that is not.

use std::time::{Duration, Instant};

use exporters::Outcome;

use crate::fake::{Act, Fake, lines};
use crate::scene::*;

const MANUAL: &str = "index: {setup: manual}, request_timeout: 1s";

#[tokio::test]
async fn an_answer_that_is_lost_cut_or_wrong_is_a_sink_that_is_away_and_the_events_are_there_once()
{
    for (act, words) in [
        (Act::TakeAndReset, "reset"),
        (Act::TakeAndClose, ""),
        (Act::TakeAndOverstate, ""),
        (Act::TakeAndUnderstate, "none to a bulk request"),
        (Act::TakeAndForget, "tells of 2 events when 3 were sent"),
        (Act::TakeAndHang, "timed out"),
        (Act::TakeSlowly(Duration::from_millis(50)), "timed out"),
    ] {
        let fake = Fake::start([act.clone()]).await;
        let sink = sink_to(&fake.url(), MANUAL);
        let events = alerts(1..=3);
        let away = send(&*sink, &events).await.unwrap_err();
        assert!(
            away.reason.starts_with(&fake.url()),
            "{act:?}: {}",
            away.reason
        );
        assert!(away.reason.contains(words), "{act:?}: {}", away.reason);
        let (refused, _) = deliver(&*sink, &events, 3).await;
        assert!(refused.is_empty());
        let expected = events
            .iter()
            .map(|event| (event.id().to_string(), 1))
            .collect();
        assert_eq!(fake.kept(), expected, "{act:?}");
    }
}

#[tokio::test]
async fn a_slow_answer_within_the_time_is_an_answer() {
    let fake = Fake::start([Act::TakeSlowly(Duration::from_millis(1))]).await;
    let sink = sink_to(&fake.url(), "index: {setup: manual}, request_timeout: 30s");
    send_all_done(&*sink, &alerts(1..=3)).await;
}

#[tokio::test]
async fn a_server_that_is_busy_is_left_alone_for_as_long_as_it_asks_and_then_gets_less() {
    let busy =
        r#"{"error":{"type":"es_rejected_execution_exception","reason":"too much"},"status":429}"#;
    let fake = Fake::start([Act::Say(429, "Retry-After: 7\r\n", busy.into())]).await;
    let sink = sink_to(&fake.url(), MANUAL);
    let events = alerts(1..=100);
    let away = send(&*sink, &events).await.unwrap_err();
    assert_eq!(away.after, Some(Duration::from_secs(7)));
    assert!(
        away.reason
            .contains("status 429 es_rejected_execution_exception: too much"),
        "{}",
        away.reason
    );
    send_all_done(&*sink, &events).await;
    let sizes: Vec<usize> = fake.bulks().iter().map(|bulk| bulk.body.len()).collect();
    assert!(
        sizes.len() >= 3 && sizes[1] <= sizes[0] / 2 + 1024,
        "{sizes:?}"
    );
}

#[tokio::test]
async fn a_body_that_is_too_large_goes_in_halves_at_once() {
    let fake = Fake::start([
        Act::Say(413, "", String::new()),
        Act::Say(413, "", String::new()),
    ])
    .await;
    let sink = sink_to(&fake.url(), MANUAL);
    send_all_done(&*sink, &alerts(1..=100)).await;
    let counts: Vec<usize> = fake
        .bulks()
        .iter()
        .map(|bulk| lines(&bulk.body).len())
        .collect();
    assert_eq!(
        (counts[0], counts[2..].iter().sum()),
        (100, 100),
        "{counts:?}"
    );
    assert!(counts[2] <= 26, "{counts:?}");
}

#[tokio::test]
async fn items_that_are_busy_come_again_and_items_that_are_forbidden_hold_everything_back() {
    let error = r#"{"type":"es_rejected_execution_exception","reason":"queue"}"#;
    let forbidden = r#"{"type":"security_exception","reason":"action [indices:data/write/bulk[s]] is unauthorized"}"#;
    let fake = Fake::start([
        Act::Items(429, error),
        Act::Items(403, forbidden),
        Act::Items(500, error),
    ])
    .await;
    let sink = sink_to(&fake.url(), MANUAL);
    let events = alerts(1..=3);
    let outcomes = send(&*sink, &events).await.unwrap();
    assert!(
        outcomes
            .iter()
            .all(|outcome| matches!(outcome, Outcome::Retry { .. })),
        "{outcomes:?}"
    );
    let away = send(&*sink, &events).await.unwrap_err();
    assert!(away.reason.contains("is unauthorized"), "{}", away.reason);
    let outcomes = send(&*sink, &events).await.unwrap();
    assert!(
        outcomes
            .iter()
            .all(|outcome| matches!(outcome, Outcome::Retry { .. })),
        "{outcomes:?}"
    );
    send_all_done(&*sink, &events).await;
}

#[tokio::test]
async fn settings_that_are_wrong_hold_everything_back_and_say_what_to_look_at() {
    for (status, words) in [
        (400, "status 400"),
        (401, "look at the sink's `auth`"),
        (403, "may not write here"),
        (404, "look at the path"),
        (503, "status 503"),
    ] {
        let body = format!(r#"{{"error":{{"type":"t","reason":"r"}},"status":{status}}}"#);
        let fake = Fake::start([Act::Say(status, "", body)]).await;
        let sink = sink_to(&fake.url(), MANUAL);
        let away = send(&*sink, &alerts(1..=2)).await.unwrap_err();
        assert!(away.reason.contains(words), "{}", away.reason);
        send_all_done(&*sink, &alerts(1..=2)).await;
    }
}

#[tokio::test]
async fn a_page_of_a_proxy_is_no_answer_and_is_shown_without_its_escapes() {
    let page = "<html>\x1b[2J\n<h1>maintenance</h1>";
    let fake = Fake::start([Act::Say(200, "", page.into())]).await;
    let sink = sink_to(&fake.url(), MANUAL);
    let away = send(&*sink, &alerts(1..=2)).await.unwrap_err();
    assert!(
        away.reason.contains("maintenance") && !away.reason.contains('\x1b'),
        "{}",
        away.reason
    );
}

#[tokio::test]
async fn a_host_that_nobody_knows_and_a_port_that_is_closed_are_told_apart() {
    for (url, words) in [
        ("http://nobody.invalid:9200", "lookup"),
        ("http://127.0.0.1:1", "refused"),
    ] {
        let away = send(
            &*sink_to(url, "index: {setup: manual}, request_timeout: 60s"),
            &alerts(1..=1),
        )
        .await
        .unwrap_err();
        assert!(
            away.reason.starts_with(url) && away.reason.contains(words),
            "{}",
            away.reason
        );
    }
}

#[tokio::test]
async fn a_host_that_is_busy_is_passed_over_for_one_that_is_not() {
    let busy = || Act::Say(503, "", String::new());
    let (first, second) = (Fake::start([busy(), busy()]).await, Fake::start([]).await);
    let text = format!(
        "{{type: elasticsearch, endpoints: ['{}', '{}'], {MANUAL}}}",
        first.url(),
        second.url()
    );
    let sink = sink(&text);
    for sequence in 1..=4 {
        send_all_done(&*sink, &alerts([sequence])).await;
    }
    assert_eq!(second.kept().len() + first.kept().len(), 4);
    // One sign of life each.
    assert_eq!((first.heads(), second.heads()), (1, 1));
}

#[tokio::test]
async fn an_empty_batch_asks_nobody() {
    let fake = Fake::start([]).await;
    let sink = sink_to(&fake.url(), MANUAL);
    send_all_done(&*sink, &[]).await;
    assert_eq!((fake.heads(), fake.bulks().len()), (0, 0));
}

#[tokio::test]
async fn one_event_that_no_renderer_can_read_does_not_hold_up_the_others() {
    let fake = Fake::start([]).await;
    let sink = sink_to(&fake.url(), "index: {layout: fixed, setup: manual}");
    let mut events = alerts(1..=3);
    let broken = proto::Event {
        payload: vec![0x0a, 200].into(),
        ..events[1].event().clone()
    };
    events[1] = exporters::Encoded::new(broken).into();
    let outcomes = send(&*sink, &events).await.unwrap();
    assert!(
        rejection(&outcomes[1]).contains("cannot be printed"),
        "{outcomes:?}"
    );
    assert_eq!(
        (&outcomes[0], &outcomes[2]),
        (&Outcome::Done, &Outcome::Done)
    );
}

#[tokio::test]
async fn a_send_that_is_given_up_leaves_the_sink_usable() {
    let fake = Fake::start([Act::TakeAndHang]).await;
    let sink = sink_to(&fake.url(), "concurrency: 1, index: {setup: manual}");
    let events = alerts(1..=2);
    let start = Instant::now();
    let given_up = tokio::time::timeout(Duration::from_millis(300), send(&*sink, &events)).await;
    assert!(given_up.is_err() && start.elapsed() < Duration::from_secs(20));
    send_all_done(&*sink, &events).await;
    assert!(fake.kept().values().all(|times| *times == 1));
}

#[tokio::test]
async fn a_server_that_was_away_may_be_another_one_and_is_looked_at_again() {
    let fake = Fake::start([Act::TakeAndReset]).await;
    let sink = sink_to(&fake.url(), "request_timeout: 1s");
    send(&*sink, &alerts(1..=2)).await.unwrap_err();
    let looked = fake.heads();
    send_all_done(&*sink, &alerts(1..=2)).await;
    let again = fake.heads();
    // Lifecycles, templates and aliases of three kinds, besides the sign of life.
    assert!(looked > 9 && again >= 2 * looked - 1, "{looked}, {again}");
    send_all_done(&*sink, &alerts(3..=4)).await;
    assert_eq!(fake.heads(), again);
}

#[tokio::test]
async fn a_cluster_that_was_rebuilt_during_a_pause_is_looked_at_before_the_next_event() {
    const PAUSE: Duration = Duration::from_secs(11);
    let fake = Fake::start([]).await;
    fake.become_cluster("first");
    let sink = sink_to(&fake.url(), "request_timeout: 30s");
    send_all_done(&*sink, &alerts(1..=2)).await;
    let looked = fake.heads();
    tokio::time::sleep(PAUSE).await;
    send_all_done(&*sink, &alerts(3..=4)).await;
    let same = fake.heads();
    assert_eq!(same - looked, 1, "it is the same cluster");
    fake.become_cluster("second");
    tokio::time::sleep(PAUSE).await;
    send_all_done(&*sink, &alerts(5..=6)).await;
    assert!(fake.heads() - same > 9, "{looked}, {}", fake.heads());
}
