//! Counters of events on this program's `/metrics`: KubeArmor's nine, and one of ours.
//!
//! | metric | label |
//! |---|---|
//! | `kubearmor_alerts_in_host_total` | HostName |
//! | `kubearmor_alerts_in_namespace_total` | NamespaceName |
//! | `kubearmor_alerts_in_pod_total` | PodName |
//! | `kubearmor_alerts_in_container_total` | ContainerName |
//! | `kubearmor_alerts_with_policy_total` | PolicyName |
//! | `kubearmor_alerts_with_severity_total` | Severity |
//! | `kubearmor_alerts_with_type_total` | Type |
//! | `kubearmor_alerts_with_operation_total` | Operation |
//! | `kubearmor_alerts_with_action_total` | Action |
//! | `cresset_events_total` | kind, operation |
//! | `cresset_label_values_folded_total` | metric |
//!
//! Names and labels of the nine are those of KubeArmor's Prometheus exporter: one increment an alert, an absent field is
//! an empty label.
//!
//! Decisions:
//! - **Bounded.** A metric admits `max_label_values` values, first come; further ones, and values longer than 256 bytes, count
//!   as `other`, and how many were folded is a counter of its own.
//! - **No step back.** Values, admitted labels and the cursor's position are one atomic snapshot, so an event counts once
//!   across restarts and crashes. After a crash the snapshot is older than what was last scraped; therefore nothing is shown
//!   until the events that were waiting at start are counted again.

mod snapshot;
mod table;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, LabelPair, Metric, MetricFamily, MetricType};
use proto::{FieldSet, Kind, View};
use yaml::{Node, Problem};

use self::table::Table;
use crate::config::{BatchLimits, Defaults};
use crate::{BadSnapshot, Batch, BuildError, Context, Encoded, Outcome, Sink, Unavailable};

config! {
    /// Settings of a `prometheus` sink.
    pub struct Config {
        /// Values that one label may have; the rest counts as `other`. Not given: 1000.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub max_label_values: Option<u32>,
    }
}

const MAX_LABEL_VALUES: u32 = 1000;

/// Counting is quick; the cursor's write is what a batch costs.
pub(crate) static DEFAULTS: Defaults = Defaults {
    batch: BatchLimits {
        max_events: 10_000,
        max_bytes: 8 << 20,
        max_delay: Duration::ZERO,
    },
    concurrency: 1,
    max_concurrency: 1,
    fields: FieldSet::KubeArmor,
};

impl Config {
    pub(crate) fn check(&self, node: &Node, problems: &mut Vec<Problem>) {
        if self
            .max_label_values
            .is_some_and(|n| !(1..=100_000).contains(&n))
        {
            problems.push(node.problem_at("max_label_values", "use 1 to 100000"));
        }
    }
}

/// One of KubeArmor's counters of alerts.
struct AlertCounter {
    name: &'static str,
    label: &'static str,
    help: &'static str,
    value: for<'a> fn(&View<'a>) -> &'a str,
}

static ALERT_COUNTERS: [AlertCounter; 9] = [
    AlertCounter {
        name: "kubearmor_alerts_in_host_total",
        label: "HostName",
        help: "Alerts by node.",
        value: |view| view.host,
    },
    AlertCounter {
        name: "kubearmor_alerts_in_namespace_total",
        label: "NamespaceName",
        help: "Alerts by namespace.",
        value: |view| view.namespace,
    },
    AlertCounter {
        name: "kubearmor_alerts_in_pod_total",
        label: "PodName",
        help: "Alerts by pod.",
        value: |view| view.pod,
    },
    AlertCounter {
        name: "kubearmor_alerts_in_container_total",
        label: "ContainerName",
        help: "Alerts by container.",
        value: |view| view.container_name,
    },
    AlertCounter {
        name: "kubearmor_alerts_with_policy_total",
        label: "PolicyName",
        help: "Alerts by policy.",
        value: |view| view.policy,
    },
    AlertCounter {
        name: "kubearmor_alerts_with_severity_total",
        label: "Severity",
        help: "Alerts by severity.",
        value: |view| view.severity,
    },
    AlertCounter {
        name: "kubearmor_alerts_with_type_total",
        label: "Type",
        help: "Alerts by type.",
        value: |view| view.type_,
    },
    AlertCounter {
        name: "kubearmor_alerts_with_operation_total",
        label: "Operation",
        help: "Alerts by operation.",
        value: |view| view.operation,
    },
    AlertCounter {
        name: "kubearmor_alerts_with_action_total",
        label: "Action",
        help: "Alerts by action.",
        value: |view| view.action,
    },
];

const EVENTS: &str = "cresset_events_total";
const FOLDED: &str = "cresset_label_values_folded_total";

/// The word of a kind in our own labels.
fn kind_label(kind: Kind) -> &'static str {
    match kind {
        Kind::Alert => "alert",
        Kind::Log => "log",
        Kind::Message => "message",
    }
}

/// All values.
#[derive(Clone, Debug, PartialEq)]
struct Counts {
    /// As [`ALERT_COUNTERS`].
    alerts: [Table; 9],
    /// Operations, a table a kind.
    events: [Table; 3],
}

impl Counts {
    fn new(max_values: usize) -> Self {
        Counts {
            alerts: std::array::from_fn(|_| Table::new(max_values)),
            events: std::array::from_fn(|_| Table::new(max_values)),
        }
    }

    fn count(&mut self, event: &Encoded) {
        let view = event.view();
        if view.kind == Kind::Alert {
            for (table, counter) in self.alerts.iter_mut().zip(&ALERT_COUNTERS) {
                table.count((counter.value)(&view));
            }
        }
        for (table, kind) in self.events.iter_mut().zip(Kind::ALL) {
            if kind == view.kind {
                table.count(view.operation);
            }
        }
    }

    /// Every table with the name that a snapshot knows it by.
    fn tables(&mut self) -> impl Iterator<Item = (String, &mut Table)> {
        let alerts = ALERT_COUNTERS.iter().map(|counter| counter.name.to_owned());
        let events = Kind::ALL.map(|kind| format!("{EVENTS}/{}", kind_label(kind)));
        alerts
            .chain(events)
            .zip(self.alerts.iter_mut().chain(&mut self.events))
    }
}

struct State {
    counts: Counts,
    shown: bool,
}

#[derive(Clone)]
struct Shared(Arc<Mutex<State>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Counting cannot panic half way through an event; whole events are what the state consists of.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sink.
pub struct Prometheus {
    state: Shared,
}

impl Prometheus {
    /// Makes the sink and registers its metrics.
    ///
    /// # Errors
    /// Another sink has registered them.
    pub fn build(name: &str, config: &Config, context: &Context) -> Result<Self, BuildError> {
        let max = config.max_label_values.unwrap_or(MAX_LABEL_VALUES) as usize;
        let state = Shared(Arc::new(Mutex::new(State {
            counts: Counts::new(max),
            shown: false,
        })));
        let shown = Shown::new(state.clone()).map_err(|e| BuildError::new(name, e))?;
        context
            .registry
            .register(Box::new(shown))
            .map_err(|e| match e {
                prometheus::Error::AlreadyReg => BuildError::new(
                    name,
                    "there can be only one prometheus sink; remove the other",
                ),
                e => BuildError::new(name, e),
            })?;
        Ok(Prometheus { state })
    }
}

#[async_trait]
impl Sink for Prometheus {
    async fn send(&self, batch: Arc<Batch>) -> Result<Vec<Outcome>, Unavailable> {
        let mut state = self.state.lock();
        for event in batch.events() {
            state.counts.count(event);
        }
        Ok(vec![Outcome::Done; batch.len()])
    }

    fn caught_up(&self) {
        self.state.lock().shown = true;
    }

    fn snapshot(&self) -> Option<Bytes> {
        Some(snapshot::save(&mut self.state.lock().counts))
    }

    fn restore(&self, snapshot: &[u8]) -> Result<(), BadSnapshot> {
        snapshot::load(snapshot, &mut self.state.lock().counts)
    }
}

/// The counters as the registry sees them.
struct Shown {
    state: Shared,
    descs: Vec<Desc>,
}

impl Shown {
    fn new(state: Shared) -> prometheus::Result<Self> {
        let desc = |name: &str, help: &str, labels: &[&str]| {
            let labels = labels.iter().map(|&label| label.to_owned()).collect();
            Desc::new(name.to_owned(), help.to_owned(), labels, Default::default())
        };
        let mut descs = ALERT_COUNTERS
            .iter()
            .map(|counter| desc(counter.name, counter.help, &[counter.label]))
            .collect::<prometheus::Result<Vec<_>>>()?;
        descs.push(desc(EVENTS, EVENTS_HELP, &["kind", "operation"])?);
        descs.push(desc(FOLDED, FOLDED_HELP, &["metric"])?);
        Ok(Shown { state, descs })
    }
}

const EVENTS_HELP: &str = "Events by kind and operation.";
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
        families.push(family(EVENTS, EVENTS_HELP, metrics));
        families.push(family(FOLDED, FOLDED_HELP, folded));
        families
    }
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
