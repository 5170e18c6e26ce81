//! Sensors that are listed, and forgotten when they will not come back.

use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;

use crate::scene::{ARCHIVE, SOON, Scene};
use crate::support::eventually;
use crate::support::oracle::{Pace, Sensor};

const SILENT: &str = "cresset_sensor_silent_since_timestamp_seconds";

#[test]
fn a_sensor_that_was_taken_down_is_forgotten_by_name_and_for_good() {
    let scene = Scene::new("sensors: {silent_after: 5s}", ARCHIVE);
    let relay = scene.place.start();
    let (_, none) = scene.said(&["sensor", "list"]);
    assert!(none.starts_with("no sensors"), "{none}");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let pace = |total| Pace {
        batch: 5,
        pause: Duration::from_millis(1),
        total,
        size: 100,
    };
    let (_at, place) = watch::channel(Some(relay.link));
    let (over, until) = watch::channel(false);
    let staying = runtime.spawn(Sensor::new(2, pace(u64::MAX)).run(place.clone(), until.clone()));
    runtime.block_on(Sensor::new(1, pace(10)).run(place, until));
    eventually("the sensor is missed", SOON, || {
        scene
            .said(&["sensor", "list"])
            .1
            .contains("silent")
            .then_some(())
    });
    let (_, list) = scene.said(&["sensor", "list"]);
    let line = |name: &str| {
        list.lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_default()
    };
    assert!(line("oracle-1").contains("silent"), "{list}");
    assert!(line("oracle-2").contains("connected"), "{list}");
    let (code, said) = scene.said(&["sensor", "forget", "oracle-2"]);
    assert!(code == Some(1) && said.contains("stop it first"), "{said}");
    let (code, said) = scene.said(&["sensor", "forget", "oracle-9"]);
    assert!(
        code == Some(1) && said.contains("knows no sensor `oracle-9`"),
        "{said}"
    );

    let (code, said) = scene.said(&["sensor", "forget", "oracle-1"]);
    assert!(
        code == Some(0) && said.contains("oracle-1 (node test, last heard at 2"),
        "{said}"
    );
    let names = || {
        let (_, json) = scene.said(&["sensor", "list", "-o", "json"]);
        let all: Vec<Value> = serde_json::from_str(&json).expect("JSON");
        let names = all
            .iter()
            .map(|sensor| sensor["sensor"].as_str().expect("a name").to_owned());
        names.collect::<Vec<_>>()
    };
    assert_eq!(names(), ["oracle-2"]);
    let (_, page) = crate::support::get(&relay.http, "/metrics").expect("metrics");
    assert!(
        !page.lines().any(|line| line.starts_with(SILENT)),
        "it is not missed any more"
    );
    eventually("the act is told as an event", SOON, || {
        let all = scene.archived();
        let audit = "audit: forget sensor oracle-1 by uid ";
        all.iter().find(|event| {
            let text = event["Message"].as_str().unwrap_or_default();
            text.starts_with(audit) && text.ends_with(": node test")
        })?;
        Some(())
    });
    eventually("it is written down", SOON, || {
        let known = std::fs::read_to_string(scene.place.path("data/sensors.json")).ok()?;
        (!known.contains("oracle-1") && known.contains("oracle-2")).then_some(())
    });
    over.send_replace(true);
    runtime
        .block_on(staying)
        .expect("a sensor that finds nothing wrong");
    relay.stop();
    let relay = scene.place.start();
    assert_eq!(names(), ["oracle-2"], "also after a restart");
    relay.stop();
}
