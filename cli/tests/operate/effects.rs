//! What a reload does: tokens, certificates, sources, policies and log lines are others afterwards, and nothing was restarted.

use std::process::Output;

use serde_json::Value;

use crate::authority::{Authority, Pair};
use crate::scene::{ARCHIVE, SOON, Scene};
use crate::support::node::Node;
use crate::support::program::{Place, Relay};
use crate::support::{self, eventually};

/// `cresset COMMAND --relay FEED …`.
fn reading(relay: &Relay, command: &[&str], who: &[&str]) -> Output {
    let mut cresset = support::program("cresset");
    cresset
        .args(command)
        .args(["--relay", &relay.feed])
        .args(who);
    cresset.output().expect("cresset runs")
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

fn reloaded(scene: &Scene, what: &str) {
    let (code, said) = scene.said(&["config", "reload"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(what), "{said}");
}

#[test]
fn other_tokens_and_namespaces_are_asked_for_from_the_reload_on_and_no_token_is_ever_printed() {
    let scene = Scene::new("access: [{token_file: DIR/a.token, role: reader}]", ARCHIVE);
    for (name, token) in [("a", "hunter2-a-0123456789"), ("b", "hunter2-b-0123456789")] {
        std::fs::write(scene.place.path(&format!("{name}.token")), token).expect("a token");
    }
    let relay = scene.place.start();
    scene.import("shop", 2);
    scene.import("bank", 2);
    scene.alerts("bank", 2);
    let status = |name: &str| {
        let file = scene.place.path(&format!("{name}.token"));
        let out = reading(
            &relay,
            &["status"],
            &["--token-file", file.to_str().expect("text")],
        );
        let told =
            String::from_utf8_lossy(&[&out.stdout[..], &out.stderr[..]].concat()).into_owned();
        assert!(!told.contains("hunter2"), "{told}");
        code(&out)
    };
    assert_eq!((status("a"), status("b")), (Some(0), Some(1)));
    scene.edit("DIR/a.token", "DIR/b.token");
    relay.running.signal(libc::SIGHUP);
    eventually("the other token is asked for", SOON, || {
        (status("b") == Some(0)).then_some(())
    });
    assert_eq!(status("a"), Some(1), "and the first is not good any more");
    // From now on it opens one namespace only.
    scene.edit("role: reader}", "role: reader, namespaces: [shop]}");
    reloaded(&scene, "relay.access");
    let file = scene.place.path("b.token");
    let who = ["--token-file", file.to_str().expect("text")];
    let logs = ["logs", "--since", "10m", "--filter", "all", "--json"];
    let out = reading(&relay, &logs, &who);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(
        text.contains("\"shop\"") && !text.contains("bank"),
        "{text}"
    );
    let denied = r#"cresset_calls_denied_total{listener="feed",reason="token"}"#;
    let (_, page) = support::get(&relay.http, "/metrics").expect("metrics");
    assert!(page.contains(denied), "{page}");
    let logged = relay.running.stderr.text();
    assert!(
        logged.contains("call denied") && !logged.contains("hunter2"),
        "{logged}"
    );
    relay.stop();
}

fn write(scene: &Scene, name: &str, text: &str) {
    std::fs::write(scene.place.path(name), text).expect("written");
}

fn write_pair(scene: &Scene, name: &str, (certificate, key): Pair) {
    write(scene, &format!("{name}.crt"), &certificate);
    write(scene, &format!("{name}.key"), &key);
}

#[test]
fn other_certificate_files_are_shown_from_the_reload_on() {
    let scene = Scene::new(
        "tls: {cert_file: DIR/one.crt, key_file: DIR/one.key, client_ca_file: DIR/one-ca.crt}",
        ARCHIVE,
    );
    let (one, two) = (Authority::new(), Authority::new());
    for (name, authority) in [("one", &one), ("two", &two)] {
        write(&scene, &format!("{name}-ca.crt"), &authority.pem());
        write_pair(&scene, name, authority.sign("localhost"));
        write_pair(
            &scene,
            &format!("{name}-reader"),
            authority.spiffe("reader/r"),
        );
    }
    let relay = scene.place.start();
    let feed = relay.feed.replace("127.0.0.1", "localhost");
    let status = |name: &str| {
        let mut cresset = support::program("cresset");
        cresset.args(["status", "--relay", &feed, "--ca-file"]);
        cresset
            .arg(scene.place.path(&format!("{name}-ca.crt")))
            .arg("--cert-file");
        cresset
            .arg(scene.place.path(&format!("{name}-reader.crt")))
            .arg("--key-file");
        cresset.arg(scene.place.path(&format!("{name}-reader.key")));
        let out = cresset.output().expect("cresset status");
        (
            code(&out),
            String::from_utf8_lossy(&out.stderr).into_owned(),
        )
    };
    assert_eq!(status("one").0, Some(0), "{:?}", status("one"));
    assert_ne!(status("two").0, Some(0));
    scene.edit(
        "DIR/one.crt, key_file: DIR/one.key, client_ca_file: DIR/one-ca.crt",
        "DIR/two.crt, key_file: DIR/two.key, client_ca_file: DIR/two-ca.crt",
    );
    reloaded(&scene, "relay.tls");
    assert_eq!(status("two").0, Some(0), "{:?}", status("two"));
    assert_ne!(status("one").0, Some(0));
    relay.stop();
}

#[test]
fn sources_policies_and_the_level_of_log_lines_change_while_it_runs() {
    let other = Place::new("", "");
    let daemon = other.start();
    let scene = Scene::new("", ARCHIVE);
    let relay = scene.place.start();
    let connected = || {
        let (_, page) = support::get(&relay.http, "/metrics").expect("metrics");
        page.lines()
            .any(|line| line.starts_with("cresset_source_connected{") && line.ends_with(" 1"))
    };
    assert!(!connected());
    let source = format!(
        "sources: {{old: {{type: kubearmor, addresses: [\"{}\"]}}}}\nsinks:",
        daemon.feed
    );
    scene.edit("sinks:", &source);
    reloaded(&scene, "source old: added");
    eventually("the daemon's events are read", SOON, || {
        connected().then_some(())
    });
    import(&other, "pulled");
    scene.alerts("pulled", 1);
    scene.edit(&source, "sinks:");
    reloaded(&scene, "source old: removed");
    eventually("it is let go of", SOON, || (!connected()).then_some(()));

    let policies = scene.place.path("policies");
    std::fs::create_dir(&policies).expect("a folder");
    let text = "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata: {name: no-tools, namespace: shop}\nspec:\n  selector: {matchLabels: {app: cart}}\n  process: {matchPaths: [{path: /usr/bin/apt}]}\n  action: Block\n";
    std::fs::write(policies.join("no-tools.yaml"), text).expect("a policy");
    let before = digest(&relay);
    scene.edit(
        "policies: {sources: []}",
        "policies: {sources: [{type: folder, path: DIR/policies}]}",
    );
    reloaded(&scene, "policies: changed");
    eventually("the policy is in force", SOON, || {
        let out = reading(&relay, &["status"], &[]);
        String::from_utf8_lossy(&out.stdout)
            .contains("no-tools")
            .then_some(())
    });
    let with_policy = digest(&relay);
    scene.edit(
        "path: DIR/policies}]",
        "path: DIR/policies}], default_posture: {file: block}",
    );
    reloaded(&scene, "policies: changed");
    eventually("the posture is in force", SOON, || {
        (digest(&relay) != with_policy).then_some(())
    });
    assert_ne!(before, with_policy);

    assert_eq!(relay.logged("TRACE"), [""; 0]);
    scene.edit(
        "  data_dir:",
        "  telemetry: {log: {level: trace}}\n  data_dir:",
    );
    reloaded(&scene, "relay.telemetry.log.level");
    eventually("lines of that level", SOON, || {
        (!relay.logged("TRACE").is_empty()).then_some(())
    });
    scene.edit("{level: trace}", "{level: error}");
    reloaded(&scene, "relay.telemetry.log.level");
    let lines = relay.running.stderr.all().len();
    let (_, said) = scene.said(&["sink", "pause", "archive"]);
    assert!(said.contains("archive"), "{said}");
    let new = relay.running.stderr.all().split_off(lines);
    assert!(
        !new.iter()
            .any(|line| line.contains(" INFO ") && line.contains("audit")),
        "{new:?}"
    );
    relay.stop();
    daemon.stop();
}

fn import(place: &Place, namespace: &str) {
    let line = format!(
        "{{\"Type\":\"MatchedPolicy\",\"PodName\":\"p\",\"NamespaceName\":\"{namespace}\",\"Operation\":\"File\",\"Action\":\"Block\"}}\n"
    );
    std::fs::write(place.path("one.json"), line).expect("written");
    let mut import = support::program("cresset");
    import.arg("import").arg("--data").arg(place.path(""));
    let done = import.arg(place.path("one.json")).output();
    assert!(done.expect("cresset import").status.success());
}

fn digest(relay: &Relay) -> String {
    let out = reading(relay, &["status", "-o", "json"], &[]);
    let status: Value = serde_json::from_slice(&out.stdout).expect("JSON");
    status["policies"]["digest"]
        .as_str()
        .expect("a digest")
        .to_owned()
}

#[test]
fn what_cresset_up_was_started_with_is_taken_up_anew_as_well() {
    let settings = "version: 1\nsinks: {one: {type: file, path: DIR/one.jsonl}}\n";
    let mut node = Node::start(&[], settings, &["--contain", "none"]);
    let file = node.path("cresset.yaml");
    let dir = node.path("").display().to_string();
    let other = format!(
        "version: 1\nsinks: {{two: {{type: file, path: {dir}/two.jsonl, start: beginning}}}}\n"
    );
    std::fs::write(&file, other).expect("settings");
    let mut reload = support::program("cresset");
    reload
        .args(["config", "reload", "--data"])
        .arg(node.path("data"));
    let out = reload.output().expect("cresset config reload");
    let said = String::from_utf8_lossy(&[&out.stdout[..], &out.stderr[..]].concat()).into_owned();
    assert_eq!(code(&out), Some(0), "{said}");
    assert!(
        said.contains("sink one: removed") && said.contains("sink two: added"),
        "{said}"
    );
    // The flags stay over the file: it reads the same policies, and listens where it did.
    assert!(
        !said.contains("next start") && !said.contains("policies"),
        "{said}"
    );
    let page = node.metrics();
    assert!(
        page.contains("sink=\"two\"") && !page.contains("sink=\"one\""),
        "{page}"
    );
    assert_eq!(node.stop(), Some(0));
}
