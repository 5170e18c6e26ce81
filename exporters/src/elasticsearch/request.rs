//! A batch as bodies of `_bulk`: for each event a line that says where it goes, then its JSON.
//!
//! ```text
//! {"create":{"_index":"kubearmor-alerts-2026.11.26","_id":"a0010203040506070000000000000102"}}
//! {"Timestamp":1767225600,…,"EventID":"a0010203040506070000000000000102"}
//! ```
//! The JSON is the one that all sinks share; it is copied once, into the body. `create` never overwrites, so the same event
//! sent again is a conflict, which means that it is there.

use std::io::Write as _;

use bytes::Bytes;
use proto::{FieldSet, Kind};

use super::day::Day;
use super::index::{Indices, Layout, NoIndex};
use crate::lines::unreadable;
use crate::{Batch, Encoded};

/// What an event takes in a body beside its JSON, at most as a rule.
const LINE: usize = 128;

/// What the names of its fields take in the JSON of an ordinary event.
const NAMES: usize = 768;

/// One body, and the events in it.
#[derive(Debug, Default)]
pub(super) struct Bulk {
    /// Their places in the batch, in the order of the body.
    pub(super) events: Vec<usize>,
    pub(super) body: Bytes,
}

/// Events that cannot be sent, by place, with the reason.
pub(super) type Refused = Vec<(usize, String)>;

/// Writes bodies.
pub(super) struct Bodies<'a> {
    pub(super) fields: FieldSet,
    pub(super) places: Places<'a>,
}

impl Bodies<'_> {
    /// A body of the events from `from` on, up to `limit` bytes; an event that is larger still goes, alone. Says with
    /// which event the next body begins.
    pub(super) fn fill(
        &mut self,
        batch: &Batch,
        from: usize,
        limit: usize,
        refused: &mut Refused,
    ) -> (Bulk, usize) {
        let left = batch.len().saturating_sub(from);
        let share = batch.bytes() / batch.len().max(1) + NAMES + LINE;
        // What it is at last is as much or a little less. To grow step by step would copy all of it once more.
        let mut body = Vec::with_capacity(limit.min(left * share));
        let mut events = Vec::with_capacity(left);
        let mut next = from;
        for event in batch.events().get(from..).unwrap_or_default() {
            let before = body.len();
            match self.entry(event, &mut body) {
                Ok(()) if body.len() > limit && !events.is_empty() => {
                    body.truncate(before);
                    break;
                }
                Ok(()) => events.push(next),
                Err(reason) => {
                    body.truncate(before);
                    refused.push((next, reason));
                }
            }
            next += 1;
        }
        let body = body.into();
        (Bulk { events, body }, next)
    }

    fn entry(&mut self, event: &Encoded, out: &mut Vec<u8>) -> Result<(), String> {
        // Before anything that is missing in it: it is why nothing is found there.
        let unreadable = |malformed| unreadable(event.kind(), malformed);
        event.found().map_err(unreadable)?;
        out.extend_from_slice(br#"{"create":{"_index":""#);
        let index = self.places.of(event).map_err(|why| why.to_string())?;
        out.extend_from_slice(index.as_bytes());
        out.extend_from_slice(br#"","_id":""#);
        event.id().push_hex(out);
        out.extend_from_slice(b"\"}}\n");
        match self.places.indices.layout {
            Layout::DataStream => stamped(event, self.fields, out)?,
            Layout::Daily | Layout::Fixed => put_json(event, self.fields, out)?,
        }
        out.push(b'\n');
        Ok(())
    }
}

/// The index of each event. Neighbours mostly share it, so the last of each kind is kept.
pub(super) struct Places<'a> {
    indices: &'a Indices,
    today: Day,
    last: [Option<(Day, Result<String, NoIndex>)>; 3],
}

impl<'a> Places<'a> {
    pub(super) fn new(indices: &'a Indices, today: Day) -> Self {
        Places {
            indices,
            today,
            last: [const { None }; 3],
        }
    }

    /// The index of an event.
    pub(super) fn of(&mut self, event: &Encoded) -> Result<&str, NoIndex> {
        let kind = event.kind();
        if self.indices.layout != Layout::Daily {
            return Ok(self.indices.name(kind));
        }
        let day = Day::of(&event.view_of(Day::FROM)).ok_or(NoIndex::NoTime)?;
        // Kinds are numbered from 1.
        let last = &mut self.last[kind as usize - 1];
        if last.as_ref().is_none_or(|(known, _)| *known != day) {
            let name = self.indices.takes(day, self.today);
            let name = name.map(|()| format!("{}-{day}", self.indices.name(kind)));
            *last = Some((day, name));
        }
        match last {
            Some((_, Ok(name))) => Ok(name),
            Some((_, Err(why))) => Err(why.clone()),
            None => Err(NoIndex::NoTime),
        }
    }
}

/// A data stream wants its own field for the time, first.
fn stamped(event: &Encoded, fields: FieldSet, out: &mut Vec<u8>) -> Result<(), String> {
    let view = event.view_of(Day::FROM);
    if Day::of(&view).is_none() {
        return Err(NoIndex::NoTime.to_string());
    }
    match time_text(view.updated_time) {
        Some(text) => push(out, format_args!("{{\"@timestamp\":\"{text}\"")),
        None => push(
            out,
            format_args!("{{\"@timestamp\":{}", view.timestamp.saturating_mul(1000)),
        ),
    }
    let brace = out.len();
    put_json(event, fields, out)?;
    // The event goes on behind the time, in the same object.
    match out[brace..].starts_with(b"{}") {
        true => drop(out.remove(brace)),
        false => out[brace] = b',',
    }
    Ok(())
}

fn put_json(event: &Encoded, fields: FieldSet, out: &mut Vec<u8>) -> Result<(), String> {
    let put = event.put_json(fields, out);
    put.map_err(|malformed| unreadable(event.kind(), &malformed))
}

/// The text if it is a time, and so needs no escaping.
fn time_text(text: &str) -> Option<&str> {
    text.parse::<jiff::Timestamp>().is_ok().then_some(text)
}

fn push(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to memory cannot fail.
    let _ = out.write_fmt(text);
}

/// The word for a kind in settings and texts.
pub(super) fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Alert => "alerts",
        Kind::Log => "logs",
        Kind::Message => "messages",
    }
}

#[cfg(test)]
mod tests {
    use proto::feeder;

    use super::*;
    use crate::elasticsearch::IndexConfig;
    use crate::fixtures::{Payload, alert_named, batch_of, broken};

    fn at(time: &str) -> Box<dyn Payload> {
        Box::new(feeder::Message {
            updated_time: time.into(),
            ..Default::default()
        })
    }

    fn today() -> Day {
        let view = proto::View {
            updated_time: "2026-11-26T00:00:00Z",
            ..proto::View::read(Kind::Message, &[])
        };
        Day::of(&view).unwrap()
    }

    fn fill(layout: Layout, batch: &Batch, from: usize, limit: usize) -> (Bulk, usize, Refused) {
        let config = IndexConfig {
            layout,
            ..IndexConfig::default()
        };
        let indices = Indices::new(&config);
        let mut bodies = Bodies {
            fields: FieldSet::KubeArmor,
            places: Places::new(&indices, today()),
        };
        let mut refused = Vec::new();
        let (bulk, next) = bodies.fill(batch, from, limit, &mut refused);
        (bulk, next, refused)
    }

    fn text(bulk: &Bulk) -> String {
        String::from_utf8(bulk.body.to_vec()).unwrap()
    }

    #[test]
    fn each_event_goes_to_the_index_of_its_own_day_under_its_id() {
        let batch = batch_of([
            at("2026-11-26T01:02:03.000004Z"),
            at("2026-11-25T23:59:59.9Z"),
        ]);
        let (bulk, next, refused) = fill(Layout::Daily, &batch, 0, 1 << 20);
        assert_eq!((&bulk.events[..], next, refused), (&[0, 1][..], 2, vec![]));
        assert_eq!(
            text(&bulk),
            concat!(
                r#"{"create":{"_index":"kubearmor-messages-2026.11.26","_id":"66697874757265730000000000000001"}}"#,
                "\n",
                r#"{"UpdatedTime":"2026-11-26T01:02:03.000004Z"}"#,
                "\n",
                r#"{"create":{"_index":"kubearmor-messages-2026.11.25","_id":"66697874757265730000000000000002"}}"#,
                "\n",
                r#"{"UpdatedTime":"2026-11-25T23:59:59.9Z"}"#,
                "\n",
            )
        );
    }

    #[test]
    fn what_has_no_index_is_refused_and_the_others_go() {
        let batch = batch_of([
            at("2026-10-01T00:00:00Z"),
            broken(),
            at("2026-11-26T00:00:00Z"),
            at("2027-11-26T00:00:00Z"),
            alert_named("no time"),
        ]);
        let (bulk, next, refused) = fill(Layout::Daily, &batch, 0, 1 << 20);
        assert_eq!((&bulk.events[..], next), (&[2][..], 5));
        let reasons = [
            "older than the retention",
            "cannot be printed",
            "still to come",
            "no time",
        ];
        for ((place, reason), (expected, words)) in
            refused.iter().zip([0, 1, 3, 4].iter().zip(reasons))
        {
            assert!(place == expected && reason.contains(words), "{refused:?}");
        }
        assert_eq!(refused.len(), 4);
    }

    #[test]
    fn a_body_ends_at_its_limit_and_the_next_goes_on_from_there() {
        let batch = batch_of([(); 5].map(|()| at("2026-11-26T00:00:00Z")));
        let one = fill(Layout::Daily, &batch, 4, 1).0.body.len();
        let mut sizes = Vec::new();
        let mut from = 0;
        while from < batch.len() {
            let (bulk, next, _) = fill(Layout::Daily, &batch, from, 2 * one + 1);
            sizes.push((bulk.events.clone(), bulk.body.len()));
            from = next;
        }
        let expected = [(vec![0, 1], 2 * one), (vec![2, 3], 2 * one), (vec![4], one)];
        assert_eq!(sizes, expected);
        // Larger than the limit, and alone.
        assert_eq!(fill(Layout::Daily, &batch, 0, 1).0.events, [0]);
    }

    #[test]
    fn a_fixed_index_takes_every_day() {
        let batch = batch_of([at("1999-01-01T00:00:00Z"), alert_named("no time")]);
        let (bulk, _, refused) = fill(Layout::Fixed, &batch, 0, 1 << 20);
        assert_eq!(refused, []);
        let text = text(&bulk);
        assert!(
            text.starts_with(r#"{"create":{"_index":"kubearmor-messages","_id""#),
            "{text}"
        );
        assert!(
            text.contains(r#"{"create":{"_index":"kubearmor-alerts","_id""#),
            "{text}"
        );
    }

    #[test]
    fn a_data_stream_gets_its_time_field_first() {
        let seconds = feeder::Message {
            timestamp: 1_767_225_600,
            updated_time: "\"".into(),
            ..Default::default()
        };
        let batch = batch_of([
            at("2026-11-26T00:00:00Z"),
            Box::new(seconds) as Box<dyn Payload>,
        ]);
        let (bulk, _, _) = fill(Layout::DataStream, &batch, 0, 1 << 20);
        let text = text(&bulk);
        let documents: Vec<serde_json::Value> = text
            .lines()
            .skip(1)
            .step_by(2)
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(documents[0]["@timestamp"], "2026-11-26T00:00:00Z");
        assert_eq!(documents[1]["@timestamp"], 1_767_225_600_000_u64);
        assert_eq!(documents[1]["UpdatedTime"], "\"");
    }
}
