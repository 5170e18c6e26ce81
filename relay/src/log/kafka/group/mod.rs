//! One consumer group a sink: which partitions are this relay's, and how far each was delivered.
//!
//! ```text
//! thread: poll ── assigned ─▶ Given(partition, lane)          lane: the partition's queue, and a cursor that commits
//!              └─ revoked ──▶ Taken ─▶ waits until the fan-out has let go ─▶ the broker gives it to another relay
//! ```
//! Offsets are committed only when the events before them are delivered, dead-lettered or filtered. A relay that dies without
//! a word loses its partitions after [`SESSION`]; whoever gets them goes on from the last commit.

mod changes;
mod lane;
mod queue;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use journal::Start;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use tokio::sync::mpsc;

use self::changes::Context;
use self::lane::Partition;
use self::queue::Queue;
use super::record::Read;
use super::timeline::Timeline;
use super::topic::Topic;
use super::{BadLog, RHYTHM};
use crate::log::{Lane, Share, Turn};

/// A relay that says nothing for so long has no share any more.
const SESSION: &str = "10000";
/// Between two looks of the thread.
const LOOK: Duration = Duration::from_millis(100);
/// How often the thread looks whether something is wrong.
const LOOK_AROUND: Duration = Duration::from_secs(5);
/// How long the broker may take to say how far a group has come.
const ASK: Duration = Duration::from_secs(10);

type Member = BaseConsumer<Context>;

/// A membership; leaves when it is dropped.
pub(super) struct Group {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Group {
    /// Joins the group of a sink.
    pub(super) fn join(timeline: &Timeline, sink: &str, start: Start) -> Result<Share, BadLog> {
        let topic = timeline.topic();
        let bad = |error: &dyn std::fmt::Display| BadLog::new(error.to_string());
        let mut config = topic.reading(&format!("{}.{sink}", topic.name()));
        config
            .set("session.timeout.ms", SESSION)
            .set("partition.assignment.strategy", "cooperative-sticky");
        let (turns, told) = mpsc::unbounded_channel();
        let context = Context::new(topic, start, turns);
        let member =
            BaseConsumer::from_config_and_context(&config, context).map_err(|e| bad(&e))?;
        let member: Arc<Member> = Arc::new(member);
        member.subscribe(&[topic.name()]).map_err(|e| bad(&e))?;
        let stop = Arc::new(AtomicBool::new(false));
        let life = Life {
            timeline: timeline.clone(),
            queues: queues(&member, topic),
            member,
            stop: Arc::clone(&stop),
        };
        let thread = std::thread::Builder::new()
            .name("kafka-group".to_owned())
            .spawn(move || life.run())
            .map_err(|e| bad(&e))?;
        Ok(Share {
            turns: told,
            membership: Box::new(Group {
                stop,
                thread: Some(thread),
            }),
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It leaves the group on its way out.
            let _ = thread.join();
        }
    }
}

/// Before the first assignment, so that no record takes the common way.
fn queues(member: &Arc<Member>, topic: &Topic) -> BTreeMap<i32, Arc<Queue>> {
    let all = (0..).take(topic.partitions());
    all.filter_map(|partition| Some((partition, Queue::split(member, topic.name(), partition)?)))
        .collect()
}

/// The thread of a membership.
struct Life {
    timeline: Timeline,
    // Before the member, which they must not outlive.
    queues: BTreeMap<i32, Arc<Queue>>,
    member: Arc<Member>,
    stop: Arc<AtomicBool>,
}

impl Life {
    fn run(mut self) {
        let (mut looked, mut told) = (Instant::now(), None);
        while !self.stop.load(Ordering::Relaxed) {
            // Records take the ways of their partitions: what comes here is a change, or trouble.
            match self.member.poll(LOOK) {
                Some(Ok(message)) => self.stray(&message),
                Some(Err(error)) => tracing::debug!(%error, "reading the log"),
                None => {}
            }
            self.open_lanes();
            if looked.elapsed() > LOOK_AROUND {
                looked = Instant::now();
                self.tell(&mut told);
            }
        }
        // Lanes have ended by now; dropping the member leaves the group.
        self.queues.clear();
    }

    /// A record that came before its partition had a way of its own.
    fn stray(&self, message: &rdkafka::message::BorrowedMessage<'_>) {
        let read = Read::new(message);
        if let Some(queue) = self.queues.get(&read.partition) {
            queue.stray(read);
        }
    }

    fn open_lanes(&mut self) {
        let given = self.member.context().take_given();
        for (partition, place) in given {
            let queue = match self.queues.get(&partition) {
                Some(queue) => Arc::clone(queue),
                None => match Queue::split(&self.member, self.timeline.topic().name(), partition) {
                    Some(queue) => Arc::clone(self.queues.entry(partition).or_insert(queue)),
                    None => continue,
                },
            };
            queue.begin(place);
            let lane = Arc::new(Partition::new(
                &self.timeline,
                &self.member,
                queue,
                partition,
                place,
            ));
            self.member.context().tell(Turn::Given(
                partition,
                Lane {
                    view: Arc::<Partition>::clone(&lane),
                    cursor: lane,
                    rhythm: RHYTHM,
                    shared: false,
                },
            ));
        }
    }

    fn tell(&self, told: &mut Option<String>) {
        let trouble = self.member.context().trouble();
        if let Some(why) = trouble.as_ref().filter(|_| trouble != *told) {
            let reason = format!("the log is not read at present: {why}");
            self.member.context().tell(Turn::Trouble(reason));
        }
        *told = trouble;
    }
}
