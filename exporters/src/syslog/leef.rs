//! QRadar's Log Event Extended Format, version 2.0.
//!
//! ```text
//! LEEF:2.0|Cresset|Cresset|0.1.0|MatchedPolicy|x09|devTime=…<tab>sev=8<tab>…
//! ```
//! Source: IBM, "QRadar LEEF guide": attributes are parted by the tab that the header names, so a tab or line end in a value
//! is written as `\t`, `\n`, `\r`, and a backslash as two.

use proto::View;

use super::text::escaped;
use crate::{Encoded, told};

/// One event.
pub(super) fn write(event: &Encoded, view: &View<'_>) -> String {
    let id = match view.type_ {
        "" => view.kind.name(),
        type_ => type_,
    };
    let header = format!(
        "LEEF:2.0|Cresset|Cresset|{}|{}|x09|",
        env!("CARGO_PKG_VERSION"),
        escaped(id, &['\\', '|'])
    );
    let there = attributes(event, view)
        .into_iter()
        .filter(|(_, value)| !value.is_empty());
    let pairs: Vec<String> = there
        .map(|(key, value)| format!("{key}={}", escaped(&value, &['\\'])))
        .collect();
    header + &pairs.join("\t")
}

fn attributes<'a>(event: &Encoded, view: &View<'a>) -> Vec<(&'static str, String)> {
    let text = |text: &'a str| text.to_owned();
    let (address, port) = told::peer(view);
    let (host_key, port_key) = match told::is_inbound(view) {
        true => ("src", "srcPort"),
        false => ("dst", "dstPort"),
    };
    let time = told::time(view).map(|time| time.as_millisecond().to_string());
    vec![
        ("devTime", time.unwrap_or_default()),
        ("sev", told::gravity(view).max(1).to_string()),
        ("cat", text(view.operation)),
        ("eventId", event.id().to_string()),
        ("identHostName", text(view.host)),
        (host_key, address.unwrap_or_default().to_owned()),
        (
            port_key,
            port.map(|port| port.to_string()).unwrap_or_default(),
        ),
        ("action", text(view.action)),
        ("result", text(view.result)),
        ("policy", text(view.policy)),
        ("resource", text(view.resource)),
        ("process", text(view.process)),
        ("parentProcess", text(view.parent_process)),
        ("source", text(view.source)),
        ("data", text(view.data)),
        ("cluster", text(view.cluster)),
        ("namespace", text(view.namespace)),
        ("pod", text(view.pod)),
        ("labels", text(view.labels)),
        ("container", text(view.container_name)),
        ("containerId", text(view.container_id)),
        ("image", text(view.container_image)),
        ("tags", text(view.tags)),
        ("enforcer", text(view.enforcer)),
        ("level", text(view.level)),
        ("msg", text(view.message)),
    ]
}
