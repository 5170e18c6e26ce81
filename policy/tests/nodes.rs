//! Policies for nodes: whom they are about, devices, packets, quotas; and when policies stop being in force.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests: a failure here is the test's"
)]

mod support;

use std::collections::BTreeMap;

use policy::{
    Act, Device, Direction, Enforced, Moment, Node, Operation, Packet, Rules, Set, Transport,
    Verdict, compile, decide, load, select, select_node,
};
use proto::RuleId;
use proto::rules::{Posture, Postures};
use support::*;

fn of_kind(kind: &str, name: &str, spec: &str) -> String {
    let body: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "---\napiVersion: security.kubearmor.com/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n{body}"
    )
}

fn host(spec: &str) -> String {
    of_kind("KubeArmorHostPolicy", "h", spec)
}

fn network(spec: &str) -> String {
    of_kind("KubeArmorNetworkPolicy", "n", spec)
}

fn node(hostname: &str, labels: &[(&str, &str)]) -> Node {
    let labels = labels
        .iter()
        .map(|(key, value)| (key.to_string(), value.to_string()));
    Node {
        hostname: hostname.to_owned(),
        labels: labels.collect::<BTreeMap<_, _>>(),
    }
}

/// The rules about node-a under posture block.
fn rules_about(texts: &[String]) -> Rules {
    let (policies, problems) = load(texts.iter().map(|text| ("f", text.as_str())));
    assert!(
        problems.iter().all(|problem| !problem.is_error()),
        "{problems:?}"
    );
    let block = Posture::Block.into();
    let set = compile(&policies, &Postures::default()).with_host(Postures {
        file: block,
        network: block,
        capabilities: block,
        devices: block,
    });
    let set = Set::from_wire(&set.manifest, &set.blobs).unwrap();
    Rules::new(&select_node(&set, &node("node-a", &[]), NOW), &|_| {
        Vec::new()
    })
}

const ALL_NODES: &str = "nodeSelector: {matchLabels: {kubearmor.io/hostname: \"*\"}}\n";

fn words(rules: &Rules, verdict: &Verdict<RuleId>) -> String {
    let name = |id: RuleId| rules.get(id).unwrap().message.clone();
    match verdict.enforced {
        Enforced::Nothing => "pass".to_owned(),
        Enforced::Allow(id) => format!("allow {}", name(id)),
        Enforced::Block(id) => format!("block {}", name(id)),
        Enforced::Posture(posture) => format!("posture {posture:?}"),
    }
}

#[test]
fn a_node_selector_asks_for_all_its_labels_and_knows_host_names() {
    let cases = [
        ("{kubernetes.io/hostname: \"node-a, node-b\"}", true),
        ("{kubearmor.io/hostname: \"*\"}", true),
        ("{kubearmor.io/hostname: node-c}", false),
        ("{kubearmor.io/hostnamereg: \"node-*\"}", true),
        ("{kubernetes.io/hostnamereg: \"*-a\"}", true),
        ("{kubernetes.io/hostnamereg: \"n*e-*b\"}", false),
        ("{kubernetes.io/hostnamereg: node}", false),
        ("{disk: ssd}", true),
        ("{disk: hdd}", false),
        ("{disk: ssd, kubearmor.io/hostname: node-b}", false),
        ("{}", false),
    ];
    for (labels, meant) in cases {
        let text = host(&format!(
            "nodeSelector: {{matchLabels: {labels}}}\nprocess: {{matchPaths: [{{path: /a}}]}}"
        ));
        let effective = select_node(&set(&[text]), &node("node-a", &[("disk", "ssd")]), NOW);
        assert_eq!(!effective.policies().is_empty(), meant, "{labels}");
    }
}

#[test]
fn host_policies_are_about_no_workload_and_workloads_about_no_node() {
    let texts = [
        host(&format!(
            "{ALL_NODES}process: {{matchPaths: [{{path: /a}}]}}"
        )),
        shop("w", "process: {matchPaths: [{path: /b}]}"),
    ];
    let set = set(&texts);
    assert_eq!(cart(&set).policies(), ["shop/w"]);
    assert_eq!(select_node(&set, &node("x", &[]), NOW).policies(), ["h"]);
}

#[test]
fn host_rules_on_capabilities_are_judged_like_all_others() {
    let rules = rules_about(&[host(&format!(
        "{ALL_NODES}capabilities: {{matchCapabilities: [{{capability: net_raw, fromSource: [{{path: /usr/bin/ping}}], message: raw}}]}}"
    ))]);
    let by = |program: &str| {
        words(
            &rules,
            &decide(&rules, &capability("net_raw").from(program)),
        )
    };
    assert_eq!(by("/usr/bin/ping"), "block raw");
    assert_eq!(by("/usr/bin/nc"), "pass");
}

#[test]
fn the_most_specific_device_rule_decides() {
    let rules = rules_about(&[host(&format!(
        "{ALL_NODES}device:
  matchDevice:
    - {{class: ALL, action: Audit, message: all}}
    - {{class: MASS-STORAGE, message: storage}}
    - {{class: \"0x08\", subClass: 6, action: Allow, message: scsi}}
    - {{class: \"3\", level: 2, message: deep}}"
    ))]);
    let plug = |class: u8, sub_class: u8, level: u32| {
        let device = Device {
            class,
            sub_class,
            protocol: 0,
            level,
        };
        words(&rules, &decide(&rules, &Operation::of(Act::Device(device))))
    };
    assert_eq!(plug(8, 5, 1), "block storage");
    assert_eq!(plug(8, 6, 1), "allow scsi");
    assert_eq!(plug(3, 0, 2), "block deep");
    assert_eq!(plug(3, 0, 1), "posture Block");
}

fn packet(address: &str, port: u16, used: Option<u64>) -> Operation {
    Operation::of(Act::Packet(Packet {
        direction: Direction::Egress,
        transport: Transport::Tcp,
        address: address.parse().unwrap(),
        port,
        interface: "eth0".to_owned(),
        used,
    }))
}

#[test]
fn the_narrowest_range_of_addresses_decides_a_packet() {
    let rules = rules_about(&[network(&format!(
        "{ALL_NODES}egress:
  - {{to: [{{ipBlock: {{cidr: 10.0.0.0/8}}}}], action: Allow, message: inside}}
  - {{to: [{{ipBlock: {{cidr: 10.9.0.0/16}}}}], message: dmz}}
  - {{to: [{{ipBlock: {{cidr: 10.9.0.0/16}}}}], ports: [{{port: \"8000\", endPort: 8080, protocol: TCP}}], action: Allow, message: web}}
  - {{to: [{{ipBlock: {{cidr: 10.0.0.0/8}}}}], iface: [eth1], message: other}}"
    ))]);
    let to =
        |address: &str, port: u16| words(&rules, &decide(&rules, &packet(address, port, None)));
    assert_eq!(to("10.1.1.1", 80), "allow inside");
    assert_eq!(to("10.9.1.1", 80), "block dmz");
    assert_eq!(to("10.9.1.1", 8040), "allow web");
    assert_eq!(to("192.0.2.1", 80), "posture Block");
}

#[test]
fn a_quota_is_about_what_exceeds_it_and_for_pods_too() {
    let text = network(
        "selector: {matchLabels: {app: cart}}\nlevel: pod\negress: [{limit: 1MB, duration: 1h, message: daily}]",
    );
    let rules = rules(&cart(&set(&[text])));
    let sent = |used| decide(&rules, &packet("192.0.2.1", 80, used));
    assert_eq!(words(&rules, &sent(Some(1 << 20))), "pass");
    assert_eq!(words(&rules, &sent(Some((1 << 20) + 1))), "block daily");
    assert_eq!(
        sent(None).doubt().map(|condition| condition.name()),
        Some("limit")
    );
}

#[test]
fn a_network_policy_without_a_limit_is_about_no_pod() {
    let text = network("selector: {matchLabels: {app: cart}}\negress: [{ports: [{port: http}]}]");
    let rules = rules(&cart(&set(&[text])));
    assert_eq!(
        words(&rules, &decide(&rules, &packet("192.0.2.1", 80, None))),
        "pass"
    );
}

#[test]
fn a_policy_is_in_force_until_it_expires() {
    let set = set(&[shop(
        "p",
        "expires: 2027-01-31T18:00:00+01:00\nprocess: {matchPaths: [{path: /a}]}",
    )]);
    let end = Moment(1_801_414_800);
    let at = |moment| {
        select(&set, &workload("shop", &[("app", "cart")]), moment)
            .policies()
            .len()
    };
    assert_eq!((at(Moment(end.0 - 1)), at(end)), (1, 0));
    assert_eq!(set.next_expiry(Moment(0)), Some(end));
    assert_eq!(set.next_expiry(end), None);
}

#[test]
fn of_several_postures_of_policies_the_strictest_counts_before_all_others() {
    let allow = "process: {matchPaths: [{path: /a, action: Allow}]}";
    let with = |postures: &[&str]| {
        let texts = postures.iter().enumerate();
        let texts: Vec<String> = texts
            .map(|(n, posture)| shop(&format!("p{n}"), &format!("{posture}\n{allow}")))
            .collect();
        let rules = rules(&cart(&set_under(&blocking(), &texts)));
        words(&rules, &decide(&rules, &exec("/b")))
    };
    assert_eq!(with(&[""]), "posture Block");
    assert_eq!(with(&["defaultPosture: {file: audit}"]), "posture Audit");
    assert_eq!(
        with(&[
            "defaultPosture: {file: audit}",
            "defaultPosture: {file: allow}"
        ]),
        "posture Audit"
    );
    assert_eq!(with(&["defaultPosture: {file: allow}"]), "pass");
    assert_eq!(with(&["defaultPosture: {network: allow}"]), "posture Block");
}
