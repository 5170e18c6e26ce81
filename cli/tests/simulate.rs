//! Policies tried before they are in force: `simulate` against what enforcement then does to the same workload, and a
//! rollout that stops by what its canary tells, on this kernel.
#![allow(clippy::expect_used, clippy::panic)] // reason: a test that cannot go on has failed

mod support;

use std::time::Duration;

use serde_json::Value;
use support::node::Node;
use support::simulated::{self, outcome, predicted};
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
    simulated::simulate(&node.feed, &node.path("new.yaml"), extra)
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

    // What the workload starts with is on record: a policy that would stop it is told of before it is in force.
    let shells = POLICY.replace("/usr/bin/id", "/bin/sh");
    std::fs::write(node.path("shells.yaml"), shells).expect("a policy");
    let checked = program("cresset")
        .args([
            "policy",
            "check",
            "--root",
            "/",
            "--history",
            "10m",
            "--relay",
            &node.feed,
        ])
        .arg(node.path("shells.yaml"))
        .output()
        .expect("cresset policy check");
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    let dash = std::fs::canonicalize("/bin/sh").expect("a shell");
    let stops = format!(
        "stops `{}`, which a workload of namespace `shop` starts with",
        dash.display()
    );
    assert!(said.contains(&stops), "{said}");

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
        (output.status.success() && text.contains("current") && text.contains("1 policy,"))
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

    // A policy that is about nothing of the record was not simulated: a gate does not open for it.
    let typo = POLICY.replace("app: cart", "app: carrt");
    std::fs::write(node.path("new.yaml"), typo).expect("a policy");
    let output = simulate(&node, &["--min-coverage", "1"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("policy shop/no-id is about no workload of the record"),
        "{said}"
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
    still_off(&node);
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

/// The relay knows that the node is off, says so, and does not say that it is on.
fn still_off(node: &Node) {
    eventually("the relay knows it", Duration::from_secs(30), || {
        let (code, said) = policy(&["status"], node);
        let knows = said.contains("  off until ") && said.contains(": a test");
        (code == Some(1) && knows).then_some(())
    });
    let (code, said) = policy(&["enable"], node);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("but for these:") && said.contains(": policies are off until"),
        "{said}"
    );
}

const WATCHED: &str = "
version: 1
sensor:
  visibility: {workloads: [process, file, network], host: []}
";

#[test]
fn files_and_sockets_are_simulated_as_they_are_enforced() {
    if !can_watch("simulate files and sockets") {
        return;
    }
    let node = Node::start(&[], WATCHED, &[]);
    let secret = node.path("secret").display().to_string();
    std::fs::write(&secret, "secret\n").expect("a file");
    let policy = POLICY
        .replace("no-id", "tried")
        .replace("  process:\n    matchPaths:\n      - {path: /usr/bin/id}\n      - {path: /usr/bin/uname, action: Audit}\n", &format!(
            "  file: {{matchPaths: [{{path: {secret}}}]}}\n  network: {{matchProtocols: [{{protocol: udp}}]}}\n"
        ));
    assert!(policy.contains("udp"), "the text above has changed");
    std::fs::write(node.path("new.yaml"), policy).expect("a policy");
    let script = format!(
        "cat {secret}; echo file=$?; (echo x >/dev/udp/127.0.0.1/9); echo udp=$?; (: </dev/tcp/127.0.0.1/9); echo tcp done"
    );
    let run = || {
        let ran = node.run("shop", "cart", "app=cart", &["/bin/bash", "-c", &script]);
        String::from_utf8_lossy(&ran.stdout).into_owned()
    };
    let said = run();
    assert!(said.contains("file=0") && said.contains("udp=0"), "{said}");

    let reading = format!("reading {secret}");
    let wanted = [(&*reading, "", "block"), ("a ", "UDP", "block")];
    let foretold = eventually("the record has both", Duration::from_secs(30), || {
        let output = simulate(&node, &[]);
        let result: Value = serde_json::from_slice(&output.stdout).ok()?;
        let all = wanted
            .iter()
            .all(|(begins, has, _)| outcome(&result, begins, has).is_some());
        all.then_some(result)
    });
    for (begins, has, says) in wanted {
        let found = outcome(&foretold, begins, has);
        assert_eq!(found.as_deref(), Some(says), "{begins}{has}: {foretold:#}");
    }
    let far = "  network: {matchEndpoints: [{cidr: 127.0.0.0/8, ports: [{port: \"9\"}]}]}\n";
    let at = POLICY.find("  process:").expect("rules");
    let far = format!("{}{far}  action: Block\n", &POLICY[..at]);
    std::fs::write(node.path("far.yaml"), far).expect("a policy");
    let output = simulated::simulate(&node.feed, &node.path("far.yaml"), &["--alone"]);
    let result: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let found = outcome(&result, "a TCP connection to 127.0.0.1:9", "");
    assert_eq!(found.as_deref(), Some("block"), "{result:#}");
    let tcp = outcome(&foretold, "a ", "TCP");
    assert_ne!(tcp.as_deref(), Some("block"), "{foretold:#}");

    let applied = program("cresset")
        .args(["policy", "apply", "--data"])
        .arg(node.path("data"))
        .arg("-f")
        .arg(node.path("new.yaml"))
        .output()
        .expect("cresset policy apply");
    assert!(applied.status.success(), "{applied:?}");
    eventually("the sensor runs it", Duration::from_secs(30), || {
        let status = node.status();
        (status.contains("rules current") && status.contains("1 in force")).then_some(())
    });
    let said = run();
    assert!(said.contains("udp=1"), "refused, as simulated: {said}");
    assert!(said.contains("tcp done"), "{said}");
    node.told(
        "policy",
        &[
            ("PolicyName", "tried"),
            ("Operation", "Network"),
            ("Action", "Block"),
        ],
    );
    // What this kernel cannot refuse is told as what would have been.
    let action = if node.tier == "3" {
        "Audit (Block)"
    } else {
        "Block"
    };
    assert_eq!(said.contains("file=0"), node.tier == "3", "{said}");
    node.told(
        "policy",
        &[
            ("PolicyName", "tried"),
            ("Operation", "File"),
            ("Resource", &*secret),
            ("Action", action),
        ],
    );
}

const ROLLOUT: &str = "
version: 1
policies:
  rollout: {canary: {stage: canary}, hold: 1h, stop_on: {blocked_rate: 0}}
sensor:
  labels: {stage: canary}
  visibility: {workloads: [], host: []}
";

/// Runs `cresset policy …`, gives its exit code and what it printed.
fn policy(args: &[&str], node: &Node) -> (Option<i32>, String) {
    let at = match args[0] {
        "apply" | "delete" | "rollout" | "enable" => {
            ["--data".into(), node.path("data").into_os_string()]
        }
        _ => ["--relay".into(), node.feed.clone().into()],
    };
    let mut command = program("cresset");
    command.arg("policy").args(args).args(at);
    command.current_dir(node.dir.path());
    let output = command.output().expect("cresset policy");
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

/// Waits until the status says all this.
fn says(node: &Node, words: &[&str]) -> (Option<i32>, String) {
    let what = format!("the status says {words:?}");
    eventually(&what, Duration::from_secs(60), || {
        let (code, text) = policy(&["status"], node);
        words
            .iter()
            .all(|word| text.contains(word))
            .then_some((code, text))
    })
}

#[test]
fn a_rollout_stops_by_what_its_canary_would_have_stopped() {
    if !can_watch("rollout") {
        return;
    }
    let node = Node::start(&[], ROLLOUT, &[]);
    let first = POLICY
        .replace("no-id", "first")
        .replace("/usr/bin/id", "/usr/bin/tty");
    std::fs::write(node.path("first.yaml"), first).expect("a policy");
    std::fs::write(node.path("new.yaml"), POLICY).expect("a policy");

    // The first policy is tried, and let through by hand.
    let (code, text) = policy(&["apply", "-f", "first.yaml"], &node);
    assert_eq!((code, &*text), (Some(0), "shop/first created\n"));
    let (code, text) = says(
        &node,
        &["rollout holding", "1 new or changed policy", "canary"],
    );
    assert_eq!(code, Some(0), "a trial is no fault: {text}");
    let (code, text) = policy(&["rollout", "go", "--reason", "a test"], &node);
    assert_eq!(code, Some(0), "{text}");
    says(&node, &["current"]);

    // A name that is somewhere else is not deleted, and where it is gets told.
    let (code, text) = policy(&["delete", "first"], &node);
    let told =
        "default/first not there\nthere is KubeArmorPolicy shop/first: delete it with -n shop\n";
    assert_eq!((code, &*text), (Some(1), told));

    // What the second one would change is seen beforehand.
    let (code, text) = policy(&["diff", "-f", "new.yaml"], &node);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("+ policy shop/no-id"), "{text}");
    assert!(
        text.contains("/usr/bin/id: pass -> block by no-id"),
        "{text}"
    );

    policy(&["apply", "-f", "new.yaml"], &node);
    says(&node, &["rollout holding", "on 1 sensor with stage=canary"]);
    let script = "/usr/bin/id; echo id=$?; /usr/bin/tty; echo tty=$?";
    let ran = node.run("shop", "cart", "app=cart", &["/bin/sh", "-c", script]);
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(said.contains("id=0"), "what is tried stops nothing: {said}");
    assert!(
        !said.contains("tty=0") && !said.contains("tty=1\n"),
        "what is in force does: {said}"
    );
    node.told(
        "policy",
        &[
            ("PolicyName", "no-id"),
            ("Action", "Audit (Block)"),
            ("Result", "Passed"),
        ],
    );
    let words = [
        "rollout stopped",
        "would have stopped 1 operation",
        "shop/no-id",
        "held",
    ];
    let (code, text) = says(&node, &words);
    assert_eq!(code, Some(1), "somebody has to look: {text}");
    let (code, text) = policy(&["diff", "-f", "new.yaml"], &node);
    assert_eq!(code, Some(0), "it is what the relay has: {text}");

    policy(&["rollout", "go"], &node);
    says(&node, &["current"]);
    let ran = node.run("shop", "cart", "app=cart", &["/bin/sh", "-c", script]);
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(!said.contains("id=0"), "now it is in force: {said}");
    let (code, text) = policy(&["rollout", "stop"], &node);
    assert_ne!(code, Some(0), "there is none: {text}");
}
