//! Which index an event goes to, and which events are too old or too new for one.
//!
//! ```text
//! layout       written to                        read as            an id is unique in
//! daily        kubearmor-alerts-2026.11.26       kubearmor-alerts   its day, which is the event's own
//! fixed        kubearmor-alerts                  kubearmor-alerts   the index
//! data-stream  kubearmor-alerts (newest backing) kubearmor-alerts   the newest backing index: at least once
//! ```
//!
//! With `daily` an event never makes an index that the lifecycle has deleted: events older than `retention` are refused, and
//! an index stays for [`SLACK_DAYS`] longer. Nor do clocks that are wrong make an index for every day of the next century:
//! what claims to be more than a day ahead is refused, too. Refused events are kept as dead letters.

use std::time::Duration;

use proto::Kind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use yaml::{Node, Problem, Span};

use super::day::Day;
use super::settings::Config;
use crate::filter::Filter;

/// Where events go, and how long they stay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IndexConfig {
    /// An index a day, one fixed index, or a data stream.
    pub layout: Layout,
    /// Name for alerts, without the day. Not given: `kubearmor-alerts`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alert: Option<String>,
    /// Name for logs, without the day. Not given: `kubearmor-logs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// Name for messages, without the day. Not given: `kubearmor-messages`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The lifecycle deletes what is older, and events that are older are refused. Whole days; not given: 30d.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention: Option<Span>,
    /// Primary shards of an index. Not given: the server's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shards: Option<u32>,
    /// Copies of a shard. Not given: one where there are two nodes, else none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// `auto` makes templates and lifecycles that are missing before the first event is sent; `manual` leaves that to
    /// `cresset sink setup`.
    pub setup: Setup,
}

/// How events are spread over indices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// An index for each UTC day, named `NAME-YYYY.MM.DD` and read as `NAME`. Each event is there once.
    #[default]
    Daily,
    /// One index, whose size and age are yours to look after. Each event is there once.
    Fixed,
    /// A data stream that rolls over. An event that is sent again after a rollover is there twice.
    DataStream,
}

/// Who makes templates and lifecycles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Setup {
    /// The sink, where they are missing; what is there is left as it is.
    #[default]
    Auto,
    /// `cresset sink setup NAME`.
    Manual,
}

const RETENTION: Duration = Duration::from_hours(30 * 24);
const DAY: Duration = Duration::from_hours(24);

/// From the oldest event that is taken to the deletion of its index: its index may have been made a day before its day (see
/// [`AHEAD_DAYS`]), and the day has to end.
const SLACK_DAYS: u32 = 2;

/// An event may be so many days ahead of this machine's clock.
const AHEAD_DAYS: i32 = 1;

impl IndexConfig {
    fn name_of(&self, kind: Kind) -> &str {
        let (given, usual) = match kind {
            Kind::Alert => (&self.alert, "kubearmor-alerts"),
            Kind::Log => (&self.log, "kubearmor-logs"),
            Kind::Message => (&self.message, "kubearmor-messages"),
        };
        given.as_deref().unwrap_or(usual)
    }

    fn retention(&self) -> Duration {
        self.retention.map_or(RETENTION, |Span(span)| span)
    }

    pub(super) fn check(&self, node: &Node, problems: &mut Vec<Problem>) {
        let mut wrong = |key: &str, message: String| {
            problems.push(node.problem_at(&format!("index.{key}"), message))
        };
        for (key, kind) in KEYS {
            let name = self.name_of(kind);
            if let Some(why) = name_problem(name) {
                wrong(key, format!("`{name}` cannot name an index: {why}"));
            }
            if let Some((other, _)) = KEYS.iter().find(|(_, other)| self.collide(kind, *other)) {
                wrong(
                    key,
                    format!(
                        "`{name}-…` is also what `{other}` would be found under; use another name"
                    ),
                );
            }
        }
        let retention = self.retention();
        if retention < DAY
            || retention > 3650 * DAY
            || !retention.as_secs().is_multiple_of(DAY.as_secs())
        {
            wrong("retention", "use whole days, 1d to 3650d".to_owned());
        }
        if self.shards.is_some_and(|n| !(1..=1024).contains(&n)) {
            wrong("shards", "use 1 to 1024".to_owned());
        }
        if self.replicas.is_some_and(|n| n > 16) {
            wrong("replicas", "use 0 to 16".to_owned());
        }
    }

    /// Whether the template for `kind` would also be that of `other`.
    fn collide(&self, kind: Kind, other: Kind) -> bool {
        let (name, others) = (self.name_of(kind), self.name_of(other));
        let within = others.strip_prefix(name);
        kind != other
            && match self.layout {
                // Several kinds in one index that somebody else looks after.
                Layout::Fixed => false,
                Layout::DataStream => within == Some("") && (kind as u8) < (other as u8),
                Layout::Daily => within.is_some_and(|rest| {
                    (rest.is_empty() && (kind as u8) < (other as u8)) || rest.starts_with('-')
                }),
            }
    }
}

const KEYS: [(&str, Kind); 3] = [
    ("alert", Kind::Alert),
    ("log", Kind::Log),
    ("message", Kind::Message),
];

/// The server's rules for names (`MetadataCreateIndexService.validateIndexOrAliasName`), with room for the day.
fn name_problem(name: &str) -> Option<&'static str> {
    if name.is_empty() || name.len() > 200 {
        return Some("use 1 to 200 characters");
    }
    if name.starts_with(['-', '_', '+', '.']) {
        return Some("it must begin with a letter or digit");
    }
    let bad = |c: char| {
        c.is_whitespace() || c.is_control() || c.is_uppercase() || "\\/*?\"<>|,#:%{}".contains(c)
    };
    name.contains(bad)
        .then_some("use small letters, digits, `-`, `_` and `.`")
}

/// Where each kind goes, ready for use.
#[derive(Clone, Debug)]
pub(super) struct Indices {
    pub(super) layout: Layout,
    pub(super) shards: Option<u32>,
    pub(super) replicas: Option<u32>,
    retention_days: u32,
    names: [String; 3],
    /// Those that can come.
    kinds: Vec<Kind>,
}

/// Why an event has no index.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoIndex {
    #[error(
        "it has no time that can be read (UpdatedTime, Timestamp), so there is no day to keep it under"
    )]
    NoTime,
    #[error("it is of {day}, which is older than the retention of the index ({days} days)")]
    TooOld { day: Day, days: u32 },
    #[error("it claims to be of {day}, which is still to come: look at the clock of its node")]
    Ahead { day: Day },
}

impl Indices {
    pub(super) fn new(config: &IndexConfig) -> Self {
        let days = config.retention().as_secs() / DAY.as_secs();
        Indices {
            layout: config.layout,
            shards: config.shards,
            replicas: config.replicas,
            retention_days: days as u32,
            names: Kind::ALL.map(|kind| config.name_of(kind).to_owned()),
            kinds: Kind::ALL.to_vec(),
        }
    }

    /// For a sink with such a filter: what it never writes to is not its own to prepare, and may be another sink's.
    pub(super) fn of(config: &Config) -> Self {
        let filter = Filter::new(config.filter.clone());
        let mut indices = Indices::new(&config.index);
        indices.kinds.retain(|kind| filter.may_want(*kind));
        indices
    }

    /// The kinds of event that can come.
    pub(super) fn kinds(&self) -> impl Iterator<Item = Kind> {
        self.kinds.iter().copied()
    }

    /// The name that a kind is read under.
    pub(super) fn name(&self, kind: Kind) -> &str {
        // Kinds are numbered from 1.
        &self.names[kind as usize - 1]
    }

    /// Days after its creation at which an index may go.
    pub(super) fn delete_after_days(&self) -> u32 {
        match self.layout {
            Layout::Daily => self.retention_days + SLACK_DAYS,
            Layout::Fixed | Layout::DataStream => self.retention_days,
        }
    }

    /// What the indices of a kind are called, as a pattern.
    pub(super) fn pattern(&self, kind: Kind) -> String {
        match self.layout {
            Layout::Daily => format!("{}-*", self.name(kind)),
            Layout::Fixed | Layout::DataStream => self.name(kind).to_owned(),
        }
    }

    /// Whether an index for that day may be written to.
    pub(super) fn takes(&self, day: Day, today: Day) -> Result<(), NoIndex> {
        let age = today.since(day);
        if age > self.retention_days as i32 {
            return Err(NoIndex::TooOld {
                day,
                days: self.retention_days,
            });
        }
        if age < -AHEAD_DAYS {
            return Err(NoIndex::Ahead { day });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proto::View;

    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let (nodes, mut problems) = yaml::parse("c.yaml", text);
        let config: Option<IndexConfig> = nodes[0]
            .get("index")
            .unwrap()
            .read(yaml::Severity::Error, &mut problems);
        config.unwrap().check(&nodes[0], &mut problems);
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn names_that_the_server_would_refuse_or_mix_up_are_told() {
        assert_eq!(problems("index: {}"), [""; 0]);
        assert_eq!(
            problems("index: {layout: fixed, alert: alert, log: alert}"),
            [""; 0]
        );
        for (text, told) in [
            (
                "index: {alert: Alert}",
                "index.alert: `Alert` cannot name an index",
            ),
            (
                "index: {log: 'a b'}",
                "index.log: `a b` cannot name an index",
            ),
            (
                "index: {alert: x, log: x}",
                "index.alert: `x-…` is also what `log`",
            ),
            (
                "index: {alert: x, log: x-y}",
                "index.alert: `x-…` is also what `log`",
            ),
            ("index: {retention: 36h}", "index.retention: use whole days"),
            ("index: {shards: 0}", "index.shards: "),
        ] {
            let found = problems(text);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(found[0].contains(told), "{text}: {found:?}");
        }
    }

    fn day(text: &str) -> Day {
        let view = View {
            updated_time: text,
            ..View::read(Kind::Message, &[])
        };
        Day::of(&view).unwrap()
    }

    #[test]
    fn an_index_outlives_the_last_event_that_could_make_it_again() {
        let config = IndexConfig {
            retention: Some(Span(7 * DAY)),
            ..IndexConfig::default()
        };
        let indices = Indices::new(&config);
        let of = day("2026-11-10T12:00:00Z");
        // The earliest moment at which the index of that day can have been made, and the last at which it is written to.
        assert_eq!(indices.takes(of, day("2026-11-09T00:00:00Z")), Ok(()));
        assert_eq!(indices.takes(of, day("2026-11-17T23:59:59Z")), Ok(()));
        let made = day("2026-11-09T00:00:00Z");
        let last_moment = day("2026-11-18T00:00:00Z");
        assert_eq!(last_moment.since(made), indices.delete_after_days() as i32);

        let old = indices.takes(of, last_moment).unwrap_err();
        assert_eq!(
            old.to_string(),
            "it is of 2026.11.10, which is older than the retention of the index (7 days)"
        );
        let ahead = indices.takes(of, day("2026-11-08T23:00:00Z"));
        assert_eq!(ahead, Err(NoIndex::Ahead { day: of }));
    }
}
