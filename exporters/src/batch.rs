//! Events on their way to a sink, and the JSON of each, rendered at most once.
//!
//! Several sinks want the same JSON. It is made by the first that asks and kept beside the event, which all sinks at the
//! journal's tail share. Two forms exist, one a field set: the one that is asked for first is kept, and the other is made of it
//! where it is wanted, which costs little more than to copy it. A sink that wants protobuf or text pays for none. Where
//! the event's fields are is kept in the same way, found by the first that looks.

use std::borrow::Cow;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use proto::{Event, EventId, FieldSet, Found, Kind, Malformed, Marks, Texts, View, json};

use crate::pen;

/// An event and the JSON made of it so far.
#[derive(Debug)]
pub struct Encoded {
    event: Event,
    marks: OnceLock<Result<Marks, Malformed>>,
    line: OnceLock<Result<Line, Malformed>>,
}

/// The form that was asked for first.
#[derive(Debug)]
struct Line {
    bytes: Bytes,
    /// Of one with all fields, how many bytes of that are KubeArmor's.
    theirs: Option<usize>,
}

impl Line {
    fn set(&self) -> FieldSet {
        match self.theirs {
            Some(_) => FieldSet::All,
            None => FieldSet::KubeArmor,
        }
    }
}

impl Encoded {
    /// Takes an event; encodes nothing yet.
    #[must_use]
    pub fn new(event: Event) -> Self {
        Encoded {
            event,
            marks: OnceLock::new(),
            line: OnceLock::new(),
        }
    }

    /// The same event in memory of its own, so that it holds nothing of what was read with it.
    #[must_use]
    pub fn apart(&self) -> Self {
        Encoded::new(Event {
            payload: Bytes::copy_from_slice(&self.event.payload),
            ..self.event.clone()
        })
    }

    /// The event itself.
    #[must_use]
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.event.kind
    }

    /// Its name, the same wherever and however often it is sent.
    #[must_use]
    pub fn id(&self) -> EventId {
        self.event.id
    }

    /// Its fields, found once for all who look.
    ///
    /// # Errors
    /// The payload is no event of its kind.
    pub fn found(&self) -> Result<Found<'_>, &Malformed> {
        let Event { kind, payload, .. } = &self.event;
        let find = || Found::read(*kind, payload).map(|found| found.marks());
        let marks = self.marks.get_or_init(find).as_ref();
        marks.map(|marks| marks.found(payload))
    }

    /// The fields that filters and metrics look at.
    #[must_use]
    pub fn view(&self) -> View<'_> {
        self.view_of(Texts::ALL)
    }

    /// Some of them; others are empty, and all are where the payload is no event.
    #[must_use]
    pub fn view_of(&self, texts: Texts) -> View<'_> {
        match self.found() {
            Ok(found) => found.view_of(texts),
            Err(_) => View::empty(self.event.kind),
        }
    }

    /// One line of JSON without the newline.
    ///
    /// # Errors
    /// The payload is no event of its kind. Such an event can never be delivered as JSON: reject it.
    pub fn json(&self, set: FieldSet) -> Result<Cow<'_, [u8]>, Malformed> {
        let line = self.line(set)?;
        if line.set() == set {
            return Ok(Cow::Borrowed(&line.bytes));
        }
        let mut out = Vec::new();
        self.put(line, set, &mut out)?;
        Ok(Cow::Owned(out))
    }

    /// Appends what [`json`](Encoded::json) gives; on error `out` is as it was.
    ///
    /// # Errors
    /// As there.
    pub fn put_json(&self, set: FieldSet, out: &mut Vec<u8>) -> Result<(), Malformed> {
        self.put(self.line(set)?, set, out)
    }

    fn put(&self, line: &Line, set: FieldSet, out: &mut Vec<u8>) -> Result<(), Malformed> {
        match line.theirs {
            Some(theirs) if set == FieldSet::KubeArmor => json::cut(&line.bytes[..theirs], out),
            None if set == FieldSet::All => {
                let found = self.found().map_err(Clone::clone)?;
                json::extend(&found, self.event.id, &line.bytes, out)?;
            }
            _ => out.extend_from_slice(&line.bytes),
        }
        Ok(())
    }

    /// The form that is kept; this one, if there is none yet.
    fn line(&self, set: FieldSet) -> Result<&Line, Malformed> {
        let line = self.line.get_or_init(|| {
            let found = self.found().map_err(Clone::clone)?;
            let written = pen::write(|out| match set {
                FieldSet::KubeArmor => json::write_theirs(&found, out).map(|()| None),
                FieldSet::All => json::write_all(&found, self.event.id, out).map(Some),
            });
            written.map(|(bytes, theirs)| Line { bytes, theirs })
        });
        line.as_ref().map_err(Clone::clone)
    }
}

/// An event of a block that was read together, as the sinks hand it on. Cheap to clone; the block stays as long as any of its
/// events is held.
#[derive(Debug, Clone)]
pub struct Carried {
    block: Arc<Share>,
    at: u32,
}

/// One sink's part of a block. Who holds an event is counted here: processors that count in one place wait for each other.
#[derive(Debug)]
struct Share(Arc<Vec<Encoded>>);

impl Carried {
    /// The events of a block from one of them on.
    pub fn from_block(
        block: &Arc<Vec<Encoded>>,
        first: usize,
    ) -> impl Iterator<Item = Carried> + use<> {
        let places = (0..=u32::MAX).take(block.len()).skip(first);
        let block = Arc::new(Share(Arc::clone(block)));
        places.map(move |at| Carried {
            block: Arc::clone(&block),
            at,
        })
    }
}

impl From<Encoded> for Carried {
    fn from(event: Encoded) -> Self {
        Carried {
            block: Arc::new(Share(Arc::new(vec![event]))),
            at: 0,
        }
    }
}

impl Deref for Carried {
    type Target = Encoded;

    fn deref(&self) -> &Encoded {
        &self.block.0[self.at as usize]
    }
}

/// Events that go to a sink together, in the journal's order.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    events: Vec<Carried>,
    bytes: usize,
}

impl Batch {
    /// A batch of these events.
    #[must_use]
    pub fn new(events: Vec<Carried>) -> Self {
        let bytes = events.iter().map(|e| e.event.payload.len()).sum();
        Batch { events, bytes }
    }

    /// The events.
    #[must_use]
    pub fn events(&self) -> &[Carried] {
        &self.events
    }

    /// Sum of the payloads, in bytes of protobuf.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many events.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether there is no event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proto::StreamId;

    use super::*;

    fn message(payload: &'static [u8]) -> Encoded {
        Encoded::new(Event {
            kind: Kind::Message,
            id: EventId {
                stream: StreamId([1; 8]),
                sequence: 2,
            },
            payload: Bytes::from_static(payload),
        })
    }

    #[test]
    fn json_is_made_once_and_the_other_form_of_it() {
        let event = message(b"\x3a\x04WARN");
        let first = event.json(FieldSet::KubeArmor).unwrap().as_ptr();
        event.json(FieldSet::All).unwrap();
        assert_eq!(event.json(FieldSet::KubeArmor).unwrap().as_ptr(), first);
        assert_eq!(
            &event.json(FieldSet::KubeArmor).unwrap()[..],
            br#"{"Level":"WARN"}"#
        );
        assert_eq!(
            &event.json(FieldSet::All).unwrap()[..],
            br#"{"Level":"WARN","EventID":"01010101010101010000000000000002"}"#
        );
    }

    #[test]
    fn either_form_comes_first_and_the_other_of_it_and_both_are_the_same() {
        for payload in [&b"\x3a\x04WARN"[..], b"", b"\x08\x07\xaa\x06\x02\x18\x03"] {
            let (one, other) = (message(payload), message(payload));
            let theirs = one.json(FieldSet::KubeArmor).unwrap();
            let all = other.json(FieldSet::All).unwrap();
            assert_eq!(one.json(FieldSet::All).unwrap(), all);
            assert_eq!(other.json(FieldSet::KubeArmor).unwrap(), theirs);
            let mut written = Vec::new();
            json::write(
                Kind::Message,
                payload,
                None,
                FieldSet::KubeArmor,
                &mut written,
            )
            .unwrap();
            assert_eq!(theirs, written);
            for (set, json) in [(FieldSet::KubeArmor, theirs), (FieldSet::All, all)] {
                for event in [&one, &other] {
                    let mut out = b"before".to_vec();
                    event.put_json(set, &mut out).unwrap();
                    assert_eq!(out.strip_prefix(b"before"), Some(&json[..]));
                }
            }
        }
    }

    #[test]
    fn an_unreadable_payload_is_an_error_and_not_a_panic() {
        let mut out = b"before".to_vec();
        for set in [FieldSet::All, FieldSet::KubeArmor] {
            assert!(message(b"\x3a\xff").json(set).is_err());
            assert!(message(b"\x3a\xff").put_json(set, &mut out).is_err());
        }
        assert_eq!(out, b"before");
    }
}
