//! The event that `cresset sink test` sends: like any other of its kind, and marked so that nobody takes it for one.

use std::time::Duration;

use exporters::Step;
use futures::{Stream, StreamExt as _, stream};
use prost::Message as _;
use proto::link::EventKind;
use proto::sinks::TestStep;
use proto::{Event, EventId, Kind, StreamId, feeder, updated_time};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::fanout::Steering;
use crate::log::unix_nanoseconds;
use crate::losses::Origin;

/// How long a test may wait for its turn and its next step: longer than one step may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What stands where a name would.
const MARK: &str = "cresset-sink-test";

/// The marked event. Without a kind it is a message, which alarms nobody, or the first kind that the sink's filter wants; a
/// filter that wants none like it is gone past.
pub(super) fn event(sink: &Steering, kind: EventKind, origin: &Origin) -> Event {
    let id = EventId {
        stream: StreamId::random(),
        sequence: 1,
    };
    let make = |kind| Event {
        kind,
        id,
        payload: payload(kind, id, sink.name(), origin).into(),
    };
    if let Ok(kind) = Kind::try_from(kind) {
        return make(kind);
    }
    let kinds = [Kind::Message, Kind::Alert, Kind::Log];
    let wanted = kinds.into_iter().map(make).find(|event| sink.wants(event));
    wanted.unwrap_or_else(|| make(Kind::Message))
}

fn payload(kind: Kind, id: EventId, sink: &str, origin: &Origin) -> Vec<u8> {
    let now = unix_nanoseconds();
    let text = format!("test of sink {sink}: event {id} of `cresset sink test`; nothing happened");
    let message = origin.message(now, "INFO", text.clone());
    let mark = || MARK.to_owned();
    match kind {
        Kind::Message => message.encode_to_vec(),
        Kind::Alert => feeder::Alert {
            timestamp: message.timestamp,
            updated_time: updated_time(now),
            cluster_name: message.cluster_name,
            host_name: message.host_name,
            namespace_name: mark(),
            pod_name: mark(),
            policy_name: mark(),
            severity: "1".to_owned(),
            message: text,
            r#type: "MatchedPolicy".to_owned(),
            source: mark(),
            operation: "Process".to_owned(),
            resource: id.to_string(),
            action: "Audit".to_owned(),
            result: "Passed".to_owned(),
            ..feeder::Alert::default()
        }
        .encode_to_vec(),
        Kind::Log => feeder::Log {
            timestamp: message.timestamp,
            updated_time: updated_time(now),
            cluster_name: message.cluster_name,
            host_name: message.host_name,
            namespace_name: mark(),
            pod_name: mark(),
            r#type: "ContainerLog".to_owned(),
            source: mark(),
            operation: "Process".to_owned(),
            resource: id.to_string(),
            data: text,
            result: "Passed".to_owned(),
            ..feeder::Log::default()
        }
        .encode_to_vec(),
    }
}

/// The steps as they end, and one more where the next never comes.
pub(super) fn steps(
    steps: mpsc::Receiver<Step>,
    id: EventId,
) -> impl Stream<Item = TestStep> + Send {
    stream::unfold(Some(steps), async |steps| {
        let mut steps = steps?;
        match timeout(PATIENCE, steps.recv()).await {
            Ok(Some(step)) => Some((step, Some(steps))),
            Ok(None) => None,
            Err(_) => Some((busy(), None)),
        }
    })
    .map(move |step| shown(step, id))
}

/// All that may be under way at one time is, and the destination does not answer.
fn busy() -> Step {
    Step {
        name: "wait",
        outcome: Err(format!(
            "the sink is busy and has not come to it in {PATIENCE:?}: the destination does not answer what it was sent before"
        )),
        took: PATIENCE,
    }
}

fn shown(step: Step, id: EventId) -> TestStep {
    let Step {
        name,
        outcome,
        took,
    } = step;
    let ok = outcome.is_ok();
    TestStep {
        name: name.to_owned(),
        ok,
        detail: outcome.unwrap_or_else(|wrong| wrong),
        micros: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        event_id: id.to_bytes().to_vec().into(),
    }
}
