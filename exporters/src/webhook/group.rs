//! Alike events of one batch.

use std::collections::HashMap;

use jiff::Timestamp;
use proto::View;

use super::GroupField;
use crate::{Batch, Encoded, told};

/// Events that one message tells of.
pub(super) struct Group<'a> {
    /// What they have in common, as far as it is not empty; nothing for what was folded together.
    pub(super) key: Vec<(&'static str, &'a str)>,
    /// In the journal's order, at least one, each with its place in the batch.
    events: Vec<(usize, &'a Encoded)>,
    /// How many groups it was made of.
    pub(super) groups: usize,
    /// The gravest of them, 0 to 10.
    pub(super) gravity: u32,
    /// Of the first and the last by time; none if no event has a time.
    pub(super) times: Option<(Timestamp, Timestamp)>,
}

impl<'a> Group<'a> {
    fn new(key: Vec<(&'static str, &'a str)>) -> Self {
        Group {
            key,
            events: Vec::new(),
            groups: 1,
            gravity: 0,
            times: None,
        }
    }

    fn push(&mut self, place: usize, event: &'a Encoded, view: &View<'_>) {
        self.events.push((place, event));
        self.gravity = self.gravity.max(told::gravity(view));
        if let Some(time) = told::time(view) {
            let (first, last) = self.times.unwrap_or((time, time));
            self.times = Some((first.min(time), last.max(time)));
        }
    }

    fn join(&mut self, other: Group<'a>) {
        self.key.clear();
        self.events.extend(other.events);
        self.groups += other.groups;
        self.gravity = self.gravity.max(other.gravity);
        self.times = match (self.times, other.times) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (mine, theirs) => mine.or(theirs),
        };
    }

    pub(super) fn places(&self) -> impl Iterator<Item = usize> {
        self.events.iter().map(|(place, _)| *place)
    }

    pub(super) fn events(&self) -> impl Iterator<Item = &'a Encoded> {
        self.events.iter().map(|(_, event)| *event)
    }

    /// The event that stands for them.
    pub(super) fn first(&self) -> Option<&'a Encoded> {
        self.events().next()
    }

    pub(super) fn count(&self) -> usize {
        self.events.len()
    }

    /// The key as one text, the same for the same key: what joins a later message to this one.
    pub(super) fn name(&self) -> String {
        let parts: Vec<String> = self.key.iter().map(|(k, v)| format!("{k}={v}")).collect();
        match parts.is_empty() {
            true => "several".to_owned(),
            false => parts.join(","),
        }
    }
}

/// The groups of a batch, the one whose event came first in front.
pub(super) fn of<'a>(batch: &'a Batch, by: &[GroupField]) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    let mut known: HashMap<Vec<(&'static str, &'a str)>, usize> = HashMap::new();
    for (place, event) in batch.events().iter().enumerate() {
        let view = event.view();
        let key: Vec<_> = by
            .iter()
            .map(|field| field.read(&view))
            .filter(|(_, value)| !value.is_empty())
            .collect();
        let at = *known.entry(key).or_insert_with_key(|key| {
            groups.push(Group::new(key.clone()));
            groups.len() - 1
        });
        groups[at].push(place, event, &view);
    }
    groups
}

/// At most `most` groups (at least one): the gravest stay alone, the others become one.
pub(super) fn fold(mut groups: Vec<Group<'_>>, most: usize) -> Vec<Group<'_>> {
    let most = most.max(1);
    if groups.len() <= most {
        return groups;
    }
    groups.sort_by_key(|group| std::cmp::Reverse((group.gravity, group.count())));
    let mut rest = groups.split_off(most - 1).into_iter();
    if let Some(mut folded) = rest.next() {
        rest.for_each(|group| folded.join(group));
        groups.push(folded);
    }
    groups
}

impl GroupField {
    fn read<'a>(self, view: &View<'a>) -> (&'static str, &'a str) {
        match self {
            GroupField::Kind => ("kind", view.kind.name()),
            GroupField::Cluster => ("cluster", view.cluster),
            GroupField::Host => ("host", view.host),
            GroupField::Namespace => ("namespace", view.namespace),
            GroupField::Pod => ("pod", view.pod),
            GroupField::Container => ("container", view.container_name),
            GroupField::Policy => ("policy", view.policy),
            GroupField::Severity => ("severity", view.severity),
            GroupField::Operation => ("operation", view.operation),
            GroupField::Action => ("action", view.action),
            GroupField::Process => ("process", view.process),
            GroupField::Resource => ("resource", view.resource),
            GroupField::Result => ("result", view.result),
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::feeder;

    use super::*;
    use crate::fixtures::batch_of;

    fn alert(pod: &str, severity: &str) -> feeder::Alert {
        feeder::Alert {
            pod_name: pod.into(),
            severity: severity.into(),
            ..Default::default()
        }
    }

    #[test]
    fn alike_events_are_one_group_and_what_may_not_go_alone_is_folded_with_its_count() {
        let batch = batch_of([
            alert("a", "1"),
            alert("b", "9"),
            alert("a", "2"),
            alert("c", "1"),
        ]);
        let groups = of(&batch, &[GroupField::Pod]);
        let counts: Vec<_> = groups.iter().map(|g| (g.name(), g.count())).collect();
        let named = |name: &str, count| (name.to_owned(), count);
        assert_eq!(
            counts,
            [named("pod=a", 2), named("pod=b", 1), named("pod=c", 1)]
        );
        let folded = fold(groups, 2);
        let counts: Vec<_> = folded.iter().map(|g| (g.name(), g.count())).collect();
        assert_eq!(counts, [named("pod=b", 1), named("several", 3)]);
        assert_eq!((folded[1].groups, folded[1].gravity), (2, 2));
        let places: Vec<usize> = folded.iter().flat_map(Group::places).collect();
        assert_eq!(places, [1, 0, 2, 3]);
    }

    #[test]
    fn an_empty_batch_has_no_group() {
        let batch = Batch::default();
        assert!(fold(of(&batch, &[GroupField::Pod]), 0).is_empty());
    }
}
