//! What is wrong with policies together.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests: a failure here is the test's"
)]

mod support;

use policy::{Found, Moment, Started, Surroundings, check, load};
use support::*;

/// What is said, with the file cut off: policies stand in files of their own name.
fn said_in(around: &Surroundings<'_>, texts: &[(&str, String)]) -> Vec<String> {
    let (policies, problems) = load(texts.iter().map(|(name, text)| (*name, text.as_str())));
    assert!(
        problems.iter().all(|problem| !problem.is_error()),
        "{problems:?}"
    );
    let all = check(&policies, around);
    assert!(all.iter().all(|problem| !problem.is_error()));
    all.iter().map(ToString::to_string).collect()
}

fn said(texts: &[(&str, &str)]) -> Vec<String> {
    let texts: Vec<_> = texts
        .iter()
        .map(|(name, spec)| (*name, shop(name, spec)))
        .collect();
    said_in(&Surroundings::default(), &texts)
}

#[test]
fn a_block_and_an_allow_of_equal_rank_contradict_each_other_and_the_block_wins() {
    let told = said(&[
        (
            "a",
            "process: {matchPaths: [{path: /bin/nc, action: Block}]}",
        ),
        (
            "b",
            "process:\n  matchPaths:\n    - {path: /bin/nc, action: Allow}\n  matchDirectories: [{dir: /, recursive: true, action: Allow}]",
        ),
    ]);
    assert_eq!(
        told,
        [
            "b:9: spec.process.matchPaths[0]: contradicts the Block on `/bin/nc` of shop/a (a:7): the Block wins where both are about a workload; remove one, or narrow this one with fromSource"
        ]
    );
}

#[test]
fn policies_that_no_workload_can_share_do_not_contradict() {
    let other = shop(
        "b",
        "process: {matchPaths: [{path: /bin/nc, action: Allow}]}",
    )
    .replace("app: cart", "app: web");
    let texts = [
        ("a", shop("a", "process: {matchPaths: [{path: /bin/nc}]}")),
        ("b", other),
    ];
    assert_eq!(
        said_in(&Surroundings::default(), &texts),
        Vec::<String>::new()
    );
}

#[test]
fn an_owner_rule_and_its_counterpart_are_no_contradiction() {
    let told = said(&[(
        "a",
        "file:\n  matchPaths: [{path: /k, ownerOnly: true, action: Allow}, {path: /k, ownerOnly: true, action: Block}]\n  matchDirectories: [{dir: /, recursive: true, action: Allow}]",
    )]);
    assert_eq!(told, Vec::<String>::new());
}

#[test]
fn an_audit_below_a_block_is_never_told() {
    let told = said(&[(
        "a",
        "file: {matchPaths: [{path: /k}, {path: /k, action: Audit}]}",
    )]);
    assert_eq!(
        told,
        [
            "a:7: spec.file.matchPaths[1]: is never told: the Block on `/k` of shop/a (a:7) decides first; remove this Audit"
        ]
    );
}

#[test]
fn the_same_rule_in_two_policies_is_one_too_many() {
    let told = said(&[
        ("a", "process: {matchPaths: [{path: /bin/nc}]}"),
        ("b", "process: {matchPaths: [{path: /bin/nc, severity: 3}]}"),
    ]);
    assert_eq!(
        told,
        [
            "b:7: spec.process.matchPaths[0]: the Block on `/bin/nc` is already in shop/a (a:7); remove one of them"
        ]
    );
}

#[test]
fn a_pattern_below_a_directory_that_decides_is_never_reached() {
    let told = said(&[(
        "a",
        "file:\n  matchDirectories: [{dir: /opt/, recursive: true, action: Block}]\n  matchPatterns: [{pattern: \"/opt/*/log\", action: Audit}]",
    )]);
    assert_eq!(
        told,
        [
            "a:9: spec.file.matchPatterns[0]: never matches: the Block on the directory `/opt/` of shop/a (a:8) is asked before every pattern; name the paths, or narrow the directory"
        ]
    );
}

#[test]
fn an_allow_that_turns_a_deny_list_of_others_into_an_allow_list_is_told() {
    let block = "process: {matchPaths: [{path: /bin/nc}]}";
    let told = said(&[
        ("a", block),
        (
            "b",
            "process: {matchPaths: [{path: /bin/cart, action: Allow}]}",
        ),
    ]);
    assert_eq!(
        told,
        [
            "b:7: spec.process.matchPaths[0]: this Allow makes process an allow-list: what no Allow names is told as DefaultPosture, also where shop/a only blocks single things; allow `/` there, or set defaultPosture"
        ]
    );
    let lenient = "process: {matchPaths: [{path: /bin/cart, action: Allow}], matchDirectories: [{dir: /, recursive: true, action: Allow}]}";
    assert_eq!(said(&[("a", block), ("b", lenient)]), Vec::<String>::new());
    let silent =
        "defaultPosture: {file: allow}\nprocess: {matchPaths: [{path: /bin/cart, action: Allow}]}";
    assert_eq!(said(&[("a", block), ("b", silent)]), Vec::<String>::new());
}

#[test]
fn a_policy_that_stops_what_a_workload_starts_with_is_told() {
    let history = [Started {
        workload: workload("shop", &[("app", "cart")]),
        path: "/usr/bin/cart".to_owned(),
    }];
    let around = Surroundings {
        history: &history,
        postures: blocking(),
        ..Surroundings::default()
    };
    let one = |spec: &str| said_in(&around, &[("a", shop("a", spec))]);
    assert_eq!(
        one("process: {matchDirectories: [{dir: /usr/bin/}]}"),
        [
            "a:7: spec.process.matchDirectories[0]: stops `/usr/bin/cart`, which a workload of namespace `shop` starts with: it would not come up; narrow the rule, or try it with `mode: audit`"
        ]
    );
    let listed = one("process: {matchPaths: [{path: /usr/bin/sh, action: Allow}]}");
    assert!(
        listed[0].contains("its allow-list does not name `/usr/bin/cart`"),
        "{listed:?}"
    );
    assert_eq!(
        one("process: {matchPaths: [{path: /usr/bin/cart, action: Allow}]}"),
        Vec::<String>::new()
    );
    assert_eq!(
        one("mode: audit\nprocess: {matchDirectories: [{dir: /usr/bin/}]}"),
        Vec::<String>::new()
    );
}

#[test]
fn a_path_that_is_a_link_or_one_name_of_many_is_told() {
    let root = |path: &str| match path {
        "/bin/sleep" => Found::Link {
            to: "/usr/bin/sleep".to_owned(),
        },
        "/etc/mtab" => Found::Link {
            to: "/proc/mounts".to_owned(),
        },
        "/usr/bin/wget" => Found::Applet {
            of: "/usr/bin/busybox".to_owned(),
        },
        "/usr/bin/apt" => Found::Nothing,
        _ => Found::Itself,
    };
    let around = Surroundings {
        root: Some(&root),
        ..Surroundings::default()
    };
    let told = said_in(
        &around,
        &[(
            "a",
            shop(
                "a",
                "process: {matchPaths: [{path: /bin/sleep}, {path: /usr/bin/wget}, {path: /usr/bin/apt}]}\nfile: {matchPaths: [{path: /etc/mtab}, {path: /etc/passwd}]}",
            ),
        )],
    );
    assert_eq!(
        told,
        [
            "a:7: spec.process.matchPaths[1]: `/usr/bin/wget` is one of many names of `/usr/bin/busybox`: the rule is about that binary and with it about all of them; use allowedArgs or execname to tell them apart",
            "a:7: spec.process.matchPaths[2]: `/usr/bin/apt` does not exist in the given root",
            "a:8: spec.file.matchPaths[0]: `/etc/mtab` is a link: the rule is about `/proc/mounts`, whatever name it is reached by; write `/proc/mounts` if that is meant",
        ]
    );
}

#[test]
fn a_policy_whose_time_is_over_is_told_where_the_time_is_known() {
    let ended = |now: Option<Moment>| {
        let around = Surroundings {
            now,
            ..Surroundings::default()
        };
        let spec = "expires: 2020-01-01T00:00:00Z\nprocess: {matchPaths: [{path: /bin/a}]}";
        said_in(&around, &[("a", shop("a", spec))])
    };
    assert_eq!(
        ended(Some(Moment(1_577_836_800))),
        [
            "a:7: spec.expires: the policy ended on 2020-01-01T00:00:00Z and is in force nowhere; give it a later time, or remove it"
        ]
    );
    assert_eq!(ended(Some(Moment(1_577_836_799))), Vec::<String>::new());
    assert_eq!(ended(None), Vec::<String>::new());
}
