//! `cresset policy explain`: for whom, what, and where it holds.

use super::{Files, fine, policy, shop};

#[test]
fn explain_says_for_whom_what_and_where() {
    let files = Files::with(&[(
        "a.yaml",
        &shop(
            "severity: 4, process: {matchPaths: [{path: /bin/a}]}, file: {matchDirectories: [{dir: /etc/, recursive: true, action: Audit}]}",
        ),
    )]);
    let told = fine(&["explain", &files.path("a.yaml")]);
    for needed in [
        "For workloads of namespace shop, with app=cart.",
        "Stopped and told:\n    starting /bin/a  (severity 4)",
        "Passes and is told:\n    reading or writing any file below /etc/",
        "Left open: everything else.",
        "tier 3",
    ] {
        assert!(told.contains(needed), "{needed}: {told}");
    }
}

/// Specs, and what explaining them must say and must not.
const REACH: [(&str, &[&str], &[&str]); 5] = [
    (
        "mode: audit, process: {matchPaths: [{path: /bin/x}]}",
        &[
            "Would be stopped, is told:\n    starting /bin/x",
            "Enforced: nothing; it tells on every tier.",
        ],
        &["Stopped and told", "tier 3"],
    ),
    (
        "apparmor: \"deny /etc/shells r,\"",
        &["Enforced: nothing on any tier."],
        &["it tells"],
    ),
    (
        "presets: [{name: filelessExec, action: Audit}], network: {matchDNSQueries: [{domain: example.org, action: Audit}]}",
        &[
            "[not enforced, see below]",
            "Enforced: nothing on any tier.",
        ],
        &["it tells"],
    ),
    (
        "file: {matchDirectories: [{dir: /, recursive: true, action: Allow}, {dir: /run/secrets/, recursive: true, action: Block}, \
         {dir: /run/secrets/, recursive: true, action: Allow, fromSource: [{path: /usr/bin/agent}]}]}",
        &[
            "Left open: everything else.",
            "Enforced: nothing; it tells on every tier.",
        ],
        &["are refused", "default posture"],
    ),
    (
        "defaultPosture: {file: block}, expires: \"2020-01-01T00:00:00Z\", file: {matchPaths: [{path: /srv/x, action: Allow}]}",
        &[
            "Ended on 2020-01-01T00:00:00Z: it is in force nowhere",
            "files: what no rule names meets the default posture, which is block (this policy's)",
            "Enforced: nothing on any tier.",
        ],
        &["In force until"],
    ),
];

#[test]
fn explain_claims_no_more_than_is_enforced() {
    for (spec, said, unsaid) in REACH {
        let files = Files::with(&[("a.yaml", &shop(spec))]);
        let told = fine(&["explain", &files.path("a.yaml")]);
        said.iter()
            .for_each(|words| assert!(told.contains(words), "{words}: {told}"));
        unsaid
            .iter()
            .for_each(|words| assert!(!told.contains(words), "{words}: {told}"));
    }
    let open = "file: {matchPaths: [{path: /srv/x, action: Allow}]}";
    let strict = format!("defaultPosture: {{file: block}}, {open}");
    let files = Files::with(&[("a.yaml", &shop(open)), ("b.yaml", &shop(&strict))]);
    let told = fine(&["explain", &files.path("a.yaml")]);
    assert!(
        told.contains(
            "files: what is not allowed is refused only where the default posture is block"
        ),
        "{told}"
    );
    let told = fine(&["explain", &files.path("b.yaml")]);
    assert!(told.contains("fmod_ret): files are refused"), "{told}");
}

#[test]
fn explain_passes_warnings_on_and_says_where_there_is_no_policy() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n";
    let files = Files::with(&[
        ("near.yaml", &shop("proccess: {matchPath: []}")),
        ("pod.yaml", pod),
    ]);
    let near = policy(&["explain", &files.path("near.yaml")]);
    let wrong = String::from_utf8_lossy(&near.stderr).into_owned();
    assert!(
        near.status.success() && wrong.contains("warning: spec.proccess"),
        "{wrong}"
    );
    let none = policy(&["explain", &files.path("pod.yaml")]);
    let wrong = String::from_utf8_lossy(&none.stderr).into_owned();
    assert_eq!(none.status.code(), Some(1), "{wrong}");
    assert!(
        wrong.contains("a Pod is not a KubeArmor policy") && wrong.contains("no policy in"),
        "{wrong}"
    );
}

#[test]
fn explain_names_the_namespaces_of_a_cluster_policy() {
    let cluster = "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorClusterPolicy\nmetadata: {name: c}\nspec:\n  \
        selector:\n    matchExpressions:\n      - {key: namespace, operator: In, values: [other, shop]}\n      \
        - {key: namespace, operator: NotIn, values: [other]}\n      - {key: label, operator: In, values: [app=web]}\n  \
        process: {matchPaths: [{path: /bin/a}]}\n";
    let not_in = cluster.replace(
        "- {key: namespace, operator: In, values: [other, shop]}\n      ",
        "",
    );
    let files = Files::with(&[("c.yaml", cluster), ("d.yaml", &not_in)]);
    let told = fine(&["explain", &files.path("c.yaml")]);
    assert!(
        told.contains("For workloads of namespace shop, with app=web."),
        "{told}"
    );
    let told = fine(&["explain", &files.path("d.yaml")]);
    assert!(
        told.contains("For workloads of every namespace but other, with app=web."),
        "{told}"
    );
}

/// A rule that the sensor leaves out, and one that is softened for it.
const EXCEPTED: &str = "file: {matchDirectories: [{dir: /key/, recursive: true, action: Block}, \
    {dir: /key/, recursive: true, action: Allow, fromSource: [{path: /bin/agent}]}]}, process: {matchPaths: [{path: /bin/a}]}";

#[test]
fn what_sensors_leave_out_is_said_by_explain_and_check_in_the_same_words() {
    let files = Files::with(&[
        ("a.yaml", &shop(EXCEPTED)),
        ("b.yaml", &shop("process: {matchPaths: [{path: /bin/a}]}")),
    ]);
    let told = fine(&["explain", &files.path("a.yaml")]);
    for needed in [
        "    reading or writing any file below /key/  [not enforced, see below]",
        "    starting /bin/a\n",
        "tiers 1 and 2 (BPF LSM, fmod_ret): programs are refused",
        "Not enforced, on any tier:\n    file: /key/: fromSource is not judged by this version's sensor: the rule is left out",
        "    file: /key/: told instead of blocked: the Allow on `/key/` of policy shop/p",
    ] {
        assert!(told.contains(needed), "{needed}: {told}");
    }
    let told = fine(&["check", &files.path("a.yaml")]);
    assert!(
        told.contains("note: 2 parts of 1 policy are not enforced by this version's sensor"),
        "{told}"
    );
    let told = fine(&["check", "-o", "json", &files.path("a.yaml")]);
    assert!(
        told.contains("file: /key/: fromSource is not judged by this version's sensor"),
        "{told}"
    );
    let told = fine(&["check", &files.path("b.yaml")]);
    assert!(!told.contains("not enforced"), "{told}");
    assert!(!fine(&["explain", &files.path("b.yaml")]).contains("ot enforced"));
}

#[test]
fn explain_says_of_network_policies_whose_traffic_they_are_about() {
    let quota = "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorNetworkPolicy\nmetadata: {name: quota}\nspec:\n  \
        selector: {matchLabels: {app: cart}}\n  egress: [{limit: 500MB, duration: 90m}]\n";
    let files = Files::with(&[("q.yaml", quota)]);
    let told = fine(&["explain", &files.path("q.yaml")]);
    assert!(
        told.contains("For the traffic of workloads of every namespace, with app=cart."),
        "{told}"
    );
    assert!(
        told.contains("packets to anyone beyond 500 MB in 1h30m"),
        "{told}"
    );
}
