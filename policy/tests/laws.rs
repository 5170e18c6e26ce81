//! Laws that hold for all policies, on policies, paths and links drawn at random.

#![allow(clippy::unwrap_used, reason = "tests: a failure here is the test's")]

mod support;

use std::collections::BTreeSet;

use policy::{
    Act, Connection, Direction, Effective, Enforced, Judges, Operation, Part, Rules, Set,
    SocketKey, Transport, compile, load,
};
use proptest::prelude::*;
use proto::rules;
use support::*;

/// A rule as a line of YAML, out of a world small enough that rules meet. The number says in which list it belongs.
fn rule() -> impl Strategy<Value = (usize, String)> {
    let words = (
        prop::sample::select(vec!["Allow", "Audit", "Block"]),
        prop::sample::select(vec![
            "",
            "",
            "",
            ", fromSource: [{path: /c}]",
            ", fromSource: [{path: /l/c}]",
        ]),
        prop::sample::select(vec![
            "",
            "",
            "",
            ", ownerOnly: true",
            ", pts: false",
            ", ownerOnly: true, pts: false",
        ]),
        prop::sample::select(vec!["", "", ", readOnly: true"]),
        prop::sample::select(vec![
            "",
            "",
            ", allowedArgs: [-x]",
            ", allowedArgs: [-x, -y]",
        ]),
    );
    let numbers = (
        prop::sample::select(vec![
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
        ]),
        prop::sample::select(vec!["net_raw", "sys_admin", "chown"]),
        prop::sample::subsequence(vec!["unlink", "setuid", "mount"], 1..3),
        prop::sample::select(vec!["org", "example.org", "a.example.org"]),
        prop::sample::select(vec![
            "cidr: 10.0.0.0/8",
            "cidr: 10.1.0.0/16",
            "cidr: '::/0'",
            "domain: example.org",
            "ports: [{port: dns}]",
            "cidr: 10.0.0.0/8, ports: [{port: '80', endPort: 90}]",
            "cidr: 10.0.0.0/8, protocol: tcp",
        ]),
        prop::sample::select(vec![
            "/a/*",
            "/**/c",
            "/{a,b}/**",
            "/l/*",
            "/[ab]",
            "/a/b/?",
        ]),
        prop::sample::select(vec!["a", "b", "c"]),
    );
    (0..13usize, words, path(), any::<bool>(), numbers).prop_map(
        |(shape, (action, source, modifier, read, args), path, recursive, numbers)| {
            let (protocol, capability, calls, domain, endpoint, pattern, name) = numbers;
            let dir = format!("{}/", path.trim_end_matches('/'));
            let path = if path == "/" { "/a".to_owned() } else { path };
            let owner = if modifier.contains("ownerOnly") {
                ", ownerOnly: true"
            } else {
                ""
            };
            let tail = format!("action: {action}{source}");
            let line = match shape {
                0 => format!("{{path: {path}, {tail}{modifier}{args}}}"),
                1 => format!("{{dir: {dir}, recursive: {recursive}, {tail}{modifier}}}"),
                2 => format!("{{path: {path}, {tail}{modifier}{read}}}"),
                3 => format!("{{dir: {dir}, recursive: {recursive}, {tail}{modifier}{read}}}"),
                6 => format!("{{capability: {capability}, {tail}}}"),
                7 => format!("{{syscall: [{}]{source}}}", calls.join(", ")),
                8 => format!("{{domain: {domain}, {tail}}}"),
                9 => format!("{{{endpoint}, {tail}}}"),
                10 => format!("{{pattern: '{pattern}', action: {action}{owner}}}"),
                11 => format!("{{pattern: '{pattern}', action: {action}{owner}{read}}}"),
                12 => format!("{{execname: {name}, {tail}{modifier}{args}}}"),
                _ => format!("{{protocol: {protocol}, {tail}}}"),
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
    let sections = [
        (
            "process",
            vec![
                ("matchPaths", list(&[0, 12])),
                ("matchDirectories", list(&[1])),
                ("matchPatterns", list(&[10])),
            ],
        ),
        (
            "file",
            vec![
                ("matchPaths", list(&[2])),
                ("matchDirectories", list(&[3])),
                ("matchPatterns", list(&[11])),
            ],
        ),
        (
            "network",
            vec![
                ("matchProtocols", list(&[4, 5])),
                ("matchDNSQueries", list(&[8])),
                ("matchEndpoints", list(&[9])),
            ],
        ),
        ("capabilities", vec![("matchCapabilities", list(&[6]))]),
        ("syscalls", vec![("matchSyscalls", list(&[7]))]),
    ];
    let section = |(name, lists): (&str, Vec<(&str, String)>)| {
        let lists: Vec<String> = lists
            .iter()
            .map(|(key, items)| format!("{key}: [{items}]"))
            .collect();
        format!("{name}: {{{}}}\n", lists.join(", "))
    };
    sections.into_iter().map(section).collect()
}

/// Some policies of a few rules each.
fn policies() -> impl Strategy<Value = Vec<String>> {
    let mode = prop::sample::select(vec![
        "",
        "",
        "",
        "mode: audit\n",
        "defaultPosture: {file: block, network: allow}\n",
    ]);
    prop::collection::vec((mode, prop::collection::vec(rule(), 1..5)), 1..4).prop_map(|all| {
        all.iter()
            .enumerate()
            .map(|(n, (mode, rules))| shop(&format!("p{n}"), &format!("{mode}{}", spec(rules))))
            .collect()
    })
}

/// Some policies of rules that every node judges, half of them on trial.
fn plain_policies() -> impl Strategy<Value = Vec<String>> {
    let conditions = [
        ", fromSource: [{path: /c}]",
        ", fromSource: [{path: /l/c}]",
        ", ownerOnly: true",
        ", pts: false",
        ", readOnly: true",
        ", allowedArgs: [-x, -y]",
        ", allowedArgs: [-x]",
    ];
    let rule = rule()
        .prop_filter("judged by every node", |(shape, _)| *shape < 8)
        .prop_map(move |(shape, line)| {
            let bare = |line: String, condition: &&str| line.replace(condition, "");
            (shape, conditions.iter().fold(line, bare))
        });
    let policy = (any::<bool>(), prop::collection::vec(rule, 1..5));
    prop::collection::vec(policy, 1..4).prop_map(|all| {
        let text = |(number, (trial, rules)): (usize, &(bool, Vec<_>))| {
            let mode = if *trial { "mode: audit\n" } else { "" };
            shop(&format!("p{number}"), &format!("{mode}{}", spec(rules)))
        };
        all.iter().enumerate().map(text).collect()
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

/// Everything that the small world can do, by whom it can be done.
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
    let mut all = Vec::new();
    for (number, path) in paths.iter().enumerate() {
        // Each path by another doer: all of them for each would be too many.
        let source = ["/c", "/a/b/c", "/z"][number % 3];
        let by = |operation: Operation| {
            operation
                .from(source)
                .owner(number % 2 == 0)
                .terminal(number % 5 < 2)
        };
        all.push(by(exec(path).args([["-x", "-y", "-z"][number % 3]])));
        all.push(by(open(path)));
        all.push(by(Operation::write(path.as_str())));
    }
    let acts = SocketKey::ALL.map(|key| Act::Socket { key });
    let acts = acts
        .into_iter()
        .chain([0, 13, 21, 22].map(|number| Act::Capability { number }));
    let acts = acts.chain([87, 105, 165, 39].map(|number| Act::Syscall { number, path: None }));
    let names = [
        "example.org",
        "a.example.org",
        "b.a.example.org.svc.cluster.local",
        "org",
    ];
    let acts = acts.chain(names.map(|name| Act::Lookup {
        name: name.to_owned(),
    }));
    for act in acts {
        for source in ["/c", "/z"] {
            all.push(
                Operation::of(act.clone())
                    .from(source)
                    .terminal(source == "/c"),
            );
        }
    }
    for address in ["10.1.2.3", "10.9.9.9", "2001:db8::1"] {
        for port in [53, 80] {
            all.push(
                Operation::of(Act::Connect(Connection {
                    direction: Direction::Egress,
                    transport: Transport::Udp,
                    address: address.parse().unwrap(),
                    port,
                    names: vec!["a.example.org".to_owned()],
                }))
                .from("/c"),
            );
        }
    }
    all
}

/// Every verdict of an effective set, by rule id.
fn verdicts(
    effective: &Effective,
    operations: &[Operation],
) -> Vec<policy::Verdict<proto::RuleId>> {
    let rules = Rules::new(effective, &links);
    let all = operations.iter();
    all.map(|operation| policy::decide(&rules, operation))
        .collect()
}

fn denials(effective: &Effective) -> Vec<bool> {
    let verdicts = verdicts(effective, &operations());
    verdicts
        .iter()
        .map(|verdict| verdict.enforced.denies())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// What the kernel scans is what the rules mean.
    #[test]
    fn a_flat_decides_as_the_rules_do(texts in policies(), postures in posture()) {
        let rules = Rules::new(&cart(&set_under(&postures, &texts)), &links);
        let flat = policy::flatten(&rules, Judges::ALL);
        for operation in operations() {
            let meant = policy::decide(&rules, &operation);
            let scanned = flat.decide(&operation);
            let id = |slot: u32| flat.slots[slot as usize].id;
            let named = |enforced: Enforced<u32>| match enforced {
                Enforced::Nothing => Enforced::Nothing,
                Enforced::Allow(slot) => Enforced::Allow(id(slot)),
                Enforced::Block(slot) => Enforced::Block(id(slot)),
                Enforced::Posture(posture) => Enforced::Posture(posture),
            };
            let scanned = (named(scanned.enforced), scanned.shadow.map(named), scanned.audit.map(id));
            prop_assert_eq!(scanned, (meant.enforced, meant.shadow, meant.audit), "{:?}", operation);
        }
    }

    /// A node that judges less denies less, never more.
    #[test]
    fn what_is_not_judged_is_never_enforced_more_broadly(texts in policies(), postures in posture(), parts in prop::sample::subsequence(Part::ALL.to_vec(), 0..6)) {
        let rules = Rules::new(&cart(&set_under(&postures, &texts)), &links);
        let judges = parts.into_iter().fold(Judges::PLAIN, Judges::with);
        let flat = policy::flatten(&rules, judges);
        for operation in operations() {
            let denies = flat.decide(&operation).enforced.denies();
            prop_assert!(!denies || policy::decide(&rules, &operation).enforced.denies(), "{:?}", operation);
        }
    }

    /// Where the two differ, the flat says that something is not enforced.
    #[test]
    fn what_is_not_enforced_is_told(texts in policies(), postures in posture()) {
        let rules = Rules::new(&cart(&set_under(&postures, &texts)), &links);
        let flat = policy::flatten(&rules, Judges::PLAIN);
        let differ = operations().iter().any(|operation| {
            flat.decide(operation).enforced.denies() != policy::decide(&rules, operation).enforced.denies()
        });
        prop_assert!(!differ || !flat.not_enforced.is_empty());
    }

    /// A node without shadows tells what would be stopped on trial where it would be stopped, and nowhere else.
    #[test]
    fn what_is_on_trial_is_told_where_it_would_stop(texts in plain_policies(), postures in posture()) {
        let rules = Rules::new(&cart(&set_under(&postures, &texts)), &links);
        let flat = policy::flatten(&rules, Judges::SENSOR);
        for operation in operations() {
            let meant = policy::decide(&rules, &operation);
            let would = meant.shadow.is_some_and(|shadow| shadow.denies());
            let told = flat.decide(&operation).audit.map(|slot| flat.slots[slot as usize].action);
            match told {
                Some(policy::Action::Allow | policy::Action::Block) => prop_assert!(would, "{operation:?}"),
                Some(policy::Action::Audit) => prop_assert!(meant.audit.is_some(), "{operation:?}"),
                None if flat.not_enforced.is_empty() => prop_assert!(!would && meant.audit.is_none(), "{operation:?}"),
                None => {}
            }
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
        let flat = |texts: &[String]| {
            policy::flatten(&Rules::new(&cart(&set_under(&postures, texts)), &links), Judges::ALL)
        };
        prop_assert_eq!(flat(&texts), flat(&turned));
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
    fn adding_a_block_never_allows_more(texts in policies(), block in rule(), postures in posture()) {
        let before = denials(&cart(&set_under(&postures, &texts)));
        let mut more = texts.clone();
        let block = (block.0, block.1.replace("action: Allow", "action: Block").replace("action: Audit", "action: Block"));
        more.push(shop("block", &spec(&[block])));
        let after = denials(&cart(&set_under(&postures, &more)));
        for (number, (before, after)) in before.iter().zip(&after).enumerate() {
            prop_assert!(!before || *after, "{:?}", operations()[number]);
        }
    }

    /// An Audit rule changes no outcome.
    #[test]
    fn adding_an_audit_changes_no_outcome(texts in policies(), audit in rule(), postures in posture()) {
        let before = cart(&set_under(&postures, &texts));
        let mut more = texts.clone();
        let audit = (audit.0, audit.1.replace("action: Allow", "action: Audit").replace("action: Block", "action: Audit"));
        more.push(shop("audit", &spec(&[audit])));
        let after = cart(&set_under(&postures, &more));
        let outcomes = |effective: &Effective| -> Vec<_> {
            verdicts(effective, &operations()).into_iter().map(|verdict| verdict.enforced).collect()
        };
        prop_assert_eq!(outcomes(&before), outcomes(&after));
    }

    /// A policy in mode audit changes no outcome and no telling; enforcing it, what it said would be stopped is stopped.
    #[test]
    fn a_policy_in_mode_audit_only_tells_what_it_would_do(texts in policies(), rules in prop::collection::vec(rule(), 1..5), postures in posture()) {
        let texts: Vec<String> = texts.iter().map(|text| text.replace("mode: audit", "mode: enforce")).collect();
        let with = |more: Option<String>| {
            let texts: Vec<String> = texts.iter().cloned().chain(more).collect();
            verdicts(&cart(&set_under(&postures, &texts)), &operations())
        };
        let rules: Vec<_> = rules.into_iter().map(|(shape, line)| (shape, line.replace("action: Audit", "action: Block"))).collect();
        let body = spec(&rules);
        // System calls are Audits whatever is written, and those tell in any mode.
        prop_assume!(rules.iter().all(|(shape, _)| *shape != 7));
        let base: Vec<_> = with(None);
        let shadowed = with(Some(shop("new", &format!("mode: audit\n{body}"))));
        let enforced = with(Some(shop("new", &body)));
        for ((base, shadowed), enforced) in base.iter().zip(&shadowed).zip(&enforced) {
            prop_assert_eq!(base.enforced, shadowed.enforced);
            prop_assert_eq!(base.audit, shadowed.audit);
            let would = shadowed.shadow.unwrap_or(shadowed.enforced);
            prop_assert_eq!(would.denies(), enforced.enforced.denies());
        }
    }

    /// An allow-list under posture block lets pass what an Allow matches and nothing else; a deny-list the other way round.
    #[test]
    fn allow_lists_and_deny_lists_are_mirrors(rules in prop::collection::vec(rule(), 1..6)) {
        let all = |action: &str| -> Vec<(usize, String)> {
            let one = |line: &str| ["Allow", "Audit", "Block"].iter().fold(line.to_owned(), |line, word| {
                line.replace(&format!("action: {word}"), &format!("action: {action}"))
            });
            rules.iter().map(|(shape, line)| (*shape, one(line))).collect()
        };
        let deny = verdicts(&cart(&set_under(&blocking(), &[shop("p", &spec(&all("Block")))])), &operations());
        for verdict in &deny {
            prop_assert!(matches!(verdict.enforced, Enforced::Nothing | Enforced::Block(_)));
        }
        let allow = verdicts(&cart(&set_under(&blocking(), &[shop("p", &spec(&all("Allow")))])), &operations());
        for verdict in &allow {
            prop_assert!(!matches!(verdict.enforced, Enforced::Block(_)));
        }
        // Without modifiers, what the one stops is exactly what the other lets pass.
        let modified = ["ownerOnly", "readOnly", "pts", "allowedArgs"];
        if rules.iter().all(|(_, line)| modified.iter().all(|word| !line.contains(word))) {
            for (deny, allow) in deny.iter().zip(&allow) {
                let (stopped, named) = (deny.enforced.denies(), matches!(allow.enforced, Enforced::Allow(_)));
                prop_assert_eq!(stopped, named);
            }
        }
    }

    /// Lists are as short as they can be, and every name in them is a slot.
    #[test]
    fn lists_end_where_nothing_more_can_matter(texts in policies()) {
        let flat = policy::flatten(&Rules::new(&cart(&set(&texts)), &links), Judges::PLAIN);
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
        prop_assert_eq!(!policy::select(&set(&[text]), &workload, NOW).policies().is_empty(), meant);
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

/// The examples with some of their bytes changed.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let examples = vec![
        include_str!("examples/process-and-file.yaml"),
        include_str!("examples/network-and-more.yaml"),
        include_str!("examples/network-policy.yaml"),
        include_str!("examples/host.yaml"),
        include_str!("examples/presets.yaml"),
    ];
    let change = (any::<prop::sample::Index>(), 0..4u8, any::<u8>());
    (
        prop::sample::select(examples),
        prop::collection::vec(change, 1..6),
    )
        .prop_map(|(text, changes)| {
            let mut bytes = text.as_bytes().to_vec();
            for (at, how, byte) in changes {
                let at = at.index(bytes.len());
                // One byte always stays, for the next change to be made to.
                match how {
                    0 => bytes[at] = byte,
                    1 => bytes.insert(at, byte),
                    2 if bytes.len() > 1 => drop(bytes.remove(at)),
                    2 => bytes[at] = byte,
                    _ => bytes.truncate(at.max(1)),
                }
            }
            bytes
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    /// Whatever bytes come in, they are read to an end, and what is read without an error compiles to what a node takes.
    #[test]
    fn no_bytes_panic(bytes in prop_oneof![mutated(), prop::collection::vec(any::<u8>(), 0..200)]) {
        let (policies, problems) = policy::parse_bytes("f", &bytes);
        for problem in &problems {
            prop_assert!(!problem.message.is_empty());
        }
        let ruleset = compile(&policies, &rules::Postures::default());
        let taken = Set::from_wire(&ruleset.manifest, &ruleset.blobs);
        prop_assert!(taken.is_ok(), "{:?}", taken.err());
        let _ = policy::check(&policies, &policy::Surroundings::default());
    }
}
