//! `cresset policy` without a relay: the project's own policies, and what people do to files.
#![allow(clippy::expect_used, clippy::panic)] // reason: a test that cannot go on has failed

#[path = "../support/mod.rs"]
mod support;

mod cases;
mod diff;
mod explain;

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
