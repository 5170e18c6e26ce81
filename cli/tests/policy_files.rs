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
