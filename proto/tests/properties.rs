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
