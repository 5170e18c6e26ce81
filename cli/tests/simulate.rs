//! `cresset policy simulate` against what enforcement then does to the same workload, on this kernel.
#![allow(clippy::expect_used, clippy::panic)] // reason: a test that cannot go on has failed

mod support;

use std::time::Duration;

use serde_json::Value;
use support::node::Node;
use support::{can_watch, eventually, program};

const VISIBLE: &str = "
version: 1
sensor:
  visibility: {workloads: [process], host: []}
";

const POLICY: &str = "
apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata: {name: no-id, namespace: shop}
spec:
  selector: {matchLabels: {app: cart}}
  process:
    matchPaths:
      - {path: /usr/bin/id}
      - {path: /usr/bin/uname, action: Audit}
  action: Block
";

/// Each program on its own, so that the end of one does not end the others.
const SCRIPT: &str = "/usr/bin/id; echo id=$?; /usr/bin/uname >/dev/null; echo uname=$?; /usr/bin/true; echo true=$?";

fn simulate(node: &Node, extra: &[&str]) -> std::process::Output {
    let mut command = program("cresset");
    command
        .args([
            "policy", "simulate", "--since", "10m", "--root", "/", "-o", "json",
        ])
        .args(["--relay", &node.feed])
        .args(extra)
        .arg(node.path("new.yaml"));
    command.output().expect("cresset policy simulate")
}

/// What the simulation says of a program: outcome of the row that has it among its samples.
fn predicted(result: &Value, program: &str) -> Option<String> {
    let workloads = result["workloads"].as_array()?;
    let verdicts = workloads
        .iter()
        .flat_map(|one| one["verdicts"].as_array())
        .flatten();
    let named = |sample: &Value| {
        let text = sample["operation"].as_str().unwrap_or_default();
        // The shell that runs the script names all of them among its arguments.
        text.split(' ').nth(1) == Some(program)
    };
    let row = verdicts
        .into_iter()
        .find(|row| row["samples"].as_array().into_iter().flatten().any(named))?;
    Some(row["verdict"]["outcome"].as_str()?.to_owned())
}

#[test]
fn what_is_simulated_is_what_enforcement_does() {
    if !can_watch("simulate") {
        return;
    }
    let node = Node::start(&[], VISIBLE, &[]);
    let before = node.run("shop", "cart", "app=cart", &["/bin/sh", "-c", SCRIPT]);
    let said = String::from_utf8_lossy(&before.stdout).into_owned();
    assert!(said.contains("id=0") && said.contains("uname=0"), "{said}");
    std::fs::write(node.path("new.yaml"), POLICY).expect("a policy");

    let result = eventually(
        "the record has both programs",
        Duration::from_secs(30),
        || {
            let output = simulate(&node, &["--min-coverage", "100"]);
            let result: Value = serde_json::from_slice(&output.stdout).ok()?;
            let both = ["/usr/bin/id", "/usr/bin/uname"];
            let seen = both
                .iter()
                .all(|program| predicted(&result, program).is_some());
            (seen && output.status.success()).then_some(result)
        },
    );
    assert_eq!(
        predicted(&result, "/usr/bin/id").as_deref(),
        Some("block"),
        "{result:#}"
    );
    assert_eq!(
        predicted(&result, "/usr/bin/uname").as_deref(),
        Some("audit"),
        "{result:#}"
    );
    let change = &result["workloads"][0]["changes"];
    assert_eq!(change[0]["before"]["outcome"], "pass", "{result:#}");
    assert_eq!(result["coverage"]["classes_judged"], 1, "{result:#}");

    // Now the same policy and the same workload.
    let applied = program("cresset")
        .args(["policy", "apply", "--data"])
        .arg(node.path("data"))
        .arg("-f")
        .arg(node.path("new.yaml"))
        .output()
        .expect("cresset policy apply");
    assert_eq!(
        String::from_utf8_lossy(&applied.stdout),
        "shop/no-id created\n",
        "{applied:?}"
    );
    eventually("the sensor runs it", Duration::from_secs(30), || {
        let output = program("cresset")
            .args(["policy", "status", "--relay", &node.feed])
            .output()
            .ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.success() && text.contains("current") && text.contains("1 policies"))
            .then_some(())
    });
    let after = node.run("shop", "cart", "app=cart", &["/bin/sh", "-c", SCRIPT]);
    let said = String::from_utf8_lossy(&after.stdout).into_owned();
    assert!(!said.contains("id=0"), "blocked, as simulated: {said}");
    assert!(
        said.contains("uname=0") && said.contains("true=0"),
        "they pass, as simulated: {said}"
    );
    node.told("policy", &[("PolicyName", "no-id"), ("Action", "Block")]);
    node.told("policy", &[("PolicyName", "no-id"), ("Action", "Audit")]);

    // A class that nothing was recorded of is missing evidence, not a pass.
    let files = POLICY.replace("process:\n    matchPaths:\n      - {path: /usr/bin/id}\n      - {path: /usr/bin/uname, action: Audit}", "capabilities: {matchCapabilities: [{capability: net_raw}]}");
    assert!(files.contains("net_raw"), "the text above has changed");
    std::fs::write(node.path("new.yaml"), files).expect("a policy");
    let output = simulate(&node, &["--min-coverage", "50"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let result: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        result["workloads"][0]["not_recorded"][0], "capabilities",
        "{result:#}"
    );

    // The glass is broken at the node itself, and mended.
    let pause = |word: &str, extra: &[&str]| {
        let mut command = program("cresset");
        command
            .args(["policy", word, "--sensor"])
            .arg(node.sensor())
            .args(extra);
        let output = command.output().expect("cresset policy");
        assert!(output.status.success(), "{output:?}");
    };
    pause("disable", &["--all", "--for", "1m", "--reason", "a test"]);
    let free = node.run("shop", "cart", "app=cart", &["/bin/sh", "-c", SCRIPT]);
    assert!(
        String::from_utf8_lossy(&free.stdout).contains("id=0"),
        "{free:?}"
    );
    pause("enable", &[]);
    let held = node.run("shop", "cart", "app=cart", &["/bin/sh", "-c", SCRIPT]);
    assert!(
        !String::from_utf8_lossy(&held.stdout).contains("id=0"),
        "{held:?}"
    );
}
