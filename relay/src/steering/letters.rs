//! Dead letters for an administrator: found, shown, sent again or let go.

use std::time::Duration;

use exporters::Outcome;
use futures::{Stream, TryStreamExt as _, stream};
use proto::link::EventKind;
use proto::sinks::{Letter, LettersReply};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::filter::Filter;
use crate::audit::{Act, Actor, Audit};
use crate::fanout::{DeadLetter, Kept, Letters, SteerError};

/// Letters that are sent again together.
const TOGETHER: usize = 500;

/// How long a destination may take for them.
const PATIENCE: Duration = Duration::from_secs(60);

/// Goes through the letters that are meant, oldest first, as far as there were any when it began.
pub(super) struct Found {
    letters: Letters,
    filter: Filter,
    from: Option<u64>,
    until: u64,
    left: usize,
}

impl Found {
    /// `limit` letters at most; 0: all.
    pub(super) fn new(letters: Letters, filter: Filter, limit: u64) -> Found {
        let left = match limit {
            0 => usize::MAX,
            limit => usize::try_from(limit).unwrap_or(usize::MAX),
        };
        Found {
            until: letters.end(),
            letters,
            filter,
            from: Some(0),
            left,
        }
    }

    /// The next ones; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Kept>>, SteerError> {
        while let Some(from) = self.from
            && self.left > 0
        {
            let part = self.letters.read(from, self.until).await?;
            self.from = part.next;
            let meant = part
                .letters
                .into_iter()
                .filter(|kept| self.filter.wants(kept.time, kept.letter.as_ref().ok()))
                .take(self.left);
            let meant: Vec<Kept> = meant.collect();
            self.left -= meant.len();
            if !meant.is_empty() {
                return Ok(Some(meant));
            }
        }
        Ok(None)
    }

    /// All of them, as they are shown.
    pub(super) fn letters(self) -> impl Stream<Item = Result<Letter, Status>> + Send {
        let numbered = self.letters.are_numbered();
        let parts = stream::try_unfold(self, async |mut found| {
            let part = found.next().await?;
            Ok::<_, Status>(part.map(|part| (part, found)))
        });
        parts
            .map_ok(move |part| {
                let letters = part.into_iter();
                stream::iter(letters.map(move |kept| Ok(shown(kept, numbered))))
            })
            .try_flatten()
    }
}

/// A letter as it is shown.
fn shown(kept: Kept, numbered: bool) -> Letter {
    let Kept {
        number,
        time,
        letter,
    } = kept;
    let blank = Letter {
        number,
        time_ns: i64::try_from(time).unwrap_or(i64::MAX),
        ..Letter::default()
    };
    match letter {
        Ok(letter) => {
            let (reason, answer) = letter.reason_and_answer();
            Letter {
                sequence: if numbered { letter.sequence } else { 0 },
                reason: reason.to_owned(),
                answer: answer.to_owned(),
                kind: EventKind::from(letter.event.kind).into(),
                id: letter.event.id.to_bytes().to_vec().into(),
                payload: letter.event.payload,
                ..blank
            }
        }
        Err(bad) => Letter {
            unreadable: bad.to_string(),
            ..blank
        },
    }
}

/// What is done with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    Retry,
    Drop,
}

/// One call that changes letters. It ends early when nobody listens any more; what was done by then is in the audit trail.
pub(super) struct Job {
    pub(super) found: Found,
    pub(super) work: Work,
    pub(super) target: String,
    pub(super) actor: Actor,
    pub(super) audit: Audit,
}

type Say = mpsc::Sender<Result<LettersReply, Status>>;

impl Job {
    /// Progress after every step, then a last answer.
    pub(super) fn replies(self) -> ReceiverStream<Result<LettersReply, Status>> {
        let (say, said) = mpsc::channel(1);
        tokio::spawn(self.run(say));
        ReceiverStream::new(said)
    }

    async fn run(mut self, say: Say) {
        let mut tally = LettersReply::default();
        let ended = self.go_through(&mut tally, &say).await;
        tally.audited = tally.done == 0 || self.audit.tell(self.actor, self.act(&tally)).await;
        tally.last = true;
        // Whoever asked may have left.
        let _ = say.send(ended.map(|()| tally).map_err(Status::from)).await;
    }

    async fn go_through(&mut self, tally: &mut LettersReply, say: &Say) -> Result<(), SteerError> {
        while let Some(part) = self.found.next().await? {
            for some in part.chunks(TOGETHER) {
                tally.matched += some.len() as u64;
                let goes_on = match self.work {
                    Work::Retry => self.retry(some, tally).await?,
                    Work::Drop => self.drop_some(some, tally).await?,
                };
                if !goes_on || say.send(Ok(tally.clone())).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn drop_some(&self, some: &[Kept], tally: &mut LettersReply) -> Result<bool, SteerError> {
        let numbers: Vec<u64> = some.iter().map(|kept| kept.number).collect();
        let by = self.actor.to_string();
        self.found.letters.discard(&numbers, by).await?;
        tally.done += numbers.len() as u64;
        Ok(true)
    }

    /// False: the destination takes nothing, so there is no use in going on.
    async fn retry(&self, some: &[Kept], tally: &mut LettersReply) -> Result<bool, SteerError> {
        let mut events = Vec::with_capacity(some.len());
        for kept in some {
            match &kept.letter {
                Ok(DeadLetter { event, .. }) => events.push((kept.number, event.clone())),
                Err(bad) => stays(tally, &bad.to_string()),
            }
        }
        let by = self.actor.to_string();
        match self.found.letters.send(&events, PATIENCE, by).await? {
            Ok(outcomes) => {
                outcomes.iter().for_each(|outcome| count(tally, outcome));
                Ok(true)
            }
            Err(away) => {
                events.iter().for_each(|_| stays(tally, &away.reason));
                Ok(false)
            }
        }
    }

    fn act(&self, tally: &LettersReply) -> Act {
        let LettersReply { matched, done, .. } = tally;
        let (action, detail) = match self.work {
            Work::Retry => (
                "retry dead letters of",
                format!("{done} of {matched} delivered"),
            ),
            Work::Drop => ("drop dead letters of", format!("{done} dropped")),
        };
        Act {
            action,
            target: self.target.clone(),
            detail,
        }
    }
}

fn count(tally: &mut LettersReply, outcome: &Outcome) {
    match outcome {
        Outcome::Done => tally.done += 1,
        Outcome::Retry { reason, .. } => stays(tally, reason),
        Outcome::Reject { reason } | Outcome::Refuse { reason } => {
            tally.refused += 1;
            first(tally, reason);
        }
    }
}

fn stays(tally: &mut LettersReply, reason: &str) {
    tally.kept += 1;
    first(tally, reason);
}

fn first(tally: &mut LettersReply, reason: &str) {
    if tally.reason.is_empty() {
        reason.clone_into(&mut tally.reason);
    }
}
