//! What is counted, under which names.

use proto::{Kind, Texts, View};

use super::table::Table;
use crate::Encoded;

/// One of KubeArmor's counters of alerts.
pub(super) struct AlertCounter {
    pub(super) name: &'static str,
    pub(super) label: &'static str,
    pub(super) help: &'static str,
    value: for<'a> fn(&View<'a>) -> &'a str,
}

pub(super) static ALERT_COUNTERS: [AlertCounter; 9] = [
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

pub(super) const EVENTS: &str = "cresset_events_total";
pub(super) const LOGS: &str = "cresset_logs_total";
pub(super) const FOLDED: &str = "cresset_label_values_folded_total";

/// Labels of [`LOGS`], in the order of the parts of a key of its table.
pub(super) const LOG_LABELS: [&str; 3] = ["operation", "namespace", "workload"];
/// Between the parts of a key; a value that holds it is folded.
pub(super) const BETWEEN: char = '\0';

/// The word of a kind in our own labels.
pub(super) fn kind_label(kind: Kind) -> &'static str {
    match kind {
        Kind::Alert => "alert",
        Kind::Log => "log",
        Kind::Message => "message",
    }
}

/// All values.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Counts {
    /// As [`ALERT_COUNTERS`].
    pub(super) alerts: [Table; 9],
    /// Operations, a table a kind.
    pub(super) events: [Table; 3],
    /// As [`LOG_LABELS`].
    pub(super) logs: Table,
}

/// What of an event the counters are by, besides the workload.
fn counted(kind: Kind) -> Texts {
    const OPERATION: Texts = Texts::of(&["Operation"]);
    const LOG: Texts = OPERATION.and(Texts::of(&["NamespaceName"]));
    const ALERT: Texts = LOG.and(Texts::of(&[
        "HostName",
        "PodName",
        "ContainerName",
        "PolicyName",
        "Severity",
        "Type",
        "Action",
    ]));
    match kind {
        Kind::Alert => ALERT,
        Kind::Log => LOG,
        Kind::Message => OPERATION,
    }
}

impl Counts {
    pub(super) fn new(max_values: usize) -> Self {
        Counts {
            alerts: std::array::from_fn(|_| Table::new(max_values)),
            events: std::array::from_fn(|_| Table::new(max_values)),
            logs: Table::new(max_values),
        }
    }

    pub(super) fn count(&mut self, event: &Encoded) {
        let kind = event.kind();
        // Broken bytes count as what they are, without any fields.
        let Ok(found) = event.found() else {
            return self.count_found(&View::empty(kind), "");
        };
        let workload = match kind {
            Kind::Log => found.workload(),
            Kind::Alert | Kind::Message => "",
        };
        self.count_found(&found.view_of(counted(kind)), workload);
    }

    fn count_found(&mut self, view: &View<'_>, workload: &str) {
        match view.kind {
            Kind::Alert => {
                for (table, counter) in self.alerts.iter_mut().zip(&ALERT_COUNTERS) {
                    table.count((counter.value)(view));
                }
            }
            Kind::Log => self.count_log(view, workload),
            Kind::Message => {}
        }
        self.of_kind(view.kind).count(view.operation);
    }

    fn count_log(&mut self, view: &View<'_>, workload: &str) {
        let parts = [view.operation, view.namespace, workload];
        if parts.iter().any(|part| part.contains(BETWEEN)) {
            self.logs.fold();
        } else {
            let mut key = String::with_capacity(parts.iter().map(|part| part.len() + 1).sum());
            for (n, part) in parts.into_iter().enumerate() {
                if n > 0 {
                    key.push(BETWEEN);
                }
                key.push_str(part);
            }
            self.logs.count(&key);
        }
    }

    pub(super) fn of_kind(&mut self, kind: Kind) -> &mut Table {
        let [alerts, logs, messages] = &mut self.events;
        match kind {
            Kind::Alert => alerts,
            Kind::Log => logs,
            Kind::Message => messages,
        }
    }

    /// Every table with the name that a snapshot knows it by.
    pub(super) fn tables(&mut self) -> impl Iterator<Item = (String, &mut Table)> {
        let alerts = ALERT_COUNTERS.iter().map(|counter| counter.name.to_owned());
        let events = Kind::ALL.map(|kind| format!("{EVENTS}/{}", kind_label(kind)));
        let tables = self.alerts.iter_mut().chain(&mut self.events);
        let names = alerts.chain(events).chain([LOGS.to_owned()]);
        names.zip(tables.chain([&mut self.logs]))
    }
}
