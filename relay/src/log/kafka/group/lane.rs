//! A partition as a sink's lane: a view of what there is, and a cursor whose moves are commits.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};
use journal::{Account, Block, CursorError, CursorStats, ReadError, Seq};
use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::watch;

use super::queue::Queue;
use super::{ASK, Member, RHYTHM, Topic};
use crate::log::kafka::record::{number, offset};
use crate::log::kafka::timeline::Timeline;
use crate::log::kafka::unusable;
use crate::log::{Cursor, Reader, View};

/// How long a commit waits for the group to have divided its partitions; less than a lane has that is to hand over.
const DIVIDING: Duration = Duration::from_millis(1500);

/// One partition that is this relay's: what there is, and how far it was delivered.
pub(super) struct Partition {
    topic: Arc<Topic>,
    member: Weak<Member>,
    queue: Arc<Queue>,
    partition: i32,
    /// Knows where the partition begins and ends.
    timeline: Timeline,
    books: Mutex<Books>,
    nothing: watch::Sender<Seq>,
}

struct Books {
    position: u64,
    account: Account,
}

impl Partition {
    pub(super) fn new(
        timeline: &Timeline,
        member: &Arc<Member>,
        queue: Arc<Queue>,
        partition: i32,
        place: i64,
    ) -> Partition {
        Partition {
            topic: Arc::clone(timeline.topic()),
            member: Arc::downgrade(member),
            queue,
            partition,
            timeline: timeline.clone(),
            books: Mutex::new(Books {
                position: number(place),
                account: Account::default(),
            }),
            nothing: watch::Sender::new(Seq(0)),
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn name(&self) -> String {
        format!("of {}/{}", self.topic.name(), self.partition)
    }

    /// Tells the broker. Done when it has written it down.
    fn commit(&self, to: u64) -> impl Future<Output = Result<(), CursorError>> + Send + 'static {
        let (member, topic, partition) =
            (self.member.clone(), Arc::clone(&self.topic), self.partition);
        let name = self.name();
        async move {
            let written = tokio::task::spawn_blocking(move || {
                let Some(member) = member.upgrade() else {
                    return Err("the share was given up".to_owned());
                };
                let mut list = TopicPartitionList::new();
                list.add_partition_offset(topic.name(), partition, Offset::Offset(offset(to)))
                    .and_then(|()| commit(&member, &list))
                    .map_err(|error| reason(&error))
            });
            let written = written.await.map_err(|_| CursorError::Closed)?;
            written.map_err(|error| unusable(&name, error))
        }
    }
}

/// While the group divides its partitions anew nothing is committed for a moment, and that is no trouble.
fn commit(member: &Member, list: &TopicPartitionList) -> KafkaResult<()> {
    let began = Instant::now();
    loop {
        match member.commit(list, CommitMode::Sync) {
            Err(error) if is_passing(&error) && began.elapsed() < DIVIDING => {
                std::thread::sleep(Duration::from_millis(50));
            }
            done => return done,
        }
    }
}

fn is_passing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::IllegalGeneration
                | RDKafkaErrorCode::RebalanceInProgress
                | RDKafkaErrorCode::NotCoordinator
                | RDKafkaErrorCode::CoordinatorNotAvailable
                | RDKafkaErrorCode::CoordinatorLoadInProgress
        )
    )
}

fn reason(error: &KafkaError) -> String {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::UnknownMemberId | RDKafkaErrorCode::IllegalGeneration) => {
            "this relay was not heard for too long and its share went to the others, which send again what it did not commit"
                .to_owned()
        }
        _ => error.to_string(),
    }
}

impl View for Partition {
    fn first(&self) -> Seq {
        Seq(number(self.timeline.reach(self.partition).0))
    }

    /// What was read: the end is not known here before it comes.
    fn committed(&self) -> Seq {
        Seq(number(self.queue.state().next) - 1)
    }

    fn subscribe(&self) -> watch::Receiver<Seq> {
        self.nothing.subscribe()
    }

    fn reader(&self, from: Seq) -> Box<dyn Reader> {
        Box::new(Reading {
            topic: Arc::clone(&self.topic),
            member: self.member.clone(),
            queue: Arc::clone(&self.queue),
            partition: self.partition,
            next: from.0.max(1),
        })
    }

    fn seek_time(&self, unix_ns: u64) -> Result<Seq, ReadError> {
        let time = i64::try_from(unix_ns / 1_000_000).unwrap_or(i64::MAX);
        let cut = self.topic.at_time(time)?;
        let found = usize::try_from(self.partition)
            .ok()
            .and_then(|partition| cut.0.get(partition));
        found.map(|offset| Seq(number(*offset))).ok_or_else(|| {
            self.topic
                .unreadable("a partition is newer than this relay; restart it")
        })
    }

    fn end(&self) -> Result<Seq, ReadError> {
        Ok(Seq(number(self.topic.bounds(self.partition)?.1)))
    }
}

struct Reading {
    topic: Arc<Topic>,
    member: Weak<Member>,
    queue: Arc<Queue>,
    partition: i32,
    next: u64,
}

impl Reading {
    /// Goes where this reader stands, if the partition was read elsewhere.
    fn go(&self) -> Result<(), ReadError> {
        let wanted = offset(self.next);
        if self.queue.state().next == wanted {
            return Ok(());
        }
        let Some(member) = self.member.upgrade() else {
            return Err(self.topic.unreadable("the share was given up"));
        };
        member
            .seek(
                self.topic.name(),
                self.partition,
                Offset::Offset(wanted),
                ASK,
            )
            .map_err(|error| self.topic.unreadable(error))?;
        self.queue.begin(wanted);
        Ok(())
    }
}

impl Reader for Reading {
    fn position(&self) -> Seq {
        Seq(self.next)
    }

    fn next(&mut self, max_bytes: usize) -> Result<Block, ReadError> {
        self.go()?;
        let mut block = Block::default();
        let mut bytes = 0;
        let mut state = self.queue.state();
        if state.next != offset(self.next) {
            // A read that was given up meanwhile went elsewhere.
            block.next = Seq(self.next);
            return Ok(block);
        }
        while bytes < max_bytes.max(1) {
            let read = match self.queue.take(&mut state) {
                Some(Ok(read)) => read,
                Some(Err(error)) if block.is_empty() => {
                    return Err(self.topic.unreadable(error));
                }
                Some(Err(_)) | None => break,
            };
            let missing = u64::try_from(read.offset - state.next).unwrap_or(0);
            if missing > 0 && !block.is_empty() {
                // What is missing stands at the beginning of a block.
                state.head = Some(read);
                break;
            }
            if missing > 0 {
                block.expired = missing;
                block.skipped.push(Seq(self.next)..Seq(self.next + missing));
            }
            state.next = read.offset + 1;
            self.next = number(state.next);
            bytes += read.weight();
            block.entries.push(read.entry(self.next - 1));
        }
        block.next = Seq(self.next);
        Ok(block)
    }

    /// What has arrived is; to go elsewhere asks the broker.
    fn at_hand(&mut self, max_bytes: usize) -> Option<Result<Block, ReadError>> {
        let stands = self.queue.state().next == offset(self.next);
        stands.then(|| self.next(max_bytes))
    }

    fn wait(&mut self) -> BoxFuture<'_, bool> {
        async move {
            if self.queue.state().head.is_some() {
                return true;
            }
            let arrived = self.queue.arrived.notified();
            // Looked at now and then, too: a notice that a dropped wait took with it is not missed for long.
            let _ = tokio::time::timeout(RHYTHM, arrived).await;
            true
        }
        .boxed()
    }
}

impl Cursor for Partition {
    fn position(&self) -> Seq {
        Seq(self.books().position)
    }

    fn state(&self) -> Option<Bytes> {
        None
    }

    fn advance(
        &self,
        to: Seq,
        account: Account,
        _state: Option<Bytes>,
    ) -> BoxFuture<'_, Result<(), CursorError>> {
        {
            let mut books = self.books();
            books.position = to.0;
            books.account += account;
        }
        self.commit(to.0).boxed()
    }

    fn rewind(&self, to: Seq) -> BoxFuture<'_, Result<Seq, CursorError>> {
        let to = to.max(self.first());
        self.books().position = to.0;
        let written = self.commit(to.0);
        async move { written.await.map(|()| to) }.boxed()
    }

    fn stats(&self) -> CursorStats {
        let books = self.books();
        let end = number(self.timeline.reach(self.partition).1).max(books.position);
        let pending = end - books.position;
        CursorStats {
            name: self.name(),
            position: Seq(books.position),
            pending,
            account: books.account,
            journaled: books.account.total() + pending,
            birth: Seq(0),
            retired: false,
        }
    }
}
