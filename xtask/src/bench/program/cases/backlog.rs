//! `backlog`: a start with a large journal, and sinks that have all of it before them.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::time::sleep;

use super::sinks;
use crate::disk;
use crate::measure;
use crate::relay::Relay;
use crate::scene::{self, Bench, Folder};
use crate::sensors::{Fleet, Load, Sent};
use crate::table::Row;

/// Bytes of an event in the journal, about.
const EVENT: f64 = 750.0;
/// Starts of which the middle one counts.
const STARTS: usize = 5;

pub(crate) async fn run(bench: &Bench) -> Result<Vec<Row>> {
    let bytes = (bench.gib * f64::from(1 << 30)) as u64;
    let limit = bytes + bytes / 4 + (256 << 20);
    let folder = Folder::make(bench, limit)?;
    let sent = fill(bench, &folder, limit, bytes).await?;
    let mut rows = vec![starts(bench, &folder, limit).await?];
    for sink in ["stdout", "prometheus"] {
        rows.push(catch_up(bench, &folder, limit, sink, scene::total(&sent)).await?);
    }
    if let Some(last) = rows.last_mut() {
        scene::check_disk(last, &folder.data(), &sent)?;
    }
    Ok(rows)
}

/// Puts events of about so many bytes into a journal.
async fn fill(bench: &Bench, folder: &Folder, limit: u64, bytes: u64) -> Result<Vec<Sent>> {
    let relay = Relay::start(&bench.program, folder.path(), limit, "").await?;
    let load = Load {
        most: (bytes as f64 / EVENT) as u64,
        ..bench.load(4, None)
    };
    let fleet = Fleet::start(relay.link, &load).await?;
    while !fleet.is_done(&load) && fleet.is_whole() {
        sleep(Duration::from_millis(50)).await;
    }
    let sent = fleet.finish().await?;
    relay.stop().await?;
    Ok(sent)
}

/// From the start of the program until it is ready, with a journal that the kernel has to read from the disk.
async fn starts(bench: &Bench, folder: &Folder, limit: u64) -> Result<Row> {
    let (mut times, mut memory) = (Vec::new(), 0.0_f64);
    for _ in 0..STARTS {
        disk::forget(&folder.data().join("journal"))?;
        let relay = Relay::start(&bench.program, folder.path(), limit, "").await?;
        times.push(relay.ready_after.as_secs_f64() * 1000.0);
        memory = memory.max(measure::memory(relay.pid)?.1);
        relay.stop().await?;
    }
    times.sort_by(f64::total_cmp);
    let mut row = Row::new("backlog", format!("{} GiB, start", bench.gib));
    row.put("ready after ms", times[STARTS / 2], 0);
    row.put("at most ms", times[STARTS - 1], 0);
    row.put("peak MiB", memory, 0);
    Ok(row)
}

/// A sink that was away: it begins at the journal's beginning.
async fn catch_up(
    bench: &Bench,
    folder: &Folder,
    limit: u64,
    sink: &'static str,
    wanted: u64,
) -> Result<Row> {
    let mut row = Row::new("backlog", format!("{} GiB, {sink} catches up", bench.gib));
    disk::forget(&folder.data().join("journal"))?;
    let more = sinks::settings(folder, &[sink], &["start: beginning"]);
    let relay = Relay::start(&bench.program, folder.path(), limit, &more).await?;
    let begun = Instant::now();
    scene::caught_up(&mut row, &relay, &[sink], wanted).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let cpu = measure::cpu(relay.pid)?.as_secs_f64();
    row.put("events/s", wanted as f64 / seconds, 0);
    row.put("relay µs/event", cpu * 1e6 / wanted as f64, 2);
    scene::put_memory(&mut row, &relay)?;
    if let Err(error) = relay.stop().await {
        row.failed(format!("{error:#}"));
    }
    Ok(row)
}
