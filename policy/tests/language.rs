//! Every field of the language, in examples of each kind: read without a word, compiled to what is listed here.

#![allow(clippy::unwrap_used, reason = "tests: a failure here is the test's")]

mod support;

use policy::{compile, parse};
use prost::Message;
use proto::rules::{self, PolicyBlob, object::Is};

/// A policy as a text: selector, rules in order of their objects, what a node without conditions leaves out.
fn told(file: &str, text: &str) -> Vec<String> {
    let (policies, problems) = parse(file, text);
    assert_eq!(problems, [], "{file}");
    let mut lines = Vec::new();
    for policy in &policies {
        let ruleset = compile(std::slice::from_ref(policy), &rules::Postures::default());
        let set = policy::Set::from_wire(&ruleset.manifest, &ruleset.blobs).unwrap();
        let blob = PolicyBlob::decode(ruleset.blobs.values().next().unwrap().clone()).unwrap();
        lines.push(format!(
            "{} {}/{} {}",
            blob.kind,
            blob.namespace,
            blob.name,
            selector(&blob)
        ));
        let mut rules: Vec<String> = blob.rules.iter().map(rule).collect();
        rules.sort();
        lines.extend(rules);
        let lacks = policy::Judges::PLAIN.lacks(&set).into_iter();
        let mut lacks: Vec<String> = lacks
            .map(|part| format!("- {}: {}", part.path, part.reason))
            .collect();
        lacks.sort();
        lines.extend(lacks);
    }
    lines
}

fn selector(blob: &PolicyBlob) -> String {
    let selector = blob.selector.clone().unwrap_or_default();
    let labels = selector
        .match_labels
        .iter()
        .map(|label| format!("{}={}", label.key, label.value));
    let expressions = selector.expressions.iter().map(|expression| {
        let not = if expression.not_in { "not " } else { "" };
        format!("{} {not}in {}", expression.key, expression.values.join("|"))
    });
    let containers = selector
        .containers
        .iter()
        .map(|name| format!("container {name}"));
    let nodes = blob.nodes.clone().unwrap_or_default().match_labels;
    let nodes = nodes
        .iter()
        .map(|label| format!("node {}={}", label.key, label.value));
    let mut words: Vec<String> = labels
        .chain(expressions)
        .chain(containers)
        .chain(nodes)
        .collect();
    if selector.all_namespaces {
        words.insert(0, "everywhere".to_owned());
    }
    words.join(", ")
}

fn object(object: &rules::Object) -> String {
    let tail = |recursive: bool| if recursive { "**" } else { "" };
    match object.is.as_ref().unwrap() {
        Is::Path(path) => path.clone(),
        Is::Name(name) => format!("*/{name}"),
        Is::Directory(directory) => format!("{}{}", directory.path, tail(directory.recursive)),
        Is::Pattern(pattern) => format!("glob {pattern}"),
        Is::Protocol(name) | Is::Domain(name) | Is::Capability(name) | Is::Preset(name) => {
            name.clone()
        }
        Is::Endpoint(endpoint) => format!("{endpoint:?}"),
        Is::Device(device) => format!(
            "{:?}/{:?}/{:?} level {:?}",
            device.class, device.sub_class, device.protocol, device.level
        ),
        Is::Flow(flow) => {
            let ports = flow.ports.iter();
            let ports =
                ports.map(|ports| format!(" {}:{}-{}", ports.protocol, ports.first, ports.last));
            let quota = flow
                .quota
                .as_ref()
                .map(|quota| format!(" {} bytes in {} s", quota.bytes, quota.seconds));
            format!(
                "{:?} {} {}{}{}",
                flow.direction(),
                flow.cidrs.join("|"),
                flow.interfaces.join("|"),
                ports.collect::<String>(),
                quota.unwrap_or_default()
            )
        }
        Is::Syscall(call) => format!(
            "{} {}{}",
            call.names.join("+"),
            call.path,
            tail(call.recursive)
        ),
    }
}

fn rule(rule: &rules::Rule) -> String {
    let mut out = format!(
        "{:?} {:?} {}",
        rule.section(),
        rule.action(),
        object(rule.object.as_ref().unwrap())
    );
    let sources: Vec<String> = rule.sources.iter().map(object).collect();
    let conditions = [
        (!sources.is_empty(), format!(" from {}", sources.join("|"))),
        (rule.owner_only, " ownerOnly".into()),
        (rule.read_only, " readOnly".into()),
        (rule.pts.is_some(), format!(" pts={:?}", rule.pts)),
        (
            !rule.args.is_empty(),
            format!(" args={}", rule.args.join("|")),
        ),
        (rule.severity > 0, format!(" {}", rule.severity)),
        (!rule.tags.is_empty(), format!(" #{}", rule.tags.join("#"))),
        (!rule.message.is_empty(), format!(" '{}'", rule.message)),
    ];
    conditions
        .into_iter()
        .filter(|(there, _)| *there)
        .for_each(|(_, words)| out += &words);
    out
}

#[test]
fn process_and_file_rules_with_all_conditions() {
    assert_eq!(
        told("f", include_str!("examples/process-and-file.yaml")),
        [
            "KubeArmorPolicy shop/cart-process-and-file app=cart, label not in tier=debug, container web, container worker",
            "File Audit /etc/** readOnly 4 #shop#hardening 'cart rule hit'",
            "File Audit /etc/hosts readOnly 4 #shop#hardening 'cart rule hit'",
            "File Audit glob /var/log/*.log ownerOnly readOnly 4 #shop#hardening 'cart rule hit'",
            "File Block /run/secrets/** pts=Some(false) 4 #shop#hardening 'cart rule hit'",
            "File Block /var/lib/cart/key.pem from /usr/bin/cat ownerOnly 4 #shop#hardening 'cart rule hit'",
            "Process Block */curl 6 #shop#hardening 'cart rule hit'",
            "Process Block /bin/sleep pts=Some(false) 6 #shop#hardening 'cart rule hit'",
            "Process Block /home/app/tool ownerOnly 6 #shop#hardening 'cart rule hit'",
            "Process Block /sbin/ 6 #shop#hardening 'cart rule hit'",
            "Process Block /usr/bin/apt 6 #shop#hardening 'no package tools'",
            "Process Block /usr/bin/kill from /bin/dash 6 #shop#hardening 'cart rule hit'",
            "Process Block /usr/bin/python3.11 args=-m|http.server 6 #shop#hardening 'cart rule hit'",
            "Process Block /usr/local/bin/** 6 #shop#hardening 'cart rule hit'",
            "Process Block glob /opt/*/bin/nc 6 #shop#hardening 'cart rule hit'",
            "- file: /etc/: readOnly is not judged by this version's sensor: the rule is left out",
            "- file: /etc/hosts: readOnly is not judged by this version's sensor: the rule is left out",
            "- file: /run/secrets/: pts is not judged by this version's sensor: the rule is left out",
            "- file: /var/lib/cart/key.pem: fromSource is not judged by this version's sensor: the rule is left out",
            "- file: /var/log/*.log: ownerOnly is not judged by this version's sensor: the rule is left out",
            "- process: /bin/sleep: pts is not judged by this version's sensor: the rule is left out",
            "- process: /home/app/tool: ownerOnly is not judged by this version's sensor: the rule is left out",
            "- process: /opt/*/bin/nc: matchPatterns is not judged by this version's sensor",
            "- process: /usr/bin/kill: fromSource is not judged by this version's sensor: the rule is left out",
            "- process: /usr/bin/python3.11: allowedArgs is not judged by this version's sensor: the rule is left out",
            "- process: curl: execname is not judged by this version's sensor"
        ]
    );
}

#[test]
fn an_allow_list_that_stays_lenient() {
    assert_eq!(
        told("f", include_str!("examples/lenient-allow-list.yaml")),
        [
            "KubeArmorPolicy shop/token-only-for-agent app=cart",
            "File Allow /** 7",
            "File Allow /run/secrets/kubernetes.io/serviceaccount/** from /usr/bin/agent 7",
            "File Block /run/secrets/kubernetes.io/serviceaccount/** 7",
            "- file: /run/secrets/kubernetes.io/serviceaccount/: fromSource is not judged by this version's sensor: the rule is left out"
        ]
    );
}

#[test]
fn network_dns_capabilities_and_system_calls() {
    assert_eq!(
        told("f", include_str!("examples/network-and-more.yaml")),
        [
            "KubeArmorPolicy shop/cart-net app=cart",
            "Capabilities Block net_raw",
            "Capabilities Block sys_admin from /bin/mount",
            "Dns Block example.org 9",
            "Network Allow tcp from /usr/bin/cart",
            "Network Audit icmp",
            "Network Audit icmpv6",
            "Network Block raw pts=Some(false)",
            "Syscalls Audit rmdir+unlink  from /bin/rm|/opt/tools/** 3 'file removed'",
            "Syscalls Audit unlink+unlinkat /home/** from /usr/bin/ 3 'file removed'",
            "- capabilities: sys_admin: fromSource is not judged by this version's sensor: the rule is left out",
            "- network DNS: example.org: matchDNSQueries is not judged by this version's sensor",
            "- network: raw: pts is not judged by this version's sensor: the rule is left out",
            "- network: tcp: fromSource is not judged by this version's sensor: the rule is left out",
            "- syscalls: rmdir unlink: fromSource is not judged by this version's sensor: the rule is left out",
            "- syscalls: unlink unlinkat /home/: fromSource is not judged by this version's sensor: the rule is left out"
        ]
    );
}

#[test]
fn presets_are_rules() {
    assert_eq!(
        told("f", include_str!("examples/presets.yaml")),
        [
            "KubeArmorPolicy shop/cart-presets app=cart",
            "Presets Audit anonymousMapExec 8 'preset hit'",
            "Presets Audit exec 8 'preset hit'",
            "Presets Audit protectEnv 8 'preset hit'",
            "Presets Block filelessExec 8 'preset hit'",
            "Presets Block protectProc 8 'preset hit'",
            "- presets: anonymousMapExec: this preset is not judged by this version's sensor",
            "- presets: exec: this preset is not judged by this version's sensor",
            "- presets: filelessExec: this preset is not judged by this version's sensor",
            "- presets: protectEnv: this preset is not judged by this version's sensor",
            "- presets: protectProc: this preset is not judged by this version's sensor"
        ]
    );
}

#[test]
fn raw_apparmor_is_for_another_enforcer() {
    let text = include_str!("examples/apparmor.yaml");
    let (policies, problems) = parse("f", text);
    assert_eq!(
        problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
        Vec::<String>::new()
    );
    let ruleset = compile(&policies, &rules::Postures::default());
    let blob = PolicyBlob::decode(ruleset.blobs.values().next().unwrap().clone()).unwrap();
    assert_eq!(blob.unenforced[0].path, "spec.apparmor");
}

#[test]
fn policies_for_hosts() {
    assert_eq!(
        told("f", include_str!("examples/host.yaml")),
        [
            "KubeArmorHostPolicy /node-rules node kubernetes.io/hostname=node-a,node-b",
            "Capabilities Audit net_raw from /usr/bin/ping 5",
            "Devices Allow Some(3)/Some(1)/Some(1) level None 5",
            "Devices Audit None/None/None level None 5",
            "Devices Block Some(8)/None/None level Some(2) 5",
            "File Audit /etc/default/ from /usr/bin/head 5",
            "Network Audit udp from /usr/bin/dig 5",
            "Process Block /usr/bin/diff 5",
            "Syscalls Audit unlink  5",
            "- spec: host policies are not judged by this version's sensor"
        ]
    );
}

#[test]
fn policies_for_clusters() {
    assert_eq!(
        told("f", include_str!("examples/cluster.yaml")),
        [
            "KubeArmorClusterPolicy /no-package-tools everywhere, label in app=cart|app=web, namespace not in build|kube-system",
            "Process Block /sbin/apk 8",
            "Process Block /usr/bin/apt 8",
        ]
    );
}

#[test]
fn policies_for_networks() {
    assert_eq!(
        told("f", include_str!("examples/network-policy.yaml")),
        [
            "KubeArmorNetworkPolicy /node-egress-dns node kubernetes.io/hostname=*",
            "Flows Block Egress 0.0.0.0/0 eth0 udp:53-53 tcp:8000-8080 5",
            "- spec: network policies are not judged by this version's sensor",
            "KubeArmorNetworkPolicy /cart-quota everywhere, app=cart",
            "Flows Block Egress   524288000 bytes in 3600 s 6 'daily budget used'",
            "- spec: network policies are not judged by this version's sensor"
        ]
    );
}

/// The model writes what it read: nothing of a document is lost on the way.
#[test]
fn a_spec_survives_the_way_out_and_back() {
    for text in [
        include_str!("examples/process-and-file.yaml"),
        include_str!("examples/network-and-more.yaml"),
        include_str!("examples/presets.yaml"),
    ] {
        let (policies, _) = parse("f", text);
        let policy::model::Spec::Workload(spec) = &policies[0].spec else {
            panic!("a workload policy")
        };
        let written = serde_json::to_string(spec).unwrap();
        let again: policy::model::WorkloadSpec = serde_json::from_str(&written).unwrap();
        assert_eq!(&again, &**spec);
    }
}
