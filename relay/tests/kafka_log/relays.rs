//! Two relays, one broker, one Elasticsearch: either relay is killed again and again, the broker dies, a relay freezes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::elasticsearch::{Elasticsearch, Product};
use crate::program::Program;
use crate::sensor::Sensor;
use crate::servers::Kafka;

const SENSORS: u8 = 8;
const KILLS: usize = 6;
/// How long a group waits for a relay that says nothing.
const SESSION: Duration = Duration::from_secs(10);
/// Kills, a broker that dies, a relay that freezes and one that wakes.
const BREAKS: usize = KILLS + 3;
const LONG: Duration = Duration::from_secs(120);
const DELIVERED: &str = r#"cresset_sink_delivered_total{sink="siem",type="elasticsearch"}"#;
const PENDING: &str = r#"cresset_sink_pending{sink="siem",type="elasticsearch"}"#;
const COUNTED: &str = r#"kubearmor_alerts_in_namespace_total{NamespaceName="shop"}"#;

fn total(sensors: &[Sensor]) -> u64 {
    sensors
        .iter()
        .map(|sensor| sensor.acknowledged.load(Ordering::Relaxed))
        .sum()
}

async fn more(sensors: &[Sensor], count: u64) {
    let (goal, deadline) = (total(sensors) + count, Instant::now() + LONG);
    while total(sensors) < goal {
        assert!(
            Instant::now() < deadline,
            "{} of {goal} acknowledged",
            total(sensors)
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_or_freeze_either_relay_or_the_broker_and_every_acknowledged_event_is_in_elasticsearch_once()
 {
    let suite = "relay kafka_log kills";
    let Some(mut kafka) = Kafka::start(suite) else {
        return;
    };
    let Some(elastic) = Elasticsearch::start(suite, Product::Elasticsearch, &[]) else {
        return;
    };
    let sinks = format!(
        "sinks:\n  siem: {{type: elasticsearch, endpoints: ['{}'], start: beginning, batch: {{max_delay: 50ms}}, retry: {{initial: 50ms, max: 1s}}, filter: {{kinds: [alert]}}}}\n  counts: {{type: prometheus, start: beginning}}\n",
        elastic.url()
    );
    let mut relays = [
        Program::new(&kafka.brokers(), &sinks),
        Program::new(&kafka.brokers(), &sinks),
    ];
    let stop = Arc::new(AtomicBool::new(false));
    let sensors: Vec<Sensor> = (0..SENSORS).map(Sensor::new).collect();
    let links = [Arc::clone(&relays[0].link), Arc::clone(&relays[1].link)];
    let running: Vec<_> = sensors
        .iter()
        .enumerate()
        .map(|(n, sensor)| sensor.run(links.clone(), Arc::clone(&stop), n))
        .collect();
    more(&sensors, 500).await;
    for kill in 0..KILLS {
        let relay = &mut relays[kill % 2];
        relay.kill();
        more(&sensors, 150).await;
        relay.start();
        more(&sensors, 150).await;
    }
    kafka.kill();
    kafka.restart();
    more(&sensors, 150).await;
    // Frozen for longer than its group waits: the other has its share, and what it still has to say comes too late.
    relays[0].freeze();
    let frozen = Instant::now();
    more(&sensors, 150).await;
    while frozen.elapsed() < SESSION + Duration::from_secs(5) {
        more(&sensors, 1).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    relays[0].wake();
    more(&sensors, 150).await;
    // Both are there: each delivers its share of what comes now.
    let before = [
        relays[0].figure(DELIVERED).await,
        relays[1].figure(DELIVERED).await,
    ];
    let deadline = Instant::now() + LONG;
    loop {
        let now = [
            relays[0].figure(DELIVERED).await,
            relays[1].figure(DELIVERED).await,
        ];
        if now[0] > before[0] && now[1] > before[1] {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "the work is not shared: {before:?} {now:?}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    stop.store(true, Ordering::Relaxed);
    for sensor in running {
        sensor.await.unwrap();
    }
    let acknowledged: BTreeSet<String> = sensors
        .iter()
        .flat_map(Sensor::ids)
        .map(|id| id.to_string())
        .collect();
    let stored = loop {
        let stored = elastic.ids("kubearmor-alerts*").await;
        if acknowledged.iter().all(|id| stored.contains_key(id)) {
            break stored;
        }
        let missing = acknowledged.iter().filter(|id| !stored.contains_key(*id));
        assert!(
            Instant::now() < deadline + LONG,
            "{} of {} acknowledged events are missing; pending {} {}",
            missing.count(),
            acknowledged.len(),
            relays[0].figure(PENDING).await,
            relays[1].figure(PENDING).await,
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    assert!(
        stored.values().all(|count| *count == 1),
        "an event is there twice"
    );
    // What was in the topic but never acknowledged may be there, too: one batch a sensor at most for each kill.
    assert!(stored.len() <= acknowledged.len() + 10 * usize::from(SENSORS) * (BREAKS + 1));
    // Each counts what it took itself; all together every record of the topic once, resent ones twice.
    let counted = loop {
        let counted = relays[0].figure(COUNTED).await + relays[1].figure(COUNTED).await;
        if counted >= acknowledged.len() as f64 || Instant::now() > deadline + LONG {
            break counted;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert!(
        counted >= acknowledged.len() as f64,
        "{counted} of {}",
        acknowledged.len()
    );
    assert!(
        counted <= (stored.len() + 10 * usize::from(SENSORS) * (BREAKS + 1)) as f64,
        "{counted}"
    );
    println!(
        "{} acknowledged, {} stored, {counted} counted, {KILLS} kills",
        acknowledged.len(),
        stored.len()
    );
}
