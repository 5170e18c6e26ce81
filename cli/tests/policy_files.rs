//! `cresset policy` without a relay: the project's own policies, and what people do to files.
#![allow(clippy::expect_used, clippy::panic)] // reason: a test that cannot go on has failed

mod support;

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;
use support::program;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("a workspace")
        .to_path_buf()
}

fn policy(args: &[&str]) -> Output {
    let mut command = program("cresset");
    command.arg("policy").args(args).current_dir(repository());
    command.output().expect("cresset policy")
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn fine(args: &[&str]) -> String {
    let output = policy(args);
    let text = out(&output);
    let wrong = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {text}{wrong}");
    text
}

#[track_caller]
fn code(args: &[&str], code: i32) -> String {
    let output = policy(args);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
    out(&output)
}

const OWN: [&str; 2] = ["policy/library", "examples/policies"];

#[test]
fn the_projects_own_policies_are_sound_and_do_what_their_tests_say() {
    let told = fine(&["check", "--strict", OWN[1]]);
    assert!(told.contains("0 errors, 0 warnings"), "{told}");
    let told = fine(&["test", OWN[0], OWN[1]]);
    assert!(told.contains("all as expected"), "{told}");
}

#[test]
fn the_library_is_in_its_one_form_and_tells_what_each_policy_is_for() {
    fine(&["fmt", "--check", OWN[0]]);
    let mut policies = 0;
    for theme in std::fs::read_dir(repository().join(OWN[0]))
        .expect("the library")
        .flatten()
    {
        let Ok(files) = std::fs::read_dir(theme.path()) else {
            continue;
        };
        for file in files.flatten().map(|file| file.path()) {
            let name = file.display().to_string();
            if name.ends_with(".test.yaml") {
                continue;
            }
            policies += 1;
            // Each by itself: they are to choose from, not one set.
            fine(&["check", "--strict", &name]);
            let text = std::fs::read_to_string(&file).expect("a policy");
            for needed in [
                "cresset/attack:",
                "cresset/breaks:",
                "cresset/recommend:",
                "MITRE_",
                "NIST_",
                "CIS_",
            ] {
                assert!(text.contains(needed), "{name} lacks {needed}");
            }
            let tests = name.replace(".yaml", ".test.yaml");
            assert!(Path::new(&tests).exists(), "{name} has no test cases");
        }
    }
    assert!(policies >= 25, "{policies} policies");
}

/// Files of one test.
struct Files(tempfile::TempDir);

impl Files {
    fn with(files: &[(&str, &str)]) -> Files {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, text).expect("written");
        }
        Files(folder)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("a file")
    }
}

fn shop(spec: &str) -> String {
    format!(
        "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata: {{name: p, namespace: shop}}\n\
         spec: {{selector: {{matchLabels: {{app: cart}}}}, {spec}}}\n"
    )
}

#[test]
fn check_names_file_line_and_field_in_every_format_and_exits_1() {
    let files = Files::with(&[("bad.yaml", &shop("process: {matchPaths: [{path: bin/sh}]}"))]);
    let bad = files.path("bad.yaml");
    let told = code(&["check", &bad], 1);
    assert!(told.contains("bad.yaml:4"), "{told}");
    assert!(told.contains("spec.process.matchPaths[0].path"), "{told}");
    assert!(code(&["check", &bad, "-o", "github"], 1).starts_with("::error file="));
    let sarif: Value =
        serde_json::from_str(&code(&["check", &bad, "-o", "sarif"], 1)).expect("JSON");
    assert_eq!(sarif["runs"][0]["results"][0]["level"], "error");
    let missing = policy(&["check", "no/such.yaml"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("no/such.yaml"));
}

#[test]
fn a_file_that_cannot_be_read_is_a_problem_like_any_other_in_every_format() {
    let files = Files::with(&[
        (
            "set/bad.yaml",
            &shop("process: {matchPaths: [{path: bin/sh}]}"),
        ),
        (
            "set/good.yaml",
            &shop("process: {matchPaths: [{path: /bin/sh}]}").replace("name: p,", "name: good,"),
        ),
    ]);
    let set = files.path("set");
    std::fs::write(files.path("set/latin.yaml"), [0xff, b'\n']).expect("written");
    let told = code(&["check", &set], 1);
    assert!(told.contains("latin.yaml: error: not UTF-8 text"), "{told}");
    assert!(told.contains("spec.process.matchPaths[0].path"), "{told}");
    assert!(told.contains("in 3 files: 2 errors"), "{told}");
    let sarif: Value =
        serde_json::from_str(&code(&["check", &set, "-o", "sarif"], 1)).expect("JSON");
    let results = sarif["runs"][0]["results"].as_array().expect("results");
    assert_eq!(results.len(), 2, "{results:?}");
}

#[test]
fn a_root_that_is_no_folder_is_wrong_usage() {
    let files = Files::with(&[("a.yaml", &shop("process: {matchPaths: [{path: /bin/sh}]}"))]);
    for root in ["/nope", &files.path("a.yaml")] {
        let output = policy(&["check", "--root", root, &files.path("a.yaml")]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let wrong = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            wrong.contains(&format!("{root} is not a folder")),
            "{wrong}"
        );
    }
}

#[test]
fn an_unknown_field_is_a_warning_and_with_strict_an_error() {
    let files = Files::with(&[("a.yaml", &shop("process: {matchPath: []}"))]);
    let told = code(&["check", &files.path("a.yaml")], 0);
    assert!(
        told.contains("warning:") && told.contains("matchPaths"),
        "{told}"
    );
    code(&["check", "--strict", &files.path("a.yaml")], 1);
}

#[test]
fn fmt_rewrites_in_place_once_and_check_only_looks() {
    let files = Files::with(&[("a.yaml", &shop("action: Block"))]);
    let path = files.path("a.yaml");
    let before = files.text("a.yaml");
    code(&["fmt", "--check", &path], 1);
    assert_eq!(files.text("a.yaml"), before);
    fine(&["fmt", &path]);
    assert!(
        files
            .text("a.yaml")
            .contains("\n    matchLabels:\n      app: cart\n")
    );
    fine(&["fmt", "--check", &path]);
}

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
fn a_policy_that_has_ended_is_a_warning_of_check() {
    let files = Files::with(&[(
        "a.yaml",
        &shop("expires: \"2020-01-01T00:00:00Z\", process: {matchPaths: [{path: /bin/a}]}"),
    )]);
    let told = code(&["check", &files.path("a.yaml")], 0);
    assert!(
        told.contains("a.yaml:4") && told.contains("spec.expires: the policy ended on 2020"),
        "{told}"
    );
    assert!(told.contains("0 errors, 1 warning\n"), "{told}");
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
fn what_a_file_holds_is_shown_and_not_obeyed() {
    let hostile = shop("\"\\e[2Jx\": 1, process: {matchPaths: [{path: /bin/a}]}");
    let files = Files::with(&[("a.yaml", &hostile)]);
    for format in ["text", "github"] {
        let told = fine(&["check", "-o", format, &files.path("a.yaml")]);
        assert!(told.contains("x1b[2Jx`"), "{told}");
        assert!(!told.contains('\u{1b}'), "{told:?}");
    }
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

#[test]
fn check_with_a_root_tells_of_paths_that_are_not_what_they_look_like() {
    let busybox = "process: {matchPaths: [{path: /bin/sh}, {path: /bin/apt}, {path: /bin/busybox}, {path: /bin/x}]}";
    let files = Files::with(&[
        ("a.yaml", &shop(busybox)),
        ("root/bin/busybox", ""),
        ("root/bin/x", ""),
    ]);
    let bin = std::path::PathBuf::from(files.path("root/bin"));
    std::os::unix::fs::symlink("busybox", bin.join("sh")).expect("a link");
    let told = fine(&[
        "check",
        "--root",
        &files.path("root"),
        &files.path("a.yaml"),
    ]);
    assert!(
        told.contains("matchPaths[0]: `/bin/sh` is one of many names of `/bin/busybox`"),
        "{told}"
    );
    assert!(
        told.contains("matchPaths[1]: `/bin/apt` does not exist in the given root"),
        "{told}"
    );
    assert!(told.contains("0 errors, 2 warnings"), "{told}");
}

#[test]
fn a_failing_test_case_is_named_with_line_and_verdicts_and_exits_1() {
    let cases = "workload: {namespace: shop, labels: {app: cart}}\ntests:\n  - {exec: /bin/a, expect: pass}\n  - {exec: /bin/a, expect: block, by: p}\n";
    let files = Files::with(&[
        ("a.yaml", &shop("process: {matchPaths: [{path: /bin/a}]}")),
        ("a.test.yaml", cases),
        (
            "bad.test.yaml",
            "policies: [a.yaml]\ntests:\n  - {open: /x, expect: pass}\n  - {exec: a, expect: pass}\n  - {expect: maybe}\n",
        ),
    ]);
    let told = code(&["test", &files.path("a.test.yaml")], 1);
    assert!(
        told.contains("a.test.yaml:3: FAILED: starting /bin/a: expected pass, got block by p"),
        "{told}"
    );
    assert!(told.contains("1 file, 2 cases: 1 FAILED"), "{told}");
    let told = code(&["test", &files.path("bad.test.yaml")], 1);
    assert!(told.contains("bad.test.yaml:5"), "{told}");
}

#[test]
fn a_test_file_that_cannot_be_asked_is_an_error_and_the_others_run() {
    let case = "tests: [{exec: /bin/a, expect: pass}, {open: /x, expect: pass}]\n";
    let files = Files::with(&[
        ("a.yaml", &shop("process: {matchPaths: [{path: /bin/b}]}")),
        ("a.test.yaml", case),
        (
            "gone.test.yaml",
            &format!("# a remark\npolicies: [nope.yaml]\n{case}"),
        ),
        ("none.test.yaml", "policies: [a.yaml]\ntests: []\n"),
    ]);
    std::fs::write(files.path("latin.test.yaml"), [0xff]).expect("written");
    let told = code(&["test", &files.path("")], 1);
    for needed in [
        "a.test.yaml:1:39: error: tests[1]: `open` and `access: read` or `write` go together",
        "gone.test.yaml:2:",
        "nope.yaml: No such file",
        "none.test.yaml:2:",
        "no test case is here",
        "latin.test.yaml: error: not UTF-8 text",
        "4 files, 1 case: 4 errors\n",
    ] {
        assert!(told.contains(needed), "{needed}: {told}");
    }
    code(&["test", &files.path("none.test.yaml")], 1);
}

#[test]
fn test_cases_ask_for_nodes_devices_connections_and_packets() {
    let nodes = "
apiVersion: security.kubearmor.com/v1
kind: KubeArmorHostPolicy
metadata: {name: node-rules}
spec:
  nodeSelector: {matchLabels: {kubearmor.io/hostname: node-a}}
  process: {matchPaths: [{path: /usr/bin/diff}]}
  device: {matchDevice: [{class: ALL, action: Block}, {class: HID, action: Allow}]}
  action: Block
---
apiVersion: security.kubearmor.com/v1
kind: KubeArmorNetworkPolicy
metadata: {name: egress}
spec:
  nodeSelector: {matchLabels: {zone: x}}
  egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}}], action: Block}]
";
    let endpoints = "network: {matchEndpoints: [{cidr: 10.0.0.0/8, direction: egress, action: Allow}, {domain: example.org, action: Allow}, {cidr: 10.9.0.0/16}]}";
    let cases = "
policies: [nodes.yaml, shop.yaml]
workload: {namespace: shop, labels: {app: cart}}
postures: {network: block}
tests:
  - {node: {name: node-a}, plug: 8/6/80/1, expect: block, by: node-rules}
  - {node: {name: node-a}, plug: 3/1/2/1, expect: pass}
  - {node: {name: node-a}, exec: /usr/bin/diff, expect: block}
  - {node: {name: node-b}, exec: /usr/bin/diff, expect: pass}
  - {exec: /usr/bin/diff, expect: pass}
  - {node: {name: node-b, labels: {zone: x}}, packet: 'udp 10.9.9.9:53', expect: block, by: egress}
  - {node: {name: node-b, labels: {zone: x}}, packet: 'udp 10.9.9.9:53', direction: ingress, expect: pass}
  - {connect: ['tcp 10.1.2.3:5432', 'udp 10.1.2.3:53'], expect: pass}
  - {connect: 'tcp 10.9.2.3:5432', expect: block, by: p}
  - {connect: 'tcp 192.0.2.7:443', names: [www.example.org], expect: pass}
  - {connect: 'tcp 192.0.2.7:443', expect: block, by: DefaultPosture}
";
    let wrong = "
policies: [shop.yaml]
tests:
  - {connect: 10.1.2.3, expect: pass}
  - {plug: disk, expect: pass}
  - {exec: /a, direction: ingress, expect: pass}
  - {exec: /a, node: {name: n}, workload: {namespace: n}, expect: pass}
";
    let files = Files::with(&[
        ("nodes.yaml", nodes),
        ("shop.yaml", &shop(endpoints)),
        ("good.test.yaml", cases),
        ("wrong.test.yaml", wrong),
    ]);
    assert_eq!(
        fine(&["test", &files.path("good.test.yaml")]),
        "1 file, 12 cases: all as expected\n"
    );
    let told = code(&["test", &files.path("wrong.test.yaml")], 1);
    for needed in [
        "wrong.test.yaml:4:5: error: tests[0]: `10.1.2.3` is no far end",
        "wrong.test.yaml:5:5: error: tests[1]: `disk` is no device",
        "tests[2]: `direction` is of a connection or a packet",
        "tests[3]: is about a workload or about a node, not both",
    ] {
        assert!(told.contains(needed), "{needed}: {told}");
    }
}
