//! Wrong documents, and what is said of them.

use policy::{load, parse};

/// What is wrong with a spec of a KubeArmorPolicy; its first line is line 5.
fn spec(spec: &str) -> Vec<String> {
    let body: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    let head = "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata: {name: p, namespace: n}\nspec:\n";
    document(&format!("{head}{body}"))
}

fn of_kind(kind: &str, spec: &str) -> Vec<String> {
    let body: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    let head = format!(
        "apiVersion: security.kubearmor.com/v1\nkind: {kind}\nmetadata: {{name: p}}\nspec:\n"
    );
    document(&format!("{head}{body}"))
}

/// Errors first word `error`, warnings `warning`. A policy with an error must not come out.
fn document(text: &str) -> Vec<String> {
    let (policies, problems) = parse("f", text);
    if problems.iter().any(|problem| problem.is_error()) {
        assert_eq!(policies, []);
    }
    let word = |problem: &policy::Problem| {
        if problem.is_error() {
            "error"
        } else {
            "warning"
        }
    };
    problems
        .iter()
        .map(|problem| format!("{} {problem}", word(problem)))
        .collect()
}

#[test]
fn documents_that_are_no_policy() {
    assert_eq!(document(""), Vec::<String>::new());
    assert_eq!(
        document("- a\n"),
        ["error f:1: expected a policy (a mapping with `apiVersion: security.kubearmor.com/v1`)"]
    );
    assert_eq!(
        document("apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolcy\n"),
        ["error f:2: kind: unknown kind `KubeArmorPolcy`; did you mean `KubeArmorPolicy`?"]
    );
    assert_eq!(
        document("apiVersion: security.kubearmor.com/v1\nkind: Pod\n"),
        [
            "error f:2: kind: unknown kind `Pod`; a policy is a `KubeArmorPolicy`, `KubeArmorClusterPolicy`, `KubeArmorHostPolicy`, `KubeArmorNetworkPolicy`"
        ]
    );
    assert_eq!(
        document("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n"),
        ["warning f:2: kind: a Deployment is not a KubeArmor policy; it is left out"]
    );
    assert_eq!(
        document("metadata: {name: x}\n"),
        [
            "error f:1: kind: `kind` is missing; add one of `KubeArmorPolicy`, `KubeArmorClusterPolicy`, `KubeArmorHostPolicy`, `KubeArmorNetworkPolicy`"
        ]
    );
    assert_eq!(
        document(
            "kind: KubeArmorPolicy\napiVersion: security.kubearmor.com/v2\nmetadata: {name: x, namespace: y}\nspec: {process: {matchPaths: [{path: /a}]}}\n"
        ),
        [
            "error f:2: apiVersion: unknown version `security.kubearmor.com/v2`; write `security.kubearmor.com/v1`"
        ]
    );
    assert_eq!(
        document(
            "kind: KubeArmorPolicy\nmetadata: {name: x, namespace: y}\nspec: {process: {matchPaths: [{path: /a}]}}\n"
        ),
        [
            "error f:1: apiVersion: `apiVersion` is missing; write `apiVersion: security.kubearmor.com/v1`"
        ]
    );
}

#[test]
fn metadata_that_names_nothing() {
    let with = |metadata: &str, spec: &str| {
        document(&format!(
            "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\n{metadata}{spec}"
        ))
    };
    let good = "spec: {process: {matchPaths: [{path: /a}]}}\n";
    assert_eq!(with("", good), ["error f:1: `metadata` is missing; add it"]);
    assert_eq!(
        with("metadata: {namespace: n}\n", good),
        ["error f:3: metadata: `name` is missing; add it"]
    );
    assert_eq!(
        with("metadata: {nmae: x, name: y, namespace: n}\n", good),
        ["warning f:3: metadata.nmae: unknown field `nmae`; did you mean `name`?"]
    );
    assert_eq!(
        with("metadata: {name: my policy, namespace: n}\n", good),
        [
            "error f:3: metadata.name: `my policy` is no name; use letters, digits, `-`, `_` and `.`, at most 253 of them"
        ]
    );
    assert_eq!(
        with("metadata:\n  name: x\n", good),
        ["warning f:4: metadata: no namespace is given; it is taken to be `default`"]
    );
    assert_eq!(
        with("metadata: {name: x, namespace: n}\n", ""),
        ["error f:1: `spec` is missing; add it"]
    );
    assert_eq!(
        with("metadata: {name: x, namespace: n}\n", "spec: {}\n"),
        ["warning f:4: spec: no rules: this policy does nothing"]
    );
    assert_eq!(
        with(
            "metadata: {name: x, namespace: n, uid: 5, labels: {a: b}, managedFields: [{x: y}]}\n",
            &format!("{good}status: {{status: OK}}\n")
        ),
        Vec::<String>::new()
    );
}

#[test]
fn values_that_cannot_be() {
    let cases: &[(&str, &[&str])] = &[
        (
            "process: {matchPaths: [{path: bin/sleep}]}",
            &[
                "error f:5: spec.process.matchPaths[0].path: `bin/sleep` is not absolute; begin the path with `/`",
            ],
        ),
        (
            "process: {matchPaths: [{path: /bin/}]}",
            &[
                "error f:5: spec.process.matchPaths[0].path: `/bin/` ends in `/`; remove it, or name a directory in matchDirectories",
            ],
        ),
        (
            "process:\n  matchPaths:\n    - path: /bin/../sh",
            &[
                "error f:7: spec.process.matchPaths[0].path: the path holds `..`, which a resolved path never does; write the path without it",
            ],
        ),
        (
            "process: {matchPaths: [{path: /bin/*}]}",
            &[
                "warning f:5: spec.process.matchPaths[0].path: `*` is a literal star here; globs belong in matchPatterns",
            ],
        ),
        (
            "process: {matchPaths: [{path: [a]}]}",
            &["error f:5: spec.process.matchPaths[0].path: expected text, found a list"],
        ),
        (
            "process: {matchPaths: [{}]}",
            &[
                "error f:5: spec.process.matchPaths[0]: neither `path` nor `execname` is given; add one of them",
            ],
        ),
        (
            "process: {matchPaths: [{path: /a, execname: b}]}",
            &[
                "error f:5: spec.process.matchPaths[0]: `path` and `execname` are both given; a rule has one of them",
            ],
        ),
        (
            "process: {matchPaths: [{execname: bin/sh}]}",
            &[
                "error f:5: spec.process.matchPaths[0].execname: `bin/sh` is not a file name; write the last part of the path, without `/`",
            ],
        ),
        (
            "process: {matchPaths: {path: /a}}",
            &["error f:5: spec.process.matchPaths: expected a list, found a mapping"],
        ),
        (
            "process: {matchPaths: [{path: /a}]}\nprocess: {matchPaths: [{path: /b}]}",
            &["error f:6: `process` is given twice (first on line 5); keep one"],
        ),
        (
            "process: {matchPaths: [{path: /a}]\nfile: {}",
            &["error f:6: this is not YAML: invalid indentation in flow construct"],
        ),
        (
            "process: {matchPath: [{path: /a}]}",
            &[
                "warning f:5: spec.process.matchPath: unknown field `matchPath`; did you mean `matchPaths`?",
            ],
        ),
        (
            "proces: {}\nprocess: {matchPaths: [{path: /a}]}",
            &["warning f:5: spec.proces: unknown field `proces`; did you mean `process`?"],
        ),
        (
            "process: {matchPaths: [{path: /a, recursive: true}]}",
            &[
                "warning f:5: spec.process.matchPaths[0].recursive: unknown field `recursive`; allowed here: `path`, `execname`, `ownerOnly`, `pts`, `fromSource`, `allowedArgs`, `severity`, `tags`, `message`, `action`",
            ],
        ),
        (
            "process: {matchDirectories: [{dir: /sbin}]}",
            &[
                "error f:5: spec.process.matchDirectories[0].dir: `/sbin` does not end in `/`; write `/sbin/`",
            ],
        ),
        (
            "process: {matchDirectories: [{dir: sbin/}]}",
            &[
                "error f:5: spec.process.matchDirectories[0].dir: `sbin/` is not absolute; begin the directory with `/`",
            ],
        ),
        (
            "process: {matchDirectories: [{recursive: true}]}",
            &["error f:5: spec.process.matchDirectories[0]: `dir` is missing; add it"],
        ),
        (
            "process: {matchDirectories: [{dir: /a/, recursive: maybe}]}",
            &[
                "error f:5: spec.process.matchDirectories[0].recursive: expected true or false, found the text `maybe`",
            ],
        ),
        (
            "process: {matchDirectories: [{dir: /a/, recursive: \"true\"}]}",
            &[
                "error f:5: spec.process.matchDirectories[0].recursive: expected true or false, found the text `true`; remove the quotes",
            ],
        ),
        (
            "process: {matchPatterns: [{pattern: \"\"}]}",
            &[
                "error f:5: spec.process.matchPatterns[0].pattern: the pattern is empty; write a glob such as `/opt/*/bin/nc`",
            ],
        ),
        (
            "process: {matchPaths: [{path: /a, fromSource: [{path: sh}]}]}",
            &[
                "error f:5: spec.process.matchPaths[0].fromSource[0].path: `sh` is not absolute; begin the path with `/`",
            ],
        ),
        (
            "process: {matchPaths: [{path: /a, fromSource: [{dir: /b/}]}]}",
            &[
                "error f:5: spec.process.matchPaths[0].fromSource[0]: `path` is missing; add it",
                "warning f:5: spec.process.matchPaths[0].fromSource[0].dir: unknown field `dir`; allowed here: `path`",
            ],
        ),
        (
            "file: {matchPaths: [{path: /a, readonly: true}]}",
            &[
                "warning f:5: spec.file.matchPaths[0].readonly: unknown field `readonly`; did you mean `readOnly`?",
            ],
        ),
        (
            "file: {matchPaths: [{path: /a}]}\nseverity: 11",
            &["error f:6: spec.severity: severity 11 is not between 1 and 10"],
        ),
        (
            "file: {matchPaths: [{path: /a, severity: 0}]}",
            &["error f:5: spec.file.matchPaths[0].severity: severity 0 is not between 1 and 10"],
        ),
        (
            "file: {matchPaths: [{path: /a}]}\nseverity: high",
            &["error f:6: spec.severity: expected a whole number, found the text `high`"],
        ),
        (
            "file: {matchPaths: [{path: /a}]}\nseverity: \"5\"",
            &[
                "error f:6: spec.severity: expected a whole number, found the text `5`; remove the quotes",
            ],
        ),
        (
            "file: {matchPaths: [{path: /a}]}\naction: Deny",
            &[
                "error f:6: spec.action: unknown value `Deny`; allowed here: `Allow`, `Audit`, `Block`",
            ],
        ),
        (
            "file: {matchPaths: [{path: /a, action: Blok}]}",
            &[
                "error f:5: spec.file.matchPaths[0].action: unknown value `Blok`; did you mean `Block`? (allowed: `Allow`, `Audit`, `Block`)",
            ],
        ),
        (
            "file: {matchPaths: [{path: /a}]}\ntags: one",
            &["error f:6: spec.tags: expected a list, found the text `one`"],
        ),
        (
            "network: {matchProtocols: [{protocol: tpc}]}",
            &[
                "error f:5: spec.network.matchProtocols[0].protocol: unknown protocol `tpc`; did you mean `tcp`?",
            ],
        ),
        (
            "network: {matchProtocols: [{protocol: \"tcp,http\"}]}",
            &[
                "error f:5: spec.network.matchProtocols[0].protocol: unknown protocol `http`; there are tcp, udp, icmp, icmpv6, sctp, stream, dgram, raw, rdm, seqpacket, dccp, packet, all",
            ],
        ),
        (
            "network: {matchDNSQueries: [{domain: \"*.example.org\"}]}",
            &[
                "error f:5: spec.network.matchDNSQueries[0].domain: `*.example.org` is not a domain; write a name such as `example.org`, which covers all below it",
            ],
        ),
        (
            "capabilities: {matchCapabilities: [{capability: CAP_NET_RAW}]}",
            &[
                "error f:5: spec.capabilities.matchCapabilities[0].capability: `CAP_NET_RAW` is written `net_raw`",
            ],
        ),
        (
            "capabilities: {matchCapabilities: [{capability: net_rwa}]}",
            &[
                "error f:5: spec.capabilities.matchCapabilities[0].capability: unknown capability `net_rwa`; did you mean `net_raw`?",
            ],
        ),
        (
            "syscalls: {matchSyscalls: [{syscall: [unlnik]}]}",
            &[
                "error f:5: spec.syscalls.matchSyscalls[0].syscall[0]: unknown system call `unlnik`; did you mean `unlink`?",
            ],
        ),
        (
            "syscalls: {matchSyscalls: [{fromSource: [{path: /a}]}]}",
            &[
                "error f:5: spec.syscalls.matchSyscalls[0]: `syscall` names nothing; list the system calls",
            ],
        ),
        (
            "syscalls: {matchPaths: [{path: a, syscall: [unlink]}]}",
            &[
                "error f:5: spec.syscalls.matchPaths[0].path: `a` is not absolute; begin the path with `/`",
            ],
        ),
        (
            "syscalls: {matchSyscalls: [{syscall: [unlink], fromSource: [{}]}]}",
            &[
                "error f:5: spec.syscalls.matchSyscalls[0].fromSource[0]: neither `path` nor `dir` is given; add one of them",
            ],
        ),
        (
            "presets: [{name: filelesExec}]",
            &[
                "error f:5: spec.presets[0].name: unknown preset `filelesExec`; did you mean `filelessExec`?",
            ],
        ),
        (
            "selector: {matchLabels: [a]}\nprocess: {matchPaths: [{path: /a}]}",
            &[
                "error f:5: spec.selector.matchLabels: expected a mapping (`key: value`), found a list",
            ],
        ),
        (
            "selector: {matchExpressions: [{key: app, operator: In, values: [a]}]}\nprocess: {matchPaths: [{path: /a}]}",
            &[
                "error f:5: spec.selector.matchExpressions[0]: the key `app` means nothing here; write `label`, and labels as `name=value` in `values`",
            ],
        ),
        (
            "selector: {matchExpressions: [{key: label, operator: Exists, values: [a=b]}]}\nprocess: {matchPaths: [{path: /a}]}",
            &[
                "error f:5: spec.selector.matchExpressions[0]: the operator `Exists` is not known; write `In` or `NotIn`",
            ],
        ),
        (
            "selector: {matchExpressions: [{key: label, operator: In, values: [cart]}]}\nprocess: {matchPaths: [{path: /a}]}",
            &[
                "error f:5: spec.selector.matchExpressions[0]: `cart` is no label; write `name=value`",
            ],
        ),
        (
            "selector: {matchExpressions: [{key: label, operator: In}]}\nprocess: {matchPaths: [{path: /a}]}",
            &["error f:5: spec.selector.matchExpressions[0]: `values` is empty; list at least one"],
        ),
        (
            "selector: {matchLabels: {kubearmor.io/container.name: web}}\nprocess: {matchPaths: [{path: /a}]}",
            &[
                "warning f:5: spec.selector.matchLabels[\"kubearmor.io/container.name\"]: container names stand in brackets; write \"[web]\"",
            ],
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(spec(text), *expected, "{text}");
    }
}

#[test]
fn values_of_the_other_kinds_that_cannot_be() {
    let cases: &[(&str, &str, &[&str])] = &[
        (
            "KubeArmorClusterPolicy",
            "selector: {matchExpressions: [{key: ns, operator: In, values: [a]}]}\nprocess: {matchPaths: [{path: /a}]}",
            &[
                "error f:5: spec.selector.matchExpressions[0]: the key `ns` means nothing here; write `label` or `namespace`, and labels as `name=value` in `values`",
            ],
        ),
        (
            "KubeArmorHostPolicy",
            "process: {matchPaths: [{path: /a}]}",
            &["error f:5: spec: `nodeSelector` is missing; add it"],
        ),
        (
            "KubeArmorHostPolicy",
            "nodeSelector: {matchLabels: {a: b}}\nnetwork: {matchProtocols: [{protocol: udp}]}",
            &[
                "error f:6: spec.network.matchProtocols[0]: `fromSource` is missing; a host policy needs it here",
            ],
        ),
        (
            "KubeArmorHostPolicy",
            "nodeSelector: {matchLabels: {a: b}}\ndevice: {matchDevice: [{class: MASS-STORGE, level: 0}]}",
            &[
                "error f:6: spec.device.matchDevice[0].class: unknown device class `MASS-STORGE`; did you mean `MASS-STORAGE`?",
                "error f:6: spec.device.matchDevice[0].level: 0 is less than 1",
            ],
        ),
        (
            "KubeArmorNetworkPolicy",
            "level: node\negress: [{limit: 5TB, duration: 1d}]\nnodeSelector: {matchLabels: {a: b}}",
            &[
                "error f:5: spec.level: write `pod` or `policy`",
                "error f:6: spec.egress[0].limit: `5TB` is no amount; write as in `500MB`, `2G` (no unit: GB)",
                "error f:6: spec.egress[0].duration: `1d` is no length of time; write as in `30s`, `1h30m`",
            ],
        ),
        (
            "KubeArmorNetworkPolicy",
            "ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/33}}], ports: [{port: smtp}, {port: \"1\", endPort: 70000, protocol: icmp}]}]\nnodeSelector: {matchLabels: {a: b}}",
            &[
                "error f:5: spec.ingress[0].from[0].ipBlock.cidr: `10.0.0.0/33` is no range of addresses; write as in `10.0.0.0/8`",
                "error f:5: spec.ingress[0].ports[0].port: `smtp` is no port; write a number up to 65535, or ssh, http, https, dns",
                "error f:5: spec.ingress[0].ports[1].endPort: `70000` is no port; write a number from 1 to 65535",
                "error f:5: spec.ingress[0].ports[1].protocol: unknown protocol `icmp`; write TCP, UDP or SCTP",
            ],
        ),
    ];
    for (kind, text, expected) in cases {
        assert_eq!(of_kind(kind, text), *expected, "{text}");
    }
}

#[test]
fn everything_wrong_with_a_document_is_said_at_once() {
    let found = spec(
        "process:\n  matchPaths:\n    - path: sleep\n    - paht: /a\n    - path: /b\n      severity: 12\n      action: Stop\nnetwork:\n  matchProtocols: [{protocol: htcpcp}]\n",
    );
    let lines: Vec<_> = found
        .iter()
        .map(|problem| problem.split(": ").take(2).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(
        lines,
        [
            "error f:7 spec.process.matchPaths[0].path",
            "warning f:8 spec.process.matchPaths[1].paht",
            "error f:8 spec.process.matchPaths[1]",
            "error f:10 spec.process.matchPaths[2].severity",
            "error f:11 spec.process.matchPaths[2].action",
            "error f:13 spec.network.matchProtocols[0].protocol",
        ]
    );
}

#[test]
fn a_policy_that_is_there_twice_is_an_error_where_it_comes_again() {
    let text = "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata: {name: p, namespace: n}\nspec: {process: {matchPaths: [{path: /a}]}}\n";
    let other = text.replace("namespace: n", "namespace: other");
    let (policies, problems) = load([("a.yaml", text), ("b.yaml", &other), ("c.yaml", text)]);
    let said: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "c.yaml:3: metadata.name: the policy `p` in namespace `n` is also at a.yaml:1; rename or remove one"
        ]
    );
    assert_eq!(policies.len(), 2);
}

#[test]
fn lists_hold_policies_and_their_problems_have_their_place() {
    let text = "
kind: List
apiVersion: v1
items:
  - apiVersion: security.kubearmor.com/v1
    kind: KubeArmorPolicy
    metadata: {name: a, namespace: n}
    spec: {process: {matchPaths: [{path: /a}]}}
  - apiVersion: security.kubearmor.com/v1
    kind: KubeArmorPolicy
    metadata: {name: b, namespace: n}
    spec: {process: {matchPaths: [{path: b}]}}
---
apiVersion: security.kubearmor.com/v1
kind: KubeArmorClusterPolicyList
items:
  - metadata: {name: c}
    spec: {process: {matchPaths: [{path: /a}]}}
";
    let (policies, problems) = parse("f", text);
    let names: Vec<_> = policies
        .iter()
        .map(|policy| format!("{} {}", policy.kind, policy.name))
        .collect();
    assert_eq!(names, ["KubeArmorPolicy a", "KubeArmorClusterPolicy c"]);
    let said: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "f:12: items[1].spec.process.matchPaths[0].path: `b` is not absolute; begin the path with `/`"
        ]
    );
}

#[test]
fn actions_in_any_case_and_json_are_read() {
    let text = r#"{"apiVersion": "security.kubearmor.com/v1", "kind": "KubeArmorPolicy", "metadata": {"name": "p", "namespace": "n"},
        "spec": {"file": {"action": "audit", "matchPaths": [{"path": "/a", "action": "BLOCK"}]}}}"#;
    let (policies, problems) = parse("f.json", text);
    assert_eq!(problems, []);
    assert_eq!(policies.len(), 1);
}
