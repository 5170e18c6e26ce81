//! A sensor joins with a token, renews by itself, and goes on through a restart of its relay: all with the real programs.
#![allow(clippy::expect_used, clippy::panic)] // reason: a test that cannot go on has failed

mod support;

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use support::program::Place;
use support::{Running, can_watch, eventually, free_port, program};

const SOON: Duration = Duration::from_secs(60);

/// Settings of a relay at this port, and of a sensor that joins it.
fn settings(folder: &Path, port: u16, sensor: &str) -> String {
    let folder = folder.display();
    format!(
        "version: 1
relay:
  data_dir: {folder}/data
  listen: {{feed: \"127.0.0.1:0\", link: \"127.0.0.1:{port}\", http: \"127.0.0.1:0\", admin: \"unix:{folder}/admin.sock\"}}
  tls: {{enrolment: true, lifetime: 12s}}
policies: {{sources: []}}
sensor:
  relay: [\"https://127.0.0.1:{port}\"]
  join_token_file: {folder}/{sensor}.token
  control: unix:{folder}/{sensor}.sock
  data_dir: {folder}/{sensor}
"
    )
}

fn start_sensor(config: &Path) -> Running {
    Running::start(program("cresset-sensor").arg("--config").arg(config))
}

/// `cresset token …`.
fn token(place: &Place, args: &[&str]) -> Output {
    let mut command = program("cresset");
    command.arg("token").args(args).arg("--socket");
    command
        .arg(place.path("admin.sock"))
        .output()
        .expect("cresset token")
}

fn text(out: &[u8]) -> String {
    String::from_utf8_lossy(out).into_owned()
}

fn is_connected(feed: &str) -> bool {
    let out = program("cresset")
        .args(["status", "-o", "json", "--relay", feed])
        .output()
        .expect("cresset status");
    let status: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap_or_default();
    status["sensors"][0]["connected"] == true
}

#[test]
fn a_sensor_joins_renews_and_outlives_its_relay() {
    if !can_watch("enrolment") {
        return;
    }
    let place = Place::new("", "");
    let (folder, port) = (place.path(""), free_port());
    // Place starts the relay with this file; the sensor reads it, too.
    let config = place.path("relay.yaml");
    std::fs::write(&config, settings(&folder, port, "one")).expect("settings");
    let relay = place.start();

    let made = token(&place, &["create", "--role", "sensor", "--ttl", "5m"]);
    assert!(made.status.success(), "{made:?}");
    std::fs::write(place.path("one.token"), &made.stdout).expect("a token");
    let sensor = start_sensor(&config);
    eventually("the sensor is connected", SOON, || {
        is_connected(&relay.feed).then_some(())
    });
    let identity = place.path("one/identity/identity.pem");
    let read = || std::fs::read(&identity).expect("an identity");
    let first = read();

    // Whoever has the same token comes too late, and is told so.
    let second = place.path("second.yaml");
    std::fs::write(&second, settings(&folder, port, "two")).expect("settings");
    std::fs::copy(place.path("one.token"), place.path("two.token")).expect("a token");
    let mut late = start_sensor(&second);
    let why = late.line("was used by sensor/", SOON);
    let secret = text(&made.stdout);
    let secret = secret.split('.').nth(2).expect("a secret").to_owned();
    assert!(!why.contains(&secret), "{why}");
    // A relay that did not make the token is not believed, and does not see the secret.
    let others = proto::JoinToken::draw([9; 32]).expect("random bytes");
    std::fs::write(place.path("two.token"), others.reveal()).expect("a token");
    late.line("not the relay that made the token", SOON);
    late.kill();

    // The token is not needed any more, and is not needed for renewing.
    std::fs::remove_file(place.path("one.token")).expect("removed");
    eventually("the certificate is renewed", SOON, || {
        (read() != first).then_some(())
    });
    let shown = program("cresset")
        .args(["tls", "show", "--config"])
        .arg(&config)
        .output()
        .expect("cresset tls show");
    let page = text(&shown.stdout);
    assert!(shown.status.success(), "{page}");
    for words in ["own authority", "spiffe://", "good for"] {
        assert!(page.contains(words), "{words}: {page}");
    }

    // Through a restart, longer than a certificate lives.
    relay.stop();
    let before = read();
    let relay = place.start();
    eventually("the sensor came back", SOON, || {
        is_connected(&relay.feed).then_some(())
    });
    eventually("and renews", SOON, || (read() != before).then_some(()));
    let listed = text(&token(&place, &["list"]).stdout);
    assert!(
        listed.contains("used by sensor/") && listed.contains("good for"),
        "{listed}"
    );

    // Out, at once and for good.
    let member = listed
        .lines()
        .find_map(|line| {
            line.split_whitespace()
                .next()
                .filter(|word| word.starts_with("sensor/"))
        })
        .expect("a member")
        .to_owned();
    assert!(token(&place, &["revoke", &member]).status.success());
    eventually("it is out", SOON, || {
        (!is_connected(&relay.feed)).then_some(())
    });
    let mut sensor = sensor;
    sensor.line("was revoked, or replaced", SOON);
    // A new token, made for it by name, lets it in again without a restart.
    let id = member.trim_start_matches("sensor/");
    let again = token(&place, &["create", "--id", id]);
    std::fs::write(place.path("one.token"), &again.stdout).expect("a token");
    eventually("it is in again", SOON, || {
        is_connected(&relay.feed).then_some(())
    });
    sensor.signal(libc::SIGTERM);
    assert_eq!(
        sensor.wait(SOON).code(),
        Some(0),
        "{}",
        sensor.stderr.text()
    );
    relay.stop();
}
