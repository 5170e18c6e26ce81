//! What became of a batch that went out in several requests.

use std::time::Duration;

use super::response::Verdict;
use crate::{Outcome, Unavailable};

/// Outcomes so far, by place in the batch.
pub(super) struct Outcomes {
    told: Vec<Option<Outcome>>,
    /// The server has taken or refused an event for good.
    settled: bool,
    /// Every event that was not settled met the same closed door.
    misplaced: Option<String>,
    again: bool,
    stopped: Option<Unavailable>,
}

impl Outcomes {
    pub(super) fn of(events: usize) -> Self {
        Outcomes {
            told: vec![None; events],
            settled: false,
            misplaced: None,
            again: false,
            stopped: None,
        }
    }

    /// The event at `place` is too large for the server, also alone.
    pub(super) fn too_large(&mut self, place: usize, reason: String) {
        self.tell(place, Outcome::Refuse { reason });
    }

    /// The event at `place` cannot be sent.
    pub(super) fn refuse(&mut self, place: usize, reason: String) {
        self.tell(place, Outcome::Reject { reason });
    }

    /// The server said this about the event at `place`.
    pub(super) fn judge(&mut self, place: usize, verdict: Verdict, after: Option<Duration>) {
        let outcome = match verdict {
            Verdict::Done => Outcome::Done,
            Verdict::Reject(reason) => Outcome::Refuse { reason },
            Verdict::Again { reason, .. } => {
                self.again = true;
                Outcome::Retry { after, reason }
            }
            Verdict::Misplaced(reason) => {
                self.misplaced.get_or_insert_with(|| reason.clone());
                Outcome::Retry { after, reason }
            }
        };
        self.settled |= !matches!(outcome, Outcome::Retry { .. });
        self.tell(place, outcome);
    }

    /// Nothing more can be sent at present.
    pub(super) fn stop(&mut self, reason: String, after: Option<Duration>) {
        self.stopped = Some(Unavailable { reason, after });
    }

    fn tell(&mut self, place: usize, outcome: Outcome) {
        if let Some(told) = self.told.get_mut(place) {
            *told = Some(outcome);
        }
    }

    /// An outcome for every event; or the whole sink is away, if the server settled none and would settle no other either.
    pub(super) fn finish(self) -> Result<Vec<Outcome>, Unavailable> {
        let closed = self.misplaced.filter(|_| !self.again).map(Unavailable::new);
        match self.stopped.as_ref().or(closed.as_ref()) {
            Some(away) if !self.settled => return Err(away.clone()),
            _ => {}
        }
        let away = self
            .stopped
            .unwrap_or_else(|| Unavailable::new("it was not sent"));
        let rest = Outcome::Retry {
            after: away.after,
            reason: away.reason,
        };
        let told = self.told.into_iter();
        Ok(told
            .map(|told| told.unwrap_or_else(|| rest.clone()))
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again() -> Verdict {
        Verdict::Again {
            reason: "busy".into(),
            busy: true,
        }
    }

    fn closed() -> Verdict {
        Verdict::Misplaced("forbidden".into())
    }

    fn judged<const N: usize>(verdicts: [Verdict; N]) -> Outcomes {
        let mut outcomes = Outcomes::of(N);
        for (place, verdict) in verdicts.into_iter().enumerate() {
            outcomes.judge(place, verdict, None);
        }
        outcomes
    }

    #[test]
    fn every_event_has_its_own_outcome() {
        let outcomes = judged([
            Verdict::Done,
            again(),
            Verdict::Reject("bad".into()),
            closed(),
        ]);
        let told = outcomes.finish().unwrap();
        assert_eq!(told[0], Outcome::Done);
        assert!(matches!(&told[1], Outcome::Retry { reason, .. } if reason == "busy"));
        assert!(matches!(&told[2], Outcome::Refuse { reason } if reason == "bad"));
        assert!(matches!(&told[3], Outcome::Retry { reason, .. } if reason == "forbidden"));
    }

    #[test]
    fn a_door_that_is_closed_to_all_is_a_sink_that_is_away() {
        let away = judged([closed(), closed()]).finish().unwrap_err();
        assert_eq!(away.reason, "forbidden");
        // Busy with one event is no closed door, and one that went in shows that it is open.
        assert!(judged([closed(), again()]).finish().is_ok());
        assert!(judged([closed(), Verdict::Done]).finish().is_ok());
    }

    #[test]
    fn what_was_not_sent_comes_again_and_what_was_settled_stays_settled() {
        let mut outcomes = Outcomes::of(3);
        outcomes.judge(0, Verdict::Done, None);
        let wait = Some(Duration::from_secs(3));
        outcomes.stop("gone".into(), wait);
        let told = outcomes.finish().unwrap();
        let retry = Outcome::Retry {
            after: wait,
            reason: "gone".into(),
        };
        assert_eq!(told, [Outcome::Done, retry.clone(), retry]);

        let mut outcomes = Outcomes::of(2);
        outcomes.refuse(0, "too old".into());
        outcomes.stop("gone".into(), wait);
        assert_eq!(outcomes.finish().unwrap_err().reason, "gone");
    }
}
