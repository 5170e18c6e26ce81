//! A thread that reads the topic from a place on, and hands on what arrives, a block at a time. What all of the log needs and
//! what this relay took itself are followed alike.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use journal::Seq;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use tokio::sync::watch;

use super::BadLog;
use super::cut::Cut;
use super::quiet::Quiet;
use super::record::Read;
use super::topic::Topic;

/// A block is handed on when it has so many records, bytes, or is so old.
const BLOCK_RECORDS: usize = 512;
const BLOCK_BYTES: usize = 64 << 10;
const BLOCK_AGE: Duration = Duration::from_millis(20);
/// How long nothing is waited for before the thread looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(200);
/// How often it looks whether something is wrong.
const LOOK_AROUND: Duration = Duration::from_secs(5);

/// Tells threads to stop; a cheap handle.
#[derive(Clone, Default)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    pub(super) fn tell(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_told(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Follows the topic from `from` on until told to stop. `lacks` says what it means that nothing can be read.
pub(super) fn follow(
    topic: &Topic,
    from: &Cut,
    stop: Stop,
    lacks: &'static str,
    mut take: impl FnMut(Vec<Read>) + Send + 'static,
) -> Result<(), BadLog> {
    let bad = |error: &dyn std::fmt::Display| BadLog::new(error.to_string());
    let consumer = topic.reader(from).map_err(|e| bad(&e))?;
    let life = move || {
        let (mut looked, mut told) = (Instant::now(), None);
        while !stop.is_told() {
            let records = collect(&consumer);
            if !records.is_empty() {
                consumer.context().fine();
                take(records);
            }
            if looked.elapsed() > LOOK_AROUND {
                looked = Instant::now();
                tell(&consumer, &mut told, lacks);
            }
        }
    };
    let thread = std::thread::Builder::new().name("kafka-follow".to_owned());
    thread.spawn(life).map(drop).map_err(|e| bad(&e))
}

/// Says what is wrong, once.
fn tell(consumer: &BaseConsumer<Quiet>, told: &mut Option<String>, lacks: &str) {
    let trouble = consumer.context().trouble();
    if let Some(why) = trouble.as_ref().filter(|_| trouble != *told) {
        tracing::warn!(why, "the log is not read at present; {lacks}");
    }
    *told = trouble;
}

/// What arrived, as one block.
fn collect(consumer: &BaseConsumer<Quiet>) -> Vec<Read> {
    let (mut records, mut bytes, mut since) = (Vec::new(), 0, None);
    while records.len() < BLOCK_RECORDS && bytes < BLOCK_BYTES {
        let patience = match since {
            None => LOOK,
            Some(since) => BLOCK_AGE.saturating_sub(Instant::now().duration_since(since)),
        };
        match consumer.poll(patience) {
            Some(Ok(message)) => {
                let read = Read::new(&message);
                bytes += read.weight();
                records.push(read);
                since.get_or_insert_with(Instant::now);
            }
            // librdkafka tells why, and goes on by itself.
            Some(Err(error)) => tracing::debug!(%error, "reading the log"),
            None => break,
        }
    }
    records
}

/// Waits until a record may be read. False: there will be no more.
pub(super) async fn arrived(committed: &mut watch::Receiver<Seq>, next: u64) -> bool {
    let more = committed.wait_for(|committed| committed.0 >= next).await;
    more.is_ok()
}
