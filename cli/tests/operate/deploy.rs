//! What is shipped to deploy with is true to the programs.

use std::path::{Path, PathBuf};

use crate::support;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn the_compose_file_mounts_what_is_there_and_its_relay_has_good_settings() {
    let text = std::fs::read_to_string(root().join("docker-compose.yml")).expect("a file");
    let (documents, problems) = yaml::parse("docker-compose.yml", &text);
    assert!(problems.is_empty() && documents.len() == 1, "{problems:?}");
    let named = text
        .split(|c: char| c.is_whitespace() || c == ',' || c == '}')
        .filter_map(|word| {
            word.strip_prefix("./")
                .or(word.ends_with("Dockerfile").then_some(word))
        })
        .filter_map(|word| word.split(':').next());
    let named: Vec<&str> = named.collect();
    assert!(named.len() >= 6, "{named:?}");
    for name in named {
        assert!(root().join(name).exists(), "{name}");
    }
    let mut check = support::program("cresset");
    check.args(["config", "check", "--no-files"]);
    let out = check
        .arg(root().join("deploy/compose/cresset.yaml"))
        .output();
    let out = out.expect("cresset config check");
    let told = String::from_utf8_lossy(&[&out.stdout[..], &out.stderr[..]].concat()).into_owned();
    assert!(
        out.status.success() && told.contains("no problem"),
        "{told}"
    );
}

#[test]
fn prometheus_takes_the_settings_that_scrape_the_relay() {
    let mut promtool = std::process::Command::new("promtool");
    promtool.args(["check", "config", "prometheus.yml"]);
    match promtool.current_dir(root().join("grafana")).output() {
        Ok(out) => {
            let told =
                String::from_utf8_lossy(&[&out.stdout[..], &out.stderr[..]].concat()).into_owned();
            assert!(out.status.success(), "{told}");
        }
        Err(why) => support::skip("prometheus", "prometheus.yml", &format!("promtool: {why}")),
    }
}
