//! Reads all partitions from one cut to another in one order: by time, then partition, then offset.
//!
//! It reads to a known end, so it knows which partitions still have something to say and waits for the earliest of all; the
//! order is the same whoever reads it. Blocks its thread, until a time that is given with every step.

use std::sync::Arc;
use std::time::{Duration, Instant};

use journal::ReadError;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::cut::Cut;
use super::quiet::Quiet;
use super::record::Read;
use super::topic::Topic;

/// One look at a partition.
const LOOK: Duration = Duration::from_millis(100);
/// A partition that should have something and says nothing for so long is looked at with the broker.
const DOUBT: Duration = Duration::from_secs(5);

/// All partitions from one place on.
pub(super) struct Merge {
    topic: Arc<Topic>,
    // Before the consumer, which it must not outlive.
    queues: Vec<PartitionQueue<Quiet>>,
    consumer: Arc<BaseConsumer<Quiet>>,
    heads: Vec<Option<Read>>,
    at: Cut,
}

/// The next step.
pub(super) enum Step {
    /// A record, with how many are missing right before it.
    Record(u64, Read),
    /// So many are missing at the end.
    End(u64),
}

impl Merge {
    pub(super) fn open(topic: &Arc<Topic>, from: Cut) -> Result<Merge, ReadError> {
        let consumer = topic.past_reader(&from).map_err(|e| topic.unreadable(e))?;
        let consumer = Arc::new(consumer);
        let queues = (0..)
            .take(from.0.len())
            .map(|partition| consumer.split_partition_queue(topic.name(), partition));
        let queues = queues.collect::<Option<Vec<_>>>();
        let queues = queues.ok_or_else(|| topic.unreadable("a partition has no queue"))?;
        Ok(Merge {
            topic: Arc::clone(topic),
            heads: queues.iter().map(|_| None).collect(),
            queues,
            consumer,
            at: from,
        })
    }

    /// Where it stands.
    pub(super) fn at(&self) -> &Cut {
        &self.at
    }

    /// The earliest record before `to`. Blocks until `until` at most.
    ///
    /// # Errors
    /// Nothing was passed over. The brokers did not answer, or the relay stops.
    pub(super) fn next(&mut self, to: &Cut, until: Instant) -> Result<Step, ReadError> {
        for partition in 0..self.queues.len() {
            self.fill(partition, to.0[partition], until)?;
        }
        let missing = (0..self.queues.len()).map(|partition| self.skip(partition, to.0[partition]));
        let missing = missing.sum::<u64>();
        let heads = self.heads.iter().enumerate();
        let ready = heads.filter_map(|(partition, head)| {
            let head = head.as_ref()?;
            (head.offset < to.0[partition]).then(|| (head.order(), partition))
        });
        let Some((_, first)) = ready.min() else {
            return Ok(Step::End(missing));
        };
        let Some(read) = self.heads[first].take() else {
            return Ok(Step::End(missing));
        };
        let gap = u64::try_from(read.offset - self.at.0[first]).unwrap_or(0);
        self.at.0[first] = read.offset + 1;
        Ok(Step::Record(missing + gap, read))
    }

    /// Makes sure that a partition with something before `to` has a head, unless retention took it.
    fn fill(&mut self, partition: usize, to: i64, until: Instant) -> Result<(), ReadError> {
        let mut doubt = Instant::now() + DOUBT;
        while self.heads[partition].is_none() && self.at.0[partition] < to {
            self.topic.is_needed()?;
            // Serves what is not for a partition, errors among it.
            let _ = self.consumer.poll(Duration::ZERO);
            let left = until.saturating_duration_since(Instant::now());
            match self.queues[partition].poll(LOOK.min(left)) {
                Some(Ok(message)) if message_offset(&message) >= self.at.0[partition] => {
                    self.heads[partition] = Some(Read::new(&message));
                }
                Some(_) => {}
                None if left.is_zero() => return Err(self.is_silent()),
                None if doubt < Instant::now() => {
                    doubt = Instant::now() + DOUBT;
                    let id = i32::try_from(partition).unwrap_or(0);
                    let (low, _) = self.topic.bounds_by(id, until)?;
                    if low >= to {
                        break;
                    }
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Goes to the end of a partition that has nothing before `to`. How many are gone there.
    fn skip(&mut self, partition: usize, to: i64) -> u64 {
        let head = self.heads[partition].as_ref();
        if head.is_some_and(|head| head.offset < to) {
            return 0;
        }
        let left = (to - self.at.0[partition]).max(0);
        self.at.0[partition] += left;
        u64::try_from(left).unwrap_or(0)
    }

    fn is_silent(&self) -> ReadError {
        let trouble = self.consumer.context().trouble();
        self.topic
            .is_silent(&trouble.unwrap_or_else(|| "they do not say why".to_owned()))
    }
}

fn message_offset(message: &rdkafka::message::BorrowedMessage<'_>) -> i64 {
    rdkafka::Message::offset(message)
}
