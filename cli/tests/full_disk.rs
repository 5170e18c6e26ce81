//! The real relay on a file system that fills up: new events are refused by name, everything else goes on, and when there is
//! room again it heals by itself.
//!
//! The file system is a small tmpfs in a mount namespace of the test's own thread, which the programs that it starts are
//! in as well; it is gone with the last of them.
#![allow(clippy::expect_used, clippy::panic)] // reason: a test that cannot go on has failed

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::EventId;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use support::oracle::{Pace, Sensor, read_back};
use support::program::Place;
use support::{eventually, program, skip};
use tokio::runtime::Runtime;
use tokio::sync::watch;

const SOON: Duration = Duration::from_secs(120);

const SUITE: &str = "full_disk";

/// What is left for the journal when the ballast lies on the file system.
const ROOM: u64 = 3 << 20;

const PACE: Pace = Pace {
    batch: 100,
    pause: Duration::from_millis(1),
    total: 20_000,
    size: 900,
};

/// Puts a tmpfs of 64 MiB there, for this thread and what it starts. Says why not.
fn small_file_system(at: &Path) -> Result<(), String> {
    let failed = |what: &'static str| move |why: rustix::io::Errno| format!("{what}: {why}");
    // SAFETY: only this thread's view of the mounts is changed; it shares no file descriptors table or memory by this flag.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.map_err(failed("unshare"))?;
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .map_err(failed("making the mounts private"))?;
    fs::create_dir_all(at).expect("a folder");
    mount("none", at, "tmpfs", MountFlags::empty(), Some(c"size=64m"))
        .map_err(failed("mounting a tmpfs"))
}

/// Whether the suite can run here; if not it is counted as skipped.
fn can_mount() -> bool {
    if std::env::var_os("CRESSET_QUICK").is_some() {
        skip("full", SUITE, "make test-quick leaves out what needs root");
        return false;
    }
    if !rustix::process::geteuid().is_root() {
        skip("root", SUITE, "needs root to mount a file system");
        return false;
    }
    true
}

/// Fills the file system up to `ROOM`.
fn lay_ballast(at: &Path) {
    let space = rustix::fs::statvfs(at).expect("a file system");
    let free = space.f_bavail * space.f_frsize;
    let ballast = vec![7; usize::try_from(free - ROOM).expect("small")];
    fs::write(at.join("ballast"), ballast).expect("room");
}

#[test]
fn a_full_file_system_refuses_new_events_by_name_and_heals_when_there_is_room() {
    if !can_mount() {
        return;
    }
    let place = Place::new(
        "",
        "archive: {type: file, path: DIR/events.jsonl, format: json, fields: all, start: beginning}",
    );
    let runtime = Runtime::new().expect("a runtime");
    let data = place.path("data");
    if let Err(why) = small_file_system(&data) {
        return skip("mount", SUITE, &why);
    }
    let sensors: Vec<Arc<Sensor>> = (1..=3).map(|n| Sensor::new(n, PACE)).collect();
    let (at, over) = (watch::Sender::new(None), watch::Sender::new(false));
    let relay = place.start();
    lay_ballast(&data);
    let mut sending = tokio::task::JoinSet::new();
    for sensor in &sensors {
        let run = sensor.clone().run(at.subscribe(), over.subscribe());
        sending.spawn_on(run, runtime.handle());
    }
    assert_eq!(relay.readiness().0, 200);
    let began = Instant::now();
    at.send_replace(Some(relay.link));
    let refused = eventually("it is not ready", SOON, || {
        (relay.readiness().0 == 503).then(|| began.elapsed())
    });
    println!("not ready {refused:.1?} after sensors began to fill the last {ROOM} bytes");

    // Every sensor is told to wait, with the reason.
    relay.page_when("new events are refused", |page| {
        page.get("cresset_journal_writable") == 0
            && sensors.iter().all(|sensor| sensor.pauses() > 0)
    });
    let (status, why) = relay.readiness();
    assert!(
        status == 503 && why.contains("no space left"),
        "{status} {why}"
    );
    assert!(why.contains(&data.display().to_string()), "{why}");
    // Sinks drain, history is served, nobody's acknowledged event is missing.
    let page = relay.page_when("the sink has what there is", |page| {
        page.sink("archive", "pending") == 0
    });
    assert!(page.sink("archive", "delivered_total") > 0);
    holds_what_was_acknowledged(&runtime, &relay.feed, &sensors);
    // Whoever imports hears it too, with how far it came.
    let line = place.path("one.json");
    fs::write(
        &line,
        r#"{"PPID":0,"UID":0,"Type":"ContainerLog","PodName":"imported"}"#,
    )
    .expect("written");
    let mut import = program("cresset");
    import
        .arg("import")
        .arg("--data")
        .arg(place.path("."))
        .arg(&line);
    let out = import.output().expect("cresset import");
    let told =
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(
        !out.status.success() && told.contains("no space left"),
        "{told}"
    );
    assert!(told.contains("0 events went in\n"), "{told}");

    // A relay that dies now comes back and serves what is there, though nothing fits.
    let mut relay = relay;
    at.send_replace(None);
    relay.running.kill();
    let relay = place.start();
    holds_what_was_acknowledged(&runtime, &relay.feed, &sensors);
    at.send_replace(Some(relay.link));
    relay.page_when("it still refuses", |page| {
        page.get("cresset_journal_writable") == 0
    });

    assert_eq!(relay.readiness().0, 503);
    let began = Instant::now();
    fs::remove_file(data.join("ballast")).expect("removed");
    let healed = eventually("it is ready again", SOON, || {
        (relay.readiness().0 == 200).then(|| began.elapsed())
    });
    println!("ready again {healed:.1?} after there was room");
    runtime.block_on(async {
        while let Some(ended) = sending.join_next().await {
            ended.expect("a sensor that finds nothing wrong");
        }
    });
    let page = relay.page_when("it is well again and the sink has everything", |page| {
        page.get("cresset_ready") == 1 && page.sink("archive", "pending") == 0
    });
    assert_eq!(page.check_at_rest(), Ok(()));
    assert_eq!(page.get("cresset_journal_refusals_total"), 1);
    assert_eq!(relay.logged("takes no new events").len(), 1);
    assert_eq!(relay.logged("takes events again").len(), 1);
    assert!(sensors.iter().all(|sensor| sensor.is_settled()));
    holds_what_was_acknowledged(&runtime, &relay.feed, &sensors);
    relay.stop();
}

/// All that was acknowledged is served, each event once.
fn holds_what_was_acknowledged(runtime: &Runtime, feed: &str, sensors: &[Arc<Sensor>]) {
    let acknowledged: BTreeSet<EventId> = sensors
        .iter()
        .flat_map(|sensor| {
            let stream = sensor.stream();
            let id = move |sequence| EventId { stream, sequence };
            sensor.acknowledged().into_iter().map(id)
        })
        .collect();
    assert!(!acknowledged.is_empty());
    let stored = runtime.block_on(read_back(feed, sensors));
    let missing = acknowledged.iter().find(|id| !stored.contains_key(id));
    assert_eq!(missing, None, "acknowledged, and not there");
    assert!(stored.values().all(|count| *count == 1));
}
