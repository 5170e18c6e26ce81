//! Which dead letters an administrator means.

use std::collections::HashSet;

use proto::EventId;
use proto::query;
use proto::sinks::LettersRequest;
use tonic::Status;

use crate::fanout::DeadLetter;
use crate::filter::{self, Expression, expression};

/// The conditions of a request, ready for use.
pub(super) struct Filter {
    event: filter::Filter,
    reason: Option<Expression>,
    since: u64,
    ids: HashSet<EventId>,
    /// No condition looks into a letter: those that cannot be read are meant too.
    open: bool,
}

impl Filter {
    /// # Errors
    /// The first condition that is none.
    pub(super) fn new(request: &LettersRequest) -> Result<Filter, Status> {
        let wrong = |error: filter::BadFilter| Status::invalid_argument(error.to_string());
        let event = query::Filter {
            kinds: proto::Kind::ALL
                .map(|kind| proto::link::EventKind::from(kind).into())
                .to_vec(),
            namespace: request.namespace.clone(),
            operation: request.operation.clone(),
            ..query::Filter::default()
        };
        let reason = match request.reason.as_str() {
            "" => None,
            reason => Some(expression("reason", reason).map_err(wrong)?),
        };
        let ids = request.ids.iter().map(|id| EventId::try_from(&id[..]));
        let ids: Result<HashSet<EventId>, _> = ids.collect();
        Ok(Filter {
            event: filter::Filter::new(Some(event)).map_err(wrong)?,
            reason,
            since: u64::try_from(request.since_ns).unwrap_or(0),
            ids: ids.map_err(|_| Status::invalid_argument("an event id has 16 bytes"))?,
            open: [&request.namespace, &request.operation, &request.reason]
                .iter()
                .all(|text| text.is_empty())
                && request.ids.is_empty(),
        })
    }

    /// Whether a letter that was refused at `time` is meant; none: it cannot be read.
    pub(super) fn wants(&self, time: u64, letter: Option<&DeadLetter>) -> bool {
        if time < self.since {
            return false;
        }
        let Some(letter) = letter else {
            return self.open;
        };
        (self.ids.is_empty() || self.ids.contains(&letter.event.id))
            && self
                .reason
                .as_ref()
                .is_none_or(|reason| reason.is_match(&letter.reason))
            && self.event.matches(&letter.event)
    }
}
