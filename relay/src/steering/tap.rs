//! What an onlooker of a sink sees, as it goes over the wire.

use std::time::Duration;

use exporters::{Carried, Encoded, Outcome, Unavailable};
use futures::{Stream, stream};
use proto::link::EventKind;
use proto::query::WatchedEvent;
use proto::sinks::tap_reply::Is;
use proto::sinks::{Answered, Refused, Sent, TapReply};

use crate::fanout::{Onlooker, Seen};

/// Bytes of events in one reply; a batch that is larger goes in several with the same number.
const REPLY: usize = 1 << 20;

/// Events of a batch whose reasons are told.
const REFUSED: usize = 200;

/// Longer reasons are cut.
const REASON: usize = 1 << 10;

/// What is seen, until `limit` events (0: no end) were sent and answered.
pub(super) fn replies(onlooker: Onlooker, limit: u64) -> impl Stream<Item = TapReply> + Send {
    let tap = Tap {
        onlooker,
        left: if limit == 0 { u64::MAX } else { limit },
        last: None,
        waiting: Vec::new().into_iter(),
    };
    stream::unfold(tap, async |mut tap| Some((tap.next().await?, tap)))
}

struct Tap {
    onlooker: Onlooker,
    left: u64,
    /// The batch whose answer is the end.
    last: Option<u64>,
    waiting: std::vec::IntoIter<TapReply>,
}

impl Tap {
    async fn next(&mut self) -> Option<TapReply> {
        loop {
            if let Some(reply) = self.waiting.next() {
                return Some(reply);
            }
            if self.left == 0 && self.last.is_none() {
                return None;
            }
            let seen = self.onlooker.next().await;
            self.waiting = self.shown(seen).into_iter();
        }
    }

    fn shown(&mut self, seen: Seen) -> Vec<TapReply> {
        match seen {
            Seen::Sent { batch, events } => self.sent(batch, events),
            Seen::Answered {
                batch,
                took,
                answer,
                events,
            } => self.answered(batch, took, answer, &events),
            Seen::Missed(events) => vec![reply(Is::Missed(events))],
        }
    }

    fn sent(&mut self, batch: u64, mut events: Vec<Carried>) -> Vec<TapReply> {
        if self.left == 0 {
            return Vec::new();
        }
        events.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= events.len() as u64;
        if self.left == 0 {
            self.last = Some(batch);
        }
        let (mut replies, mut some, mut bytes) = (Vec::new(), Vec::new(), 0);
        for event in &events {
            let payload = event.event().payload.len();
            if bytes + payload > REPLY && !some.is_empty() {
                replies.push(reply(Is::Sent(Sent {
                    batch,
                    events: std::mem::take(&mut some),
                })));
                bytes = 0;
            }
            bytes += payload;
            some.push(watched(event));
        }
        replies.push(reply(Is::Sent(Sent {
            batch,
            events: some,
        })));
        replies
    }

    fn answered(
        &mut self,
        batch: u64,
        took: Duration,
        answer: Result<Vec<Outcome>, Unavailable>,
        events: &[Carried],
    ) -> Vec<TapReply> {
        match self.last {
            Some(last) if last == batch => self.last = None,
            // After the limit only the answer to the last batch is waited for.
            Some(_) => return Vec::new(),
            None => {}
        }
        let mut answered = Answered {
            batch,
            micros: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            ..Answered::default()
        };
        match answer {
            Err(away) => answered.away = away.reason,
            Ok(outcomes) => {
                for (outcome, event) in outcomes.into_iter().zip(events) {
                    match refused(outcome, event) {
                        None => answered.done += 1,
                        Some(refused) => {
                            answered.not_done += 1;
                            if answered.refused.len() < REFUSED {
                                answered.refused.push(refused);
                            }
                        }
                    }
                }
            }
        }
        vec![reply(Is::Answered(answered))]
    }
}

fn reply(is: Is) -> TapReply {
    TapReply { is: Some(is) }
}

fn watched(event: &Encoded) -> WatchedEvent {
    WatchedEvent {
        kind: EventKind::from(event.kind()).into(),
        id: event.id().to_bytes().to_vec().into(),
        payload: event.event().payload.clone(),
        ..WatchedEvent::default()
    }
}

fn refused(outcome: Outcome, event: &Encoded) -> Option<Refused> {
    let (for_good, mut reason) = match outcome {
        Outcome::Done => return None,
        Outcome::Retry { reason, .. } => (false, reason),
        Outcome::Reject { reason } | Outcome::Refuse { reason } => (true, reason),
    };
    reason.truncate(reason.floor_char_boundary(REASON));
    Some(Refused {
        id: event.id().to_bytes().to_vec().into(),
        for_good,
        reason,
    })
}
