//! What messages look like, byte for byte, and that nothing in an event can break out of its field.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proto::feeder;

use super::*;
use crate::fixtures::{batch_of, broken};

fn sink(format: &str) -> Syslog {
    let text = format!("{{type: syslog, address: '127.0.0.1:514', format: {format}}}");
    let (nodes, mut problems) = yaml::parse("c.yaml", &text);
    let config = crate::SinkConfig::read(&nodes[0], yaml::Severity::Error, &mut problems);
    assert_eq!(problems, []);
    match config {
        Some(crate::SinkConfig::Syslog(config)) => {
            Syslog::build("siem", &config, &Context::default()).unwrap()
        }
        other => panic!("{other:?}"),
    }
}

fn alert() -> feeder::Alert {
    feeder::Alert {
        updated_time: "2026-01-01T00:00:00.123456Z".into(),
        host_name: "node a".into(),
        namespace_name: "shop".into(),
        pod_name: "ca]rt\"\\".into(),
        policy_name: "no|apt=x".into(),
        severity: "8".into(),
        r#type: "MatchedPolicy".into(),
        operation: "Network".into(),
        resource: "remoteip=10.0.0.7 port=443\tx\\y\n\0".into(),
        action: "Block".into(),
        ..Default::default()
    }
}

fn written(format: &str) -> String {
    written_of(format, alert())
}

fn written_of(format: &str, alert: feeder::Alert) -> String {
    let batch = batch_of([alert]);
    String::from_utf8(sink(format).message(&batch.events()[0]).unwrap()).unwrap()
}

const HEADER: &str = "<107>1 2026-01-01T00:00:00.123456Z node_a cresset - alert [cresset@32473 \
    id=\"66697874757265730000000000000001\" kind=\"Alert\" namespace=\"shop\" pod=\"ca\\]rt\\\"\\\\\" policy=\"no|apt=x\"] ";

#[test]
fn the_header_is_that_of_rfc_5424_and_json_follows() {
    let message = written("json");
    let json = message
        .strip_prefix(HEADER)
        .unwrap_or_else(|| panic!("{message}"));
    let value: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!(value["PodName"], "ca]rt\"\\");
    assert_eq!(value["Resource"], alert().resource);
}

#[test]
fn cef_escapes_what_parts_its_header_and_its_values() {
    let message = written("cef");
    let cef = message.strip_prefix(HEADER).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        cef,
        format!(
            "CEF:0|Cresset|Cresset|{version}|MatchedPolicy|no\\|apt=x: Block Network|8|rt=1767225600123 \
             externalId=66697874757265730000000000000001 dvchost=node a cat=Network act=Block dst=10.0.0.7 \
             request=remoteip\\=10.0.0.7 port\\=443\\tx\\\\y\\n\\x00 cs1Label=policy cs1=no|apt\\=x cs2Label=namespace \
             cs2=shop cs3Label=pod cs3=ca]rt\"\\\\"
        )
    );
}

#[test]
fn leef_keeps_its_attributes_apart_by_tabs_that_no_value_has() {
    let message = written("leef");
    let leef = message.strip_prefix(HEADER).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        leef,
        format!(
            "LEEF:2.0|Cresset|Cresset|{version}|MatchedPolicy|x09|devTime=1767225600123\tsev=8\tcat=Network\t\
             eventId=66697874757265730000000000000001\tidentHostName=node a\tdst=10.0.0.7\taction=Block\t\
             policy=no|apt=x\tresource=remoteip=10.0.0.7 port=443\\tx\\\\y\\n\\x00\tnamespace=shop\tpod=ca]rt\"\\\\"
        )
    );
}

#[test]
fn the_other_end_is_the_source_of_what_is_accepted_and_the_parent_that_of_a_program() {
    let accepted = || feeder::Alert {
        resource: "remoteip=10.0.0.7 port=443 protocol=TCP".into(),
        data: "kprobe=tcp_accept domain=AF_INET".into(),
        ..alert()
    };
    let cef = written_of("cef", accepted());
    assert!(
        cef.contains(" src=10.0.0.7 spt=443 ") && !cef.contains(" dst="),
        "{cef}"
    );
    let leef = written_of("leef", accepted());
    assert!(leef.contains("\tsrc=10.0.0.7\tsrcPort=443\t"), "{leef}");
    let started = feeder::Alert {
        operation: "Process".into(),
        resource: "/usr/bin/apt update".into(),
        process_name: "/usr/bin/apt".into(),
        parent_process_name: "/bin/sh".into(),
        ..alert()
    };
    let cef = written_of("cef", started);
    assert!(
        cef.contains(" sproc=/bin/sh dproc=/usr/bin/apt update "),
        "{cef}"
    );
}

#[test]
fn text_stays_on_its_line() {
    let message = written("text");
    assert!(!message.contains(['\n', '\0', '\t']), "{message:?}");
    assert!(
        message.contains("no|apt=x: Block Network remoteip=10.0.0.7 port=443\\tx\\\\y\\n\\x00")
    );
}

/// Names and values of structured data, and what follows it, read as RFC 5424 says and `#nnn` as octal.
fn structured(message: &str) -> (BTreeMap<String, String>, &str) {
    let parts: Vec<&str> = message.splitn(7, ' ').collect();
    let (_, mut rest) = parts[6].split_once(' ').unwrap();
    let mut values = BTreeMap::new();
    loop {
        let (name, quoted) = rest.split_once("=\"").unwrap();
        let (mut value, mut escape, mut end) = (String::new(), false, 0);
        for (at, c) in quoted.char_indices() {
            match (escape, c) {
                (false, '\\') => escape = true,
                (false, '"') => {
                    end = at;
                    break;
                }
                _ => {
                    value.push(c);
                    escape = false;
                }
            }
        }
        values.insert(name.to_owned(), octal(&value));
        rest = &quoted[end + 1..];
        match rest.strip_prefix("] ") {
            Some(message) => return (values, message),
            None => rest = rest.strip_prefix(' ').unwrap(),
        }
    }
}

fn octal(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        let digits = rest.get(..3).filter(|_| c == '#');
        match digits.and_then(|digits| u32::from_str_radix(digits, 8).ok()) {
            Some(code) => {
                out.push(char::from_u32(code).unwrap());
                rest = &rest[3..];
            }
            None => out.push(c),
        }
    }
    out
}

/// The parts between unescaped `by`, at most so many; the last one with all that follows.
fn parted(text: &str, by: char, most: usize) -> Vec<String> {
    let (mut parts, mut escape) = (vec![String::new()], false);
    for c in text.chars() {
        if c == by && !escape && parts.len() < most {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(c);
        }
        escape = c == '\\' && !escape;
    }
    parts
}

fn plain(text: &str) -> String {
    let (mut out, mut chars) = (String::new(), text.chars());
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (c, false) => out.push(c),
            _ => match chars.next().unwrap() {
                'n' => out.push('\n'),
                'r' => out.push('\r'),
                't' => out.push('\t'),
                'x' => {
                    let code: String = chars.by_ref().take(2).collect();
                    let code = u32::from_str_radix(&code, 16).unwrap();
                    out.push(char::from_u32(code).unwrap());
                }
                other => out.push(other),
            },
        }
    }
    out
}

/// A CEF extension: a key is a word before an unescaped `=`, and its value ends before the next one.
fn extension(text: &str) -> BTreeMap<String, String> {
    let parts = parted(text, '=', usize::MAX);
    let mut values = BTreeMap::new();
    let mut key = parts[0].clone();
    for (at, part) in parts.iter().enumerate().skip(1) {
        let last = at + 1 == parts.len();
        let (value, next) = match part.rsplit_once(' ') {
            Some((value, next)) if !last => (value, next),
            _ => (&part[..], ""),
        };
        values.insert(key, plain(value));
        key = next.to_owned();
    }
    values
}

/// Texts of all that parts, escapes or ends something anywhere.
fn hostile() -> impl Strategy<Value = String> {
    const PIECES: [&str; 22] = [
        "|", "\\", "=", "]", "\"", "#", "\n", "\r", "\t", "\0", "\u{1b}", "\u{7f}", "\u{85}", " ",
        "0", "12", "777", "n", "x0a", " act=", "é", "CEF:0|",
    ];
    prop::collection::vec(prop::sample::select(&PIECES[..]), 0..8)
        .prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn whatever_an_event_says_a_receiver_reads_what_it_said(
        texts in prop::array::uniform7(hostile()),
    ) {
        let [policy, namespace, pod, cluster, labels, action, type_] = texts;
        let event = || feeder::Alert {
            policy_name: policy.clone(),
            namespace_name: namespace.clone(),
            pod_name: pod.clone(),
            cluster_name: cluster.clone(),
            labels: labels.clone(),
            action: action.clone(),
            r#type: type_.clone(),
            ..Default::default()
        };
        let type_ = if type_.is_empty() { "Alert" } else { &type_ };
        let said = |names: [&'static str; 6], upto: usize| {
            let texts = [&policy, &namespace, &pod, &cluster, &labels, &action];
            let pairs = names.into_iter().zip(texts).take(upto);
            let there = pairs.filter(|(_, text)| !text.is_empty());
            there.map(|(name, text)| (name, text.clone())).collect::<Vec<_>>()
        };
        let holds = |read: &BTreeMap<String, String>, said: Vec<(&str, String)>| {
            for (name, text) in said {
                prop_assert_eq!(read.get(name), Some(&text), "{}", name);
            }
            Ok(())
        };

        let message = written_of("cef", event());
        prop_assert!(!message.contains(char::is_control));
        let (data, cef) = structured(&message);
        holds(&data, said(["policy", "namespace", "pod", "cluster", "", ""], 4))?;
        let head = parted(cef, '|', 8);
        prop_assert_eq!(plain(&head[4]), type_);
        let read = extension(&head[7]);
        holds(&read, said(["cs1", "cs2", "cs3", "cs6", "cs5", "act"], 6))?;

        let message = written_of("leef", event());
        prop_assert!(!message.replace('\t', "").contains(char::is_control));
        let (_, leef) = structured(&message);
        let head = parted(leef, '|', 7);
        prop_assert_eq!(plain(&head[4]), type_);
        let pairs = head[6].split('\t').map(|pair| pair.split_once('=').unwrap());
        let read = pairs.map(|(name, value)| (name.to_owned(), plain(value))).collect();
        holds(&read, said(["policy", "namespace", "pod", "cluster", "labels", "action"], 6))?;
    }
}

#[test]
fn an_event_that_cannot_be_read_is_told_in_every_format() {
    for format in ["json", "cef", "leef", "text"] {
        let batch = batch_of([broken()]);
        let why = sink(format).message(&batch.events()[0]).unwrap_err();
        assert!(why.contains("Alert"), "{why}");
    }
}

#[test]
fn addresses_are_a_host_and_a_port() {
    let read = |text: &str| host_and_port(text);
    assert_eq!(read("siem:514"), Some(("siem".into(), 514)));
    assert_eq!(read("[::1]:6514"), Some(("::1".into(), 6514)));
    for bad in ["siem", "siem:", ":514", "::1:514", "siem:0", "siem:99999"] {
        assert_eq!(read(bad), None, "{bad}");
    }
}
