//! What the filters of all readers may take, and what one of them has of it.
//!
//! Few are made at one time, because making one takes more than it needs later. It has its part then, or is refused. What searching adds is settled after each block; where there is
//! no more, the filter forgets what it learned and goes on, slower.

use std::sync::Arc;

use proto::query;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use super::Filter;
use crate::feed::Threads;

/// Filters that are compiled at one time.
const COMPILING: usize = 4;

/// Bytes of a unit.
const UNIT: usize = 1 << 10;

/// Memory that readers share; a cheap handle.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    units: Arc<Semaphore>,
    bytes: usize,
    compiling: Threads,
}

/// What one filter has of it.
#[derive(Debug)]
pub(crate) struct Part {
    units: Arc<Semaphore>,
    had: OwnedSemaphorePermit,
}

impl Budget {
    pub(crate) fn new(bytes: usize) -> Budget {
        let units = Arc::new(Semaphore::new(bytes / UNIT));
        Budget {
            units,
            bytes,
            compiling: Threads::new(COMPILING),
        }
    }

    /// The filter of a request, with memory for it.
    ///
    /// # Errors
    /// `InvalidArgument` for one that cannot be used; `ResourceExhausted` while the filters of others take what there is.
    pub(crate) async fn filter(
        &self,
        wanted: Option<query::Filter>,
    ) -> Result<(Filter, Part), Status> {
        let made = match wanted.as_ref().is_some_and(Filter::has_expressions) {
            true => self.compiling.run(|| Filter::new(wanted)).await,
            false => Filter::new(wanted),
        };
        let filter = made.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let part = self.part(&filter)?;
        Ok((filter, part))
    }

    fn part(&self, filter: &Filter) -> Result<Part, Status> {
        let size = units(filter);
        match self.units.clone().try_acquire_many_owned(size) {
            Ok(had) => Ok(Part {
                units: self.units.clone(),
                had,
            }),
            Err(_) => Err(Status::resource_exhausted(format!(
                "the filters of all readers may take {} MiB and this one takes {size} KiB, more than is left; use simpler expressions, or try again when others have gone",
                self.bytes >> 20
            ))),
        }
    }
}

impl Part {
    /// Takes what the filter has come to.
    pub(crate) fn settle(&mut self, filter: &Filter) {
        let had = u32::try_from(self.had.num_permits()).unwrap_or(u32::MAX);
        let more = units(filter).saturating_sub(had);
        if more == 0 {
            return;
        }
        match self.units.clone().try_acquire_many_owned(more) {
            Ok(permit) => self.had.merge(permit),
            Err(_) => filter.forget(),
        }
    }
}

fn units(filter: &Filter) -> u32 {
    u32::try_from(filter.size().div_ceil(UNIT)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(source: &str) -> Filter {
        let source = source.to_owned();
        let filter = query::Filter {
            source,
            ..Default::default()
        };
        Filter::new(Some(filter)).unwrap()
    }

    fn search(filter: &Filter) {
        let (_, expression) = &filter.fields[0];
        for n in 0..500_u32 {
            let letters =
                (0..100).filter_map(|at| char::from_u32(0x61 + (n * 7 + at * at) % 0x400));
            expression.is_match(&letters.collect::<String>());
        }
    }

    #[test]
    fn a_filter_that_grows_takes_more_while_there_is_some_and_then_forgets() {
        let budget = Budget::new(64 << 20);
        let growing = filter(r"\w{3}.*\d\d#");
        let mut part = budget.part(&growing).unwrap();
        let left = || budget.units.available_permits();
        let (least, before) = (growing.size(), left());
        search(&growing);
        part.settle(&growing);
        assert!(growing.size() > least && left() < before);
        assert_eq!(part.had.num_permits(), growing.size().div_ceil(UNIT));

        let growing = filter(r"\w{3}.*\d\d#");
        let budget = Budget::new(growing.size() + 2 * UNIT);
        let mut part = budget.part(&growing).unwrap();
        assert!(budget.part(&growing).is_err(), "there is no second one");
        search(&growing);
        part.settle(&growing);
        assert_eq!(growing.size(), least);
        drop(part);
        assert!(budget.part(&growing).is_ok());
    }
}
