//! The records of one partition on their way from librdkafka to whoever reads.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::error::KafkaError;
use tokio::sync::Notify;

use super::super::record::Read;
use super::Member;
use super::changes::Context;

/// The records of one partition, as they arrive.
pub(super) struct Queue {
    queue: Mutex<PartitionQueue<Context>>,
    pub(super) arrived: Arc<Notify>,
    state: Mutex<Arriving>,
}

#[derive(Default)]
pub(super) struct Arriving {
    /// Offset of the record that comes next.
    pub(super) next: i64,
    /// Read already, not handed out.
    pub(super) head: Option<Read>,
}

impl Queue {
    pub(super) fn split(member: &Arc<Member>, topic: &str, partition: i32) -> Option<Arc<Queue>> {
        let mut queue = member.split_partition_queue(topic, partition)?;
        let arrived = Arc::new(Notify::new());
        let tell = Arc::clone(&arrived);
        queue.set_nonempty_callback(move || tell.notify_one());
        Some(Arc::new(Queue {
            queue: Mutex::new(queue),
            arrived,
            state: Mutex::default(),
        }))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, Arriving> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The record at this offset comes next.
    pub(super) fn begin(&self, offset: i64) {
        *self.state() = Arriving {
            next: offset,
            head: None,
        };
        self.arrived.notify_one();
    }

    pub(super) fn stray(&self, read: Read) {
        let mut state = self.state();
        if state.head.is_none() && read.offset >= state.next {
            state.head = Some(read);
            self.arrived.notify_one();
        }
    }

    /// The next record, if there is one now.
    pub(super) fn take(&self, state: &mut Arriving) -> Option<Result<Read, KafkaError>> {
        if let Some(head) = state.head.take() {
            return Some(Ok(head));
        }
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match queue.poll(Duration::ZERO)? {
                Ok(message) => {
                    let read = Read::new(&message);
                    // What was under way when the place changed.
                    if read.offset >= state.next {
                        return Some(Ok(read));
                    }
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
