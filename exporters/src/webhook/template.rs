//! The body by a template of Jinja (minijinja).
//!
//! | name | holds |
//! |---|---|
//! | `event` | the first event, as JSON shows it: `{{ event.PodName }}` |
//! | `events` | up to 100 of them |
//! | `count`, `groups` | how many events, and how many groups were folded together |
//! | `summary` | the first event in one line |
//! | `severity` | the gravest, 0 to 10 |
//! | `group` | what they have in common: `{{ group.policy }}` |
//! | `first`, `last` | times, RFC 3339; empty if there are none |
//! | `sink` | this sink's name |
//!
//! In a JSON body write values as `{{ summary | tojson }}`. Another name than these is refused when the settings are read; a
//! field that the event does not set is empty. Loops are bounded by what they go over, and a body by [`MAX_BODY`].

use std::collections::BTreeMap;

use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior};
use serde::Serialize;

use super::group::Group;
use super::shapes::{Told, object};

/// Events that a template sees.
const EVENTS: usize = 100;
const NAME: &str = "template";
/// Steps of one rendering: some seconds' worth is far below this, an endless range above.
const FUEL: u64 = 5_000_000;
/// Of one body, in bytes.
const MAX_BODY: usize = 16 << 20;
const NAMES: [&str; 11] = [
    "event", "events", "count", "groups", "summary", "severity", "group", "first", "last", "sink",
    "loop",
];
/// What the language brings along.
const FUNCTIONS: [&str; 4] = ["range", "dict", "namespace", "debug"];

type Object = serde_json::Map<String, serde_json::Value>;

/// What a template sees.
#[derive(Serialize)]
struct Seen<'a> {
    event: Option<&'a serde_json::Value>,
    events: &'a [serde_json::Value],
    count: usize,
    groups: usize,
    summary: &'a str,
    severity: u32,
    group: BTreeMap<&'a str, &'a str>,
    first: &'a str,
    last: &'a str,
    sink: &'a str,
}

/// A template that can be used.
pub(super) struct Template(Environment<'static>);

impl Template {
    /// Reads it.
    ///
    /// # Errors
    /// Where and why it is no template.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Chainable);
        environment
            .add_template_owned(NAME, text.to_owned())
            .map_err(|error| told(&error))?;
        environment.set_fuel(Some(FUEL));
        let asked = environment
            .get_template(NAME)
            .map_err(|error| told(&error))?
            .undeclared_variables(false);
        let known = |name: &str| NAMES.contains(&name) || FUNCTIONS.contains(&name);
        if let Some(name) = asked.iter().find(|name| !known(name)) {
            return Err(format!("there is no `{name}`; use {}", NAMES.join(", ")));
        }
        let template = Template(environment);
        template.try_out()?;
        Ok(template)
    }

    /// Fills it in with an alert that has every field, so that a filter that does not exist is told at once.
    fn try_out(&self) -> Result<(), String> {
        let fields = proto::fields::of(proto::Kind::Alert).iter();
        let event: Object = fields
            .map(|field| (field.name.to_owned(), "1".into()))
            .collect();
        let event = serde_json::Value::Object(event);
        self.render(&Seen {
            event: Some(&event),
            events: std::slice::from_ref(&event),
            count: 2,
            groups: 1,
            summary: "1",
            severity: 5,
            group: BTreeMap::new(),
            first: "2026-01-01T00:00:00Z",
            last: "2026-01-01T00:00:00Z",
            sink: "1",
        })
        .map(drop)
    }

    /// Fills it in.
    ///
    /// # Errors
    /// An event cannot be read, or a filter failed.
    pub(super) fn fill(
        &self,
        sink: &str,
        group: &Group<'_>,
        told_of: &Told,
    ) -> Result<Vec<u8>, String> {
        let events = group.events().take(EVENTS).map(object);
        let events = events.collect::<Result<Vec<_>, String>>()?;
        let body = self.render(&Seen {
            event: events.first(),
            events: &events,
            count: group.count(),
            groups: group.groups,
            summary: &told_of.summary,
            severity: group.gravity,
            group: group.key.iter().copied().collect(),
            first: &told_of.first,
            last: &told_of.last,
            sink,
        })?;
        match body.len() > MAX_BODY {
            true => Err(format!(
                "the template makes {} bytes; at most 16 MiB go",
                body.len()
            )),
            false => Ok(body.into_bytes()),
        }
    }

    fn render(&self, seen: &Seen<'_>) -> Result<String, String> {
        let template = self.0.get_template(NAME).map_err(|error| told(&error))?;
        let filled = template.render(Serde(seen));
        filled.map_err(|error| told(&error))
    }
}

fn told(error: &minijinja::Error) -> String {
    let line = error
        .line()
        .map(|line| format!("line {line}: "))
        .unwrap_or_default();
    let detail = error
        .detail()
        .map(|detail| format!(": {detail}"))
        .unwrap_or_default();
    format!(
        "the template cannot be used: {line}{}{detail}",
        error.kind()
    )
}
