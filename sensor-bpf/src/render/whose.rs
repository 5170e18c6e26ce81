//! Whose task acted, and what an event says of that.

use proto::feeder;

use crate::observe::Task;
use crate::workload::Workload;

/// Whose task acted.
#[derive(Debug, Clone, Copy)]
pub enum Whose<'a> {
    /// A workload's.
    Workload(&'a Workload),
    /// The host's own: it is in no workload.
    Host {
        /// The name of its user; empty when it has none.
        user: &'a str,
    },
}

impl Whose<'_> {
    pub(super) fn log_type(self) -> &'static str {
        match self {
            Self::Workload(_) => "ContainerLog",
            Self::Host { .. } => "HostLog",
        }
    }

    /// No rule judges the host, so its word is here for the sake of a complete language.
    pub(super) fn alert_type(self) -> &'static str {
        match self {
            Self::Workload(_) => "MatchedPolicy",
            Self::Host { .. } => "MatchedHostPolicy",
        }
    }
}

/// The fields of an event that say whose task it was. KubeArmor names the user of the host's tasks only, and gives them
/// the ids that the host sees, whichever pid namespace they have made for themselves.
#[derive(Default)]
pub(super) struct Subject {
    pub(super) namespace: String,
    pub(super) owner: Option<feeder::Podowner>,
    pub(super) pod: String,
    pub(super) labels: String,
    pub(super) container_id: String,
    pub(super) container: String,
    pub(super) image: String,
    pub(super) user_name: String,
    pub(super) pid: u32,
    pub(super) ppid: u32,
}

impl Subject {
    pub(super) fn of(whose: Whose<'_>, task: &Task) -> Self {
        match whose {
            Whose::Workload(workload) => Self {
                namespace: workload.identity.namespace.clone(),
                owner: owner(workload),
                pod: workload.identity.name.clone(),
                labels: workload.labels.clone(),
                container_id: workload.container_id.clone(),
                container: workload.identity.container.clone(),
                image: workload.identity.image.clone(),
                user_name: String::new(),
                pid: task.pid,
                ppid: task.ppid,
            },
            Whose::Host { user } => Self {
                user_name: user.to_owned(),
                pid: task.host_pid,
                ppid: task.host_ppid,
                ..Self::default()
            },
        }
    }
}

fn owner(workload: &Workload) -> Option<feeder::Podowner> {
    let owner = workload.identity.owner.as_ref()?;
    if owner.kind.is_empty() && owner.name.is_empty() && owner.namespace.is_empty() {
        return None;
    }
    Some(feeder::Podowner {
        r#ref: owner.kind.clone(),
        name: owner.name.clone(),
        namespace: owner.namespace.clone(),
    })
}
