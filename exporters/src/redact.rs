//! Secrets are taken out of events before a sink sees them: in text, JSON and protobuf alike.
//!
//! ```yaml
//! redact: [{field: arguments, match: '(?i)(password|token)=\S+', replace: '$1=***'}]
//! ```
//!
//! Sensors have the same setting for all destinations; here it is one destination's, and holds for events that came from
//! elsewhere, too. An event without a match is handed on as it is, with the JSON that other sinks made of it; one with a
//! match is written anew. Its dead letter is the redacted one.

use std::borrow::Cow;
use std::sync::Arc;

use proto::rewrite::{self, Change, Part};
use proto::{Event, FieldSet, FieldValue};
use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Carried, Encoded};

/// One replacement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Redaction {
    /// Where to look.
    pub field: RedactField,
    /// A regular expression (Rust's `regex` crate).
    #[serde(rename = "match")]
    pub pattern: String,
    /// What stands there instead; `$1` is the first group of the match.
    pub replace: String,
}

/// Where a redaction looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RedactField {
    /// Arguments of programs: the list, and the command lines that are made of it.
    Arguments,
    /// Every text of the event.
    Any,
}

/// The replacements, ready for use.
#[derive(Clone, Debug, Default)]
pub struct Redact {
    rules: Arc<[Rule]>,
}

#[derive(Debug)]
struct Rule {
    field: RedactField,
    /// None: the pattern was no pattern; then the whole text goes, for what should be hidden must not show.
    regex: Option<Regex>,
    replace: String,
}

impl Redact {
    pub(crate) fn new(config: &[Redaction]) -> Self {
        let rules = config.iter().map(|redaction| Rule {
            field: redaction.field,
            regex: Regex::new(&redaction.pattern).ok(),
            replace: redaction.replace.clone(),
        });
        Redact {
            rules: rules.collect(),
        }
    }

    /// The event without what should not be seen; the same one if there is nothing of it.
    #[must_use]
    pub fn event(&self, event: Carried) -> Carried {
        if self.rules.is_empty() {
            return event;
        }
        let inner = event.event();
        let (list, command) = (self.list(inner), is_command(inner.view().operation));
        let mut place = 0;
        let changed = rewrite::texts(inner.kind, &inner.payload, |part| {
            if part.field.name == "Args" {
                place += 1;
                return element(&list, place - 1, part.text);
            }
            self.part(part, command)
        });
        match changed {
            None => event,
            Some(payload) => Carried::from(Encoded::new(Event {
                payload: payload.into(),
                ..inner.clone()
            })),
        }
    }

    /// The argument list after all rules.
    fn list(&self, event: &Event) -> Vec<String> {
        let values = proto::values(event.kind, &event.payload, FieldSet::All).unwrap_or_default();
        let args = values.into_iter().find(|(field, _)| field.name == "Args");
        let Some((_, FieldValue::List(list))) = args else {
            return Vec::new();
        };
        let mut list: Vec<String> = list.into_iter().map(str::to_owned).collect();
        for argument in &mut list {
            *argument = self.text(argument, true).into_owned();
        }
        let line = list.join(" ");
        match self.text(&line, true) {
            Cow::Owned(changed) if changed != line => rest_as_one(&list, &changed),
            _ => list,
        }
    }

    fn part(&self, part: Part<'_>, command: bool) -> Change {
        let arguments = match part.field.name {
            "Source" => true,
            "Resource" => command,
            _ => false,
        };
        match self.text(part.text, arguments) {
            Cow::Borrowed(_) => Change::Keep,
            Cow::Owned(changed) => Change::To(changed),
        }
    }

    fn text<'a>(&self, text: &'a str, arguments: bool) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        for rule in self.rules.iter() {
            if rule.field == RedactField::Arguments && !arguments {
                continue;
            }
            let changed = match &rule.regex {
                Some(regex) => match regex.replace_all(&text, rule.replace.as_str()) {
                    Cow::Owned(changed) => Some(changed),
                    Cow::Borrowed(_) => None,
                },
                None => Some(rule.replace.clone()),
            };
            text = changed.map_or(text, Cow::Owned);
        }
        text
    }
}

/// Whether the resource of such an operation may be a command line. A throttling notice is the alert in whose place it stands,
/// with all its texts and only the operation another (reference: KubeArmor's `AlertThreshold`), and what a later sensor
/// calls an operation is not known here: both count as one.
fn is_command(operation: &str) -> bool {
    !matches!(
        operation,
        "File" | "Network" | "Capabilities" | "Syscall" | "Device" | "NetworkFirewall"
    )
}

fn element(list: &[String], place: usize, was: &str) -> Change {
    match list.get(place) {
        Some(now) if now == was => Change::Keep,
        Some(now) => Change::To(now.clone()),
        None => Change::Drop,
    }
}

/// Keeps the leading arguments that are unchanged in `line`, the rest as one: a match that spans arguments
/// (`--password hunter2`) cannot be put back word by word.
fn rest_as_one(list: &[String], line: &str) -> Vec<String> {
    let mut rest = line;
    let mut kept = Vec::new();
    for argument in list {
        let after = rest.strip_prefix(argument.as_str());
        let Some(after) = after.and_then(|after| after.strip_prefix(' ')) else {
            break;
        };
        kept.push(argument.clone());
        rest = after;
    }
    kept.push(rest.to_owned());
    kept
}

/// What is wrong with the patterns: place in the list, and why.
pub(crate) fn problems(config: &[Redaction]) -> Vec<(usize, String)> {
    let wrong = |(at, redaction): (usize, &Redaction)| {
        let error = Regex::new(&redaction.pattern).err()?;
        Some((at, format!("is no regular expression: {error}")))
    };
    config.iter().enumerate().filter_map(wrong).collect()
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use proto::feeder;

    use super::*;
    use crate::fixtures::batch_of;

    fn rule(field: RedactField, pattern: &str, replace: &str) -> Redaction {
        Redaction {
            field,
            pattern: pattern.into(),
            replace: replace.into(),
        }
    }

    fn alert(args: &[&str]) -> feeder::Alert {
        feeder::Alert {
            operation: "Process".into(),
            source: "/bin/sh -c x token=abc".into(),
            resource: args.join(" "),
            message: "token=abc".into(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            ..Default::default()
        }
    }

    fn redacted(rules: &[Redaction], alert: feeder::Alert) -> feeder::Alert {
        let batch = batch_of([alert]);
        let event = Redact::new(rules).event(batch.events()[0].clone());
        feeder::Alert::decode(event.event().payload.clone()).unwrap()
    }

    #[test]
    fn arguments_are_redacted_in_the_list_and_in_the_command_lines_and_nowhere_else() {
        let rules = [rule(RedactField::Arguments, r"(token)=\S+", "$1=***")];
        let out = redacted(&rules, alert(&["curl", "token=abc", "-v"]));
        assert_eq!(out.args, ["curl", "token=***", "-v"]);
        assert_eq!(out.resource, "curl token=*** -v");
        assert_eq!(out.source, "/bin/sh -c x token=***");
        assert_eq!(out.message, "token=abc");
    }

    #[test]
    fn a_secret_that_spans_arguments_goes_too() {
        let rules = [rule(RedactField::Arguments, r"(--password) \S+", "$1 ***")];
        let out = redacted(
            &rules,
            alert(&["mysql", "--password", "hunter2", "-h", "db"]),
        );
        assert_eq!(out.args, ["mysql", "--password", "*** -h db"]);
        assert_eq!(out.resource, "mysql --password *** -h db");
    }

    #[test]
    fn the_path_of_a_file_is_no_argument_and_any_text_is_any() {
        let file = |rules: &[Redaction]| {
            let alert = feeder::Alert {
                operation: "File".into(),
                resource: "/srv/token=abc".into(),
                ..Default::default()
            };
            redacted(rules, alert).resource
        };
        let of = |field| [rule(field, r"token=\w+", "x")];
        assert_eq!(file(&of(RedactField::Arguments)), "/srv/token=abc");
        assert_eq!(file(&of(RedactField::Any)), "/srv/x");
    }

    #[test]
    fn a_throttling_notice_has_the_arguments_of_the_alert_that_it_replaces() {
        let rules = [rule(RedactField::Arguments, r"(token)=\S+", "$1=***")];
        for operation in ["AlertThreshold", "", "Exec"] {
            let notice = feeder::Alert {
                operation: operation.into(),
                ..alert(&["curl", "token=abc"])
            };
            let out = redacted(&rules, notice);
            assert_eq!(out.resource, "curl token=***", "{operation}");
        }
    }

    #[test]
    fn an_event_without_a_match_is_the_same_one_with_its_json() {
        let batch = batch_of([alert(&["ls"])]);
        let event = &batch.events()[0];
        let rules = [rule(RedactField::Arguments, "hunter2", "x")];
        let same = Redact::new(&rules).event(event.clone());
        assert!(std::ptr::eq(&*same, &**event));
        let other = Redact::new(&[rule(RedactField::Any, "abc", "x")]).event(event.clone());
        assert!(
            !other
                .json(FieldSet::All)
                .unwrap()
                .windows(3)
                .any(|w| w == b"abc")
        );
        assert_eq!(other.id(), event.id());
    }

    #[test]
    fn a_pattern_that_is_none_is_told_and_hides_everything() {
        let rules = [rule(RedactField::Arguments, "(", "x")];
        assert_eq!(problems(&rules)[0].0, 0);
        assert_eq!(redacted(&rules, alert(&["ls"])).resource, "x");
    }
}
