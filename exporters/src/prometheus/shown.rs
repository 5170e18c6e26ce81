//! The counters as a registry sees them.

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, LabelPair, Metric, MetricFamily, MetricType};
use proto::Kind;

use super::Shared;
use super::counts::{ALERT_COUNTERS, BETWEEN, EVENTS, FOLDED, LOG_LABELS, LOGS, kind_label};
use super::table::{OTHER, Table};

/// The counters as the registry sees them.
pub(super) struct Shown {
    state: Shared,
    descs: Vec<Desc>,
}

impl Shown {
    pub(super) fn new(state: Shared) -> prometheus::Result<Self> {
        let desc = |name: &str, help: &str, labels: &[&str]| {
            let labels = labels.iter().map(|&label| label.to_owned()).collect();
            Desc::new(name.to_owned(), help.to_owned(), labels, Default::default())
        };
        let mut descs = ALERT_COUNTERS
            .iter()
            .map(|counter| desc(counter.name, counter.help, &[counter.label]))
            .collect::<prometheus::Result<Vec<_>>>()?;
        descs.push(desc(EVENTS, EVENTS_HELP, &["kind", "operation"])?);
        descs.push(desc(LOGS, LOGS_HELP, &LOG_LABELS)?);
        descs.push(desc(FOLDED, FOLDED_HELP, &["metric"])?);
        Ok(Shown { state, descs })
    }
}

const EVENTS_HELP: &str = "Events by kind and operation.";
const LOGS_HELP: &str =
    "Logs by operation, namespace and workload: the pod's owner, else the pod, else the container.";
const FOLDED_HELP: &str =
    "Events whose label value was counted as `other`, because the metric has its number of values.";

impl Collector for Shown {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let counts = {
            let state = self.state.lock();
            if !state.shown {
                return Vec::new();
            }
            state.counts.clone()
        };
        let mut families = Vec::with_capacity(ALERT_COUNTERS.len() + 2);
        let mut folded = Vec::new();
        for (table, counter) in counts.alerts.iter().zip(&ALERT_COUNTERS) {
            let values = table.iter();
            let metrics = values.map(|(value, n)| metric(&[(counter.label, value)], n));
            families.push(family(counter.name, counter.help, metrics.collect()));
            folded.push(metric(&[("metric", counter.name)], table.folded()));
        }
        let mut metrics = Vec::new();
        for (table, kind) in counts.events.iter().zip(Kind::ALL.map(kind_label)) {
            let values = table.iter();
            metrics.extend(
                values.map(|(value, n)| metric(&[("kind", kind), ("operation", value)], n)),
            );
        }
        let in_events = counts.events.iter().map(Table::folded).sum();
        folded.push(metric(&[("metric", EVENTS)], in_events));
        folded.push(metric(&[("metric", LOGS)], counts.logs.folded()));
        families.push(family(EVENTS, EVENTS_HELP, metrics));
        let logs = counts.logs.iter().map(|(key, n)| log_metric(key, n));
        families.push(family(LOGS, LOGS_HELP, logs.collect()));
        families.push(family(FOLDED, FOLDED_HELP, folded));
        families
    }
}

/// Every label of what was folded is `other`.
fn log_metric(key: &str, value: u64) -> Metric {
    let mut parts = key.split(BETWEEN);
    let labels = LOG_LABELS.map(|name| (name, parts.next().unwrap_or(OTHER)));
    metric(&labels, value)
}

fn metric(labels: &[(&str, &str)], value: u64) -> Metric {
    let pair = |&(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value.to_owned());
        pair
    };
    let mut counter = Counter::default();
    // Exact up to 2^53 events.
    counter.set_value(value as f64);
    let mut metric = Metric::from_label(labels.iter().map(pair).collect());
    metric.set_counter(counter);
    metric
}

fn family(name: &str, help: &str, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(MetricType::COUNTER);
    family.set_metric(metrics);
    family
}
