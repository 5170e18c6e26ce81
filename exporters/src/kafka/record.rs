//! An event as a record: topic, key, headers and value.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use proto::{FieldSet, Kind, Malformed, Texts, View};
use rdkafka::message::{Header, OwnedHeaders};

use super::template::{BadTemplate, MAX_TOPIC, Template, kind_word};
use super::{Config, Format, KEY, MAX_TOPICS};
use crate::Encoded;

/// Longest key, in bytes; the rest is cut off, so that such workloads share a partition.
const MAX_KEY: usize = 1024;

/// Most keys are not longer.
const ORDINARY_KEY: usize = 96;

/// The header that holds the event's id.
pub(super) const EVENT_ID: &str = "event-id";

/// How events become records.
pub(super) struct Records {
    topics: Topics,
    key: Template,
    /// What topic and key look at.
    looks_at: Texts,
    format: Format,
    fields: FieldSet,
}

/// What is made of one event, but for its headers.
pub(super) struct Record<'a> {
    pub(super) topic: Cow<'a, str>,
    pub(super) key: String,
    pub(super) value: Cow<'a, [u8]>,
}

impl Records {
    pub(super) fn new(config: &Config) -> Result<Self, BadTemplate> {
        let topics = Topics::new(config)?;
        let key = Template::parse(config.key.as_deref().unwrap_or(KEY))?;
        Ok(Records {
            looks_at: topics.texts().and(key.texts()),
            topics,
            key,
            format: config.format,
            fields: config.common().fields,
        })
    }

    /// Everything of the record that may be said before it is sent.
    pub(super) fn make<'a>(&'a self, event: &'a Encoded) -> Result<Record<'a>, Malformed> {
        let value = match self.format {
            Format::Json => event.json(self.fields)?,
            Format::Protobuf => {
                let mut value = Vec::with_capacity(event.event().len_with_id());
                event.event().put_with_id(&mut value);
                Cow::Owned(value)
            }
        };
        let view = event.view_of(self.looks_at);
        let mut key = String::with_capacity(ORDINARY_KEY);
        self.key.write(&view, &mut key);
        if key.len() > MAX_KEY {
            key.truncate(key.floor_char_boundary(MAX_KEY));
        }
        Ok(Record {
            topic: self.topics.of(&view),
            key,
            value,
        })
    }

    /// The topic of an event, for people.
    pub(super) fn topic(&self, event: &Encoded) -> Cow<'_, str> {
        self.topics.of(&event.view_of(self.looks_at))
    }

    /// `event-id`, `kind` and `schema`.
    pub(super) fn headers(&self, event: &Encoded) -> OwnedHeaders {
        let kind = event.kind();
        OwnedHeaders::new_with_capacity(3)
            .insert(Header {
                key: EVENT_ID,
                value: Some(&event.id().digits()),
            })
            .insert(Header {
                key: "kind",
                value: Some(kind_word(kind)),
            })
            .insert(Header {
                key: "schema",
                value: Some(schema(kind, self.format)),
            })
    }
}

/// The protobuf message that describes the value, and how it is written down.
fn schema(kind: Kind, format: Format) -> &'static str {
    match (kind, format) {
        (Kind::Alert, Format::Json) => "feeder.Alert+json",
        (Kind::Log, Format::Json) => "feeder.Log+json",
        (Kind::Message, Format::Json) => "feeder.Message+json",
        (Kind::Alert, Format::Protobuf) => "feeder.Alert+protobuf",
        (Kind::Log, Format::Protobuf) => "feeder.Log+protobuf",
        (Kind::Message, Format::Protobuf) => "feeder.Message+protobuf",
    }
}

/// The topics by kind, and which of those that events called for are in use.
struct Topics {
    /// As [`Kind::ALL`].
    templates: [Template; 3],
    admitted: Mutex<HashSet<String>>,
    max: usize,
}

impl Topics {
    fn new(config: &Config) -> Result<Self, BadTemplate> {
        let mut templates = [const { None }; 3];
        for (slot, (_, _, text)) in templates.iter_mut().zip(config.topics.by_kind()) {
            *slot = Some(Template::parse(text)?);
        }
        Ok(Topics {
            // by_kind gives all three.
            templates: templates.map(Option::unwrap_or_default),
            admitted: Mutex::default(),
            max: config.max_topics.unwrap_or(MAX_TOPICS) as usize,
        })
    }

    fn texts(&self) -> Texts {
        let all = self.templates.iter().map(Template::texts);
        all.fold(Texts::of(&[]), Texts::and)
    }

    fn of(&self, view: &View<'_>) -> Cow<'_, str> {
        let template = &self.templates[view.kind as usize - 1];
        if let Some(name) = template.fixed() {
            return Cow::Borrowed(name);
        }
        let mut name = String::new();
        template.write_topic(view, &mut name);
        if !self.admits(&name) {
            name.clear();
            template.write_other(&mut name);
        }
        Cow::Owned(name)
    }

    fn admits(&self, name: &str) -> bool {
        if name.len() > MAX_TOPIC {
            return false;
        }
        let mut admitted = self.admitted.lock().unwrap_or_else(PoisonError::into_inner);
        admitted.contains(name) || (admitted.len() < self.max && admitted.insert(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proto::feeder;
    use rdkafka::message::Headers as _;

    use super::*;
    use crate::fixtures::batch_of;

    fn alert(namespace: &str) -> feeder::Alert {
        feeder::Alert {
            namespace_name: namespace.into(),
            pod_name: "cart".into(),
            ..Default::default()
        }
    }

    #[test]
    fn an_alert_becomes_a_record_of_its_workload() {
        let records = Records::new(&Config::default()).unwrap();
        let batch = batch_of([alert("shop")]);
        let event = &batch.events()[0];
        let record = records.make(event).unwrap();
        assert_eq!(record.topic, "kubearmor-alerts");
        assert_eq!(record.key, "shop/cart");
        let json = r#"{"NamespaceName":"shop","PodName":"cart","PPID":0,"UID":0}"#;
        assert_eq!(record.value.as_ref(), json.as_bytes());
        let headers = records.headers(event);
        let all: Vec<_> = headers
            .iter()
            .map(|h| (h.key, std::str::from_utf8(h.value.unwrap()).unwrap()))
            .collect();
        assert_eq!(
            all,
            [
                ("event-id", event.id().to_string().as_str()),
                ("kind", "alert"),
                ("schema", "feeder.Alert+json")
            ]
        );
    }

    #[test]
    fn protobuf_carries_the_id_in_field_100() {
        let config = Config {
            format: Format::Protobuf,
            ..Config::default()
        };
        let records = Records::new(&config).unwrap();
        let batch = batch_of([alert("shop")]);
        let event = &batch.events()[0];
        let record = records.make(event).unwrap();
        assert_eq!(record.value.as_ref(), &event.event().with_id());
    }

    #[test]
    fn topics_that_events_call_for_are_bounded() {
        let mut config = Config {
            max_topics: Some(2),
            ..Config::default()
        };
        config.topics.alert = "a-{namespace}".into();
        let records = Records::new(&config).unwrap();
        let batch = batch_of(["x", "y", "z", "x", &"long".repeat(100)].map(alert));
        let topics: Vec<_> = batch.events().iter().map(|e| records.topic(e)).collect();
        assert_eq!(topics, ["a-x", "a-y", "a-other", "a-x", "a-other"]);
    }
}
