//! The examples of docs/policy.md do what stands behind their arrows.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests: a failure here is the test's"
)]

mod support;

use std::collections::BTreeMap;

use policy::{
    Act, Connection, Device, Direction, Effective, Enforced, Node, Operation, Packet, Posture,
    Rules, Set, Transport, Verdict, decide, select_node,
};
use support::*;

const DOCS: &str = include_str!("../../docs/policy.md");

/// The fenced blocks of a page: what kind, which line, what is in them.
fn blocks(page: &str) -> Vec<(String, usize, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, usize, String)> = None;
    for (line, text) in (1..).zip(page.lines()) {
        match (&mut open, text.strip_prefix("```")) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some((_, _, body)), None) => {
                body.push_str(text);
                body.push('\n');
            }
            (None, Some(kind)) => open = Some((kind.to_owned(), line + 1, String::new())),
            (None, None) => {}
        }
    }
    blocks
}

fn rules_of(text: &str) -> Rules {
    if text.contains("nodeSelector") {
        return rules(&node_a(&set_under(&blocking(), &[text.to_owned()])));
    }
    let whole = if text.contains("apiVersion") {
        text.to_owned()
    } else {
        shop("example", text)
    };
    rules(&cart(&set_under(&blocking(), &[whole])))
}

fn node_a(set: &Set) -> Effective {
    let node = Node {
        hostname: "node-a".to_owned(),
        labels: BTreeMap::new(),
    };
    select_node(set, &node, NOW)
}

fn operation(words: &str) -> Operation {
    let mut words = words.split_whitespace();
    let (verb, what) = (words.next().unwrap(), words.next().unwrap());
    let mut operation = match verb {
        "exec" => Operation::exec(what),
        "read" => Operation::read(what),
        "write" => Operation::write(what),
        "lookup" => Operation::lookup(what),
        "capability" => capability(what),
        "syscall" => syscall(what),
        "socket" if what == "tcp" => Operation::socket(1, 6),
        "socket" if what == "raw" => Operation::socket(3, 255),
        "connect" => connect(what, words.next().unwrap()),
        "plug" => plug(what),
        "packet" => packet(what, words.next().unwrap()),
        other => panic!("unknown verb {other}"),
    };
    let mut rest: Vec<&str> = words.collect();
    if let Some(at) = rest.iter().position(|word| *word == "with") {
        operation = operation.args(rest.split_off(at).into_iter().skip(1));
    }
    let mut rest = rest.into_iter();
    while let Some(word) = rest.next() {
        operation = match word {
            "by" => operation.from(rest.next().unwrap()),
            "owner" => operation.owner(true),
            "other" => operation.owner(false),
            "terminal" => operation.terminal(true),
            "no-terminal" => operation.terminal(false),
            "pid" => operation.pid(rest.next().unwrap().parse().unwrap()),
            "as" => named(operation, rest.next().unwrap()),
            "on" => acting(operation, rest.next().unwrap()),
            other => panic!("unknown word {other}"),
        };
    }
    operation
}

fn connect(transport: &str, address: &str) -> Operation {
    let (address, port) = address.rsplit_once(':').unwrap();
    Operation::of(Act::Connect(Connection {
        direction: Direction::Egress,
        transport: Transport::of(transport).unwrap(),
        address: address.parse().unwrap(),
        port: port.parse().unwrap(),
        names: Vec::new(),
    }))
}

/// A device as `class/subclass/protocol/level`.
fn plug(what: &str) -> Operation {
    let numbers: Vec<u8> = what.split('/').map(|part| part.parse().unwrap()).collect();
    let [class, sub_class, protocol, level] = numbers[..] else {
        panic!("{what}");
    };
    Operation::of(Act::Device(Device {
        class,
        sub_class,
        protocol,
        level: level.into(),
    }))
}

fn packet(transport: &str, address: &str) -> Operation {
    let (address, port) = address.rsplit_once(':').unwrap();
    Operation::of(Act::Packet(Packet {
        direction: Direction::Egress,
        transport: Transport::of(transport).unwrap(),
        address: address.parse().unwrap(),
        port: port.parse().unwrap(),
        interface: "eth0".to_owned(),
        used: None,
    }))
}

fn named(mut operation: Operation, name: &str) -> Operation {
    if let Act::Connect(connection) = &mut operation.act {
        connection.names.push(name.to_owned());
    }
    operation
}

fn acting(mut operation: Operation, on: &str) -> Operation {
    if let Act::Syscall { path, .. } = &mut operation.act {
        *path = Some(on.to_owned());
    }
    operation
}

fn word<R>(enforced: &Enforced<R>) -> &'static str {
    match enforced {
        Enforced::Nothing => "pass",
        Enforced::Allow(_) => "allow",
        Enforced::Block(_) => "block",
        Enforced::Posture(Posture::Block) => "posture block",
        Enforced::Posture(Posture::Audit) => "posture audit",
    }
}

fn words<R>(verdict: &Verdict<R>) -> String {
    if let Some(condition) = verdict.doubt() {
        return format!("unknown {}", condition.name());
    }
    let mut words = word(&verdict.enforced).to_owned();
    if verdict.audit.is_some() {
        words += ", told";
    }
    if let Some(shadow) = &verdict.shadow {
        words += &format!(", would {}", word(shadow));
    }
    words
}

#[test]
fn every_example_of_the_page_means_what_it_says() {
    let mut rules = None;
    let (mut policies, mut verdicts, mut wrong) = (0, 0, Vec::new());
    for (kind, first, body) in blocks(DOCS) {
        match kind.as_str() {
            "yaml" => {
                policies += 1;
                rules = Some(rules_of(&body));
            }
            "verdicts" => {
                for (line, text) in (first..).zip(body.lines()) {
                    verdicts += 1;
                    let (asked, meant) = text.split_once('→').unwrap();
                    let verdict = decide(rules.as_ref().unwrap(), &operation(asked));
                    if words(&verdict) != meant.trim() {
                        wrong.push(format!("line {line}: {text}: {}", words(&verdict)));
                    }
                }
            }
            other => panic!("line {first}: a block of kind {other:?} that nobody runs"),
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(
        policies >= 15 && verdicts >= 50,
        "the page has lost its examples"
    );
}
