//! Laws that hold for all policies, on policies, paths and links drawn at random.

mod support;

use std::collections::BTreeSet;

use policy::{Effective, Enforced, Operation, Set, SocketKey, compile, load};
use proptest::prelude::*;
use proto::rules;
use support::*;

/// A rule as a line of YAML, out of a world small enough that rules meet.
fn rule() -> impl Strategy<Value = (usize, String)> {
    let action = prop::sample::select(vec!["Allow", "Audit", "Block"]);
    let path = path();
    let condition = prop::sample::select(vec![
        "",
        "",
        "",
        "",
        ", fromSource: [{path: /c}]",
        ", ownerOnly: true",
    ]);
    let protocol = prop::sample::select(vec![
        "tcp",
        "udp",
        "icmp",
        "sctp",
        "stream",
        "dgram",
        "raw",
        "seqpacket",
        "packet",
        "all",
    ]);
    let capability = prop::sample::select(vec!["net_raw", "sys_admin", "chown"]);
    let calls = prop::sample::subsequence(vec!["unlink", "setuid", "mount"], 1..3);
    let number = (protocol, capability, calls);
    (0..8usize, action, path, any::<bool>(), condition, number).prop_map(
        |(shape, action, path, recursive, condition, (protocol, capability, calls))| {
            let dir = if path == "/" {
                path.clone()
            } else {
                format!("{path}/")
            };
            let path = if path == "/" { "/a".to_owned() } else { path };
            let line = match shape {
                0 | 2 => format!("{{path: {path}, action: {action}{condition}}}"),
                1 | 3 => {
                    format!("{{dir: {dir}, recursive: {recursive}, action: {action}{condition}}}")
                }
                6 => {
                    let source = condition.replace(", ownerOnly: true", "");
                    format!("{{capability: {capability}, action: {action}{source}}}")
                }
                7 => {
                    let source = condition.replace(", ownerOnly: true", "");
                    format!("{{syscall: [{}]{source}}}", calls.join(", "))
                }
                _ => format!("{{protocol: {protocol}, action: {action}}}"),
            };
            (shape, line)
        },
    )
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c", "l"]), 0..5)
        .prop_map(|parts| format!("/{}", parts.join("/")))
}

fn spec(rules: &[(usize, String)]) -> String {
    let list = |shapes: &[usize]| {
        let lines: Vec<&str> = rules
            .iter()
            .filter(|(shape, _)| shapes.contains(shape))
            .map(|(_, line)| line.as_str())
            .collect();
        lines.join(", ")
    };
    format!(
        "process: {{matchPaths: [{}], matchDirectories: [{}]}}\nfile: {{matchPaths: [{}], matchDirectories: [{}]}}\nnetwork: {{matchProtocols: [{}]}}\ncapabilities: {{matchCapabilities: [{}]}}\nsyscalls: {{matchSyscalls: [{}]}}\n",
        list(&[0]),
        list(&[1]),
        list(&[2]),
        list(&[3]),
        list(&[4, 5]),
        list(&[6]),
        list(&[7])
    )
}

/// Some policies of a few rules each.
fn policies() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(prop::collection::vec(rule(), 1..5), 1..4).prop_map(|all| {
        all.iter()
            .enumerate()
            .map(|(n, rules)| shop(&format!("p{n}"), &spec(rules)))
            .collect()
    })
}

fn posture() -> impl Strategy<Value = rules::Postures> {
    prop::sample::select(vec![
        rules::Postures::default(),
        blocking(),
        rules::Postures {
            file: rules::Posture::Allow.into(),
            ..blocking()
        },
    ])
}

/// Links: `/l` leads to `/a/b`, at any depth where a path goes through it.
fn links(path: &str) -> Vec<String> {
    match path.strip_prefix("/l/") {
        Some(rest) => vec![format!("/a/b/{rest}")],
        None if path == "/l" => vec!["/a/b".to_owned()],
        None => Vec::new(),
    }
}

fn operations() -> Vec<Operation> {
    let mut paths = BTreeSet::from(["/".to_owned()]);
    for _ in 0..4 {
        let longer: Vec<String> = paths
            .iter()
            .flat_map(|path| {
                ["a", "b", "c", "z"].map(|part| format!("{}/{part}", path.trim_end_matches('/')))
            })
            .collect();
        paths.extend(longer);
    }
    let execs = paths.iter().map(|path| exec(path));
    let opens = paths.iter().map(|path| open(path));
    let sockets = SocketKey::ALL.map(|key| Operation::Socket { key });
    let capabilities = [0, 13, 21, 22].map(|number| Operation::Capability { number });
    let calls = [87, 105, 165, 39].map(|number| Operation::Syscall { number });
    let numbered = capabilities.into_iter().chain(calls);
    execs.chain(opens).chain(sockets).chain(numbered).collect()
}

/// Every verdict of an effective set, by rule id.
fn verdicts(
    effective: &Effective,
    operations: &[Operation],
) -> Vec<policy::Verdict<proto::RuleId>> {
    operations
        .iter()
        .map(|operation| policy::decide(effective, &links, operation))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// What the kernel scans is what the rules mean.
    #[test]
    fn a_flat_decides_as_the_rules_do(texts in policies(), postures in posture()) {
        let effective = cart(&set_under(&postures, &texts));
        let flat = policy::flatten(&effective, &links);
        for operation in operations() {
            let meant = policy::decide(&effective, &links, &operation);
            let scanned = flat.decide(&operation);
            let id = |slot: u32| flat.slots[slot as usize].id;
            let enforced = match scanned.enforced {
                Enforced::Nothing => Enforced::Nothing,
                Enforced::Allow(slot) => Enforced::Allow(id(slot)),
                Enforced::Block(slot) => Enforced::Block(id(slot)),
                Enforced::Posture(posture) => Enforced::Posture(posture),
            };
            prop_assert_eq!((enforced, scanned.audit.map(id)), (meant.enforced, meant.audit), "{:?}", operation);
        }
    }

    /// The order of policies changes nothing: not the bytes, not the digests, not one verdict.
    #[test]
    fn order_never_matters(texts in policies(), postures in posture()) {
        let mut turned = texts.clone();
        turned.reverse();
        let bytes = |texts: &[String]| {
            let (policies, _) = load(texts.iter().map(|text| ("f", text.as_str())));
            compile(&policies, &postures)
        };
        prop_assert_eq!(bytes(&texts), bytes(&turned));
        let (one, other) = (cart(&set_under(&postures, &texts)), cart(&set_under(&postures, &turned)));
        prop_assert_eq!(policy::flatten(&one, &links), policy::flatten(&other, &links));
    }

    /// The order of rules in a policy changes nothing either.
    #[test]
    fn order_within_a_policy_never_matters(rules in prop::collection::vec(rule(), 1..6), postures in posture()) {
        let mut turned = rules.clone();
        turned.reverse();
        let one = cart(&set_under(&postures, &[shop("p", &spec(&rules))]));
        let other = cart(&set_under(&postures, &[shop("p", &spec(&turned))]));
        let operations = operations();
        prop_assert_eq!(verdicts(&one, &operations), verdicts(&other, &operations));
    }

    /// A Block more never allows more.
    #[test]
    fn adding_a_block_never_allows_more(texts in policies(), path in path(), dir in any::<bool>(), postures in posture()) {
        let before = cart(&set_under(&postures, &texts));
        let path = path.trim_end_matches('/');
        let rule = if dir || path.is_empty() {
            format!("matchDirectories: [{{dir: {path}/, recursive: true}}]")
        } else {
            format!("matchPaths: [{{path: {path}}}]")
        };
        let mut more = texts.clone();
        more.push(shop("block", &format!("process: {{{rule}}}\nfile: {{{rule}}}\nnetwork: {{matchProtocols: [{{protocol: udp}}]}}")));
        let after = cart(&set_under(&postures, &more));
        for operation in operations() {
            let denied = |effective| policy::decide(effective, &links, &operation).enforced.denies();
            prop_assert!(!denied(&before) || denied(&after), "{:?}", operation);
        }
    }

    /// An Audit rule changes no outcome.
    #[test]
    fn adding_an_audit_changes_no_outcome(texts in policies(), path in path(), postures in posture()) {
        let before = cart(&set_under(&postures, &texts));
        let rule = format!("matchDirectories: [{{dir: {}/, recursive: true, action: Audit}}]", path.trim_end_matches('/'));
        let mut more = texts.clone();
        more.push(shop("audit", &format!("process: {{{rule}}}\nfile: {{{rule}}}")));
        let after = cart(&set_under(&postures, &more));
        for operation in operations() {
            let outcome = |effective| policy::decide(effective, &links, &operation).enforced;
            prop_assert_eq!(outcome(&before), outcome(&after), "{:?}", operation);
        }
    }

    /// Lists are as short as they can be, and every name in them is a slot.
    #[test]
    fn lists_end_where_nothing_more_can_matter(texts in policies()) {
        let flat = policy::flatten(&cart(&set(&texts)), &links);
        let states = flat.states.iter().flat_map(|state| [&state.process, &state.file]);
        let lists = states.flat_map(|lists| [&lists.here, &lists.child, &lists.below]);
        for list in lists.chain(flat.sockets.iter().map(|(_, list)| list)) {
            prop_assert!(list.0.len() <= 2);
            let finals = list.0.iter().filter(|candidate| candidate.action != policy::Action::Audit);
            prop_assert!(finals.count() <= 1);
            prop_assert!(list.0.iter().all(|candidate| (candidate.slot as usize) < flat.slots.len()));
        }
    }

    /// Selectors against the plainest reading of them.
    #[test]
    fn selectors_mean_what_they_say(
        wanted in prop::collection::btree_map("[ab]", "[xy]", 0..3),
        expressions in prop::collection::vec((any::<bool>(), prop::collection::vec(("[ab]", "[xy]"), 1..3)), 0..3),
        labels in prop::collection::btree_map("[ab]", "[xy]", 0..3),
    ) {
        let lines = expressions.iter().map(|(not, values)| {
            let values: Vec<String> = values.iter().map(|(k, v)| format!("{k}={v}")).collect();
            format!("{{key: label, operator: {}, values: [{}]}}", if *not { "NotIn" } else { "In" }, values.join(", "))
        });
        let text = format!(
            "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata: {{name: p, namespace: n}}\nspec:\n  selector:\n    matchLabels: {}\n    matchExpressions: [{}]\n  process: {{matchPaths: [{{path: /a}}]}}\n",
            serde_json::to_string(&wanted).unwrap(),
            lines.collect::<Vec<_>>().join(", ")
        );
        let has = |key: &String, value: &String| labels.get(key) == Some(value);
        let meant = wanted.iter().all(|(key, value)| has(key, value))
            && expressions.iter().all(|(not, values)| values.iter().any(|(k, v)| has(k, v)) != *not);
        let workload = policy::Workload { namespace: "n".into(), labels: labels.clone(), container: String::new() };
        prop_assert_eq!(!policy::select(&set(&[text]), &workload).policies().is_empty(), meant);
    }
}

fn policyish() -> impl Strategy<Value = String> {
    let line = prop::sample::select(vec![
        "apiVersion: security.kubearmor.com/v1\n",
        "kind: KubeArmorPolicy\n",
        "kind: KubeArmorHostPolicy\n",
        "kind: List\n",
        "metadata: {name: a, namespace: b}\n",
        "metadata:\n",
        "spec:\n",
        "spec: {}\n",
        "  process:\n",
        "  file:\n",
        "    matchPaths:\n",
        "    matchDirectories: [{dir: /a/}]\n",
        "      - path: /bin/x\n",
        "        severity: 3\n",
        "        fromSource: [{path: /x}]\n",
        "  network: {matchProtocols: [{protocol: \"tcp,udp\"}]}\n",
        "  selector: {matchLabels: {a: b}}\n",
        "  action: audit\n",
        "  presets: [{name: exec}]\n",
        "items:\n",
        "- ",
        "---\n",
        "\t",
        "&x ",
        "*x",
        "[",
        "}",
        ": ",
        "~\n",
    ]);
    prop::collection::vec(
        prop_oneof![9 => line.prop_map(str::to_owned), 1 => any::<String>()],
        0..16,
    )
    .prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// Whatever is written, it is read to an end; and what is read without an error compiles to what a node takes.
    #[test]
    fn nothing_that_is_written_panics(text in policyish()) {
        let (policies, problems) = policy::parse("f", &text);
        for problem in &problems {
            prop_assert!(problem.line > 0 && !problem.message.is_empty());
        }
        let ruleset = compile(&policies, &rules::Postures::default());
        prop_assert!(Set::from_wire(&ruleset.manifest, &ruleset.blobs).is_ok());
    }
}
