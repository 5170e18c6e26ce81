//! ArcSight's Common Event Format, version 0.
//!
//! ```text
//! CEF:0|Cresset|Cresset|0.1.0|MatchedPolicy|no-apt: Block Process|8|rt=… externalId=… act=Block …
//! ```
//! Escapes (Micro Focus, "ArcSight Common Event Format", version 26): `\` and `|` in the header; `\` and `=` in values, line
//! ends as `\n` and `\r`. Other control characters are written as `\xNN`: a zero byte would end the line for many readers.

use std::fmt::Write as _;

use proto::View;

use super::text::escaped;
use crate::{Encoded, told};

/// One event. Texts are never cut: a receiver that has bounds cuts by itself.
pub(super) fn write(event: &Encoded, view: &View<'_>) -> String {
    let header = |text: &str| escaped(text, &['\\', '|']);
    let class = match view.type_ {
        "" => view.kind.name(),
        type_ => type_,
    };
    let mut out = format!(
        "CEF:0|Cresset|Cresset|{}|{}|{}|{}|",
        env!("CARGO_PKG_VERSION"),
        header(class),
        header(&name(view)),
        told::gravity(view)
    );
    let mut first = true;
    for (key, value) in extension(event, view) {
        if !value.is_empty() {
            let space = if first { "" } else { " " };
            // Writing into memory does not fail.
            let _ = write!(out, "{space}{key}={}", escaped(&value, &['\\', '=']));
            first = false;
        }
    }
    out
}

fn name(view: &View<'_>) -> String {
    let what = [view.action, view.operation].join(" ");
    match (view.policy, what.trim()) {
        ("", "") => view.kind.name().to_owned(),
        ("", what) => what.to_owned(),
        (policy, what) => format!("{policy}: {what}"),
    }
}

fn extension<'a>(event: &Encoded, view: &View<'a>) -> Vec<(&'static str, String)> {
    let text = |text: &'a str| text.to_owned();
    let (address, port) = told::peer(view);
    let (host_key, port_key) = match told::is_inbound(view) {
        true => ("src", "spt"),
        false => ("dst", "dpt"),
    };
    let time = told::time(view).map(|time| time.as_millisecond().to_string());
    let mut pairs = vec![
        ("rt", time.unwrap_or_default()),
        ("externalId", event.id().to_string()),
        ("dvchost", text(view.host)),
        ("cat", text(view.operation)),
        ("act", text(view.action)),
        ("outcome", text(view.result)),
        ("msg", text(view.message)),
        ("sproc", text(told::actor(view).0)),
        (host_key, address.unwrap_or_default().to_owned()),
        (
            port_key,
            port.map(|port| port.to_string()).unwrap_or_default(),
        ),
    ];
    pairs.push(match view.operation {
        "File" => ("filePath", text(view.resource)),
        "Process" => ("dproc", text(view.resource)),
        _ => ("request", text(view.resource)),
    });
    let own = [
        ("cs1Label", "cs1", "policy", view.policy),
        ("cs2Label", "cs2", "namespace", view.namespace),
        ("cs3Label", "cs3", "pod", view.pod),
        ("cs4Label", "cs4", "container", view.container_name),
        ("cs5Label", "cs5", "labels", view.labels),
        ("cs6Label", "cs6", "cluster", view.cluster),
        ("flexString1Label", "flexString1", "source", view.source),
        ("flexString2Label", "flexString2", "data", view.data),
    ];
    for (label_key, key, label, value) in own {
        if !value.is_empty() {
            pairs.extend([(label_key, label.to_owned()), (key, text(value))]);
        }
    }
    pairs
}
