//! Events on their way to a sink, and the JSON of each, made at most once.
//!
//! Several sinks want the same JSON. It is made by the first that asks and kept beside the event, which all sinks at the
//! journal's tail share: `Arc<Encoded>`. Two forms exist, one a field set; a sink that wants protobuf or text pays for none.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use proto::{Event, EventId, FieldSet, Kind, Malformed, View};

/// An event and the JSON made of it so far.
#[derive(Debug)]
pub struct Encoded {
    event: Event,
    kubearmor: OnceLock<Result<Bytes, Malformed>>,
    all: OnceLock<Result<Bytes, Malformed>>,
}

impl Encoded {
    /// Takes an event; encodes nothing yet.
    #[must_use]
    pub fn new(event: Event) -> Self {
        Encoded {
            event,
            kubearmor: OnceLock::new(),
            all: OnceLock::new(),
        }
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

    /// The fields that filters and metrics look at.
    #[must_use]
    pub fn view(&self) -> View<'_> {
        self.event.view()
    }

    /// One line of JSON without the newline.
    ///
    /// # Errors
    /// The payload is no event of its kind. Such an event can never be delivered as JSON: reject it.
    pub fn json(&self, set: FieldSet) -> Result<&Bytes, &Malformed> {
        let (slot, id) = match set {
            FieldSet::KubeArmor => (&self.kubearmor, None),
            FieldSet::All => (&self.all, Some(self.event.id)),
        };
        slot.get_or_init(|| {
            let mut out = Vec::new();
            proto::json::write(self.event.kind, &self.event.payload, id, set, &mut out)?;
            out.shrink_to_fit();
            Ok(out.into())
        })
        .as_ref()
    }
}

/// Events that go to a sink together, in the journal's order.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    events: Vec<Arc<Encoded>>,
    bytes: usize,
}

impl Batch {
    /// A batch of these events.
    #[must_use]
    pub fn new(events: Vec<Arc<Encoded>>) -> Self {
        let bytes = events.iter().map(|e| e.event.payload.len()).sum();
        Batch { events, bytes }
    }

    /// The events.
    #[must_use]
    pub fn events(&self) -> &[Arc<Encoded>] {
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
    fn json_is_made_once_for_each_field_set() {
        let event = message(b"\x3a\x04WARN");
        let first = event.json(FieldSet::KubeArmor).unwrap().as_ptr();
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
    fn an_unreadable_payload_is_an_error_and_not_a_panic() {
        assert!(message(b"\x3a\xff").json(FieldSet::All).is_err());
    }
}
