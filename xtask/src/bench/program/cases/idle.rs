//! `idle`: sensors and a reader are connected, and nothing happens.

use anyhow::Result;
use tokio::time::sleep;

use crate::measure;
use crate::readers::Readers;
use crate::relay::Relay;
use crate::scene::{self, Bench, Folder, Moment, Spent};
use crate::sensors::Fleet;
use crate::table::Row;

/// Bound of the journal, in bytes.
const LIMIT: u64 = 1 << 30;

pub(crate) async fn run(bench: &Bench) -> Result<Vec<Row>> {
    let mut row = Row::new("idle", "3 sensors, 1 client, no events");
    let folder = Folder::make(bench, LIMIT)?;
    let relay = Relay::start(&bench.program, folder.path(), LIMIT, "").await?;
    let readers = Readers::connect(relay.feed, 1, None).await?;
    readers.go();
    let fleet = Fleet::start(relay.link, &bench.load(3, Some(0.0))).await?;
    scene::warm_up().await;
    let before = Moment::now(&relay, &fleet.totals)?;
    // The kernel counts in hundredths of a second, so a short time would say little.
    sleep(2 * bench.window()).await;
    let spent = Spent::between(&before, &Moment::now(&relay, &fleet.totals)?);
    let sent = fleet.finish().await?;
    row.put("seconds", spent.seconds, 0);
    row.put("% of a core", 100.0 * spent.relay / spent.seconds, 2);
    let (now, most) = measure::memory(relay.pid)?;
    row.put("MiB", now, 1);
    row.put("peak MiB", most, 1);
    scene::check_metrics(&mut row, &relay, &sent).await?;
    readers.hang_up().await?;
    scene::stop(&mut row, relay, &folder, &sent).await?;
    Ok(vec![row])
}
