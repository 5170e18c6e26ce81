//! Writes what a session took, and answers once it is on disk.
//!
//! ```text
//! session ─ Work ─▶ append, append, append …   all under way at once, in order
//!                     │ done, in order
//!                     └─▶ one Ack a stream, joined while the connection has no room ─▶ sensor
//! ```
//! It never waits for the sensor: a peer that does not read its answers must not hold bytes that others need. It
//! outlives its session, so that what was given to the journal is accounted for by its outcome.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use futures::{FutureExt, StreamExt};
use journal::AppendError;
use proto::link::from_relay::Is as Reply;
use proto::{Event, StreamId, link};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tonic::{Code, Status};

use super::accounts::Entry;
use super::budget::Share;
use super::{Accounts, Rejection};
use crate::log::{Appended, Refused, Store};
use crate::received::Reservation;
use crate::traces::Journey;

/// Batches that wait for the committer; the bytes are bounded by the budget.
const QUEUE: usize = 64;

/// Rejected events in one Ack.
const MAX_REJECTED: usize = 1000;

/// Rejected events that wait to be told. Beyond that nothing more is taken from the sensor.
const MAX_UNTOLD: usize = 100_000;

/// How long the last answers may wait for a sensor that does not read.
const LAST_ACKS: Duration = Duration::from_secs(5);

/// A checked batch.
pub(super) struct Work {
    /// Whose they are.
    pub(super) from: Arc<str>,
    pub(super) stream: StreamId,
    /// The last sequence of the batch.
    pub(super) up_to: u64,
    /// What is new in it.
    pub(super) events: Vec<Event>,
    pub(super) rejected: Vec<(u64, Rejection)>,
    pub(super) reservation: Reservation,
    pub(super) share: Share,
    pub(super) entry: Entry,
    /// Of a batch that is traced.
    pub(super) journey: Option<Journey>,
}

/// Events could not be written.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) code: Code,
    pub(super) reason: String,
}

impl From<AppendError> for Failure {
    fn from(error: AppendError) -> Self {
        let code = match &error {
            // The relay is there and well; it is its disk that takes no more.
            AppendError::Full { .. } | AppendError::Failed { .. } => Code::ResourceExhausted,
            AppendError::Closed | AppendError::TooLarge { .. } => Code::Unavailable,
        };
        Self {
            code,
            reason: error.to_string(),
        }
    }
}

/// The handle that a session has.
pub(super) struct Committer {
    queue: mpsc::Sender<Work>,
    task: JoinHandle<()>,
    failed: Option<oneshot::Receiver<Failure>>,
}

type Replies = mpsc::Sender<Result<link::FromRelay, Status>>;

impl Committer {
    /// A sensor with too many answers before it may take `patience` to read the next one.
    pub(super) fn start(
        log: Store,
        accounts: Accounts,
        replies: Replies,
        patience: Duration,
    ) -> Self {
        let (queue, work) = mpsc::channel(QUEUE);
        let (failing, failed) = oneshot::channel();
        let task = Task {
            work,
            replies: Some(replies),
            accounts,
            running: FuturesOrdered::new(),
            acks: Acks::default(),
            patience,
            full: None,
            failing: Some(failing),
        };
        Self {
            queue,
            task: tokio::spawn(task.run(log)),
            failed: Some(failed),
        }
    }

    /// Hands over a batch; waits while the queue is full. After a failure the batch is dropped, which counts it as
    /// refused.
    pub(super) async fn give(&self, work: Work) {
        let _ = self.queue.send(work).await;
    }

    /// Ends with the failure, if there is one; else never. To be asked once.
    pub(super) fn failed(&mut self) -> BoxFuture<'static, Failure> {
        match self.failed.take() {
            Some(failed) => failed
                .then(|failure| match failure {
                    Ok(failure) => futures::future::ready(failure).boxed(),
                    Err(_) => futures::future::pending().boxed(),
                })
                .boxed(),
            None => futures::future::pending().boxed(),
        }
    }

    /// Waits until everything given has an outcome and the last answers are out.
    pub(super) async fn finish(self) {
        drop(self.queue);
        if let Err(why) = self.task.await {
            tracing::error!(%why, "the committer ended in the middle of its work");
        }
    }
}

/// What came of a batch.
struct Outcome {
    stream: StreamId,
    up_to: u64,
    rejected: Vec<(u64, Rejection)>,
    written: Result<(), AppendError>,
}

async fn commit(log: Store, work: Work) -> Outcome {
    let Work {
        from,
        stream,
        up_to,
        events,
        mut rejected,
        reservation,
        share,
        mut entry,
        mut journey,
    } = work;
    let written = if events.is_empty() {
        Ok(())
    } else {
        if let Some(journey) = &mut journey {
            journey.appends();
        }
        let sequences: Vec<u64> = events.iter().map(|event| event.id.sequence).collect();
        let written = log.append(from, events).await;
        if let Some(journey) = journey {
            journey.appended(&written);
        }
        written.map(|Appended { refused, .. }| {
            entry.rejected(refused.len());
            entry.acknowledged(sequences.len() - refused.len());
            reject(&mut rejected, &sequences, &refused);
        })
    };
    // By now the events are received, or free for the next attempt.
    drop((entry, reservation, share));
    Outcome {
        stream,
        up_to,
        rejected,
        written,
    }
}

/// Adds what the log can never keep, in the order of the sequences.
fn reject(rejected: &mut Vec<(u64, Rejection)>, sequences: &[u64], refused: &[Refused]) {
    let told = refused.iter().filter_map(|refused| {
        let why = proto::Malformed::TooLarge {
            size: refused.size,
            limit: refused.limit,
        };
        Some((*sequences.get(refused.index)?, Rejection::from(why)))
    });
    rejected.extend(told);
    rejected.sort_unstable_by_key(|(sequence, _)| *sequence);
}

struct Task {
    work: mpsc::Receiver<Work>,
    /// None once the connection is gone.
    replies: Option<Replies>,
    accounts: Accounts,
    running: FuturesOrdered<BoxFuture<'static, Outcome>>,
    acks: Acks,
    patience: Duration,
    /// Since when nothing is taken because the sensor does not read.
    full: Option<Instant>,
    /// None once a failure was told.
    failing: Option<oneshot::Sender<Failure>>,
}

impl Task {
    async fn run(mut self, log: Store) {
        let (mut open, mut last) = (true, None);
        loop {
            let finishing = !open && self.running.is_empty();
            let untold = self.replies.is_some() && !self.acks.is_empty();
            if finishing && !untold {
                return;
            }
            let now = Instant::now();
            let last = if finishing {
                *last.get_or_insert(now + LAST_ACKS)
            } else {
                now
            };
            let gives_up = self.gives_up(now);
            tokio::select! {
                Some(outcome) = self.running.next(), if !self.running.is_empty() => self.settle(outcome),
                work = self.work.recv(), if open && self.acks.rejected < MAX_UNTOLD => match work {
                    Some(work) => self.running.push_back(commit(log.clone(), work).boxed()),
                    None => open = false,
                },
                sent = send(self.replies.as_ref(), &mut self.acks), if untold => match sent {
                    Ok(()) => {
                        self.accounts.acked();
                        self.full = None;
                    }
                    Err(Gone) => self.replies = None,
                },
                () = sleep_until(gives_up.unwrap_or(now)), if gives_up.is_some() => {
                    self.replies = None;
                    self.fail(Failure {
                        code: Code::DeadlineExceeded,
                        reason: format!("answers were not read for {:?}", self.patience),
                    });
                }
                () = sleep_until(last), if finishing => return,
                else => return,
            }
        }
    }

    fn settle(&mut self, outcome: Outcome) {
        match outcome.written {
            // After a failure nothing more is said: an Ack says "everything up to here".
            Ok(()) if self.failing.is_some() => {
                self.acks
                    .add(outcome.stream, outcome.up_to, outcome.rejected)
            }
            Ok(()) => {}
            Err(error) => self.fail(error.into()),
        }
    }

    fn fail(&mut self, failure: Failure) {
        self.work.close();
        if let Some(failing) = self.failing.take() {
            // Nobody listens when the connection broke first.
            let _ = failing.send(failure);
        }
    }

    /// When a sensor that does not read is let go: what waits behind its answers holds bytes that others need.
    fn gives_up(&mut self, now: Instant) -> Option<Instant> {
        let full = self.replies.is_some() && self.acks.rejected >= MAX_UNTOLD;
        self.full = full.then(|| self.full.unwrap_or(now));
        self.full.map(|since| since + self.patience)
    }
}

struct Gone;

/// Sends the next Ack when the connection has room for it. Stopped before that, it has taken nothing.
async fn send(replies: Option<&Replies>, acks: &mut Acks) -> Result<(), Gone> {
    let Some(replies) = replies else {
        return Err(Gone);
    };
    let room = replies.reserve().await.map_err(|_| Gone)?;
    if let Some(ack) = acks.next() {
        room.send(Ok(link::FromRelay {
            is: Some(Reply::Ack(ack)),
        }));
    }
    Ok(())
}

/// Answers that are not sent yet, joined by stream.
#[derive(Default)]
struct Acks {
    order: VecDeque<StreamId>,
    streams: HashMap<StreamId, Joined>,
    /// Rejected events in them.
    rejected: usize,
}

struct Joined {
    up_to: u64,
    rejected: VecDeque<(u64, Rejection)>,
}

impl Acks {
    fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    fn add(&mut self, stream: StreamId, up_to: u64, rejected: Vec<(u64, Rejection)>) {
        self.rejected += rejected.len();
        let joined = self.streams.entry(stream).or_insert_with(|| {
            self.order.push_back(stream);
            Joined {
                up_to,
                rejected: VecDeque::new(),
            }
        });
        joined.up_to = joined.up_to.max(up_to);
        joined.rejected.extend(rejected);
    }

    fn next(&mut self) -> Option<link::Ack> {
        let stream = *self.order.front()?;
        let joined = self.streams.get_mut(&stream)?;
        let part: Vec<(u64, Rejection)> = joined
            .rejected
            .drain(..joined.rejected.len().min(MAX_REJECTED))
            .collect();
        self.rejected -= part.len();
        // With more rejected events to tell, the answer ends at the last one that is told.
        let told = part.last().map(|(sequence, _)| *sequence);
        let up_to = if joined.rejected.is_empty() {
            joined.up_to
        } else {
            told.unwrap_or(joined.up_to)
        };
        if joined.rejected.is_empty() {
            self.order.pop_front();
            self.streams.remove(&stream);
        }
        let rejected = part
            .into_iter()
            .map(|(sequence, why)| link::Rejected {
                sequence,
                reason: why.to_string(),
            })
            .collect();
        Some(link::Ack {
            stream: stream.0.to_vec().into(),
            up_to,
            rejected,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: StreamId = StreamId([1; 8]);
    const B: StreamId = StreamId([2; 8]);

    #[test]
    fn answers_are_joined_by_stream_in_the_order_of_their_first() {
        let mut acks = Acks::default();
        acks.add(A, 5, Vec::new());
        acks.add(B, 9, Vec::new());
        acks.add(A, 8, vec![(7, proto::Malformed::Reserved.into())]);
        let first = acks.next().unwrap();
        assert_eq!(
            (
                first.up_to,
                first.rejected.len(),
                first.rejected[0].sequence
            ),
            (8, 1, 7)
        );
        assert_eq!(acks.next().unwrap().up_to, 9);
        assert!(acks.next().is_none() && acks.is_empty());
    }

    #[test]
    fn a_long_list_of_rejected_events_is_told_in_parts_that_end_at_the_last_one_told() {
        let mut acks = Acks::default();
        acks.add(
            A,
            3000,
            (1..=2500)
                .map(|n| (n, Rejection::from(proto::Malformed::Reserved)))
                .collect(),
        );
        let parts: Vec<(u64, usize)> = std::iter::from_fn(|| acks.next())
            .map(|ack| (ack.up_to, ack.rejected.len()))
            .collect();
        assert_eq!(parts, [(1000, 1000), (2000, 1000), (3000, 500)]);
        assert_eq!(acks.rejected, 0);
    }
}
