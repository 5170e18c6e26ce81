//! Events in the journal by their ids.
//!
//! The journal has no index by id. But every segment begins with the received ranges of all events before it, so the segment
//! that brought an event is found by halving, and read: once for all ids that it brought. Where that fails (a damaged head, a
//! stream that was forgotten) the whole journal is read, once for all that are left.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use journal::{Block, Entry, Journal, Seq};
use proto::operate::Loss;
use proto::{Event, EventId, Kind, feeder};

use crate::received::Received;

/// Bytes that are read at a time.
const READ: usize = 1 << 20;
/// Messages about losses that are gathered for one id,
const LOSSES: usize = 100;
/// and for all ids of one search.
const ALL_LOSSES: usize = 10_000;

/// An id, and whether the relay received it, as far as that is known.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub(super) id: EventId,
    pub(super) received: Option<bool>,
}

/// What the journal says of an id.
#[derive(Default)]
pub(super) struct Found {
    pub(super) entry: Option<Entry>,
    /// It was brought by a segment in which these cannot be read; where it was not received, these cannot be read in all.
    pub(super) damaged: Option<Range<u64>>,
    /// What covers it, looked for where it was not received.
    pub(super) losses: Vec<Loss>,
}

/// A search under way.
struct Search<'a, T> {
    journal: &'a Journal,
    wanted: &'a [Wanted],
    /// Those not found yet, by the bytes with which their records begin.
    open: HashMap<[u8; 16], usize>,
    losses: HashMap<usize, Vec<Loss>>,
    /// Segments with damage, and what cannot be read in them.
    damage: BTreeMap<Seq, Range<u64>>,
    tell: T,
}

/// Nobody wants to know any more.
struct Over;

/// Tells what the journal says of every id, once, in the order in which they are found; `tell` says whether to go on. Ids are
/// wanted once each. Blocks the thread.
///
/// # Errors
/// The disk.
pub(super) fn search(
    journal: &Journal,
    wanted: &[Wanted],
    tell: impl FnMut(usize, Found) -> bool,
) -> Result<(), String> {
    let ids = wanted.iter().enumerate();
    let mut search = Search {
        journal,
        wanted,
        open: ids.map(|(n, wanted)| (wanted.id.to_bytes(), n)).collect(),
        losses: HashMap::new(),
        damage: BTreeMap::new(),
        tell,
    };
    match search.run()? {
        Ok(()) | Err(Over) => Ok(()),
    }
}

impl<T: FnMut(usize, Found) -> bool> Search<'_, T> {
    fn run(&mut self) -> Result<Result<(), Over>, String> {
        let segments = self.segments();
        for ((from, until), ids) in &segments {
            if let Err(over) = self.read(*from, *until, Some(ids))? {
                return Ok(Err(over));
            }
        }
        if self.unexplained(&segments) {
            let end = self.journal.committed().next();
            if let Err(over) = self.read(self.journal.first(), end, None)? {
                return Ok(Err(over));
            }
        }
        Ok(self.rest(&segments))
    }

    /// The segments that brought what was received, and what each brought.
    fn segments(&self) -> BTreeMap<(Seq, Seq), Vec<usize>> {
        let mut segments: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for (n, wanted) in self.wanted.iter().enumerate() {
            let segment =
                (wanted.received == Some(true)).then(|| segment_of(self.journal, wanted.id));
            if let Some(range) = segment.flatten() {
                segments.entry(range).or_default().push(n);
            }
        }
        segments
    }

    /// Whether some of those not found are in no segment that is damaged.
    fn unexplained(&self, segments: &BTreeMap<(Seq, Seq), Vec<usize>>) -> bool {
        let explained = segments
            .iter()
            .filter(|((from, _), _)| self.damage.contains_key(from));
        let explained: usize = explained
            .map(|(_, ids)| ids.iter().filter(|n| self.is_open(**n)).count())
            .sum();
        explained < self.open.len()
    }

    fn is_open(&self, n: usize) -> bool {
        self.open.contains_key(&self.wanted[n].id.to_bytes())
    }

    /// Reads a part of the journal: until these are found, or for all that are left, and for losses.
    fn read(
        &mut self,
        from: Seq,
        until: Seq,
        ids: Option<&[usize]>,
    ) -> Result<Result<(), Over>, String> {
        let mut reader = self.journal.reader(from);
        loop {
            let block = reader.next(READ).map_err(|error| error.to_string())?;
            for entry in &block.entries {
                if let Err(over) = self.entry(entry, ids.is_none()) {
                    return Ok(Err(over));
                }
            }
            self.note_damage(from, &block, until);
            let found = match ids {
                Some(ids) => !ids.iter().any(|n| self.is_open(*n)),
                None => self.open.is_empty(),
            };
            if found || block.is_empty() || block.next >= until {
                return Ok(Ok(()));
            }
        }
    }

    fn entry(&mut self, entry: &Entry, with_losses: bool) -> Result<(), Over> {
        let id = entry.payload.first_chunk::<16>();
        if let Some(n) = id.and_then(|id| self.open.remove(id)) {
            let losses = self.losses.remove(&n).unwrap_or_default();
            return self.tell(
                n,
                Found {
                    entry: Some(entry.clone()),
                    losses,
                    damaged: None,
                },
            );
        }
        if with_losses {
            self.loss(entry);
        }
        Ok(())
    }

    /// Notes which of the ids left a message about losses covers.
    fn loss(&mut self, entry: &Entry) {
        let Some((lost, told)) = lost(entry) else {
            return;
        };
        let most = (ALL_LOSSES / self.wanted.len().max(1)).clamp(1, LOSSES);
        for n in self.open.values() {
            let id = self.wanted[*n].id;
            if lost.stream[..] == id.stream.0 && (lost.first..=lost.last).contains(&id.sequence) {
                let losses = self.losses.entry(*n).or_default();
                if losses.len() < most {
                    losses.push(told.clone());
                }
            }
        }
    }

    fn note_damage(&mut self, segment: Seq, block: &Block, until: Seq) {
        if block.corrupt == 0 {
            return;
        }
        for skipped in block.skipped.iter().filter(|skipped| skipped.start < until) {
            let damage = self
                .damage
                .entry(segment)
                .or_insert(skipped.start.0..skipped.end.0);
            damage.end = damage.end.max(skipped.end.0);
        }
    }

    /// Those that were not found.
    fn rest(&mut self, segments: &BTreeMap<(Seq, Seq), Vec<usize>>) -> Result<(), Over> {
        let mut damaged = HashMap::new();
        for ((from, _), ids) in segments {
            let damage = self.damage.get(from);
            damaged.extend(ids.iter().filter_map(|n| Some((*n, damage?.clone()))));
        }
        // Of what was not received nobody knows where it would be.
        let all = self
            .damage
            .values()
            .cloned()
            .reduce(|one, other| one.start.min(other.start)..one.end.max(other.end));
        let mut rest: Vec<usize> = self.open.drain().map(|(_, n)| n).collect();
        rest.sort_unstable();
        for n in rest {
            let losses = self.losses.remove(&n).unwrap_or_default();
            let damaged = match self.wanted[n].received {
                Some(true) => damaged.remove(&n),
                _ => all.clone(),
            };
            self.tell(
                n,
                Found {
                    entry: None,
                    damaged,
                    losses,
                },
            )?;
        }
        Ok(())
    }

    fn tell(&mut self, n: usize, found: Found) -> Result<(), Over> {
        (self.tell)(n, found).then_some(()).ok_or(Over)
    }
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

/// The event of a record.
pub(super) fn event(entry: &Entry) -> Option<Event> {
    Event::from_journal(entry.kind, entry.payload.clone()).ok()
}

/// The loss that a message tells of.
fn lost(entry: &Entry) -> Option<(feeder::Lost, Loss)> {
    if entry.kind != Kind::Message as u8 {
        return None;
    }
    let payload = event(entry)?.payload;
    let message = <feeder::Message as prost::Message>::decode(payload).ok()?;
    let lost = message.lost?;
    let told = Loss {
        sequence: entry.seq.0,
        r#where: lost.r#where.clone(),
        count: lost.count,
        reason: lost.reason.clone(),
    };
    Some((lost, told))
}
