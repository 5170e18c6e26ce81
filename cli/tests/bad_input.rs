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
    let status = program.wait(Duration::from_secs(60));
    (status.code(), program.whole_text())
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
fn a_file_that_a_sink_names_and_that_is_not_there_is_told_with_its_line_before_anything_starts() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("files.yaml");
    let not_pem = dir.path().join("not.pem");
    std::fs::write(&not_pem, "hello").expect("a file");
    // Below a file: a relay that comes so far says so, and does not run for ever.
    let data = not_pem.join("data");
    let text = format!(
        "version: 1\nrelay:\n  data_dir: {}\n  access:\n    - {{token_file: /nowhere/readers, role: reader}}\nsinks:\n  chat:\n    type: webhook\n    shape: slack\n    url_file: /nowhere/slack.url\n  bus:\n    type: kafka\n    brokers: [k]\n    sasl: {{username: u, password_file: /nowhere/kafka.pw}}\n    tls:\n      ca_file: /nowhere/ca.crt\n  siem:\n    type: elasticsearch\n    endpoints: ['https://es']\n    tls:\n      ca_file: {}\n    auth: {{api_key_env: CRESSET_TEST_NO_SUCH_KEY}}\n",
        data.display(),
        not_pem.display()
    );
    std::fs::write(&path, text).expect("settings");
    let said = |program: &mut std::process::Command| {
        let out = program.arg(&path).output().expect("it runs");
        let text = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
        (out.status.code(), text)
    };
    let check = |more: &[&str]| {
        let mut check = program("cresset");
        said(check.args(["config", "check"]).args(more))
    };
    let wanted = [
        "files.yaml:5: relay.access[0].token_file: /nowhere/readers",
        "files.yaml:10: sinks.chat.url_file: the secret in /nowhere/slack.url",
        "files.yaml:14: sinks.bus.sasl.password_file: the secret in /nowhere/kafka.pw",
        "files.yaml:16: sinks.bus.tls.ca_file: tls: /nowhere/ca.crt",
        "files.yaml:21: sinks.siem.tls.ca_file: tls: ",
        "files.yaml:22: sinks.siem.auth.api_key_env: the secret in $CRESSET_TEST_NO_SUCH_KEY",
    ];
    let mut relay = program("cresset-relay");
    for (code, said) in [check(&[]), said(relay.arg("--config"))] {
        assert_eq!(code, Some(1), "{said}");
        for wanted in wanted {
            assert!(said.contains(wanted), "{wanted} is not in:\n{said}");
        }
    }
    let (code, said) = check(&["--no-files"]);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn output_that_cannot_be_written_is_told_and_a_reader_that_has_had_enough_is_no_error() {
    for arguments in [["config", "schema"], ["config", "show"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
        let told = program("cresset")
            .args(arguments)
            .stdout(full.expect("/dev/full"))
            .stderr(std::process::Stdio::piped())
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&told.stderr);
        assert_eq!(told.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains("cannot write stdout"), "{said}");

        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let told = program("cresset")
            .args(arguments)
            .stdout(writer)
            .stderr(std::process::Stdio::piped())
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&told.stderr);
        assert_eq!((told.status.code(), &*said), (Some(0), ""), "{arguments:?}");
    }
}

#[tokio::test]
async fn a_log_of_warnings_says_whose_session_ended() {
    use proto::link::{FromSensor, Hello, from_sensor, link_client::LinkClient};

    let dir = tempfile::tempdir().expect("a folder");
    let (feed, link, http) = (free_port(), free_port(), free_port());
    let settings = relay_settings(dir.path(), feed, link, http);
    let relay = Running::start(
        program("cresset-relay")
            .args(["--log", "warn", "--config"])
            .arg(&settings),
    );
    let soon = Duration::from_secs(60);
    eventually("the relay is ready", soon, || {
        relay.stderr.text().contains("ready").then_some(())
    });
    let mut client = LinkClient::connect(format!("http://127.0.0.1:{link}"))
        .await
        .expect("the link");
    let hello = FromSensor {
        is: Some(from_sensor::Is::Hello(Hello {
            version: 99,
            sensor: "strange".to_owned(),
            ..Default::default()
        })),
    };
    let answered = match client.exchange(futures::stream::iter([hello])).await {
        Ok(replies) => replies.into_inner().message().await.map(|_| ()),
        Err(status) => Err(status),
    };
    assert!(answered.is_err(), "version 99 was taken");
    eventually("the end is told with the peer", soon, || {
        let whose = |line: &str| line.contains("session ended") && line.contains("peer=127.0.0.1:");
        relay.stderr.text().lines().any(whose).then_some(())
    });
}

#[test]
fn a_terminal_that_is_closed_lets_up_drain() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut up = Running::start(
        program("cresset")
            .args(["up", "--listen-feed", "127.0.0.1:0"])
            .args(["--listen-link", "127.0.0.1:0"])
            .args(["--listen-http", "127.0.0.1:0"])
            .env("CRESSET__SENSOR__ENFORCE_FOR", "60s")
            .arg("--data")
            .arg(dir.path().join("data"))
            .arg("--policies")
            .arg(dir.path()),
    );
    let soon = Duration::from_secs(60);
    eventually("up is ready", soon, || {
        up.stderr.text().contains("ready feed=").then_some(())
    });
    up.signal(libc::SIGHUP);
    let status = up.wait(soon);
    let said = up.stderr.text();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("draining"), "{said}");
}

#[test]
fn an_open_door_is_refused_by_the_name_of_its_flag() {
    let (code, said) = failing(program("cresset").args(["up", "--listen-http", "192.0.2.1:9480"]));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("--listen-http 192.0.2.1:9480"), "{said}");
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
fn a_relay_that_takes_connections_and_says_nothing_is_told() {
    // The kernel takes connections for a process that does not run.
    let stopped = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = stopped.local_addr().expect("bound").to_string();
    for command in ["status", "logs"] {
        let (code, said) = failing(program("cresset").args([command, "--relay", &address]));
        assert_eq!(code, Some(3), "{said}");
        assert!(
            said.contains(&address) && said.contains("nothing answered"),
            "{said}"
        );
    }
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
    eventually("the relay is ready", Duration::from_secs(60), || {
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
        first.wait(Duration::from_secs(60)).code(),
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
    eventually("the relay is ready", Duration::from_secs(60), || {
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
    assert_eq!(relay.wait(Duration::from_secs(60)).code(), Some(0));
}
