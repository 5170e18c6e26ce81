//! What a sink's task does when an administrator tells it to.
//!
//! A move lets go of all that is under way: events that a destination was sent meanwhile may come to it again (rewind), or
//! have come although they count as left out (skip).

use std::sync::Arc;

use journal::{CursorError, ReadError, Seq};

use super::{Gathering, Task, settled};
use crate::fanout::orders::{Moved, Order};
use crate::fanout::passed::Word;
use crate::fanout::progress::Progress;
use crate::log::View;

impl Task {
    pub(super) async fn obey(&mut self, order: Order) {
        match order {
            Order::Look => self.try_now(),
            Order::Errand(errand) => self.errands.push_back(errand),
            // Whoever asked may have left.
            Order::Rewind { since, done } => drop(done.send(self.rewind(since).await)),
            Order::Skip { until, done } => drop(done.send(self.skip(until).await)),
        }
    }

    async fn rewind(&mut self, since: u64) -> Result<Moved, String> {
        if self.stateful {
            return Err(
                "it keeps a sum of all events, which would count the same ones twice".to_owned(),
            );
        }
        let to = find(&self.view, move |view| view.seek_time(since)).await?;
        self.finish_saving().await;
        let from = self.progress.low();
        if to > from {
            return Err(format!(
                "it stands at event {from}, which is older than that (event {to}); `skip --until` goes forward"
            ));
        }
        // What is finished so far is put down first: the account keeps it.
        while self.progress.has_settled() {
            let start = self.progress.start();
            let (to, account) = self.progress.take();
            self.note_passed(start, to);
            settled_or_later(self.cursor.advance(Seq(to), account, None).await)?;
        }
        self.begin_at(to);
        let cursor = Arc::clone(&self.cursor);
        let reached = match cursor.rewind(Seq(to)).await {
            Ok(reached) => Ok(reached),
            Err(error) => settled_or_later(Err(error)).map(|()| cursor.position()),
        };
        // What is older than the oldest event cannot be had.
        self.begin_at(cursor.position().0);
        Ok(Moved {
            from,
            to: reached?.0,
        })
    }

    async fn skip(&mut self, until: Option<u64>) -> Result<Moved, String> {
        let to = match until {
            Some(until) => find(&self.view, move |view| view.seek_time(until)).await?,
            None => find(&self.view, |view| view.end()).await?,
        };
        self.finish_saving().await;
        let from = self.progress.start();
        if to < from {
            return Err(format!(
                "it stands at event {from}, which is newer than that (event {to}); `rewind --since` goes back"
            ));
        }
        let account = self.progress.abandoned(to, self.view.first().0);
        let state = self.stateful.then(|| self.runway.sink.snapshot()).flatten();
        self.begin_at(to);
        settled_or_later(self.cursor.advance(Seq(to), account, state).await)?;
        self.note(from, to, Word::Skipped);
        Ok(Moved { from, to })
    }

    /// Forgets all that was under way. What a destination was sent meanwhile it may get again.
    fn begin_at(&mut self, next: u64) {
        self.flying.clear();
        self.waiting.clear();
        (self.piece, self.open) = (None, Gathering::default());
        self.try_now();
        self.progress = Progress::new(next);
        self.source.move_to(next);
        self.read_again = None;
    }

    async fn finish_saving(&mut self) {
        if self.saving.is_some() {
            let saved = settled(&mut self.saving).await;
            self.saving = None;
            // A cursor that cannot move says so again in what follows.
            let _ = self.judge_save(saved);
        }
    }
}

/// Asks the log for a place, off the threads that serve everybody.
fn find(
    view: &Arc<dyn View>,
    what: impl FnOnce(&dyn View) -> Result<Seq, ReadError> + Send + 'static,
) -> impl Future<Output = Result<u64, String>> + Send + 'static {
    let view = Arc::clone(view);
    async move {
        let found = tokio::task::spawn_blocking(move || what(&*view)).await;
        let found = found.map_err(|e| e.to_string())?;
        found.map(|seq| seq.0).map_err(|e| e.to_string())
    }
}

/// A move that the disk did not take holds in memory, and is made durable with the next one.
fn settled_or_later(moved: Result<(), CursorError>) -> Result<(), String> {
    match moved {
        Ok(()) | Err(CursorError::Disk { .. }) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}
