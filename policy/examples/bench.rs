//! `cargo xtask bench policy`: what policies cost, from text to verdict. Prints a table; each figure is the best of some runs.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a measurement that cannot be made says so"
)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::hint::black_box;
use std::time::{Duration, Instant};

use policy::{Compiler, Judges, Moment, Operation, Policy, Rules, Set, Workload};
use proto::rules::Postures;

const POLICIES: usize = 10_000;
const RULES: usize = 20;
const RUNS: usize = 5;

fn main() {
    let texts: Vec<String> = (0..POLICIES).map(text).collect();
    let bytes: usize = texts.iter().map(String::len).sum();
    println!(
        "{POLICIES} policies of {RULES} rules, {:.1} MB of YAML; best of {RUNS} runs",
        bytes as f64 / 1e6
    );
    let files = || texts.iter().map(|text| ("bench.yaml", text.as_str()));
    let policies = row("parse", || policy::load(files()).0);
    assert_eq!(policies.len(), POLICIES);
    let postures = Postures::default();
    let set = row("compile", || policy::compile(&policies, &postures));
    let size: usize = set.blobs.values().map(|blob| blob.len()).sum();
    println!("{:<44}{:>9.1} MB", "  blobs", size as f64 / 1e6);
    edited(&policies, &postures);
    let held = row("read back on a node, every rule checked", || {
        Set::from_wire(&set.manifest, &set.blobs).unwrap()
    });
    let workload = Workload {
        namespace: "n7".to_owned(),
        labels: BTreeMap::from([("app".to_owned(), "a7".to_owned())]),
        container: String::new(),
    };
    let effective = row("select for one workload", || {
        policy::select(&held, &workload, Moment(0))
    });
    println!(
        "{:<44}{:>9}",
        "  policies about it",
        effective.policies().len()
    );
    let rules = row("resolve its rules", || {
        Rules::new(&effective, &|_| Vec::new())
    });
    let flat = row("flatten them", || policy::flatten(&rules, Judges::ALL));
    let operations: Vec<Operation> = (0..1000)
        .map(|number| {
            Operation::read(format!("/srv/d{}/f{number}", number % 50)).from("/usr/bin/x")
        })
        .collect();
    row("decide 1000 operations by the rules", || {
        operations
            .iter()
            .filter(|operation| policy::decide(&rules, operation).enforced.denies())
            .count()
    });
    row("decide 1000 operations by the tables", || {
        operations
            .iter()
            .filter(|operation| flat.decide(operation).enforced.denies())
            .count()
    });
    row("check all policies together", || {
        policy::check(&policies, &policy::Surroundings::default()).len()
    });
    globs();
}

/// The cost of one edit is one blob, not ten thousand.
fn edited(policies: &[Policy], postures: &Postures) {
    let mut compiler = Compiler::default();
    let none = BTreeMap::new();
    let before = compiler.compile(policies, postures, &none);
    let mut edited = policies.to_vec();
    let text = text(3).replace("/srv/d1/", "/srv/edited/");
    edited[3] = policy::parse("bench.yaml", &text).0.remove(0);
    let began = Instant::now();
    let after = compiler.compile(&edited, postures, &none);
    print("compile again after one edit", began.elapsed());
    let new = after
        .blobs
        .keys()
        .filter(|digest| !before.blobs.contains_key(digest))
        .count();
    println!("{:<44}{new:>9}", "  blobs that are new");
}

/// A glob that would cost a matcher with back-tracking more time than there is.
fn globs() {
    let glob = policy::Glob::new(&format!("/{}b", "**a".repeat(20))).unwrap();
    let path = format!("/{}", "a".repeat(4000));
    row("20 stars over a path of 4000 characters", || {
        glob.matches(&path)
    });
}

fn row<T>(name: &str, mut run: impl FnMut() -> T) -> T {
    let mut best = Duration::MAX;
    let mut last = None;
    for _ in 0..RUNS {
        let began = Instant::now();
        last = Some(black_box(run()));
        best = best.min(began.elapsed());
    }
    print(name, best);
    last.unwrap()
}

fn print(name: &str, took: Duration) {
    println!("{name:<44}{:>9.3} ms", took.as_secs_f64() * 1e3);
}

/// One policy in a hundred namespaces and a hundred apps, with a bit of everything.
fn text(number: usize) -> String {
    let mut text = format!(
        "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata: {{name: p{number}, namespace: n{}}}\nspec:\n  severity: 5\n  message: m{number}\n  selector: {{matchLabels: {{app: a{}}}}}\n  file:\n    matchPaths:\n",
        number % 100,
        number / 100 % 10
    );
    for rule in 0..RULES / 2 {
        let condition = ["", ", readOnly: true", ", fromSource: [{path: /usr/bin/x}]"][rule % 3];
        writeln!(text, "      - {{path: /srv/d{rule}/f{number}{condition}}}").unwrap();
    }
    text += "    matchDirectories:\n";
    for rule in RULES / 2..RULES {
        writeln!(
            text,
            "      - {{dir: /srv/d{rule}/{number}/, recursive: true}}"
        )
        .unwrap();
    }
    text
}
