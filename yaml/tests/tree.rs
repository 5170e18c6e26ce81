//! Any text becomes a tree with places, or problems with places; never a panic, never a full memory.

use proptest::prelude::*;
use yaml::{Node, Severity, parse, parse_bytes};

fn one(text: &str) -> Node {
    let (mut documents, problems) = parse("t.yaml", text);
    assert_eq!(problems, []);
    assert_eq!(documents.len(), 1);
    documents.remove(0)
}

fn complaints(text: &str) -> Vec<String> {
    parse("t.yaml", text)
        .1
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn nodes_know_their_line_column_and_path() {
    let node = one("a:\n  b:\n    - c: 1\n    - d:\n        e.f/g: 2\n");
    let deep = node.get("a.b[1].d[\"e.f/g\"]").unwrap();
    assert_eq!((deep.line(), deep.column()), (5, 16));
    assert_eq!(deep.path(), "a.b[1].d[\"e.f/g\"]");
    assert_eq!(deep.as_str(), Some("2"));
    assert!(node.get("a.b[2]").is_none());
    assert!(node.get("a.c").is_none());
    let problem = node.problem_at("a.b[0].x.y", "gone");
    assert_eq!(problem.to_string(), "t.yaml:3: a.b[0].x.y: gone");
    assert!(node.without("a").entries().next().is_none());
}

#[test]
fn documents_are_told_apart_and_empty_ones_left_out() {
    let (documents, problems) = parse("t.yaml", "---\n# nothing\n---\na: 1\n---\nb: 2\n...\n---\n");
    assert_eq!(problems, []);
    assert_eq!(documents.iter().map(Node::line).collect::<Vec<_>>(), [4, 6]);
    assert_eq!(parse("t.yaml", "").0.len(), 0);
}

#[test]
fn json_is_read_too() {
    let node =
        one("{\n\t\"a\": [1, 2.5, \"x\\/y\\u00e9\", null, true],\n\t\"b\": {\"c\": \"1\"}\n}");
    let values: (Vec<Option<String>>,) = (node
        .get("a")
        .unwrap()
        .read(Severity::Error, &mut Vec::new())
        .unwrap(),);
    assert_eq!(values.0[2].as_deref(), Some("x/yé"));
    assert_eq!(values.0[3], None);
    assert_eq!(node.get("b.c").and_then(Node::as_str), Some("1"));
}

#[test]
fn aliases_and_merge_keys_give_copies_with_their_own_paths() {
    let node = one("base: &b {x: 1, y: 2}\nuse: *b\nmerged:\n  <<: *b\n  y: 3\n");
    assert_eq!(node.get("use.x").map(Node::path).as_deref(), Some("use.x"));
    assert_eq!(node.get("merged.x").and_then(Node::as_str), Some("1"));
    assert_eq!(node.get("merged.y").and_then(Node::as_str), Some("3"));
    assert_eq!(one("\"<<\": 1").key("<<").and_then(Node::as_str), Some("1"));
}

#[test]
fn tags_of_the_core_schema_choose_the_type() {
    let node = one("a: !!str 5\nb: !!int \"5\"\n");
    let mut problems = Vec::new();
    assert_eq!(
        node.get("b")
            .unwrap()
            .read::<u8>(Severity::Error, &mut problems),
        Some(5)
    );
    assert_eq!(
        node.get("a")
            .unwrap()
            .read::<u8>(Severity::Error, &mut problems),
        None
    );
    assert_eq!(
        complaints("a: !thing 5"),
        ["t.yaml:1: the tag `!thing` means nothing here; remove it"]
    );
}

#[test]
fn what_cannot_be_read_is_said_with_its_line() {
    assert_eq!(
        complaints("a: 1\nb: 2\na: 3\n"),
        ["t.yaml:3: `a` is given twice (first on line 1); keep one"]
    );
    assert_eq!(
        complaints("? [x]\n: 1\n"),
        ["t.yaml:1: a key must be one word, not a list or mapping; quote it if it is text"]
    );
    assert!(complaints("a: [1, 2\nb: 3\n")[0].starts_with("t.yaml:2: this is not YAML: "));
    assert!(complaints("a: *nobody\n")[0].contains("unknown anchor"));
    assert_eq!(
        complaints("a: &x [*x]\n"),
        ["t.yaml:1: this alias stands inside the value that it names; write the value out"]
    );
    let (documents, problems) = parse_bytes("t.yaml", b"a: 1\nb: \xff\n");
    assert!(documents.is_empty());
    assert_eq!(
        problems[0].to_string(),
        "t.yaml:2: this is not UTF-8 text; save the file as UTF-8"
    );
}

#[test]
fn documents_before_a_broken_one_are_kept() {
    let (documents, problems) = parse("t.yaml", "a: 1\n---\nb: [\n");
    assert_eq!(documents.len(), 1);
    assert_eq!(problems.len(), 1);
}

#[test]
fn bombs_are_problems() {
    for deep in [
        "[".repeat(100),
        "[".repeat(5000),
        "- ".repeat(100),
        "{a: ".repeat(100),
    ] {
        let found = complaints(&deep);
        assert_eq!(
            found,
            ["t.yaml:1: nested more than 64 levels deep; flatten the document"]
        );
    }

    let mut laughs = String::from("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
    for n in 1..9 {
        let before = format!("*a{}", n - 1);
        laughs += &format!("a{n}: &a{n} [{}]\n", [before.as_str(); 9].join(", "));
    }
    let found = complaints(&laughs);
    assert_eq!(found.len(), 1);
    assert!(
        found[0].ends_with("expand to more than 10 MiB; use fewer"),
        "{found:?}"
    );

    let nested: String = (0..60).map(|n| format!("&n{n} [")).collect();
    let wide = format!("{nested}{}{}", "x, ".repeat(20_000), "]".repeat(60));
    assert!(complaints(&wide)[0].ends_with("expand to more than 10 MiB; use fewer"));
}

fn yamlish() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("a".to_owned()),
        Just("b: ".to_owned()),
        Just("- ".to_owned()),
        Just("\n".to_owned()),
        Just("\n  ".to_owned()),
        Just("\t".to_owned()),
        Just("\r\n".to_owned()),
        Just("[".to_owned()),
        Just("]".to_owned()),
        Just("{".to_owned()),
        Just("}".to_owned()),
        Just(", ".to_owned()),
        Just("? ".to_owned()),
        Just(": ".to_owned()),
        Just("&x ".to_owned()),
        Just("*x".to_owned()),
        Just("<<: ".to_owned()),
        Just("!!str ".to_owned()),
        Just("!e!x ".to_owned()),
        Just("%TAG !e! x\n".to_owned()),
        Just("%YAML 1.2\n".to_owned()),
        Just("|+2\n".to_owned()),
        Just(">-\n".to_owned()),
        Just("\"".to_owned()),
        Just("'".to_owned()),
        Just("\\u12".to_owned()),
        Just("#c\n".to_owned()),
        Just("---\n".to_owned()),
        Just("...\n".to_owned()),
        Just("\u{85}\u{2028}é".to_owned()),
        Just("~".to_owned()),
        Just("1e5".to_owned()),
        any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_bytes("f", &bytes);
    }

    #[test]
    fn no_yaml_panics_and_every_problem_has_a_line(text in yamlish()) {
        let (documents, problems) = parse("f", &text);
        let lines = text.lines().count() as u32 + 2;
        for problem in &problems {
            prop_assert!((1..=lines + 4).contains(&problem.line), "{problem} in {text:?}");
        }
        for node in &documents {
            let mut problems = Vec::new();
            let _ = node.read::<std::collections::BTreeMap<String, Vec<u8>>>(Severity::Error, &mut problems);
        }
    }

    #[test]
    fn every_node_is_found_at_its_own_path(text in yamlish()) {
        let (documents, _) = parse("f", &text);
        for root in &documents {
            let mut open = vec![root];
            while let Some(node) = open.pop() {
                let keys = node.entries().any(|(key, _)| key.contains(['"', '\\']) || key.chars().any(|c| c.is_control() || !c.is_ascii()));
                if keys { continue; }
                let found = root.get(&node.path());
                prop_assert!(found.is_some_and(|found| std::ptr::eq(found, node)), "{}", node.path());
                open.extend(node.items());
                open.extend(node.entries().map(|(_, value)| value));
            }
        }
    }
}
