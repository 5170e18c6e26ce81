//! Settings anew while the relay runs.

use std::process::Stdio;

use proto::operate::ReloadRequest;
use serde_json::Value;

use crate::scene::{ARCHIVE, Scene};
use crate::support;
use crate::support::program::Relay;

#[test]
fn a_broken_file_changes_nothing_and_says_where_and_why() {
    let scene = Scene::new("", ARCHIVE);
    let relay = scene.place.start();
    let line = |words: &str| {
        let text = std::fs::read_to_string(scene.place.path("relay.yaml")).expect("settings");
        let at = text.lines().position(|line| line.contains(words));
        format!("relay.yaml:{}:", at.expect("a line") + 1)
    };
    for (good, broken, words) in [
        ("start: beginning", "start: sometimes", "sometimes"),
        ("type: file", "type: nothing", "nothing"),
        (
            "archive: {type: file, path: DIR/events.jsonl, fields: all, start: beginning}",
            "siem: {type: elasticsearch, endpoints: [\"https://127.0.0.1:1\"], tls: {ca_file: DIR/none.crt}}",
            "none.crt",
        ),
        (
            "cluster: test\nrelay:",
            "cluster: test\nrelay:\n  access: [{token_file: DIR/none.token, role: reader}]",
            "none.token",
        ),
        (
            "policies: {sources: []}",
            "policies: {sources: [}",
            "relay.yaml:",
        ),
    ] {
        scene.edit(good, broken);
        let (code, said) = scene.said(&["config", "reload"]);
        assert_eq!(code, Some(1), "{said}");
        assert!(
            said.contains("nothing was changed") && said.contains(words),
            "{said}"
        );
        let place = if words == "none.token" {
            "relay.yaml:".to_owned()
        } else {
            line(
                broken
                    .split('\n')
                    .next_back()
                    .unwrap_or(broken)
                    .split("DIR")
                    .next()
                    .expect("a part"),
            )
        };
        assert!(said.contains(&place), "{place} is not in {said}");
        scene.edit(broken, good);
    }
    scene.import("shop", 3);
    scene.alerts("shop", 3);
    let (code, said) = scene.said(&["config", "reload"]);
    assert_eq!((code, said.as_str()), (Some(0), "nothing has changed\n"));
    relay.stop();
}

#[test]
fn sinks_come_change_and_go_with_sighup_while_cursors_stay() {
    let scene = Scene::new("", ARCHIVE);
    let relay = scene.place.start();
    scene.import("shop", 5);
    scene.alerts("shop", 5);
    // Away for a while: what comes meanwhile waits in the journal.
    scene.edit(
        &format!("sinks: {{{ARCHIVE}}}"),
        "sinks: {other: {type: file, path: DIR/other.jsonl}}",
    );
    relay.running.signal(libc::SIGHUP);
    relay.page_when("the sink is gone", |page| {
        page.sink("archive", "journaled_total") == 0
    });
    scene.import("away", 4);
    scene.edit(
        "sinks: {other: {type: file, path: DIR/other.jsonl}}",
        &format!("sinks: {{{ARCHIVE}}}"),
    );
    let (code, said) = scene.said(&["config", "reload"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("sink archive: added") && said.contains("sink other: removed"),
        "{said}"
    );
    scene.alerts("away", 4);
    // Other settings, the same place.
    scene.edit(
        "start: beginning",
        "start: beginning, filter: {namespaces: [kept]}",
    );
    let (_, said) = scene.said(&["config", "reload"]);
    assert!(said.contains("sink archive: changed"), "{said}");
    scene.import("left-out", 2);
    scene.import("kept", 2);
    scene.alerts("kept", 2);
    let all = scene.archived();
    let count = |namespace: &str| {
        let of = |event: &&Value| event["NamespaceName"] == namespace;
        all.iter().filter(of).count()
    };
    assert_eq!(
        ["shop", "away", "left-out", "kept"].map(count),
        [5, 4, 0, 2],
        "each event once, whatever the settings were when it came"
    );
    // Who changed it is told as an event.
    let mut logs = support::program("cresset");
    let logs = logs.args([
        "logs",
        "--relay",
        &relay.feed,
        "--filter",
        "all",
        "--since",
        "10m",
        "--msgPath",
        "stdout",
        "--json",
    ]);
    let told = String::from_utf8(logs.output().expect("cresset logs").stdout).expect("text");
    for words in [
        "audit: reload configuration by SIGHUP: sink other added, sink archive removed",
        "audit: reload configuration by uid ",
    ] {
        assert!(told.contains(words), "{words} is not in {told}");
    }
    // Who renames a sink is told what its old name leaves behind.
    let stuck = "sinks: {stuck: {type: file, path: /dev/null, start: beginning}, ";
    scene.edit("sinks: {", stuck);
    let (code, said) = scene.said(&["config", "reload"]);
    assert_eq!(code, Some(0), "{said}");
    scene.edit(stuck, "sinks: {");
    let (_, said) = scene.said(&["config", "reload"]);
    assert!(
        said.contains("sink stuck: removed; ") && said.contains("events that it had not delivered"),
        "{said}"
    );
    relay.page_when("all is accounted for", |page| {
        page.sink("archive", "pending") == 0
    });
    relay.stop();
}

#[test]
fn what_takes_effect_with_the_next_start_is_named_each_time() {
    let scene = Scene::new("", ARCHIVE);
    let relay = scene.place.start();
    scene.edit("cluster: test", "cluster: other");
    scene.edit(
        "  data_dir:",
        "  feeds: {max_lag: 5s}\n  telemetry: {log: {level: \"relay=debug,info\"}}\n  data_dir:",
    );
    let (code, said) = scene.said(&["config", "reload"]);
    assert_eq!(code, Some(0), "{said}");
    for line in [
        "relay.feeds: changed\n",
        "relay.telemetry.log.level: changed\n",
        "! cluster: takes effect with the next start\n",
    ] {
        assert!(said.contains(line), "{line} is not in {said}");
    }
    let (_, again) = scene.said(&["config", "reload"]);
    assert_eq!(again, "! cluster: takes effect with the next start\n");
    // All the others, as long as they wait.
    scene.edit("cluster: other", "cluster: test");
    scene.edit("http: \"127.0.0.1:0\"", "http: \"127.0.0.2:0\"");
    scene.edit(
        "  feeds:",
        "  limits: {handshakes: 7}\n  sensors: {silent_after: 1h}\n  ingest: {budget: 96MiB}\n  retention: {compression: zstd}\n  tls: {enrolment: true}\n  feeds:",
    );
    scene.edit(
        "level: \"relay=debug,info\"}",
        "level: \"relay=debug,info\", format: json}, traces: {endpoint: \"http://127.0.0.1:9\"}",
    );
    scene.edit(
        "policies: {sources: []}",
        "policies: {sources: [], policy_service: true, rollout: {canary: {stage: canary}}}",
    );
    for _ in 0..2 {
        let (code, said) = scene.said(&["config", "reload"]);
        assert_eq!(code, Some(0), "{said}");
        for key in [
            "relay.listen",
            "relay.tls (whether there is any)",
            "relay.tls.enrolment",
            "relay.sensors",
            "relay.limits",
            "relay.retention.compression",
            "relay.ingest",
            "relay.telemetry.log.format",
            "relay.telemetry.traces",
            "policies.policy_service",
            "policies.rollout",
        ] {
            let line = format!("! {key}: takes effect with the next start\n");
            assert!(said.contains(&line), "{key} is not in {said}");
        }
        assert!(
            !said.contains("cluster") && !said.contains(": changed"),
            "{said}"
        );
    }
    relay.stop();
}

#[test]
fn a_thousand_reloads_beside_a_hung_sink_end_and_lose_nothing() {
    const RELOADS: usize = 1000;
    let scene = Scene::new(
        "",
        &format!("{ARCHIVE}, hung: {{type: stdout, format: json, start: beginning}}"),
    );
    // Nobody reads what it writes.
    let (running, unread) = scene.place.spawn(Stdio::piped());
    let relay = Relay::ready(running);
    scene.import("shop", 2000);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let begun = std::time::Instant::now();
    runtime.block_on(async {
        let mut clients = [scene.place.operate().await, scene.place.operate().await];
        for reload in 0..RELOADS / 2 {
            let simple = [
                "batch: {max_events: 7}",
                "batch: {max_events: 8}",
                "batch: {max_events: 9}",
            ];
            settings(&scene, simple[reload % 3], reload / 125 % 2 == 1);
            if reload % 50 == 0 {
                relay.running.signal(libc::SIGHUP);
            }
            // One in the middle of the other.
            let [one, two] = &mut clients;
            let (one, two) =
                tokio::join!(one.reload(ReloadRequest {}), two.reload(ReloadRequest {}));
            for reply in [one, two] {
                let reply = reply.expect("an answer").into_inner();
                assert!(!reply.refused, "{reply:?}");
            }
        }
    });
    println!("{RELOADS} reloads in {:.0?}", begun.elapsed());
    scene.import("after", 3);
    let alerts = scene.alerts("after", 3);
    assert!(!alerts.is_empty());
    relay.page_when("the archive has everything", |page| {
        page.sink("archive", "pending") == 0
    });
    let mut ids: Vec<String> = scene
        .archived()
        .iter()
        .filter(|event| event["NamespaceName"] == "shop")
        .map(|event| event["EventID"].as_str().expect("an id").to_owned())
        .collect();
    ids.sort();
    ids.dedup();
    assert_eq!(
        ids.len(),
        2000,
        "every event is there after whatever reload"
    );
    drop(unread);
    relay.stop();
}

/// The settings with these more of the archive, and one or the other for the hung sink.
fn settings(scene: &Scene, archive: &str, hung: bool) {
    let file = scene.place.path("relay.yaml");
    let text = std::fs::read_to_string(&file).expect("settings");
    let dir = scene.place.path("");
    let dir = dir.to_str().expect("text").trim_end_matches('/').to_owned();
    let sinks = format!(
        "sinks: {{archive: {{type: file, path: {dir}/events.jsonl, fields: all, start: beginning, {archive}}}, hung: {{type: stdout, format: {}, start: beginning}}}}",
        if hung { "text" } else { "json" }
    );
    let lines = text.lines().map(|line| {
        if line.starts_with("sinks:") {
            sinks.as_str()
        } else {
            line
        }
    });
    let new: Vec<&str> = lines.collect();
    // Whole or not at all: a reload may read it at any moment.
    let next = file.with_extension("new");
    std::fs::write(&next, new.join("\n") + "\n").expect("settings");
    std::fs::rename(next, file).expect("settings");
}
