//! Kafka, against a real broker.
#![cfg(feature = "kafka")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/servers.rs"]
mod servers;

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use self::servers::Kafka;

#[test]
fn the_broker_keeps_its_records_over_a_restart() {
    let Some(mut kafka) = Kafka::start("exporters kafka") else {
        return;
    };
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", kafka.brokers())
        .create()
        .unwrap();
    producer
        .send(BaseRecord::<(), str>::to("t").payload("x"))
        .unwrap();
    producer.flush(Duration::from_secs(60)).unwrap();
    kafka.kill();
    kafka.restart();
    let client = producer.client();
    let (low, high) = (0..3).fold((0, 0), |(low, high), partition| {
        let marks = client.fetch_watermarks("t", partition, Duration::from_secs(60));
        let (l, h) = marks.unwrap();
        (low + l, high + h)
    });
    assert_eq!((low, high), (0, 1));
}
