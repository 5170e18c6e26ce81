//! What a report of a problem needs, without secrets.

use std::io::Read;
use std::path::PathBuf;

use crate::scene::{ARCHIVE, Scene};

#[test]
fn a_bundle_for_support_tells_much_and_no_secret() {
    let scene = Scene::new(
        "access: [{token_file: DIR/reader.token, role: reader}]",
        &format!(
            "{ARCHIVE}, siem: {{type: elasticsearch, endpoints: [\"http://127.0.0.1:9\"], auth: {{api_key_file: DIR/es.key}}}}, \
             logs: {{type: loki, url: \"http://127.0.0.1:9\", auth: {{username: cresset, password_file: DIR/loki.pw}}}}, \
             otel: {{type: otlp, endpoint: \"http://127.0.0.1:9\", headers: {{x-tenant: hunter2otlp}}}}, \
             hook: {{type: webhook, shape: json, url: \"http://127.0.0.1:9/\", auth: {{token_file: DIR/hook.token}}}}, \
             page: {{type: webhook, shape: pagerduty, url: \"http://127.0.0.1:9/\", routing_key_file: DIR/pager.key}}, \
             hidden: {{type: webhook, shape: slack, url_file: DIR/slack.url}}, \
             bus: {{type: kafka, brokers: [\"127.0.0.1:9\"], sasl: {{mechanism: PLAIN, username: cresset, password_file: DIR/kafka.pw}}}}, chat: {{type: webhook, shape: slack, url: \"http://127.0.0.1:9/services/T000/hunter2path\", headers: {{X-Team: hunter2header}}}}"
        ),
    );
    for name in [
        "es.key",
        "loki.pw",
        "hook.token",
        "kafka.pw",
        "reader.token",
        "pager.key",
    ] {
        let secret = format!("hunter2-in-{name}-0123456789\n");
        std::fs::write(scene.place.path(name), secret).expect("a secret");
    }
    let url = "http://127.0.0.1:9/services/hunter2-in-a-file";
    std::fs::write(scene.place.path("slack.url"), url).expect("a secret");
    let relay = scene.place.start();
    scene.import("shop", 3);
    scene.alerts("shop", 3);
    let file = scene.place.path("bundle.tar.gz");
    let (code, said) = scene.said(&["support-bundle", "-o", file.to_str().expect("text")]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("is written, without secrets"), "{said}");
    let parts = unpacked(&file);
    let text = |name: &str| {
        let part = parts.iter().find(|(path, _)| path.ends_with(name));
        part.unwrap_or_else(|| panic!("no {name} in {said}"))
            .1
            .clone()
    };
    for (name, word) in [
        ("about.txt", "kernel Linux"),
        ("settings.json", "api_key_file"),
        ("status.json", "\"archive\""),
        ("metrics.txt", "cresset_sink_delivered_total"),
        ("log.txt", "relay is up"),
        ("journal.txt", "CURSOR"),
    ] {
        assert!(
            text(name).contains(word),
            "{word} is not in {name}:\n{}",
            text(name)
        );
    }
    for (name, text) in &parts {
        assert!(!text.contains("hunter2"), "a secret in {name}:\n{text}");
        assert!(
            !text.contains("NamespaceName\":\"shop"),
            "an event in {name}:\n{text}"
        );
    }
    relay.stop();
    // A relay that does not answer.
    let config = scene.place.path("relay.yaml");
    let (code, said) = scene.said(&[
        "support-bundle",
        "-o",
        file.to_str().expect("text"),
        "--config",
        config.to_str().expect("text"),
    ]);
    assert_eq!(code, Some(0), "{said}");
    let parts = unpacked(&file);
    assert!(
        parts
            .iter()
            .any(|(name, text)| name.ends_with("about.txt") && text.contains("missing: the relay"))
    );
    assert!(parts.iter().any(|(name, _)| name.ends_with("journal.txt")));
}

fn unpacked(file: &PathBuf) -> Vec<(String, String)> {
    let file = std::fs::File::open(file).expect("the bundle");
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let mut parts = Vec::new();
    for entry in archive.entries().expect("entries") {
        let mut entry = entry.expect("an entry");
        let name = entry.path().expect("a name").display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).expect("text");
        parts.push((name, text));
    }
    parts
}
