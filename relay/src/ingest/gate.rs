//! The body of a sensor's call, let through no faster than the budget has room.
//!
//! ```text
//! HTTP/2 window ─ frame ─▶ gate ─ whole messages ─▶ slot ─▶ codec ─▶ session
//!                           │  └─ an empty one in place of each ─▶ tonic ─▲ when to look
//!                           └ waits here, so the window fills and the sensor stops
//! ```
//! gRPC's framing is a length before every message, so it is known what a message may come to before it is put
//! together. One that fits what the connection was lent is gathered first and then waits for its part of the events'
//! bytes; a longer one waits at its head, and then has to arrive in time, because its part is idle meanwhile.
//!
//! Messages are put together here and not by tonic, whose buffer takes the length that a head claims at once, doubles as
//! messages grow, and keeps its size for as long as the call lasts: bytes of every sensor that no budget knows of.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
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

/// A message that is whole, and its part of the budget.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) bytes: Bytes,
    pub(super) share: Share,
}

/// Where the message lies that tonic is about to see an empty one for.
#[derive(Debug, Clone, Default)]
pub(super) struct Slot(Arc<Mutex<Option<Whole>>>);

impl Slot {
    fn put(&self, whole: Whole) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(whole);
    }

    /// Takes it, once for each message; none for one that was empty when it was sent.
    pub(super) fn take(&self) -> Option<Whole> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The body.
pub(super) struct Gate {
    body: Body,
    /// Read and not looked at.
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
    Message(Part),
}

/// A message that arrives.
struct Part {
    len: usize,
    /// What is there of it; takes no memory before it may.
    bytes: BytesMut,
    share: Option<Share>,
    late: Option<Pin<Box<Sleep>>>,
}

impl At {
    const START: Self = Self::Head([0; HEAD], 0);
}

impl Gate {
    /// Messages of at most `own` bytes are put together before they have a part of the budget; one that has it may take
    /// `arrival`.
    pub(super) fn new(body: Body, purse: Purse, own: usize, arrival: Duration, slot: Slot) -> Self {
        Self {
            body,
            rest: Bytes::new(),
            at: At::START,
            waits: None,
            purse,
            own,
            arrival,
            slot,
        }
    }

    /// The head of the next message for tonic; nothing when more has to be read first.
    fn poll_pass(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Status>> {
        loop {
            if let Some(waits) = &mut self.waits {
                let had = ready!(waits.as_mut().poll(context));
                self.waits = None;
                let had = had.ok_or_else(|| Status::unavailable("the relay is stopping"))?;
                if let At::Message(part) = &mut self.at {
                    part.share = Some(had);
                }
            }
            let passes = match &mut self.at {
                At::Head(..) if self.rest.is_empty() => return Poll::Ready(Ok(None)),
                At::Head(..) => self.read_head(),
                At::Message(part) => match part.fill(&mut self.rest) {
                    true => self.hand_over(),
                    false => return Poll::Ready(Ok(None)),
                },
            };
            if passes.is_some() {
                return Poll::Ready(Ok(passes));
            }
        }
    }

    /// Reads on in the bytes before a message.
    fn read_head(&mut self) -> Option<Bytes> {
        let At::Head(seen, count) = &mut self.at else {
            return None;
        };
        let piece = self.rest.split_to(self.rest.len().min(HEAD - *count));
        seen[*count..*count + piece.len()].copy_from_slice(&piece);
        *count += piece.len();
        if *count < HEAD {
            return None;
        }
        let head = *seen;
        let [compressed, length @ ..] = head;
        let len = u32::from_be_bytes(length) as usize;
        if compressed != 0 || len == 0 || len > MAX_MESSAGE {
            // Empty, or something for which tonic ends the call at its head; then nobody reads on.
            self.at = At::START;
            return Some(Bytes::copy_from_slice(&head));
        }
        if len > self.own {
            self.waits = Some(self.purse.clone().take(worst(len)).boxed());
        }
        self.at = At::Message(Part {
            len,
            bytes: BytesMut::new(),
            share: None,
            late: None,
        });
        None
    }

    /// Puts a whole message where it is looked for as soon as it has its part of the budget, and has an empty one pass.
    fn hand_over(&mut self) -> Option<Bytes> {
        let At::Message(part) = &mut self.at else {
            return None;
        };
        let wanted = worst(part.len);
        match part.share.take().or_else(|| self.purse.try_take(wanted)) {
            Some(share) => {
                let bytes = std::mem::take(&mut part.bytes).freeze();
                self.slot.put(Whole { bytes, share });
                self.at = At::START;
                Some(Bytes::from_static(&[0; HEAD]))
            }
            None => {
                self.waits = Some(self.purse.clone().take(wanted).boxed());
                None
            }
        }
    }

    /// Whether the message that has its part of the budget did not arrive in time.
    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<Status> {
        match &mut self.at {
            At::Message(Part {
                share: Some(_),
                late,
                ..
            }) => {
                let late = late.get_or_insert_with(|| Box::pin(sleep(self.arrival)));
                ready!(late.as_mut().poll(context));
                let why = format!("a message did not arrive within {:?}", self.arrival);
                Poll::Ready(Status::deadline_exceeded(why))
            }
            _ => Poll::Pending,
        }
    }

    /// Whether the call may end here.
    fn ends(&self) -> Result<(), Status> {
        match self.at {
            At::Head(_, 0) => Ok(()),
            _ => Err(Status::invalid_argument("the call ended inside a message")),
        }
    }
}

impl Part {
    /// Takes what belongs to it; whether it is whole.
    fn fill(&mut self, rest: &mut Bytes) -> bool {
        if self.bytes.capacity() == 0 {
            self.bytes.reserve(self.len);
        }
        let piece = rest.split_to(rest.len().min(self.len - self.bytes.len()));
        self.bytes.extend_from_slice(&piece);
        self.bytes.len() == self.len
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
                Ok(Some(head)) => return Poll::Ready(Some(Ok(Frame::data(head)))),
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
                None => return Poll::Ready(self.ends().err().map(Err)),
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

    /// What a peer sent so far, and whether it says no more or is done.
    struct Peer {
        sent: VecDeque<Bytes>,
        done: bool,
    }

    impl http_body::Body for Peer {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            match self.sent.pop_front() {
                Some(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
                None if self.done => Poll::Ready(None),
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

    fn of(peer: Peer, budget: &Budget, own: usize) -> (Gate, Slot) {
        let slot = Slot::default();
        let arrival = Duration::from_millis(50);
        let purse = budget.purse();
        (
            Gate::new(Body::new(peer), purse, own, arrival, slot.clone()),
            slot,
        )
    }

    fn gate(sent: &[u8], frame: usize, budget: &Budget, own: usize) -> (Gate, Slot) {
        let sent = sent.chunks(frame).map(Bytes::copy_from_slice).collect();
        of(Peer { sent, done: false }, budget, own)
    }

    async fn next(gate: &mut Gate) -> Option<Result<Bytes, Status>> {
        let frame = poll_fn(|context| Pin::new(&mut *gate).poll_frame(context)).await?;
        Some(frame.map(|frame| frame.into_data().ok().unwrap()))
    }

    /// Memory that a message which arrives has taken.
    fn gathered(gate: &Gate) -> usize {
        match &gate.at {
            At::Head(..) => 0,
            At::Message(part) => part.bytes.capacity(),
        }
    }

    #[tokio::test]
    async fn a_message_passes_as_an_empty_one_once_it_is_whole_and_has_its_part() {
        let budget = Budget::new(128 << 20);
        let lengths = [3, 0, 1000, 1, 5000];
        let sent: Vec<u8> = lengths.iter().flat_map(|len| message(*len)).collect();
        for frame in [1, 2, 7, 999, sent.len()] {
            for own in [0, 2000] {
                let (mut gate, slot) = gate(&sent, frame, &budget, own);
                for len in lengths {
                    let head = next(&mut gate).await.unwrap().unwrap();
                    assert_eq!(head, [0; HEAD][..]);
                    let whole = slot.take();
                    assert_eq!(whole.is_some(), len > 0);
                    if let Some(whole) = whole {
                        assert_eq!(whole.bytes, vec![7; len]);
                        assert_eq!(budget.held(), worst(len));
                    }
                }
                assert_eq!((budget.held(), gathered(&gate)), (0, 0));
            }
        }
    }

    #[tokio::test]
    async fn a_message_that_fits_what_the_connection_has_holds_nothing_until_it_is_whole() {
        let budget = Budget::new(128 << 20);
        let whole = message(1000);
        let (mut gate, slot) = gate(&whole[..900], 100, &budget, 1000);
        assert!(next(&mut gate).now_or_never().is_none());
        assert_eq!(gathered(&gate), 1000);
        assert!(budget.held() == 0 && slot.take().is_none());
    }

    #[tokio::test]
    async fn with_nothing_left_a_message_waits_and_a_long_one_takes_no_memory() {
        let budget = Budget::new(128 << 20);
        let mut all = Vec::new();
        while let Some(share) = budget.purse().take(1 << 20).now_or_never() {
            all.push(share);
        }
        assert_eq!(budget.held(), 16 << 20);
        let sent = message(1000);
        for (own, memory) in [(999, 0), (1000, 1000)] {
            let (mut gate, slot) = gate(&sent, 905, &budget, own);
            assert!(next(&mut gate).now_or_never().is_none());
            assert_eq!(gathered(&gate), memory, "own {own}");
            let share = all.pop();
            drop(share);
            let more = tokio::time::timeout(SOON, next(&mut gate)).await;
            assert!(more.unwrap().unwrap().is_ok());
            assert_eq!(slot.take().unwrap().bytes.len(), 1000);
            drop(gate);
            all.push(budget.purse().take(1 << 20).now_or_never().unwrap());
        }
    }

    #[tokio::test]
    async fn a_message_that_has_its_part_and_does_not_arrive_loses_it() {
        let budget = Budget::new(128 << 20);
        let (mut gate, _) = gate(&message(1000)[..500], 500, &budget, 0);
        assert!(next(&mut gate).now_or_never().is_none());
        assert_eq!(budget.held(), worst(1000));
        let late = tokio::time::timeout(SOON, next(&mut gate)).await.unwrap();
        let late = late.unwrap().unwrap_err();
        assert_eq!(late.code(), tonic::Code::DeadlineExceeded);
        drop(gate);
        assert_eq!(budget.held(), 0);
    }

    #[tokio::test]
    async fn a_call_ends_between_messages_and_not_inside_one() {
        let budget = Budget::new(128 << 20);
        for (length, whole) in [(0, true), (3, false), (500, false), (1005, true)] {
            let sent = VecDeque::from([Bytes::from(message(1000)).slice(..length)]);
            let (mut gate, _) = of(Peer { sent, done: true }, &budget, 0);
            let mut last = next(&mut gate).await;
            if length == 1005 {
                last = next(&mut gate).await;
            }
            assert_eq!(last.is_none(), whole, "{length}");
        }
    }

    #[tokio::test]
    async fn what_no_message_may_be_passes_with_its_own_head_and_takes_nothing() {
        let budget = Budget::new(128 << 20);
        let mut compressed = message(10);
        compressed[0] = 1;
        let mut long = vec![0];
        long.extend(u32::try_from(MAX_MESSAGE + 1).unwrap().to_be_bytes());
        for sent in [compressed, long] {
            let (mut gate, slot) = gate(&sent[..HEAD], 2, &budget, 0);
            assert_eq!(next(&mut gate).await.unwrap().unwrap(), sent[..HEAD]);
            assert!(budget.held() == 0 && slot.take().is_none());
        }
    }
}
