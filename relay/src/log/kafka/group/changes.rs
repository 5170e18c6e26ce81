//! What becomes of a share when relays come and go: where new partitions begin, and when old ones may leave.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use journal::Start;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{
    BaseConsumer, CommitMode, Consumer as _, ConsumerContext, RebalanceProtocol,
};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc;

use super::super::quiet::{Quiet, log};
use super::{ASK, Member, Topic};
use crate::log::Turn;

/// How long partitions that go wait for what was sent to be answered.
const LET_GO: Duration = Duration::from_secs(15);

/// What librdkafka calls when partitions come and go, on the thread that polls.
pub(super) struct Context {
    topic: Arc<Topic>,
    start: Start,
    turns: mpsc::UnboundedSender<Turn>,
    /// Assigned, and where each begins; the thread makes lanes of them.
    given: Mutex<Vec<(i32, i64)>>,
    quiet: Quiet,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.quiet.error(error, reason);
    }
}

impl ConsumerContext for Context {
    fn rebalance(
        &self,
        member: &BaseConsumer<Self>,
        what: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        let piecewise = matches!(member.rebalance_protocol(), RebalanceProtocol::Cooperative);
        let done = if what == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.assigned(member, partitions, piecewise)
        } else {
            self.revoked(member, partitions, piecewise)
        };
        if let Err(error) = done {
            tracing::warn!(%error, "a change of the sink's share failed; it comes again");
        }
    }
}

impl Context {
    pub(super) fn new(
        topic: &Arc<Topic>,
        start: Start,
        turns: mpsc::UnboundedSender<Turn>,
    ) -> Self {
        Context {
            topic: Arc::clone(topic),
            start,
            turns,
            given: Mutex::default(),
            quiet: Quiet::default(),
        }
    }

    /// Partitions that were assigned since the last call, and where each begins.
    pub(super) fn take_given(&self) -> Vec<(i32, i64)> {
        std::mem::take(&mut *self.given())
    }

    /// Tells the fan-out; it may be gone.
    pub(super) fn tell(&self, turn: Turn) {
        let _ = self.turns.send(turn);
    }

    /// What was wrong since the last call.
    pub(super) fn trouble(&self) -> Option<String> {
        let trouble = self.quiet.trouble();
        self.quiet.fine();
        trouble
    }

    fn given(&self) -> MutexGuard<'_, Vec<(i32, i64)>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn assigned(
        &self,
        member: &Member,
        partitions: &mut TopicPartitionList,
        piecewise: bool,
    ) -> KafkaResult<()> {
        let places = match self.places(member, partitions) {
            Ok(places) => places,
            Err(reason) => {
                // Without a place nothing can be read; the broker is asked again with the next change.
                let _ = self.turns.send(Turn::Trouble(reason));
                Vec::new()
            }
        };
        let mut list = TopicPartitionList::new();
        for (partition, offset) in &places {
            list.add_partition_offset(self.topic.name(), *partition, Offset::Offset(*offset))?;
        }
        self.given().extend(places);
        if piecewise {
            member.incremental_assign(&list)
        } else {
            member.assign(&list)
        }
    }

    /// Where the group stands in each partition. Where it has never stood, it begins, and that is put down at once: what
    /// comes from now on is not missed however this relay ends.
    fn places(
        &self,
        member: &Member,
        partitions: &TopicPartitionList,
    ) -> Result<Vec<(i32, i64)>, String> {
        let wanted: BTreeSet<i32> = partitions
            .elements()
            .iter()
            .map(|element| element.partition())
            .collect();
        let mut all = TopicPartitionList::new();
        let known = (0..).take(self.topic.partitions());
        for partition in known.chain(wanted.iter().copied()).collect::<BTreeSet<_>>() {
            all.add_partition(self.topic.name(), partition);
        }
        let stands = patiently(|| member.committed_offsets(all.clone(), ASK))?;
        let stands: BTreeMap<i32, i64> = stands
            .elements()
            .iter()
            .filter_map(|element| match element.offset() {
                Offset::Offset(offset) => Some((element.partition(), offset)),
                _ => None,
            })
            .collect();
        let mut places = Vec::new();
        let mut begun = TopicPartitionList::new();
        for partition in wanted {
            let (low, high) = self.topic.bounds(partition).map_err(|e| e.to_string())?;
            let place = match stands.get(&partition) {
                Some(place) => *place,
                // A partition that was added to a topic which the group reads already is read whole.
                None if self.start == Start::Beginning || !stands.is_empty() => low,
                None => high,
            };
            if !stands.contains_key(&partition) {
                begun
                    .add_partition_offset(self.topic.name(), partition, Offset::Offset(place))
                    .map_err(|e| e.to_string())?;
            }
            places.push((partition, place));
        }
        if begun.count() > 0 {
            patiently(|| member.commit(&begun, CommitMode::Sync))?;
        }
        Ok(places)
    }

    fn revoked(
        &self,
        member: &Member,
        partitions: &TopicPartitionList,
        piecewise: bool,
    ) -> KafkaResult<()> {
        let going: Vec<i32> = partitions
            .elements()
            .iter()
            .map(|element| element.partition())
            .collect();
        self.given()
            .retain(|(partition, _)| !going.contains(partition));
        let (done, waiting) = std::sync::mpsc::sync_channel(0);
        let turn = Turn::Taken {
            partitions: going,
            done,
        };
        if self.turns.send(turn).is_ok() {
            // Ends when the other side has let go of its end.
            let _ = waiting.recv_timeout(LET_GO);
        }
        if piecewise {
            member.incremental_unassign(partitions)
        } else {
            member.unassign()
        }
    }
}

/// Asks again for a moment: a coordinator that is just moving says so.
fn patiently<T>(mut ask: impl FnMut() -> KafkaResult<T>) -> Result<T, String> {
    let began = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(error) if began.elapsed() > ASK => return Err(error.to_string()),
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}
