//! Where events are: in the spool of their sensor, in the journal ([`super::search`]), and at every sink.

use std::collections::HashSet;

use journal::{Entry, Journal};
use proto::operate::{AtSink, Journaled, Loss, Spooled, TraceReply};
use proto::{Event, EventId, link};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tonic::Status;

use super::search::{Found, Wanted, event, search};
use crate::fanout::{Fanout, Look, Place, Sought};
use crate::ingest::Sensors;
use crate::log::Store;

/// Ids that one call may ask for.
pub(super) const MOST: usize = 10_000;
/// Answers that wait for whoever asked.
const WAITING: usize = 16;

/// Why events are not traced through a log that is no journal.
const NO_JOURNAL: &str = "with the log in Kafka events are not traced: their places are spread over partitions that other relays deliver; `cresset logs --since` shows the event, and the destination knows it by its id";

/// An answer, or why there are no more.
pub(super) type Answer = Result<TraceReply, Status>;

/// Finds events; a cheap handle.
#[derive(Clone)]
pub(crate) struct Tracer {
    log: Store,
    fanout: Fanout,
    sensors: Sensors,
}

impl Tracer {
    pub(crate) fn new(log: Store, fanout: Fanout, sensors: Sensors) -> Self {
        Self {
            log,
            fanout,
            sensors,
        }
    }

    /// All that is known of an event; destinations are asked for their part.
    pub(super) async fn trace(&self, id: EventId) -> Answer {
        let mut answers = self.begin(vec![id], true)?;
        let answer = answers.recv().await;
        answer.unwrap_or_else(|| Err(Status::internal("the search ended without an answer")))
    }

    /// All that this relay knows of many events but for the events themselves, in the order in which they are found.
    pub(super) fn trace_many(&self, ids: Vec<EventId>) -> Result<mpsc::Receiver<Answer>, Status> {
        if ids.len() > MOST {
            return Err(Status::invalid_argument(format!(
                "{} ids are too many for one call; ask for {MOST} at a time",
                ids.len()
            )));
        }
        let mut seen = HashSet::new();
        let once = ids.into_iter().filter(|id| seen.insert(*id)).collect();
        self.begin(once, false)
    }

    fn begin(&self, ids: Vec<EventId>, ask: bool) -> Result<mpsc::Receiver<Answer>, Status> {
        let Some(journal) = self.log.journal().cloned() else {
            return Err(Status::failed_precondition(NO_JOURNAL));
        };
        let (tell, told) = mpsc::channel(WAITING);
        let tracer = self.clone();
        // It reads the disk, and asks destinations. It ends early once nobody takes answers any more.
        spawn_blocking(move || {
            let looks = tracer.fanout.look(&ids.iter().copied().collect());
            let received = tracer.log.received();
            let wanted = ids.into_iter().map(|id| Wanted {
                id,
                received: received.has(id),
            });
            let wanted: Vec<Wanted> = wanted.collect();
            let searched = search(&journal, &wanted, |n, found| {
                let answer = tracer.answer(&looks, wanted[n], found, ask);
                tell.blocking_send(Ok(answer)).is_ok()
            });
            if let Err(why) = searched {
                // Whoever asked may have left.
                let _ = tell.blocking_send(Err(Status::unavailable(why)));
            }
        });
        Ok(told)
    }

    fn answer(&self, looks: &[Look], wanted: Wanted, found: Found, ask: bool) -> TraceReply {
        let Wanted { id, received } = wanted;
        let known = received == Some(true) || found.entry.is_some();
        let damage = self.among_damaged(wanted, &found);
        let note = match &found.entry {
            Some(_) => String::new(),
            None => self.note(wanted, &found),
        };
        let sought = Sought {
            id,
            place: self.place(&found),
            journaled: found.entry.as_ref().map_or(0, |entry| entry.time),
            event: found.entry.as_ref().and_then(event),
            ask,
        };
        let sinks: Vec<AtSink> = match known {
            true => looks.iter().map(|look| look.of(&sought)).collect(),
            false => Vec::new(),
        };
        let shown = sought.event.as_ref().filter(|_| ask);
        TraceReply {
            id: id.to_bytes().to_vec().into(),
            received: known,
            journal: found
                .entry
                .map(|entry| self.journaled(&entry, sought.event.as_ref(), shown)),
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
                among.end.saturating_sub(1)
            ),
        })
    }

    fn place(&self, found: &Found) -> Place {
        match (&found.entry, &found.damaged) {
            (Some(entry), _) => Place::At(entry.seq.0),
            (None, Some(among)) => Place::Damaged(among.clone()),
            (None, None) => Place::Gone(1..self.log.view().first().0),
        }
    }

    /// Why it is not in the journal.
    fn note(&self, wanted: Wanted, found: &Found) -> String {
        let stream = wanted.id.stream;
        match (wanted.received, &found.damaged) {
            (Some(true), Some(among)) => format!(
                "it was acknowledged and cannot be read any more: its segment is damaged from event {} to {}; `cresset journal verify` shows where",
                among.start,
                among.end.saturating_sub(1)
            ),
            (Some(true), None) => format!(
                "it was acknowledged and has left the journal by retention, which keeps events from {} on",
                self.log.view().first()
            ),
            _ if !found.losses.is_empty() => {
                "it never came here: it is among the losses that its sensor counted".to_owned()
            }
            (Some(false), _) => format!(
                "it was not acknowledged here: of its stream {stream} this relay has events up to {}",
                self.log.received().newest(stream).unwrap_or_default()
            ),
            (None, _) => format!("this relay knows nothing of its stream {stream}"),
        }
    }

    fn journaled(&self, entry: &Entry, event: Option<&Event>, shown: Option<&Event>) -> Journaled {
        let segments = self
            .log
            .journal()
            .map(Journal::segments)
            .unwrap_or_default();
        let segment = segments.iter().rev().find(|base| **base <= entry.seq);
        let kind = event.map(|event| link::EventKind::from(event.kind));
        Journaled {
            sequence: entry.seq.0,
            segment: segment.map_or(0, |base| base.0),
            time_ns: i64::try_from(entry.time).unwrap_or(i64::MAX),
            kind: kind.unwrap_or_default().into(),
            payload: shown.map(|event| event.payload.clone()).unwrap_or_default(),
        }
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
