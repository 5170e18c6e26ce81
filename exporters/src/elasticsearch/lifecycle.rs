//! When an index goes: a policy of Index Lifecycle Management (Elasticsearch) or Index State Management (OpenSearch).
//!
//! Daily indices go by their age, `retention` and two days after they were made. A data stream rolls over once a day or at
//! 50 GB a shard, and its backing indices go `retention` after that. A fixed index is left alone: it is not this program's.

use proto::Kind;
use serde_json::{Value, json};

use super::index::{Indices, Layout};
use super::template::{Flavour, PRIORITY};

/// Whether there is a policy.
pub(super) fn is_wanted(indices: &Indices) -> bool {
    indices.layout != Layout::Fixed
}

/// The policy for a kind, as the server takes it.
pub(super) fn policy(indices: &Indices, kind: Kind, flavour: Flavour) -> Value {
    match flavour {
        Flavour::Elasticsearch => ilm(indices),
        Flavour::OpenSearch => ism(indices, kind),
    }
}

fn ilm(indices: &Indices) -> Value {
    let rollover = match indices.layout {
        Layout::DataStream => {
            json!({ "rollover": { "max_age": "1d", "max_primary_shard_size": "50gb" } })
        }
        Layout::Daily | Layout::Fixed => json!({}),
    };
    json!({ "policy": {
        "_meta": { "managed_by": "cresset" },
        "phases": {
            "hot": { "min_age": "0ms", "actions": rollover },
            "delete": { "min_age": age(indices), "actions": { "delete": {} } },
        },
    } })
}

fn ism(indices: &Indices, kind: Kind) -> Value {
    let rollover = match indices.layout {
        Layout::DataStream => {
            json!([{ "rollover": { "min_index_age": "1d", "min_primary_shard_size": "50gb" } }])
        }
        Layout::Daily | Layout::Fixed => json!([]),
    };
    let condition = match indices.layout {
        Layout::DataStream => json!({ "min_rollover_age": age(indices) }),
        Layout::Daily | Layout::Fixed => json!({ "min_index_age": age(indices) }),
    };
    json!({ "policy": {
        "description": "managed by cresset",
        "default_state": "kept",
        "states": [
            {
                "name": "kept",
                "actions": rollover,
                "transitions": [{ "state_name": "deleted", "conditions": condition }],
            },
            { "name": "deleted", "actions": [{ "delete": {} }], "transitions": [] },
        ],
        "ism_template": [{ "index_patterns": [indices.pattern(kind)], "priority": PRIORITY }],
    } })
}

fn age(indices: &Indices) -> String {
    format!("{}d", indices.delete_after_days())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elasticsearch::IndexConfig;

    fn policy_of(layout: Layout, flavour: Flavour) -> Value {
        let config = IndexConfig {
            layout,
            ..IndexConfig::default()
        };
        policy(&Indices::new(&config), Kind::Alert, flavour)
    }

    #[test]
    fn a_daily_index_goes_after_the_last_event_that_it_could_get() {
        let policy = policy_of(Layout::Daily, Flavour::Elasticsearch);
        assert_eq!(policy["policy"]["phases"]["delete"]["min_age"], "32d");
        assert_eq!(policy["policy"]["phases"]["hot"]["actions"], json!({}));
        let policy = policy_of(Layout::Daily, Flavour::OpenSearch);
        let transition = &policy["policy"]["states"][0]["transitions"][0];
        assert_eq!(transition["conditions"]["min_index_age"], "32d");
        assert_eq!(
            policy["policy"]["ism_template"][0]["index_patterns"],
            json!(["kubearmor-alerts-*"])
        );
    }

    #[test]
    fn only_a_data_stream_rolls_over() {
        let policy = policy_of(Layout::DataStream, Flavour::Elasticsearch);
        assert_eq!(
            policy["policy"]["phases"]["hot"]["actions"]["rollover"]["max_age"],
            "1d"
        );
        assert_eq!(policy["policy"]["phases"]["delete"]["min_age"], "30d");
    }
}
