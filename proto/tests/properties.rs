//! What holds for every event and for any bytes, against prost and serde_json.

mod support;

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message as _;
use proto::{Event, EventId, FieldSet, Kind, Malformed, StreamId, batch, check, feeder, json};
use support::events::{bytes_field, event, kind, suspect, two_events};
use support::{decodes, reference, reference_text, text, written};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn an_event_prints_as_prost_and_serde_json_print_it((kind, payload) in event()) {
        prop_assert_eq!(check(kind, &payload), Ok(()));
        for set in [FieldSet::KubeArmor, FieldSet::All] {
            prop_assert_eq!(written(kind, &payload, set), reference(kind, &payload, set));
        }
        prop_assert_eq!(text(kind, &payload), reference_text(kind, &payload));
    }

    #[test]
    fn repeated_occurrences_merge_as_protobuf_says((kind, first, second) in two_events()) {
        let both = [first, second].concat();
        prop_assert_eq!(check(kind, &both), Ok(()));
        prop_assert_eq!(written(kind, &both, FieldSet::All), reference(kind, &both, FieldSet::All));
        prop_assert_eq!(text(kind, &both), reference_text(kind, &both));
    }

    #[test]
    fn what_is_printed_is_read_back_as_the_same_event((kind, payload) in event()) {
        let line = written(kind, &payload, FieldSet::All);
        let parsed = json::read(&line).unwrap();
        prop_assert_eq!(parsed.unknown, Vec::<String>::new());
        prop_assert_eq!((parsed.kind, &parsed.payload[..]), (kind, &payload[..]));
    }

    #[test]
    fn the_door_lets_in_what_prost_decodes_and_nothing_else(kind in kind(), bytes in suspect()) {
        match check(kind, &bytes) {
            // Field 100 is the one thing that decodes and does not pass.
            Ok(()) | Err(Malformed::Reserved) => prop_assert!(decodes(kind, &bytes)),
            Err(error) => prop_assert!(!decodes(kind, &bytes), "{error}"),
        }
    }

    #[test]
    fn what_passed_the_door_prints_whatever_it_is(kind in kind(), bytes in suspect()) {
        if check(kind, &bytes).is_ok() {
            prop_assert_eq!(written(kind, &bytes, FieldSet::All), reference(kind, &bytes, FieldSet::All));
            prop_assert_eq!(text(kind, &bytes), reference_text(kind, &bytes));
        }
    }

    #[test]
    fn any_bytes_print_or_are_refused_and_leave_the_output_alone(kind in kind(), bytes in suspect()) {
        let mut out = b"before".to_vec();
        if json::write(kind, &bytes, None, FieldSet::All, &mut out).is_err() {
            prop_assert_eq!(&out, b"before");
        }
        let mut out = b"before".to_vec();
        if proto::text::write(kind, &bytes, &mut out).is_err() {
            prop_assert_eq!(&out, b"before");
        }
        let _ = proto::View::read(kind, &bytes);
    }

    #[test]
    fn a_sender_cannot_set_the_event_id(
        (kind, payload) in event(),
        id in proptest::collection::vec(any::<u8>(), 0..20),
        at_start in any::<bool>(),
    ) {
        let mut field = Vec::new();
        bytes_field(100, &id, &mut field);
        let bytes = if at_start { [field, payload].concat() } else { [payload, field].concat() };
        prop_assert_eq!(check(kind, &bytes), Err(Malformed::Reserved));
    }

    #[test]
    fn unknown_fields_change_nothing((kind, payload) in event(), number in 200_u32..4000, text in ".*") {
        let mut more = Vec::new();
        bytes_field(number, text.as_bytes(), &mut more);
        more.extend_from_slice(&payload);
        prop_assert_eq!(check(kind, &more), Ok(()));
        prop_assert_eq!(written(kind, &more, FieldSet::All), written(kind, &payload, FieldSet::All));
    }

    #[test]
    fn a_link_event_splits_as_prost_decodes_it(bytes in suspect()) {
        let split = batch::split(Bytes::from(bytes.clone()));
        match proto::link::Event::decode(&bytes[..]) {
            Err(_) => prop_assert!(split.is_err()),
            Ok(event) => {
                // An enum is an i32 in prost; the number on the wire may be wider, and is then no kind of ours.
                if let Ok((kind, payload)) = split {
                    prop_assert_eq!((kind as i32, payload), (event.kind, event.payload));
                } else {
                    let kind = proto::link::EventKind::try_from(event.kind);
                    let wide = matches!(split, Err(Malformed::Kind(number)) if number > 255);
                    prop_assert!(wide || !matches!(kind.map(Kind::try_from), Ok(Ok(_))));
                }
            }
        }
    }

    #[test]
    fn split_takes_apart_what_join_made((kind, payload) in event()) {
        let payload = Bytes::from(payload);
        prop_assert_eq!(batch::split(batch::join(kind, &payload)), Ok((kind, payload.clone())));
        let event = proto::link::Event {
            kind: proto::link::EventKind::from(kind).into(),
            payload: payload.clone(),
        };
        prop_assert_eq!(batch::split(event.encode_to_vec().into()), Ok((kind, payload)));
    }

    #[test]
    fn a_journaled_event_comes_back_whole((kind, payload) in event(), stream: [u8; 8], sequence: u64) {
        let id = EventId { stream: StreamId(stream), sequence };
        let event = Event { kind, id, payload: payload.into() };
        prop_assert_eq!(Event::from_journal(kind.into(), event.to_journal()), Ok(event.clone()));
        prop_assert!(decodes(kind, &event.with_id()));
        // The same line, whether the id comes beside the payload or inside it.
        let mut beside = Vec::new();
        json::write(kind, &event.payload, Some(id), FieldSet::All, &mut beside).unwrap();
        prop_assert_eq!(String::from_utf8(beside).unwrap(), written(kind, &event.with_id(), FieldSet::All));
    }

    #[test]
    fn pretty_json_is_the_same_value_laid_out_by_serde_json((kind, payload) in event()) {
        let compact = written(kind, &payload, FieldSet::All);
        let pretty = String::from_utf8(json::pretty(compact.as_bytes())).unwrap();
        let value: serde_json::Value = serde_json::from_str(&compact).unwrap();
        prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&pretty).unwrap(), value.clone());
        // serde_json indents as Go does; only the escapes of compact text are Go's own.
        if !compact.contains("\\u") {
            prop_assert_eq!(pretty, serde_json::to_string_pretty(&value).unwrap());
        }
    }
}

#[test]
fn groups_pass_to_the_depth_that_prost_follows_and_no_further() {
    for depth in [1, 2, 98, 99, 100, 101, 102, 200] {
        for inside in [&[][..], &[0x38, 1]] {
            let open = [0xbb, 0x06].repeat(depth);
            let close = [0xbc, 0x06].repeat(depth);
            // Field 103: unknown to all kinds. At the top, and inside of an Owner.
            let top = [&open, inside, &close].concat();
            let mut nested = Vec::new();
            bytes_field(31, &top, &mut nested);
            for bytes in [top, nested] {
                let decodes = feeder::Alert::decode(&bytes[..]).is_ok();
                assert_eq!(
                    check(Kind::Alert, &bytes).is_ok(),
                    decodes,
                    "{depth} {inside:?}"
                );
            }
        }
    }
}

#[test]
fn an_event_of_exactly_the_limit_passes_and_one_byte_more_does_not() {
    let sized = |length: usize| {
        let log = feeder::Log {
            data: "x".repeat(length),
            ..Default::default()
        };
        log.encode_to_vec()
    };
    let overhead = sized(1 << 19).len() - (1 << 19);
    let fits = sized(proto::MAX_EVENT - overhead);
    assert_eq!(fits.len(), proto::MAX_EVENT);
    assert_eq!(check(Kind::Log, &fits), Ok(()));
    let size = proto::MAX_EVENT + 1;
    assert_eq!(
        check(Kind::Log, &sized(size - overhead)),
        Err(Malformed::TooLarge {
            size,
            limit: proto::MAX_EVENT
        })
    );
}

#[test]
fn long_and_wide_numbers_pass_where_prost_takes_them() {
    // Field 1, a number, as key or value of every length, with every way to end.
    for length in 0..12 {
        for last in [0x00, 0x01, 0x02, 0x03, 0x0f, 0x10, 0x7f, 0x80] {
            let mut value = vec![0x08];
            value.extend(vec![0xff; length]);
            value.push(last);
            let mut key = vec![0x88];
            key.extend(vec![0x80; length]);
            key.extend([last, 0]);
            for bytes in [value, key] {
                let decodes = feeder::Alert::decode(&bytes[..]).is_ok();
                assert_eq!(check(Kind::Alert, &bytes).is_ok(), decodes, "{bytes:02x?}");
            }
        }
    }
}

#[test]
fn of_a_link_event_the_last_kind_and_the_last_payload_count() {
    let first = batch::join(Kind::Log, b"first");
    let second = batch::join(Kind::Alert, b"second");
    let both = [first, second].concat();
    assert_eq!(
        batch::split(both.into()),
        Ok((Kind::Alert, Bytes::from_static(b"second")))
    );
}

#[test]
fn a_zero_on_the_wire_takes_back_what_came_before_it() {
    let alert = feeder::Alert {
        pid: 5,
        uid: 6,
        pod_name: "cart".into(),
        exec_id: 7,
        owner_uid: Some(8),
        policy_digest: vec![9],
        ..Default::default()
    };
    let mut bytes = alert.encode_to_vec();
    // PID, UID and OwnerUID as varint 0; PodName and PolicyDigest empty; ExecID as eight zero bytes.
    bytes.extend([0x58, 0, 0x60, 0, 0x80, 0x07, 0, 0x32, 0, 0xc2, 0x07, 0]);
    bytes.extend([0xa1, 0x07, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(
        written(Kind::Alert, &bytes, FieldSet::All),
        r#"{"PPID":0,"UID":0,"OwnerUID":0}"#
    );
    assert_eq!(
        written(Kind::Alert, &bytes, FieldSet::All),
        reference(Kind::Alert, &bytes, FieldSet::All)
    );
}

/// Every field that a view shares with the decoded message; the others are empty.
macro_rules! assert_view {
    ($kind:ident, $payload:expr, [$($view:ident = $field:ident),*], empty [$($empty:ident),*]) => {{
        let message = feeder::$kind::decode(&$payload[..]).unwrap();
        let view = proto::View::read(Kind::$kind, &$payload);
        prop_assert_eq!(view.timestamp, message.timestamp);
        $(prop_assert_eq!(view.$view, &message.$field, "{}", stringify!($view));)*
        $(prop_assert_eq!(view.$empty, "", "{}", stringify!($empty));)*
    }};
}

proptest! {
    #[test]
    fn a_view_shows_what_prost_decodes((kind, payload) in event()) {
        match kind {
            Kind::Alert => assert_view!(Alert, payload, [
                updated_time = updated_time, cluster = cluster_name, host = host_name,
                namespace = namespace_name, pod = pod_name, labels = labels,
                container_name = container_name, container_id = container_id,
                container_image = container_image, parent_process = parent_process_name,
                process = process_name, policy = policy_name, severity = severity, tags = tags,
                message = message, type_ = r#type, source = source, operation = operation,
                resource = resource, data = data, enforcer = enforcer, action = action,
                result = result
            ], empty [level]),
            Kind::Log => assert_view!(Log, payload, [
                updated_time = updated_time, cluster = cluster_name, host = host_name,
                namespace = namespace_name, pod = pod_name, labels = labels,
                container_name = container_name, container_id = container_id,
                container_image = container_image, parent_process = parent_process_name,
                process = process_name, type_ = r#type, source = source, operation = operation,
                resource = resource, data = data, result = result
            ], empty [policy, severity, tags, message, enforcer, action, level]),
            Kind::Message => assert_view!(Message, payload, [
                updated_time = updated_time, cluster = cluster_name, host = host_name,
                type_ = r#type, level = level, message = message
            ], empty [
                namespace, pod, labels, container_name, container_id, container_image,
                parent_process, process, policy, severity, tags, source, operation, resource,
                data, enforcer, action, result
            ]),
        }
    }
}
