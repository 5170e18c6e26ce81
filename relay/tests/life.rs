//! The relay's life: what it needs to start, what it says of itself, and how it ends.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use prost::Message as _;
use proto::feeder::RequestMessage;
use proto::feeder::log_service_client::LogServiceClient;
use proto::operate::operate_client::OperateClient;
use proto::operate::{TraceManyRequest, TraceRequest};
use proto::query::query_client::QueryClient;
use proto::query::{ImportRequest, StatusRequest};
use proto::{EventId, StreamId};
use relay::{App, StartError};
use support::{Relay, SOON, channel, settings};
use tokio::time::timeout;
use tonic::Code;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

async fn refused(config: relay::Config) -> StartError {
    match App::build(config).await {
        Ok(_) => panic!("it should not have started"),
        Err(error) => error,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_named_with_the_way_to_find_out_by_whom() {
    let folder = tempfile::tempdir().expect("a folder");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound");
    let mut config = settings(folder.path(), "");
    config.relay.listen.link.address = relay::Address::Tcp(address);
    let error = refused(config).await.to_string();
    assert!(
        error.contains(&address.to_string())
            && error.contains("link")
            && error.contains("ss -ltnp"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_has_one_relay_and_the_second_is_told_who_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = Relay::start(folder.path()).await;
    let mut config = settings(folder.path(), "");
    config.relay.listen.admin.address = relay::Address::Unix(folder.path().join("other.sock"));
    let error = refused(config).await.to_string();
    assert!(
        error.contains("in use") && error.contains(&std::process::id().to_string()),
        "{error}"
    );
    relay.stop().await;
    Relay::start(folder.path()).await.stop().await;
}

/// Every file below a folder, with what it holds.
fn contents(folder: &Path) -> std::collections::BTreeMap<std::path::PathBuf, Vec<u8>> {
    let mut all = std::collections::BTreeMap::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            all.extend(contents(&entry.path()));
        } else {
            all.insert(entry.path(), std::fs::read(entry.path()).expect("a file"));
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_finds_the_folder_held_changes_nothing_in_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let (log, _) = relay::log::Store::open(&data, journal::Config::default()).expect("a journal");
    let before = contents(&data);
    // It would make an authority, streams, positions, a list of policies, and a sink's dead letters.
    let sinks = "sinks: {archive: {type: file, path: /nowhere/events, start: beginning}}";
    let mut config = settings(folder.path(), sinks);
    config.relay.tls = Some(relay::Tls {
        enrolment: true,
        ..relay::Tls::default()
    });
    assert!(refused(config.clone()).await.to_string().contains("in use"));
    assert_eq!(contents(&data), before);
    log.close();
    Relay::with(config).await.stop().await;
    assert!(data.join("authority/authority.pem").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_late_leaves_the_folder_free() {
    let folder = tempfile::tempdir().expect("a folder");
    let sinks = |sink: &str| {
        format!(
            "sinks: {{archive: {{type: file, path: {}/events}}{sink}}}",
            folder.path().display()
        )
    };
    // The key is read when the sink is made, long after the journal was opened and the first sink has its cursor.
    let late = sinks(
        ", siem: {type: elasticsearch, endpoints: [\"http://127.0.0.1:1\"], auth: {api_key_file: /nowhere/key}}",
    );
    let error = refused(settings(folder.path(), &late)).await.to_string();
    assert!(error.contains("/nowhere/key"), "{error}");
    Relay::with(settings(folder.path(), &sinks("")))
        .await
        .stop()
        .await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut config = settings(folder.path(), "");
    config.relay.listen.feed.address = relay::Address::Tcp(taken.local_addr().expect("bound"));
    refused(config).await;
    Relay::start(folder.path()).await.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_of_another_version_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    std::fs::create_dir(&data).expect("a folder");
    std::fs::write(
        data.join("cresset-data"),
        "cresset data\nformat 7\nrelay x\n",
    )
    .expect("written");
    let error = refused(settings(folder.path(), "")).await.to_string();
    assert!(
        error.contains("format 7") && error.contains("format 1"),
        "{error}"
    );
    assert_eq!(names(&data), ["cresset-data"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_without_its_version_file_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    std::fs::create_dir_all(data.join("journal")).expect("a folder");
    let error = refused(settings(folder.path(), "")).await.to_string();
    assert!(error.contains("cresset-data"), "{error}");
    assert_eq!(names(&data), ["journal"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_in_place_of_the_data_folder_or_above_it_is_named_and_left_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("data");
    std::fs::write(&file, "a file").expect("written");
    let told = format!(
        "{} is a file; relay.data_dir (--data) needs a folder",
        file.display()
    );
    assert_eq!(refused(settings(folder.path(), "")).await.to_string(), told);
    let mut below = settings(folder.path(), "");
    below.relay.data_dir = file.join("deeper/still");
    assert_eq!(refused(below).await.to_string(), told);
    assert_eq!(std::fs::read_to_string(file).expect("read"), "a file");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_in_a_data_folder_is_named_and_left_as_it_is() {
    for (name, garbage, words) in [
        (
            "cresset-data",
            &b"\xff\xfe not ours"[..],
            "is not the version file of a data folder",
        ),
        (
            "cresset-data",
            b"",
            "is not the version file of a data folder",
        ),
        ("cresset-data", b"cresset data\nformat x\n", "data format x"),
        ("journal/FORMAT", b"\0\0\0\0 garbage", "journal"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        Relay::start(folder.path()).await.stop().await;
        let file = folder.path().join("data").join(name);
        std::fs::write(&file, garbage).expect("written");
        let error = refused(settings(folder.path(), "")).await.to_string();
        let path = file.parent().expect("a folder").display().to_string();
        assert!(
            error.contains(words) && error.contains(&path),
            "{name}: {error}"
        );
        assert!(!error.contains("UTF-8"), "{name}: {error}");
        assert_eq!(std::fs::read(&file).expect("read"), garbage, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_program_around_the_relay_finds_wanting_is_told_until_it_is_mended() {
    let folder = tempfile::tempdir().expect("a folder");
    let app = App::build(settings(folder.path(), ""))
        .await
        .expect("a relay");
    let conditions = app.conditions();
    let relay = Relay::run(app);
    let ready = relay.get("/readyz").await;
    assert!(ready.0.starts_with("HTTP/1.1 200"), "{ready:?}");
    conditions.set("sensor", "it ended");
    let (head, body) = relay.get("/readyz").await;
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    assert_eq!(
        body,
        r#"{"ready":false,"not_ready":["sensor: it ended"],"sinks":{}}"#
    );
    let mut client = QueryClient::new(channel(relay.at.feed).await);
    let status = client.status(StatusRequest {}).await.expect("a status");
    let told = status.into_inner().relay.expect("a relay");
    assert_eq!(
        (told.ready, told.not_ready),
        (false, vec!["sensor: it ended".to_owned()])
    );
    conditions.clear("sensor");
    relay.metric_is("cresset_ready", 1.0).await;
    relay.stop().await;
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> = entries
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn health_readiness_and_metrics_are_there_and_other_pages_say_what_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = Relay::start(folder.path()).await;
    let (head, body) = relay.get("/healthz").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(body, "alive\n");
    let (head, body) = relay.get("/readyz").await;
    assert!(
        head.starts_with("HTTP/1.1 200") && head.contains("application/json"),
        "{head}"
    );
    assert_eq!(body, r#"{"ready":true,"not_ready":[],"sinks":{}}"#);
    let (head, body) = relay.get("/metrics").await;
    assert!(
        head.to_lowercase()
            .contains("content-type: text/plain; version=0.0.4"),
        "{head}"
    );
    for line in [
        "cresset_build_info{version=",
        "cresset_journal_writable 1",
        "cresset_ready 1",
        "cresset_sensors{",
    ] {
        assert!(
            body.lines().any(|found| found.starts_with(line)),
            "no {line} in\n{body}"
        );
    }
    let (head, body) = relay.get("/nothing").await;
    assert!(
        head.starts_with("HTTP/1.1 404") && body.contains("/metrics"),
        "{head}\n{body}"
    );
    relay.stop().await;
}

/// HTTP/2's own, in bytes (RFC 9113, 6.9.2).
const WINDOW: u32 = 65_535;

/// The administrator's door.
async fn admin(relay: &Relay) -> Channel {
    let socket = relay.at.admin.clone();
    let connect = service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move {
            tokio::net::UnixStream::connect(socket)
                .await
                .map(hyper_util::rt::TokioIo::new)
        }
    });
    // What is sent before anybody reads: a client's default would take all answers of a call.
    Endpoint::from_static("http://admin")
        .initial_stream_window_size(WINDOW)
        .connect_with_connector(connect)
        .await
        .expect("connected")
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads_hold_no_thread_and_are_bounded() {
    const MANY: u64 = 10_000;
    let folder = tempfile::tempdir().expect("a folder");
    let relay = Relay::start(folder.path()).await;
    let id = |sequence| EventId {
        stream: StreamId([7; 8]),
        sequence,
    };
    let ids: Vec<_> = (1..=MANY)
        .map(|n| id(n).to_bytes().to_vec().into())
        .collect();
    let ask = async || {
        let mut client = OperateClient::new(admin(&relay).await);
        client
            .trace_many(TraceManyRequest { ids: ids.clone() })
            .await
    };
    let mut unread = Vec::new();
    for _ in 0..4 {
        unread.push(ask().await.expect("answers").into_inner());
    }
    let refused = ask().await.expect_err("four are under way");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    // One event is found all the same.
    let mut client = OperateClient::new(admin(&relay).await);
    let one = client
        .trace(TraceRequest {
            id: id(1).to_bytes().to_vec().into(),
        })
        .await;
    assert!(!one.expect("an answer").into_inner().received);
    // Whoever reads late has all of them, and makes room.
    let mut late = unread.pop().expect("a stream");
    let mut read = 0;
    while timeout(SOON, late.message())
        .await
        .expect("in time")
        .expect("answers")
        .is_some()
    {
        read += 1;
    }
    assert_eq!(read, MANY);
    drop(late);
    let room = async {
        while ask().await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, room).await.expect("there is room");
    drop(unread);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_administrator_imports_through_a_private_socket_and_nobody_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = Relay::start(folder.path()).await;
    let mode = std::fs::metadata(&relay.at.admin)
        .expect("a socket")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut alerts = LogServiceClient::new(channel(relay.at.feed).await)
        .watch_alerts(RequestMessage {
            filter: "all".to_owned(),
        })
        .await
        .expect("a stream")
        .into_inner();

    let payload = proto::feeder::Alert {
        pod_name: "imported".to_owned(),
        ..Default::default()
    }
    .encode_to_vec();
    let events = move || {
        futures::stream::iter([ImportRequest {
            kind: 1,
            payload: payload.clone().into(),
        }])
    };
    let outside = QueryClient::new(channel(relay.at.feed).await)
        .import(events())
        .await
        .expect_err("refused");
    assert_eq!(outside.code(), Code::PermissionDenied);

    let reply = QueryClient::new(admin(&relay).await)
        .import(events())
        .await
        .expect("imported")
        .into_inner();
    assert_eq!((reply.accepted, reply.rejected.len()), (1, 0));
    let alert = timeout(SOON, alerts.message())
        .await
        .expect("in time")
        .expect("an answer")
        .expect("an alert");
    assert_eq!(alert.pod_name, "imported");
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_reach_a_sink_before_a_drain_ends_and_only_once_over_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("events.jsonl");
    let sinks = format!(
        "sinks:\n  archive: {{type: file, path: {}, format: json}}\n",
        file.display()
    );
    for (round, first) in [(1, 1), (2, 11)] {
        let relay = Relay::with(settings(folder.path(), &sinks)).await;
        let (mut sensor, _) = relay.welcomed("a").await;
        sensor.batch(first, 10).await;
        assert_eq!(sensor.ack().await.up_to, first + 9);
        relay.stop().await;
        let text = std::fs::read_to_string(&file).expect("a file");
        assert_eq!(text.lines().count(), 10 * round, "{text}");
    }
    let text = std::fs::read_to_string(&file).expect("a file");
    for n in 1..=20 {
        let pod = format!(r#""PodName":"pod-{n}""#);
        assert_eq!(text.matches(&pod).count(), 1, "{pod} in {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_lets_go_of_readers() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = Relay::start(folder.path()).await;
    let mut alerts = LogServiceClient::new(channel(relay.at.feed).await)
        .watch_alerts(RequestMessage {
            filter: "all".to_owned(),
        })
        .await
        .expect("a stream")
        .into_inner();
    relay.stop().await;
    // Let go, and not cut off when the time for last calls was over.
    let ended = timeout(SOON, alerts.message())
        .await
        .expect("ended in time")
        .expect_err("no alert");
    assert_eq!(ended.message(), "the relay is stopping");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_sink_loses_is_counted_and_told_as_an_event() {
    let folder = tempfile::tempdir().expect("a folder");
    // A sink that cannot write: a file stands where its folder would be.
    std::fs::write(folder.path().join("x"), "").expect("written");
    let sinks = format!(
        "sinks:\n  stuck: {{type: file, path: {}/x/events.jsonl}}\n",
        folder.path().display()
    );
    let mut config = settings(folder.path(), &sinks);
    config.relay.retention.max_size = "256KiB".parse().expect("a size");
    let relay = Relay::with(config).await;
    let mut messages = LogServiceClient::new(channel(relay.at.feed).await)
        .watch_messages(RequestMessage {
            filter: String::new(),
        })
        .await
        .expect("a stream")
        .into_inner();
    let (mut sensor, _) = relay.welcomed("a").await;
    for batch in 0..40 {
        sensor.batch(1 + 500 * batch, 500).await;
    }
    while sensor.ack().await.up_to < 20_000 {}
    let message = timeout(SOON, messages.message())
        .await
        .expect("in time")
        .expect("an answer")
        .expect("a message");
    let lost = message.lost.expect("a loss");
    assert_eq!(
        (&*message.level, &*lost.r#where, &*lost.class),
        ("WARN", "journal", "stuck")
    );
    assert!(
        lost.count > 1000 && message.message.contains("sink stuck lost"),
        "{}",
        message.message
    );
    let expired = relay
        .metric(r#"cresset_sink_expired_total{sink="stuck",type="file"}"#)
        .await;
    let told = relay
        .metric(r#"cresset_lost_events_total{class="stuck",where="journal"}"#)
        .await;
    assert!(
        expired >= lost.count as f64 && told >= lost.count as f64,
        "{expired} {told} {}",
        lost.count
    );
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_journal_lost_is_told_once_and_stands_in_status_and_metrics() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = Relay::start(folder.path()).await;
    let (mut sensor, _) = relay.welcomed("a").await;
    // A group each, so that the damage lies before the last one.
    for first in [1, 4, 7] {
        sensor.batch(first, 3).await;
        assert_eq!(sensor.ack().await.up_to, first + 2);
    }
    drop(sensor);
    relay.stop().await;
    let segment = folder.path().join("data/journal/00000000000000000001.seg");
    let mut bytes = std::fs::read(&segment).expect("a segment");
    let at = bytes.windows(5).position(|found| found == b"pod-2");
    bytes[at.expect("the second event")] ^= 1;
    // What a crash leaves of a group that was being written.
    bytes.extend([7; 100]);
    std::fs::write(&segment, bytes).expect("written");

    let damaged = r#"cresset_lost_events_total{class="damaged",where="journal at start"}"#;
    let archive = format!(
        "sinks: {{archive: {{type: file, path: {}/events, start: beginning, filter: {{kinds: [message]}}}}}}",
        folder.path().display()
    );
    let relay = Relay::with(settings(folder.path(), &archive)).await;
    relay.metric_is(damaged, 1.0).await;
    relay.metric_is("cresset_journal_cut_bytes", 100.0).await;
    relay.metric_is("cresset_journal_next_sequence", 13.0).await;
    let status = QueryClient::new(channel(relay.at.feed).await)
        .status(StatusRequest::default())
        .await
        .expect("a status")
        .into_inner();
    let found = status.journal.unwrap_or_default().found;
    assert!(
        found.len() == 2
            && found[0].starts_with("1 event of the journal lost: they are damaged")
            && found[1].starts_with("100 bytes at the end of the journal were cut"),
        "{found:?}"
    );
    relay.stop().await;

    // It is there at every start, and told by the first.
    let relay = Relay::with(settings(folder.path(), &archive)).await;
    relay.metric_is(damaged, 1.0).await;
    relay.metric_is("cresset_journal_cut_bytes", 0.0).await;
    let (mut sensor, _) = relay.welcomed("a").await;
    sensor.batch(10, 1).await;
    sensor.ack().await;
    relay
        .metric_is(r#"cresset_sink_pending{sink="archive",type="file"}"#, 0.0)
        .await;
    let text = std::fs::read_to_string(folder.path().join("events")).expect("read");
    let told = |what: &str| text.matches(what).count();
    assert_eq!(told("1 event of the journal lost"), 1, "{text}");
    assert_eq!(told("100 bytes at the end of the journal"), 1, "{text}");
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_damaged_on_disk_costs_itself_and_is_counted_where_a_sink_passes_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = Relay::start(folder.path()).await;
    let (mut sensor, _) = relay.welcomed("a").await;
    sensor.batch(1, 10).await;
    assert_eq!(sensor.ack().await.up_to, 10);
    drop(sensor);
    relay.stop().await;
    let segment = folder.path().join("data/journal/00000000000000000001.seg");
    let mut bytes = std::fs::read(&segment).expect("a segment");
    let at = bytes.windows(5).position(|found| found == b"pod-5");
    bytes[at.expect("the fifth event")] ^= 1;
    std::fs::write(&segment, bytes).expect("written");

    let sinks = format!(
        "sinks: {{archive: {{type: file, path: {}/events, start: beginning}}}}",
        folder.path().display()
    );
    let relay = Relay::with(settings(folder.path(), &sinks)).await;
    let told = r#"cresset_lost_events_total{class="archive",where="journal damage"}"#;
    relay.metric_is(told, 1.0).await;
    // The messages that tell of it, at the start and of the sink, are the eleventh and the twelfth event.
    relay.metric_is("cresset_journal_next_sequence", 13.0).await;
    relay
        .metric_is(
            r#"cresset_sink_delivered_total{sink="archive",type="file"}"#,
            11.0,
        )
        .await;
    let page = relay.page().await;
    let of = |what| page.sink("archive", what);
    assert_eq!((of("corrupt_total"), of("journaled_total")), (1, 12));
    let text = std::fs::read_to_string(folder.path().join("events")).expect("read");
    assert!(!text.contains("pod-5") && text.contains("pod-4") && text.contains("pod-6"));
    assert!(
        text.contains("sink archive lost 1 event: the journal could not read them"),
        "{text}"
    );
    let mut client = QueryClient::new(channel(relay.at.feed).await);
    let status = client.status(StatusRequest {}).await.expect("a status");
    let losses: Vec<_> = status.into_inner().losses;
    let found = losses.iter().find(|loss| loss.r#where == "journal damage");
    assert_eq!(
        found.map(|loss| (loss.class.as_str(), loss.count)),
        Some(("archive", 1))
    );
    relay.stop().await;
}

#[test]
fn the_program_says_when_it_is_ready_and_ends_well_on_sigterm() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("c.yaml");
    let text = format!(
        "relay: {{data_dir: {0}/data, listen: {{feed: \"127.0.0.1:0\", link: \"127.0.0.1:0\", http: \"127.0.0.1:0\", admin: \"unix:{0}/a.sock\"}}}}\n",
        folder.path().display()
    );
    std::fs::write(&config, text).expect("written");
    let mut child = Command::new(env!("CARGO_BIN_EXE_cresset-relay"))
        .arg("--config")
        .arg(&config)
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let lines =
        std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().expect("piped")));
    let mut lines = lines.map(|line| line.expect("text"));
    let ready = lines
        .find(|line| line.starts_with("ready "))
        .expect("a ready line");
    for word in [
        "feed=127.0.0.1:",
        "link=127.0.0.1:",
        "http=127.0.0.1:",
        "admin=",
    ] {
        assert!(ready.contains(word), "{ready}");
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("told");
    let rest: Vec<String> = lines.collect();
    assert_eq!(child.wait().expect("ended").code(), Some(0), "{rest:#?}");
    assert!(!folder.path().join("a.sock").exists());
}

#[test]
fn the_program_tells_all_problems_of_its_file_with_their_lines() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("c.yaml");
    std::fs::write(
        &config,
        "relay:\n  listen:\n    feed: nowhere\n    link: 0.0.0.0:9481\n  retenton: {}\n",
    )
    .expect("written");
    let output = Command::new(env!("CARGO_BIN_EXE_cresset-relay"))
        .arg("--config")
        .arg(&config)
        .output()
        .expect("ran");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let name = config.display();
    for line in [
        format!("{name}:3: relay.listen.feed: `nowhere` is not an address"),
        format!("{name}:4: relay.listen.link: plaintext for sensors"),
        format!("{name}:5: relay.retenton: unknown field `retenton`; did you mean `retention`?"),
    ] {
        assert!(
            text.lines().any(|found| found.starts_with(&line)),
            "no {line} in\n{text}"
        );
    }
}
