//! The topic: made if there is none, and asked where its partitions begin, end and stood at a time.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use exporters::kafka::Client;
use journal::ReadError;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use sha2::{Digest as _, Sha256};

use super::away::{Away, PATIENCE, may_pass};
use super::cut::Cut;
use super::follow::Stop;
use super::made::{Bounds, Made};
use super::quiet::Quiet;
use super::{BadLog, Config};
use crate::log::Later;

/// How long the brokers may take to answer at start.
const START: Duration = Duration::from_secs(30);
/// How long they may take later to tell what a topic is.
const ASK: Duration = Duration::from_secs(10);
/// Between two attempts at the same question.
const PAUSE: Duration = Duration::from_millis(100);
/// What a consumer of the past fetches in advance from all partitions, and at least from each, in KiB.
const AHEAD: usize = 4096;
const AHEAD_EACH: usize = 64;
/// How long they may take to say whether they would take events.
const ATTEMPT: Duration = Duration::from_secs(3);
/// The largest record of a topic that is made: the largest event and what stands around it.
const MAX_RECORD: usize = (1 << 20) + (64 << 10);

/// What is wrong with a topic that ends before what was read of it, and what to do.
const MADE_ANEW: &str = "the topic ends before what was read of it: it was deleted and made anew, or has lost its end; feeds show nothing of it until the relays of this log are restarted";

/// The topic, for whoever reads or writes it.
pub(super) struct Topic {
    name: String,
    /// Which topic of which cluster.
    id: String,
    client: Client,
    /// For questions only.
    asking: BaseConsumer<Quiet>,
    partitions: usize,
    limit: usize,
    /// Copies that have to be in sync for a write to be taken.
    in_sync: usize,
    /// Copies of a topic that is made.
    replication: Option<u32>,
    /// Nobody waits for the brokers any more.
    given_up: Stop,
    away: Away,
    /// It ends before what was read of it.
    anew: AtomicBool,
}

impl Topic {
    /// Reaches the brokers and makes the topic if there is none. Blocks.
    pub(super) fn open(config: Config) -> Result<Topic, BadLog> {
        let Config {
            connection,
            topic,
            partitions,
            replication,
            max_age,
        } = config;
        let bad = |error: &dyn std::fmt::Display| BadLog::new(error.to_string());
        let client = connection.open().map_err(|e| bad(&e))?;
        let asking: BaseConsumer<Quiet> =
            BaseConsumer::from_config_and_context(&client.config(), Quiet::default())
                .map_err(|e| bad(&e))?;
        let cluster = asking.client().fetch_cluster_id(START).ok_or_else(|| {
            let why = asking
                .context()
                .trouble()
                .unwrap_or_else(|| "no answer".to_owned());
            BadLog::unreached(format!(
                "the brokers {} cannot be reached: {why}",
                client.brokers()
            ))
        })?;
        let made = Made {
            partitions,
            replication,
            settings: vec![
                ("message.timestamp.type", "LogAppendTime".to_owned()),
                ("retention.ms", max_age.as_millis().to_string()),
                ("max.message.bytes", MAX_RECORD.to_string()),
            ],
        };
        let Bounds {
            limit,
            in_sync,
            cleanup,
        } = made.make(&client.config(), &topic)?;
        if cleanup.contains("compact") {
            return Err(BadLog::new(format!(
                "topic {topic} is compacted (cleanup.policy={cleanup}), which leaves one event of each sensor; set cleanup.policy=delete"
            )));
        }
        let id = format!("kafka {cluster} {topic}");
        let mut topic = Topic {
            name: topic,
            id,
            client,
            asking,
            partitions: 0,
            limit,
            in_sync,
            replication,
            given_up: Stop::default(),
            away: Away::default(),
            anew: AtomicBool::new(false),
        };
        topic.partitions = topic.count_partitions()?;
        tracing::info!(
            topic = topic.name,
            partitions = topic.partitions,
            limit,
            "the log is a Kafka topic"
        );
        Ok(topic)
    }

    /// Makes a topic of one partition that keeps the last record of every key, where there is none.
    pub(super) fn make_compacted(&self, name: &str) -> Result<(), BadLog> {
        let made = Made {
            partitions: 1,
            replication: self.replication,
            settings: vec![("cleanup.policy", "compact".to_owned())],
        };
        let Bounds { cleanup, .. } = made.make(&self.config(), name)?;
        if cleanup.contains("delete") {
            tracing::warn!(
                topic = name,
                cleanup,
                "what the relays agree on is deleted with time, and streams are then whose they are not; set cleanup.policy=compact"
            );
        }
        Ok(())
    }

    /// A topic that was just made is known a moment later.
    fn count_partitions(&self) -> Result<usize, BadLog> {
        let deadline = Instant::now() + START;
        loop {
            let metadata = self.asking.fetch_metadata(Some(&self.name), ASK);
            let found = metadata
                .as_ref()
                .ok()
                .and_then(|metadata| metadata.topics().first());
            if let Some(found) = found
                && found.error().is_none()
                && !found.partitions().is_empty()
            {
                return Ok(found.partitions().len());
            }
            if Instant::now() > deadline {
                let why = metadata
                    .err()
                    .map_or("it is not there".to_owned(), |e| e.to_string());
                return Err(BadLog::new(format!("topic {}: {why}", self.name)));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Reads that wait for the brokers end, within a look of theirs.
    pub(super) fn give_up(&self) {
        self.given_up.tell();
    }

    /// Whether there is somebody to read for.
    ///
    /// # Errors
    /// The relay is stopping.
    pub(super) fn is_needed(&self) -> Result<(), ReadError> {
        match self.given_up.is_told() {
            true => Err(self.later(Later::Away("the relay is stopping".to_owned()))),
            false => Ok(()),
        }
    }

    /// Whether there is anybody to ask.
    ///
    /// # Errors
    /// Somebody waited for the brokers in vain a moment ago.
    pub(super) fn is_reachable(&self) -> Result<(), ReadError> {
        match self.away.told() {
            Some(why) => Err(self.later(Later::Away(why))),
            None => Ok(()),
        }
    }

    /// The brokers were waited for in vain; word of it is left for others.
    pub(super) fn is_silent(&self, why: &str) -> ReadError {
        let why = format!(
            "the brokers gave no answer within {} s ({why}); see that they run and that the relay reaches them (live events go on by themselves)",
            PATIENCE.as_secs()
        );
        self.away.note(&why);
        self.later(Later::Away(why))
    }

    /// So many consumers are lent all the time.
    pub(super) fn is_busy(&self, most: usize) -> ReadError {
        self.later(Later::Busy(format!(
            "{most} readers of the past at one time are all that a relay has consumers for, and none was free for {} s; ask for less of the past or later",
            PATIENCE.as_secs()
        )))
    }

    /// The brokers answer.
    pub(super) fn answers(&self) {
        self.away.is_over();
    }

    /// Asks until there is an answer, or `until`. Blocks.
    fn ask<T>(
        &self,
        until: Instant,
        question: impl Fn(Duration) -> Result<T, KafkaError>,
    ) -> Result<T, ReadError> {
        self.is_reachable()?;
        loop {
            self.is_needed()?;
            let left = until.saturating_duration_since(Instant::now());
            match question(left.max(PAUSE)) {
                Ok(answer) => {
                    self.asking.context().fine();
                    self.answers();
                    return Ok(answer);
                }
                Err(error) if !may_pass(&error) => return Err(self.unreadable(error)),
                Err(error) if left <= PAUSE => {
                    // What went wrong is told to whoever polls.
                    let _ = self.asking.poll(Duration::ZERO);
                    let trouble = self.asking.context().trouble();
                    return Err(self.is_silent(&trouble.unwrap_or_else(|| error.to_string())));
                }
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn partitions(&self) -> usize {
        self.partitions
    }

    /// Which partition keeps a sender's events: the same one as long as the topic has so many.
    pub(super) fn partition(&self, from: &str) -> i32 {
        partition(from, self.partitions)
    }

    /// The topic and its brokers, for messages.
    pub(super) fn whereabouts(&self) -> String {
        format!("topic {} of {}", self.name, self.client.brokers())
    }

    /// It ends before what was read of it. Places in it mean something else now, and feeds stand where there is nothing.
    pub(super) fn was_made_anew(&self) {
        if !self.anew.swap(true, Ordering::Relaxed) {
            tracing::error!(topic = self.name, "{MADE_ANEW}");
        }
    }

    /// Whether every partition has a leader and as many copies in sync as a write needs. Blocks for [`ATTEMPT`] at most.
    pub(super) fn attempt(&self) -> Result<(), String> {
        let metadata = self.asking.fetch_metadata(Some(&self.name), ATTEMPT);
        let why = |why: &dyn std::fmt::Display| format!("{}: {why}", self.whereabouts());
        // What went wrong is told to whoever polls.
        let _ = self.asking.poll(Duration::ZERO);
        let metadata = metadata.map_err(|error| match self.asking.context().trouble() {
            Some(trouble) => why(&trouble),
            None => why(&error),
        })?;
        self.asking.context().fine();
        let partitions = metadata.topics().first().map(|topic| topic.partitions());
        let partitions = partitions.unwrap_or_default();
        if self.anew.load(Ordering::Relaxed) {
            return Err(why(&MADE_ANEW));
        }
        let (found, known) = (partitions.len(), self.partitions);
        if (1..known).contains(&found) {
            return Err(why(&format!(
                "it has {found} partitions, and had {known} when this relay started: it was made anew; restart the relays of this log"
            )));
        }
        for partition in partitions {
            let (id, copies) = (partition.id(), partition.isr().len());
            if partition.leader() < 0 {
                return Err(why(&format!("partition {id} has no leader")));
            }
            if copies < self.in_sync {
                return Err(why(&format!(
                    "partition {id} has {copies} copies in sync, and min.insync.replicas asks for {}",
                    self.in_sync
                )));
            }
        }
        match partitions.len() {
            0 => Err(why(&"the topic is not there")),
            _ => Ok(()),
        }
    }

    /// What a record may weigh.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn config(&self) -> ClientConfig {
        self.client.config()
    }

    /// Settings for reading the topic, in the order of each partition.
    pub(super) fn reading(&self, group: &str) -> ClientConfig {
        let mut config = self.config();
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_uncommitted")
            .set("queued.max.messages.kbytes", "4096")
            // A full queue is looked at again after so long; librdkafka's own second is what a reader then stands still.
            .set("fetch.queue.backoff.ms", "20")
            .set("fetch.wait.max.ms", "100")
            .set("fetch.error.backoff.ms", "200");
        config
    }

    /// A consumer that is in no group, at these places.
    pub(super) fn reader(&self, from: &Cut) -> Result<BaseConsumer<Quiet>, KafkaError> {
        let config = self.reading(&format!("{}.reader", self.name));
        let consumer = BaseConsumer::from_config_and_context(&config, Quiet::default())?;
        consumer.assign(&self.list(from)?)?;
        Ok(consumer)
    }

    /// The same with a queue for every partition, all of which together fetch so much in advance.
    pub(super) fn past_reader(&self, from: &Cut) -> Result<BaseConsumer<Quiet>, KafkaError> {
        let each = (AHEAD / self.partitions.max(1)).max(AHEAD_EACH);
        let mut config = self.reading(&format!("{}.reader", self.name));
        config
            .set("queued.max.messages.kbytes", each.to_string())
            .set(
                "max.partition.fetch.bytes",
                (each.min(1024) << 10).to_string(),
            );
        let consumer = BaseConsumer::from_config_and_context(&config, Quiet::default())?;
        consumer.assign(&self.list(from)?)?;
        Ok(consumer)
    }

    fn list(&self, cut: &Cut) -> Result<TopicPartitionList, KafkaError> {
        let mut list = TopicPartitionList::with_capacity(cut.0.len());
        for (partition, offset) in (0..).zip(&cut.0) {
            list.add_partition_offset(&self.name, partition, Offset::Offset(*offset))?;
        }
        Ok(list)
    }

    /// Where a partition begins and ends. Blocks.
    pub(super) fn bounds(&self, partition: i32) -> Result<(i64, i64), ReadError> {
        self.bounds_by(partition, Instant::now() + PATIENCE)
    }

    /// The same until then at most.
    pub(super) fn bounds_by(
        &self,
        partition: i32,
        until: Instant,
    ) -> Result<(i64, i64), ReadError> {
        self.ask(until, |within| {
            self.asking.fetch_watermarks(&self.name, partition, within)
        })
    }

    /// Where all partitions begin and end. Blocks.
    pub(super) fn watermarks(&self) -> Result<(Cut, Cut), ReadError> {
        let bounds = (0..)
            .take(self.partitions)
            .map(|partition| self.bounds(partition));
        let (low, high) = bounds.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
        Ok((Cut(low), Cut(high)))
    }

    /// The same at start: partitions of a topic that was just made have leaders a moment later, and so have those of a broker
    /// that has just started. Blocks.
    pub(super) fn first_watermarks(&self) -> Result<(Cut, Cut), ReadError> {
        let deadline = Instant::now() + START;
        loop {
            match self.watermarks() {
                Err(error) if Instant::now() < deadline => {
                    tracing::debug!(%error, "the topic cannot be read yet");
                    std::thread::sleep(Duration::from_millis(100));
                }
                found => return found,
            }
        }
    }

    /// The first record of that time (milliseconds since 1970) or later in every partition; its end, where there is none.
    /// Blocks.
    pub(super) fn at_time(&self, time: i64) -> Result<Cut, ReadError> {
        // Negative numbers are words of their own there.
        let times = Cut(vec![time.max(0); self.partitions]);
        let found = self.ask(Instant::now() + PATIENCE, |within| {
            self.asking.offsets_for_times(self.list(&times)?, within)
        })?;
        let mut cut = Vec::with_capacity(self.partitions);
        for partition in (0..).take(self.partitions) {
            let offset = found
                .find_partition(&self.name, partition)
                .map(|element| element.offset());
            cut.push(match offset {
                Some(Offset::Offset(offset)) => offset,
                _ => self.bounds(partition)?.1,
            });
        }
        Ok(Cut(cut))
    }

    /// How far a group has come in every partition; none: it has not begun there. Blocks.
    pub(super) fn committed(&self, group: &str) -> Result<Vec<Option<i64>>, ReadError> {
        let until = Instant::now() + PATIENCE;
        let found = self.ask(until, |within| self.ask_group(group, within))?;
        let offset = |partition| match found.find_partition(&self.name, partition)?.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        };
        Ok((0..).take(self.partitions).map(offset).collect())
    }

    /// A client is of one group, so it is one for this question.
    fn ask_group(&self, group: &str, within: Duration) -> Result<TopicPartitionList, KafkaError> {
        let asking: BaseConsumer<Quiet> =
            BaseConsumer::from_config_and_context(&self.reading(group), Quiet::default())?;
        let mut all = TopicPartitionList::with_capacity(self.partitions);
        for partition in (0..).take(self.partitions) {
            all.add_partition(&self.name, partition);
        }
        asking.committed_offsets(all, within)
    }

    pub(super) fn unreadable(&self, error: impl std::fmt::Display) -> ReadError {
        ReadError {
            name: self.whereabouts(),
            source: io::Error::other(error.to_string()),
        }
    }

    fn later(&self, later: Later) -> ReadError {
        ReadError {
            name: self.whereabouts(),
            source: io::Error::other(later),
        }
    }
}

/// The same for the same sender as long as the topic has so many partitions.
fn partition(from: &str, partitions: usize) -> i32 {
    let hash: [u8; 32] = Sha256::digest(from).into();
    let (head, _) = hash.split_first_chunk().unwrap_or((&[0; 8], &[]));
    let place = u64::from_be_bytes(*head) % partitions.max(1) as u64;
    i32::try_from(place).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sensor_has_one_partition_and_sensors_are_spread() {
        let mut used = [0; 12];
        for n in 0..1200 {
            let name = format!("node-{n}");
            let at = partition(&name, 12);
            assert_eq!(at, partition(&name, 12));
            used[at as usize] += 1;
        }
        assert!(used.iter().all(|count| *count > 50), "{used:?}");
    }
}
