//! The journal as a log: one partition, one lane a sink.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};
use journal::{
    Account, AppendError, Block, CursorError, CursorStats, Expired, Journal, ReadError, Record,
    Seq, Stats, WhenFull,
};
use proto::Event;
use tokio::sync::watch;

use super::{Appended, Cursor, Lane, Log, Reader, Supply, View, Want, unix_nanoseconds};

/// Records this close to the end were written a moment ago by this process, so they lie in the page cache, in the segment that
/// is written or the one before it: reading a block of them is one copy of its bytes. Further back it may be a disk, or a
/// segment to be unpacked.
const NEAR: u64 = 16_384;
/// A cursor moves at most so often; the journal makes moves durable in the same rhythm.
const RHYTHM: Duration = Duration::from_millis(100);

impl Log for Journal {
    fn append(
        &self,
        _from: Arc<str>,
        events: Vec<Event>,
    ) -> BoxFuture<'_, Result<Appended, AppendError>> {
        let time = unix_nanoseconds();
        async move {
            let payloads = Event::all_to_journal(&events).into_iter();
            let records = events.iter().zip(payloads).map(|(event, payload)| Record {
                kind: event.kind as u8,
                time,
                payload,
            });
            let records = records.collect();
            // The events' bytes are copied behind their ids: what waits is in memory once.
            drop(events);
            let places = Journal::append(self, records).await?;
            Ok(Appended {
                places: Some(places),
                refused: Vec::new(),
            })
        }
        .boxed()
    }

    fn view(&self) -> Arc<dyn View> {
        Arc::new(self.clone())
    }

    fn supply(&self, sink: &str, want: Want) -> Result<Supply, CursorError> {
        Ok(Supply::Lane(Lane {
            view: Arc::new(self.clone()),
            cursor: Arc::new(self.cursor(sink, want.options)?),
            rhythm: RHYTHM,
            shared: true,
        }))
    }

    fn only(&self, sinks: &[&str]) {
        self.retire_cursors_except(sinks);
    }

    fn retain(&self, max_size: u64, max_age: Duration) -> bool {
        Journal::retain(self, max_size, max_age)
    }

    fn figures(&self) -> Stats {
        self.stats()
    }

    fn close(&self) {
        Journal::close(self.clone());
    }
}

impl View for Journal {
    fn first(&self) -> Seq {
        Journal::first(self)
    }

    fn committed(&self) -> Seq {
        Journal::committed(self)
    }

    fn subscribe(&self) -> watch::Receiver<Seq> {
        Journal::subscribe(self)
    }

    fn reader(&self, from: Seq) -> Box<dyn Reader> {
        Box::new(Journal::reader(self, from))
    }

    fn seek_time(&self, unix_ns: u64) -> Result<Seq, ReadError> {
        Journal::seek_time(self, unix_ns)
    }
}

impl Reader for journal::Reader {
    fn position(&self) -> Seq {
        journal::Reader::position(self)
    }

    fn next(&mut self, max_bytes: usize) -> Result<Block, ReadError> {
        journal::Reader::next(self, max_bytes)
    }

    fn at_hand(&mut self, max_bytes: usize) -> Option<Result<Block, ReadError>> {
        (self.behind() <= NEAR).then(|| journal::Reader::next(self, max_bytes))
    }

    fn wait(&mut self) -> BoxFuture<'_, bool> {
        journal::Reader::wait(self).boxed()
    }
}

impl Cursor for journal::Cursor {
    fn position(&self) -> Seq {
        journal::Cursor::position(self)
    }

    fn state(&self) -> Option<Bytes> {
        journal::Cursor::state(self)
    }

    fn advance(
        &self,
        to: Seq,
        account: Account,
        state: Option<Bytes>,
    ) -> BoxFuture<'_, Result<(), CursorError>> {
        journal::Cursor::advance(self, to, account, state).boxed()
    }

    fn rewind(&self, to: Seq) -> BoxFuture<'_, Result<Seq, CursorError>> {
        journal::Cursor::rewind(self, to, None).boxed()
    }

    fn stats(&self) -> CursorStats {
        journal::Cursor::stats(self)
    }

    fn expired(&self) -> Vec<Expired> {
        journal::Cursor::expired(self)
    }

    fn retire(&self) {
        journal::Cursor::retire(self);
    }

    fn take_up(&self, when_full: WhenFull) {
        journal::Cursor::take_up(self, when_full);
    }
}
