//! The whole pipeline through its outside doors: a real kernel event in every sink, a real policy back in the kernel.
#![allow(clippy::expect_used, clippy::panic)] // reason: a test that cannot go on has failed

mod support;

use std::time::{Duration, Instant};

use proto::feeder::{RequestMessage, log_service_client::LogServiceClient};
use support::node::{Node, SEED, cgroups_left};
use support::{Running, can_watch, eventually, get, program};

const AUDIT: &str = "
apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata: {name: watch-id, namespace: multiubuntu}
spec:
  severity: 4
  tags: [WATCH, ID]
  message: somebody asks who they are
  selector: {matchLabels: {group: group-1}}
  process:
    matchPaths: [{path: /usr/bin/id}]
  action: Audit
";

const SINKS: &str = "
version: 1
cluster: test
sinks:
  console: {type: stdout, format: text, filter: {kinds: [alert]}}
  json: {type: file, path: DIR/events.jsonl, format: json}
  text: {type: file, path: DIR/events.txt, format: text}
  metrics: {type: prometheus}
sensor:
  visibility: {workloads: [process, file, network], host: []}
";

#[tokio::test]
async fn a_forbidden_program_is_stopped_and_told_in_every_sink() {
    if !can_watch("up") {
        return;
    }
    let mut node = Node::start(&[("seed.yaml", SEED), ("audit.yaml", AUDIT)], SINKS, &[]);
    let mut live = LogServiceClient::connect(format!("http://{}", node.feed))
        .await
        .expect("feed");
    let mut alerts = live
        .watch_alerts(RequestMessage {
            filter: "policy".to_owned(),
        })
        .await
        .expect("alerts")
        .into_inner();

    let killed = node.run(
        "multiubuntu",
        "pod-1",
        "group=group-1",
        &["/bin/sleep", "5"],
    );
    assert_eq!(killed.status.code(), Some(137), "{killed:?}");
    let audited = node.run(
        "multiubuntu",
        "pod-1",
        "group=group-1",
        &["/usr/bin/id", "-u"],
    );
    assert_eq!(
        String::from_utf8_lossy(&audited.stdout),
        "0\n",
        "{audited:?}"
    );
    let other = node.run(
        "multiubuntu",
        "pod-2",
        "group=group-2",
        &["/bin/sleep", "0"],
    );
    assert_eq!(other.status.code(), Some(0), "{other:?}");

    // A gRPC client.
    let first = tokio::time::timeout(Duration::from_secs(60), alerts.message())
        .await
        .expect("an alert in time")
        .expect("no error")
        .expect("no end");
    assert_eq!(first.policy_name, "ksp-group-1-proc-path-block");
    assert_eq!(
        (first.action.as_str(), first.operation.as_str()),
        ("Block", "Process")
    );
    assert_eq!(
        (first.namespace_name.as_str(), first.pod_name.as_str()),
        ("multiubuntu", "pod-1")
    );
    assert_eq!(first.cluster_name, "test");
    assert_eq!(first.event_id.len(), 16);

    // History, with what the native tier is and does.
    let block = node.told("policy", &[("PolicyName", "ksp-group-1-proc-path-block")]);
    assert_eq!(block["Resource"], "/usr/bin/sleep 5");
    assert_eq!(block["Labels"], "group=group-1");
    assert_eq!(block["Type"], "MatchedPolicy");
    let told = (block["Enforcer"].as_str(), block["Result"].as_str());
    match node.tier.as_str() {
        "3" => assert_eq!(told, (Some("BPFContain"), Some("Killed"))),
        _ => assert_eq!(told, (Some("BPFLSM"), Some("Permission denied"))),
    }
    let audit = node.told("policy", &[("PolicyName", "watch-id"), ("Action", "Audit")]);
    assert_eq!(audit["Severity"], "4");
    assert_eq!(audit["Tags"], "WATCH,ID");
    assert_eq!(audit["ATags"], serde_json::json!(["WATCH", "ID"]));
    assert_eq!(audit["Message"], "somebody asks who they are");
    assert_eq!(
        (audit["Enforcer"].as_str(), audit["Result"].as_str()),
        (Some("eBPF Monitor"), Some("Passed"))
    );
    assert!(
        !node
            .history("policy")
            .iter()
            .any(|alert| alert["PodName"] == "pod-2"),
        "a workload outside the selector has alerts"
    );

    // stdout, files, metrics.
    let seed = "PolicyName: ksp-group-1-proc-path-block";
    eventually("stdout", Duration::from_secs(60), || {
        node.up.stdout.text().contains(seed).then_some(())
    });
    eventually("the text file", Duration::from_secs(60), || {
        std::fs::read_to_string(node.path("events.txt"))
            .ok()?
            .contains(seed)
            .then_some(())
    });
    eventually("the JSON file", Duration::from_secs(60), || {
        let text = std::fs::read_to_string(node.path("events.jsonl")).ok()?;
        text.lines()
            .any(|line| line.contains("\"PolicyName\":\"watch-id\""))
            .then_some(())
    });
    eventually("the metrics", Duration::from_secs(60), || {
        let text = node.metrics();
        let counted = text.lines().any(|line| {
            line.starts_with("kubearmor_alerts_with_policy_total{")
                && line.contains("ksp-group-1-proc-path-block")
                && line.ends_with(" 1")
        });
        (counted && text.contains("cresset_")).then_some(())
    });
    assert_eq!(get(&node.http, "/healthz").expect("healthz").0, 200);
    assert_eq!(get(&node.http, "/readyz").expect("readyz").0, 200);

    let pid = node.up.pid();
    assert_eq!(node.stop(), Some(0), "{}", node.up.stderr.text());
    assert!(!node.sensor().exists(), "the control socket is still there");
    eventually("no cgroup is left", Duration::from_secs(60), || {
        cgroups_left(pid).is_empty().then_some(())
    });
}

#[test]
fn an_edited_policy_takes_effect_by_itself_and_a_broken_one_leaves_the_old_in_force() {
    if !can_watch("up-policies") {
        return;
    }
    let node = Node::start(&[("seed.yaml", SEED)], SINKS, &[]);
    let sleep = || {
        node.run("multiubuntu", "pod", "group=group-1", &["/bin/sleep", "0"])
            .status
            .code()
    };
    assert_eq!(sleep(), Some(137));
    let file = node.path("policies/seed.yaml");

    std::fs::write(
        &file,
        SEED.replace("/bin/sleep", "/bin/nothing-of-that-name"),
    )
    .expect("an edit");
    let edited = Instant::now();
    eventually("the edit is in force", Duration::from_secs(60), || {
        (sleep() == Some(0)).then_some(())
    });
    // The promise is two seconds; how far this machine is from it depends on what else it does.
    println!("an edit was in force after {:?}", edited.elapsed());

    std::fs::write(&file, SEED).expect("an edit");
    eventually("the edit is in force", Duration::from_secs(60), || {
        (sleep() == Some(137)).then_some(())
    });

    std::fs::write(
        &file,
        "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nspec: [",
    )
    .expect("an edit");
    let status = eventually("the break is reported", Duration::from_secs(60), || {
        let out = support::program("cresset")
            .args(["status", "--relay", &node.feed])
            .output()
            .ok()?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        text.contains("seed.yaml:").then_some(text)
    });
    assert!(status.contains("seed.yaml:4"), "{status}");
    assert_eq!(sleep(), Some(137), "the old set is in force");
    assert!(
        node.metrics().contains("cresset_policy_set_current 0"),
        "{}",
        node.metrics()
    );
}

#[test]
fn a_denied_protocol_fails_with_permission_denied_and_others_pass() {
    if !can_watch("up-network") {
        return;
    }
    let policy = "
apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata: {name: no-udp, namespace: net}
spec:
  severity: 6
  selector: {matchLabels: {app: net}}
  network:
    matchProtocols: [{protocol: udp}]
  action: Block
";
    let node = Node::start(&[("net.yaml", policy)], SINKS, &[]);
    let said = |protocol: &str| {
        let script = format!("exec 3<>/dev/{protocol}/127.0.0.1/9");
        let out = node.run("net", "pod", "app=net", &["bash", "-c", &script]);
        String::from_utf8_lossy(&out.stderr).trim().to_owned()
    };
    let (udp, tcp) = (said("udp"), said("tcp"));
    assert!(udp.contains("Permission denied"), "{udp}");
    assert!(tcp.contains("Connection refused"), "{tcp}");
    let alert = node.told("policy", &[("PolicyName", "no-udp")]);
    assert_eq!(alert["Operation"], "Network");
    assert_eq!(alert["Action"], "Block");
    assert_eq!(alert["Result"], "Permission denied");
    assert_eq!(alert["Resource"], "protocol=UDP type=SOCK_DGRAM");
}

#[test]
fn the_demo_blocks_and_audits_by_policies_of_its_own_and_says_what_to_type_next() {
    if !can_watch("up-demo") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("data");
    let mut up = Running::start(
        program("cresset")
            .args(["up", "--demo", "--data"])
            .arg(&data)
            .args(["--listen-feed", "127.0.0.1:0"])
            .args(["--listen-link", "127.0.0.1:0"])
            .args(["--listen-http", "127.0.0.1:0"]),
    );
    up.line("metrics at http://", Duration::from_secs(120));
    let told = up.stdout.text();
    for line in [
        "PolicyName: demo-block-sleep",
        "Action: Block",
        "PolicyName: demo-audit-id",
        "PolicyName: demo-audit-shadow",
    ] {
        assert!(told.contains(line), "no {line:?}:\n{told}");
    }
    let said = up.stderr.text();
    let next: Vec<&str> = said
        .lines()
        .skip_while(|line| !line.starts_with("Next"))
        .collect();
    let [_, run, logs, status] = next.as_slice() else {
        panic!("three lines: {said}")
    };
    for (line, command) in [(run, " run "), (logs, " logs "), (status, " status ")] {
        assert!(line.contains(command), "{line}");
    }
    up.signal(libc::SIGINT);
    assert_eq!(up.wait(Duration::from_secs(60)).code(), Some(0));
    let said = up.whole_text();
    assert!(said.contains("nothing is left attached"), "{said}");
}
