//! Which events a sink wants.
//!
//! Each condition that is given must hold; within one, any of its words. A kind of event that lacks a field cannot be
//! judged by it: logs and messages have no severity and no action, messages no namespace, labels or operation. Hence:
//!
//! - `kinds` given: exactly those kinds, and each is held to the conditions whose field it has.
//!   `{kinds: [alert, log], min_severity: 3}` is severe alerts and all logs.
//! - `kinds` not given: the kinds that have every field asked about.
//!   `{actions: [Block]}` is alerts only, `{namespaces: [shop]}` alerts and logs, and no condition at all is everything.

use std::collections::BTreeMap;

use proto::{Event, Kind, View};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The conditions as they are written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FilterConfig {
    /// Kinds of event. Not given: those that have every field asked about here.
    pub kinds: Vec<KindName>,
    /// Lowest severity of an alert, 1 to 10; 0: any. An alert without severity counts as 0.
    pub min_severity: u32,
    /// Namespaces, exactly.
    pub namespaces: Vec<String>,
    /// Labels of the pod that must all be there.
    pub labels: BTreeMap<String, String>,
    /// Actions of alerts, as in `Block` or `Audit (Block)`; large and small letters alike.
    pub actions: Vec<String>,
    /// Operations, as in `Process`, `File`, `Network`; large and small letters alike.
    pub operations: Vec<String>,
}

/// A kind of event in the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KindName {
    /// Policy verdicts.
    Alert,
    /// Telemetry.
    Log,
    /// What sensors and relays say of themselves; losses are among them.
    Message,
}

impl From<KindName> for Kind {
    fn from(name: KindName) -> Kind {
        match name {
            KindName::Alert => Kind::Alert,
            KindName::Log => Kind::Log,
            KindName::Message => Kind::Message,
        }
    }
}

/// The conditions, ready for use.
#[derive(Clone, Debug)]
pub struct Filter {
    config: FilterConfig,
    /// Which kinds may pass, by number.
    wanted: [bool; 4],
    /// Whether anything but the kind must be looked at, by kind.
    looks: [bool; 4],
}

/// Which conditions a kind has the fields for.
const fn has_policy_fields(kind: Kind) -> bool {
    matches!(kind, Kind::Alert)
}

const fn has_workload_fields(kind: Kind) -> bool {
    matches!(kind, Kind::Alert | Kind::Log)
}

impl Filter {
    /// Makes the filter ready.
    #[must_use]
    pub fn new(config: FilterConfig) -> Self {
        let of_policy = config.min_severity > 0 || !config.actions.is_empty();
        let of_workload = !config.namespaces.is_empty()
            || !config.labels.is_empty()
            || !config.operations.is_empty();
        let (mut wanted, mut looks) = ([false; 4], [false; 4]);
        for kind in Kind::ALL {
            let (policy, workload) = (has_policy_fields(kind), has_workload_fields(kind));
            wanted[kind as usize] = if config.kinds.is_empty() {
                (policy || !of_policy) && (workload || !of_workload)
            } else {
                config.kinds.iter().any(|&name| Kind::from(name) == kind)
            };
            looks[kind as usize] = (policy && of_policy) || (workload && of_workload);
        }
        Filter {
            config,
            wanted,
            looks,
        }
    }

    /// Whether events of a kind can pass at all.
    pub(crate) fn may_want(&self, kind: Kind) -> bool {
        self.wanted[kind as usize]
    }

    pub(crate) fn severity_out_of_range(&self) -> Option<u32> {
        let severity = self.config.min_severity;
        (severity > 10).then_some(severity)
    }

    /// Whether the sink wants the event. Its fields are read only if a condition needs them.
    #[must_use]
    pub fn wants(&self, event: &Event) -> bool {
        let kind = event.kind as usize;
        self.wanted[kind] && (!self.looks[kind] || self.holds(&event.view()))
    }

    fn holds(&self, view: &View<'_>) -> bool {
        let config = &self.config;
        if has_workload_fields(view.kind)
            && !(among_exactly(&config.namespaces, view.namespace)
                && among(&config.operations, view.operation)
                && labelled(&config.labels, view))
        {
            return false;
        }
        !has_policy_fields(view.kind)
            || (among(&config.actions, view.action)
                && (config.min_severity == 0 || view.severity_number() >= config.min_severity))
    }
}

impl Default for Filter {
    fn default() -> Self {
        Filter::new(FilterConfig::default())
    }
}

fn among_exactly(words: &[String], value: &str) -> bool {
    words.is_empty() || words.iter().any(|word| word == value)
}

fn among(words: &[String], value: &str) -> bool {
    words.is_empty() || words.iter().any(|word| word.eq_ignore_ascii_case(value))
}

fn labelled(wanted: &BTreeMap<String, String>, view: &View<'_>) -> bool {
    wanted.iter().all(|(key, value)| {
        view.labels()
            .any(|(k, v)| k.trim() == key && v.trim() == value)
    })
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use proto::{EventId, StreamId, feeder};

    use super::*;

    fn event(kind: Kind, payload: Vec<u8>) -> Event {
        let id = EventId {
            stream: StreamId([0; 8]),
            sequence: 1,
        };
        Event {
            kind,
            id,
            payload: payload.into(),
        }
    }

    fn alert() -> Event {
        let alert = feeder::Alert {
            namespace_name: "shop".into(),
            labels: "app=cart, tier=web".into(),
            severity: "5".into(),
            operation: "Process".into(),
            action: "Block".into(),
            ..Default::default()
        };
        event(Kind::Alert, alert.encode_to_vec())
    }

    fn log(namespace: &str) -> Event {
        let log = feeder::Log {
            namespace_name: namespace.into(),
            operation: "File".into(),
            ..Default::default()
        };
        event(Kind::Log, log.encode_to_vec())
    }

    fn message() -> Event {
        event(Kind::Message, Vec::new())
    }

    /// Which of the alert, the log in `shop` and the message pass.
    fn passing(yaml: &str) -> [bool; 3] {
        let (nodes, _) = yaml::parse("filter.yaml", yaml);
        let mut problems = Vec::new();
        let config = nodes[0].read(yaml::Severity::Error, &mut problems);
        assert_eq!(problems, []);
        let filter = Filter::new(config.unwrap());
        [alert(), log("shop"), message()].map(|event| filter.wants(&event))
    }

    #[test]
    fn without_conditions_everything_passes() {
        assert_eq!(passing("{}"), [true, true, true]);
    }

    #[test]
    fn kinds_are_exact() {
        assert_eq!(passing("{kinds: [log, message]}"), [false, true, true]);
    }

    #[test]
    fn a_condition_without_kinds_leaves_out_the_kinds_that_lack_its_field() {
        assert_eq!(passing("{actions: [block]}"), [true, false, false]);
        assert_eq!(passing("{min_severity: 5}"), [true, false, false]);
        assert_eq!(passing("{namespaces: [shop]}"), [true, true, false]);
    }

    #[test]
    fn a_named_kind_is_held_only_to_the_fields_that_it_has() {
        assert_eq!(
            passing("{kinds: [alert, log], min_severity: 6}"),
            [false, true, false]
        );
        assert_eq!(
            passing("{kinds: [log, message], namespaces: [bank]}"),
            [false, false, true]
        );
    }

    #[test]
    fn namespaces_are_exact_and_words_of_operations_are_not_case_sensitive() {
        assert_eq!(passing("{namespaces: [Shop]}"), [false, false, false]);
        assert_eq!(
            passing("{operations: [FILE, process]}"),
            [true, true, false]
        );
    }

    #[test]
    fn every_label_asked_for_must_be_there() {
        assert_eq!(
            passing("{labels: {app: cart, tier: web}}"),
            [true, false, false]
        );
        assert_eq!(
            passing("{labels: {app: cart, tier: db}}"),
            [false, false, false]
        );
    }
}
