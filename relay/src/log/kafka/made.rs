//! A topic is made where there is none, and asked what it takes.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::error::RDKafkaErrorCode;

use super::BadLog;
use super::quiet::Quiet;

/// How long the brokers may take to make it.
const START: Duration = Duration::from_secs(30);
/// How long they may take to tell what it takes.
const ASK: Duration = Duration::from_secs(10);
/// What brokers take unless told otherwise (`message.max.bytes`).
const USUAL_LIMIT: usize = 1_048_588;

/// A topic to be made.
pub(super) struct Made {
    pub(super) partitions: u32,
    pub(super) replication: Option<u32>,
    pub(super) settings: Vec<(&'static str, String)>,
}

impl Made {
    /// Makes it where there is none; its bounds.
    pub(super) fn make(&self, config: &ClientConfig, topic: &str) -> Result<Bounds, BadLog> {
        let admin = AdminClient::from_config_and_context(config, Quiet::default())
            .map_err(|e| BadLog::new(e.to_string()))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| BadLog::new(e.to_string()))?;
        runtime.block_on(async {
            self.create(&admin, topic).await?;
            Ok(Bounds::of(&admin, topic).await)
        })
    }

    async fn create(&self, admin: &AdminClient<Quiet>, topic: &str) -> Result<(), BadLog> {
        let partitions = i32::try_from(self.partitions).unwrap_or(i32::MAX);
        let replication = self
            .replication
            .and_then(|n| i32::try_from(n).ok())
            .unwrap_or(-1);
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(replication));
        let new = self
            .settings
            .iter()
            .fold(new, |new, (key, value)| new.set(key, value));
        let options = AdminOptions::new().operation_timeout(Some(START));
        let made = admin.create_topics([&new], &options).await;
        match made.map(|mut made| made.pop()) {
            Ok(Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists)))) => Ok(()),
            // Whoever may not make topics may still use one.
            Ok(Some(Err((_, why)))) => {
                tracing::debug!(topic, %why, "the topic is not made");
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(error) => Err(BadLog::new(format!("topic {topic}: {error}"))),
        }
    }
}

/// What the topic says of itself, or what is usual where it may not be asked.
pub(super) struct Bounds {
    /// What a record may weigh.
    pub(super) limit: usize,
    /// Copies that have to be in sync.
    pub(super) in_sync: usize,
    /// What becomes of old records; empty: not known.
    pub(super) cleanup: String,
}

impl Bounds {
    async fn of(admin: &AdminClient<Quiet>, topic: &str) -> Bounds {
        let options = AdminOptions::new().request_timeout(Some(ASK));
        let told = admin
            .describe_configs([&ResourceSpecifier::Topic(topic)], &options)
            .await;
        let told = told
            .ok()
            .and_then(|mut told| told.pop())
            .and_then(Result::ok);
        let word = |name: &str| told.as_ref()?.get(name)?.value.clone();
        let number = |name: &str| word(name)?.parse().ok();
        Bounds {
            limit: number("max.message.bytes").unwrap_or(USUAL_LIMIT),
            in_sync: number("min.insync.replicas").unwrap_or(1),
            cleanup: word("cleanup.policy").unwrap_or_default(),
        }
    }
}
