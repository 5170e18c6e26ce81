//! `ingest`: events in, on disk, acknowledged; nobody reads them.

use anyhow::Result;

use crate::disk;
use crate::relay::Relay;
use crate::scene::{self, Bench, Folder};
use crate::sensors::{Fleet, Load};
use crate::table::Row;

/// Bound of the journal, in bytes.
const LIMIT: u64 = 3 << 30;

pub(crate) async fn run(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for sensors in [1, 4, 16] {
        let what = match sensors {
            1 => "1 sensor, flat out".to_owned(),
            _ => format!("{sensors} sensors, flat out"),
        };
        if bench.wants(&what) {
            let load = bench.load(sensors, None);
            rows.push(measure(bench, Row::new("ingest", what), &load).await?);
        }
    }
    Ok(rows)
}

/// One load on a relay without sinks and readers.
pub(super) async fn measure(bench: &Bench, mut row: Row, load: &Load) -> Result<Row> {
    let folder = Folder::make(bench, LIMIT)?;
    let probe = disk::sync_times(folder.path())?;
    let relay = Relay::start(&bench.program, folder.path(), LIMIT, "").await?;
    let fleet = Fleet::start(relay.link, load).await?;
    scene::warm_up().await;
    let groups = self::groups(&relay).await?;
    let spent = scene::window(bench, &relay, &fleet, load).await?;
    let groups = spent.rate(self::groups(&relay).await? - groups);
    let totals = fleet.totals.clone();
    let sent = fleet.finish().await?;
    spent.put_rates(&mut row);
    scene::put_acks(&mut row, &totals.times());
    row.put("fdatasyncs/s", groups, 0);
    spent.put_cpu(&mut row);
    scene::put_memory(&mut row, &relay)?;
    scene::put_disk(&mut row, &probe);
    scene::check_metrics(&mut row, &relay, &sent).await?;
    scene::stop(&mut row, relay, &folder, &sent).await?;
    Ok(row)
}

/// Groups of events made durable so far.
async fn groups(relay: &Relay) -> Result<f64> {
    Ok(relay.metrics().await?.get("cresset_journal_groups_total"))
}
