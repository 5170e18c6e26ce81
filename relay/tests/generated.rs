//! `docs/metrics.md` is made of what the relay registers, and `grafana/` speaks of nothing else.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod support;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use relay::{App, Described};
use support::settings;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

async fn metrics() -> Vec<Described> {
    let folder = tempfile::tempdir().expect("a folder");
    let app = App::build(settings(folder.path(), ""))
        .await
        .expect("a relay");
    app.metrics()
}

fn page(metrics: &[Described]) -> String {
    let mut page = "# The relay's metrics\n\n\
        At `/metrics` of the http listener (default 127.0.0.1:9480), as text or OpenMetrics. Made by `cargo xtask generate`; alert rules over\n\
        them are in [grafana/alerts.yml](../grafana/alerts.yml). A `prometheus` sink adds counters of events, KubeArmor's and ours:\n\
        [sinks.md](sinks.md).\n"
        .to_owned();
    let mut part = "";
    for metric in metrics {
        let of = part_of(&metric.name);
        if of != part {
            page +=
                &format!("\n## {of}\n\n| metric | kind | labels | meaning |\n|---|---|---|---|\n");
            part = of;
        }
        let labels = metric.labels.join(", ");
        let (name, kind, help) = (&metric.name, metric.kind, metric.help.replace('|', "\\|"));
        page += &format!("| `{name}` | {kind} | {labels} | {help} |\n");
    }
    page
}

/// The word behind `cresset_`.
fn part_of(name: &str) -> &str {
    let rest = name.strip_prefix("cresset_").unwrap_or(name);
    rest.split('_').next().unwrap_or(rest)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_about_the_metrics_follows_from_what_is_registered() {
    let (file, text) = (root().join("docs/metrics.md"), page(&metrics().await));
    if std::env::var_os("CRESSET_GENERATE").is_some() {
        std::fs::write(&file, &text).expect("written");
    }
    let held = std::fs::read_to_string(file).unwrap_or_default();
    assert!(
        held == text,
        "docs/metrics.md is not what the code says; run `cargo xtask generate`"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_and_dashboards_speak_of_metrics_that_there_are() {
    let known: BTreeSet<String> = metrics()
        .await
        .into_iter()
        .map(|metric| metric.name)
        .collect();
    for file in ["alerts.yml", "dashboards/relay.json"] {
        let text = std::fs::read_to_string(root().join("grafana").join(file)).expect("a file");
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let words = text.split(|c: char| !word(c));
        let names: BTreeSet<&str> = words.filter(|name| name.starts_with("cresset_")).collect();
        assert!(names.len() > 5, "{file} says nothing");
        for name in names {
            assert!(known.contains(name), "{file}: there is no metric {name}");
        }
    }
}

#[test]
fn the_alert_rules_fire_when_they_must_and_not_else() {
    for (what, file) in [("check", "alerts.yml"), ("test", "alerts.test.yml")] {
        let mut promtool = Command::new("promtool");
        let promtool = promtool
            .args([what, "rules", file])
            .current_dir(root().join("grafana"));
        let out = match promtool.output() {
            Ok(out) => out,
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => {
                return skip(
                    "promtool",
                    "alert rules",
                    "promtool is not installed (Debian package prometheus)",
                );
            }
            Err(why) => panic!("promtool: {why}"),
        };
        let text = [out.stdout, out.stderr].concat();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&text));
    }
}

/// Says that a suite does not run, and why; counted by `cargo xtask test`.
fn skip(need: &str, suite: &str, reason: &str) {
    println!("SKIPPED {suite}: {reason}");
    if let Some(path) = std::env::var_os("CRESSET_SKIPS") {
        let file = std::fs::OpenOptions::new().append(true).open(path);
        if let Ok(mut file) = file {
            let _ = writeln!(file, "{need}\t{suite}\t{reason}");
        }
    }
}
