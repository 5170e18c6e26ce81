//! The administrator's service for sinks: steer, test, tap, dead letters. Admin socket only; whatever changes something is
//! told in the audit trail.
//!
//! ```text
//! Steer ─▶ fanout::Steering ─▶ the sink's task ─▶ audit event ─▶ answer
//! Test, Tap ─▶ a stream of what is seen
//! …Letters ─▶ filter ─▶ list, retry or drop
//! ```

mod filter;
mod letters;
mod marked;
mod tap;

use std::pin::Pin;

use async_trait::async_trait;
use futures::{Stream, StreamExt as _};
use proto::sinks::steer_request::Order;
use proto::sinks::{
    Letter, LettersReply, LettersRequest, SteerReply, SteerRequest, TapReply, TapRequest,
    TestRequest, TestStep,
};
use tonic::{Request, Response, Status};

use crate::audit::{Act, Actor, Audit};
use crate::fanout::{Fanout, SteerError, Steered, Steering};

pub(crate) use proto::sinks::sinks_server::SinksServer;

/// The service.
pub(crate) struct Sinks {
    fanout: Fanout,
    audit: Audit,
    /// What the marked events of tests say of where they come from.
    origin: crate::losses::Origin,
}

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Sinks {
    pub(crate) fn new(fanout: Fanout, audit: Audit, origin: crate::losses::Origin) -> Sinks {
        Sinks {
            fanout,
            audit,
            origin,
        }
    }

    /// As a service of a tonic server.
    pub(crate) fn into_server(self) -> SinksServer<Sinks> {
        SinksServer::new(self)
    }
}

impl From<SteerError> for Status {
    fn from(error: SteerError) -> Status {
        let code = match &error {
            SteerError::Unknown { .. } => tonic::Code::NotFound,
            SteerError::Refused { .. } => tonic::Code::FailedPrecondition,
            SteerError::Silent { .. } => tonic::Code::Aborted,
        };
        Status::new(code, error.to_string())
    }
}

/// What an order is called in the audit trail.
fn verb(order: &Order) -> &'static str {
    match order {
        Order::Pause(_) => "pause",
        Order::Resume(_) => "resume",
        Order::Rewind(_) => "rewind",
        Order::Skip(_) => "skip",
    }
}

/// As in `sink siem`.
fn target(sink: &Steering) -> String {
    format!("sink {}", sink.name())
}

/// Does what was ordered; answers with the move, if it was one, and whether anything changed.
async fn obey(
    sink: &Steering,
    order: &Order,
    actor: Actor,
) -> Result<(Option<Steered>, bool), SteerError> {
    let unix = |time: i64| u64::try_from(time).unwrap_or(0);
    Ok(match order {
        Order::Pause(_) => (None, sink.pause(actor.to_string()).await?),
        Order::Resume(_) => (None, sink.resume().await?),
        Order::Rewind(rewind) => moved(sink.rewind(unix(rewind.since_ns)).await?),
        Order::Skip(skip) => {
            let until = (skip.until_ns != 0).then(|| unix(skip.until_ns));
            moved(sink.skip(until).await?)
        }
    })
}

fn moved(steered: Steered) -> (Option<Steered>, bool) {
    (Some(steered), steered.from != steered.to)
}

/// What a move did, in words.
fn words(steered: Steered) -> String {
    let Steered { from, to } = steered;
    let (events, fate) = if to < from {
        (from - to, "sent again")
    } else {
        (to - from, "left out")
    };
    format!("from event {from} to {to}, {events} events {fate}")
}

#[async_trait]
impl proto::sinks::sinks_server::Sinks for Sinks {
    type TestStream = Replies<TestStep>;
    type TapStream = Replies<TapReply>;
    type ListLettersStream = Replies<Letter>;
    type RetryLettersStream = Replies<LettersReply>;
    type DropLettersStream = Replies<LettersReply>;

    async fn steer(&self, request: Request<SteerRequest>) -> Result<Response<SteerReply>, Status> {
        let actor = Actor::of(&request);
        let SteerRequest { sink, order } = request.into_inner();
        let sink = self.fanout.steering(&sink)?;
        let order = order.ok_or_else(|| Status::invalid_argument("no order was given"))?;
        let (steered, changed) = obey(&sink, &order, actor).await?;
        let audited = if changed {
            let act = Act {
                action: verb(&order),
                target: target(&sink),
                detail: steered.map(words).unwrap_or_default(),
            };
            self.audit.tell(actor, act).await
        } else {
            true
        };
        let Steered { from, to } = steered.unwrap_or(Steered { from: 0, to: 0 });
        Ok(Response::new(SteerReply {
            from,
            to,
            events: from.abs_diff(to),
            changed,
            share: sink.has_a_share(),
            audited,
        }))
    }

    async fn test(
        &self,
        request: Request<TestRequest>,
    ) -> Result<Response<Self::TestStream>, Status> {
        let actor = Actor::of(&request);
        let request = request.into_inner();
        let sink = self.fanout.steering(&request.sink)?;
        let event = marked::event(&sink, request.kind(), &self.origin);
        let id = event.id;
        let steps = sink.test(event).await?;
        let act = Act {
            action: "test",
            target: target(&sink),
            detail: format!("with event {id}"),
        };
        self.audit.tell(actor, act).await;
        Ok(Response::new(Box::pin(marked::steps(steps, id).map(Ok))))
    }

    async fn tap(&self, request: Request<TapRequest>) -> Result<Response<Self::TapStream>, Status> {
        let request = request.into_inner();
        let sink = self.fanout.steering(&request.sink)?;
        let replies = tap::replies(sink.tap()?, request.limit);
        Ok(Response::new(Box::pin(replies.map(Ok))))
    }

    async fn list_letters(
        &self,
        request: Request<LettersRequest>,
    ) -> Result<Response<Self::ListLettersStream>, Status> {
        let request = request.into_inner();
        let letters = self.fanout.steering(&request.sink)?.letters();
        let filter = filter::Filter::new(&request)?;
        let found = letters::Found::new(letters, filter, request.limit);
        Ok(Response::new(Box::pin(found.letters())))
    }

    async fn retry_letters(
        &self,
        request: Request<LettersRequest>,
    ) -> Result<Response<Self::RetryLettersStream>, Status> {
        self.letters(request, letters::Work::Retry)
            .map(Response::new)
    }

    async fn drop_letters(
        &self,
        request: Request<LettersRequest>,
    ) -> Result<Response<Self::DropLettersStream>, Status> {
        self.letters(request, letters::Work::Drop)
            .map(Response::new)
    }
}

impl Sinks {
    fn letters(
        &self,
        request: Request<LettersRequest>,
        work: letters::Work,
    ) -> Result<Replies<LettersReply>, Status> {
        let actor = Actor::of(&request);
        let request = request.into_inner();
        let sink = self.fanout.steering(&request.sink)?;
        let found = letters::Found::new(
            sink.letters(),
            filter::Filter::new(&request)?,
            request.limit,
        );
        let job = letters::Job {
            found,
            work,
            target: target(&sink),
            actor,
            audit: self.audit.clone(),
        };
        Ok(Box::pin(job.replies()))
    }
}
