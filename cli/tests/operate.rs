//! The relay operated from outside: settings anew while it runs, where an event is, a bundle for support, its supervisor, and a
//! page that lives.
#![allow(clippy::expect_used, clippy::panic)] // reason: a test that cannot go on has failed

mod support;

use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use proto::operate::ReloadRequest;
use serde_json::Value;
use support::eventually;
use support::program::{Place, Relay};

const SOON: Duration = Duration::from_secs(60);

const ARCHIVE: &str =
    "archive: {type: file, path: DIR/events.jsonl, fields: all, start: beginning}";

struct Scene {
    place: Place,
}

impl Scene {
    fn new(relay: &str, sinks: &str) -> Scene {
        Scene {
            place: Place::new(relay, sinks),
        }
    }

    fn cresset(&self, command: &[&str]) -> Output {
        let mut cresset = support::program("cresset");
        cresset.args(command);
        cresset.arg("--socket").arg(self.place.path("admin.sock"));
        cresset.output().expect("cresset runs")
    }

    /// The same with what it said, and its exit code.
    fn said(&self, command: &[&str]) -> (Option<i32>, String) {
        let output = self.cresset(command);
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).expect("text"))
    }

    /// Puts another text in place of one in the settings.
    #[track_caller]
    fn edit(&self, from: &str, to: &str) {
        let file = self.place.path("relay.yaml");
        let text = std::fs::read_to_string(&file).expect("settings");
        let dir = self.place.path("");
        let here =
            |text: &str| text.replace("DIR", dir.to_str().expect("text").trim_end_matches('/'));
        let (from, to) = (here(from), here(to));
        assert!(text.contains(&from), "{from} is not in\n{text}");
        std::fs::write(file, text.replace(&from, &to)).expect("settings");
    }

    fn import(&self, namespace: &str, count: usize) {
        let line = format!(
            "{{\"Type\":\"MatchedPolicy\",\"PodName\":\"p\",\"NamespaceName\":\"{namespace}\",\"Operation\":\"File\",\"PolicyName\":\"p\",\"Action\":\"Block\"}}\n"
        );
        let mut import = support::program("cresset");
        import
            .arg("import")
            .arg("--data")
            .arg(self.place.path(""))
            .arg("-");
        let mut child = import
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("cresset import");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin
            .write_all(line.repeat(count).as_bytes())
            .expect("taken");
        drop(stdin);
        assert!(child.wait().expect("an end").success());
    }

    /// What the file sink has.
    fn archived(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.place.path("events.jsonl")).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }

    /// The alerts in it, once there are so many.
    #[track_caller]
    fn alerts(&self, namespace: &str, count: usize) -> Vec<Value> {
        eventually(&format!("{count} alerts of {namespace}"), SOON, || {
            let mut all = self.archived();
            all.retain(|event| event["NamespaceName"] == namespace);
            (all.len() >= count).then_some(all)
        })
    }
}

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

#[test]
fn an_event_is_traced_to_journal_and_sinks_whatever_became_of_it() {
    let scene = Scene::new(
        "",
        &format!(
            "{ARCHIVE}, few: {{type: file, path: DIR/few.jsonl, filter: {{namespaces: [other]}}}}, away: {{type: file, path: DIR/relay.yaml/none, start: beginning}}"
        ),
    );
    let relay = scene.place.start();
    scene.import("shop", 2);
    let event = scene.alerts("shop", 2).remove(0);
    let id = event["EventID"].as_str().expect("an id").to_owned();
    let trace = |id: &str| {
        let (code, text) = scene.said(&["trace", id, "-o", "json"]);
        let trace: Value =
            serde_json::from_str(&text).unwrap_or_else(|why| panic!("{why}: {text}"));
        (code, trace)
    };
    let at = |trace: &Value, sink: &str| {
        let sinks = trace["sinks"].as_array().expect("sinks").clone();
        sinks
            .into_iter()
            .find(|at| at["sink"] == sink)
            .expect("the sink")
    };
    relay.page_when("the archive has passed it", |page| {
        page.sink("archive", "pending") == 0
    });
    let (code, found) = trace(&id);
    assert_eq!(code, Some(0), "{found}");
    assert_eq!(found["journal"]["sequence"], 1, "{found}");
    assert_eq!(found["journal"]["segment"], 1, "{found}");
    assert_eq!(
        found["journal"]["event"]["NamespaceName"], "shop",
        "{found}"
    );
    let archive = at(&found, "archive");
    assert_eq!(archive["outcome"], "delivered", "{found}");
    assert!(
        archive["time_ns"].as_i64() > Some(1_700_000_000_000_000_000),
        "{found}"
    );
    assert!(
        archive["place"]
            .as_str()
            .expect("a place")
            .contains("events.jsonl"),
        "{found}"
    );
    assert_eq!(at(&found, "few")["outcome"], "filtered", "{found}");
    let away = at(&found, "away");
    assert_eq!(away["outcome"], "pending", "{found}");
    assert!(
        away["reason"]
            .as_str()
            .expect("a reason")
            .contains("it is the next one"),
        "{found}"
    );

    let (_, skipped) = scene.said(&["sink", "skip", "away"]);
    assert!(skipped.contains("away"), "{skipped}");
    assert_eq!(at(&trace(&id).1, "away")["outcome"], "skipped");
    // A page for people.
    let (_, page) = scene.said(&["trace", &id]);
    assert!(
        page.contains("journal   event 1, segment 00000000000000000001.seg"),
        "{page}"
    );
    assert!(page.contains("Alert: shop p File"), "{page}");

    let (code, nothing) = trace("0badc0de00000001000000000000002a");
    assert_eq!(code, Some(1), "{nothing}");
    assert!(
        nothing["note"]
            .as_str()
            .expect("a note")
            .contains("knows nothing of its stream"),
        "{nothing}"
    );
    let (code, said) = scene.said(&["trace", "0bad"]);
    assert_eq!(code, Some(2), "{said}");
    relay.stop();
}

#[test]
fn a_bundle_for_support_tells_much_and_no_secret() {
    let scene = Scene::new(
        "",
        &format!(
            "{ARCHIVE}, siem: {{type: elasticsearch, endpoints: [\"http://127.0.0.1:9\"], auth: {{api_key_file: DIR/es.key}}}}, chat: {{type: webhook, shape: slack, url: \"http://127.0.0.1:9/services/T000/hunter2path\", headers: {{X-Token: hunter2header}}}}"
        ),
    );
    std::fs::write(scene.place.path("es.key"), "aHVudGVyMg==hunter2key\n").expect("a key");
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

#[test]
fn its_supervisor_is_told_when_it_is_ready_alive_reloading_and_stopping() {
    let scene = Scene::new("", ARCHIVE);
    let socket = scene.place.path("notify.sock");
    let supervisor = UnixDatagram::bind(&socket).expect("a socket");
    supervisor.set_read_timeout(Some(SOON)).expect("a limit");
    let mut command = support::program("cresset-relay");
    command
        .arg("--config")
        .arg(scene.place.path("relay.yaml"))
        .env("NOTIFY_SOCKET", &socket)
        .env("WATCHDOG_USEC", "2000000");
    let relay = Relay::ready(support::Running::with_stdout(&mut command, Stdio::null()).0);
    let hear = |wanted: &str| {
        let mut bytes = [0; 4096];
        loop {
            let length = supervisor.recv(&mut bytes).expect("a word in time");
            let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
            if text.lines().any(|line| line.starts_with(wanted)) {
                return text;
            }
        }
    };
    let ready = hear("READY=1");
    assert!(ready.contains("STATUS=ready"), "{ready}");
    for _ in 0..3 {
        hear("WATCHDOG=1");
    }
    relay.running.signal(libc::SIGHUP);
    assert!(hear("RELOADING=1").contains("MONOTONIC_USEC="));
    hear("READY=1");
    relay.stop();
    hear("STOPPING=1");
}

#[test]
fn top_lives_on_a_terminal_and_leaves_it_as_it_was() {
    let scene = Scene::new("", ARCHIVE);
    let relay = scene.place.start();
    let (master, slave) = terminal();
    let mut top = support::program("cresset");
    top.args(["top", "--relay", &relay.feed, "--interval", "200ms"]);
    let of = || Stdio::from(slave.try_clone().expect("a terminal"));
    let mut child = top
        .stdin(of())
        .stdout(of())
        .stderr(of())
        .spawn()
        .expect("cresset top");
    drop(slave);
    let shown = support::Lines::default();
    let mut screen = std::fs::File::from(master.try_clone().expect("a terminal"));
    let into = shown.clone();
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(length @ 1..) = screen.read(&mut bytes) {
            into.push(String::from_utf8_lossy(&bytes[..length]).into_owned());
        }
    });
    scene.import("shop", 10);
    for words in [
        "relay     ready",
        "sinks     1",
        "archive",
        "events/s in",
        "q quits",
    ] {
        eventually(words, SOON, || {
            shown.all().concat().contains(words).then_some(())
        });
    }
    std::fs::File::from(master).write_all(b"q").expect("a key");
    let ended = eventually("the end", SOON, || child.try_wait().expect("wait"));
    assert_eq!(ended.code(), Some(0));
    let text = shown.all().concat();
    assert!(
        text.contains("\u{1b}[?1049h") && text.contains("\u{1b}[?1049l"),
        "the other screen, and back"
    );
    let mut plain = support::program("cresset");
    let plain = plain
        .args(["top", "--relay", &relay.feed])
        .output()
        .expect("cresset top");
    assert_eq!(plain.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&plain.stderr).contains("cresset status"));
    relay.stop();
}

/// A pseudo-terminal of 120 columns.
fn terminal() -> (OwnedFd, OwnedFd) {
    let (mut master, mut slave) = (0, 0);
    let size = libc::winsize {
        ws_row: 30,
        ws_col: 120,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: both numbers are written before they are read, and name, settings and size are optional or live.
    let made = unsafe {
        libc::openpty(
            &raw mut master,
            &raw mut slave,
            std::ptr::null_mut(),
            std::ptr::null(),
            &raw const size,
        )
    };
    assert_eq!(made, 0, "a pseudo-terminal");
    // SAFETY: openpty gave both, and nobody else has them.
    unsafe { (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) }
}

#[test]
fn batches_are_traced_from_the_sensor_to_the_sinks_when_a_collector_is_named() {
    use support::oracle::{Pace, Sensor};

    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (spans, at) = runtime.block_on(Collector::start());
    let scene = Scene::new(
        &format!("telemetry: {{traces: {{endpoint: \"http://{at}\", sample: 1}}}}"),
        ARCHIVE,
    );
    let relay = scene.place.start();
    let pace = Pace {
        batch: 5,
        pause: Duration::from_millis(1),
        total: 20,
        size: 100,
    };
    let (_at, place) = tokio::sync::watch::channel(Some(relay.link));
    let (_over, over) = tokio::sync::watch::channel(false);
    runtime.block_on(Sensor::new(1, pace).run(place, over));
    relay.page_when("the archive has everything", |page| {
        page.sink("archive", "delivered_total") >= 20
    });
    // The drain sends what is left.
    relay.stop();
    let spans = spans.0.lock().expect("spans").clone();
    let named = |name: &str| {
        spans
            .iter()
            .filter(|span| span.name == name)
            .collect::<Vec<_>>()
    };
    for ingest in named("ingest") {
        let of_trace = |span: &&&Span| span.trace_id == ingest.trace_id;
        let sensor = named("sensor batch");
        let sensor = sensor.iter().find(of_trace).expect("its sensor's part");
        assert_eq!(ingest.parent_span_id, sensor.span_id);
        let below = |name: &str| {
            let spans = named(name);
            let span = spans
                .iter()
                .find(of_trace)
                .unwrap_or_else(|| panic!("no {name} in {spans:#?}"));
            assert_eq!(span.parent_span_id, ingest.span_id, "{name}");
            assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
        };
        below("journal");
        below("sink archive");
    }
    assert!(
        named("ingest").len() >= 4,
        "a batch of 5 at a time: {spans:#?}"
    );
}

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;

/// A collector's door, and what came through it.
#[derive(Clone, Default)]
struct Collector(std::sync::Arc<std::sync::Mutex<Vec<Span>>>);

impl Collector {
    async fn start() -> (Collector, std::net::SocketAddr) {
        let collector = Collector::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let at = listener.local_addr().expect("bound");
        let server = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(collector.clone()))
            .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener));
        tokio::spawn(server);
        (collector, at)
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let resources = request.into_inner().resource_spans;
        let scopes = resources
            .into_iter()
            .flat_map(|resource| resource.scope_spans);
        self.0
            .lock()
            .expect("spans")
            .extend(scopes.flat_map(|scope| scope.spans));
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

#[test]
fn a_snapshot_of_a_running_relay_becomes_a_relay_that_goes_on_from_there() {
    let scene = Scene::new("", ARCHIVE);
    let relay = scene.place.start();
    scene.import("before", 500);
    scene.alerts("before", 500);
    relay.page_when("the sink is done", |page| {
        page.sink("archive", "pending") == 0
    });
    let (data, out) = (scene.place.path("data"), scene.place.path("snapshot"));
    let journal = |command: &[&std::ffi::OsStr]| {
        let out = support::program("cresset")
            .arg("journal")
            .args(command)
            .output();
        let out = out.expect("cresset journal");
        let text = [out.stdout, out.stderr].concat();
        (out.status.code(), String::from_utf8(text).expect("text"))
    };
    let (code, said) = journal(&["snapshot".as_ref(), data.as_ref(), out.as_ref()]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("verified"), "{said}");
    let (code, said) = journal(&["snapshot".as_ref(), data.as_ref(), out.as_ref()]);
    assert!(code == Some(3) && said.contains("there already"), "{said}");
    scene.import("after", 5);
    scene.alerts("after", 5);
    relay.stop();

    let (code, said) = journal(&["restore".as_ref(), out.as_ref(), data.as_ref()]);
    assert!(code == Some(3) && said.contains("not empty"), "{said}");
    std::fs::rename(&data, scene.place.path("old")).expect("moved");
    let (code, said) = journal(&["restore".as_ref(), out.as_ref(), data.as_ref()]);
    assert_eq!(code, Some(0), "{said}");
    let relay = scene.place.start();
    let page = relay.page();
    assert_eq!(
        page.get("cresset_journal_next_sequence"),
        501,
        "what came later is not in it"
    );
    assert_eq!(
        page.sink("archive", "delivered_total"),
        500,
        "and the sink stands where it stood"
    );
    scene.import("again", 3);
    scene.alerts("again", 3);
    relay.stop();
    let (code, said) = journal(&["verify".as_ref(), data.as_ref()]);
    assert_eq!(code, Some(0), "{said}");
    // One that was cut off.
    std::fs::remove_file(out.join("snapshot")).expect("there");
    let (code, said) = journal(&[
        "restore".as_ref(),
        out.as_ref(),
        scene.place.path("x").as_ref(),
    ]);
    assert!(
        code == Some(3) && said.contains("was not finished"),
        "{said}"
    );
}

#[test]
fn the_units_are_good_to_systemd() {
    let units = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd");
    for unit in ["cresset-relay.service", "cresset-sensor.service"] {
        let mut verify = std::process::Command::new("systemd-analyze");
        let out = match verify.arg("verify").arg(units.join(unit)).output() {
            Ok(out) => out,
            Err(why) => {
                return support::skip("systemd", "units", &format!("systemd-analyze: {why}"));
            }
        };
        let told = String::from_utf8_lossy(&out.stderr).into_owned();
        let wrong = |line: &&str| line.contains("cresset") && !line.contains("is not executable");
        assert_eq!(told.lines().find(wrong), None, "{unit}");
    }
}
