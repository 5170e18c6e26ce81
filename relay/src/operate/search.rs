//! Events in the journal by their ids.
//!
//! The journal has no index by id. But every segment begins with the received ranges of all events before it, so the segment
//! that brought an event is found by halving, and read: once for all ids that it brought. Where that fails (a damaged head, a
//! stream that was forgotten) the whole journal is read, once for all that are left.

mod open;
mod shared;

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use journal::{Block, Entry, Journal, Seq};
use proto::EventId;

pub(super) use self::open::{Found, Wanted, event};
pub(super) use self::shared::search as search_shared;

use self::open::Open;
use crate::received::Received;

/// Bytes that are read at a time.
const READ: usize = 1 << 20;
/// A search under way.
struct Search<'a, T> {
    journal: &'a Journal,
    open: Open<'a>,
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
    let mut search = Search {
        journal,
        open: Open::new(wanted),
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
        for (n, wanted) in self.open.wanted().iter().enumerate() {
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
            .map(|(_, ids)| ids.iter().filter(|n| self.open.has(**n)).count())
            .sum();
        explained < self.open.len()
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
                Some(ids) => !ids.iter().any(|n| self.open.has(*n)),
                None => self.open.is_empty(),
            };
            if found || block.is_empty() || block.next >= until {
                return Ok(Ok(()));
            }
        }
    }

    fn entry(&mut self, entry: &Entry, with_losses: bool) -> Result<(), Over> {
        if let Some((n, losses)) = self.open.take(entry) {
            let found = Found {
                entry: Some(entry.clone()),
                losses,
                ..Found::default()
            };
            return self.tell(n, found);
        }
        if with_losses {
            self.open.note_loss(entry, Some(entry.seq.0));
        }
        Ok(())
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
        for (n, losses) in self.open.rest() {
            let damaged = match self.open.wanted()[n].received {
                Some(true) => damaged.remove(&n),
                _ => all.clone(),
            };
            let found = Found {
                damaged,
                losses,
                ..Found::default()
            };
            self.tell(n, found)?;
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
