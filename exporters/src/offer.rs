//! How a batch goes to a destination that takes many events in one request, and says yes or no to all of them together.
//!
//! ```text
//! batch ─ render each ─▶ [a b c d] ─ offer ─▶ taken: all done
//!          │ cannot          ▲  ▲             refused: halves ─▶ [a b]  [c d] ─▶ … ─▶ [c]: refused, with the reason
//!          ▼ rejected        └──┴──────────── all but some taken: found by counting, see `part`
//! ```
//! So one bad event costs itself and nobody else. When the destination goes away in between, what it has by then is done and
//! the rest comes again.
//!
//! A destination that refuses everything is set up wrongly, and halving a large batch for it would be thousands of requests
//! each time. So one that has taken nothing yet (or nothing of the last batch) is first offered a few single events from all
//! over the batch: if it takes none of them either, they are refused and the rest comes again ([`Standing`]). What that means
//! for the sink is for the fan-out to say.

mod part;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Batch, Encoded, Outcome, Unavailable};

/// Single events that are tried before a batch is halved for a destination that takes nothing.
const TRIED: usize = 8;

/// A destination that is offered several events at once.
pub(crate) trait Destination: Sync {
    /// An event in the destination's form.
    type Item: Send + Sync;

    /// Writes one event in the destination's form.
    ///
    /// # Errors
    /// Why it can never go there.
    fn render(&self, event: &Encoded) -> Result<Self::Item, String>;

    /// Writes all events of a batch. One of many events and at a high rate does it [aside](crate::aside).
    fn render_all(
        &self,
        batch: &Arc<Batch>,
    ) -> impl Future<Output = Vec<Result<Self::Item, String>>> + Send {
        let all = batch.events().iter().map(|event| self.render(event));
        std::future::ready(all.collect())
    }

    /// Sends some events together, in order.
    fn offer(
        &self,
        items: &[&Self::Item],
    ) -> impl Future<Output = Result<Answer, Unavailable>> + Send;

    /// What it has shown of itself.
    fn standing(&self) -> &Standing;
}

/// What the destination says to an offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It has all of them.
    Taken,
    /// It has all but so many, and does not say which it has not.
    AllBut(usize, String),
    /// It will not take these together: one of them may be why, or there are too many.
    Refused(String),
}

/// Whether a destination takes anything at all: not known at first, and not believed after a batch of which it took nothing.
#[derive(Debug, Default)]
pub(crate) struct Standing(AtomicBool);

impl Standing {
    fn takes(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Learns from what became of a batch, or of a part of it.
    pub(crate) fn learn(&self, outcomes: &[Outcome]) {
        if outcomes.contains(&Outcome::Done) {
            self.0.store(true, Ordering::Relaxed);
        } else if is_refused(outcomes) {
            self.0.store(false, Ordering::Relaxed);
        }
    }

    /// Whether to leave it at what it said so far: it has refused enough, and nothing shows that it takes anything.
    pub(crate) fn is_enough(&self, outcomes: &[Outcome]) -> bool {
        let refused = |outcome: &&Outcome| matches!(outcome, Outcome::Refuse { .. });
        !self.takes() && outcomes.iter().filter(refused).count() >= TRIED
    }
}

fn is_refused(outcomes: &[Outcome]) -> bool {
    let refused = |outcome: &Outcome| matches!(outcome, Outcome::Refuse { .. });
    outcomes.iter().any(refused)
}

/// Delivers a batch.
///
/// # Errors
/// The destination takes nothing, and none of the batch is settled.
pub(crate) async fn deliver<D: Destination>(
    destination: &D,
    batch: &Arc<Batch>,
) -> Result<Vec<Outcome>, Unavailable> {
    let mut hand = Hand::of(destination, batch).await;
    let done = hand.give().await;
    let settled = hand.outcomes.iter().any(Option::is_some);
    let outcomes = match done {
        Ok(()) => hand.outcomes_or(&Unavailable::new(
            "the sink said nothing of this event; please report it",
        )),
        Err(away) if settled => hand.outcomes_or(&away),
        Err(away) => return Err(away),
    };
    destination.standing().learn(&outcomes);
    Ok(outcomes)
}

/// A batch in the destination's form, and what became of it so far.
struct Hand<'a, D: Destination> {
    destination: &'a D,
    items: Vec<D::Item>,
    /// Where in the batch each item stands.
    places: Vec<usize>,
    outcomes: Vec<Option<Outcome>>,
    /// Single events were tried.
    tried: bool,
}

/// Items by their numbers, in order.
type Items = Vec<usize>;

impl<'a, D: Destination> Hand<'a, D> {
    async fn of(destination: &'a D, batch: &Arc<Batch>) -> Self {
        let mut hand = Hand {
            destination,
            items: Vec::with_capacity(batch.len()),
            places: Vec::with_capacity(batch.len()),
            outcomes: vec![None; batch.len()],
            tried: false,
        };
        for (place, item) in destination.render_all(batch).await.into_iter().enumerate() {
            match item {
                Ok(item) => {
                    hand.items.push(item);
                    hand.places.push(place);
                }
                Err(reason) => hand.outcomes[place] = Some(Outcome::Reject { reason }),
            }
        }
        hand
    }

    async fn give(&mut self) -> Result<(), Unavailable> {
        // The first on top.
        let mut rest: Vec<Items> = vec![(0..self.items.len()).collect()];
        while let Some(some) = rest.pop() {
            if some.is_empty() {
                continue;
            }
            match self.offer(&some).await? {
                Answer::Taken => self.settle(&some, &Outcome::Done),
                Answer::AllBut(refused, reason) => self.pick_out(some, refused, reason).await?,
                Answer::Refused(reason) if some.len() == 1 => {
                    self.settle(&some, &Outcome::Refuse { reason });
                }
                Answer::Refused(reason) => {
                    if self.tries_in_vain(&some).await? {
                        return Err(Unavailable::new(reason));
                    }
                    let left = self.open(some);
                    let (first, second) = left.split_at(left.len() / 2);
                    rest.extend([second.to_vec(), first.to_vec()]);
                }
            }
        }
        Ok(())
    }

    async fn offer(&self, some: &[usize]) -> Result<Answer, Unavailable> {
        let items: Vec<&D::Item> = some.iter().map(|&n| &self.items[n]).collect();
        self.destination.offer(&items).await
    }

    /// Offers a few of these, each alone, to a destination of which it is not known whether it takes anything; true if it took
    /// none of them.
    async fn tries_in_vain(&mut self, some: &[usize]) -> Result<bool, Unavailable> {
        if self.tried || self.destination.standing().takes() {
            return Ok(false);
        }
        self.tried = true;
        let last = some.len() - 1;
        let mut tried: Vec<usize> = (0..TRIED).map(|n| some[n * last / (TRIED - 1)]).collect();
        tried.dedup();
        let mut in_vain = true;
        for one in tried {
            let outcome = match self.offer(&[one]).await? {
                Answer::Taken => Outcome::Done,
                Answer::AllBut(_, reason) | Answer::Refused(reason) => Outcome::Refuse { reason },
            };
            in_vain &= outcome != Outcome::Done;
            self.settle(&[one], &outcome);
        }
        Ok(in_vain)
    }

    fn settle(&mut self, some: &[usize], outcome: &Outcome) {
        for &item in some {
            self.outcomes[self.places[item]] = Some(outcome.clone());
        }
    }

    /// Those of them that are not settled.
    fn open(&self, mut some: Items) -> Items {
        some.retain(|&item| self.outcomes[self.places[item]].is_none());
        some
    }

    /// What is settled stays so, the rest comes again.
    fn outcomes_or(self, away: &Unavailable) -> Vec<Outcome> {
        let again = || Outcome::Retry {
            after: away.after,
            reason: away.reason.clone(),
        };
        let outcomes = self.outcomes.into_iter();
        outcomes
            .map(|outcome| outcome.unwrap_or_else(again))
            .collect()
    }
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
        standing: Standing,
        /// Takes the others of a request and says how many it did not take.
        counts: bool,
        kept: Mutex<Vec<String>>,
    }

    impl Picky {
        /// One that has taken events before.
        fn new(patience: usize) -> Self {
            Picky {
                patience,
                asked: Mutex::default(),
                standing: Standing(AtomicBool::new(true)),
                counts: false,
                kept: Mutex::default(),
            }
        }

        fn asked(&self) -> usize {
            std::mem::take(&mut *self.asked.lock().unwrap()).len()
        }
    }

    impl Destination for Picky {
        type Item = String;

        fn render(&self, event: &Encoded) -> Result<String, String> {
            let json = event.json(proto::FieldSet::KubeArmor);
            json.map(|json| String::from_utf8_lossy(&json).into_owned())
                .map_err(|e| e.to_string())
        }

        fn standing(&self) -> &Standing {
            &self.standing
        }

        async fn offer(&self, items: &[&String]) -> Result<Answer, Unavailable> {
            let mut asked = self.asked.lock().unwrap();
            if asked.len() == self.patience {
                return Err(Unavailable::new("gone"));
            }
            asked.push(items.len());
            let good = items.iter().filter(|item| !item.contains("bad"));
            let bad = items.len() - good.clone().count();
            if self.counts {
                let texts = good.map(|item| (*item).clone());
                self.kept.lock().unwrap().extend(texts);
            }
            Ok(match (bad, self.counts) {
                (0, _) => Answer::Taken,
                (_, false) => Answer::Refused("it is bad".into()),
                (bad, true) => Answer::AllBut(bad, "it is bad".into()),
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
                Outcome::Refuse { .. } => 'n',
            })
            .collect()
    }

    fn batch(pods: &[&str]) -> Arc<Batch> {
        batch_of(pods.iter().map(|pod| match *pod {
            "broken" => broken(),
            pod => alert_named(pod),
        }))
    }

    async fn sent(patience: usize, pods: &[&str]) -> Result<(String, Vec<usize>), Unavailable> {
        let picky = Picky::new(patience);
        let batch = batch(pods);
        let outcomes = deliver(&picky, &batch).await?;
        Ok((letters(&outcomes), picky.asked.into_inner().unwrap()))
    }

    #[tokio::test]
    async fn one_bad_event_costs_itself() {
        let (outcomes, asked) = sent(99, &["a", "b", "bad", "d", "broken"]).await.unwrap();
        assert_eq!(outcomes, "ddndx");
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

    #[tokio::test]
    async fn one_that_takes_nothing_is_tried_with_a_few_single_events() {
        let picky = Picky {
            standing: Standing::default(),
            ..Picky::new(999)
        };
        let outcomes = deliver(&picky, &batch(&["bad"; 100])).await.unwrap();
        let told = letters(&outcomes);
        assert_eq!(told.matches('n').count(), TRIED, "{told}");
        assert!(told.starts_with('n') && told.ends_with('n'), "{told}");
        assert_eq!(told.matches('r').count(), 100 - TRIED);
        assert_eq!(picky.asked(), 1 + TRIED);
        // One good event among them, wherever it stands, shows that it is the others: all are judged.
        let mut pods = ["bad"; 20];
        pods[19] = "good";
        let outcomes = deliver(&picky, &batch(&pods)).await.unwrap();
        assert_eq!(letters(&outcomes), "n".repeat(19) + "d");
        // It is believed now, for one batch that it takes nothing of.
        let outcomes = deliver(&picky, &batch(&["bad"; 20])).await.unwrap();
        assert_eq!(letters(&outcomes), "n".repeat(20));
        picky.asked();
        let outcomes = deliver(&picky, &batch(&["bad"; 100])).await.unwrap();
        assert_eq!(picky.asked(), 1 + TRIED, "{}", letters(&outcomes));
    }

    #[tokio::test]
    async fn those_that_were_not_taken_among_others_are_found_by_counting() {
        for bad in [
            vec![3],
            vec![0],
            vec![63],
            vec![3, 4, 40],
            (8..24).collect(),
        ] {
            let picky = Picky {
                counts: true,
                ..Picky::new(999)
            };
            let pods: Vec<&str> = (0..64)
                .map(|n| if bad.contains(&n) { "bad" } else { "good" })
                .collect();
            let outcomes = deliver(&picky, &batch(&pods)).await.unwrap();
            let expected: String = (0..64)
                .map(|n| if bad.contains(&n) { 'n' } else { 'd' })
                .collect();
            assert_eq!(letters(&outcomes), expected);
            // What it costs: good ones that are there more than once.
            let kept = picky.kept.lock().unwrap().len();
            let most = 64 + 2 * 64 * bad.len().min(6);
            assert!(kept <= most, "{kept} for {bad:?}");
        }
    }

    #[tokio::test]
    async fn a_destination_that_goes_away_while_they_are_looked_for_is_sent_the_rest_again() {
        let picky = Picky {
            counts: true,
            ..Picky::new(2)
        };
        let outcomes = deliver(&picky, &batch(&["a", "b", "bad", "d"]))
            .await
            .unwrap();
        assert_eq!(letters(&outcomes), "ddrr");
    }
}
