//! The whole topic, for who looks for an event: where every group stands, and all records, the newest first, since whoever
//! asks mostly asks for what has just happened. A topic has no index by id.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use journal::{ReadError, Seq};

use super::away::PATIENCE;
use super::cut::Cut;
use super::merge::Step;
use super::own::Own;
use super::past::Consumers;
use super::record::{Read, number};
use super::topic::Topic;
use crate::log::{Placed, Shared};

/// Records of a partition in the first stretch that is read; each further one is four times as long.
const STRETCH: i64 = 20_000;

/// Sums that this relay keeps.
pub(super) type Owns = Arc<Mutex<Vec<Arc<Own>>>>;

/// The topic, and what of it this relay counts.
pub(super) struct Whole {
    pub(super) topic: Arc<Topic>,
    pub(super) past: Arc<Consumers>,
    pub(super) own: Owns,
}

impl Whole {
    /// Where a sum has come to.
    fn counted(&self, sink: &str) -> Option<Cut> {
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let own = own.iter().rev().find(|own| own.name() == sink)?;
        Some(own.counted())
    }
}

impl Shared for Whole {
    fn stands(&self, sink: &str) -> Result<Vec<Option<Seq>>, ReadError> {
        let offsets = match self.counted(sink) {
            Some(cut) => cut.0.into_iter().map(Some).collect(),
            None => self
                .topic
                .committed(&format!("{}.{sink}", self.topic.name()))?,
        };
        let seq = |offset| Seq(number(offset));
        Ok(offsets.into_iter().map(|at| at.map(seq)).collect())
    }

    fn backwards(
        &self,
        partitions: Option<&[usize]>,
        look: &mut dyn FnMut(Placed) -> ControlFlow<()>,
    ) -> Result<Option<u64>, ReadError> {
        let (low, mut to) = self.topic.watermarks()?;
        let (mut length, mut since) = (STRETCH, None);
        loop {
            let from = before(&low, &to, length, partitions);
            if from == to {
                return Ok(None);
            }
            let mut begins = Begins::new(&from, &low);
            if self.stretch(&from, &to, &mut begins, look)?.is_break() {
                // Nothing was shown whole: not even what comes at this moment.
                return Ok(Some(since.unwrap_or_else(crate::log::unix_nanoseconds)));
            }
            since = begins.latest().or(since);
            (to, length) = (from, length.saturating_mul(4));
        }
    }
}

impl Whole {
    fn stretch(
        &self,
        from: &Cut,
        to: &Cut,
        begins: &mut Begins,
        look: &mut dyn FnMut(Placed) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, ReadError> {
        let mut lent = self.past.lend(from, Instant::now() + PATIENCE)?;
        while let Step::Record(_, read) = lent.merge.next(to, Instant::now() + PATIENCE)? {
            begins.note(&read);
            if look(placed(read)).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// When a stretch begins in every partition that has something before it, in milliseconds since 1970.
struct Begins(Vec<Option<i64>>);

impl Begins {
    fn new(from: &Cut, low: &Cut) -> Self {
        let has_more = from.0.iter().zip(&low.0).map(|(from, low)| from > low);
        Begins(has_more.map(|more| more.then_some(i64::MAX)).collect())
    }

    fn note(&mut self, read: &Read) {
        let partition = usize::try_from(read.partition).ok();
        if let Some(Some(time)) = partition.and_then(|partition| self.0.get_mut(partition)) {
            *time = read.time.min(*time);
        }
    }

    /// Since when no partition has anything before it, in unix nanoseconds.
    fn latest(&self) -> Option<u64> {
        let times = self.0.iter().flatten().filter(|time| **time < i64::MAX);
        let latest = times.max()?;
        Some(u64::try_from(*latest).unwrap_or(0) * 1_000_000)
    }
}

fn placed(read: Read) -> Placed {
    let number = number(read.offset);
    Placed {
        partition: read.partition,
        relay: read.relay(),
        entry: read.entry(number),
    }
}

/// Where a stretch begins that ends at `to`.
fn before(low: &Cut, to: &Cut, length: i64, partitions: Option<&[usize]>) -> Cut {
    let bounds = low.0.iter().zip(&to.0).enumerate();
    let from = bounds.map(|(at, (low, to))| match partitions {
        Some(only) if !only.contains(&at) => *to,
        _ => to.saturating_sub(length).max(*low).min(*to),
    });
    Cut(from.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_ends_where_the_last_one_began_and_stays_within_what_is_kept() {
        let (low, to) = (Cut(vec![5, 90]), Cut(vec![20, 100]));
        assert_eq!(before(&low, &to, 10, None), Cut(vec![10, 90]));
        assert_eq!(before(&low, &to, 100, Some(&[0])), Cut(vec![5, 100]));
        assert_eq!(before(&low, &low, 10, None), low);
    }

    #[test]
    fn what_was_shown_reaches_back_to_the_latest_beginning_of_a_partition_that_has_more() {
        let begins = |times: &[Option<i64>]| Begins(times.to_vec()).latest();
        assert_eq!(begins(&[Some(3), None, Some(7)]), Some(7_000_000));
        assert_eq!(begins(&[None, Some(i64::MAX)]), None);
        let (from, low) = (Cut(vec![5, 9]), Cut(vec![5, 2]));
        assert_eq!(Begins::new(&from, &low).0, [None, Some(i64::MAX)]);
    }
}
