//! What an enforcing kernel does, seen from inside a workload. Runs as the only job of a guest that `cargo xtask vm` boots:
//! a real relay, a real sensor, real workloads; elsewhere it only says that it is skipped.
//!
//! The same program is the workload: `suite act OPERATION …` does one thing and prints `ok` or the error's name.
#![allow(clippy::expect_used, clippy::panic)] // reason: a test that cannot go on has failed

mod act;
mod foretold;
mod outcomes;
mod scene;
mod score;
#[path = "../support/mod.rs"]
mod support;
mod told;

use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use score::Score;
use support::{Running, eventually, get, in_force, program, skip};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).map(String::as_str) == Some("act") {
        return act::act(&args[2..]);
    }
    if std::env::var_os("CRESSET_GUEST").is_none() {
        // Counted by `cargo xtask test`, which boots the guests itself.
        println!("vm_enforce runs inside `cargo xtask vm`");
        if std::env::var_os("CRESSET_QUICK").is_some() {
            skip(
                "full",
                "vm_enforce",
                "make test-quick boots no virtual machine",
            );
        }
        return ExitCode::SUCCESS;
    }
    suite()
}

fn suite() -> ExitCode {
    let lsm = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    let tier = if lsm.trim().split(',').any(|m| m == "bpf") {
        "1"
    } else {
        "2"
    };
    scene::prepare();
    let mut relay = Running::start(program("cresset-relay").args(["--config", "/tmp/relay.yaml"]));
    eventually("the relay is ready", Duration::from_secs(30), || {
        assert!(
            relay.exited().is_none(),
            "relay ended:\n{}",
            relay.stderr.text()
        );
        get("127.0.0.1:9480", "/readyz")
            .ok()
            .filter(|(status, _)| *status == 200)
    });
    let mut sensor =
        Running::start(program("cresset-sensor").args(["--config", "/tmp/sensor.yaml"]));
    eventually(
        "the sensor takes workloads",
        Duration::from_secs(60),
        || {
            assert!(
                sensor.exited().is_none(),
                "sensor ended:\n{}",
                sensor.stderr.text()
            );
            std::os::unix::net::UnixStream::connect("/tmp/sensor.sock").ok()
        },
    );
    tell_on_panic(&relay, &sensor);
    in_force("127.0.0.1:32767");

    let mut score = Score::default();
    outcomes::outcomes(&mut score);
    foretold::simulated_then_enforced(&mut score);
    let alerts = told::alerts();
    told::told(&mut score, &alerts, tier);
    if score.failed > 0 {
        println!(
            "--- sensor\n{}\n--- relay\n{}",
            sensor.stderr.text(),
            relay.stderr.text()
        );
        println!("--- status\n{}", scene::status().unwrap_or_default());
        for alert in &alerts {
            println!("{alert}");
        }
    }
    sensor.signal(libc::SIGTERM);
    score.case(
        "the sensor drains",
        &sensor.wait(Duration::from_secs(20)).to_string(),
        "exit status: 0",
    );
    relay.signal(libc::SIGTERM);
    score.case(
        "the relay drains",
        &relay.wait(Duration::from_secs(20)).to_string(),
        "exit status: 0",
    );
    println!("{} passed, {} failed", score.passed, score.failed);
    ExitCode::from(u8::from(score.failed > 0))
}

/// A wait that fails ends the suite; what the programs said tells why.
fn tell_on_panic(relay: &Running, sensor: &Running) {
    let (relay, sensor) = (relay.stderr.clone(), sensor.stderr.clone());
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        usual(info);
        println!("--- sensor\n{}\n--- relay\n{}", sensor.text(), relay.text());
        println!("--- status\n{}", scene::status().unwrap_or_default());
    }));
}
