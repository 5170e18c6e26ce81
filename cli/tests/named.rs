//! Capabilities and system calls that a policy names, through the whole of `cresset up`.
#![allow(clippy::expect_used, clippy::panic)] // reason: a test that cannot go on has failed

mod support;

use support::node::Node;
use support::{can_watch, get};

const POLICY: &str = "
apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata: {name: named, namespace: shop}
spec:
  selector: {matchLabels: {app: named}}
  severity: 6
  message: somebody changes what is not theirs
  capabilities:
    matchCapabilities: [{capability: chown, action: Audit}]
  syscalls:
    matchSyscalls: [{syscall: [rmdir, unlinkat]}]
";

const SETTINGS: &str = "
version: 1
sensor:
  visibility: {workloads: [], host: []}
";

#[test]
fn a_named_system_call_is_told_with_its_file() {
    if !can_watch("named-syscall") {
        return;
    }
    let node = Node::start(&[("named.yaml", POLICY)], SETTINGS, &[]);
    let folder = node.path("gone");
    std::fs::create_dir(&folder).expect("a folder");
    let script = format!("cd {} && rmdir gone", node.dir.path().display());
    let out = node.run("shop", "pod", "app=named", &["sh", "-c", &script]);
    assert!(out.status.success(), "{out:?}");
    let told = node.told("policy", &[("Operation", "Syscall")]);
    let resource = folder.display().to_string();
    for (field, value) in [
        ("Type", "MatchedPolicy"),
        ("PolicyName", "named"),
        ("Severity", "6"),
        ("Message", "somebody changes what is not theirs"),
        ("Source", "/usr/bin/rmdir gone"),
        ("Resource", &resource),
        ("Data", "syscall=SYS_RMDIR"),
        ("Action", "Audit"),
        ("Result", "Passed"),
        ("Enforcer", "eBPF Monitor"),
    ] {
        assert_eq!(told[field], value, "{field} of {told}");
    }
    assert_eq!(told["EventData"]["Syscall"], "SYS_RMDIR");
    // With nothing visible, what no rule names is not told.
    assert_eq!(node.history("system"), Vec::<serde_json::Value>::new());
}

#[test]
fn a_named_capability_is_told_where_the_kernel_tells_of_it_and_reported_where_not() {
    if !can_watch("named-capability") {
        return;
    }
    let node = Node::start(&[("named.yaml", POLICY)], SETTINGS, &[]);
    let file = node.path("owned");
    std::fs::write(&file, "x").expect("a file");
    let path = file.display().to_string();
    let out = node.run("shop", "pod", "app=named", &["chown", "1:1", &path]);
    assert!(out.status.success(), "{out:?}");
    if node.status().contains("neither enforced nor told") {
        return; // the report is what this kernel can give
    }
    let told = node.told("policy", &[("Operation", "Capabilities")]);
    for (field, value) in [
        ("PolicyName", "named"),
        ("Resource", "CAP_CHOWN"),
        ("Action", "Audit"),
        ("Result", "Passed"),
    ] {
        assert_eq!(told[field], value, "{field} of {told}");
    }
    let command = format!("/usr/bin/chown 1:1 {path}");
    assert_eq!(told["Source"], command);
}

#[test]
fn the_counters_know_the_operations() {
    if !can_watch("named-counters") {
        return;
    }
    let node = Node::start(&[("named.yaml", POLICY)], SETTINGS, &[]);
    let script = format!(
        "mkdir {0}/gone && rmdir {0}/gone",
        node.dir.path().display()
    );
    let out = node.run("shop", "pod", "app=named", &["sh", "-c", &script]);
    assert!(out.status.success(), "{out:?}");
    node.told("policy", &[("Operation", "Syscall")]);
    let line = support::eventually(
        "the counter moves",
        std::time::Duration::from_secs(60),
        || {
            let page = get(&node.http, "/metrics").ok()?.1;
            let line = page.lines().find(|line| {
                line.starts_with("kubearmor_alerts_") && line.contains("\"Syscall\"")
            })?;
            Some(line.to_owned())
        },
    );
    assert!(line.ends_with(" 1"), "{line}");
}
