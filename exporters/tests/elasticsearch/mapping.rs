//! What can be searched, and what becomes of events that do not fit.

use proto::feeder;
use serde_json::json;

use crate::scene::*;
use crate::server::Elasticsearch;

const SUITE: &str = "elasticsearch: mapping";

#[tokio::test(flavor = "multi_thread")]
async fn fields_are_found_as_what_they_are() {
    let Some(server) = Elasticsearch::shared(SUITE) else {
        return;
    };
    let sink = sink_to(&server.url(), &names("find", ""));
    let today = now();
    let severe = |sequence, severity: &str, time| {
        let severity = severity.to_owned();
        alert_with(sequence, move |alert| {
            alert.severity = severity;
            alert.updated_time = proto::updated_time(time);
            alert.owner = Some(feeder::Podowner {
                name: "cart".into(),
                ..Default::default()
            });
        })
    };
    send_all_done(
        &*sink,
        &[
            severe(1, "5", today),
            severe(2, "10", today + 1000),
            message(3),
        ],
    )
    .await;
    let alerts = "find-alerts";
    let between =
        json!({ "gt": proto::updated_time(today), "lte": proto::updated_time(today + 1000) });
    for (query, expected) in [
        (json!({ "range": { "Severity.number": { "gte": 6 } } }), 1),
        (json!({ "term": { "Severity": "5" } }), 1),
        (json!({ "match": { "Resource.text": "nmap" } }), 2),
        (
            json!({ "term": { "Resource": "/usr/bin/apt install nmap" } }),
            2,
        ),
        (json!({ "match": { "Labels.text": "cart" } }), 2),
        (
            json!({ "term": { "EventData.Lsm": "SECURITY_BPRM_CHECK" } }),
            2,
        ),
        (json!({ "term": { "Owner.Name": "cart" } }), 2),
        // Microseconds count.
        (json!({ "range": { "UpdatedTime": between } }), 1),
        (json!({ "range": { "@timestamp": between } }), 1),
        (
            json!({ "range": { "Timestamp": { "gte": today / 1_000_000_000 - 60 } } }),
            2,
        ),
    ] {
        assert_eq!(
            server.count(alerts, query.clone()).await,
            expected,
            "{query}"
        );
    }
    let lost = json!({ "match": { "Message": "lost" } });
    assert_eq!(server.count("find-messages", lost).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_events_are_kept_whole_and_fix_no_types() {
    let Some(server) = Elasticsearch::shared(SUITE) else {
        return;
    };
    let sink = sink_to(&server.url(), &names("odd", ""));
    let long = "é".repeat(500_000);
    let keys = (0..2000).map(|n| (format!("Key.{n}.x"), "1".to_owned()));
    let events = vec![
        alert_with(1, |alert| {
            alert.resource = "a\0b\u{1}\u{1b}[31m\u{7f}\u{2028}\"\\\n".into()
        }),
        alert_with(2, |alert| alert.source = long),
        alert_with(3, |alert| alert.event_data = keys.collect()),
        alert_with(4, |alert| {
            alert.event_data = [
                ("Key.0".to_owned(), "x".repeat(60_000)),
                (String::new(), "empty".to_owned()),
            ]
            .into();
        }),
        alert_with(5, |alert| alert.severity = "high".into()),
        alert_with(6, |alert| alert.host_pid = -1),
    ];
    send_all_done(&*sink, &events).await;
    for event in &events {
        let hits = json!({ "query": { "ids": { "values": [event.id().to_string()] } } });
        server.count("odd-alerts", json!({ "match_all": {} })).await;
        let (_, found) = server.ask("POST", "odd-alerts/_search", Some(hits)).await;
        let expected: serde_json::Value =
            serde_json::from_slice(&event.json(proto::FieldSet::All).unwrap()).unwrap();
        assert!(
            found["hits"]["hits"][0]["_source"] == expected,
            "{}",
            event.id()
        );
    }
    let mapping = server.get("odd-alerts-*/_mapping").await;
    assert!(
        !mapping.to_string().contains("Key"),
        "no event made a column"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_does_not_fit_is_refused_with_status_type_and_reason_and_the_others_go() {
    let Some(server) = Elasticsearch::shared(SUITE) else {
        return;
    };
    // As an index looks whose types were guessed from other events.
    let columns = json!({ "mappings": { "properties": { "Resource": { "type": "ip" } } } });
    server.put("conflict", columns).await;
    let names =
        "index: {layout: fixed, alert: conflict, log: conflict, message: conflict, setup: manual}";
    let sink = sink_to(&server.url(), names);
    let address = |sequence| alert_with(sequence, |alert| alert.resource = "10.0.0.1".into());
    let outcomes = send(&*sink, &[address(1), alert(2), address(3)])
        .await
        .unwrap();
    let reason = rejection(&outcomes[1]);
    for words in [
        "status 400",
        "document_parsing_exception",
        "failed to parse field [Resource]",
        "nmap",
    ] {
        assert!(reason.contains(words), "{reason}");
    }
    assert_eq!(server.ids("conflict").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_takes_nothing_is_no_fault_of_the_events() {
    let Some(server) = Elasticsearch::shared(SUITE) else {
        return;
    };
    let names = "index: {layout: fixed, alert: shut, log: shut, message: shut}";
    let sink = sink_to(&server.url(), names);
    send_all_done(&*sink, &[alert(1)]).await;
    for (how, opens, words) in [
        (
            ("POST", "shut/_close", None),
            ("POST", "shut/_open", None),
            "index_closed_exception",
        ),
        (
            (
                "PUT",
                "shut/_settings",
                Some(json!({ "index.blocks.write": true })),
            ),
            (
                "PUT",
                "shut/_settings",
                Some(json!({ "index.blocks.write": null })),
            ),
            "cluster_block_exception",
        ),
    ] {
        assert_eq!(server.ask(how.0, how.1, how.2).await.0, 200);
        let away = send(&*sink, &[alert(2), alert(3)]).await.unwrap_err();
        assert!(away.reason.contains(words), "{}", away.reason);
        assert_eq!(server.ask(opens.0, opens.1, opens.2).await.0, 200);
    }
    send_all_done(&*sink, &[alert(2), alert(3)]).await;
    assert_eq!(server.ids("shut").await.len(), 3);
}
