//! Spool and link against a relay that pauses, refuses, forgets and dies.
#![allow(clippy::unwrap_used, clippy::panic)] // reason: a test that fails says so

mod support;

use std::time::Duration;

use proto::Kind;
use proto::feeder::{Log, Message};
use support::kernel::{FakeKernel, exec, open};
use support::relay::{FakeRelay, Memory};
use support::{Client, Running, eventually, settings};

/// A workload that lives as long as what is returned.
async fn workload(running: &Running, name: &str) -> (Client, u32) {
    let mut client = Client::connect(&running.socket).await;
    let ready = client.register("ns", name, &[("app", "web")]).await;
    let index = ready["workload"].as_u64().unwrap();
    (client, u32::try_from(index).unwrap())
}

/// The workload's image opens files called 0 … count-1.
fn burst(running: &Running, index: u32, from: usize, count: usize) {
    running.kernel.report(exec(index, 1, "/bin/cat x"));
    for number in from..from + count {
        running
            .kernel
            .report(open(index, 1, &format!("/data/{number}")));
    }
}

/// Which files the relay was told of, sorted.
fn told(memory: &Memory) -> Vec<usize> {
    let logs: Vec<Log> = memory.ledger().of(Kind::Log);
    let numbers = logs
        .iter()
        .filter_map(|log| log.resource.strip_prefix("/data/")?.parse().ok());
    let mut numbers: Vec<usize> = numbers.collect();
    numbers.sort_unstable();
    numbers
}

async fn all_told(memory: &Memory, count: usize) {
    eventually(&format!("{count} files are told"), || {
        (told(memory).len() >= count).then_some(())
    })
    .await;
    assert_eq!(told(memory), (0..count).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn events_arrive_once_in_order_in_batches_that_keep_to_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let memory = Memory::default();
    let relay = FakeRelay::start(&memory);
    let running = Running::start(settings(dir.path(), &[relay.url()]), FakeKernel::default());
    let (_life, index) = workload(&running, "a").await;
    burst(&running, index, 0, 5000);
    all_told(&memory, 5000).await;
    let ledger = memory.ledger();
    assert_eq!((ledger.duplicates, ledger.oversize), (0, 0));
    let logs: Vec<Log> = ledger.of(Kind::Log);
    let in_order: Vec<_> = logs.iter().map(|log| log.resource.clone()).collect();
    assert_eq!(in_order[0], "/bin/cat x");
    assert_eq!(
        in_order[1..],
        (0..5000).map(|n| format!("/data/{n}")).collect::<Vec<_>>()
    );
    assert_eq!(
        (logs[7].source.as_str(), logs[7].cluster_name.as_str()),
        ("/bin/cat x", "test")
    );
    let sequences: Vec<u64> = ledger
        .events
        .keys()
        .map(|(_, sequence)| *sequence)
        .collect();
    assert_eq!(sequences, (1..=5001).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_dies_and_comes_back_misses_nothing_and_gets_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let memory = Memory::default();
    let relay = FakeRelay::start(&memory);
    let running = Running::start(settings(dir.path(), &[relay.url()]), FakeKernel::default());
    let (_life, index) = workload(&running, "a").await;
    burst(&running, index, 0, 1000);
    eventually("something arrived", || {
        (!told(&memory).is_empty()).then_some(())
    })
    .await;
    let address = relay.kill();
    burst(&running, index, 1000, 1000);
    let _relay = FakeRelay::start_at(&memory, address);
    all_told(&memory, 2000).await;
    assert_eq!(memory.ledger().duplicates, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_forgot_gets_what_it_never_acknowledged_again() {
    let dir = tempfile::tempdir().unwrap();
    let memory = Memory::default();
    memory.ledger().silent = true;
    let relay = FakeRelay::start(&memory);
    let running = Running::start(settings(dir.path(), &[relay.url()]), FakeKernel::default());
    let (_life, index) = workload(&running, "a").await;
    burst(&running, index, 0, 10);
    eventually("they arrived", || (told(&memory).len() == 10).then_some(())).await;
    let address = relay.kill();
    memory.ledger().silent = false;
    memory.ledger().forgetful = true;
    let _relay = FakeRelay::start_at(&memory, address);
    eventually("they are sent again", || {
        (memory.ledger().duplicates >= 10).then_some(())
    })
    .await;
    assert_eq!(told(&memory).len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_window_bounds_what_an_unanswering_relay_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let memory = Memory::default();
    memory.ledger().silent = true;
    let relay = FakeRelay::start(&memory);
    let running = Running::start(settings(dir.path(), &[relay.url()]), FakeKernel::default());
    let (_life, index) = workload(&running, "a").await;
    burst(&running, index, 0, 15_000);
    eventually("batches arrived", || {
        (memory.ledger().batches >= 8).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(memory.ledger().batches, 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_pause_everything_unacknowledged_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let memory = Memory::default();
    memory.ledger().pause = Some(100);
    let relay = FakeRelay::start(&memory);
    let running = Running::start(settings(dir.path(), &[relay.url()]), FakeKernel::default());
    let (_life, index) = workload(&running, "a").await;
    burst(&running, index, 0, 100);
    all_told(&memory, 100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_event_is_counted_told_and_stops_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let memory = Memory::default();
    memory.ledger().refuse = Some("/data/5");
    let relay = FakeRelay::start(&memory);
    let running = Running::start(settings(dir.path(), &[relay.url()]), FakeKernel::default());
    let (_life, index) = workload(&running, "a").await;
    burst(&running, index, 0, 10);
    let lost = eventually("the loss is told", || {
        let messages: Vec<Message> = memory.ledger().of(Kind::Message);
        messages.into_iter().find_map(|message| message.lost)
    })
    .await;
    assert_eq!(told(&memory), [0, 1, 2, 3, 4, 6, 7, 8, 9]);
    assert_eq!(
        (lost.r#where.as_str(), lost.class.as_str(), lost.count),
        ("rejected", "telemetry", 1)
    );
    assert_eq!((lost.first, lost.last, lost.stream.len()), (7, 7, 8));
    let counter = eventually("health tells it", || {
        memory
            .ledger()
            .health
            .as_ref()?
            .counters
            .get("lost_rejected_telemetry")
            .copied()
    })
    .await;
    assert_eq!(counter, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_kernels_ring_lost_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let memory = Memory::default();
    let relay = FakeRelay::start(&memory);
    let running = Running::start(settings(dir.path(), &[relay.url()]), FakeKernel::default());
    running.kernel.state().lost = [0, 17];
    let message = eventually("the loss is told", || {
        memory.ledger().of::<Message>(Kind::Message).pop()
    })
    .await;
    assert_eq!(message.level, "WARN");
    let lost = message.lost.unwrap();
    assert_eq!(
        (lost.r#where.as_str(), lost.class.as_str(), lost.count),
        ("ring", "telemetry", 17)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stopped_sensor_could_not_deliver_is_delivered_after_its_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let memory = Memory::default();
    let relay = FakeRelay::start(&memory);
    let config = settings(dir.path(), &[relay.url()]);
    let running = Running::start(config.clone(), FakeKernel::default());
    let (_life, index) = workload(&running, "a").await;
    let away = relay.kill();
    burst(&running, index, 0, 100);
    // The engine has read them when the next registration is answered.
    let _ = workload(&running, "b").await;
    running.stop().await;
    let left = std::fs::read_dir(dir.path().join("data/spool"))
        .unwrap()
        .count();
    assert_eq!(
        left, 1,
        "the drained stream of verdicts goes, that of telemetry stays"
    );

    let _relay = FakeRelay::start_at(&memory, away);
    let running = Running::start(config, FakeKernel::default());
    all_told(&memory, 100).await;
    eventually("the old stream's folder goes", || {
        let folders = std::fs::read_dir(dir.path().join("data/spool"))
            .unwrap()
            .count();
        (folders == 2).then_some(())
    })
    .await;
    assert_eq!(memory.ledger().duplicates, 0);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn relays_are_tried_in_turn() {
    let dir = tempfile::tempdir().unwrap();
    let memory = Memory::default();
    let dead = FakeRelay::start(&memory).kill();
    let relay = FakeRelay::start(&memory);
    let relays = [format!("http://{dead}"), relay.url()];
    let running = Running::start(settings(dir.path(), &relays), FakeKernel::default());
    eventually("the second is greeted", || {
        (!memory.ledger().hellos.is_empty()).then_some(())
    })
    .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_greeting_says_who_and_what_the_sensor_is() {
    let dir = tempfile::tempdir().unwrap();
    let memory = Memory::default();
    let relay = FakeRelay::start(&memory);
    let running = Running::start(settings(dir.path(), &[relay.url()]), FakeKernel::default());
    let hello = eventually("a greeting", || memory.ledger().hellos.pop()).await;
    let kernel = hello.kernel.unwrap();
    assert_eq!(
        (hello.node.as_str(), hello.version, hello.sensor.len()),
        ("node-1", 1, 32)
    );
    assert_eq!((kernel.tier, kernel.reason.as_str()), (3, "it is a fake"));
    assert_eq!((kernel.abilities.len(), hello.streams.len()), (4, 2));
    assert!(!kernel.release.is_empty() && hello.rules.is_empty());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_of_the_next_version_is_understood_and_one_beyond_it_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let memory = Memory::default();
    memory.ledger().newer = 2;
    let relay = FakeRelay::start(&memory);
    let running = Running::start(settings(dir.path(), &[relay.url()]), FakeKernel::default());
    let (_life, index) = workload(&running, "a").await;
    burst(&running, index, 0, 10);
    eventually("the sensor tries", || {
        (memory.ledger().hellos.len() > 1).then_some(())
    })
    .await;
    assert!(
        told(&memory).is_empty(),
        "what it cannot understand it sends nothing"
    );
    memory.ledger().newer = 1;
    all_told(&memory, 10).await;
}
