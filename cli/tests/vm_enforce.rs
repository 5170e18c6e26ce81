//! What an enforcing kernel does, seen from inside a workload. Runs as the only job of a guest that `cargo xtask vm` boots:
//! a real relay, a real sensor, real workloads; elsewhere it only says that it is skipped.
//!
//! The same program is the workload: `suite act OPERATION …` does one thing and prints `ok` or the error's name.
#![allow(clippy::expect_used, clippy::panic)] // reason: a test that cannot go on has failed

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use serde_json::Value;
use support::simulated::{outcome, predicted, simulate};
use support::{Running, eventually, get, in_force, program, skip};

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
"#;

/// What is simulated first and then put in force, for workloads that nothing else is about.
const TRIED: &str = r#"
apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata: {name: vm-tried, namespace: tried}
spec:
  selector: {matchLabels: {app: tried}}
  action: Block
  process:
    matchPaths:
      - {path: /opt/tried/blocked}
      - {path: /opt/tried/audited, action: Audit}
  file:
    matchPaths:
      - {path: /data/tried/secret}
      - {path: /data/tried/watched, action: Audit}
    matchDirectories:
      - {dir: /data/tried/vault/, recursive: true}
  network:
    matchProtocols:
      - {protocol: udp}
"#;

/// One operation of the workload, how the simulation names it, and what the policy is to say of it.
struct Tried {
    act: &'static [&'static str],
    begins: &'static str,
    has: &'static str,
    outcome: &'static str,
}

const TRIALS: &[Tried] = &[
    Tried {
        act: &["exec", "/opt/tried/blocked"],
        begins: "",
        has: "/opt/tried/blocked",
        outcome: "block",
    },
    Tried {
        act: &["exec", "/opt/tried/audited"],
        begins: "",
        has: "/opt/tried/audited",
        outcome: "audit",
    },
    Tried {
        act: &["read", "/data/tried/secret"],
        begins: "reading ",
        has: "/data/tried/secret",
        outcome: "block",
    },
    Tried {
        act: &["append", "/data/tried/vault/key"],
        begins: "writing ",
        has: "/data/tried/vault/key",
        outcome: "block",
    },
    Tried {
        act: &["read", "/data/tried/watched"],
        begins: "reading ",
        has: "/data/tried/watched",
        outcome: "audit",
    },
    Tried {
        act: &["udp"],
        begins: "a ",
        has: "UDP",
        outcome: "block",
    },
];

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

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).map(String::as_str) == Some("act") {
        return act(&args[2..]);
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

// === the workload ===

/// Does one thing and prints what came of it.
fn act(args: &[String]) -> ExitCode {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["say", text] => {
            println!("{text}");
            return ExitCode::SUCCESS;
        }
        ["exec", path] => Err(Command::new(path).args(["act", "say", "ran"]).exec()),
        ["read", path] => fs::read(path).map(|_| ()),
        ["append", path] => fs::OpenOptions::new().append(true).open(path).map(|_| ()),
        ["unlink", path] => fs::remove_file(path),
        ["rename", from, to] => fs::rename(from, to),
        ["link", from, to] => fs::hard_link(from, to),
        ["truncate", path] => truncate(path),
        ["udp"] => std::net::UdpSocket::bind("127.0.0.1:0").map(|_| ()),
        ["chown", path] => std::os::unix::fs::chown(path, Some(1), Some(1)),
        ["chroot", path] => std::os::unix::fs::chroot(path),
        ["mkdir", path] => fs::create_dir(path),
        ["tcp"] => std::net::TcpListener::bind("127.0.0.1:0").map(|_| ()),
        other => {
            println!("unknown act {other:?}");
            return ExitCode::from(2);
        }
    };
    println!(
        "{}",
        outcome.map_or_else(|error| name(&error), |()| "ok".to_owned())
    );
    ExitCode::SUCCESS
}

fn truncate(path: &str) -> std::io::Result<()> {
    let path = std::ffi::CString::new(path)?;
    // SAFETY: a valid C string.
    match unsafe { libc::truncate(path.as_ptr(), 0) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

fn name(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EACCES) => "EACCES".to_owned(),
        Some(libc::EPERM) => "EPERM".to_owned(),
        Some(libc::ENOENT) => "ENOENT".to_owned(),
        _ => error.to_string(),
    }
}

// === the suite ===

#[derive(Default)]
struct Score {
    passed: u32,
    failed: u32,
}

impl Score {
    fn case(&mut self, what: &str, got: &str, want: &str) {
        let fine = got == want;
        println!("{} {what}: {got:?}", if fine { "ok  " } else { "FAIL" });
        if fine {
            self.passed += 1;
        } else {
            println!("     wanted {want:?}");
            self.failed += 1;
        }
    }
}

fn suite() -> ExitCode {
    let lsm = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    let tier = if lsm.trim().split(',').any(|m| m == "bpf") {
        "1"
    } else {
        "2"
    };
    prepare();
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
    outcomes(&mut score);
    simulated_then_enforced(&mut score);
    let alerts = alerts();
    told(&mut score, &alerts, tier);
    if score.failed > 0 {
        println!(
            "--- sensor\n{}\n--- relay\n{}",
            sensor.stderr.text(),
            relay.stderr.text()
        );
        println!("--- status\n{}", status().unwrap_or_default());
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
        println!("--- status\n{}", status().unwrap_or_default());
    }));
}

fn prepare() {
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
fn workload(namespace: &str, label: &str, command: &[&str]) -> String {
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

fn outcomes(score: &mut Score) {
    let cases: &[(&str, &[&str], &str)] = &[
        ("a free program runs", &["exec", "/opt/allowed"], "ran"),
        (
            "a blocked program is refused",
            &["exec", "/opt/blocked"],
            "EACCES",
        ),
        (
            "a symbolic link does not help",
            &["exec", "/opt/alias"],
            "EACCES",
        ),
        (
            "nor does a detour in the path",
            &["exec", "/opt/../opt//blocked"],
            "EACCES",
        ),
        (
            "a closed folder is closed to its depth",
            &["exec", "/opt/closed/deep/tool"],
            "EACCES",
        ),
        ("an audited program runs", &["exec", "/opt/audited"], "ran"),
        (
            "a blocked file cannot be read",
            &["read", "/data/secret"],
            "EACCES",
        ),
        ("nor appended to", &["append", "/data/secret"], "EACCES"),
        (
            "nor read by a symbolic link",
            &["read", "/data/alias"],
            "EACCES",
        ),
        (
            "nor below a blocked folder",
            &["read", "/data/vault/deep/key"],
            "EACCES",
        ),
        (
            "an audited file can be read",
            &["read", "/data/watched"],
            "ok",
        ),
        ("another file can be read", &["read", "/data/free"], "ok"),
        (
            "a blocked file cannot be unlinked",
            &["unlink", "/data/secret"],
            "EACCES",
        ),
        (
            "nor renamed",
            &["rename", "/data/secret", "/data/other"],
            "EACCES",
        ),
        (
            "nor linked",
            &["link", "/data/secret", "/data/hard"],
            "EACCES",
        ),
        ("nor truncated", &["truncate", "/data/secret"], "EACCES"),
        ("UDP is refused", &["udp"], "EACCES"),
        ("TCP is not", &["tcp"], "ok"),
        (
            "a blocked capability is refused",
            &["chown", "/data/free"],
            "EPERM",
        ),
        ("an audited one is granted", &["chroot", "/"], "ok"),
        (
            "a system call that a policy names passes",
            &["mkdir", "/data/made"],
            "ok",
        ),
    ];
    for (what, act, want) in cases {
        let command: Vec<&str> = ["/opt/allowed", "act"]
            .iter()
            .chain(*act)
            .copied()
            .collect();
        score.case(what, &workload("vm", "app=vm", &command), want);
    }
    let strict = |path| {
        workload(
            "allow",
            "app=strict",
            &[path, "act", "exec", "/opt/allowed"],
        )
    };
    score.case(
        "an allow-list with posture block refuses the rest",
        &strict("/opt/open/tool"),
        "EACCES",
    );
    let outside = Command::new("/opt/allowed")
        .args(["act", "exec", "/opt/blocked"])
        .output();
    let said = outside.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned());
    score.case(
        "outside the workload nothing is refused",
        &said.unwrap_or_default(),
        "ran",
    );
}

/// Everything that the trials do, by a workload of theirs; what each of them printed.
fn try_all() -> Vec<String> {
    let run = |tried: &Tried| {
        let words = ["/opt/allowed", "act"].into_iter();
        let command: Vec<&str> = words.chain(tried.act.iter().copied()).collect();
        workload("tried", "app=tried", &command)
    };
    TRIALS.iter().map(run).collect()
}

/// A workload is recorded, policies are simulated on the record, then enforced on the same workload: what was foretold to
/// be blocked is refused, and nothing else is.
fn simulated_then_enforced(score: &mut Score) {
    let free = try_all();
    let refused = free.iter().filter(|said| *said == "EACCES").count();
    score.case("nothing is refused before", &refused.to_string(), "0");
    let file = Path::new("/tmp/tried.yaml");
    fs::write(file, TRIED).expect("a policy");

    let foretold = |result: &Value, tried: &Tried| match tried.begins {
        "" => predicted(result, tried.has),
        begins => outcome(result, begins, tried.has),
    };
    let mut last = Value::Null;
    let result = eventually("the record has everything", Duration::from_secs(60), || {
        let output = simulate("127.0.0.1:32767", file, &[]);
        last = serde_json::from_slice(&output.stdout).ok()?;
        let all = TRIALS.iter().all(|tried| foretold(&last, tried).is_some());
        all.then(|| last.clone())
    });
    for tried in TRIALS {
        let said = foretold(&result, tried).unwrap_or_default();
        score.case(
            &format!("simulated: {}", tried.act.join(" ")),
            &said,
            tried.outcome,
        );
    }

    fs::copy(file, "/tmp/policies/tried.yaml").expect("a policy");
    eventually("they are in force", Duration::from_secs(60), || {
        let output = program("cresset")
            .args(["policy", "status", "--relay", "127.0.0.1:32767"])
            .output()
            .ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.success() && text.contains("6 policies")).then_some(())
    });
    in_force("127.0.0.1:32767");
    for (tried, said) in TRIALS.iter().zip(try_all()) {
        let refused = said == "EACCES";
        score.case(
            &format!("enforced: {}: {said}", tried.act.join(" ")),
            if refused { "refused" } else { "done" },
            match tried.outcome {
                "block" => "refused",
                _ => "done",
            },
        );
    }
}

fn status() -> Option<String> {
    let out = program("cresset")
        .args(["status", "--relay", "127.0.0.1:32767"])
        .output()
        .ok()?;
    Some(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// The alerts of the relay's history.
fn alerts() -> Vec<Value> {
    // The last alert is known to have arrived when the newest workload's has.
    eventually("the alerts arrive", Duration::from_secs(20), || {
        let out = program("cresset")
            .args([
                "logs",
                "--relay",
                "127.0.0.1:32767",
                "--since",
                "10m",
                "--filter",
                "policy",
                "--json",
            ])
            .output()
            .expect("cresset logs");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let alerts: Vec<Value> = text
            .lines()
            .filter_map(|l| serde_json::from_str(l).ok())
            .collect();
        alerts
            .iter()
            .any(|a| a["PolicyName"] == "DefaultPosture")
            .then_some(alerts)
    })
}

fn told(score: &mut Score, alerts: &[Value], tier: &str) {
    let rows: &[(&str, &[(&str, &str)])] = &[
        (
            "the blocked program is told",
            &[
                ("PolicyName", "vm-process"),
                ("Operation", "Process"),
                ("Action", "Block"),
                ("Severity", "7"),
                ("Result", "Permission denied"),
                ("Enforcer", "BPFLSM"),
                ("Data", "lsm=SECURITY_BPRM_CHECK"),
                ("NamespaceName", "vm"),
                ("PodName", "case"),
                ("ProcessName", "/opt/blocked"),
                ("Tags", "VM"),
            ],
        ),
        (
            "the audited program is told",
            &[
                ("PolicyName", "vm-process"),
                ("Operation", "Process"),
                ("Action", "Audit"),
                ("Result", "Passed"),
                ("Enforcer", "eBPF Monitor"),
                ("ProcessName", "/opt/audited"),
            ],
        ),
        (
            "the blocked file is told",
            &[
                ("PolicyName", "vm-file"),
                ("Operation", "File"),
                ("Action", "Block"),
                ("Resource", "/data/secret"),
                ("Result", "Permission denied"),
                ("Enforcer", "BPFLSM"),
                ("Data", "lsm=FILE_OPEN"),
            ],
        ),
        (
            "the audited file is told",
            &[
                ("PolicyName", "vm-file"),
                ("Action", "Audit"),
                ("Resource", "/data/watched"),
                ("Result", "Passed"),
            ],
        ),
        (
            "the blocked socket is told",
            &[
                ("PolicyName", "vm-network"),
                ("Operation", "Network"),
                ("Action", "Block"),
                ("Enforcer", "BPFLSM"),
            ],
        ),
        (
            "the blocked capability is told",
            &[
                ("PolicyName", "vm-named"),
                ("Operation", "Capabilities"),
                ("Resource", "CAP_CHOWN"),
                ("Data", "lsm=CAPABLE CAP_CHOWN"),
                ("Action", "Block"),
                ("Result", "Permission denied"),
                ("Enforcer", "BPFLSM"),
            ],
        ),
        (
            "the audited capability is told",
            &[
                ("PolicyName", "vm-named"),
                ("Operation", "Capabilities"),
                ("Resource", "CAP_SYS_CHROOT"),
                ("Action", "Audit"),
                ("Result", "Passed"),
            ],
        ),
        (
            "the named system call is told",
            &[
                ("PolicyName", "vm-named"),
                ("Operation", "Syscall"),
                ("Resource", "/data/made"),
                ("Data", "syscall=SYS_MKDIR"),
                ("Action", "Audit"),
                ("Result", "Passed"),
            ],
        ),
        (
            "the posture is told",
            &[
                ("PolicyName", "DefaultPosture"),
                ("Action", "Block"),
                ("NamespaceName", "allow"),
            ],
        ),
    ];
    for (what, wanted) in rows {
        let found = alerts
            .iter()
            .any(|alert| wanted.iter().all(|(key, value)| alert[*key] == **value));
        score.case(what, if found { "told" } else { "not told" }, "told");
    }
    let text = status().unwrap_or_default();
    let said = text.contains(&format!("tier {tier}"));
    score.case(
        "the status names the tier",
        if said { tier } else { "another" },
        tier,
    );
}
