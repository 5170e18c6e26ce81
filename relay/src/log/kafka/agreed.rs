//! What the relays of one log agree on: keys whose first value stays.
//!
//! ```text
//! TOPIC.relays: one partition, compacted, small
//!
//! record key     1 │ the claim, 16 random bytes │ the key       of one claim only
//! record value   the value                                      none: the claim is taken back
//!
//! first(key, value) ─▶ written ─▶ read back by every relay, in one order ─▶ the oldest claim of a key holds
//!                                                                           └ a later one is taken back
//! ```
//! There is no compare-and-set in Kafka, but one partition has one order. So a value holds once it was read back, not when it
//! was written, and it holds for every relay.
//!
//! **Compaction** keeps the last record of a record key. Were that the key itself, a second value could be all that is left of
//! it: whoever wrote it, or read both, may die before it is overwritten with the first, and no rule for readers mends what is
//! not there any more. So no record ever takes the place of a claim but the one that takes it back, and what holds is the
//! same before and after compaction (`claims.rs`, and its test). Compaction only removes what was taken back.
//!
//! Earlier versions wrote the key itself. Such a record is a claim as good as any, and older than all of these; where its last
//! record is not what its first one said, and the first is there still, whoever starts writes that once more.

mod claims;

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};
use rdkafka::client::ClientContext as _;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::sync::watch;
use tokio::time::timeout;

use self::claims::{Claims, Id};
use super::BadLog;
use super::quiet::Quiet;
use super::topic::Topic;
use crate::log::Agreement;

/// How long the brokers may take to show all of it at start.
const START: Duration = Duration::from_secs(30);
/// How long they may take to show what was written. Who has waited so long asks again, so nothing is written later either.
const WITHIN: Duration = Duration::from_secs(10);
/// Between two looks of the thread.
const LOOK: Duration = Duration::from_millis(100);

/// The keys and values; a cheap handle.
#[derive(Clone)]
pub(super) struct Agreed(Arc<Inner>);

struct Inner {
    name: String,
    claims: Mutex<Claims>,
    /// Changes when something was read, or nothing will be any more.
    changed: watch::Sender<()>,
    config: ClientConfig,
    /// Replaced after a fatal error.
    producer: Mutex<FutureProducer<Quiet>>,
    quiet: Quiet,
    stopped: AtomicBool,
}

/// A key, and the claim of it that was written here.
type Own = (Bytes, Id);

impl fmt::Debug for Agreed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Agreed").field(&self.0.name).finish()
    }
}

impl Agreed {
    /// Makes the topic if there is none and reads all of it. Blocks.
    pub(super) fn open(topic: &Topic) -> Result<Agreed, BadLog> {
        let name = format!("{}.relays", topic.name());
        let bad = |error: &dyn fmt::Display| BadLog::new(format!("topic {name}: {error}"));
        topic.make_compacted(&name)?;
        let mut config = topic.config();
        let within = WITHIN.as_millis().to_string();
        config
            // A claim that is written twice under one record key would stand where the second one does.
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.timeout.ms", within);
        let quiet = Quiet::default();
        let producer = FutureProducer::from_config_and_context(&config, quiet.clone());
        let consumer = follow(topic, &name).map_err(|e| bad(&e))?;
        let mut claims = Claims::default();
        read_all(&consumer, &mut claims).map_err(|e| bad(&e))?;
        let inner = Arc::new(Inner {
            name: name.clone(),
            claims: Mutex::new(claims),
            changed: watch::Sender::new(()),
            config,
            producer: Mutex::new(producer.map_err(|e| bad(&e))?),
            quiet,
            stopped: AtomicBool::new(false),
        });
        inner.finish();
        let follower = Arc::clone(&inner);
        std::thread::Builder::new()
            .name("kafka-agreed".to_owned())
            .spawn(move || follower.follow(&consumer))
            .map_err(|e| bad(&e))?;
        Ok(Agreed(inner))
    }

    /// Ends the thread, soon, and whoever waits.
    pub(super) fn stop(&self) {
        self.0.stopped.store(true, Ordering::Relaxed);
        self.0.changed.send_replace(());
    }
}

impl Agreement for Agreed {
    fn first<'a>(&'a self, entries: &'a [(Bytes, Bytes)]) -> BoxFuture<'a, io::Result<Vec<Bytes>>> {
        async move {
            let own = self.0.claim(entries)?;
            let held = self.0.held(entries).await?;
            if !own.is_empty() {
                self.0.tidy(&own);
            }
            Ok(held)
        }
        .boxed()
    }
}

impl Inner {
    fn claims(&self) -> MutexGuard<'_, Claims> {
        // Each change is whole before anything can panic.
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims the keys that nobody has.
    fn claim(&self, entries: &[(Bytes, Bytes)]) -> io::Result<Vec<Own>> {
        let free: Vec<&(Bytes, Bytes)> = {
            let claims = self.claims();
            let free = entries.iter();
            free.filter(|(key, _)| claims.holder(key).is_none())
                .collect()
        };
        let mut own = Vec::with_capacity(free.len());
        for (key, value) in free {
            let id = Id::draw().map_err(io::Error::other)?;
            self.write(&id.record_key(key), Some(value))?;
            own.push((key.clone(), id));
        }
        Ok(own)
    }

    fn write(&self, record_key: &[u8], value: Option<&[u8]>) -> io::Result<()> {
        let record = FutureRecord::<[u8], [u8]>::to(&self.name)
            .partition(0)
            .key(record_key);
        let record = match value {
            Some(value) => record.payload(value),
            None => record,
        };
        // Whether it was delivered is seen by reading it back.
        let sent = self.producer().send_result(record);
        sent.map(drop).map_err(|(error, _)| self.silent(error))
    }

    /// One that can still be used: an idempotent producer that has lost its thread never finds it again.
    fn producer(&self) -> FutureProducer<Quiet> {
        let mut producer = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((error, reason)) = producer.client().fatal_error() {
            tracing::warn!(%error, reason, "what relays agree on is written by a new producer");
            match FutureProducer::from_config_and_context(&self.config, self.quiet.clone()) {
                Ok(fresh) => *producer = fresh,
                Err(error) => self.quiet.error(error, "a new producer cannot be made"),
            }
        }
        producer.clone()
    }

    fn silent(&self, why: impl fmt::Display) -> io::Error {
        let trouble = self.quiet.trouble().unwrap_or_else(|| why.to_string());
        io::Error::other(format!("topic {}: {trouble}", self.name))
    }

    /// Waits until every key has a value.
    async fn held(&self, entries: &[(Bytes, Bytes)]) -> io::Result<Vec<Bytes>> {
        let mut changed = self.changed.subscribe();
        let all = async {
            loop {
                changed.borrow_and_update();
                if let Some(held) = self.all(entries) {
                    return Ok(held);
                }
                if self.stopped.load(Ordering::Relaxed) || changed.changed().await.is_err() {
                    return Err(io::Error::other("the relay is stopping"));
                }
            }
        };
        let late = || self.silent(format!("no answer within {} s", WITHIN.as_secs()));
        timeout(WITHIN, all).await.unwrap_or_else(|_| Err(late()))
    }

    fn all(&self, entries: &[(Bytes, Bytes)]) -> Option<Vec<Bytes>> {
        let claims = self.claims();
        let held = entries.iter().map(|(key, _)| claims.holder(key).cloned());
        held.collect()
    }

    /// Takes back what came too late, and forgets what is too much. What is not done here is done by the next one that starts.
    fn tidy(&self, own: &[Own]) {
        let back = {
            let claims = self.claims();
            // One of our own may not have been read back yet: somebody else's was.
            let lost = own.iter().filter(|(key, id)| !claims.holds(key, *id));
            let mut back: Vec<Bytes> = lost.map(|(key, id)| id.record_key(key)).collect();
            back.extend(own.iter().flat_map(|(key, _)| claims.late(key)));
            back.extend(claims.too_many(own.len()));
            back
        };
        self.write_all(back.iter().map(|key| (key, None)));
    }

    /// Does what those left undone that died in between.
    fn finish(&self) {
        let (late, again) = self.claims().undone();
        let late = late.iter().map(|key| (key, None));
        let again = again.iter().map(|(key, first)| (key, Some(first)));
        self.write_all(late.chain(again));
    }

    fn write_all<'a>(&self, records: impl Iterator<Item = (&'a Bytes, Option<&'a Bytes>)>) {
        for (key, value) in records {
            if let Err(error) = self.write(key, value.map(|value| &value[..])) {
                tracing::debug!(%error, "what relays agree on is not tidied up");
            }
        }
    }

    /// The life of the thread.
    fn follow(&self, consumer: &BaseConsumer<Quiet>) {
        while !self.stopped.load(Ordering::Relaxed) {
            match consumer.poll(LOOK) {
                Some(Ok(message)) => {
                    self.claims().read(message.key(), message.payload());
                    self.quiet.fine();
                    self.changed.send_replace(());
                }
                // That it came to the end again is no news.
                Some(Err(KafkaError::PartitionEOF(_))) | None => {}
                Some(Err(error)) => tracing::debug!(%error, "reading what relays agree on"),
            }
        }
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

fn read_all(consumer: &BaseConsumer<Quiet>, claims: &mut Claims) -> Result<(), String> {
    let (deadline, mut why) = (Instant::now() + START, "no answer".to_owned());
    while Instant::now() < deadline {
        match consumer.poll(LOOK) {
            Some(Ok(message)) => claims.read(message.key(), message.payload()),
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(()),
            Some(Err(error)) => why = error.to_string(),
            None => {}
        }
    }
    Err(consumer.context().trouble().unwrap_or(why))
}
