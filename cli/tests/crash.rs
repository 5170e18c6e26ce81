//! `kill -9` on the real programs: what was acknowledged is there, and there once.
#![allow(clippy::expect_used, clippy::panic)] // reason: a test that cannot go on has failed

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use support::books::Page;
use support::node::history;
use support::{Running, can_watch, eventually, free_port, get, in_force, program};

const POLICY: &str = "
apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata: {name: count, namespace: crash}
spec:
  selector: {matchLabels: {app: crash}}
  process: {matchPaths: [{path: /usr/bin/true}]}
  action: Audit
";

struct Ports {
    feed: u16,
    link: u16,
    http: u16,
}

fn settings(dir: &Path, ports: &Ports) {
    let dir_text = dir.display();
    let Ports { feed, link, http } = ports;
    let relay = format!(
        "version: 1
relay:
  data_dir: {dir_text}/relay
  listen: {{feed: 127.0.0.1:{feed}, link: 127.0.0.1:{link}, http: 127.0.0.1:{http}, admin: unix:{dir_text}/admin.sock}}
sinks:
  archive: {{type: file, path: {dir_text}/events.jsonl, format: json}}
policies:
  sources: [{{type: folder, path: {dir_text}/policies}}]
"
    );
    let sensor = format!(
        "version: 1
sensor:
  relay: [\"http://127.0.0.1:{link}\"]
  data_dir: {dir_text}/sensor
  control: unix:{dir_text}/sensor.sock
  visibility: {{workloads: [], host: []}}
"
    );
    std::fs::create_dir_all(dir.join("policies")).expect("a folder");
    std::fs::write(dir.join("policies/count.yaml"), POLICY).expect("a policy");
    std::fs::write(dir.join("relay.yaml"), relay).expect("settings");
    std::fs::write(dir.join("sensor.yaml"), sensor).expect("settings");
}

fn start_relay(dir: &Path, ports: &Ports) -> Running {
    let mut relay = Running::start(
        program("cresset-relay")
            .arg("--config")
            .arg(dir.join("relay.yaml")),
    );
    let http = format!("127.0.0.1:{}", ports.http);
    eventually("the relay is ready", Duration::from_secs(60), || {
        assert!(
            relay.exited().is_none(),
            "relay ended:\n{}",
            relay.stderr.text()
        );
        get(&http, "/readyz")
            .ok()
            .filter(|(status, _)| *status == 200)
    });
    relay
}

fn start_sensor(dir: &Path) -> Running {
    let mut sensor = Running::start(
        program("cresset-sensor")
            .arg("--config")
            .arg(dir.join("sensor.yaml")),
    );
    eventually(
        "the sensor takes workloads",
        Duration::from_secs(60),
        || {
            assert!(
                sensor.exited().is_none(),
                "sensor ended:\n{}",
                sensor.stderr.text()
            );
            std::os::unix::net::UnixStream::connect(dir.join("sensor.sock")).ok()
        },
    );
    sensor
}

/// A workload that runs `/usr/bin/true` once for each number of the range, with the number as its argument.
fn workload(dir: &Path, from: u32, to: u32) -> Running {
    let script = format!("i={from}; while [ $i -lt {to} ]; do /usr/bin/true n$i; i=$((i+1)); done");
    Running::start(
        program("cresset")
            .arg("run")
            .arg("--sensor")
            .arg(dir.join("sensor.sock"))
            .args([
                "-n",
                "crash",
                "--name",
                "pod",
                "-l",
                "app=crash",
                "--",
                "sh",
                "-c",
                &script,
            ]),
    )
}

/// How often each number was told.
fn told(feed: &str) -> BTreeMap<u32, u32> {
    let mut counts = BTreeMap::new();
    for alert in history(feed, "policy") {
        let resource = alert["Resource"].as_str().unwrap_or_default().to_owned();
        if let Some(n) = resource.rsplit('n').next().and_then(|n| n.parse().ok()) {
            *counts.entry(n).or_default() += 1;
        }
    }
    counts
}

#[test]
fn no_event_is_missing_or_doubled_when_relay_and_sensor_are_killed() {
    if !can_watch("crash") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let ports = Ports {
        feed: free_port(),
        link: free_port(),
        http: free_port(),
    };
    let feed = format!("127.0.0.1:{}", ports.feed);
    settings(dir.path(), &ports);
    let mut relay = start_relay(dir.path(), &ports);
    let mut sensor = start_sensor(dir.path());
    in_force(&feed);

    // The relay dies three times while a workload goes on; the sensor holds what was not acknowledged.
    let mut run = workload(dir.path(), 0, 3000);
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(400));
        relay.kill();
        std::thread::sleep(Duration::from_millis(200));
        relay = start_relay(dir.path(), &ports);
    }
    assert!(
        run.wait(Duration::from_secs(60)).success(),
        "{}",
        run.stderr.text()
    );
    let whole = eventually("every event arrives", Duration::from_secs(60), || {
        let counts = told(&feed);
        (counts.len() == 3000).then_some(counts)
    });
    let doubled: Vec<_> = whole.iter().filter(|(_, count)| **count != 1).collect();
    assert!(doubled.is_empty(), "told more than once: {doubled:?}");

    // The sensor dies; what it had spooled is sent by its next start, and what follows is told too.
    let mut run = workload(dir.path(), 10_000, 1_000_000);
    let before = eventually(
        "the second workload is told",
        Duration::from_secs(60),
        || {
            let counts = told(&feed);
            counts.keys().any(|n| *n >= 10_000).then_some(counts)
        },
    );
    sensor.kill();
    assert!(
        !run.wait(Duration::from_secs(60)).success(),
        "a workload outlived its sensor's enforcement"
    );
    let mut sensor = start_sensor(dir.path());
    in_force(&feed);
    let mut run = workload(dir.path(), 2_000_000, 2_000_010);
    assert!(
        run.wait(Duration::from_secs(60)).success(),
        "{}",
        run.stderr.text()
    );
    let after = eventually(
        "the new sensor's events arrive",
        Duration::from_secs(60),
        || {
            let counts = told(&feed);
            (counts.range(2_000_000..).count() == 10).then_some(counts)
        },
    );
    for (n, count) in &before {
        assert_eq!(
            after.get(n),
            Some(count),
            "event {n}, acknowledged before the kill"
        );
    }
    let numbers: Vec<u32> = after.range(10_000..1_000_000).map(|(n, _)| *n).collect();
    let gaps = numbers
        .windows(2)
        .filter(|pair| pair[1] != pair[0] + 1)
        .count();
    assert_eq!(gaps, 0, "events between two told ones are missing");
    assert!(
        after.values().all(|count| *count == 1),
        "an event was told twice"
    );

    // The file has each line once more or less: at least once, and every acknowledged event.
    let archive = std::fs::read_to_string(dir.path().join("events.jsonl")).expect("the archive");
    for n in whole.keys() {
        assert!(
            archive.contains(&format!(" n{n}\"")),
            "event {n} is not in the archive"
        );
    }
    sensor.signal(libc::SIGTERM);
    assert_eq!(sensor.wait(Duration::from_secs(60)).code(), Some(0));
    let (_, metrics) = get(&format!("127.0.0.1:{}", ports.http), "/metrics").expect("metrics");
    assert_eq!(Page::read(&metrics).check_at_rest(), Ok(()));
    relay.signal(libc::SIGTERM);
    assert_eq!(relay.wait(Duration::from_secs(60)).code(), Some(0));
}
