//! `cresset import`, `logs` and `status` against a real `cresset-relay`: what goes in comes out, letter for letter.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod support;

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::{Running, eventually, program, word};

const RECORDED: &str = include_str!("../../examples/events.jsonl");

/// A relay without sensors, with its own folder.
struct Relay {
    dir: tempfile::TempDir,
    feed: String,
    program: Running,
}

impl Relay {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let at = dir.path().display();
        let settings = format!(
            "version: 1\nrelay:\n  data_dir: {at}/data\n  listen: {{feed: 127.0.0.1:0, link: 127.0.0.1:0, \
             http: 127.0.0.1:0, admin: unix:{at}/data/admin.sock}}\npolicies: {{sources: []}}\n"
        );
        let path = dir.path().join("relay.yaml");
        std::fs::write(&path, settings).expect("settings");
        let mut program = Running::start(program("cresset-relay").arg("--config").arg(path));
        let ready = program.line("ready feed=", Duration::from_secs(20));
        Self {
            feed: word(&ready, "feed"),
            dir,
            program,
        }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn import(&self, text: &str) -> Output {
        let file = self.dir.path().join("events.jsonl");
        std::fs::write(&file, text).expect("written");
        let mut import = program("cresset");
        import
            .arg("import")
            .arg("--data")
            .arg(self.data())
            .arg(file);
        import.output().expect("cresset import")
    }

    fn logs(&self, arguments: &[&str]) -> Command {
        let mut logs = program("cresset");
        logs.args(["logs", "--relay", &self.feed]).args(arguments);
        logs
    }

    /// What `cresset logs` prints to its end.
    fn read(&self, arguments: &[&str]) -> String {
        let out = self.logs(arguments).output().expect("cresset logs");
        assert_eq!(out.status.code(), Some(0), "{out:?}");
        String::from_utf8(out.stdout).expect("text")
    }
}

/// The recorded lines of these kinds of event.
fn recorded(kinds: &[&str]) -> String {
    let of = |line: &&str| {
        let event: Value = serde_json::from_str(line).expect("JSON");
        let kind = event["Type"].as_str().expect("a type").to_owned();
        kinds
            .iter()
            .any(|wanted| kind.starts_with(wanted) || kind.ends_with(wanted))
    };
    let lines: Vec<&str> = RECORDED.lines().filter(of).collect();
    assert!(lines.len() > 3, "nothing was recorded of {kinds:?}");
    lines.join("\n") + "\n"
}

#[test]
fn recorded_events_come_out_of_history_as_they_went_in() {
    let relay = Relay::start();
    let import = relay.import(RECORDED);
    assert_eq!(import.status.code(), Some(0), "{import:?}");
    let count = RECORDED.lines().count();
    let said = String::from_utf8_lossy(&import.stdout).into_owned();
    assert_eq!(said, format!("imported {count} events\n"));

    let alerts = recorded(&["Matched", "SystemEvent"]);
    assert_eq!(relay.read(&["--since", "10m", "--json"]), alerts);
    let logs = recorded(&["Log"]);
    let system = ["--filter", "system", "--since", "10m", "-o", "json"];
    assert_eq!(relay.read(&system), logs);
    let all = recorded(&["Matched", "SystemEvent", "Log"]);
    let karmors = ["--logFilter", "all", "--since", "10m", "--json"];
    assert_eq!(relay.read(&karmors), all);

    let text = relay.read(&["--since", "10m"]);
    assert_eq!(text.matches("== Alert / ").count(), alerts.lines().count());
    let last = alerts.lines().last().expect("a line");
    assert_eq!(relay.read(&["--tail", "1", "--json"]), format!("{last}\n"));
    let pretty = relay.read(&["--tail", "1", "-o", "pretty-json"]);
    let value = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
    assert_eq!(value(&pretty), value(last));
    assert_eq!(relay.read(&["--until", "1h", "--json"]), "");
    assert_eq!(relay.read(&["--since", "10m", "-n", "no-such"]), "");
}

#[test]
fn a_line_that_is_no_event_is_told_with_its_place_and_the_others_go_in() {
    let relay = Relay::start();
    let alert = recorded(&["Matched"])
        .lines()
        .next()
        .expect("one")
        .to_owned();
    let import = relay.import(&format!("{alert}\n{{\"Type\":\n\n[]\n{alert}\n"));
    assert_eq!(import.status.code(), Some(1), "{import:?}");
    let said = String::from_utf8_lossy(&import.stderr).into_owned();
    assert!(said.contains("events.jsonl:2: column"), "{said}");
    assert!(
        said.contains("events.jsonl:4: an event is a JSON object"),
        "{said}"
    );
    let counted = String::from_utf8_lossy(&import.stdout).into_owned();
    assert_eq!(counted, "imported 2 events; 2 lines left out\n");
    let line = format!("{alert}\n");
    assert_eq!(relay.read(&["--since", "1m", "--json"]), line.repeat(2));
}

#[test]
fn live_logs_show_what_happens_and_end_well_with_ctrl_c() {
    let relay = Relay::start();
    relay.import(RECORDED);
    let mut live = Running::start(&mut relay.logs(&["--json", "--pod", "."]));
    live.line("Started to watch alerts", Duration::from_secs(10));
    assert!(live.stdout.all().is_empty(), "nothing of what was before");
    relay.import(RECORDED);
    let alerts = eventually("the alerts", Duration::from_secs(10), || {
        let lines = live.stdout.all();
        lines
            .last()
            .is_some_and(|line| line.contains("PodName"))
            .then_some(lines)
    });
    assert!(RECORDED.contains(&alerts[0]));
    live.signal(libc::SIGINT);
    assert_eq!(live.wait(Duration::from_secs(10)).code(), Some(0));
}

#[test]
fn a_reader_that_has_had_enough_is_no_error() {
    let relay = Relay::start();
    let alert = recorded(&["Matched"])
        .lines()
        .next()
        .expect("one")
        .to_owned()
        + "\n";
    relay.import(&alert.repeat(2000));
    let mut logs = relay
        .logs(&["--since", "10m", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("cresset logs");
    let mut first = String::new();
    let mut stdout = BufReader::with_capacity(64, logs.stdout.take().expect("piped"));
    stdout.read_line(&mut first).expect("a line");
    drop(stdout);
    let status = logs.wait().expect("ended");
    let mut said = String::new();
    let stderr = logs.stderr.as_mut().expect("piped");
    stderr.read_to_string(&mut said).expect("text");
    assert_eq!(
        (status.code(), first, said),
        (Some(0), alert, String::new())
    );
}

#[test]
fn a_relay_that_goes_away_is_exit_3_and_a_bad_expression_exit_2() {
    let mut relay = Relay::start();
    let bad = relay
        .logs(&["--source", "a("])
        .output()
        .expect("cresset logs");
    assert_eq!(bad.status.code(), Some(2), "{bad:?}");
    assert!(
        String::from_utf8_lossy(&bad.stderr).contains("`a(` for source"),
        "{bad:?}"
    );

    let mut live = Running::start(&mut relay.logs(&[]));
    live.line("Started to watch alerts", Duration::from_secs(10));
    relay.program.signal(libc::SIGTERM);
    assert_eq!(relay.program.wait(Duration::from_secs(20)).code(), Some(0));
    assert_eq!(live.wait(Duration::from_secs(10)).code(), Some(3));
    let said = live.whole_text();
    assert!(
        said.contains(&relay.feed) && said.contains("stopping"),
        "{said}"
    );
}

#[test]
fn status_is_told_through_both_doors() {
    let relay = Relay::start();
    relay.import(RECORDED);
    let status = |arguments: &[&str]| {
        let out = program("cresset").arg("status").args(arguments).output();
        let out = out.expect("cresset status");
        assert_eq!(out.status.code(), Some(0), "{out:?}");
        String::from_utf8(out.stdout).expect("text")
    };
    let page = status(&["--relay", &relay.feed]);
    assert!(page.starts_with("relay     ready, version "), "{page}");
    assert!(page.contains(&format!("feed    {}", relay.feed)), "{page}");
    let data = relay.data().display().to_string();
    let json: Value =
        serde_json::from_str(&status(&["--data", &data, "-o", "json"])).expect("JSON");
    assert_eq!(json["relay"]["ready"], true);
    assert_eq!(json["journal"]["next"], RECORDED.lines().count() + 1);
    assert_eq!(json["policies"]["current"], true);
}
