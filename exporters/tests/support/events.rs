//! Events, batches and sinks for tests.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]

use std::sync::Arc;
use std::time::Duration;

use exporters::{Batch, Carried, Context, Encoded, Outcome, Sink, SinkConfig, Trial};
use prost::Message as _;
use proto::{Event, EventId, Kind, StreamId, feeder};

/// An alert of that number whose pod has that name.
pub fn alert(sequence: u64, pod: &str) -> Carried {
    let alert = feeder::Alert {
        timestamp: 1_767_225_600,
        updated_time: format!("2026-01-01T00:00:{:02}.123456Z", sequence % 60),
        cluster_name: "test".into(),
        host_name: "node-a".into(),
        namespace_name: "shop".into(),
        pod_name: pod.into(),
        policy_name: "no-apt".into(),
        severity: "8".into(),
        r#type: "MatchedPolicy".into(),
        operation: "Process".into(),
        resource: "/usr/bin/apt update".into(),
        action: "Block".into(),
        result: "Permission denied".into(),
        ..Default::default()
    };
    of(sequence, alert.encode_to_vec())
}

/// An alert of these bytes.
pub fn of(sequence: u64, payload: Vec<u8>) -> Carried {
    of_kind(Kind::Alert, sequence, payload)
}

/// An event of these bytes.
pub fn of_kind(kind: Kind, sequence: u64, payload: Vec<u8>) -> Carried {
    let id = EventId {
        stream: StreamId(*b"contract"),
        sequence,
    };
    Carried::from(Encoded::new(Event {
        kind,
        id,
        payload: payload.into(),
    }))
}

/// An alert that no reader can read.
pub fn broken(sequence: u64) -> Carried {
    of(sequence, vec![0x0a, 200])
}

/// So many alerts, numbered from 1.
pub fn alerts(count: u64) -> Arc<Batch> {
    batch((1..=count).map(|n| alert(n, "cart")))
}

pub fn batch(events: impl IntoIterator<Item = Carried>) -> Arc<Batch> {
    Arc::new(Batch::new(events.into_iter().collect()))
}

/// The ids of a batch, as sinks write them.
pub fn ids(batch: &Batch) -> Vec<String> {
    batch
        .events()
        .iter()
        .map(|event| event.id().to_string())
        .collect()
}

/// The sink of these settings.
pub fn sink(settings: &str) -> Box<dyn Sink> {
    let (nodes, mut problems) = yaml::parse("c.yaml", settings);
    let config = SinkConfig::read(&nodes[0], yaml::Severity::Error, &mut problems);
    assert_eq!(problems, [], "{settings}");
    exporters::build("contract", &config.unwrap(), &Context::default()).unwrap()
}

/// `d`one, `r`etry or `x` rejected or refused, one letter an event.
pub fn letters(outcomes: &[Outcome]) -> String {
    let letter = |outcome: &Outcome| match outcome {
        Outcome::Done => 'd',
        Outcome::Retry { .. } => 'r',
        Outcome::Reject { .. } | Outcome::Refuse { .. } => 'x',
    };
    outcomes.iter().map(letter).collect()
}

/// Why the event at this place was rejected.
pub fn reason(outcomes: &[Outcome], place: usize) -> &str {
    match &outcomes[place] {
        Outcome::Reject { reason } | Outcome::Refuse { reason } => reason,
        other => panic!("not rejected: {other:?}"),
    }
}

/// The steps of `cresset sink test` with this event: `+` or `-` and the name of each, and what the last one said.
pub async fn steps(sink: &dyn Sink, event: Carried) -> (Vec<String>, String) {
    let (trial, mut told) = Trial::new();
    let tried = tokio::time::timeout(Duration::from_secs(60), sink.test(event, &trial)).await;
    drop(trial);
    let (mut steps, mut last) = (Vec::new(), String::new());
    while let Some(step) = told.recv().await {
        let sign = if step.outcome.is_ok() { '+' } else { '-' };
        steps.push(format!("{sign}{}", step.name));
        last = step.outcome.unwrap_or_else(|wrong| wrong);
        assert!(!last.is_empty());
    }
    let fine = steps.iter().all(|step| step.starts_with('+'));
    assert_eq!(tried.expect("in time").is_ok(), fine, "{steps:?}: {last}");
    (steps, last)
}
