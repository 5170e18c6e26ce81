//! What a reader who may see some namespaces only is told of the relay: nothing that counts, names or places what is of
//! others.

use proto::query::{PoliciesStatus, RelayStatus, StatusReply};

use crate::access::Namespaces;

/// The part of a status that such a reader may see: that the relay is there, and the policies of its namespaces.
pub(super) fn status(reply: StatusReply, namespaces: &Namespaces) -> StatusReply {
    let relay = reply.relay.map(|relay| RelayStatus {
        version: relay.version,
        cluster: relay.cluster,
        ready: relay.ready,
        ..RelayStatus::default()
    });
    let policies = reply.policies.map(|all| PoliciesStatus {
        policies: all
            .policies
            .into_iter()
            .filter(|policy| namespaces.admits(&policy.namespace))
            .collect(),
        current: all.current,
        ..PoliciesStatus::default()
    });
    StatusReply {
        relay,
        policies,
        ..StatusReply::default()
    }
}
