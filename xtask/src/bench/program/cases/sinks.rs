//! `sinks`: events in, and out to every kind of sink that there is.

use anyhow::Result;

use crate::disk;
use crate::relay::Relay;
use crate::scene::{self, Bench, Folder, Moment, Spent};
use crate::sensors::{Fleet, Load};
use crate::table::Row;

/// A sink by its name, and the lines that set it up; `{folder}` is the case's own.
const SINKS: &[(&str, &[&str])] = &[
    ("stdout", &["type: stdout", "format: json"]),
    (
        "file",
        &[
            "type: file",
            "format: json",
            "path: {folder}/out/events.jsonl",
            "rotate: {max_size: 64GiB}",
        ],
    ),
    ("prometheus", &["type: prometheus"]),
];

/// Kinds that need a destination: `bench sinks` measures those alone.
pub(super) const ABSENT: &[&str] = &["kafka", "elasticsearch", "otlp"];

/// So many events at most: 0.75 KB each in the journal and 1.4 KB in the file, below 4 GB together.
const MOST: u64 = 1_500_000;
/// Bound of the journal, in bytes: above what is sent, so that nothing expires.
const LIMIT: u64 = 4 << 30;
/// What the disk must have.
const NEED: u64 = 4 << 30;

pub(crate) async fn run(bench: &Bench) -> Result<Vec<Row>> {
    let all: Vec<&str> = names().collect();
    let mut wanted = vec![
        ("all sinks, flat out".to_owned(), all.clone(), None, MOST),
        (
            "all sinks, 100 k/s".to_owned(),
            all.clone(),
            Some(100_000.0),
            MOST,
        ),
    ];
    for name in all {
        wanted.push((format!("{name} only, flat out"), vec![name], None, MOST / 2));
    }
    let mut rows = Vec::new();
    for (what, names, rate, most) in wanted {
        if bench.wants(&what) {
            let load = Load {
                most,
                ..bench.load(4, rate)
            };
            rows.push(measure(bench, Row::new("sinks", what), &names, &load).await?);
        }
    }
    println!(
        "sinks: stdout goes to /dev/null; not among them: {}",
        ABSENT.join(", ")
    );
    Ok(rows)
}

/// Of all sinks.
fn names() -> impl Iterator<Item = &'static str> {
    SINKS.iter().map(|(name, _)| *name)
}

/// The settings of some sinks, with `more` lines in each.
pub(super) fn settings(folder: &Folder, names: &[&str], more: &[&str]) -> String {
    let folder = folder.path().display().to_string();
    let mut text = "sinks:\n".to_owned();
    for (name, lines) in SINKS.iter().filter(|(name, _)| names.contains(name)) {
        text += &format!("  {name}:\n");
        for line in lines.iter().chain(more) {
            text += &format!("    {}\n", line.replace("{folder}", &folder));
        }
    }
    text
}

async fn measure(bench: &Bench, mut row: Row, names: &[&str], load: &Load) -> Result<Row> {
    let folder = Folder::make(bench, NEED)?;
    let probe = disk::sync_times(folder.path())?;
    let more = settings(&folder, names, &[]);
    let relay = Relay::start(&bench.program, folder.path(), LIMIT, &more).await?;
    let fleet = Fleet::start(relay.link, load).await?;
    let totals = fleet.totals.clone();
    let begun = Moment::now(&relay, &totals)?;
    scene::warm_up().await;
    let spent = scene::window(bench, &relay, &fleet, load).await?;
    let metrics = relay.metrics().await?;
    let lag = |sink: &&str| metrics.sink("pending", sink);
    let lag = names.iter().map(lag).fold(0.0, f64::max);
    let sent = fleet.finish().await?;
    let wanted = scene::total(&sent);
    let drained = scene::caught_up(&mut row, &relay, names, wanted).await?;
    let whole = Spent::between(&begun, &Moment::now(&relay, &totals)?);
    spent.put_rates(&mut row);
    row.put("through all sinks/s", whole.rate(wanted as f64), 0);
    row.put("lag at end", lag, 0);
    row.put("drained after s", drained.as_secs_f64(), 1);
    row.put("relay µs/event", whole.relay_us(wanted as f64), 2);
    scene::put_acks(&mut row, &totals.times());
    scene::put_memory(&mut row, &relay)?;
    scene::put_disk(&mut row, &probe);
    let metrics = scene::check_metrics(&mut row, &relay, &sent).await?;
    check_losses(&mut row, &metrics, names);
    if names.contains(&"prometheus") {
        let counted = metrics.sum("cresset_events_total");
        row.must(counted == wanted as f64, || {
            format!("prometheus counted {counted} of {wanted} events")
        });
    }
    scene::stop(&mut row, relay, &folder, &sent).await?;
    if names.contains(&"file") {
        let lines = disk::lines(&folder.path().join("out/events.jsonl"))?;
        row.must(lines == wanted, || {
            format!("the file has {lines} lines of {wanted} events")
        });
    }
    Ok(row)
}

fn check_losses(row: &mut Row, metrics: &crate::relay::Metrics, names: &[&str]) {
    for sink in names {
        for figure in [
            "dead_lettered_total",
            "expired_total",
            "corrupt_total",
            "filtered_total",
        ] {
            let lost = metrics.sink(figure, sink);
            row.must(lost == 0.0, || format!("{sink}: {figure} is {lost}"));
        }
    }
}
