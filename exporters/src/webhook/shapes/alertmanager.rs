//! Alertmanager's API, version 2: `POST /api/v2/alerts`, a list of alerts.
//!
//! Labels name the alert, so they are the group's key and nothing that differs from event to event; Alertmanager joins a
//! later message with the same labels to this one. An alert that is over already when it arrives is told to nobody, so one
//! that comes late (the relay was away, Alertmanager was) ends some time from now and not from when it was. Source:
//! `api/v2/openapi.yaml` and `notify.DedupStage` of Alertmanager 0.25.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Told;
use crate::webhook::group::Group;

/// An alert is over when nothing like it was seen or arrived for so long.
const OVER: Duration = Duration::from_secs(300);

pub(super) fn alerts(sink: &str, group: &Group<'_>, told_of: &Told) -> Value {
    let mut labels: BTreeMap<&str, String> = group
        .key
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()))
        .collect();
    let name = labels.get("policy").or(labels.get("kind")).cloned();
    labels.insert("alertname", name.unwrap_or("Several".to_owned()));
    labels.insert("severity", super::grade(group.gravity).to_owned());
    labels.insert("source", format!("cresset/{sink}"));
    let now = Timestamp::now();
    let (first, last) = group.times.unwrap_or((now, now));
    let last = last.max(now);
    let over = last.checked_add(OVER).unwrap_or(last);
    json!([{
        "labels": labels,
        "annotations": {
            "summary": told_of.title,
            "description": told_of.summary,
            "count": group.count().to_string(),
        },
        "startsAt": first.to_string(),
        "endsAt": over.to_string(),
    }])
}
