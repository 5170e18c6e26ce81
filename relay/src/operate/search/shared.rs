//! Events by their ids in a log that relays share: it has no index, so its newest records are read first, of the partitions
//! that the events' sensors write to where those are known. Given up after a while, and then it is said how far it came.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::open::{Found, InPartition, Open, Wanted};
use crate::log::{Placed, Shared};

/// A search ends when it has found nothing for so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Tells what the log says of every id, once, in the order in which they are found; `tell` says whether to go on. `partitions`
/// are those where they should be; `heard` whether anybody still wants to know. Blocks the thread.
///
/// # Errors
/// The brokers.
pub(in crate::operate) fn search(
    log: &dyn Shared,
    partitions: Option<&[usize]>,
    wanted: &[Wanted],
    heard: impl Fn() -> bool,
    tell: impl FnMut(usize, Found) -> bool,
) -> Result<(), String> {
    let mut search = Search {
        open: Open::new(wanted),
        until: Instant::now() + PATIENCE,
        heard,
        tell,
    };
    let mut since = search.run(log, partitions)?;
    if since.is_none() && partitions.is_some() && !search.open.is_empty() {
        // A sensor's partition is another one after some were added.
        search.open.forget_losses();
        since = search.run(log, None)?;
    }
    search.rest(since);
    Ok(())
}

struct Search<'a, H, T> {
    open: Open<'a>,
    until: Instant,
    heard: H,
    tell: T,
}

impl<H: Fn() -> bool, T: FnMut(usize, Found) -> bool> Search<'_, H, T> {
    fn run(
        &mut self,
        log: &dyn Shared,
        partitions: Option<&[usize]>,
    ) -> Result<Option<u64>, String> {
        let since = log.backwards(partitions, &mut |placed| self.see(&placed));
        since.map_err(|error| error.to_string())
    }

    fn see(&mut self, placed: &Placed) -> ControlFlow<()> {
        match self.open.take(&placed.entry) {
            Some((n, losses)) => {
                let found = Found {
                    entry: Some(placed.entry.clone()),
                    within: Some(within(placed)),
                    losses,
                    ..Found::default()
                };
                self.until = Instant::now() + PATIENCE;
                if !(self.tell)(n, found) {
                    return ControlFlow::Break(());
                }
            }
            // A number of one partition says nothing without it.
            None => self.open.note_loss(&placed.entry, None),
        }
        let over = self.open.is_empty() || Instant::now() > self.until || !(self.heard)();
        if over {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    fn rest(&mut self, since: Option<u64>) {
        for (n, losses) in self.open.rest() {
            let found = Found {
                losses,
                since,
                ..Found::default()
            };
            if !(self.tell)(n, found) {
                return;
            }
        }
    }
}

fn within(placed: &Placed) -> InPartition {
    InPartition {
        partition: placed.partition,
        relay: String::from_utf8_lossy(&placed.relay).into_owned(),
    }
}
