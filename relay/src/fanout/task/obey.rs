//! What a sink's task does when an administrator tells it to.
//!
//! A move lets go of all that is under way: events that a destination was sent meanwhile may come to it again (rewind), or
//! have come although they count as left out (skip).

use journal::{CursorError, Seq};

use super::{Gathering, Hold, Task, settled};
use crate::fanout::orders::{Moved, Order};
use crate::fanout::passed::Word;
use crate::fanout::progress::Progress;

impl Task {
    pub(super) async fn obey(&mut self, order: Order) {
        match order {
            Order::Look => self.hold = Hold::default(),
            Order::Errand(errand) => self.errands.push_back(errand),
            // Whoever asked may have left.
            Order::Rewind { to, done } => drop(done.send(self.rewind(to).await)),
            Order::Skip { to, done } => drop(done.send(self.skip(to).await)),
        }
    }

    async fn rewind(&mut self, to: u64) -> Result<Moved, String> {
        if self.stateful {
            return Err(
                "it keeps a sum of all events, which would count the same ones twice".to_owned(),
            );
        }
        self.finish_saving().await;
        let from = self.progress.low();
        if to > from {
            return Err(format!(
                "it stands at event {from}, which is older than that (event {to}); `skip --until` goes forward"
            ));
        }
        // What is finished so far is put down first: the account keeps it.
        let start = self.progress.start();
        let (_, account) = self.progress.take();
        self.note_passed(start, from);
        settled_or_later(self.health.cursor.advance(Seq(from), account, None).await)?;
        self.begin_at(to);
        let cursor = &self.health.cursor;
        let reached = match cursor.rewind(Seq(to), None).await {
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

    async fn skip(&mut self, to: Option<u64>) -> Result<Moved, String> {
        self.finish_saving().await;
        let from = self.progress.start();
        let to = to.unwrap_or_else(|| self.journal.committed().0 + 1);
        if to < from {
            return Err(format!(
                "it stands at event {from}, which is newer than that (event {to}); `rewind --since` goes back"
            ));
        }
        let account = self.progress.abandoned(to, self.journal.first().0);
        let state = self.stateful.then(|| self.runway.sink.snapshot()).flatten();
        self.begin_at(to);
        settled_or_later(self.health.cursor.advance(Seq(to), account, state).await)?;
        self.passed
            .note(self.health.name(), from, to, Word::Skipped);
        Ok(Moved { from, to })
    }

    /// Forgets all that was under way. What a destination was sent meanwhile it may get again.
    fn begin_at(&mut self, next: u64) {
        self.flying.clear();
        self.waiting.clear();
        (self.piece, self.open, self.hold) = (None, Gathering::default(), Hold::default());
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

/// A move that the disk did not take holds in memory, and the journal writes it again.
fn settled_or_later(moved: Result<(), CursorError>) -> Result<(), String> {
    match moved {
        Ok(()) | Err(CursorError::Disk { .. }) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}
