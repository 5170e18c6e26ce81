//! What the relays of one log agree on: keys whose first value stays.
//!
//! ```text
//! TOPIC.relays: one partition, compacted, small
//! first(key, value) ─▶ written ─▶ read back by every relay, in one order ─▶ the first value of a key is the key's
//!                                                                           └ a second one is overwritten with the first
//! ```
//! There is no compare-and-set in Kafka, but one partition has one order. So a value holds once it was read back, not when it
//! was written, and it holds for every relay. Compaction keeps the last record of a key; whoever came second writes the first
//! value once more, so that the last one says the same. A key that is forgotten is a record without a value.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};

use super::BadLog;
use super::quiet::Quiet;
use super::topic::Topic;
use crate::log::Agreement;

/// How long the brokers may take to show all of it at start.
const START: Duration = Duration::from_secs(30);
/// How long they may take to show what was written.
const WITHIN: Duration = Duration::from_secs(10);
/// Between two looks of the thread.
const LOOK: Duration = Duration::from_millis(100);
/// Keys of one value, and of all. Beyond that the oldest of the value with the most are forgotten.
const MAX_OF_VALUE: usize = 512;
const MAX_TOTAL: usize = 65_536;

/// The keys and values; a cheap handle.
#[derive(Clone)]
pub(super) struct Agreed(Arc<Inner>);

struct Inner {
    name: String,
    firsts: Mutex<Firsts>,
    changed: Condvar,
    producer: FutureProducer<Quiet>,
    quiet: Quiet,
    stopped: AtomicBool,
}

impl fmt::Debug for Agreed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Agreed").field(&self.0.name).finish()
    }
}

impl Agreed {
    /// Makes the topic if there is none and reads all of it. Blocks.
    pub(super) fn open(topic: &Topic) -> Result<Agreed, BadLog> {
        let name = format!("{}.relays", topic.name());
        let bad = |error: &dyn fmt::Display| BadLog(format!("topic {name}: {error}"));
        topic.make_compacted(&name)?;
        let mut config = topic.config();
        config.set("enable.idempotence", "true").set("acks", "all");
        let quiet = Quiet::default();
        let producer =
            FutureProducer::from_config_and_context(&config, quiet.clone()).map_err(|e| bad(&e))?;
        let consumer = follow(topic, &name).map_err(|e| bad(&e))?;
        let mut firsts = Firsts::default();
        read_all(&consumer, &mut firsts).map_err(|e| bad(&e))?;
        let inner = Arc::new(Inner {
            name: name.clone(),
            firsts: Mutex::new(firsts),
            changed: Condvar::new(),
            producer,
            quiet,
            stopped: AtomicBool::new(false),
        });
        let follower = Arc::clone(&inner);
        std::thread::Builder::new()
            .name("kafka-agreed".to_owned())
            .spawn(move || follower.follow(&consumer))
            .map_err(|e| bad(&e))?;
        Ok(Agreed(inner))
    }

    /// Ends the thread, soon.
    pub(super) fn stop(&self) {
        self.0.stopped.store(true, Ordering::Relaxed);
    }
}

impl Agreement for Agreed {
    fn first(&self, entries: &[(Bytes, Bytes)]) -> io::Result<Vec<Bytes>> {
        let inner = &*self.0;
        let unknown = inner.unknown(entries);
        for (key, value) in &unknown {
            inner.write(key, Some(value))?;
        }
        let found = inner.wait_for(entries)?;
        if !unknown.is_empty() {
            inner.tidy(entries, &found);
        }
        Ok(found)
    }
}

impl Inner {
    fn firsts(&self) -> MutexGuard<'_, Firsts> {
        // Each change is whole before anything can panic.
        self.firsts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unknown(&self, entries: &[(Bytes, Bytes)]) -> Vec<(Bytes, Bytes)> {
        let firsts = self.firsts();
        let unknown = entries
            .iter()
            .filter(|(key, _)| !firsts.of.contains_key(key));
        unknown.cloned().collect()
    }

    fn write(&self, key: &[u8], value: Option<&[u8]>) -> io::Result<()> {
        let record = FutureRecord::<[u8], [u8]>::to(&self.name)
            .partition(0)
            .key(key);
        let record = match value {
            Some(value) => record.payload(value),
            None => record,
        };
        // Whether it was delivered is seen by reading it back.
        let sent = self.producer.send_result(record);
        sent.map(drop).map_err(|(error, _)| self.silent(error))
    }

    fn silent(&self, why: impl fmt::Display) -> io::Error {
        let trouble = self.quiet.trouble().unwrap_or_else(|| why.to_string());
        io::Error::other(format!("topic {}: {trouble}", self.name))
    }

    /// Waits until every key has a value.
    fn wait_for(&self, entries: &[(Bytes, Bytes)]) -> io::Result<Vec<Bytes>> {
        let deadline = Instant::now() + WITHIN;
        let mut firsts = self.firsts();
        loop {
            let values = entries.iter().map(|(key, _)| firsts.of.get(key).cloned());
            if let Some(values) = values.collect::<Option<Vec<_>>>() {
                return Ok(values);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.stopped.load(Ordering::Relaxed) {
                return Err(self.silent(format!("no answer within {} s", WITHIN.as_secs())));
            }
            let waited = self.changed.wait_timeout(firsts, left.min(LOOK));
            firsts = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Overwrites what came second, and forgets what is too much. What fails here is done by the next one.
    fn tidy(&self, entries: &[(Bytes, Bytes)], found: &[Bytes]) {
        let second = entries
            .iter()
            .zip(found)
            .filter(|((_, own), first)| own != *first);
        let forget = self.firsts().surplus(entries.len());
        let restated = second.map(|((key, _), first)| (key, Some(&first[..])));
        let forgotten = forget.iter().map(|key| (key, None));
        for (key, value) in restated.chain(forgotten) {
            if let Err(error) = self.write(key, value) {
                tracing::debug!(%error, "what relays agree on is not tidied up");
            }
        }
    }

    /// The life of the thread.
    fn follow(&self, consumer: &BaseConsumer<Quiet>) {
        while !self.stopped.load(Ordering::Relaxed) {
            match consumer.poll(LOOK) {
                Some(Ok(message)) => {
                    self.firsts().read(message.key(), message.payload());
                    self.quiet.fine();
                    self.changed.notify_all();
                }
                // That it came to the end again is no news.
                Some(Err(KafkaError::PartitionEOF(_))) | None => {}
                Some(Err(error)) => tracing::debug!(%error, "reading what relays agree on"),
            }
        }
        self.changed.notify_all();
    }
}

fn follow(topic: &Topic, name: &str) -> Result<BaseConsumer<Quiet>, KafkaError> {
    let mut config = topic.reading(&format!("{name}.reader"));
    config.set("enable.partition.eof", "true");
    let consumer = BaseConsumer::from_config_and_context(&config, Quiet::default())?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(name, 0, Offset::Beginning)?;
    consumer.assign(&list)?;
    Ok(consumer)
}

fn read_all(consumer: &BaseConsumer<Quiet>, firsts: &mut Firsts) -> Result<(), String> {
    let (deadline, mut why) = (Instant::now() + START, "no answer".to_owned());
    while Instant::now() < deadline {
        match consumer.poll(LOOK) {
            Some(Ok(message)) => firsts.read(message.key(), message.payload()),
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(()),
            Some(Err(error)) => why = error.to_string(),
            None => {}
        }
    }
    Err(consumer.context().trouble().unwrap_or(why))
}

/// Keys with their first values.
#[derive(Default)]
struct Firsts {
    of: HashMap<Bytes, Bytes>,
    /// The oldest first.
    by: HashMap<Bytes, VecDeque<Bytes>>,
}

impl Firsts {
    fn read(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) {
        let Some(key) = key.map(Bytes::copy_from_slice) else {
            return;
        };
        match value {
            None => self.forget(&key),
            Some(_) if self.of.contains_key(&key) => {}
            Some(value) => {
                let value = Bytes::copy_from_slice(value);
                self.by
                    .entry(value.clone())
                    .or_default()
                    .push_back(key.clone());
                self.of.insert(key, value);
            }
        }
        // Whoever puts keys forgets others; should nobody do, this memory is bounded all the same.
        if self.of.len() > 2 * MAX_TOTAL {
            self.surplus(1).iter().for_each(|key| self.forget(key));
        }
    }

    fn forget(&mut self, key: &Bytes) {
        let Some(value) = self.of.remove(key) else {
            return;
        };
        if let Some(keys) = self.by.get_mut(&value) {
            keys.retain(|other| other != key);
            if keys.is_empty() {
                self.by.remove(&value);
            }
        }
    }

    /// Keys to be forgotten, `at_most` so many: of values that have too many, and of all if they are too many.
    fn surplus(&self, at_most: usize) -> Vec<Bytes> {
        let over = self.of.len().saturating_sub(MAX_TOTAL);
        let most = self.by.values().max_by_key(|keys| keys.len());
        let Some(keys) = most else {
            return Vec::new();
        };
        let surplus = over.max(keys.len().saturating_sub(MAX_OF_VALUE));
        keys.iter().take(surplus.min(at_most)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(firsts: &mut Firsts, key: u32, value: &'static [u8]) {
        firsts.read(Some(&key.to_be_bytes()), Some(value));
    }

    fn value(firsts: &Firsts, key: u32) -> Option<&[u8]> {
        firsts
            .of
            .get(&key.to_be_bytes()[..])
            .map(|value| &value[..])
    }

    #[test]
    fn the_first_value_of_a_key_stays_until_it_is_forgotten() {
        let mut firsts = Firsts::default();
        read(&mut firsts, 1, b"a");
        read(&mut firsts, 1, b"b");
        assert_eq!(value(&firsts, 1), Some(&b"a"[..]));
        firsts.read(Some(&1_u32.to_be_bytes()), None);
        read(&mut firsts, 1, b"b");
        assert_eq!(value(&firsts, 1), Some(&b"b"[..]));
        assert_eq!(firsts.by.len(), 1);
    }

    #[test]
    fn a_value_with_too_many_keys_loses_its_oldest() {
        let mut firsts = Firsts::default();
        read(&mut firsts, 0, b"a");
        for key in 1..=MAX_OF_VALUE as u32 + 2 {
            read(&mut firsts, key, b"b");
        }
        let surplus = firsts.surplus(10);
        assert_eq!(surplus, [&1_u32.to_be_bytes()[..], &2_u32.to_be_bytes()]);
        surplus.iter().for_each(|key| firsts.forget(key));
        assert_eq!(
            (firsts.surplus(10), value(&firsts, 0)),
            (vec![], Some(&b"a"[..]))
        );
    }
}
