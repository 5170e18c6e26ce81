//! Everything wrong is found at once, each at its own line, and told in words that help.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use yaml::{Severity, Size, Span, parse};

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
struct Config {
    version: u8,
    name: String,
    quiet: bool,
    level: Option<Level>,
    max_size: Size,
    max_age: Span,
    labels: BTreeMap<String, String>,
    listen: Listen,
    rules: Vec<Rule>,
    sinks: BTreeMap<String, Sink>,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Listen {
    feed: String,
    port: u16,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Low,
    High,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    path: String,
    #[serde(default)]
    recursive: bool,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Sink {
    Stdout(Stdout),
    File(File),
}
yaml::tagged! { Sink { "stdout" => Stdout, "file" => File } }

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Stdout {}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    path: String,
    #[serde(default)]
    keep: u32,
}

fn read(text: &str) -> (Option<Config>, Vec<String>) {
    let (documents, mut problems) = parse("c.yaml", text);
    let value = documents
        .first()
        .and_then(|node| node.read(Severity::Error, &mut problems));
    (value, problems.iter().map(ToString::to_string).collect())
}

fn problems(text: &str) -> Vec<String> {
    read(text).1
}

#[test]
fn a_good_file_reads_without_a_word() {
    let (config, problems) = read(concat!(
        "version: 1\nname: 12.50\nquiet: yes\nlevel: high\nmaxSize: 20GiB\nmaxAge: 1h30m\n",
        "labels: {app: web, port: 80, on: true}\nlisten: {feed: '127.0.0.1:1', port: 0x50}\n",
        "rules:\n  - path: /a\n    recursive: true\n",
        "sinks:\n  a: {type: stdout}\n  b: {type: file, path: /x, keep: 3}\n",
    ));
    assert_eq!(problems, Vec::<String>::new());
    let config = config.unwrap();
    assert_eq!(config.name, "12.50");
    assert_eq!(config.labels["port"], "80");
    assert_eq!(config.listen.port, 80);
    assert!(config.quiet);
    assert_eq!(config.level, Some(Level::High));
    assert_eq!(config.max_size, Size(20 << 30));
    assert_eq!(
        config.sinks["b"],
        Sink::File(File {
            path: "/x".into(),
            keep: 3
        })
    );
}

#[test]
fn all_problems_are_found_in_one_reading() {
    let (config, found) = read(concat!(
        "version: 300\n",        // 1
        "nmae: x\n",             // 2
        "quiet: maybe\n",        // 3
        "level: hihg\n",         // 4
        "maxSize: 5 bananas\n",  // 5
        "listen:\n",             // 6
        "  port: \"80\"\n",      // 7
        "  feed: [a]\n",         // 8
        "rules:\n",              // 9
        "  - recursive: true\n", // 10
        "  - path: /ok\n",       // 11
        "  - path: {a: b}\n",    // 12
        "sinks:\n",              // 13
        "  a: {type: stdut}\n",  // 14
        "  b: {path: /x}\n",     // 15
        "  c:\n",                // 16
        "    type: file\n",      // 17
        "    path: /x\n",        // 18
        "    keep: lots\n",      // 19
        "    rotate: 1\n",       // 20
    ));
    assert_eq!(
        found,
        [
            "c.yaml:1: version: expected a whole number from 0 to 255, found the number 300",
            "c.yaml:2: nmae: unknown field `nmae`; did you mean `name`?",
            "c.yaml:3: quiet: expected true or false, found the text `maybe`",
            "c.yaml:4: level: unknown value `hihg`; did you mean `high`? (allowed: `low`, `high`)",
            "c.yaml:5: maxSize: `5 bananas` is not a size; write a number of bytes or as in `64k`, `8MiB`, `20GiB`",
            "c.yaml:7: listen.port: expected a whole number from 0 to 65535, found the text `80`; remove the quotes",
            "c.yaml:8: listen.feed: expected text, found a list",
            "c.yaml:10: rules[0]: `path` is missing; add it",
            "c.yaml:12: rules[2].path: expected text, found a mapping",
            "c.yaml:14: sinks.a.type: unknown value `stdut`; did you mean `stdout`? (allowed: `stdout`, `file`)",
            "c.yaml:15: sinks.b: `type` is missing; add one of `stdout`, `file`",
            "c.yaml:19: sinks.c.keep: expected a whole number, 0 or more, found the text `lots`",
            "c.yaml:20: sinks.c.rotate: unknown field `rotate`; allowed here: `path`, `keep`",
        ]
    );
    let config = config.unwrap();
    assert_eq!(
        config.rules,
        [Rule {
            path: "/ok".into(),
            recursive: false
        }]
    );
}

#[test]
fn an_empty_value_is_an_absent_one() {
    let (config, found) = read("version: 1\nlisten:\nrules:\nname: ~\nlabels:\nlevel:\n");
    assert_eq!(found, Vec::<String>::new());
    assert_eq!(
        config,
        Some(Config {
            version: 1,
            ..Config::default()
        })
    );
    assert_eq!(
        problems("rules:\n  - recursive: true\n    path:\n"),
        ["c.yaml:3: rules[0].path: `path` has no value; give it one"]
    );
    assert_eq!(
        problems("listen: {fed: }"),
        ["c.yaml:1: listen.fed: unknown field `fed`; did you mean `feed`?"]
    );
}

#[test]
fn a_root_of_the_wrong_shape_reads_as_nothing() {
    let (config, found) = read("- a\n- b\n");
    assert_eq!(config, None);
    assert_eq!(
        found,
        ["c.yaml:1: expected a mapping (`key: value`), found a list"]
    );
}

#[test]
fn unknown_fields_can_be_warnings_and_the_rest_still_reads() {
    let (documents, mut problems) = parse("p.yaml", "version: 2\nextra: {a: 1}\n");
    let config: Option<Config> = documents[0].read(Severity::Warning, &mut problems);
    assert_eq!(config.map(|config| config.version), Some(2));
    assert_eq!(problems.len(), 1);
    assert!(!problems[0].is_error());
}

#[test]
fn hundreds_of_problems_end_in_a_plea() {
    let text: String = (0..300).map(|n| format!("wrong{n}: 1\n")).collect();
    let found = problems(&text);
    assert_eq!(found.len(), 101);
    assert_eq!(
        found[100],
        "c.yaml:1: more than 100 problems; mend those first"
    );
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
enum Buffered {
    File { path: String, keep: u32 },
}

#[derive(Debug, PartialEq, Deserialize)]
struct Flat {
    name: String,
    #[serde(flatten)]
    rest: BTreeMap<String, u32>,
}

#[test]
fn types_that_serde_buffers_still_get_their_lines() {
    let read = |text: &str| {
        let (documents, mut problems) = parse("c.yaml", text);
        let value: Option<BTreeMap<String, Buffered>> =
            documents[0].read(Severity::Error, &mut problems);
        assert!(value.is_some(), "{problems:?}");
        problems.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        read("a:\n  type: file\n  path: /x\n  keep: lots\n"),
        ["c.yaml:4: a.keep: expected a whole number, 0 or more, found the text `lots`"]
    );
    assert_eq!(
        read("a:\n  type: file\n  path: /x\n  keep: 1\n  kep: 2\n"),
        ["c.yaml:5: a.kep: unknown field `kep`; did you mean `keep`?"]
    );
    let (documents, mut problems) = parse("c.yaml", "- name: x\n  a: 1\n  b: two\n");
    let value: Option<Vec<Flat>> = documents[0].read(Severity::Error, &mut problems);
    assert_eq!(value.map(|flat| flat[0].rest.len()), Some(1));
    assert_eq!(
        problems[0].to_string(),
        "c.yaml:3: [0].b: expected a whole number, 0 or more, found the text `two`"
    );
}

#[test]
fn the_environment_overrides_and_is_named_when_wrong() {
    let (mut documents, mut problems) = parse(
        "c.yaml",
        "listen: {feed: a, port: 1}\nrules: [{path: /a}]\n",
    );
    let node = &mut documents[0];
    node.set(&["listen", "port"], "9000");
    node.set(&["labels", "app"], "web");
    node.set(&["rules", "0", "recursive"], "true");
    node.set(&["sinks", "out"], "{type: file, path: /x}");
    let config: Config = node.read(Severity::Error, &mut problems).unwrap();
    assert_eq!(problems, []);
    assert_eq!(
        config.listen,
        Listen {
            feed: "a".into(),
            port: 9000
        }
    );
    assert_eq!(config.labels["app"], "web");
    assert_eq!(
        config.rules,
        [Rule {
            path: "/a".into(),
            recursive: true
        }]
    );
    assert_eq!(
        config.sinks["out"],
        Sink::File(File {
            path: "/x".into(),
            keep: 0
        })
    );

    node.set(&["listen", "port"], "many");
    let _: Option<Config> = node.read(Severity::Error, &mut problems);
    assert_eq!(
        problems[0].to_string(),
        "environment: listen.port: expected a whole number from 0 to 65535, found the text `many`"
    );
}

#[test]
fn a_value_survives_the_way_out_and_back() {
    let config = Config {
        version: 3,
        max_size: Size(1 << 20),
        level: Some(Level::Low),
        sinks: BTreeMap::from([(
            "a".into(),
            Sink::File(File {
                path: "/x".into(),
                keep: 1,
            }),
        )]),
        ..Config::default()
    };
    let text = serde_json::to_string(&config).unwrap();
    assert_eq!(read(&text), (Some(config), Vec::new()));
}
