//! What a reader asks for: a filter of the query service, held against an event.
//!
//! ```text
//! length of the filter u16 │ filter │ event
//! ```

use bytes::Bytes;
use prost::Message;
use proto::{Event, EventId, Kind, StreamId, check, feeder, query};
use relay::filter::Filter;

/// Compiles the filter and judges the event, if it is one that a door would have let in.
pub fn run(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first_chunk() else {
        return;
    };
    let Some((filter, payload)) = rest.split_at_checked(u16::from_le_bytes(*length).into()) else {
        return;
    };
    let Ok(asked) = query::Filter::decode(filter) else {
        return;
    };
    let filter = match Filter::new(Some(asked)) {
        Ok(filter) => filter,
        Err(bad) => return assert!(!bad.to_string().is_empty()),
    };
    for kind in Kind::ALL {
        if check(kind, payload).is_ok() {
            let id = EventId {
                stream: StreamId([7; 8]),
                sequence: 1,
            };
            let payload = Bytes::copy_from_slice(payload);
            filter.matches(&Event { kind, id, payload });
        }
    }
}

/// A filter of everything, one that is no expression, and an event.
pub fn seeds() -> Vec<Vec<u8>> {
    let alert = feeder::Alert {
        namespace_name: "shop".to_owned(),
        labels: "app=cart,tier=web".to_owned(),
        severity: "5".to_owned(),
        source: "/bin/sh".to_owned(),
        ..feeder::Alert::default()
    };
    let all = query::Filter {
        kinds: vec![1, 2],
        namespace: "^sh.p$".to_owned(),
        labels: [("app".to_owned(), "cart".to_owned())].into(),
        source: "(bin|usr)/[a-z]{1,4}".to_owned(),
        min_severity: 3,
        ..query::Filter::default()
    };
    let none = query::Filter {
        resource: "a(b{1000}".to_owned(),
        ..query::Filter::default()
    };
    let seed = |filter: query::Filter| {
        let filter = filter.encode_to_vec();
        let length = u16::try_from(filter.len()).expect("short");
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend(filter);
        bytes.extend(alert.encode_to_vec());
        bytes
    };
    vec![seed(all), seed(none)]
}
