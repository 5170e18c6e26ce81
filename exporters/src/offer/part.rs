//! Which events were not taken, of a request of which all but some were (OTLP's partial success).
//!
//! ```text
//! [a b c d] ─▶ all but 1 ─ the first half again ─▶ [a b] taken: so it is in [c d] ─▶ [c] refused ─▶ [d] taken: it is c
//! ```
//! Where the first half is taken, the second need not be sent again as a whole. One bad event of `n` is found with at most
//! `2 log2 n` requests that hold at most `2 n` events together. The good ones among those are at the destination more than
//! once, under the same id: the price of naming the bad one instead of keeping all `n` as dead letters. Nothing is settled by
//! reckoning: what is done was taken in a request that was taken whole, and what is refused was refused in one of which nothing
//! was taken. So a destination that changes its mind costs nobody an event.

use super::{Answer, Destination, Hand, Items};
use crate::{Outcome, Unavailable};

/// Some items of which so many were refused.
struct Suspects {
    items: Items,
    refused: usize,
    reason: String,
    /// The destination said so of exactly these; else it was reckoned.
    said: bool,
}

impl<D: Destination> Hand<'_, D> {
    /// Settles items of which the destination took all but `refused`.
    pub(super) async fn pick_out(
        &mut self,
        items: Items,
        refused: usize,
        reason: String,
    ) -> Result<(), Unavailable> {
        let mut rest = vec![Suspects {
            items,
            refused,
            reason,
            said: true,
        }];
        while let Some(suspects) = rest.pop() {
            let all = suspects.refused >= suspects.items.len();
            if suspects.refused == 0 && suspects.said {
                self.settle(&suspects.items, &Outcome::Done);
            } else if all && suspects.said {
                let reason = suspects.reason;
                self.settle(&suspects.items, &Outcome::Refuse { reason });
            } else if all {
                rest.push(self.ask(suspects.items, &suspects.reason).await?);
            } else {
                let (first, second) = self.part(suspects).await?;
                rest.extend([second, first]);
            }
        }
        Ok(())
    }

    /// Halves them; the first half is asked, and the second if that does not tell enough.
    async fn part(&self, mut suspects: Suspects) -> Result<(Suspects, Suspects), Unavailable> {
        let items = suspects.items.split_off(suspects.items.len() / 2);
        let first = self.ask(suspects.items, &suspects.reason).await?;
        let second = match first.refused {
            0 => Suspects {
                refused: suspects.refused.min(items.len()),
                items,
                reason: suspects.reason,
                said: false,
            },
            _ => self.ask(items, &suspects.reason).await?,
        };
        Ok((first, second))
    }

    async fn ask(&self, items: Items, before: &str) -> Result<Suspects, Unavailable> {
        let (refused, reason) = match self.offer(&items).await? {
            Answer::Taken => (0, before.to_owned()),
            Answer::AllBut(refused, reason) => (refused, reason),
            Answer::Refused(reason) => (items.len(), reason),
        };
        Ok(Suspects {
            items,
            refused,
            reason,
            said: true,
        })
    }
}
