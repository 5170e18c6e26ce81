//! PagerDuty's Events API, version 2: `POST /v2/enqueue`, one event.
//!
//! `dedup_key` is the group's key, so a later message about the same joins the open incident. Source: PagerDuty, "Send an
//! alert event": summary up to 1,024 characters, dedup_key up to 255, an event up to 512 KB.

use serde_json::{Value, json};

use super::{Told, grade, object};
use crate::told;
use crate::webhook::group::Group;

/// Of a text in the details, in bytes of JSON: one large event does not go over the bound.
const MAX_DETAIL: usize = 256 << 10;

pub(super) fn event(
    key: &str,
    sink: &str,
    group: &Group<'_>,
    told_of: &Told,
) -> Result<Value, String> {
    let first = group.first().ok_or("no event; please report it")?;
    let view = first.view();
    let mut details = object(first)?;
    if details.to_string().len() > MAX_DETAIL {
        details = json!({"left_out": "the event is too large for PagerDuty", "EventID": first.id().to_string()});
    }
    let name = format!("cresset/{sink}/{}", group.name());
    let mut payload = json!({
        "summary": told::cut(&told_of.title, 1024),
        "source": if view.host.is_empty() { "cresset" } else { view.host },
        "severity": grade(group.gravity),
        "custom_details": {"count": group.count(), "groups": group.groups, "first": told_of.first, "last": told_of.last, "event": details},
    });
    for (name, value) in [
        ("timestamp", told_of.first.as_str()),
        ("component", view.pod),
        ("group", view.namespace),
        ("class", view.operation),
    ] {
        if !value.is_empty() {
            payload[name] = value.into();
        }
    }
    Ok(json!({
        "routing_key": key,
        "event_action": "trigger",
        "dedup_key": dedup(&name),
        "client": "Cresset",
        "payload": payload,
    }))
}

/// The name if it is short enough, else its beginning and a hash of all of it.
fn dedup(name: &str) -> String {
    match name.chars().count() <= 255 {
        true => name.to_owned(),
        false => {
            // FNV-1a, 64 bits: the same for ever and everywhere.
            let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
            format!("{}{hash:016x}", told::cut(name, 230))
        }
    }
}
