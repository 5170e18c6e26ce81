//! Where an event comes from, as the resource of its record: cluster, node, pod, labels, container, owner, service.
//!
//! Events of one container have the same bytes here, so the bytes are what records are grouped by: nothing is taken apart
//! again, and no map is built.

use std::collections::BTreeMap;

use proto::{Found, Malformed, Value, View};

use super::attribute;
use super::plan::Plan;

/// `attributes` of `Resource`.
const ATTRIBUTES: u8 = 0x0a;

/// Kinds of an owner that the conventions for Kubernetes have a name for.
const OWNERS: [(&str, &str); 6] = [
    ("deployment", "k8s.deployment.name"),
    ("statefulset", "k8s.statefulset.name"),
    ("daemonset", "k8s.daemonset.name"),
    ("replicaset", "k8s.replicaset.name"),
    ("cronjob", "k8s.cronjob.name"),
    ("job", "k8s.job.name"),
];

/// What the settings add to every resource. It stands over what the event says.
#[derive(Default)]
pub(super) struct Extra {
    attributes: BTreeMap<String, String>,
    encoded: Vec<u8>,
}

impl Extra {
    pub(super) fn new(attributes: &BTreeMap<String, String>) -> Self {
        let mut encoded = Vec::new();
        for (name, value) in attributes {
            attribute::text(ATTRIBUTES, [name, ""], value.as_bytes(), &mut encoded);
        }
        Extra {
            attributes: attributes.clone(),
            encoded,
        }
    }

    /// As a part of a `Resource`.
    pub(super) fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    #[inline]
    fn has(&self, [start, end]: [&str; 2]) -> bool {
        !self.attributes.is_empty() && self.attributes.contains_key(&format!("{start}{end}"))
    }
}

/// Writes the attributes of an event's resource, without those of the settings.
///
/// # Errors
/// A text is not UTF-8.
pub(super) fn write(
    found: &Found<'_>,
    view: &View<'_>,
    plan: &Plan,
    extra: &Extra,
    out: &mut Vec<u8>,
) -> Result<(), Malformed> {
    for (at, name) in plan.places(found) {
        if let Value::Text(text) = found.value(at)?
            && !extra.has([name.text(), ""])
        {
            attribute::named(ATTRIBUTES, name, text, out);
        }
    }
    let mut put = |name: [&str; 2], text: &[u8]| {
        if !extra.has(name) {
            attribute::text(ATTRIBUTES, name, text, out);
        }
    };
    let owner = owner(found, plan)?;
    if let Some((Some(name), owner)) = owner {
        put([name, ""], owner);
    }
    let mut service = owner.map(|(_, name)| name);
    for (key, value) in labels(view) {
        if key == "app.kubernetes.io/name" {
            service = Some(value.as_bytes());
        }
        put(["k8s.pod.label.", key], value.as_bytes());
    }
    put(
        ["service.name", ""],
        service.unwrap_or_else(|| somebody(view)),
    );
    Ok(())
}

/// The owner's name, after the attribute that it stands in if its kind has one.
type Owner<'a> = (Option<&'static str>, &'a [u8]);

/// The owner, if both its kind and its name are told.
fn owner<'a>(found: &Found<'a>, plan: &Plan) -> Result<Option<Owner<'a>>, Malformed> {
    let (mut kind, mut name) = (None, None);
    if let Some(at) = plan.owner(found)
        && let Value::Message(many) = found.value(at)?
    {
        many.fields(|field, value| match (field.otel, value) {
            ("kubearmor.owner.kind", Value::Text(text)) => kind = Some(text),
            ("kubearmor.owner.name", Value::Text(text)) => name = Some(text),
            _ => {}
        })?;
    }
    let known = |kind: &[u8]| {
        let known = OWNERS
            .iter()
            .find(|(known, _)| kind.eq_ignore_ascii_case(known.as_bytes()));
        known.map(|(_, attribute)| *attribute)
    };
    Ok(kind.zip(name).map(|(kind, name)| (known(kind), name)))
}

/// The pod's labels by their keys, each once; of equal ones the last counts.
fn labels<'a>(view: &View<'a>) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
    let trimmed = view.labels().map(|(key, value)| (key.trim(), value.trim()));
    let mut all: Vec<(&str, &str)> = trimmed.collect();
    // Stable: among equal keys the last stays last.
    all.sort_by_key(|(key, _)| *key);
    let mut all = all.into_iter().peekable();
    std::iter::from_fn(move || {
        loop {
            let (key, value) = all.next()?;
            if all.peek().is_none_or(|(next, _)| *next != key) {
                return Some((key, value));
            }
        }
    })
}

/// The service of an event without an owner.
fn somebody<'a>(view: &View<'a>) -> &'a [u8] {
    let names = [view.container_name, view.pod, "cresset"];
    let name = names.into_iter().find(|name| !name.is_empty());
    name.unwrap_or_default().as_bytes()
}
