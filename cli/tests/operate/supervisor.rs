//! systemd: what it is told, and whether the units are good.

use std::os::unix::net::UnixDatagram;
use std::process::Stdio;

use crate::scene::{ARCHIVE, SOON, Scene};
use crate::support;
use crate::support::program::Relay;

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

/// How exposed a unit is, from 0 (not at all) to 100, as systemd counts.
#[test]
fn the_relays_unit_gives_it_little_to_do_harm_with() {
    const MOST: &str = "20";
    let unit = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy/systemd/cresset-relay.service");
    let threshold = format!("--threshold={MOST}");
    let mut security = std::process::Command::new("systemd-analyze");
    security.args(["security", "--offline=true", "--no-pager", &threshold]);
    match security.arg(unit).output() {
        Ok(out) => {
            let told = String::from_utf8_lossy(&out.stdout);
            assert!(out.status.success(), "{told}");
        }
        Err(why) => support::skip("systemd", "units", &format!("systemd-analyze: {why}")),
    }
}
