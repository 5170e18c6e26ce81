//! How a batch goes to a destination that takes many events in one request, and says yes or no to all of them together.
//!
//! ```text
//! batch ─ render each ─▶ [a b c d] ─ offer ─▶ taken: all done
//!          │ cannot          ▲  ▲             refused: halves ─▶ [a b]  [c d] ─▶ … ─▶ [c]: rejected, with the reason
//!          ▼ rejected        └──┴───────────────┘
//! ```
//! So one bad event costs itself and nobody else. When the destination goes away in between, what it has by then is done and
//! the rest comes again.

use std::time::Duration;

use crate::{Batch, Encoded, Outcome, Unavailable};

/// A destination that is offered several events at once.
pub(crate) trait Destination: Sync {
    /// An event in the destination's form.
    type Item: Send + Sync;

    /// Writes one event in the destination's form.
    ///
    /// # Errors
    /// Why it can never go there.
    fn render(&self, event: &Encoded) -> Result<Self::Item, String>;

    /// Sends some events together, in order.
    fn offer(
        &self,
        items: &[Self::Item],
    ) -> impl Future<Output = Result<Answer, Unavailable>> + Send;
}

/// What the destination says to an offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It has all of them.
    Taken,
    /// It says of each what becomes of it, in the offer's order.
    Each(Vec<Outcome>),
    /// It will not take these together: one of them may be why, or there are too many.
    Refused(String),
}

/// Delivers a batch.
///
/// # Errors
/// The destination takes nothing, and none of the batch is settled.
pub(crate) async fn deliver<D: Destination>(
    destination: &D,
    batch: &Batch,
) -> Result<Vec<Outcome>, Unavailable> {
    let mut outcomes: Vec<Option<Outcome>> = Vec::with_capacity(batch.len());
    let (mut items, mut places) = (Vec::new(), Vec::new());
    for (place, event) in batch.events().iter().enumerate() {
        outcomes.push(match destination.render(event) {
            Ok(item) => {
                items.push(item);
                places.push(place);
                None
            }
            Err(reason) => Some(Outcome::Reject { reason }),
        });
    }
    // Ranges of the items, the first on top.
    let all = 0..items.len();
    let mut rest = vec![all];
    let mut settled = items.len() < outcomes.len();
    while let Some(range) = rest.pop() {
        if range.is_empty() {
            continue;
        }
        let mut settle = |offset: usize, outcome| {
            if let Some(place) = places.get(range.start + offset) {
                outcomes[*place] = Some(outcome);
            }
        };
        match destination.offer(&items[range.clone()]).await {
            Ok(Answer::Taken) => (0..range.len()).for_each(|at| settle(at, Outcome::Done)),
            Ok(Answer::Each(each)) if each.len() == range.len() => {
                each.into_iter()
                    .enumerate()
                    .for_each(|(at, o)| settle(at, o));
            }
            Ok(Answer::Each(each)) => {
                return Err(Unavailable::new(format!(
                    "the destination told of {} events when {} were sent",
                    each.len(),
                    range.len()
                )));
            }
            Ok(Answer::Refused(reason)) if range.len() == 1 => {
                settle(0, Outcome::Reject { reason });
            }
            Ok(Answer::Refused(_)) => {
                let middle = range.start + range.len() / 2;
                rest.extend([middle..range.end, range.start..middle]);
                continue;
            }
            Err(away) if settled => return Ok(later(outcomes, &away)),
            Err(away) => return Err(away),
        }
        settled = true;
    }
    let unsaid = Unavailable::new("the sink said nothing of this event; please report it");
    Ok(later(outcomes, &unsaid))
}

/// What is settled stays so, the rest comes again.
fn later(outcomes: Vec<Option<Outcome>>, away: &Unavailable) -> Vec<Outcome> {
    let again = |after: Option<Duration>| Outcome::Retry {
        after,
        reason: away.reason.clone(),
    };
    outcomes
        .into_iter()
        .map(|outcome| outcome.unwrap_or_else(|| again(away.after)))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::fixtures::{alert_named, batch_of, broken};

    /// Refuses whatever has `bad` in it, and is away once it was asked `patience` times.
    struct Picky {
        patience: usize,
        asked: Mutex<Vec<usize>>,
    }

    impl Picky {
        fn new(patience: usize) -> Self {
            Picky {
                patience,
                asked: Mutex::default(),
            }
        }
    }

    impl Destination for Picky {
        type Item = String;

        fn render(&self, event: &Encoded) -> Result<String, String> {
            let json = event.json(proto::FieldSet::KubeArmor);
            json.map(|json| String::from_utf8_lossy(json).into_owned())
                .map_err(ToString::to_string)
        }

        async fn offer(&self, items: &[String]) -> Result<Answer, Unavailable> {
            let mut asked = self.asked.lock().unwrap();
            if asked.len() == self.patience {
                return Err(Unavailable::new("gone"));
            }
            asked.push(items.len());
            Ok(match items.iter().any(|item| item.contains("bad")) {
                true => Answer::Refused("it is bad".into()),
                false => Answer::Taken,
            })
        }
    }

    fn letters(outcomes: &[Outcome]) -> String {
        outcomes
            .iter()
            .map(|outcome| match outcome {
                Outcome::Done => 'd',
                Outcome::Retry { .. } => 'r',
                Outcome::Reject { .. } => 'x',
            })
            .collect()
    }

    async fn sent(patience: usize, pods: &[&str]) -> Result<(String, Vec<usize>), Unavailable> {
        let picky = Picky::new(patience);
        let batch = batch_of(pods.iter().map(|pod| match *pod {
            "broken" => broken(),
            pod => alert_named(pod),
        }));
        let outcomes = deliver(&picky, &batch).await?;
        Ok((letters(&outcomes), picky.asked.into_inner().unwrap()))
    }

    #[tokio::test]
    async fn one_bad_event_costs_itself() {
        let (outcomes, asked) = sent(99, &["a", "b", "bad", "d", "broken"]).await.unwrap();
        assert_eq!(outcomes, "ddxdx");
        assert_eq!(asked, [4, 2, 2, 1, 1]);
    }

    #[tokio::test]
    async fn a_destination_that_goes_away_keeps_what_it_has() {
        let (outcomes, _) = sent(2, &["a", "b", "bad", "d"]).await.unwrap();
        assert_eq!(outcomes, "ddrr");
        assert_eq!(sent(0, &["a"]).await.unwrap_err().reason, "gone");
    }

    #[tokio::test]
    async fn an_empty_batch_asks_nobody() {
        assert_eq!(sent(0, &[]).await.unwrap(), (String::new(), vec![]));
        assert_eq!(sent(0, &["broken"]).await.unwrap().0, "x");
    }
}
