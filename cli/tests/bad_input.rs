//! What bad input gets: the place, the reason, the right exit code, and nothing lost.
#![allow(clippy::expect_used, clippy::panic)] // reason: a test that cannot go on has failed

mod support;

use std::io::Write;
use std::time::Duration;

use support::{Running, eventually, free_port, get, program};

fn relay_settings(dir: &std::path::Path, feed: u16, link: u16, http: u16) -> std::path::PathBuf {
    let text = format!(
        "version: 1\nrelay:\n  data_dir: {0}/data\n  listen: {{feed: 127.0.0.1:{feed}, link: 127.0.0.1:{link}, http: 127.0.0.1:{http}, admin: unix:{0}/admin.sock}}\npolicies: {{sources: []}}\n",
        dir.display()
    );
    let path = dir.join("relay.yaml");
    std::fs::write(&path, text).expect("settings");
    path
}

fn failing(command: &mut std::process::Command) -> (Option<i32>, String) {
    let mut program = Running::start(command);
    let status = program.wait(Duration::from_secs(20));
    std::thread::sleep(Duration::from_millis(50));
    (
        status.code(),
        format!("{}\n{}", program.stderr.text(), program.stdout.text()),
    )
}

#[test]
fn every_problem_of_a_settings_file_is_told_with_its_line() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("bad.yaml");
    std::fs::write(
        &path,
        "version: 1\nrelay:\n  listn: {}\n  retention: {max_age: tomorrow}\nsinks:\n  a: {type: carrier-pigeon}\n",
    )
    .expect("settings");
    let (code, said) = failing(program("cresset").args(["config", "check"]).arg(&path));
    assert_eq!(code, Some(1), "{said}");
    for wanted in [
        "bad.yaml:3: relay.listn",
        "bad.yaml:4: relay.retention.max_age",
        "bad.yaml:6: sinks.a",
    ] {
        assert!(said.contains(wanted), "{wanted} is not in:\n{said}");
    }
}

#[test]
fn a_wrong_flag_is_wrong_usage() {
    let (code, said) = failing(program("cresset").args(["up", "--no-such-flag"]));
    assert_eq!(code, Some(2), "{said}");
}

#[test]
fn a_relay_that_is_not_there_is_told_with_its_address() {
    let port = free_port();
    let (code, said) =
        failing(program("cresset").args(["logs", "--relay", &format!("127.0.0.1:{port}")]));
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains(&format!("127.0.0.1:{port}")), "{said}");
}

#[test]
fn a_sensor_that_is_not_there_is_told_with_its_socket() {
    let (code, said) = failing(program("cresset").args([
        "run",
        "--sensor",
        "/nowhere/sensor.sock",
        "-l",
        "a=b",
        "--",
        "true",
    ]));
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("/nowhere/sensor.sock"), "{said}");
}

#[test]
fn a_taken_port_a_locked_folder_and_a_strange_folder_are_told() {
    let dir = tempfile::tempdir().expect("a folder");
    let holder = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = holder.local_addr().expect("bound").port();
    let path = relay_settings(dir.path(), taken, free_port(), free_port());
    let (code, said) = failing(program("cresset-relay").arg("--config").arg(&path));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("127.0.0.1:{taken}")), "{said}");

    let http = free_port();
    let path = relay_settings(dir.path(), free_port(), free_port(), http);
    let mut first = Running::start(program("cresset-relay").arg("--config").arg(&path));
    eventually("the relay is ready", Duration::from_secs(20), || {
        assert!(first.exited().is_none(), "{}", first.stderr.text());
        get(&format!("127.0.0.1:{http}"), "/readyz")
            .ok()
            .filter(|(status, _)| *status == 200)
    });
    let second = relay_settings(dir.path(), free_port(), free_port(), free_port());
    let (code, said) = failing(program("cresset-relay").arg("--config").arg(&second));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("data is in use by process"), "{said}");
    first.signal(libc::SIGTERM);
    assert_eq!(
        first.wait(Duration::from_secs(20)).code(),
        Some(0),
        "{}",
        first.stderr.text()
    );
}

#[test]
fn garbage_on_the_grpc_ports_ends_that_connection_only() {
    let dir = tempfile::tempdir().expect("a folder");
    let (feed, link, http) = (free_port(), free_port(), free_port());
    let path = relay_settings(dir.path(), feed, link, http);
    let mut relay = Running::start(program("cresset-relay").arg("--config").arg(&path));
    let http = format!("127.0.0.1:{http}");
    eventually("the relay is ready", Duration::from_secs(20), || {
        assert!(relay.exited().is_none(), "{}", relay.stderr.text());
        get(&http, "/readyz")
            .ok()
            .filter(|(status, _)| *status == 200)
    });
    for port in [feed, link] {
        for garbage in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            &[0xff; 4096],
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff",
        ] {
            let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("connect");
            let _ = stream.write_all(garbage);
        }
    }
    let out = program("cresset")
        .args(["status", "--relay", &format!("127.0.0.1:{feed}")])
        .output();
    assert!(out.expect("status").status.success());
    assert!(relay.exited().is_none());
    relay.signal(libc::SIGTERM);
    assert_eq!(relay.wait(Duration::from_secs(20)).code(), Some(0));
}
