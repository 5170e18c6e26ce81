//! A batch at the sensors' door, as it stands in a message.
//!
//! What the in-place check lets pass must be readable by everybody behind it: prost, the transcoders, the view.

use bytes::Bytes;
use prost::Message;
use proto::batch::{RawEvent, count, join, receive};
use proto::{FieldSet, Kind, StreamId, View, feeder, json, link, text};

/// Takes it apart and passes on what is accepted.
pub fn run(bytes: &[u8]) {
    let counted = count(bytes);
    let Ok(message) = link::FromSensor::decode(bytes) else {
        return;
    };
    let Some(link::from_sensor::Is::Batch(batch)) = message.is else {
        return;
    };
    assert!(counted >= batch.events.len(), "less counted than there is");
    if let Ok(received) = receive(batch) {
        received.events.into_iter().flatten().for_each(accepted);
    }
}

/// A batch with an event of each kind, one of which is none.
pub fn seeds() -> Vec<Vec<u8>> {
    let alert = feeder::Alert {
        namespace_name: "shop".to_owned(),
        labels: "app=cart,tier=web".to_owned(),
        severity: "5".to_owned(),
        resource: "/bin/sh -c \"id\" \u{1f525}".to_owned(),
        ..feeder::Alert::default()
    };
    let log = feeder::Log {
        operation: "Network".to_owned(),
        data: "syscall=SYS_SOCKET".to_owned(),
        ..feeder::Log::default()
    };
    let message = feeder::Message {
        level: "WARN".to_owned(),
        message: "<&>".to_owned(),
        ..feeder::Message::default()
    };
    let events = vec![
        join(Kind::Alert, &alert.encode_to_vec()),
        join(Kind::Log, &log.encode_to_vec()),
        join(Kind::Message, &message.encode_to_vec()),
        Bytes::from_static(b"\x08\x09"),
    ];
    let batch = link::Batch {
        stream: vec![7; 8].into(),
        first: 1,
        events,
    };
    let is = Some(link::from_sensor::Is::Batch(batch));
    vec![link::FromSensor { is }.encode_to_vec()]
}

fn accepted(event: RawEvent) {
    let RawEvent { kind, payload } = event;
    decode(kind, &payload);
    let mut line = Vec::new();
    for fields in [FieldSet::KubeArmor, FieldSet::All] {
        line.clear();
        json::write(kind, &payload, None, fields, &mut line).expect("it was accepted");
        serde_json::from_slice::<serde_json::Value>(&line).expect("JSON");
    }
    line.clear();
    text::write(kind, &payload, &mut line).expect("it was accepted");
    std::str::from_utf8(&line).expect("text");
    let view = View::read(kind, &payload);
    let _ = (view.labels().count(), view.severity_number());
    let id = proto::EventId {
        stream: StreamId([7; 8]),
        sequence: 1,
    };
    let event = proto::Event { kind, id, payload };
    let (split, rest) = proto::Event::split_id(&event.with_id()).expect("an id");
    assert_eq!((split, &rest), (id, &event.payload));
}

fn decode(kind: Kind, payload: &Bytes) {
    let readable = match kind {
        Kind::Alert => feeder::Alert::decode(payload.clone()).is_ok(),
        Kind::Log => feeder::Log::decode(payload.clone()).is_ok(),
        Kind::Message => feeder::Message::decode(payload.clone()).is_ok(),
    };
    assert!(readable, "accepted, and prost cannot read it");
}
