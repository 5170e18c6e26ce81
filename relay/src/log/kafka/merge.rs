//! Reads all partitions from one cut to another in one order: by time, then partition, then offset.
//!
//! It reads to a known end, so it knows which partitions still have something to say and waits for the earliest of all; the
//! order is the same whoever reads it. Blocks its thread, until the log is [given up](Topic::give_up) at most.

use std::sync::Arc;
use std::time::{Duration, Instant};

use journal::ReadError;
use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::base_consumer::PartitionQueue;

use super::cut::Cut;
use super::quiet::Quiet;
use super::record::Read;
use super::topic::Topic;

/// One look at a partition.
const LOOK: Duration = Duration::from_millis(100);
/// A partition that should have something and says nothing for so long is looked at with the broker.
const PATIENCE: Duration = Duration::from_secs(5);
/// After so long it is an error.
const GIVE_UP: Duration = Duration::from_secs(30);

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
        let consumer = topic.reader(&from).map_err(|e| topic.unreadable(e))?;
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

    /// The earliest record before `to`.
    pub(super) fn next(&mut self, to: &Cut) -> Result<Step, ReadError> {
        let mut missing = 0;
        for partition in 0..self.queues.len() {
            missing += self.fill(partition, to.0[partition])?;
        }
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

    /// Makes sure that a partition with something before `to` has a head. How many are gone at its end.
    fn fill(&mut self, partition: usize, to: i64) -> Result<u64, ReadError> {
        let began = Instant::now();
        let mut looked = began;
        while self.heads[partition].is_none() && self.at.0[partition] < to {
            self.topic.is_needed()?;
            // Serves what is not for a partition, errors among it.
            let _ = self.consumer.poll(Duration::ZERO);
            match self.queues[partition].poll(LOOK) {
                Some(Ok(message)) if message_offset(&message) >= self.at.0[partition] => {
                    self.heads[partition] = Some(Read::new(&message));
                }
                Some(_) => {}
                None if began.elapsed() > GIVE_UP => {
                    return Err(self.topic.unreadable("the brokers do not answer"));
                }
                None if looked.elapsed() > PATIENCE => {
                    looked = Instant::now();
                    let (low, _) = self.topic.bounds(i32::try_from(partition).unwrap_or(0))?;
                    if low >= to {
                        break;
                    }
                }
                None => {}
            }
        }
        // Retention took the rest.
        let beyond = self.heads[partition]
            .as_ref()
            .is_none_or(|head| head.offset >= to);
        let left = if beyond { to - self.at.0[partition] } else { 0 };
        if left > 0 {
            self.at.0[partition] = to;
        }
        Ok(u64::try_from(left).unwrap_or(0))
    }
}

fn message_offset(message: &rdkafka::message::BorrowedMessage<'_>) -> i64 {
    rdkafka::Message::offset(message)
}
