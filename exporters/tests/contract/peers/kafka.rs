//! librdkafka's own broker for tests, behind an address that may be away; read back with a consumer.
//!
//! It judges no content, so what a broker refuses is tested against a real one (`tests/kafka`).

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _, DefaultConsumerContext};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::{Memory, Mood, Peer};
use crate::fake_http;

const TOPIC: &str = "kubearmor-alerts";

pub(crate) struct Kafka {
    cluster: MockCluster<'static, DefaultProducerContext>,
    reader: Mutex<BaseConsumer<DefaultConsumerContext>>,
    memory: Memory,
    door: JoinHandle<()>,
}

impl Drop for Kafka {
    fn drop(&mut self) {
        self.door.abort();
    }
}

impl Peer for Kafka {
    const STEPS: &[&str] = &[
        "resolve",
        "connect",
        "authenticate",
        "topic",
        "write",
        "read back",
    ];

    async fn start(at: SocketAddr) -> Self {
        let cluster = MockCluster::new(1).expect("a cluster");
        cluster.create_topic(TOPIC, 1, 1).expect("a topic");
        let brokers = cluster.bootstrap_servers();
        let reader: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &brokers)
            .set("group.id", "readback")
            .set("enable.auto.commit", "false")
            .create()
            .expect("a consumer");
        let mut all = TopicPartitionList::new();
        all.add_partition_offset(TOPIC, 0, Offset::Beginning)
            .expect("a partition");
        reader.assign(&all).expect("assigned");
        // Clients begin here and are told the broker's own address.
        let listener = fake_http::listen(at).await;
        let door = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let brokers = brokers.clone();
                tokio::spawn(async move {
                    let mut broker = TcpStream::connect(brokers).await?;
                    tokio::io::copy_bidirectional(&mut client, &mut broker).await
                });
            }
        });
        Kafka {
            cluster,
            reader: Mutex::new(reader),
            memory: Memory::new(at),
            door,
        }
    }

    fn settings(at: &str) -> String {
        format!("{{type: kafka, brokers: ['{at}'], timeout: 5s}}")
    }

    fn memory(&self) -> &Memory {
        &self.memory
    }

    fn feels(&self, mood: Mood) -> bool {
        match mood {
            Mood::Taking => self.cluster.broker_up(1).expect("up"),
            Mood::Breaking => self.cluster.broker_down(1).expect("down"),
            Mood::Busy | Mood::Refusing(_) | Mood::AllBut(_) => return false,
        }
        true
    }

    fn has(&self) -> Vec<String> {
        self.read();
        self.memory.ids()
    }
}

impl Kafka {
    /// Takes what is new in the topic.
    fn read(&self) {
        let reader = self.reader.lock().unwrap();
        while let Some(record) = reader.poll(Duration::from_millis(300)) {
            let Ok(record) = record else { continue };
            let headers = record.headers().expect("headers");
            let id = headers.iter().find(|header| header.key == "event-id");
            let id = id.and_then(|header| header.value).expect("an id");
            let event: Value =
                serde_json::from_slice(record.payload().expect("a value")).expect("JSON");
            let pod = event["PodName"].as_str().unwrap_or_default();
            let id = String::from_utf8(id.to_vec()).expect("text");
            self.memory.keep([(id, pod.to_owned())]);
        }
    }
}
