//! The policy that started it all, from its text to its verdict.

mod support;

use policy::{Action, Enforced, Object, Section, compile, parse, select};
use prost::Message;
use proto::rules::{self, PolicyBlob, object::Is};
use support::*;

const SEED: &str = include_str!("../../examples/policies/ksp-group-1-proc-path-block.yaml");

#[test]
fn the_seed_policy_reads_without_a_word() {
    let (policies, problems) = parse("seed.yaml", SEED);
    assert_eq!(problems, []);
    assert_eq!(policies.len(), 1);
    let policy = &policies[0];
    assert_eq!(policy.kind.to_string(), "KubeArmorPolicy");
    assert_eq!(
        (policy.namespace.as_str(), policy.name.as_str()),
        ("multiubuntu", "ksp-group-1-proc-path-block")
    );
    assert_eq!((policy.file.as_str(), policy.line), ("seed.yaml", 2));
}

#[test]
fn the_seed_policy_compiles_to_one_rule_and_nothing_is_left_out() {
    let (policies, _) = parse("seed.yaml", SEED);
    let ruleset = compile(&policies, &rules::Postures::default());
    assert_eq!(ruleset.blobs.len(), 1);
    let blob = PolicyBlob::decode(ruleset.blobs.values().next().unwrap().clone()).unwrap();
    assert_eq!(blob.unenforced, []);
    let selector = blob.selector.unwrap();
    assert_eq!(selector.namespace, "multiubuntu");
    assert_eq!(
        selector.match_labels,
        [rules::Label {
            key: "group".into(),
            value: "group-1".into()
        }]
    );
    assert_eq!(blob.rules.len(), 1);
    let rule = &blob.rules[0];
    assert_eq!(rule.section(), rules::Section::Process);
    assert_eq!(rule.action(), rules::Action::Block);
    assert_eq!(
        rule.object,
        Some(rules::Object {
            is: Some(Is::Path("/bin/sleep".into()))
        })
    );
    assert_eq!(rule.severity, 0);
}

/// Ids and digests are names that travel: a change of either breaks the tie between old events and their rules.
#[test]
fn the_seed_policy_keeps_its_names() {
    let (policies, _) = parse("seed.yaml", SEED);
    let ruleset = compile(&policies, &rules::Postures::default());
    let blob = PolicyBlob::decode(ruleset.blobs.values().next().unwrap().clone()).unwrap();
    assert_eq!(
        proto::RuleId(blob.rules[0].id).to_string(),
        "0943069f1d6ffda0"
    );
    assert_eq!(
        ruleset.blobs.keys().next().unwrap().to_string(),
        "548454e096a20636525ccec23fd4255cb618768a55748a72424ca9be8185ca2c"
    );
}

#[test]
fn the_seed_policy_blocks_sleep_by_both_its_names_and_nothing_else() {
    let set = set(&[SEED.to_owned()]);
    let effective = select(
        &set,
        &workload("multiubuntu", &[("group", "group-1"), ("x", "y")]),
        NOW,
    );
    assert_eq!(
        effective.policies(),
        ["multiubuntu/ksp-group-1-proc-path-block"]
    );
    let flat = flat(&effective);
    for path in ["/bin/sleep", "/usr/bin/sleep"] {
        assert_eq!(
            flat.decide(&exec(path)).enforced,
            Enforced::Block(0),
            "{path}"
        );
    }
    for path in [
        "/usr/bin/sleeper",
        "/usr/bin/ls",
        "/usr/bin",
        "/sleep",
        "/usr/bin/sleep/x",
        "/",
    ] {
        assert_eq!(
            flat.decide(&exec(path)).enforced,
            Enforced::Nothing,
            "{path}"
        );
    }
    assert_eq!(
        flat.decide(&open("/usr/bin/sleep")).enforced,
        Enforced::Nothing
    );
    let slot = &flat.slots[0];
    assert_eq!(slot.policy, "ksp-group-1-proc-path-block");
    assert_eq!(
        (slot.section, slot.action, slot.severity),
        (Section::Process, Action::Block, 0)
    );
    assert_eq!(slot.object, Object::Path("/bin/sleep".into()));
}

#[test]
fn the_seed_policy_is_about_group_1_of_its_namespace_only() {
    let set = set(&[SEED.to_owned()]);
    for (namespace, labels) in [
        ("multiubuntu", vec![("group", "group-2")]),
        ("multiubuntu", vec![]),
        ("default", vec![("group", "group-1")]),
    ] {
        assert_eq!(
            select(&set, &workload(namespace, &labels), NOW).policies(),
            Vec::<String>::new()
        );
    }
}

#[test]
fn the_demo_policies_do_what_the_demo_says() {
    let files = ["demo-block-sleep", "demo-audit-id", "demo-audit-shadow"];
    let texts = files.map(|file| {
        let path = format!(
            "{}/../examples/policies/{file}.yaml",
            env!("CARGO_MANIFEST_DIR")
        );
        std::fs::read_to_string(path).unwrap()
    });
    let set = set(&texts);
    let flat = flat(&select(&set, &workload("demo", &[("app", "demo")]), NOW));
    assert_eq!(flat.not_enforced, []);
    assert_eq!(outcome(&flat, &exec("/usr/bin/ls")), "pass");
    assert_eq!(
        outcome(&flat, &exec("/usr/bin/id")),
        "pass, audit somebody asks who he is"
    );
    assert_eq!(
        outcome(&flat, &open("/etc/shadow")),
        "pass, audit the password hashes were opened"
    );
    assert_eq!(
        outcome(&flat, &exec("/usr/bin/sleep")),
        "block sleep is forbidden in this workload"
    );
}
