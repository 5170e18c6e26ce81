//! One connection to the upstream relay: Hello, then batches out and their Acks in.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use proto::link::from_relay::Is as Reply;
use proto::link::from_sensor::Is as Say;
use proto::link::link_client::LinkClient;
use proto::{MAX_BATCH, StreamId, batch, link};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::http::causes;
use crate::{Batch, Outcome, Unavailable};

/// The version of the link.
const VERSION: u32 = 1;
/// For the upstream relay's Welcome.
const GREETING: Duration = Duration::from_secs(10);
/// Streams of one session; the upstream relay ends one that has more than 512.
const MAX_STREAMS: usize = 500;
/// Events of one batch of the link.
const MAX_EVENTS: usize = 4096;
/// Messages that wait for the connection.
const QUEUE: usize = 16;
/// Rules may come, which are not looked at; a larger set would end the session.
const MAX_MESSAGE: usize = 64 << 20;

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("no greeting within {} s", GREETING.as_secs())]
    Silent,
    #[error("{}", told(.0))]
    Status(Box<Status>),
    #[error("the upstream relay closed the session")]
    Closed,
    #[error("the upstream relay broke the protocol: {0}")]
    Protocol(String),
    #[error("the upstream relay takes nothing at present: {0}")]
    Paused(String, Duration),
}

pub(super) fn told(status: &Status) -> String {
    let advice = match status.code() {
        Code::AlreadyExists => "; give each relay another name in its relay sink",
        Code::PermissionDenied | Code::Unauthenticated => {
            "; check tls: the link wants a certificate that it knows"
        }
        _ => "",
    };
    let cause =
        std::error::Error::source(status).map(|source| format!(" ({source}: {})", causes(source)));
    format!(
        "{:?}: {}{}{advice}",
        status.code(),
        status.message(),
        cause.unwrap_or_default()
    )
}

impl From<Failure> for Unavailable {
    fn from(failure: Failure) -> Self {
        let after = match &failure {
            Failure::Paused(_, after) => Some(*after),
            _ => None,
        };
        Unavailable {
            reason: failure.to_string(),
            after,
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Failure::Status(Box::new(status))
    }
}

/// An open session.
pub(super) struct Session {
    to: mpsc::Sender<link::FromSensor>,
    from: Streaming<link::FromRelay>,
    streams: HashSet<StreamId>,
}

/// Neighbouring events of one stream, with their places in the batch.
struct Run {
    stream: StreamId,
    first: u64,
    events: Vec<Bytes>,
    bytes: usize,
    places: Vec<usize>,
}

impl Run {
    fn last(&self) -> u64 {
        self.first + (self.events.len() as u64).saturating_sub(1)
    }

    fn takes(&self, sequence: u64, bytes: usize) -> bool {
        self.first + self.events.len() as u64 == sequence
            && self.events.len() < MAX_EVENTS
            && self.bytes + bytes <= MAX_BATCH
    }
}

/// The batch in the link's form, each stream in the order of its numbers. An event that comes twice is sent twice.
fn runs(batch: &Batch) -> Vec<Run> {
    let mut order: Vec<usize> = (0..batch.len()).collect();
    order.sort_by_key(|&place| batch.events()[place].id());
    let mut runs: Vec<Run> = Vec::new();
    for place in order {
        let event = batch.events()[place].event();
        let (id, bytes) = (event.id, batch::join(event.kind, &event.payload));
        let fits = |run: &&mut Run| run.stream == id.stream && run.takes(id.sequence, bytes.len());
        match runs.last_mut().filter(fits) {
            Some(run) => {
                run.bytes += bytes.len();
                run.events.push(bytes);
                run.places.push(place);
            }
            None => runs.push(Run {
                stream: id.stream,
                first: id.sequence,
                bytes: bytes.len(),
                events: vec![bytes],
                places: vec![place],
            }),
        }
    }
    runs
}

impl Session {
    /// Says Hello and waits for the Welcome.
    pub(super) async fn open(channel: Channel, name: &str) -> Result<Self, Failure> {
        let (to, queue) = mpsc::channel(QUEUE);
        let hello = link::Hello {
            version: VERSION,
            sensor: name.to_owned(),
            sensor_version: concat!("relay ", env!("CARGO_PKG_VERSION")).to_owned(),
            node: name.to_owned(),
            labels: [("role".to_owned(), "relay".to_owned())].into(),
            ..Default::default()
        };
        to.send(said(Say::Hello(hello)))
            .await
            .map_err(|_| Failure::Closed)?;
        let greeted = timeout(GREETING, async {
            let mut client = LinkClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
            let mut from = client
                .exchange(ReceiverStream::new(queue))
                .await?
                .into_inner();
            match from.message().await?.and_then(|reply| reply.is) {
                Some(Reply::Welcome(_)) => Ok(from),
                Some(_) => Err(Failure::Protocol(
                    "it did not begin with Welcome".to_owned(),
                )),
                None => Err(Failure::Closed),
            }
        });
        Ok(Session {
            to,
            from: greeted.await.map_err(|_| Failure::Silent)??,
            streams: HashSet::new(),
        })
    }

    /// Whether it may carry a batch whose streams are all new to it.
    pub(super) fn has_room(&self) -> bool {
        self.streams.len() < MAX_STREAMS
    }

    /// Sends a batch and waits until the upstream relay has all of it, or has said why not.
    pub(super) async fn forward(&mut self, batch: &Batch) -> Result<Vec<Outcome>, Failure> {
        let mut outcomes = vec![Outcome::Done; batch.len()];
        let mut rest = runs(batch);
        while !rest.is_empty() {
            // Streams that go beyond the bound wait for a session of their own.
            let later = rest.split_off(self.room(&rest));
            if rest.is_empty() {
                return Ok(again(outcomes, &later));
            }
            self.exchange(&rest, &mut outcomes).await?;
            rest = later;
        }
        Ok(outcomes)
    }

    /// How many of the runs this session can carry.
    fn room(&self, runs: &[Run]) -> usize {
        let mut streams = self.streams.clone();
        let mut fits = |run: &Run| {
            streams.insert(run.stream);
            streams.len() <= MAX_STREAMS
        };
        runs.iter().position(|run| !fits(run)).unwrap_or(runs.len())
    }

    async fn exchange(&mut self, runs: &[Run], outcomes: &mut [Outcome]) -> Result<(), Failure> {
        self.streams.extend(runs.iter().map(|run| run.stream));
        let to = self.to.clone();
        let sending = async {
            for run in runs {
                let batch = link::Batch {
                    stream: run.stream.0.to_vec().into(),
                    first: run.first,
                    events: run.events.clone(),
                };
                // Why the connection ended is what the other side says.
                if to.send(said(Say::Batch(batch))).await.is_err() {
                    break;
                }
            }
            Ok(())
        };
        // Both at once: neither side may wait for the other to read.
        futures::try_join!(sending, hear(&mut self.from, runs, outcomes)).map(drop)
    }
}

/// Reads until every run is acknowledged.
async fn hear(
    from: &mut Streaming<link::FromRelay>,
    runs: &[Run],
    outcomes: &mut [Outcome],
) -> Result<(), Failure> {
    let mut open: BTreeMap<StreamId, Vec<&Run>> = BTreeMap::new();
    for run in runs {
        open.entry(run.stream).or_default().push(run);
    }
    while !open.is_empty() {
        match from.message().await?.ok_or(Failure::Closed)?.is {
            Some(Reply::Ack(ack)) => acknowledge(&mut open, ack, outcomes)?,
            Some(Reply::Pause(pause)) => {
                let after = Duration::from_millis(u64::from(pause.retry_after_ms));
                return Err(Failure::Paused(pause.reason, after));
            }
            // Rules and identities are for sensors; what a newer relay says is not for us.
            _ => {}
        }
    }
    Ok(())
}

fn acknowledge(
    open: &mut BTreeMap<StreamId, Vec<&Run>>,
    ack: link::Ack,
    outcomes: &mut [Outcome],
) -> Result<(), Failure> {
    let stream =
        StreamId::try_from(&ack.stream[..]).map_err(|e| Failure::Protocol(e.to_string()))?;
    let Some(runs) = open.get_mut(&stream) else {
        return Err(Failure::Protocol(format!(
            "it acknowledged the stream {stream}, which was not sent"
        )));
    };
    for rejected in ack.rejected {
        let run = runs
            .iter()
            .find(|run| (run.first..=run.last()).contains(&rejected.sequence));
        if let Some(run) = run
            && let Some(place) = run.places.get((rejected.sequence - run.first) as usize)
        {
            outcomes[*place] = Outcome::Refuse {
                reason: rejected.reason,
            };
        }
    }
    runs.retain(|run| run.last() > ack.up_to);
    if runs.is_empty() {
        open.remove(&stream);
    }
    Ok(())
}

/// What was not sent comes again.
fn again(mut outcomes: Vec<Outcome>, runs: &[Run]) -> Vec<Outcome> {
    for place in runs.iter().flat_map(|run| &run.places) {
        outcomes[*place] = Outcome::Retry {
            after: None,
            reason: "a session holds 500 streams; the others go with the next".to_owned(),
        };
    }
    outcomes
}

fn said(say: Say) -> link::FromSensor {
    link::FromSensor { is: Some(say) }
}

#[cfg(test)]
mod tests {
    use proto::{Event, EventId, Kind};

    use super::*;
    use crate::{Carried, Encoded};

    fn event(stream: u8, sequence: u64) -> Carried {
        Carried::from(Encoded::new(Event {
            kind: Kind::Log,
            id: EventId {
                stream: StreamId([stream; 8]),
                sequence,
            },
            payload: Bytes::new(),
        }))
    }

    #[test]
    fn neighbours_of_a_stream_go_together_and_gaps_part_them() {
        let batch = Batch::new(vec![
            event(2, 7),
            event(1, 1),
            event(2, 8),
            event(1, 2),
            event(1, 5),
        ]);
        let shape: Vec<_> = runs(&batch)
            .iter()
            .map(|run| (run.stream.0[0], run.first, run.places.clone()))
            .collect();
        assert_eq!(
            shape,
            [(1, 1, vec![1, 3]), (1, 5, vec![4]), (2, 7, vec![0, 2])]
        );
    }

    #[test]
    fn an_ack_settles_what_it_covers_and_a_rejected_event_is_told_by_its_number() {
        let batch = Batch::new(vec![event(1, 1), event(1, 2), event(1, 5)]);
        let runs = runs(&batch);
        let mut open = BTreeMap::from([(StreamId([1; 8]), runs.iter().collect::<Vec<_>>())]);
        let mut outcomes = vec![Outcome::Done; 3];
        let ack = |up_to, rejected: Vec<link::Rejected>| link::Ack {
            stream: vec![1; 8].into(),
            up_to,
            rejected,
        };
        let no = link::Rejected {
            sequence: 2,
            reason: "no event".into(),
        };
        acknowledge(&mut open, ack(2, vec![no]), &mut outcomes).unwrap();
        assert_eq!(open[&StreamId([1; 8])].len(), 1);
        acknowledge(&mut open, ack(5, vec![]), &mut outcomes).unwrap();
        assert!(open.is_empty());
        assert!(matches!(&outcomes[1], Outcome::Refuse { reason } if reason == "no event"));
        assert!(acknowledge(&mut open, ack(9, vec![]), &mut outcomes).is_err());
    }
}
