//! What policies mean, law by law.

mod support;

use policy::{Class, Operation, Posture, Rules, decide, select};
use support::*;

fn of(spec: &str) -> policy::Flat {
    flat(&cart(&set(&[shop("p", spec)])))
}

fn strict(spec: &str) -> policy::Flat {
    flat(&cart(&set_under(&blocking(), &[shop("p", spec)])))
}

/// On a node that judges no conditions.
fn strict_plain(spec: &str) -> policy::Flat {
    plain(&cart(&set_under(&blocking(), &[shop("p", spec)])))
}

#[test]
fn a_path_beats_its_directory_and_a_deeper_directory_a_shallower_one() {
    let flat = of("
file:
  matchPaths: [{path: /a/b/ok, action: Allow, message: path}]
  matchDirectories:
    - {dir: /, recursive: true, action: Allow, message: root}
    - {dir: /a/, recursive: true, action: Block, message: a}
    - {dir: /a/b/c/, action: Allow, message: c}
    - {dir: /a/b/c/, recursive: true, action: Block, message: c-all}
");
    assert_eq!(outcome(&flat, &open("/a/b/ok")), "allow path");
    assert_eq!(outcome(&flat, &open("/a/b/no")), "block a");
    assert_eq!(outcome(&flat, &open("/a/b/ok/below")), "block a");
    assert_eq!(outcome(&flat, &open("/other")), "allow root");
    assert_eq!(outcome(&flat, &open("/")), "allow root");
    assert_eq!(outcome(&flat, &open("/a/b/c/child")), "allow c");
    assert_eq!(outcome(&flat, &open("/a/b/c/child/below")), "block c-all");
    assert_eq!(outcome(&flat, &open("/a/b/c")), "allow c");
}

#[test]
fn a_directory_rule_without_recursive_reaches_direct_children_only() {
    let flat = of("process: {matchDirectories: [{dir: /sbin/, message: d}]}");
    assert_eq!(outcome(&flat, &exec("/sbin/apk")), "block d");
    assert_eq!(outcome(&flat, &exec("/usr/sbin/apk")), "block d");
    assert_eq!(outcome(&flat, &exec("/sbin/a/b")), "pass");
    assert_eq!(outcome(&flat, &exec("/sbinary")), "pass");
}

#[test]
fn at_equal_rank_block_beats_audit_beats_allow() {
    let flat = of("
process:
  matchPaths:
    - {path: /a, action: Allow, message: allow}
    - {path: /a, action: Block, message: block}
    - {path: /a, action: Audit, message: audit}
    - {path: /b, action: Allow, message: allow}
    - {path: /b, action: Audit, message: audit}
");
    assert_eq!(outcome(&flat, &exec("/a")), "block block");
    assert_eq!(outcome(&flat, &exec("/b")), "allow allow, audit audit");
}

#[test]
fn audit_tells_of_what_passes_and_a_more_specific_allow_silences_it() {
    let flat = of("
file:
  matchPaths: [{path: /d/quiet, action: Allow, message: allow}, {path: /d/shut, action: Block, message: shut}, {path: /d/odd, action: Audit, message: odd}]
  matchDirectories: [{dir: /d/, recursive: true, action: Audit, message: audit}, {dir: /, recursive: true, action: Block, message: all}]
");
    assert_eq!(outcome(&flat, &open("/d/quiet")), "allow allow");
    assert_eq!(outcome(&flat, &open("/d/shut")), "block shut");
    assert_eq!(outcome(&flat, &open("/d/odd")), "block all");
    assert_eq!(outcome(&flat, &open("/d/other")), "block all");
}

#[test]
fn an_allow_puts_its_own_class_in_allow_list_mode_and_no_other() {
    let spec = "process: {matchPaths: [{path: /usr/bin/cart, action: Allow, message: cart}]}";
    let flat = strict(spec);
    assert_eq!(outcome(&flat, &exec("/usr/bin/cart")), "allow cart");
    assert_eq!(outcome(&flat, &exec("/usr/bin/ls")), "posture block");
    assert_eq!(outcome(&flat, &open("/etc/passwd")), "pass");
    assert_eq!(outcome(&flat, &socket(1, 0)), "pass");
    assert_eq!(
        flat.modes.process,
        Class {
            allow_list: true,
            posture: Posture::Block
        }
    );
    assert!(!flat.modes.file.allow_list && !flat.modes.network.allow_list);
    assert_eq!(outcome(&of(spec), &exec("/usr/bin/ls")), "posture audit");
}

#[test]
fn an_allow_through_an_alias_is_an_allow_of_the_resolved_name() {
    let flat = strict("process: {matchPaths: [{path: /bin/cart, action: Allow, message: cart}]}");
    assert_eq!(outcome(&flat, &exec("/usr/bin/cart")), "allow cart");
    assert_eq!(outcome(&flat, &exec("/usr/bin/sh")), "posture block");
}

#[test]
fn a_class_without_an_allow_is_a_deny_list_whatever_the_posture() {
    let flat = strict("process: {matchPaths: [{path: /a, message: a}]}");
    assert_eq!(outcome(&flat, &exec("/a")), "block a");
    assert_eq!(outcome(&flat, &exec("/b")), "pass");
}

#[test]
fn an_audit_rule_tells_in_place_of_an_audit_posture() {
    let spec = "
file:
  matchPaths: [{path: /a, action: Allow, message: a}, {path: /b, action: Audit, message: b}]
";
    assert_eq!(outcome(&of(spec), &open("/b")), "posture audit, audit b");
    assert_eq!(outcome(&strict(spec), &open("/b")), "posture block");
}

#[test]
fn posture_allow_makes_an_allow_list_silent() {
    let allow = proto::rules::Posture::Allow.into();
    let postures = proto::rules::Postures {
        file: allow,
        ..Default::default()
    };
    let set = set_under(
        &postures,
        &[shop(
            "p",
            "file: {matchPaths: [{path: /a, action: Allow, message: a}]}",
        )],
    );
    let flat = flat(&cart(&set));
    assert_eq!(outcome(&flat, &open("/b")), "pass");
    assert!(!flat.modes.file.allow_list);
}

#[test]
fn a_namespace_may_have_its_own_posture() {
    let text = shop(
        "p",
        "file: {matchPaths: [{path: /a, action: Allow, message: a}]}",
    );
    let (policies, _) = policy::parse("p.yaml", &text);
    let own = std::collections::BTreeMap::from([("shop".to_owned(), blocking())]);
    let ruleset = policy::compile_for(&policies, &Default::default(), &own);
    let set = policy::Set::from_wire(&ruleset.manifest, &ruleset.blobs).unwrap();
    assert_eq!(outcome(&flat(&cart(&set)), &open("/b")), "posture block");
}

#[test]
fn sockets_are_judged_by_protocol_then_type_then_all() {
    let flat = of("
network:
  matchProtocols:
    - {protocol: all, action: Block, message: all}
    - {protocol: \"stream,DGRAM\", action: Audit, message: type}
    - {protocol: tcp, action: Allow, message: tcp}
    - {protocol: raw, action: Block, message: raw}
    - {protocol: \"icmp, icmpv6\", action: Allow, message: icmp}
");
    assert_eq!(outcome(&flat, &socket(1, 0)), "allow tcp");
    assert_eq!(outcome(&flat, &socket(1, 6)), "allow tcp");
    assert_eq!(outcome(&flat, &socket(1, 262)), "allow tcp");
    assert_eq!(outcome(&flat, &socket(2, 0)), "block all");
    assert_eq!(outcome(&flat, &socket(3, 1)), "allow icmp");
    assert_eq!(outcome(&flat, &socket(2, 58)), "allow icmp");
    assert_eq!(outcome(&flat, &socket(3, 255)), "block raw");
    assert_eq!(outcome(&flat, &socket(5, 0)), "block all");
    assert_eq!(
        outcome(
            &of("network: {matchProtocols: [{protocol: udp, message: u}]}"),
            &socket(2, 17)
        ),
        "block u"
    );
    assert_eq!(
        outcome(
            &of("network: {matchProtocols: [{protocol: udp, message: u}]}"),
            &socket(1, 0)
        ),
        "pass"
    );
}

#[test]
fn capabilities_are_judged_by_name_and_have_an_allow_list_of_their_own() {
    let deny = of("
capabilities:
  matchCapabilities: [{capability: 'net_raw,sys_admin', message: raw}, {capability: chown, action: Audit, message: chown}]
");
    assert_eq!(outcome(&deny, &capability("net_raw")), "block raw");
    assert_eq!(outcome(&deny, &capability("sys_admin")), "block raw");
    assert_eq!(outcome(&deny, &capability("chown")), "pass, audit chown");
    assert_eq!(outcome(&deny, &capability("kill")), "pass");
    let spec =
        "capabilities: {matchCapabilities: [{capability: kill, action: Allow, message: kill}]}";
    assert_eq!(outcome(&strict(spec), &capability("kill")), "allow kill");
    assert_eq!(
        outcome(&strict(spec), &capability("chown")),
        "posture block"
    );
    assert_eq!(outcome(&strict(spec), &exec("/usr/bin/ls")), "pass");
    assert_eq!(outcome(&of(spec), &capability("chown")), "posture audit");
}

#[test]
fn system_calls_are_told_by_name_whatever_the_action_says() {
    let flat = strict(
        "
action: Block
syscalls: {message: calls, matchSyscalls: [{syscall: [unlink, mount]}, {syscall: [mount, exit]}]}
",
    );
    assert_eq!(outcome(&flat, &syscall("unlink")), "pass, audit calls");
    assert_eq!(outcome(&flat, &syscall("mount")), "pass, audit calls");
    assert_eq!(outcome(&flat, &syscall("getpid")), "pass");
    let told: Vec<_> = flat
        .not_enforced
        .iter()
        .map(|part| part.reason.as_str())
        .collect();
    assert_eq!(told, ["`exit` does not return, so it is not told of"]);
}

#[test]
fn attributes_come_from_the_item_then_the_section_then_the_spec() {
    let flat = of("
severity: 4
tags: [spec, both]
message: spec
action: Audit
process:
  severity: 6
  action: Block
  matchPaths:
    - {path: /item, severity: 9, tags: [item], message: item, action: Audit}
    - {path: /section}
file:
  matchPaths: [{path: /spec}]
");
    let told: Vec<_> = ["/item", "/section", "/spec"]
        .map(|path| {
            let slot = flat
                .slots
                .iter()
                .find(|slot| slot.object.to_string() == path)
                .unwrap();
            format!(
                "{path} {:?} {} {:?} {}",
                slot.action, slot.severity, slot.tags, slot.message
            )
        })
        .into();
    assert_eq!(
        told,
        [
            r#"/item Audit 9 ["item"] item"#,
            r#"/section Block 6 ["spec", "both"] spec"#,
            r#"/spec Audit 4 ["spec", "both"] spec"#,
        ]
    );
}

#[test]
fn a_rule_with_a_condition_is_left_out_and_told() {
    let flat = strict_plain(
        "
process:
  matchPaths:
    - {path: /a, ownerOnly: true, message: owner}
    - {path: /b, fromSource: [{path: /bin/sh}], message: source}
    - {execname: curl, message: name}
    - {path: /c, pts: true, message: pts}
    - {path: /d, pts: false, message: no-pts}
",
    );
    assert_eq!(outcome(&flat, &exec("/a")), "pass");
    assert_eq!(outcome(&flat, &exec("/b")), "pass");
    assert_eq!(outcome(&flat, &exec("/c")), "block pts");
    assert_eq!(outcome(&flat, &exec("/d")), "pass");
    let mut told: Vec<_> = flat
        .not_enforced
        .iter()
        .map(|part| format!("{} {}", part.policy, part.path))
        .collect();
    told.sort();
    assert_eq!(
        told,
        [
            "shop/p process: /a",
            "shop/p process: /b",
            "shop/p process: /d",
            "shop/p process: curl",
        ]
    );
}

/// `/` allowed, one directory blocked, one reader let in: without judging the reader the Block would shut him out.
#[test]
fn a_block_that_an_unjudged_allow_excepts_from_is_told_and_not_enforced() {
    let text = include_str!("examples/lenient-allow-list.yaml").to_owned();
    let secret = "/run/secrets/kubernetes.io/serviceaccount/token";
    let flat = plain(&cart(&set_under(&blocking(), &[text])));
    let verdict = flat.decide(&open(secret));
    assert!(
        !verdict.enforced.denies() && verdict.audit.is_some(),
        "{verdict:?}"
    );
    let told: Vec<_> = flat
        .not_enforced
        .iter()
        .map(|part| part.path.as_str())
        .collect();
    assert_eq!(
        told,
        [
            "file: /run/secrets/kubernetes.io/serviceaccount/",
            "file: /run/secrets/kubernetes.io/serviceaccount/",
            "file"
        ]
    );
}

#[test]
fn an_unjudged_allow_elsewhere_leaves_a_block_in_force() {
    let flat = strict_plain(
        "
process:
  matchPaths:
    - {path: /bin/sleep, message: sleep}
    - {path: /usr/bin/curl, action: Allow, fromSource: [{path: /bin/agent}]}
",
    );
    assert_eq!(outcome(&flat, &exec("/usr/bin/sleep")), "block sleep");
    assert_eq!(outcome(&flat, &exec("/usr/bin/curl")), "pass");
}

#[test]
fn an_allow_list_with_an_unjudged_allow_is_never_stricter_than_audit() {
    let flat = strict_plain(
        "
file:
  matchPaths: [{path: /a, action: Allow, message: a}, {path: /b, readOnly: true, action: Allow}]
",
    );
    assert_eq!(outcome(&flat, &open("/c")), "posture audit");
    assert_eq!(
        flat.not_enforced.last().map(|part| part.path.as_str()),
        Some("file")
    );
}

#[test]
fn containers_and_expressions_narrow_a_selector() {
    let text = "
apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata: {name: p, namespace: shop}
spec:
  selector:
    matchLabels: {app: cart, kubearmor.io/container.name: \"[web, worker]\"}
    matchExpressions:
      - {key: label, operator: In, values: [tier=front, tier=back]}
      - {key: label, operator: NotIn, values: [debug=yes]}
  process: {matchPaths: [{path: /a}]}
";
    let set = set(&[text.to_owned()]);
    let about = |container: &str, labels: &[(&str, &str)]| {
        let workload = policy::Workload {
            container: container.into(),
            ..workload("shop", labels)
        };
        !select(&set, &workload, NOW).policies().is_empty()
    };
    assert!(about("web", &[("app", "cart"), ("tier", "back")]));
    assert!(about(
        "worker",
        &[("app", "cart"), ("tier", "front"), ("debug", "no")]
    ));
    assert!(!about("proxy", &[("app", "cart"), ("tier", "back")]));
    assert!(!about("web", &[("app", "cart")]));
    assert!(!about(
        "web",
        &[("app", "cart"), ("tier", "back"), ("debug", "yes")]
    ));
    assert!(!about("web", &[("tier", "back")]));
}

#[test]
fn cluster_policies_choose_namespaces() {
    let text = include_str!("examples/cluster.yaml").to_owned();
    let set = set(&[text]);
    let about = |namespace: &str, app: &str| {
        select(&set, &workload(namespace, &[("app", app)]), NOW).policies()
    };
    assert_eq!(about("shop", "cart"), ["no-package-tools"]);
    assert_eq!(about("new", "web"), ["no-package-tools"]);
    assert!(about("build", "cart").is_empty());
    assert!(about("shop", "db").is_empty());
}

#[test]
fn the_same_policies_and_aliases_make_the_same_set_and_others_another() {
    let (a, b) = (
        shop("a", "process: {matchPaths: [{path: /bin/x}]}"),
        shop("b", "file: {matchPaths: [{path: /y}]}"),
    );
    let (one, two) = (
        cart(&set(&[a.clone(), b.clone()])),
        cart(&set(&[b.clone(), a.clone()])),
    );
    assert_eq!(flat(&one), flat(&two));
    let with = |aliases: &dyn Fn(&str) -> Vec<String>| {
        policy::flatten(&policy::Rules::new(&one, aliases), policy::Judges::ALL).digest
    };
    assert_ne!(with(&|_| Vec::new()), flat(&one).digest);
    assert_ne!(plain(&one).digest, flat(&one).digest);
    assert_ne!(flat(&cart(&set(&[a]))).digest, flat(&one).digest);
    let slash = with(&|path| vec![format!("/usr{path}///")]);
    assert_eq!(slash, with(&|path| vec![format!("/usr{path}")]));
}

#[test]
fn what_a_process_shows_in_its_threads_is_protected_as_what_it_shows_itself() {
    let rules = |name: &str| {
        let set = set(&[shop(
            "p",
            &format!("presets: [{{name: {name}, action: Block}}]"),
        )]);
        Rules::new(&cart(&set), &|_| Vec::new())
    };
    let stops = |name: &str, path: &str| {
        let read = Operation::read(path).pid(7);
        decide(&rules(name), &read).enforced.denies()
    };
    for path in ["/proc/8/environ", "/proc/8/task/8/environ"] {
        assert!(stops("protectEnv", path), "{path}");
        assert!(stops("protectProc", path), "{path}");
    }
    for path in [
        "/proc/7/task/9/environ",
        "/proc/8/task/8/maps",
        "/proc/8/task/x/environ",
        "/proc/8/task/environ",
    ] {
        assert!(!stops("protectEnv", path), "{path}");
    }
}
