//! When each event was due, so that whoever receives it can tell how long it took.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use proto::StreamId;
use tokio::time::Instant;

/// Times by stream and sequence.
#[derive(Default)]
pub(crate) struct Clock {
    streams: Mutex<HashMap<StreamId, Vec<Instant>>>,
}

impl Clock {
    /// The events from sequence `first` on were due when. To be told in order, from sequence 1.
    pub(crate) fn note(&self, stream: StreamId, first: u64, due: &[(u64, Instant)]) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let times = streams.entry(stream).or_default();
        debug_assert_eq!(times.len() as u64 + 1, first);
        for (count, due) in due {
            times.extend((0..*count).map(|_| *due));
        }
    }

    /// How long ago an event was due, if it is known.
    pub(crate) fn since(&self, stream: StreamId, sequence: u64) -> Option<Duration> {
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let due = streams.get(&stream)?.get(sequence as usize - 1)?;
        Some(due.elapsed())
    }
}
