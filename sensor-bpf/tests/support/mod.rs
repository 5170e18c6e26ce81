//! The tests' vocabulary: a kernel half that only remembers, a relay that does what it is told, and a sensor of both.
#![allow(dead_code, unreachable_pub)] // reason: each test program uses its part

pub mod kernel;
pub mod relay;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sensor_bpf::config::SensorConfig;
use sensor_bpf::{Config, Sensor};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use kernel::FakeKernel;

/// Waits until `what` holds, for at most a minute.
pub async fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Settings with everything below one folder, and these relays.
pub fn settings(dir: &Path, relays: &[String]) -> Config {
    let sensor = SensorConfig {
        relay: relays.to_vec(),
        control: format!("unix:{}", dir.join("sensor.sock").display()),
        node: Some("node-1".to_owned()),
        data_dir: Some(dir.join("data")),
        ..SensorConfig::default()
    };
    Config {
        cluster: "test".to_owned(),
        sensor,
    }
}

/// A running sensor on a fake kernel, with plain folders for cgroups.
pub struct Running {
    pub kernel: FakeKernel,
    pub socket: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Running {
    pub fn start(config: Config, kernel: FakeKernel) -> Self {
        let mount = config.sensor.data_path().with_file_name("cgroup");
        std::fs::create_dir_all(&mount).unwrap();
        let loaded = kernel.clone();
        let sensor = Sensor::build_on(config, mount, move || Ok(loaded)).unwrap();
        let socket = sensor.control_path().to_owned();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(sensor.run(async {
            let _ = stopped.await;
        }));
        Self {
            kernel,
            socket,
            stop: Some(stop),
            task,
        }
    }

    /// A shutdown, waited for.
    pub async fn stop(mut self) {
        self.stop.take();
        self.task.await.unwrap();
    }
}

/// A client of the control socket. Its workload lives as long as it does.
pub struct Client(BufReader<UnixStream>);

impl Client {
    pub async fn connect(socket: &Path) -> Self {
        Self(BufReader::new(UnixStream::connect(socket).await.unwrap()))
    }

    /// Sends a line and gives the answer; null at the end.
    pub async fn line(&mut self, line: &str) -> Value {
        self.0
            .get_mut()
            .write_all(format!("{line}\n").as_bytes())
            .await
            .unwrap();
        let mut reply = String::new();
        self.0.read_line(&mut reply).await.unwrap();
        serde_json::from_str(&reply).unwrap_or(Value::Null)
    }

    pub async fn ask(&mut self, request: Value) -> Value {
        self.line(&request.to_string()).await
    }

    /// What `ready` holds.
    pub async fn register(
        &mut self,
        namespace: &str,
        name: &str,
        labels: &[(&str, &str)],
    ) -> Value {
        let labels: serde_json::Map<String, Value> = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), json!(value)))
            .collect();
        let request = json!({"register": {"namespace": namespace, "name": name, "labels": labels}});
        let mut reply = self.ask(request).await;
        assert!(reply["ready"].is_object(), "{reply}");
        reply["ready"].take()
    }

    /// Has the sensor closed it?
    pub async fn is_closed(&mut self) -> bool {
        let mut rest = String::new();
        matches!(self.0.read_line(&mut rest).await, Ok(0) | Err(_))
    }
}

/// A rule as records name it, with id 77.
pub fn slot_rule(policy: &str, severity: u32, tags: &[&str], message: &str) -> policy::SlotRule {
    policy::SlotRule {
        id: proto::RuleId(77),
        kind: "KubeArmorPolicy".to_owned(),
        namespace: "multiubuntu".to_owned(),
        policy: policy.to_owned(),
        section: policy::Section::Process,
        action: policy::Action::Block,
        object: policy::Object::Path("/bin/sleep".to_owned()),
        sources: Vec::new(),
        severity,
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        message: message.to_owned(),
    }
}
