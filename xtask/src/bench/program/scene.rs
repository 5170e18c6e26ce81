//! What every case needs: a relay on a folder of its own, a stretch of time in which is measured, and the accounts that
//! must add up afterwards.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::time::sleep;

use super::disk;
use super::measure::{self, Times};
use super::relay::{Metrics, Relay};
use super::sensors::{Fleet, Load, Sent, Totals};
use super::table::Row;

/// Before anything is measured, so that connections, caches and the first segment are there.
const WARM_UP: Duration = Duration::from_millis(700);
/// Sinks and readers have this long to come to the end of what they were given.
const PATIENCE: Duration = Duration::from_secs(300);
/// Stays free on the file system, whatever a case needs, in bytes.
const RESERVE: u64 = 4 << 30;

/// The settings of all cases.
pub(crate) struct Bench {
    pub(crate) program: PathBuf,
    /// Each case has a folder in it while it runs.
    pub(crate) folder: PathBuf,
    /// Part of the names of the rows that are wanted.
    pub(crate) rows: String,
    pub(crate) seconds: u64,
    pub(crate) gib: f64,
    pub(crate) seed: u64,
    /// Of the case that distributes policies.
    pub(crate) policies: usize,
    pub(crate) sensors: usize,
    /// Sinks also against real servers.
    pub(crate) real: bool,
}

impl Bench {
    pub(crate) fn load(&self, sensors: usize, rate: Option<f64>) -> Load {
        Load {
            sensors,
            rate,
            most: u64::MAX,
            // Two fleets have different streams.
            seed: self.seed + FLEETS.fetch_add(1, Ordering::Relaxed),
            clock: None,
        }
    }

    /// Whether a row is to be measured.
    pub(crate) fn wants(&self, row: &str) -> bool {
        row.contains(&self.rows)
    }

    /// How long is measured.
    pub(crate) fn window(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// Fleets made so far.
static FLEETS: AtomicU64 = AtomicU64::new(0);

/// Begin of the names of cases' folders; the process id follows.
const PREFIX: &str = "run-";

/// A folder that is removed when dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Makes it, where `bytes` and a reserve are free.
    pub(crate) fn make(bench: &Bench, bytes: u64) -> Result<Folder> {
        std::fs::create_dir_all(&bench.folder)?;
        remove_left(&bench.folder)?;
        let room = disk::room(&bench.folder)?;
        ensure!(
            room >= bytes + RESERVE,
            "{} has {} MiB free; this case needs {} MiB and leaves {} MiB alone",
            bench.folder.display(),
            room >> 20,
            bytes >> 20,
            RESERVE >> 20
        );
        let name = format!("{PREFIX}{}", std::process::id());
        let path = std::path::absolute(bench.folder.join(name))?;
        std::fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(Folder(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.0.join("data")
    }
}

/// Removes what runs left that were killed.
fn remove_left(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let pid = name.and_then(|name| name.strip_prefix(PREFIX)?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            std::fs::remove_dir_all(path)?;
        }
    }
    Ok(())
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is in the build folder, where people look for such things.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// All counters at one moment.
pub(crate) struct Moment {
    at: Instant,
    offered: u64,
    pub(crate) acknowledged: u64,
    relay: Duration,
    own: Duration,
    busy: Duration,
}

impl Moment {
    pub(crate) fn now(relay: &Relay, totals: &Totals) -> Result<Moment> {
        Ok(Moment {
            at: Instant::now(),
            offered: totals.offered(),
            acknowledged: totals.acknowledged(),
            relay: measure::cpu(relay.pid)?,
            own: measure::cpu(std::process::id())?,
            busy: measure::machine_cpu()?.0,
        })
    }
}

/// What happened between two moments.
pub(crate) struct Spent {
    pub(crate) seconds: f64,
    pub(crate) offered: f64,
    pub(crate) acknowledged: f64,
    /// CPU seconds.
    pub(crate) relay: f64,
    pub(crate) own: f64,
    others: f64,
}

impl Spent {
    pub(crate) fn between(before: &Moment, after: &Moment) -> Spent {
        let relay = (after.relay - before.relay).as_secs_f64();
        let own = (after.own - before.own).as_secs_f64();
        let busy = (after.busy - before.busy).as_secs_f64();
        Spent {
            seconds: (after.at - before.at).as_secs_f64(),
            offered: (after.offered - before.offered) as f64,
            acknowledged: (after.acknowledged - before.acknowledged) as f64,
            relay,
            own,
            others: (busy - relay - own).max(0.0),
        }
    }

    pub(crate) fn rate(&self, events: f64) -> f64 {
        events / self.seconds
    }

    /// CPU of the relay, in microseconds an event.
    pub(crate) fn relay_us(&self, events: f64) -> f64 {
        self.relay * 1e6 / events
    }

    pub(crate) fn put_rates(&self, row: &mut Row) {
        row.put("offered/s", self.rate(self.offered), 0);
        row.put("acked/s", self.rate(self.acknowledged), 0);
    }

    pub(crate) fn put_cpu(&self, row: &mut Row) {
        row.put("relay µs/event", self.relay_us(self.acknowledged), 2);
        row.put("load µs/event", self.own * 1e6 / self.acknowledged, 2);
        row.put("others' cores", self.others / self.seconds, 2);
    }
}

/// Lets a fleet come into its stride.
pub(crate) async fn warm_up() {
    sleep(WARM_UP).await;
}

/// Lets a fleet run for the window and gives what was spent in it. Ends early when the load has no more to send.
pub(crate) async fn window(
    bench: &Bench,
    relay: &Relay,
    fleet: &Fleet,
    load: &Load,
) -> Result<Spent> {
    let before = Moment::now(relay, &fleet.totals)?;
    fleet.totals.measure(true);
    let end = Instant::now() + bench.window();
    while Instant::now() < end && !fleet.is_done(load) && fleet.is_whole() {
        sleep(Duration::from_millis(20)).await;
    }
    let after = Moment::now(relay, &fleet.totals)?;
    fleet.totals.measure(false);
    Ok(Spent::between(&before, &after))
}

/// Half, ninety-nine in a hundred and nearly all acknowledgements took at most so long.
pub(crate) fn put_acks(row: &mut Row, times: &Times) {
    for (name, share) in [("ack p50 ms", 0.5), ("p99 ms", 0.99), ("p99.9 ms", 0.999)] {
        row.put(name, times.ms(share), 1);
    }
}

pub(crate) fn put_memory(row: &mut Row, relay: &Relay) -> Result<()> {
    row.put("peak MiB", measure::memory(relay.pid)?.1, 0);
    Ok(())
}

pub(crate) fn put_disk(row: &mut Row, probe: &Times) {
    row.put("fdatasync p99 ms", probe.ms(0.99), 1);
}

/// Events of all streams.
pub(crate) fn total(sent: &[Sent]) -> u64 {
    sent.iter().map(|sent| sent.last).sum()
}

/// What was acknowledged is what the relay says that it acknowledged and journaled, and nothing was lost.
pub(crate) async fn check_metrics(row: &mut Row, relay: &Relay, sent: &[Sent]) -> Result<Metrics> {
    let metrics = relay.metrics().await?;
    let wanted = total(sent) as f64;
    let link = |outcome: &str| {
        metrics.get(&format!(
            "cresset_ingest_events_total{{door=\"link\",outcome=\"{outcome}\"}}"
        ))
    };
    let journaled = metrics.get("cresset_journal_next_sequence") - 1.0;
    for (name, found, wanted) in [
        ("acknowledged", link("acknowledged"), wanted),
        ("journaled", journaled, wanted),
        ("refused", link("refused"), 0.0),
        ("rejected", link("rejected"), 0.0),
        ("duplicate", link("duplicate"), 0.0),
        ("lost", metrics.sum("cresset_lost_events_total"), 0.0),
        (
            "missed by feeds",
            metrics.sum("cresset_feed_missed_total"),
            0.0,
        ),
        (
            "accounts broken",
            metrics.get("cresset_journal_accounts_broken"),
            0.0,
        ),
    ] {
        row.must(found == wanted, || {
            format!("/metrics says {name} {found}, and it should be {wanted}")
        });
    }
    Ok(metrics)
}

/// What was acknowledged is on the disk, each stream without a hole from its first event to its last.
pub(crate) fn check_disk(row: &mut Row, data: &Path, sent: &[Sent]) -> Result<()> {
    let kept = match disk::read_back(data) {
        Ok(kept) => kept,
        Err(error) => {
            row.failed(format!("{error:#}"));
            return Ok(());
        }
    };
    let wanted = total(sent);
    row.must(kept.count + kept.removed == wanted, || {
        format!(
            "{wanted} events were acknowledged; the journal holds {} and retention took {}",
            kept.count, kept.removed
        )
    });
    for stream in sent.iter().filter(|stream| stream.last > 0) {
        // Retention takes the oldest: the newest of a stream are there, or it had ended before what is kept began.
        let Some((first, last)) = kept.streams.get(&stream.stream).copied() else {
            row.must(kept.removed > 0, || {
                format!("the journal has nothing of stream {}", stream.stream)
            });
            continue;
        };
        row.must(last == stream.last, || {
            format!(
                "stream {} was acknowledged up to {}; the journal has it up to {last}",
                stream.stream, stream.last
            )
        });
        row.must(kept.removed > 0 || first == 1, || {
            format!("the journal has stream {} from {first} on", stream.stream)
        });
    }
    Ok(())
}

/// Waits until nothing is pending for any of these sinks, and checks that each was given everything.
pub(crate) async fn caught_up(
    row: &mut Row,
    relay: &Relay,
    sinks: &[&str],
    wanted: u64,
) -> Result<Duration> {
    let begun = Instant::now();
    loop {
        let metrics = relay.metrics().await?;
        let pending: f64 = sinks.iter().map(|sink| metrics.sink("pending", sink)).sum();
        if pending == 0.0 {
            for sink in sinks {
                let delivered = metrics.sink("delivered_total", sink);
                row.must(delivered == wanted as f64, || {
                    format!("{wanted} events were journaled and {sink} was given {delivered}")
                });
            }
            return Ok(begun.elapsed());
        }
        if begun.elapsed() > PATIENCE {
            row.failed(format!("{pending} events are pending after {PATIENCE:?}"));
            return Ok(begun.elapsed());
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Stops the relay and looks at what it leaves on the disk.
pub(crate) async fn stop(
    row: &mut Row,
    relay: Relay,
    folder: &Folder,
    sent: &[Sent],
) -> Result<()> {
    if let Err(error) = relay.stop().await {
        row.failed(format!("{error:#}"));
    }
    check_disk(row, &folder.data(), sent)
}
