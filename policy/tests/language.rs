//! Every field of the language, in examples of each kind: read without a word, compiled to what is listed here.

#![allow(clippy::unwrap_used, reason = "tests: a failure here is the test's")]

mod support;

use policy::{compile, parse};
use prost::Message;
use proto::rules::{self, PolicyBlob, object::Is};

/// A policy as a text: selector, rules in order of their objects, parts that are not judged.
fn told(file: &str, text: &str) -> Vec<String> {
    let (policies, problems) = parse(file, text);
    assert_eq!(problems, [], "{file}");
    let mut lines = Vec::new();
    for policy in &policies {
        let ruleset = compile(std::slice::from_ref(policy), &rules::Postures::default());
        policy::Set::from_wire(&ruleset.manifest, &ruleset.blobs).unwrap();
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
        lines.extend(
            blob.unenforced
                .iter()
                .map(|part| format!("- {}: {}", part.path, part.reason)),
        );
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
    let mut words: Vec<String> = labels.chain(expressions).chain(containers).collect();
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
        Is::Protocol(name) | Is::Domain(name) | Is::Capability(name) => name.clone(),
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
            "- spec.process.matchPaths[1]: execname is not judged by this version",
            "- spec.process.matchPaths[2]: fromSource is not judged by this version: the rule is left out",
            "- spec.process.matchPaths[3]: allowedArgs is not judged by this version: the rule is left out",
            "- spec.process.matchPaths[4]: ownerOnly is not judged by this version: the rule is left out",
            "- spec.process.matchPaths[5]: pts is not judged by this version: the rule is left out",
            "- spec.process.matchPatterns[0]: matchPatterns is not judged by this version",
            "- spec.file.matchPaths[0]: readOnly is not judged by this version: the rule is left out",
            "- spec.file.matchPaths[1]: fromSource is not judged by this version: the rule is left out",
            "- spec.file.matchDirectories[0]: readOnly is not judged by this version: the rule is left out",
            "- spec.file.matchDirectories[1]: pts is not judged by this version: the rule is left out",
            "- spec.file.matchPatterns[0]: matchPatterns is not judged by this version",
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
            "- spec.file.matchDirectories[2]: fromSource is not judged by this version: the rule is left out",
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
            "- spec.network.matchProtocols[0]: pts is not judged by this version: the rule is left out",
            "- spec.network.matchProtocols[2]: fromSource is not judged by this version: the rule is left out",
            "- spec.network.matchDNSQueries[0]: DNS queries are not judged by this version",
            "- spec.capabilities.matchCapabilities[1]: fromSource is not judged by this version: the rule is left out",
            "- spec.syscalls.matchSyscalls[0]: fromSource is not judged by this version: the rule is left out",
            "- spec.syscalls.matchPaths[0]: the path that a system call acts on is not judged by this version",
        ]
    );
}

#[test]
fn presets_and_raw_apparmor_are_told_as_not_judged() {
    assert_eq!(
        told("f", include_str!("examples/presets.yaml")),
        [
            "KubeArmorPolicy shop/cart-presets app=cart",
            "- spec.presets[0]: the preset filelessExec is not judged by this version",
            "- spec.presets[1]: the preset protectEnv is not judged by this version",
            "- spec.presets[2]: the preset protectProc is not judged by this version",
            "- spec.presets[3]: the preset exec is not judged by this version",
            "- spec.presets[4]: the preset anonymousMapExec is not judged by this version",
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
fn policies_for_hosts_are_carried_and_told_as_a_whole() {
    assert_eq!(
        told("f", include_str!("examples/host.yaml")),
        [
            "KubeArmorHostPolicy /node-rules kubernetes.io/hostname=node-a,node-b",
            "Capabilities Audit net_raw from /usr/bin/ping 5",
            "File Audit /etc/default/ from /usr/bin/head 5",
            "Network Audit udp from /usr/bin/dig 5",
            "Process Block /usr/bin/diff 5",
            "Syscalls Audit unlink  5",
            "- spec: host policies are not judged by this version",
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
fn policies_for_networks_are_told_as_a_whole() {
    assert_eq!(
        told("f", include_str!("examples/network-policy.yaml")),
        [
            "KubeArmorNetworkPolicy /node-egress-dns kubernetes.io/hostname=*",
            "- spec: network policies are not judged by this version",
            "KubeArmorNetworkPolicy /cart-quota ",
            "- spec: network policies are not judged by this version",
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
