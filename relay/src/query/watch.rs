//! One `Watch` call.
//!
//! ```text
//!        begin                       end of history            pump
//!  ────────┬──────────────────────────────┬──────────────────────┬───▶ journal
//!          │  read from the journal,      │  live: shared blocks │
//!          │  never jumped over           │  jumps beyond max_lag│
//! ```
//! History is read to its end whatever that takes: who asks for it wants all of it. A client that then follows is
//! live, and treated as every live reader is, unless it asked for `complete`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use journal::{Block, Entry, Seq};
use proto::query::watch_reply::Is;
use proto::query::{Gap, WatchReply, WatchRequest, WatchedEvent};
use proto::{Event, EventId, Kind, link};
use tokio::sync::watch;
use tonic::Status;

use super::length;
use super::resume::{Resume, Tokens};
use crate::access::Caller;
use crate::feed::{
    Admission, Behind, Counts, EXPIRED, Found, Lane, Onward, Place, Stretch, Tail, kind_index,
    unreadable,
};
use crate::filter::{Filter, Part as Memory};
use crate::log::{Mark, Marked, Marks, View};

/// The first step back in search of the last events, in records; each further step is twice as long.
const STEP: u64 = 4096;

const NO_TOKEN: &str = "resume is not a token of this service";

/// A call, ready to be answered.
pub(super) struct Watch {
    tail: Tail,
    tokens: Tokens,
    filter: Filter,
    since: u64,
    until: u64,
    /// Events that may still be sent.
    left: u64,
    tail_events: u64,
    follow: bool,
    complete: bool,
    begin: Seq,
    end: Seq,
    /// Told before anything else.
    gap: Option<Gap>,
    marks: Option<Arc<dyn Marks>>,
    /// That of the event sent last, which is often that of the next.
    mark: Option<(Seq, Mark)>,
    _admission: Admission,
    memory: Memory,
}

impl Watch {
    /// Decides where to begin and where history ends.
    ///
    /// # Errors
    /// `InvalidArgument` for a range or a token that makes no sense; `ResourceExhausted` while there are as many
    /// readers as may be.
    pub(super) fn new(
        tail: &Tail,
        tokens: Tokens,
        caller: &Caller,
        (filter, memory): (Filter, Memory),
        request: WatchRequest,
    ) -> Result<Watch, Status> {
        let invalid = |error: &dyn std::fmt::Display| Status::invalid_argument(error.to_string());
        let filter = filter.within(caller.namespaces.clone());
        let time =
            |name, ns| u64::try_from(ns).map_err(|_| invalid(&format!("{name} is before 1970")));
        let since = time("since_ns", request.since_ns)?;
        let until = match time("until_ns", request.until_ns)? {
            0 => u64::MAX,
            until => until,
        };
        if since > until {
            return Err(invalid(
                &"the range ends before it begins (since is after until)",
            ));
        }
        let mut watch = Watch {
            tail: tail.clone(),
            tokens,
            filter,
            since,
            until,
            left: if request.limit == 0 {
                u64::MAX
            } else {
                request.limit
            },
            tail_events: request.tail,
            follow: request.follow,
            complete: request.complete,
            begin: tail.log().first(),
            end: next_seq(tail.log()),
            gap: None,
            marks: tail.log().marks(),
            mark: None,
            _admission: tail.admit()?,
            memory,
        };
        watch.place(&request.resume, request.from_sequence)?;
        Ok(watch)
    }

    /// Finds the beginning: after the token, at a place, at `since`, at the live end, or at the oldest record there is.
    fn place(&mut self, token: &[u8], sequence: u64) -> Result<(), Status> {
        let log = self.tail.log();
        if !token.is_empty() {
            match self.tokens.read(token, self.filter.is_limited()) {
                Some(Resume::After { seq, event }) if self.may_have(seq, &event)? => {
                    self.begin_at(Seq(seq.0.saturating_add(1)));
                }
                Some(Resume::After { .. }) => self.begin_anew(
                    "the resume token is of an event that this journal does not have, as after a restore: everything in it follows",
                ),
                Some(Resume::Shared { seq, mark }) => self.begin_after(seq, &mark)?,
                Some(Resume::Elsewhere) => self.begin_anew(
                    "the resume token is of another journal: everything in this one follows",
                ),
                None => {
                    return Err(Status::invalid_argument(NO_TOKEN));
                }
            }
        } else if sequence > 0 {
            self.begin_at(Seq(sequence));
        } else if self.since > 0 {
            self.begin = log.seek_time(self.since).map_err(unreadable)?.min(self.end);
        } else if self.follow && self.until == u64::MAX && self.tail_events == 0 {
            self.begin = self.end;
        }
        Ok(())
    }

    /// Whether this event has, or once had, this number. A journal that was restored gives numbers out again.
    fn may_have(&self, seq: Seq, event: &[u8]) -> Result<bool, Status> {
        let log = self.tail.log();
        if seq >= self.end || seq < log.first() {
            return Ok(seq < self.end);
        }
        let block = log.reader(seq).next(1).map_err(unreadable)?;
        let record = block.entries.first().filter(|entry| entry.seq == seq);
        Ok(record.is_none_or(|entry| entry.payload.starts_with(event)))
    }

    /// Goes on in a log that relays share: after this record while its number is known, or else at the mark.
    fn begin_after(&mut self, seq: Option<Seq>, mark: &[u8]) -> Result<(), Status> {
        let Some(marks) = self.marks.clone() else {
            return Ok(());
        };
        if let Some(seq) = seq.filter(|seq| marks.is_exact(*seq)) {
            self.begin_at(Seq(seq.0.saturating_add(1)));
            return Ok(());
        }
        let found = marks.find(mark).map_err(unreadable)?;
        let Marked { next, missed } = found.ok_or_else(|| Status::invalid_argument(NO_TOKEN))?;
        self.begin_at(next);
        if missed > 0 {
            self.gap = Some(expired(missed));
        }
        Ok(())
    }

    /// Begins with all there is, and word of why.
    fn begin_anew(&mut self, reason: &str) {
        let reason = reason.to_owned();
        self.gap = Some(Gap { missed: 0, reason });
    }

    /// Begins with this record, or with the oldest and word of what is missing before it.
    fn begin_at(&mut self, seq: Seq) {
        let oldest = self.tail.log().first();
        self.begin = seq.min(self.end);
        if self.begin < oldest {
            self.gap = Some(expired(length(&(self.begin..oldest))));
            self.begin = oldest;
        }
    }

    /// For going on behind an event.
    fn token(&mut self, entry: &Entry) -> Bytes {
        let limited = self.filter.is_limited();
        let Some(marks) = &self.marks else {
            let event = entry.payload.get(..EventId::LEN).unwrap_or_default();
            return self.tokens.token(entry.seq, event, limited).into();
        };
        let known = |(from, mark): &(Seq, Mark)| (*from..mark.until).contains(&entry.seq);
        if !self.mark.as_ref().is_some_and(known) {
            self.mark = Some((entry.seq, marks.mark(entry.seq, entry.time)));
        }
        let mark = self.mark.as_ref().map_or(&b""[..], |(_, mark)| &mark.bytes);
        self.tokens.token(entry.seq, mark, limited).into()
    }

    /// The answer: history, the mark where it ends, then what happens.
    pub(super) fn replies(self) -> impl Stream<Item = Result<WatchReply, Status>> + Send {
        let (tail, slow) = (self.tail.clone(), self.filter.takes_time());
        let replies = Replies {
            stopped: self.tail.stopped(),
            watch: self,
            phase: Phase::Find,
            ready: VecDeque::new(),
        };
        let batches = futures::stream::unfold(Some(replies), |replies| async move {
            let mut replies = replies?;
            match replies.next().await {
                Ok(true) => Some((Ok(std::mem::take(&mut replies.ready)), Some(replies))),
                Ok(false) => None,
                Err(status) => Some((Err(status), None)),
            }
        });
        let batches = match slow {
            true => tail.sieve().strain(batches).left_stream(),
            false => batches.right_stream(),
        };
        batches.flat_map(|batch| {
            let replies = match batch {
                Ok(replies) => replies.into_iter().map(Ok).collect(),
                Err(status) => VecDeque::from([Err(status)]),
            };
            futures::stream::iter(replies)
        })
    }
}

fn next_seq(log: &Arc<dyn View>) -> Seq {
    log.committed().next()
}

fn expired(missed: u64) -> Gap {
    Gap {
        missed,
        reason: "records expired from the journal before they were read".to_string(),
    }
}

/// How far an answer has come.
enum Phase {
    /// The last events are to be found, if only those are wanted.
    Find,
    /// Reading what was there, up to `Watch::end`; this many matching events are skipped first.
    History {
        reader: Reader,
        skip: u64,
    },
    /// At the live end.
    Live {
        place: Place,
        end: watch::Receiver<Seq>,
    },
    Over,
}

struct Replies {
    watch: Watch,
    phase: Phase,
    ready: VecDeque<WatchReply>,
    stopped: watch::Receiver<bool>,
}

impl Replies {
    /// Fills `ready` with at least one reply. False: there are no more.
    async fn next(&mut self) -> Result<bool, Status> {
        if let Some(gap) = self.watch.gap.take() {
            self.push_gap(gap);
        }
        while self.ready.is_empty() {
            if *self.stopped.borrow() {
                return Err(Status::unavailable("the relay is stopping"));
            }
            let phase = std::mem::replace(&mut self.phase, Phase::Over);
            self.phase = match phase {
                Phase::Find => self.find().await?,
                Phase::History { reader, skip } => self.history(reader, skip).await?,
                Phase::Live { place, end } => self.live(place, end).await?,
                Phase::Over => return Ok(false),
            };
            self.watch.memory.settle(&self.watch.filter);
        }
        Ok(true)
    }

    fn push(&mut self, is: Is) {
        self.ready.push_back(WatchReply { is: Some(is) });
    }

    /// Tells of a gap; of how much is missing only to those who may know how much there is.
    fn push_gap(&mut self, mut gap: Gap) {
        if self.watch.filter.is_limited() && gap.missed > 0 {
            gap.missed = 0;
            gap.reason
                .push_str(" (of all namespaces; how many of yours are among them is not known)");
        }
        self.push(Is::Gap(gap));
    }

    /// Tells of records that could not be read.
    fn push_losses(&mut self, block: &Block) {
        if block.expired > 0 {
            self.push_gap(expired(block.expired));
        }
        if block.corrupt > 0 {
            let reason = "records are damaged on disk".to_string();
            let missed = block.corrupt;
            self.push_gap(Gap { missed, reason });
        }
    }

    /// Goes back from the end until there are enough matching events, each stretch read once.
    async fn find(&mut self) -> Result<Phase, Status> {
        let watch = &self.watch;
        let (mut start, mut skip) = (watch.begin, 0);
        if watch.tail_events > 0 {
            let (mut stop, mut step, mut found) = (watch.end, STEP, 0);
            start = watch.end;
            while found < watch.tail_events && stop > watch.begin {
                start = Seq(stop.0.saturating_sub(step)).max(watch.begin);
                found += self.count(Reader::new(&watch.tail, start), stop).await?;
                (stop, step) = (start, step * 2);
            }
            skip = found.saturating_sub(watch.tail_events);
        }
        Ok(Phase::History {
            reader: Reader::new(&watch.tail, start),
            skip,
        })
    }

    /// How many events before `stop` match.
    async fn count(&self, mut reader: Reader, stop: Seq) -> Result<u64, Status> {
        let mut count = 0;
        while reader.position < stop {
            if *self.stopped.borrow() {
                return Err(Status::unavailable("the relay is stopping"));
            }
            let part = reader.next().await?;
            let wanted = |entry: &&Entry| entry.seq < stop && self.event(entry).is_some();
            count += part.entries().iter().filter(wanted).count() as u64; // usize is at most 64 bits
        }
        Ok(count)
    }

    /// One block of what was there.
    async fn history(&mut self, mut reader: Reader, mut skip: u64) -> Result<Phase, Status> {
        if reader.position >= self.watch.end {
            return Ok(self.end_of_history(reader));
        }
        let part = reader.next().await?;
        self.push_losses(part.block());
        for entry in part.entries() {
            if !self.watch.follow && (entry.seq >= self.watch.end || entry.time > self.watch.until)
            {
                return Ok(Phase::Over);
            }
            if let Some(event) = self.event(entry) {
                if skip > 0 {
                    skip -= 1;
                } else if self.send(entry, event) {
                    return Ok(Phase::Over);
                }
            }
        }
        Ok(Phase::History { reader, skip })
    }

    /// What follows the last record of the past.
    fn end_of_history(&mut self, reader: Reader) -> Phase {
        if !self.watch.follow {
            return Phase::Over;
        }
        let committed = next_seq(self.watch.tail.log());
        if reader.position < committed {
            // Reading took a while: what was journaled meanwhile is the past, too, and nobody's fault.
            self.watch.end = committed;
            return Phase::History { reader, skip: 0 };
        }
        self.push(Is::Live(true));
        let end = self.watch.tail.end(Lane::Records);
        let place = Place::new(&self.watch.tail, Lane::Records, Some(reader.position));
        Phase::Live { place, end }
    }

    /// One block of what happens.
    async fn live(
        &mut self,
        mut place: Place,
        mut end: watch::Receiver<Seq>,
    ) -> Result<Phase, Status> {
        end.borrow_and_update(); // before looking: what comes after the look wakes the wait
        let over = match self.watch.tail.records(place.position) {
            Found::Block(block) => {
                place.caught_up();
                let over = self.take(&mut place, &block.content, block.next);
                // What a filter leaves out takes time, too: others get theirs in between.
                tokio::task::yield_now().await;
                over
            }
            Found::Nothing(_) if self.watch.until < now() => true,
            Found::Nothing(at) => {
                place.caught_up();
                place.position = at;
                let left = Duration::from_nanos(self.watch.until - now().min(self.watch.until));
                tokio::select! {
                    _ = end.changed() => {}
                    _ = self.stopped.changed() => {}
                    () = tokio::time::sleep(left), if self.watch.until != u64::MAX => {}
                }
                false
            }
            Found::TooOld if place.is_expired() && !self.watch.complete => {
                self.jump(&mut place, EXPIRED);
                false
            }
            Found::TooOld => {
                let position = place.position;
                let stretch = place.read_past(Tail::past_records).await;
                let stretch = stretch.map_err(unreadable)?;
                let block = &stretch.content;
                if block.next <= position {
                    // The pump is ahead of what can be read: it cannot be, but must not spin if it is.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                self.push_losses(block);
                self.take(&mut place, &block.entries, block.next)
            }
        };
        Ok(if over {
            Phase::Over
        } else {
            Phase::Live { place, end }
        })
    }

    /// Sends what of a block is new and matches, or jumps if it is too old. True: that was the last event.
    fn take(&mut self, place: &mut Place, entries: &[Entry], next: Seq) -> bool {
        let new = entries.partition_point(|entry| entry.seq < place.position.max(place.from));
        let first = entries[new..]
            .iter()
            .find(|entry| self.watch.filter.wants(entry.kind));
        if first.is_some_and(|entry| !self.watch.complete && place.is_late(entry.time)) {
            let why = place.lateness();
            self.jump(place, &why);
            return false;
        }
        for entry in &entries[new..] {
            if entry.time > self.watch.until {
                return true;
            }
            if let Some(event) = self.event(entry)
                && self.send(entry, event)
            {
                return true;
            }
        }
        place.pass_records(entries, next);
        false
    }

    fn jump(&mut self, place: &mut Place, why: &str) {
        let counts = place.jump();
        let missed = missed(&self.watch, counts);
        if missed > 0 {
            let reason = format!("{why}; events of the kinds asked for, before the filter");
            self.push_gap(Gap { missed, reason });
        }
    }

    /// The event of a record, if it is in the range and the filter lets it pass.
    fn event(&self, entry: &Entry) -> Option<Event> {
        if entry.time < self.watch.since
            || entry.time > self.watch.until
            || !self.watch.filter.wants(entry.kind)
        {
            return None;
        }
        let event = Event::from_journal(entry.kind, entry.payload.clone()).ok()?;
        self.watch.filter.matches(&event).then_some(event)
    }

    /// True: that was the last one.
    fn send(&mut self, entry: &Entry, event: Event) -> bool {
        self.watch.tail.count_sent(event.kind, 1);
        let resume = self.watch.token(entry);
        self.push(Is::Event(WatchedEvent {
            kind: link::EventKind::from(event.kind).into(),
            id: event.id.to_bytes().to_vec().into(),
            payload: event.payload,
            resume,
            // Where in the journal it lies says how much else there is.
            sequence: if self.watch.filter.is_limited() {
                0
            } else {
                entry.seq.0
            },
        }));
        self.watch.left -= 1;
        self.watch.left == 0
    }
}

/// Counts what a jump missed of the kinds that were asked for.
fn missed(watch: &Watch, counts: Counts) -> u64 {
    let of = |kind: &Kind| counts[kind_index(*kind)];
    let kinds = watch.filter.kinds();
    kinds
        .iter()
        .for_each(|kind| watch.tail.count_missed(*kind, of(kind)));
    kinds.iter().map(of).sum()
}

/// Reads history off the threads that serve everybody, together with who reads there, too.
struct Reader {
    tail: Tail,
    position: Seq,
    /// The row of stretches that it is in.
    row: Option<Arc<Onward>>,
    behind: Behind,
}

/// What a reader has not seen of a stretch.
struct Part {
    stretch: Arc<Stretch<Block>>,
    from: usize,
}

impl Part {
    fn block(&self) -> &Block {
        &self.stretch.content
    }

    fn entries(&self) -> &[Entry] {
        &self.block().entries[self.from..]
    }
}

impl Reader {
    fn new(tail: &Tail, position: Seq) -> Reader {
        Reader {
            tail: tail.clone(),
            position,
            row: None,
            behind: tail.behind(),
        }
    }

    async fn next(&mut self) -> Result<Part, Status> {
        let (log, row, readers) = (&**self.tail.log(), self.row.take(), self.behind.readers());
        let past = self.tail.past_records();
        let read = past.read(log, self.position, row.as_deref(), readers);
        let stretch = read.await.map_err(unreadable)?;
        if stretch.next <= self.position {
            return Err(Status::data_loss(format!(
                "the log ends at {}",
                self.position.0
            )));
        }
        let entries = &stretch.content.entries;
        let from = entries.partition_point(|entry| entry.seq < self.position);
        self.position = stretch.next;
        self.row = Some(Arc::clone(&stretch.onward));
        Ok(Part { stretch, from })
    }
}

fn now() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
