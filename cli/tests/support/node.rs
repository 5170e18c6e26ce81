//! A whole node: `cresset up` on free ports with a temporary folder, and workloads under it.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]
#![allow(clippy::expect_used, clippy::panic)] // reason: a test that cannot go on has failed

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::{Running, eventually, in_force, program, word};

/// The seed policy, as its author wrote it, and what the tests add in the same namespace.
pub const SEED: &str = include_str!("../../../examples/policies/ksp-group-1-proc-path-block.yaml");

pub struct Node {
    pub dir: tempfile::TempDir,
    pub up: Running,
    pub feed: String,
    pub http: String,
    pub tier: String,
}

impl Node {
    /// Starts `cresset up` with these policies (file name, text) and settings; `extra` goes to the command line.
    pub fn start(policies: &[(&str, &str)], settings: &str, extra: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(dir.path().join("policies")).expect("a folder");
        for (name, text) in policies {
            std::fs::write(dir.path().join("policies").join(name), text).expect("a policy");
        }
        let settings = settings.replace("DIR", &dir.path().display().to_string());
        std::fs::write(dir.path().join("cresset.yaml"), settings).expect("settings");
        let mut up = Running::start(
            program("cresset")
                .arg("up")
                .arg("--data")
                .arg(dir.path().join("data"))
                .arg("--policies")
                .arg(dir.path().join("policies"))
                .arg("--config")
                .arg(dir.path().join("cresset.yaml"))
                .args([
                    "--listen-feed",
                    "127.0.0.1:0",
                    "--listen-link",
                    "127.0.0.1:0",
                ])
                .args(["--listen-http", "127.0.0.1:0"])
                .args(extra),
        );
        let ready = up.line("ready feed=", Duration::from_secs(60));
        let feed = word(&ready, "feed");
        // A busy machine may be ready before its rules are.
        if word(&ready, "tier") != "none" {
            in_force(&feed);
        }
        Self {
            feed,
            http: word(&ready, "http"),
            tier: word(&ready, "tier"),
            dir,
            up,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn sensor(&self) -> PathBuf {
        self.path("data").join("sensor.sock")
    }

    /// `cresset run` under this node's sensor, to its end.
    pub fn run(&self, namespace: &str, name: &str, labels: &str, command: &[&str]) -> Output {
        self.run_command(namespace, name, labels, command)
            .output()
            .expect("cresset run")
    }

    pub fn run_command(
        &self,
        namespace: &str,
        name: &str,
        labels: &str,
        command: &[&str],
    ) -> std::process::Command {
        let mut run = program("cresset");
        run.arg("run")
            .arg("--sensor")
            .arg(self.sensor())
            .args(["-n", namespace, "--name", name, "-l", labels, "--"])
            .args(command)
            .stdin(Stdio::null());
        run
    }

    /// The history of the relay as JSON objects.
    pub fn history(&self, filter: &str) -> Vec<Value> {
        history(&self.feed, filter)
    }

    /// Waits until an event is there that has all these values.
    pub fn told(&self, filter: &str, wanted: &[(&str, &str)]) -> Value {
        eventually(
            &format!("an event with {wanted:?}"),
            Duration::from_secs(60),
            || {
                self.history(filter)
                    .into_iter()
                    .find(|event| wanted.iter().all(|(key, value)| event[*key] == **value))
            },
        )
    }

    /// What `cresset status` prints.
    pub fn status(&self) -> String {
        let out = program("cresset")
            .args(["status", "--relay", &self.feed])
            .output();
        let out = out.expect("cresset status");
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    pub fn metrics(&self) -> String {
        super::get(&self.http, "/metrics").expect("metrics").1
    }

    /// SIGTERM, then the end; gives the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.up.signal(libc::SIGTERM);
        self.up.wait(Duration::from_secs(60)).code()
    }
}

/// What `cresset logs` prints of the last ten minutes.
pub fn history(feed: &str, filter: &str) -> Vec<Value> {
    let out = program("cresset")
        .args([
            "logs", "--relay", feed, "--filter", filter, "--since", "10m", "--json",
        ])
        .output()
        .expect("cresset logs");
    assert!(
        out.status.success(),
        "logs: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8_lossy(&out.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
}

/// The cgroups that the sensor of this process made and that are still there.
pub fn cgroups_left(pid: u32) -> Vec<PathBuf> {
    let mut left = Vec::new();
    let ours = format!("sensor-{pid}-");
    for mount in ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"] {
        let Ok(entries) = std::fs::read_dir(Path::new(mount).join("cresset")) else {
            continue;
        };
        let named = entries
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(&ours));
        left.extend(named.map(|entry| entry.path()));
    }
    left
}
