//! The guest: its policies and settings, its files and programs, and its workloads.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::support::program;

const POLICY: &str = r#"
apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata: {name: vm-process, namespace: vm}
spec:
  selector: {matchLabels: {app: vm}}
  severity: 7
  tags: [VM]
  message: a program that must not run
  process:
    matchPaths:
      - {path: /opt/blocked, action: Block}
      - {path: /opt/audited, action: Audit}
    matchDirectories:
      - {dir: /opt/closed/, recursive: true, action: Block}
---
apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata: {name: vm-file, namespace: vm}
spec:
  selector: {matchLabels: {app: vm}}
  severity: 5
  file:
    matchPaths:
      - {path: /data/secret, action: Block}
      - {path: /data/watched, action: Audit}
    matchDirectories:
      - {dir: /data/vault/, recursive: true, action: Block}
---
apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata: {name: vm-network, namespace: vm}
spec:
  selector: {matchLabels: {app: vm}}
  severity: 3
  action: Block
  network:
    matchProtocols:
      - {protocol: udp}
---
apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata: {name: vm-named, namespace: vm}
spec:
  selector: {matchLabels: {app: vm}}
  severity: 4
  capabilities:
    matchCapabilities:
      - {capability: chown, action: Block}
      - {capability: sys_chroot, action: Audit}
  syscalls:
    matchSyscalls:
      - {syscall: [mkdir, mkdirat]}
---
apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata: {name: vm-allow, namespace: allow}
spec:
  selector: {matchLabels: {app: strict}}
  process:
    matchDirectories:
      - {dir: /opt/open/, recursive: true, action: Allow}
---
apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata: {name: vm-on-trial, namespace: trial}
spec:
  selector: {matchLabels: {app: trial}}
  mode: audit
  process:
    matchDirectories:
      - {dir: /opt/open/, recursive: true, action: Allow}
"#;

const RELAY: &str = "
version: 1
relay:
  data_dir: /tmp/relay
  listen: {feed: 127.0.0.1:32767, link: 127.0.0.1:9481, http: 127.0.0.1:9480, admin: unix:/tmp/relay.sock}
sinks:
  archive: {type: file, path: /tmp/events.jsonl, format: json}
policies:
  sources: [{type: folder, path: /tmp/policies}]
  default_posture: {file: block, network: audit, capabilities: audit}
";

const SENSOR: &str = "
version: 1
sensor:
  relay: [\"http://127.0.0.1:9481\"]
  data_dir: /tmp/sensor
  control: unix:/tmp/sensor.sock
  visibility: {workloads: [process, file, network], host: []}
";

/// Puts everything in place that policies and acts name.
pub(crate) fn prepare() {
    for dir in [
        "/tmp/policies",
        "/opt/closed/deep",
        "/opt/open",
        "/data/vault/deep",
        "/opt/tried",
        "/data/tried/vault",
    ] {
        fs::create_dir_all(dir).expect("a folder");
    }
    let this = std::env::current_exe().expect("this program");
    for copy in [
        "allowed",
        "blocked",
        "audited",
        "closed/deep/tool",
        "open/tool",
        "tried/blocked",
        "tried/audited",
    ] {
        fs::copy(&this, Path::new("/opt").join(copy)).expect("a copy");
    }
    symlink("/opt/blocked", "/opt/alias").expect("a link");
    for file in [
        "secret",
        "watched",
        "free",
        "vault/deep/key",
        "tried/secret",
        "tried/watched",
        "tried/vault/key",
    ] {
        fs::write(Path::new("/data").join(file), "x").expect("a file");
    }
    symlink("/data/secret", "/data/alias").expect("a link");
    fs::write("/tmp/policies/vm.yaml", POLICY).expect("policies");
    fs::write("/tmp/relay.yaml", RELAY).expect("settings");
    fs::write("/tmp/sensor.yaml", SENSOR).expect("settings");
}

/// Runs one act as a workload and gives what it printed.
pub(crate) fn workload(namespace: &str, label: &str, command: &[&str]) -> String {
    let out = program("cresset")
        .args([
            "run",
            "--sensor",
            "/tmp/sensor.sock",
            "-n",
            namespace,
            "--name",
            "case",
            "-l",
            label,
            "--",
        ])
        .args(command)
        .output()
        .expect("cresset run");
    let said = String::from_utf8_lossy(&out.stdout).trim().to_owned();
    if said.is_empty() {
        return format!(
            "{} {}",
            out.status,
            String::from_utf8_lossy(&out.stderr).trim()
        );
    }
    said
}

/// What `cresset status` says.
pub(crate) fn status() -> Option<String> {
    let out = program("cresset")
        .args(["status", "--relay", "127.0.0.1:32767"])
        .output()
        .ok()?;
    Some(String::from_utf8_lossy(&out.stdout).into_owned())
}
