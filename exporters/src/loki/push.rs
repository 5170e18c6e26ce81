//! The body of a push: entries by stream, each stream in the order of time.
//!
//! ```json
//! {"streams": [{"stream": {"job": "cresset"}, "values": [["1767225600123456000", "the line", {"pod": "cart"}]]}]}
//! ```
//! Source: Loki's HTTP API, "Ingest logs"; structured metadata since 3.0 (schema v13).

use std::collections::BTreeMap;

use serde::Serialize;
use serde::ser::{SerializeSeq as _, Serializer};

/// One event in Loki's form.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(super) stream: BTreeMap<String, String>,
    /// Since 1970.
    pub(super) nanoseconds: i128,
    pub(super) line: String,
    pub(super) metadata: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
struct Push<'a> {
    streams: Vec<Stream<'a>>,
}

#[derive(Serialize)]
struct Stream<'a> {
    stream: &'a BTreeMap<String, String>,
    values: Vec<Value<'a>>,
}

struct Value<'a>(&'a Entry);

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Value(entry) = self;
        let mut parts = to.serialize_seq(None)?;
        parts.serialize_element(&entry.nanoseconds.to_string())?;
        parts.serialize_element(&entry.line)?;
        if !entry.metadata.is_empty() {
            parts.serialize_element(&entry.metadata)?;
        }
        parts.end()
    }
}

/// The body of a push.
pub(super) fn body(entries: &[&Entry]) -> Vec<u8> {
    let mut streams: BTreeMap<&BTreeMap<String, String>, Vec<Value<'_>>> = BTreeMap::new();
    for entry in entries {
        streams.entry(&entry.stream).or_default().push(Value(entry));
    }
    let push = Push {
        streams: streams
            .into_iter()
            .map(|(stream, mut values)| {
                // Stable: what is of one moment stays in the journal's order.
                values.sort_by_key(|Value(entry)| entry.nanoseconds);
                Stream { stream, values }
            })
            .collect(),
    };
    // Maps with text keys and texts: nothing that JSON could not hold.
    serde_json::to_vec(&push).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(namespace: &str, nanoseconds: i128, line: &str) -> Entry {
        Entry {
            stream: [("namespace".to_owned(), namespace.to_owned())].into(),
            nanoseconds,
            line: line.to_owned(),
            metadata: BTreeMap::new(),
        }
    }

    #[test]
    fn entries_are_put_together_by_stream_in_the_order_of_time() {
        let mut last = entry("b", 1, "x\"\n\0");
        last.metadata.insert("pod", "p".into());
        let entries = [
            entry("a", 2, "late"),
            last,
            entry("a", 1, "early"),
            entry("a", 2, "later"),
        ];
        assert_eq!(
            String::from_utf8(body(&entries.each_ref())).unwrap(),
            r#"{"streams":[{"stream":{"namespace":"a"},"values":[["1","early"],["2","late"],["2","later"]]},{"stream":{"namespace":"b"},"values":[["1","x\"\n\u0000",{"pod":"p"}]]}]}"#
        );
    }
}
