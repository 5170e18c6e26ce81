//! A workload is recorded, policies are simulated on the record, then enforced on the same workload.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::scene::workload;
use crate::score::Score;
use crate::support::simulated::{outcome, predicted, simulate};
use crate::support::{eventually, in_force, program};

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
pub(crate) fn simulated_then_enforced(score: &mut Score) {
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
        (output.status.success() && text.contains("7 policies")).then_some(())
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
