//! The newest events, read and decoded once for all sinks.
//!
//! Sinks at the journal's tail take the same pieces from here, and with them the JSON that the first of them made. Whoever
//! comes to the end first reads on for everybody, not more often than every few milliseconds while little comes: at 20,000
//! events a second a read of each commit would be one of 20 events, and waking six sinks for it costs more than the events.
//! A sink that lags behind the window reads for itself until it is back.
//!
//! ```text
//!   ┌───────────┬───────────┬───────────┬───────────┐
//!   │           │  ▲ kafka  │           │  ▲ otlp   │ ▲ stdout: reads on, and the oldest piece goes
//!   └───────────┴───────────┴───────────┴───────────┘
//!    ◀──────────── old ───────────────▶
//! ```
//! Where every CPU is busy sinks would soon stand apart, each with its own reads and its own JSON, and all of them would be slower
//! for it. There the first one gives those that are still in the old part a moment before it reads on: what it does not use they
//! do. The moment is short ([`PATIENCE`]): one that stands still is out of the window soon, and so is a slow one. While a CPU
//! has nothing to do, nobody waits for anybody.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use exporters::Encoded;
use journal::{Block, ReadError, Seq};
use proto::Event;
use tokio::sync::{Mutex as TurnMutex, OwnedMutexGuard};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::company::{Company, Member};
use super::progress::Fate;
use super::spare::Spare;
use crate::log::{Reader, View};

/// Bytes that one read asks the journal for: what is made of them stays in a processor's caches.
const READ_BYTES: usize = 512 << 10;
/// From one read to the next where the first left nothing unread.
const REST: Duration = Duration::from_millis(10);
/// Payload bytes that the window holds, besides the JSON made of them.
const WINDOW_BYTES: usize = 8 << 20;
/// Which share of a full window is old.
const OLD: (usize, usize) = (3, 4);
/// What the first sink gives those in the old part, a read: it is not kept below 25 MiB a second, some 35,000 events.
const PATIENCE: Duration = Duration::from_millis(20);
/// How often it looks at them meanwhile.
const LOOK: Duration = Duration::from_millis(1);

/// Neighbouring events.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) first: u64,
    pub(super) run: Run,
}

#[derive(Clone, Debug)]
pub(super) enum Run {
    Events(Arc<Vec<Encoded>>),
    /// So many events that cannot be had.
    Gap(u64, Fate),
}

impl Piece {
    /// The event after the last one.
    pub(super) fn end(&self) -> u64 {
        self.first
            + match &self.run {
                Run::Events(events) => events.len() as u64,
                Run::Gap(count, _) => *count,
            }
    }

    fn bytes(&self) -> usize {
        match &self.run {
            Run::Events(events) => events.iter().map(|event| event.event().payload.len()).sum(),
            Run::Gap(..) => 0,
        }
    }
}

/// Where a sink stands.
pub(super) enum Look {
    /// Here is a piece that holds its next event.
    Here(Piece),
    /// It is older than the window.
    Behind,
    /// Nobody has read it yet.
    Unread,
}

pub(super) struct Recent {
    view: Arc<dyn View>,
    window: Mutex<Window>,
    /// Held by whoever reads on.
    turn: Arc<TurnMutex<Turn>>,
    company: Company,
    spare: Spare,
}

#[derive(Default)]
struct Turn {
    reader: Option<Box<dyn Reader>>,
    /// Before that there is nothing worth a read.
    not_before: Option<Instant>,
    /// Until then those in the old part may come up.
    patient_until: Option<Instant>,
}

#[derive(Default)]
struct Window {
    pieces: VecDeque<Piece>,
    bytes: usize,
}

impl Window {
    fn end(&self) -> Option<u64> {
        self.pieces.back().map(Piece::end)
    }

    fn look(&self, next: u64) -> Look {
        if self.end().is_none_or(|end| end <= next) {
            return Look::Unread;
        }
        let at = self.pieces.partition_point(|piece| piece.end() <= next);
        match self.pieces.get(at) {
            Some(piece) if piece.first <= next => Look::Here(piece.clone()),
            _ => Look::Behind,
        }
    }

    /// The events of its old part, if another read takes the place of some.
    fn old(&self) -> Option<Range<u64>> {
        if self.bytes + READ_BYTES <= WINDOW_BYTES {
            return None;
        }
        let (share, of) = OLD;
        let new = self.pieces.get(self.pieces.len() * share / of)?;
        Some(self.pieces.front()?.first..new.first)
    }

    fn extend(&mut self, pieces: Vec<Piece>) {
        for piece in pieces {
            if self.end().is_some_and(|end| end != piece.first) {
                self.pieces.clear();
                self.bytes = 0;
            }
            self.bytes += piece.bytes();
            self.pieces.push_back(piece);
        }
        while self.bytes > WINDOW_BYTES && self.pieces.len() > 1 {
            if let Some(oldest) = self.pieces.pop_front() {
                self.bytes -= oldest.bytes();
            }
        }
    }
}

impl Recent {
    pub(super) fn new(view: Arc<dyn View>) -> Arc<Self> {
        Self::with(view, Spare::default())
    }

    fn with(view: Arc<dyn View>, spare: Spare) -> Arc<Self> {
        Arc::new(Recent {
            view,
            window: Mutex::default(),
            turn: Arc::default(),
            company: Company::default(),
            spare,
        })
    }

    /// One more sink that takes its events from here.
    pub(super) fn join(&self, next: u64) -> Member {
        self.company.join(next)
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        // The window is whole after each of its operations; none calls foreign code.
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn look(&self, next: u64) -> Look {
        self.window().look(next)
    }

    /// Whether what comes next for everybody is this event.
    pub(super) fn goes_on_with(&self, next: u64) -> bool {
        self.window().end() == Some(next)
    }

    /// Waits for the event and reads on from it for everybody, unless somebody else just did. Where more events are awaited
    /// one sink waits for the log and the others for that one. Dropping this future loses nothing.
    pub(super) async fn read_on(
        self: &Arc<Self>,
        next: u64,
    ) -> Option<JoinHandle<Result<(), ReadError>>> {
        let mut turn = Arc::clone(&self.turn).lock_owned().await;
        if !matches!(self.look(next), Look::Unread) {
            return None;
        }
        let mut committed = self.view.subscribe();
        if committed.wait_for(|end| end.0 >= next).await.is_err() {
            // The log is closed: nothing will come any more.
            std::future::pending::<()>().await;
        }
        if let Some(at) = turn.not_before {
            sleep_until(at).await;
        }
        self.let_come_up(&mut turn).await;
        let recent = Arc::clone(self);
        Some(tokio::task::spawn_blocking(move || {
            recent.read_in_turn(turn, next)
        }))
    }

    /// Waits a moment where sinks are in what will soon be gone, and no CPU is to spare.
    async fn let_come_up(&self, turn: &mut Turn) {
        let old = self.window().old();
        // Where the log has more than was read it may well be that none is.
        let spare = || self.spare.any(turn.not_before.is_some());
        // Looked at each time, so that the answer is about this moment.
        if spare() {
            return;
        }
        let Some(old) = old.filter(|old| self.company.is_in(old)) else {
            return;
        };
        let most = Instant::now() + PATIENCE;
        let until = *turn.patient_until.get_or_insert(most);
        while Instant::now() < until && !spare() && self.company.is_in(&old) {
            sleep(LOOK).await;
        }
    }

    fn read_in_turn(&self, mut turn: OwnedMutexGuard<Turn>, next: u64) -> Result<(), ReadError> {
        // Where the window ends elsewhere, a sink has come back from far behind or the first one has just begun.
        let goes_on = self.goes_on_with(next);
        let mut reader = match turn.reader.take() {
            Some(reader) if goes_on => reader,
            _ => self.view.reader(Seq(next)),
        };
        let (began, pieces) = (Instant::now(), read(&mut *reader, next)?);
        let all = pieces
            .last()
            .is_none_or(|piece| piece.end() > self.view.committed().0);
        *turn = Turn {
            reader: Some(reader),
            not_before: all.then(|| began + REST),
            patient_until: None,
        };
        self.window().extend(pieces);
        Ok(())
    }
}

/// Reads one block and decodes it. Blocks the thread.
pub(super) fn read(reader: &mut dyn Reader, next: u64) -> Result<Vec<Piece>, ReadError> {
    let block = reader.next(READ_BYTES)?;
    Ok(pieces(next, block))
}

/// A block as pieces without gaps between them.
fn pieces(from: u64, block: Block) -> Vec<Piece> {
    // What expired lies before everything else.
    let kept = from + block.expired;
    let mut pieces = Pieces {
        at: from,
        // All of them together: an allocation an event is one that some other thread frees.
        events: Vec::with_capacity(block.entries.len()),
        out: Vec::new(),
    };
    pieces.skip_to(kept, Fate::Expired);
    for entry in block.entries {
        pieces.skip_to(entry.seq.0, Fate::Corrupt);
        match Event::from_journal(entry.kind, entry.payload) {
            Ok(event) => pieces.event(event),
            Err(error) => {
                tracing::warn!(sequence = entry.seq.0, %error, "a record of the journal is no event");
                pieces.skip_to(entry.seq.0 + 1, Fate::Corrupt);
            }
        }
    }
    pieces.skip_to(block.next.0, Fate::Corrupt);
    pieces.close();
    pieces.out
}

struct Pieces {
    at: u64,
    events: Vec<Encoded>,
    out: Vec<Piece>,
}

impl Pieces {
    fn event(&mut self, event: Event) {
        self.events.push(Encoded::new(event));
        self.at += 1;
    }

    /// What lies between here and `to` cannot be had.
    fn skip_to(&mut self, to: u64, fate: Fate) {
        if to > self.at {
            self.close();
            self.out.push(Piece {
                first: self.at,
                run: Run::Gap(to - self.at, fate),
            });
            self.at = to;
        }
    }

    fn close(&mut self) {
        if !self.events.is_empty() {
            let first = self.at - self.events.len() as u64;
            self.out.push(Piece {
                first,
                run: Run::Events(Arc::new(std::mem::take(&mut self.events))),
            });
        }
    }
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test that cannot go on has failed")]
mod tests {
    use bytes::Bytes;
    use journal::{Config, Entry, Journal, RealDisk};

    use super::*;

    fn entry(seq: u64, payload: &'static [u8]) -> Entry {
        Entry {
            seq: Seq(seq),
            kind: 1,
            time: 0,
            payload: Bytes::from_static(payload),
        }
    }

    fn shape(pieces: &[Piece]) -> Vec<(u64, u64, Option<Fate>)> {
        let fate = |piece: &Piece| match piece.run {
            Run::Events(_) => None,
            Run::Gap(_, fate) => Some(fate),
        };
        pieces
            .iter()
            .map(|piece| (piece.first, piece.end(), fate(piece)))
            .collect()
    }

    #[test]
    fn a_block_becomes_pieces_that_leave_no_event_out() {
        let good = &[0; 16];
        let block = Block {
            entries: vec![
                entry(8, good),
                entry(9, good),
                entry(12, good),
                entry(13, b"short"),
                entry(14, good),
            ],
            expired: 5,
            corrupt: 5,
            next: Seq(18),
            ..Block::default()
        };
        assert_eq!(
            shape(&pieces(3, block)),
            [
                (3, 8, Some(Fate::Expired)),
                (8, 10, None),
                (10, 12, Some(Fate::Corrupt)),
                (12, 13, None),
                (13, 14, Some(Fate::Corrupt)),
                (14, 15, None),
                (15, 18, Some(Fate::Corrupt)),
            ]
        );
    }

    /// A full window of events 1 to 160, ten a piece, and two sinks that share it.
    fn shared(folder: &std::path::Path, spare: Spare) -> (Arc<Recent>, [Member; 2]) {
        let disk = Arc::new(RealDisk::open(folder).expect("a folder"));
        let (journal, _) = Journal::open(disk, Config::default(), Box::new(())).expect("opened");
        let recent = Recent::with(Arc::new(journal), spare);
        let event = || Event::from_journal(1, Bytes::from(vec![0; READ_BYTES / 10])).expect("one");
        let piece = |nth: u64| Piece {
            first: 1 + 10 * nth,
            run: Run::Events(Arc::new((0..10).map(|_| Encoded::new(event())).collect())),
        };
        recent.window().extend((0..16).map(piece).collect());
        let members = [recent.join(161), recent.join(161)];
        (recent, members)
    }

    /// Whether the first one is patient with another one at that event.
    async fn is_patient(recent: &Recent, other: &Member, at: u64) -> bool {
        other.goes_on_with(at);
        let mut turn = Turn::default();
        recent.let_come_up(&mut turn).await;
        turn.patient_until.is_some()
    }

    #[tokio::test]
    async fn where_no_cpu_is_to_spare_the_first_one_lets_others_come_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let (recent, [_first, other]) = shared(folder.path(), Spare::always(false));
        for (at, expected) in [
            (161, false),
            (121, false),
            (120, true),
            (1, true),
            (0, false),
        ] {
            let patient = is_patient(&recent, &other, at).await;
            assert_eq!(patient, expected, "the other one at {at}");
        }
    }

    #[tokio::test]
    async fn it_reads_on_when_the_other_one_has_come_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let (recent, [_first, other]) = shared(folder.path(), Spare::always(false));
        other.goes_on_with(30);
        let mut turn = Turn {
            patient_until: Some(Instant::now() + Duration::from_secs(3600)),
            ..Turn::default()
        };
        let both = async {
            tokio::join!(recent.let_come_up(&mut turn), async {
                sleep(5 * LOOK).await;
                other.goes_on_with(121);
            })
        };
        let both = tokio::time::timeout(Duration::from_secs(60), both).await;
        both.expect("it waited for more");
    }

    #[tokio::test]
    async fn its_patience_is_counted_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let (recent, [_first, other]) = shared(folder.path(), Spare::always(false));
        other.goes_on_with(1);
        let began = Some(Instant::now());
        let mut turn = Turn {
            patient_until: began,
            ..Turn::default()
        };
        recent.let_come_up(&mut turn).await;
        assert_eq!(turn.patient_until, began);
    }

    #[tokio::test]
    async fn where_a_cpu_is_to_spare_nobody_waits() {
        let folder = tempfile::tempdir().expect("a folder");
        let (recent, [_first, other]) = shared(folder.path(), Spare::always(true));
        assert!(!is_patient(&recent, &other, 1).await);
    }

    fn gap(first: u64, end: u64) -> Piece {
        Piece {
            first,
            run: Run::Gap(end - first, Fate::Corrupt),
        }
    }

    fn found(window: &Window, next: u64) -> Option<(u64, u64)> {
        match window.look(next) {
            Look::Here(piece) => Some((piece.first, piece.end())),
            Look::Behind => Some((0, 0)),
            Look::Unread => None,
        }
    }

    #[test]
    fn the_window_finds_the_piece_of_an_event_and_tells_old_from_unread() {
        let mut window = Window::default();
        assert_eq!(found(&window, 5), None);
        window.extend(vec![gap(5, 8), gap(8, 20)]);
        window.extend(vec![gap(20, 21)]);
        let at = [4, 5, 7, 8, 19, 20, 21, 30].map(|next| found(&window, next));
        let behind = Some((0, 0));
        let (a, b, c) = (Some((5, 8)), Some((8, 20)), Some((20, 21)));
        assert_eq!(at, [behind, a, a, b, b, c, None, None]);
        // Reading on from elsewhere begins the window anew.
        window.extend(vec![gap(30, 31)]);
        assert_eq!(
            (found(&window, 20), found(&window, 30)),
            (behind, Some((30, 31)))
        );
    }
}
