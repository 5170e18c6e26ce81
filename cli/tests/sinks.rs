//! Sinks steered from the command line: `cresset sink`, `dlq` and `tap` against the real relay over its admin socket.
#![allow(clippy::expect_used, clippy::panic)] // reason: a test that cannot go on has failed

#[path = "sinks/damage.rs"]
mod damage;
mod support;

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use journal::{Journal, RealDisk, Record};
use prost::Message as _;
use proto::{Event, EventId, Kind, StreamId, feeder};
use serde_json::Value;
use support::eventually;
use support::program::{Place, Relay};

const SINKS: &str = "archive: {type: file, path: DIR/events.jsonl, fields: all, start: beginning}, \
    metrics: {type: prometheus}, \
    lost: {type: file, path: DIR/relay.yaml/events, retry: {initial: 10ms, max: 50ms}}";

const SOON: Duration = Duration::from_secs(60);

/// A relay with a file that works, counters, and a file that cannot be.
struct Scene {
    place: Place,
}

impl Scene {
    fn new() -> Scene {
        Scene {
            place: Place::new("", SINKS),
        }
    }

    /// `cresset COMMAND… --socket …` without a word on what became of it.
    fn try_to(&self, command: &[&str]) -> Output {
        let mut cresset = support::program("cresset");
        cresset.args(command);
        cresset.arg("--socket").arg(self.place.path("admin.sock"));
        cresset.output().expect("cresset runs")
    }

    /// The same, which has to go well; its standard output.
    #[track_caller]
    fn cresset(&self, command: &[&str]) -> String {
        let output = self.try_to(command);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{command:?}: {told}");
        String::from_utf8(output.stdout).expect("text")
    }

    fn import(&self, pods: &[&str]) {
        let lines: String = pods
            .iter()
            .map(|pod| {
                format!("{{\"Type\":\"MatchedPolicy\",\"PodName\":\"{pod}\",\"NamespaceName\":\"shop\",\"Operation\":\"File\",\"PolicyName\":\"p\",\"Action\":\"Block\"}}\n")
            })
            .collect();
        let file = self.place.path("import.jsonl");
        std::fs::write(&file, lines).expect("written");
        let mut cresset = support::program("cresset");
        cresset.arg("import").arg(&file);
        // It knows the socket by its folder.
        cresset.arg("--data").arg(self.folder());
        let output = cresset.output().expect("cresset runs");
        assert!(output.status.success(), "{output:?}");
    }

    fn folder(&self) -> PathBuf {
        let socket = self.place.path("admin.sock");
        socket.parent().expect("a folder").to_owned()
    }

    /// The events in the file, as far as they are there.
    fn archived(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.place.path("events.jsonl")).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }

    fn pods(&self) -> Vec<String> {
        let events = self.archived();
        let pods = events.iter().filter_map(|event| event["PodName"].as_str());
        pods.map(str::to_owned).collect()
    }

    fn when_pods(&self, pods: &[&str]) {
        eventually(&format!("{pods:?}"), SOON, || {
            (self.pods() == pods).then_some(())
        });
    }

    /// What the audit trail in the file says was done.
    fn audit(&self) -> Vec<(String, String)> {
        let events = self.archived();
        let acts = events.iter().map(|event| &event["Audit"]);
        acts.filter(|audit| audit.is_object())
            .map(|audit| {
                let text = |key: &str| audit[key].as_str().expect("text").to_owned();
                assert!(text("Actor").starts_with("uid "), "{audit}");
                (text("Action"), text("Target"))
            })
            .collect()
    }

    fn sink(&self, name: &str) -> Value {
        let all = self.cresset(&["sink", "list", "-o", "json"]);
        let all: Value = serde_json::from_str(&all).expect("JSON");
        let all = all.as_array().expect("an array");
        let sink = all.iter().find(|sink| sink["name"] == name);
        sink.expect("the sink").clone()
    }
}

#[test]
fn a_sink_is_paused_resumed_rewound_and_skipped_and_each_act_is_an_event() {
    let scene = Scene::new();
    let relay = scene.place.start();
    scene.import(&["a", "b"]);
    scene.when_pods(&["a", "b"]);
    let said = scene.cresset(&["sink", "pause", "archive"]);
    assert!(
        said.contains("archive is paused, also after a restart"),
        "{said}"
    );
    scene.import(&["c"]);
    eventually("something waits", SOON, || {
        (scene.sink("archive")["pending"].as_u64() > Some(0)).then_some(())
    });
    assert_eq!(scene.sink("archive")["state"], "paused");
    relay.stop();
    let relay = scene.place.start();
    assert_eq!(scene.sink("archive")["state"], "paused");
    let list = scene.cresset(&["sink", "list"]);
    assert!(
        list.contains("! archive: paused") && list.contains("by uid "),
        "{list}"
    );
    assert_eq!(scene.pods(), ["a", "b"]);
    scene.cresset(&["sink", "resume", "archive"]);
    scene.when_pods(&["a", "b", "c"]);
    let said = scene.cresset(&["sink", "rewind", "archive", "--since", "1h"]);
    assert!(said.contains("events are sent again"), "{said}");
    scene.when_pods(&["a", "b", "c", "a", "b", "c"]);
    scene.cresset(&["sink", "pause", "archive"]);
    scene.import(&["left-out"]);
    let said = scene.cresset(&["sink", "skip", "archive"]);
    assert!(said.contains("events are left out"), "{said}");
    scene.cresset(&["sink", "resume", "archive"]);
    scene.import(&["d"]);
    scene.when_pods(&["a", "b", "c", "a", "b", "c", "d"]);
    let audit = scene.audit();
    for verb in ["pause", "resume", "rewind", "skip"] {
        let act = (verb.to_owned(), "sink archive".to_owned());
        assert!(audit.contains(&act), "{verb} is not in {audit:?}");
    }
    // Counters would count the same events twice.
    let refused = scene.try_to(&["sink", "rewind", "metrics", "--since", "1h"]);
    assert_eq!(refused.status.code(), Some(1));
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(why.contains("count the same ones twice"), "{why}");
    let unknown = scene.try_to(&["sink", "pause", "bus"]);
    let why = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(
        why.contains("no sink `bus`; there are: archive, lost, metrics"),
        "{why}"
    );
    relay.stop();
}

#[test]
fn a_test_tells_each_step_and_where_it_failed() {
    let scene = Scene::new();
    let relay = scene.place.start();
    let said = scene.cresset(&["sink", "test", "archive"]);
    let steps: Vec<&str> = said.lines().collect();
    assert!(steps[0].starts_with("ok      write"), "{said}");
    assert!(steps[1].starts_with("ok      read back"), "{said}");
    assert!(
        steps[2].starts_with("archive takes events; the marked one is "),
        "{said}"
    );
    let id = steps[2].rsplit(' ').next().expect("an id").to_owned();
    let marked = scene.archived();
    assert!(
        marked.iter().any(|event| event["EventID"] == id.as_str()),
        "{marked:?}"
    );
    scene.cresset(&["sink", "test", "metrics", "--kind", "alert"]);
    let failed = scene.try_to(&["sink", "test", "lost", "-o", "json"]);
    assert_eq!(failed.status.code(), Some(1));
    let step: Value = serde_json::from_slice(&failed.stdout).expect("one step");
    assert_eq!(
        (&step["step"], &step["ok"]),
        (&"write".into(), &false.into())
    );
    let why = step["detail"].as_str().expect("text");
    assert!(why.contains("relay.yaml/events"), "{why}");
    relay.stop();
}

#[test]
fn a_tap_shows_what_goes_and_what_comes_back() {
    let scene = Scene::new();
    let relay = scene.place.start();
    let mut cresset = support::program("cresset");
    cresset.args(["tap", "archive", "--limit", "2", "-o", "json"]);
    cresset.arg("--socket").arg(scene.place.path("admin.sock"));
    cresset.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut tap = cresset.spawn().expect("cresset runs");
    let mut begun = String::new();
    let stderr = tap.stderr.take().expect("piped");
    let mut stderr = BufReader::new(stderr);
    stderr.read_line(&mut begun).expect("a line");
    assert_eq!(begun, "Started to tap archive\n");
    scene.import(&["a", "b", "c"]);
    let output = tap.wait_with_output().expect("it ends");
    let lines: Vec<Value> = output
        .stdout
        .lines()
        .map(|line| serde_json::from_str(&line.expect("text")).expect("JSON"))
        .collect();
    let sent: Vec<&Value> = lines
        .iter()
        .filter_map(|line| line["sent"]["events"].as_array())
        .flatten()
        .collect();
    let pods: Vec<&Value> = sent.iter().map(|event| &event["PodName"]).collect();
    assert_eq!(pods, ["a", "b"]);
    let answered = lines.last().expect("an answer");
    assert!(
        answered["answered"]["taken"].as_u64() >= Some(1),
        "{answered}"
    );
    relay.stop();
}

/// Dead letters as the format of version 1 has them (`relay/src/fanout/dead_letters/letter.rs`), for the sink `archive`.
fn bury(scene: &Scene, reasons: &[&str]) -> Vec<EventId> {
    let folder = scene.place.path("data/dead-letters/archive");
    std::fs::create_dir_all(&folder).expect("a folder");
    let disk = RealDisk::open(folder).expect("a disk");
    let config = journal::Config::default();
    let (journal, _) = Journal::open(Arc::new(disk), config, Box::new(())).expect("a journal");
    let letters = reasons.iter().zip(1..).map(|(reason, sequence)| {
        let alert = feeder::Alert {
            namespace_name: if sequence % 2 == 0 { "shop" } else { "bank" }.to_owned(),
            pod_name: format!("dead-{sequence}"),
            operation: "Process".to_owned(),
            ..feeder::Alert::default()
        };
        Event {
            kind: Kind::Alert,
            id: EventId {
                stream: StreamId(*b"deceased"),
                sequence,
            },
            payload: alert.encode_to_vec().into(),
        }
        .into_letter(reason)
    });
    let (records, ids): (Vec<Record>, Vec<EventId>) = letters.unzip();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(journal.append(records)).expect("written");
    journal.close();
    ids
}

trait IntoLetter {
    fn into_letter(self, reason: &str) -> (Record, EventId);
}

impl IntoLetter for Event {
    fn into_letter(self, reason: &str) -> (Record, EventId) {
        let mut payload = BytesMut::new();
        payload.put_u8(1);
        payload.put_u64(self.id.sequence);
        payload.put_u32(reason.len() as u32);
        payload.put_slice(reason.as_bytes());
        payload.put_slice(&self.to_journal());
        let record = Record {
            kind: self.kind as u8,
            time: self.id.sequence * 1_000_000_000,
            payload: payload.freeze(),
        };
        (record, self.id)
    }
}

#[test]
fn dead_letters_are_listed_shown_sent_again_and_dropped() {
    let scene = Scene::new();
    let ids = bury(
        &scene,
        &[
            "400 mapper_parsing_exception: a\u{1b}[2J\n{\"error\":{\"type\":\"mapper\"}}",
            "413 too large",
            "400 mapper_parsing_exception: b",
            "413 too large",
        ],
    );
    let relay = scene.place.start();
    assert_eq!(scene.sink("archive")["dead_letters"], 4);
    let list = scene.cresset(&["dlq", "list", "archive"]);
    let rows: Vec<&str> = list.lines().collect();
    assert_eq!(rows.len(), 5, "{list}");
    assert!(
        rows[1].starts_with("1970-01-01T00:00:01Z  alert  6465636561736564"),
        "{list}"
    );
    assert!(
        rows[1].ends_with(r"bank       Process    400 mapper_parsing_exception: a\x1b[2J"),
        "{list}"
    );
    let large = scene.cresset(&[
        "dlq",
        "list",
        "archive",
        "--reason",
        "TOO LARGE",
        "-o",
        "json",
    ]);
    assert_eq!(large.lines().count(), 2);
    let shown = scene.cresset(&["dlq", "show", "archive", "--id", &ids[0].to_string()]);
    assert!(
        shown.contains("Answer: {\"error\":{\"type\":\"mapper\"}}\n"),
        "{shown}"
    );
    assert!(
        shown.contains("PodName: dead-1\n") && !shown.contains("dead-3"),
        "{shown}"
    );

    let said = scene.cresset(&["dlq", "retry", "archive", "-n", "^bank$"]);
    assert_eq!(said, "archive: 2 of 2 delivered\n");
    eventually("both are there", SOON, || {
        let events = scene.archived();
        let there = |id: &EventId| {
            events
                .iter()
                .any(|event| event["EventID"] == id.to_string())
        };
        (there(&ids[0]) && there(&ids[2])).then_some(())
    });
    let all = scene.try_to(&["dlq", "drop", "archive"]);
    assert_eq!(all.status.code(), Some(2), "dropping all takes a word");
    let said = scene.cresset(&["dlq", "drop", "archive", "--limit", "1"]);
    assert_eq!(said, "archive: 1 dropped\n");
    relay.stop();

    let relay: Relay = scene.place.start();
    let left = scene.cresset(&["dlq", "list", "archive", "-o", "json"]);
    let left: Value = serde_json::from_str(&left).expect("one letter");
    assert_eq!(left["event_id"], ids[3].to_string());
    assert_eq!(left["event"]["PodName"], "dead-4");
    let page = relay.page();
    let archive = |what: &str| {
        page.get(&format!(
            "cresset_sink_{what}{{sink=\"archive\",type=\"file\"}}"
        ))
    };
    assert_eq!(
        [
            "dead_letters",
            "dead_letters_resent_total",
            "dead_letters_discarded_total"
        ]
        .map(archive),
        [1, 2, 1]
    );
    scene.cresset(&["dlq", "drop", "archive", "--all"]);
    let none = scene.cresset(&["dlq", "list", "archive"]);
    assert_eq!(none, "archive: no dead letters like that\n");
    eventually("the audit trail tells of it", SOON, || {
        let audit = scene.audit();
        let told = |verb: &str| audit.contains(&(verb.to_owned(), "sink archive".to_owned()));
        (told("retry dead letters of") && told("drop dead letters of")).then_some(())
    });
    relay.stop();
}

#[test]
fn after_sigusr1_events_go_to_a_new_file_under_the_old_name() {
    let scene = Scene::new();
    let relay = scene.place.start();
    scene.import(&["a"]);
    scene.when_pods(&["a"]);
    let moved = scene.place.path("moved.jsonl");
    std::fs::rename(scene.place.path("events.jsonl"), &moved).expect("moved");
    relay.running.signal(libc::SIGUSR1);
    eventually("the relay heard it", SOON, || {
        let heard = !relay.logged("reopening the files of sinks").is_empty();
        heard.then_some(())
    });
    scene.import(&["b"]);
    scene.when_pods(&["b"]);
    let old = std::fs::read_to_string(moved).expect("read");
    assert!(
        old.contains("\"PodName\":\"a\"") && !old.contains("\"PodName\":\"b\""),
        "{old}"
    );
    relay.stop();
}

#[test]
fn whoever_is_not_there_is_told_how_to_reach_a_relay() {
    let scene = Scene::new();
    let output = scene.try_to(&["sink", "list"]);
    assert_eq!(output.status.code(), Some(3));
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        why.contains("admin.sock") && why.contains("is it running"),
        "{why}"
    );
}

/// A web server for `webhook` that answers every request with one status and keeps what it took.
#[derive(Clone)]
struct Web {
    at: std::net::SocketAddr,
    status: Arc<AtomicU16>,
    asked: Arc<AtomicUsize>,
    /// The pods of the events that it took.
    pods: Arc<Mutex<Vec<String>>>,
}

impl Web {
    fn start(status: u16) -> Web {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let web = Web {
            at: listener.local_addr().expect("an address"),
            status: Arc::new(AtomicU16::new(status)),
            asked: Arc::default(),
            pods: Arc::default(),
        };
        let serving = web.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let web = serving.clone();
                std::thread::spawn(move || while web.answer(&stream).is_some() {});
            }
        });
        web
    }

    /// None: the connection has ended.
    fn answer(&self, stream: &std::net::TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream);
        let (mut length, mut line) = (0, String::new());
        while reader.read_line(&mut line).ok()? > 2 {
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
            line.clear();
        }
        if length == 0 {
            return None;
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        self.asked.fetch_add(1, Ordering::Relaxed);
        let text = String::from_utf8(body).expect("text");
        let status = self.status.load(Ordering::Relaxed);
        // Whatever the status says, one thing it never takes.
        let status = if text.contains("poison") { 400 } else { status };
        if status == 200 {
            let pods = text.lines().map(|line| {
                let event: Value = serde_json::from_str(line).expect("JSON");
                event["PodName"].as_str().unwrap_or_default().to_owned()
            });
            self.pods.lock().expect("whole").extend(pods);
        }
        let mut stream = stream;
        write!(
            stream,
            "HTTP/1.1 {status} Said\r\ncontent-length: 4\r\n\r\nsaid"
        )
        .ok()
    }

    fn pods(&self) -> Vec<String> {
        let mut pods = self.pods.lock().expect("whole").clone();
        // What the relay tells of itself has no pod.
        pods.retain(|pod| !pod.is_empty());
        pods
    }
}

#[test]
fn a_destination_that_refuses_everything_is_waited_for_and_one_poison_event_is_not() {
    let web = Web::start(400);
    let sinks = format!(
        "chat: {{type: webhook, shape: ndjson, url: \"http://{}/\", start: beginning, \
         batch: {{max_delay: 100ms}}, retry: {{initial: 20ms, max: 100ms}}}}",
        web.at
    );
    let scene = Scene {
        place: Place::new("", &sinks),
    };
    let relay = scene.place.start();
    scene.import(&["a", "poison", "b"]);
    eventually("it says what is wrong", SOON, || {
        let told = scene.sink("chat")["last_error"].to_string();
        told.contains("refuses every event").then_some(())
    });
    let list = scene.cresset(&["sink", "list"]);
    assert!(
        list.contains("HTTP 400") && list.contains("cresset sink skip"),
        "{list}"
    );
    let asked = web.asked.load(Ordering::Relaxed);
    eventually("it is tried again", SOON, || {
        (web.asked.load(Ordering::Relaxed) > asked + 5).then_some(())
    });
    assert_eq!(scene.sink("chat")["dead_letters"], 0);
    let failed = scene.try_to(&["sink", "test", "chat"]);
    let said = String::from_utf8_lossy(&failed.stdout).into_owned();
    assert_eq!(failed.status.code(), Some(1), "{said}");
    let steps: Vec<&str> = said.lines().collect();
    assert!(steps[0].starts_with("ok      resolve"), "{said}");
    assert!(steps[1].starts_with("ok      connect"), "{said}");
    assert!(
        steps[2].contains("write") && steps[2].contains("HTTP 400"),
        "{said}"
    );
    web.status.store(200, Ordering::Relaxed);
    eventually("all is there", SOON, || {
        let mut pods = web.pods();
        // Changing its mind between the two, it has refused the first once more.
        pods.sort();
        (pods == ["a", "b"]).then_some(())
    });
    eventually("the poison is put aside", SOON, || {
        (scene.sink("chat")["dead_letters"] == 1).then_some(())
    });
    let letters = scene.cresset(&["dlq", "list", "chat"]);
    assert!(letters.contains("HTTP 400"), "{letters}");
    scene.cresset(&["sink", "test", "chat"]);
    relay.stop();
}

#[test]
fn a_stalled_stdout_hurts_nobody_and_has_everything_in_the_end() {
    let scene = Scene {
        place: Place::new(
            "",
            "console: {type: stdout, format: json, start: beginning}, \
             archive: {type: file, path: DIR/events.jsonl, fields: all, start: beginning}",
        ),
    };
    // Nobody reads this pipe, and its kernel takes 64 KiB.
    let (running, stdout) = scene.place.spawn(Stdio::piped());
    let relay = Relay::ready(running);
    let names: Vec<String> = (0..2000).map(|n| format!("pod-{n}")).collect();
    let pods: Vec<&str> = names.iter().map(String::as_str).collect();
    scene.import(&pods);
    scene.when_pods(&pods);
    eventually("the pipe is full", SOON, || {
        (scene.sink("console")["pending"].as_u64() > Some(0)).then_some(())
    });
    // Everything else goes on: status, further events, tests.
    scene.cresset(&["sink", "test", "archive"]);
    let reader = std::thread::spawn(move || {
        let lines = BufReader::new(stdout.expect("piped")).lines();
        let lines = lines.map_while(Result::ok);
        let events = lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok());
        let pods = events.filter_map(|event| event["PodName"].as_str().map(str::to_owned));
        pods.collect::<Vec<String>>()
    });
    eventually("it catches up", SOON, || {
        (scene.sink("console")["pending"] == 0).then_some(())
    });
    relay.stop();
    assert_eq!(reader.join().expect("lines"), names);
}
