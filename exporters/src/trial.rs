//! Trying a destination with one marked event, step by step: what `cresset sink test` shows.
//!
//! A sink says which steps its destination has (resolve, connect, TLS, authenticate, write, read back) by doing them through
//! [`Trial::step`]; each is timed and told as it ends, and the first that fails is the last. The way there is the same for all:
//! `dial::Dial::try_out`.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::{Outcome, Unavailable};

/// How long one step may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Steps that wait for whoever looks on.
const AHEAD: usize = 64;

/// One step that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What was tried, in a word or two.
    pub name: &'static str,
    /// What was found, or what is wrong and what to do.
    pub outcome: Result<String, String>,
    /// How long it took.
    pub took: Duration,
}

/// The trial is over: the step that failed has been told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the trial ended with a step that failed")]
pub struct Failed;

/// Takes down the steps of one trial.
#[derive(Debug)]
pub struct Trial {
    told: mpsc::Sender<Step>,
    patience: Duration,
}

impl Trial {
    /// A trial, and where its steps come out.
    #[must_use]
    pub fn new() -> (Trial, mpsc::Receiver<Step>) {
        let (told, steps) = mpsc::channel(AHEAD);
        let patience = PATIENCE;
        (Trial { told, patience }, steps)
    }

    /// Does one step for at most 15 seconds and tells how it ended: `work` answers with what later steps need and a word on
    /// what was found, or with what is wrong and what to do.
    ///
    /// # Errors
    /// The step failed; the sink returns at once.
    pub async fn step<T>(
        &self,
        name: &'static str,
        work: impl Future<Output = Result<(T, String), String>>,
    ) -> Result<T, Failed> {
        let start = Instant::now();
        let patience = self.patience;
        let done = timeout(patience, work)
            .await
            .unwrap_or_else(|_| Err(format!("no answer in {patience:?}")));
        let (answer, outcome) = match done {
            Ok((value, found)) => (Ok(value), Ok(found)),
            Err(wrong) => (Err(Failed), Err(wrong)),
        };
        let took = start.elapsed();
        // Whoever looked on may have left.
        let _ = self
            .told
            .send(Step {
                name,
                outcome,
                took,
            })
            .await;
        answer
    }

    /// The step `write`: what [`Sink::send`](crate::Sink::send) answered for a batch of the one event.
    ///
    /// # Errors
    /// The destination did not take it.
    pub async fn write(
        &self,
        sending: impl Future<Output = Result<Vec<Outcome>, Unavailable>>,
    ) -> Result<(), Failed> {
        self.write_told(sending, "the destination has the event")
            .await
    }

    /// The same, where having taken it means something else: `said`.
    ///
    /// # Errors
    /// The destination did not take it.
    pub async fn write_told(
        &self,
        sending: impl Future<Output = Result<Vec<Outcome>, Unavailable>>,
        said: &str,
    ) -> Result<(), Failed> {
        self.step("write", async { written(sending.await, said) })
            .await
    }
}

fn written(sent: Result<Vec<Outcome>, Unavailable>, said: &str) -> Result<((), String), String> {
    match sent.map_err(|away| away.reason)?.as_slice() {
        [Outcome::Done] => Ok(((), said.to_owned())),
        [Outcome::Retry { reason, .. }] => Err(format!("not now: {reason}")),
        [Outcome::Reject { reason } | Outcome::Refuse { reason }] => {
            Err(format!("refused for good: {reason}"))
        }
        other => Err(format!(
            "the sink told of {} events when 1 was sent; please report it",
            other.len()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn steps_are_told_in_order_and_the_first_that_fails_is_the_last() {
        let (trial, mut steps) = Trial::new();
        let found = trial
            .step("resolve", async { Ok((7, "127.0.0.1".to_owned())) })
            .await;
        assert_eq!(found, Ok(7));
        let away = Unavailable::new("connection refused");
        assert_eq!(trial.write(async { Err(away) }).await, Err(Failed));
        drop(trial);
        let mut told = Vec::new();
        while let Some(Step { name, outcome, .. }) = steps.recv().await {
            told.push((name, outcome));
        }
        assert_eq!(
            told,
            [
                ("resolve", Ok("127.0.0.1".to_owned())),
                ("write", Err("connection refused".to_owned())),
            ]
        );
    }

    #[tokio::test]
    async fn a_step_without_an_answer_is_given_up() {
        let (mut trial, mut steps) = Trial::new();
        trial.patience = Duration::from_millis(20);
        let never = std::future::pending::<Result<((), String), String>>();
        assert_eq!(trial.step("connect", never).await, Err(Failed));
        let wrong = steps.recv().await.unwrap().outcome.unwrap_err();
        assert_eq!(wrong, "no answer in 20ms");
    }

    #[test]
    fn only_an_event_that_is_kept_is_written() {
        assert!(written(Ok(vec![Outcome::Done]), "").is_ok());
        let reason = || "429".to_owned();
        let retry = Outcome::Retry {
            after: None,
            reason: reason(),
        };
        for other in [
            vec![retry],
            vec![Outcome::Reject { reason: reason() }],
            vec![Outcome::Refuse { reason: reason() }],
            vec![],
        ] {
            assert!(written(Ok(other), "").is_err());
        }
    }
}
