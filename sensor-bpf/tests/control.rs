//! The control socket: its protocol, whom it serves, and that a connection is a workload's life.
#![allow(clippy::unwrap_used, clippy::panic)] // reason: a test that fails says so

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sensor_bpf::{Sensor, StartError};
use serde_json::{Value, json};
use support::kernel::FakeKernel;
use support::{Client, Running, eventually, settings};

fn register(name: &str) -> Value {
    json!({"register": {"namespace": "shop", "name": name, "labels": {"tier": "web", "app": "cart"}}})
}

fn no_relay(dir: &Path) -> sensor_bpf::Config {
    settings(dir, &[])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_the_workloads_life() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(no_relay(dir.path()), FakeKernel::default());
    let mut client = Client::connect(&running.socket).await;
    let reply = client.ask(register("cart")).await;
    let ready = &reply["ready"];
    assert_eq!(
        (&ready["workload"], &ready["tier"], &ready["policies"]),
        (&json!(1), &json!(3), &json!([]))
    );
    let cgroup = Path::new(ready["cgroup"].as_str().unwrap()).to_owned();
    assert!(cgroup.is_dir());
    assert_eq!(running.kernel.state().workloads[&1].0, cgroup);
    drop(client);
    eventually("the cgroup goes", || (!cgroup.exists()).then_some(())).await;
    assert!(running.kernel.state().workloads.is_empty());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_tells_workloads_and_tier() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(no_relay(dir.path()), FakeKernel::default());
    let mut client = Client::connect(&running.socket).await;
    client.ask(register("cart")).await;
    let status = client.ask(json!({"status": {}})).await;
    let status = &status["status"];
    assert_eq!(
        (&status["tier"], &status["abilities"]["exec"]),
        (&json!(3), &json!("kill"))
    );
    assert_eq!(
        status["workloads"]["1"],
        json!({"name": "shop/cart", "labels": "app=cart,tier=web", "policies": []})
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_get_a_reason_and_make_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(no_relay(dir.path()), FakeKernel::default());
    for (bad, expected) in [
        ("hello", "not a request"),
        ("{\"register\":{\"nmae\":\"x\"}}", "unknown field `nmae`"),
        ("{\"register\":{\"labels\":{\"a,b\":\"c\"}}}", "a,b"),
        ("{\"register\":{\"namespace\":\"a/b\"}}", "a/b"),
    ] {
        let reply = Client::connect(&running.socket).await.line(bad).await;
        let error = reply["error"].as_str().unwrap_or_default();
        assert!(error.contains(expected), "{bad}: {reply}");
    }
    let long = Client::connect(&running.socket)
        .await
        .line(&"x".repeat(70_000))
        .await;
    assert!(
        long["error"].as_str().unwrap().contains("longer than"),
        "{long}"
    );
    assert!(running.kernel.state().workloads.is_empty());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_has_one_workload() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(no_relay(dir.path()), FakeKernel::default());
    let mut client = Client::connect(&running.socket).await;
    client.ask(register("a")).await;
    let second = client.ask(register("b")).await;
    assert!(
        second["error"].as_str().unwrap().contains("has a workload"),
        "{second}"
    );
    assert_eq!(running.kernel.state().workloads.len(), 1);
    let mut other = Client::connect(&running.socket).await;
    assert_eq!(other.ask(register("b")).await["ready"]["workload"], 2);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_sensor_ends_its_workloads_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(no_relay(dir.path()), FakeKernel::default());
    let (kernel, socket) = (running.kernel.clone(), running.socket.clone());
    let mut client = Client::connect(&socket).await;
    client.ask(register("a")).await;
    running.stop().await;
    assert!(kernel.state().workloads.is_empty());
    assert!(!socket.exists());
    assert_eq!(
        std::fs::read_dir(dir.path().join("cgroup"))
            .unwrap()
            .count(),
        0
    );
    assert!(client.is_closed().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_its_owner_can_open_the_socket() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(no_relay(dir.path()), FakeKernel::default());
    let mode = std::fs::metadata(&running.socket)
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    running.stop().await;
}

fn build(dir: &Path, socket: &Path, data: &str) -> Result<Sensor, StartError> {
    let mut config = no_relay(dir);
    config.sensor.control = socket.display().to_string();
    config.sensor.data_dir = Some(dir.join(data));
    let mount = dir.join("cgroup");
    std::fs::create_dir_all(&mount).unwrap();
    Sensor::build_on(config, mount, || Ok(FakeKernel::default()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_is_taken_over_only_when_nobody_answers() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("run/s.sock");
    let first = build(dir.path(), &socket, "a").unwrap();
    let why = build(dir.path(), &socket, "b").unwrap_err().to_string();
    assert!(why.contains("served by a sensor that is running"), "{why}");
    drop(first);

    // A socket file of a process that is gone.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    drop(build(dir.path(), &socket, "b").unwrap());

    std::fs::write(&socket, "precious").unwrap();
    let why = build(dir.path(), &socket, "b").unwrap_err().to_string();
    assert!(why.contains("is no socket"), "{why}");
    assert_eq!(std::fs::read_to_string(&socket).unwrap(), "precious");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_serves_one_sensor() {
    let dir = tempfile::tempdir().unwrap();
    let first = build(dir.path(), &dir.path().join("a.sock"), "data").unwrap();
    let why = build(dir.path(), &dir.path().join("b.sock"), "data")
        .unwrap_err()
        .to_string();
    assert!(why.contains("used by another sensor"), "{why}");
    drop(first);
}
