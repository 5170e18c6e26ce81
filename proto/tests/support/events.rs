//! Events to test with: random ones, and the writing of wire fields that no sender of ours would write.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};
use proto::Kind;
use proto::feeder::{Alert, Audit, ExecEvent, Log, Lost, Message, Podowner};

/// Text as events have it: often absent, mostly ASCII, sometimes with all that has to be escaped.
pub fn text() -> BoxedStrategy<String> {
    let nasty = vec(
        prop::sample::select(
            "a/=-&<>\"\\\n\r\t\u{8}\u{c}\0\u{1f}\u{7f}é한🔥\u{2028}\u{2029}\u{2030}TZ"
                .chars()
                .collect::<Vec<_>>(),
        ),
        0..40,
    );
    prop_oneof![
        2 => Just(String::new()),
        4 => "[a-zA-Z0-9/=._ -]{1,60}",
        2 => nasty.prop_map(String::from_iter),
        1 => any::<String>(),
    ]
    .boxed()
}

fn number() -> BoxedStrategy<i32> {
    prop_oneof![Just(0), 1..70_000, any::<i32>()].boxed()
}

fn bytes() -> BoxedStrategy<Vec<u8>> {
    prop_oneof![Just(Vec::new()), vec(any::<u8>(), 1..40)].boxed()
}

/// What all kinds draw from, taken one after the other.
#[derive(Debug, Clone)]
struct Pool {
    texts: Vec<String>,
    numbers: Vec<i32>,
    large: Vec<u64>,
    lists: Vec<Vec<String>>,
    blobs: Vec<Vec<u8>>,
    map: BTreeMap<String, String>,
    owner: Option<(String, String, String)>,
    exec_event: Option<(String, String)>,
    owner_uid: Option<u32>,
    lost: bool,
    audit: bool,
}

fn pool() -> BoxedStrategy<Pool> {
    let large = prop_oneof![Just(0), any::<u64>()];
    (
        vec(text(), 36),
        vec(number(), 12),
        vec(large, 6),
        vec(vec(text(), 0..4), 2),
        vec(bytes(), 2),
        // Both below and above the number of entries that are sorted in place.
        prop_oneof![9 => btree_map(text(), text(), 0..6), 1 => btree_map(text(), text(), 10..40)],
        option::of((text(), text(), text())),
        option::of((text(), text())),
        option::of(any::<u32>()),
        any::<(bool, bool)>(),
    )
        .prop_map(
            |(
                texts,
                numbers,
                large,
                lists,
                blobs,
                map,
                owner,
                exec_event,
                owner_uid,
                (lost, audit),
            )| Pool {
                texts,
                numbers,
                large,
                lists,
                blobs,
                map,
                owner,
                exec_event,
                owner_uid,
                lost,
                audit,
            },
        )
        .boxed()
}

impl Pool {
    fn text(&mut self) -> String {
        self.texts.pop().unwrap()
    }

    fn number(&mut self) -> i32 {
        self.numbers.pop().unwrap()
    }

    fn bits(&mut self) -> u32 {
        self.numbers.pop().unwrap() as u32
    }

    fn large(&mut self) -> u64 {
        self.large.pop().unwrap()
    }

    fn owner(&mut self) -> Option<Podowner> {
        let (r#ref, name, namespace) = self.owner.take()?;
        Some(Podowner {
            r#ref,
            name,
            namespace,
        })
    }

    fn exec_event(&mut self) -> Option<ExecEvent> {
        let (exec_id, executable_name) = self.exec_event.take()?;
        Some(ExecEvent {
            exec_id,
            executable_name,
        })
    }
}

/// A random alert, without an event id.
pub fn alert() -> BoxedStrategy<Alert> {
    let types = [
        "MatchedPolicy",
        "MatchedHostPolicy",
        "MatchedNetworkPolicy",
        "SystemEvent",
    ];
    (pool(), prop::sample::select(types.to_vec()))
        .prop_map(|(mut pool, r#type)| Alert {
            timestamp: pool.large() as i64,
            updated_time: pool.text(),
            cluster_name: pool.text(),
            host_name: pool.text(),
            namespace_name: pool.text(),
            owner: pool.owner(),
            pod_name: pool.text(),
            labels: pool.text(),
            container_id: pool.text(),
            container_name: pool.text(),
            container_image: pool.text(),
            host_ppid: pool.number(),
            host_pid: pool.number(),
            ppid: pool.number(),
            pid: pool.number(),
            uid: pool.number(),
            parent_process_name: pool.text(),
            process_name: pool.text(),
            policy_name: pool.text(),
            severity: pool.text(),
            tags: pool.text(),
            a_tags: pool.lists.pop().unwrap(),
            message: pool.text(),
            r#type: r#type.into(),
            source: pool.text(),
            operation: pool.text(),
            resource: pool.text(),
            data: pool.text(),
            event_data: pool.map.clone(),
            enforcer: pool.text(),
            action: pool.text(),
            result: pool.text(),
            cwd: pool.text(),
            tty: pool.text(),
            max_alerts_per_sec: pool.number(),
            dropping_alerts_interval: pool.number(),
            exec_event: pool.exec_event(),
            kube_armor_version: pool.text(),
            node_id: pool.text(),
            process_hash: pool.text(),
            parent_hash: pool.text(),
            resource_hash: pool.text(),
            hash_algo: pool.text(),
            user_name: pool.text(),
            event_id: Vec::new(),
            args: pool.lists.pop().unwrap(),
            access_mask: pool.bits(),
            owner_uid: pool.owner_uid,
            source_image: pool.text(),
            truncated: pool.bits(),
            display_only: pool.bits(),
            exec_id: pool.large(),
            parent_exec_id: pool.large(),
            rule_id: pool.large(),
            tier: pool.bits(),
            policy_digest: pool.blobs.pop().unwrap(),
        })
        .boxed()
}

/// A random log, without an event id.
pub fn log() -> BoxedStrategy<Log> {
    let types = ["ContainerLog", "HostLog", "SystemLog"];
    (pool(), prop::sample::select(types.to_vec()))
        .prop_map(|(mut pool, r#type)| Log {
            timestamp: pool.large() as i64,
            updated_time: pool.text(),
            cluster_name: pool.text(),
            host_name: pool.text(),
            namespace_name: pool.text(),
            owner: pool.owner(),
            pod_name: pool.text(),
            labels: pool.text(),
            container_id: pool.text(),
            container_name: pool.text(),
            container_image: pool.text(),
            parent_process_name: pool.text(),
            process_name: pool.text(),
            host_ppid: pool.number(),
            host_pid: pool.number(),
            ppid: pool.number(),
            pid: pool.number(),
            uid: pool.number(),
            r#type: r#type.into(),
            source: pool.text(),
            operation: pool.text(),
            resource: pool.text(),
            data: pool.text(),
            event_data: pool.map.clone(),
            result: pool.text(),
            cwd: pool.text(),
            tty: pool.text(),
            exec_event: pool.exec_event(),
            node_id: pool.text(),
            process_hash: pool.text(),
            parent_hash: pool.text(),
            resource_hash: pool.text(),
            hash_algo: pool.text(),
            user_name: pool.text(),
            event_id: Vec::new(),
            args: pool.lists.pop().unwrap(),
            access_mask: pool.bits(),
            owner_uid: pool.owner_uid,
            source_image: pool.text(),
            truncated: pool.bits(),
            display_only: pool.bits(),
            exec_id: pool.large(),
            parent_exec_id: pool.large(),
            rule_id: pool.large(),
            tier: pool.bits(),
            policy_digest: pool.blobs.pop().unwrap(),
        })
        .boxed()
}

/// A random message, without an event id.
pub fn message() -> BoxedStrategy<Message> {
    pool()
        .prop_map(|mut pool| Message {
            timestamp: pool.large() as i64,
            updated_time: pool.text(),
            cluster_name: pool.text(),
            host_name: pool.text(),
            host_ip: pool.text(),
            r#type: "Message".into(),
            level: pool.text(),
            message: pool.text(),
            event_id: Vec::new(),
            lost: pool.lost.then(|| Lost {
                r#where: pool.text(),
                class: pool.text(),
                count: pool.large(),
                stream: pool.blobs.pop().unwrap(),
                first: pool.large(),
                last: pool.large(),
                reason: pool.text(),
            }),
            audit: pool.audit.then(|| Audit {
                actor: pool.text(),
                action: pool.text(),
                target: pool.text(),
                detail: pool.text(),
            }),
        })
        .boxed()
}

/// A random event of any kind, encoded.
pub fn event() -> BoxedStrategy<(Kind, Vec<u8>)> {
    prop_oneof![
        3 => alert().prop_map(|event| (Kind::Alert, event.encode_to_vec())),
        3 => log().prop_map(|event| (Kind::Log, event.encode_to_vec())),
        1 => message().prop_map(|event| (Kind::Message, event.encode_to_vec())),
    ]
    .boxed()
}

/// Two random events of one kind.
pub fn two_events() -> BoxedStrategy<(Kind, Vec<u8>, Vec<u8>)> {
    prop_oneof![
        (alert(), alert()).prop_map(|(a, b)| (Kind::Alert, a.encode_to_vec(), b.encode_to_vec())),
        (log(), log()).prop_map(|(a, b)| (Kind::Log, a.encode_to_vec(), b.encode_to_vec())),
        (message(), message()).prop_map(|(a, b)| (
            Kind::Message,
            a.encode_to_vec(),
            b.encode_to_vec()
        )),
    ]
    .boxed()
}

pub fn kind() -> BoxedStrategy<Kind> {
    prop::sample::select(Kind::ALL.to_vec()).boxed()
}

/// A wire field, well-formed or nearly: any number, any wire type, anything inside.
fn field() -> BoxedStrategy<Vec<u8>> {
    let number = prop_oneof![1_u32..48, 99_u32..122, 1_u32..(1 << 29)];
    let content = prop_oneof![
        vec(any::<u8>(), 0..12),
        text().prop_map(String::into_bytes),
        // Two texts, as a map entry or a nested message has them.
        (text(), text()).prop_map(|(a, b)| {
            let mut out = Vec::new();
            for (number, text) in [(1, a), (2, b)] {
                bytes_field(number, text.as_bytes(), &mut out);
            }
            out
        }),
    ];
    (number, 0_u8..8, any::<u64>(), content)
        .prop_map(|(number, wire, value, content)| {
            let mut out = Vec::new();
            match wire {
                0 | 6 => {
                    encode_key(number, WireType::Varint, &mut out);
                    encode_varint(value, &mut out);
                }
                1 => {
                    encode_key(number, WireType::SixtyFourBit, &mut out);
                    out.extend(value.to_le_bytes());
                }
                5 => {
                    encode_key(number, WireType::ThirtyTwoBit, &mut out);
                    out.extend((value as u32).to_le_bytes());
                }
                3 => {
                    encode_key(number, WireType::StartGroup, &mut out);
                    bytes_field(7, &content, &mut out);
                    // One in eight groups is closed by another's end.
                    encode_key(
                        number + u32::from(value % 8 == 0),
                        WireType::EndGroup,
                        &mut out,
                    );
                }
                _ => bytes_field(number, &content, &mut out),
            }
            out
        })
        .boxed()
}

/// Appends a length-delimited field.
pub fn bytes_field(number: u32, content: &[u8], out: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(content.len() as u64, out);
    out.extend_from_slice(content);
}

/// Bytes that are an event, nearly an event, or nothing of the kind.
pub fn suspect() -> BoxedStrategy<Vec<u8>> {
    let damaged = (
        event(),
        any::<prop::sample::Index>(),
        any::<u8>(),
        any::<bool>(),
    )
        .prop_map(|((_, mut bytes), at, byte, cut)| {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
                if cut {
                    bytes.truncate(at);
                }
            }
            bytes
        });
    prop_oneof![
        1 => vec(any::<u8>(), 0..60),
        3 => vec(field(), 0..5).prop_map(|fields| fields.concat()),
        2 => damaged,
        1 => event().prop_map(|(_, bytes)| bytes),
    ]
    .boxed()
}
