//! What messages look like, byte for byte, and that nothing in an event can break out of its field.

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
