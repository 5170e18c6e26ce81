//! What a reader wants: the filter words of `feeder.LogService`, and the filter of our own query service.
//!
//! Both are karmor's: its words, and its expressions. `karmor logs` filters on the client with unanchored regular
//! expressions, without regard to case for names (namespace, pod, container, operation, type), with regard to case for
//! source and resource, and drops an event that lacks a field it was asked to filter by. Here the same happens on the
//! server, with expressions compiled once a call. Labels differ on purpose: all that are given must be there, as in a
//! Kubernetes selector, where karmor takes any one of them and lets events without labels pass.

mod expression;
mod memory;

use journal::Entry;
use proto::{Event, Kind, View, link, query};

use self::expression::Case;
use crate::access::Namespaces;

pub(crate) use self::expression::Expression;
pub(crate) use self::memory::{Budget, Part};

/// Does `feeder.LogService` send events of this kind for this word? KubeArmor compares exactly; any other word,
/// the empty one included, ends the stream at once with status OK.
pub(crate) fn accepts(kind: Kind, word: &str) -> bool {
    match kind {
        Kind::Alert => matches!(word, "all" | "policy"),
        Kind::Log => matches!(word, "all" | "system"),
        Kind::Message => true,
    }
}

/// Picks one field out of an event.
type Field = for<'a> fn(&View<'a>) -> &'a str;

/// A filter of the query service, ready to match.
#[derive(Debug)]
pub struct Filter {
    kinds: Vec<Kind>,
    labels: Vec<(String, String)>,
    min_severity: u32,
    fields: Vec<(Field, Expression)>,
    /// What the reader may see at all.
    namespaces: Namespaces,
}

/// A filter that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum BadFilter {
    /// Not a regular expression.
    #[error("`{expression}` for {field} is not a regular expression: {reason}")]
    Expression {
        /// The filter's field.
        field: &'static str,
        /// What was given.
        expression: String,
        /// What the expression's reader says.
        reason: String,
    },
    /// One that compiles to too much.
    #[error(
        "`{expression}` for {field} is too large a regular expression: it compiles to more than {most} bytes; repeat less, or write [a-z0-9_] for \\w"
    )]
    Large {
        /// The filter's field.
        field: &'static str,
        /// What was given.
        expression: String,
        /// Bytes.
        most: usize,
    },
    /// One with too long a text.
    #[error("the expression for {field} has {bytes} bytes, and {most} are the most")]
    Long {
        /// The filter's field.
        field: &'static str,
        /// Bytes that it has.
        bytes: usize,
        /// Bytes that it may have.
        most: usize,
    },
    /// Not the number of a kind.
    #[error("{0} is no kind of event: 1 is alert, 2 log, 3 message")]
    Kind(i32),
}

impl Filter {
    /// Compiles a request's filter; none lets every alert and log pass.
    ///
    /// # Errors
    /// The first expression that is not one, or an unknown kind.
    pub fn new(filter: Option<query::Filter>) -> Result<Filter, BadFilter> {
        let filter = filter.unwrap_or_default();
        let given: [(&'static str, Field, &str, Case); 9] = [
            (
                "namespace",
                |view| view.namespace,
                &filter.namespace,
                Case::Ignored,
            ),
            ("pod", |view| view.pod, &filter.pod, Case::Ignored),
            (
                "container",
                |view| view.container_name,
                &filter.container,
                Case::Ignored,
            ),
            (
                "operation",
                |view| view.operation,
                &filter.operation,
                Case::Ignored,
            ),
            ("type", |view| view.type_, &filter.r#type, Case::Ignored),
            ("action", |view| view.action, &filter.action, Case::Ignored),
            ("policy", |view| view.policy, &filter.policy, Case::Ignored),
            ("source", |view| view.source, &filter.source, Case::Counts),
            (
                "resource",
                |view| view.resource,
                &filter.resource,
                Case::Counts,
            ),
        ];
        let mut fields = Vec::new();
        for (name, field, expression, case) in given {
            if !expression.is_empty() {
                fields.push((field, Expression::new(name, expression, case)?));
            }
        }
        Ok(Filter {
            kinds: kinds(&filter.kinds)?,
            labels: filter.labels.into_iter().collect(),
            min_severity: filter.min_severity,
            fields,
            namespaces: Namespaces::default(),
        })
    }

    /// Is there something to compile?
    fn has_expressions(wanted: &query::Filter) -> bool {
        let query::Filter {
            namespace,
            pod,
            container,
            operation,
            r#type,
            action,
            policy,
            source,
            resource,
            kinds: _,
            labels: _,
            min_severity: _,
        } = wanted;
        let expressions = [
            namespace, pod, container, operation, r#type, action, policy, source, resource,
        ];
        expressions.iter().any(|text| !text.is_empty())
    }

    /// Everything of one kind.
    pub(crate) fn of(kind: Kind) -> Filter {
        Filter {
            kinds: vec![kind],
            labels: Vec::new(),
            min_severity: 0,
            fields: Vec::new(),
            namespaces: Namespaces::default(),
        }
    }

    /// The same for a reader who may see these namespaces.
    #[must_use]
    pub fn within(self, namespaces: Namespaces) -> Filter {
        Filter { namespaces, ..self }
    }

    /// Whether to look at an event may cost more than to hand it on.
    pub(crate) fn takes_time(&self) -> bool {
        !self.fields.is_empty()
    }

    /// Is there something that this reader must not hear of?
    pub(crate) fn is_limited(&self) -> bool {
        !self.namespaces.is_all()
    }

    /// Does the filter let this event pass?
    pub fn matches(&self, event: &Event) -> bool {
        if !self.kinds.contains(&event.kind) {
            return false;
        }
        if self.passes_all() {
            return true;
        }
        let view = event.view();
        if !self.namespaces.admits(view.namespace) {
            return false;
        }
        let has =
            |(key, value): &(String, String)| view.labels().any(|label| label == (key, value));
        view.severity_number() >= self.min_severity
            && self.labels.iter().all(has)
            && self.fields.iter().all(|(field, expression)| {
                let value = field(&view);
                !value.is_empty() && expression.is_match(value)
            })
    }

    /// Gives back what searching took.
    fn forget(&self) {
        self.fields
            .iter()
            .for_each(|(_, expression)| expression.forget());
    }

    /// Bytes that it takes now.
    fn size(&self) -> usize {
        let labels = self
            .labels
            .iter()
            .map(|(key, value)| key.len() + value.len() + 64);
        let fields = self.fields.iter().map(|(_, expression)| expression.size());
        labels.chain(fields).sum()
    }

    fn passes_all(&self) -> bool {
        self.fields.is_empty()
            && self.labels.is_empty()
            && self.min_severity == 0
            && self.namespaces.is_all()
    }

    /// Does the filter let the event of this record pass?
    pub(crate) fn admits(&self, entry: &Entry) -> bool {
        self.wants(entry.kind)
            && Event::from_journal(entry.kind, entry.payload.clone())
                .is_ok_and(|event| self.matches(&event))
    }

    /// Can an event of this kind pass?
    pub(crate) fn wants(&self, kind: u8) -> bool {
        self.kinds.iter().any(|wanted| u8::from(*wanted) == kind)
    }

    /// The kinds that can pass.
    pub(crate) fn kinds(&self) -> &[Kind] {
        &self.kinds
    }
}

/// An expression that disregards case.
///
/// # Errors
/// It is none; `field` is named.
pub(crate) fn expression(field: &'static str, text: &str) -> Result<Expression, BadFilter> {
    Expression::new(field, text, Case::Ignored)
}

fn kinds(numbers: &[i32]) -> Result<Vec<Kind>, BadFilter> {
    if numbers.is_empty() {
        return Ok(vec![Kind::Alert, Kind::Log]);
    }
    let kind = |number: &i32| {
        let kind = link::EventKind::try_from(*number)
            .ok()
            .and_then(|kind| Kind::try_from(kind).ok());
        kind.ok_or(BadFilter::Kind(*number))
    };
    numbers.iter().map(kind).collect()
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use proto::{EventId, StreamId, feeder};

    use super::*;

    fn alert() -> Event {
        let alert = feeder::Alert {
            namespace_name: "shop".into(),
            pod_name: "Cart-7c9d".into(),
            labels: "app=cart,tier=web".into(),
            severity: "5".into(),
            operation: "Process".into(),
            source: "/bin/Bash".into(),
            container_name: "cart".into(),
            r#type: "MatchedPolicy".into(),
            action: "Block".into(),
            policy_name: "no-shell".into(),
            ..Default::default()
        };
        Event {
            kind: Kind::Alert,
            id: EventId {
                stream: StreamId([0; 8]),
                sequence: 1,
            },
            payload: alert.encode_to_vec().into(),
        }
    }

    fn passes(filter: query::Filter) -> bool {
        Filter::new(Some(filter)).unwrap().matches(&alert())
    }

    #[test]
    fn the_words_are_compared_exactly_and_messages_take_any() {
        let words = ["all", "policy", "system", "", "ALL", " all"];
        let accepted = |kind| words.map(|word| accepts(kind, word));
        assert_eq!(
            accepted(Kind::Alert),
            [true, true, false, false, false, false]
        );
        assert_eq!(
            accepted(Kind::Log),
            [true, false, true, false, false, false]
        );
        assert_eq!(accepted(Kind::Message), [true; 6]);
    }

    #[test]
    fn names_match_anywhere_without_regard_to_case_and_paths_with_it() {
        assert!(passes(query::Filter {
            namespace: "SHO".into(),
            pod: "^cart".into(),
            ..Default::default()
        }));
        assert!(!passes(query::Filter {
            namespace: "^hop".into(),
            ..Default::default()
        }));
        assert!(passes(query::Filter {
            source: "Bash$".into(),
            ..Default::default()
        }));
        assert!(!passes(query::Filter {
            source: "bash".into(),
            ..Default::default()
        }));
    }

    #[test]
    fn each_field_has_its_expression() {
        let each: [fn(&mut query::Filter) -> &mut String; 8] = [
            |f| &mut f.namespace,
            |f| &mut f.pod,
            |f| &mut f.container,
            |f| &mut f.operation,
            |f| &mut f.r#type,
            |f| &mut f.action,
            |f| &mut f.policy,
            |f| &mut f.source,
        ];
        let right = [
            "shop", "7c9d", "cart", "process", "matched", "block", "no-shell", "/bin",
        ];
        for (field, word) in each.into_iter().zip(right) {
            let given = |word: &str| {
                let mut filter = query::Filter::default();
                word.clone_into(field(&mut filter));
                filter
            };
            assert!(passes(given(word)), "{word}");
            assert!(!passes(given("elsewhere")), "{word}");
        }
    }

    #[test]
    fn an_event_without_the_field_does_not_pass() {
        assert!(!passes(query::Filter {
            resource: ".*".into(),
            ..Default::default()
        }));
        assert!(passes(query::Filter {
            resource: "".into(),
            ..Default::default()
        }));
    }

    #[test]
    fn all_labels_must_be_there() {
        let labels = |pairs: &[(&str, &str)]| query::Filter {
            labels: pairs
                .iter()
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .collect(),
            ..Default::default()
        };
        assert!(passes(labels(&[("app", "cart"), ("tier", "web")])));
        assert!(!passes(labels(&[("app", "cart"), ("tier", "db")])));
        assert!(!passes(labels(&[("app", "car")])));
    }

    #[test]
    fn severity_is_a_lower_bound() {
        for (min_severity, pass) in [(0, true), (5, true), (6, false)] {
            assert_eq!(
                passes(query::Filter {
                    min_severity,
                    ..Default::default()
                }),
                pass
            );
        }
    }

    #[test]
    fn kinds_default_to_alerts_and_logs() {
        let default = Filter::new(None).unwrap();
        assert_eq!(
            [1, 2, 3].map(|kind| default.wants(kind)),
            [true, true, false]
        );
        assert!(!passes(query::Filter {
            kinds: vec![2],
            ..Default::default()
        }));
        assert_eq!(kinds(&[7]), Err(BadFilter::Kind(7)));
    }

    #[test]
    fn a_bad_expression_is_named_with_its_field() {
        let bad = Filter::new(Some(query::Filter {
            resource: "a(b".into(),
            ..Default::default()
        }));
        let message = bad.unwrap_err().to_string();
        assert!(
            message.starts_with("`a(b` for resource is not a regular expression"),
            "{message}"
        );
    }
}
