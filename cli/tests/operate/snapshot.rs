//! Copies of a running relay.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use proto::EventId;
use tokio::sync::watch;

use crate::scene::{ARCHIVE, Scene};
use crate::support;
use crate::support::oracle::{Pace, Sensor, read_back};

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
    // A place is on disk a moment after it shows.
    let placed = || {
        let (_, said) = journal(&[
            "inspect".as_ref(),
            "-o".as_ref(),
            "json".as_ref(),
            data.as_ref(),
        ]);
        let report: serde_json::Value = serde_json::from_str(&said).ok()?;
        (report["cursors"][0]["position"] == 501).then_some(())
    };
    support::eventually(
        "the sink's place is on disk",
        Duration::from_secs(30),
        placed,
    );
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

/// What these were told is on disk.
fn acknowledged(sensors: &[Arc<Sensor>]) -> BTreeSet<EventId> {
    let ids = sensors.iter().flat_map(|sensor| {
        let stream = sensor.stream();
        let id = move |sequence| EventId { stream, sequence };
        sensor.acknowledged().into_iter().map(id)
    });
    ids.collect()
}

#[test]
fn a_snapshot_taken_while_sensors_send_holds_all_that_was_acknowledged_before_it() {
    const SNAPSHOTS: usize = 3;
    let scene = Scene::new("tls: {enrolment: true}", ARCHIVE);
    let relay = scene.place.start();
    let (code, token) = scene.said(&["token", "create", "--ttl", "1h"]);
    assert_eq!(code, Some(0), "{token}");
    relay.stop();
    // The token is what it has to remember; the sensors of this test have no certificates.
    scene.edit("tls: {enrolment: true}", "");
    let relay = scene.place.start();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let pace = Pace {
        batch: 40,
        pause: Duration::from_millis(20),
        total: u64::MAX,
        size: 400,
    };
    let (_at, place) = watch::channel(Some(relay.link));
    let (over, until) = watch::channel(false);
    let sensors: Vec<Arc<Sensor>> = (0..3).map(|n| Sensor::new(n, pace)).collect();
    let sending: Vec<_> = sensors
        .iter()
        .map(|sensor| runtime.spawn(sensor.clone().run(place.clone(), until.clone())))
        .collect();
    let data = scene.place.path("data");
    let snapshots: Vec<_> = (0..SNAPSHOTS)
        .map(|n| {
            let (enough, before) = (200 * (n + 1), || acknowledged(&sensors));
            support::eventually(
                "some more are acknowledged",
                Duration::from_secs(60),
                || (before().len() >= enough).then_some(()),
            );
            let (before, out) = (before(), scene.place.path(&format!("snapshot-{n}")));
            let mut take = support::program("cresset");
            take.args(["journal", "snapshot"]).arg(&data).arg(&out);
            let said = take.output().expect("cresset journal snapshot");
            assert!(said.status.success(), "{said:?}");
            (out, before)
        })
        .collect();
    over.send_replace(true);
    for sensor in sending {
        runtime
            .block_on(sensor)
            .expect("a sensor that finds nothing wrong");
    }
    let all = acknowledged(&sensors).len();
    relay.stop();
    std::fs::rename(&data, scene.place.path("old")).expect("moved");
    for (out, before) in snapshots {
        let mut restore = support::program("cresset");
        restore.args(["journal", "restore"]).arg(&out).arg(&data);
        let said = restore.output().expect("cresset journal restore");
        assert!(said.status.success(), "{said:?}");
        let relay = scene.place.start();
        // Each is whole and was sent.
        let stored = runtime.block_on(read_back(&relay.feed, &sensors));
        let missing = before.iter().find(|id| !stored.contains_key(id));
        assert_eq!(
            missing, None,
            "acknowledged before the snapshot, and not in it"
        );
        assert!(stored.values().all(|count| *count == 1) && stored.len() <= all);
        println!(
            "{} acknowledged before, {} in the snapshot, {all} in the end",
            before.len(),
            stored.len()
        );
        relay.page_when("the sink has everything", |page| {
            page.sink("archive", "pending") == 0
        });
        relay.stop();
        let book = std::fs::read_to_string(data.join("authority/book.json")).expect("who may join");
        assert!(book.contains("sensor"), "{book}");
        std::fs::remove_dir_all(&data).expect("removed");
    }
}
