//! `cresset sink setup`: made, made again, looked at, put right.

use exporters::setup::{Mode, Report, State};
use serde_json::json;

use crate::scene::*;
use crate::server::Elasticsearch;

const SUITE: &str = "elasticsearch: setup";

async fn run(settings: &str, mode: Mode) -> Report {
    exporters::setup::run(&config(settings), mode)
        .await
        .unwrap()
        .unwrap()
}

fn states(report: &Report) -> Vec<&State> {
    report.steps.iter().map(|step| &step.state).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn setup_makes_what_is_missing_and_puts_right_what_differs() {
    let Some(server) = Elasticsearch::shared(SUITE) else {
        return;
    };
    let settings = settings(&server.url(), &names("made", ""));
    let missing = run(&settings, Mode::Look).await;
    assert!(
        missing.server.starts_with("Elasticsearch 8."),
        "{}",
        missing.server
    );
    assert_eq!(missing.steps.len(), 9);
    assert!(
        states(&missing)[..6]
            .iter()
            .all(|state| **state == State::Missing),
        "{missing:?}"
    );
    // An index from before the template is not read under the name.
    server.put("made-logs-2020.01.01", json!({})).await;

    let made = run(&settings, Mode::Make).await;
    assert!(
        states(&made)[..6]
            .iter()
            .all(|state| **state == State::Made),
        "{made:?}"
    );
    assert_eq!(
        made.steps[7].state,
        State::Changed(vec!["made-logs-2020.01.01 was made without it".into()])
    );
    for mode in [Mode::Look, Mode::Make] {
        let again = run(&settings, mode).await;
        assert!(
            states(&again).iter().all(|state| **state == State::Same),
            "{again:#?}"
        );
    }

    // Somebody turns the knobs.
    let mut template =
        server.get("_index_template/made-alerts").await["index_templates"][0]["index_template"]
            .take();
    template["template"]["mappings"]["properties"]["Resource"] =
        json!({ "type": "keyword", "ignore_above": 256 });
    template["template"]["mappings"]["properties"]["Theirs"] = json!({ "type": "keyword" });
    server.put("_index_template/made-alerts", template).await;
    let policy = json!({ "policy": { "phases": { "delete": { "min_age": "3d", "actions": { "delete": {} } } } } });
    server.put("_ilm/policy/made-alerts", policy).await;
    let differs = run(&settings, Mode::Look).await;
    let told: Vec<String> = differs
        .steps
        .iter()
        .filter_map(|step| match &step.state {
            State::Differs(told) => Some(told.clone()),
            _ => None,
        })
        .flatten()
        .collect();
    for words in [
        "policy.phases.delete.min_age is 3d, should be 32d",
        "template.mappings.properties.Resource.ignore_above is 256, should be 8191",
        "template.mappings.properties.Resource.fields is missing",
    ] {
        assert!(
            told.iter().any(|line| line == words),
            "{words} is not in {told:#?}"
        );
    }
    let changed = run(&settings, Mode::Make).await;
    assert!(changed.steps.iter().all(|step| step.state.is_good()));
    let good = run(&settings, Mode::Look).await;
    assert!(
        states(&good).iter().all(|state| **state == State::Same),
        "{good:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_of_alerts_leaves_alone_what_another_has_for_logs() {
    let Some(server) = Elasticsearch::shared(SUITE) else {
        return;
    };
    let daily = settings(&server.url(), &names("both", ""));
    run(&daily, Mode::Make).await;
    let fixed = format!(
        "{{type: elasticsearch, endpoints: ['{}'], filter: {{kinds: [alert]}}, \
         index: {{layout: fixed, alert: both, log: both-logs, message: both-messages}}}}",
        server.url()
    );
    let made = run(&fixed, Mode::Make).await;
    let steps: Vec<(&str, &str)> = (made.steps.iter())
        .map(|step| (step.what, step.name.as_str()))
        .collect();
    assert_eq!(steps, [("index template", "both")]);
    let still = run(&daily, Mode::Look).await;
    assert!(
        states(&still).iter().all(|state| **state == State::Same),
        "{still:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_event_finds_the_template_made_and_a_changed_one_left_alone() {
    let Some(server) = Elasticsearch::shared(SUITE) else {
        return;
    };
    let template = json!({
        "index_patterns": ["auto-logs-*"], "priority": 300,
        "template": { "mappings": { "properties": { "Theirs": { "type": "keyword" } } } },
    });
    server.put("_index_template/auto-logs", template).await;
    let sink = sink_to(&server.url(), &names("auto", ""));
    send_all_done(&*sink, &[alert(1), log(2)]).await;
    let mapping = server.get("auto-alerts/_mapping").await;
    let columns = &mapping.as_object().unwrap().values().next().unwrap()["mappings"]["properties"];
    assert_eq!(columns["EventData"]["type"], "flattened", "{columns}");
    let theirs = server.get("_index_template/auto-logs").await;
    assert_eq!(
        theirs["index_templates"][0]["index_template"]["priority"],
        300
    );
    assert_eq!(
        server.get("_ilm/policy/auto-alerts").await["auto-alerts"]["policy"]["phases"]["delete"]["min_age"],
        "32d"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_of_that_name_is_in_the_way_and_nothing_is_lost_meanwhile() {
    let Some(server) = Elasticsearch::shared(SUITE) else {
        return;
    };
    // As KubeArmor's relay leaves it.
    server.put("way-alerts", json!({})).await;
    let text = settings(&server.url(), &names("way", ""));
    let report = run(&text, Mode::Make).await;
    let blocked = report
        .steps
        .iter()
        .find(|step| !step.state.is_good())
        .unwrap();
    assert!(
        matches!(&blocked.state, State::Blocked(why) if why.contains("layout: fixed")),
        "{blocked:?}"
    );
    // A sink that prepares the server itself waits, and makes no index whose types are guessed.
    let waiting = sink(&text);
    let away = send(&*waiting, &[alert(1)]).await.unwrap_err();
    assert!(away.reason.contains("layout: fixed"), "{}", away.reason);
    assert_eq!(server.ask("DELETE", "way-alerts", None).await.0, 200);
    send_all_done(&*waiting, &[alert(1)]).await;
    assert_eq!(server.ids("way-alerts").await.len(), 1);
}
