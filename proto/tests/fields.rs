//! The field table is the `.proto` files, number by number and in their order, and every field prints.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failing helper fails the test"
)]

mod support;

use std::collections::BTreeSet;

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};
use proto::feeder::{Alert, Audit, ExecEvent, Log, Lost, Message, Podowner};
use proto::fields::{self, Field, FieldType, IndexType, Table};
use proto::{FieldSet, Kind};
use support::written;

fn feeder() -> Vec<DescriptorProto> {
    let set = FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET).unwrap();
    set.file
        .into_iter()
        .find(|file| file.package() == "feeder")
        .unwrap()
        .message_type
}

fn described(name: &str) -> DescriptorProto {
    feeder()
        .into_iter()
        .find(|message| message.name() == name)
        .unwrap()
}

/// What the table must say of a field's type.
fn type_of(field: &FieldDescriptorProto) -> String {
    let repeated = field.label() == Label::Repeated;
    match (field.r#type(), repeated, field.proto3_optional()) {
        (Type::String, false, false) => "Text".into(),
        (Type::String, true, false) => "TextList".into(),
        (Type::Message, true, false) if field.type_name().ends_with("EventDataEntry") => {
            "TextMap".into()
        }
        (Type::Message, false, false) => {
            format!(
                "Message of {:?}",
                shape(&described(field.type_name().rsplit('.').next().unwrap()))
            )
        }
        (Type::Int32, false, false) => "Int32".into(),
        (Type::Int64, false, false) => "Int64".into(),
        (Type::Uint32, false, false) => "Uint32".into(),
        (Type::Uint32, false, true) => "OptionalUint32".into(),
        (Type::Uint64, false, false) => "Uint64".into(),
        (Type::Fixed64, false, false) => "Name64".into(),
        (Type::Bytes, false, false) => "Bytes".into(),
        other => panic!(
            "{}: the field table has no type for {other:?}",
            field.name()
        ),
    }
}

fn shape(message: &DescriptorProto) -> Vec<(i32, String, String)> {
    let field =
        |field: &FieldDescriptorProto| (field.number(), field.name().to_owned(), type_of(field));
    message.field.iter().map(field).collect()
}

fn shape_of_table(fields: &[Field]) -> Vec<(i32, String, String)> {
    let ty = |ty: FieldType| match ty {
        FieldType::Message(table) => format!("Message of {:?}", shape_of_table(table.fields())),
        other => format!("{other:?}"),
    };
    fields
        .iter()
        .map(|field| (field.number as i32, field.name.to_owned(), ty(field.ty)))
        .collect()
}

#[test]
fn the_tables_are_the_proto_files_in_declaration_order() {
    for kind in Kind::ALL {
        assert_eq!(
            shape_of_table(fields::of(kind)),
            shape(&described(kind.name())),
            "{kind}"
        );
    }
}

#[test]
fn ours_are_the_fields_from_100_and_only_the_two_ids_print_when_zero() {
    for kind in Kind::ALL {
        for field in fields::of(kind) {
            assert_eq!(field.ours, field.number >= 100, "{kind} {}", field.name);
            let kept = matches!(field.name, "PPID" | "UID");
            assert_eq!(field.keep_zero, kept, "{kind} {}", field.name);
        }
    }
}

fn tables() -> Vec<&'static Table> {
    let mut tables: Vec<&Table> = Kind::ALL.map(fields::table).to_vec();
    for kind in Kind::ALL {
        for field in fields::of(kind) {
            if let FieldType::Message(nested) = field.ty {
                tables.push(nested);
            }
        }
    }
    tables
}

#[test]
fn fields_are_found_by_number_and_by_name() {
    for table in tables() {
        for field in table.fields() {
            assert_eq!(table.by_number(field.number).unwrap().name, field.name);
            assert_eq!(table.by_name(field.name).unwrap().number, field.number);
        }
        for absent in [0, 99, 105, 121, 127, 128, u32::MAX] {
            assert!(table.by_number(absent).is_none());
        }
        assert!(table.by_name("podname").is_none());
    }
}

#[test]
fn a_field_means_the_same_in_every_message_and_no_two_share_a_name() {
    for table in tables() {
        let names: BTreeSet<_> = table.fields().iter().map(|field| field.otel).collect();
        assert_eq!(names.len(), table.fields().len());
        for field in table.fields() {
            assert!(
                field.meaning.ends_with('.') && field.meaning.len() > 8,
                "{}",
                field.name
            );
        }
    }
    for alert in fields::of(Kind::Alert) {
        if let Some(log) = fields::table(Kind::Log).by_name(alert.name) {
            assert_eq!(
                (alert.otel, alert.index, alert.meaning),
                (log.otel, log.index, log.meaning)
            );
        }
    }
}

#[test]
fn an_index_can_hold_what_a_field_holds() {
    for field in tables().into_iter().flat_map(Table::fields) {
        let fits = match field.ty {
            FieldType::Text | FieldType::TextList | FieldType::Name64 | FieldType::Bytes => {
                matches!(
                    field.index,
                    IndexType::Keyword
                        | IndexType::KeywordText
                        | IndexType::KeywordNumber
                        | IndexType::Text
                        | IndexType::Date
                )
            }
            FieldType::TextMap => field.index == IndexType::Flattened,
            FieldType::Int32 => field.index == IndexType::Integer,
            FieldType::Int64 => field.index == IndexType::DateSeconds,
            FieldType::Uint32 | FieldType::OptionalUint32 => field.index == IndexType::Long,
            FieldType::Uint64 => field.index == IndexType::UnsignedLong,
            FieldType::Message(_) => field.index == IndexType::Object,
        };
        assert!(fits, "{} {:?} {:?}", field.name, field.ty, field.index);
    }
}

/// Every field once, none zero. Written without `..`, so a new field does not compile until it is here.
fn full_alert() -> Alert {
    Alert {
        timestamp: 1,
        updated_time: "a".into(),
        cluster_name: "b".into(),
        host_name: "c".into(),
        namespace_name: "d".into(),
        owner: Some(owner()),
        pod_name: "e".into(),
        labels: "f".into(),
        container_id: "g".into(),
        container_name: "h".into(),
        container_image: "i".into(),
        host_ppid: 2,
        host_pid: 3,
        ppid: 4,
        pid: 5,
        uid: -6,
        parent_process_name: "j".into(),
        process_name: "k".into(),
        policy_name: "l".into(),
        severity: "m".into(),
        tags: "n".into(),
        a_tags: vec!["o".into(), String::new()],
        message: "p".into(),
        r#type: "MatchedPolicy".into(),
        source: "q".into(),
        operation: "r".into(),
        resource: "s".into(),
        data: "t".into(),
        event_data: [("u".into(), "v".into())].into(),
        enforcer: "w".into(),
        action: "x".into(),
        result: "y".into(),
        cwd: "z".into(),
        tty: "A".into(),
        max_alerts_per_sec: 7,
        dropping_alerts_interval: 8,
        exec_event: Some(exec_event()),
        kube_armor_version: "B".into(),
        node_id: "C".into(),
        process_hash: "D".into(),
        parent_hash: "E".into(),
        resource_hash: "F".into(),
        hash_algo: "G".into(),
        user_name: "H".into(),
        event_id: vec![9; 16],
        args: vec!["I".into()],
        access_mask: 10,
        owner_uid: Some(0),
        source_image: "J".into(),
        truncated: 11,
        display_only: 12,
        exec_id: 13,
        parent_exec_id: 14,
        rule_id: 15,
        tier: 16,
        policy_digest: vec![17; 32],
    }
}

fn full_log() -> Log {
    Log {
        timestamp: 1,
        updated_time: "a".into(),
        cluster_name: "b".into(),
        host_name: "c".into(),
        namespace_name: "d".into(),
        owner: Some(owner()),
        pod_name: "e".into(),
        labels: "f".into(),
        container_id: "g".into(),
        container_name: "h".into(),
        container_image: "i".into(),
        parent_process_name: "j".into(),
        process_name: "k".into(),
        host_ppid: 2,
        host_pid: 3,
        ppid: 4,
        pid: 5,
        uid: 6,
        r#type: "HostLog".into(),
        source: "l".into(),
        operation: "m".into(),
        resource: "n".into(),
        data: "o".into(),
        event_data: [("p".into(), "q".into())].into(),
        result: "r".into(),
        cwd: "s".into(),
        tty: "t".into(),
        exec_event: Some(exec_event()),
        node_id: "u".into(),
        process_hash: "v".into(),
        parent_hash: "w".into(),
        resource_hash: "x".into(),
        hash_algo: "y".into(),
        user_name: "z".into(),
        event_id: vec![9; 16],
        args: vec!["A".into()],
        access_mask: 10,
        owner_uid: Some(u32::MAX),
        source_image: "B".into(),
        truncated: 11,
        display_only: 12,
        exec_id: 13,
        parent_exec_id: 14,
        rule_id: u64::MAX,
        tier: 16,
        policy_digest: vec![17; 32],
    }
}

fn full_message() -> Message {
    Message {
        timestamp: -1,
        updated_time: "a".into(),
        cluster_name: "b".into(),
        host_name: "c".into(),
        host_ip: "d".into(),
        r#type: "Message".into(),
        level: "e".into(),
        message: "f".into(),
        event_id: vec![9; 16],
        lost: Some(Lost {
            r#where: "g".into(),
            class: "h".into(),
            count: u64::MAX,
            stream: vec![1; 8],
            first: 2,
            last: 3,
            reason: "i".into(),
        }),
        audit: Some(Audit {
            actor: "j".into(),
            action: "k".into(),
            target: "l".into(),
            detail: "m".into(),
        }),
    }
}

fn owner() -> Podowner {
    Podowner {
        r#ref: "K".into(),
        name: "L".into(),
        namespace: "M".into(),
    }
}

fn exec_event() -> ExecEvent {
    ExecEvent {
        exec_id: "N".into(),
        executable_name: "O".into(),
    }
}

/// The keys of an object in the order of the text.
fn keys(json: &serde_json::Value) -> Vec<&str> {
    json.as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

#[test]
fn with_every_field_set_every_key_prints_once_and_in_order() {
    let events = [
        (Kind::Alert, full_alert().encode_to_vec()),
        (Kind::Log, full_log().encode_to_vec()),
        (Kind::Message, full_message().encode_to_vec()),
    ];
    for (kind, payload) in events {
        let line = written(kind, &payload, FieldSet::All);
        assert_eq!(line, support::reference(kind, &payload, FieldSet::All));
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        let names: Vec<_> = fields::of(kind).iter().map(|field| field.name).collect();
        assert_eq!(keys(&value), names);
        for field in fields::of(kind) {
            assert_eq!(
                line.matches(&format!(",\"{}\":", field.name)).count(),
                match field.name {
                    // The first key has no comma before it; ExecID is also a key of ExecEvent, there the first.
                    "Timestamp" => 0,
                    _ => 1,
                }
            );
            if let FieldType::Message(nested) = field.ty {
                let names: Vec<_> = nested.fields().iter().map(|field| field.name).collect();
                assert_eq!(keys(&value[field.name]), names);
            }
        }
        let theirs = written(kind, &payload, FieldSet::KubeArmor);
        let theirs = theirs.strip_suffix('}').unwrap();
        assert!(line.starts_with(theirs) && line[theirs.len()..].starts_with(",\"EventID\":"));
    }
}

#[test]
fn our_own_fields_print_as_hex_where_they_are_names() {
    let line = written(Kind::Alert, &full_alert().encode_to_vec(), FieldSet::All);
    let ours = &line[line.find("\"EventID\"").unwrap()..];
    let (id, digest) = ("09".repeat(16), "11".repeat(32));
    assert_eq!(
        ours,
        format!(
            "\"EventID\":\"{id}\",\"Args\":[\"I\"],\"AccessMask\":10,\"OwnerUID\":0,\"SourceImage\":\"J\",\
             \"Truncated\":11,\"DisplayOnly\":12,\"ExecID\":\"000000000000000d\",\
             \"ParentExecID\":\"000000000000000e\",\"RuleID\":\"000000000000000f\",\"Tier\":16,\
             \"PolicyDigest\":\"{digest}\"}}"
        )
    );
}
