//! `cresset policy diff`: what differs, and what could not be compared.

use super::{Files, code, fine, shop};

#[test]
fn diff_tells_behaviour_and_not_text() {
    let files = Files::with(&[
        ("a.yaml", &shop("process: {matchPaths: [{path: /bin/a}, {path: /bin/b}]}")),
        ("b.yaml", &shop("process: {matchPaths: [{path: /bin//b, action: block}, {path: /bin/a}]}, action: Audit").replace("action: Audit}", "severity: 3, action: Block}")),
        ("c.yaml", &shop("process: {matchPaths: [{path: /bin/a}, {path: /bin/b, action: Audit}]}")),
    ]);
    let told = fine(&["diff", &files.path("a.yaml"), &files.path("b.yaml")]);
    assert_eq!(told, "no difference in what they do\n");
    let told = code(&["diff", &files.path("a.yaml"), &files.path("c.yaml")], 1);
    assert!(
        told.contains("starting /bin/b: block by p -> audit by p"),
        "{told}"
    );
    assert!(!told.contains("starting /bin/a:"), "{told}");
}

#[test]
fn diff_names_a_policy_that_differs_where_nothing_that_it_tries_does() {
    let rules = "process: {matchPaths: [{path: /bin/a}]}";
    let files = Files::with(&[
        ("a.yaml", &shop(rules)),
        (
            "b.yaml",
            &shop(&format!("{rules}, expires: 2199-01-01T00:00:00Z")),
        ),
    ]);
    let told = code(&["diff", &files.path("a.yaml"), &files.path("b.yaml")], 1);
    assert!(told.contains("policy shop/p differs in"), "{told}");
    assert!(told.contains("no difference in what was tried"), "{told}");
}

/// A cluster policy with this selector, or a host policy, with these rules.
fn wide(kind: &str, selector: &str, rules: &str) -> String {
    format!(
        "apiVersion: security.kubearmor.com/v1\nkind: {kind}\nmetadata: {{name: p}}\nspec: {{{selector}{rules}}}\n"
    )
}

#[test]
fn diff_finds_what_differs_on_every_side_of_what_policies_say() {
    const RULE: &str = "process: {matchPaths: [{path: /bin/a}]}";
    let labels = |operator: &str, values: &str| {
        let own = format!(
            "selector: {{matchExpressions: [{{key: label, operator: {operator}, values: [{values}]}}]}}, {RULE}"
        );
        shop(&own).replace("selector: {matchLabels: {app: cart}}, ", "")
    };
    let contained = |names: &str| {
        let more = format!("{{app: cart, kubearmor.io/container.name: \"{names}\"}}");
        shop(RULE).replace("{app: cart}", &more)
    };
    let spaces = |operator: &str, values: &str| {
        let own = format!(
            "selector: {{matchExpressions: [{{key: namespace, operator: {operator}, values: [{values}]}}]}}, "
        );
        wide("KubeArmorClusterPolicy", &own, RULE)
    };
    let glob = |pattern: &str| {
        shop(&format!(
            "process: {{matchPatterns: [{{pattern: \"{pattern}\"}}]}}"
        ))
    };
    let far = |ends: &str| shop(&format!("network: {{matchEndpoints: [{ends}]}}"));
    let on_node = |rules: &str| {
        wide(
            "KubeArmorHostPolicy",
            "nodeSelector: {matchLabels: {kubernetes.io/hostname: \"*\"}}, ",
            rules,
        )
    };
    let packets = |ends: &str| {
        let rules = format!("egress: [{{to: [{{ipBlock: {{cidr: {ends}}}}}], action: Block}}]");
        wide(
            "KubeArmorNetworkPolicy",
            "nodeSelector: {matchLabels: {kubernetes.io/hostname: \"*\"}}, ",
            &rules,
        )
    };
    let preset = |name: &str| shop(&format!("presets: [{{name: {name}}}]"));
    let nothing = || shop("severity: 3");
    let rows = [
        (labels("In", "app=a, app=b"), labels("In", "app=a"), "app=b"),
        (labels("NotIn", "app=a"), labels("NotIn", "app=b"), "app=a"),
        (
            contained("[web, worker]"),
            contained("[web]"),
            "container worker",
        ),
        (spaces("In", "x, y"), spaces("In", "x"), "namespace y"),
        (
            spaces("NotIn", "build"),
            spaces("NotIn", "prod"),
            "namespace prod",
        ),
        (
            glob("/bin/{cat,dog}"),
            glob("/bin/{cat,cow}"),
            "starting /bin/dog",
        ),
        (
            glob("/bin/[a-c]at"),
            glob("/bin/[x-z]at"),
            "starting /bin/aat",
        ),
        (glob("/bin/*.sh"), glob("/bin/?.sh"), "starting /bin/ab.sh"),
        (
            far("{cidr: 0.0.0.0/0}"),
            far("{cidr: 10.0.0.0/8}"),
            "to 11.0.0.0:443: block",
        ),
        (nothing(), far("{cidr: 0.0.0.0/0}"), "pass -> block by p"),
        (
            far("{ports: [{port: \"80\"}]}"),
            far("{ports: [{port: \"80\", endPort: 90}]}"),
            ":90: pass -> block",
        ),
        (nothing(), on_node(RULE), "starting /bin/a: pass -> block"),
        (
            on_node("device: {matchDevice: [{class: ALL}]}"),
            on_node("device: {matchDevice: [{class: HUB}]}"),
            "plugging in HID",
        ),
        (
            packets("10.0.0.0/8"),
            packets("10.0.0.0/9"),
            "10.255.255.255",
        ),
        (nothing(), preset("filelessExec"), "starting /dev/shm/"),
        (
            nothing(),
            preset("anonymousMapExec"),
            "memory executable: pass -> block",
        ),
        (
            nothing(),
            preset("protectEnv"),
            "reading /proc/8/environ: pass -> block",
        ),
        (
            nothing(),
            preset("protectProc"),
            "reading /proc/8/maps: pass -> block",
        ),
        (nothing(), preset("exec"), "in a session: pass -> block"),
    ];
    for (before, after, needed) in rows {
        let files = Files::with(&[("a.yaml", &before), ("b.yaml", &after)]);
        let told = code(&["diff", &files.path("a.yaml"), &files.path("b.yaml")], 1);
        assert!(told.contains(needed), "{needed}: {told}\n{before}\n{after}");
        assert!(!told.contains("not compared"), "{told}");
    }
}
