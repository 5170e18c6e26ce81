//! The spool's bounds: what goes is the oldest, and it is counted.
#![allow(clippy::unwrap_used, clippy::panic)] // reason: a test that fails says so

use std::path::Path;

use bytes::Bytes;
use proto::Kind;
use sensor_bpf::lost::{Class, Losses, Place};
use sensor_bpf::spool::{Outbound, Spool, Writer};
use sensor_bpf::teller::Outgoing;
use tokio::sync::mpsc;

const BOUND: u64 = 16 << 20;
const EVENT: usize = 64 << 10;

fn event(class: Class, number: u64) -> Outgoing {
    let kind = if class == Class::Verdict {
        Kind::Alert
    } else {
        Kind::Log
    };
    let mut payload = vec![0; EVENT];
    payload[..8].copy_from_slice(&number.to_be_bytes());
    Outgoing {
        class,
        kind,
        time: number,
        payload: payload.into(),
    }
}

fn number(payload: &Bytes) -> u64 {
    u64::from_be_bytes(payload[..8].try_into().unwrap())
}

/// Writes events 1 to `count` and waits until they are on disk.
async fn write(writer: Writer, class: Class, count: u64) {
    let (sender, queue) = mpsc::channel(16);
    let sending = async move {
        for number in 1..=count {
            sender.send(event(class, number)).await.unwrap();
        }
    };
    tokio::join!(sending, writer.run(queue));
}

/// Opens the spool, writes telemetry, and gives all streams.
async fn opened(dir: &Path, losses: &Losses, count: u64) -> Vec<Outbound> {
    let Spool {
        telemetry, streams, ..
    } = Spool::open(dir, BOUND, losses).unwrap();
    write(telemetry, Class::Telemetry, count).await;
    streams
}

fn take_all(stream: &mut Outbound) -> Vec<(u64, u64)> {
    let mut taken = Vec::new();
    while let Some(batch) = stream.next_batch() {
        let size: usize = batch.events.iter().map(|event| event.payload.len()).sum();
        assert!(size <= proto::MAX_BATCH && batch.events.len() <= 1000);
        taken.extend((batch.first..).zip(batch.events.iter().map(|event| number(&event.payload))));
    }
    taken
}

fn size(dir: &Path) -> u64 {
    let files = |path: &Path| {
        std::fs::read_dir(path)
            .unwrap()
            .flatten()
            .map(|e| e.metadata().unwrap().len())
            .sum::<u64>()
    };
    std::fs::read_dir(dir)
        .unwrap()
        .flatten()
        .map(|entry| files(&entry.path()))
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn sequences_are_the_order_of_arrival_from_one() {
    let (dir, losses) = (tempfile::tempdir().unwrap(), Losses::default());
    let mut streams = opened(dir.path(), &losses, 40).await;
    let stream = streams.last_mut().unwrap();
    assert_eq!(
        take_all(stream),
        (1..=40).map(|n| (n, n)).collect::<Vec<_>>()
    );
    assert_eq!(take_all(stream), []);
    stream.rewind();
    assert_eq!(take_all(stream).len(), 40);
    assert!(losses.totals().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_bound_the_oldest_go_and_are_counted() {
    let (dir, losses) = (tempfile::tempdir().unwrap(), Losses::default());
    let mut streams = opened(dir.path(), &losses, 400).await;
    let stream = streams.last_mut().unwrap();
    let taken = take_all(stream);
    let lost = losses.totals()[&(Place::Spool, Class::Telemetry)];
    assert!(
        lost > 0 && taken.len() as u64 == 400 - lost,
        "{} taken, {lost} lost",
        taken.len()
    );
    assert_eq!(taken, (lost + 1..=400).map(|n| (n, n)).collect::<Vec<_>>());
    let told = losses.take();
    assert_eq!(told.iter().map(|loss| loss.count).sum::<u64>(), lost);
    assert_eq!(
        told[0].numbered.map(|(_, first, last)| (first, last)),
        Some((1, lost))
    );
    assert!(size(dir.path()) <= BOUND, "{} bytes", size(dir.path()));
    assert!(stream.acknowledge(400));
    assert!(stream.is_drained());
    stream.save().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_relay_has_out_of_order_is_not_sent_again() {
    let (dir, losses) = (tempfile::tempdir().unwrap(), Losses::default());
    let mut streams = opened(dir.path(), &losses, 20).await;
    let stream = streams.last_mut().unwrap();
    take_all(stream);
    stream.resume(&[1..4, 6..8, 19..21]);
    let again: Vec<u64> = take_all(stream)
        .iter()
        .map(|(sequence, _)| *sequence)
        .collect();
    assert_eq!(again, [4, 5].into_iter().chain(8..19).collect::<Vec<_>>());
    assert!(stream.acknowledge(18));
    assert!(stream.is_drained());
    assert!(!stream.acknowledge(21), "never written");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledged_position_survives_a_restart() {
    let (dir, losses) = (tempfile::tempdir().unwrap(), Losses::default());
    for mut stream in opened(dir.path(), &losses, 20).await {
        if stream.class() == Class::Telemetry {
            assert!(stream.acknowledge(12));
        }
        stream.close().await;
    }
    let mut streams = opened(dir.path(), &losses, 0).await;
    assert_eq!(
        streams.len(),
        3,
        "the empty stream of verdicts is gone, that of telemetry is not"
    );
    let left = &mut streams[0];
    assert!(!left.is_live());
    assert_eq!(
        take_all(left),
        (13..=20).map(|n| (n, n)).collect::<Vec<_>>()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_earlier_starts_share_half_of_the_bound_and_the_oldest_go() {
    let (dir, losses) = (tempfile::tempdir().unwrap(), Losses::default());
    for _ in 0..4 {
        for stream in opened(dir.path(), &losses, 60).await {
            stream.close().await;
        }
        assert!(size(dir.path()) <= BOUND, "{} bytes", size(dir.path()));
    }
    let streams = opened(dir.path(), &losses, 0).await;
    let left = streams.iter().filter(|stream| !stream.is_live()).count();
    assert_eq!(left, 2, "{streams:?}");
    assert_eq!(losses.totals()[&(Place::Spool, Class::Telemetry)], 120);
    let told = losses.take();
    assert!(told.iter().all(|loss| {
        loss.numbered
            .is_some_and(|(_, first, last)| (first, last) == (1, 60))
    }));
}
