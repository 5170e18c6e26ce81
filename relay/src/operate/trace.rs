//! Where events are: in the spool of their sensor, in the log ([`super::search`]), and at every sink.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::vec;

use futures::{Stream, StreamExt as _};
use journal::{Entry, Journal};
use proto::operate::{AtSink, InTopic, Journaled, Loss, Spooled, TraceReply};
use proto::{Event, EventId, StreamId, link};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::spawn_blocking;
use tonic::Status;

use super::heads::{Heads, Past};
use super::search::{Found, Wanted, event, search, search_shared};
use crate::fanout::{Fanout, Look, Place, Sought};
use crate::ingest::Sensors;
use crate::log::{Shared, Store};

/// Ids that one call may ask for.
pub(super) const MOST: usize = 10_000;
/// Calls for many events at one time. Their answers, some kilobytes each at most, are in memory until they are read.
const CALLS: usize = 4;
/// Searches at one time of a log that relays share: each reads on for half a minute and more.
const SEARCHES: usize = 4;
/// Answers that are handed on together. Each in a frame of its own would be too many small ones for a client that reads late:
/// h2 ends a connection on which some thousand of them wait.
const PIECE: usize = 100;

/// An answer, or why there are no more.
pub(super) type Answer = Result<TraceReply, Status>;

/// Finds events; a cheap handle.
#[derive(Clone)]
pub(crate) struct Tracer {
    log: Store,
    fanout: Fanout,
    sensors: Sensors,
    heads: Heads,
    calls: Arc<Semaphore>,
    searches: Arc<Semaphore>,
}

/// Answers as they are found. No thread waits for whoever reads them.
pub(super) struct Answers {
    told: mpsc::UnboundedReceiver<Vec<Answer>>,
    piece: vec::IntoIter<Answer>,
    _call: Option<Arc<OwnedSemaphorePermit>>,
}

impl Stream for Answers {
    type Item = Answer;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Answer>> {
        loop {
            if let Some(answer) = self.piece.next() {
                return Poll::Ready(Some(answer));
            }
            match ready!(self.told.poll_recv(context)) {
                Some(piece) => self.piece = piece.into_iter(),
                None => return Poll::Ready(None),
            }
        }
    }
}

/// What is looked at once for all events of a call.
struct Seen {
    looks: Vec<Look>,
    past: OnceCell<Past>,
}

impl Tracer {
    pub(crate) fn new(log: Store, fanout: Fanout, sensors: Sensors, heads: Heads) -> Self {
        Self {
            heads,
            log,
            fanout,
            sensors,
            calls: Arc::new(Semaphore::new(CALLS)),
            searches: Arc::new(Semaphore::new(SEARCHES)),
        }
    }

    /// All that is known of an event; destinations are asked for their part.
    pub(super) async fn trace(&self, id: EventId) -> Answer {
        let mut answers = self.begin(vec![id], true, None)?;
        let answer = answers.next().await;
        answer.unwrap_or_else(|| Err(Status::internal("the search ended without an answer")))
    }

    /// All that this relay knows of many events but for the events themselves, in the order in which they are found.
    pub(super) fn trace_many(&self, ids: Vec<EventId>) -> Result<Answers, Status> {
        if ids.len() > MOST {
            return Err(Status::invalid_argument(format!(
                "{} ids are too many for one call; ask for {MOST} at a time",
                ids.len()
            )));
        }
        let call = self.calls.clone().try_acquire_owned();
        let call = call.map_err(|_| {
            Status::resource_exhausted(format!(
                "{CALLS} calls for many events are under way, or their answers are not read yet; ask again when one of them is over"
            ))
        })?;
        let mut seen = HashSet::new();
        let once = ids.into_iter().filter(|id| seen.insert(*id)).collect();
        self.begin(once, false, Some(Arc::new(call)))
    }

    fn begin(
        &self,
        ids: Vec<EventId>,
        ask: bool,
        call: Option<Arc<OwnedSemaphorePermit>>,
    ) -> Result<Answers, Status> {
        let log = self.searched()?;
        let (tell, told) = mpsc::unbounded_channel();
        let (tracer, searching) = (self.clone(), call.clone());
        // It reads the disk, and asks destinations. It ends early once nobody takes answers any more.
        spawn_blocking(move || {
            let seen = Seen {
                looks: tracer.fanout.look(&ids.iter().copied().collect()),
                past: OnceCell::new(),
            };
            let received = tracer.log.received();
            let wanted = ids.into_iter().map(|id| Wanted {
                id,
                received: received.has(id),
            });
            let wanted: Vec<Wanted> = wanted.collect();
            let mut piece = Vec::new();
            let answer = |n: usize, found| {
                piece.push(Ok(tracer.answer(&seen, wanted[n], found, ask)));
                piece.len() < PIECE || tell.send(std::mem::take(&mut piece)).is_ok()
            };
            let searched = match log {
                Searched::Journal(journal) => search(&journal, &wanted, answer),
                Searched::Shared(log, _place) => {
                    let partitions = tracer.partitions(&wanted);
                    let heard = || !tell.is_closed();
                    search_shared(&*log, partitions.as_deref(), &wanted, heard, answer)
                }
            };
            piece.extend(searched.err().map(|why| Err(Status::unavailable(why))));
            // Whoever asked may have left.
            let _ = tell.send(piece);
            drop(searching);
        });
        Ok(Answers {
            told,
            piece: Vec::new().into_iter(),
            _call: call,
        })
    }

    fn searched(&self) -> Result<Searched, Status> {
        if let Some(journal) = self.log.journal().cloned() {
            return Ok(Searched::Journal(journal));
        }
        let Some(shared) = self.log.log().shared() else {
            return Err(Status::unimplemented(
                "this log cannot be searched for events",
            ));
        };
        let place = self.searches.clone().try_acquire_owned();
        let place = place.map_err(|_| {
            Status::resource_exhausted(format!(
                "{SEARCHES} searches of the log are under way; ask again when one of them is over"
            ))
        })?;
        Ok(Searched::Shared(shared, place))
    }

    /// Where all of them should be; none: the sensors of some are not known here.
    fn partitions(&self, wanted: &[Wanted]) -> Option<Vec<usize>> {
        let streams: HashSet<StreamId> = wanted.iter().map(|wanted| wanted.id.stream).collect();
        let partition = |stream| {
            let sender = self.sensors.sender(stream)?;
            Some(self.log.log().lane(&sender.sensor))
        };
        streams.into_iter().map(partition).collect()
    }

    fn answer(&self, seen: &Seen, wanted: Wanted, found: Found, ask: bool) -> TraceReply {
        let Wanted { id, received } = wanted;
        let refused = seen.looks.iter().any(|look| look.has_letter(id));
        let known = received == Some(true) || found.entry.is_some() || refused;
        let damage = self.among_damaged(wanted, &found);
        let place = self.place(seen, wanted, &found);
        let note = match &found.entry {
            Some(_) => String::new(),
            None => self.note(wanted, &found, &place),
        };
        let sought = Sought {
            id,
            place,
            journaled: found.entry.as_ref().map_or(0, |entry| entry.time),
            event: found.entry.as_ref().and_then(event),
            ask,
        };
        let sinks: Vec<AtSink> = match known {
            true => seen.looks.iter().map(|look| look.of(&sought)).collect(),
            false => Vec::new(),
        };
        TraceReply {
            id: id.to_bytes().to_vec().into(),
            received: known,
            journal: self.kept(&found, sought.event.as_ref(), ask),
            note,
            sinks,
            spool: self.spooled(id, known),
            losses: found.losses.into_iter().chain(damage).collect(),
        }
    }

    /// What this relay knew of a stream is read from the journal when it starts, so a damaged event of the newest segment is
    /// one that it does not know, while it knows later ones.
    fn among_damaged(&self, wanted: Wanted, found: &Found) -> Option<Loss> {
        let Wanted { id, received } = wanted;
        let newest = self.log.received().newest(id.stream).unwrap_or_default();
        let may_be = received == Some(false) && found.entry.is_none() && id.sequence < newest;
        let among = found.damaged.as_ref().filter(|_| may_be)?;
        Some(Loss {
            sequence: 0,
            r#where: "journal damage".to_owned(),
            count: among.end.saturating_sub(among.start),
            reason: format!(
                "events {} to {} cannot be read any more, and it may be among them; `cresset journal verify` shows where",
                among.start,
                last(among)
            ),
        })
    }

    fn place(&self, seen: &Seen, wanted: Wanted, found: &Found) -> Place {
        match (&found.entry, &found.within, &found.damaged) {
            (Some(entry), Some(within), _) => Place::In {
                partition: within.partition,
                number: entry.seq.0,
                mine: within.relay == self.log.relay_id(),
            },
            (Some(entry), None, _) => Place::At(entry.seq.0),
            (None, _, Some(among)) => Place::Damaged(among.clone()),
            (None, _, None) if self.log.journal().is_none() => Place::Nowhere,
            (None, _, None) => {
                let past = seen.past.get_or_init(|| self.heads.read());
                Place::Gone(past.place(wanted.id, self.log.view().first().0))
            }
        }
    }

    /// Why it is not in the log.
    fn note(&self, wanted: Wanted, found: &Found, place: &Place) -> String {
        let stream = wanted.id.stream;
        match (wanted.received, place) {
            (Some(true), Place::Damaged(among)) => format!(
                "it was acknowledged and cannot be read any more: its segment is damaged from event {} to {}; `cresset journal verify` shows where",
                among.start,
                last(among)
            ),
            _ if !found.losses.is_empty() => {
                "it never came here: it is among the losses that its sensor counted".to_owned()
            }
            _ if self.log.journal().is_none() => self.shared_note(wanted, found),
            (Some(true), Place::Gone(among)) => format!(
                "it was acknowledged, was one of events {} to {}, and has left the journal by retention, which keeps events from {} on",
                among.start,
                last(among),
                self.log.view().first()
            ),
            (Some(_), _) => format!(
                "it was not acknowledged here: of its stream {stream} this relay has events up to {}",
                self.log.received().newest(stream).unwrap_or_default()
            ),
            (None, _) => format!("this relay knows nothing of its stream {stream}"),
        }
    }

    /// The same of a log that relays share.
    fn shared_note(&self, wanted: Wanted, found: &Found) -> String {
        let place = self.log.log().place();
        match (found.since, wanted.received) {
            (Some(since), _) => format!(
                "the search was given up: what came to {place} since {} was looked at, and it is not among that",
                moment(since)
            ),
            (None, Some(true)) => {
                format!("it was acknowledged here and has left {place} by retention")
            }
            (None, _) => format!("it is not in {place}: no relay took it, or retention did"),
        }
    }

    fn kept(&self, found: &Found, event: Option<&Event>, ask: bool) -> Option<Journaled> {
        let entry = found.entry.as_ref()?;
        let kind = event.map(|event| link::EventKind::from(event.kind));
        let shown = event.filter(|_| ask);
        Some(Journaled {
            sequence: entry.seq.0,
            segment: self.segment(entry),
            time_ns: i64::try_from(entry.time).unwrap_or(i64::MAX),
            kind: kind.unwrap_or_default().into(),
            payload: shown.map(|event| event.payload.clone()).unwrap_or_default(),
            topic: found.within.as_ref().map(|within| InTopic {
                name: self.log.log().place(),
                partition: within.partition,
                offset: i64::try_from(entry.seq.0).unwrap_or(i64::MAX) - 1,
                relay: within.relay.clone(),
            }),
        })
    }

    /// The number that names the segment of the journal; 0: it is none.
    fn segment(&self, entry: &Entry) -> u64 {
        let segments = self.log.journal().map(Journal::segments);
        let segments = segments.unwrap_or_default();
        let segment = segments.iter().rev().find(|base| **base <= entry.seq);
        segment.map_or(0, |base| base.0)
    }

    fn spooled(&self, id: EventId, known: bool) -> Option<Spooled> {
        let sender = self.sensors.sender(id.stream)?;
        // What it spooled since it connected it did not announce.
        let held = id.sequence >= sender.spooled.start
            && (sender.connected || id.sequence < sender.spooled.end);
        Some(Spooled {
            sensor: sender.sensor,
            connected: sender.connected,
            in_spool: held && !known,
            first: sender.spooled.start,
            end: sender.spooled.end,
        })
    }
}

fn last(among: &Range<u64>) -> u64 {
    among.end.saturating_sub(1)
}

/// What a search goes through.
enum Searched {
    Journal(Journal),
    Shared(Arc<dyn Shared>, OwnedSemaphorePermit),
}

/// A time as people read it.
fn moment(unix_ns: u64) -> String {
    let time = jiff::Timestamp::from_nanosecond(i128::from(unix_ns)).unwrap_or_default();
    format!("{time:.0}")
}
