//! A real Prometheus scrapes the real relay, on `/metrics` and on the port of KubeArmor's exporter, and is asked in PromQL.
//! Prometheus asks for OpenMetrics; promtool judges the text format.
#![allow(clippy::expect_used, clippy::panic)] // reason: a test that cannot go on has failed

#[path = "../../exporters/tests/support/openmetrics.rs"]
mod openmetrics;
mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::program::{Place, Relay};
use support::{Running, eventually, free_port, skip};

const SOON: Duration = Duration::from_secs(120);

/// Whether the programs are here; if not, the suite is counted as skipped.
fn can_scrape() -> bool {
    let there = |program: &str| {
        let mut command = Command::new(program);
        let silent = command
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        silent.status().is_ok_and(|status| status.success())
    };
    let all = there("prometheus") && there("promtool");
    if !all {
        skip(
            "prometheus",
            "prometheus",
            "Debian's package prometheus is not installed",
        );
    }
    all
}

/// A relay with counters on a port of their own, and three alerts and two logs in it.
struct Scene {
    place: Place,
    own: String,
}

impl Scene {
    fn new() -> Scene {
        let own = format!("127.0.0.1:{}", free_port());
        let sinks = format!("metrics: {{type: prometheus, listen: \"{own}\", start: beginning}}");
        Scene {
            place: Place::new("", &sinks),
            own,
        }
    }

    fn import(&self) {
        let alert = r#"{"Type":"MatchedPolicy","NamespaceName":"shop","PodName":"cart-1","Operation":"File","PolicyName":"deny \"all\"","Severity":"5","Action":"Block"}"#;
        let log = r#"{"Type":"ContainerLog","NamespaceName":"shop","Owner":{"Ref":"Deployment","Name":"cart"},"PodName":"cart-1","Operation":"Process"}"#;
        let file = self.place.path("import.jsonl");
        let lines = [alert, alert, alert, log, log].map(|line| format!("{line}\n"));
        std::fs::write(&file, lines.concat()).expect("written");
        let mut cresset = support::program("cresset");
        cresset.arg("import").arg(&file).arg("--data");
        let socket = self.place.path("admin.sock");
        let output = cresset.arg(socket.parent().expect("a folder")).output();
        let output = output.expect("cresset runs");
        assert!(output.status.success(), "{output:?}");
    }

    /// A Prometheus that scrapes both pages every second.
    fn prometheus(&self, relay: &Relay) -> (Running, String) {
        let config = format!(
            "global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: relay\n  static_configs: [{{targets: ['{}']}}]\n- job_name: kubearmor\n  static_configs: [{{targets: ['{}']}}]\n",
            relay.http, self.own
        );
        let file = self.place.path("prometheus.yml");
        std::fs::write(&file, config).expect("written");
        let at = format!("127.0.0.1:{}", free_port());
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", file.display()));
        let data = self.place.path("tsdb");
        command.arg(format!("--storage.tsdb.path={}", data.display()));
        command.arg(format!("--web.listen-address={at}"));
        (Running::start(&mut command), at)
    }
}

/// A page as it is answered to a scraper with this `Accept`: type and body.
fn scrape(address: &str, accept: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(SOON)).expect("set");
    write!(
        stream,
        "GET /metrics HTTP/1.1\r\nHost: {address}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
    )
    .expect("asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let kind = head
        .lines()
        .find_map(|line| line.strip_prefix("content-type: "));
    (kind.unwrap_or_default().to_owned(), unchunked(head, body))
}

/// Bodies without a length come in chunks.
fn unchunked(head: &str, mut body: &str) -> String {
    if !head.contains("transfer-encoding: chunked") {
        return body.to_owned();
    }
    let mut whole = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).expect("a length");
        whole.push_str(&rest[..length]);
        body = rest[length..].strip_prefix("\r\n").unwrap_or("");
    }
    whole
}

/// The one value of a query.
fn ask(prometheus: &str, query: &str) -> Option<f64> {
    let query: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let path = format!("/api/v1/query?query={query}");
    let (_, body) = support::get(prometheus, &path).ok()?;
    let start = body.find('{')?;
    let end = body.rfind('}')?;
    let answer: Value = serde_json::from_str(&body[start..=end]).ok()?;
    let value = answer["data"]["result"][0]["value"][1].as_str()?;
    value.parse().ok()
}

#[test]
fn a_real_prometheus_scrapes_both_pages_and_counts_what_happened() {
    if !can_scrape() {
        return;
    }
    let scene = Scene::new();
    let relay = scene.place.start();
    scene.import();
    let (_prometheus, at) = scene.prometheus(&relay);
    for (query, value) in [
        ("up{job=\"relay\"}", 1.0),
        ("up{job=\"kubearmor\"}", 1.0),
        (
            "kubearmor_alerts_in_pod_total{job=\"kubearmor\",PodName=\"cart-1\"}",
            3.0,
        ),
        (
            "kubearmor_alerts_with_policy_total{job=\"relay\",PolicyName=\"deny \\\"all\\\"\"}",
            3.0,
        ),
        (
            "cresset_logs_total{job=\"kubearmor\",namespace=\"shop\",workload=\"cart\",operation=\"Process\"}",
            2.0,
        ),
        (
            "sum(cresset_sink_delivered_total{job=\"relay\",sink=\"metrics\"})",
            5.0,
        ),
        (
            "count({job=\"kubearmor\",__name__=~\"cresset_sink_.*\"}) or vector(0)",
            0.0,
        ),
    ] {
        eventually(&format!("{query} is {value}"), SOON, || {
            (ask(&at, query) == Some(value)).then_some(())
        });
    }
    relay.stop();
    // The same values after a restart: no reset that `increase` would count.
    let again = scene.place.start();
    eventually("the counters are shown again", SOON, || {
        let (_, body) = scrape(&scene.own, "*/*");
        body.contains("kubearmor_alerts_in_pod_total{PodName=\"cart-1\"} 3")
            .then_some(())
    });
    again.stop();
}

#[test]
fn promtool_and_a_strict_reader_find_nothing_wrong_with_the_pages() {
    if !can_scrape() {
        return;
    }
    let scene = Scene::new();
    let relay = scene.place.start();
    scene.import();
    relay.page_when("all is counted", |page| {
        page.sink("metrics", "delivered_total") == 5
    });
    for address in [&relay.http, &scene.own] {
        let (kind, body) = scrape(address, "application/openmetrics-text;version=1.0.0");
        assert_eq!(
            kind,
            "application/openmetrics-text; version=1.0.0; charset=utf-8"
        );
        let families = openmetrics::read(&body).unwrap_or_else(|why| panic!("{why}\n{body}"));
        assert!(
            families
                .iter()
                .any(|family| family.name == "kubearmor_alerts_in_pod")
        );
        let (kind, body) = scrape(address, "text/plain");
        assert_eq!(kind, "text/plain; version=0.0.4");
        check_metrics(&body);
    }
    relay.stop();
}

/// Every query of a dashboard, with its variables filled in.
fn queries(panel: &Value, into: &mut Vec<String>) {
    match panel {
        Value::Object(map) => {
            let query = map.get("expr").and_then(Value::as_str);
            let filled = |query: &str| {
                query
                    .replace("$instance", ".*")
                    .replace("$__rate_interval", "20s")
            };
            into.extend(query.map(filled));
            map.values().for_each(|value| queries(value, into));
        }
        Value::Array(items) => items.iter().for_each(|item| queries(item, into)),
        _ => {}
    }
}

#[test]
fn every_query_of_the_dashboard_is_answered_with_what_the_relay_shows() {
    if !can_scrape() {
        return;
    }
    let file =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../grafana/dashboards/relay.json");
    let text = std::fs::read_to_string(file).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let mut all = Vec::new();
    queries(&dashboard["panels"], &mut all);
    assert!(all.len() > 15, "{all:?}");
    let scene = Scene::new();
    let relay = scene.place.start();
    scene.import();
    // Somebody who has nothing to say here, so that there is a failure to show.
    drop(TcpStream::connect(&relay.feed).map(|mut stream| stream.write_all(&[b'x'; 100])));
    let (_prometheus, at) = scene.prometheus(&relay);
    let mut empty = Vec::new();
    for query in &all {
        let (_, page) = scrape(&relay.http, "text/plain");
        let names = query
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .filter(|word| word.starts_with("cresset_"));
        let shown = names.clone().all(|name| {
            page.lines().any(|line| {
                let rest = line.strip_prefix(name);
                rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
            })
        });
        assert!(names.count() > 0, "{query}");
        if shown {
            eventually(&format!("{query} has an answer"), SOON, || {
                ask(&at, query).map(drop)
            });
        } else {
            assert!(is_understood(&at, query), "{query}");
            empty.push(query);
        }
    }
    println!(
        "{} queries have answers; no events for {empty:?}",
        all.len() - empty.len()
    );
    assert!(
        empty.len() * 3 < all.len(),
        "too little is shown for {empty:?}"
    );
    relay.stop();
}

/// Whether Prometheus takes a query, whatever it finds.
fn is_understood(prometheus: &str, query: &str) -> bool {
    let query: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let answer = support::get(prometheus, &format!("/api/v1/query?query={query}"));
    answer.is_ok_and(|(_, body)| body.contains("\"status\":\"success\""))
}

/// `promtool check metrics`.
fn check_metrics(page: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool runs");
    let mut stdin = promtool.stdin.take().expect("piped");
    stdin.write_all(page.as_bytes()).expect("read");
    drop(stdin);
    let output = promtool.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // 1: it cannot be read; 3: it can, and promtool has advice on names, of which KubeArmor's are as they are.
    assert!(
        matches!(output.status.code(), Some(0 | 3)),
        "{said}\n{page}"
    );
}
