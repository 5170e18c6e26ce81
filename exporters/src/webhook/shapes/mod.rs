//! The bodies of requests, one file a destination. All are pure: a group or an event in, bytes out.

mod alertmanager;
mod falcosidekick;
pub(super) mod ocsf;
mod pagerduty;
mod slack;

use serde_json::Value;

use super::Shape;
use super::group::Group;
use super::template::Template;
use crate::lines::unreadable;
use crate::secret::Secret;
use crate::{Encoded, told};

/// Writes bodies for one sink.
pub(super) struct Writer {
    /// The sink's name.
    pub(super) sink: String,
    pub(super) shape: Shape,
    pub(super) routing_key: Option<Secret>,
    pub(super) template: Option<Template>,
    pub(super) content_type: Option<String>,
}

/// What every message about a group says.
pub(super) struct Told {
    /// The first event in one line, and how many more there are.
    pub(super) title: String,
    /// The first event in one line.
    pub(super) summary: String,
    /// When the first was; empty if no event has a time.
    pub(super) first: String,
    /// When the last was.
    pub(super) last: String,
}

impl Writer {
    pub(super) fn content_type(&self) -> &str {
        match self.shape {
            Shape::Template => self.content_type.as_deref().unwrap_or("application/json"),
            Shape::Ndjson => "application/x-ndjson",
            _ => "application/json",
        }
    }

    /// The body of one message about a group.
    ///
    /// # Errors
    /// Why these events cannot be told of.
    pub(super) fn notice(&self, group: &Group<'_>) -> Result<Vec<u8>, String> {
        let told_of = Told::of(group);
        let value = match self.shape {
            Shape::Slack => slack::message(&self.sink, group, &told_of),
            Shape::Alertmanager => alertmanager::alerts(&self.sink, group, &told_of),
            Shape::Falcosidekick => falcosidekick::event(group, &told_of)?,
            Shape::Pagerduty => {
                let key = self.routing_key.as_ref().map(Secret::current);
                let key = key.as_ref().map_or("", |key| key.expose());
                pagerduty::event(key, &self.sink, group, &told_of)?
            }
            Shape::Template | Shape::Json | Shape::Ndjson | Shape::Ocsf => {
                return match &self.template {
                    Some(template) => template.fill(&self.sink, group, &told_of),
                    None => Err("the sink has no template; please report it".to_owned()),
                };
            }
        };
        serde_json::to_vec(&value).map_err(|error| error.to_string())
    }

    /// The body of a request with events that are JSON already.
    pub(super) fn records(&self, items: &[&Vec<u8>]) -> Vec<u8> {
        let lines = self.shape == Shape::Ndjson;
        let mut body =
            Vec::with_capacity(2 + items.iter().map(|item| item.len() + 1).sum::<usize>());
        if !lines {
            body.push(b'[');
        }
        for (at, item) in items.iter().enumerate() {
            if at > 0 && !lines {
                body.push(b',');
            }
            body.extend_from_slice(item);
            if lines {
                body.push(b'\n');
            }
        }
        if !lines {
            body.push(b']');
        }
        body
    }
}

impl Told {
    fn of(group: &Group<'_>) -> Self {
        let summary = group
            .first()
            .map(|event| told::summary(&event.view()))
            .unwrap_or_default();
        let (first, last) = match group.times {
            Some((first, last)) => (first.to_string(), last.to_string()),
            None => Default::default(),
        };
        let title = match (group.count(), group.groups) {
            (1, _) => summary.clone(),
            (count, 1) => format!("{count} × {summary}"),
            (count, groups) => format!("{count} events of {groups} kinds, among them: {summary}"),
        };
        Told {
            title,
            summary,
            first,
            last,
        }
    }
}

/// An event as a value of JSON.
///
/// # Errors
/// The event cannot be read.
pub(super) fn object(event: &Encoded) -> Result<Value, String> {
    let json = event
        .json(proto::FieldSet::All)
        .map_err(|malformed| unreadable(event.kind(), &malformed))?;
    serde_json::from_slice(&json).map_err(|error| error.to_string())
}

/// A word for how grave it is: `critical` from 8, `error` from 6, `warning` from 3, else `info`.
fn grade(gravity: u32) -> &'static str {
    match gravity {
        8.. => "critical",
        6.. => "error",
        3.. => "warning",
        _ => "info",
    }
}

#[cfg(test)]
mod tests;
