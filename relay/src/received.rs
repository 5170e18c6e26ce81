//! Which events of which stream are in the journal, so that none goes in twice.
//!
//! A fold over the journal's own records: what is in the journal is received, and nothing else is. The journal
//! saves the fold at the head of every segment, so a start needs the newest of these and the open segment.
//!
//! ```text
//! journal ─ apply ─▶  stream a0…: [1, 5001) [5010, 9000)      ◀─ ranges ── Welcome
//!                     stream b7…: [1, 77)
//!                                  in flight: [9000, 9400)    ◀─ reserve ─ Batch 8990..9400 → fresh 9000..9400
//! ```
//! A batch that is on its way into the journal is *reserved*: a sensor that lost its connection and sends the same
//! batch again over the next one waits for the outcome, and then finds it received or free.
//!
//! The memory is bounded. Beyond the bounds the least used is forgotten, which can only make an event be stored
//! twice (with one id), never be dropped: what is not known to be received counts as new.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use journal::{Checkpoint, Entry};
use proto::{EventId, StreamId};
use tokio::sync::Notify;

/// Streams remembered: two for each start of each sensor.
const MAX_STREAMS: usize = 8192;

/// Ranges remembered of one stream. A stream has one, and one more for each event that was lost or rejected.
const MAX_RANGES: usize = 1024;

/// Ranges remembered of all streams: 1 MiB of a checkpoint.
const MAX_TOTAL: usize = 65_536;

/// First byte of a saved fold.
const FORMAT: u8 = 1;

/// What is in the journal; a cheap handle.
#[derive(Debug, Clone, Default)]
pub struct Received {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    released: Notify,
}

#[derive(Debug, Default, PartialEq)]
struct State {
    streams: HashMap<StreamId, Stream>,
    /// Ranges of all streams.
    total: usize,
}

#[derive(Debug, Default, PartialEq)]
struct Stream {
    /// Sorted, apart from each other, none empty.
    ranges: Vec<Range<u64>>,
    in_flight: Vec<Range<u64>>,
    /// Time of the newest record, unix nanoseconds.
    last_used: u64,
    /// Live sessions that announced it.
    open: usize,
}

// === impl Received ===

impl Received {
    /// The received ranges of a stream; none for a stream that is not known.
    #[must_use]
    pub fn ranges(&self, stream: StreamId) -> Option<Vec<Range<u64>>> {
        let state = self.lock();
        let stream = state.streams.get(&stream)?;
        (!stream.ranges.is_empty()).then(|| stream.ranges.clone())
    }

    /// The newest sequence of a stream that is in the journal.
    #[must_use]
    pub fn newest(&self, stream: StreamId) -> Option<u64> {
        let state = self.lock();
        let last = state.streams.get(&stream)?.ranges.last()?;
        Some(last.end - 1)
    }

    /// Whether an event is in the journal, or was; none: nothing is known of its stream.
    #[must_use]
    pub fn has(&self, id: EventId) -> Option<bool> {
        self.lock().has(id)
    }

    /// The same by what the journal saved at the head of a segment.
    ///
    /// # Errors
    /// The bytes are no saved fold.
    pub fn had(saved: &[u8], id: EventId) -> Result<Option<bool>, String> {
        Ok(State::load(saved)?.has(id))
    }

    /// What the journal saved at the head of a segment.
    ///
    /// # Errors
    /// The bytes are no saved fold.
    pub(crate) fn saved(saved: &[u8]) -> Result<Received, String> {
        let received = Received::default();
        *received.lock() = State::load(saved)?;
        Ok(received)
    }

    /// Keeps a stream from being forgotten while a sensor may send it.
    #[must_use]
    pub fn open(&self, stream: StreamId) -> Open {
        let mut state = self.lock();
        state.stream(stream).open += 1;
        Open {
            received: self.clone(),
            stream,
        }
    }

    /// Takes the sequences of `range` that are neither received nor about to be. Waits while an earlier reservation
    /// covers part of it.
    pub async fn reserve(&self, stream: StreamId, range: Range<u64>) -> Reservation {
        loop {
            let released = self.shared.released.notified();
            if let Some(reservation) = self.try_reserve(stream, &range) {
                return reservation;
            }
            released.await;
        }
    }

    /// A reservation of nothing, for what is not to be taken.
    #[must_use]
    pub fn nothing(&self, stream: StreamId) -> Reservation {
        Reservation {
            received: self.clone(),
            stream,
            range: 0..0,
            fresh: Vec::new(),
            held: false,
        }
    }

    fn try_reserve(&self, stream: StreamId, range: &Range<u64>) -> Option<Reservation> {
        let mut state = self.lock();
        let entry = state.stream(stream);
        if entry.in_flight.iter().any(|other| overlap(other, range)) {
            return None;
        }
        let fresh = missing(&entry.ranges, range);
        if !fresh.is_empty() {
            entry.in_flight.push(range.clone());
        }
        let held = !fresh.is_empty();
        Some(Reservation {
            received: self.clone(),
            stream,
            range: range.clone(),
            fresh,
            held,
        })
    }

    /// The fold that the journal runs and saves.
    #[must_use]
    pub fn checkpoint(&self) -> Box<dyn Checkpoint> {
        Box::new(Fold {
            received: self.clone(),
        })
    }

    /// Events are in a log that folds nothing itself.
    #[cfg(feature = "kafka")]
    pub(crate) fn note(&self, ids: &[EventId]) {
        let time = crate::log::unix_nanoseconds();
        let mut state = self.lock();
        ids.iter().for_each(|id| state.add(*id, time));
    }

    /// Streams that are remembered.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.lock().streams.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change below leaves the state whole before it can panic.
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sequences that one batch may bring into the journal. Freed when dropped: by then they are received, or refused and
/// free for the next attempt.
#[derive(Debug)]
pub struct Reservation {
    received: Received,
    stream: StreamId,
    range: Range<u64>,
    fresh: Vec<Range<u64>>,
    held: bool,
}

impl Reservation {
    /// Is this sequence new?
    #[must_use]
    pub fn is_fresh(&self, sequence: u64) -> bool {
        self.fresh.iter().any(|range| range.contains(&sequence))
    }

    /// The new sequences.
    #[must_use]
    pub fn fresh(&self) -> &[Range<u64>] {
        &self.fresh
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.held {
            return;
        }
        let mut state = self.received.lock();
        if let Some(stream) = state.streams.get_mut(&self.stream)
            && let Some(at) = stream
                .in_flight
                .iter()
                .position(|range| *range == self.range)
        {
            stream.in_flight.swap_remove(at);
        }
        drop(state);
        self.received.shared.released.notify_waiters();
    }
}

/// A stream that a connected sensor announced.
#[derive(Debug)]
pub struct Open {
    received: Received,
    stream: StreamId,
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut state = self.received.lock();
        if let Some(stream) = state.streams.get_mut(&self.stream) {
            stream.open -= 1;
        }
    }
}

// === impl State ===

impl State {
    fn has(&self, id: EventId) -> Option<bool> {
        let ranges = &self.streams.get(&id.stream)?.ranges;
        if ranges.is_empty() {
            return None;
        }
        Some(ranges.iter().any(|range| range.contains(&id.sequence)))
    }

    fn stream(&mut self, id: StreamId) -> &mut Stream {
        if !self.streams.contains_key(&id) && self.streams.len() >= MAX_STREAMS {
            self.forget_one(id);
        }
        self.streams.entry(id).or_default()
    }

    fn add(&mut self, id: EventId, time: u64) {
        let stream = self.stream(id.stream);
        let before = stream.ranges.len();
        insert(&mut stream.ranges, id.sequence);
        if stream.ranges.len() > MAX_RANGES {
            stream.ranges.remove(0);
        }
        stream.last_used = stream.last_used.max(time);
        let after = stream.ranges.len();
        self.total = self.total + after - before;
        if self.total > MAX_TOTAL {
            self.forget_one(id.stream);
        }
    }

    /// Forgets the stream that was not used for the longest time. Streams in use stay.
    fn forget_one(&mut self, but: StreamId) {
        let idle = self
            .streams
            .iter()
            .filter(|(id, stream)| **id != but && stream.open == 0 && stream.in_flight.is_empty());
        let oldest = idle
            .min_by_key(|(id, stream)| (stream.last_used, **id))
            .map(|(id, _)| *id);
        if let Some(stream) = oldest.and_then(|id| self.streams.remove(&id)) {
            self.total -= stream.ranges.len();
        }
    }

    fn save(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        let known = self
            .streams
            .iter()
            .filter(|(_, stream)| !stream.ranges.is_empty());
        for (id, stream) in known {
            out.extend_from_slice(&id.0);
            out.extend_from_slice(&stream.last_used.to_le_bytes());
            out.extend_from_slice(&(stream.ranges.len() as u64).to_le_bytes());
            for range in &stream.ranges {
                out.extend_from_slice(&range.start.to_le_bytes());
                out.extend_from_slice(&range.end.to_le_bytes());
            }
        }
        out
    }

    fn load(bytes: &[u8]) -> Result<Self, String> {
        let mut state = Self::default();
        let Some((&format, mut rest)) = bytes.split_first() else {
            return Ok(state);
        };
        if format != FORMAT {
            return Err(format!(
                "received ranges in format {format}; this program reads format {FORMAT}"
            ));
        }
        while !rest.is_empty() {
            let id = StreamId(take(&mut rest)?);
            let last_used = u64::from_le_bytes(take(&mut rest)?);
            let count = u64::from_le_bytes(take(&mut rest)?);
            let ranges = (0..count)
                .map(|_| range(&mut rest))
                .collect::<Result<Vec<_>, _>>()?;
            if !ranges.is_sorted_by(|one, next| one.end < next.start) {
                return Err(format!("received ranges of stream {id} overlap"));
            }
            state.total += ranges.len();
            state.streams.insert(
                id,
                Stream {
                    ranges,
                    last_used,
                    ..Stream::default()
                },
            );
        }
        Ok(state)
    }
}

fn range(rest: &mut &[u8]) -> Result<Range<u64>, String> {
    let start = u64::from_le_bytes(take(rest)?);
    let end = u64::from_le_bytes(take(rest)?);
    if start < end {
        Ok(start..end)
    } else {
        Err(format!("a received range from {start} to {end}"))
    }
}

fn take(rest: &mut &[u8]) -> Result<[u8; 8], String> {
    let (head, tail) = rest
        .split_first_chunk()
        .ok_or("received ranges are cut short")?;
    *rest = tail;
    Ok(*head)
}

/// Adds one sequence to sorted ranges. Almost always it extends the last one.
fn insert(ranges: &mut Vec<Range<u64>>, sequence: u64) {
    let after = sequence.saturating_add(1);
    if let Some(last) = ranges.last_mut()
        && last.end == sequence
    {
        last.end = after;
        return;
    }
    // The first range that ends at or behind the sequence is the only one that it can extend or be in.
    let at = ranges.partition_point(|range| range.end < sequence);
    let Some(found) = ranges.get_mut(at) else {
        ranges.push(sequence..after);
        return;
    };
    if found.contains(&sequence) {
        return;
    }
    if found.end == sequence {
        found.end = after;
        join(ranges, at);
    } else if found.start == after {
        found.start = sequence;
    } else {
        ranges.insert(at, sequence..after);
    }
}

/// Joins a range with the next one if they touch.
fn join(ranges: &mut Vec<Range<u64>>, at: usize) {
    if let [one, next, ..] = &mut ranges[at..]
        && one.end == next.start
    {
        one.end = next.end;
        ranges.remove(at + 1);
    }
}

/// The parts of `wanted` that sorted `ranges` lack.
fn missing(ranges: &[Range<u64>], wanted: &Range<u64>) -> Vec<Range<u64>> {
    let mut missing = Vec::new();
    let mut from = wanted.start;
    let first = ranges.partition_point(|range| range.end <= wanted.start);
    for range in ranges[first..]
        .iter()
        .take_while(|range| range.start < wanted.end)
    {
        if from < range.start {
            missing.push(from..range.start);
        }
        from = range.end;
    }
    if from < wanted.end {
        missing.push(from..wanted.end);
    }
    missing
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

/// The journal's side.
struct Fold {
    received: Received,
}

impl Checkpoint for Fold {
    fn load(&mut self, bytes: &[u8]) -> Result<(), String> {
        *self.received.lock() = State::load(bytes)?;
        Ok(())
    }

    fn apply(&mut self, entry: &Entry) {
        // A payload without an id is damage that readers report; there is nothing to remember of it.
        if let Some(id) = entry
            .payload
            .get(..EventId::LEN)
            .and_then(|id| EventId::try_from(id).ok())
        {
            self.received.lock().add(id, entry.time);
        }
    }

    fn save(&self) -> Vec<u8> {
        self.received.lock().save()
    }
}

#[cfg(test)]
#[allow(
    clippy::single_range_in_vec_init,
    reason = "one range is what is expected"
)]
mod tests {
    use std::collections::BTreeSet;

    use bytes::Bytes;
    use futures::FutureExt;
    use journal::Seq;

    use super::*;

    const STREAM: StreamId = StreamId([7; 8]);

    fn entry(stream: StreamId, sequence: u64, time: u64) -> Entry {
        let payload = Bytes::copy_from_slice(&EventId { stream, sequence }.to_bytes());
        Entry {
            seq: Seq(1),
            kind: 1,
            time,
            payload,
        }
    }

    fn received(sequences: &[u64]) -> Received {
        let received = Received::default();
        let mut fold = received.checkpoint();
        for sequence in sequences {
            fold.apply(&entry(STREAM, *sequence, 1));
        }
        received
    }

    #[test]
    fn ranges_are_the_set_of_all_sequences_in_whatever_order_they_come() {
        let mut seed = 1u64;
        for _ in 0..200 {
            let (mut ranges, mut model) = (Vec::new(), BTreeSet::new());
            for _ in 0..40 {
                // Multiplier and increment of Knuth's MMIX generator.
                seed = seed
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                let sequence = 1 + (seed >> 33) % 30;
                insert(&mut ranges, sequence);
                model.insert(sequence);
                assert!(ranges.is_sorted_by(|a, b| a.end < b.start), "{ranges:?}");
                assert_eq!(
                    ranges.iter().cloned().flatten().collect::<BTreeSet<_>>(),
                    model
                );
                let lacks: Vec<u64> = missing(&ranges, &(5..25)).into_iter().flatten().collect();
                assert_eq!(
                    lacks,
                    (5..25).filter(|n| !model.contains(n)).collect::<Vec<_>>()
                );
            }
        }
    }

    #[tokio::test]
    async fn only_what_lies_outside_the_ranges_is_fresh() {
        let received = received(&[1, 2, 3, 7, 8]);
        assert_eq!(received.ranges(STREAM), Some(vec![1..4, 7..9]));
        assert_eq!(received.ranges(StreamId([1; 8])), None);
        let reservation = received.reserve(STREAM, 2..11).await;
        assert_eq!(reservation.fresh(), [4..7, 9..11]);
        assert!(reservation.is_fresh(4) && !reservation.is_fresh(7));
    }

    #[tokio::test]
    async fn what_is_in_flight_is_waited_for() {
        let received = received(&[1]);
        let mut fold = received.checkpoint();
        let first = received.reserve(STREAM, 1..4).await;
        let mut second = Box::pin(received.reserve(STREAM, 3..6));
        assert!(second.as_mut().now_or_never().is_none());
        assert_eq!(
            received.reserve(STREAM, 6..9).await.fresh(),
            [6..9],
            "apart from it nobody waits"
        );
        fold.apply(&entry(STREAM, 2, 1));
        fold.apply(&entry(STREAM, 3, 1));
        drop(first);
        assert_eq!(second.await.fresh(), [4..6]);
    }

    #[tokio::test]
    async fn a_refused_reservation_is_free_again() {
        let received = received(&[]);
        drop(received.reserve(STREAM, 1..4).await);
        assert_eq!(received.reserve(STREAM, 1..4).await.fresh(), [1..4]);
    }

    #[test]
    fn a_saved_fold_loads_as_it_was_and_damage_is_an_error() {
        let received = received(&[1, 2, 9]);
        let saved = received.checkpoint().save();
        let loaded = Received::default();
        loaded.checkpoint().load(&saved).unwrap();
        assert_eq!(*loaded.lock(), *received.lock());
        for cut in 2..saved.len() {
            assert!(
                loaded.checkpoint().load(&saved[..cut]).is_err(),
                "cut at {cut}"
            );
        }
        assert!(
            loaded
                .checkpoint()
                .load(&[9])
                .unwrap_err()
                .contains("format 9")
        );
        assert_eq!(loaded.checkpoint().load(&[]), Ok(()));
    }

    #[test]
    fn the_least_used_streams_are_forgotten_first_and_open_ones_never() {
        let received = Received::default();
        let id = |n: u64| StreamId(n.to_be_bytes());
        let _open = received.open(id(0));
        let mut fold = received.checkpoint();
        for n in 0..=MAX_STREAMS as u64 {
            fold.apply(&entry(id(n), 1, n));
        }
        assert_eq!(received.streams(), MAX_STREAMS);
        assert!(received.ranges(id(0)).is_some());
        assert!(received.ranges(id(1)).is_none());
    }

    #[test]
    fn a_stream_full_of_holes_forgets_its_lowest_ranges() {
        let sequences: Vec<u64> = (0..=MAX_RANGES as u64).map(|n| 1 + 2 * n).collect();
        let ranges = received(&sequences).ranges(STREAM).unwrap();
        assert_eq!((ranges.len(), ranges[0].start), (MAX_RANGES, 3));
    }
}
