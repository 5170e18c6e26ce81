//! `cresset sink test`: whether a broker can be reached, lets us in, has the topic and takes a record, and whether it is there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::{Offset, TopicPartitionList};

use super::connection::Connection;
use super::lane::{Lane, Topic, Trouble};
use super::sink::{Kafka, Packing};
use super::verdict::is_refusal;
use crate::dial::reach;
use crate::{Batch, Carried, Failed, Sink as _, Trial};

/// For one question. A step as a whole has 15 s.
const ASK: Duration = Duration::from_secs(6);
/// For the record to be read.
const READ: Duration = Duration::from_secs(10);

pub(super) async fn run(sink: &Kafka, event: Carried, trial: &Trial) -> Result<(), Failed> {
    let connection = sink.client.connection();
    reach(trial, &connection.hosts()).await?;
    let topic = sink.records.topic(&event).into_owned();
    let about = ask(sink, &topic).await;
    if connection.tls.is_some() {
        let encrypted = encrypted(&about);
        trial.step("TLS", async { encrypted }).await?;
    }
    let let_in = let_in(about, connection);
    let about = trial.step("authenticate", async { let_in }).await?;
    trial.step("topic", async { there(&topic, about) }).await?;
    let reader = Reader::at_the_end(sink, &topic, about.partitions).await;
    let batch = Arc::new(Batch::new(vec![event.clone()]));
    trial
        .write_told(sink.send(batch), "all in-sync replicas have it")
        .await?;
    let read = async { reader?.find(event.id().to_string()).await };
    trial.step("read back", read).await
}

/// Asks with a producer of its own, so that what it is told is about now.
async fn ask(sink: &Kafka, topic: &str) -> Result<Topic, Trouble> {
    let (config, topic) = (sink.producer(Packing::Alone), topic.to_owned());
    let failed = |reason: String| Trouble {
        code: Code::Fail,
        reason,
    };
    let asked = tokio::task::spawn_blocking(move || {
        let lane = Lane::open(&config).map_err(|e| failed(e.to_string()))?;
        let about = lane.about(&topic, ASK)?;
        match about.error {
            // A topic that brokers make when they are asked for it is there a moment later.
            Some(Code::LeaderNotAvailable | Code::UnknownTopicOrPartition) => {
                std::thread::sleep(Duration::from_secs(1));
                lane.about(&topic, ASK)
            }
            _ => Ok(about),
        }
    });
    asked.await.unwrap_or_else(|e| Err(failed(e.to_string())))
}

fn encrypted(about: &Result<Topic, Trouble>) -> Result<((), String), String> {
    match about {
        Err(trouble) if is_encryption(trouble) => Err(format!(
            "{}; check tls.ca_file (the authority of the brokers' certificates), tls.cert_file and tls.key_file, and the port",
            trouble.reason
        )),
        // What else is wrong comes after it.
        _ => Ok(((), "the brokers' certificate is good".to_owned())),
    }
}

/// librdkafka tells a handshake that fails as a broken connection, and says in words what it was.
fn is_encryption(trouble: &Trouble) -> bool {
    let says = |words: &str| trouble.reason.contains(words);
    trouble.code == Code::SSL || says("SSL_HANDSHAKE") || says("SSL routines")
}

fn let_in(
    about: Result<Topic, Trouble>,
    connection: &Connection,
) -> Result<(Topic, String), String> {
    let whom = match &connection.sasl {
        Some(sasl) => format!("as {}", sasl.username),
        None => "without a name".to_owned(),
    };
    match about {
        Ok(about) => Ok((about, format!("{whom}; brokers: {}", about.brokers))),
        Err(trouble) if is_refusal(trouble.code) => Err(format!(
            "{}; check sasl: the username, the password's file and the mechanism",
            trouble.reason
        )),
        Err(trouble) => Err(format!(
            "{}; what answers may want TLS or SASL, or name addresses that cannot be reached from here (advertised.listeners)",
            trouble.reason
        )),
    }
}

fn there(topic: &str, about: Topic) -> Result<((), String), String> {
    match about.error {
        None => {
            let partitions = about.partitions;
            Ok(((), format!("{topic}, partitions: {partitions}")))
        }
        Some(Code::TopicAuthorizationFailed) => Err(format!(
            "this user may not see topic {topic}; allow it to describe and to write it"
        )),
        Some(Code::UnknownTopicOrPartition) => Err(format!("there is no topic {topic}; create it")),
        Some(code) => Err(format!("{topic}: {code}")),
    }
}

/// Reads what comes into a topic from some moment on.
struct Reader(BaseConsumer);

impl Reader {
    /// From now on.
    async fn at_the_end(sink: &Kafka, topic: &str, partitions: usize) -> Result<Self, String> {
        let mut config = sink.client.config();
        config
            // Partitions are assigned by hand: nobody joins the group and nothing is committed.
            .set("group.id", "cresset-sink-test")
            .set("enable.auto.commit", "false");
        let topic = topic.to_owned();
        let made = tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer = config.create()?;
            let mut ends = TopicPartitionList::new();
            for partition in 0..i32::try_from(partitions).unwrap_or(i32::MAX) {
                let (_, end) = consumer.fetch_watermarks(&topic, partition, ASK)?;
                ends.add_partition_offset(&topic, partition, Offset::Offset(end))?;
            }
            consumer.assign(&ends)?;
            Ok::<_, rdkafka::error::KafkaError>(Reader(consumer))
        });
        let made = made.await.map_err(|e| e.to_string())?;
        made.map_err(|e| e.to_string())
    }

    /// Waits for the record of this event.
    async fn find(self, id: String) -> Result<((), String), String> {
        let found = tokio::task::spawn_blocking(move || self.find_now(&id));
        found.await.map_err(|e| e.to_string())?.map(|at| ((), at))
    }

    fn find_now(&self, id: &str) -> Result<String, String> {
        let end = Instant::now() + READ;
        while Instant::now() < end {
            match self.0.poll(Duration::from_millis(200)) {
                None => {}
                Some(Err(error)) if is_forbidden(error.rdkafka_error_code()) => {
                    return Ok("this user may write and not read".to_owned());
                }
                // Others come and go.
                Some(Err(_)) => {}
                Some(Ok(record)) => {
                    let headers = record.headers().into_iter().flat_map(|all| all.iter());
                    let mut ids = headers.filter(|header| header.key == "event-id");
                    if ids.any(|header| header.value == Some(id.as_bytes())) {
                        let (partition, offset) = (record.partition(), record.offset());
                        return Ok(format!("partition {partition}, offset {offset}"));
                    }
                }
            }
        }
        Err(format!(
            "the brokers took it, and it was not read within {} s",
            READ.as_secs()
        ))
    }
}

fn is_forbidden(code: Option<Code>) -> bool {
    matches!(
        code,
        Some(Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed)
    )
}
