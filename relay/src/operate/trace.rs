//! Where an event is: in the spool of its sensor, in the journal, and at every sink.
//!
//! The journal has no index by id. But every segment begins with the received ranges of all events before it, so the segment
//! that brought an event is found by halving, and read. Where that fails (a damaged head, a stream that was forgotten) the
//! whole journal is read.

use journal::{Entry, Journal, Seq};
use proto::operate::{Journaled, Loss, Spooled, TraceReply};
use proto::{Event, EventId, Kind, feeder, link};
use tokio::task::spawn_blocking;
use tonic::Status;

use crate::fanout::{Fanout, Sought};
use crate::ingest::Sensors;
use crate::log::Store;
use crate::received::Received;

/// Bytes that are read at a time.
const READ: usize = 1 << 20;
/// Messages about losses that an answer holds.
const LOSSES: usize = 100;

/// Why events are not traced through a log that is no journal.
const NO_JOURNAL: &str = "with the log in Kafka events are not traced: their places are spread over partitions that other relays deliver; `cresset logs --since` shows the event, and the destination knows it by its id";

/// Finds events; a cheap handle.
#[derive(Clone)]
pub(crate) struct Tracer {
    log: Store,
    fanout: Fanout,
    sensors: Sensors,
}

/// What the journal says.
#[derive(Default)]
struct Found {
    entry: Option<Entry>,
    losses: Vec<Loss>,
}

impl Tracer {
    pub(crate) fn new(log: Store, fanout: Fanout, sensors: Sensors) -> Self {
        Self {
            log,
            fanout,
            sensors,
        }
    }

    /// All that is known of an event.
    pub(crate) async fn trace(&self, id: EventId) -> Result<TraceReply, Status> {
        let received = self.log.received().has(id);
        let Some(journal) = self.log.journal().cloned() else {
            return Err(Status::failed_precondition(NO_JOURNAL));
        };
        let looked = spawn_blocking(move || look(&journal, id, received)).await;
        let found = looked
            .map_err(|died| Status::internal(died.to_string()))?
            .map_err(Status::unavailable)?;
        let Found { entry, losses } = found;
        let known = received == Some(true) || entry.is_some();
        let note = match &entry {
            Some(_) => String::new(),
            None => self.note(id, received, &losses),
        };
        let sought = Sought {
            id,
            place: entry.as_ref().map(|entry| entry.seq.0),
            event: entry.as_ref().and_then(event),
        };
        let sinks = if known {
            self.fanout.trace(&sought).await
        } else {
            Vec::new()
        };
        let journal = entry.map(|entry| self.journaled(&entry, sought.event.as_ref()));
        Ok(TraceReply {
            id: id.to_bytes().to_vec().into(),
            received: known,
            journal,
            note,
            sinks,
            spool: self.spooled(id, known),
            losses,
        })
    }

    /// Why it is not in the journal.
    fn note(&self, id: EventId, received: Option<bool>, losses: &[Loss]) -> String {
        let stream = id.stream;
        match received {
            Some(true) => {
                format!(
                    "it was acknowledged and has left the journal by retention, which keeps events from {} on",
                    self.log.view().first()
                )
            }
            _ if !losses.is_empty() => {
                "it never came here: it is among the losses that its sensor counted".to_owned()
            }
            Some(false) => format!(
                "it was not acknowledged here: of its stream {stream} this relay has events up to {}",
                self.log.received().newest(stream).unwrap_or_default()
            ),
            None => format!("this relay knows nothing of its stream {stream}"),
        }
    }

    fn journaled(&self, entry: &Entry, event: Option<&Event>) -> Journaled {
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
            payload: event.map(|event| event.payload.clone()).unwrap_or_default(),
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

fn event(entry: &Entry) -> Option<Event> {
    Event::from_journal(entry.kind, entry.payload.clone()).ok()
}

/// Reads the journal for an event. Blocks the thread.
fn look(journal: &Journal, id: EventId, received: Option<bool>) -> Result<Found, String> {
    if received == Some(true)
        && let Some((from, until)) = segment_of(journal, id)
    {
        let found = read(journal, id, from, until, true)?;
        if found.entry.is_some() {
            return Ok(found);
        }
    }
    // An event that was received and is not in its segment may stand elsewhere only if heads are damaged.
    read(
        journal,
        id,
        journal.first(),
        journal.committed().next(),
        false,
    )
}

/// The numbers that the segment holds which brought the event.
fn segment_of(journal: &Journal, id: EventId) -> Option<(Seq, Seq)> {
    let segments = journal.segments();
    // The fold at the head of a segment is of what came before it.
    let has = |base: &Seq| {
        let saved = journal.checkpoint(*base).ok().flatten();
        saved.is_some_and(|saved| Received::had(&saved, id) == Ok(Some(true)))
    };
    let after = segments.partition_point(|base| !has(base));
    let from = *segments.get(after.checked_sub(1)?)?;
    let until = segments.get(after).copied();
    Some((from, until.unwrap_or_else(|| journal.committed().next())))
}

fn read(
    journal: &Journal,
    id: EventId,
    from: Seq,
    until: Seq,
    only_event: bool,
) -> Result<Found, String> {
    let (mut reader, wanted) = (journal.reader(from), id.to_bytes());
    let mut found = Found::default();
    loop {
        let block = reader.next(READ).map_err(|error| error.to_string())?;
        for entry in &block.entries {
            if entry.payload.starts_with(&wanted) {
                found.entry = Some(entry.clone());
                return Ok(found);
            }
            if !only_event && found.losses.len() < LOSSES {
                found.losses.extend(loss(entry, id));
            }
        }
        if block.is_empty() || block.next >= until {
            return Ok(found);
        }
    }
}

/// The loss that a message tells of, if it covers the event.
fn loss(entry: &Entry, id: EventId) -> Option<Loss> {
    if entry.kind != Kind::Message as u8 {
        return None;
    }
    let payload = event(entry)?.payload;
    let message = <feeder::Message as prost::Message>::decode(payload).ok()?;
    let lost = message.lost?;
    let covers = lost.stream[..] == id.stream.0 && (lost.first..=lost.last).contains(&id.sequence);
    covers.then_some(Loss {
        sequence: entry.seq.0,
        r#where: lost.r#where,
        count: lost.count,
        reason: lost.reason,
    })
}
