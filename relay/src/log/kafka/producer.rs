//! The way in: every event of a batch as a record, acknowledged when all in-sync replicas have them all.
//!
//! Batches are handed to librdkafka one after the other, so a sensor's events keep their order; any number of them then wait
//! for their delivery reports at once. What fails of a batch fails it all, and it comes again with the same ids.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use journal::{AppendError, Ledger};
use proto::{Event, Kind};
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer as _};
use tokio::sync::Mutex as TurnMutex;

use super::BadLog;
use super::quiet::Quiet;
use super::record::{AROUND, headers};
use super::topic::Topic;
use crate::log::{Appended, Refused};
use crate::received::Received;

/// What is not delivered in this time is refused, and its sender keeps it.
const DELIVERED_WITHIN: &str = "30000";
/// While librdkafka's queue is full.
const FULL: Duration = Duration::from_millis(5);
/// For what librdkafka still has when the log is closed.
const LAST: Duration = Duration::from_secs(5);

/// A producer, and what is wrong with it.
#[derive(Clone)]
struct Client {
    producer: FutureProducer<Quiet>,
    quiet: Quiet,
}

/// The way in.
pub(super) struct Producer {
    topic: Arc<Topic>,
    /// Replaced after a fatal error. None: closed.
    client: Mutex<Option<Client>>,
    /// Held while a batch is handed over.
    turn: TurnMutex<()>,
    headers: [OwnedHeaders; 3],
    received: Received,
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    ledger: Ledger,
    bytes: u64,
}

/// What became of one record.
enum Fate {
    Kept,
    TooLarge,
    Failed(KafkaError),
}

impl Producer {
    pub(super) fn open(topic: Arc<Topic>, relay: &str, received: Received) -> Result<Self, BadLog> {
        let client = connect(&topic).map_err(|error| BadLog::new(error.to_string()))?;
        Ok(Producer {
            topic,
            client: Mutex::new(Some(client)),
            turn: TurnMutex::default(),
            headers: Kind::ALL.map(|kind| headers(kind, relay)),
            received,
            books: Mutex::default(),
        })
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // A few additions, which cannot panic in between.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn client(&self) -> Option<Client> {
        self.client
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What was offered since the start and what became of it, and how many bytes were kept.
    pub(super) fn ledger(&self) -> (Ledger, u64) {
        let books = self.books();
        (books.ledger, books.bytes)
    }

    /// Hands over what waits and takes no more. Blocks.
    pub(super) fn close(&self) {
        let client = self
            .client
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(client) = client {
            let _ = client.producer.flush(LAST);
        }
    }

    /// Keeps a batch.
    pub(super) async fn append(
        &self,
        from: Arc<str>,
        events: Vec<Event>,
    ) -> Result<Appended, AppendError> {
        let count = events.len() as u64;
        let mut open = Open::begin(self, count);
        let Some(client) = self.client() else {
            return Err(AppendError::Closed);
        };
        let (refused, kept, bytes) = self.keep(&client, &from, events).await.inspect_err(|_| {
            self.look_after(&client);
        })?;
        client.quiet.fine();
        self.received.note(&kept);
        open.settle(kept.len() as u64, bytes);
        Ok(Appended {
            places: None,
            refused,
        })
    }

    /// The ids of what was kept, and its bytes.
    async fn keep(
        &self,
        client: &Client,
        from: &str,
        events: Vec<Event>,
    ) -> Result<(Vec<Refused>, Vec<proto::EventId>, u64), AppendError> {
        let mut refused = Vec::new();
        let mut records = Vec::with_capacity(events.len());
        for (index, event) in events.into_iter().enumerate() {
            let size = event.payload.len() + from.len() + AROUND;
            if size > self.topic.limit() {
                let limit = self.topic.limit();
                refused.push(Refused { index, size, limit });
            } else {
                records.push((index, event));
            }
        }
        let fates = self.send(client, from, &records).await;
        let (mut kept, mut bytes) = (Vec::with_capacity(records.len()), 0);
        for ((index, event), fate) in records.iter().zip(fates) {
            let fate = match fate {
                // A broker says so of all records of a request: the one alone is what counts.
                Fate::TooLarge => self.send_one(client, from, *index, event).await,
                fate => fate,
            };
            match fate {
                Fate::Kept => {
                    bytes += event.payload.len() as u64;
                    kept.push(event.id);
                }
                Fate::TooLarge => refused.push(Refused {
                    index: *index,
                    size: event.payload.len(),
                    limit: self.topic.limit().min(event.payload.len()),
                }),
                Fate::Failed(error) => return Err(self.failed(client, &error)),
            }
        }
        refused.sort_unstable_by_key(|refused| refused.index);
        Ok((refused, kept, bytes))
    }

    async fn send_one(&self, client: &Client, from: &str, index: usize, event: &Event) -> Fate {
        let one = [(index, event.clone())];
        let fate = self.send(client, from, &one).await.pop();
        fate.unwrap_or(Fate::TooLarge)
    }

    async fn send(&self, client: &Client, from: &str, records: &[(usize, Event)]) -> Vec<Fate> {
        let turn = self.turn.lock().await;
        let partition = self.topic.partition(from);
        let mut waiting = Vec::with_capacity(records.len());
        for (_, event) in records {
            waiting.push(self.hand_over(client, from, partition, event).await);
        }
        drop(turn);
        let fates = waiting.into_iter().map(|report| async {
            match report {
                Ok(report) => match report.await {
                    Ok(Ok(_)) => Fate::Kept,
                    Ok(Err((error, _))) => fate(error),
                    Err(_) => fate(KafkaError::Canceled),
                },
                Err(error) => fate(error),
            }
        });
        join_all(fates).await
    }

    /// Waits while the queue is full: the bytes that wait are bounded by the budget of the doors.
    async fn hand_over(
        &self,
        client: &Client,
        from: &str,
        partition: i32,
        event: &Event,
    ) -> Result<DeliveryFuture, KafkaError> {
        let value = event.to_journal();
        let headers = &self.headers[usize::from(u8::from(event.kind)) - 1];
        loop {
            let record = FutureRecord::to(self.topic.name())
                .partition(partition)
                .key(from)
                .payload(&value[..])
                .headers(headers.clone());
            match client.producer.send_result(record) {
                Ok(report) => return Ok(report),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    tokio::time::sleep(FULL).await;
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    fn failed(&self, client: &Client, error: &KafkaError) -> AppendError {
        let why = client.quiet.trouble();
        let why = why.unwrap_or_else(|| error.to_string());
        AppendError::Full {
            reason: format!(
                "{} does not take the events: {why}",
                self.topic.whereabouts()
            ),
        }
    }

    /// What is wrong with the brokers, if anything.
    pub(super) fn trouble(&self) -> Option<String> {
        self.client()?.quiet.trouble()
    }

    /// An idempotent producer that has lost its thread is of no more use.
    fn look_after(&self, client: &Client) {
        if client.producer.client().fatal_error().is_none() {
            return;
        }
        if let Ok(fresh) = connect(&self.topic) {
            let mut now = self.client.lock().unwrap_or_else(PoisonError::into_inner);
            if now
                .as_ref()
                .is_some_and(|now| now.producer.client().fatal_error().is_some())
            {
                *now = Some(fresh);
            }
        }
    }
}

/// A batch whose outcome is open. What is left when it is dropped counts as refused.
struct Open<'a> {
    producer: &'a Producer,
    left: u64,
}

impl<'a> Open<'a> {
    fn begin(producer: &'a Producer, count: u64) -> Self {
        let mut books = producer.books();
        books.ledger.received += count;
        books.ledger.in_flight += count;
        drop(books);
        Open {
            producer,
            left: count,
        }
    }

    fn settle(&mut self, kept: u64, bytes: u64) {
        let mut books = self.producer.books();
        books.ledger.acknowledged += kept;
        books.ledger.in_flight -= kept;
        books.bytes += bytes;
        self.left -= kept;
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let mut books = self.producer.books();
        books.ledger.refused += self.left;
        books.ledger.in_flight -= self.left;
    }
}

fn fate(error: KafkaError) -> Fate {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize) => {
            Fate::TooLarge
        }
        _ => Fate::Failed(error),
    }
}

fn connect(topic: &Topic) -> Result<Client, KafkaError> {
    let mut config = topic.config();
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("message.timeout.ms", DELIVERED_WITHIN)
        .set("linger.ms", "2")
        .set("reconnect.backoff.max.ms", "2000")
        .set("compression.type", "lz4")
        .set("message.max.bytes", topic.limit().max(1000).to_string())
        .set("queue.buffering.max.messages", "1000000")
        .set("queue.buffering.max.kbytes", "262144");
    let quiet = Quiet::default();
    let producer = FutureProducer::from_config_and_context(&config, quiet.clone())?;
    Ok(Client { producer, quiet })
}
