//! `overload`: many sensors offer five times what the relay can take.
//!
//! The windows of the link hold back what the relay does not take; its memory must not grow with what is offered, and what
//! it acknowledged must be on the disk.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::time::sleep;

use crate::measure;
use crate::relay::Relay;
use crate::scene::{self, Bench, Folder, Moment, Spent};
use crate::sensors::Fleet;
use crate::table::Row;

/// Bound of the journal, in bytes.
const LIMIT: u64 = 3 << 30;
const SENSORS: usize = 40;
/// Capacity is what a few sensors get through in this time.
const PROBE: Duration = Duration::from_secs(3);
/// Offered in proportion to it.
const TIMES: f64 = 5.0;
/// Memory of the second half may be above that of the first by so much: an allocator's slack, no growth.
const FLAT: f64 = 1.25;

pub(crate) async fn run(bench: &Bench) -> Result<Vec<Row>> {
    let mut row = Row::new("overload", format!("{SENSORS} sensors, {TIMES} × capacity"));
    let folder = Folder::make(bench, LIMIT)?;
    let relay = Relay::start(&bench.program, folder.path(), LIMIT, "").await?;
    let (capacity, mut sent) = capacity(bench, &relay).await?;

    let load = bench.load(SENSORS, Some(TIMES * capacity));
    let fleet = Fleet::start(relay.link, &load).await?;
    let totals = fleet.totals.clone();
    scene::warm_up().await;
    let before = Moment::now(&relay, &totals)?;
    totals.measure(true);
    let halves = [
        most_memory(&relay, bench.window() / 2).await?,
        most_memory(&relay, bench.window() / 2).await?,
    ];
    let spent = Spent::between(&before, &Moment::now(&relay, &totals)?);
    sent.extend(fleet.finish().await?);

    row.put("capacity/s", capacity, 0);
    spent.put_rates(&mut row);
    scene::put_acks(&mut row, &totals.times());
    row.put("MiB 1st half", halves[0], 0);
    row.put("MiB 2nd half", halves[1], 0);
    scene::put_memory(&mut row, &relay)?;
    spent.put_cpu(&mut row);
    row.must(halves[1] <= halves[0] * FLAT, || {
        format!("memory grew from {:.0} to {:.0} MiB", halves[0], halves[1])
    });
    scene::check_metrics(&mut row, &relay, &sent).await?;
    scene::stop(&mut row, relay, &folder, &sent).await?;
    Ok(vec![row])
}

/// Events a second that four sensors get through, and what they sent.
async fn capacity(bench: &Bench, relay: &Relay) -> Result<(f64, Vec<crate::sensors::Sent>)> {
    let fleet = Fleet::start(relay.link, &bench.load(4, None)).await?;
    scene::warm_up().await;
    let before = Moment::now(relay, &fleet.totals)?;
    sleep(PROBE).await;
    let spent = Spent::between(&before, &Moment::now(relay, &fleet.totals)?);
    Ok((spent.rate(spent.acknowledged), fleet.finish().await?))
}

/// The most memory that was resident at once, in MiB.
async fn most_memory(relay: &Relay, time: Duration) -> Result<f64> {
    let (end, mut most) = (Instant::now() + time, 0.0_f64);
    while Instant::now() < end {
        most = most.max(measure::memory(relay.pid)?.0);
        sleep(Duration::from_millis(50)).await;
    }
    Ok(most)
}
