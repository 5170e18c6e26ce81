//! One connection of one sensor, from its Hello to its end.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use proto::link::from_relay::Is as Reply;
use proto::link::from_sensor::Is as Message;
use proto::{Event, EventId, LINK_VERSION, StreamId, batch, link};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::{Code, Status, Streaming};

use super::budget::{Share, cost};
use super::committer::{Committer, Failure, Work};
use super::hello::{BadHello, Hello};
use super::owners::Owners;
use super::sensors::Session;
use super::service::Inbound;
use super::{Door, EndReason, Live, Rejection, Shared};
use crate::access::Caller;
use crate::distribute::Receiver;
use crate::received::Open;

/// Streams that one session may send.
pub(super) const MAX_STREAMS: usize = 512;

/// How long the last word to a sensor may take.
const LAST_WORD: Duration = Duration::from_secs(5);

type Replies = mpsc::Sender<Result<link::FromRelay, Status>>;
type Stream = Streaming<Inbound>;

/// Who is on the other side.
#[derive(Debug)]
pub(super) struct Peer {
    /// Its address.
    pub(super) peer: String,
    pub(super) caller: Caller,
}

/// How a session ended.
enum End {
    /// The sensor closed its side.
    Finished,
    /// It is told why, except where there is nobody left to tell.
    Because(EndReason, Status),
}

/// Serves one connection until it ends, and says why.
pub(super) async fn run(shared: Arc<Shared>, peer: Peer, mut inbound: Stream, replies: Replies) {
    let _live = Live::new(&shared);
    let end = match open(&shared, &peer, &mut inbound).await {
        Ok((mut hello, session)) => {
            tracing::Span::current().record("sensor", session.id());
            let claim = Claim::of(&shared, &peer, session.id());
            serve(&shared, &mut hello, session, claim, &mut inbound, &replies).await
        }
        Err(end) => end,
    };
    let End::Because(reason, status) = end else {
        tracing::info!("sensor closed its session");
        return;
    };
    shared.accounts.ended(reason);
    if matches!(reason, EndReason::Broken | EndReason::Draining) {
        tracing::info!(
            reason = reason.word(),
            why = status.message(),
            "session ended"
        );
    } else {
        tracing::warn!(
            reason = reason.word(),
            why = status.message(),
            "session ended"
        );
    }
    // A peer that does not read its answers is not waited for; it finds the connection closed.
    let _ = timeout(LAST_WORD, replies.send(Err(status))).await;
}

/// Hears the Hello and makes sure that nobody else has this id.
async fn open(shared: &Shared, peer: &Peer, inbound: &mut Stream) -> Result<(Hello, Session), End> {
    let wait = shared.config.hello;
    let first = match timeout(wait, inbound.message()).await {
        Err(_) => return Err(bad_hello(Code::DeadlineExceeded, BadHello::Late(wait))),
        Ok(Ok(None)) => return Err(bad_hello(Code::InvalidArgument, BadHello::Nothing)),
        Ok(Ok(Some(first))) => first.message,
        Ok(Err(status)) => return Err(bad_message(status)),
    };
    let hello = Hello::check(first).map_err(|why| {
        let code = match why {
            BadHello::Version(_) => Code::FailedPrecondition,
            _ => Code::InvalidArgument,
        };
        bad_hello(code, why)
    })?;
    let sensor = &hello.message.sensor;
    if !peer.caller.may_speak_for(sensor) {
        let why = format!("{} may not speak for sensor `{sensor}`", peer.caller.name);
        return Err(End::Because(
            EndReason::NotItself,
            Status::permission_denied(why),
        ));
    }
    match shared.sensors.connect(&hello, &peer.peer) {
        Ok(session) => Ok((hello, session)),
        Err(in_use) => Err(End::Because(
            EndReason::SecondSession,
            Status::already_exists(in_use.to_string()),
        )),
    }
}

/// Everything after a good Hello.
async fn serve(
    shared: &Arc<Shared>,
    hello: &mut Hello,
    session: Session,
    claim: Claim,
    inbound: &mut Stream,
    replies: &Replies,
) -> End {
    let kernel = hello.message.kernel.as_ref();
    let (node, tier) = (&hello.message.node, kernel.map_or(0, |kernel| kernel.tier));
    tracing::info!(%node, tier, version = %hello.message.sensor_version, "sensor connected");
    let mut reader = Reader {
        shared,
        from: session.id().into(),
        session,
        claim,
        foreign: BTreeSet::new(),
        streams: BTreeMap::new(),
        committer: Committer::start(
            shared.log.clone(),
            shared.accounts.clone(),
            replies.clone(),
            shared.config.arrival,
        ),
    };
    let mut draining = shared.draining.subscribe();
    let opened = tokio::select! {
        biased;
        () = told(&mut draining) => Err(stopping()),
        opened = reader.open(&hello.streams) => opened,
    };
    if let Err(end) = opened {
        return end;
    }
    // The streams are open: what the ranges say now is not forgotten while this session lasts.
    let welcome = welcome(shared, hello, &reader.foreign);
    if say(replies, Reply::Welcome(welcome)).await.is_err() {
        return broken("the connection ended before the Welcome");
    }
    let rules = Forward::start(shared, hello, replies.clone());
    let mut failed = reader.committer.failed();
    let end = tokio::select! {
        biased;
        () = told(&mut draining) => stopping(),
        failure = &mut failed => refused(shared, replies, failure).await,
        end = reader.read(inbound) => end,
    };
    drop(rules);
    let Reader {
        session, committer, ..
    } = reader;
    // Nothing more is read here, so the sensor may come back, even before its last batch is on disk.
    drop(session);
    committer.finish().await;
    end
}

fn stopping() -> End {
    let why = "the relay is stopping; connect again";
    End::Because(EndReason::Draining, Status::unavailable(why))
}

/// Waits until the relay drains.
async fn told(draining: &mut watch::Receiver<bool>) {
    // An error says that the relay is gone altogether, which is the same to a session.
    let _ = draining.wait_for(|draining| *draining).await;
}

/// Events could not be written: the sensor is asked to wait, and to come back for what was not acknowledged.
async fn refused(shared: &Shared, replies: &Replies, failure: Failure) -> End {
    if failure.code == Code::DeadlineExceeded {
        return End::Because(
            EndReason::Stalled,
            Status::new(failure.code, failure.reason),
        );
    }
    let retry_after_ms = u32::try_from(shared.config.pause.as_millis()).unwrap_or(u32::MAX);
    let pause = link::Pause {
        reason: failure.reason.clone(),
        retry_after_ms,
    };
    let _ = timeout(LAST_WORD, say(replies, Reply::Pause(pause))).await;
    End::Because(
        EndReason::Refused,
        Status::new(failure.code, failure.reason),
    )
}

fn welcome(shared: &Shared, hello: &Hello, foreign: &BTreeSet<StreamId>) -> link::Welcome {
    let state = |stream: &StreamId| {
        let ranges = shared.log.received().ranges(*stream);
        let is = match ranges.filter(|_| !foreign.contains(stream)) {
            Some(ranges) => {
                let ranges = ranges
                    .iter()
                    .map(|range| link::Range {
                        first: range.start,
                        end: range.end,
                    })
                    .collect();
                link::stream_state::Is::Received(link::Ranges { ranges })
            }
            None => link::stream_state::Is::Unknown(true),
        };
        link::StreamState {
            stream: stream.0.to_vec().into(),
            is: Some(is),
        }
    };
    link::Welcome {
        version: LINK_VERSION,
        relay: shared.log.relay_id().to_owned(),
        streams: hello.streams.iter().map(state).collect(),
    }
}

async fn say(replies: &Replies, reply: Reply) -> Result<(), ()> {
    replies
        .send(Ok(link::FromRelay { is: Some(reply) }))
        .await
        .map_err(drop)
}

/// The reading half.
struct Reader<'a> {
    shared: &'a Arc<Shared>,
    session: Session,
    claim: Claim,
    /// Streams of others, of which nothing is taken.
    foreign: BTreeSet<StreamId>,
    /// Its id, by which its events are kept in order.
    from: Arc<str>,
    streams: BTreeMap<StreamId, Open>,
    committer: Committer,
}

impl Reader<'_> {
    async fn read(&mut self, inbound: &mut Stream) -> End {
        loop {
            let (message, share) = match inbound.message().await {
                Ok(Some(Inbound { message, share })) => (message.is, share),
                Ok(None) => return End::Finished,
                Err(status) => return bad_message(status),
            };
            match message {
                Some(Message::Batch(batch)) => {
                    self.session.heard();
                    if let Err(end) = self.batch(batch, share).await {
                        return end;
                    }
                }
                Some(Message::RuleStatus(status)) => self.rules(status),
                Some(Message::Health(health)) => self.session.health(health),
                Some(Message::Hello(_)) => {
                    return bad_hello(Code::InvalidArgument, "a second Hello; one opens a session");
                }
                // What a newer sensor says, and this version does not know.
                None => self.session.heard(),
            }
        }
    }

    fn rules(&self, status: link::RuleStatus) {
        if !status.applied {
            let problems = status.problems.len();
            tracing::warn!(problems, "sensor refused the rules and keeps those it has");
        }
        self.shared.distributor.report(self.session.id(), &status);
        self.session.rules(status);
    }

    async fn batch(&mut self, batch: link::Batch, share: Option<Share>) -> Result<(), End> {
        let (events, bytes) = (
            batch.events.len(),
            batch.events.iter().map(|event| event.len()).sum(),
        );
        let batch = batch::receive(batch).map_err(bad_batch)?;
        if events == 0 {
            return Ok(());
        }
        let Some(mut share) = share else {
            return Err(bad_batch("an empty message with events in it"));
        };
        share.shrink(cost(bytes, events));
        self.stream(batch.stream).await?;
        let mut entry = self.shared.accounts.received(Door::Link, events, bytes);
        let range = batch.first..batch.first + events as u64;
        // The earlier reservation that this one may have to wait for has its part of the budget, so it comes to an end.
        let (received, foreign) = (
            self.shared.log.received(),
            self.foreign.contains(&batch.stream),
        );
        let reservation = if foreign {
            received.nothing(batch.stream)
        } else {
            received.reserve(batch.stream, range.clone()).await
        };
        let (mut fresh, mut rejected, mut duplicates) = (Vec::with_capacity(events), Vec::new(), 0);
        for (sequence, event) in range.clone().zip(batch.events) {
            match event {
                _ if foreign => rejected.push((sequence, Rejection::Foreign)),
                _ if !reservation.is_fresh(sequence) => duplicates += 1,
                Ok(event) => {
                    let id = EventId {
                        stream: batch.stream,
                        sequence,
                    };
                    fresh.push(Event {
                        kind: event.kind,
                        id,
                        payload: event.payload,
                    });
                }
                Err(why) => rejected.push((sequence, why.into())),
            }
        }
        entry.duplicate(duplicates);
        entry.rejected(rejected.len());
        if let Some((sequence, why)) = rejected.first() {
            let (stream, count) = (batch.stream, rejected.len());
            tracing::warn!(%stream, sequence, %why, count, "rejected events");
        }
        let journey = self
            .shared
            .traces
            .batch(self.session.id(), batch.stream, &fresh);
        let work = Work {
            journey,
            from: Arc::clone(&self.from),
            stream: batch.stream,
            up_to: range.end - 1,
            events: fresh,
            rejected,
            reservation,
            share,
            entry,
        };
        self.committer.give(work).await;
        Ok(())
    }

    /// A stream that the Hello did not name is taken too, up to a number that keeps the memory bounded.
    async fn stream(&mut self, stream: StreamId) -> Result<(), End> {
        if self.streams.contains_key(&stream) || self.foreign.contains(&stream) {
            return Ok(());
        }
        if self.streams.len() + self.foreign.len() >= MAX_STREAMS {
            return Err(bad_batch(format!(
                "more than {MAX_STREAMS} streams in one session"
            )));
        }
        self.open(&[stream]).await
    }

    /// Opens what is this sensor's, or nobody's yet, and remembers what is another's.
    async fn open(&mut self, streams: &[StreamId]) -> Result<(), End> {
        let foreign = self.claim.streams(streams).await?;
        for stream in streams.iter().filter(|stream| !foreign.contains(stream)) {
            let opened = self.shared.log.received().open(*stream);
            self.streams.insert(*stream, opened);
        }
        if let Some(stream) = foreign.first() {
            let count = foreign.len();
            tracing::warn!(%stream, count, "streams of another sensor; nothing is taken of them");
        }
        self.shared.accounts.foreign(foreign.len());
        self.foreign.extend(foreign);
        Ok(())
    }
}

/// Whose streams a session may send.
struct Claim {
    owners: Owners,
    /// None: it forwards what others say, or is nobody in particular.
    sensor: Option<String>,
}

impl Claim {
    fn of(shared: &Shared, peer: &Peer, sensor: &str) -> Self {
        Self {
            owners: shared.config.owners.clone(),
            sensor: peer.caller.is_one_sensor().then(|| sensor.to_owned()),
        }
    }

    /// Those of them that are another's.
    async fn streams(&self, streams: &[StreamId]) -> Result<Vec<StreamId>, End> {
        let Some(sensor) = &self.sensor else {
            return Ok(Vec::new());
        };
        self.owners.claim(sensor, streams).await.map_err(|why| {
            let why = format!(
                "whose streams these are cannot be written down at present, so nothing of them is taken; connect again: {why}"
            );
            End::Because(EndReason::Refused, Status::unavailable(why))
        })
    }
}

/// Sends rules as they come into force; stops when dropped.
struct Forward(JoinHandle<()>);

impl Forward {
    fn start(shared: &Shared, hello: &mut Hello, replies: Replies) -> Self {
        let message = &mut hello.message;
        let to = Receiver {
            sensor: message.sensor.clone(),
            labels: std::mem::take(&mut message.labels),
            // As many names as there are policies: not for as long as the session lasts.
            blobs: std::mem::take(&mut hello.blobs),
            in_force: hello.rules,
            takes_changes: message.changes,
        };
        let mut rules = shared.distributor.messages(to);
        Self(tokio::spawn(async move {
            while let Some(part) = rules.next().await {
                if say(&replies, Reply::Rules(part)).await.is_err() {
                    return;
                }
            }
        }))
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn bad_hello(code: Code, why: impl ToString) -> End {
    End::Because(EndReason::BadHello, Status::new(code, why.to_string()))
}

fn bad_batch(why: impl ToString) -> End {
    End::Because(
        EndReason::BadBatch,
        Status::invalid_argument(why.to_string()),
    )
}

fn broken(why: &str) -> End {
    End::Because(EndReason::Broken, Status::unavailable(why))
}

/// What tonic says when there is no next message: with a source it was the transport, without one the message.
fn bad_message(status: Status) -> End {
    if status.source().is_some() || status.code() == Code::Cancelled {
        return End::Because(EndReason::Broken, status);
    }
    let (reason, code) = match status.code() {
        Code::OutOfRange => (EndReason::BadMessage, Code::OutOfRange),
        Code::DeadlineExceeded => (EndReason::Stalled, Code::DeadlineExceeded),
        Code::Unavailable => (EndReason::Draining, Code::Unavailable),
        _ => (EndReason::BadMessage, Code::InvalidArgument),
    };
    End::Because(reason, Status::new(code, status.message()))
}
