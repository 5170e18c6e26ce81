use super::*;

fn hello(sensor: &str) -> Hello {
    let message = link::Hello {
        version: 1,
        sensor: sensor.to_owned(),
        node: "node-a".to_owned(),
        ..Default::default()
    };
    let first = link::FromSensor {
        is: Some(link::from_sensor::Is::Hello(message)),
    };
    Hello::check(first).unwrap()
}

#[test]
fn a_second_session_is_refused_while_the_first_lives_and_the_last_sight_stays() {
    let sensors = Sensors::default();
    let first = sensors.connect(&hello("a"), "10.0.0.1:1").unwrap();
    let refused = sensors.connect(&hello("a"), "10.0.0.2:1").unwrap_err();
    assert!(refused.to_string().contains("10.0.0.1:1"), "{refused}");
    assert!(sensors.connect(&hello("b"), "10.0.0.2:1").is_ok());
    first.rules(link::RuleStatus {
        digest: vec![1; 32].into(),
        applied: true,
        problems: Vec::new(),
    });
    let off = link::Off {
        until_unix: 7,
        reason: "a test".to_owned(),
    };
    first.health(link::Health {
        off: Some(off.clone()),
        ..Default::default()
    });
    assert_eq!(sensors.list()[0].off, Some(off));
    first.health(link::Health::default());
    assert_eq!(sensors.list()[0].off, None);
    drop(first);
    let list = sensors.list();
    assert_eq!(
        (list[0].connected, list[0].rules.len(), sensors.connected()),
        (false, 32, 0)
    );
    assert!(list[0].last_seen_unix > 0);
    assert!(sensors.connect(&hello("a"), "10.0.0.2:1").is_ok());
}

#[test]
fn the_registry_is_bounded_and_keeps_who_is_connected() {
    let sensors = Sensors::default();
    let live = sensors.connect(&hello("live"), "x").unwrap();
    for n in 0..=MAX_SENSORS {
        drop(sensors.connect(&hello(&format!("{n:05}")), "x").unwrap());
    }
    assert_eq!(sensors.list().len(), MAX_SENSORS);
    assert_eq!(sensors.connected(), 1);
    drop(live);
}

#[test]
fn who_is_not_heard_is_silent_once_heard_again_once_and_forgotten_in_the_end() {
    let sensors = Sensors::default();
    let (now, hour) = (now(), Duration::from_secs(3600));
    let known = |sensor: &str, ago| Known {
        sensor: sensor.to_owned(),
        node: "node-a".to_owned(),
        version: String::new(),
        last_seen: now - ago,
    };
    sensors.restore(vec![known("a", 600), known("b", 7200)]);
    // Nobody could be heard while the relay was down.
    let told = |silent: u64| -> Vec<String> {
        let notices = sensors.look(Duration::from_secs(silent), hour);
        notices.iter().map(ToString::to_string).collect()
    };
    let forgotten = told(60);
    assert!(
        forgotten.len() == 1 && forgotten[0].contains("sensor b"),
        "{forgotten:?}"
    );
    let silent = told(0);
    assert!(
        silent.len() == 1 && silent[0].contains("a (node node-a) is silent"),
        "{silent:?}"
    );
    assert_eq!(
        (told(0), sensors.list()[0].silent_unix),
        (vec![], now - 600)
    );
    let live = sensors.connect(&hello("a"), "x").unwrap();
    let back = told(60);
    assert!(
        back.len() == 1 && back[0].contains("heard again, after 10m"),
        "{back:?}"
    );
    assert_eq!(sensors.list()[0].silent_unix, 0);
    // A connection on which nothing comes is silence, too.
    assert_eq!(told(0).len(), 1);
    live.heard();
    assert_eq!(told(60).len(), 1);
    for _ in 0..3 {
        assert!(sensors.connect(&hello("a"), "10.0.0.9:1").is_err());
    }
    let second = told(60);
    assert!(
        second.len() == 1 && second[0].contains("10.0.0.9:1"),
        "{second:?}"
    );
    assert_eq!(sensors.list()[0].refused_sessions, 3);
}

#[test]
fn a_sensor_that_is_away_is_forgotten_when_told_to_and_one_that_is_connected_is_not() {
    let sensors = Sensors::default();
    let live = sensors.connect(&hello("a"), "10.0.0.1:1").unwrap();
    let refused = sensors.forget("a").unwrap_err().to_string();
    assert!(refused.contains("10.0.0.1:1"), "{refused}");
    assert!(sensors.forget("b").unwrap_err().to_string().contains("`b`"));
    drop(live);
    assert_eq!(sensors.forget("a").unwrap().node, "node-a");
    assert!(sensors.list().is_empty());
    // It may come back, as one that was never seen.
    assert!(sensors.connect(&hello("a"), "10.0.0.1:2").is_ok());
}
