//! What Falco's HTTP output sends to Falcosidekick: one object, with the event's fields as output fields.
//!
//! Source: `types/types.go` and `handlers.go` of Falcosidekick 2.31: output, priority, rule, time and output_fields must be
//! there; tags are a list of texts.

use std::collections::BTreeMap;

use proto::View;
use serde_json::{Value, json};

use super::Told;
use super::object;
use crate::told;
use crate::webhook::group::Group;

pub(super) fn event(group: &Group<'_>, told_of: &Told) -> Result<Value, String> {
    let first = group.first().ok_or("no event; please report it")?;
    let view = first.view();
    let rule = match (view.policy, view.operation) {
        ("", "") => view.kind.name(),
        ("", operation) => operation,
        (policy, _) => policy,
    };
    let now = || jiff::Timestamp::now().to_string();
    let time = match told_of.first.as_str() {
        "" => now(),
        first => first.to_owned(),
    };
    let tags: Vec<&str> = view
        .tags
        .split(',')
        .map(str::trim)
        .filter(|tag| !tag.is_empty())
        .collect();
    let (repository, tag) = image(view.container_image);
    let mut fields = BTreeMap::from([
        ("cresset.count".to_owned(), json!(group.count())),
        ("cresset.event_id".to_owned(), json!(first.id().to_string())),
        ("k8s.ns.name".to_owned(), json!(view.namespace)),
        ("k8s.pod.name".to_owned(), json!(view.pod)),
        ("container.id".to_owned(), json!(view.container_id)),
        ("container.name".to_owned(), json!(view.container_name)),
        ("container.image.repository".to_owned(), json!(repository)),
        ("container.image.tag".to_owned(), json!(tag)),
    ]);
    fields.extend(process(&view));
    if let Value::Object(all) = object(first)? {
        fields.extend(
            all.into_iter()
                .map(|(name, value)| (format!("kubearmor.{name}"), value)),
        );
    }
    Ok(json!({
        "uuid": first.id().to_string(),
        "output": told_of.title,
        "priority": priority(group.gravity),
        "rule": rule,
        "time": time,
        "source": "cresset",
        "hostname": view.host,
        "tags": tags,
        "output_fields": fields,
    }))
}

/// Falco's `proc` is the program that was started, or the one that acted.
fn process(view: &View<'_>) -> [(String, Value); 4] {
    let (command, parent) = match told::starts(view) {
        true => (view.resource, view.source),
        false => (view.source, ""),
    };
    [
        ("proc.exepath", view.process),
        ("proc.cmdline", command),
        ("proc.pexepath", view.parent_process),
        ("proc.pcmdline", parent),
    ]
    .map(|(name, value)| (name.to_owned(), json!(value)))
}

/// Repository and tag of `repository:tag@digest`; a colon before the last slash is a port's.
fn image(name: &str) -> (&str, &str) {
    let name = name.split_once('@').map_or(name, |(name, _)| name);
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (name, ""),
    }
}

fn priority(gravity: u32) -> &'static str {
    match gravity {
        10.. => "Emergency",
        9 => "Alert",
        8 => "Critical",
        6.. => "Error",
        4.. => "Warning",
        3 => "Notice",
        1.. => "Informational",
        0 => "Debug",
    }
}
