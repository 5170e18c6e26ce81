//! Prints how fast the journal appends with `fdatasync`, and reads, in a directory.
//!
//! `throughput DIR [records per append] [appends in flight] [seconds]`

#![allow(
    clippy::unwrap_used,
    reason = "a program for measuring: any failure ends it"
)]

use std::{
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use journal::{Config, Journal, RealDisk, Record, Seq};

const PAYLOAD: usize = 725;

/// CPU time of this process so far, user and system, from `/proc/self/stat` (fields 14 and 15, in ticks of 10 ms).
fn cpu() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

fn line(what: &str, records: u64, took: Duration, cpu: Duration) {
    let rate = records as f64 / took.as_secs_f64();
    let each = cpu.as_nanos() as f64 / records as f64;
    let bytes = rate * PAYLOAD as f64 / 1e6;
    println!("{what:<28} {rate:>12.0} records/s {bytes:>8.0} MB/s {each:>8.0} ns CPU each");
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(
        arguments
            .next()
            .unwrap_or_else(|| "journal-throughput".to_owned()),
    );
    let mut number = |default: u64| arguments.next().map_or(default, |a| a.parse().unwrap());
    let (batch, in_flight, seconds) = (number(100), number(64), number(5));
    let config = Config {
        max_size: 4 << 30,
        ..Config::default()
    };
    let disk = Arc::new(RealDisk::open(&dir).unwrap());
    let (journal, _) = Journal::open(disk, config, Box::new(())).unwrap();
    let from = journal.committed().next();

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let (begun, cpu_before) = (Instant::now(), cpu());
    let mut waits: Vec<Duration> = runtime.block_on(async {
        let tasks = (0..in_flight).map(|_| tokio::spawn(appender(journal.clone(), batch, seconds)));
        let mut waits = Vec::new();
        for task in tasks.collect::<Vec<_>>() {
            waits.extend(task.await.unwrap());
        }
        waits
    });
    let appended = journal.committed().0 + 1 - from.0;
    line("append", appended, begun.elapsed(), cpu() - cpu_before);
    waits.sort_unstable();
    let at = |part: usize| waits[(waits.len() * part / 1000).min(waits.len() - 1)];
    let stats = journal.stats();
    println!(
        "{:<28} p50 {:?}, p99 {:?}, p99.9 {:?}; {} groups of {} records",
        "answer after",
        at(500),
        at(990),
        at(999),
        stats.groups,
        appended / stats.groups.max(1)
    );

    let (begun, cpu_before) = (Instant::now(), cpu());
    let mut reader = journal.reader(journal.first().max(from));
    let (mut read, mut bytes) = (0, 0);
    loop {
        let block = reader.next(256 << 10).unwrap();
        if block.is_empty() {
            break;
        }
        read += block.entries.len() as u64;
        bytes += block.entries.iter().map(|e| e.payload.len()).sum::<usize>();
    }
    line("read", read, begun.elapsed(), cpu() - cpu_before);
    assert_eq!(bytes as u64, read * PAYLOAD as u64);
    assert_eq!(reader.position(), Seq(journal.committed().0 + 1));
    journal.check().unwrap();
    journal.close();
}

async fn appender(journal: Journal, batch: u64, seconds: u64) -> Vec<Duration> {
    let payload = Bytes::from(vec![0x5a; PAYLOAD]);
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut waits = Vec::new();
    while Instant::now() < until {
        let record = || Record {
            kind: 1,
            time: 1,
            payload: payload.clone(),
        };
        let records = (0..batch).map(|_| record()).collect();
        let begun = Instant::now();
        journal.append(records).await.unwrap();
        waits.push(begun.elapsed());
    }
    waits
}
