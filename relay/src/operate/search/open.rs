//! The ids of a search that were not found yet, and the losses that cover them.

use std::collections::HashMap;
use std::ops::Range;

use journal::Entry;
use proto::operate::Loss;
use proto::{Event, EventId, Kind, feeder};

/// Messages about losses that are gathered for one id,
const LOSSES: usize = 100;
/// and for all ids of one search.
const ALL_LOSSES: usize = 10_000;

/// An id, and whether the relay received it, as far as that is known.
#[derive(Clone, Copy)]
pub(in crate::operate) struct Wanted {
    pub(in crate::operate) id: EventId,
    pub(in crate::operate) received: Option<bool>,
}

/// What the log says of an id.
#[derive(Default)]
pub(in crate::operate) struct Found {
    pub(in crate::operate) entry: Option<Entry>,
    /// Where the entry is in a log that relays share.
    pub(in crate::operate) within: Option<InPartition>,
    /// It was brought by a segment in which these cannot be read; where it was not received, these cannot be read in all.
    pub(in crate::operate) damaged: Option<Range<u64>>,
    /// What covers it, looked for where it was not received.
    pub(in crate::operate) losses: Vec<Loss>,
    /// The search was given up: since then (unix nanoseconds) it is not there, before that nobody looked.
    pub(in crate::operate) since: Option<u64>,
}

/// A place among those of other relays.
#[derive(Clone)]
pub(in crate::operate) struct InPartition {
    pub(in crate::operate) partition: i32,
    /// Who took it.
    pub(in crate::operate) relay: String,
}

/// Those not found yet.
pub(super) struct Open<'a> {
    wanted: &'a [Wanted],
    /// By the bytes with which their records begin.
    ids: HashMap<[u8; 16], usize>,
    losses: HashMap<usize, Vec<Loss>>,
}

impl<'a> Open<'a> {
    pub(super) fn new(wanted: &'a [Wanted]) -> Self {
        let ids = wanted.iter().enumerate();
        Open {
            wanted,
            ids: ids.map(|(n, wanted)| (wanted.id.to_bytes(), n)).collect(),
            losses: HashMap::new(),
        }
    }

    pub(super) fn wanted(&self) -> &'a [Wanted] {
        self.wanted
    }

    pub(super) fn has(&self, n: usize) -> bool {
        self.ids.contains_key(&self.wanted[n].id.to_bytes())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// The one that this record is, with its losses; it is not open any more.
    pub(super) fn take(&mut self, entry: &Entry) -> Option<(usize, Vec<Loss>)> {
        let n = self.ids.remove(entry.payload.first_chunk::<16>()?)?;
        Some((n, self.losses.remove(&n).unwrap_or_default()))
    }

    /// Notes which of them a message about losses covers; its number is told where it says something by itself.
    pub(super) fn note_loss(&mut self, entry: &Entry, sequence: Option<u64>) {
        let Some(lost) = lost(entry) else {
            return;
        };
        let told = Loss {
            sequence: sequence.unwrap_or_default(),
            r#where: lost.r#where.clone(),
            count: lost.count,
            reason: lost.reason.clone(),
        };
        let most = (ALL_LOSSES / self.wanted.len().max(1)).clamp(1, LOSSES);
        for n in self.ids.values() {
            let id = self.wanted[*n].id;
            if lost.stream[..] == id.stream.0 && (lost.first..=lost.last).contains(&id.sequence) {
                let losses = self.losses.entry(*n).or_default();
                if losses.len() < most {
                    losses.push(told.clone());
                }
            }
        }
    }

    /// They are looked for again, and so are their losses.
    pub(super) fn forget_losses(&mut self) {
        self.losses.clear();
    }

    /// All that are left, in the order in which they are wanted.
    pub(super) fn rest(&mut self) -> Vec<(usize, Vec<Loss>)> {
        let mut rest: Vec<usize> = self.ids.drain().map(|(_, n)| n).collect();
        rest.sort_unstable();
        let rest = rest.into_iter();
        rest.map(|n| (n, self.losses.remove(&n).unwrap_or_default()))
            .collect()
    }
}

/// The event of a record.
pub(in crate::operate) fn event(entry: &Entry) -> Option<Event> {
    Event::from_journal(entry.kind, entry.payload.clone()).ok()
}

/// The loss that a message tells of.
fn lost(entry: &Entry) -> Option<feeder::Lost> {
    if entry.kind != Kind::Message as u8 {
        return None;
    }
    let payload = event(entry)?.payload;
    let message = <feeder::Message as prost::Message>::decode(payload).ok()?;
    message.lost
}
