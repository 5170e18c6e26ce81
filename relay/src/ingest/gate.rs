//! The body of a sensor's call, let through no faster than the budget has room.
//!
//! ```text
//! HTTP/2 window ─ frame ─▶ gate ─ up to the end of one message ─▶ decoder ─▶ session
//!                           └ waits here, so the window fills and the sensor stops
//! ```
//! gRPC's framing is a length before every message, so it is known what a message may come to before it is put
//! together. One that fits what the connection was lent is gathered first and then waits for its part of the events'
//! bytes; a longer one waits at its head, and then has to arrive in time, because its part is idle meanwhile.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http_body::Frame;
use tokio::time::{Sleep, sleep};
use tonic::Status;
use tonic::body::Body;

use super::MAX_MESSAGE;
use super::budget::{Purse, Share, worst};

/// Compressed or not, and the length (gRPC over HTTP/2, "Length-Prefixed-Message").
const HEAD: usize = 5;

/// The part of the budget that the message about to be decoded has.
#[derive(Debug, Clone, Default)]
pub(super) struct Slot(Arc<Mutex<Option<Share>>>);

impl Slot {
    fn put(&self, share: Share) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(share);
    }

    /// Takes it, once for each message.
    pub(super) fn take(&self) -> Option<Share> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The body.
pub(super) struct Gate {
    body: Body,
    /// Read and not let through.
    rest: Bytes,
    at: At,
    /// Nothing passes until this is had.
    waits: Option<BoxFuture<'static, Option<Share>>>,
    purse: Purse,
    /// A message of so many bytes needs no part of the budget until it is whole.
    own: usize,
    /// How long a message that has its part of the budget may take to arrive.
    arrival: Duration,
    slot: Slot,
}

/// Where in the stream of messages the rest begins.
enum At {
    /// In the bytes before a message; so many of them were seen.
    Head([u8; HEAD], usize),
    /// In a message.
    Message {
        len: usize,
        left: usize,
        share: Option<Share>,
        late: Option<Pin<Box<Sleep>>>,
    },
}

impl Gate {
    /// Messages of at most `own` bytes are put together before they have a part of the budget; one that has it may take
    /// `arrival`.
    pub(super) fn new(body: Body, purse: Purse, own: usize, arrival: Duration, slot: Slot) -> Self {
        Self {
            body,
            rest: Bytes::new(),
            at: At::Head([0; HEAD], 0),
            waits: None,
            purse,
            own,
            arrival,
            slot,
        }
    }

    /// What may pass of the rest; nothing when more has to be read first.
    fn poll_pass(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Status>> {
        loop {
            if let Some(waits) = &mut self.waits {
                let had = ready!(waits.as_mut().poll(context));
                self.waits = None;
                let had = had.ok_or_else(|| Status::unavailable("the relay is stopping"))?;
                if let At::Message { share, .. } = &mut self.at {
                    *share = Some(had);
                }
            }
            if self.rest.is_empty() {
                return Poll::Ready(Ok(None));
            }
            match &mut self.at {
                At::Head(..) => return Poll::Ready(Ok(Some(self.pass_head()))),
                At::Message { left, .. } if *left > self.rest.len() => {
                    *left -= self.rest.len();
                    return Poll::Ready(Ok(Some(std::mem::take(&mut self.rest))));
                }
                At::Message {
                    left, share, len, ..
                } => {
                    if let Some(share) = share.take() {
                        let end = self.rest.split_to(*left);
                        self.slot.put(share);
                        self.at = At::Head([0; HEAD], 0);
                        return Poll::Ready(Ok(Some(end)));
                    }
                    let wanted = worst(*len);
                    *share = self.purse.try_take(wanted);
                    if share.is_none() {
                        self.waits = Some(self.purse.clone().take(wanted).boxed());
                    }
                }
            }
        }
    }

    /// The bytes before a message. They are let through without a part of the budget: without the message they are
    /// nothing to decode, unless it is empty or too long, and then there is nothing to hold.
    fn pass_head(&mut self) -> Bytes {
        let At::Head(seen, count) = &mut self.at else {
            return Bytes::new();
        };
        let piece = self.rest.split_to(self.rest.len().min(HEAD - *count));
        seen[*count..*count + piece.len()].copy_from_slice(&piece);
        *count += piece.len();
        if *count == HEAD {
            let [_, length @ ..] = *seen;
            self.begin(u32::from_be_bytes(length) as usize);
        }
        piece
    }

    fn begin(&mut self, len: usize) {
        if len == 0 {
            self.at = At::Head([0; HEAD], 0);
            return;
        }
        if len > self.own && len <= MAX_MESSAGE {
            self.waits = Some(self.purse.clone().take(worst(len)).boxed());
        }
        self.at = At::Message {
            len,
            left: len,
            share: None,
            late: None,
        };
    }

    /// Whether the message that has its part of the budget did not arrive in time.
    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<Status> {
        match &mut self.at {
            At::Message {
                share: Some(_),
                late,
                ..
            } => {
                let late = late.get_or_insert_with(|| Box::pin(sleep(self.arrival)));
                ready!(late.as_mut().poll(context));
                let why = format!("a message did not arrive within {:?}", self.arrival);
                Poll::Ready(Status::deadline_exceeded(why))
            }
            _ => Poll::Pending,
        }
    }
}

impl http_body::Body for Gate {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            match ready!(self.poll_pass(context)) {
                Ok(Some(piece)) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                Ok(None) => {}
                Err(status) => return Poll::Ready(Some(Err(status))),
            }
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
                let late = ready!(self.poll_late(context));
                return Poll::Ready(Some(Err(late)));
            };
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => self.rest = data,
                Some(Ok(Err(other))) => return Poll::Ready(Some(Ok(other))),
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                None => return Poll::Ready(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use futures::FutureExt as _;
    use futures::future::poll_fn;
    use http_body::Body as _;

    use super::super::Budget;
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    /// What a peer sent so far; it says no more.
    struct Peer(VecDeque<Bytes>);

    impl http_body::Body for Peer {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            match self.0.pop_front() {
                Some(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
                None => Poll::Pending,
            }
        }
    }

    fn message(len: usize) -> Vec<u8> {
        let mut message = vec![0];
        message.extend(u32::try_from(len).unwrap().to_be_bytes());
        message.resize(HEAD + len, 7);
        message
    }

    fn gate(sent: &[u8], frame: usize, budget: &Budget, own: usize) -> (Gate, Slot) {
        let frames = sent.chunks(frame).map(Bytes::copy_from_slice).collect();
        let slot = Slot::default();
        let body = Body::new(Peer(frames));
        let arrival = Duration::from_millis(50);
        (
            Gate::new(body, budget.purse(), own, arrival, slot.clone()),
            slot,
        )
    }

    async fn next(gate: &mut Gate) -> Result<Bytes, Status> {
        let frame = poll_fn(|context| Pin::new(&mut *gate).poll_frame(context)).await;
        frame.unwrap().map(|frame| frame.into_data().ok().unwrap())
    }

    #[tokio::test]
    async fn all_bytes_pass_in_pieces_that_end_with_a_message_which_has_its_part() {
        let budget = Budget::new(128 << 20);
        let lengths = [3, 0, 1000, 1, 5000];
        let sent: Vec<u8> = lengths.iter().flat_map(|len| message(*len)).collect();
        for frame in [1, 2, 7, 999, sent.len()] {
            for own in [0, 2000] {
                let (mut gate, slot) = gate(&sent, frame, &budget, own);
                let (mut passed, mut ends) = (Vec::new(), Vec::new());
                while passed.len() < sent.len() {
                    passed.extend(next(&mut gate).await.unwrap());
                    if let Some(share) = slot.take() {
                        assert!(budget.held() > 0);
                        ends.push(passed.len());
                        drop(share);
                    }
                }
                assert_eq!(passed, sent);
                assert_eq!(ends, [8, 1018, 1024, 6029]);
                assert_eq!(budget.held(), 0);
            }
        }
    }

    #[tokio::test]
    async fn a_message_that_fits_what_the_connection_has_holds_nothing_until_it_is_whole() {
        let budget = Budget::new(128 << 20);
        let whole = message(1000);
        let (mut gate, slot) = gate(&whole[..900], 100, &budget, 1000);
        let mut passed = 0;
        while passed < 900 {
            passed += next(&mut gate).await.unwrap().len();
        }
        assert!(next(&mut gate).now_or_never().is_none());
        assert!(budget.held() == 0 && slot.take().is_none());
    }

    #[tokio::test]
    async fn with_nothing_left_a_message_waits_at_its_head_or_before_its_last_byte() {
        let budget = Budget::new(128 << 20);
        let mut all = Vec::new();
        while let Some(share) = budget.purse().take(1 << 20).now_or_never() {
            all.push(share);
        }
        assert_eq!(budget.held(), 16 << 20);
        let sent = message(1000);
        for (own, passes) in [(999, HEAD), (1000, 905)] {
            let (mut gate, _) = gate(&sent, 905, &budget, own);
            let mut passed = 0;
            while let Some(piece) = next(&mut gate).now_or_never() {
                passed += piece.unwrap().len();
            }
            assert_eq!(passed, passes, "own {own}");
            let share = all.pop();
            drop(share);
            let more = tokio::time::timeout(SOON, next(&mut gate)).await;
            assert!(!more.unwrap().unwrap().is_empty());
            drop(gate);
            all.push(budget.purse().take(1 << 20).now_or_never().unwrap());
        }
    }

    #[tokio::test]
    async fn a_message_that_has_its_part_and_does_not_arrive_loses_it() {
        let budget = Budget::new(128 << 20);
        let (mut gate, _) = gate(&message(1000)[..500], 500, &budget, 0);
        let mut passed = 0;
        while passed < 500 {
            passed += next(&mut gate).await.unwrap().len();
        }
        assert_eq!(budget.held(), worst(1000));
        let late = tokio::time::timeout(SOON, next(&mut gate)).await.unwrap();
        assert_eq!(late.unwrap_err().code(), tonic::Code::DeadlineExceeded);
        drop(gate);
        assert_eq!(budget.held(), 0);
    }
}
