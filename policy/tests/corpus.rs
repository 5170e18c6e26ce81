//! The corpus of wrong documents: hundreds of them, each with everything that is said of it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests: a failure here is the test's"
)]

use std::fmt::Write;

use policy::parse;

const CORPUS: &str = include_str!("corpus/wrong.txt");
/// Fewer would mean that cases were lost.
const AT_LEAST: usize = 250;

struct Case {
    kind: String,
    text: String,
    expected: Vec<String>,
}

fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut inside = false;
    for line in CORPUS.lines() {
        match line {
            "<<<" => inside = true,
            ">>>" => inside = false,
            line if inside => {
                let case = cases.last_mut().unwrap();
                case.text += line;
                case.text.push('\n');
            }
            line if line.starts_with("== ") => cases.push(Case {
                kind: line[3..].to_owned(),
                text: String::new(),
                expected: Vec::new(),
            }),
            "" => {}
            line if line.starts_with('#') && cases.is_empty() => {}
            line => cases.last_mut().unwrap().expected.push(line.to_owned()),
        }
    }
    cases
}

fn document(case: &Case) -> String {
    if case.kind == "document" {
        return case.text.clone();
    }
    let namespace = if case.kind == "KubeArmorPolicy" {
        ", namespace: n"
    } else {
        ""
    };
    let body: String = case
        .text
        .lines()
        .map(|line| format!("  {line}\n"))
        .collect();
    format!(
        "apiVersion: security.kubearmor.com/v1\nkind: {}\nmetadata: {{name: p{namespace}}}\nspec:\n{body}",
        case.kind
    )
}

fn said(case: &Case) -> Vec<String> {
    let (policies, problems) = parse("f", &document(case));
    let errors = problems.iter().any(policy::Problem::is_error);
    assert!(!errors || policies.len() <= 1, "{}", case.text);
    let one = |problem: &policy::Problem| {
        let word = if problem.is_error() {
            "error"
        } else {
            "warning"
        };
        assert!(
            problem.line > 0 && problem.column > 0,
            "{problem} has no place"
        );
        format!("{word} {problem}").replace('\n', " ")
    };
    problems.iter().map(one).collect()
}

#[test]
fn every_wrong_document_is_told_what_is_wrong_with_it() {
    let cases = cases();
    assert!(cases.len() >= AT_LEAST, "{}", cases.len());
    if std::env::var_os("CORPUS_WRITE").is_some() {
        return write(&cases);
    }
    let mut wrong = String::new();
    for case in &cases {
        assert!(
            !case.expected.is_empty(),
            "a case without an answer:\n{}",
            case.text
        );
        let said = said(case);
        if said != case.expected {
            writeln!(
                wrong,
                "{}\n{}expected {:#?}\nsaid {said:#?}",
                case.kind, case.text, case.expected
            )
            .unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

fn write(cases: &[Case]) {
    let head = CORPUS.split("\n== ").next().unwrap();
    let mut out = format!("{}\n", head.trim_end());
    for case in cases {
        let answers = said(case).join("\n");
        write!(
            out,
            "\n== {}\n<<<\n{}>>>\n{answers}\n",
            case.kind, case.text
        )
        .unwrap();
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/wrong.txt");
    std::fs::write(path, out).unwrap();
}

/// What a few lines can blow up to is bounded.
#[test]
fn bombs_are_told_and_not_carried_out() {
    let mut aliases = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let before = vec![format!("*a{}", level - 1); 10].join(", ");
        writeln!(aliases, "a{level}: &a{level} [{before}]").unwrap();
    }
    let deep = "[".repeat(100_000);
    let indented: String = (0..200)
        .map(|depth| format!("{}a:\n", " ".repeat(depth)))
        .collect();
    let wide = format!("[{}]", "1,".repeat(1_100_000));
    for (bomb, word) in [
        (aliases, "10 MiB"),
        (deep, "levels deep"),
        (indented, "levels deep"),
        (wide, "values"),
    ] {
        let (policies, problems) = parse("bomb", &bomb);
        assert!(policies.is_empty());
        assert!(
            problems
                .iter()
                .any(|problem| problem.message.contains(word)),
            "{word}: {problems:?}"
        );
    }
}

#[test]
fn a_policy_with_too_many_rules_or_bytes_is_refused() {
    let many = "{path: /a},".repeat(10_001);
    let text = format!(
        "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata: {{name: p, namespace: n}}\nspec: {{process: {{matchPaths: [{many}]}}}}\n"
    );
    let (policies, problems) = parse("f", &text);
    assert!(policies.is_empty());
    assert_eq!(
        problems[0].to_string(),
        "f:4: spec: more than 10000 rules; split the policy"
    );
}
