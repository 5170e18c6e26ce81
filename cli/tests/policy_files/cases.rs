//! `cresset policy test`: cases beside policies.

use super::{Files, code, fine, shop};

#[test]
fn a_failing_test_case_is_named_with_line_and_verdicts_and_exits_1() {
    let cases = "workload: {namespace: shop, labels: {app: cart}}\ntests:\n  - {exec: /bin/a, expect: pass}\n  - {exec: /bin/a, expect: block, by: p}\n";
    let files = Files::with(&[
        ("a.yaml", &shop("process: {matchPaths: [{path: /bin/a}]}")),
        ("a.test.yaml", cases),
        (
            "bad.test.yaml",
            "policies: [a.yaml]\ntests:\n  - {open: /x, expect: pass}\n  - {exec: a, expect: pass}\n  - {expect: maybe}\n",
        ),
    ]);
    let told = code(&["test", &files.path("a.test.yaml")], 1);
    assert!(
        told.contains("a.test.yaml:3: FAILED: starting /bin/a: expected pass, got block by p"),
        "{told}"
    );
    assert!(told.contains("1 file, 2 cases: 1 FAILED"), "{told}");
    let told = code(&["test", &files.path("bad.test.yaml")], 1);
    assert!(told.contains("bad.test.yaml:5"), "{told}");
}

#[test]
fn a_test_file_that_cannot_be_asked_is_an_error_and_the_others_run() {
    let case = "tests: [{exec: /bin/a, expect: pass}, {open: /x, expect: pass}]\n";
    let files = Files::with(&[
        ("a.yaml", &shop("process: {matchPaths: [{path: /bin/b}]}")),
        ("a.test.yaml", case),
        (
            "gone.test.yaml",
            &format!("# a remark\npolicies: [nope.yaml]\n{case}"),
        ),
        ("none.test.yaml", "policies: [a.yaml]\ntests: []\n"),
    ]);
    std::fs::write(files.path("latin.test.yaml"), [0xff]).expect("written");
    let told = code(&["test", &files.path("")], 1);
    for needed in [
        "a.test.yaml:1:39: error: tests[1]: `open` and `access: read` or `write` go together",
        "gone.test.yaml:2:",
        "nope.yaml: No such file",
        "none.test.yaml:2:",
        "no test case is here",
        "latin.test.yaml: error: not UTF-8 text",
        "4 files, 1 case: 4 errors\n",
    ] {
        assert!(told.contains(needed), "{needed}: {told}");
    }
    code(&["test", &files.path("none.test.yaml")], 1);
}

#[test]
fn test_cases_ask_for_nodes_devices_connections_and_packets() {
    let nodes = "
apiVersion: security.kubearmor.com/v1
kind: KubeArmorHostPolicy
metadata: {name: node-rules}
spec:
  nodeSelector: {matchLabels: {kubearmor.io/hostname: node-a}}
  process: {matchPaths: [{path: /usr/bin/diff}]}
  device: {matchDevice: [{class: ALL, action: Block}, {class: HID, action: Allow}]}
  action: Block
---
apiVersion: security.kubearmor.com/v1
kind: KubeArmorNetworkPolicy
metadata: {name: egress}
spec:
  nodeSelector: {matchLabels: {zone: x}}
  egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}}], action: Block}]
";
    let endpoints = "network: {matchEndpoints: [{cidr: 10.0.0.0/8, direction: egress, action: Allow}, {domain: example.org, action: Allow}, {cidr: 10.9.0.0/16}]}";
    let cases = "
policies: [nodes.yaml, shop.yaml]
workload: {namespace: shop, labels: {app: cart}}
postures: {network: block}
tests:
  - {node: {name: node-a}, plug: 8/6/80/1, expect: block, by: node-rules}
  - {node: {name: node-a}, plug: 3/1/2/1, expect: pass}
  - {node: {name: node-a}, exec: /usr/bin/diff, expect: block}
  - {node: {name: node-b}, exec: /usr/bin/diff, expect: pass}
  - {exec: /usr/bin/diff, expect: pass}
  - {node: {name: node-b, labels: {zone: x}}, packet: 'udp 10.9.9.9:53', expect: block, by: egress}
  - {node: {name: node-b, labels: {zone: x}}, packet: 'udp 10.9.9.9:53', direction: ingress, expect: pass}
  - {connect: ['tcp 10.1.2.3:5432', 'udp 10.1.2.3:53'], expect: pass}
  - {connect: 'tcp 10.9.2.3:5432', expect: block, by: p}
  - {connect: 'tcp 192.0.2.7:443', names: [www.example.org], expect: pass}
  - {connect: 'tcp 192.0.2.7:443', expect: block, by: DefaultPosture}
";
    let wrong = "
policies: [shop.yaml]
tests:
  - {connect: 10.1.2.3, expect: pass}
  - {plug: disk, expect: pass}
  - {exec: /a, direction: ingress, expect: pass}
  - {exec: /a, node: {name: n}, workload: {namespace: n}, expect: pass}
";
    let files = Files::with(&[
        ("nodes.yaml", nodes),
        ("shop.yaml", &shop(endpoints)),
        ("good.test.yaml", cases),
        ("wrong.test.yaml", wrong),
    ]);
    assert_eq!(
        fine(&["test", &files.path("good.test.yaml")]),
        "1 file, 12 cases: all as expected\n"
    );
    let told = code(&["test", &files.path("wrong.test.yaml")], 1);
    for needed in [
        "wrong.test.yaml:4:5: error: tests[0]: `10.1.2.3` is no far end",
        "wrong.test.yaml:5:5: error: tests[1]: `disk` is no device",
        "tests[2]: `direction` is of a connection or a packet",
        "tests[3]: is about a workload or about a node, not both",
    ] {
        assert!(told.contains(needed), "{needed}: {told}");
    }
}
