//! Each event once, whatever happens to the server, in the index of its own day.

use proto::Kind;
use serde_json::json;

use crate::scene::*;
use crate::server::{Elasticsearch, Product};

const SUITE: &str = "elasticsearch: once";

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_events_are_there_once_each_though_all_come_twice() {
    let Some(server) = Elasticsearch::shared(SUITE) else {
        return;
    };
    let sink = sink_to(&server.url(), &names("twice", ""));
    let events = alerts(1..=10_000);
    for _ in 0..2 {
        let (refused, _) = deliver(&*sink, &events, 3000).await;
        assert!(refused.is_empty(), "{refused:?}");
    }
    assert_eq!(
        server
            .count("twice-alerts", json!({ "match_all": {} }))
            .await,
        10_000
    );
    let ids = server.ids("twice-alerts").await;
    let expected = events
        .iter()
        .map(|event| (event.id().to_string(), 1))
        .collect();
    assert_eq!(ids, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_is_whole_in_an_index_of_its_own_day_under_one_name() {
    let Some(server) = Elasticsearch::shared(SUITE) else {
        return;
    };
    let sink = sink_to(&server.url(), &names("kinds", ""));
    let yesterday = alert_with(2, |alert| {
        alert.updated_time = proto::updated_time(now() - DAY)
    });
    let events = [alert(1), yesterday, log(3), message(4)];
    send_all_done(&*sink, &events).await;

    let day = |time: u64| proto::updated_time(time)[..10].replace('-', ".");
    for (event, index) in events.iter().zip([
        format!("kinds-alerts-{}", day(now())),
        format!("kinds-alerts-{}", day(now() - DAY)),
        format!("kinds-logs-{}", day(now())),
        format!("kinds-messages-{}", day(now())),
    ]) {
        let found = server.get(&format!("{index}/_doc/{}", event.id())).await;
        let expected: serde_json::Value =
            serde_json::from_slice(&event.json(proto::FieldSet::All).unwrap()).unwrap();
        assert_eq!(found["_source"], expected);
    }
    assert_eq!(
        server
            .count("kinds-alerts", json!({ "match_all": {} }))
            .await,
        2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_old_has_no_time_or_is_still_to_come_makes_no_index() {
    let Some(server) = Elasticsearch::shared(SUITE) else {
        return;
    };
    let sink = sink_to(&server.url(), &names("old", "retention: 7d"));
    let at = |sequence, time: u64| {
        alert_with(sequence, move |alert| {
            alert.updated_time = proto::updated_time(time)
        })
    };
    let timeless = event(Kind::Alert, 5, &proto::feeder::Alert::default());
    let events = [
        at(1, now() - 9 * DAY),
        at(2, now() - 6 * DAY),
        at(3, now() + 3 * DAY),
        alert(4),
        timeless,
    ];
    let outcomes = send(&*sink, &events).await.unwrap();
    assert!(rejection(&outcomes[0]).contains("older than the retention of the index (7 days)"));
    assert!(rejection(&outcomes[2]).contains("look at the clock of its node"));
    assert!(rejection(&outcomes[4]).contains("no time that can be read"));
    let ids = server.ids("old-alerts-*").await;
    assert_eq!(
        ids.into_keys().collect::<Vec<_>>(),
        [events[1].id().to_string(), events[3].id().to_string()]
    );
    let indices = server.get("old-alerts-*/_alias").await;
    assert_eq!(indices.as_object().unwrap().len(), 2, "{indices}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fixed_index_is_exactly_that_index() {
    let Some(server) = Elasticsearch::shared(SUITE) else {
        return;
    };
    let names = "index: {layout: fixed, alert: fixed-one, log: fixed-one, message: fixed-one}";
    let sink = sink_to(&server.url(), names);
    let old = alert_with(1, |alert| {
        alert.updated_time = "2020-01-01T00:00:00.000000Z".into()
    });
    send_all_done(&*sink, &[old, log(2), alert(3)]).await;
    assert_eq!(server.ids("fixed-one").await.len(), 3);
    let indices = server.get("fixed-one*/_alias").await;
    assert_eq!(
        indices.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["fixed-one"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_stream_takes_events_of_every_kind() {
    let Some(server) = Elasticsearch::shared(SUITE) else {
        return;
    };
    let sink = sink_to(&server.url(), &names("stream", "layout: data-stream"));
    let events = [alert(1), alert(2), log(3), message(4)];
    send_all_done(&*sink, &events).await;
    // Within one backing index an event that comes again is no second one.
    send_all_done(&*sink, &events).await;
    let streams = server.get("_data_stream/stream-*").await;
    assert_eq!(
        streams["data_streams"].as_array().unwrap().len(),
        3,
        "{streams}"
    );
    assert_eq!(server.ids("stream-alerts").await.len(), 2);
    let recent = json!({ "range": { "@timestamp": { "gte": "now-1h" } } });
    assert_eq!(server.count("stream-alerts", recent).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_or_dies_in_mid_stream_has_every_event_once() {
    let Some(mut server) = Elasticsearch::start(SUITE, Product::Elasticsearch, &[]) else {
        return;
    };
    let sink = sink_to(&server.url(), "request_timeout: 10s");
    let events = alerts(1..=6000);
    let (first, rest) = events.split_at(1000);
    deliver(&*sink, first, 500).await;
    for kill in [false, true] {
        let half = &rest[usize::from(kill) * 2500..][..2500];
        let outage = tokio::task::spawn_blocking(move || {
            std::thread::sleep(std::time::Duration::from_millis(150));
            if kill {
                server.kill();
            } else {
                server.stop();
            }
            server.restart();
            server
        });
        let (refused, sends) = deliver(&*sink, half, 100).await;
        server = outage.await.unwrap();
        assert!(refused.is_empty(), "{refused:?}");
        println!("{sends} sends for 25 batches");
    }
    let ids = server.ids("kubearmor-alerts").await;
    let expected = events
        .iter()
        .map(|event| (event.id().to_string(), 1))
        .collect();
    assert_eq!(ids, expected);
}

/// Removes all that the sink made: the template, so that the index that follows has none, and everything else.
async fn empty(server: &Elasticsearch, name: &str) {
    let (status, told) = server
        .ask("DELETE", &format!("_index_template/{name}"), None)
        .await;
    assert_eq!(status, 200, "{told}");
    let held = server.get(&format!("{name}-*/_alias")).await;
    for index in held.as_object().unwrap().keys() {
        let (status, told) = server.ask("DELETE", index, None).await;
        assert_eq!(status, 200, "{told}");
    }
    // Used by nobody any more, unless an index was made meanwhile.
    server
        .ask("DELETE", &format!("_ilm/policy/{name}"), None)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_emptied_in_mid_stream_is_prepared_again_and_has_what_follows_once() {
    let Some(server) = Elasticsearch::shared(SUITE) else {
        return;
    };
    let name = "emptied-alerts";
    let sink = sink_to(&server.url(), &names("emptied", ""));
    let events = alerts(1..=4000);
    let mut after = Vec::new();
    for (n, batch) in events.chunks(50).enumerate() {
        if n % 20 == 10 {
            let (refused, ()) = tokio::join!(deliver(&*sink, batch, 5), async {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                empty(&server, name).await;
            });
            assert!(refused.0.is_empty(), "{refused:?}");
            after.clear();
            continue;
        }
        let (refused, _) = deliver(&*sink, batch, 50).await;
        assert!(refused.is_empty(), "{refused:?}");
        after.extend(batch.iter().map(|event| event.id().to_string()));
        // One batch later all is as it was: what it is read under, and what the next index needs.
        if n % 20 == 11 {
            let held = server.get(&format!("{name}/_alias")).await;
            for index in held.as_object().unwrap().keys() {
                let settings = server.get(&format!("{index}/_settings")).await;
                let lifecycle = &settings[index]["settings"]["index"]["lifecycle"]["name"];
                assert_eq!(lifecycle, name, "{settings}");
            }
            server.get(&format!("_index_template/{name}")).await;
            server.get(&format!("_ilm/policy/{name}")).await;
        }
    }
    let ids = server.ids(name).await;
    let lost: Vec<_> = after.iter().filter(|id| !ids.contains_key(*id)).collect();
    assert!(lost.is_empty(), "{} of {}", lost.len(), after.len());
    assert!(ids.values().all(|count| *count == 1));
    // As `cresset sink rewind` does: what was removed comes back, and nothing twice.
    let (refused, _) = deliver(&*sink, &events, 500).await;
    assert!(refused.is_empty(), "{refused:?}");
    let expected = events.iter().map(|event| (event.id().to_string(), 1));
    assert_eq!(server.ids(name).await, expected.collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_away_is_passed_over() {
    let Some(server) = Elasticsearch::shared(SUITE) else {
        return;
    };
    // Nobody listens there.
    let closed = format!("http://127.0.0.1:{}", crate::servers::free_ports(1));
    let both = format!(
        "{{type: elasticsearch, endpoints: ['{closed}', '{}'], {}}}",
        server.url(),
        names("failover", "")
    );
    let sink = sink(&both);
    for sequence in 1..=6 {
        send_all_done(&*sink, &[alert(sequence)]).await;
    }
    assert_eq!(server.ids("failover-alerts").await.len(), 6);
    let gone = send(&*sink_to(&closed, ""), &[alert(1)]).await.unwrap_err();
    assert!(
        gone.reason.starts_with(&closed) && gone.reason.contains("refused"),
        "{}",
        gone.reason
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_tells_each_step_and_reads_its_event_back() {
    let Some(server) = Elasticsearch::shared(SUITE) else {
        return;
    };
    let sink = sink_to(&server.url(), &names("trial", ""));
    let (trial, mut steps) = exporters::Trial::new();
    sink.test(alert(1), &trial).await.unwrap();
    drop(trial);
    let mut told = Vec::new();
    while let Some(step) = steps.recv().await {
        told.push((step.name, step.outcome.unwrap()));
    }
    let names: Vec<&str> = told.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        names,
        ["resolve", "connect", "authenticate", "write", "read back"]
    );
    assert!(told[2].1.starts_with("Elasticsearch 8."), "{told:?}");
    assert!(told[4].1.starts_with("trial-alerts-"), "{told:?}");
}
