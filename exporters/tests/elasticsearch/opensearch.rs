//! The same events in a real OpenSearch, which has other words for some things. It comes without the plug-in for lifecycles.

use exporters::setup::{Mode, State};
use serde_json::json;

use crate::scene::*;
use crate::server::{Elasticsearch, Product};

const SUITE: &str = "opensearch";

#[tokio::test(flavor = "multi_thread")]
async fn opensearch_takes_every_kind_once_and_finds_them() {
    let Some(server) = Elasticsearch::start(SUITE, Product::OpenSearch, &[]) else {
        return;
    };
    let settings = format!("{{type: opensearch, endpoints: ['{}']}}", server.url());
    let sink = sink(&settings);
    // There is no lifecycle to be made here: the sink says so, makes the templates and goes on.
    send_all_done(&*sink, &[alert(1)]).await;

    let report = exporters::setup::run(&config(&settings), Mode::Make)
        .await
        .unwrap()
        .unwrap();
    assert!(
        report.server.starts_with("OpenSearch 2."),
        "{}",
        report.server
    );
    for step in &report.steps {
        let refused =
            matches!(&step.state, State::Refused(why) if why.contains("_plugins/_ism/policies"));
        assert_eq!(step.what == "lifecycle", refused, "{step:?}");
    }
    assert!(
        report.steps[3..]
            .iter()
            .all(|step| step.state == State::Same),
        "{report:?}"
    );

    let mut events = alerts(1..=2000);
    events.extend([log(2001), message(2002)]);
    for _ in 0..2 {
        let (refused, _) = deliver(&*sink, &events, 700).await;
        assert!(refused.is_empty(), "{refused:?}");
    }
    let ids = server.ids("kubearmor-*").await;
    assert_eq!(
        ids,
        events
            .iter()
            .map(|event| (event.id().to_string(), 1))
            .collect()
    );
    for (query, expected) in [
        (
            json!({ "term": { "EventData.Lsm": "SECURITY_BPRM_CHECK" } }),
            2000,
        ),
        (
            json!({ "range": { "Severity.number": { "gte": 5 } } }),
            2000,
        ),
        (
            json!({ "range": { "@timestamp": { "gte": "now-1h" } } }),
            2000,
        ),
        (json!({ "match": { "Resource.text": "nmap" } }), 2000),
    ] {
        assert_eq!(
            server.count("kubearmor-alerts", query.clone()).await,
            expected,
            "{query}"
        );
    }
    let mapping = server.get("kubearmor-alerts/_mapping").await.to_string();
    assert!(mapping.contains("flat_object"), "{mapping}");
}
