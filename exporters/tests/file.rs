//! The file sink through real files.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use exporters::{Batch, Carried, Context, Encoded, Outcome, Sink, SinkConfig, Trial, Unavailable};
use flate2::read::GzDecoder;
use prost::Message;
use proto::{Event, EventId, Kind, StreamId, feeder};
use tempfile::TempDir;

fn alert(pod: &str) -> Carried {
    let alert = feeder::Alert {
        pod_name: pod.into(),
        ..Default::default()
    };
    let id = EventId {
        stream: StreamId([1; 8]),
        sequence: 1,
    };
    Carried::from(Encoded::new(Event {
        kind: Kind::Alert,
        id,
        payload: alert.encode_to_vec().into(),
    }))
}

fn line(pod: &str) -> String {
    format!("{{\"PodName\":\"{pod}\",\"PPID\":0,\"UID\":0}}\n")
}

struct Scene {
    folder: TempDir,
    sink: Box<dyn Sink>,
}

impl Scene {
    /// `more` are further keys of the settings.
    fn new(more: &str) -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let sink = sink_at(&folder.path().join("events"), more);
        Scene { folder, sink }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// What the full file of that number holds, once there is one and the next one is open.
    async fn once_rotated(&self, number: u32) -> String {
        let full = format!("events.{number}");
        for _ in 0..3000 {
            if self.path(&full).exists()
                && fs::read(self.path("events")).is_ok_and(|all| all.is_empty())
            {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.text(&full)
    }

    async fn try_send(&self, pods: &[&str]) -> Result<Vec<Outcome>, Unavailable> {
        let batch = Batch::new(pods.iter().map(|pod| alert(pod)).collect());
        self.sink.send(Arc::new(batch)).await
    }

    async fn send(&self, pods: &[&str]) {
        assert_eq!(
            self.try_send(pods).await,
            Ok(vec![Outcome::Done; pods.len()])
        );
    }
}

fn sink_at(path: &std::path::Path, more: &str) -> Box<dyn Sink> {
    let settings = format!("{{type: file, path: {}, {more}}}", path.display());
    let (nodes, mut problems) = yaml::parse("c.yaml", &settings);
    let config = SinkConfig::read(&nodes[0], yaml::Severity::Error, &mut problems);
    assert_eq!(problems, []);
    exporters::build("archive", &config.unwrap(), &Context::default()).unwrap()
}

#[tokio::test]
async fn events_are_lines_of_json_appended_to_what_is_there() {
    let scene = Scene::new("");
    fs::write(scene.path("events"), line("earlier")).unwrap();
    scene.send(&["a"]).await;
    scene.send(&["b"]).await;
    assert_eq!(
        scene.text("events"),
        line("earlier") + &line("a") + &line("b")
    );
}

#[tokio::test]
async fn text_and_all_fields_are_a_matter_of_settings() {
    let scene = Scene::new("format: text");
    scene.send(&["a"]).await;
    assert_eq!(
        scene.text("events"),
        "== Alert ==\nPodName: a\nPPID: 0\nUID: 0\n"
    );
    let scene = Scene::new("fields: all");
    scene.send(&["a"]).await;
    assert!(
        scene
            .text("events")
            .ends_with(",\"EventID\":\"01010101010101010000000000000001\"}\n")
    );
}

#[tokio::test]
async fn a_missing_folder_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b/events");
    let sink = sink_at(&path, "");
    sink.send(Arc::new(Batch::new(vec![alert("a")])))
        .await
        .unwrap();
    assert_eq!(fs::read_to_string(path).unwrap(), line("a"));
}

#[tokio::test]
async fn a_folder_that_is_a_file_is_a_sink_that_is_away_and_says_why() {
    let scene = Scene::new("");
    fs::write(scene.path("wall"), "").unwrap();
    let sink = sink_at(&scene.path("wall/events"), "");
    let sent = sink.send(Arc::new(Batch::new(vec![alert("a")]))).await;
    assert!(sent.unwrap_err().reason.contains("wall/events: "));
    fs::remove_file(scene.path("wall")).unwrap();
    let sent = sink.send(Arc::new(Batch::new(vec![alert("a")]))).await;
    assert_eq!(
        sent,
        Ok(vec![Outcome::Done]),
        "it goes on when the folder can be made"
    );
}

#[tokio::test]
async fn files_rotate_at_their_size_between_events_and_the_oldest_goes() {
    let two = 2 * line("a").len();
    let scene = Scene::new(&format!("rotate: {{max_size: {two}, keep: 2}}"));
    scene.send(&["a", "b", "c", "d", "e"]).await;
    scene.send(&["f", "g"]).await;
    assert_eq!(scene.text("events"), line("g"));
    assert_eq!(scene.text("events.1"), line("e") + &line("f"));
    assert_eq!(scene.text("events.2"), line("c") + &line("d"));
    assert_eq!(fs::read_dir(scene.folder.path()).unwrap().count(), 3);
}

/// Lines of a batch that is written in several pieces.
fn many() -> (Vec<String>, String) {
    let pods: Vec<String> = (0..4_000).map(|n| format!("{n:0100}")).collect();
    let lines = pods.iter().map(|pod| line(pod)).collect();
    (pods, lines)
}

#[tokio::test]
async fn a_batch_written_in_pieces_rotates_at_the_same_lines() {
    let (pods, lines) = many();
    let most = 2_999 * line(&pods[0]).len();
    let scene = Scene::new(&format!("rotate: {{max_size: {most}, keep: 2}}"));
    scene
        .send(&pods.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
    assert_eq!(scene.text("events.1").len(), most);
    assert_eq!(scene.text("events.1") + &scene.text("events"), lines);
}

#[tokio::test]
async fn an_event_larger_than_the_bound_has_a_file_to_itself() {
    let scene = Scene::new("rotate: {max_size: 40, keep: 3}");
    let big = "x".repeat(100);
    scene.send(&["a", &big, "b"]).await;
    assert_eq!(scene.text("events"), line("b"));
    assert_eq!(scene.text("events.1"), line(&big));
    assert_eq!(scene.text("events.2"), line("a"));
}

#[tokio::test]
async fn full_files_are_compressed_when_asked_for() {
    let scene = Scene::new("rotate: {max_size: 40, compress: gzip}");
    scene.send(&["a", "b", "c"]).await;
    let compressed = scene.path("events.2.gz");
    for _ in 0..500 {
        if scene.path("events.1.gz").exists() && !scene.path("events.1").exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut text = String::new();
    GzDecoder::new(File::open(compressed).unwrap())
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, line("a"));
    assert!(scene.path("events.1.gz").exists() && !scene.path("events.1").exists());
}

#[tokio::test]
async fn a_file_that_is_old_is_rotated_also_when_no_event_comes() {
    let scene = Scene::new("rotate: {max_age: 1s, keep: 5}");
    scene.send(&["a"]).await;
    assert_eq!(scene.once_rotated(1).await, line("a"));
    scene.send(&["b"]).await;
    assert_eq!(scene.once_rotated(2).await, line("a"));
    assert_eq!(scene.once_rotated(1).await, line("b"));
}

#[tokio::test]
async fn a_test_writes_the_marked_event_and_reads_it_back() {
    let scene = Scene::new("fields: all");
    let (trial, mut steps) = Trial::new();
    scene.sink.test(alert("marked"), &trial).await.unwrap();
    drop(trial);
    let mut told = Vec::new();
    while let Some(step) = steps.recv().await {
        told.push((step.name, step.outcome.is_ok()));
    }
    assert_eq!(told, [("write", true), ("read back", true)]);
    assert!(scene.text("events").contains("marked"));
}

#[tokio::test]
async fn a_test_of_a_file_that_cannot_be_written_ends_with_the_reason() {
    let scene = Scene::new("");
    fs::create_dir(scene.path("events")).unwrap();
    let (trial, mut steps) = Trial::new();
    scene.sink.test(alert("marked"), &trial).await.unwrap_err();
    let step = steps.recv().await.unwrap();
    assert!(
        step.outcome.unwrap_err().contains("events"),
        "{:?}",
        step.name
    );
}

#[tokio::test]
async fn a_line_torn_by_a_crash_is_replaced_by_the_whole_one() {
    let scene = Scene::new("");
    fs::write(scene.path("events"), line("a") + "{\"PodNa").unwrap();
    scene.send(&["b"]).await;
    assert_eq!(scene.text("events"), line("a") + &line("b"));
}

#[tokio::test]
async fn a_file_moved_away_is_noticed_without_a_signal() {
    let scene = Scene::new("");
    scene.send(&["a"]).await;
    fs::rename(scene.path("events"), scene.path("moved")).unwrap();
    scene.send(&["b"]).await;
    assert_eq!(
        (scene.text("moved"), scene.text("events")),
        (line("a"), line("b"))
    );
}

#[tokio::test]
async fn reopen_lets_go_of_a_file_that_was_copied_and_truncated() {
    let scene = Scene::new("");
    scene.send(&["a"]).await;
    File::options()
        .write(true)
        .open(scene.path("events"))
        .unwrap()
        .set_len(0)
        .unwrap();
    scene.sink.reopen();
    scene.send(&["b"]).await;
    assert_eq!(scene.text("events"), line("b"));
}

#[tokio::test]
async fn two_sinks_on_one_file_do_not_mix_their_lines() {
    let scene = Scene::new("");
    scene.send(&["a"]).await;
    let second = sink_at(&scene.path("events"), "");
    let sent = second.send(Arc::new(Batch::new(vec![alert("b")]))).await;
    assert!(
        sent.unwrap_err()
            .reason
            .contains("another sink or program writes to it")
    );
}

#[tokio::test]
async fn a_pipe_is_refused_as_a_file() {
    let scene = Scene::new("");
    let status = std::process::Command::new("mkfifo")
        .arg(scene.path("events"))
        .status()
        .unwrap();
    assert!(status.success());
    let reason = scene.try_send(&["a"]).await.unwrap_err().reason;
    assert!(reason.contains("not a regular file"), "{reason}");
}

/// The kernel's limit on file sizes stands in for a full disk: it takes part of a write, then refuses. The limit holds for
/// a whole process, so the test runs itself again under a shell that sets it: one block of 512 bytes.
#[test]
fn a_full_disk_leaves_no_half_line_and_the_sink_goes_on_when_there_is_room() {
    let test = "a_full_disk_leaves_no_half_line_and_the_sink_goes_on_when_there_is_room";
    if std::env::var_os("LIMITED").is_some() {
        return full_disk();
    }
    limited(test, 1);
}

/// The first piece fits, the second does not.
#[test]
fn a_disk_that_fills_up_within_a_batch_has_nothing_of_it() {
    let test = "a_disk_that_fills_up_within_a_batch_has_nothing_of_it";
    if std::env::var_os("LIMITED").is_some() {
        return full_within();
    }
    limited(test, 500);
}

/// Runs a test again with so many blocks of 512 bytes for each file.
fn limited(test: &str, blocks: u32) {
    let limited = std::process::Command::new("sh")
        .arg("-c")
        .arg(format!(
            "trap '' XFSZ; ulimit -S -f {blocks}; exec \"$0\" --exact {test} --nocapture"
        ))
        .arg(std::env::current_exe().unwrap())
        .env("LIMITED", "1")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&limited.stdout);
    assert!(
        limited.status.success() && told.contains("1 passed"),
        "{limited:?}"
    );
}

#[tokio::main(flavor = "current_thread")]
async fn full_within() {
    let scene = Scene::new("");
    scene.send(&["a"]).await;
    let (pods, _) = many();
    let pods: Vec<&str> = pods.iter().map(String::as_str).collect();
    scene.try_send(&pods).await.unwrap_err();
    assert_eq!(scene.text("events"), line("a"));
    scene.send(&["b"]).await;
    assert_eq!(scene.text("events"), line("a") + &line("b"));
}

#[tokio::main(flavor = "current_thread")]
async fn full_disk() {
    let scene = Scene::new("");
    let nearly = "x".repeat(400);
    scene.send(&[&nearly]).await;
    let reason = scene.try_send(&["a", &nearly]).await.unwrap_err().reason;
    assert!(reason.contains("events: "), "{reason}");
    assert_eq!(scene.text("events"), line(&nearly));
    File::options()
        .write(true)
        .open(scene.path("events"))
        .unwrap()
        .set_len(0)
        .unwrap();
    scene.send(&["b"]).await;
    assert_eq!(scene.text("events"), line("b"));
}
