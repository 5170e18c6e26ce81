//! What one lane of a sink reads: the window that all sinks share where there is one, the log itself where it lags.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use journal::{ReadError, Seq};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::company::Member;
use super::recent::{self, Look, Piece, Recent};
use crate::log::{Reader, View};

/// After a journal that could not be read.
const AFTER_ERROR: Duration = Duration::from_secs(1);

pub(super) struct Source {
    view: Arc<dyn View>,
    /// None: nobody else reads the same.
    recent: Option<Arc<Recent>>,
    committed: watch::Receiver<Seq>,
    next: u64,
    /// Among those that share the window.
    member: Option<Member>,
    /// Pieces of a read of our own.
    own: VecDeque<Piece>,
    reader: Option<(u64, Box<dyn Reader>)>,
    /// Kept here, so that a caller may stop waiting and come back.
    reading: Option<Reading>,
}

enum Reading {
    /// For everybody.
    Shared(JoinHandle<Result<(), ReadError>>),
    /// For this sink only.
    Own(JoinHandle<Own>),
}

type Own = (Box<dyn Reader>, Result<Vec<Piece>, ReadError>);

impl Source {
    pub(super) fn new(view: Arc<dyn View>, recent: Option<Arc<Recent>>, next: u64) -> Self {
        let committed = view.subscribe();
        Source {
            view,
            member: recent.as_ref().map(|recent| recent.join(next)),
            recent,
            committed,
            next,
            own: VecDeque::new(),
            reader: None,
            reading: None,
        }
    }

    /// Goes on from another event; what is being read is let go.
    pub(super) fn move_to(&mut self, next: u64) {
        self.stand_at(next);
        self.own.clear();
        (self.reader, self.reading) = (None, None);
    }

    /// The event that comes next.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// The next events, which begin at [`next`](Source::next) or before it; waits at the journal's end. Dropping this future
    /// loses nothing.
    pub(super) async fn piece(&mut self) -> Result<Piece, ReadError> {
        loop {
            // Keeps its turn short where everything is at hand.
            tokio::task::consume_budget().await;
            if let Some(reading) = &mut self.reading {
                let done = reading.wait().await;
                self.reading = None;
                self.take_in(done).inspect_err(|_| self.own.clear())?;
            }
            if let Some(piece) = self.own.pop_front() {
                return Ok(self.hand_out(piece));
            }
            let Some(recent) = self.recent.clone() else {
                self.wait_alone().await;
                self.read_alone();
                continue;
            };
            match recent.look(self.next) {
                Look::Here(piece) => return Ok(self.hand_out(piece)),
                Look::Behind => self.read_alone(),
                Look::Unread => {
                    // Past what comes next only this one waits: it must not keep the turn from the others meanwhile.
                    if !recent.goes_on_with(self.next) {
                        self.wait_for_more().await;
                    }
                    self.reading = recent.read_on(self.next).await.map(Reading::Shared);
                }
            }
        }
    }

    fn hand_out(&mut self, piece: Piece) -> Piece {
        self.stand_at(piece.end());
        piece
    }

    fn stand_at(&mut self, next: u64) {
        self.next = next;
        if let Some(member) = &self.member {
            member.goes_on_with(next);
        }
    }

    async fn wait_for_more(&mut self) {
        let next = self.next;
        if self
            .committed
            .wait_for(|committed| committed.0 >= next)
            .await
            .is_err()
        {
            // The journal is closed: nothing will come any more.
            std::future::pending::<()>().await;
        }
    }

    /// Waits for something to read where nobody else reads it.
    async fn wait_alone(&mut self) {
        let (next, mut reader) = self.own_reader();
        let more = reader.wait().await;
        self.reader = Some((next, reader));
        if !more {
            std::future::pending::<()>().await;
        }
    }

    fn own_reader(&mut self) -> (u64, Box<dyn Reader>) {
        let next = self.next;
        match self.reader.take() {
            Some((at, reader)) if at == next => (next, reader),
            _ => (next, self.view.reader(Seq(next))),
        }
    }

    fn read_alone(&mut self) {
        let (next, mut reader) = self.own_reader();
        self.reading = Some(Reading::Own(tokio::task::spawn_blocking(move || {
            let pieces = recent::read(&mut *reader, next);
            (reader, pieces)
        })));
    }

    fn take_in(&mut self, done: Done) -> Result<(), ReadError> {
        match done {
            Done::Shared(read) => read,
            Done::Own(reader, pieces) => {
                let pieces = pieces?;
                let end = pieces.last().map_or(self.next, Piece::end);
                self.reader = Some((end, reader));
                self.own = pieces.into();
                Ok(())
            }
            Done::Died => Ok(()),
        }
    }

    /// How long to wait after an error of [`piece`](Source::piece).
    pub(super) fn after_error() -> Duration {
        AFTER_ERROR
    }
}

enum Done {
    Shared(Result<(), ReadError>),
    Own(Box<dyn Reader>, Result<Vec<Piece>, ReadError>),
    /// The runtime ends, or the read panicked; it is started again.
    Died,
}

impl Reading {
    async fn wait(&mut self) -> Done {
        match self {
            Reading::Shared(handle) => handle.await.map_or(Done::Died, Done::Shared),
            Reading::Own(handle) => handle
                .await
                .map_or(Done::Died, |(reader, pieces)| Done::Own(reader, pieces)),
        }
    }
}
