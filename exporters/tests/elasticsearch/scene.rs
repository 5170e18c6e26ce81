//! Events, sinks, and what the fan-out does with outcomes: again until each event is done or refused.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use exporters::{Batch, Carried, Context, Encoded, Outcome, Sink, SinkConfig, Unavailable};
use prost::Message;
use proto::{Event, EventId, Kind, StreamId, feeder};

/// The day that test events are of.
pub(crate) fn now() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64
}

pub(crate) const DAY: u64 = 86_400_000_000_000;

pub(crate) fn event(kind: Kind, sequence: u64, message: &impl Message) -> Carried {
    let id = EventId {
        stream: StreamId(*b"elastic!"),
        sequence,
    };
    Carried::from(Encoded::new(Event {
        kind,
        id,
        payload: message.encode_to_vec().into(),
    }))
}

/// An ordinary alert of this moment; `change` makes it another.
pub(crate) fn alert_with(sequence: u64, change: impl FnOnce(&mut feeder::Alert)) -> Carried {
    let mut alert = feeder::Alert {
        timestamp: (now() / 1_000_000_000) as i64,
        updated_time: proto::updated_time(now()),
        cluster_name: "default".into(),
        host_name: "node-a".into(),
        namespace_name: "shop".into(),
        pod_name: format!("cart-{}", sequence % 50),
        labels: "app=cart,tier=web".into(),
        policy_name: "deny-package-tools".into(),
        severity: "5".into(),
        r#type: "MatchedPolicy".into(),
        source: "/usr/bin/bash -c apt".into(),
        operation: "Process".into(),
        resource: "/usr/bin/apt install nmap".into(),
        data: "lsm=SECURITY_BPRM_CHECK".into(),
        event_data: [("Lsm".to_owned(), "SECURITY_BPRM_CHECK".to_owned())].into(),
        action: "Block".into(),
        result: "Permission denied".into(),
        ..Default::default()
    };
    change(&mut alert);
    event(Kind::Alert, sequence, &alert)
}

pub(crate) fn alert(sequence: u64) -> Carried {
    alert_with(sequence, |_| {})
}

pub(crate) fn alerts(sequences: impl IntoIterator<Item = u64>) -> Vec<Carried> {
    sequences.into_iter().map(alert).collect()
}

pub(crate) fn log(sequence: u64) -> Carried {
    let log = feeder::Log {
        updated_time: proto::updated_time(now()),
        operation: "File".into(),
        resource: "/etc/passwd".into(),
        ..Default::default()
    };
    event(Kind::Log, sequence, &log)
}

pub(crate) fn message(sequence: u64) -> Carried {
    let message = feeder::Message {
        updated_time: proto::updated_time(now()),
        level: "WARN".into(),
        message: "two events were lost".into(),
        lost: Some(feeder::Lost {
            count: u64::MAX,
            ..Default::default()
        }),
        ..Default::default()
    };
    event(Kind::Message, sequence, &message)
}

pub(crate) fn config(text: &str) -> SinkConfig {
    let (nodes, mut problems) = yaml::parse("c.yaml", text);
    let config = SinkConfig::read(&nodes[0], yaml::Severity::Error, &mut problems);
    let wrong: Vec<_> = problems
        .iter()
        .filter(|problem| problem.is_error())
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    config.unwrap()
}

pub(crate) fn sink(text: &str) -> Box<dyn Sink> {
    exporters::build("siem", &config(text), &Context::default()).unwrap()
}

/// A sink of type elasticsearch to this address, with further keys.
pub(crate) fn sink_to(url: &str, more: &str) -> Box<dyn Sink> {
    sink(&settings(url, more))
}

pub(crate) fn settings(url: &str, more: &str) -> String {
    format!(
        "{{type: elasticsearch, endpoints: ['{url}']{}{more}}}",
        if more.is_empty() { "" } else { ", " }
    )
}

/// Names for the indices of one test, so that tests can share a server.
pub(crate) fn names(test: &str, more: &str) -> String {
    format!(
        "index: {{alert: {test}-alerts, log: {test}-logs, message: {test}-messages{}{more}}}",
        if more.is_empty() { "" } else { ", " }
    )
}

pub(crate) async fn send(sink: &dyn Sink, events: &[Carried]) -> Result<Vec<Outcome>, Unavailable> {
    sink.send(Arc::new(Batch::new(events.to_vec()))).await
}

pub(crate) async fn send_all_done(sink: &dyn Sink, events: &[Carried]) {
    let outcomes = send(sink, events).await.unwrap();
    assert_eq!(outcomes.len(), events.len());
    let other = outcomes.iter().find(|outcome| **outcome != Outcome::Done);
    assert_eq!(other, None);
}

/// As the fan-out: batches of `size`, what must come again comes again. Gives the reasons of what was refused for good, by
/// sequence, and how many sends it took.
pub(crate) async fn deliver(
    sink: &dyn Sink,
    events: &[Carried],
    size: usize,
) -> (BTreeMap<u64, String>, usize) {
    let deadline = Instant::now() + Duration::from_secs(120);
    let (mut refused, mut sends) = (BTreeMap::new(), 0);
    for batch in events.chunks(size) {
        let mut left = batch.to_vec();
        while !left.is_empty() {
            assert!(
                Instant::now() < deadline,
                "{} events are left after {sends} sends",
                left.len()
            );
            sends += 1;
            match send(sink, &left).await {
                Err(away) => {
                    println!("away: {}", away.reason);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Ok(outcomes) => {
                    let mut again = Vec::new();
                    for (event, outcome) in left.into_iter().zip(outcomes) {
                        match outcome {
                            Outcome::Done => {}
                            Outcome::Retry { .. } => again.push(event),
                            Outcome::Reject { reason } | Outcome::Refuse { reason } => {
                                refused.insert(event.id().sequence, reason);
                            }
                        }
                    }
                    left = again;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        }
    }
    (refused, sends)
}

pub(crate) fn rejection(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Reject { reason } | Outcome::Refuse { reason } => reason,
        other => panic!("{other:?}"),
    }
}
